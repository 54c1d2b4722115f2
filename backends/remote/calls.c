/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The messages, one function each. */
#include <errno.h>
#include <time.h>

#include "backends/remote/remote.h"

struct rpc *call_new(struct op *op, uint8_t type, uint32_t fid)
{
	struct rpc *r = rpc_new(&op->waiter, type);

	if (r)
		p9_put32(&r->out, fid);
	return r;
}

int call(struct op *op, struct rpc *r)
{
	int err = r ? rpc_send(r, op->epoch) : -ENOMEM;

	return err ? err : rpc_wait(r);
}

int call_walk(struct op *op, uint32_t fid, uint32_t newfid, const char *const *names, unsigned n,
	      struct p9_qid *last)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TWALK, fid);
	unsigned got;
	int err;

	if (!r)
		return -ENOMEM;
	p9_put32(&r->out, newfid);
	p9_put16(&r->out, (uint16_t)n);
	for (unsigned i = 0; i < n; i++)
		p9_putstr(&r->out, names[i]);
	err = call(op, r);
	if (err)
		return err;
	got = p9_get16(&r->in);
	for (unsigned i = 0; i < got; i++)
		*last = p9_getqid(&r->in);
	if (r->in.bad || r->in.left || got > n)
		return -EIO;
	return got < n ? -ENOENT : 0;
}

int call_attach(struct op *op, uint32_t fid)
{
	const struct address *a = &op->r->client.opt.address;
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TATTACH, fid);

	if (!r)
		return -ENOMEM;
	p9_put32(&r->out, P9_NOFID);
	p9_putstr(&r->out, "");
	p9_putstr(&r->out, a->aname);
	p9_put32(&r->out, op->uid);
	return call(op, r);
}

struct rpc *getattr_send(struct op *op, uint32_t fid)
{
	struct rpc *r = call_new(op, P9_TGETATTR, fid);

	if (r) {
		p9_put64(&r->out, P9_GETATTR_BASIC | P9_GETATTR_BTIME | P9_GETATTR_GEN);
		rpc_send(r, op->epoch);
	}
	return r;
}

struct rpc *read_send(struct op *op, uint8_t type, uint32_t fid, uint64_t off, void *into, size_t n)
{
	struct rpc *r = call_new(op, type, fid);

	if (r) {
		p9_put64(&r->out, off);
		p9_put32(&r->out, (uint32_t)n);
		r->into = into;
		r->room = n;
		rpc_send(r, op->epoch);
	}
	return r;
}

struct rpc *write_send(struct op *op, uint32_t fid, uint64_t off, const void *bytes, size_t n)
{
	struct rpc *r = call_new(op, P9_TWRITE, fid);

	if (r) {
		p9_put64(&r->out, off);
		p9_put32(&r->out, (uint32_t)n);
		r->payload = bytes;
		r->payload_size = n;
		rpc_send(r, op->epoch);
	}
	return r;
}

int getattr_wait(struct rpc *r, struct p9_attr *a)
{
	int err = r ? rpc_wait(r) : -ENOMEM;

	if (!err)
		err = p9_read_attr(&r->in, a);
	return err;
}

int call_getattr(struct op *op, uint32_t fid, struct p9_attr *a)
{
	_cleanup_rpc_ struct rpc *r = getattr_send(op, fid);

	return getattr_wait(r, a);
}

static void give_now(struct p9_setattr *s, uint32_t bit, uint32_t given, uint64_t *sec, uint64_t *nsec,
		     const struct timespec *now)
{
	if ((s->valid & (bit | given)) != bit)
		return;
	s->valid |= given;
	*sec = (uint64_t)now->tv_sec;
	*nsec = (uint64_t)now->tv_nsec;
}

int call_setattr(struct op *op, uint32_t fid, const struct p9_setattr *set)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TSETATTR, fid);
	struct p9_setattr s = *set;
	struct timespec now;

	/* A time that is not given is the server's, where it knows how. */
	if (atomic_load(&op->r->lacks) & LACKS_NOW) {
		clock_gettime(CLOCK_REALTIME, &now);
		give_now(&s, P9_SET_ATIME, P9_SET_ATIME_SET, &s.atime, &s.atime_nsec, &now);
		give_now(&s, P9_SET_MTIME, P9_SET_MTIME_SET, &s.mtime, &s.mtime_nsec, &now);
	}
	if (r)
		p9_putsetattr(&r->out, &s);
	return call(op, r);
}

int call_setattr_get(struct op *op, uint32_t fid, const struct p9_setattr *set, struct p9_attr *a)
{
	int err = call_setattr(op, fid, set);

	if (!err)
		err = call_getattr(op, fid, a);
	/* nfs-ganesha 4.3 takes "now" for the beginning of time. */
	if (err || (set->valid & (P9_SET_MTIME | P9_SET_MTIME_SET)) != P9_SET_MTIME || a->mtime || a->mtime_nsec)
		return err;
	atomic_fetch_or(&op->r->lacks, LACKS_NOW);
	err = call_setattr(op, fid, set);
	return err ? err : call_getattr(op, fid, a);
}

int call_lopen(struct op *op, uint32_t fid, uint32_t flags)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TLOPEN, fid);

	if (r)
		p9_put32(&r->out, flags);
	return call(op, r);
}

int call_lcreate(struct op *op, uint32_t fid, const char *name, uint32_t flags, uint32_t mode, uint32_t gid)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TLCREATE, fid);

	if (!r)
		return -ENOMEM;
	p9_putstr(&r->out, name);
	p9_put32(&r->out, flags);
	p9_put32(&r->out, mode);
	p9_put32(&r->out, gid);
	return call(op, r);
}

int call_mkdir(struct op *op, uint32_t fid, const char *name, uint32_t mode, uint32_t gid)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TMKDIR, fid);

	if (!r)
		return -ENOMEM;
	p9_putstr(&r->out, name);
	p9_put32(&r->out, mode);
	p9_put32(&r->out, gid);
	return call(op, r);
}

int call_mknod(struct op *op, uint32_t fid, const char *name, uint32_t mode, uint32_t major, uint32_t minor,
	       uint32_t gid)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TMKNOD, fid);

	if (!r)
		return -ENOMEM;
	p9_putstr(&r->out, name);
	p9_put32(&r->out, mode);
	p9_put32(&r->out, major);
	p9_put32(&r->out, minor);
	p9_put32(&r->out, gid);
	return call(op, r);
}

int call_symlink(struct op *op, uint32_t fid, const char *name, const char *target, uint32_t gid)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TSYMLINK, fid);

	if (!r)
		return -ENOMEM;
	p9_putstr(&r->out, name);
	p9_putstr(&r->out, target);
	p9_put32(&r->out, gid);
	return call(op, r);
}

int call_link(struct op *op, uint32_t dir, uint32_t fid, const char *name)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TLINK, dir);

	if (!r)
		return -ENOMEM;
	p9_put32(&r->out, fid);
	p9_putstr(&r->out, name);
	return call(op, r);
}

int call_rename(struct op *op, uint32_t fid, uint32_t dir, const char *name)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TRENAME, fid);

	if (!r)
		return -ENOMEM;
	p9_put32(&r->out, dir);
	p9_putstr(&r->out, name);
	return call(op, r);
}

int call_renameat(struct op *op, uint32_t dir, const char *name, uint32_t newdir, const char *newname)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TRENAMEAT, dir);

	if (!r)
		return -ENOMEM;
	p9_putstr(&r->out, name);
	p9_put32(&r->out, newdir);
	p9_putstr(&r->out, newname);
	return call(op, r);
}

int call_unlinkat(struct op *op, uint32_t dir, const char *name, uint32_t flags)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TUNLINKAT, dir);

	if (!r)
		return -ENOMEM;
	p9_putstr(&r->out, name);
	p9_put32(&r->out, flags);
	return call(op, r);
}

int call_plain(struct op *op, uint8_t type, uint32_t fid)
{
	_cleanup_rpc_ struct rpc *r = call_new(op, type, fid);

	return call(op, r);
}
