/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sets of ranges against a plain array of bytes, and what their records say at each moment. */
#include <errno.h>
#include <string.h>

#include "backends/spill/ranges.h"
#include "tests/unit/unit.h"

#define BYTES	400u
#define RECORDS	300u
#define RANGE_KIND 2u

static struct range records[RECORDS];
static bool used[RECORDS];
static unsigned left;		/* records that may be had yet */
static bool kept[BYTES];	/* what must be in a record at any moment */
static struct range_set set;

/* Check writes to a file for each assertion that holds, which is nearly all that this test would do. */
#define holds(condition, ...)			\
	do {					\
		if (!(condition))		\
			ck_abort_msg(__VA_ARGS__);	\
	} while (0)

/* As a process would find it that comes after one that died just now. */
static void look(void)
{
	bool there[BYTES] = { false };

	for (unsigned r = 0; r < RECORDS; r++)
		for (uint64_t i = used[r] ? records[r].start : BYTES; i < BYTES && i < records[r].end; i++)
			there[i] = true;
	for (unsigned i = 0; i < BYTES; i++)
		holds(there[i] || !kept[i], "byte %u is in no record", i);
}

static struct range *make(void *arg, const struct range *bytes)
{
	(void)arg;
	look();
	for (unsigned r = 0; left && r < RECORDS; r++) {
		if (used[r])
			continue;
		used[r] = true;
		records[r] = *bytes;
		left--;
		look();
		return &records[r];
	}
	return NULL;
}

static void end(void *arg, struct range *r)
{
	(void)arg;
	look();
	ck_assert(used[r - records]);
	used[r - records] = false;
	memset(r, 0xee, sizeof(*r));
	left++;
	look();
}

static const struct range_store store = { .make = make, .end = end };

static void begin(void)
{
	memset(used, 0, sizeof(used));
	memset(kept, 0, sizeof(kept));
	left = RECORDS;
	ranges_init(&set, &store, 7, RANGE_KIND);
}

static void finish(void)
{
	memset(kept, 0, sizeof(kept));
	ranges_fini(&set, true);
	ck_assert_uint_eq(left, RECORDS);
}

static void same(const bool *model)
{
	uint64_t a, b, at = 0;

	for (size_t i = 0; i < set.count; i++) {
		holds(set.at[i]->start < set.at[i]->end, "range %zu is empty", i);
		holds(!i || set.at[i - 1]->end < set.at[i]->start, "range %zu is not behind the one before", i);
		holds(set.at[i]->file == 7 && set.at[i]->kind == RANGE_KIND, "range %zu is of another file or kind", i);
	}
	while (at < BYTES) {
		if (ranges_next(&set, at, BYTES, &a, &b)) {
			for (; at < a; at++)
				holds(!model[at], "byte %u is missing", (unsigned)at);
			for (; at < b; at++)
				holds(model[at], "byte %u is too many", (unsigned)at);
		} else {
			for (; at < BYTES; at++)
				holds(!model[at], "byte %u is missing", (unsigned)at);
		}
	}
}

static void same_questions(const bool *model, uint64_t start, uint64_t stop)
{
	uint64_t a = start, b, x, y;
	bool all = true, any = false;

	for (uint64_t i = start; i < stop; i++) {
		all &= model[i];
		any |= model[i];
	}
	ck_assert_int_eq(ranges_cover(&set, start, stop), all);
	ck_assert_int_eq(ranges_next(&set, start, stop, &x, &y), any);
	while (a < stop && model[a])
		a++;
	for (b = a; b < stop && !model[b];)
		b++;
	ck_assert_int_eq(ranges_gap(&set, start, stop, &x, &y), a < stop);
	if (a < stop) {
		ck_assert_uint_eq(x, a);
		ck_assert_uint_eq(y, b);
	}
}

/* Another process takes the records over, in whatever order they lie. */
static void taken_over(const bool *model)
{
	ranges_fini(&set, false);
	ranges_init(&set, &store, 7, RANGE_KIND);
	for (unsigned r = RECORDS; r-- > 0;)
		if (used[r])
			ck_assert_int_eq(ranges_adopt(&set, &records[r]), 0);
	same(model);
}

START_TEST(random_ranges)
{
	uint64_t seed = unit_seed();

	for (unsigned round = 0; round < 200; round++) {
		bool model[BYTES] = { false };

		begin();
		for (unsigned step = 0; step < 300; step++) {
			uint64_t start = unit_random(&seed) % BYTES, stop = start + unit_random(&seed) % 40;
			bool add = unit_random(&seed) % 3;

			stop = stop < BYTES ? stop : BYTES;
			for (uint64_t i = start; i < stop; i++)
				kept[i] &= add;
			ck_assert_int_eq(add ? ranges_add(&set, start, stop) : ranges_remove(&set, start, stop, false), 0);
			for (uint64_t i = start; i < stop; i++)
				kept[i] = model[i] = add;
			look();
			same(model);
			same_questions(model, start, stop);
			if (!(unit_random(&seed) % 50))
				taken_over(model);
		}
		finish();
	}
}
END_TEST

START_TEST(sequential_is_one_record)
{
	begin();
	for (unsigned i = 0; i < BYTES; i += 10)
		ck_assert_int_eq(ranges_add(&set, i, i + 10), 0);
	ck_assert_uint_eq(left, RECORDS - 1);
	for (unsigned i = 0; i < BYTES - 10; i += 10)
		ck_assert_int_eq(ranges_remove(&set, i, i + 10, false), 0);
	ck_assert_uint_eq(left, RECORDS - 1);
	ck_assert_uint_eq(ranges_sum(&set), 10);
	finish();
}
END_TEST

START_TEST(without_records)
{
	uint64_t a, b;

	begin();
	left = 1;
	ck_assert_int_eq(ranges_add(&set, 100, 200), 0);
	ck_assert_int_eq(ranges_add(&set, 300, 310), -ENOMEM);
	/* beside it there is place, and nothing in it may be forgotten for another one */
	ck_assert_int_eq(ranges_add(&set, 200, 210), 0);
	ck_assert_int_eq(ranges_remove(&set, 120, 130, false), -ENOMEM);
	ck_assert(ranges_cover(&set, 100, 210));
	ck_assert_int_eq(ranges_remove(&set, 120, 130, true), 0);
	ck_assert(ranges_next(&set, 0, BYTES, &a, &b) && a == 100 && b == 120);
	ck_assert(!ranges_next(&set, 120, BYTES, &a, &b));
	left = RECORDS - 1;
	finish();
}
END_TEST

START_TEST(overlaps_of_a_death)
{
	bool model[BYTES] = { false };

	begin();
	/* grown over its neighbours, which were not ended any more; and a tail that was made, the rest not cut */
	make(NULL, &(struct range){ .file = 7, .kind = RANGE_KIND, .start = 10, .end = 60 });
	make(NULL, &(struct range){ .file = 7, .kind = RANGE_KIND, .start = 20, .end = 30 });
	make(NULL, &(struct range){ .file = 7, .kind = RANGE_KIND, .start = 50, .end = 80 });
	make(NULL, &(struct range){ .file = 7, .kind = RANGE_KIND, .start = 80, .end = 90 });
	for (unsigned i = 10; i < 90; i++)
		model[i] = true;
	taken_over(model);
	ck_assert_uint_eq(set.count, 1);
	ck_assert_uint_eq(left, RECORDS - 1);
	finish();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		random_ranges, sequential_is_one_record, without_records, overlaps_of_a_death, NULL,
	};

	return unit_run("spill_ranges", tests, NULL, NULL);
}
