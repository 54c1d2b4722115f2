/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A request in a slot, from when it was read until it is answered; and INIT, which each worker sees. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "libfuserecover/fuse3/internal.h"

static struct rig *const rig = &fr_fuse3_rig;

/* ---- a request ---- */

static bool wants_reply(uint32_t opcode)
{
	return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT &&
	       opcode != FUSE_NOTIFY_REPLY;
}

static void unlock(void *lock)
{
	pthread_mutex_unlock(lock);
}

void fr_fuse3_wait(pthread_cond_t *cond)
{
	pthread_cleanup_push(unlock, &rig->lock);
	pthread_setcancelstate(fr_fuse3_cancel_state, NULL);
	pthread_cond_wait(cond, &rig->lock);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_cleanup_pop(0);
}

/* The handler has left it to another thread. At the end of the service it stays without an answer. */
static void wait_for_reply(struct seat *seat)
{
	struct fuse_out_header *out = fr_slot_reply_buffer(seat->slot);
	struct iovec iov;
	void *late;

	pthread_mutex_lock(&rig->lock);
	while (!seat->late && !rig->stopping)
		fr_fuse3_wait(&seat->came);
	late = seat->late;
	iov = (struct iovec){ .iov_base = late, .iov_len = seat->late_size };
	seat->unique = 0;
	seat->late = NULL;
	pthread_mutex_unlock(&rig->lock);
	if (late && iov.iov_len <= seat->reply_size) {
		memcpy(out, iov.iov_base, iov.iov_len);
		fr_fuse3_send(seat, iov.iov_len);
	} else if (late) {
		fuse_log(FUSE_LOG_ERR, "fuserecover: a reply of %zu bytes does not fit into %zu: raise reply_size\n",
			 iov.iov_len, seat->reply_size);
		out->error = -EIO;
		fr_fuse3_send(seat, sizeof(*out));
	}
	free(late);
}

static void set_unique(struct seat *seat, uint64_t unique)
{
	pthread_mutex_lock(&rig->lock);
	seat->unique = unique;
	free(seat->late);
	seat->late = NULL;
	pthread_mutex_unlock(&rig->lock);
}

/* The predecessor had saved its reply to INIT, and has not sent it. The session has it already. */
static void send_init(struct seat *seat)
{
	uint32_t len = atomic_load(&rig->saved->reply_len);

	memcpy(fr_slot_reply_buffer(seat->slot), rig->saved->reply, len);
	fr_slot_reply(seat->slot, len);
}

/*
 * That the caller got a signal is said once, and libfuse has noted it in the memory of a process that is dead.
 * To EAGAIN the kernel says it again; it refuses where there was no signal.
 */
static void ask_for_interrupt(struct seat *seat, uint64_t unique)
{
	fr_reply_later(fr_slot_fd(seat->slot), unique | INTERRUPT_BIT, -EAGAIN, NULL, 0);
}

bool fr_fuse3_begin(struct seat *seat)
{
	const struct fuse_in_header *in = fr_slot_request(seat->slot);

	if (in->opcode == FUSE_INIT && atomic_load(&rig->saved->reply_len)) {
		send_init(seat);
		return false;
	}
	if (in->opcode == FUSE_DESTROY)
		atomic_store(&rig->destroyed, true);
	seat->opcode = in->opcode;
	seat->answered = false;
	seat->busy = true;
	set_unique(seat, in->unique);
	if (fr_slot_unfinished(seat->slot) && wants_reply(in->opcode))
		ask_for_interrupt(seat, in->unique);
	return true;
}

void fr_fuse3_finish(struct seat *seat)
{
	if (!wants_reply(seat->opcode))
		fr_slot_reply(seat->slot, 0);
	else if (!seat->answered)
		wait_for_reply(seat);
	set_unique(seat, 0);
	seat->busy = false;
}

/* ---- INIT ---- */

/* The session is as it was when it was mounted: it has to be told what the kernel said to the first one. */
int fr_fuse3_replay_init(void)
{
	const struct saved *s = rig->saved;
	struct fuse_init_out *now, *then;
	unsigned char request[MESSAGE_MAX], reply[MESSAGE_MAX];
	uint32_t len = atomic_load(&s->reply_len);
	size_t n;

	/* A process that was forked from a worker has a copy of a session that knows it. */
	if (!len || rig->inited)
		return 0;
	if (len > MESSAGE_MAX || s->request_len > MESSAGE_MAX ||
	    s->request_len < sizeof(struct fuse_in_header))
		return -EBADMSG;
	memcpy(request, s->request, s->request_len);
	((struct fuse_in_header *)(void *)request)->unique = 0;
	n = fr_fuse3_private(request, s->request_len, reply, sizeof(reply));
	rig->inited = true;
	now = (void *)(reply + sizeof(struct fuse_out_header));
	then = (void *)(s->reply + sizeof(struct fuse_out_header));
	if (n == len && !((struct fuse_out_header *)(void *)reply)->error) {
		/* These were made to fit the slots. */
		if (now->max_write > then->max_write)
			now->max_write = then->max_write;
		if (now->max_pages > then->max_pages)
			now->max_pages = then->max_pages;
		if (!memcmp(now, then, len - sizeof(struct fuse_out_header)))
			return 0;
	}
	fuse_log(FUSE_LOG_ERR, "fuserecover: init() asks for other things than when the file system was mounted: "
		 "mount it anew\n");
	return -EPROTO;
}
