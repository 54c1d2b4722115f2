/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Directory listings. The kernel takes a few entries at a time; the server is asked for as many as go into
 * one message, and for the attributes of many names at once. What was fetched ahead is forgotten when
 * anything is changed through this mount, or after a moment.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/remote/dirs.h"

#define LISTING_MAX	(64u << 10)
#define FETCH_LOST	16u
#define PLUS_ENTRY	160u		/* bytes of the kernel's reply for one name with attributes */

static struct listing *listing_get(struct remote *r, uint64_t fh)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->listings_lock);
	struct listing *l = r->listings;

	while (l && l->fh != fh)
		l = l->next;
	if (l && l->busy)
		return NULL; /* two threads read one directory: the second one for itself */
	if (!l) {
		l = calloc(1, sizeof(*l));
		if (!l)
			return NULL;
		l->fh = fh;
		l->next = r->listings;
		r->listings = l;
	}
	l->busy = true;
	return l;
}

void listing_free(struct listing *l)
{
	free(l->items);
	free(l->bytes);
	free(l);
}

static void listing_put(struct remote *r, struct listing *l, bool own)
{
	if (own) {
		listing_free(l);
		return;
	}
	pthread_mutex_lock(&r->listings_lock);
	l->busy = false;
	pthread_mutex_unlock(&r->listings_lock);
}

void remote_releasedir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle)
{
	struct remote *r = b;
	struct listing **at, *gone = NULL;

	pthread_mutex_lock(&r->listings_lock);
	for (at = &r->listings; *at; at = &(*at)->next) {
		if ((*at)->fh == handle->fh) {
			gone = *at;
			*at = gone->next;
			break;
		}
	}
	pthread_mutex_unlock(&r->listings_lock);
	view_give(r, gone);
	remote_release(b, req, node, handle, NULL);
}

int listing_parse(struct listing *l, size_t size, uint64_t off)
{
	struct p9_in in = { .at = l->bytes, .left = size };
	uint32_t room = 0;
	uint64_t from = off;
	struct p9_dirent d;
	int more;

	l->n = 0;
	while ((more = p9_read_dirent(&in, &d)) > 0) {
		if (l->n == room) {
			struct item *items;

			room = room ? room * 2 : 64;
			items = realloc(l->items, room * sizeof(*items));
			if (!items)
				return -ENOMEM;
			l->items = items;
		}
		/* A directory that leads back would never end. */
		if (d.offset == from)
			return -EIO;
		l->items[l->n++] = (struct item){ .d = d, .from = from };
		from = d.offset;
	}
	return more;
}

static int listing_fetch(struct op *op, uint32_t fid, struct listing *l, uint64_t off)
{
	_cleanup_rpc_ struct rpc *r = NULL;
	size_t most = op->r->client.msize - P9_IOHDRSZ;
	int err;

	l->n = 0;
	l->whole = false;
	if (l->room < LISTING_MAX) {
		free(l->bytes);
		l->bytes = malloc(LISTING_MAX);
		l->room = l->bytes ? LISTING_MAX : 0;
	}
	if (!l->bytes)
		return -ENOMEM;
	if (most > LISTING_MAX)
		most = LISTING_MAX;
	r = read_send(op, P9_TREADDIR, fid, off, l->bytes, most);
	err = r ? rpc_wait(r) : -ENOMEM;
	return err ? err : listing_parse(l, r->data, off);
}

bool is_dots(const struct p9_dirent *d)
{
	return d->name[0] == '.' && (d->len == 1 || (d->len == 2 && d->name[1] == '.'));
}

static bool is_good(const struct remote *r, const struct item *i)
{
	return i->fetched && i->changes == atomic_load(&r->changes) && clock_ns() - i->fetched < AHEAD_NS;
}

void names_begin(struct op *op, uint32_t dir, struct item *item, struct ahead *a)
{
	char name[P9_NAME_MAX + 1];

	*a = (struct ahead){ .item = item };
	memcpy(name, item->d.name, item->d.len);
	name[item->d.len] = 0;
	if (fid_new(op, &a->fid))
		return;
	a->rpc = call_new(op, P9_TWALK, dir);
	if (!a->rpc)
		return;
	p9_put32(&a->rpc->out, a->fid->number);
	p9_put16(&a->rpc->out, 1);
	p9_putstr(&a->rpc->out, name);
	rpc_send(a->rpc, op->epoch);
}

/* The walk's result; asks for the attributes. */
static void ahead_getattr(struct op *op, struct ahead *a)
{
	int err = a->rpc ? rpc_wait(a->rpc) : -ENOMEM;

	if (!err && (p9_get16(&a->rpc->in) != 1 || a->rpc->in.left != 13))
		err = -EIO;
	if (!err)
		a->fid->key.path = p9_getqid(&a->rpc->in).path;
	if (a->rpc)
		rpc_end(a->rpc);
	a->rpc = NULL;
	a->item->error = err;
	if (!err) {
		a->rpc = getattr_send(op, a->fid->number);
	} else if (a->fid) {
		fid_failed(op, a->fid, err);
		a->fid = NULL;
	}
}

static void ahead_attr(struct op *op, struct ahead *a)
{
	if (!a->item->error)
		a->item->error = getattr_wait(a->rpc, &a->item->attr);
	if (!a->item->error && a->item->attr.qid.path != a->fid->key.path)
		a->item->error = -EIO;
	if (a->rpc)
		rpc_end(a->rpc);
	if (a->fid && !a->item->error) {
		struct r_key key = key_of(op->r, &a->item->attr.qid, a->item->attr.mode);

		fid_cache(op, a->fid, &key);
	}
	if (a->fid)
		fid_put(op, a->fid);
}

int names_end(struct op *op, struct ahead *ahead, unsigned n)
{
	int err = 0;

	for (unsigned i = 0; i < n; i++)
		ahead_getattr(op, &ahead[i]);
	for (unsigned i = 0; i < n; i++) {
		ahead_attr(op, &ahead[i]);
		if (ahead[i].item->error == LOST || ahead[i].item->error == -EINTR || ahead[i].item->error == -ETIMEDOUT)
			err = ahead[i].item->error;
	}
	return err;
}

/* The attributes of this name and of some behind it. */
static int fetch_ahead(struct op *op, uint32_t dir, struct listing *l, uint32_t first, size_t most)
{
	struct ahead ahead[FETCH];
	uint64_t now = clock_ns(), changes = atomic_load(&op->r->changes);
	unsigned n = 0;

	for (uint32_t i = first; i < l->n && n < most && n < FETCH; i++) {
		struct item *item = &l->items[i];

		if (is_dots(&item->d) || hidden_name(item->d.name, item->d.len))
			continue;
		item->fetched = now;
		item->changes = changes;
		names_begin(op, dir, item, &ahead[n++]);
	}
	return names_end(op, ahead, n);
}

/* Fills the entry that the kernel gets with the name; false: without attributes, it looks for itself. */
static bool plus_entry(struct op *op, const struct r_key *dir, const struct item *item, struct fe_entry *e,
		       unsigned char *record)
{
	char name[P9_NAME_MAX + 1];

	memcpy(name, item->d.name, item->d.len);
	name[item->d.len] = 0;
	memset(e, 0, sizeof(*e));
	e->record = record;
	e->entry_valid = op->r->entry_valid;
	e->attr_valid = op->r->attr_valid;
	return !item->error && !entry_listed(op, dir, name, &item->attr, e);
}

struct reading {
	struct op *op;
	struct r_node *dir;
	struct listing *l;
	struct fe_dirfill *fill;
	struct fe_node *node;
	struct fe_handle *handle;
	uint32_t fid;
	bool ahead;		/* attributes of many at once */
};

/* Only who asks the server needs it. */
static int dir_fid(struct reading *rd)
{
	return file_fid(rd->op, rd->node, rd->handle, &rd->fid);
}

/* Returns 1 where it did not fit. */
static int add_item(struct reading *rd, uint32_t at)
{
	unsigned char record[sizeof(struct r_node)] __attribute__((aligned(8)));
	struct item *item = &rd->l->items[at];
	const struct p9_dirent *d = &item->d;
	bool plus = rd->fill->want_entry && !is_dots(d);
	struct fe_entry e;
	uint64_t ino = d->qid.path;
	int err;

	if (hidden_name(d->name, d->len))
		return 0;
	if (plus && rd->fill->room < PLUS_ENTRY + d->len)
		return 1;
	if (plus && !is_good(rd->op->r, item)) {
		size_t most = rd->ahead ? FETCH : rd->fill->room / PLUS_ENTRY + 1;

		/* What is asked for at once is to be less than what a bad connection lives for. */
		if (rd->op->losses)
			most = FETCH_LOST;
		err = dir_fid(rd);
		if (!err)
			err = fetch_ahead(rd->op, rd->fid, rd->l, at, most);
		if (err)
			return err;
		/* Somebody writes here: what is fetched ahead would be thrown away again and again. */
		rd->ahead = rd->ahead && is_good(rd->op->r, item);
	}
	if (plus)
		plus = plus_entry(rd->op, &rd->dir->key, item, &e, record);
	/* Without an entry the host would look each name up by itself, one after the other. */
	return rd->fill->add(rd->fill, d->name, d->len, ino, d->type <= DT_WHT ? d->type : DT_UNKNOWN, d->offset,
			     plus ? &e : NULL);
}

static uint32_t find_cookie(const struct listing *l, uint64_t off)
{
	for (uint32_t i = 0; i < l->n; i++)
		if (l->items[i].from == off)
			return i;
	return l->n;
}

/* Where the listing begins, it is read anew, as it is by rewinddir(3), but for what was seen a moment ago. */
static int begin_dir(struct reading *rd, struct fe_node *node)
{
	if (view_good(rd->op->r, rd->l))
		return 0;
	rd->l->n = 0;
	rd->l->whole = false;
	return rd->fill->want_entry && !rd->op->losses ? view_take(rd->op, node, rd->l) : 0;
}

static int read_dir(struct reading *rd, struct fe_node *node, struct fe_handle *handle, uint64_t off)
{
	size_t before = rd->fill->room;
	bool fetched = false;
	int err = 0, full = 0;
	uint32_t at;

	rd->op->uid = r_file(handle)->uid;
	rd->handle = handle;
	rd->node = node;
	if (!off)
		err = begin_dir(rd, node);
	at = find_cookie(rd->l, off);
	while (!err && !full) {
		if (at == rd->l->n && rd->l->whole)
			break;
		if (at == rd->l->n) {
			/* Names that are not shown fill no reply, and a server may never come to their end. */
			err = fetched && rd->fill->room == before ? waiter_gives_up(&rd->op->waiter) : 0;
			fetched = true;
			if (!err)
				err = dir_fid(rd);
			if (!err)
				err = listing_fetch(rd->op, rd->fid, rd->l, off);
			at = 0;
			if (err || !rd->l->n)
				break;
		}
		full = add_item(rd, at);
		if (full < 0)
			err = full;
		if (full)
			break;
		off = rd->l->items[at++].d.offset;
	}
	/* What is in the reply stands; the rest is asked for again. */
	return err && rd->fill->room == before ? err : 0;
}

int remote_readdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		   uint64_t off, struct fe_dirfill *fill)
{
	struct remote *r = b;
	struct listing *l = listing_get(r, handle->fh);
	bool own = !l;
	_cleanup_op_ struct op op;
	struct reading rd = { .op = &op, .dir = r_node(node), .l = l, .fill = fill, .ahead = true };

	op_begin(&op, r, req);
	if (own)
		rd.l = calloc(1, sizeof(*l));
	if (!rd.l)
		return -ENOMEM;
	while (op_next(&op))
		op.result = read_dir(&rd, node, handle, off);
	listing_put(r, rd.l, own);
	return (int)op.result;
}
