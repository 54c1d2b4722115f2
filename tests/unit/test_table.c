/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tables of nodes, handles and parked requests: ids, generations, growth, limits, threads. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "host/table.h"
#include "tests/unit/unit.h"

struct item {
	struct table_record table;
	uint64_t mark;
	unsigned char rest[21];
};

static struct table table;

static void setup(void)
{
	ck_assert_int_eq(table_init(&table, "unit", sizeof(struct item), 1u << 20), 0);
}

static void teardown(void)
{
	table_fini(&table);
}

static struct item *alloc_item(void)
{
	return (struct item *)table_alloc(&table);
}

START_TEST(ids)
{
	struct item *a = alloc_item(), *b = alloc_item();
	uint64_t id_a, id_b;

	ck_assert_ptr_nonnull(a);
	ck_assert_ptr_nonnull(b);
	id_a = table_id(&table, &a->table);
	id_b = table_id(&table, &b->table);
	/* the first id is the one that the protocol has for the root */
	ck_assert_uint_eq(id_a, 1);
	ck_assert_uint_eq(id_b, 2);
	ck_assert_uint_eq(table.used, 2);
	ck_assert_uint_eq(table.record_size % 8, 0);
	ck_assert_uint_ge(table.record_size, sizeof(struct item));
	ck_assert_ptr_eq(table_find(&table, id_a), &a->table);
	ck_assert_ptr_eq(table_find(&table, id_b), &b->table);
	ck_assert_ptr_null(table_find(&table, 0));
	ck_assert_ptr_null(table_find(&table, (uint64_t)7 << 32));
	ck_assert_ptr_null(table_find(&table, id_a | (uint64_t)1 << 32));
	ck_assert_ptr_null(table_find(&table, table.max));
	ck_assert_ptr_null(table_find(&table, UINT32_MAX));
	ck_assert_ptr_null(table_find(&table, UINT64_MAX));
}
END_TEST

START_TEST(generations)
{
	struct item *a = alloc_item();
	uint64_t first = table_id(&table, &a->table), second;

	a->mark = UINT64_MAX;
	memset(a->rest, 0xff, sizeof(a->rest));
	table_free(&table, &a->table);
	ck_assert_uint_eq(table.used, 0);
	ck_assert_ptr_null(table_find(&table, first));
	a = alloc_item();
	second = table_id(&table, &a->table);
	ck_assert_uint_eq((uint32_t)second, (uint32_t)first);
	ck_assert_uint_eq(second >> 32, (first >> 32) + 1);
	ck_assert_uint_eq(a->mark, 0);
	for (size_t i = 0; i < sizeof(a->rest); i++)
		ck_assert_uint_eq(a->rest[i], 0);
	ck_assert_ptr_null(table_find(&table, first));
	ck_assert_ptr_eq(table_find(&table, second), &a->table);
}
END_TEST

/* An index whose generations are used up does not come back. */
START_TEST(retired)
{
	struct item *a = alloc_item();
	uint32_t index = table_index(&table, &a->table);

	a->table.gen = UINT32_MAX - 2;
	table_free(&table, &a->table);
	a = alloc_item();
	ck_assert_uint_eq(table_id(&table, &a->table), (uint64_t)(UINT32_MAX - 1) << 32 | index);
	table_free(&table, &a->table);
	ck_assert_uint_eq(table.used, 0);
	for (int i = 0; i < 3; i++) {
		a = alloc_item();
		ck_assert_uint_ne(table_index(&table, &a->table), index);
	}
}
END_TEST

/* Records keep their place and their contents while the table grows below them. */
START_TEST(growth)
{
	enum { N = 150000 };
	struct item **all = calloc(N, sizeof(*all));
	uint32_t grown = table.grown;
	unsigned steps = 0;

	for (uint32_t i = 0; i < N; i++) {
		all[i] = alloc_item();
		ck_assert_ptr_nonnull(all[i]);
		ck_assert_uint_eq(all[i]->mark, 0);
		all[i]->mark = i + 1;
		steps += table.grown != grown;
		grown = table.grown;
		ck_assert_uint_le(grown, table.max);
	}
	ck_assert_uint_gt(steps, 3);
	ck_assert_uint_eq(table.used, N);
	for (uint32_t i = 0; i < N; i++) {
		ck_assert_uint_eq(all[i]->mark, i + 1);
		ck_assert_ptr_eq(table_find(&table, i + 1), &all[i]->table);
	}
	free(all);
}
END_TEST

START_TEST(full)
{
	struct table small;
	struct table_record *r[9];

	ck_assert_int_eq(table_init(&small, "small", 13, 10), 0);
	ck_assert_uint_eq(small.record_size, 16);
	for (int i = 0; i < 9; i++) {
		r[i] = table_alloc(&small);
		ck_assert_ptr_nonnull(r[i]);
	}
	ck_assert_ptr_null(table_alloc(&small));
	ck_assert_uint_eq(small.used, 9);
	ck_assert_ptr_null(table_find(&small, 10));
	table_free(&small, r[4]);
	ck_assert_ptr_eq(table_alloc(&small), r[4]);
	ck_assert_ptr_null(table_alloc(&small));
	table_fini(&small);
}
END_TEST

/* A lack of memory is a NULL, and passes. */
START_TEST(short_of_memory)
{
	struct rlimit old, tight;
	uint32_t before;

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_ptr_nonnull(alloc_item());
	getrlimit(RLIMIT_FSIZE, &old);
	tight = (struct rlimit){ 4096, old.rlim_max };
	setrlimit(RLIMIT_FSIZE, &tight);
	while (alloc_item())
		;
	before = table.used;
	ck_assert_uint_lt(before, table.max - 1);
	ck_assert_ptr_null(alloc_item());
	ck_assert_uint_eq(table.used, before);
	setrlimit(RLIMIT_FSIZE, &old);
	ck_assert_ptr_nonnull(alloc_item());
	ck_assert_uint_eq(table.used, before + 1);
}
END_TEST

START_TEST(no_address_space)
{
	struct table huge;

	ck_assert_int_lt(table_init(&huge, "huge", (size_t)1 << 40, 1u << 28), 0);
}
END_TEST

/* Any order of allocating and freeing: an index comes back with a higher generation only. */
START_TEST(random_order)
{
	enum { LIVE = 3000, STEPS = 200000 };
	uint64_t seed = unit_seed(), *ids = calloc(LIVE, sizeof(*ids));
	int64_t *last = malloc((LIVE + 2) * sizeof(*last));
	unsigned live = 0;

	memset(last, 0xff, (LIVE + 2) * sizeof(*last));
	for (int step = 0; step < STEPS; step++) {
		unsigned at = unit_random(&seed) % LIVE;

		if (at >= live && live < LIVE) {
			struct item *it = alloc_item();
			uint64_t id = table_id(&table, &it->table);

			ck_assert_msg((uint32_t)id && (uint32_t)id <= LIVE, "step %d: index %u out of order", step,
				      (uint32_t)id);
			ck_assert_msg((int64_t)(id >> 32) > last[(uint32_t)id], "step %d: id %llx came twice", step,
				      (unsigned long long)id);
			last[(uint32_t)id] = (int64_t)(id >> 32);
			it->mark = id;
			ids[live++] = id;
		} else {
			struct item *it = (struct item *)table_find(&table, ids[at]);

			ck_assert_msg(it && it->mark == ids[at], "step %d: id %llx is lost", step,
				      (unsigned long long)ids[at]);
			table_free(&table, &it->table);
			ck_assert_ptr_null(table_find(&table, ids[at]));
			ids[at] = ids[--live];
		}
		ck_assert_uint_eq(table.used, live);
	}
	free(ids);
	free(last);
}
END_TEST

#define THREADS	4
#define ROUNDS	20000
#define HELD	16

static uint64_t seen[THREADS][ROUNDS];
static _Atomic int broken;

static void *churn(void *arg)
{
	uint64_t *mine = arg, held[HELD] = { 0 };

	for (int i = 0; i < ROUNDS; i++) {
		struct item *it = (struct item *)(held[i % HELD] ? table_find(&table, held[i % HELD]) : NULL);

		if (it) {
			if (it->mark != held[i % HELD])
				broken = 1;
			table_free(&table, &it->table);
		} else if (held[i % HELD]) {
			broken = 2;
		}
		it = alloc_item();
		if (!it || it->mark) {
			broken = 3;
			return NULL;
		}
		mine[i] = held[i % HELD] = it->mark = table_id(&table, &it->table);
	}
	return NULL;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

START_TEST(threads)
{
	pthread_t t[THREADS];
	uint64_t *all = &seen[0][0];

	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, churn, seen[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	ck_assert_msg(!broken, "%s", broken == 1 ? "a record was given to two threads" :
		      broken == 2 ? "an id that is in use was not found" : "a new record was missing or not zeroed");
	ck_assert_uint_eq(table.used, THREADS * HELD);
	qsort(all, THREADS * ROUNDS, sizeof(*all), compare);
	for (int i = 1; i < THREADS * ROUNDS; i++)
		ck_assert_msg(all[i] != all[i - 1], "id %llx was given out twice", (unsigned long long)all[i]);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		ids, generations, retired, growth, full, short_of_memory, no_address_space, random_order, threads, NULL,
	};

	return unit_run("table", tests, setup, teardown);
}
