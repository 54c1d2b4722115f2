/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes that share one table of descriptors, and how one learns that another is dead. */
#include <dirent.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#define UNKNOWN_MS	1000	/* then it is tried again */

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

/* ---- fork ---- */

/*
 * What fork(3) does for the C library and clone3(2) does not: the thread has to know its new id, which
 * it writes into locks, and the kernel has to know of its robust locks, of which it holds none. And what
 * fork(3) does, to take the locks of malloc(3), must not be done: in a keeper that was forked from a worker
 * they may be held for ever by a thread that is not there.
 */
pid_t fr_fork(bool share_descriptors, int *pidfd)
{
	struct robust_list_head *robust = NULL;
	sigset_t all, before;
	size_t robust_size;
	void *tid = NULL;
	pid_t pid;

	if (prctl(PR_GET_TID_ADDRESS, &tid) || !tid)
		return -ENOSYS;
	if (syscall(SYS_get_robust_list, 0, &robust, &robust_size))
		return -errno;
	struct clone_args args = {
		.flags = (share_descriptors ? CLONE_FILES : 0) | CLONE_PIDFD | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID,
		.pidfd = (uintptr_t)pidfd,
		.child_tid = (uintptr_t)tid,
		.exit_signal = SIGCHLD,
	};
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0)
		pid = -errno;
	if (!pid) {
		robust->list.next = &robust->list;
		syscall(SYS_set_robust_list, robust, robust_size);
		fr_signals_default();
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return pid;
}

/* ---- pidfds ---- */

bool fr_pidfd_wait(int pidfd, int ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	int n;

	if (pidfd < 0 && pidfd != PIDFD_UNKNOWN)
		return true;
	if (pidfd < 0 && (ms < 0 || ms > UNKNOWN_MS))
		ms = UNKNOWN_MS;
	do
		n = poll(&p, 1, ms);
	while (n < 0 && errno == EINTR);
	return n > 0;
}

bool fr_pidfd_dead(int pidfd)
{
	return fr_pidfd_wait(pidfd, 0);
}

int fr_pidfd_of(struct fr *fr, pid_t pid, enum fd_owner owner, enum role opener)
{
	int fd;

	/* The worker's collector must not find it before it is marked. */
	atomic_store(&fr->cp->opening[opener], 1);
	fd = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	if (fd >= 0)
		fr_fd_own(fr, fd, owner);
	else if (pid && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		fd = PIDFD_UNKNOWN;
	FR_STEP();
	atomic_store(&fr->cp->opening[opener], 0);
	return fd;
}

void fr_close_own(struct fr *fr, int *fd)
{
	if (*fd < 0)
		return;
	/* Closed first, its number might be somebody else's by the time that it is disowned. */
	atomic_store(&fr->cp->opening[fr->role], 1);
	fr_fd_disown(fr, *fd);
	FR_STEP();
	close(*fd);
	atomic_store(&fr->cp->opening[fr->role], 0);
	*fd = -1;
}

void fr_wake_keeper(const struct fr *fr)
{
	uint64_t one = 1;
	ssize_t n = write(fr->wake_fd, &one, sizeof(one));

	(void)n; /* its counter is full: it is readable */
}

/* ---- robust locks ---- */

/*
 * The kernel marks the robust locks of a thread that dies before it takes the address space down, which
 * can take milliseconds. The futex is the mutex's first word in every C library that has a stable
 * layout of it, and what it says is the kernel's interface.
 */
static _Atomic uint32_t *word_of(pthread_mutex_t *m)
{
	return (_Atomic uint32_t *)(void *)m;
}

enum owner fr_owner(pthread_mutex_t *m)
{
	uint32_t v = atomic_load(word_of(m));

	return v & FUTEX_OWNER_DIED ? OWNER_DEAD : v & FUTEX_TID_MASK ? OWNER_ALIVE : OWNER_NONE;
}

pid_t fr_owner_tid(pthread_mutex_t *m)
{
	uint32_t v = atomic_load(word_of(m));

	return v & FUTEX_OWNER_DIED ? 0 : (pid_t)(v & FUTEX_TID_MASK);
}

void fr_owner_wait(pthread_mutex_t *m, unsigned ms)
{
	const struct timespec most = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
	uint32_t v = atomic_load(word_of(m));

	if (v & FUTEX_OWNER_DIED || !(v & FUTEX_TID_MASK))
		return;
	if (!(v & FUTEX_WAITERS) && !atomic_compare_exchange_strong(word_of(m), &v, v | FUTEX_WAITERS))
		return;
	syscall(SYS_futex, word_of(m), FUTEX_WAIT, v | FUTEX_WAITERS, &most, NULL, 0);
}

/* ---- processes of before ---- */

#define LOOK_AGAIN_MS	2
#define TELL_AFTER_MS	1000

static bool maps(const char *path, const struct stat *memory)
{
	FILE *f = fopen(path, "re");
	unsigned long long inode;
	unsigned major, minor;
	char line[512];
	bool found = false;

	/* A path that is longer than the line begins none that looks like this. */
	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, "%*x-%*x %*s %*x %x:%x %llu", &major, &minor, &inode) == 3 &&
			inode == memory->st_ino && makedev(major, minor) == memory->st_dev;
	if (f)
		fclose(f);
	return found;
}

/* Whether a thread has the checkpoint mapped; the main thread may be dead when others are not. */
static bool uses_checkpoint(pid_t pid, const struct stat *memory)
{
	char path[64];
	const struct dirent *thread;
	bool uses = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && !uses && (thread = readdir(dir))) {
		char of_thread[sizeof(path) + sizeof(thread->d_name) + 8];

		snprintf(of_thread, sizeof(of_thread), "%s/%s/maps", path, thread->d_name);
		uses = *thread->d_name != '.' && maps(of_thread, memory);
	}
	if (dir)
		closedir(dir);
	return uses;
}

void fr_wait_for_predecessors(struct fr *fr)
{
	const struct cp_header *h = fr->cp;
	pid_t all[] = { CLAIM_PID(atomic_load(&h->worker)), CLAIM_PID(atomic_load(&h->keeper)),
			(pid_t)atomic_load(&h->standby) };
	uint64_t since = fr_now_ms();
	bool told = false;
	struct stat memory;

	if (fstat(fr->fd, &memory))
		return;
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
		while (all[i] > 0 && all[i] != getpid() && uses_checkpoint(all[i], &memory)) {
			if (!told && fr_now_ms() - since >= TELL_AFTER_MS) {
				told = true;
				fr_log(fr, LOG_WARNING, "process %d has not ended yet: its successor waits", (int)all[i]);
			}
			poll(NULL, 0, LOOK_AGAIN_MS);
		}
	}
}

/* ---- signals that end the service ---- */

static const int stops[] = { SIGTERM, SIGINT, SIGHUP };
#define STOPS (sizeof(stops) / sizeof(*stops))

static struct fr *_Atomic stopped_by_signal;
static struct sigaction before[STOPS];

static void on_stop(int sig)
{
	struct fr *fr = atomic_load(&stopped_by_signal);

	(void)sig;
	if (fr)
		fr_stop(fr);
}

void fr_signals_catch(struct fr *fr)
{
	struct sigaction act = { .sa_handler = on_stop };
	bool again = atomic_exchange(&stopped_by_signal, fr) != NULL;

	sigemptyset(&act.sa_mask);
	for (unsigned i = 0; i < STOPS; i++) {
		struct sigaction now;

		sigaction(stops[i], NULL, &now);
		if (!again)
			before[i] = now;
		/* nohup(1), and what a shell starts in the background */
		if (now.sa_handler != SIG_IGN)
			sigaction(stops[i], &act, NULL);
	}
}

void fr_signals_restore(void)
{
	if (!atomic_exchange(&stopped_by_signal, NULL))
		return;
	for (unsigned i = 0; i < STOPS; i++)
		sigaction(stops[i], &before[i], NULL);
}

void fr_signals_mask(int how, sigset_t *mask)
{
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < STOPS; i++)
		sigaddset(&set, stops[i]);
	pthread_sigmask(how, &set, mask);
}

void fr_signals_default(void)
{
	for (unsigned i = 0; i < STOPS; i++) {
		struct sigaction now;

		sigaction(stops[i], NULL, &now);
		if (now.sa_handler == on_stop)
			signal(stops[i], SIG_DFL);
	}
}
