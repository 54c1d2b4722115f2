/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tables, index and steps of libfuserecover against a model; damage, mending, and adoption. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/recover.h"

#define KEYS	700

struct item {
	uint64_t mark;		/* so that the key does not lie at the start */
	uint64_t key;
	unsigned char rest[13];
};

static struct fr *fr;
static struct fr_slot *slot;
static struct fr_table *items, *others;
static uint64_t *sum;

static const struct fr_options options = {
	.struct_size = sizeof(struct fr_options),
	.name = "unit",
	.layout = 7,
	.slots = 8,
	.request_size = 8192,
	.reply_size = 8192,
	.worker = no_worker,
	.log = quiet,
};

static void add_parts(struct fr *f, struct fr_table **a, struct fr_table **b, uint64_t **area)
{
	void *p = NULL;

	ck_assert_int_eq(fr_table_new(f, "items", sizeof(struct item), offsetof(struct item, key), 8, 1u << 22, a), 0);
	ck_assert_int_eq(fr_table_new(f, "others", 24, 0, 0, 1000, b), 0);
	ck_assert_int_eq(fr_area_new(f, "sum", 100, &p), 0);
	*area = p;
}

static void setup(void)
{
	ck_assert_int_eq(fr_new(&options, &fr), 0);
	add_parts(fr, &items, &others, &sum);
	ck_assert_int_eq(fr_slot_take(fr, 0, &slot), 0);
}

static void teardown(void)
{
	fr_slot_leave(slot);
	fr_free(fr);
}

static void whole(struct fr_table *t)
{
	char why[128] = "";

	ck_assert_msg(fr_table_whole(t, why, sizeof(why)), "table %s: %s", t->name, why);
}

/* As if the thread had died here, and somebody had taken over. */
static void die(struct fr_slot *s)
{
	ck_assert_int_eq(fr_rollback(fr, s->index), 0);
	fr_commit(s);
}

static struct item *add(struct fr_slot *s, uint64_t key)
{
	uint32_t hash = fr_key_hash(items, &key);
	struct item *item = fr_alloc_record(s, items);

	if (item) {
		item->key = key;
		item->mark = key * 3;
		fr_index_add(s, items, hash, item);
	}
	return item;
}

static void drop(struct fr_slot *s, struct item *item)
{
	fr_index_remove(s, items, fr_key_hash(items, &item->key), item);
	fr_free_record(s, items, item);
}

static struct item *find(uint64_t key)
{
	return fr_index_find(items, fr_key_hash(items, &key), &key);
}

/* Who has the memory can not take it away from those who use it. */
START_TEST(sealed)
{
	struct stat st;

	ck_assert_int_eq(fstat(fr->fd, &st), 0);
	ck_assert_int_eq(ftruncate(fr->fd, st.st_size - 4096), -1);
	ck_assert_int_eq(errno, EPERM);
}
END_TEST

START_TEST(ids)
{
	unsigned char *a, *b;
	uint64_t id;

	fr_begin(slot);
	a = fr_alloc_record(slot, others);
	b = fr_alloc_record(slot, others);
	fr_commit(slot);
	ck_assert_uint_eq(fr_record_id(others, a), 1);
	ck_assert_uint_eq(fr_record_id(others, b), 2);
	ck_assert_ptr_eq(fr_record(others, 1), a);
	ck_assert_ptr_null(fr_record(others, 0));
	ck_assert_ptr_null(fr_record(others, 3));
	ck_assert_ptr_null(fr_record(others, UINT32_MAX));
	ck_assert_ptr_null(fr_record(others, 1ull << 32 | 1));
	ck_assert_uint_eq(fr_table_used(others), 2);
	memset(a, 0xee, 24);
	fr_begin(slot);
	fr_free_record(slot, others, a);
	fr_commit(slot);
	ck_assert_ptr_null(fr_record(others, 1));
	fr_begin(slot);
	a = fr_alloc_record(slot, others);
	fr_commit(slot);
	id = fr_record_id(others, a);
	ck_assert_uint_eq(id, 1ull << 32 | 1);
	for (int i = 0; i < 24; i++)
		ck_assert_uint_eq(a[i], 0);
	ck_assert_ptr_null(fr_record(others, 1));
	whole(others);
}
END_TEST

START_TEST(retired)
{
	struct record *r;
	void *a;

	fr_begin(slot);
	a = fr_alloc_record(slot, others);
	fr_commit(slot);
	r = fr_record_of(a);
	r->gen = UINT32_MAX - 1;
	fr_begin(slot);
	fr_free_record(slot, others, a);
	fr_commit(slot);
	whole(others);
	fr_begin(slot);
	ck_assert_uint_eq(fr_record_id(others, fr_alloc_record(slot, others)), 2);
	fr_commit(slot);
	ck_assert_int_eq(fr_table_repair(others), 0);
	fr_begin(slot);
	ck_assert_uint_eq(fr_record_id(others, fr_alloc_record(slot, others)), 3);
	fr_commit(slot);
	whole(others);
}
END_TEST

START_TEST(full)
{
	uint32_t n = 0;
	void *last = NULL, *r;

	for (;;) {
		fr_begin(slot);
		r = fr_alloc_record(slot, others);
		fr_commit(slot);
		if (!r)
			break;
		last = r;
		n++;
	}
	ck_assert_uint_eq(n, 1000);
	whole(others);
	fr_begin(slot);
	fr_free_record(slot, others, last);
	ck_assert_ptr_null(fr_alloc_record(slot, others)); /* it is not yet certain to be free */
	fr_commit(slot);
	fr_begin(slot);
	ck_assert_ptr_eq(fr_alloc_record(slot, others), last);
	fr_commit(slot);
	whole(others);
}
END_TEST

START_TEST(large_records)
{
	struct fr_table *large;

	ck_assert_int_eq(fr_table_new(fr, "large", 300000, 0, 0, 5, &large), 0);
	for (int i = 0; i < 5; i++) {
		void *r;

		fr_begin(slot);
		r = fr_alloc_record(slot, large);
		ck_assert_ptr_nonnull(r);
		memset(r, 0xff, 300000);
		fr_commit(slot);
		whole(large);
	}
	fr_begin(slot);
	ck_assert_ptr_null(fr_alloc_record(slot, large));
	fr_commit(slot);
}
END_TEST

/* What a step gave must not be overwritten by what it takes. */
START_TEST(given_and_taken)
{
	struct item *a, *b, *c;
	uint64_t id;

	fr_begin(slot);
	a = add(slot, 1);
	b = add(slot, 2);
	fr_commit(slot);
	id = fr_record_id(items, a);
	fr_begin(slot);
	drop(slot, b);
	fr_commit(slot);
	for (int i = 0; i < 3; i++) {
		fr_begin(slot);
		drop(slot, find(1));
		c = add(slot, 3);
		ck_assert_ptr_ne(c, a);
		ck_assert_ptr_nonnull(add(slot, 4));
		ck_assert_ptr_nonnull(add(slot, 5));
		memset(c->rest, 0xff, sizeof(c->rest));
		die(slot);
		whole(items);
		ck_assert_ptr_eq(fr_record(items, id), a);
		ck_assert_ptr_eq(find(1), a);
		ck_assert_uint_eq(a->mark, 3);
		ck_assert_ptr_null(find(3));
		ck_assert_uint_eq(fr_table_used(items), 1);
	}
}
END_TEST

/* Random steps, of which some are not finished, against a plain array. */
START_TEST(model)
{
	static struct {
		bool there;
		uint64_t id, mark;
	} now[KEYS], then[KEYS];
	uint64_t seed = unit_seed(), total = 0, total_then, plain = 0, plain_then;

	memset(now, 0, sizeof(now));
	for (int round = 0; round < 20000; round++) {
		bool finish = unit_random(&seed) % 3;

		memcpy(then, now, sizeof(now));
		total_then = total;
		plain_then = plain;
		fr_begin(slot);
		/* one record of a table without an index comes and goes */
		if (plain) {
			fr_free_record(slot, others, fr_record(others, plain));
			plain = 0;
		} else {
			plain = fr_record_id(others, fr_alloc_record(slot, others));
		}
		for (uint64_t n = unit_random(&seed) % 8; n; n--) {
			uint64_t key = unit_random(&seed) % KEYS;
			struct item *item = find(key);

			ck_assert_int_eq(!!item, now[key].there);
			switch (unit_random(&seed) % 3) {
			case 0:
				if (item)
					break;
				item = add(slot, key);
				now[key].there = true;
				now[key].id = fr_record_id(items, item);
				now[key].mark = item->mark;
				fr_set(slot, *sum, *sum + key);
				total += key;
				break;
			case 1:
				if (!item)
					break;
				drop(slot, item);
				now[key].there = false;
				ck_assert_ptr_null(fr_record(items, now[key].id));
				fr_set(slot, *sum, *sum - key);
				total -= key;
				break;
			default:
				if (!item)
					break;
				fr_set(slot, item->mark, unit_random(&seed));
				now[key].mark = item->mark;
			}
		}
		if (finish) {
			fr_commit(slot);
		} else {
			die(slot);
			memcpy(now, then, sizeof(now));
			total = total_then;
			plain = plain_then;
		}
		ck_assert_uint_eq(fr_table_used(others), plain != 0);
		ck_assert_int_eq(!fr_record(others, plain), !plain);
		ck_assert_uint_eq(*sum, total);
		if (round % 64)
			continue;
		whole(items);
		whole(others);
		for (uint64_t key = 0; key < KEYS; key++) {
			struct item *item = find(key);

			ck_assert_int_eq(!!item, now[key].there);
			if (item) {
				ck_assert_uint_eq(fr_record_id(items, item), now[key].id);
				ck_assert_uint_eq(item->mark, now[key].mark);
				ck_assert_ptr_eq(fr_record(items, now[key].id), item);
			}
		}
	}
	ck_assert_uint_gt(items->cp->buckets, FIRST_BUCKETS);
}
END_TEST

/* ---- threads ---- */

#define THREADS	4
#define EACH	300000u

static _Atomic int broken, filling;

static void *fill(void *arg)
{
	uint64_t first = (uint64_t)(uintptr_t)arg << 32;
	struct fr_slot *s;

	if (fr_slot_take(fr, 1 + (uint32_t)(uintptr_t)arg, &s))
		abort();
	for (uint64_t key = first; key < first + EACH; key++) {
		uint32_t hash = fr_key_hash(items, &key);

		fr_key_lock(items, hash);
		fr_begin(s);
		if (!add(s, key))
			broken = 1;
		fr_commit(s);
		fr_key_unlock(items, hash);
		/* some go again, so that numbers are used again */
		if (key % 8 == 5) {
			fr_key_lock(items, hash);
			fr_begin(s);
			drop(s, find(key));
			fr_commit(s);
			fr_key_unlock(items, hash);
		}
	}
	fr_slot_leave(s);
	filling--;
	return NULL;
}

static void *look_up(void *arg)
{
	uint64_t seed = (uintptr_t)arg, looks = 0;

	while (filling || looks < 1000) {
		uint64_t key = unit_random(&seed) % THREADS << 32 | unit_random(&seed) % EACH;
		uint32_t hash = fr_key_hash(items, &key);
		struct item *item;

		fr_key_lock(items, hash);
		item = find(key);
		if (item && (item->key != key || item->mark != key * 3 || fr_record(items, fr_record_id(items, item)) != item))
			broken = 2;
		fr_key_unlock(items, hash);
		looks++;
	}
	return NULL;
}

static int count_one(void *arg, uint64_t id, void *record)
{
	(void)id;
	(void)record;
	++*(uint32_t *)arg;
	return 0;
}

START_TEST(growth)
{
	pthread_t t[THREADS], looking[2];
	uint32_t expected = 0, seen = 0, at = 0;

	filling = THREADS;
	for (uintptr_t i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, fill, (void *)i), 0);
	for (uintptr_t i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&looking[i], NULL, look_up, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < 2; i++)
		pthread_join(looking[i], NULL);
	ck_assert_msg(!broken, "%s", broken == 1 ? "a record was refused" : "a look-up found a wrong record");
	for (uint64_t i = 0; i < THREADS; i++)
		for (uint64_t key = i << 32; key < (i << 32) + EACH; key++) {
			ck_assert_int_eq(!!find(key), key % 8 != 5);
			expected += key % 8 != 5;
		}
	ck_assert_uint_gt(expected, 1u << 20);
	ck_assert_uint_eq(fr_table_used(items), expected);
	fr_table_each(items, count_one, &seen);
	ck_assert_uint_eq(seen, expected);
	seen = 0;
	do
		ck_assert_int_eq(fr_table_walk(items, &at, 1000, count_one, &seen), 0);
	while (at);
	ck_assert_uint_eq(seen, expected);
	whole(items);
	ck_assert_uint_ge(items->cp->buckets, expected / 2);
}
END_TEST

/* ---- damage ---- */

static void fill_some(uint64_t *ids, unsigned n)
{
	for (uint64_t key = 0; key < n; key++) {
		fr_begin(slot);
		ids[key] = fr_record_id(items, add(slot, key));
		fr_commit(slot);
	}
	for (uint64_t key = 0; key < n; key += 3) {
		fr_begin(slot);
		drop(slot, find(key));
		fr_commit(slot);
	}
}

/* Whatever is written over the links and counts: mended, the same ids name the same records. */
START_TEST(mending)
{
	uint64_t seed = unit_seed(), ids[500];
	char why[128];

	fill_some(ids, 500);
	for (int round = 0; round < 300; round++) {
		struct cp_table *c = items->cp;

		for (uint64_t n = unit_random(&seed) % 8 + 1; n; n--) {
			uint32_t junk = unit_random(&seed) % 2 ? (uint32_t)unit_random(&seed) : (uint32_t)(unit_random(&seed) % 600);
			uint32_t *where[] = {
				&fr_at(items, (uint32_t)(unit_random(&seed) % 500 + 1))->link,
				&fr_at(items, (uint32_t)(unit_random(&seed) % 500 + 1))->hash,
				&items->heads[unit_random(&seed) % 1024],
				(uint32_t *)c + unit_random(&seed) % (sizeof(*c) / 4),
			};

			*where[unit_random(&seed) % 4] = junk;
		}
		if (!fr_table_plausible(items) || !fr_table_whole(items, why, sizeof(why)))
			ck_assert_int_eq(fr_table_repair(items), 0);
		whole(items);
		for (uint64_t key = 0; key < 500; key++) {
			struct item *item = fr_record(items, ids[key]);

			ck_assert_int_eq(!item, key % 3 == 0);
			ck_assert_ptr_eq(find(key), item);
		}
	}
}
END_TEST

/* A worker that meets damage says so, and ends; it does not go astray. */
START_TEST(damage_found)
{
	for (int what = 0; what < 4; what++) {
		uint64_t ids[50];
		int status;
		pid_t pid;

		if (!what)
			fill_some(ids, 50);
		fr->cp->damaged = 0;
		pid = fork();
		ck_assert_int_ge(pid, 0);
		if (!pid) {
			switch (what) {
			case 0: /* a circle */
				for (uint32_t i = 1; i < items->cp->fresh; i++)
					fr_at(items, i)->link = i;
				break;
			case 1:
				memset(items->heads, 0x7f, 4096);
				break;
			case 2:
				items->cp->free_head = 40000000;
				break;
			default:
				items->cp->buckets = 3;
			}
			fr_begin(slot);
			for (uint64_t key = 10000 * (uint64_t)(what + 1), n = 0; n < 2000; n++, key++) {
				if (find(key))
					_exit(1);
				add(slot, key);
				fr_commit(slot);
				fr_begin(slot);
			}
			_exit(2);
		}
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "case %d: status %x", what, status);
		ck_assert_uint_eq(fr->cp->damaged, 1);
		ck_assert_int_eq(fr_rollback(fr, 0), 0);
		ck_assert_int_eq(fr_tables_recover(fr), 0);
		whole(items);
		ck_assert_uint_eq(fr->cp->damaged, 0);
		ck_assert_ptr_nonnull(find(1));
	}
}
END_TEST

START_TEST(damaged_log)
{
	fr_begin(slot);
	add(slot, 1);
	/* an entry that leads out of the checkpoint */
	((struct undo *)(void *)(slot->undo + slot->cp->undo_used))[-1].offset = UINT64_MAX - 8;
	ck_assert_int_eq(fr_rollback(fr, 0), -EBADMSG);
	slot->cp->undo_used = UNDO_SIZE + 8;
	ck_assert_int_eq(fr_rollback(fr, 0), -EBADMSG);
	slot->cp->undo_used = 12;
	ck_assert_int_eq(fr_rollback(fr, 0), -EBADMSG);
	ck_assert_int_eq(fr_takeover(fr), 0);
	whole(items);
	ck_assert_uint_eq(slot->cp->undo_used, 0);
	fr_commit(slot);
}
END_TEST

/* ---- adoption ---- */

START_TEST(adoption)
{
	uint64_t ids[500], *area;
	struct fr_table *a, *b;
	struct fr_options other = options;
	struct fr *second;
	int fd;

	fill_some(ids, 500);
	fr_begin(slot);
	fr_set(slot, *sum, 99);
	fr_commit(slot);
	fr_begin(slot);
	fr_set(slot, *sum, 100);
	add(slot, 1000);
	/* in the middle of a step */
	fd = dup(fr_checkpoint_fd(fr));
	other.layout = 8;
	ck_assert_int_eq(fr_adopt(&other, fd, &second), -EINVAL);
	ck_assert_ptr_null(second);
	ck_assert_int_eq(fr_adopt(&options, fd, &second), 0);
	ck_assert_int_eq(fr_table_new(second, "wrong", sizeof(struct item), 8, 8, 1u << 22, &a), -EINVAL);
	ck_assert_int_eq(fr_table_new(second, "items", sizeof(struct item), 0, 8, 1u << 22, &a), -EINVAL);
	add_parts(second, &a, &b, &area);
	ck_assert_uint_eq(*area, 99);
	for (uint64_t key = 0; key < 500; key++)
		ck_assert_int_eq(!fr_record(a, ids[key]), key % 3 == 0);
	ck_assert_ptr_null(fr_record(b, 1));
	fr_commit(slot);
	fr_free(second);
}
END_TEST

START_TEST(adoption_refused)
{
	uint64_t ids[100];
	struct fr_table *a;
	struct fr *second;
	int fd, err;

	fill_some(ids, 100);
	items->heads[5] = 77777;
	fd = dup(fr_checkpoint_fd(fr));
	ck_assert_int_eq(fr_adopt(&options, fd, &second), 0);
	err = fr_table_new(second, "items", sizeof(struct item), offsetof(struct item, key), 8, 1u << 22, &a);
	ck_assert_int_eq(err, -EBADMSG);
	fr_free(second);

	fr->cp->layout.part[1].offset += 4096;
	fd = dup(fr_checkpoint_fd(fr));
	ck_assert_int_eq(fr_adopt(&options, fd, &second), -EBADMSG);
	close(fd);
	fd = memfd_create("unsealed", 0);
	ck_assert_int_eq(fr_adopt(&options, fd, &second), -EINVAL);
	close(fd);
}
END_TEST

static void *last_words(void *arg)
{
	const struct timespec t = { .tv_nsec = 300000000 };

	(void)arg;
	nanosleep(&t, NULL);
	*sum = 77;
	_exit(0);
}

/* A thread that was in a system call when its process was killed goes on when the main thread is dead. */
START_TEST(adoption_waits)
{
	struct fr_table *a, *b;
	struct fr *second;
	uint64_t *area;
	pid_t pid = fork();

	if (!pid) {
		pthread_t thread;

		atomic_store(&fr->cp->worker, CLAIM(1, getpid()));
		*sum = 1;
		pthread_create(&thread, NULL, last_words, NULL);
		pthread_exit(NULL);
	}
	while (atomic_load((_Atomic uint64_t *)sum) != 1)
		sched_yield();
	ck_assert_int_eq(fr_adopt(&options, dup(fr_checkpoint_fd(fr)), &second), 0);
	add_parts(second, &a, &b, &area);
	ck_assert_uint_eq(*area, 77);
	fr_free(second);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		sealed, ids, retired, full, large_records, given_and_taken, model, growth, mending, damage_found, damaged_log,
		adoption, adoption_refused, adoption_waits, NULL,
	};

	return unit_run("recover_tables", tests, setup, teardown);
}
