/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a successor does before it serves: requests that their process did not finish give back what
 * they had got, so that they can be done again from the start. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "host/internal.h"
#include "libfuserecover/killpoint.h"

#define NO_ID UINT32_MAX

/* Ids go from 1 to INT32_MAX, and then from 1 again. */
static uint32_t distance(uint32_t from, uint32_t to)
{
	return (to - from) & INT32_MAX;
}

static bool is_later(uint32_t id, uint32_t than)
{
	return id != than && distance(than, id) <= INT32_MAX / 2;
}

static void raise_to(_Atomic uint32_t *last, uint32_t id)
{
	uint32_t old = atomic_load(last);

	while (is_later(id, old) && !atomic_compare_exchange_weak(last, &old, id))
		;
}

void backing_note(struct fe_host *h, struct note *note, uint32_t id)
{
	note->backing_opened = id;
	FR_STEP();
	raise_to(&h->shared->backing_ids[id % BACKING_RING], id);
	raise_to(&h->shared->backing_last, id);
	FR_STEP();
	note->backing_after = 0;
}

/* One that the dead had: so far they had come. */
static void close_theirs(struct fe_host *h, uint32_t id)
{
	if (backing_close(h, id))
		raise_to(&h->shared->backing_last, id);
}

/*
 * An id that was opened and not noted can not be asked for. The kernel hands them out in ascending order, so it is
 * later than those that were noted when it was opened, however long ago that was, and not among them; and each slot
 * has one at most that is later than all.
 */
static void backing_sweep(struct fe_host *h, uint32_t after)
{
	uint32_t end = atomic_load(&h->shared->backing_last) + FR_SLOTS_MAX, n = distance(after, end);

	for (n = n < BACKING_RING ? n : BACKING_RING; n--;) {
		uint32_t id = (end - n) & INT32_MAX;

		if (id && atomic_load(&h->shared->backing_ids[id % BACKING_RING]) != id)
			close_theirs(h, id);
	}
}

/* A handle's record that no handle has. */
static void open_settle(struct call *c)
{
	struct fe_host *h = c->host;
	bool dir = c->in->opcode == FUSE_OPENDIR;
	struct fe_handle hd = { .record = c->note->open.bytes };
	struct fe_release how = { 0 };
	struct fe_node node;

	if (!c->note->open.owned)
		return;
	if (c->in->opcode == FUSE_CREATE || c->in->opcode == FUSE_TMPFILE)
		node = (struct fe_node){ .record = c->note->entry.bytes };
	else if (node_get(h, c->in->nodeid, &node))
		return;
	if (dir && h->be->releasedir)
		h->be->releasedir(h->priv, &c->req, &node, &hd);
	else if (!dir && h->be->release)
		h->be->release(h->priv, &c->req, &node, &hd, &how);
	c->note->open.owned = 0;
	if (node.nodeid)
		node_put(h, &node);
}

/* Of a request that has no result, and will have none or be done again: as if it had just been read. */
static void take_back(struct fe_host *h, struct fr_slot *s, unsigned index, size_t size)
{
	struct worker w = {
		.host = h,
		.index = index,
		.slot = s,
		.in = fr_slot_request(s),
		.out = fr_slot_reply_buffer(s),
		.out_size = REPLY_SIZE,
	};
	const struct operation *op;
	struct call c;

	if (size < sizeof(struct fuse_in_header))
		return;
	call_init(&c, &w, size);
	op = c.in->opcode < OPCODES ? &operations[c.in->opcode] : NULL;
	if (op && op->undo && c.note->granted)
		op->undo(&c, c.note->granted);
	c.note->granted = 0;
	if (c.note->parked)
		unpark_of_dead(h, c.note->parked, index);
	c.note->parked = 0;
	open_settle(&c);
	note_settle(h, c.note);
}

unsigned recover(struct fe_host *h)
{
	uint32_t sweep_after = NO_ID;
	unsigned unfinished = 0;

	if (h->be->resume)
		h->be->resume(h->priv);
	for (unsigned i = 0; i < h->slots; i++) {
		struct fr_slot *s = fr_slot_peek(h->fr, i);
		struct note *note = s ? fr_slot_note(s) : NULL;
		size_t size = s ? fr_slot_unfinished(s) : 0;

		if (!s)
			continue;
		fr_slot_blame(h->fr, s);
		if (note->backing_close)
			backing_close(h, note->backing_close);
		note->backing_close = 0;
		if (note->backing_opened)
			close_theirs(h, note->backing_opened);
		else if (note->backing_after && (sweep_after == NO_ID || is_later(sweep_after, note->backing_after - 1)))
			sweep_after = note->backing_after - 1;
		if (size) {
			take_back(h, s, i, size);
			unfinished = i + 1;
		} else if (fr_slot_set_aside(s)) {
			take_back(h, s, i, ((const struct fuse_in_header *)fr_slot_request(s))->len);
		} else if (note->over.owned) {
			note->entry.owned = 0;
			note_settle(h, note);
		}
	}
	fr_slot_blame(h->fr, NULL);
	if (sweep_after != NO_ID)
		backing_sweep(h, sweep_after);
	for (unsigned i = 0; i < h->slots; i++) {
		struct fr_slot *s = fr_slot_peek(h->fr, i);
		struct note *note = s ? fr_slot_note(s) : NULL;

		if (note)
			note->backing_after = note->backing_opened = 0;
	}
	standing_resume(h);
	parked_resume(h);
	return unfinished;
}
