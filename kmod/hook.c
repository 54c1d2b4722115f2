// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each request of the driver passes one of two functions, which are hooked by ftrace's direct calls:
 * hook.S comes here and then goes on with the function, or returns in its place.
 */
#include <linux/ftrace.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/slab.h>

#include "kmod.h"

static const struct extfuse_verdict go_on = { 0, 0 };

struct extfuse_verdict extfuse_sync_enter(void *a, void *b, void *c, unsigned long site);
struct extfuse_verdict extfuse_background_enter(struct fuse_mount *fm, struct fuse_args *args,
	gfp_t gfp, unsigned long site);
void extfuse_sync(void);
void extfuse_background(void);
void extfuse_revalidate(void);
void extfuse_getattr(void);
void extfuse_permission(void);
void extfuse_read(void);
long extfuse_original(void *a, void *b, void *c, unsigned long site);

/* ---- background requests that change something: their end ---- */

typedef void (*end_fn)(struct fuse_mount *fm, struct fuse_args *args, int error);

struct pending {
	struct hlist_node node;
	struct fuse_args *args;
	end_fn end;
	struct extfuse_context *ctx;
	struct extfuse_touched touched;
};

static DEFINE_HASHTABLE(pending, 8);
static DEFINE_SPINLOCK(pending_lock);

static struct pending *take_pending(struct fuse_args *args)
{
	struct pending *p, *found = NULL;

	spin_lock(&pending_lock);
	hash_for_each_possible(pending, p, node, (unsigned long)args) {
		if (p->args == args) {
			hash_del(&p->node);
			found = p;
			break;
		}
	}
	spin_unlock(&pending_lock);
	return found;
}

static void end_pending(struct pending *p, long result)
{
	extfuse_end(p->ctx, p->args, &p->touched, result);
	extfuse_put(p->ctx);
	kfree(p);
}

static void background_ended(struct fuse_mount *fm, struct fuse_args *args, int error)
{
	struct pending *p = take_pending(args);
	end_fn end;

	if (WARN_ON_ONCE(!p))
		return;
	end = p->end;
	args->end = end;
	end_pending(p, error);
	end(fm, args, error);
}

/* The driver calls this with spinlocks held, too. */
static long change_in_background(struct extfuse_context *ctx, struct fuse_mount *fm,
	struct fuse_args *args, gfp_t gfp, unsigned long site)
{
	struct pending *p = kmalloc(sizeof(*p), GFP_ATOMIC | __GFP_NOWARN);
	struct extfuse_touched lost;
	long result;

	if (!p) {
		/* Its end will not be seen, so what it changes is never answered again. */
		extfuse_begin(ctx, fm, args, &lost);
		extfuse_put(ctx);
		return extfuse_original(fm, args, (void *)(__force unsigned long)gfp, site);
	}
	p->args = args;
	p->end = args->end;
	p->ctx = ctx;
	extfuse_begin(ctx, fm, args, &p->touched);
	args->end = background_ended;
	spin_lock(&pending_lock);
	hash_add(pending, &p->node, (unsigned long)args);
	spin_unlock(&pending_lock);
	result = extfuse_original(fm, args, (void *)(__force unsigned long)gfp, site);
	if (result < 0) {
		/* The caller deals with it; nobody calls the end. */
		take_pending(args);
		args->end = p->end;
		end_pending(p, result);
	}
	return result;
}

/* ---- all requests ---- */

/* Of its handler; 0: it has none. */
static __always_inline u32 flags_of(const struct extfuse_context *ctx, u32 op)
{
	return op < EXTFUSE_OPCODES ? READ_ONCE(ctx->program_flags[op]) : 0;
}

/* The word of what the handler is to be asked for; 0: it is not asked. */
static __always_inline u32 name_to_ask(struct extfuse_context *ctx, const struct fuse_args *args, u32 flags)
{
	const char *name = args->in_args[0].value;
	u32 len = extfuse_name_len(&args->in_args[0]), own;
	const struct extfuse_word *of_dir;

	if (!(flags & EXTFUSE_PROGRAM_MARKED))
		return extfuse_name_word(ctx, args->nodeid, name, len);
	of_dir = extfuse_marked_dir(ctx, args->nodeid);
	own = of_dir ? extfuse_marked_name(ctx, of_dir, args->nodeid, name, len) : 0;
	if (!own)
		extfuse_count(ctx, FUSE_LOOKUP, misses);
	return own;
}

static __always_inline u32 node_to_ask(struct extfuse_context *ctx, const struct fuse_args *args, u32 flags)
{
	u32 own = extfuse_node_word(ctx, args->nodeid);

	if (!(flags & EXTFUSE_PROGRAM_MARKED) || READ_ONCE(ctx->words[own].marked))
		return own;
	extfuse_count(ctx, args->opcode, misses);
	return 0;
}

/*
 * A page that was dropped while a WRITE to it is under way must not be read as it was before: so READs wait for
 * WRITEs, and where the daemon does one, go there, too.
 */
static ssize_t read_behind_writes(struct extfuse_context *ctx, struct fuse_args *args,
	struct extfuse_backing_file *backing)
{
	const struct inode *inode = file_inode(backing->file);
	u32 word = extfuse_node_word(ctx, args->nodeid);
	struct timespec64 before, after;
	ssize_t n = -ENOSYS;

	down_read(&backing->order);
	before = extfuse_atime(inode);
	if (!(READ_ONCE(ctx->words[word].state) & EXTFUSE_WORD_BUSY))
		n = extfuse_read_backing(backing, args);
	up_read(&backing->order);
	after = extfuse_atime(inode);
	if (!timespec64_equal(&before, &after))
		extfuse_word_bump(ctx, word);
	return n;
}

/* Sleeps. -ENOSYS: to the daemon, after all. */
static ssize_t pass_through(struct extfuse_context *ctx, struct fuse_mount *fm, struct fuse_args *args,
	struct extfuse_backing_file *backing)
{
	struct extfuse_touched touched;
	ssize_t n;

	if (args->opcode == FUSE_WRITE) {
		down_write(&backing->order);
		extfuse_begin(ctx, fm, args, &touched);
		n = extfuse_write_backing(backing, args);
		extfuse_end(ctx, args, &touched, n);
		up_write(&backing->order);
	} else {
		n = read_behind_writes(ctx, args, backing);
	}
	if (n != -ENOSYS)
		extfuse_count(ctx, args->opcode, passthru);
	return n;
}

#define FM_OF(a, b) ((struct fuse_mount *)(EXTFUSE_SYNC_IDMAP ? (b) : (a)))
#define ARGS_OF(b, c) ((struct fuse_args *)(EXTFUSE_SYNC_IDMAP ? (c) : (b)))

/* What sleeps; `a`, `b`, `c` are the arguments of the driver's function. */
static noinline struct extfuse_verdict sync_sleeping(struct extfuse_context *ctx,
	struct extfuse_backing_file *backing, void *a, void *b, void *c, unsigned long site)
{
	struct fuse_args *args = ARGS_OF(b, c);
	struct extfuse_verdict v = { 1, -ENOSYS };
	struct extfuse_touched touched;

	if (backing) {
		v.result = pass_through(ctx, FM_OF(a, b), args, backing);
		extfuse_put_backing(backing);
		if (v.result >= 0 && !args->out_argvar)
			v.result = 0;
	}
	if (v.result == -ENOSYS && extfuse_mutates(args)) {
		extfuse_begin(ctx, FM_OF(a, b), args, &touched);
		v.result = extfuse_original(a, b, c, site);
		extfuse_end(ctx, args, &touched, v.result);
	} else if (v.result == -ENOSYS) {
		v.instead = 0;
	}
	extfuse_put(ctx);
	return v;
}

/* With preemption disabled. */
static noinline struct extfuse_verdict sync_ask(void *a, void *b, void *c, unsigned long site,
	struct extfuse_context *ctx, u32 own)
{
	struct fuse_args *args = ARGS_OF(b, c);
	struct extfuse_backing_file *backing = NULL;
	struct extfuse_answered answered = { EXTFUSE_UPCALL, 0 };

	if (own)
		answered = extfuse_answer(ctx, args, own);
	if (answered.what == EXTFUSE_RETURN) {
		preempt_enable();
		return (struct extfuse_verdict){ 1, answered.result };
	}
	if (answered.what == EXTFUSE_PASSTHRU)
		backing = extfuse_get_backing(ctx, args->nodeid);
	if (!backing && !extfuse_mutates(args)) {
		preempt_enable();
		return go_on;
	}
	refcount_inc(&ctx->refs);
	preempt_enable();
	return sync_sleeping(ctx, backing, a, b, c, site);
}

/* With preemption disabled. */
static noinline struct extfuse_verdict sync_name(void *a, void *b, void *c, unsigned long site,
	struct extfuse_context *ctx)
{
	u32 flags = flags_of(ctx, FUSE_LOOKUP);
	u32 own = flags ? name_to_ask(ctx, ARGS_OF(b, c), flags) : 0;

	if (own)
		return sync_ask(a, b, c, site, ctx, own);
	preempt_enable();
	return go_on;
}

/* With preemption disabled. */
static noinline struct extfuse_verdict sync_node(void *a, void *b, void *c, unsigned long site,
	struct extfuse_context *ctx)
{
	const struct fuse_args *args = ARGS_OF(b, c);
	enum extfuse_stands standing = extfuse_standing(ctx, args);
	u32 flags = flags_of(ctx, args->opcode), own = 0;

	if (standing == EXTFUSE_STANDS) {
		preempt_enable();
		return (struct extfuse_verdict){ 1, 0 };
	}
	if (flags && standing == EXTFUSE_NOT_STANDING)
		own = node_to_ask(ctx, args, flags);
	if (own || extfuse_mutates(args))
		return sync_ask(a, b, c, site, ctx, own);
	preempt_enable();
	return go_on;
}

/*
 * Each request comes here, those of mounts that have no context, too: so little is done here, and what takes more
 * registers is apart.
 */
struct extfuse_verdict extfuse_sync_enter(void *a, void *b, void *c, unsigned long site)
{
	const struct fuse_args *args = ARGS_OF(b, c);
	struct extfuse_context *ctx;
	u32 op = args->opcode;

	preempt_disable();
	ctx = extfuse_find(FM_OF(a, b)->fc);
	if (!ctx)
		goto no;
	if (op == FUSE_LOOKUP) {
		if (!extfuse_was_not_foreseen(EXTFUSE_NAME_IN(args->nodeid)))
			return sync_name(a, b, c, site, ctx);
	} else if (op != FUSE_GETATTR || !extfuse_was_not_foreseen(EXTFUSE_ATTR_OF(args->nodeid))) {
		return sync_node(a, b, c, site, ctx);
	}
	extfuse_count(ctx, op, misses);
no:
	preempt_enable();
	return go_on;
}

static bool background_by_backing(struct extfuse_context *ctx, struct fuse_mount *fm,
	struct fuse_args *args, struct extfuse_backing_file *backing)
{
	ssize_t n = pass_through(ctx, fm, args, backing);

	if (n == -ENOSYS)
		return false;
	args->end(fm, args, n < 0 ? n : 0);
	return true;
}

struct extfuse_verdict extfuse_background_enter(struct fuse_mount *fm, struct fuse_args *args,
	gfp_t gfp, unsigned long site)
{
	struct extfuse_backing_file *backing = NULL;
	struct extfuse_context *ctx;
	struct extfuse_answered answered = { EXTFUSE_UPCALL, 0 };
	enum extfuse_stands standing;
	struct extfuse_verdict v = { 1, 0 };
	u32 own, flags;
	bool mutates, done;

	preempt_disable();
	ctx = extfuse_find(fm->fc);
	if (!ctx) {
		preempt_enable();
		return go_on;
	}
	flags = flags_of(ctx, args->opcode);
	standing = extfuse_standing(ctx, args);
	if (standing == EXTFUSE_STANDS) {
		answered.what = EXTFUSE_RETURN;
	} else if (standing == EXTFUSE_NOT_STANDING && flags) {
		own = args->opcode == FUSE_LOOKUP ? name_to_ask(ctx, args, flags) : node_to_ask(ctx, args, flags);
		if (own)
			answered = extfuse_answer(ctx, args, own);
	}
	if (answered.what == EXTFUSE_RETURN) {
		/* The end may sleep, where it lets go of an inode. */
		refcount_inc(&ctx->refs);
		preempt_enable();
		if (args->end)
			args->end(fm, args, answered.result < 0 ? answered.result : 0);
		extfuse_put(ctx);
		return v;
	}
	/* Writeback comes with spinlocks held. */
	if (answered.what == EXTFUSE_PASSTHRU && gfpflags_allow_blocking(gfp) && !args->force)
		backing = extfuse_get_backing(ctx, args->nodeid);
	mutates = extfuse_mutates(args);
	if (!mutates && !backing) {
		preempt_enable();
		return go_on;
	}
	refcount_inc(&ctx->refs);
	preempt_enable();

	if (backing) {
		done = background_by_backing(ctx, fm, args, backing);
		extfuse_put_backing(backing);
		if (done) {
			extfuse_put(ctx);
			return v;
		}
	}
	if (!mutates) {
		extfuse_put(ctx);
		return go_on;
	}
	v.result = change_in_background(ctx, fm, args, gfp, site);
	return v;
}

/* ---- to ftrace ---- */

#ifdef EXTFUSE_HAS_SYNC_RELEASE
/* For the version of struct fuse_inode. */
static const void *const imported __used = fuse_sync_release;
#endif

struct hooked {
	const char *function;
	unsigned long address;		/* 0: it is looked for */
	void (*trampoline)(void);
	bool optional;
	struct ftrace_ops ops;
	bool on;
};

static struct hooked hooked[] = {
	{ .function = EXTFUSE_SYNC_FUNCTION, .trampoline = extfuse_sync },
	{ .function = "fuse_simple_background", .trampoline = extfuse_background,
	  .address = (unsigned long)fuse_simple_background },
#ifdef EXTFUSE_HAS_WALK
	{ .function = "fuse_dentry_revalidate", .trampoline = extfuse_revalidate, .optional = true },
	{ .function = "fuse_getattr", .trampoline = extfuse_getattr, .optional = true },
	{ .function = "fuse_permission", .trampoline = extfuse_permission, .optional = true },
#ifdef EXTFUSE_WRITEPAGES_AT
	{ .function = "fuse_file_read_iter", .trampoline = extfuse_read, .optional = true },
#endif
#endif
};

/* The kernel resolves names for kprobes only; one that is never armed tells the address. */
static unsigned long address_of(const char *function)
{
	struct kprobe kp = { .symbol_name = function, .flags = KPROBE_FLAG_DISABLED };
	char text[KSYM_SYMBOL_LEN], *plus;
	unsigned long address, offset = 0;

	if (register_kprobe(&kp) < 0)
		return 0;
	address = (unsigned long)kp.addr;
	unregister_kprobe(&kp);
	sprint_symbol(text, address);
	plus = strchr(text, '+');
	if (strncmp(text, function, strlen(function)) || !plus || sscanf(plus, "+0x%lx/", &offset) != 1)
		return 0;
	return address - offset;
}

static int hook_one(struct hooked *h)
{
	unsigned long address = h->address ? h->address : address_of(h->function);
	int err;

	if (!address) {
		pr_err("extfuse: this kernel has no function %s\n", h->function);
		return -ENOENT;
	}
	err = ftrace_set_filter_ip(&h->ops, address, 0, 0);
	if (!err)
		err = EXTFUSE_REGISTER_DIRECT(&h->ops, (unsigned long)h->trampoline);
	if (err) {
		pr_err("extfuse: %s can not be hooked: %d%s\n", h->function, err,
			err == -EBUSY ? " (something else is hooked there)" : "");
		ftrace_free_filter(&h->ops);
		return err;
	}
	/* Or kernel.ftrace_enabled = 0 would let mutations pass unseen. */
	h->ops.flags |= FTRACE_OPS_FL_PERMANENT;
	h->on = true;
	return 0;
}

int extfuse_hook(void)
{
	int i, err;

	for (i = 0; i < ARRAY_SIZE(hooked); i++) {
		err = hook_one(&hooked[i]);
		if (err && !hooked[i].optional) {
			extfuse_unhook();
			return err;
		}
	}
	return 0;
}

void extfuse_unhook(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(hooked); i++) {
		if (!hooked[i].on)
			continue;
		EXTFUSE_UNREGISTER_DIRECT(&hooked[i].ops, (unsigned long)hooked[i].trampoline);
		hooked[i].on = false;
	}
	/*
	 * Who sleeps in here has a reference of a context, so of the module; this is for who was preempted.
	 */
	synchronize_rcu_tasks();
}
