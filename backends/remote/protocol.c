/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/remote/protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define ERRNO_END 512	/* the kernel takes no higher one from a FUSE server */

static void put(struct p9_out *o, uint64_t v, unsigned bytes)
{
	if (o->over || (size_t)(o->end - o->at) < bytes) {
		o->over = true;
		return;
	}
	for (unsigned i = 0; i < bytes; i++)
		*o->at++ = (unsigned char)(v >> (8 * i));
}

void p9_put8(struct p9_out *o, uint8_t v)
{
	put(o, v, 1);
}

void p9_put16(struct p9_out *o, uint16_t v)
{
	put(o, v, 2);
}

void p9_put32(struct p9_out *o, uint32_t v)
{
	put(o, v, 4);
}

void p9_put64(struct p9_out *o, uint64_t v)
{
	put(o, v, 8);
}

void p9_putstr(struct p9_out *o, const char *s)
{
	size_t len = strlen(s);

	if (len > UINT16_MAX || (size_t)(o->end - o->at) < len + 2) {
		o->over = true;
		return;
	}
	p9_put16(o, (uint16_t)len);
	memcpy(o->at, s, len);
	o->at += len;
}

void p9_putsetattr(struct p9_out *o, const struct p9_setattr *a)
{
	p9_put32(o, a->valid);
	p9_put32(o, a->mode);
	p9_put32(o, a->uid);
	p9_put32(o, a->gid);
	p9_put64(o, a->size);
	p9_put64(o, a->atime);
	p9_put64(o, a->atime_nsec);
	p9_put64(o, a->mtime);
	p9_put64(o, a->mtime_nsec);
}

void p9_begin(struct p9_out *o, void *buf, size_t size, uint8_t type)
{
	*o = (struct p9_out){ .base = buf, .at = buf, .end = (unsigned char *)buf + size };
	p9_put32(o, 0);
	p9_put8(o, type);
	p9_put16(o, P9_NOTAG);
}

size_t p9_end(struct p9_out *o, uint16_t tag, size_t more)
{
	size_t size = (size_t)(o->at - o->base);

	if (o->over || more > UINT32_MAX - size)
		return 0;
	o->at = o->base;
	p9_put32(o, (uint32_t)(size + more));
	o->at++;
	p9_put16(o, tag);
	o->at = o->base + size;
	return size;
}

static uint64_t get(struct p9_in *in, unsigned bytes)
{
	uint64_t v = 0;

	if (in->bad || in->left < bytes) {
		in->bad = true;
		return 0;
	}
	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)in->at[i] << (8 * i);
	in->at += bytes;
	in->left -= bytes;
	return v;
}

uint8_t p9_get8(struct p9_in *in)
{
	return (uint8_t)get(in, 1);
}

uint16_t p9_get16(struct p9_in *in)
{
	return (uint16_t)get(in, 2);
}

uint32_t p9_get32(struct p9_in *in)
{
	return (uint32_t)get(in, 4);
}

uint64_t p9_get64(struct p9_in *in)
{
	return get(in, 8);
}

const char *p9_getstr(struct p9_in *in, uint16_t *len)
{
	const char *s;

	*len = p9_get16(in);
	if (in->bad || in->left < *len) {
		in->bad = true;
		*len = 0;
		return NULL;
	}
	s = (const char *)in->at;
	in->at += *len;
	in->left -= *len;
	return s;
}

struct p9_qid p9_getqid(struct p9_in *in)
{
	struct p9_qid q;

	q.type = p9_get8(in);
	q.version = p9_get32(in);
	q.path = p9_get64(in);
	return q;
}

int p9_read_attr(struct p9_in *in, struct p9_attr *a)
{
	a->valid = p9_get64(in);
	a->qid = p9_getqid(in);
	a->mode = p9_get32(in);
	a->uid = p9_get32(in);
	a->gid = p9_get32(in);
	a->nlink = p9_get64(in);
	a->rdev = p9_get64(in);
	a->size = p9_get64(in);
	a->blksize = p9_get64(in);
	a->blocks = p9_get64(in);
	a->atime = p9_get64(in);
	a->atime_nsec = p9_get64(in);
	a->mtime = p9_get64(in);
	a->mtime_nsec = p9_get64(in);
	a->ctime = p9_get64(in);
	a->ctime_nsec = p9_get64(in);
	a->btime = p9_get64(in);
	a->btime_nsec = p9_get64(in);
	a->gen = p9_get64(in);
	a->data_version = p9_get64(in);
	if (in->bad || in->left || (a->valid & P9_GETATTR_BASIC) != P9_GETATTR_BASIC || a->size > INT64_MAX)
		return -EIO;
	return 0;
}

int p9_read_statfs(struct p9_in *in, struct p9_statfs *s)
{
	s->type = p9_get32(in);
	s->bsize = p9_get32(in);
	s->blocks = p9_get64(in);
	s->bfree = p9_get64(in);
	s->bavail = p9_get64(in);
	s->files = p9_get64(in);
	s->ffree = p9_get64(in);
	s->fsid = p9_get64(in);
	s->namelen = p9_get32(in);
	return in->bad || in->left || !s->bsize ? -EIO : 0;
}

int p9_read_error(struct p9_in *in)
{
	uint32_t code = p9_get32(in);

	if (in->bad || in->left || !code || code >= ERRNO_END)
		return -EIO;
	/* It would switch the operation off for the life of the mount. */
	return code == ENOSYS ? -EOPNOTSUPP : -(int)code;
}

bool p9_name_valid(const char *name, size_t len)
{
	return len && len <= P9_NAME_MAX && !memchr(name, 0, len) && !memchr(name, '/', len);
}

int p9_read_dirent(struct p9_in *in, struct p9_dirent *d)
{
	if (!in->left && !in->bad)
		return 0;
	d->qid = p9_getqid(in);
	d->offset = p9_get64(in);
	d->type = p9_get8(in);
	d->name = p9_getstr(in, &d->len);
	if (in->bad || !d->offset || !p9_name_valid(d->name, d->len))
		return -EIO;
	return 1;
}

static struct statx_timestamp stamp(uint64_t sec, uint64_t nsec)
{
	return (struct statx_timestamp){ .tv_sec = (int64_t)sec, .tv_nsec = nsec < 1000000000 ? (uint32_t)nsec : 0 };
}

static bool type_known(uint32_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) || S_ISFIFO(mode) ||
	       S_ISSOCK(mode);
}

int p9_fill_statx(const struct p9_attr *a, struct statx *st)
{
	if (!type_known(a->mode) || S_ISDIR(a->mode) != !!(a->qid.type & P9_QTDIR))
		return -EIO;
	memset(st, 0, sizeof(*st));
	st->stx_mask = STATX_BASIC_STATS;
	st->stx_ino = a->qid.path;
	st->stx_mode = (uint16_t)a->mode;
	st->stx_nlink = a->nlink < UINT32_MAX ? (uint32_t)a->nlink : UINT32_MAX;
	st->stx_uid = a->uid;
	st->stx_gid = a->gid;
	st->stx_size = a->size;
	st->stx_blocks = a->blocks;
	st->stx_blksize = a->blksize && a->blksize <= UINT32_MAX ? (uint32_t)a->blksize : 4096;
	st->stx_atime = stamp(a->atime, a->atime_nsec);
	st->stx_mtime = stamp(a->mtime, a->mtime_nsec);
	st->stx_ctime = stamp(a->ctime, a->ctime_nsec);
	if (a->valid & P9_GETATTR_BTIME && a->btime) {
		st->stx_btime = stamp(a->btime, a->btime_nsec);
		st->stx_mask |= STATX_BTIME;
	}
	if (S_ISCHR(a->mode) || S_ISBLK(a->mode)) {
		st->stx_rdev_major = major(a->rdev);
		st->stx_rdev_minor = minor(a->rdev);
	}
	return 0;
}

uint32_t p9_open_flags(uint32_t flags)
{
	/* Not O_DIRECT, which is about the caches of this machine, and not O_APPEND: writes say where. */
	uint32_t out = (flags & O_ACCMODE) | P9_O_LARGEFILE;

	if (flags & O_TRUNC)
		out |= P9_O_TRUNC;
	if (flags & O_DSYNC)
		out |= P9_O_DSYNC;
	if ((flags & O_SYNC) == O_SYNC)
		out |= P9_O_SYNC;
	return out;
}
