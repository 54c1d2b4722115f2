/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Drives the twins: in lock-step over one tree, or all actors at once over trees of their own. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fsdiff.h"

#define LOG_SIZE ((size_t)1 << 30)	/* address space only, until something is written */

volatile sig_atomic_t interrupted;

static void fail(struct failure *f, size_t index, int actor, const char *why, int side,
		 const char *what)
{
	f->fatal = true;
	f->index = index;
	f->actor = actor;
	snprintf(f->diff.key, sizeof(f->diff.key), "%s", why);
	snprintf(f->diff.a, sizeof(f->diff.a), "%s", side ? "answered" : what);
	snprintf(f->diff.b, sizeof(f->diff.b), "%s", side ? what : "answered");
}

static void death_text(pid_t pid, char *buf, size_t size)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		snprintf(buf, size, "ended");
	else if (WIFSIGNALED(status))
		snprintf(buf, size, "died by signal %d", WTERMSIG(status));
	else
		snprintf(buf, size, "exited with %d", WEXITSTATUS(status));
}

/* Waits for one byte from a twin; 0 answered, 1 hangs, 2 died, -1 interrupted. */
static int await(int sock, int seconds)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	char byte;
	int n;

	while ((n = poll(&p, 1, seconds * 1000)) < 0 && errno == EINTR && !interrupted)
		;
	if (interrupted)
		return -1;
	if (!n)
		return 1;
	return read(sock, &byte, 1) == 1 ? 0 : 2;
}

static void lockstep_body(struct worker *w, int sock, void *arg)
{
	char byte;

	(void)arg;
	while (read(sock, &byte, 1) == 1) {
		worker_step(w, &w->ch->step);
		if (write(sock, &byte, 1) != 1)
			return;
	}
}

/* True when both twins have answered. */
static bool step_both(struct run *r, const struct step *s, size_t index, struct failure *f)
{
	char text[64];
	int state;

	for (int side = 0; side < 2; side++) {
		struct twin *twin = &r->twin[side][s->actor];

		twin->ch->step = *s;
		if (write(twin->sock, "s", 1) != 1)
			continue;
	}
	for (int side = 0; side < 2; side++) {
		struct twin *twin = &r->twin[side][s->actor];

		state = await(twin->sock, SILENCE);
		if (!state)
			continue;
		if (state == 2) {
			death_text(twin->pid, text, sizeof(text));
			twin->pid = 0;
			fail(f, index, s->actor, "an actor ended", side, text);
		} else {
			fail(f, index, s->actor, "an actor hangs", side, "no answer");
		}
		return false;
	}
	return true;
}

/* A tolerated difference may leave a descriptor on one side only. */
static void level_slot(struct run *r, const struct step *s, struct failure *f)
{
	const struct arg *a = step_op(s)->arg;
	struct step again = { .op = (uint16_t)op_find("close"), .actor = s->actor, .fd = s->fd2 };

	for (int i = 0; i < NARG && a[i].name; i++)
		if (a[i].kind == K_INTO)
			step_both(r, &again, f->index, f);
}

static bool run_list(struct run *r, const struct steps *list, struct failure *f)
{
	for (size_t i = 0; i < list->n && !interrupted; i++) {
		const struct step *s = &list->v[i];
		const struct result *a, *b;

		if (!step_both(r, s, i, f))
			return false;
		a = &r->twin[0][s->actor].ch->res;
		b = &r->twin[1][s->actor].ch->res;
		f->outcome[i] = (struct outcome){ a->ret, a->err };
		f->index = i;
		f->actor = s->actor;
		if (results_differ(s, a, b, &f->diff))
			return false;
		if (f->diff.tolerated)
			level_slot(r, s, f);
		if (!r->t->quiet && isatty(2) && i % 512 == 0)
			fprintf(stderr, "\r%zu of %zu steps ", i, list->n);
	}
	return true;
}

bool run_steps(const struct trees *t, const struct steps *list, struct failure *f)
{
	struct run r;
	bool same;

	memset(f, 0, sizeof(*f));
	f->outcome = calloc(list->n + 1, sizeof(*f->outcome));
	if (!f->outcome || !run_open(&r, t) || !run_fork(&r, false, lockstep_body, NULL)) {
		run_close(&r);
		exit(2);
	}
	same = run_list(&r, list, f);
	run_close(&r);
	if (!t->quiet && isatty(2))
		fprintf(stderr, "\r%40s\r", "");
	return same;
}

/* What a twin of a concurrent run leaves behind: one record a step, texts of any length. */
struct record {
	int64_t ret;
	int err;
	uint32_t hints, len;
	char text[];
};

struct log {
	size_t used, n;
	char bytes[];
};

struct concurrent {
	const struct steps *lists;
	struct log *log[2][MAX_ACTORS];
};

static size_t record_size(uint32_t len)
{
	return (sizeof(struct record) + len + 8) & ~(size_t)7;
}

static void concurrent_body(struct worker *w, int sock, void *arg)
{
	struct concurrent *c = arg;
	const struct steps *list = &c->lists[w->actor];
	struct log *log = c->log[w->side][w->actor];
	char byte;

	if (read(sock, &byte, 1) != 1)
		return;
	for (size_t i = 0; i < list->n; i++) {
		struct record *rec = (struct record *)(log->bytes + log->used);

		w->ch->step = list->v[i];
		worker_step(w, &list->v[i]);
		if (sizeof(*log) + log->used + record_size(w->res->len) > LOG_SIZE)
			_exit(4);
		*rec = (struct record){ w->res->ret, w->res->err, w->res->hints, w->res->len };
		memcpy(rec->text, w->res->text, w->res->len + 1);
		log->used += record_size(w->res->len);
		__atomic_store_n(&log->n, log->n + 1, __ATOMIC_RELEASE);
	}
	if (write(sock, &byte, 1) != 1)
		_exit(5);
}

static bool await_end(struct run *r, struct concurrent *c, int side, int actor, struct failure *f)
{
	struct twin *twin = &r->twin[side][actor];
	struct log *log = c->log[side][actor];
	size_t before;
	char text[64];
	int state;

	do {
		before = __atomic_load_n(&log->n, __ATOMIC_ACQUIRE);
		state = await(twin->sock, SILENCE);
	} while (state == 1 && before != __atomic_load_n(&log->n, __ATOMIC_ACQUIRE));
	if (!state)
		return true;
	if (state == 2) {
		death_text(twin->pid, text, sizeof(text));
		twin->pid = 0;
		fail(f, log->n, actor, "an actor ended", side, text);
	} else {
		fail(f, log->n, actor, "an actor hangs", side, "no answer");
	}
	return false;
}

static const struct record *load(const struct record *rec, struct result *res)
{
	res->ret = rec->ret;
	res->err = rec->err;
	res->hints = rec->hints;
	res->len = rec->len;
	memcpy(res->text, rec->text, rec->len + 1);
	return (const struct record *)((const char *)rec + record_size(rec->len));
}

static bool compare_logs(struct concurrent *c, int actor, struct failure *f)
{
	static struct result a, b;
	const struct record *ra = (const struct record *)c->log[0][actor]->bytes;
	const struct record *rb = (const struct record *)c->log[1][actor]->bytes;
	const struct steps *list = &c->lists[actor];

	free(f->outcome);
	f->outcome = calloc(list->n + 1, sizeof(*f->outcome));
	for (size_t i = 0; f->outcome && i < list->n; i++) {
		ra = load(ra, &a);
		rb = load(rb, &b);
		f->outcome[i] = (struct outcome){ a.ret, a.err };
		f->index = i;
		f->actor = actor;
		if (results_differ(&list->v[i], &a, &b, &f->diff))
			return false;
	}
	return true;
}

bool run_concurrent(const struct trees *t, const struct steps *lists, struct failure *f)
{
	struct concurrent c = { .lists = lists };
	struct run r;
	bool same = true;

	memset(f, 0, sizeof(*f));
	for (int i = 0; i < 2 * t->actors; i++) {
		struct log *log = mmap(NULL, LOG_SIZE, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (log == MAP_FAILED) {
			perror("fsdiff: mmap");
			exit(2);
		}
		c.log[i & 1][i / 2] = log;
	}
	if (!run_open(&r, t) || !run_fork(&r, true, concurrent_body, &c)) {
		run_close(&r);
		exit(2);
	}
	for (int i = 0; i < 2 * t->actors; i++)
		same &= write(r.twin[i & 1][i / 2].sock, "s", 1) == 1;
	for (int i = 0; i < 2 * t->actors && same; i++)
		same = await_end(&r, &c, i & 1, i / 2, f);
	for (int actor = 0; actor < t->actors && same; actor++)
		same = compare_logs(&c, actor, f);
	run_close(&r);
	for (int i = 0; i < 2 * t->actors; i++)
		munmap(c.log[i & 1][i / 2], LOG_SIZE);
	return same;
}
