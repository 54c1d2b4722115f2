/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The FUSE protocol as of Linux 6.12 (7.41) on top of an older <linux/fuse.h>.
 *
 * Debian 12 ships the header of Linux 6.1 (7.38). What it lacks stands here under its own guards, so
 * that a newer header takes over by itself; tests/unit/abi compares the numbers with the 6.12 header.
 */
#ifndef FE_BASE_FUSE_ABI_H
#define FE_BASE_FUSE_ABI_H

#include <stdint.h>
#include <sys/ioctl.h>
#include <linux/fuse.h>

#if FUSE_KERNEL_VERSION != 7 || FUSE_KERNEL_MINOR_VERSION < 38
#error "linux/fuse.h of Linux 6.1 or newer is needed"
#endif

#ifndef FUSE_CREATE_SUPP_GROUP

#define FUSE_CREATE_SUPP_GROUP		(1ULL << 34)
#define FUSE_EXT_GROUPS			32

struct fuse_supp_groups {
	uint32_t nr_groups;
	uint32_t groups[];
};

#endif

#if FUSE_KERNEL_MINOR_VERSION < 39

#define FUSE_DIRECT_IO_ALLOW_MMAP	(1ULL << 36)
#define FUSE_STATX			52

struct fuse_sx_time {
	int64_t tv_sec;
	uint32_t tv_nsec;
	int32_t __reserved;
};

struct fuse_statx {
	uint32_t mask;
	uint32_t blksize;
	uint64_t attributes;
	uint32_t nlink;
	uint32_t uid;
	uint32_t gid;
	uint16_t mode;
	uint16_t __spare0[1];
	uint64_t ino;
	uint64_t size;
	uint64_t blocks;
	uint64_t attributes_mask;
	struct fuse_sx_time atime;
	struct fuse_sx_time btime;
	struct fuse_sx_time ctime;
	struct fuse_sx_time mtime;
	uint32_t rdev_major;
	uint32_t rdev_minor;
	uint32_t dev_major;
	uint32_t dev_minor;
	uint64_t __spare2[14];
};

struct fuse_statx_in {
	uint32_t getattr_flags;
	uint32_t reserved;
	uint64_t fh;
	uint32_t sx_flags;
	uint32_t sx_mask;
};

struct fuse_statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec;
	uint32_t flags;
	uint64_t spare[2];
	struct fuse_statx stat;
};

#endif

#if FUSE_KERNEL_MINOR_VERSION < 40

#define FOPEN_PASSTHROUGH	(1 << 7)
#define FUSE_PASSTHROUGH	(1ULL << 37)
#define FUSE_NO_EXPORT_SUPPORT	(1ULL << 38)
#define FUSE_HAS_RESEND		(1ULL << 39)
#define FUSE_NOTIFY_RESEND	7
#define FUSE_UNIQUE_RESEND	(1ULL << 63)

struct fuse_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};

#define FUSE_DEV_IOC_BACKING_OPEN	_IOW(229, 1, struct fuse_backing_map)
#define FUSE_DEV_IOC_BACKING_CLOSE	_IOW(229, 2, uint32_t)

#endif

#if FUSE_KERNEL_MINOR_VERSION < 41

#define FUSE_ALLOW_IDMAP	(1ULL << 40)
#define FUSE_INVALID_UIDGID	((uint32_t)(-1))

#endif

/*
 * Members that took over padding of an older structure: their names differ between headers, their
 * places do not. Written by offset, so that one source builds against both.
 */
#define FE_OPEN_OUT_BACKING_ID		12	/* int32_t in struct fuse_open_out */
#define FE_INIT_OUT_MAX_STACK_DEPTH	36	/* uint32_t in struct fuse_init_out */

#endif
