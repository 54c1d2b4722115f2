/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that are not fr_fuse3_loop()'s: those of fuse_session_loop() and fuse_session_loop_mt(), and
 * any that call fuse_session_receive_buf(). A thread that reads for the first time gets a seat, and loses
 * it when it ends. When it reads again, it is done with the request before.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "libfuserecover/fuse3/internal.h"

#define INTERRUPT	SIGURG		/* ignored, where nobody has a handler */
#define AGAIN_MS	5
#define UNMOUNT_MS	1000

static struct rig *const rig = &fr_fuse3_rig;
__thread int fr_fuse3_cancel_state = PTHREAD_CANCEL_DISABLE;

/* ---- the end of the service ---- */

static void nothing(int sig)
{
	(void)sig;
}

/* Readers wait in read(2), which only a signal ends. One that comes just before it is lost: so again. */
static void *interrupt(void *arg)
{
	const struct timespec t = { .tv_nsec = AGAIN_MS * 1000000L };
	struct pollfd p = { .fd = fr_stop_fd(rig->fr), .events = POLLIN };

	while (poll(&p, 1, -1) <= 0)
		;
	for (;;) {
		pthread_mutex_lock(&rig->lock);
		atomic_store(&rig->stopping, true);
		pthread_cond_broadcast(&rig->vacant);
		for (unsigned i = 0; i < FR_SLOTS_MAX; i++) {
			pthread_cond_signal(&rig->seats[i].came);
			if (rig->seats[i].taken && atomic_load(&rig->seats[i].reading))
				pthread_kill(rig->seats[i].thread, INTERRUPT);
		}
		pthread_mutex_unlock(&rig->lock);
		nanosleep(&t, NULL);
	}
	return arg;
}

static bool busy(void)
{
	for (unsigned i = 0; i < FR_SLOTS_MAX; i++)
		if (atomic_load(&rig->seats[i].busy))
			return true;
	return false;
}

/* The first thread that reads again does it, when the others have answered or take too long. */
static void unmount(void)
{
	const struct timespec t = { .tv_nsec = AGAIN_MS * 1000000L };
	bool mine;

	pthread_mutex_lock(&rig->lock);
	mine = !rig->unmounted;
	rig->unmounted = true;
	pthread_mutex_unlock(&rig->lock);
	for (int i = 0; mine && busy() && i < UNMOUNT_MS / AGAIN_MS; i++)
		nanosleep(&t, NULL);
	if (mine)
		fr_fuse3_unmount();
}

/* Not before: threads that find the session at its end do not read again, and the others are cancelled. */
static void end(void)
{
	unmount();
	/* After a failure, libfuse does it with what the read returned. */
	if (!atomic_load(&rig->failed))
		fuse_session_exit(rig->se);
}

static bool is_over(void)
{
	return atomic_load(&rig->stopping) || fuse_session_exited(rig->se);
}

/* ---- the first read in a process ---- */

/* One's own, or a predecessor's. It is closed last: the number may be another thread's at once. */
static void close_clone(uint32_t slot)
{
	int fd = rig->saved->own[slot];
	bool is_open = fd > 0 && fr_fuse3_is_connection(fd);

	if (is_open)
		fr_fd_drop(rig->fr, NULL, fd);
	rig->saved->own[slot] = 0;
	if (is_open)
		close(fd);
}

/*
 * Clones that the predecessor's libfuse had open, also for threads that had not read yet. Nobody else knows
 * them; what this process has opened so far is what it reads from.
 */
static void close_theirs(int reads)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (fd > 0 && fd != reads && !fr_fd_is_kept(rig->fr, fd) && fr_fuse3_is_connection(fd))
			close(fd);
	}
	if (dir)
		closedir(dir);
}

static int start_interrupter(void)
{
	struct sigaction act = { .sa_handler = nothing }, now;
	sigset_t all, before;
	pthread_t thread;
	int err;

	sigaction(INTERRUPT, NULL, &now);
	if (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN)
		sigaction(INTERRUPT, &act, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&thread, NULL, interrupt, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!err)
		pthread_detach(thread);
	return -err;
}

static void start(int fd)
{
	uint32_t left = 0;
	int err;

	fr_fuse3_new_process();
	for (uint32_t i = fr_unfinished(rig->fr, 0); i != FR_NO_SLOT; i = fr_unfinished(rig->fr, i + 1)) {
		rig->seats[i].left = true;
		left++;
	}
	atomic_store(&rig->left, left);
	if (rig->saved->cloned)
		close_theirs(fd);
	for (uint32_t i = 0; i < FR_SLOTS_MAX; i++)
		if (!rig->seats[i].left)
			close_clone(i);
	err = fr_fuse3_replay_init();
	if (!err)
		err = start_interrupter();
	if (err)
		fr_fuse3_fail(err);
}

static void start_once(int fd)
{
	pid_t me = getpid();

	if (atomic_load(&rig->process) == me)
		return;
	pthread_mutex_lock(&rig->start_lock);
	if (atomic_load(&rig->process) != me) {
		start(fd);
		atomic_store(&rig->process, me);
	}
	pthread_mutex_unlock(&rig->start_lock);
}

/* ---- seats ---- */

static void give_up_seat(struct seat *seat)
{
	pthread_mutex_lock(&rig->lock);
	seat->taken = false;
	pthread_cond_signal(&rig->vacant);
	pthread_mutex_unlock(&rig->lock);
}

static void leave(void *arg)
{
	struct seat *seat = arg;

	fr_fuse3_seat = NULL;
	/* Its handler may have left the request to another thread, and libfuse ended this one as an idle one. */
	if (seat->busy && !fuse_session_exited(rig->se))
		fr_fuse3_finish(seat);
	close_clone(seat->index);
	seat->clone = 0;
	fr_slot_leave(seat->slot);
	give_up_seat(seat);
}

/* One with a request that was left, else any that is free. */
static struct seat *look_for_seat(void)
{
	struct seat *free_one = NULL;

	for (uint32_t i = 0; i < rig->slots; i++) {
		struct seat *seat = &rig->seats[i];

		if (seat->left)
			return seat;
		if (!seat->taken && !free_one)
			free_one = seat;
	}
	return free_one;
}

static struct seat *take_seat(void)
{
	struct seat *seat = NULL;

	pthread_mutex_lock(&rig->lock);
	/* More threads than slots: they wait until one ends. */
	while (!rig->stopping && !(seat = look_for_seat()))
		fr_fuse3_wait(&rig->vacant);
	if (seat) {
		if (seat->left)
			atomic_fetch_sub(&rig->left, 1);
		seat->left = false;
		seat->taken = true;
		seat->thread = pthread_self();
	}
	pthread_mutex_unlock(&rig->lock);
	return seat;
}

static int sit_down(void)
{
	struct seat *seat = take_seat();
	int err;

	if (!seat)
		return -EINTR;
	err = fr_slot_take(rig->fr, seat->index, &seat->slot);
	if (!err) {
		fr_slot_sizes(seat->slot, &seat->request_size, &seat->reply_size);
		err = -pthread_setspecific(rig->key, seat);
		fr_fuse3_seat = seat;
		if (err)
			leave(seat);
		return err;
	}
	give_up_seat(seat);
	if (err == -EINVAL && seat->index) {
		pthread_mutex_lock(&rig->lock);
		rig->slots = seat->index;
		pthread_mutex_unlock(&rig->lock);
		return -EINTR;
	}
	fuse_log(FUSE_LOG_ERR, "fuserecover: slot %u: %s\n", seat->index, strerror(-err));
	return err;
}

/* The thread that is done with its own takes what is left: there may never be as many threads again. */
static int have_seat(void)
{
	struct seat *seat = fr_fuse3_seat;

	if (seat && atomic_load(&rig->left)) {
		pthread_setspecific(rig->key, NULL);
		leave(seat);
	}
	return fr_fuse3_seat ? 0 : sit_down();
}

/* ---- reading ---- */

/*
 * libfuse opens clones in the worker, and closes them when a thread ends, before that is known here. They
 * have to outlive the worker with their requests: so what is kept and read from is another descriptor. Where
 * there is none to be had, the session's serves as well.
 */
static int descriptor_for(struct seat *seat, int fd)
{
	struct saved *s = rig->saved;
	uint32_t i = seat->index;
	int copy;

	if (fd == s->fds[0])
		return fd;
	if (fd != seat->clone) {
		close_clone(i);
		seat->clone = fd;
		s->cloned = true;
		copy = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		s->own[i] = copy > 0 ? copy : 0;
		if (copy > 0 && fr_fd_keep(rig->fr, NULL, copy))
			close_clone(i);
	}
	return s->own[i] ? s->own[i] : s->fds[0];
}

static ssize_t read_request(struct seat *seat, int fd)
{
	struct pollfd p = { .fd = descriptor_for(seat, fd), .events = POLLIN };
	ssize_t n;

	atomic_store(&seat->reading, true);
	pthread_setcancelstate(fr_fuse3_cancel_state, NULL);
	n = is_over() ? -EINTR : fr_slot_read(seat->slot, p.fd);
	if (n == -EAGAIN) {
		poll(&p, 1, -1);
		n = -EINTR;
	}
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	atomic_store(&seat->reading, false);
	return n;
}

static ssize_t next_request(int fd)
{
	int err = have_seat();
	struct seat *seat = fr_fuse3_seat;
	ssize_t n;

	if (err)
		return err;
	n = (ssize_t)fr_slot_unfinished(seat->slot);
	if (!n)
		n = read_request(seat, fd);
	/* Where it was the reply to INIT that was left, there is nothing to do any more. */
	if (n > 0 && !fr_fuse3_begin(seat))
		return -EINTR;
	return n;
}

/* Nothing to read, or nothing any more. After anything else libfuse's threads would end without a word. */
static bool ends_quietly(int err)
{
	return err == EINTR || err == ENOENT || err == ENODEV;
}

static ssize_t next(int fd, size_t size)
{
	ssize_t n;

	start_once(fd);
	if (fr_fuse3_seat && fr_fuse3_seat->busy)
		fr_fuse3_finish(fr_fuse3_seat);
	n = atomic_load(&rig->failed);
	if (!n) {
		n = next_request(fd);
		if (n > (ssize_t)size)
			n = -EIO;
		if (n < 0 && !ends_quietly((int)-n)) {
			fuse_log(FUSE_LOG_ERR, "fuserecover: reading a request: %s\n", strerror((int)-n));
			fr_fuse3_fail((int)n);
		}
	}
	if (n < 0 && (atomic_load(&rig->failed) || is_over()))
		end();
	return n;
}

/* libfuse cancels its threads in here: that must come where one waits only. */
ssize_t fr_fuse3_own_read(int fd, void *buf, size_t size)
{
	int before;
	ssize_t n;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	fr_fuse3_cancel_state = before;
	n = next(fd, size);
	if (n > 0)
		memcpy(buf, fr_slot_request(fr_fuse3_seat->slot), (size_t)n);
	pthread_setcancelstate(before, NULL);
	if (n >= 0)
		return n;
	errno = (int)-n;
	return -1;
}

int fr_fuse3_own_prepare(void)
{
	/* Of an adopted checkpoint, the clones were closed by exec(3). */
	rig->saved->cloned = false;
	return -pthread_key_create(&rig->key, leave);
}
