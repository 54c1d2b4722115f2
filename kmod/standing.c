// SPDX-License-Identifier: GPL-2.0-only
/*
 * Files that the daemon has opened once for all who open them for reading: OPEN is answered by the daemon's
 * handle, and RELEASE of that is answered, too. How many opens there are is known here only, so what the daemon
 * ends is ended when the last of them is released: that RELEASE is left to the daemon.
 *
 * Of these reads the driver sees none, or sees them without a request: so what is known of such a node holds as
 * long as its time of access stays.
 */
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/slab.h>

#include "kmod.h"

struct standing {
	struct hlist_node node;
	struct rcu_head rcu;
	u64 nodeid;
	u64 fh;
	struct file *file;
	const struct inode *inode;	/* of that: in memory for as long as RCU lets this be seen */
	struct fuse_open_out out;
	atomic_t opens;			/* with ENDED */
	u64 accessed;			/* ns; what was put for the node is not older */
};

#define ENDED	(1 << 30)
#define OPENS	(ENDED - 1)

/* O_RDONLY is 0; the rest does not change what a handle is. */
#define ACCEPTED (O_LARGEFILE | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | __FMODE_EXEC)

static struct standing *find_open(struct extfuse_context *ctx, u64 nodeid)
{
	struct standing *s;

	hash_for_each_possible_rcu_notrace(ctx->standing, s, node, nodeid) {
		if (s->nodeid == nodeid && !(atomic_read(&s->opens) & ENDED))
			return s;
	}
	return NULL;
}

static struct standing *find_handle(struct extfuse_context *ctx, u64 nodeid, u64 fh)
{
	struct standing *s;

	hash_for_each_possible_rcu_notrace(ctx->standing, s, node, nodeid) {
		if (s->nodeid == nodeid && s->fh == fh)
			return s;
	}
	return NULL;
}

static u64 atime_ns(const struct standing *s)
{
	struct timespec64 t = extfuse_atime(s->inode);

	return (u64)t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* First it is seen that what was put is too old, and then that this was seen. */
static bool note_reads(struct extfuse_context *ctx, struct standing *s)
{
	u64 now = atime_ns(s);

	if (now == READ_ONCE(s->accessed)) {
		/* Who goes on judges the word after this. */
		smp_rmb();
		return false;
	}
	extfuse_word_bump(ctx, extfuse_node_word(ctx, s->nodeid));
	smp_wmb();
	WRITE_ONCE(s->accessed, now);
	return true;
}

bool extfuse_was_read(struct extfuse_context *ctx, u64 nodeid)
{
	struct standing *s;
	bool read = false;

	hash_for_each_possible_rcu_notrace(ctx->standing, s, node, nodeid) {
		if (s->nodeid == nodeid)
			read |= note_reads(ctx, s);
	}
	return read;
}

/* With the lock. Two may find that nobody has it open any more. The file that is to be let go of, or NULL. */
static struct file *take_out(struct extfuse_context *ctx, struct standing *s)
{
	struct file *file = s->file;

	if (hlist_unhashed(&s->node))
		return NULL;
	note_reads(ctx, s);
	hash_del_rcu(&s->node);
	WRITE_ONCE(ctx->standing_count, ctx->standing_count - 1);
	kfree_rcu(s, rcu);
	return file;
}

static void let_go(struct file *file)
{
	if (file)
		fput(file);
}

/* ---- requests: with preemption disabled ---- */

static bool grant_open(struct extfuse_context *ctx, const struct fuse_args *args)
{
	const struct fuse_open_in *in = args->in_args[0].value;
	struct standing *s;
	int opens;

	if (args->in_numargs != 1 || args->out_numargs != 1 || args->out_args[0].size != sizeof(s->out) ||
	    in->flags & ~ACCEPTED || in->open_flags || !extfuse_alive(ctx->fc))
		return false;
	s = find_open(ctx, args->nodeid);
	/* The daemon knows best what has become of a file that somebody else has removed or replaced. */
	if (!s || !READ_ONCE(s->inode->i_nlink))
		return false;
	opens = atomic_read(&s->opens);
	do {
		if (opens & ENDED || opens == OPENS)
			return false;
	} while (!atomic_try_cmpxchg(&s->opens, &opens, opens + 1));
	memcpy(args->out_args[0].value, &s->out, sizeof(s->out));
	return true;
}

static enum extfuse_stands take_back(struct extfuse_context *ctx, const struct fuse_args *args)
{
	const struct fuse_release_in *in = args->in_args[0].value;
	struct standing *s = args->in_numargs == 1 ? find_handle(ctx, args->nodeid, in->fh) : NULL;
	struct file *file;
	int opens;

	if (!s)
		return EXTFUSE_NOT_STANDING;
	opens = atomic_read(&s->opens);
	do {
		/* This open was not answered here. */
		if (!(opens & OPENS))
			return EXTFUSE_NOT_STANDING;
	} while (!atomic_try_cmpxchg(&s->opens, &opens, opens - 1));
	/* The last one, of a file that is ended, is the daemon's. */
	if (opens - 1 != ENDED)
		return EXTFUSE_STANDS;
	raw_spin_lock(&ctx->standing_lock);
	file = take_out(ctx, s);
	raw_spin_unlock(&ctx->standing_lock);
	let_go(file);
	return EXTFUSE_LAST_RELEASE;
}

enum extfuse_stands extfuse_ask_standing(struct extfuse_context *ctx, const struct fuse_args *args)
{
	enum extfuse_stands stands = args->opcode == FUSE_RELEASE ? take_back(ctx, args) :
		grant_open(ctx, args) ? EXTFUSE_STANDS : EXTFUSE_NOT_STANDING;

	if (stands == EXTFUSE_STANDS)
		extfuse_count(ctx, args->opcode, hits);
	return stands;
}

/* ---- the daemon ---- */

static struct standing *new_standing(const struct extfuse_standing *arg)
{
	struct standing *s = kzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);
	int err = -EBADF;

	if (!s)
		return ERR_PTR(-ENOMEM);
	s->nodeid = arg->nodeid;
	s->fh = arg->fh;
	s->out.fh = arg->fh;
	s->out.open_flags = arg->open_flags;
	/* Where older kernels have padding. */
	memcpy((char *)&s->out + offsetofend(struct fuse_open_out, open_flags), &arg->backing_id,
		sizeof(arg->backing_id));
	s->file = fget(arg->fd);
	if (s->file) {
		s->inode = file_inode(s->file);
		err = s->inode->i_nlink ? extfuse_fit_for_backing(s->file) : -ESTALE;
		if (!err)
			return s;
		fput(s->file);
	}
	kfree(s);
	return ERR_PTR(err);
}

/* 0, or why there can be no more. With the lock. */
static int room_for(struct extfuse_context *ctx, const struct extfuse_standing *arg)
{
	struct standing *s;
	int n = 0;

	hash_for_each_possible(ctx->standing, s, node, arg->nodeid) {
		if (s->nodeid != arg->nodeid)
			continue;
		if (s->fh == arg->fh || !(atomic_read(&s->opens) & ENDED))
			return -EEXIST;
		n++;
	}
	return n < EXTFUSE_STANDING_OF_NODE && ctx->standing_count < EXTFUSE_STANDING_MAX ? 0 : -ENOSPC;
}

static int add(struct extfuse_context *ctx, const struct extfuse_standing *arg)
{
	struct standing *s = new_standing(arg);
	int err;

	if (IS_ERR(s))
		return PTR_ERR(s);
	raw_spin_lock(&ctx->standing_lock);
	err = room_for(ctx, arg);
	if (!err) {
		/* What the caller has put is answered again only when this is looked at. */
		s->accessed = atime_ns(s);
		hash_add_rcu(ctx->standing, &s->node, s->nodeid);
		WRITE_ONCE(ctx->standing_count, ctx->standing_count + 1);
		extfuse_word_bump(ctx, extfuse_node_word(ctx, s->nodeid));
	}
	raw_spin_unlock(&ctx->standing_lock);
	if (err) {
		fput(s->file);
		kfree(s);
	}
	return err;
}

/* How often it is open still. */
static int end(struct extfuse_context *ctx, const struct extfuse_standing *arg)
{
	struct file *file = NULL;
	struct standing *s;
	int opens = -ENOENT;

	raw_spin_lock(&ctx->standing_lock);
	s = find_handle(ctx, arg->nodeid, arg->fh);
	if (s) {
		opens = atomic_fetch_or(ENDED, &s->opens) & OPENS;
		if (!opens)
			file = take_out(ctx, s);
	}
	raw_spin_unlock(&ctx->standing_lock);
	let_go(file);
	return opens;
}

int extfuse_set_standing(struct extfuse_context *ctx, const struct extfuse_standing *arg)
{
	if (arg->flags || arg->fd < -1)
		return -EINVAL;
	return arg->fd < 0 ? end(ctx, arg) : add(ctx, arg);
}

/* Nobody looks for any by now. */
void extfuse_drop_standing(struct extfuse_context *ctx)
{
	struct hlist_node *next;
	struct standing *s;
	int i;

	hash_for_each_safe(ctx->standing, i, next, s, node) {
		hash_del(&s->node);
		fput(s->file);
		kfree(s);
	}
}
