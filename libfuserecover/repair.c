/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether a table fits together, and making it fit: what the records say is right, free list and index
 * are made from it. One thread, with nobody else in the table.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

bool fr_table_plausible(const struct fr_table *t)
{
	const struct cp_table *c = t->cp;
	uint32_t grown = c->grown, fresh = c->fresh, n = c->buckets;

	if (grown < 2 || grown > t->max + 1 || !fresh || fresh > grown || c->used >= fresh || c->free_head >= fresh)
		return false;
	return !t->key_size || (n >= FIRST_BUCKETS && n <= t->max_buckets && n <= c->buckets_grown &&
				(uint64_t)c->buckets_grown * sizeof(uint32_t) <= t->records_offset - t->heads_offset);
}

/* ---- checking ---- */

static bool is(const struct fr_table *t, uint32_t index, uint32_t state)
{
	return index != NIL && index < t->cp->fresh && fr_at(t, index)->state == state;
}

static bool tell(char *why, size_t size, const char *text, uint32_t number)
{
	snprintf(why, size, "%s (%u)", text, number);
	return false;
}

static bool free_list_whole(const struct fr_table *t, uint32_t n_free, char *why, size_t size)
{
	uint32_t i, n = 0;

	/* A list that meets itself would be longer than there are free records. */
	for (i = t->cp->free_head; i != NIL; i = fr_at(t, i)->link)
		if (!is(t, i, RECORD_FREE) || ++n > n_free)
			return tell(why, size, "its free list leads astray", i);
	return n == n_free || tell(why, size, "free records are not in the free list", n_free - n);
}

static bool index_whole(const struct fr_table *t, uint32_t n_indexed, char *why, size_t size)
{
	uint32_t buckets = t->key_size ? t->cp->buckets : 0, n = 0;

	for (uint32_t b = 0; b < buckets; b++) {
		for (uint32_t i = t->heads[b]; i != NIL; i = fr_at(t, i)->link) {
			if (!is(t, i, RECORD_INDEXED) || ++n > n_indexed)
				return tell(why, size, "its index leads astray", i);
			if (fr_at(t, i)->hash != fr_hash(t, fr_at(t, i)->bytes + t->key_offset) ||
			    fr_bucket(fr_at(t, i)->hash, buckets) != b)
				return tell(why, size, "a record is in the wrong bucket", i);
		}
	}
	for (uint32_t b = buckets; t->key_size && b < t->cp->buckets_grown; b++)
		if (t->heads[b] != NIL)
			return tell(why, size, "a bucket is in use too early", b);
	return n == n_indexed || tell(why, size, "records are not in the index", n_indexed - n);
}

bool fr_table_whole(const struct fr_table *t, char *why, size_t size)
{
	uint32_t n[RECORD_STATES] = { 0 };

	if (!fr_table_plausible(t))
		return tell(why, size, "impossible counts", t->cp->fresh);
	for (uint32_t i = 1; i < t->cp->grown; i++) {
		const struct record *r = fr_at(t, i);

		if (r->state >= RECORD_STATES || (i >= t->cp->fresh && (r->state != RECORD_FREE || r->gen)) ||
		    (r->state == RECORD_RETIRED) != (r->gen == UINT32_MAX) ||
		    (r->state == RECORD_INDEXED && !t->key_size))
			return tell(why, size, "a record in an impossible state", i);
		if (i < t->cp->fresh)
			n[r->state]++;
	}
	if (n[RECORD_LIVE] + n[RECORD_INDEXED] != t->cp->used)
		return tell(why, size, "another number of records in use than it says", t->cp->used);
	return free_list_whole(t, n[RECORD_FREE], why, size) && index_whole(t, n[RECORD_INDEXED], why, size);
}

/* ---- mending ---- */

/* Records behind the last byte that was ever written are new; looking at them would give them memory.
 * What is known to have memory is then less than has it, which does no harm. */
static uint32_t records_written(const struct fr_table *t)
{
	off_t end = (off_t)(t->records_offset + (uint64_t)t->stride * ((uint64_t)t->max + 1));
	off_t at = (off_t)t->records_offset, last = at;

	while (at < end && (at = lseek(t->fr->fd, at, SEEK_DATA)) >= 0 && at < end)
		last = at = lseek(t->fr->fd, at, SEEK_HOLE);
	last = last < end ? last : end;
	return (uint32_t)((uint64_t)(last - (off_t)t->records_offset) / t->stride);
}

static void mend_counts(struct fr_table *t)
{
	struct cp_table *c = t->cp;

	c->grown = records_written(t);
	c->grown = c->grown < 2 ? 2 : c->grown;
	/* Nothing that was ever used may be taken for new, or its id would be used twice. */
	c->fresh = c->grown;
	while (c->fresh > 1 && fr_at(t, c->fresh - 1)->state == RECORD_FREE && !fr_at(t, c->fresh - 1)->gen)
		c->fresh--;
	if (c->buckets_grown % (t->fr->layout.page / sizeof(uint32_t)) || !c->buckets_grown ||
	    (uint64_t)c->buckets_grown * sizeof(uint32_t) > t->records_offset - t->heads_offset)
		c->buckets_grown = t->fr->layout.page / sizeof(uint32_t);
}

static void mend_record(struct fr_table *t, uint32_t i)
{
	struct record *r = fr_at(t, i);
	uint32_t n = t->cp->buckets;

	if (r->state >= RECORD_STATES || (r->state == RECORD_INDEXED && !t->key_size))
		r->state = RECORD_LIVE; /* rather a leak than an id that fails */
	if (r->gen == UINT32_MAX)
		r->state = RECORD_RETIRED;
	else if (r->state == RECORD_RETIRED)
		r->state = RECORD_FREE;
	r->link = NIL;
	if (r->state == RECORD_FREE) {
		r->link = t->cp->free_head;
		t->cp->free_head = i;
	} else if (r->state == RECORD_INDEXED) {
		r->hash = fr_hash(t, r->bytes + t->key_offset);
		r->link = t->heads[fr_bucket(r->hash, n)];
		t->heads[fr_bucket(r->hash, n)] = i;
	}
	if (r->state == RECORD_LIVE || r->state == RECORD_INDEXED)
		t->cp->used++;
}

int fr_table_repair(struct fr_table *t)
{
	struct cp_table *c = t->cp;
	char why[128];

	mend_counts(t);
	c->free_head = NIL;
	c->used = 0;
	if (t->key_size) {
		/* As many as the records ask for, as far as there is memory. */
		uint32_t want = c->fresh < t->max_buckets ? c->fresh : t->max_buckets;

		c->buckets = want < FIRST_BUCKETS ? FIRST_BUCKETS : want < c->buckets_grown ? want : c->buckets_grown;
		memset(t->heads, 0, (size_t)c->buckets_grown * sizeof(*t->heads));
	}
	for (uint32_t i = c->fresh - 1; i; i--)
		mend_record(t, i);
	if (fr_table_whole(t, why, sizeof(why)))
		return 0;
	fr_log(t->fr, LOG_CRIT, "table %s can not be mended: %s", t->name, why);
	return -EBADMSG;
}

/* Before a successor serves: all of it is checked only where there is a reason. */
int fr_tables_recover(struct fr *fr)
{
	bool suspect = atomic_load(&fr->cp->damaged);
	char why[128];
	int err;

	for (uint32_t i = 0; i < fr->layout.parts; i++) {
		struct fr_table *t = fr->tables[i];

		if (!t || (!suspect && fr_table_plausible(t)) || fr_table_whole(t, why, sizeof(why)))
			continue;
		fr_log(fr, LOG_ERR, "table %s is damaged: %s; making it anew from its records", t->name, why);
		/* What is half made is not plausible to everybody. */
		atomic_store(&fr->cp->damaged, 1);
		FR_STEP();
		err = fr_table_repair(t);
		if (err)
			return err;
	}
	atomic_store(&fr->cp->damaged, 0);
	return 0;
}
