/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names: looked up, made, linked, and what a link says. */
#include <errno.h>
#include <string.h>

#include "backends/remote/dirs.h"

static int lookup(struct op *op, struct fe_node *parent, const char *name, struct fe_entry *out)
{
	struct fid *dir, *f;
	struct p9_attr a;
	int err = view_lookup(op, parent, name, &a);

	if (err)
		return err < 0 ? err : entry_of(op, &r_node(parent)->key, name, &a, NULL, out);
	err = node_fid(op, parent, &dir);
	if (err)
		return err;
	err = hidden_name(name, strlen(name)) ? -ENOENT : name_fid(op, dir, name, &f, NULL);
	/* That there is no such name is no reason to doubt the directory's fid. */
	if (err == -ENOENT)
		op->cached = false;
	fid_put_any(op, dir);
	if (err)
		return err;
	err = call_getattr(op, f->number, &a);
	/* A server that calls one file two names is not to be believed in either. */
	if (!err && a.qid.path != f->key.path)
		err = -EIO;
	if (!err)
		err = entry_of(op, &r_node(parent)->key, name, &a, f, out);
	fid_put_any(op, f);
	return err;
}

int remote_lookup(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		  struct fe_entry *out)
{
	_cleanup_op_ struct op op;

	op_begin(&op, b, req);
	while (op_next(&op))
		op.result = lookup(&op, parent, name, out);
	return (int)op.result;
}

/* ---- mknod, mkdir, symlink ---- */

struct making {
	struct fe_node *parent;
	const char *name;
	const char *target;	/* of a symbolic link */
	uint32_t mode, rdev;
};

/* mknod(2) of a plain file: not every server makes those by Tmknod. */
static int make_file(struct op *op, const struct creation *c)
{
	struct fid *f;
	int err = file_make(op, c, 0, &f);

	if (!err)
		fid_put(op, f);
	return err;
}

static int make_there(struct op *op, const struct making *m, const struct creation *c)
{
	uint32_t rdev = m->rdev, dir = c->dir->number;

	if ((m->mode & S_IFMT) == S_IFREG)
		return make_file(op, c);
	creation_sends(op);
	switch (m->mode & S_IFMT) {
	case S_IFDIR:
		return call_mkdir(op, dir, m->name, c->mode & 07777, c->gid);
	case S_IFLNK:
		return call_symlink(op, dir, m->name, m->target, c->gid);
	default:
		/* the kernel's encoding: 12 bits of major between the halves of the minor number */
		return call_mknod(op, dir, m->name, c->mode, (rdev & 0xfff00) >> 8,
				  (rdev & 0xff) | ((rdev >> 12) & 0xfff00), c->gid);
	}
}

static int make(struct op *op, const struct making *m, struct fe_entry *out)
{
	struct creation c;
	struct fid *f = NULL;
	int err = creation_begin(op, m->parent, m->name, m->mode, &c);

	if (err)
		return err;
	c.target = m->target;
	err = make_there(op, m, &c);
	if (err == -EEXIST)
		err = creation_made(op, &c);
	if (!err)
		err = name_fid(op, c.dir, m->name, &f, NULL);
	if (!err)
		err = creation_end(op, &c, f, out);
	if (!err)
		fid_cache(op, f, &r_entry(out)->key);
	fid_put_any(op, f);
	fid_put_any(op, c.dir);
	return err;
}

static int make_one(void *b, const struct fe_request *req, const struct making *m, struct fe_entry *out)
{
	_cleanup_op_ struct op op;

	op_begin_change(&op, b, req);
	while (op_next(&op))
		op.result = make(&op, m, out);
	return (int)op.result;
}

int remote_mknod(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
		 uint32_t rdev, struct fe_entry *out)
{
	struct making m = { .parent = parent, .name = name, .mode = mode & S_IFMT ? mode : mode | S_IFREG, .rdev = rdev };

	return make_one(b, req, &m, out);
}

int remote_mkdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
		 struct fe_entry *out)
{
	struct making m = { .parent = parent, .name = name, .mode = S_IFDIR | (mode & 07777) };

	return make_one(b, req, &m, out);
}

int remote_symlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		   const char *target, struct fe_entry *out)
{
	struct making m = { .parent = parent, .name = name, .mode = S_IFLNK | 0777, .target = target };

	return make_one(b, req, &m, out);
}

/* ---- links ---- */

static int link_to(struct op *op, struct fe_node *node, struct fe_node *parent, const char *name,
		   struct fe_entry *out)
{
	struct fid *file, *dir = NULL, *there;
	struct p9_attr a;
	struct r_key key;
	int err = hidden_name(name, strlen(name)) ? -EPERM : node_fid(op, node, &file);

	if (err)
		return err;
	err = node_fid(op, parent, &dir);
	if (!err)
		err = call_link(op, dir->number, file->number, name);
	if (err == -EEXIST && op->again) {
		err = name_fid(op, dir, name, &there, &key);
		fid_put_any(op, there);
		if (!err && !key_equal(&key, &r_node(node)->key))
			err = -EEXIST;
	}
	if (!err)
		err = call_getattr(op, file->number, &a);
	if (!err)
		err = entry_of(op, &r_node(parent)->key, name, &a, NULL, out);
	fid_put_any(op, dir);
	fid_put_any(op, file);
	return err;
}

int remote_link(void *b, const struct fe_request *req, struct fe_node *node, struct fe_node *parent,
		const char *name, struct fe_entry *out)
{
	_cleanup_op_ struct op op;

	op_begin_change(&op, b, req);
	while (op_next(&op))
		op.result = link_to(&op, node, parent, name, out);
	return (int)op.result;
}

/* ---- readlink ---- */

static int64_t read_link(struct op *op, struct fe_node *node, char *buf, size_t size)
{
	struct fid *f;
	int64_t n = node_fid(op, node, &f);

	if (n)
		return n;
	n = link_text(op, f->number, buf, size);
	fid_put_any(op, f);
	return n;
}

ssize_t remote_readlink(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size)
{
	_cleanup_op_ struct op op;

	op_begin(&op, b, req);
	while (op_next(&op))
		op.result = read_link(&op, node, buf, size);
	return op.result;
}
