/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Slots. The kernel copies a request straight into one; from its first byte on, the request is known to
 * the successor. Where a page of a slot is missing while the process is being killed, the kernel can
 * not copy, and ends the request with an error: so all pages of a slot that is in use are resident.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PIECE		(64u << 10)	/* one call for a whole slot would keep a processor from a dying worker for a ms */
#define WRITE_HEAD	(sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define READ_HEAD	sizeof(struct fuse_out_header)
#define INTERRUPT_BIT	1ull	/* FUSE_INT_REQ_BIT of the kernel */

__thread struct fr_slot *fr_current __attribute__((tls_model("initial-exec")));

static struct fuse_in_header *header_of(const struct fr_slot *slot)
{
	return (struct fuse_in_header *)(void *)slot->request;
}

/* ---- memory ---- */

struct slot_shape fr_slot_shape(const struct cp_layout *l)
{
	struct slot_shape s;
	uint32_t page = l->page;

	s.intent = UNDO_SIZE;
	s.note = (s.intent + l->intent_size + 63) & ~63u;
	s.request = (s.note + l->note_size + page - 1) / page * page + page - (uint32_t)WRITE_HEAD;
	s.reply = (s.request + l->request_size + page - 1) / page * page + page - (uint32_t)READ_HEAD;
	s.size = (s.reply + l->reply_size + page - 1) / page * page;
	return s;
}

void fr_slots_init(struct fr *fr)
{
	for (uint32_t i = 0; i < fr->layout.slots; i++) {
		struct fr_slot *s = &fr->slots[i];
		unsigned char *body = fr->base + fr->bodies + (uint64_t)i * fr->shape.size;

		s->fr = fr;
		s->index = i;
		s->cp = &fr->cp_slots[i];
		s->undo = body;
		s->intent = body + fr->shape.intent;
		s->note = body + fr->shape.note;
		s->request = body + fr->shape.request;
		s->reply = body + fr->shape.reply;
	}
}

/* Resident pages are rarely taken away again; locked ones never. To lock them makes them resident, too, where they
 * have been written once in less than half the time of MADV_POPULATE_WRITE. */
static bool lock_piece(struct fr *fr, unsigned char *piece, uint32_t size)
{
#ifdef SYS_mlock2
	if (atomic_load(&fr->mlock_failed))
		return false;
	if (!syscall(SYS_mlock2, piece, (size_t)size, 0))
		return true;
	if (!atomic_exchange(&fr->mlock_failed, 1) && fr->role == WORKER && fr->generation == 1)
		fr_log(fr, LOG_INFO, "slots are not locked into memory (%s): raise RLIMIT_MEMLOCK", strerror(errno));
#endif
	return false;
}

/* The next piece; false where there is none. */
static bool populate_piece(struct fr_slot *slot)
{
	struct fr *fr = slot->fr;
	unsigned char *piece = slot->undo + slot->populated;
	uint32_t left = fr->shape.size - slot->populated, size = left < PIECE ? left : PIECE;

	if (!left)
		return false;
	slot->populated += size;
	/* EINVAL: Linux before 5.14. The holder may touch his own pages, a standby must not. */
	if (lock_piece(fr, piece, size) || !madvise(piece, size, MADV_POPULATE_WRITE))
		slot->resident += size;
	else if (slot->taken)
		for (uint32_t at = 0; at < size; at += fr->layout.page)
			((volatile unsigned char *)piece)[at] = ((volatile unsigned char *)piece)[at];
	return true;
}

void fr_slot_populate(struct fr_slot *slot)
{
	while (populate_piece(slot))
		;
}

bool fr_slots_populate(struct fr *fr)
{
	for (uint32_t i = 0; i < fr->layout.slots; i++)
		if (fr->cp_slots[i].has_memory && populate_piece(&fr->slots[i]))
			return true;
	return false;
}

static int give_memory(struct fr_slot *slot)
{
	int err = 0;

	if (!slot->cp->has_memory)
		err = fr_give_memory(slot->fr, slot->fr->bodies + (uint64_t)slot->index * slot->fr->shape.size,
				     slot->fr->shape.size);
	if (!err) {
		FR_STEP();
		slot->cp->has_memory = 1;
	}
	return err;
}

/* ---- being in a request ---- */

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void wait_while_stopped(struct fr_slot *slot)
{
	struct fr *fr = slot->fr;

	while (atomic_load(&fr->stopped)) {
		atomic_store(&slot->busy, 0);
		fr_collect_wait(fr);
		atomic_store(&slot->busy, 1);
	}
}

/* From here on until the next read the thread may hold descriptors that nobody else knows. */
static void begin_request(struct fr_slot *slot)
{
	atomic_store(&slot->busy, 1);
	if (unlikely(atomic_load(&slot->fr->stopped)))
		wait_while_stopped(slot);
	atomic_store_explicit(&slot->cp->busy_since, now_ms(), memory_order_relaxed);
}

static void end_request(struct fr_slot *slot)
{
	if (!atomic_load_explicit(&slot->busy, memory_order_relaxed))
		return;
	atomic_store_explicit(&slot->cp->busy_since, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->busy, 0, memory_order_release);
}

/* ---- taking ---- */

uint32_t fr_slot_request_length(const struct fr_slot *slot)
{
	uint32_t len;

	if (!slot->cp->has_memory || slot->cp->state != SLOT_READ)
		return 0;
	len = header_of(slot)->len;
	return len >= sizeof(struct fuse_in_header) && len <= slot->fr->layout.request_size ? len : 0;
}

PUBLIC int fr_slot_take(struct fr *fr, uint32_t index, struct fr_slot **out)
{
	struct fr_slot *slot;
	int err;

	if (index >= fr->layout.slots)
		return -EINVAL;
	slot = &fr->slots[index];
	err = pthread_mutex_trylock(&slot->cp->alive);
	if (err == EOWNERDEAD) {
		/* A thread of this process ended without leaving its slot. */
		pthread_mutex_consistent(&slot->cp->alive);
		err = fr_rollback(fr, index);
		slot->open = slot->holds_tables = false;
		slot->pending = fr_slot_request_length(slot);
	}
	if (err)
		return err > 0 ? -err : err;
	err = give_memory(slot);
	if (err) {
		pthread_mutex_unlock(&slot->cp->alive);
		return err;
	}
	slot->taken = true;
	slot->clean = false;
	fr_slot_populate(slot);
	fr_blame_thread(slot);
	fr_current = slot;
	if (slot->pending)
		begin_request(slot);
	*out = slot;
	return 0;
}

PUBLIC void fr_slot_leave(struct fr_slot *slot)
{
	if (slot->open)
		fr_die(slot->fr, "fr_slot_leave() within a step");
	fr_blame_leave(slot);
	if (fr_current == slot)
		fr_current = NULL;
	end_request(slot);
	slot->taken = false;
	pthread_mutex_unlock(&slot->cp->alive);
}

PUBLIC uint32_t fr_unfinished(const struct fr *fr, uint32_t from)
{
	for (uint32_t i = from; i < fr->layout.slots; i++)
		if (fr->slots[i].pending)
			return i;
	return FR_NO_SLOT;
}

PUBLIC size_t fr_slot_unfinished(const struct fr_slot *slot)
{
	return slot->pending;
}

PUBLIC void *fr_slot_request(struct fr_slot *slot)
{
	return slot->request;
}

PUBLIC void *fr_slot_reply_buffer(struct fr_slot *slot)
{
	return slot->reply;
}

PUBLIC void fr_slot_sizes(const struct fr_slot *slot, size_t *request, size_t *reply)
{
	*request = slot->fr->layout.request_size;
	*reply = slot->fr->layout.reply_size;
}

PUBLIC int fr_slot_fd(const struct fr_slot *slot)
{
	return slot->cp->fd;
}

PUBLIC void *fr_slot_intent(struct fr_slot *slot)
{
	return slot->intent;
}

PUBLIC void fr_slot_intent_set(struct fr_slot *slot, size_t size)
{
	if (unlikely(size > slot->fr->layout.intent_size))
		fr_die(slot->fr, "an intent of more than %u bytes", slot->fr->layout.intent_size);
	FR_STEP();
	barrier();
	slot->cp->intent = (uint32_t)size;
	barrier();
	FR_STEP();
}

PUBLIC size_t fr_slot_intent_size(const struct fr_slot *slot)
{
	uint32_t size = slot->cp->intent;

	return size <= slot->fr->layout.intent_size ? size : 0;
}

PUBLIC void *fr_slot_note(struct fr_slot *slot)
{
	return slot->note;
}

/* ---- reading ---- */

/* The length goes first: what follows belongs to no request any more, and to none yet. */
static void empty(struct fr_slot *slot, int fd)
{
	struct cp_slot *cp = slot->cp;

	cp->state = SLOT_IDLE;
	barrier();
	FR_STEP();
	header_of(slot)->len = 0;
	barrier();
	FR_STEP();
	cp->fd = fd;
	cp->result = 0;
	cp->intent = 0;
	cp->tries = 0;
	atomic_store_explicit(&cp->fault, 0, memory_order_relaxed);
	memset(slot->note, 0, slot->fr->layout.note_size);
	barrier();
	FR_STEP();
	cp->state = SLOT_READ;
	barrier();
	FR_STEP();
	slot->pending = 0;
	slot->clean = true;
}

static void report_pause(struct fr *fr)
{
	uint64_t died = atomic_exchange(&fr->died_at, 0);

	if (died)
		atomic_store(&fr->cp->last_pause, fr_now_ns() - died);
}

PUBLIC ssize_t fr_slot_read(struct fr_slot *slot, int fd)
{
	ssize_t n;

	if (unlikely(slot->open))
		fr_die(slot->fr, "fr_slot_read() within a step");
	end_request(slot);
	fr_current = slot;
	if (!slot->clean)
		empty(slot, fd);
	else if (slot->cp->fd != fd)
		slot->cp->fd = fd; /* nothing came in yet */
	barrier();
	if (unlikely(atomic_load_explicit(&slot->fr->died_at, memory_order_relaxed)))
		report_pause(slot->fr);
	n = read(fd, slot->request, slot->fr->layout.request_size);
	if (n < 0)
		return -errno;
	FR_STEP();
	slot->clean = false;
	begin_request(slot);
	FR_STEP();
	return n;
}

PUBLIC void fr_slot_filled(struct fr_slot *slot, int fd, size_t size)
{
	uint32_t len = header_of(slot)->len;

	end_request(slot);
	fr_current = slot;
	empty(slot, fd);
	if (size >= sizeof(len))
		header_of(slot)->len = len;
	slot->clean = false;
	begin_request(slot);
}

/* ---- answering ---- */

bool fr_wants_no_reply(uint32_t opcode)
{
	return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT ||
	       opcode == FUSE_NOTIFY_REPLY;
}

/* The state goes with the step, where there is one: before the commit it is as if nothing was done. */
static void settle(struct fr_slot *slot, uint32_t *field, uint32_t value)
{
	barrier();
	FR_STEP();
	if (slot->open)
		fr_save(slot, field, sizeof(*field));
	*field = value;
	barrier();
	FR_STEP();
	if (slot->open)
		fr_commit(slot);
	slot->pending = 0;
}

PUBLIC int fr_slot_reply(struct fr_slot *slot, size_t len)
{
	struct fuse_out_header *out = (struct fuse_out_header *)(void *)slot->reply;
	int err = 0;

	if (!len) {
		settle(slot, &slot->cp->state, SLOT_DONE);
		return 0;
	}
	if (unlikely(len < sizeof(*out) || len > slot->fr->layout.reply_size))
		fr_die(slot->fr, "a reply of %zu bytes", len);
	out->len = (uint32_t)len;
	out->unique = header_of(slot)->unique;
	settle(slot, &slot->cp->result, (uint32_t)len);
	if (write(slot->cp->fd, out, len) < 0)
		err = -errno;
	FR_STEP();
	slot->cp->state = SLOT_DONE;
	barrier();
	return err;
}

PUBLIC void fr_slot_park(struct fr_slot *slot)
{
	settle(slot, &slot->cp->state, SLOT_PARKED);
}

PUBLIC int fr_reply_later(int fd, uint64_t unique, int error, const void *data, size_t size)
{
	struct fuse_out_header out = {
		.len = (uint32_t)(sizeof(out) + (error ? 0 : size)),
		.error = error,
		.unique = unique,
	};
	struct iovec iov[] = {
		{ .iov_base = &out, .iov_len = sizeof(out) },
		{ .iov_base = (void *)(uintptr_t)data, .iov_len = size },
	};

	return writev(fd, iov, error || !size ? 1 : 2) < 0 ? -errno : 0;
}

PUBLIC int fr_outstanding(int fd, uint64_t unique)
{
	struct fuse_out_header out = { .len = sizeof(out), .unique = unique | INTERRUPT_BIT };

	return write(fd, &out, sizeof(out)) == sizeof(out);
}

void fr_describe_request(const struct fr_slot *slot, char *text, size_t size)
{
	const struct fuse_in_header *in = header_of(slot);

	snprintf(text, size, "opcode %u, nodeid %llu, unique %llu, pid %u, uid %u", in->opcode,
		 (unsigned long long)in->nodeid, (unsigned long long)in->unique, in->pid, in->uid);
}

PUBLIC void fr_slot_blame(struct fr *fr, struct fr_slot *slot)
{
	if (fr_current && fr_current->fr == fr)
		end_request(fr_current);
	fr_current = slot;
	if (slot)
		begin_request(slot);
}

PUBLIC int fr_slot_set_aside(const struct fr_slot *slot)
{
	return slot->cp->has_memory && slot->cp->state == SLOT_DONE && slot->cp->tries >= slot->fr->options.tries;
}

PUBLIC struct fr_slot *fr_slot_peek(struct fr *fr, uint32_t index)
{
	return index < fr->layout.slots && fr->slots[index].cp->has_memory ? &fr->slots[index] : NULL;
}
