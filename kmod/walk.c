// SPDX-License-Identifier: GPL-2.0-only
/*
 * Names and attributes that the driver has, and may keep no longer: where a handler says the same of
 * them, they are still good, and no request is made. All else is left to the driver, which makes one.
 * Nothing here sleeps.
 */
#include <linux/cred.h>
#include <linux/dcache.h>
#include <linux/jiffies.h>
#include <linux/namei.h>
#include <linux/posix_acl.h>
#include <linux/stat.h>
#include <linux/user_namespace.h>

#include "kmod.h"

#ifdef EXTFUSE_HAS_WALK

static const struct extfuse_verdict go_on = { 0, 0 };
static const struct extfuse_verdict good_name = { 1, 1 };
static const struct extfuse_verdict filled = { 1, 0 };

struct extfuse_verdict extfuse_revalidate_enter(const struct dentry *dentry, unsigned int flags);
struct extfuse_verdict extfuse_getattr_enter(void *idmap, const struct path *path, struct kstat *stat,
	u32 mask, unsigned int flags);
struct extfuse_verdict extfuse_permission_enter(void *idmap, struct inode *inode, int mask);

/* ---- is it what the driver has? ---- */

static bool same_time(struct timespec64 is, u64 sec, u32 nsec)
{
	return is.tv_sec == (time64_t)sec && is.tv_nsec == nsec;
}

static bool same_owner(struct user_namespace *ns, const struct inode *inode,
	const struct fuse_attr *attr)
{
	if (ns == &init_user_ns)
		return __kuid_val(inode->i_uid) == attr->uid && __kgid_val(inode->i_gid) == attr->gid;
	return uid_eq(inode->i_uid, make_kuid(ns, attr->uid)) &&
		gid_eq(inode->i_gid, make_kgid(ns, attr->gid));
}

/*
 * Of what the driver uses without asking again. An ACL that it has may be another by now: the driver
 * drops it, when it asks.
 */
static bool same_attr(const struct fuse_conn *fc, const struct inode *inode,
	const struct fuse_attr *attr)
{
	return !((inode->i_mode ^ attr->mode) & (S_IFMT | S_IRWXUGO | S_ISUID | S_ISGID)) &&
		i_size_read(inode) == attr->size &&
		same_time(EXTFUSE_CTIME(inode), attr->ctime, attr->ctimensec) &&
		same_time(EXTFUSE_MTIME(inode), attr->mtime, attr->mtimensec) &&
		same_owner(EXTFUSE_USER_NS(fc), inode, attr) &&
		is_uncached_acl(READ_ONCE(inode->i_acl)) &&
		is_uncached_acl(READ_ONCE(inode->i_default_acl));
}

/* What the driver has taken for bad is not in the table of inodes any more. */
static bool in_use(const struct inode *inode)
{
	return !hlist_unhashed_lockless(&inode->i_hash);
}

/* An answer that the driver may keep is for the driver. */
static bool same_node(const struct fuse_conn *fc, const struct inode *inode,
	const struct fuse_entry_out *entry)
{
	return inode && EXTFUSE_NODEID(inode) == entry->nodeid &&
		inode->i_generation == (u32)entry->generation && in_use(inode) &&
		!IS_AUTOMOUNT(inode) && !(entry->attr.flags & FUSE_ATTR_SUBMOUNT) &&
		!entry->entry_valid && !entry->entry_valid_nsec &&
		!entry->attr_valid && !entry->attr_valid_nsec && same_attr(fc, inode, &entry->attr);
}

static bool same_name(const struct fuse_conn *fc, const struct extfuse_early *said, const struct inode *inode)
{
	if (said->error || !said->out.entry.nodeid)
		return !inode && (!said->error || said->error == -ENOENT);
	return same_node(fc, inode, &said->out.entry);
}

/* ---- names ---- */

struct seen {
	const struct inode *dir;
	struct fuse_in_arg name;
};

/* The caller has no reference, and the name changes at any time: only of one state, `seq`, are these one name. */
static __always_inline bool see(struct seen *s, const struct dentry *dentry, unsigned int seq)
{
	s->dir = d_inode_rcu(READ_ONCE(dentry->d_parent));
	s->name.size = READ_ONCE(dentry->d_name.len);
	s->name.value = READ_ONCE(dentry->d_name.name);
	return s->dir && !read_seqcount_retry(&dentry->d_seq, seq);
}

/* With preemption disabled; `nodeid` and `of_dir` are those of the directory. */
static noinline struct extfuse_verdict revalidate_marked(struct extfuse_context *ctx,
	const struct dentry *dentry, u64 nodeid, const struct extfuse_word *of_dir)
{
	unsigned int seq = raw_seqcount_begin(&dentry->d_seq);
	const struct inode *inode = d_inode_rcu(dentry);
	struct extfuse_early *said = NULL;
	bool good = false;
	struct seen s;
	u32 own;

	if (!see(&s, dentry, seq) || EXTFUSE_NODEID(s.dir) != nodeid)
		goto no;
	own = extfuse_marked_name(ctx, of_dir, nodeid, s.name.value, s.name.size);
	if (own)
		said = extfuse_early_name(ctx, nodeid, of_dir, &s.name, own, inode);
	if (!said) {
		extfuse_not_foreseen(EXTFUSE_NAME_IN(nodeid));
	} else if (read_seqcount_retry(&dentry->d_seq, seq)) {
		said->seed = 0;
	} else if (same_name(ctx->fc, said, inode)) {
		extfuse_count(ctx, FUSE_LOOKUP, hits);
		good = true;
	}
no:
	preempt_enable();
	return good ? good_name : go_on;
}

/*
 * In place of the driver's function, in an RCU walk: where it is left to the driver, that asks once more without, and
 * hook-asm.S passes by here. `flags` are those of a walk.
 */
struct extfuse_verdict extfuse_revalidate_enter(const struct dentry *dentry, unsigned int flags)
{
	const struct extfuse_word *of_dir;
	struct extfuse_context *ctx;
	const struct inode *dir;
	u64 nodeid;

	BUILD_BUG_ON(LOOKUP_RCU != EXTFUSE_LOOKUP_RCU);
	if (flags & (LOOKUP_EXCL | LOOKUP_REVAL | LOOKUP_RENAME_TARGET) ||
	    time_after_eq64((u64)(unsigned long)READ_ONCE(dentry->d_fsdata), get_jiffies_64()))
		return go_on;
	preempt_disable();
	ctx = extfuse_find(((const struct fuse_mount *)dentry->d_sb->s_fs_info)->fc);
	dir = d_inode_rcu(READ_ONCE(dentry->d_parent));
	if (!ctx || !extfuse_asks_early(ctx, FUSE_LOOKUP) || !dir)
		goto no;
	nodeid = EXTFUSE_NODEID(dir);
	of_dir = extfuse_marked_dir(ctx, nodeid);
	if (of_dir)
		return revalidate_marked(ctx, dentry, nodeid, of_dir);
	extfuse_not_foreseen(EXTFUSE_NAME_IN(nodeid));
no:
	preempt_enable();
	return go_on;
}

/* ---- attributes ---- */

/* Whom the driver lets in for sure. */
static bool allowed(const struct fuse_conn *fc)
{
	const struct cred *cred = current_cred();
	kuid_t uid = EXTFUSE_USER(fc);
	kgid_t gid = EXTFUSE_GROUP(fc);

	if (EXTFUSE_ALLOW_OTHER(fc))
		return EXTFUSE_USER_NS(fc) == &init_user_ns || current_in_userns(EXTFUSE_USER_NS(fc));
	return uid_eq(cred->euid, uid) && uid_eq(cred->suid, uid) && uid_eq(cred->uid, uid) &&
		gid_eq(cred->egid, gid) && gid_eq(cred->sgid, gid) && gid_eq(cred->gid, gid);
}

/* It may no longer go by what it has. */
static bool outdated(const struct inode *inode, u32 mask)
{
	return EXTFUSE_INVAL_MASK(inode) & mask || time_before64(EXTFUSE_I_TIME(inode), get_jiffies_64());
}

static void fill(const struct inode *inode, const struct fuse_attr *attr, struct kstat *stat)
{
	stat->dev = inode->i_sb->s_dev;
	stat->rdev = inode->i_rdev;
	stat->ino = attr->ino;
	stat->mode = (inode->i_mode & S_IFMT) | (attr->mode & S_IALLUGO);
	stat->nlink = attr->nlink;
	stat->uid = inode->i_uid;
	stat->gid = inode->i_gid;
	stat->size = attr->size;
	stat->blocks = attr->blocks;
	stat->blksize = attr->blksize ? 1U << ilog2(attr->blksize) : 1U << inode->i_sb->s_blocksize_bits;
	stat->atime = (struct timespec64){ attr->atime, attr->atimensec };
	stat->mtime = EXTFUSE_MTIME(inode);
	stat->ctime = EXTFUSE_CTIME(inode);
}

static const struct fuse_conn *conn_of(const struct inode *inode)
{
	return ((const struct fuse_mount *)inode->i_sb->s_fs_info)->fc;
}

/* Will the driver ask, and was anything put for it? Then with preemption disabled. Misses end here. */
static __always_inline struct extfuse_context *begin(const struct inode *inode, u32 mask)
{
	u64 nodeid = EXTFUSE_NODEID(inode);
	struct extfuse_context *ctx;

	if (!outdated(inode, mask))
		return NULL;
	preempt_disable();
	ctx = extfuse_find(conn_of(inode));
	if (ctx && extfuse_asks_early(ctx, FUSE_GETATTR)) {
		if (READ_ONCE(ctx->words[extfuse_node_word(ctx, nodeid)].marked))
			return ctx;
		extfuse_not_foreseen(EXTFUSE_ATTR_OF(nodeid));
	}
	preempt_enable();
	return NULL;
}

/* False: it is for the driver. `stat` may be NULL. */
static bool answer(struct extfuse_context *ctx, const struct inode *inode, struct kstat *stat)
{
	const struct fuse_attr *attr = allowed(ctx->fc) && in_use(inode) ? extfuse_early_attr(ctx, inode) : NULL;

	if (!attr || !same_attr(ctx->fc, inode, attr) || attr->atimensec >= NSEC_PER_SEC)
		return false;
	if (stat)
		fill(inode, attr, stat);
	extfuse_count(ctx, FUSE_GETATTR, hits);
	return true;
}

static noinline struct extfuse_verdict getattr_marked(void *idmap, const struct path *path,
	struct kstat *stat, u32 mask, unsigned int flags, struct extfuse_context *ctx)
{
	const struct inode *inode = d_inode(path->dentry);
	bool done = EXTFUSE_PLAIN_IDMAP(idmap) && mask & STATX_BASIC_STATS && !(mask & STATX_BTIME) &&
		!(flags & AT_STATX_SYNC_TYPE) &&
		!(EXTFUSE_WRITEBACK(ctx->fc) && S_ISREG(inode->i_mode)) && answer(ctx, inode, stat);

	preempt_enable();
	return done ? filled : go_on;
}

struct extfuse_verdict extfuse_getattr_enter(void *idmap, const struct path *path, struct kstat *stat,
	u32 mask, unsigned int flags)
{
	struct extfuse_context *ctx = begin(d_inode(path->dentry), mask);

	return ctx ? getattr_marked(idmap, path, stat, mask, flags, ctx) : go_on;
}

static noinline struct extfuse_verdict permission_marked(void *idmap, struct inode *inode, int mask,
	struct extfuse_context *ctx)
{
	bool done = EXTFUSE_PLAIN_IDMAP(idmap) && answer(ctx, inode, NULL);

	preempt_enable();
	/* As the driver does with attributes that it has just asked for. */
	return done ? (struct extfuse_verdict){ 1, generic_permission(idmap, inode, mask) } : go_on;
}

/* Also in an RCU walk. */
struct extfuse_verdict extfuse_permission_enter(void *idmap, struct inode *inode, int mask)
{
	struct extfuse_context *ctx = EXTFUSE_PERMISSIONS(conn_of(inode)) ?
		begin(inode, STATX_MODE | STATX_UID | STATX_GID) : NULL;

	return ctx ? permission_marked(idmap, inode, mask, ctx) : go_on;
}

#endif
