/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a successor does before it serves: steps back, tables checked, each slot's request settled. */
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

static void roll_back(struct fr *fr, uint32_t i)
{
	struct cp_slot *cp = &fr->cp_slots[i];

	if (!fr_rollback(fr, i))
		return;
	/* The step can not be taken back. What is known of the tables can still be put in order. */
	fr_log(fr, LOG_ERR, "the undo log of slot %u is damaged: a change may have been made in part", i);
	cp->undo_used = 0;
	atomic_store(&fr->cp->damaged, 1);
}

static void mend_slot(struct fr *fr, uint32_t i)
{
	struct cp_slot *cp = &fr->cp_slots[i];

	if (cp->has_memory > 1 || cp->undo_used > UNDO_SIZE || cp->state > SLOT_PARKED)
		atomic_store(&fr->cp->damaged, 1);
	/* To ask for memory that is there would take longer than all the rest. */
	if (fr->slots[i].resident == fr->shape.size)
		cp->has_memory = 1;
	else if (cp->has_memory)
		cp->has_memory = !fr_give_memory(fr, fr->bodies + (uint64_t)i * fr->shape.size, fr->shape.size);
	if (cp->result > fr->layout.reply_size)
		cp->result = 0;
	if (cp->intent > fr->layout.intent_size)
		cp->intent = 0;
	atomic_store(&cp->busy_since, 0);
}

static const struct fuse_in_header *header_of(const struct fr_slot *slot)
{
	return (const struct fuse_in_header *)(const void *)slot->request;
}

static void settled(struct fr_slot *slot)
{
	FR_STEP();
	slot->cp->state = SLOT_DONE;
	barrier();
	FR_STEP();
}

static void send_again(struct fr_slot *slot)
{
	const struct fuse_out_header *out = (const void *)slot->reply;

	/* ENOENT: it was answered after all, or nobody waits any more. */
	if (write(slot->cp->fd, out, slot->cp->result) < 0 && errno != ENOENT) {
		fr_log(slot->fr, LOG_WARNING, "a stored reply was refused: %s; its request gets EIO", strerror(errno));
		fr_reply_later(slot->cp->fd, header_of(slot)->unique, -EIO, NULL, 0);
	}
	settled(slot);
	atomic_fetch_add(&slot->fr->cp->resent, 1);
}

/* True where too many have died of this request. */
static bool set_aside(struct fr_slot *slot, uint32_t fault)
{
	struct cp_slot *cp = slot->cp;
	const struct fuse_in_header *in = header_of(slot);
	char request[128];

	if (fault) {
		atomic_store(&cp->fault, 0);
		FR_STEP();
		cp->tries++;
		FR_STEP();
	}
	/* Also where who counted the last try died before its answer. */
	if (cp->tries < slot->fr->options.tries)
		return false;
	fr_describe_request(slot, request, sizeof(request));
	fr_log(slot->fr, LOG_ERR, "%u workers died of one request (signal %u): it gets EIO: %s", cp->tries, fault,
	       request);
	atomic_fetch_add(&slot->fr->cp->set_aside, 1);
	if (!fr_wants_no_reply(in->opcode))
		fr_reply_later(cp->fd, in->unique, -EIO, NULL, 0);
	settled(slot);
	return true;
}

/* Who took back what a finished request had left died of that. */
static void drop_note(struct fr_slot *slot, uint32_t fault)
{
	fr_log(slot->fr, LOG_ERR, "a worker died of what request %llu had left (signal %u): it is left as it is",
	       (unsigned long long)header_of(slot)->unique, fault);
	memset(slot->note, 0, slot->fr->layout.note_size);
	barrier();
	FR_STEP();
	atomic_store(&slot->cp->fault, 0);
}

/* Its number has been overwritten: what is written there would go into somebody's file. */
static void refuse(struct fr_slot *slot)
{
	char request[128];

	fr_describe_request(slot, request, sizeof(request));
	fr_log(slot->fr, LOG_ERR, "slot %u is damaged: descriptor %d is no connection; its request gets EIO: %s",
	       slot->index, slot->cp->fd, request);
	if (!fr_wants_no_reply(header_of(slot)->opcode))
		fr_fds_refuse(slot->fr, header_of(slot)->unique);
	/* What it had got so far is taken back, as of one that is set aside. */
	slot->cp->tries = slot->fr->options.tries;
	settled(slot);
}

static void settle_request(struct fr_slot *slot)
{
	struct cp_slot *cp = slot->cp;
	uint32_t length = fr_slot_request_length(slot), fault = atomic_load(&cp->fault);
	const struct fuse_in_header *in = header_of(slot);

	slot->pending = 0;
	if (fault && cp->has_memory && cp->state == SLOT_DONE)
		drop_note(slot, fault);
	if (!length)
		return;
	if (!fr_fd_takes_replies(cp->fd)) {
		refuse(slot);
		return;
	}
	/* The kernel copies from the reply: its pages have to be there, as in any slot. */
	fr_slot_populate(slot);
	if (!fr_wants_no_reply(in->opcode) && !fr_outstanding(cp->fd, in->unique))
		settled(slot);
	else if (cp->result)
		send_again(slot);
	else if (!set_aside(slot, fault)) {
		slot->pending = length;
		atomic_fetch_add(&slot->fr->cp->redone, 1);
	}
}

int fr_takeover(struct fr *fr)
{
	int err;

	fr_restore_layout(fr);
	for (uint32_t i = 0; i < fr->layout.slots; i++) {
		roll_back(fr, i);
		mend_slot(fr, i);
	}
	fr_store_settle(fr);
	err = fr_tables_recover(fr);
	if (err)
		return err;
	for (uint32_t i = 0; i < fr->layout.slots; i++)
		settle_request(&fr->slots[i]);
	return 0;
}
