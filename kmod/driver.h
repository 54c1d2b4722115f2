/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The FUSE driver of this kernel, as far as it is private to it, and what else differs between kernels.
 */
#ifndef EXTFUSE_DRIVER_H
#define EXTFUSE_DRIVER_H

#include <linux/fs.h>
#include <linux/ftrace.h>
#include <linux/fuse.h>
#include <linux/mm.h>
#include <linux/uio.h>
#include <linux/version.h>

#include "layout.h"	/* generated from the kernel's types */

/*
 * Exported by the driver with versions, which sum up all structures that these take: so the module is not loaded
 * where a connection, a request or a node differ.
 */
struct fuse_conn *fuse_conn_get(struct fuse_conn *fc);
void fuse_conn_put(struct fuse_conn *fc);
extern const struct file_operations fuse_dev_operations;
int fuse_simple_background(struct fuse_mount *fm, struct fuse_args *args, gfp_t gfp);
#ifdef EXTFUSE_HAS_SYNC_RELEASE
void fuse_sync_release(void);	/* its arguments differ, and it is not called */
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define EXTFUSE_REGISTER_DIRECT(ops, address) register_ftrace_direct(ops, address)
#define EXTFUSE_UNREGISTER_DIRECT(ops, address) unregister_ftrace_direct(ops, address, true)
#else
#define EXTFUSE_REGISTER_DIRECT(ops, address) register_ftrace_direct_multi(ops, address)
#define EXTFUSE_UNREGISTER_DIRECT(ops, address) \
	(unregister_ftrace_direct_multi(ops, address), ftrace_free_filter(ops))
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
#define EXTFUSE_PLAIN_IDMAP(idmap) ((idmap) == &nop_mnt_idmap)
#else
#define EXTFUSE_PLAIN_IDMAP(idmap) true
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
#define EXTFUSE_MTIME(inode) inode_get_mtime(inode)
#define EXTFUSE_CTIME(inode) inode_get_ctime(inode)
#else
#define EXTFUSE_MTIME(inode) ((inode)->i_mtime)
#define EXTFUSE_CTIME(inode) ((inode)->i_ctime)
#endif

#ifndef FOPEN_PASSTHROUGH
#define FOPEN_PASSTHROUGH 0
#endif

#ifdef ITER_DEST
#define EXTFUSE_ITER_DEST ITER_DEST
#define EXTFUSE_ITER_SOURCE ITER_SOURCE
#else
#define EXTFUSE_ITER_DEST READ
#define EXTFUSE_ITER_SOURCE WRITE
#endif

static inline struct timespec64 extfuse_atime(const struct inode *inode)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	return inode_get_atime(inode);
#else
	return inode->i_atime;
#endif
}

/* Tells the file system of the write; since 6.8 vfs_iter_write() does. Twice in each other, a freeze between
 * both would wait for the first and be waited for by the second. */
static inline ssize_t extfuse_iter_write(struct file *file, struct iov_iter *iter, loff_t *pos, rwf_t flags)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	return vfs_iter_write(file, iter, pos, flags);
#else
	ssize_t n;

	file_start_write(file);
	n = vfs_iter_write(file, iter, pos, flags);
	file_end_write(file);
	return n;
#endif
}

/* ---- the data of a request: pages, of which each has a part ---- */

static inline const struct fuse_args_pages *extfuse_ap(const struct fuse_args *args)
{
	return container_of(args, struct fuse_args_pages, args);
}

static inline u32 extfuse_pages(const struct fuse_args *args)
{
	return extfuse_ap(args)->num_pages;
}

#ifdef EXTFUSE_HAS_FOLIOS
static inline u32 extfuse_page_offset_in_folio(const struct fuse_args *args, u32 i)
{
	return extfuse_ap(args)->folio_descs[i].offset;
}

static inline struct page *extfuse_page(const struct fuse_args *args, u32 i)
{
	const struct fuse_args_pages *ap = extfuse_ap(args);

	return ap->uses_folios ?
		folio_page(ap->folios[i], extfuse_page_offset_in_folio(args, i) >> PAGE_SHIFT) : ap->pages[i];
}
#else
static inline struct page *extfuse_page(const struct fuse_args *args, u32 i)
{
	return extfuse_ap(args)->pages[i];
}
#endif

/* Both kinds of descriptors are of one form. */
static inline u32 extfuse_page_offset(const struct fuse_args *args, u32 i)
{
	return extfuse_ap(args)->descs[i].offset & ~PAGE_MASK;
}

static inline u32 extfuse_page_length(const struct fuse_args *args, u32 i)
{
	return extfuse_ap(args)->descs[i].length;
}

#endif
