// SPDX-License-Identifier: GPL-2.0-only
/* Data from and to the file behind a node, without the daemon. */
#include <linux/bvec.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/magic.h>
#include <linux/slab.h>
#include <linux/uio.h>

#include "kmod.h"

/* ---- which file ---- */

atomic_long_t extfuse_backings;

static struct extfuse_backing_file *find_backing(struct extfuse_context *ctx, u64 nodeid)
{
	struct extfuse_backing_file *b;

	hash_for_each_possible_rcu(ctx->backing, b, node, nodeid) {
		if (b->nodeid == nodeid)
			return b;
	}
	return NULL;
}

/* With preemption disabled. */
struct extfuse_backing_file *extfuse_get_backing(struct extfuse_context *ctx, u64 nodeid)
{
	struct extfuse_backing_file *b;

	rcu_read_lock();
	b = find_backing(ctx, nodeid);
	if (b && !refcount_inc_not_zero(&b->refs))
		b = NULL;
	rcu_read_unlock();
	return b;
}

void extfuse_put_backing(struct extfuse_backing_file *b)
{
	if (!refcount_dec_and_test(&b->refs))
		return;
	fput(b->file);
	put_cred(b->cred);
	kfree_rcu(b, rcu);
}

/*
 * The rights were checked when the file was opened; what remains to be decided by them are set-id bits
 * (which a write drops) and blocks that are reserved for root.
 */
static const struct cred *nobody(void)
{
	struct group_info *none = groups_alloc(0);
	struct cred *cred = none ? prepare_creds() : NULL;

	if (cred)
		set_groups(cred, none);
	if (none)
		put_group_info(none);
	if (!cred)
		return NULL;
	cred->fsuid = make_kuid(&init_user_ns, 65534);
	cred->fsgid = make_kgid(&init_user_ns, 65534);
	cap_clear(cred->cap_effective);
	return cred;
}

int extfuse_fit_for_backing(const struct file *file)
{
	const struct super_block *sb = file_inode(file)->i_sb;

	if (!S_ISREG(file_inode(file)->i_mode) || file->f_flags & O_APPEND)
		return -EINVAL;
	/* A file system on top of this mount, and below this file, would come here again without end. */
	if (sb->s_magic == FUSE_SUPER_MAGIC || sb->s_stack_depth > 0)
		return -ELOOP;
	return 0;
}

static struct extfuse_backing_file *new_backing(u64 nodeid, int fd)
{
	struct extfuse_backing_file *b = kzalloc(sizeof(*b), GFP_KERNEL_ACCOUNT);
	int err = -EBADF;

	if (!b)
		return ERR_PTR(-ENOMEM);
	refcount_set(&b->refs, 1);
	init_rwsem(&b->order);
	b->nodeid = nodeid;
	b->file = fget(fd);
	if (!b->file)
		goto free;
	err = extfuse_fit_for_backing(b->file);
	if (err)
		goto put;
	b->cred = nobody();
	if (b->cred)
		return b;
	err = -ENOMEM;
put:
	fput(b->file);
free:
	kfree(b);
	return ERR_PTR(err);
}

int extfuse_set_backing(struct extfuse_context *ctx, const struct extfuse_backing *arg)
{
	struct extfuse_backing_file *b = NULL, *old;
	int err = 0;

	if (arg->flags || arg->fd < -1)
		return -EINVAL;
	if (arg->fd >= 0) {
		b = new_backing(arg->nodeid, arg->fd);
		if (IS_ERR(b))
			return PTR_ERR(b);
	}
	spin_lock(&ctx->backing_lock);
	old = find_backing(ctx, arg->nodeid);
	if (b && !old && ctx->backing_count >= EXTFUSE_BACKING_MAX) {
		err = -ENOSPC;
		old = b;
	} else {
		if (old) {
			hash_del_rcu(&old->node);
			ctx->backing_count--;
			atomic_long_dec(&extfuse_backings);
		}
		if (b) {
			hash_add_rcu(ctx->backing, &b->node, b->nodeid);
			ctx->backing_count++;
			atomic_long_inc(&extfuse_backings);
		}
	}
	spin_unlock(&ctx->backing_lock);
	if (old)
		extfuse_put_backing(old);
	return err;
}

/* Nobody looks for any by now. */
void extfuse_drop_backing(struct extfuse_context *ctx)
{
	struct extfuse_backing_file *b;
	struct hlist_node *next;
	int i;

	hash_for_each_safe(ctx->backing, i, next, b, node) {
		hash_del_rcu(&b->node);
		atomic_long_dec(&extfuse_backings);
		extfuse_put_backing(b);
	}
}

/* ---- the request's pages ---- */

static struct bio_vec *vectors(const struct fuse_args *args, u32 *n)
{
	u32 i;
	struct bio_vec *v;

	*n = extfuse_pages(args);
	v = kvmalloc_array(max_t(u32, *n, 1), sizeof(*v), GFP_KERNEL);
	for (i = 0; v && i < *n; i++) {
		v[i].bv_page = extfuse_page(args, i);
		v[i].bv_offset = extfuse_page_offset(args, i);
		v[i].bv_len = extfuse_page_length(args, i);
	}
	return v;
}

/* What is behind the end of the file. */
static void zero_from(const struct bio_vec *v, u32 n, size_t from)
{
	u32 i;

	for (i = 0; i < n; i++) {
		if (from < v[i].bv_len)
			memzero_page(v[i].bv_page, v[i].bv_offset + from, v[i].bv_len - from);
		from -= min_t(size_t, from, v[i].bv_len);
	}
}

static ssize_t transfer(struct extfuse_backing_file *b, unsigned int direction, struct iov_iter *iter,
	loff_t *pos, rwf_t flags)
{
	const struct cred *before = override_creds(b->cred);
	ssize_t n;

	if (direction == WRITE)
		n = extfuse_iter_write(b->file, iter, pos, flags);
	else
		n = vfs_iter_read(b->file, iter, pos, flags);
	revert_creds(before);
	return n;
}

ssize_t extfuse_read_backing(struct extfuse_backing_file *b, struct fuse_args *args)
{
	const struct fuse_read_in *in = args->in_args[0].value;
	u32 size = min_t(u32, in->size, args->out_args[0].size), nvec = 0;
	struct bio_vec *v = NULL;
	struct iov_iter iter;
	loff_t pos = in->offset;
	struct kvec flat;
	ssize_t n;

	/* The time of access is the file's, whoever reads. */
	if (!(b->file->f_mode & FMODE_READ) || in->flags & O_NOATIME)
		return -ENOSYS;
	if (args->out_pages) {
		v = vectors(args, &nvec);
		if (!v)
			return -ENOSYS;
		iov_iter_bvec(&iter, EXTFUSE_ITER_DEST, v, nvec, size);
	} else {
		flat.iov_base = args->out_args[0].value;
		flat.iov_len = size;
		iov_iter_kvec(&iter, EXTFUSE_ITER_DEST, &flat, 1, size);
	}
	n = transfer(b, READ, &iter, &pos, 0);
	if (n >= 0) {
		if (v && args->page_zeroing)
			zero_from(v, nvec, n);
		args->out_args[0].size = n;
	}
	kvfree(v);
	return n;
}

ssize_t extfuse_write_backing(struct extfuse_backing_file *b, struct fuse_args *args)
{
	const struct fuse_write_in *in = args->in_args[0].value;
	struct fuse_write_out *out = args->out_args[0].value;
	struct bio_vec *v = NULL;
	struct iov_iter iter;
	loff_t pos = in->offset;
	struct kvec flat;
	rwf_t flags = 0;
	u32 nvec;
	ssize_t n;

	if (!(b->file->f_mode & FMODE_WRITE) || args->in_numargs != 2)
		return -ENOSYS;
	if (args->in_pages) {
		v = vectors(args, &nvec);
		if (!v)
			return -ENOSYS;
		iov_iter_bvec(&iter, EXTFUSE_ITER_SOURCE, v, nvec, in->size);
	} else {
		flat.iov_base = (void *)args->in_args[1].value;
		flat.iov_len = in->size;
		iov_iter_kvec(&iter, EXTFUSE_ITER_SOURCE, &flat, 1, in->size);
	}
	if (in->flags & __O_SYNC)
		flags = RWF_SYNC;
	else if (in->flags & O_DSYNC)
		flags = RWF_DSYNC;
	/* The driver takes the file to end where attributes said; what it writes back it means to be there. */
	if (in->flags & O_APPEND && !(in->write_flags & FUSE_WRITE_CACHE))
		flags |= RWF_APPEND;
	n = transfer(b, WRITE, &iter, &pos, flags);
	if (n >= 0)
		out->size = n;
	kvfree(v);
	return n;
}

/* ---- read(2) past the driver's cache, before there is a request: right to where the caller wants it ---- */

#if defined(EXTFUSE_HAS_WALK) && defined(EXTFUSE_WRITEPAGES_AT)

struct extfuse_verdict extfuse_read_enter(struct kiocb *iocb, struct iov_iter *to);

/* For all of that, the caller's pages have to be there at once. */
#define PASSED_MAX (16 << 20)

static bool past_the_cache(const struct kiocb *iocb)
{
	u32 flags = EXTFUSE_OPEN_FLAGS(iocb->ki_filp->private_data);

	return flags & FOPEN_DIRECT_IO || (iocb->ki_flags & IOCB_DIRECT && !(flags & FOPEN_PASSTHROUGH));
}

/* A read that waits, of what the driver takes to be there. */
static bool fit_to_be_passed(struct kiocb *iocb, const struct iov_iter *to, const struct inode *inode)
{
	size_t n = iov_iter_count(to);

	return past_the_cache(iocb) && is_sync_kiocb(iocb) && user_backed_iter(to) &&
		!(iocb->ki_flags & (IOCB_NOWAIT | IOCB_NOIO | IOCB_HIPRI)) &&
		!(iocb->ki_filp->f_flags & O_NOATIME) &&
		S_ISREG(inode->i_mode) && !hlist_unhashed_lockless(&inode->i_hash) &&
		n && n <= PASSED_MAX && iocb->ki_pos >= 0 && iocb->ki_pos + (loff_t)n <= i_size_read(inode);
}

/*
 * Nothing is newer than the file below: in the driver's cache, where one page is enough; or on its way from there, in
 * copies, of which the driver has a tree before the pages are clean, and until the daemon or the file has them.
 */
static bool all_written(struct extfuse_context *ctx, struct inode *inode)
{
	bool none;

	if (READ_ONCE(inode->i_mapping->nrpages))
		return false;
	smp_rmb();
	spin_lock(EXTFUSE_INODE_LOCK_AT(inode));
	none = RB_EMPTY_ROOT(EXTFUSE_WRITEPAGES_AT(inode));
	spin_unlock(EXTFUSE_INODE_LOCK_AT(inode));
	return none && !(READ_ONCE(ctx->words[extfuse_node_word(ctx, EXTFUSE_NODEID(inode))].state) &
		EXTFUSE_WORD_BUSY);
}

/* The file that it is to be read from, and the context, with a reference each; else NULL. */
static struct extfuse_backing_file *find_for_read(const struct kiocb *iocb, const struct iov_iter *to,
	const struct inode *inode, struct extfuse_context **of)
{
	struct fuse_read_in in = { .fh = EXTFUSE_FH(iocb->ki_filp->private_data), .offset = iocb->ki_pos,
		.size = iov_iter_count(to), .flags = iocb->ki_filp->f_flags };
	struct fuse_args args = { .opcode = FUSE_READ, .nodeid = EXTFUSE_NODEID(inode), .in_numargs = 1,
		.out_numargs = 1, .out_argvar = true, .in_args[0] = { sizeof(in), &in }, .out_args[0].size = in.size };
	const struct fuse_mount *fm = inode->i_sb->s_fs_info;
	struct extfuse_backing_file *b = NULL;
	struct extfuse_context *ctx;
	u32 flags, word;

	preempt_disable();
	ctx = extfuse_find(fm->fc);
	if (!ctx)
		goto no;
	flags = READ_ONCE(ctx->program_flags[FUSE_READ]);
	word = extfuse_node_word(ctx, args.nodeid);
	if (!flags || (flags & EXTFUSE_PROGRAM_MARKED && !READ_ONCE(ctx->words[word].marked)))
		goto no;
	b = extfuse_get_backing(ctx, args.nodeid);
	if (b && (!(b->file->f_mode & FMODE_READ) || !extfuse_is_passed(ctx, &args, word))) {
		extfuse_put_backing(b);
		b = NULL;
	}
	if (b) {
		refcount_inc(&ctx->refs);
		*of = ctx;
	}
no:
	preempt_enable();
	return b;
}

/*
 * All of it, or nothing. The file system below may hold locks meanwhile, and the caller's pages may be those of files
 * that wait for these locks, so none is faulted in; nor is that to be done as nobody.
 */
static bool read_all(struct extfuse_context *ctx, struct extfuse_backing_file *b, struct kiocb *iocb,
	struct iov_iter *to)
{
	const struct iov_iter whole = *to;
	loff_t pos = iocb->ki_pos;
	ssize_t n;

	if (!all_written(ctx, file_inode(iocb->ki_filp)))
		return false;
	pagefault_disable();
	to->nofault = true;
	n = transfer(b, READ, to, &pos, 0);
	to->nofault = whole.nofault;
	pagefault_enable();
	if (n < 0 || (size_t)n != iov_iter_count(&whole)) {
		*to = whole;
		return false;
	}
	iocb->ki_pos = pos;
	return true;
}

struct extfuse_verdict extfuse_read_enter(struct kiocb *iocb, struct iov_iter *to)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	struct extfuse_verdict v = { 0, iov_iter_count(to) };
	struct timespec64 before, after;
	struct extfuse_backing_file *b;
	struct extfuse_context *ctx;

	if (!fit_to_be_passed(iocb, to, inode) || READ_ONCE(inode->i_mapping->nrpages))
		return v;
	b = find_for_read(iocb, to, inode, &ctx);
	if (!b)
		return v;
	before = extfuse_atime(file_inode(b->file));
	if (read_all(ctx, b, iocb, to) ||
	    (!fault_in_iov_iter_writeable(to, v.result) && read_all(ctx, b, iocb, to))) {
		v.instead = 1;
		after = extfuse_atime(file_inode(b->file));
		if (!timespec64_equal(&before, &after))
			extfuse_word_bump(ctx, extfuse_node_word(ctx, EXTFUSE_NODEID(inode)));
		/* As the driver does after a READ. */
		if (!IS_RDONLY(inode))
			set_mask_bits(EXTFUSE_INVAL_MASK_AT(inode), 0, STATX_ATIME);
		extfuse_count(ctx, FUSE_READ, passthru);
	}
	extfuse_put_backing(b);
	extfuse_put(ctx);
	return v;
}

#endif
