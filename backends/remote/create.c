/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is made: by whom, with which mode, and whether it was made before a connection was lost. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "backends/remote/remote.h"

#define MADE 1u		/* intent: the message that makes it was on its way */

void creation_sends(struct op *op)
{
	__atomic_store_n(&op->intent->state, MADE, __ATOMIC_RELEASE);
}

int creation_begin(struct op *op, struct fe_node *parent, const char *name, uint32_t mode, struct creation *c)
{
	struct p9_attr a;
	uint32_t gid;
	int err;

	*c = (struct creation){
		.parent = r_node(parent), .name = name, .mode = mode & ~op->req->umask, .gid = op->req->gid,
		.sent = op->again && op->intent->state == MADE,
	};
	if (hidden_name(name, strlen(name)))
		return -EPERM;
	err = node_fid(op, parent, &c->dir);
	if (!err && !dir_known(op, c->parent, &c->parent_mode, &gid)) {
		err = call_getattr(op, c->dir->number, &a);
		c->parent_mode = a.mode;
		gid = a.gid;
	}
	if (err) {
		if (c->dir)
			fid_put(op, c->dir);
		c->dir = NULL;
		return err;
	}
	if (op->r->acl && op->req->umask && has_default_acl(op, c->dir->number))
		c->mode = mode;
	if (c->parent_mode & S_ISGID) {
		bool member = !op->req->uid || op->req->gid == gid || op->req->supp_group == gid;

		c->gid = gid;
		if ((mode & S_IFMT) != S_IFDIR && (c->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && !member)
			c->mode &= ~(uint32_t)S_ISGID;
	}
	return 0;
}

static uint32_t mode_made(const struct creation *c)
{
	if ((c->mode & S_IFMT) == S_IFDIR && c->parent_mode & S_ISGID)
		return c->mode | S_ISGID;
	return c->mode;
}

int64_t link_text(struct op *op, uint32_t fid, char *buf, size_t size)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TREADLINK, fid);
	const char *target;
	uint16_t len;
	int err = call(op, r);

	if (err)
		return err;
	target = p9_getstr(&r->in, &len);
	if (!target || r->in.left || !len || memchr(target, 0, len))
		return -EIO;
	if (len > size)
		return -ENAMETOOLONG;
	memcpy(buf, target, len);
	return len;
}

static int same_target(struct op *op, const struct creation *c, uint32_t fid)
{
	char target[4096];
	int64_t n = link_text(op, fid, target, sizeof(target));

	if (n < 0)
		return (int)n;
	return (size_t)n == strlen(c->target) && !memcmp(target, c->target, (size_t)n) ? 0 : -EEXIST;
}

/*
 * The kernel found no such name and keeps the directory locked, so what is there was made by this request,
 * or by another client just now: that one is told apart by type, owner, mode and being empty, or its target.
 */
int creation_made(struct op *op, const struct creation *c)
{
	uint32_t type = c->mode & S_IFMT ? c->mode & S_IFMT : S_IFREG;
	struct p9_attr a;
	struct r_key key;
	struct fid *f;
	int err;

	if (!c->sent)
		return -EEXIST;
	err = name_fid(op, c->dir, c->name, &f, &key);
	if (err)
		return err;
	err = call_getattr(op, f->number, &a);
	if (!err && type == S_IFLNK && (a.mode & S_IFMT) == S_IFLNK)
		err = same_target(op, c, f->number);
	fid_put(op, f);
	if (err)
		return err;
	if ((a.mode & S_IFMT) != type || (a.uid != op->req->uid && a.uid != op->uid) || a.nlink > 2 ||
	    (type == S_IFREG && a.size))
		return -EEXIST;
	/* An ACL that is handed down has a say in the mode. */
	return type == S_IFLNK || op->r->acl || !((a.mode ^ mode_made(c)) & 0777) ? 0 : -EEXIST;
}

/* Those who attached as one user make files as that one. */
static int give_away(struct op *op, const struct creation *c, struct fid *f, struct p9_attr *a)
{
	const struct fe_request *req = op->req;
	struct p9_setattr set = { .uid = req->uid, .gid = c->gid };
	uint32_t type = a->mode & S_IFMT, special = S_ISUID | S_ISGID | S_ISVTX, mode = mode_made(c) | (a->mode & S_ISGID);
	int err = 0;

	if (op->r->per_user || op->uid)
		return 0;
	if (a->uid != req->uid)
		set.valid |= P9_SET_UID;
	if (a->gid != c->gid)
		set.valid |= P9_SET_GID;
	if (set.valid)
		err = call_setattr(op, f->number, &set);
	/* Where the server maps users to others, the file is whose the server says. */
	if (err)
		return err == -EPERM ? 0 : err;
	/* These get lost with the owner, and some servers do not set them at all. */
	if (type != S_IFLNK && mode & special && (set.valid || (a->mode ^ mode) & special)) {
		set = (struct p9_setattr){ .valid = P9_SET_MODE, .mode = (a->mode & 0777) | (mode & special) };
		err = call_setattr(op, f->number, &set);
	}
	return err || !set.valid ? err : call_getattr(op, f->number, a);
}

/* The kernel will ask for those of the directory, too. */
static int attrs_made(struct op *op, const struct creation *c, struct fid *f, struct p9_attr *a)
{
	uint64_t at = atomic_load(&op->r->dir_changes);
	_cleanup_rpc_ struct rpc *dir = getattr_send(op, c->dir->number);
	struct p9_attr d;
	int err = call_getattr(op, f->number, a);

	if (!err && !getattr_wait(dir, &d))
		note_dir(op, c->parent, &d, at);
	return err;
}

int creation_end(struct op *op, const struct creation *c, struct fid *f, struct fe_entry *out)
{
	struct p9_attr a;
	int err = attrs_made(op, c, f, &a);

	if (!err)
		err = give_away(op, c, f, &a);
	if (!err)
		err = entry_of(op, &c->parent->key, c->name, &a, NULL, out);
	if (!err)
		r_entry(out)->bare = (uint32_t)(clock_ns() / NS);
	return err;
}

/* One that a lost answer was about is opened as it is. */
static int open_made(struct op *op, const struct creation *c, uint32_t flags, struct fid **out)
{
	int err = name_fid(op, c->dir, c->name, out, NULL);

	if (err)
		return err;
	err = call_lopen(op, (*out)->number, flags);
	if (err)
		fid_put(op, *out);
	return err;
}

int file_make(struct op *op, const struct creation *c, uint32_t flags, struct fid **out)
{
	int err = fid_clone(op, c->dir->number, out);

	if (err)
		return err;
	/* nfs-ganesha 4.3 begins the times of such a file at 0; the kernel asks for fsync after each write. */
	flags &= ~(P9_O_SYNC | P9_O_DSYNC);
	creation_sends(op);
	err = call_lcreate(op, (*out)->number, c->name, flags | P9_O_CREATE | P9_O_EXCL, c->mode & 07777, c->gid);
	if (err)
		fid_put(op, *out); /* it is a fid of the directory */
	return err;
}

static int create(struct op *op, struct fe_node *parent, const char *name, uint32_t flags, uint32_t mode,
		  struct fe_entry *entry, struct fe_open *out)
{
	uint32_t p9 = p9_open_flags(flags & ~(uint32_t)O_TRUNC);
	struct creation c;
	struct fid *f;
	int err = creation_begin(op, parent, name, S_IFREG | (mode & 07777), &c);

	if (err)
		return err;
	if (op->r->writeback && (p9 & O_ACCMODE) == O_WRONLY)
		p9 = (p9 & ~(uint32_t)O_ACCMODE) | O_RDWR;
	err = c.sent ? creation_made(op, &c) : -ENOENT;
	if (!err)
		err = open_made(op, &c, p9, &f);
	else if (err == -ENOENT)
		err = file_make(op, &c, p9, &f);
	/* A server may do late what a lost connection asked for. */
	if (err == -EEXIST && c.sent) {
		err = creation_made(op, &c);
		if (!err)
			err = open_made(op, &c, p9, &f);
	}
	if (!err) {
		err = creation_end(op, &c, f, entry);
		if (err)
			fid_put(op, f);
	}
	fid_put(op, c.dir);
	if (err == -EEXIST && !(flags & O_EXCL))
		return -ESTALE; /* the kernel looks again */
	if (!err)
		file_opened(op, r_entry(entry), f, flags, out->record);
	return err;
}

int remote_create(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t flags,
		  uint32_t mode, uint32_t io_flags, struct fe_entry *entry, struct fe_open *out)
{
	_cleanup_op_ struct op op;

	(void)io_flags;
	op_begin_change(&op, b, req);
	while (op_next(&op))
		op.result = create(&op, parent, name, flags, mode, entry, out);
	out->flags = op.r->locks ? 0 : FE_OPEN_NOFLUSH;
	return (int)op.result;
}
