/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The index of a table: linear hashing. It grows by splitting one bucket at a time, b into b and b + n
 * where n is a power of two and at least STRIPES: so the records stay in the stripe of their hash, and
 * only who holds that stripe can tell the difference. A split is part of the step that added a record.
 */
#include <string.h>

#include "libfuserecover/internal.h"

#define LONGEST		(1u << 16)	/* chains of this length come from damage only */
#define SPLITS_MOST	2		/* for each record that is added */

uint32_t fr_hash(const struct fr_table *t, const void *key)
{
	const unsigned char *p = key;
	uint64_t h = t->seed ^ t->key_size * 0x9e3779b97f4a7c15u, word;
	uint32_t left = t->key_size;

	for (; left; left -= left < 8 ? left : 8, p += 8) {
		word = 0;
		if (likely(left >= 8))
			memcpy(&word, p, 8);
		else
			memcpy(&word, p, left);
		h = (h ^ word) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	h *= 0xc4ceb9fe1a85ec53u;
	return (uint32_t)(h ^ h >> 32);
}

PUBLIC uint32_t fr_key_hash(const struct fr_table *t, const void *key)
{
	return fr_hash(t, key);
}

PUBLIC uint32_t fr_key_part(uint32_t hash)
{
	return hash % STRIPES;
}

PUBLIC void fr_key_lock(struct fr_table *t, uint32_t hash)
{
	pthread_mutex_lock(&t->locks[hash % STRIPES]);
}

PUBLIC void fr_key_unlock(struct fr_table *t, uint32_t hash)
{
	pthread_mutex_unlock(&t->locks[hash % STRIPES]);
}

static uint32_t *head_of(struct fr_table *t, uint32_t hash)
{
	uint32_t n = atomic_load_explicit(&t->cp->buckets, memory_order_acquire);

	if (unlikely(n < FIRST_BUCKETS || n > t->max_buckets))
		fr_damaged(t->fr, "table %s: an index of %u buckets", t->name, n);
	return &t->heads[fr_bucket(hash, n)];
}

/* The record behind a link; `length` counts down to where a chain must have ended. */
static struct record *follow(struct fr_table *t, uint32_t index, uint32_t *length)
{
	struct record *r;

	if (index == NIL)
		return NULL;
	r = index < atomic_load_explicit(&t->cp->grown, memory_order_acquire) && index <= t->max && --*length ?
	    fr_at(t, index) : NULL;
	if (unlikely(!r || atomic_load_explicit(&r->state, memory_order_relaxed) != RECORD_INDEXED))
		fr_damaged(t->fr, "table %s: its index leads to %u, where it must not", t->name, index);
	return r;
}

PUBLIC void *fr_index_find(struct fr_table *t, uint32_t hash, const void *key)
{
	uint32_t length = LONGEST;
	struct record *r;

	for (r = follow(t, *head_of(t, hash), &length); r; r = follow(t, r->link, &length))
		if (r->hash == hash && !memcmp(r->bytes + t->key_offset, key, t->key_size))
			return r->bytes;
	return NULL;
}

/* ---- growth ---- */

static bool grow_heads(struct fr_table *t, uint32_t n)
{
	uint32_t page = t->fr->layout.page, grown = t->cp->buckets_grown;
	uint64_t size, left = t->records_offset - t->heads_offset - (uint64_t)grown * sizeof(uint32_t);

	if (n < grown)
		return true;
	size = (uint64_t)grown * sizeof(uint32_t) / 4 / page * page + page;
	size = size < left ? size : left;
	/* Without memory for them the chains get longer, and that is all. */
	if (fr_give_memory(t->fr, t->heads_offset + (uint64_t)grown * sizeof(uint32_t), size))
		return false;
	FR_STEP();
	t->cp->buckets_grown = grown + (uint32_t)(size / sizeof(uint32_t));
	return true;
}

/* The stripe of a bucket, kept until the end of the step unless the caller has it anyway. */
static bool hold_stripe(struct fr_slot *slot, struct fr_table *t, uint32_t bucket, uint32_t hash)
{
	pthread_mutex_t *stripe = &t->locks[bucket % STRIPES];

	if (bucket % STRIPES == hash % STRIPES)
		return true;
	for (uint32_t i = 0; i < slot->held; i++)
		if (slot->stripe[i] == stripe)
			return true;
	if (slot->held == sizeof(slot->stripe) / sizeof(*slot->stripe) || pthread_mutex_trylock(stripe))
		return false;
	slot->stripe[slot->held++] = stripe;
	return true;
}

static void relink(struct fr_slot *slot, uint32_t *link, uint32_t to)
{
	if (*link == to)
		return;
	fr_save(slot, link, sizeof(*link));
	*link = to;
	FR_STEP();
}

/* Splits bucket b of n, whose stripe is held, into b and n. */
static void split(struct fr_slot *slot, struct fr_table *t, uint32_t b, uint32_t n)
{
	uint32_t length = LONGEST, stay = NIL, go = NIL, room = fr_undo_room(slot) / 2;
	struct record *r, *next;

	for (r = follow(t, t->heads[b], &length); r; r = follow(t, r->link, &length))
		;
	/* At most an entry for each link, and for the two heads and the count. */
	if ((LONGEST - length + 3) * (8 + sizeof(struct undo)) > room)
		return;
	length = LONGEST;
	for (r = follow(t, t->heads[b], &length); r; r = next) {
		uint32_t *list = fr_bucket(r->hash, n + 1) == b ? &stay : &go;

		next = follow(t, r->link, &length);
		relink(slot, &r->link, *list);
		*list = fr_index_of(t, r);
	}
	relink(slot, &t->heads[b], stay);
	relink(slot, &t->heads[n], go);
	fr_save(slot, (void *)&t->cp->buckets, sizeof(t->cp->buckets));
	atomic_store_explicit(&t->cp->buckets, n + 1, memory_order_release);
	FR_STEP();
}

static void maybe_split(struct fr_slot *slot, struct fr_table *t, uint32_t hash)
{
	for (int i = 0; i < SPLITS_MOST; i++) {
		uint32_t n = atomic_load_explicit(&t->cp->buckets, memory_order_relaxed), low;

		if (n >= fr_table_used(t) || n >= t->max_buckets || !fr_try_hold_tables(slot))
			break;
		n = atomic_load_explicit(&t->cp->buckets, memory_order_relaxed);
		low = 1u << (31 - __builtin_clz(n));
		if (n >= t->max_buckets || !grow_heads(t, n) || !hold_stripe(slot, t, n - low, hash))
			break;
		split(slot, t, n - low, n);
	}
	fr_release_tables(slot);
}

/* ---- changes ---- */

PUBLIC void fr_index_add(struct fr_slot *slot, struct fr_table *t, uint32_t hash, void *record)
{
	struct record *r = fr_record_of(record);
	uint32_t *head = head_of(t, hash);

	if (unlikely(!slot->open))
		fr_die(t->fr, "fr_index_add() without fr_begin()");
	if (unlikely(atomic_load_explicit(&r->state, memory_order_relaxed) != RECORD_LIVE))
		fr_die(t->fr, "fr_index_add() of a record of table %s that is in the index, or not in use", t->name);
	fr_save(slot, r, sizeof(*r));
	r->hash = hash;
	r->link = *head;
	FR_STEP();
	atomic_store_explicit(&r->state, RECORD_INDEXED, memory_order_release);
	FR_STEP();
	relink(slot, head, fr_index_of(t, r));
	maybe_split(slot, t, hash);
}

PUBLIC void fr_index_remove(struct fr_slot *slot, struct fr_table *t, uint32_t hash, void *record)
{
	struct record *r = fr_record_of(record), *at;
	uint32_t length = LONGEST;
	uint32_t *link;

	if (unlikely(!slot->open))
		fr_die(t->fr, "fr_index_remove() without fr_begin()");
	link = head_of(t, hash);
	for (at = follow(t, *link, &length); at && at != r; at = follow(t, *link, &length))
		link = &at->link;
	if (unlikely(!at))
		fr_die(t->fr, "fr_index_remove() of a record that is not in the index of table %s", t->name);
	relink(slot, link, r->link);
	fr_save(slot, r, sizeof(*r));
	r->link = NIL;
	FR_STEP();
	atomic_store_explicit(&r->state, RECORD_LIVE, memory_order_release);
	FR_STEP();
}
