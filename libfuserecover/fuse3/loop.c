/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The threads: they read into slots, and give libfuse what they have read. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "libfuserecover/fuse3/internal.h"

struct rig fr_fuse3_rig = { .lock = PTHREAD_MUTEX_INITIALIZER, .start_lock = PTHREAD_MUTEX_INITIALIZER };
__thread struct seat *fr_fuse3_seat;

static struct rig *const rig = &fr_fuse3_rig;

void fr_fuse3_fail(int err)
{
	atomic_store(&rig->failed, err);
	fr_stop(rig->fr);
}

PUBLIC struct fr_slot *fr_fuse3_slot(void)
{
	return fr_fuse3_seat ? fr_fuse3_seat->slot : NULL;
}

/* ---- before fr_run() ---- */

static int open_clones(struct saved *s, int fd, unsigned clones)
{
	uint32_t of = (uint32_t)fd;
	int err;

	s->fds[0] = fd;
	for (unsigned i = 1; i <= clones; i++) {
		s->fds[i] = open("/dev/fuse", O_RDWR | O_CLOEXEC);
		if (s->fds[i] >= 0 && !ioctl(s->fds[i], FUSE_DEV_IOC_CLONE, &of))
			continue;
		err = -errno;
		for (; i; i--)
			if (s->fds[i] >= 0)
				close(s->fds[i]);
		return err;
	}
	s->clones = clones + 1;
	return 0;
}

/* Another one's would be read from until the first error: what can not be taken over is to be known before. */
static int check_clones(const struct saved *s, int fd, unsigned clones)
{
	if (s->fds[0] != fd || s->clones != clones + 1)
		return -EINVAL;
	for (unsigned i = 1; i <= clones; i++) {
		if (fr_fuse3_is_connection(s->fds[i]))
			continue;
		fuse_log(FUSE_LOG_ERR, "fuserecover: descriptor %d, which the predecessor read requests from, was not "
			 "handed over: mount anew\n", s->fds[i]);
		return -EBADF;
	}
	return 0;
}

PUBLIC int fr_fuse3_prepare(struct fr *fr, struct fuse_session *se, unsigned clones)
{
	int fd = fuse_session_fd(se), err;
	void *area = NULL;

	if (fd < 0 || clones >= FR_SLOTS_MAX)
		return -EINVAL;
	if (!fr_fuse3_is_connection(fd)) {
		fuse_log(FUSE_LOG_ERR, "fuserecover: the session reads from something else than /dev/fuse: "
			 "neither CUSE nor a transport of one's own can be recovered\n");
		return -ENOTSUP;
	}
	err = fr_area_new(fr, "libfuse session 2", sizeof(*rig->saved), &area);
	if (err)
		return err;
	rig->saved = area;
	/* Of an adopted checkpoint they are open already. */
	if (rig->saved->clones)
		err = check_clones(rig->saved, fd, clones);
	else
		err = open_clones(rig->saved, fd, clones);
	/* For another program, and for the service manager. */
	for (unsigned i = 0; !err && i <= clones; i++)
		err = fr_fd_keep(fr, NULL, rig->saved->fds[i]);
	if (!err)
		err = fuse_session_custom_io(se, &fr_fuse3_io, fd);
	if (!err)
		err = fr_fuse3_own_prepare();
	rig->fr = fr;
	rig->se = err ? NULL : se;
	return err;
}

/* ---- in a new process ---- */

/* What a predecessor's threads had, where this process was forked from a worker. */
void fr_fuse3_new_process(void)
{
	pthread_mutex_init(&rig->lock, NULL);
	pthread_cond_init(&rig->vacant, NULL);
	rig->slots = FR_SLOTS_MAX;
	rig->stopping = rig->unmounted = false;
	atomic_store(&rig->failed, 0);
	memset(rig->seats, 0, sizeof(rig->seats));
	for (unsigned i = 0; i < FR_SLOTS_MAX; i++) {
		rig->seats[i].index = i;
		pthread_cond_init(&rig->seats[i].came, NULL);
	}
	fr_fuse3_seat = NULL;
}

/*
 * A copy of a process with threads may have libfuse's lock without its owner. Who takes it hangs then: the
 * keeper-to-be is killed, and made again.
 */
PUBLIC void fr_fuse3_reset(void *arg)
{
	(void)arg;
	if (!rig->se)
		return;
	fr_fuse3_new_process();
	atomic_store(&rig->saved->forked, 1);
	pthread_mutex_init(&rig->start_lock, NULL);
	fr_fuse3_has_replies();
	fuse_session_reset(rig->se);
}

/* ---- threads ---- */

static void leave(void *arg)
{
	struct seat *seat = arg;

	fr_fuse3_seat = NULL;
	fr_slot_leave(seat->slot);
}

static void process(struct seat *seat, size_t size)
{
	struct fuse_buf buf = { .mem = fr_slot_request(seat->slot), .size = size };

	if (!fr_fuse3_begin(seat))
		return;
	fuse_session_process_buf(rig->se, &buf);
	fr_fuse3_finish(seat);
}

static bool read_one(struct seat *seat, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	/* As in libfuse's own loops, a thread ends where it waits for a request, not within one. */
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	n = fr_slot_read(seat->slot, fd);
	if (n == -EAGAIN)
		poll(&p, 1, -1);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	if (n > 0)
		process(seat, (size_t)n);
	if (n > 0 || n == -EAGAIN || n == -EINTR || n == -ENOENT)
		return !fuse_session_exited(rig->se);
	if (n != 0 && n != -ENODEV) {
		fuse_log(FUSE_LOG_ERR, "fuserecover: reading a request: %s\n", strerror((int)-n));
		fr_fuse3_fail((int)n);
	}
	return false;
}

static void *serve(void *arg)
{
	struct seat *seat = arg;
	int fd = rig->saved->fds[seat->index % rig->saved->clones];
	int err;
	size_t n;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	err = fr_slot_take(rig->fr, seat->index, &seat->slot);
	if (err) {
		fuse_log(FUSE_LOG_ERR, "fuserecover: slot %u: %s\n", seat->index, strerror(-err));
		fr_fuse3_fail(err);
		return NULL;
	}
	fr_slot_sizes(seat->slot, &seat->request_size, &seat->reply_size);
	pthread_cleanup_push(leave, seat);
	fr_fuse3_seat = seat;
	n = fr_slot_unfinished(seat->slot);
	if (n)
		process(seat, n);
	while (read_one(seat, fd))
		;
	fr_stop(rig->fr);
	pthread_cleanup_pop(1);
	return NULL;
}

void fr_fuse3_unmount(void)
{
	if (atomic_load(&rig->saved->forked))
		fuse_session_unmount(rig->se);
}

/* destroy() writes back what the file system holds; the kernel asks for that on block devices only. */
static void end_session(void)
{
	struct fuse_in_header in = { .len = sizeof(in), .opcode = FUSE_DESTROY };
	unsigned char reply[MESSAGE_MAX];

	if (atomic_load(&rig->saved->reply_len) && !atomic_load(&rig->destroyed))
		fr_fuse3_private(&in, sizeof(in), reply, sizeof(reply));
}

static unsigned start_threads(unsigned threads)
{
	unsigned n;
	int err = 0;

	for (n = 0; n < threads && !err; n++) {
		err = pthread_create(&rig->seats[n].thread, NULL, serve, &rig->seats[n]);
	}
	if (!err)
		return n;
	fuse_log(FUSE_LOG_ERR, "fuserecover: starting a thread: %s\n", strerror(err));
	fr_fuse3_fail(-err);
	return n - 1;
}

static void end_threads(unsigned n)
{
	pthread_mutex_lock(&rig->lock);
	rig->stopping = true;
	for (unsigned i = 0; i < n; i++)
		pthread_cond_signal(&rig->seats[i].came);
	pthread_mutex_unlock(&rig->lock);
	for (unsigned i = 0; i < n; i++) {
		pthread_cancel(rig->seats[i].thread);
		pthread_join(rig->seats[i].thread, NULL);
	}
}

static int check_replies(void)
{
	if (fr_fuse3_has_replies())
		return 0;
	fuse_log(FUSE_LOG_ERR, "fuserecover: fuse_session_custom_io() was called after fr_fuse3_prepare(): a transport of "
		 "one's own can not be recovered\n");
	return -ENOTSUP;
}

PUBLIC int fr_fuse3_loop(struct fr *fr, struct fuse_session *se, unsigned threads)
{
	struct pollfd p = { .fd = fr_stop_fd(fr), .events = POLLIN };
	unsigned n;
	int err;

	if (!se || fr != rig->fr || se != rig->se || !threads || threads > FR_SLOTS_MAX) {
		fr_stop(fr);
		return -EINVAL;
	}
	/* What others left has to be taken, too. */
	for (uint32_t i = fr_unfinished(fr, 0); i != FR_NO_SLOT; i = fr_unfinished(fr, i + 1))
		if (i >= threads)
			threads = i + 1;
	fr_fuse3_new_process();
	atomic_store(&rig->process, getpid());
	err = check_replies();
	if (!err)
		err = fr_fuse3_replay_init();
	if (err) {
		fr_fuse3_fail(err);
		return err;
	}
	n = start_threads(threads);
	while (poll(&p, 1, -1) <= 0)
		;
	end_threads(n);
	err = atomic_load(&rig->failed);
	if (!err)
		end_session();
	fr_fuse3_unmount();
	return err;
}
