/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Steps: what is about to change is first copied to the slot's undo log. The log's length is what
 * decides: an entry counts from when the length includes it, and a step is done when it is 0.
 */
#include <errno.h>
#include <string.h>

#include "libfuserecover/internal.h"

void fr_hold_tables(struct fr_slot *slot)
{
	if (slot->holds_tables)
		return;
	pthread_mutex_lock(&slot->fr->tables_lock);
	slot->holds_tables = true;
}

bool fr_try_hold_tables(struct fr_slot *slot)
{
	if (!slot->holds_tables && !pthread_mutex_trylock(&slot->fr->tables_lock))
		slot->holds_tables = true;
	return slot->holds_tables;
}

static void let_go(struct fr_slot *slot)
{
	struct fr *fr = slot->fr;

	while (slot->held)
		pthread_mutex_unlock(slot->stripe[--slot->held]);
	if (!slot->holds_tables)
		return;
	for (uint32_t i = 0; i < fr->layout.parts; i++)
		if (fr->tables[i])
			fr->tables[i]->freed = NIL;
	slot->holds_tables = false;
	pthread_mutex_unlock(&fr->tables_lock);
}

void fr_release_tables(struct fr_slot *slot)
{
	if (slot->fr->alone)
		let_go(slot);
}

PUBLIC void fr_begin(struct fr_slot *slot)
{
	if (unlikely(slot->open))
		fr_die(slot->fr, "fr_begin() within a step");
	slot->open = true;
	FR_STEP();
}

PUBLIC void fr_save(struct fr_slot *slot, void *address, size_t size)
{
	struct fr *fr = slot->fr;
	struct undo end = { .offset = (uint64_t)((unsigned char *)address - fr->base), .size = size };
	unsigned char *log;

	if (unlikely(!slot->open))
		fr_die(fr, "fr_save() without fr_begin()");
	if (fr->alone)
		return;
	if (unlikely(end.offset >= fr->layout.size || size > fr->layout.size - end.offset))
		fr_die(fr, "fr_save() of what is not in the checkpoint");
	if (unlikely(size > UNDO_SIZE || fr_undo_rounded(size) + sizeof(end) > fr_undo_room(slot)))
		fr_die(fr, "a step changes more than %u bytes", UNDO_SIZE);
	log = slot->undo + slot->cp->undo_used;
	memcpy(log, address, size);
	memcpy(log + fr_undo_rounded(size), &end, sizeof(end));
	FR_STEP();
	barrier();
	slot->cp->undo_used += fr_undo_rounded(size) + (uint32_t)sizeof(end);
	barrier();
	FR_STEP();
}

PUBLIC void fr_commit(struct fr_slot *slot)
{
	uint32_t used = slot->cp->undo_used;

	if (unlikely(!slot->open))
		fr_die(slot->fr, "fr_commit() without fr_begin()");
	FR_STEP();
	barrier();
	slot->cp->undo_used = 0;
	barrier();
	FR_STEP();
	slot->open = false;
	let_go(slot);
	if (unlikely(slot->drops))
		fr_store_committed(slot, used);
}

/* Undoing an entry twice does no harm: so this may die anywhere, too. */
int fr_rollback(struct fr *fr, uint32_t slot)
{
	struct cp_slot *cp = &fr->cp_slots[slot];
	const unsigned char *log = fr->slots[slot].undo;
	uint64_t first = (uint64_t)((unsigned char *)fr->cp_slots - fr->base);
	uint32_t used = cp->undo_used;
	struct undo end;

	if (used && !cp->has_memory)
		return -EBADMSG;
	while (used) {
		if (used > UNDO_SIZE || used % 8 || used < sizeof(end))
			return -EBADMSG;
		memcpy(&end, log + used - sizeof(end), sizeof(end));
		if (end.size > UNDO_SIZE || fr_undo_rounded(end.size) > used - sizeof(end) ||
		    end.offset < first || end.offset >= fr->layout.size ||
		    end.size > fr->layout.size - end.offset)
			return -EBADMSG;
		used -= fr_undo_rounded(end.size) + (uint32_t)sizeof(end);
		memcpy(fr->base + end.offset, log + used, end.size);
		FR_STEP();
		barrier();
		cp->undo_used = used;
		barrier();
		FR_STEP();
	}
	return 0;
}
