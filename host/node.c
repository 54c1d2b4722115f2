/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes: from a backend's key to a nodeid, and how often the kernel holds it. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "host/internal.h"

#define MAX_NODES	(1u << 28)
#define FIRST_BUCKETS	(1u << 12)

struct node *node_of(const struct fe_node *n)
{
	return (struct node *)(n->record - offsetof(struct node, record));
}

static struct node *node_at(struct fe_host *h, uint32_t index)
{
	return (struct node *)(h->nodes.base + (size_t)index * h->nodes.record_size);
}

static void node_public(struct fe_host *h, struct node *n, struct fe_node *out)
{
	out->nodeid = table_id(&h->nodes, &n->table);
	out->record = n->record;
}

static uint32_t hash_key(const unsigned char *key, size_t size)
{
	uint64_t x = 0x9e3779b97f4a7c15u ^ size;

	while (size) {
		uint64_t word = 0;
		size_t n = size < sizeof(word) ? size : sizeof(word);

		memcpy(&word, key, n);
		x = (x ^ word) * 0xff51afd7ed558ccdu;
		x ^= x >> 32;
		key += n;
		size -= n;
	}
	return (uint32_t)x;
}

static pthread_mutex_t *stripe(struct fe_host *h, uint32_t hash)
{
	return &h->node_locks[hash % STRIPES];
}

pthread_mutex_t *node_open_lock(struct fe_host *h, const struct fe_node *n)
{
	return &h->open_locks[(uint32_t)n->nodeid % STRIPES];
}

static uint32_t *buckets_new(uint32_t count)
{
	void *p = mmap(NULL, (size_t)count * sizeof(uint32_t), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int nodes_init(struct fe_host *h)
{
	int err = table_init(&h->nodes, "fuse-extent-nodes", offsetof(struct node, record) + h->be->node_size,
			     MAX_NODES);

	if (err)
		return err;
	h->buckets = buckets_new(FIRST_BUCKETS);
	if (!h->buckets)
		return -ENOMEM;
	h->bucket_mask = FIRST_BUCKETS - 1;
	for (int i = 0; i < STRIPES; i++) {
		pthread_mutex_init(&h->node_locks[i], NULL);
		pthread_mutex_init(&h->open_locks[i], NULL);
	}
	return 0;
}

void nodes_forget(struct fe_host *h)
{
	for (uint32_t i = 1; h->be->forget && i < h->nodes.fresh; i++) {
		struct node *n = node_at(h, i);
		pthread_mutex_t *lock = stripe(h, n->hash);
		struct fe_node pub;
		bool held, waits;

		pthread_mutex_lock(lock);
		held = n->nlookup;
		n->nlookup = 0;
		waits = n->refs;
		pthread_mutex_unlock(lock);
		/* A request that still waits drops it, when the backend is closed at the latest. */
		if (!held || waits)
			continue;
		node_public(h, n, &pub);
		h->be->forget(h->priv, &pub);
	}
}

void nodes_fini(struct fe_host *h)
{
	if (h->buckets)
		munmap(h->buckets, ((size_t)h->bucket_mask + 1) * sizeof(uint32_t));
	h->buckets = NULL;
	if (h->nodes.base)
		table_fini(&h->nodes);
}

/* `old`: how many buckets the caller found too few; another thread may have been faster. */
static void buckets_grow(struct fe_host *h, uint32_t old)
{
	uint32_t *fresh;

	for (int i = 0; i < STRIPES; i++)
		pthread_mutex_lock(&h->node_locks[i]);
	fresh = h->bucket_mask + 1 == old && old <= UINT32_MAX / 4 ? buckets_new(old * 4) : NULL;
	if (fresh) {
		uint32_t mask = old * 4 - 1;

		for (uint32_t b = 0; b < old; b++) {
			for (uint32_t i = h->buckets[b], next; i; i = next) {
				struct node *n = node_at(h, i);

				next = n->table.next;
				n->table.next = fresh[n->hash & mask];
				fresh[n->hash & mask] = i;
			}
		}
		munmap(h->buckets, (size_t)old * sizeof(uint32_t));
		h->buckets = fresh;
		h->bucket_mask = mask;
	}
	for (int i = STRIPES - 1; i >= 0; i--)
		pthread_mutex_unlock(&h->node_locks[i]);
}

static struct node *chain_find(struct fe_host *h, uint32_t hash, const void *key)
{
	for (uint32_t i = h->buckets[hash & h->bucket_mask]; i; ) {
		struct node *n = node_at(h, i);

		if (n->hash == hash && !memcmp(n->record, key, h->be->key_size))
			return n;
		i = n->table.next;
	}
	return NULL;
}

static void chain_add(struct fe_host *h, struct node *n)
{
	uint32_t *bucket = &h->buckets[n->hash & h->bucket_mask];

	n->table.next = *bucket;
	*bucket = table_index(&h->nodes, &n->table);
}

static void chain_remove(struct fe_host *h, struct node *n)
{
	uint32_t *link = &h->buckets[n->hash & h->bucket_mask];
	uint32_t index = table_index(&h->nodes, &n->table);

	while (*link != index)
		link = &node_at(h, *link)->table.next;
	*link = n->table.next;
}

static struct node *node_new(struct fe_host *h, const unsigned char *record, uint32_t hash)
{
	struct node *n = (struct node *)table_alloc(&h->nodes);

	if (!n)
		return NULL;
	memcpy(n->record, record, h->be->node_size);
	n->hash = hash;
	n->nlookup = 1;
	chain_add(h, n);
	return n;
}

int node_add_root(struct fe_host *h, const unsigned char *record)
{
	/* The first record of a new table: index 1, generation 0, which is the nodeid of every root. */
	return node_new(h, record, hash_key(record, h->be->key_size)) ? 0 : -ENOMEM;
}

int node_intern(struct fe_host *h, unsigned char *record, struct fe_node *out)
{
	uint32_t hash = hash_key(record, h->be->key_size);
	pthread_mutex_t *lock = stripe(h, hash);
	uint32_t crowded = 0;
	struct node *n;
	bool known;

	pthread_mutex_lock(lock);
	n = chain_find(h, hash, record);
	known = n != NULL;
	if (known) {
		n->nlookup++;
	} else {
		n = node_new(h, record, hash);
		if (n && __atomic_load_n(&h->nodes.used, __ATOMIC_RELAXED) > h->bucket_mask)
			crowded = h->bucket_mask + 1;
	}
	if (n)
		node_public(h, n, out);
	pthread_mutex_unlock(lock);

	if (!known && n) {
		if (crowded)
			buckets_grow(h, crowded);
		return 0;
	}
	if (h->be->forget)
		h->be->forget(h->priv, &(struct fe_node){ .record = record });
	return n ? 0 : -ENOMEM;
}

int node_get(struct fe_host *h, uint64_t nodeid, struct fe_node *out)
{
	struct node *n = (struct node *)table_find(&h->nodes, nodeid);
	pthread_mutex_t *lock;
	bool live;

	if (!n)
		return -ESTALE;
	lock = stripe(h, __atomic_load_n(&n->hash, __ATOMIC_RELAXED));
	pthread_mutex_lock(lock);
	live = (struct node *)table_find(&h->nodes, nodeid) == n && (n->nlookup || n->refs) &&
	       stripe(h, n->hash) == lock;
	if (live)
		n->refs++;
	pthread_mutex_unlock(lock);
	if (!live)
		return -ESTALE;
	node_public(h, n, out);
	return 0;
}

/* Ends a node that nobody holds. Called with its stripe locked, which it unlocks. */
static void node_unlock(struct fe_host *h, struct node *n, pthread_mutex_t *lock)
{
	unsigned char record[RECORD_MAX] __attribute__((aligned(8)));
	uint64_t nodeid;

	if (n->nlookup || n->refs) {
		pthread_mutex_unlock(lock);
		return;
	}
	nodeid = table_id(&h->nodes, &n->table);
	memcpy(record, n->record, h->be->node_size);
	chain_remove(h, n);
	table_free(&h->nodes, &n->table);
	pthread_mutex_unlock(lock);
	if (h->be->forget)
		h->be->forget(h->priv, &(struct fe_node){ .nodeid = nodeid, .record = record });
}

void node_put(struct fe_host *h, const struct fe_node *node)
{
	struct node *n = node_of(node);
	pthread_mutex_t *lock = stripe(h, n->hash);

	pthread_mutex_lock(lock);
	n->refs--;
	node_unlock(h, n, lock);
}

void node_forget(struct fe_host *h, uint64_t nodeid, uint64_t nlookup)
{
	struct fe_node node;
	struct node *n;
	pthread_mutex_t *lock;

	if (nodeid == ROOT_ID || node_get(h, nodeid, &node))
		return;
	n = node_of(&node);
	lock = stripe(h, n->hash);
	pthread_mutex_lock(lock);
	n->nlookup -= nlookup < n->nlookup ? nlookup : n->nlookup;
	n->refs--;
	node_unlock(h, n, lock);
}

uint64_t node_of_key(void *host, const void *key)
{
	struct fe_host *h = host;
	uint32_t hash = hash_key(key, h->be->key_size);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(stripe(h, hash));
	struct node *n = chain_find(h, hash, key);

	return n && n->nlookup ? table_id(&h->nodes, &n->table) : 0;
}

int node_with_key(void *host, const void *key, int (*fn)(void *arg, struct fe_node *node), void *arg)
{
	struct fe_host *h = host;
	uint32_t hash = hash_key(key, h->be->key_size);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(stripe(h, hash));
	struct node *n = chain_find(h, hash, key);
	struct fe_node pub;

	if (!n)
		return -ENOENT;
	node_public(h, n, &pub);
	return fn(arg, &pub);
}
