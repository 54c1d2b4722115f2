/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attributes, and the file system's figures. */
#include <errno.h>

#include "backends/remote/remote.h"

#define TIMES (FE_SET_ATIME | FE_SET_MTIME | FE_SET_CTIME | FE_SET_ATIME_NOW | FE_SET_MTIME_NOW)

/*
 * By the name, which is known to lead to the file: there are servers that keep a path also for a fid that is
 * open, where another file may be by now. What is open serves where no name is known.
 */
int attr_fid(struct op *op, struct fe_node *node, struct fid **named, uint32_t *number)
{
	int err = node_fid(op, node, named);
	struct p9_attr a;

	if (!err)
		*number = (*named)->number;
	if (err != -ESTALE || !fid_opened(op, &r_node(node)->key, number))
		return err;
	err = call_getattr(op, *number, &a);
	/* Also where that is open: a directory that was removed. */
	if (err == -ENOENT)
		return -ESTALE;
	return err ? err : a.qid.path == r_node(node)->key.path ? 0 : -ESTALE;
}

static int getattr(struct op *op, struct fe_node *node, struct statx *out)
{
	struct p9_attr a;
	struct fid *f = NULL;
	uint32_t number;
	int err = attr_fid(op, node, &f, &number);

	if (!err)
		err = call_getattr(op, number, &a);
	if (!err)
		err = attr_of(op, r_node(node), &a, out);
	if (f)
		fid_put(op, f);
	return err;
}

int remote_getattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		   struct statx *out, uint64_t *valid)
{
	_cleanup_op_ struct op op;

	(void)handle;
	op_begin(&op, b, req);
	if (attr_of_dir(b, r_node(node), out, valid))
		return 0;
	while (op_next(&op))
		op.result = getattr(&op, node, out);
	if (op.result == -ESTALE && !attr_of_dead(op.r, r_node(node), out))
		*valid = op.result = 0;
	return (int)op.result;
}

uint32_t mode_killed(const struct fe_request *req, const struct r_node *n)
{
	uint32_t kill = S_ISUID;
	bool member = req->gid == n->gid || req->supp_group == n->gid;

	/* Without group execute the bit is not about running it; a member of its group keeps it. */
	if (n->mode & S_ISGID && (n->mode & S_IXGRP || (req->uid && !member && !caller_in_group(req->pid, n->gid))))
		kill |= S_ISGID;
	return n->mode & 07777 & ~kill;
}

static struct p9_setattr set_of(const struct fe_setattr *set)
{
	static const struct {
		uint32_t fe, p9;
	} bits[] = {
		{ FE_SET_MODE, P9_SET_MODE }, { FE_SET_UID, P9_SET_UID }, { FE_SET_GID, P9_SET_GID },
		{ FE_SET_SIZE, P9_SET_SIZE }, { FE_SET_ATIME, P9_SET_ATIME | P9_SET_ATIME_SET },
		{ FE_SET_MTIME, P9_SET_MTIME | P9_SET_MTIME_SET }, { FE_SET_CTIME, P9_SET_CTIME },
	};
	struct p9_setattr out = {
		.mode = set->mode & 07777, .uid = set->uid, .gid = set->gid, .size = set->size,
		.atime = (uint64_t)set->atime.tv_sec, .atime_nsec = set->atime.tv_nsec,
		.mtime = (uint64_t)set->mtime.tv_sec, .mtime_nsec = set->mtime.tv_nsec,
	};

	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		if (set->valid & bits[i].fe)
			out.valid |= bits[i].p9;
	/* The server's clock is meant, as with all times that nobody gave. */
	if (set->valid & FE_SET_ATIME_NOW)
		out.valid = (out.valid | P9_SET_ATIME) & ~P9_SET_ATIME_SET;
	if (set->valid & FE_SET_MTIME_NOW)
		out.valid = (out.valid | P9_SET_MTIME) & ~P9_SET_MTIME_SET;
	if (!out.valid)
		out.valid = P9_SET_CTIME; /* chown(-1, -1) */
	return out;
}

/*
 * chown(-1, -1), or what the kernel sends before a write to a file with set-id bits. Of these the first is
 * refused to all but the owner, and the second, where it may be that, is left to the write.
 */
static int change_nothing(struct op *op, const struct fe_node *node, const struct fe_setattr *set, bool *done)
{
	const struct r_node *n = r_node(node);
	bool setid = (n->key.type != S_IFDIR >> 12) && n->mode & (S_ISUID | S_ISGID);

	*done = false;
	if (set->valid & ~(uint32_t)(FE_SET_KILL_SUIDGID | FE_SET_CTIME) || !setid)
		return 0;
	*done = !(set->valid & FE_SET_CTIME) && node->writers;
	if (*done || !op->req->uid || op->req->uid == n->uid)
		return 0;
	return mode_killed(op->req, n) != (n->mode & 07777) ? -EPERM : 0;
}

static int setattr(struct op *op, struct fe_node *node, struct fe_handle *handle, const struct fe_setattr *set,
		   struct statx *out)
{
	const uint32_t setid = S_ISUID | S_ISGID;
	struct p9_setattr p9 = set_of(set);
	uint32_t mode = r_node(node)->mode;
	struct p9_attr a;
	struct fid *f = NULL;
	uint32_t number;
	bool done;
	int err = change_nothing(op, node, set, &done);

	if (!err)
		err = attr_fid(op, node, &f, &number);
	/* ftruncate(2) moves the times in any case, truncate(2) only with the size. */
	if (handle && set->valid & FE_SET_SIZE && !(set->valid & (FE_SET_MTIME | FE_SET_MTIME_NOW)))
		p9.valid |= P9_SET_MTIME;
	/* The server acts for somebody who may leave these bits. */
	if (set->valid & FE_SET_KILL_SUIDGID && !S_ISDIR(mode) && mode & setid && !(set->valid & FE_SET_MODE)) {
		p9.valid |= P9_SET_MODE;
		p9.mode = mode_killed(op->req, r_node(node));
	}
	if (!err)
		err = done ? call_getattr(op, number, &a) : call_setattr_get(op, number, &p9, &a);
	if (!err)
		err = attr_of(op, r_node(node), &a, out);
	if (f)
		fid_put(op, f);
	return err;
}

int remote_setattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		   const struct fe_setattr *set, struct statx *out, uint64_t *valid)
{
	_cleanup_op_ struct op op;

	op_begin_file_change(&op, b, req, node);
	while (op_next(&op))
		op.result = setattr(&op, node, handle, set, out);
	/* With a writeback cache the kernel tells the times of what is removed, too, when nobody sees them. */
	if (op.result == -ESTALE && !(set->valid & ~TIMES) && !attr_of_dead(op.r, r_node(node), out))
		*valid = op.result = 0;
	return (int)op.result;
}

static int statfs_of(struct op *op, struct fe_node *node, struct fe_statfs *out)
{
	_cleanup_rpc_ struct rpc *r = NULL;
	struct p9_statfs s;
	struct fid *f;
	int err = node_fid(op, node, &f);

	if (err)
		return err;
	r = call_new(op, P9_TSTATFS, f->number);
	err = call(op, r);
	fid_put(op, f);
	if (!err)
		err = p9_read_statfs(&r->in, &s);
	if (err)
		return err;
	/* nfs-ganesha counts bytes. */
	if (s.bsize < 512) {
		s.blocks = s.blocks / 4096 * s.bsize;
		s.bfree = s.bfree / 4096 * s.bsize;
		s.bavail = s.bavail / 4096 * s.bsize;
		s.bsize = 4096;
	}
	*out = (struct fe_statfs){
		.blocks = s.blocks, .bfree = s.bfree, .bavail = s.bavail, .files = s.files, .ffree = s.ffree,
		.bsize = s.bsize, .frsize = s.bsize, .namelen = s.namelen && s.namelen < P9_NAME_MAX ? s.namelen : P9_NAME_MAX,
	};
	return 0;
}

/* Those are good for as long as attributes are, and until anything is changed here. */
static bool figures_known(struct remote *r, const struct r_key *of, struct fe_statfs *out)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->names_lock);

	*out = r->figures;
	return r->figures_at && key_equal(&r->figures_of, of) && r->figures_changes == atomic_load(&r->changes) &&
	       clock_ns() - r->figures_at < r->attr_valid;
}

static void figures_note(struct remote *r, const struct r_key *of, const struct fe_statfs *s, uint64_t at,
			 uint64_t changes)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->names_lock);

	r->figures = *s;
	r->figures_of = *of;
	r->figures_at = at;
	r->figures_changes = changes;
}

int remote_statfs(void *b, const struct fe_request *req, struct fe_node *node, struct fe_statfs *out)
{
	struct remote *r = b;
	uint64_t at = clock_ns(), changes = atomic_load(&r->changes);
	_cleanup_op_ struct op op;

	op_begin(&op, r, req);
	if (figures_known(r, &r_node(node)->key, out))
		return 0;
	while (op_next(&op))
		op.result = statfs_of(&op, node, out);
	if (!op.result)
		figures_note(r, &r_node(node)->key, out, at, changes);
	return (int)op.result;
}
