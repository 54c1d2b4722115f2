// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shows a request to the handler of its opcode, and its answer to the driver: if it is still true, and
 * one that the driver would have taken from a daemon.
 */
#include <linux/filter.h>
#include <linux/highmem.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/timekeeping.h>
#include <linux/user_namespace.h>
#include <linux/uidgid.h>
#include <linux/cred.h>
#include <linux/limits.h>

#include "kmod.h"

/* Where an opcode has its name and its fixed argument, and whether it may be answered. */
static const struct shape {
	u8 answerable : 1;
	u8 forced : 1;		/* also where the driver sends it by force: there is nothing in the answer */
	s8 name, fixed;		/* index of in_args, -1: none */
} shapes[EXTFUSE_OPCODES] = {
	[FUSE_LOOKUP] = { 1, 0, 0, -1 },
	[FUSE_GETATTR] = { 1, 0, -1, 0 },
	[FUSE_READLINK] = { 1, 0, -1, -1 },
	[FUSE_OPEN] = { 1, 0, -1, 0 },
	[FUSE_READ] = { 1, 0, -1, 0 },
	[FUSE_WRITE] = { 1, 0, -1, 0 },
	[FUSE_STATFS] = { 1, 0, -1, -1 },
	[FUSE_RELEASE] = { 1, 1, -1, 0 },
	[FUSE_GETXATTR] = { 1, 0, 1, 0 },
	[FUSE_LISTXATTR] = { 1, 0, -1, 0 },
	[FUSE_FLUSH] = { 1, 1, -1, 0 },
	[FUSE_OPENDIR] = { 1, 0, -1, 0 },
	[FUSE_RELEASEDIR] = { 1, 1, -1, 0 },
	[FUSE_ACCESS] = { 1, 0, -1, 0 },
	[FUSE_LSEEK] = { 1, 0, -1, 0 },
};

/* What was shown last on this processor. */
static struct extfuse_request __percpu *shown;
DEFINE_PER_CPU(struct extfuse_unforeseen, extfuse_unforeseen);

int extfuse_answers_init(void)
{
	shown = alloc_percpu(struct extfuse_request);
	return shown ? 0 : -ENOMEM;
}

void extfuse_answers_exit(void)
{
	free_percpu(shown);
}

u64 extfuse_answerable(void)
{
	u64 set = 0;
	int op;

	for (op = 0; op < EXTFUSE_OPCODES; op++)
		set |= (u64)shapes[op].answerable << op;
	return set;
}

static void set_ids(struct extfuse_request *req, const struct fuse_conn *fc)
{
	req->flags |= EXTFUSE_REQ_IDS;
	req->uid = from_kuid_munged(EXTFUSE_USER_NS(fc), current_fsuid());
	req->gid = from_kgid_munged(EXTFUSE_USER_NS(fc), current_fsgid());
	req->pid = pid_nr_ns(task_pid(current), EXTFUSE_PID_NS(fc));
}

/* The driver asks for longer names than there can be: these must not be taken for their beginnings. */
static bool too_long(const struct fuse_in_arg *arg)
{
	return arg->size > EXTFUSE_NAME_MAX &&
		(arg->size > EXTFUSE_NAME_MAX + 1 || ((const char *)arg->value)[EXTFUSE_NAME_MAX]);
}

/* Pads with zeros up to a multiple of 8, with at least one. 0: it is none that a handler is shown. */
static u32 copy_name(u8 *to, const struct fuse_in_arg *arg)
{
	u32 len = too_long(arg) ? 0 : extfuse_name_len(arg);

	((u64 *)to)[len / 8] = 0;
	memcpy(to, arg->value, len);
	return len;
}

/* False: such arguments are for the daemon. */
static bool show(struct extfuse_request *req, struct extfuse_context *ctx, const struct fuse_args *args,
	const struct shape *shape, u32 flags)
{
	/* Whatever a careless handler leaves as it was must not be another one's answer. */
	if (flags & EXTFUSE_PROGRAM_CLEARED)
		memset(req, 0, sizeof(*req));
	if (args->out_numargs > 1 || max(shape->name, shape->fixed) >= args->in_numargs)
		return false;
	req->opcode = args->opcode;
	req->nodeid = args->nodeid;
	req->flags = args->out_argvar ? EXTFUSE_REQ_ARGVAR : 0;
	req->now = ktime_get_coarse_boottime_ns();
	req->in_size = 0;
	req->out_max = args->out_numargs ? args->out_args[0].size : 0;
	req->error = 0;
	req->out_size = 0;
	req->node_index = 0;
	req->ndeps = 0;
	req->expires = 0;
	req->name_len = 0;
	if (shape->name >= 0) {
		req->name_len = copy_name(req->name, &args->in_args[(int)shape->name]);
		if (!req->name_len)
			return false;
	}
	if (shape->fixed >= 0) {
		const struct fuse_in_arg *in = &args->in_args[(int)shape->fixed];

		if (in->size > EXTFUSE_IN_SIZE)
			return false;
		memcpy(req->in, in->value, in->size);
		req->in_size = in->size;
	}
	if (flags & EXTFUSE_PROGRAM_IDS)
		set_ids(req, ctx->fc);
	return true;
}

static u32 run(const struct bpf_prog *prog, struct extfuse_request *req)
{
	struct bpf_trace_run_ctx run_ctx = {};
	struct bpf_run_ctx *before = bpf_set_run_ctx(&run_ctx.run_ctx);
	u64 arguments[1] = { (unsigned long)req };
	u32 result;

	/* Hash maps ask for this one (a WARN with PROVE_RCU); preemption disabled is not enough. */
	rcu_read_lock();
	result = bpf_prog_run(prog, arguments);
	rcu_read_unlock();
	bpf_reset_run_ctx(before);
	return result;
}

/* ---- is it still true? ---- */

static bool idle(const struct extfuse_context *ctx, u32 index)
{
	const struct extfuse_word *word = &ctx->words[index];

	return !(READ_ONCE(word->state) & EXTFUSE_WORD_BUSY) && !READ_ONCE(word->held);
}

static bool holds(const struct extfuse_context *ctx, u32 index, u64 stamp, u64 own)
{
	const struct extfuse_word *word = &ctx->words[index];
	u64 state = READ_ONCE(word->state), prev;
	u32 held;

	smp_rmb();
	prev = READ_ONCE(word->prev);
	held = READ_ONCE(word->held);
	smp_rmb();
	return !(state & EXTFUSE_WORD_BUSY) && !held && READ_ONCE(word->state) == state &&
		(state >> EXTFUSE_WORD_TIME <= stamp || prev < own);
}

bool extfuse_is_true(struct extfuse_context *ctx, const struct extfuse_grounds *grounds, u32 op, u64 nodeid,
	u32 own, u64 now)
{
	u64 least = U64_MAX;
	u32 i, index;

	if (grounds->n > EXTFUSE_DEPS || (grounds->expires && grounds->expires <= now))
		return false;
	/* What the handler read, it read before this. */
	smp_rmb();
	if (!idle(ctx, own))
		return false;
	for (i = 0; i < grounds->n; i++) {
		const struct extfuse_dep *dep = &grounds->deps[i];

		if (dep->kind == EXTFUSE_DEP_NODE)
			index = extfuse_node_word(ctx, dep->nodeid);
		else if (dep->kind == EXTFUSE_DEP_NAME && op == FUSE_LOOKUP)
			index = own;
		else if (dep->kind == EXTFUSE_DEP_DIR)
			index = extfuse_word_dir(ctx->seed, ctx->word_bits, nodeid);
		else
			return false;
		/* First: it may find that it holds no longer. */
		if (dep->kind == EXTFUSE_DEP_NODE && READ_ONCE(ctx->standing_count) &&
		    extfuse_was_read(ctx, dep->nodeid))
			return false;
		if (!holds(ctx, index, dep->stamp, dep->own))
			return false;
		least = min(least, dep->stamp);
	}
	return holds(ctx, 0, least, 0);
}

static bool is_true(struct extfuse_context *ctx, const struct extfuse_request *req, u32 op, u64 nodeid, u32 own,
	u64 now)
{
	const struct extfuse_grounds grounds = { req->deps, req->expires, req->ndeps };

	return extfuse_is_true(ctx, &grounds, op, nodeid, own, now);
}

/* ---- would the driver take it? ---- */

static bool good_attr(const struct fuse_attr *attr)
{
	switch (attr->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return attr->size <= LLONG_MAX;
	default:
		return false;
	}
}

static bool good_entry(const struct fuse_entry_out *entry)
{
	return !entry->nodeid || (entry->nodeid != FUSE_ROOT_ID && good_attr(&entry->attr));
}

static bool acceptable(const struct extfuse_request *req, const struct fuse_args *args)
{
	u32 max = args->out_numargs ? args->out_args[0].size : 0;

	if (req->error)
		return req->error > -512 && req->error < 0 && req->error != -ENOSYS && req->error != -EINTR &&
			args->opcode != FUSE_RELEASE && args->opcode != FUSE_RELEASEDIR;
	if (req->out_size > EXTFUSE_OUT_SIZE || (args->out_argvar ?
		req->out_size > max : req->out_size != max))
		return false;
	switch (args->opcode) {
	case FUSE_LOOKUP:
		return max == sizeof(struct fuse_entry_out) && good_entry((const void *)req->out);
	case FUSE_GETATTR:
		return max == sizeof(struct fuse_attr_out) &&
			good_attr(&((const struct fuse_attr_out *)req->out)->attr);
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
		/* Where only the size is asked for. */
		return args->out_argvar || ((const struct fuse_getxattr_out *)req->out)->size <= XATTR_SIZE_MAX;
	case FUSE_READ:
	case FUSE_WRITE:
		return false;
	default:
		return true;
	}
}

/* ---- nlookup ---- */

static bool grant(struct extfuse_context *ctx, u32 index, u64 nodeid)
{
	struct extfuse_node *node;
	u64 grants;

	if (index >= ctx->nodes_max)
		return false;
	node = &ctx->nodes[index];
	grants = READ_ONCE(node->grants);
	do {
		if (grants & EXTFUSE_NODE_DEAD || (grants & EXTFUSE_NODE_COUNT) == EXTFUSE_NODE_COUNT)
			return false;
		/* After the grants: those of another life of the record have another value. */
		smp_rmb();
		if (READ_ONCE(node->nodeid) != nodeid)
			return false;
	} while (!try_cmpxchg(&node->grants, &grants, grants + 1));
	return true;
}

/* ---- together ---- */

static void hand_over(const struct extfuse_request *req, struct fuse_args *args)
{
	u32 size = req->out_size;

	if (!args->out_numargs)
		return;
	if (args->out_pages)
		memcpy_to_page(extfuse_page(args, 0), extfuse_page_offset(args, 0), req->out, size);
	else
		memcpy(args->out_args[0].value, req->out, size);
	if (args->out_argvar)
		args->out_args[0].size = size;
}

static bool room(const struct extfuse_request *req, const struct fuse_args *args)
{
	return req->error || !args->out_pages || (extfuse_pages(args) &&
		req->out_size <= extfuse_page_length(args, 0));
}

static enum extfuse_result check(struct extfuse_context *ctx, const struct extfuse_request *req,
	const struct fuse_args *args, u32 own, u64 now)
{
	u64 child;

	if (!acceptable(req, args) || !room(req, args)) {
		extfuse_count(ctx, args->opcode, refused);
		return EXTFUSE_UPCALL;
	}
	child = args->opcode == FUSE_LOOKUP && !req->error ?
		((struct fuse_entry_out *)req->out)->nodeid : 0;
	/* The grant comes last: it is not taken back. */
	if (!is_true(ctx, req, args->opcode, args->nodeid, own, now) ||
	    (child && !grant(ctx, req->node_index, child))) {
		extfuse_count(ctx, args->opcode, stale);
		return EXTFUSE_UPCALL;
	}
	extfuse_count(ctx, args->opcode, hits);
	return EXTFUSE_RETURN;
}

static enum extfuse_result check_passthru(struct extfuse_context *ctx,
	const struct extfuse_request *req, const struct fuse_args *args, u32 own, u64 now)
{
	if (args->opcode != FUSE_READ && args->opcode != FUSE_WRITE) {
		extfuse_count(ctx, args->opcode, refused);
		return EXTFUSE_UPCALL;
	}
	/* The file has the data whatever is under way; others may write to it at the same time. */
	if (req->ndeps && !is_true(ctx, req, args->opcode, args->nodeid, own, now)) {
		extfuse_count(ctx, args->opcode, stale);
		return EXTFUSE_UPCALL;
	}
	return EXTFUSE_PASSTHRU;
}

/*
 * What a request with this one argument would be answered, without the request: nothing is granted or
 * handed over for it. NULL: the daemon would be asked. With preemption disabled; it stays until that is
 * enabled.
 */
const struct extfuse_request *extfuse_ask_early(struct extfuse_context *ctx, u32 op, u64 nodeid,
	const struct fuse_in_arg *in, u32 out_size, u32 own)
{
	const struct bpf_prog *prog = rcu_dereference_sched(ctx->programs[op]);
	struct extfuse_request *req = this_cpu_ptr(shown);
	struct fuse_args args;
	u64 now;

	if (!prog)
		return NULL;
	args = (struct fuse_args){ .opcode = op, .nodeid = nodeid, .in_numargs = 1, .out_numargs = 1,
		.in_args[0] = *in, .out_args[0].size = out_size };
	if (!extfuse_alive(ctx->fc) || !show(req, ctx, &args, &shapes[op], 0))
		return NULL;
	now = req->now;
	return run(prog, req) == EXTFUSE_RETURN && acceptable(req, &args) &&
		is_true(ctx, req, op, nodeid, own, now) ? req : NULL;
}

bool extfuse_is_passed(struct extfuse_context *ctx, const struct fuse_args *args, u32 own)
{
	const struct bpf_prog *prog = rcu_dereference_sched(ctx->programs[args->opcode]);
	struct extfuse_request *req = this_cpu_ptr(shown);
	u64 now;

	if (!prog || !extfuse_alive(ctx->fc) ||
	    !show(req, ctx, args, &shapes[args->opcode], READ_ONCE(ctx->program_flags[args->opcode])))
		return false;
	now = req->now;
	return run(prog, req) == EXTFUSE_PASSTHRU &&
		(!req->ndeps || is_true(ctx, req, args->opcode, args->nodeid, own, now));
}

struct extfuse_answered extfuse_answer(struct extfuse_context *ctx, struct fuse_args *args, u32 own)
{
	const struct bpf_prog *prog = rcu_dereference_sched(ctx->programs[args->opcode]);
	u32 flags = READ_ONCE(ctx->program_flags[args->opcode]);
	const struct shape *shape = &shapes[args->opcode];
	struct extfuse_request *req = this_cpu_ptr(shown);
	struct extfuse_answered answered = { EXTFUSE_UPCALL, 0 };
	u64 now;

	if (!prog || (args->force && !shape->forced) || !extfuse_alive(ctx->fc) || !show(req, ctx, args, shape, flags))
		return answered;
	/* Programs may write anywhere in the request, so nothing of what they were shown is used again. */
	now = req->now;
	switch (run(prog, req)) {
	case EXTFUSE_RETURN:
		answered.what = check(ctx, req, args, own, now);
		break;
	case EXTFUSE_PASSTHRU:
		answered.what = check_passthru(ctx, req, args, own, now);
		break;
	default:
		extfuse_count(ctx, args->opcode, misses);
	}
	if (answered.what == EXTFUSE_RETURN) {
		if (!req->error)
			hand_over(req, args);
		/* Of one type, or an error would become a large size. */
		answered.result = req->error ? (long)req->error : args->out_argvar ? (long)req->out_size : 0;
	}
	return answered;
}
