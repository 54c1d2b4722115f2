/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names: looked up, made, linked, renamed, removed. */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "backends/remote/dirs.h"

static void put(struct op *op, struct fid *f)
{
	if (f)
		fid_put(op, f);
}

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
	put(op, dir);
	if (err)
		return err;
	err = call_getattr(op, f->number, &a);
	/* A server that calls one file two names is not to be believed in either. */
	if (!err && a.qid.path != f->key.path)
		err = -EIO;
	if (!err)
		err = entry_of(op, &r_node(parent)->key, name, &a, f, out);
	put(op, f);
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
	put(op, f);
	put(op, c.dir);
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
		put(op, there);
		if (!err && !key_equal(&key, &r_node(node)->key))
			err = -EEXIST;
	}
	if (!err)
		err = call_getattr(op, file->number, &a);
	if (!err)
		err = entry_of(op, &r_node(parent)->key, name, &a, NULL, out);
	put(op, dir);
	put(op, file);
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

/* ---- names that go ---- */

static bool unknown_message(int err)
{
	return err == -EOPNOTSUPP || err == -EBADMSG || err == -EINVAL;
}

int remove_name(struct op *op, struct fid *dir, const char *name, bool directory)
{
	struct fid *f;
	int err;

	if (!(atomic_load(&op->r->lacks) & LACKS_UNLINKAT)) {
		err = call_unlinkat(op, dir->number, name, directory ? P9_UNLINKAT_DIR : 0);
		if (!unknown_message(err))
			return err;
	}
	err = name_fid(op, dir, name, &f, NULL);
	if (err)
		return err;
	err = call_plain(op, P9_TREMOVE, f->number);
	fid_drop(op, f, err); /* it is clunked in any case */
	if (!err)
		atomic_fetch_or(&op->r->lacks, LACKS_UNLINKAT);
	return err;
}

int rename_name(struct op *op, struct fid *dir, const char *name, struct fid *newdir, const char *newname,
		struct fid *file)
{
	int err;

	if (!(atomic_load(&op->r->lacks) & LACKS_RENAMEAT)) {
		err = call_renameat(op, dir->number, name, newdir->number, newname);
		if (!unknown_message(err))
			return err;
	}
	err = call_rename(op, file->number, newdir->number, newname);
	if (!err)
		atomic_fetch_or(&op->r->lacks, LACKS_RENAMEAT);
	return err;
}

struct going {
	struct remote *r;
	const struct r_key *parent;
	const char *name;
	bool open;		/* somebody has it open, and it has no other name that is known */
};

/* Handles end, and what is hidden is removed, while a name is looked at. */
static bool is_hidden(const struct r_node *n)
{
	return (__atomic_load_n(&n->flags, __ATOMIC_ACQUIRE) & (NODE_HIDDEN | NODE_HIDING)) == NODE_HIDDEN;
}

static int look_at(void *arg, struct fe_node *node)
{
	struct going *g = arg;
	struct r_node *n = r_node(node);
	char name[P9_NAME_MAX + 1];
	struct r_key parent;
	bool this_name = !node_name(g->r, n, &parent, name) && key_equal(&parent, g->parent) && !strcmp(name, g->name);

	/* A directory that is open is removed as it is. */
	g->open = __atomic_load_n(&n->opens, __ATOMIC_ACQUIRE) && n->key.type != S_IFDIR >> 12 &&
		  (this_name || n->nlink <= 1) && !is_hidden(n);
	return 0;
}

/* Its name is gone. Returns 1 where it has one that is hidden. */
static int name_gone(void *arg, struct fe_node *node)
{
	struct going *g = arg;
	struct r_node *n = r_node(node);
	char name[P9_NAME_MAX + 1];
	struct r_key parent;

	if ((n->nlink <= 1 && !is_hidden(n)) || n->key.type == S_IFDIR >> 12) {
		node_died(n);
	} else {
		n->nlink--;
		if (!node_name(g->r, n, &parent, name) && key_equal(&parent, g->parent) && !strcmp(name, g->name))
			__atomic_store_n(&n->named, 0, __ATOMIC_RELEASE);
	}
	return is_hidden(n);
}

/* Takes a name away, whose file is hidden where it is open. */
static int take_away(struct op *op, struct fid *dir, const struct r_key *parent, const char *name, bool directory,
		     const struct r_key *key)
{
	struct going g = { .r = op->r, .parent = parent, .name = name };
	int err;

	op->r->services->with_node(op->r->host, key, look_at, &g);
	if (g.open)
		return hidden_make(op, dir, parent, name, key);
	fid_forget(op, key);
	err = remove_name(op, dir, name, directory);
	if (!err && op->r->services->with_node(op->r->host, key, name_gone, &g) == 1)
		hidden_again(op->r, key);
	return err;
}

static int hidden_out(struct op *op, struct fe_node *parent, struct fid *dir, const char *name,
		      const struct r_key *key)
{
	struct fid *f;
	int err = name_fid(op, dir, name, &f, NULL);

	if (err)
		return err;
	err = hidden_move(op, key, f, dir, &r_node(parent)->key);
	fid_put(op, f);
	return err;
}

static int remove_one(struct op *op, struct fe_node *parent, const char *name, bool directory)
{
	struct r_key key = { 0 };
	struct fid *dir, *f;
	int err = node_fid(op, parent, &dir);

	if (err)
		return err;
	err = hidden_name(name, strlen(name)) ? -ENOENT : name_fid(op, dir, name, &f, &key);
	if (!err) {
		put(op, f);
		if (directory != (key.type == S_IFDIR >> 12))
			err = directory ? -ENOTDIR : -EISDIR;
	}
	/* What is hidden in it may have been moved out before an answer was lost. */
	if (!err && directory && op->again && hidden_out(op, parent, dir, name, &key) == LOST)
		err = LOST;
	if (!err)
		err = take_away(op, dir, &r_node(parent)->key, name, directory, &key);
	if (err == -ENOTEMPTY && directory) {
		int moved = hidden_out(op, parent, dir, name, &key);

		if (!moved)
			err = take_away(op, dir, &r_node(parent)->key, name, directory, &key);
		else if (moved == LOST)
			err = LOST;
	}
	/* The kernel knew the name and keeps it: this request removed it, before its answer was lost. */
	if (err == -ENOENT && op->again)
		err = hidden_settle(op, dir, &r_node(parent)->key);
	put(op, dir);
	return err;
}

int remote_unlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name)
{
	_cleanup_op_ struct op op;

	op_begin_change(&op, b, req);
	while (op_next(&op))
		op.result = remove_one(&op, parent, name, false);
	return (int)op.result;
}

int remote_rmdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name)
{
	_cleanup_op_ struct op op;

	op_begin_change(&op, b, req);
	while (op_next(&op))
		op.result = remove_one(&op, parent, name, true);
	return (int)op.result;
}

/* ---- rename ---- */

enum { RENAMES = 1 };

static int moved(void *arg, struct fe_node *node)
{
	const struct going *g = arg;

	node_rename(g->r, r_node(node), g->parent, g->name);
	return 0;
}

/* What is in the way of a rename; a server does that by itself, but for files that are open here. */
static int make_room(struct op *op, struct fid *dir, const struct r_key *parent, const char *name, uint32_t flags,
		     const struct r_key *source, struct r_key *target)
{
	struct going g = { .r = op->r, .parent = parent, .name = name };
	struct fid *f;
	/* What was in the way may be hidden already. */
	int err = op->again ? hidden_settle(op, dir, parent) : 0;

	if (!err)
		err = name_fid(op, dir, name, &f, target);
	if (err) {
		target->type = 0;
		return err == -ENOENT ? 0 : err;
	}
	fid_put(op, f);
	if (flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (key_equal(source, target))
		return 0;
	op->r->services->with_node(op->r->host, target, look_at, &g);
	if (!g.open)
		return 0;
	err = hidden_make(op, dir, parent, name, target);
	target->type = 0;
	return err;
}

static int rename_one(struct op *op, struct fe_node *parent, const char *name, struct fe_node *newparent,
		      const char *newname, uint32_t flags)
{
	struct r_key key = { 0 }, noted, target = { 0 };
	struct fid *dir = NULL, *newdir = NULL, *f = NULL;
	struct going g = { .r = op->r, .parent = &r_node(newparent)->key, .name = newname };
	int err = node_fid(op, parent, &dir);

	if (!err)
		err = node_fid(op, newparent, &newdir);
	if (!err)
		err = hidden_name(newname, strlen(newname)) ? -EPERM : name_fid(op, dir, name, &f, &key);
	/* It took place before its answer was lost if the file is there now that it was about. */
	if (err == -ENOENT && op->again && op->intent->state == RENAMES) {
		err = hidden_settle(op, newdir, g.parent);
		if (err)
			goto out;
		memcpy(&noted, op->intent->data, sizeof(noted));
		err = name_fid(op, newdir, newname, &f, &key);
		if (!err && !key_equal(&key, &noted))
			err = -ENOENT;
		goto done;
	}
	if (err)
		goto out;
	if (!(op->again && op->intent->state == RENAMES)) {
		memcpy(op->intent->data, &key, sizeof(key));
		__atomic_store_n(&op->intent->state, RENAMES, __ATOMIC_RELEASE);
	}
	err = make_room(op, newdir, g.parent, newname, flags, &key, &target);
	if (!err)
		err = rename_name(op, dir, name, newdir, newname, f);
	/* Two names of one file: both stay. */
	if (!err && key_equal(&key, &target))
		goto out;
done:
	if (!err && target.type) {
		struct going over = { .r = op->r, .parent = g.parent, .name = newname };

		fid_forget(op, &target);
		if (op->r->services->with_node(op->r->host, &target, name_gone, &over) == 1)
			hidden_again(op->r, &target);
	}
	if (!err) {
		op->r->services->with_node(op->r->host, &key, moved, &g);
		/* Of fids that the server keeps as paths, those below are wrong now. */
		if (key.type == S_IFDIR >> 12)
			fid_forget_all(op);
		else
			fid_forget(op, &key);
	}
out:
	put(op, f);
	put(op, newdir);
	put(op, dir);
	return err;
}

int remote_rename(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		  struct fe_node *newparent, const char *newname, uint32_t flags)
{
	_cleanup_op_ struct op op;

	op_begin_change(&op, b, req);
	if (flags & ~(uint32_t)RENAME_NOREPLACE)
		return -EINVAL;
	while (op_next(&op))
		op.result = rename_one(&op, parent, name, newparent, newname, flags);
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
	put(op, f);
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
