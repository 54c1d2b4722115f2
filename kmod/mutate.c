// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a request to the daemon changes, and the words that stand for that: busy from before it until
 * after.
 */
#include <linux/dcache.h>

#include "kmod.h"

/* ---- words ---- */

/* The daemon may write there, too, at any time: it must not keep the kernel busy. */
#define TRIES 1000

static void raise_prev(u64 *prev, u64 to)
{
	u64 is = READ_ONCE(*prev);
	int i;

	for (i = 0; i < TRIES && is < to; i++)
		if (try_cmpxchg(prev, &is, to))
			return;
}

static void over(struct extfuse_context *ctx, u32 index, u64 begun)
{
	struct extfuse_word *word = &ctx->words[index];
	u64 now = atomic64_inc_return((atomic64_t *)&ctx->area->clock);
	u64 state = READ_ONCE(word->state), time;
	int i;

	for (i = 0; i < TRIES; i++) {
		time = state >> EXTFUSE_WORD_TIME;
		raise_prev(&word->prev, time);
		if (try_cmpxchg(&word->state, &state,
				max(time, now) << EXTFUSE_WORD_TIME | ((state - begun) & EXTFUSE_WORD_BUSY)))
			return;
	}
}

void extfuse_word_end(struct extfuse_context *ctx, u32 index)
{
	over(ctx, index, 1);
}

void extfuse_word_bump(struct extfuse_context *ctx, u32 index)
{
	over(ctx, index, 0);
}

/* ---- which ---- */

/* Once each: a word that is busy twice has a second request, to the daemon. */
static void touch(struct extfuse_touched *t, u32 index)
{
	u32 i;

	for (i = 0; i < t->n; i++)
		if (t->index[i] == index)
			return;
	t->index[t->n++] = index;
}

static void touch_node(struct extfuse_context *ctx, struct extfuse_touched *t, u64 nodeid)
{
	touch(t, extfuse_node_word(ctx, nodeid));
}

static void touch_name(struct extfuse_context *ctx, struct extfuse_touched *t, u64 parent,
	const struct fuse_in_arg *arg)
{
	touch(t, extfuse_name_word(ctx, parent, arg->value, extfuse_name_len(arg)));
}

/* A name comes or goes: the directory's own attributes change, too. */
static void touch_entry(struct extfuse_context *ctx, struct extfuse_touched *t, u64 parent,
	const struct fuse_in_arg *name)
{
	touch_node(ctx, t, parent);
	touch_name(ctx, t, parent, name);
}

static void touch_new_entry(struct extfuse_context *ctx, struct extfuse_touched *t, u64 parent,
	const struct fuse_in_arg *name)
{
	touch_entry(ctx, t, parent, name);
	touch(t, extfuse_word_dir(ctx->seed, ctx->word_bits, parent));
}

static int has_nodeid(struct inode *inode, void *nodeid)
{
	return EXTFUSE_NODEID(inode) == *(u64 *)nodeid;
}

/*
 * The link count and ctime of what loses a name change. The kernel has that name in its cache while it
 * asks the daemon to remove it: where that is not so, everything may be it.
 */
static void touch_child(struct extfuse_context *ctx, struct fuse_mount *fm, struct extfuse_touched *t,
	u64 parent, const struct fuse_in_arg *arg)
{
	struct inode *dir = fm->sb ? ilookup5(fm->sb, parent, has_nodeid, &parent) : NULL;
	struct dentry *in = dir ? d_find_any_alias(dir) : NULL, *child = NULL;
	struct qstr name = QSTR_INIT(arg->value, extfuse_name_len(arg));

	if (in)
		child = d_hash_and_lookup(in, &name);
	if (IS_ERR_OR_NULL(child))
		touch(t, 0);
	else if (d_really_is_positive(child))
		touch_node(ctx, t, EXTFUSE_NODEID(d_inode(child)));
	if (!IS_ERR_OR_NULL(child))
		dput(child);
	dput(in);
	iput(dir);
}

static void touch_rename(struct extfuse_context *ctx, struct fuse_mount *fm, struct extfuse_touched *t,
	const struct fuse_args *args)
{
	/* struct fuse_rename_in is the beginning of struct fuse_rename2_in. */
	u64 to = ((const struct fuse_rename_in *)args->in_args[0].value)->newdir;

	touch_entry(ctx, t, args->nodeid, &args->in_args[1]);
	touch_new_entry(ctx, t, to, &args->in_args[2]);
	touch_child(ctx, fm, t, args->nodeid, &args->in_args[1]);
	touch_child(ctx, fm, t, to, &args->in_args[2]);
}

static void find_touched(struct extfuse_context *ctx, struct fuse_mount *fm,
	const struct fuse_args *args, struct extfuse_touched *t)
{
	const struct fuse_in_arg *in = args->in_args;

	t->n = 0;
	if (args->opcode >= EXTFUSE_OPCODES) {
		touch(t, 0);
		return;
	}
	switch (args->opcode) {
	case FUSE_SYMLINK:
		touch_new_entry(ctx, t, args->nodeid, &in[0]);
		break;
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_CREATE:
		touch_new_entry(ctx, t, args->nodeid, &in[1]);
		break;
	case FUSE_LINK:
		touch_new_entry(ctx, t, args->nodeid, &in[1]);
		touch_node(ctx, t, ((const struct fuse_link_in *)in[0].value)->oldnodeid);
		break;
	case FUSE_UNLINK:
	case FUSE_RMDIR:
		touch_entry(ctx, t, args->nodeid, &in[0]);
		touch_child(ctx, fm, t, args->nodeid, &in[0]);
		break;
	case FUSE_RENAME:
	case FUSE_RENAME2:
		touch_rename(ctx, fm, t, args);
		break;
	case FUSE_COPY_FILE_RANGE:
		touch_node(ctx, t, ((const struct fuse_copy_file_range_in *)in[0].value)->nodeid_out);
		break;
	default:
		touch_node(ctx, t, args->nodeid);
	}
}

void extfuse_begin(struct extfuse_context *ctx, struct fuse_mount *fm, const struct fuse_args *args,
	struct extfuse_touched *t)
{
	u32 i;

	find_touched(ctx, fm, args, t);
	for (i = 0; i < t->n; i++) {
		extfuse_word_begin(ctx, t->index[i]);
		WRITE_ONCE(ctx->words[t->index[i]].marked, 0);
	}
	/* Nothing is asked of the daemon before others see that. */
	smp_mb();
	extfuse_count(ctx, args->opcode, mutations);
}

/* A file that others had made meanwhile, and that was truncated. */
static bool may_truncate(const struct fuse_args *args)
{
	u32 flags = ((const struct fuse_create_in *)args->in_args[0].value)->flags;

	return (flags & O_TRUNC) && !(flags & O_EXCL);
}

void extfuse_end(struct extfuse_context *ctx, const struct fuse_args *args,
	const struct extfuse_touched *t, long result)
{
	u32 i;

	if (args->opcode == FUSE_CREATE && !result && may_truncate(args))
		extfuse_word_bump(ctx, extfuse_node_word(ctx,
			((const struct fuse_entry_out *)args->out_args[0].value)->nodeid));
	for (i = 0; i < t->n; i++)
		extfuse_word_end(ctx, t->index[i]);
}
