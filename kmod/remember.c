// SPDX-License-Identifier: GPL-2.0-only
/*
 * What handlers said last on this processor of names and attributes before there was a request. It is said again as
 * long as all that it rests on holds and nothing was put since: so a directory that many paths lead through is asked
 * about once. All of it with preemption disabled.
 */
#include <linux/ktime.h>

#include "kmod.h"

#define NAMES 32
#define ATTRS 16

struct remembered {
	struct extfuse_early *said;	/* of the name that was asked about last; NULL: nothing */
	struct extfuse_early names[NAMES], attrs[ATTRS];
};

static struct remembered __percpu *remembered;

int extfuse_remember_init(void)
{
	remembered = alloc_percpu(struct remembered);
	return remembered ? 0 : -ENOMEM;
}

void extfuse_remember_exit(void)
{
	free_percpu(remembered);
}

static u16 mark_of(const struct extfuse_context *ctx, const struct inode *inode)
{
	return READ_ONCE(ctx->words[extfuse_node_word(ctx, EXTFUSE_NODEID(inode))].marked);
}

/* Whether an answer about this node rests on no other one. */
static bool rests_on(const struct extfuse_request *req, u64 nodeid)
{
	u32 i;

	for (i = 0; i < req->ndeps; i++)
		if (req->deps[i].kind == EXTFUSE_DEP_NODE && req->deps[i].nodeid != nodeid)
			return false;
	return true;
}

/*
 * Asks the handler what `e` says; `nodeid` is the node whose mark is in it. What was put after the marks were read is
 * found or not: they differ then, and it is asked about once more.
 */
static bool ask(struct extfuse_context *ctx, struct extfuse_early *e, u32 op, const struct fuse_in_arg *in,
	u32 out_size, u64 nodeid)
{
	const struct extfuse_request *req;

	e->seed = 0;
	e->programs = smp_load_acquire(&ctx->programs_set);
	req = extfuse_ask_early(ctx, op, e->nodeid, in, out_size, e->own);
	if (!req)
		return false;
	e->error = req->error;
	e->grounds.expires = req->expires;
	e->grounds.n = req->ndeps;
	e->grounds.deps = e->deps;
	memcpy(e->deps, req->deps, req->ndeps * sizeof(req->deps[0]));
	memcpy(&e->out, req->out, out_size);
	if (rests_on(req, nodeid))
		e->seed = ctx->seed;
	return true;
}

static bool still_true(struct extfuse_context *ctx, const struct extfuse_early *e, u32 op)
{
	return e->programs == READ_ONCE(ctx->programs_set) && extfuse_alive(ctx->fc) &&
		extfuse_is_true(ctx, &e->grounds, op, e->nodeid, e->own,
			e->grounds.expires ? ktime_get_coarse_boottime_ns() : 0);
}

/* ---- names ---- */

/* Padded by zeros, as it is kept. */
static u64 last_step(const char *name, u32 len)
{
	return load_unaligned_zeropad(name) & bytemask_from_count(len);
}

static bool same_text(const struct extfuse_early *e, const char *name, u32 len)
{
	const u64 *step = e->name;

	if (e->name_len != len)
		return false;
	for (; len >= 8; len -= 8, name += 8)
		if (memcmp(step++, name, 8))
			return false;
	return !len || *step == last_step(name, len);
}

/* Longer ones are not found again. */
static void keep_text(struct extfuse_early *e, const char *name, u32 len)
{
	u64 *step = e->name;

	e->name_len = len <= sizeof(e->name) ? len : 0;
	for (len = e->name_len; len >= 8; len -= 8, name += 8)
		memcpy(step++, name, 8);
	if (len)
		*step = last_step(name, len);
}

struct extfuse_early *extfuse_early_name(struct extfuse_context *ctx, u64 dir, const struct extfuse_word *of_dir,
	const struct fuse_in_arg *name, u32 own, const struct inode *inode)
{
	struct remembered *r = this_cpu_ptr(remembered);
	struct extfuse_early *e = &r->names[own % NAMES];
	u16 mark = READ_ONCE(ctx->words[own].marked), dir_mark = READ_ONCE(of_dir->marked);
	u16 node_mark = inode ? mark_of(ctx, inode) : 0;

	if (e->seed == ctx->seed && e->nodeid == dir && e->own == own && e->mark == mark &&
	    e->dir_mark == dir_mark && e->node_mark == node_mark && same_text(e, name->value, name->size) &&
	    still_true(ctx, e, FUSE_LOOKUP)) {
		r->said = e;
		return e;
	}
	e->nodeid = dir;
	e->own = own;
	e->mark = mark;
	e->dir_mark = dir_mark;
	e->node_mark = node_mark;
	keep_text(e, name->value, name->size);
	/* The marks come before what the handler reads. */
	smp_rmb();
	r->said = ask(ctx, e, FUSE_LOOKUP, name, sizeof(e->out.entry), inode ? EXTFUSE_NODEID(inode) : 0) ? e : NULL;
	return r->said;
}

/* ---- attributes ---- */

/* Of one node both must say the same: where its name was just asked about, that has them, too. */
static const struct extfuse_early *just_said(struct extfuse_context *ctx, u64 nodeid, u16 mark)
{
	const struct extfuse_early *e = this_cpu_ptr(remembered)->said;

	return e && e->seed == ctx->seed && !e->error && e->out.entry.nodeid == nodeid && e->node_mark == mark &&
		still_true(ctx, e, FUSE_LOOKUP) ? e : NULL;
}

static const struct extfuse_early *early_attr(struct extfuse_context *ctx, u64 nodeid, u16 mark)
{
	static const struct fuse_getattr_in in;
	u32 own = extfuse_node_word(ctx, nodeid);
	struct extfuse_early *e = &this_cpu_ptr(remembered)->attrs[own % ATTRS];

	if (e->seed == ctx->seed && e->nodeid == nodeid && e->node_mark == mark &&
	    still_true(ctx, e, FUSE_GETATTR))
		return e;
	e->nodeid = nodeid;
	e->own = own;
	e->node_mark = mark;
	smp_rmb();
	return ask(ctx, e, FUSE_GETATTR, &(struct fuse_in_arg){ sizeof(in), &in }, sizeof(e->out.attr), nodeid) ?
		e : NULL;
}

const struct fuse_attr *extfuse_early_attr(struct extfuse_context *ctx, const struct inode *inode)
{
	u64 nodeid = EXTFUSE_NODEID(inode);
	const struct extfuse_early *e;
	u16 mark = mark_of(ctx, inode);

	e = just_said(ctx, nodeid, mark);
	if (e)
		return e->out.entry.attr_valid || e->out.entry.attr_valid_nsec ? NULL : &e->out.entry.attr;
	e = early_attr(ctx, nodeid, mark);
	return !e || e->error || e->out.attr.attr_valid || e->out.attr.attr_valid_nsec ? NULL : &e->out.attr.attr;
}
