/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "programs/top.h"

#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fuse_abi.h"
#include "host/host.h"
#include "programs/control.h"
#include "programs/latency.h"

#define ANSWER_MAX	(1 << 20)
#define OPCODES		LATENCY_OPCODES
#define TRIES		250	/* of 20 ms: so long may a successor take */

static const char *const names[OPCODES] = {
#define NAME(op) [FUSE_##op] = #op
	NAME(LOOKUP), NAME(FORGET), NAME(GETATTR), NAME(SETATTR), NAME(READLINK), NAME(SYMLINK), NAME(MKNOD),
	NAME(MKDIR), NAME(UNLINK), NAME(RMDIR), NAME(RENAME), NAME(LINK), NAME(OPEN), NAME(READ), NAME(WRITE),
	NAME(STATFS), NAME(RELEASE), NAME(FSYNC), NAME(SETXATTR), NAME(GETXATTR), NAME(LISTXATTR),
	NAME(REMOVEXATTR), NAME(FLUSH), NAME(INIT), NAME(OPENDIR), NAME(READDIR), NAME(RELEASEDIR),
	NAME(FSYNCDIR), NAME(GETLK), NAME(SETLK), NAME(SETLKW), NAME(ACCESS), NAME(CREATE), NAME(INTERRUPT),
	NAME(DESTROY), NAME(IOCTL), NAME(POLL), NAME(BATCH_FORGET), NAME(FALLOCATE), NAME(READDIRPLUS),
	NAME(RENAME2), NAME(LSEEK), NAME(COPY_FILE_RANGE), NAME(SYNCFS), NAME(TMPFILE), NAME(STATX),
#undef NAME
};

/* Counts at a moment. */
struct sample {
	double when;
	int64_t upcalls[OPCODES], hits[OPCODES];
	char engine[32];
	struct latency latencies[OPCODES];
};

struct top {
	const char *mountpoint;
	const struct mount_entry *entry;
	char *answer;
	struct latencies *latencies;
	char why[LATENCY_WHY_SIZE];
	struct sample before, now;
};

static volatile sig_atomic_t enough;

static void on_signal(int number)
{
	(void)number;
	enough = 1;
}

static double seconds_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void counts_of(struct json_object *status, const char *key, int64_t *out)
{
	struct json_object *counts, *count;

	memset(out, 0, OPCODES * sizeof(*out));
	if (!json_object_object_get_ex(status, key, &counts) || !json_object_is_type(counts, json_type_object))
		return;
	for (unsigned op = 0; op < OPCODES; op++)
		if (names[op] && json_object_object_get_ex(counts, names[op], &count))
			out[op] = json_object_get_int64(count);
}

static void engine_of(struct json_object *status, char *out, size_t size)
{
	struct json_object *cache, *engine;
	bool known = json_object_object_get_ex(status, "cache", &cache) &&
		     json_object_object_get_ex(cache, "engine", &engine);

	snprintf(out, size, "%s", known ? json_object_get_string(engine) : "not known");
	for (char *c = out; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}

/* While no process serves, nobody answers. */
static int ask(struct top *t)
{
	int err = 0;

	for (int i = 0; i < TRIES && !enough; i++) {
		err = control_ask(t->entry, FE_CONTROL_STATUS, t->answer, ANSWER_MAX);
		if (err || *t->answer)
			return err;
		usleep(20000);
	}
	return enough ? 0 : -ETIMEDOUT;
}

static int take_sample(struct top *t, struct sample *s)
{
	struct json_object *status;
	int err = ask(t);

	if (err || enough)
		return err;
	s->when = seconds_now();
	status = json_tokener_parse(t->answer);
	if (!json_object_is_type(status, json_type_object)) {
		json_object_put(status);
		return -EBADMSG;
	}
	if (json_object_object_get_ex(status, "error", NULL)) {
		json_object_put(status);
		return -EACCES;
	}
	counts_of(status, "requests", s->upcalls);
	counts_of(status, "cache_hits", s->hits);
	engine_of(status, s->engine, sizeof(s->engine));
	json_object_put(status);
	return t->latencies ? latencies_read(t->latencies, s->latencies) : 0;
}

static int64_t total(const struct top *t, unsigned op)
{
	return t->now.upcalls[op] - t->before.upcalls[op] + t->now.hits[op] - t->before.hits[op];
}

static void show_percentile(const struct top *t, unsigned op, unsigned percent)
{
	double us = latency_percentile(&t->before.latencies[op], &t->now.latencies[op], percent);

	if (us < 0)
		printf("%11s", "-");
	else
		printf("%11.1f", us);
}

static void show_row(const struct top *t, unsigned op)
{
	double time = t->now.when - t->before.when;

	time = time > 0 ? time : 1;
	printf("%-16s%11.1f%11.1f", names[op], (double)(t->now.upcalls[op] - t->before.upcalls[op]) / time,
	       (double)(t->now.hits[op] - t->before.hits[op]) / time);
	if (t->latencies) {
		show_percentile(t, op, 50);
		show_percentile(t, op, 99);
	}
	putchar('\n');
}

/* The busiest first. */
static void show(const struct top *t)
{
	bool shown[OPCODES] = { false };

	if (isatty(STDOUT_FILENO))
		fputs("\033[H\033[2J", stdout);
	printf("%s: engine %s\n", t->mountpoint, t->now.engine);
	printf("%-16s%11s%11s%s\n", "operation", "upcalls/s", "hits/s",
	       t->latencies ? "  median us     p99 us" : "");
	for (;;) {
		unsigned most = OPCODES;

		for (unsigned op = 0; op < OPCODES; op++)
			if (names[op] && !shown[op] && total(t, op) > 0 &&
			    (most == OPCODES || total(t, op) > total(t, most)))
				most = op;
		if (most == OPCODES)
			break;
		shown[most] = true;
		show_row(t, most);
	}
	putchar('\n');
	fflush(stdout);
}

static void wait_for(double seconds)
{
	struct timespec ts = { .tv_sec = (time_t)seconds };

	ts.tv_nsec = (long)((seconds - (double)ts.tv_sec) * 1e9);
	nanosleep(&ts, NULL); /* a signal ends it */
}

static int run(struct top *t, const struct top_options *o)
{
	int err = take_sample(t, &t->before);

	for (unsigned i = 0; !err && !enough && (!o->count || i < o->count); i++) {
		wait_for(o->interval);
		if (enough)
			break;
		err = take_sample(t, &t->now);
		if (err || enough)
			break;
		show(t);
		t->before = t->now;
	}
	return err;
}

int top_run(const char *mountpoint, const struct mount_entry *entry, const struct top_options *options)
{
	const struct sigaction end = { .sa_handler = on_signal };
	struct top *t = calloc(1, sizeof(*t));
	int err = -ENOMEM;

	if (!t)
		return err;
	t->mountpoint = mountpoint;
	t->entry = entry;
	t->answer = malloc(ANSWER_MAX);
	sigaction(SIGINT, &end, NULL);
	sigaction(SIGTERM, &end, NULL);
	if (t->answer) {
		t->latencies = latencies_open(entry->major, entry->minor, t->why);
		if (!t->latencies)
			fprintf(stderr, "fuse-extentctl: no latencies: %s\n", t->why);
		err = run(t, options);
	}
	latencies_close(t->latencies);
	free(t->answer);
	free(t);
	return err;
}
