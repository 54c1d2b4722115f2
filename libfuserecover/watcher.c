/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread of each worker: closes what the predecessor left open, and sees to it that there is a keeper.
 * The standby takes that role where it lives; otherwise a new keeper is forked from here. That copies a
 * process with threads, whose locks may be held by threads that the copy does not have: so the copy
 * proves itself before it is relied on, or is killed and made again.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#define SERVE_FIRST_MS	5	/* no standby before that: it would hold up the first requests */
#define COLLECT_MS	100	/* after a takeover, and between tries, twice as long each time */
#define COLLECT_MOST_MS	60000
#define PROVE_MS	500
#define PROVERS		4	/* threads that look whether there is a lock without an owner */
#define SIZES		16	/* 16 bytes to 512 KiB */
#define PROBE_STEP	2048
#define STANDBY_MS	5000	/* it has that long to become the keeper */

struct watcher {
	struct fr *fr;
	uint64_t keeper;
	int keeper_pidfd;
	int collect_ms;
};

static void pause_ms(long ms)
{
	const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

/* ---- a new keeper ---- */

static void *allocate(void *arg)
{
	void *p[SIZES];

	for (unsigned i = 0; i < SIZES; i++)
		p[i] = malloc((size_t)16 << i);
	for (unsigned i = 0; i < SIZES; i++)
		free(p[i]);
	return arg;
}

/* What will be used later, by the standby and its workers, has to work now, or this never ends. */
static void prove(struct fr *fr)
{
	pthread_t threads[PROVERS];
	unsigned n = 0;
	void *probe;

	allocate(NULL);
	/*
	 * To shrink takes the lock of the arena that all began with, which other threads than this one use. The
	 * rest lies behind it still: it grows in its place, for the next one to prove itself.
	 */
	for (unsigned i = 0; i < 2; i++) {
		probe = realloc(fr->probe, i ? PROBE_SIZE : PROBE_SIZE - PROBE_STEP);
		if (probe)
			fr->probe = probe;
	}
	while (n < PROVERS && !pthread_create(&threads[n], NULL, allocate, NULL))
		n++;
	while (n)
		pthread_join(threads[--n], NULL);
	if (fr->options.reset)
		fr->options.reset(fr->options.arg);
	fr_log(fr, LOG_WARNING, "keeper and standby are dead; process %d, forked from the worker, keeps", getpid());
}

static void __attribute__((noreturn)) keeper_from_worker(struct fr *fr, uint64_t dead)
{
	fr->role = STANDBY;
	fr_current = NULL;
	fr_reset_locks(fr);
	fr->standby = 0;
	fr->standby_pidfd = fr->worker_pidfd = fr->keeper_pidfd = -1;
	fr->worker_claim = 0;
	prove(fr);
	if (!fr_claim_keeper(fr, dead))
		_exit(0);
	/* This thread, of which it is a copy, takes no signals. */
	pthread_sigmask(SIG_SETMASK, &fr->mask, NULL);
	_exit(fr_keep(fr) ? 1 : 0);
}

/* Whether this process took the role from one that is dead. */
static bool keeps(const struct fr *fr, uint64_t dead, pid_t pid)
{
	return atomic_load(&fr->cp->keeper) == CLAIM(CLAIM_NUMBER(dead) + 1, pid);
}

static void make_keeper(struct watcher *w)
{
	struct fr *fr = w->fr;
	uint64_t dead = w->keeper;
	int pidfd = -1, waited = 0;
	pid_t pid;

	pid = fr_fork(true, &pidfd);
	if (!pid)
		keeper_from_worker(fr, dead);
	if (pid < 0) {
		fr_log(fr, LOG_ERR, "no new keeper: %s", strerror(-pid));
		pause_ms(PROVE_MS);
		return;
	}
	fr_fd_own(fr, pidfd, FD_WORKERS);
	while (atomic_load(&fr->cp->keeper) == dead && waited++ < PROVE_MS / 5 && !fr_pidfd_wait(pidfd, 5))
		;
	/* It hangs, or another one was faster. */
	if (!keeps(fr, dead, pid))
		kill(pid, SIGKILL);
	if (!keeps(fr, dead, pid))
		waitpid(pid, NULL, 0);
	fr_close_own(fr, &pidfd);
}

static bool standby_lives(struct fr *fr)
{
	pid_t pid = (pid_t)atomic_load(&fr->cp->standby);
	int fd = pid == getpid() ? -1 : fr_pidfd_of(fr, pid, FD_WORKERS, WORKER);
	bool lives = !fr_pidfd_dead(fd);

	fr_close_own(fr, &fd);
	return lives;
}

static void know_keeper(struct watcher *w)
{
	fr_close_own(w->fr, &w->keeper_pidfd);
	w->keeper = atomic_load(&w->fr->cp->keeper);
	w->keeper_pidfd = fr_pidfd_of(w->fr, CLAIM_PID(w->keeper), FD_WORKERS, WORKER);
}

static void keeper_died(struct watcher *w)
{
	struct fr *fr = w->fr;

	waitpid(CLAIM_PID(w->keeper), NULL, WNOHANG); /* it may be of our making */
	for (int waited = 0; atomic_load(&fr->cp->keeper) == w->keeper; waited += 10) {
		if (waited < STANDBY_MS && standby_lives(fr))
			pause_ms(10);
		else
			make_keeper(w);
	}
	know_keeper(w);
}

/* ---- the thread ---- */

static void collect(struct watcher *w)
{
	if (fr_collect(w->fr))
		w->collect_ms = -1;
	else if (w->collect_ms < COLLECT_MOST_MS)
		w->collect_ms *= 2;
}

static void *watch(void *arg)
{
	struct watcher *w = arg;

	know_keeper(w);
	fr_pidfd_wait(w->keeper_pidfd, SERVE_FIRST_MS);
	fr_worker_ready(w->fr);
	for (;;) {
		if (fr_pidfd_wait(w->keeper_pidfd, w->collect_ms))
			keeper_died(w);
		else if (w->keeper_pidfd == PIDFD_UNKNOWN)
			know_keeper(w);
		else
			collect(w);
	}
	return NULL;
}

int fr_watcher_start(struct fr *fr)
{
	static struct watcher watcher;
	sigset_t all, before;
	pthread_t thread;
	int err;

	/* Those of the predecessor's watcher */
	fr_fds_close_of(fr, FD_WORKERS, NULL, 0);
	watcher = (struct watcher){
		.fr = fr,
		.keeper_pidfd = -1,
		.collect_ms = fr->generation > 1 ? COLLECT_MS : -1,
	};
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&thread, NULL, watch, &watcher);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!err)
		pthread_detach(thread);
	return -err;
}
