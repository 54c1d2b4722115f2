/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whole listings with all attributes, which names are looked up in and directories are read from, for a moment and
 * until anything is changed through this mount. Who looks up one name of a directory after another soon asks for
 * the next; and who reads one directory and then one below it, for those beside that: they are fetched together,
 * in as many round trips as one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backends/remote/dirs.h"

#define VIEW_BYTES	(32u << 10)	/* of a directory that is not too large */
#define PROBE		512u		/* room to see that nothing follows */
#define BATCH		64u		/* directories at once */

/* A directory that is being listed. */
struct look {
	struct listing *l;
	struct fid *open;
	struct rpc *rpc;
	size_t data;
	int err;
};

void views_init(struct remote *r)
{
	memset(&r->views, 0, sizeof(r->views));
	pthread_mutex_init(&r->views.lock, NULL);
}

void views_fini(struct remote *r)
{
	for (unsigned i = 0; i < VIEWS; i++)
		if (r->views.of[i])
			listing_free(r->views.of[i]);
}

static uint64_t good_for(const struct remote *r)
{
	uint64_t ns = r->entry_valid < r->attr_valid ? r->entry_valid : r->attr_valid;

	return ns < AHEAD_NS ? ns : AHEAD_NS;
}

bool view_good(const struct remote *r, const struct listing *l)
{
	return l->whole && l->changes == atomic_load(&r->changes) && clock_ns() - l->fetched < good_for(r);
}

/* With the views locked. */
static struct listing **find(struct op *op, const struct r_key *dir)
{
	struct views *v = &op->r->views;

	for (unsigned i = 0; i < VIEWS; i++)
		if (v->of[i] && v->of[i]->uid == op->uid && key_equal(&v->of[i]->dir, dir) && view_good(op->r, v->of[i]))
			return &v->of[i];
	return NULL;
}

/* With the views locked. Returns the one that goes. */
static struct listing *add(struct views *v, struct listing *l)
{
	struct listing **at = &v->of[v->next++ % VIEWS], *gone = *at;

	*at = l;
	return gone;
}

/* ---- fetching ---- */

static void result_of(struct look *k, int err)
{
	if (k->rpc)
		rpc_end(k->rpc);
	k->rpc = NULL;
	k->err = err;
}

static void look_walk(struct op *op, struct look *k)
{
	struct fid *dir = fid_find(op, &k->l->dir);

	k->err = dir ? fid_new(op, &k->open) : -ESTALE;
	if (!k->err)
		k->rpc = call_new(op, P9_TWALK, dir->number);
	if (k->rpc) {
		p9_put32(&k->rpc->out, k->open->number);
		p9_put16(&k->rpc->out, 0);
		rpc_send(k->rpc, op->epoch);
	}
	if (dir)
		fid_put(op, dir);
}

static void look_open(struct op *op, struct look *k)
{
	if (k->err)
		return;
	result_of(k, k->rpc ? rpc_wait(k->rpc) : -ENOMEM);
	if (k->err) {
		fid_failed(op, k->open, k->err);
		k->open = NULL;
		return;
	}
	k->rpc = call_new(op, P9_TLOPEN, k->open->number);
	if (k->rpc) {
		p9_put32(&k->rpc->out, P9_O_DIRECTORY);
		rpc_send(k->rpc, op->epoch);
	}
}

/* Into what is left of the listing's memory. */
static void read_on(struct op *op, struct look *k, uint64_t off, size_t room)
{
	k->rpc = read_send(op, P9_TREADDIR, k->open->number, off, k->l->bytes + k->data, room);
}

static void look_read(struct op *op, struct look *k)
{
	if (k->err)
		return;
	result_of(k, k->rpc ? rpc_wait(k->rpc) : -ENOMEM);
	k->l->bytes = k->err ? NULL : malloc(VIEW_BYTES);
	k->l->room = k->l->bytes ? VIEW_BYTES : 0;
	if (k->l->bytes)
		read_on(op, k, 0, VIEW_BYTES);
}

static void look_parse(struct op *op, struct look *k)
{
	if (k->err)
		return;
	k->err = k->rpc ? rpc_wait(k->rpc) : -ENOMEM;
	if (!k->err) {
		k->data = k->rpc->data;
		k->err = listing_parse(k->l, k->data, 0);
	}
	result_of(k, k->err);
	if (!k->err && k->data > VIEW_BYTES - PROBE)
		k->err = -E2BIG;
	if (!k->err && k->l->n)
		read_on(op, k, k->l->items[k->l->n - 1].d.offset, PROBE);
	else
		k->l->whole = !k->err;
}

static bool serious(int err)
{
	return err == LOST || err == -EINTR || err == -ETIMEDOUT;
}

/* The attributes of all names of all of them. */
static int look_attrs(struct op *op, struct look *looks, unsigned n, uint64_t now, uint64_t changes)
{
	struct ahead ahead[FETCH];
	unsigned under_way = 0;
	int err = 0;

	for (struct look *k = looks; k < looks + n && !err; k++) {
		for (uint32_t i = 0; !k->err && i < k->l->n && !err; i++) {
			struct item *item = &k->l->items[i];

			if (is_dots(&item->d) || hidden_name(item->d.name, item->d.len))
				continue;
			item->fetched = now;
			item->changes = changes;
			names_begin(op, k->open->number, item, &ahead[under_way++]);
			if (under_way < FETCH)
				continue;
			err = names_end(op, ahead, under_way);
			under_way = 0;
		}
	}
	if (under_way) {
		int e = names_end(op, ahead, under_way);

		err = err ? err : e;
	}
	return err;
}

static void look_end(struct op *op, struct look *k)
{
	if (!k->err && k->rpc) {
		k->err = rpc_wait(k->rpc);
		k->l->whole = !k->err && !k->rpc->data;
	}
	result_of(k, k->err);
	if (k->open)
		fid_put(op, k->open);
}

static int fetch(struct op *op, struct look *looks, unsigned n)
{
	uint64_t now = clock_ns(), changes = atomic_load(&op->r->changes);
	int err;

	for (unsigned i = 0; i < n; i++)
		look_walk(op, &looks[i]);
	for (unsigned i = 0; i < n; i++)
		look_open(op, &looks[i]);
	for (unsigned i = 0; i < n; i++)
		look_read(op, &looks[i]);
	for (unsigned i = 0; i < n; i++)
		look_parse(op, &looks[i]);
	err = look_attrs(op, looks, n, now, changes);
	for (unsigned i = 0; i < n; i++) {
		look_end(op, &looks[i]);
		looks[i].l->fetched = now;
		looks[i].l->changes = changes;
		if (serious(looks[i].err))
			err = looks[i].err;
	}
	return err;
}

static void look_at(struct op *op, const struct r_key *dir, struct look *looks, unsigned *n)
{
	struct listing *l = calloc(1, sizeof(*l));

	if (!l)
		return;
	l->dir = *dir;
	l->uid = op->uid;
	looks[(*n)++] = (struct look){ .l = l };
}

/* Directories beside one, of which nothing is known yet. With the views locked. */
static void beside(struct op *op, const struct r_key *dir, const struct listing *above, struct look *looks, unsigned *n)
{
	bool behind = false;

	for (uint32_t i = 0; i < above->n && *n < BATCH; i++) {
		const struct item *item = &above->items[i];
		struct r_key key = { .path = item->d.qid.path, .type = S_IFDIR >> 12 };

		if (!item->fetched || item->error || !S_ISDIR(item->attr.mode))
			continue;
		/* In the order of the listing, which is that in which most go on. */
		if (key.path == dir->path)
			behind = true;
		else if (behind && !find(op, &key))
			look_at(op, &key, looks, n);
	}
}

static struct r_key parent_of(struct remote *r, const struct r_node *n)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->names_lock);

	return n->parent;
}

/* Where the directory above was listed just now, by somebody who may still have it open. */
static void all_beside(struct op *op, const struct r_node *dir, struct look *looks, unsigned *n)
{
	struct remote *r = op->r;
	const struct r_key parent = parent_of(r, dir);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->views.lock), *also = fe_lock(&r->listings_lock);
	struct listing **above = find(op, &parent);

	if (above) {
		beside(op, &dir->key, *above, looks, n);
		return;
	}
	for (struct listing *l = r->listings; l; l = l->next) {
		if (!l->busy && l->uid == op->uid && key_equal(&l->dir, &parent) && view_good(r, l)) {
			beside(op, &dir->key, l, looks, n);
			return;
		}
	}
}

/* Lists a directory, and those beside it. */
static int views_fetch(struct op *op, struct fe_node *node, bool more)
{
	struct views *v = &op->r->views;
	struct look looks[BATCH];
	struct r_node *dir = r_node(node);
	struct fid *f;
	unsigned n = 0;
	int err;

	err = node_fid(op, node, &f);
	if (err)
		return serious(err) ? err : 0;
	look_at(op, &dir->key, looks, &n);
	if (more && n)
		all_beside(op, dir, looks, &n);
	err = fetch(op, looks, n);
	fid_put(op, f);
	for (unsigned i = 0; i < n; i++) {
		struct listing *l = looks[i].l;

		if (l->whole && !looks[i].err && !err) {
			pthread_mutex_lock(&v->lock);
			l = add(v, l);
			pthread_mutex_unlock(&v->lock);
		}
		if (l)
			listing_free(l);
	}
	return err;
}

/* ---- use ---- */

/* With the views locked: whether somebody goes through a directory by its names. */
static bool goes_on(struct op *op, const struct r_key *dir)
{
	struct views *v = &op->r->views;
	uint64_t now = clock_ns(), changes = atomic_load(&op->r->changes);
	bool again = key_equal(&v->last, dir) && v->last_changes == changes && now - v->last_at < good_for(op->r);

	v->last = *dir;
	v->last_at = now;
	v->last_changes = changes;
	return again;
}

static int view_find(struct op *op, const struct r_key *dir, const char *name, struct p9_attr *out)
{
	struct listing **l = find(op, dir);
	size_t len = strlen(name);

	for (uint32_t i = 0; l && i < (*l)->n; i++) {
		const struct item *item = &(*l)->items[i];

		if (item->d.len != len || memcmp(item->d.name, name, len))
			continue;
		if (!item->fetched || item->error)
			return 0;
		*out = item->attr;
		return 1;
	}
	return l ? -ENOENT : 0;
}

int view_lookup(struct op *op, struct fe_node *parent, const char *name, struct p9_attr *out)
{
	const struct r_key *dir = &r_node(parent)->key;
	struct views *v = &op->r->views;
	bool wanted;
	int err;

	/* A name that is too long is refused by the server, and what was lost once is asked for in small. */
	if (!good_for(op->r) || op->again || op->fresh || strlen(name) > P9_NAME_MAX || hidden_name(name, strlen(name)))
		return 0;
	pthread_mutex_lock(&v->lock);
	err = view_find(op, dir, name, out);
	wanted = !err && goes_on(op, dir) && !v->fetching;
	v->fetching |= wanted;
	pthread_mutex_unlock(&v->lock);
	if (!wanted)
		return err;
	err = views_fetch(op, parent, false);
	pthread_mutex_lock(&v->lock);
	v->fetching = false;
	if (!err)
		err = view_find(op, dir, name, out);
	pthread_mutex_unlock(&v->lock);
	return err;
}

/* What links a listing with others stays. */
static void adopt(struct listing *l, struct listing *from)
{
	free(l->items);
	free(l->bytes);
	l->items = from->items;
	l->bytes = from->bytes;
	l->room = from->room;
	l->n = from->n;
	l->whole = from->whole;
	l->dir = from->dir;
	l->uid = from->uid;
	l->fetched = from->fetched;
	l->changes = from->changes;
	free(from);
}

int view_take(struct op *op, struct fe_node *dir, struct listing *l)
{
	struct views *v = &op->r->views;

	if (!good_for(op->r))
		return 0;
	for (int tries = 0; tries < 2; tries++) {
		struct listing **at, *found = NULL;
		int err;

		pthread_mutex_lock(&v->lock);
		at = find(op, &r_node(dir)->key);
		if (at) {
			found = *at;
			*at = NULL;
		}
		pthread_mutex_unlock(&v->lock);
		if (found) {
			adopt(l, found);
			return 0;
		}
		err = tries ? 0 : views_fetch(op, dir, true);
		if (err)
			return err;
	}
	return 0;
}

void view_give(struct remote *r, struct listing *l)
{
	if (l && view_good(r, l)) {
		pthread_mutex_lock(&r->views.lock);
		l = add(&r->views, l);
		pthread_mutex_unlock(&r->views.lock);
	}
	if (l)
		listing_free(l);
}
