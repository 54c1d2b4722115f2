/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes: one nodeid per key, and exactly as many lookups as the kernel holds.
 *
 * Each record owns a token, as a real one owns a descriptor: at the end of a test every token must have
 * come back by forget() once, and only once.
 */
#include <errno.h>
#include <string.h>

#include "host/internal.h"
#include "tests/unit/unit.h"

#define MAX_TOKENS	(1u << 20)
#define KEY_SIZE	24

struct rec {
	unsigned char key[KEY_SIZE];
	uint64_t token;
};

static struct fe_host *host;
static struct fe_backend backend;
static _Atomic uint32_t tokens;
static _Atomic unsigned char returned[MAX_TOKENS];
static _Atomic uint64_t last_forgotten;		/* the nodeid given to forget() */
static _Atomic uint32_t strangers;		/* records given back that own nothing */

static void forget(void *b, struct fe_node *node)
{
	const struct rec *r = (const void *)node->record;

	(void)b;
	atomic_store(&last_forgotten, node->nodeid);
	if (r->token < MAX_TOKENS)
		atomic_fetch_add(&returned[r->token], 1);
	else
		atomic_fetch_add(&strangers, 1);
}

/* A key alone: the record owns nothing. */
static struct rec key_of(uint64_t key)
{
	struct rec r = { .token = UINT64_MAX };

	memset(r.key, 0x5a, sizeof(r.key));
	/* where a key differs must not matter */
	memcpy(r.key + key % (KEY_SIZE - 8), &key, sizeof(key));
	return r;
}

static struct rec record(uint64_t key)
{
	struct rec r = key_of(key);

	r.token = atomic_fetch_add(&tokens, 1);
	return r;
}

/* Each thread works from a slot of its own, as a worker does. */
static __thread struct worker me;

static void take_slot(struct fe_host *h, unsigned index)
{
	me = (struct worker){ .host = h, .index = index };
	ck_assert_int_eq(worker_take_slot(&me), 0);
}

/* As the host does it with an entry that a backend has filled. */
static int add(const void *r, size_t size, struct fe_node *n)
{
	struct call c = { .host = me.host, .worker = &me, .note = fr_slot_note(me.slot), .out = me.out };

	memcpy(c.note->entry.bytes, r, size);
	c.note->entry.owned = 1;
	return node_intern(&c, (void *)me.out, n);
}

static void drop(uint64_t nodeid, uint64_t nlookup)
{
	struct note *note = fr_slot_note(me.slot);

	node_forget(me.slot, me.host, nodeid, nlookup, &note->progress, 0);
}

/* Returns the nodeid. */
static uint64_t intern(uint64_t key)
{
	struct rec r = record(key);
	struct fe_node n;

	ck_assert_int_eq(add(&r, sizeof(r), &n), 0);
	return n.nodeid;
}

static struct node *internal(uint64_t nodeid)
{
	return fr_record(host->nodes, nodeid);
}

static unsigned count_returned(void)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < tokens; i++)
		n += returned[i];
	return n;
}

static int be_open(const struct fe_open_args *args, struct fe_root *root, void **priv)
{
	struct rec r = args->argument[0] ? record(0) : (struct rec){ 0 };

	memcpy(root->root.record, &r, sizeof(r));
	*priv = &backend;
	return 0;
}

static void be_close(void *b)
{
	(void)b;
}

/* The argument is "" for a root of zeroes that owns nothing. */
static struct fe_host *new_host(const struct fe_backend *be, const char *argument)
{
	struct fe_host_options opt = {
		.struct_size = sizeof(opt), .source = "unit", .mountpoint = "/", .backend = be, .argument = argument,
	};
	unsigned unfinished;
	struct fe_host *h;

	ck_assert_int_eq(fe_host_new(&opt, &h), 0);
	ck_assert_int_eq(serve_begin(h, &unfinished), 0);
	take_slot(h, 0);
	return h;
}

static void free_host(struct fe_host *h)
{
	fr_slot_leave(me.slot);
	serve_end(h);
	fe_host_free(h);
}

static void setup(void)
{
	backend = (struct fe_backend){
		.node_size = sizeof(struct rec), .key_size = KEY_SIZE, .open = be_open, .close = be_close,
		.forget = forget,
	};
	host = new_host(&backend, "unit");
}

static void teardown(void)
{
	free_host(host);
	ck_assert_uint_eq(strangers, 0);
	for (uint32_t i = 0; i < tokens; i++)
		ck_assert_msg(returned[i] == 1, "the record with token %u of %u was given back %u times", i, tokens,
			      returned[i]);
}

START_TEST(root)
{
	struct fe_node n;

	drop(ROOT_ID, UINT64_MAX);
	drop(ROOT_ID, 1);
	ck_assert_int_eq(node_get(host, ROOT_ID, &n), 0);
	ck_assert_uint_eq(n.nodeid, ROOT_ID);
	node_put(host, &n);
	ck_assert_int_eq(node_get(host, ROOT_ID, &n), 0);
	node_put(host, &n);
	ck_assert_uint_eq(count_returned(), 0);
	/* a lookup that ends at the root counts there and changes nothing */
	ck_assert_uint_eq(intern(0), ROOT_ID);
	drop(ROOT_ID, 2);
	ck_assert_int_eq(node_get(host, ROOT_ID, &n), 0);
	node_put(host, &n);
}
END_TEST

START_TEST(same_key)
{
	uint64_t a = intern(7), b = intern(8);
	struct fe_node n;

	ck_assert_uint_ne(a, b);
	ck_assert_uint_ne(a, 0);
	ck_assert_uint_eq(count_returned(), 0);
	ck_assert_uint_eq(intern(7), a);
	/* the second record is given back, without a nodeid: the node lives on */
	ck_assert_uint_eq(count_returned(), 1);
	ck_assert_uint_eq(returned[3], 1);
	ck_assert_uint_eq(last_forgotten, 0);
	ck_assert_uint_eq(internal(a)->nlookup, 2);
	ck_assert_uint_eq(((struct rec *)internal(a)->record)->token, 1);
	drop(a, 1);
	ck_assert_uint_eq(count_returned(), 1);
	ck_assert_int_eq(node_get(host, a, &n), 0);
	node_put(host, &n);
	drop(a, 1);
	ck_assert_uint_eq(count_returned(), 2);
	ck_assert_uint_eq(last_forgotten, a);
	ck_assert_int_eq(node_get(host, a, &n), -ESTALE);
	ck_assert_uint_ne(intern(7), a);
	ck_assert_int_eq(node_get(host, b, &n), 0);
	node_put(host, &n);
}
END_TEST

START_TEST(forget_counts)
{
	uint64_t a = intern(1);

	for (int i = 0; i < 99; i++)
		intern(1);
	drop(a, 0);
	ck_assert_uint_eq(internal(a)->nlookup, 100);
	drop(a, 40);
	drop(a, 59);
	ck_assert_uint_eq(internal(a)->nlookup, 1);
	/* more than there are: all, not a wrapped number of them */
	drop(a, UINT64_MAX);
	ck_assert_uint_eq(last_forgotten, a);
	ck_assert_ptr_null(internal(a));
}
END_TEST

START_TEST(unknown)
{
	uint64_t a = intern(1), gone = intern(2);
	const uint64_t ids[] = {
		0, gone, a + 1000, a | (uint64_t)1 << 32, a | (uint64_t)UINT32_MAX << 32, UINT32_MAX, UINT64_MAX,
		(uint64_t)1 << 63, ROOT_ID | (uint64_t)1 << 32,
	};
	struct fe_node n;
	unsigned before;

	drop(gone, 1);
	before = count_returned();
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		ck_assert_int_eq(node_get(host, ids[i], &n), -ESTALE);
		drop(ids[i], 1);
	}
	/* the id that the freed index gets next is not in use yet either */
	ck_assert_int_eq(node_get(host, gone + ((uint64_t)1 << 32), &n), -ESTALE);
	drop(gone + ((uint64_t)1 << 32), 1);
	ck_assert_uint_eq(count_returned(), before);
	ck_assert_uint_eq(fr_table_used(host->nodes), 2);
	ck_assert_uint_eq(intern(3), gone + ((uint64_t)1 << 32));
}
END_TEST

START_TEST(held)
{
	uint64_t a = intern(5);
	struct fe_node n, again;
	struct rec key = key_of(5);

	ck_assert_int_eq(node_get(host, a, &n), 0);
	drop(a, 1);
	ck_assert_uint_eq(count_returned(), 0);
	/* not the kernel's any more, but in use */
	ck_assert_uint_eq(node_of_key(host, key.key), 0);
	ck_assert_int_eq(node_get(host, a, &again), 0);
	node_put(host, &again);
	ck_assert_uint_eq(count_returned(), 0);
	/* and the kernel may come to hold it again */
	ck_assert_uint_eq(intern(5), a);
	ck_assert_uint_eq(node_of_key(host, key.key), a);
	node_put(host, &n);
	ck_assert_uint_eq(fr_table_used(host->nodes), 2);
	ck_assert_int_eq(node_get(host, a, &n), 0);
	drop(a, 1);
	node_put(host, &n);
	ck_assert_uint_eq(fr_table_used(host->nodes), 1);
	ck_assert_uint_eq(last_forgotten, a);
}
END_TEST

static int note(void *arg, struct fe_node *node)
{
	*(struct fe_node *)arg = *node;
	return 42;
}

START_TEST(by_key)
{
	uint64_t a = intern(9);
	struct rec key = key_of(9), other = key_of(10);
	struct fe_node n = { 0 };

	ck_assert_uint_eq(node_of_key(host, key.key), a);
	ck_assert_uint_eq(node_of_key(host, other.key), 0);
	ck_assert_int_eq(node_with_key(host, other.key, note, &n), -ENOENT);
	ck_assert_ptr_null(n.record);
	ck_assert_int_eq(node_with_key(host, key.key, note, &n), 42);
	ck_assert_uint_eq(n.nodeid, a);
	/* the live record, not a copy */
	ck_assert_ptr_eq(n.record, internal(a)->record);
	drop(a, 1);
	ck_assert_uint_eq(node_of_key(host, key.key), 0);
	ck_assert_int_eq(node_with_key(host, key.key, note, &n), -ENOENT);
}
END_TEST

/* Key sizes that are no multiple of a word; what lies behind the key identifies nothing. */
START_TEST(key_sizes)
{
	for (uint32_t size = 1; size <= 17; size++) {
		struct fe_backend be = { .node_size = 24, .key_size = size, .open = be_open, .close = be_close };
		struct worker outer = me;
		struct fe_host *h = new_host(&be, "");
		unsigned char r[24] = { 0 };
		struct fe_node a, b;

		for (uint32_t at = 0; at < 24; at++) {
			r[at] = 1;
			ck_assert_int_eq(add(r, sizeof(r), &a), 0);
			ck_assert_int_eq(add(r, sizeof(r), &b), 0);
			ck_assert_uint_eq(a.nodeid, b.nodeid);
			if (at < size)
				ck_assert_uint_ne(a.nodeid, ROOT_ID);
			else
				ck_assert_uint_eq(a.nodeid, ROOT_ID);
			r[at] = 0;
		}
		ck_assert_uint_eq(fr_table_used(h->nodes), 1 + size);
		free_host(h);
		me = outer;
	}
}
END_TEST

/* All are found while and after the hash grows, and leave it in any order. */
START_TEST(growth)
{
	enum { N = 30000 };
	uint64_t seed = unit_seed(), *ids = calloc(N, sizeof(*ids));

	for (uint64_t i = 0; i < N; i++)
		ids[i] = intern(i + 1);
	ck_assert_uint_eq(fr_table_used(host->nodes), N + 1);
	for (uint64_t i = 0; i < N; i++)
		ck_assert_uint_eq(intern(i + 1), ids[i]);
	ck_assert_uint_eq(fr_table_used(host->nodes), N + 1);
	for (uint64_t left = N; left; left--) {
		uint64_t at = unit_random(&seed) % left;

		drop(ids[at], 2);
		ck_assert_ptr_null(internal(ids[at]));
		ids[at] = ids[left - 1];
	}
	ck_assert_uint_eq(fr_table_used(host->nodes), 1);
	free(ids);
}
END_TEST

#define THREADS		4
#define SHARED		64
#define OWN		5000	/* more than the hash begins with, from one thread alone */
#define ROUNDS		30000

static _Atomic int broken;
static uint64_t thread_seed;

static void look_up(uint64_t key, uint64_t *id, unsigned *held)
{
	struct rec r = record(key);
	struct fe_node n;

	if (add(&r, sizeof(r), &n)) {
		broken = 1;
		return;
	}
	if (*held && n.nodeid != *id)
		broken = 2;
	*id = n.nodeid;
	++*held;
}

/* Shared keys are looked up, used and forgotten at random; own ones pile up, so that the hash grows. */
static void *worker(void *arg)
{
	uint64_t self = (uint64_t)(uintptr_t)arg, seed = thread_seed + self, own[OWN], id[SHARED] = { 0 };
	unsigned held[SHARED] = { 0 }, nown = 0;

	take_slot(host, 1 + (unsigned)self);
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t r = unit_random(&seed);
		unsigned at = r % SHARED, none = 0;
		struct fe_node n;

		if (r >> 32 & 1 || !held[at]) {
			look_up(at + 1, &id[at], &held[at]);
		} else if (r >> 33 & 1) {
			unsigned some = 1 + (r >> 40) % held[at];

			drop(id[at], some);
			held[at] -= some;
		} else if (node_get(host, id[at], &n)) {
			broken = 3;
		} else {
			if (n.nodeid != id[at] || memcmp(n.record, key_of(at + 1).key, KEY_SIZE))
				broken = 4;
			node_put(host, &n);
		}
		/* an id that this thread gave up: others may hold it, or end it right now */
		if (!held[(at + 1) % SHARED] && id[(at + 1) % SHARED] && !node_get(host, id[(at + 1) % SHARED], &n)) {
			if (memcmp(n.record, key_of((at + 1) % SHARED + 1).key, KEY_SIZE))
				broken = 4;
			node_put(host, &n);
		}
		if (nown < OWN && !(i % 4))
			look_up((self + 1) << 32 | nown, &own[nown], &none), nown++;
	}
	for (unsigned i = 0; i < nown; i++)
		drop(own[i], 1);
	for (unsigned i = 0; i < SHARED; i++)
		drop(id[i], held[i]);
	fr_slot_leave(me.slot);
	return NULL;
}

START_TEST(threads)
{
	pthread_t t[THREADS];

	thread_seed = unit_seed();
	for (uintptr_t i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, worker, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	ck_assert_msg(!broken, "%s", broken == 1 ? "node_intern failed" :
		      broken == 2 ? "a key got a second nodeid while the first was held" :
		      broken == 3 ? "a node that is held was not found" : "a nodeid led to another node's record");
	ck_assert_uint_eq(fr_table_used(host->nodes), 1);
}
END_TEST

static void sweep(void)
{
	do
		nodes_sweep(host);
	while (host->sweep_at);
}

/* The process of a request that held the node died: its successor ends what nobody holds, and no more. */
START_TEST(swept)
{
	uint64_t id = intern(7), kept = intern(8), old = tokens;
	struct fe_node n;

	for (uint64_t key = 100; key < 5000; key++)
		intern(key);
	ck_assert_int_eq(node_get(host, id, &n), 0);
	drop(id, 1);
	sweep();
	ck_assert_ptr_nonnull(internal(id));
	internal(id)->generation--;
	sweep();
	ck_assert_ptr_null(internal(id));
	ck_assert_uint_eq(returned[old - 2], 1);
	ck_assert_ptr_nonnull(internal(kept));
	ck_assert_uint_eq(fr_table_used(host->nodes), 2 + 4900);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		root, same_key, forget_counts, unknown, held, by_key, key_sizes, growth, threads, swept, NULL,
	};

	return unit_run("node", tests, setup, teardown);
}
