/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * steps [KILLS]: threads change two tables and their sums in steps, and die at each numbered point, one
 * after the other, and again in the middle of being recovered; then KILLS (300) times at random with
 * several threads. What is found afterwards must be what a model says after so many whole steps.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#define THREADS		4
#define KEYS		600u	/* of each thread */
#define LARGE		8192	/* so that the second table grows often */

struct item {
	uint64_t value;
	uint64_t key;
};

struct sums {
	uint64_t done;		/* operations */
	uint64_t in_left, in_right;
	uint64_t value;		/* of all records of this thread */
};

/* What a thread's operations have led to. */
struct model {
	uint8_t where[KEYS];	/* 0: nowhere, 1: left, 2: right */
	uint64_t value[KEYS];
	struct sums sums;
};

struct world {
	struct fr *fr;
	struct fr_table *left, *right;
	struct sums *sums;
	struct model start[THREADS];
	uint32_t keys;
};

static uint64_t seed;
static uint64_t kill_at;

static void must(bool holds, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void must(bool holds, const char *fmt, ...)
{
	va_list ap;

	if (holds)
		return;
	va_start(ap, fmt);
	printf("FAIL steps: FE_SEED=%llu, kill at %llu: ", (unsigned long long)seed, (unsigned long long)kill_at);
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	exit(1);
}

static uint64_t mixed(uint64_t z)
{
	z += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* ---- the operations, the same ones for tables and model ---- */

struct op {
	uint32_t first, second;	/* keys; more than one in a step now and then */
	bool both;
	uint64_t value;
	unsigned what;
};

static struct op op_of(const struct world *w, uint32_t thread, uint64_t n)
{
	uint64_t r = mixed(seed ^ (uint64_t)thread << 56 ^ n);
	struct op op = {
		.first = (uint32_t)(r % w->keys),
		.second = (uint32_t)(r / 1000 % w->keys),
		.both = r >> 40 & 1,
		.value = r >> 44,
		.what = (unsigned)(r >> 32 & 7),
	};

	op.both &= op.first != op.second;
	return op;
}

/* Where a key is after an operation that found it at `where`. */
static unsigned next_place(unsigned what, unsigned where)
{
	if (!where)
		return what & 1 ? 1 : 2;
	return what < 2 ? 0 : what < 5 ? 3 - where : where;
}

static void model_one(struct model *m, uint32_t key, const struct op *op)
{
	unsigned from = m->where[key], to = next_place(op->what, from);

	m->sums.in_left += (to == 1) - (from == 1);
	m->sums.in_right += (to == 2) - (from == 2);
	m->sums.value -= from ? m->value[key] : 0;
	m->where[key] = (uint8_t)to;
	m->value[key] = to ? op->value : 0;
	m->sums.value += m->value[key];
}

static void model_step(const struct world *w, struct model *m, uint32_t thread)
{
	struct op op = op_of(w, thread, m->sums.done);

	model_one(m, op.first, &op);
	if (op.both)
		model_one(m, op.second, &op);
	m->sums.done++;
}

static struct item *find(struct fr_table *t, uint64_t key)
{
	return fr_index_find(t, fr_key_hash(t, &key), &key);
}

static void put(struct fr_slot *slot, struct fr_table *t, uint64_t key, uint64_t value)
{
	struct item *item = fr_alloc_record(slot, t);

	must(item != NULL, "no record");
	item->key = key;
	item->value = value;
	fr_index_add(slot, t, fr_key_hash(t, &key), item);
}

static void take(struct fr_slot *slot, struct fr_table *t, struct item *item)
{
	fr_index_remove(slot, t, fr_key_hash(t, &item->key), item);
	fr_free_record(slot, t, item);
}

static void table_one(struct world *w, struct fr_slot *slot, struct sums *s, uint64_t key, const struct op *op)
{
	struct item *left = find(w->left, key), *right = find(w->right, key), *item = left ? left : right;
	unsigned from = left ? 1 : right ? 2 : 0, to = next_place(op->what, from);

	must(!left || !right, "key %llx is in both tables", (unsigned long long)key);
	fr_set(slot, s->value, s->value - (item ? item->value : 0) + (to ? op->value : 0));
	if (from == to) {
		fr_set(slot, item->value, op->value);
		return;
	}
	if (from)
		take(slot, from == 1 ? w->left : w->right, item);
	FR_STEP();
	if (to)
		put(slot, to == 1 ? w->left : w->right, key, op->value);
	fr_set(slot, s->in_left, s->in_left + (to == 1) - (from == 1));
	fr_set(slot, s->in_right, s->in_right + (to == 2) - (from == 2));
}

/* Both tables hash alike, so one order of the parts serves both; left before right. */
static void lock_keys(struct world *w, const uint64_t *keys, unsigned n, bool lock)
{
	uint32_t a = fr_key_hash(w->left, &keys[0]), b = fr_key_hash(w->left, &keys[n - 1]);
	uint32_t low = fr_key_part(a) < fr_key_part(b) ? a : b, high = low == a ? b : a;
	struct fr_table *const tables[] = { w->left, w->right };

	for (int i = 0; i < 2; i++) {
		if (lock) {
			fr_key_lock(tables[i], low);
			if (fr_key_part(low) != fr_key_part(high))
				fr_key_lock(tables[i], high);
		} else {
			fr_key_unlock(tables[i], low);
			if (fr_key_part(low) != fr_key_part(high))
				fr_key_unlock(tables[i], high);
		}
	}
}

static void table_step(struct world *w, struct fr_slot *slot, uint32_t thread)
{
	struct sums *s = &w->sums[thread];
	struct op op = op_of(w, thread, s->done);
	uint64_t keys[] = { (uint64_t)thread << 32 | op.first, (uint64_t)thread << 32 | op.second };

	lock_keys(w, keys, op.both ? 2 : 1, true);
	fr_begin(slot);
	table_one(w, slot, s, keys[0], &op);
	FR_STEP();
	if (op.both)
		table_one(w, slot, s, keys[1], &op);
	fr_set(slot, s->done, s->done + 1);
	fr_commit(slot);
	lock_keys(w, keys, op.both ? 2 : 1, false);
}

/* ---- a checkpoint, and dying in it ---- */

static int no_worker(struct fr *fr, void *arg)
{
	(void)fr;
	(void)arg;
	return 0;
}

static void make(struct world *w, uint32_t keys, uint64_t prepare)
{
	struct fr_options o = {
		.struct_size = sizeof(o),
		.name = "steps",
		.slots = THREADS,
		.request_size = 4096,
		.reply_size = 4096,
		.worker = no_worker,
	};
	struct fr_slot *slot;
	void *area = NULL;

	memset(w, 0, sizeof(*w));
	w->keys = keys;
	must(!fr_new(&o, &w->fr), "fr_new failed");
	must(!fr_table_new(w->fr, "left", sizeof(struct item), 8, 8, 100000, &w->left) &&
	     !fr_table_new(w->fr, "right", LARGE, 8, 8, 100000, &w->right) &&
	     !fr_area_new(w->fr, "sums", THREADS * sizeof(*w->sums), &area), "no tables");
	w->sums = area;
	must(!fr_slot_take(w->fr, 0, &slot), "no slot");
	for (uint64_t i = 0; i < prepare; i++)
		table_step(w, slot, 0);
	fr_slot_leave(slot);
	atomic_store(&w->fr->cp->steps[0], 0);
}

static void *run_thread(void *arg)
{
	void **args = arg;
	struct world *w = args[0];
	uint32_t thread = (uint32_t)(uintptr_t)args[1];
	uint64_t ops = (uintptr_t)args[2];
	struct fr_slot *slot;

	if (fr_slot_take(w->fr, thread, &slot))
		abort();
	while (w->sums[thread].done < ops)
		table_step(w, slot, thread);
	fr_slot_leave(slot);
	return NULL;
}

static void run_threads(struct world *w, uint32_t threads, uint64_t ops)
{
	void *args[THREADS][3];
	pthread_t t[THREADS];

	for (uint32_t i = 0; i < threads; i++) {
		args[i][0] = w;
		args[i][1] = (void *)(uintptr_t)i;
		args[i][2] = (void *)(uintptr_t)ops;
		must(!pthread_create(&t[i], NULL, run_thread, args[i]), "no thread");
	}
	for (uint32_t i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
}

#ifdef FR_KILL_POINTS
static const bool have_points = true;
#else
static const bool have_points;
#endif

/* Counts from now on, in this process. */
static void arm(struct world *w, uint64_t at)
{
#ifdef FR_KILL_POINTS
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)at);
	setenv("FUSERECOVER_KILL_AT", text, 1);
	fr_kill_points(w->fr->cp->steps);
#else
	(void)w;
	(void)at;
#endif
}

/* True if it was killed, false if it came to its end. */
static bool wait_for(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
	must((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (WIFEXITED(status) && !WEXITSTATUS(status)),
	     "a child ended with status %x", status);
	return WIFSIGNALED(status);
}

static bool recover_and_die(struct world *w, uint64_t after)
{
	uint64_t now = atomic_load(&w->fr->cp->steps[0]);
	pid_t pid = fork();

	must(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		arm(w, now + after);
		_exit(fr_takeover(w->fr) ? 1 : 0);
	}
	return wait_for(pid);
}

static void recover(struct world *w)
{
	fr_reset_locks(w->fr);
	for (uint32_t i = 0; i < w->fr->layout.slots; i++)
		fr_mutex_robust(&w->fr->cp_slots[i].alive);
	must(!w->fr->cp->damaged, "a thread found damage");
	must(!fr_takeover(w->fr), "the takeover failed");
}

static void verify(struct world *w)
{
	uint64_t left = 0, right = 0;
	char why[128];

	must(fr_table_whole(w->left, why, sizeof(why)), "left: %s", why);
	must(fr_table_whole(w->right, why, sizeof(why)), "right: %s", why);
	for (uint32_t t = 0; t < THREADS; t++) {
		struct model *m = &w->start[t];

		while (m->sums.done < w->sums[t].done)
			model_step(w, m, t);
		must(!memcmp(&m->sums, &w->sums[t], sizeof(m->sums)), "thread %u: the sums after %llu steps are wrong", t,
		     (unsigned long long)m->sums.done);
		left += m->sums.in_left;
		right += m->sums.in_right;
		for (uint32_t k = 0; k < w->keys; k++) {
			uint64_t key = (uint64_t)t << 32 | k;
			struct item *l = find(w->left, key), *r = find(w->right, key);

			must(!!l == (m->where[k] == 1) && !!r == (m->where[k] == 2), "key %llx: %d %d, expected %u",
			     (unsigned long long)key, !!l, !!r, m->where[k]);
			must(!m->where[k] || (l ? l : r)->value == m->value[k], "key %llx: a wrong value", (unsigned long long)key);
		}
	}
	must(fr_table_used(w->left) == left && fr_table_used(w->right) == right, "records leak: %u and %u, expected %llu and %llu",
	     fr_table_used(w->left), fr_table_used(w->right), (unsigned long long)left, (unsigned long long)right);
}

/* ---- the tests ---- */

/* One thread, killed at the point with this number. False where it does not get that far. */
static bool killed_at(uint64_t at, uint32_t keys, uint64_t prepare, uint64_t ops, uint64_t *twice)
{
	struct world w;
	bool killed;
	pid_t pid;

	kill_at = at;
	make(&w, keys, prepare);
	pid = fork();
	must(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		arm(&w, at);
		run_threads(&w, 1, prepare + ops);
		_exit(0);
	}
	killed = wait_for(pid);
	for (int i = 0; killed && i < 3; i++)
		*twice += recover_and_die(&w, 1 + mixed(at * 4 + (uint64_t)i) % 40);
	recover(&w);
	verify(&w);
	must(killed || w.left->cp->buckets + w.right->cp->buckets > 2 * FIRST_BUCKETS + 10, "the index did not grow");
	/* and life goes on */
	run_threads(&w, 1, prepare + ops + 100);
	verify(&w);
	fr_free(w.fr);
	return killed;
}

static void each_point(void)
{
	uint64_t at, twice = 0;

	/* About as many records as the index has buckets at first: then these are split. */
	for (at = 1; killed_at(at, KEYS, 100, 60, &twice); at++)
		;
	must(at > 500, "only %llu points", (unsigned long long)at);
	must(twice > 100, "only %llu died in the takeover", (unsigned long long)twice);
	printf("ok steps/each-point\n# %llu points, %llu deaths in a takeover\n", (unsigned long long)at - 1,
	       (unsigned long long)twice);
}

static void at_random(unsigned kills)
{
	uint64_t r = seed, steps = 0;
	struct world w;

	make(&w, KEYS, 0);
	for (unsigned i = 0; i < kills; i++) {
		bool by_point = (r = mixed(r)) % 3 == 0 && have_points;
		struct timespec t = { .tv_nsec = (long)((r = mixed(r)) % 8000000) };
		uint64_t now = atomic_load(&w.fr->cp->steps[0]);
		pid_t pid = fork();

		kill_at = i;
		must(pid >= 0, "fork: %s", strerror(errno));
		if (!pid) {
			if (by_point)
				arm(&w, now + 1 + r % 100000);
			run_threads(&w, THREADS, UINT64_MAX >> 1);
			_exit(0);
		}
		if (!by_point) {
			nanosleep(&t, NULL);
			kill(pid, SIGKILL);
		}
		must(wait_for(pid), "a thread ended by itself");
		if (i % 4 == 0)
			recover_and_die(&w, 1 + r % 60);
		recover(&w);
		verify(&w);
	}
	for (int i = 0; i < THREADS; i++)
		steps += w.sums[i].done;
	must(steps > 2 * kills, "only %llu steps were made", (unsigned long long)steps);
	/* ThreadSanitizer leaves too little time between two kills for that. */
#ifndef __SANITIZE_THREAD__
	must(w.left->cp->buckets > 1024 || w.right->cp->buckets > 1024 || kills < 100, "the index did not grow");
#endif
	printf("ok steps/random\n# %u kills, %llu steps\n", kills, (unsigned long long)steps);
	fr_free(w.fr);
}

int main(int argc, char **argv)
{
	const char *given = getenv("FE_SEED");

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("# FE_SEED=%llu\n", (unsigned long long)seed);
	if (have_points)
		each_point();
	else
		printf("SKIP steps/each-point: not in CI: configured without --enable-kill-points\n");
	at_random(argc > 1 ? (unsigned)atoi(argv[1]) : 300);
	return 0;
}
