/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The standby: forked from the keeper while the worker is well, with everything mapped, so that it can
 * be the next worker at once. Where the keeper dies, it becomes the keeper.
 *
 * There are never two workers: the role is claimed by one atomic exchange against the claim of a worker
 * whose threads have been seen dead.
 */
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#define LOOK_MS		250	/* that often it looks whether the keeper lives */
#define TELL_NS		1000000000u /* a thread hangs for so long in a worker that is dead otherwise */
#define STARTING_MS	1	/* a worker that has not yet locked what tells of its life */

/*
 * Real-time, as far as allowed: the kernel may wake the standby on the core where the dead worker's memory
 * is taken down, which lasts a ms or two and makes way for nobody else. It stays so for the first ms as a
 * worker, whose threads begin elsewhere meanwhile; what it starts is not real-time.
 */
static void be_prompt(struct fr *fr)
{
	const struct sched_param lowest = { .sched_priority = sched_get_priority_min(SCHED_FIFO) };

	fr->prompt = sched_getscheduler(0) == SCHED_OTHER && !getpriority(PRIO_PROCESS, 0) &&
		     !sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest);
}

void fr_be_usual(struct fr *fr)
{
	const struct sched_param none = { 0 };

	/* Without CAP_SYS_NICE the flag has to stay. It is of no consequence then. */
	if (fr->prompt && sched_setscheduler(getpid(), SCHED_OTHER, &none))
		sched_setscheduler(getpid(), SCHED_OTHER | SCHED_RESET_ON_FORK, &none);
	fr->prompt = false;
}

static void know_worker(struct fr *fr, uint64_t claim)
{
	if (claim == fr->worker_claim && fr->worker_pidfd != PIDFD_UNKNOWN)
		return;
	fr_close_own(fr, &fr->worker_pidfd);
	fr->worker_pidfd = fr_pidfd_of(fr, CLAIM_PID(claim), FD_KEEPERS, STANDBY);
	fr->worker_claim = claim;
	fr->half_dead_since = 0;
}

static void tell_stuck(const struct fr *fr, const char *whom)
{
	fr_log(fr, LOG_CRIT, "worker %d is dead, but for a thread that hangs in the kernel; its successor waits: %s",
	       CLAIM_PID(fr->worker_claim), whom);
}

/* Who serves may have been SCHED_IDLE, and dies as slowly. */
static void hurry(const struct fr *fr, pthread_mutex_t *alive)
{
	const struct sched_param none = { 0 };
	pid_t tid = fr_owner_tid(alive);

	if (tid && !syscall(SYS_tgkill, CLAIM_PID(fr->worker_claim), tid, 0))
		sched_setscheduler(tid, SCHED_OTHER, &none);
}

/* The main thread is dead: until the others that serve are, too. */
static void wait_for_threads(struct fr *fr)
{
	uint64_t tell_at = fr_now_ns() + TELL_NS;
	char request[128];

	for (uint32_t i = 0; i < fr->layout.slots; i++) {
		pthread_mutex_t *alive = &fr->cp_slots[i].alive;

		hurry(fr, alive);
		while (fr_owner(alive) == OWNER_ALIVE && !fr_pidfd_dead(fr->worker_pidfd)) {
			fr_owner_wait(alive, 20);
			if (fr_now_ns() < tell_at)
				continue;
			fr_describe_request(&fr->slots[i], request, sizeof(request));
			tell_stuck(fr, request);
			tell_at = UINT64_MAX;
		}
	}
	/* Others have no lock that would tell. */
	while (atomic_load(&fr->cp->helpers) && !fr_pidfd_wait(fr->worker_pidfd, 20)) {
		know_worker(fr, fr->worker_claim);
		if (fr_now_ns() < tell_at)
			continue;
		tell_stuck(fr, "a thread that serves no slot");
		tell_at = UINT64_MAX;
	}
}

/* Threads of it that serve are dead, so it was killed; the main one, which ends it, is not. */
static void look_for_half_dead(struct fr *fr)
{
	bool dead = false, others = false;

	for (uint32_t i = 0; i < fr->layout.slots; i++) {
		pthread_mutex_t *alive = &fr->cp_slots[i].alive;

		dead |= fr_owner(alive) == OWNER_DEAD;
		others |= fr_owner(alive) == OWNER_ALIVE && fr_owner_tid(alive) != CLAIM_PID(fr->worker_claim);
	}
	/* A thread may have ended with its slot, and the others go on. */
	dead &= !others;
	if (!dead || !fr->half_dead_since) {
		fr->half_dead_since = dead ? fr_now_ns() : 0;
	} else if (fr->half_dead_since < fr_now_ns() - TELL_NS) {
		tell_stuck(fr, "its main one");
		fr->half_dead_since = UINT64_MAX;
	}
}

/* Whether no thread of this worker will run any more; else waits for a while, at most ms. */
static bool worker_gone(struct fr *fr, uint64_t claim, unsigned ms)
{
	pthread_mutex_t *alive = &fr->cp->alive;

	if (!CLAIM_PID(claim))
		return true;
	know_worker(fr, claim);
	if (atomic_load(&fr->cp->alive_claim) != claim || fr_owner(alive) == OWNER_NONE)
		return fr_pidfd_wait(fr->worker_pidfd, STARTING_MS);
	if (fr_owner(alive) == OWNER_ALIVE) {
		if (ms)
			fr_owner_wait(alive, ms);
		/* What the lock says may have been written by a worker gone mad. */
		if (fr_owner(alive) != OWNER_DEAD) {
			look_for_half_dead(fr);
			return fr_pidfd_dead(fr->worker_pidfd);
		}
	}
	wait_for_threads(fr);
	return true;
}

/* Whoever else became the keeper has a standby of his own, and perhaps other descriptors. An upgrade may
 * have begun, and its program have become the keeper, since this was last looked at: it is waited for. */
static void leave_if_outdated(struct fr *fr)
{
	bool other_keeper = atomic_load(&fr->cp->keeper) != fr->keeper_claim;

	if (atomic_load(&fr->cp->ended) || atomic_load(&fr->cp->given_up) || fr_upgrade_lost(fr) ||
	    (other_keeper && !fr_upgrade_begun(fr)))
		_exit(0);
}

static void look(struct fr *fr, unsigned ms)
{
	uint64_t claim = atomic_load(&fr->cp->worker), mine, failed_since;
	bool gone;

	leave_if_outdated(fr);
	gone = worker_gone(fr, claim, ms);
	leave_if_outdated(fr);
	if (!gone || fr_pidfd_dead(fr->keeper_pidfd) || fr_upgrade_begun(fr))
		return;
	failed_since = CLAIM_PID(claim) ? 0 : fr_upgrade_failed_since(fr);
	fr->after_upgrade = failed_since;
	atomic_store(&fr->died_at, CLAIM_PID(claim) ? fr_now_ns() : failed_since);
	mine = CLAIM(CLAIM_NUMBER(claim) + 1, getpid());
	FR_STEP();
	if (atomic_compare_exchange_strong(&fr->cp->worker, &claim, mine))
		fr_worker(fr, mine);
}

void fr_standby(struct fr *fr)
{
	fr->role = STANDBY;
	fr->standby = fr->old_standby = 0;
	fr->standby_pidfd = -1;
	/* A fork has neither the pages nor the locks of who made it: of a slot that was taken before fr_run(),
	 * or of a keeper that stood by before. */
	for (uint32_t i = 0; i < fr->layout.slots; i++)
		fr->slots[i].populated = fr->slots[i].resident = 0;
	do {
		/* Also those that were taken since: a successor has no time for it. */
		bool busy = fr_slots_populate(fr);
		enum standby part = fr_upgrade_wait(fr);

		if (!busy && !fr->prompt)
			be_prompt(fr);
		if (part == STANDBY_KEEPS)
			break;
		if (part == STANDBY_LOOKS)
			look(fr, busy ? 0 : LOOK_MS);
	} while (!fr_pidfd_dead(fr->keeper_pidfd) || fr_upgrade_begun(fr) ||
		 !fr_claim_keeper(fr, fr->keeper_claim));
	fr_be_usual(fr);
	fr_no_standby(fr, getpid());
}
