/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which bytes of a file are somewhere: a sorted set of ranges, each of them a record that outlives the
 * process. The records' union is never less than the set, also between two instructions: what is added
 * is in a record before the call returns, what is removed leaves by single stores.
 */
#ifndef FE_SPILL_RANGES_H
#define FE_SPILL_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A record. Two of one file and kind may overlap for a moment, or where a process died. */
struct range {
	uint64_t file;
	uint64_t start;
	uint64_t end;		/* exclusive */
	uint32_t kind;
	uint32_t reserved;
};

/* Where records come from. make returns NULL where there is no room. */
struct range_store {
	struct range *(*make)(void *arg, const struct range *bytes);
	void (*end)(void *arg, struct range *r);
	void *arg;
};

struct range_set {
	const struct range_store *store;
	struct range **at;	/* by start; they neither overlap nor touch */
	_Atomic size_t count;	/* may be looked at by anybody, for what is done about it looks again */
	size_t room;
	uint64_t file;
	uint32_t kind;
};

void ranges_init(struct range_set *s, const struct range_store *store, uint64_t file, uint32_t kind);
/* Ends the set, and with `records` its records, too. */
void ranges_fini(struct range_set *s, bool records);
/* Takes a record over that another process left; it may touch or overlap others. */
int ranges_adopt(struct range_set *s, struct range *r);

/* -ENOMEM: nothing was added. */
int ranges_add(struct range_set *s, uint64_t start, uint64_t end);
/* -ENOMEM: there is no record for what lies behind a hole; with `loose` that is removed, too, else nothing. */
int ranges_remove(struct range_set *s, uint64_t start, uint64_t end, bool loose);

bool ranges_cover(const struct range_set *s, uint64_t start, uint64_t end);
/* The first piece in [from, to) that is in the set, or that is not; false where there is none. */
bool ranges_next(const struct range_set *s, uint64_t from, uint64_t to, uint64_t *start, uint64_t *end);
bool ranges_gap(const struct range_set *s, uint64_t from, uint64_t to, uint64_t *start, uint64_t *end);
uint64_t ranges_sum(const struct range_set *s);

#endif
