/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attributes: GETATTR, STATX, SETATTR, ACCESS, STATFS, SYNCFS. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "host/answers.h"

#define NS_PER_S 1000000000u

void split_ns(uint64_t ns, uint64_t *sec, uint32_t *nsec)
{
	*sec = ns / NS_PER_S;
	*nsec = (uint32_t)(ns % NS_PER_S);
}

void fill_attr(struct fuse_attr *out, const struct statx *st)
{
	*out = (struct fuse_attr){
		.ino = st->stx_ino,
		.size = st->stx_size,
		.blocks = st->stx_blocks,
		.atime = (uint64_t)st->stx_atime.tv_sec,
		.mtime = (uint64_t)st->stx_mtime.tv_sec,
		.ctime = (uint64_t)st->stx_ctime.tv_sec,
		.atimensec = st->stx_atime.tv_nsec,
		.mtimensec = st->stx_mtime.tv_nsec,
		.ctimensec = st->stx_ctime.tv_nsec,
		.mode = st->stx_mode,
		.nlink = st->stx_nlink,
		.uid = st->stx_uid,
		.gid = st->stx_gid,
		.rdev = (st->stx_rdev_minor & 0xff) | st->stx_rdev_major << 8 | (st->stx_rdev_minor & ~0xffu) << 12,
		.blksize = st->stx_blksize,
	};
}

/* The handle of a request that may name one; NULL where it does not, or where it is of another node. */
static struct fe_handle *optional_handle(struct call *c, bool given, uint64_t fh, struct fe_handle *hd)
{
	struct handle *found = given ? handle_get(c->host, fh, false, hd) : NULL;

	return found && found->nodeid == c->node.nodeid ? hd : NULL;
}

static int64_t attr_reply(struct call *c, const struct statx *st, uint64_t valid, uint32_t own)
{
	struct fuse_attr_out *out = (void *)c->out;

	memset(out, 0, sizeof(*out));
	split_ns(driver_valid(c->host, valid), &out->attr_valid, &out->attr_valid_nsec);
	fill_attr(&out->attr, st);
	answers_attr(c, out, valid, own);
	return sizeof(*out);
}

static int backend_getattr(struct call *c, bool given, uint64_t fh, struct statx *st, uint64_t *valid)
{
	struct fe_handle hd, *handle = optional_handle(c, given, fh, &hd);

	*valid = c->host->opt.attr_valid;
	memset(st, 0, sizeof(*st));
	return c->host->be->getattr(c->host->priv, &c->req, &c->node, handle, st, valid);
}

int64_t op_getattr(struct call *c)
{
	const struct fuse_getattr_in *in = (const void *)c->arg;
	struct statx st;
	uint64_t valid;
	int err = backend_getattr(c, in->getattr_flags & FUSE_GETATTR_FH, in->fh, &st, &valid);

	return err ? err : attr_reply(c, &st, valid, 0);
}

static struct fuse_sx_time sx_time(const struct statx_timestamp *t)
{
	return (struct fuse_sx_time){ .tv_sec = t->tv_sec, .tv_nsec = t->tv_nsec };
}

int64_t op_statx(struct call *c)
{
	const struct fuse_statx_in *in = (const void *)c->arg;
	struct fuse_statx_out *out = (void *)c->out;
	struct statx st;
	uint64_t valid;
	int err = backend_getattr(c, in->getattr_flags & FUSE_GETATTR_FH, in->fh, &st, &valid);

	if (err)
		return err;
	memset(out, 0, sizeof(*out));
	split_ns(driver_valid(c->host, valid), &out->attr_valid, &out->attr_valid_nsec);
	out->stat = (struct fuse_statx){
		.mask = st.stx_mask & (STATX_BASIC_STATS | STATX_BTIME),
		.blksize = st.stx_blksize,
		.attributes = st.stx_attributes,
		.nlink = st.stx_nlink,
		.uid = st.stx_uid,
		.gid = st.stx_gid,
		.mode = st.stx_mode,
		.ino = st.stx_ino,
		.size = st.stx_size,
		.blocks = st.stx_blocks,
		.attributes_mask = st.stx_attributes_mask,
		.atime = sx_time(&st.stx_atime),
		.btime = sx_time(&st.stx_btime),
		.ctime = sx_time(&st.stx_ctime),
		.mtime = sx_time(&st.stx_mtime),
		.rdev_major = st.stx_rdev_major,
		.rdev_minor = st.stx_rdev_minor,
	};
	return sizeof(*out);
}

static uint32_t set_bits(uint32_t valid)
{
	static const struct {
		uint32_t fuse, fe;
	} map[] = {
		{ FATTR_MODE, FE_SET_MODE }, { FATTR_UID, FE_SET_UID }, { FATTR_GID, FE_SET_GID },
		{ FATTR_SIZE, FE_SET_SIZE }, { FATTR_ATIME, FE_SET_ATIME }, { FATTR_MTIME, FE_SET_MTIME },
		{ FATTR_ATIME_NOW, FE_SET_ATIME_NOW }, { FATTR_MTIME_NOW, FE_SET_MTIME_NOW },
		{ FATTR_CTIME, FE_SET_CTIME }, { FATTR_KILL_SUIDGID, FE_SET_KILL_SUIDGID },
	};
	uint32_t bits = 0;

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if (valid & map[i].fuse)
			bits |= map[i].fe;
	return bits;
}

int64_t op_setattr(struct call *c)
{
	const struct fuse_setattr_in *in = (const void *)c->arg;
	struct fe_setattr set = {
		.valid = set_bits(in->valid),
		.mode = in->mode,
		.uid = in->uid,
		.gid = in->gid,
		.size = in->size,
		.atime = { (int64_t)in->atime, in->atimensec },
		.mtime = { (int64_t)in->mtime, in->mtimensec },
		.ctime = { (int64_t)in->ctime, in->ctimensec },
	};
	struct fe_handle hd, *handle = optional_handle(c, in->valid & FATTR_FH, in->fh, &hd);
	uint64_t valid = c->host->opt.attr_valid;
	struct statx st = { 0 };
	int err;

	if (!c->host->be->setattr)
		return -ENOSYS;
	if ((set.valid & FE_SET_SIZE) && set.size > INT64_MAX)
		return -EINVAL;
	err = c->host->be->setattr(c->host->priv, &c->req, &c->node, handle, &set, &st, &valid);
	if (!err)
		answers_mode(c, st.stx_mode);
	return err ? err : attr_reply(c, &st, valid, EXTFUSE_OWN_NODE);
}

int64_t op_access(struct call *c)
{
	const struct fuse_access_in *in = (const void *)c->arg;
	int err;

	if (!c->host->be->access)
		return -ENOSYS;
	err = c->host->be->access(c->host->priv, &c->req, &c->node, in->mask);
	if (!err || err == -EACCES)
		answers_access(c);
	return err;
}

int64_t op_statfs(struct call *c)
{
	struct fuse_statfs_out *out = (void *)c->out;
	struct fe_statfs fs = { 0 };
	int err;

	/* Without figures df(1) still works, and so does all that asks for the block size first. */
	fs.bsize = fs.frsize = 4096;
	fs.namelen = NAME_MAX;
	err = c->host->be->statfs ? c->host->be->statfs(c->host->priv, &c->req, &c->node, &fs) : 0;
	if (err)
		return err;
	memset(out, 0, sizeof(*out));
	out->st = (struct fuse_kstatfs){
		.blocks = fs.blocks, .bfree = fs.bfree, .bavail = fs.bavail, .files = fs.files, .ffree = fs.ffree,
		.bsize = fs.bsize, .namelen = fs.namelen, .frsize = fs.frsize,
	};
	answers_statfs(c, out, fs.valid);
	return sizeof(*out);
}

int64_t op_syncfs(struct call *c)
{
	return c->host->be->syncfs ? c->host->be->syncfs(c->host->priv, &c->req, &c->node) : -ENOSYS;
}
