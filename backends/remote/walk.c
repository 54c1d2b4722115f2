/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a node to its fid: known, or walked to from the nearest directory above that is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/remote/remote.h"

#define MAX_DEPTH	4096u

struct step {
	struct r_key key;
	char name[P9_NAME_MAX + 1];
};

struct path {
	struct remote *remote;
	struct r_key parent;
	struct step *steps;	/* from the file upwards */
	unsigned n, room;
};

static int path_add(struct path *p, struct r_node *n)
{
	struct step *s;
	int err;

	if (p->n == p->room) {
		unsigned room = p->room ? p->room * 2 : 8;

		s = room <= MAX_DEPTH ? realloc(p->steps, room * sizeof(*s)) : NULL;
		if (!s)
			return room <= MAX_DEPTH ? -ENOMEM : -ELOOP;
		p->steps = s;
		p->room = room;
	}
	s = &p->steps[p->n];
	s->key = n->key;
	err = node_name(p->remote, n, &p->parent, s->name);
	if (!err)
		p->n++;
	return err;
}

static int path_up(void *arg, struct fe_node *node)
{
	return path_add(arg, r_node(node));
}

bool is_root(const struct remote *r, const struct r_key *key)
{
	return key->path == r->client.root.qid.path && !key->life && key->type == S_IFDIR >> 12;
}

struct walk {
	uint32_t from;
	const char *const *names;
	unsigned n;
	struct p9_qid last;
};

static int walk_to(struct op *op, uint32_t number, void *arg)
{
	struct walk *w = arg;

	return call_walk(op, w->from, number, w->names, w->n, &w->last);
}

int fid_clone(struct op *op, uint32_t number, struct fid **out)
{
	struct walk w = { .from = number };

	return fid_make(op, walk_to, &w, out);
}

static int attach_to(struct op *op, uint32_t number, void *arg)
{
	(void)arg;
	return call_attach(op, number);
}

/* The fid of somebody at the root. */
static int root_fid(struct op *op, const struct r_key *key, struct fid **out)
{
	int err;

	*out = fid_find(op, key);
	if (*out)
		return 0;
	err = op->uid == op->r->uid ? fid_clone(op, ROOT_FID, out) : fid_make(op, attach_to, NULL, out);
	if (!err)
		fid_cache(op, *out, key);
	return err;
}

/* Walks from `from`; up to as many names as go into one message. */
static int walk_some(struct op *op, struct fid *from, const struct step *steps, unsigned n, struct fid **out)
{
	const char *names[P9_MAXWELEM];
	struct walk w = { .from = from->number, .names = names, .n = n };
	struct fid *f;
	int err;

	for (unsigned i = 0; i < n; i++)
		names[i] = steps[n - 1 - i].name;
	err = fid_make(op, walk_to, &w, &f);
	if (err)
		return err;
	if (!qid_is(&w.last, &steps[0].key)) {
		fid_put(op, f);
		return -ESTALE;
	}
	fid_cache(op, f, &steps[0].key);
	*out = f;
	return 0;
}

static int walk_path(struct op *op, struct path *p, struct fid *from, struct fid **out)
{
	int err = 0;

	*out = NULL;
	while (!err && p->n) {
		unsigned n = p->n < P9_MAXWELEM ? p->n : P9_MAXWELEM;
		struct fid *next;

		err = walk_some(op, from, p->steps + p->n - n, n, &next);
		fid_put(op, from);
		from = err ? NULL : next;
		p->n -= n;
	}
	/* Somebody else moved what lies above. */
	if (err == -ENOENT)
		err = -ESTALE;
	*out = from;
	return err;
}

int node_fid(struct op *op, const struct fe_node *node, struct fid **out)
{
	struct remote *r = op->r;
	struct path p = { .remote = r };
	struct r_key key = r_node(node)->key;
	struct fid *from = NULL;
	int err;

	*out = op->fresh ? NULL : fid_find(op, &key);
	if (*out) {
		op->cached = true;
		return 0;
	}
	if (is_root(r, &key))
		return root_fid(op, &key, out);
	err = path_add(&p, r_node(node));
	while (!err) {
		if (op->fresh)
			fid_forget(op, &p.steps[p.n - 1].key);
		if (is_root(r, &p.parent)) {
			err = root_fid(op, &p.parent, &from);
			break;
		}
		from = op->fresh ? NULL : fid_find(op, &p.parent);
		if (from) {
			op->cached = true;
			break;
		}
		if (r->services->with_node(r->host, &p.parent, path_up, &p))
			err = -ESTALE;
	}
	if (!err)
		err = walk_path(op, &p, from, out);
	free(p.steps);
	return err;
}

static int copy_node(void *arg, struct fe_node *node)
{
	memcpy(arg, node->record, sizeof(struct r_node));
	return 0;
}

int key_fid(struct op *op, const struct r_key *key, struct fid **out)
{
	struct r_node copy = { .key = *key };
	struct fe_node node = { .record = (unsigned char *)&copy };

	if (!is_root(op->r, key) && op->r->services->with_node(op->r->host, key, copy_node, &copy))
		return -ESTALE;
	return node_fid(op, &node, out);
}

int name_fid(struct op *op, struct fid *dir, const char *name, struct fid **out, struct r_key *key)
{
	struct walk w = { .from = dir->number, .names = &name, .n = 1 };
	struct p9_attr a;
	struct fid *f;
	int err;

	*out = NULL;
	err = fid_make(op, walk_to, &w, &f);
	if (err)
		return err;
	f->key.path = w.last.path;
	if (key) {
		/* The qid tells a directory from the rest, and no more. */
		err = call_getattr(op, f->number, &a);
		if (!err && a.qid.path != w.last.path)
			err = -EIO;
		if (err) {
			fid_put(op, f);
			return err;
		}
		*key = key_of(op->r, &a.qid, a.mode);
	}
	*out = f;
	return 0;
}
