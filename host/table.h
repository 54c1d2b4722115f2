/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tables of fixed-size records in one growing memory file.
 *
 * A record keeps its address for as long as the table lives, holds no pointer, and is named by an id:
 * its index in the low half, its generation in the high half. A freed index comes back with the next
 * generation, so an id is never used twice.
 */
#ifndef FE_HOST_TABLE_H
#define FE_HOST_TABLE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* What every record begins with. */
struct table_record {
	uint32_t gen;
	uint32_t next;	/* of the free list; the owner's while the record is in use */
};

struct table {
	unsigned char *base;
	size_t record_size;
	uint32_t max;		/* indices 1 .. max - 1 */
	uint32_t grown;		/* indices below this have memory */
	uint32_t fresh;		/* indices from here on were never used */
	uint32_t free_head;
	uint32_t used;
	int fd;
	pthread_mutex_t lock;
};

/* record_size includes struct table_record and is rounded up to 8. Returns 0 or a negative errno. */
int table_init(struct table *t, const char *name, size_t record_size, uint32_t max);
void table_fini(struct table *t);

/* The zeroed record of a new id, NULL when the table is full or memory is short. Thread-safe. */
struct table_record *table_alloc(struct table *t);
void table_free(struct table *t, struct table_record *r);

static inline uint32_t table_index(const struct table *t, const struct table_record *r)
{
	return (uint32_t)(((const unsigned char *)r - t->base) / t->record_size);
}

static inline uint64_t table_id(const struct table *t, const struct table_record *r)
{
	return (uint64_t)r->gen << 32 | table_index(t, r);
}

/* The record that an id from outside names, NULL where it names none (any more). */
struct table_record *table_find(struct table *t, uint64_t id);

#endif
