/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MEMORY_HANDLERS_H
#define MEMORY_HANDLERS_H

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <pthread.h>

#include "store.h"

extern pthread_mutex_t memory_lock;
extern const struct fuse_lowlevel_ops memory_ops;

/* Begins a request about this node. NULL where that is gone, which is answered. */
struct node *begin_with(fuse_req_t req, fuse_ino_t ino);
/* After the reply. */
void end(void);
void end_err(fuse_req_t req, int err);

#define LISTING	32768u		/* most of a reply's data */

/* ---- listing.c ---- */
void mem_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void mem_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		     struct fuse_file_info *fi);

/* ---- xattrs.c ---- */
void mem_setxattr(fuse_req_t req, fuse_ino_t ino, const char *key, const char *value, size_t size,
		  int flags);
void mem_removexattr(fuse_req_t req, fuse_ino_t ino, const char *key);
void mem_getxattr(fuse_req_t req, fuse_ino_t ino, const char *key, size_t size);
void mem_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);

#endif
