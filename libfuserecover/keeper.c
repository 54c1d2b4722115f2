/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The keeper: one thread that does nothing but start a standby whenever there is none. A standby makes
 * itself the worker where there is no worker, so that the first one comes about like any other.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#define STUCK_MS	1000	/* a successor is at work, and what is left of the worker does not go */
#define RETRY_MS	1000
#define LEAVE_MS	2000
#define UNKNOWN		(-1)
#define UPGRADED	(-2)	/* killed for an upgrade, which failed */

struct keeper {
	struct fr *fr;
	uint64_t hang_killed;		/* the claim of a worker that was killed for hanging */
	uint64_t succeeded_at;		/* ms, when another claim than the known worker's was seen */
	bool fork_failed;
	bool upgrading;			/* to be looked after */
	/* a death that is not yet told of */
	bool untold;
	pid_t dead;
	int status;			/* or UNKNOWN, UPGRADED */
	uint64_t resent, redone;
};

static bool ready(const struct fr *fr)
{
	return atomic_load(&fr->cp->ready) == CLAIM_NUMBER(fr->worker_claim);
}

/* ---- what happened, in one line ---- */

static void describe(const struct keeper *k, char *text, size_t size)
{
	if (k->status == UPGRADED)
		snprintf(text, size, "was ended for an upgrade, which failed");
	else if (k->status < 0)
		snprintf(text, size, "died");
	else if (WIFSIGNALED(k->status))
		snprintf(text, size, "died of signal %d (%s)", WTERMSIG(k->status), strsignal(WTERMSIG(k->status)));
	else
		snprintf(text, size, "ended with status %d", WEXITSTATUS(k->status));
}

/* The socket is nobody's in the map. */
static void notify(struct fr *fr, const char *text, int (*how)(const char *text))
{
	if (!fr->options.notify)
		return;
	atomic_store(&fr->cp->opening[KEEPER], 1);
	how(text);
	atomic_store(&fr->cp->opening[KEEPER], 0);
}

static void tell_recovered(const struct keeper *k, const char *how)
{
	struct fr *fr = k->fr;
	struct cp_header *h = fr->cp;
	char text[64];

	fr_log(fr, LOG_WARNING, "worker %d %s; %d went on after %.2f ms: replies sent again: %llu, requests "
	       "done again: %llu", k->dead, how, fr_worker_pid(fr), (double)atomic_load(&h->last_pause) / 1e6,
	       (unsigned long long)(atomic_load(&h->resent) - k->resent),
	       (unsigned long long)(atomic_load(&h->redone) - k->redone));
	snprintf(text, sizeof(text), "STATUS=recovered from %llu deaths",
		 (unsigned long long)atomic_load(&h->recoveries));
	notify(fr, text, fr_notify_now);
}

static void tell(struct keeper *k)
{
	struct fr *fr = k->fr;
	struct cp_header *h = fr->cp;
	bool served = CLAIM_PID(fr->worker_claim) != k->dead && ready(fr);
	char how[96];

	if (!k->untold)
		return;
	k->untold = false;
	describe(k, how, sizeof(how));
	if (!served)
		fr_log(fr, LOG_ERR, "worker %d %s", k->dead, how);
	else
		tell_recovered(k, how);
	k->resent = atomic_load(&h->resent);
	k->redone = atomic_load(&h->redone);
}

/* ---- deaths ---- */

/* Whether there have been too many. */
static bool count_death(struct fr *fr)
{
	uint32_t most = fr->options.deaths;
	uint64_t now = fr_now_ns(), first;

	if (most == FR_NEVER)
		return false;
	fr->death_times[fr->deaths++ % most] = now;
	if (fr->deaths < most)
		return false;
	first = fr->death_times[fr->deaths % most];
	return now - first <= (uint64_t)fr->options.death_window * 1000000000u;
}

static void give_up(struct fr *fr, int err)
{
	atomic_store(&fr->cp->given_up, (uint32_t)err);
	FR_STEP();
	fr_log(fr, LOG_CRIT, "%u workers or standbys died within %u s: the service ends", fr->options.deaths,
	       fr->options.death_window);
}

static void worker_died(struct keeper *k)
{
	struct fr *fr = k->fr;
	int status;

	tell(k);
	k->dead = CLAIM_PID(fr->worker_claim);
	k->status = waitpid(k->dead, &status, WNOHANG) == k->dead ? status : UNKNOWN;
	/* Only for an upgrade the role is taken from somebody and then nobody's. */
	if (!CLAIM_PID(atomic_load(&fr->cp->worker)))
		k->status = UPGRADED;
	fr_close_own(fr, &fr->worker_pidfd);
	FR_STEP();
	if (atomic_load(&fr->cp->ended))
		return;
	k->untold = true;
	atomic_store(&fr->cp->last_status, k->status < 0 ? 0 : k->status);
	if (k->status != UPGRADED && count_death(fr))
		give_up(fr, ELOOP);
}

static void standby_died(struct keeper *k)
{
	struct fr *fr = k->fr;

	waitpid(fr->standby, NULL, WNOHANG);
	fr_close_own(fr, &fr->standby_pidfd);
	atomic_store(&fr->cp->opening[STANDBY], 0);
	FR_STEP();
	if (!atomic_load(&fr->cp->ended)) {
		fr_log(fr, LOG_WARNING, "standby %d died", fr->standby);
		if (count_death(fr))
			give_up(fr, ELOOP);
	}
	fr->standby = 0;
}

/* ---- who is the worker ---- */

static void follow_worker(struct keeper *k)
{
	struct fr *fr = k->fr;
	uint64_t claim = atomic_load(&fr->cp->worker);

	if (claim == fr->worker_claim && fr->worker_pidfd != PIDFD_UNKNOWN)
		return;
	/* Its death is seen to first; but what is stuck in the kernel may not go for ever. */
	if (fr->worker_pidfd >= 0) {
		k->succeeded_at = k->succeeded_at ? k->succeeded_at : fr_now_ms();
		if (!fr_pidfd_dead(fr->worker_pidfd) && fr_now_ms() - k->succeeded_at < STUCK_MS)
			return;
		worker_died(k);
	}
	k->succeeded_at = 0;
	if (CLAIM_PID(claim) == fr->standby && fr->standby) {
		fr->worker_pidfd = fr->standby_pidfd;
		fr->standby_pidfd = -1;
		fr_no_standby(fr, fr->standby);
		fr->standby = 0;
	} else {
		fr->worker_pidfd = fr_pidfd_of(fr, CLAIM_PID(claim), FD_KEEPERS, KEEPER);
	}
	fr->worker_claim = claim;
}

/* ---- a worker that hangs ---- */

static void find_hung(struct keeper *k)
{
	struct fr *fr = k->fr;
	struct timespec ts;
	uint64_t now;

	if (!fr->options.hang_ms || k->hang_killed == fr->worker_claim || fr->worker_pidfd < 0 ||
	    !ready(fr))
		return;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	now = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
	for (uint32_t i = 0; i < fr->layout.slots; i++) {
		uint64_t since = atomic_load(&fr->cp_slots[i].busy_since);
		char request[128];

		if (!since || since >= now || now - since < fr->options.hang_ms)
			continue;
		fr_describe_request(&fr->slots[i], request, sizeof(request));
		fr_log(fr, LOG_ERR, "worker %d has been in one request for %llu ms and is replaced: %s",
		       CLAIM_PID(fr->worker_claim), (unsigned long long)(now - since), request);
		atomic_store(&fr->cp_slots[i].fault, SIGKILL);
		k->hang_killed = fr->worker_claim;
	}
	if (k->hang_killed != fr->worker_claim)
		return;
	kill(CLAIM_PID(fr->worker_claim), SIGKILL);
	if (!fr_pidfd_wait(fr->worker_pidfd, STUCK_MS) && atomic_load(&fr->cp->worker) == fr->worker_claim)
		fr_log(fr, LOG_CRIT, "worker %d can not be killed: it hangs in the kernel, and so does the service",
		       CLAIM_PID(fr->worker_claim));
}

/* ---- the role ---- */

bool fr_claim_keeper(struct fr *fr, uint64_t from)
{
	uint64_t mine = CLAIM(CLAIM_NUMBER(from) + 1, getpid());

	FR_STEP();
	if (!atomic_compare_exchange_strong(&fr->cp->keeper, &from, mine))
		return false;
	fr->keeper_claim = mine;
	return true;
}

void fr_no_standby(struct fr *fr, pid_t pid)
{
	uint32_t noted = (uint32_t)pid;

	atomic_compare_exchange_strong(&fr->cp->standby, &noted, 0);
}

static void now_keeper(struct fr *fr)
{
	char text[32];

	fr_log(fr, LOG_WARNING, "process %d is the keeper now", getpid());
	snprintf(text, sizeof(text), "MAINPID=%d", getpid());
	notify(fr, text, fr_notify);
}

/* What the predecessor in this role, if there was one, had begun. */
static void become_keeper(struct keeper *k)
{
	struct fr *fr = k->fr;

	fr->role = KEEPER;
	/* The dead keeper may have closed it, and its number be given again. */
	if (fr->worker_pidfd >= 0 && !fr_fd_is_of(fr, fr->worker_pidfd, FD_KEEPERS))
		fr->worker_pidfd = PIDFD_UNKNOWN;
	atomic_store(&fr->cp->opening[KEEPER], 1);
	atomic_store(&fr->cp->opening[STANDBY], 0);
	fr_fds_close_of(fr, FD_KEEPERS, &fr->worker_pidfd, 1);
	atomic_store(&fr->cp->opening[KEEPER], 0);
	fr->keeper_pidfd = fr_pidfd_of(fr, getpid(), FD_KEEPERS, KEEPER);
	fr->standby_pidfd = fr->trial_pidfd = fr->trial_out = -1;
	fr->trial_pid = 0;
	fr_upgrade_keeper_died(fr);
	fr_signals_catch(fr);
	if (CLAIM_NUMBER(fr->keeper_claim) > 1)
		now_keeper(fr);
	k->resent = atomic_load(&fr->cp->resent);
	k->redone = atomic_load(&fr->cp->redone);
	k->fork_failed = k->untold = false;
}

/* Returns in the keeper; and, with true, in the standby, where that has become the keeper. */
static bool start_standby(struct keeper *k)
{
	struct fr *fr = k->fr;
	int pidfd = -1;
	pid_t pid;

	atomic_store(&fr->cp->opening[KEEPER], 1);
	pid = fr_fork(true, &pidfd);
	if (!pid) {
		fr_standby(fr);
		become_keeper(k);
		return true;
	}
	FR_STEP();
	if (pid > 0) {
		fr_fd_own(fr, pidfd, FD_KEEPERS);
		fr->standby = pid;
		fr->standby_pidfd = pidfd;
		/* Noted by the keeper alone: one that was started by a dead keeper is none. */
		atomic_store(&fr->cp->standby, (uint32_t)pid);
	} else if (!k->fork_failed) {
		fr_log(fr, LOG_ERR, "no standby: %s", pid == -ENOSYS ? "the kernel lacks CONFIG_CHECKPOINT_RESTORE, or "
		       "clone3() is forbidden here" : strerror(-pid));
		/* It will not come about: who asks would wait for ever. */
		if (pid == -ENOSYS && !CLAIM_PID(atomic_load(&fr->cp->worker)) && !fr->old_standby)
			atomic_store(&fr->cp->given_up, ENOSYS);
	}
	k->fork_failed = pid < 0;
	FR_STEP();
	atomic_store(&fr->cp->opening[KEEPER], 0);
	return false;
}

static int poll_ms(const struct keeper *k)
{
	uint32_t hang = k->fr->options.hang_ms / 4;

	if (k->upgrading)
		return 10;
	if (k->succeeded_at)
		return 50;
	if (k->fork_failed)
		return RETRY_MS;
	return !hang ? -1 : hang < 10 ? 10 : hang > 1000 ? 1000 : (int)hang;
}

static void wait_for_news(const struct keeper *k)
{
	struct fr *fr = k->fr;
	struct pollfd p[] = {
		{ .fd = fr->wake_fd, .events = POLLIN },
		{ .fd = fr->standby_pidfd, .events = POLLIN },
		/* A worker that is succeeded already has been seen, and need not be dead yet. */
		{ .fd = fr->worker_pidfd, .events = POLLIN },
	};
	uint64_t n;

	if (poll(p, sizeof(p) / sizeof(*p), poll_ms(k)) > 0 && p[0].revents)
		while (read(fr->wake_fd, &n, sizeof(n)) > 0)
			;
}

static bool service_ends(const struct fr *fr)
{
	return atomic_load(&fr->cp->ended) || atomic_load(&fr->cp->given_up);
}

/* A death that the successor has not dealt with yet: starting another process now would cost it time. */
static bool successor_at_work(const struct keeper *k)
{
	const struct cp_header *h = k->fr->cp;

	return k->fr->standby || k->fr->worker_claim != atomic_load(&h->worker) ||
	       (k->fr->worker_pidfd >= 0 && !ready(k->fr));
}

static void end_process(struct fr *fr, pid_t pid, int *pidfd)
{
	if (*pidfd >= 0 && !fr_pidfd_wait(*pidfd, atomic_load(&fr->cp->given_up) ? 0 : LEAVE_MS)) {
		kill(pid, SIGKILL);
		fr_pidfd_wait(*pidfd, -1);
	}
	if (pid)
		waitpid(pid, NULL, WNOHANG);
	fr_close_own(fr, pidfd);
}

static int end_service(struct keeper *k)
{
	struct fr *fr = k->fr;

	fr_upgrade_end_trial(fr);
	/* The standby first: it might be about to become the worker. */
	if (fr->standby && CLAIM_PID(atomic_load(&fr->cp->worker)) != fr->standby)
		kill(fr->standby, SIGKILL);
	if (fr->standby)
		end_process(fr, fr->standby, &fr->standby_pidfd);
	end_process(fr, CLAIM_PID(fr->worker_claim), &fr->worker_pidfd);
	follow_worker(k);
	end_process(fr, CLAIM_PID(fr->worker_claim), &fr->worker_pidfd);
	tell(k);
	fr_close_own(fr, &fr->keeper_pidfd);
	fr_no_standby(fr, (pid_t)atomic_load(&fr->cp->standby));
	fr_signals_restore();
	fr_store_empty(fr);
	atomic_store(&fr->cp->worker, CLAIM(CLAIM_NUMBER(atomic_load(&fr->cp->worker)), 0));
	atomic_store(&fr->cp->keeper, CLAIM(CLAIM_NUMBER(atomic_load(&fr->cp->keeper)), 0));
	fr->role = ROLES;
	return -(int)atomic_load(&fr->cp->given_up);
}

int fr_keep(struct fr *fr)
{
	struct keeper k = { .fr = fr };

	become_keeper(&k);
	for (;;) {
		follow_worker(&k);
		if (CLAIM_PID(fr->worker_claim) != k.dead && ready(fr))
			tell(&k);
		if (fr->worker_pidfd >= 0 && fr_pidfd_dead(fr->worker_pidfd))
			worker_died(&k);
		if (fr->standby && CLAIM_PID(atomic_load(&fr->cp->worker)) != fr->standby &&
		    fr_pidfd_dead(fr->standby_pidfd))
			standby_died(&k);
		if (service_ends(fr))
			return end_service(&k);
		/* An upgrade to this program was given up, while it started. */
		if (atomic_load(&fr->cp->keeper) != fr->keeper_claim)
			_exit(1);
		find_hung(&k);
		k.upgrading = fr_upgrade_step(fr);
		if (!successor_at_work(&k) && start_standby(&k))
			continue;
		wait_for_news(&k);
	}
}

/* ---- from outside ---- */

static bool single_threaded(void)
{
	char stat[1024], *at;
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, stat, sizeof(stat) - 1);
	int threads = 0;

	if (fd >= 0)
		close(fd);
	stat[n > 0 ? n : 0] = 0;
	/* Behind the name, which may contain anything: state and 16 numbers, then the number of threads. */
	at = strrchr(stat, ')');
	for (int i = 0; at && i < 18; i++)
		at = strchr(at + 1, ' ');
	if (at)
		threads = atoi(at + 1);
	return threads == 1;
}

static int may_run(struct fr *fr)
{
	struct sigaction chld;

	if (fr->role != ROLES || atomic_load(&fr->cp->ended) || atomic_load(&fr->cp->given_up))
		return -EBUSY;
	if (fr->adopted && fr->parts_asked != fr->layout.parts)
		return -EINVAL;
	if (!single_threaded()) {
		fr_log(fr, LOG_ERR, "fr_run() needs a process with one thread");
		return -EINVAL;
	}
	sigaction(SIGCHLD, NULL, &chld);
	if (chld.sa_handler == SIG_IGN || chld.sa_flags & SA_NOCLDWAIT) {
		fr_log(fr, LOG_ERR, "fr_run() needs to know of what its children died: SIGCHLD must not be ignored");
		return -EINVAL;
	}
	return 0;
}

PUBLIC int fr_run(struct fr *fr)
{
	int err = may_run(fr);

	err = err ? err : fr_take_possession(fr);
	if (!err && fcntl(fr->fd, F_ADD_SEALS, F_SEAL_GROW) && errno != EPERM)
		err = -errno;
	err = err ? err : fr_fds_keep_open(fr);
	if (err) {
		fr_signals_restore();
		return err;
	}
	pthread_sigmask(SIG_SETMASK, NULL, &fr->mask);
	fr->worker_claim = atomic_load(&fr->cp->worker);
	fr_claim_keeper(fr, atomic_load(&fr->cp->keeper));
	return fr_keep(fr);
}
