/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/spill/ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void put64(uint64_t *where, uint64_t value)
{
	__atomic_store_n(where, value, __ATOMIC_RELEASE);
}

void ranges_init(struct range_set *s, const struct range_store *store, uint64_t file, uint32_t kind)
{
	*s = (struct range_set){ .store = store, .file = file, .kind = kind };
}

void ranges_fini(struct range_set *s, bool records)
{
	for (size_t i = 0; records && i < s->count; i++)
		s->store->end(s->store->arg, s->at[i]);
	free(s->at);
	s->at = NULL;
	s->count = s->room = 0;
}

/* The first range that ends behind `pos`. */
static size_t find(const struct range_set *s, uint64_t pos)
{
	size_t low = 0, high = s->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->at[mid]->end > pos)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

static int make_room(struct range_set *s)
{
	size_t room = s->room ? s->room * 2 : 4;
	struct range **at;

	if (s->count < s->room)
		return 0;
	at = realloc(s->at, room * sizeof(*at));
	if (!at)
		return -ENOMEM;
	s->at = at;
	s->room = room;
	return 0;
}

static void place(struct range_set *s, size_t i, struct range *r)
{
	memmove(&s->at[i + 1], &s->at[i], (s->count - i) * sizeof(*s->at));
	s->at[i] = r;
	s->count++;
}

static void take_out(struct range_set *s, size_t i, size_t n)
{
	memmove(&s->at[i], &s->at[i + n], (s->count - i - n) * sizeof(*s->at));
	s->count -= n;
}

static int insert(struct range_set *s, size_t i, uint64_t start, uint64_t end)
{
	const struct range bytes = { .file = s->file, .kind = s->kind, .start = start, .end = end };
	struct range *r = make_room(s) ? NULL : s->store->make(s->store->arg, &bytes);

	if (!r)
		return -ENOMEM;
	place(s, i, r);
	return 0;
}

/* Lets range i reach to [start, end), and ends those behind it that it holds then. */
static void grow(struct range_set *s, size_t i, uint64_t start, uint64_t end)
{
	struct range *r = s->at[i];
	size_t n = 0;

	while (i + 1 + n < s->count && s->at[i + 1 + n]->start <= end) {
		if (s->at[i + 1 + n]->end > end)
			end = s->at[i + 1 + n]->end;
		n++;
	}
	if (start < r->start)
		put64(&r->start, start);
	if (end > r->end)
		put64(&r->end, end);
	for (size_t k = 0; k < n; k++)
		s->store->end(s->store->arg, s->at[i + 1 + k]);
	take_out(s, i + 1, n);
}

int ranges_add(struct range_set *s, uint64_t start, uint64_t end)
{
	/* one that ends just where this begins counts, too */
	size_t i = start ? find(s, start - 1) : 0;

	if (start >= end)
		return 0;
	if (i < s->count && s->at[i]->start <= end) {
		grow(s, i, start, end);
		return 0;
	}
	return insert(s, i, start, end);
}

int ranges_adopt(struct range_set *s, struct range *r)
{
	size_t i = r->start ? find(s, r->start - 1) : 0;

	if (i < s->count && s->at[i]->start <= r->end) {
		grow(s, i, r->start, r->end);
		s->store->end(s->store->arg, r);
		return 0;
	}
	if (make_room(s))
		return -ENOMEM;
	place(s, i, r);
	return 0;
}

int ranges_remove(struct range_set *s, uint64_t start, uint64_t end, bool loose)
{
	size_t i = find(s, start);

	if (start >= end)
		return 0;
	if (i < s->count && s->at[i]->start < start) {
		struct range *r = s->at[i];
		uint64_t tail = r->end;

		if (tail > end && insert(s, i + 1, end, tail) && !loose)
			return -ENOMEM;
		put64(&r->end, start);
		if (tail > end)
			return 0;
		i++;
	}
	while (i < s->count && s->at[i]->end <= end) {
		s->store->end(s->store->arg, s->at[i]);
		take_out(s, i, 1);
	}
	if (i < s->count && s->at[i]->start < end)
		put64(&s->at[i]->start, end);
	return 0;
}

bool ranges_next(const struct range_set *s, uint64_t from, uint64_t to, uint64_t *start, uint64_t *end)
{
	size_t i = find(s, from);

	if (from >= to || i == s->count || s->at[i]->start >= to)
		return false;
	*start = s->at[i]->start > from ? s->at[i]->start : from;
	*end = s->at[i]->end < to ? s->at[i]->end : to;
	return true;
}

bool ranges_gap(const struct range_set *s, uint64_t from, uint64_t to, uint64_t *start, uint64_t *end)
{
	size_t i = find(s, from);

	if (i < s->count && s->at[i]->start <= from)
		from = s->at[i++]->end;
	if (from >= to)
		return false;
	*start = from;
	*end = i < s->count && s->at[i]->start < to ? s->at[i]->start : to;
	return true;
}

bool ranges_cover(const struct range_set *s, uint64_t start, uint64_t end)
{
	uint64_t a, b;

	return !ranges_gap(s, start, end, &a, &b);
}

uint64_t ranges_sum(const struct range_set *s)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < s->count; i++)
		sum += s->at[i]->end - s->at[i]->start;
	return sum;
}
