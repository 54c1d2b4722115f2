/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The library's contexts: what they take and refuse, sizes, words under threads, records of nodeids. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "tests/unit/cache.h"

static void setup(void)
{
	open_context(0);
}

/* ---- options ---- */

START_TEST(options_are_checked)
{
	const struct extfuse_protocol protocol = { .struct_size = sizeof(protocol) };
	const struct extfuse_protocol wrong = { .struct_size = 1 };
	struct extfuse_options o = options(0);
	struct extfuse *other;

	o.struct_size = 8;
	ck_assert_int_eq(extfuse_open(&o, &other), -EINVAL);
	ck_assert_ptr_null(other);
	o = options(0);
	o.struct_size = sizeof(o) + 8;
	ck_assert_int_eq(extfuse_open(&o, &other), -EINVAL);
	o = options(2);
	ck_assert_int_eq(extfuse_open(&o, &other), -EINVAL);
	o = options(0);
	o.engine = 3;
	ck_assert_int_eq(extfuse_open(&o, &other), -EINVAL);
	o = options(0);
	o.reserved[5] = 1;
	ck_assert_int_eq(extfuse_open(&o, &other), -EINVAL);
	o = options(0);
	o.memory = 4096;
	ck_assert_int_eq(extfuse_open(&o, &other), -EINVAL);
	o = options(0);
	ck_assert_int_eq(extfuse_open(&o, &other), 0);
	ck_assert_int_eq(extfuse_attach(other, -1, &wrong), -EINVAL);
	ck_assert_int_eq(extfuse_hold(other, 5), -ENOTCONN);
	ck_assert_int_eq(extfuse_invalidate_all(other), -ENOTCONN);
	ck_assert_int_eq(extfuse_attach(other, -1, &protocol), 0);
	ck_assert_int_eq(extfuse_attach(other, -1, &protocol), -EBUSY);
	extfuse_close(other);
	extfuse_close(NULL);
}
END_TEST

START_TEST(hook_where_there_is_none)
{
	struct extfuse_options o = options(0);
	struct extfuse *other;

	if (!access(EXTFUSE_DEVICE, F_OK))
		return;
	o.engine = EXTFUSE_ENGINE_HOOK;
	ck_assert_int_eq(extfuse_open(&o, &other), -ENOENT);
	ck_assert_ptr_null(other);
	o.engine = EXTFUSE_ENGINE_AUTO;
	ck_assert_int_eq(extfuse_open(&o, &other), 0);
	extfuse_close(other);
}
END_TEST

START_TEST(memory_is_bounded)
{
	for (uint64_t memory = 1 << 20; memory <= 1ull << 36; memory += memory / 3 + 4096) {
		struct extfuse_options o = options(0);
		struct sizes s;

		o.memory = memory;
		ck_assert_int_eq(sizes_of(&o, &s), 0);
		ck_assert_uint_le(s.memory, memory);
		ck_assert_uint_ge(s.memory, memory < 1ull << 33 ? memory / 2 : memory / 64);
		ck_assert_uint_ge(s.elements[MAP_ATTR], 900);
		ck_assert_uint_ge(s.word_bits, 6);
		ck_assert_uint_le(s.word_bits, 22);
		ck_assert_uint_le(s.nodes, 1 << 24);
	}
}
END_TEST

START_TEST(records_are_part_of_memory)
{
	struct extfuse_options o = options(0);
	struct sizes few, many;

	o.nodes = 16;
	ck_assert_int_eq(sizes_of(&o, &few), 0);
	ck_assert_uint_eq(few.nodes, 16);
	o.nodes = 100000;
	ck_assert_int_eq(sizes_of(&o, &many), 0);
	ck_assert_uint_le(many.memory, o.memory);
	ck_assert_uint_lt(many.elements[MAP_ATTR], few.elements[MAP_ATTR]);
	/* no room for anything else */
	o.nodes = 1000000;
	ck_assert_int_eq(sizes_of(&o, &many), -EINVAL);
}
END_TEST

/* ---- the module's memory ---- */

static int map_file(const struct extfuse_area *head, size_t size)
{
	int err;

	x->device = memfd_create("area", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(x->device, (off_t)size), 0);
	ck_assert_int_eq(pwrite(x->device, head, sizeof(*head), 0), sizeof(*head));
	area_drop(x);
	err = area_map(x);
	close(x->device);
	x->device = -1;
	if (err)
		ck_assert_int_eq(area_make(x), 0);
	return err;
}

START_TEST(areas_are_checked)
{
	const struct extfuse_area good = { .abi = EXTFUSE_ABI,
					   .word_bits = 6,
					   .nodes = 16,
					   .words_offset = 128,
					   .nodes_offset = 4096,
					   .size = 8192 };
	struct extfuse_area a;

	x->sizes.nodes = 100;
#define WRONG(member, value) \
	a = good; \
	a.member = (value); \
	ck_assert_int_eq(map_file(&a, 8192), -EPROTO)
	WRONG(abi, EXTFUSE_ABI + 1);
	WRONG(word_bits, 0);
	WRONG(word_bits, 31);
	WRONG(word_bits, 10);
	WRONG(nodes, 101);
	WRONG(nodes, UINT32_MAX);
	WRONG(words_offset, 0);
	WRONG(words_offset, 129);
	WRONG(words_offset, 8192);
	WRONG(words_offset, UINT64_MAX - 7);
	WRONG(nodes_offset, 8192);
	WRONG(nodes_offset, 8192 - 15 * 16);
	WRONG(size, 0);
	WRONG(size, 8193);
	WRONG(size, UINT64_MAX - 4095);
	ck_assert_int_eq(map_file(&good, 8192), 0);
	ck_assert_uint_eq(x->nodes_count, 16);
	x->nodes[15].grants = 1;
	x->words[63].held = 1;
}
END_TEST

START_TEST(descriptors_of_others)
{
	const struct extfuse_protocol protocol = { .struct_size = sizeof(protocol) };
	const struct extfuse_options o = options(0);
	struct extfuse *other;
	int fds[EXTFUSE_FDS_MAX];

	ck_assert_int_eq(extfuse_fds(x, fds, EXTFUSE_FDS_MAX), 0);
	for (int i = 0; i < EXTFUSE_FDS_MAX; i++)
		fds[i] = i % 2 ? -1 : 0;
	for (unsigned n = 0; n < EXTFUSE_FDS_MAX; n++) {
		ck_assert_int_eq(extfuse_reopen(&o, -1, &protocol, fds, n, &other), -EINVAL);
		ck_assert_ptr_null(other);
	}
	/* they stay the caller's */
	ck_assert_int_ge(fcntl(0, F_GETFD), 0);
}
END_TEST

/* ---- records ---- */

START_TEST(grants_keep_a_nodeid)
{
	ck_assert_int_eq(extfuse_node_new(x, 5, 100), 0);
	ck_assert_int_eq(extfuse_node_new(x, 5, 100), 0);
	ck_assert_int_eq(extfuse_node_new(x, 5, 101), -EBUSY);
	ck_assert_int_eq(extfuse_node_new(x, NODES, 101), -ERANGE);
	ck_assert_int_eq(extfuse_node_new(x, 6, 0), -EINVAL);
	ck_assert_int_eq(extfuse_forget(x, 5, 100, 1), 0);
	/* the hook grants three, the daemon one, and the kernel forgets them in two steps */
	records[5].grants += 3;
	ck_assert_uint_eq(extfuse_granted(x, 5, 100), 3);
	ck_assert_uint_eq(extfuse_granted(x, 5, 101), 0);
	ck_assert_int_eq(extfuse_forget(x, 5, 100, -1), 0);
	ck_assert_int_eq(extfuse_forget(x, 5, 100, -3), 1);
	ck_assert(records[5].grants & EXTFUSE_NODE_DEAD);
	/* asked again, by who takes over */
	ck_assert_int_eq(extfuse_forget(x, 5, 100, -3), 1);
	ck_assert_int_eq(extfuse_node_new(x, 5, 101), 0);
	ck_assert(!(records[5].grants & EXTFUSE_NODE_DEAD));
	ck_assert_uint_eq(extfuse_granted(x, 5, 101), 0);
	/* more than was ever granted is a mistake, and kills nothing */
	ck_assert_int_eq(extfuse_forget(x, 5, 101, -1), -EINVAL);
	ck_assert(!(records[5].grants & EXTFUSE_NODE_DEAD));
}
END_TEST

START_TEST(nodeids_without_a_record)
{
	ck_assert_int_eq(extfuse_forget(x, UINT32_MAX, 200, 2), 0);
	ck_assert_int_eq(extfuse_forget(x, UINT32_MAX, 200, 0), 1);
	ck_assert_int_eq(extfuse_forget(x, 7, 200, 0), 1);
	ck_assert_int_eq(extfuse_forget(x, 7, 200, -1), -EINVAL);
}
END_TEST

/* A record's owner was killed after any of its stores: who takes over says the same again. */
START_TEST(records_that_are_half_made)
{
	const uint64_t life = EXTFUSE_NODE_LIFE, dead = EXTFUSE_NODE_DEAD;
	const struct extfuse_node states[] = {
		{ 300, life | 4 | dead },		/* the one before is dead */
		{ 300, (2 * life) | dead },		/* ... and its counts are gone */
		{ 301, (2 * life) | dead },		/* the nodeid is there */
		{ 301, 2 * life },			/* done */
	};

	for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++) {
		records[8] = states[i];
		ck_assert_int_eq(extfuse_node_new(x, 8, 301), 0);
		ck_assert_uint_eq(records[8].nodeid, 301);
		ck_assert(!(records[8].grants & dead));
		ck_assert_uint_eq(extfuse_granted(x, 8, 301), 0);
		ck_assert_int_eq(extfuse_forget(x, 8, 301, 0), 1);
	}
}
END_TEST

/* A grant comes, or does not: whichever, the nodeid is dead only where it did not. */
static atomic_uint alive;

static void *granter(void *arg)
{
	struct extfuse_node *n = arg;
	__u64 grants = __atomic_load_n(&n->grants, __ATOMIC_SEQ_CST);

	do {
		if (grants & EXTFUSE_NODE_DEAD)
			return NULL;
	} while (!__atomic_compare_exchange_n(&n->grants, &grants, grants + 1, false, __ATOMIC_SEQ_CST,
					      __ATOMIC_SEQ_CST));
	alive++;
	return NULL;
}

START_TEST(forgets_against_grants)
{
	for (uint64_t nodeid = 1000; nodeid < 3000; nodeid++) {
		pthread_t thread;
		int dead;

		alive = 0;
		ck_assert_int_eq(extfuse_node_new(x, 9, nodeid), 0);
		ck_assert_int_eq(pthread_create(&thread, NULL, granter, &records[9]), 0);
		dead = extfuse_forget(x, 9, nodeid, 0);
		pthread_join(thread, NULL);
		ck_assert_msg(dead == !alive, "dead: %d, granted: %u", dead, alive);
		ck_assert_int_eq(extfuse_forget(x, 9, nodeid, -(int64_t)alive), 1);
	}
}
END_TEST

/* ---- words ---- */

/*
 * A value that its owner changes, as the module sees it: begun, changed, over. Others bump, and read
 * with stamps; what a stamp from before a change vouches for is never believed after it.
 */
static struct extfuse_word *shared;
static uint64_t content;
static bool over;

static void *mutator(void *arg)
{
	for (int i = 0; i < 30000; i++) {
		__atomic_fetch_add(&shared->state, EXTFUSE_WORD_BEGIN, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(&content, 1, __ATOMIC_SEQ_CST);
		/* the end: a bump that counts down */
		word_bump(x, shared);
		__atomic_fetch_sub(&shared->state, EXTFUSE_WORD_BEGIN, __ATOMIC_SEQ_CST);
		for (int j = 0; j < 100; j++)
			extfuse_stamp(x);
	}
	__atomic_store_n(&over, true, __ATOMIC_SEQ_CST);
	return arg;
}

START_TEST(words_under_threads)
{
	uint64_t believed = 0;
	pthread_t thread;

	shared = word(ABOUT_NODE, 5, NULL);
	ck_assert_int_eq(pthread_create(&thread, NULL, mutator, NULL), 0);
	while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
		uint64_t stamp = extfuse_stamp(x);
		uint64_t value = __atomic_load_n(&content, __ATOMIC_SEQ_CST);

		for (int i = 0; i < 20; i++) {
			uint64_t before = __atomic_load_n(&content, __ATOMIC_SEQ_CST);

			if (!word_holds(shared, stamp, 0))
				continue;
			believed++;
			ck_assert_msg(before == value, "believed after %llu changes",
				      (unsigned long long)(before - value));
		}
	}
	pthread_join(thread, NULL);
	ck_assert(word_holds(shared, extfuse_stamp(x), 0));
	ck_assert_uint_eq(shared->state & EXTFUSE_WORD_BUSY, 0);
	ck_assert_uint_eq(shared->state >> EXTFUSE_WORD_TIME, x->area->clock);
	ck_assert_uint_gt(believed, 0);
}
END_TEST

static void *bumper(void *arg)
{
	for (int i = 0; i < 50000; i++)
		word_bump(x, arg);
	return NULL;
}

/* However they meet, no bump is lost, and `prev` is never before what it stands for. */
START_TEST(bumps_meet)
{
	struct extfuse_word *w = word(ABOUT_NODE, 6, NULL);
	pthread_t threads[3];

	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, bumper, w), 0);
	for (int i = 0; i < 20000; i++) {
		uint64_t state = __atomic_load_n(&w->state, __ATOMIC_SEQ_CST);
		uint64_t own = (state >> EXTFUSE_WORD_TIME) + 1;

		/* an own value of a time that two bumps ago was the last */
		if (__atomic_load_n(&w->state, __ATOMIC_SEQ_CST) >> EXTFUSE_WORD_TIME > own + 6)
			ck_assert(!word_holds(w, 0, own));
	}
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(x->area->clock, 150000);
	ck_assert_uint_eq(w->state >> EXTFUSE_WORD_TIME, 150000);
	ck_assert_uint_ge(w->prev, 149996);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { options_are_checked,
				       hook_where_there_is_none,
				       memory_is_bounded,
				       records_are_part_of_memory,
				       areas_are_checked,
				       descriptors_of_others,
				       grants_keep_a_nodeid,
				       nodeids_without_a_record,
				       records_that_are_half_made,
				       forgets_against_grants,
				       words_under_threads,
				       bumps_meet,
				       NULL };

	return unit_run("context", tests, setup, close_context);
}
