/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What libfuse would write to the kernel. It names the session's descriptor and the session's user data,
 * and nothing of the thread that read the request: that is known by the thread, or by `unique`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "libfuserecover/fuse3/internal.h"

struct private_reply {
	void *to;
	size_t size, len;
};

static __thread struct private_reply *private_reply;

static size_t gather(unsigned char *to, const struct iovec *iov, int count)
{
	size_t at = 0;

	for (int i = 0; i < count; i++) {
		/* A handler may have built its data in the slot. */
		if (iov[i].iov_len && to + at != iov[i].iov_base)
			memmove(to + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	return at;
}

static size_t length(const struct iovec *iov, int count)
{
	size_t len = 0;

	for (int i = 0; i < count; i++)
		len += iov[i].iov_len;
	return len;
}

size_t fr_fuse3_private(void *request, size_t len, void *reply, size_t size)
{
	struct private_reply mine = { .to = reply, .size = size };
	struct fuse_buf buf = { .mem = request, .size = len };

	private_reply = &mine;
	fuse_session_process_buf(fr_fuse3_rig.se, &buf);
	private_reply = NULL;
	return mine.len;
}

/* The kernel has no such request. */
bool fr_fuse3_has_replies(void)
{
	struct fuse_in_header in = { .len = sizeof(in), .opcode = UINT32_MAX };
	unsigned char reply[MESSAGE_MAX];

	return fr_fuse3_private(&in, sizeof(in), reply, sizeof(reply));
}

int fr_fuse3_send(struct seat *seat, size_t len)
{
	const struct fuse_in_header *in = fr_slot_request(seat->slot);
	struct fuse_out_header *out = fr_slot_reply_buffer(seat->slot);
	int err = 0;

	out->len = (uint32_t)len;
	if (in->opcode == FUSE_INIT && !fr_fuse3_init_reply(seat, in, out))
		err = -EPROTO;
	else if (fr_fuse3_gives_address(in, out, len) && fr_keeper_pid(fr_fuse3_rig.fr))
		err = -ENOTSUP;
	if (err) {
		out->error = out->error ? out->error : -EIO;
		len = sizeof(*out);
		fr_fuse3_fail(err);
	}
	return fr_slot_reply(seat->slot, len);
}

/* The slot's own thread answers. */
static int answer(struct seat *seat, const struct iovec *iov, int count)
{
	struct fuse_out_header *out = fr_slot_reply_buffer(seat->slot);
	size_t len = length(iov, count);

	seat->answered = true;
	if (len > seat->reply_size) {
		fuse_log(FUSE_LOG_ERR, "fuserecover: a reply of %zu bytes does not fit into %zu: raise reply_size\n",
			 len, seat->reply_size);
		memmove(out, iov[0].iov_base, sizeof(*out));
		out->error = -EIO;
		len = sizeof(*out);
	} else {
		gather((unsigned char *)out, iov, count);
	}
	return fr_fuse3_send(seat, len);
}

/*
 * Another thread answers. It may live on for a moment when the slots' threads are dead and a successor
 * is at work: so it does not touch the slot, and hands the reply to the slot's thread. That may still
 * be in the handler, and wait for this thread: so nobody waits here.
 */
static bool hand_over(uint64_t unique, const struct iovec *iov, int count, int *err)
{
	struct rig *rig = &fr_fuse3_rig;
	struct seat *seat = NULL;
	size_t len = length(iov, count);
	void *copy = malloc(len + 1);

	*err = copy ? 0 : -ENOMEM;
	if (!copy)
		return true;
	pthread_mutex_lock(&rig->lock);
	for (uint32_t i = 0; !seat && i < FR_SLOTS_MAX; i++)
		if (rig->seats[i].unique == unique && !rig->seats[i].late)
			seat = &rig->seats[i];
	if (seat) {
		seat->late_size = len;
		gather(copy, iov, count);
		seat->late = copy;
		pthread_cond_signal(&seat->came);
	}
	pthread_mutex_unlock(&rig->lock);
	if (!seat)
		free(copy);
	return seat;
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct seat *seat = fr_fuse3_seat;
	int err = 0;

	(void)userdata;
	if (private_reply && out->unique == 0) {
		private_reply->len = length(iov, count);
		if (private_reply->len <= private_reply->size)
			gather(private_reply->to, iov, count);
		return (ssize_t)private_reply->len;
	}
	if (seat && out->unique && seat->unique == out->unique && !seat->answered)
		err = answer(seat, iov, count);
	else if (!out->unique || out->unique & INTERRUPT_BIT || !hand_over(out->unique, iov, count, &err))
		return writev(seat && out->unique ? fr_slot_fd(seat->slot) : fd, iov, count);
	errno = -err;
	return err ? -1 : (ssize_t)length(iov, count);
}

static ssize_t io_read(int fd, void *buf, size_t size, void *userdata)
{
	(void)userdata;
	return fr_fuse3_own_read(fd, buf, size);
}

/* Without splicing: a request in a pipe would be lost. */
const struct fuse_custom_io fr_fuse3_io = { .writev = io_writev, .read = io_read };
