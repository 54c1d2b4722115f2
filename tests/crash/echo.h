/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A service that counts its requests, kept by libfuserecover, over a socket in place of /dev/fuse; and its
 * client, who sees whether each request was done exactly once.
 */
#ifndef TESTS_CRASH_ECHO_H
#define TESTS_CRASH_ECHO_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "libfuserecover/internal.h"

#define ECHO_THREADS	3

/* What a request asks for, as its opcode; a real one that wants a reply. */
enum { ECHO_COUNT = 1000, ECHO_CRASH, ECHO_HANG, ECHO_LEAK, ECHO_KEEP, ECHO_RETURN, ECHO_EXIT, ECHO_HELP };

/* An area of the checkpoint. */
struct echo_state {
	uint64_t count;
	uint64_t wrong;			/* somebody served who was not the worker */
	int32_t result;			/* of fr_run() */
	uint32_t returned;
	uint32_t resets;
	int32_t kept[64];
	uint32_t n_kept;
	int32_t leaked[64];
	uint32_t n_leaked;
	pid_t helped;			/* a worker where somebody without a slot is at work */
	bool allocating;		/* by each worker, all the time */
	uint32_t lingered;		/* such a one was not gone when its successor began */
	pthread_mutex_t lock;		/* made new by each worker */
};

struct echo {
	struct fr *fr;
	struct fr_options options;
	struct echo_state *state;
	int client, server;		/* ends of the socket */
	void *memory;			/* of malloc(3) from before there were threads */
	pid_t first;			/* who called fr_run() */
	uint64_t unique;
	uint64_t expected;		/* requests that were counted */
	bool serving;
	pid_t killed[8];		/* since all was well; dying takes a moment */
	unsigned n_killed;
};

/* Exits with 1 where something is not as it should be. */
void must(bool holds, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ok(const char *name);

/* options: those that differ from the defaults, may be NULL. */
void echo_start(struct echo *e, const struct fr_options *options);
/* Sends one request and waits for its reply; returns the reply's error. */
int echo_call(struct echo *e, uint32_t opcode, uint64_t *count);
/* n of ECHO_COUNT, several at a time, each to be counted once. */
void echo_load(struct echo *e, unsigned n);
/* For the service's own end; fr_run() must have returned this. */
void echo_end(struct echo *e, int result);
/* Stops it by SIGTERM to the keeper. */
void echo_stop(struct echo *e);
/* Waits until keeper, worker and standby are there, and nobody else. */
void echo_settled(struct echo *e);
unsigned echo_census(struct echo *e);

void echo_kill(struct echo *e, pid_t pid, int sig);
pid_t echo_keeper(const struct echo *e);
pid_t echo_worker(const struct echo *e);
pid_t echo_standby(const struct echo *e);

#endif
