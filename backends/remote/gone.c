/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names that go: by being removed, renamed, or replaced. */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "backends/remote/remote.h"

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

/* What is noted before the message that does it, with keys of files: it may be done when the answer is lost. */
enum { RENAMES = 1, REPLACES, REMOVES };

static void note_intent(struct op *op, uint32_t state, unsigned at, const struct r_key *key)
{
	memcpy(op->intent->data + at * sizeof(*key), key, sizeof(*key));
	__atomic_store_n(&op->intent->state, state, __ATOMIC_RELEASE);
}

static struct r_key noted_key(const struct op *op, unsigned at)
{
	struct r_key key;

	memcpy(&key, op->intent->data + at * sizeof(key), sizeof(key));
	return key;
}

/* Handles end, and what is hidden is removed, while a name is looked at. */
static bool is_hidden(const struct r_node *n)
{
	return (__atomic_load_n(&n->flags, __ATOMIC_ACQUIRE) & (NODE_HIDDEN | NODE_HIDING)) == NODE_HIDDEN;
}

static bool known_as(const struct going *g, struct r_node *n)
{
	char name[P9_NAME_MAX + 1];
	struct r_key parent;

	return !node_name(g->r, n, &parent, name) && key_equal(&parent, g->parent) && !strcmp(name, g->name);
}

static int look_at(void *arg, struct fe_node *node)
{
	struct going *g = arg;
	struct r_node *n = r_node(node);

	/* A directory that is open is removed as it is. */
	g->open = __atomic_load_n(&n->opens, __ATOMIC_ACQUIRE) && n->key.type != S_IFDIR >> 12 &&
		  (known_as(g, n) || n->nlink <= 1) && !is_hidden(n);
	return 0;
}

/* Its name is gone. Returns 1 where it has one that is hidden. */
static int name_gone(void *arg, struct fe_node *node)
{
	struct r_node *n = r_node(node);

	if ((n->nlink <= 1 && !is_hidden(n)) || n->key.type == S_IFDIR >> 12) {
		node_died(n);
	} else {
		if (known_as(arg, n))
			__atomic_store_n(&n->named, 0, __ATOMIC_RELEASE);
		n->nlink--;
	}
	return is_hidden(n);
}

/* ... before the answer was lost: by another name it may have been looked at since, and count one name less. */
static int name_was_gone(void *arg, struct fe_node *node)
{
	return known_as(arg, r_node(node)) ? name_gone(arg, node) : 0;
}

/* What is noted of it stays: if this is asked for again, the node is not known by that name any more. */
static void took_away(struct op *op, const struct r_key *parent, const char *name, const struct r_key *key, bool lost)
{
	struct going g = { .r = op->r, .parent = parent, .name = name };

	if (op->r->services->with_node(op->r->host, key, lost ? name_was_gone : name_gone, &g) == 1)
		hidden_again(op->r, key);
}

/* Takes a name away, whose file is hidden where it is open. */
static int take_away(struct op *op, struct fid *dir, const struct r_key *parent, const char *name, bool directory,
		     const struct r_key *key)
{
	struct going g = { .r = op->r, .parent = parent, .name = name };
	int err;

	op->r->services->with_node(op->r->host, key, look_at, &g);
	note_intent(op, REMOVES, 0, key);
	if (g.open)
		return hidden_make(op, dir, parent, name, key);
	fid_forget(op, key);
	err = remove_name(op, dir, name, directory);
	if (!err)
		took_away(op, parent, name, key, false);
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
	struct r_key key = { 0 }, noted = noted_key(op, 0);
	bool lost = op->again && op->intent->state == REMOVES;
	struct fid *dir, *f;
	int err = node_fid(op, parent, &dir);

	if (err)
		return err;
	err = hidden_name(name, strlen(name)) ? -ENOENT : name_fid(op, dir, name, &f, &key);
	if (!err) {
		fid_put_any(op, f);
		/* Another client has made this one since. */
		if (lost && !key_equal(&key, &noted))
			err = -ENOENT;
		else if (directory != (key.type == S_IFDIR >> 12))
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
	if (err == -ENOENT && op->again) {
		err = hidden_settle(op, dir, &r_node(parent)->key);
		key = noted_key(op, 0);
		if (!err && op->intent->state == REMOVES)
			took_away(op, &r_node(parent)->key, name, &key, true);
	}
	fid_put_any(op, dir);
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

static int moved(void *arg, struct fe_node *node)
{
	const struct going *g = arg;

	node_rename(g->r, r_node(node), g->parent, g->name);
	return 0;
}

/* What is in the way of a rename; a server does that by itself, but for files that are open here. */
static int make_room(struct op *op, struct fid *dir, const struct r_key *parent, const char *name, uint32_t flags,
		     const struct r_key *source, struct r_key *target, bool lost)
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
	/* It may be there by this rename. */
	if (key_equal(source, target) && (lost || !(flags & RENAME_NOREPLACE)))
		return 0;
	if (flags & RENAME_NOREPLACE)
		return -EEXIST;
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
	struct r_key key = { 0 }, noted = noted_key(op, 0), target = { 0 };
	bool lost = op->again && op->intent->state, was_lost = false;
	struct fid *dir = NULL, *newdir = NULL, *f = NULL;
	struct going g = { .r = op->r, .parent = &r_node(newparent)->key, .name = newname };
	int err = node_fid(op, parent, &dir);

	if (!err)
		err = node_fid(op, newparent, &newdir);
	if (!err)
		err = hidden_name(newname, strlen(newname)) ? -EPERM : name_fid(op, dir, name, &f, &key);
	/* What has this name now may have been made by another client since. */
	if (lost && (err == -ENOENT || (!err && !key_equal(&key, &noted))))
		goto see;
	if (err)
		goto out;
	err = make_room(op, newdir, g.parent, newname, flags, &key, &target, lost);
	/* What was noted before stays: it may be done late. */
	if (!err && !lost)
		note_intent(op, RENAMES, 0, &key);
	if (!err && target.type && !key_equal(&key, &target))
		note_intent(op, REPLACES, 1, &target);
	if (!err)
		err = rename_name(op, dir, name, newdir, newname, f);
	/* A server may do late what a lost connection asked for. */
	if (err == -ENOENT && lost)
		goto see;
	/* Two names of one file: both stay. */
	if (!err && key_equal(&key, &target)) {
		err = flags & RENAME_NOREPLACE ? -EEXIST : 0;
		goto out;
	}
	goto done;
see:
	/* It took place before its answer was lost if the file is there now that it was about. */
	fid_put_any(op, f);
	f = NULL;
	err = hidden_settle(op, newdir, g.parent);
	if (err)
		goto out;
	err = name_fid(op, newdir, newname, &f, &key);
	if (!err && !key_equal(&key, &noted))
		err = -ENOENT;
	if (op->intent->state == REPLACES)
		target = noted_key(op, 1);
	was_lost = true;
done:
	if (!err && target.type) {
		fid_forget(op, &target);
		took_away(op, g.parent, newname, &target, was_lost);
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
	fid_put_any(op, f);
	fid_put_any(op, newdir);
	fid_put_any(op, dir);
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
