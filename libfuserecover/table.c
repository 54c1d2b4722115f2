/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tables of records. One lock for all tables guards the counts and free lists; a step that takes or
 * gives a record holds it until its end, since undoing puts the counts back to what they were. One
 * lock, so that two steps that use two tables can not wait for each other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "libfuserecover/internal.h"

#define GROW_LEAST	((uint64_t)256 << 10)
#define GROW_MOST	((uint64_t)4 << 20)	/* it is done with the lock held */
#define LAST_GEN	UINT32_MAX

static uint64_t pages(const struct fr *fr, uint64_t size)
{
	return (size + fr->layout.page - 1) / fr->layout.page * fr->layout.page;
}

static uint64_t heads_size(const struct fr *fr, uint32_t key_size, uint32_t max)
{
	uint32_t buckets = max > FIRST_BUCKETS ? max : FIRST_BUCKETS;

	return key_size ? pages(fr, (uint64_t)buckets * sizeof(uint32_t)) : 0;
}

static uint32_t stride_of(uint32_t record_size)
{
	return (uint32_t)(sizeof(struct record) + ((record_size + 7) & ~7u));
}

static uint64_t table_size(const struct fr *fr, uint32_t record_size, uint32_t key_size, uint32_t max)
{
	return fr->layout.page + heads_size(fr, key_size, max) +
	       pages(fr, (uint64_t)stride_of(record_size) * ((uint64_t)max + 1));
}

/* ---- making ---- */

static void shape(struct fr_table *t, const struct cp_part *p)
{
	struct fr *fr = t->fr;

	memcpy(t->name, p->name, NAME_SIZE);
	t->record_size = p->record_size;
	t->key_offset = p->key_offset;
	t->key_size = p->key_size;
	t->max = p->max;
	t->max_buckets = t->max > FIRST_BUCKETS ? t->max : FIRST_BUCKETS;
	t->stride = stride_of(t->record_size);
	t->seed = fr->layout.seed;
	t->heads_offset = p->offset + fr->layout.page;
	t->records_offset = t->heads_offset + heads_size(fr, t->key_size, t->max);
	t->cp = (struct cp_table *)(void *)(fr->base + p->offset);
	t->heads = (uint32_t *)(void *)(fr->base + t->heads_offset);
	t->records = fr->base + t->records_offset;
}

static int grow_records(struct fr_table *t)
{
	uint32_t grown = atomic_load_explicit(&t->cp->grown, memory_order_relaxed);
	uint64_t have = (uint64_t)grown * t->stride, add = have / 4, end = (uint64_t)t->stride * ((uint64_t)t->max + 1);
	int err;

	add = add < GROW_LEAST ? GROW_LEAST : add > GROW_MOST ? GROW_MOST : add;
	add = add < 2 * (uint64_t)t->stride ? 2 * (uint64_t)t->stride : add;
	add = have + add > end ? end - have : add;
	err = fr_give_memory(t->fr, t->records_offset + have, add);
	if (err) {
		fr_log(t->fr, LOG_ERR, "table %s can not grow beyond %u records: %s", t->name, grown,
		       strerror(-err));
		return err;
	}
	FR_STEP();
	atomic_store_explicit(&t->cp->grown, (uint32_t)((have + add) / t->stride), memory_order_release);
	return 0;
}

static int first_memory(struct fr_table *t)
{
	int err = fr_give_memory(t->fr, (uint64_t)((unsigned char *)t->cp - t->fr->base), t->fr->layout.page);

	if (!err && t->key_size)
		err = fr_give_memory(t->fr, t->heads_offset, t->fr->layout.page);
	return err;
}

static int make(struct fr_table *t)
{
	int err = first_memory(t);

	if (err)
		return err;
	t->cp->fresh = 1;
	t->cp->buckets = FIRST_BUCKETS;
	t->cp->buckets_grown = t->fr->layout.page / sizeof(uint32_t);
	return grow_records(t);
}

/* Of a checkpoint that nobody vouches for, unless the keeper handed it down. */
static int adopt(struct fr_table *t)
{
	int err = first_memory(t);
	char why[128];

	/* It is looked at by the first worker, as by any other; and in a trial it changes meanwhile. */
	if (err || t->fr->trial || fr_is_upgrade(t->fr))
		return err;
	if (!fr_table_plausible(t)) {
		fr_log(t->fr, LOG_ERR, "table %s of the adopted checkpoint has impossible counts", t->name);
		return -EBADMSG;
	}
	err = fr_give_memory(t->fr, t->records_offset, (uint64_t)t->cp->grown * t->stride);
	if (!err && t->key_size)
		err = fr_give_memory(t->fr, t->heads_offset, (uint64_t)t->cp->buckets_grown * sizeof(uint32_t));
	if (!err && !fr_table_whole(t, why, sizeof(why))) {
		fr_log(t->fr, LOG_ERR, "table %s of the adopted checkpoint: %s", t->name, why);
		err = -EBADMSG;
	}
	return err;
}

static uint32_t most_that_fits(const struct fr *fr, const char *name, uint32_t record_size, uint32_t key_size,
			       uint32_t max)
{
	uint64_t room = fr->span - fr->layout.size;
	uint32_t fits = max;

	while (fits > 1 && table_size(fr, record_size, key_size, fits) > room)
		fits /= 2;
	if (fits != max)
		fr_log(fr, LOG_WARNING, "table %s: address space for %u of %u records", name, fits, max);
	return fits;
}

PUBLIC int fr_table_new(struct fr *fr, const char *name, uint32_t record_size, uint32_t key_offset, uint32_t key_size,
			uint32_t max, struct fr_table **out)
{
	struct cp_part want = {
		.kind = PART_TABLE,
		.record_size = record_size,
		.key_offset = key_offset,
		.key_size = key_size,
	};
	const struct cp_part *p;
	struct fr_table *t;
	int err;

	if (!record_size || record_size > 1u << 20 || key_offset > record_size ||
	    key_size > record_size - key_offset || !max || max > UINT32_MAX - 2 ||
	    strlen(name) >= NAME_SIZE)
		return -EINVAL;
	strncpy(want.name, name, NAME_SIZE - 1);
	if (!fr->adopted)
		want.max = most_that_fits(fr, name, record_size, key_size, max);
	want.size = table_size(fr, record_size, key_size, want.max);
	p = fr_part(fr, &want, &err);
	if (!p)
		return err;
	if (!p->max || p->max > max || p->size != table_size(fr, record_size, key_size, p->max))
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->fr = fr;
	fr->tables[p - fr->layout.part] = t;
	for (uint32_t i = 0; i < STRIPES; i++)
		pthread_mutex_init(&t->locks[i], NULL);
	shape(t, p);
	err = fr->adopted ? adopt(t) : make(t);
	if (!err)
		*out = t;
	return err;
}

/* ---- taking and giving ---- */

static struct record *first_free(struct fr_slot *slot, struct fr_table *t)
{
	uint32_t *from = &t->cp->free_head;
	struct record *r;
	uint32_t i;

	/* What this step gave lies on top, and has to stay as it is until it is certain to be given. */
	if (t->freed) {
		from = &fr_at(t, t->freed)->link;
		if (*from != NIL)
			fr_save(slot, from, sizeof(*from));
	}
	i = *from;
	if (i == NIL)
		return NULL;
	r = i < atomic_load_explicit(&t->cp->fresh, memory_order_relaxed) ? fr_at(t, i) : NULL;
	if (unlikely(!r || atomic_load_explicit(&r->state, memory_order_relaxed) != RECORD_FREE))
		fr_damaged(t->fr, "table %s: its free list leads to %u, which is not free", t->name, i);
	fr_save(slot, r, sizeof(*r));
	*from = r->link;
	return r;
}

static struct record *first_fresh(struct fr_slot *slot, struct fr_table *t)
{
	uint32_t i = atomic_load_explicit(&t->cp->fresh, memory_order_relaxed);
	struct record *r;

	if (unlikely(i > t->max))
		return NULL;
	if (unlikely(i >= atomic_load_explicit(&t->cp->grown, memory_order_relaxed)) && grow_records(t))
		return NULL;
	r = fr_at(t, i);
	fr_save(slot, r, sizeof(*r));
	atomic_store_explicit(&t->cp->fresh, i + 1, memory_order_release);
	return r;
}

PUBLIC void *fr_alloc_record(struct fr_slot *slot, struct fr_table *t)
{
	struct record *r;

	if (unlikely(!slot->open))
		fr_die(t->fr, "fr_alloc_record() without fr_begin()");
	fr_hold_tables(slot);
	if (unlikely(!fr_table_plausible(t)))
		fr_damaged(t->fr, "table %s: impossible counts", t->name);
	fr_save(slot, t->cp, TABLE_COUNTS);
	r = first_free(slot, t);
	FR_STEP();
	if (!r)
		r = first_fresh(slot, t);
	FR_STEP();
	if (r) {
		memset(r->bytes, 0, t->stride - sizeof(*r));
		r->link = NIL;
		r->hash = 0;
		FR_STEP();
		atomic_store_explicit(&r->state, RECORD_LIVE, memory_order_release);
		FR_STEP();
		atomic_fetch_add_explicit(&t->cp->used, 1, memory_order_relaxed);
	}
	FR_STEP();
	fr_release_tables(slot);
	return r ? r->bytes : NULL;
}

/* The caller's pointer, made sure of. */
static struct record *checked(const struct fr_table *t, const void *bytes, const char *what)
{
	struct record *r = fr_record_of(bytes);
	size_t at = (size_t)((unsigned char *)r - t->records);

	if (unlikely((unsigned char *)r < t->records || at % t->stride || at / t->stride == NIL ||
		     at / t->stride >= atomic_load_explicit(&t->cp->fresh, memory_order_relaxed)))
		fr_die(t->fr, "%s of what is no record of table %s", what, t->name);
	return r;
}

PUBLIC void fr_free_record(struct fr_slot *slot, struct fr_table *t, void *record)
{
	struct record *r;
	uint32_t gen;

	if (unlikely(!slot->open))
		fr_die(t->fr, "fr_free_record() without fr_begin()");
	fr_hold_tables(slot);
	r = checked(t, record, "fr_free_record()");
	if (unlikely(atomic_load_explicit(&r->state, memory_order_relaxed) != RECORD_LIVE))
		fr_die(t->fr, "fr_free_record() of a record of table %s that is %s", t->name,
		       r->state == RECORD_INDEXED ? "in the index" : "not in use");
	fr_save(slot, t->cp, TABLE_COUNTS);
	fr_save(slot, r, sizeof(*r));
	gen = atomic_load_explicit(&r->gen, memory_order_relaxed) + 1;
	atomic_store_explicit(&r->state, gen == LAST_GEN ? RECORD_RETIRED : RECORD_FREE, memory_order_release);
	FR_STEP();
	atomic_store_explicit(&r->gen, gen, memory_order_relaxed);
	FR_STEP();
	if (gen != LAST_GEN) {
		r->link = t->cp->free_head;
		FR_STEP();
		t->cp->free_head = fr_index_of(t, r);
		if (!t->freed && !t->fr->alone)
			t->freed = t->cp->free_head;
	}
	FR_STEP();
	atomic_fetch_sub_explicit(&t->cp->used, 1, memory_order_relaxed);
	FR_STEP();
	fr_release_tables(slot);
}

/* ---- looking ---- */

PUBLIC void *fr_record(struct fr_table *t, uint64_t id)
{
	uint32_t index = (uint32_t)id, grown = atomic_load_explicit(&t->cp->grown, memory_order_acquire), state;
	struct record *r;

	if (unlikely(index == NIL || index >= grown || index > t->max))
		return NULL;
	r = fr_at(t, index);
	if (unlikely(atomic_load_explicit(&r->gen, memory_order_acquire) != id >> 32))
		return NULL;
	state = atomic_load_explicit(&r->state, memory_order_acquire);
	return likely(state == RECORD_LIVE || state == RECORD_INDEXED) ? r->bytes : NULL;
}

PUBLIC uint64_t fr_record_id(const struct fr_table *t, const void *record)
{
	const struct record *r = fr_record_of(record);

	return (uint64_t)atomic_load_explicit(&r->gen, memory_order_relaxed) << 32 | fr_index_of(t, r);
}

static bool is_place(const struct fr_table *t, uint32_t i)
{
	return i < atomic_load_explicit(&t->cp->fresh, memory_order_acquire) && i <= t->max;
}

/* What nobody else here needs may not be mapped when this process dies: the successor waits for that memory. */
static void unmap_walked(struct fr_table *t, uint32_t from, uint32_t to)
{
	uintptr_t first = (uintptr_t)fr_at(t, from) & ~(uintptr_t)(t->fr->layout.page - 1);

	if (!t->fr->trial) /* its memory is a copy */
		madvise((void *)first, (uintptr_t)fr_at(t, to) - first, MADV_DONTNEED);
}

PUBLIC int fr_table_walk(struct fr_table *t, uint32_t *at, uint32_t most,
			 int (*fn)(void *arg, uint64_t id, void *record), void *arg)
{
	uint32_t from = *at ? *at : 1, i = from;
	int stop = 0;

	for (; !stop && most-- && is_place(t, i); i++) {
		struct record *r = fr_at(t, i);
		uint32_t gen = atomic_load_explicit(&r->gen, memory_order_acquire);
		uint32_t state = atomic_load_explicit(&r->state, memory_order_acquire);

		if (state == RECORD_LIVE || state == RECORD_INDEXED)
			stop = fn(arg, (uint64_t)gen << 32 | i, r->bytes);
	}
	unmap_walked(t, from, i);
	*at = is_place(t, i) ? i : 0;
	return stop;
}

PUBLIC int fr_table_each(struct fr_table *t, int (*fn)(void *arg, uint64_t id, void *record), void *arg)
{
	uint32_t at = 0;

	return fr_table_walk(t, &at, UINT32_MAX, fn, arg);
}

PUBLIC uint32_t fr_table_used(const struct fr_table *t)
{
	return atomic_load_explicit(&t->cp->used, memory_order_relaxed);
}
