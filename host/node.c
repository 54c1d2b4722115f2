/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes: from a backend's key to a nodeid, and how often the kernel holds it. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "host/internal.h"
#include "libfuserecover/killpoint.h"

#define MAX_NODES	(1u << 28)
#define SWEEP		1024	/* at a time, to hold up nobody */

struct node *node_of(const struct fe_node *n)
{
	return (struct node *)(n->record - offsetof(struct node, record));
}

static void node_public(struct fe_host *h, struct node *n, struct fe_node *out)
{
	out->nodeid = fr_record_id(h->nodes, n);
	out->record = n->record;
	out->writers = n->writers;
	out->opens = n->nopen;
}

pthread_mutex_t *node_open_lock(struct fe_host *h, uint64_t nodeid)
{
	return &h->open_locks[(uint32_t)nodeid % STRIPES];
}

int nodes_init(struct fe_host *h)
{
	return fr_table_new(h->fr, "nodes", (uint32_t)offsetof(struct node, record) + h->be->node_size,
			    offsetof(struct node, record), h->be->key_size, MAX_NODES, &h->nodes);
}

/* Those of this process; a count that its predecessor left says nothing. With the key locked. */
static uint32_t *refs_of(struct fe_host *h, struct node *n)
{
	if (n->generation != fr_generation(h->fr)) {
		n->refs = 0;
		n->generation = fr_generation(h->fr);
	}
	return &n->refs;
}

/* Records of the hook are found by the place in the table. */
static uint32_t place_of(uint64_t nodeid)
{
	return (uint32_t)nodeid;
}

static int64_t granted(const struct fe_host *h, const struct node *n)
{
	uint64_t id;

	if (!h->hook)
		return 0;
	id = fr_record_id(h->nodes, n);
	return (int64_t)extfuse_granted(h->hook, place_of(id), id);
}

/* How often the kernel knows it. */
static int64_t known(const struct fe_host *h, const struct node *n)
{
	return __atomic_load_n(&n->nlookup, __ATOMIC_RELAXED) + granted(h, n);
}

static bool held(struct fe_host *h, struct node *n)
{
	return known(h, n) > 0 || n->handles || *refs_of(h, n);
}

/* Whether the node ends; from then on the hook grants it no more. Where that is taken back with the step,
 * it is asked again, and says the same. */
static bool over(struct fe_host *h, struct node *n)
{
	uint64_t id = fr_record_id(h->nodes, n);

	if (n->handles || *refs_of(h, n))
		return false;
	return h->hook ? extfuse_forget(h->hook, place_of(id), id, n->nlookup) == 1 : !n->nlookup;
}

/* What a record in a slot's note owns goes back to the backend. */
static void record_drop(struct fe_host *h, struct note_record *r)
{
	if (h->be->forget)
		h->be->forget(h->priv, &(struct fe_node){ .nodeid = r->id, .record = r->bytes });
	r->owned = 0;
}

void note_settle(struct fe_host *h, struct note *note)
{
	if (note->over.owned)
		record_drop(h, &note->over);
	if (note->entry.owned)
		record_drop(h, &note->entry);
}

/* Its record moves into the slot, so that a successor gives back what it owns if this process dies. */
void node_settle(struct fe_host *h, struct fr_slot *s, struct node *n)
{
	uint32_t hash = n->hash;
	struct note *note = fr_slot_note(s);
	bool ends = over(h, n);

	FR_STEP();
	if (ends) {
		memcpy(note->over.bytes, n->record, h->be->node_size);
		note->over.id = fr_record_id(h->nodes, n);
		fr_set(s, note->over.owned, 1);
		fr_index_remove(s, h->nodes, hash, n);
		fr_free_record(s, h->nodes, n);
	}
	fr_commit(s);
	fr_key_unlock(h->nodes, hash);
	if (ends)
		record_drop(h, &note->over);
}

static int forget_one(void *arg, uint64_t id, void *record)
{
	struct fe_host *h = arg;
	struct node *n = record;
	uint32_t hash = n->hash;
	bool was_held, waits;

	fr_key_lock(h->nodes, hash);
	was_held = known(h, n) > 0;
	n->nlookup = -granted(h, n);
	waits = *refs_of(h, n) || n->handles;
	fr_key_unlock(h->nodes, hash);
	/* A request that still waits drops it, when the backend is closed at the latest. */
	if (was_held && !waits)
		h->be->forget(h->priv, &(struct fe_node){ .nodeid = id, .record = n->record });
	return 0;
}

void nodes_forget(struct fe_host *h)
{
	if (h->be->forget)
		fr_table_each(h->nodes, forget_one, h);
}

static struct node *node_new(struct fe_host *h, struct fr_slot *s, const unsigned char *record, uint32_t hash)
{
	struct node *n = fr_alloc_record(s, h->nodes);
	uint64_t id;

	if (!n)
		return NULL;
	memcpy(n->record, record, h->be->node_size);
	n->hash = hash;
	n->nlookup = 1;
	fr_index_add(s, h->nodes, hash, n);
	id = fr_record_id(h->nodes, n);
	/* Where that fails its names are looked up by the server always. */
	if (h->hook)
		extfuse_node_new(h->hook, place_of(id), id);
	return n;
}

int node_add_root(struct fe_host *h, const unsigned char *record)
{
	uint32_t hash = fr_key_hash(h->nodes, record);
	struct fr_slot *s = step_slot(h);
	bool added;

	/* The first record of a new table: id 1, which is the nodeid of every root. */
	fr_key_lock(h->nodes, hash);
	fr_begin(s);
	added = node_new(h, s, record, hash) != NULL;
	fr_commit(s);
	fr_key_unlock(h->nodes, hash);
	step_slot_done(h);
	return added ? 0 : -ENOMEM;
}

int node_intern(struct call *c, struct fuse_entry_out *granted, struct fe_node *out)
{
	struct fe_host *h = c->host;
	struct fr_slot *s = c->worker->slot;
	struct note *note = fr_slot_note(s);
	uint32_t hash = fr_key_hash(h->nodes, note->entry.bytes);
	struct node *n;

	fr_key_lock(h->nodes, hash);
	fr_begin(s);
	n = fr_index_find(h->nodes, hash, note->entry.bytes);
	if (n) {
		fr_set(s, n->nlookup, n->nlookup + 1);
	} else {
		n = node_new(h, s, note->entry.bytes, hash);
		if (n)
			fr_set(s, note->entry.owned, 0);
	}
	if (n) {
		node_public(h, n, out);
		granted->nodeid = out->nodeid;
		fr_set(s, note->granted, (uint32_t)((unsigned char *)(granted + 1) - c->out));
	}
	fr_commit(s);
	fr_key_unlock(h->nodes, hash);
	if (note->entry.owned)
		record_drop(h, &note->entry);
	return n ? 0 : -ENOMEM;
}

int node_get(struct fe_host *h, uint64_t nodeid, struct fe_node *out)
{
	struct node *n = fr_record(h->nodes, nodeid);
	uint32_t hash;
	bool live;

	if (!n)
		return -ESTALE;
	hash = __atomic_load_n(&n->hash, __ATOMIC_RELAXED);
	fr_key_lock(h->nodes, hash);
	live = fr_record(h->nodes, nodeid) == n && n->hash == hash && held(h, n);
	if (live) {
		++*refs_of(h, n);
		node_public(h, n, out);
	}
	fr_key_unlock(h->nodes, hash);
	return live ? 0 : -ESTALE;
}

void node_put(struct fe_host *h, const struct fe_node *node)
{
	struct node *n = node_of(node);
	uint32_t hash = n->hash;
	struct fr_slot *s = step_slot(h);

	fr_key_lock(h->nodes, hash);
	--*refs_of(h, n);
	if (held(h, n)) {
		fr_key_unlock(h->nodes, hash);
	} else {
		fr_begin(s);
		node_settle(h, s, n);
	}
	step_slot_done(h);
}

void node_forget(struct fr_slot *s, struct fe_host *h, uint64_t nodeid, uint64_t nlookup, uint64_t *mark,
		 uint64_t value)
{
	struct fe_request req = { .supp_group = FE_NO_GROUP };
	struct fe_node node;
	struct node *n;
	int64_t had;
	bool gone;

	if (nodeid == ROOT_ID || node_get(h, nodeid, &node)) {
		*mark = value;
		return;
	}
	n = node_of(&node);
	fr_key_lock(h->nodes, n->hash);
	fr_begin(s);
	fr_set(s, *mark, value);
	had = known(h, n);
	had = had > 0 ? had : 0;
	fr_set(s, n->nlookup, n->nlookup - (nlookup < (uint64_t)had ? (int64_t)nlookup : had));
	gone = known(h, n) <= 0;
	--*refs_of(h, n);
	node_settle(h, s, n);
	/* That would hold it for ever. */
	if (gone)
		standing_end(h, &req, nodeid);
}

static int sweep_one(void *arg, uint64_t id, void *record)
{
	struct fe_host *h = arg;
	struct node *n = record;
	uint32_t hash = __atomic_load_n(&n->hash, __ATOMIC_RELAXED);
	struct fr_slot *s;

	(void)id;
	if (known(h, n) > 0 || __atomic_load_n(&n->handles, __ATOMIC_RELAXED))
		return 0;
	s = step_slot(h);
	fr_key_lock(h->nodes, hash);
	/* A record that is not in the index is being made, or gone. */
	if (fr_index_find(h->nodes, hash, n->record) == n && !held(h, n)) {
		fr_begin(s);
		node_settle(h, s, n);
	} else {
		fr_key_unlock(h->nodes, hash);
	}
	step_slot_done(h);
	return 0;
}

/*
 * A thread may still hold a node for a moment when the kernel, which has its answer, forgets that. If it
 * dies then, nobody ends the node.
 */
void nodes_sweep(struct fe_host *h)
{
	fr_table_walk(h->nodes, &h->sweep_at, SWEEP, sweep_one, h);
	if (!h->sweep_at)
		h->sweep_due = 0;
}

uint64_t node_of_key(void *host, const void *key)
{
	struct fe_host *h = host;
	uint32_t hash = fr_key_hash(h->nodes, key);
	struct node *n;
	uint64_t id;

	fr_key_lock(h->nodes, hash);
	n = fr_index_find(h->nodes, hash, key);
	id = n && known(h, n) > 0 ? fr_record_id(h->nodes, n) : 0;
	fr_key_unlock(h->nodes, hash);
	return id;
}

int node_with_key(void *host, const void *key, int (*fn)(void *arg, struct fe_node *node), void *arg)
{
	struct fe_host *h = host;
	uint32_t hash = fr_key_hash(h->nodes, key);
	struct fe_node pub;
	struct node *n;
	int result = -ENOENT;

	fr_key_lock(h->nodes, hash);
	n = fr_index_find(h->nodes, hash, key);
	if (n) {
		node_public(h, n, &pub);
		result = fn(arg, &pub);
	}
	fr_key_unlock(h->nodes, hash);
	return result;
}
