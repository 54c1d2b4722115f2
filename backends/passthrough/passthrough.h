/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A directory served as it is. Nodes are file handles, opened when they are needed; requests act with
 * their caller's ids wherever those end up on disk.
 */
#ifndef FE_PASSTHROUGH_H
#define FE_PASSTHROUGH_H

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "backends/backend.h"
#include "backends/caller.h"
#include "base/cleanup.h"

extern const struct fe_backend passthrough_backend;

#define HANDLE_BYTES	36	/* ext4 and tmpfs use 8 to 12, xfs 24, btrfs 20, overlayfs about 30 */
#define MAX_MOUNTS	256
#define CACHE_SETS	256
#define CACHE_WAYS	4

/* What identifies a file for as long as its file system lives. */
struct pt_key {
	uint16_t mount;		/* index of struct pt_mount */
	uint8_t kind;		/* PT_HANDLE, PT_INODE */
	uint8_t len;
	int16_t type;		/* of the file handle */
	uint8_t bytes[HANDLE_BYTES + 2];
};

/* 0: a record that nothing was written to */
#define PT_HANDLE	1
#define PT_INODE	2	/* device and inode number, kept from reuse by the record's fd */

/* A node record. */
struct pt_node {
	struct pt_key key;
	int32_t fd;		/* O_PATH; -1 where the handle opens it again */
	uint32_t reserved;
};

/* A handle record. */
struct pt_file {
	int32_t fd;
	uint16_t opened;	/* fd is set */
	uint16_t direct;
	int64_t pos;		/* of a directory: where the next getdents64 continues */
};

struct pt_mount {
	int id;			/* as name_to_handle_at tells it */
	int fd;			/* any open file of it, for open_by_handle_at */
};

/* One O_PATH descriptor that is kept for a while. */
struct cached_fd {
	struct pt_key key;
	int fd;
	uint32_t refs;
	uint32_t stamp;
	bool dead;
};

struct fd_cache {
	struct passthrough *pt;
	pthread_mutex_t locks[CACHE_SETS];
	struct cached_fd (*entries)[CACHE_WAYS];
	_Atomic uint32_t clock;
	unsigned ways;		/* fewer where few descriptors are to be had */
};

/* What a successor takes over besides records. */
struct pt_shared {
	struct pt_mount mounts[MAX_MOUNTS];
	_Atomic unsigned nmounts;
	int root_fd;
	bool confined, handles;		/* as below */
	struct cached_fd cached[CACHE_SETS][CACHE_WAYS];
};

struct lock_table;

struct passthrough {
	const struct fe_services *services;
	void *host;
	uint64_t attr_valid;
	int root_fd;
	bool privileged;	/* acts for its callers with their ids */
	bool handles;		/* file handles can be opened */
	bool cross;		/* submounts are served too */
	bool confined;		/* ... are not, and lookups have to see to it */
	bool writeback;
	bool noflush;		/* of local files: close(2) has nothing to tell */
	bool absences;		/* the kernel keeps that a name is absent */
	bool source_locks;
	pthread_mutex_t mounts_lock;
	struct pt_shared *shared;
	pthread_mutex_t dir_locks[64];
	struct fd_cache cache;
	struct lock_table *locks;
};

/* An O_PATH descriptor of a node while it is used. */
struct held {
	struct passthrough *pt;
	struct cached_fd *entry;	/* in the cache */
	int fd;
	bool own;			/* neither cached nor the record's: closed at the end */
};

#define _cleanup_held_ __attribute__((cleanup(held_end)))

/* node.c */
int node_hold(struct passthrough *pt, const struct fe_node *node, struct held *out);
void held_end(struct held *h);
/* Opens the node's file itself. Returns a descriptor or a negative errno. */
int node_open(struct passthrough *pt, const struct fe_node *node, int flags);
/* The entry of an open descriptor; an O_PATH one (`path_fd`) is taken over in any case. */
int entry_of_fd(struct passthrough *pt, int fd, bool path_fd, struct fe_entry *e);
int entry_of_node(struct passthrough *pt, const struct fe_node *node, int fd, struct fe_entry *e);
int key_of_name(struct passthrough *pt, int parent_fd, const char *name, struct pt_key *key);
int stat_fd(struct passthrough *pt, int fd, unsigned mount, struct statx *st);
uint64_t attr_valid_of(const struct passthrough *pt, const struct statx *st);
void forget_node(void *b, struct fe_node *node);
uint64_t mix_ino(unsigned mount, uint64_t ino);
static inline struct pt_node *pt_node(const struct fe_node *node)
{
	return (struct pt_node *)node->record;
}

static inline struct pt_file *pt_file(const struct fe_handle *handle)
{
	return (struct pt_file *)handle->record;
}

/* passthrough.c */
/* Whether close(2) of this file has nothing to tell. */
bool tells_nothing(const struct passthrough *pt, int fd);

/* fd: open for writing, or any other to have one opened. */
int truncate_node(struct passthrough *pt, const struct fe_request *req, struct fe_node *node, int fd, off_t size,
		  uint32_t io_flags);

/* names.c */
bool made_before(const struct fe_request *req, int dir, const char *name, mode_t type);

/* "/proc/self/fd/N" for the calls that know paths only. */
struct proc_path {
	char path[32];
};
struct proc_path proc_path(int fd);

static inline void put_fd(struct passthrough *pt, int *where, int fd)
{
	pt->services->fd_put(pt->host, where, fd);
}

static inline void close_fd(struct passthrough *pt, int *where)
{
	fe_close(pt->services->fd_take(pt->host, where));
}

/* cache.c */
void cache_init(struct passthrough *pt);
void cache_clear(struct pt_shared *shared);
/* In a successor: nobody uses any entry. */
void cache_resume(struct fd_cache *c);
void cache_fini(struct fd_cache *c);
struct cached_fd *cache_get(struct fd_cache *c, const struct pt_key *key);
/* Takes fd over; NULL where it found no room: it is the caller's still. The entry is referenced. */
struct cached_fd *cache_add(struct fd_cache *c, const struct pt_key *key, int fd);
void cache_put(struct fd_cache *c, struct cached_fd *e);
void cache_drop(struct fd_cache *c, const struct pt_key *key);

/* creds.c: the ids and capabilities of the calling thread, changed only where they differ */
void creds_thread_start(void *b);
void creds_server(struct passthrough *pt);
/* To make a file: owner, set-group-ID rules and quota are the caller's; the kernel checked access. */
void creds_create(struct passthrough *pt, const struct fe_request *req);
/*
 * To change the data of fd: what the caller may not take (set-id bits, reserved blocks) stays out of
 * reach. io_flags: FE_IO_*.
 */
void creds_io(struct passthrough *pt, const struct fe_request *req, int fd, uint32_t io_flags);
/* The same, by a path: whether the caller may write has been checked. */
void creds_truncate(struct passthrough *pt, const struct fe_request *req, int fd, uint32_t io_flags);
/* To change attributes for a caller without CAP_FSETID. */
void creds_attr(struct passthrough *pt, const struct fe_request *req);
/* Of a file without group execute, a member of its group keeps the set-group-ID bit. */
bool keeps_sgid(const struct fe_request *req, const struct stat *st);
void creds_backing_begin(void *b);
void creds_backing_end(void *b);

/* The operations. */
int pt_lookup(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, struct fe_entry *out);
int pt_mknod(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
	     uint32_t rdev, struct fe_entry *out);
int pt_mkdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
	     struct fe_entry *out);
int pt_symlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, const char *target,
	       struct fe_entry *out);
int pt_link(void *b, const struct fe_request *req, struct fe_node *node, struct fe_node *parent, const char *name,
	    struct fe_entry *out);
int pt_unlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name);
int pt_rmdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name);
int pt_rename(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
	      struct fe_node *newparent, const char *newname, uint32_t flags);
ssize_t pt_readlink(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size);
int pt_getattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	       struct statx *out, uint64_t *valid);
int pt_setattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	       const struct fe_setattr *set, struct statx *out, uint64_t *valid);
int pt_statfs(void *b, const struct fe_request *req, struct fe_node *node, struct fe_statfs *out);
int pt_syncfs(void *b, const struct fe_request *req, struct fe_node *node);
int pt_open_file(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags, uint32_t io_flags,
		 struct fe_open *out);
int pt_create(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t flags,
	      uint32_t mode, uint32_t io_flags, struct fe_entry *entry, struct fe_open *out);
int pt_tmpfile(void *b, const struct fe_request *req, struct fe_node *parent, uint32_t flags, uint32_t mode,
	       struct fe_entry *entry, struct fe_open *out);
ssize_t pt_read(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, void *buf,
		size_t size, uint64_t off);
ssize_t pt_write(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 const void *buf, size_t size, uint64_t off, uint32_t io_flags);
int pt_flush(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     uint64_t lock_owner);
void pt_release(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		const struct fe_release *how);
int pt_fsync(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, int datasync);
int pt_fallocate(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 uint32_t mode, uint64_t off, uint64_t len);
ssize_t pt_copy_file_range(void *b, const struct fe_request *req, struct fe_node *in_node, struct fe_handle *in,
			   uint64_t in_off, struct fe_node *out_node, struct fe_handle *out, uint64_t out_off,
			   uint64_t len, uint32_t flags);
int64_t pt_lseek(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, int64_t off,
		 uint32_t whence);
int pt_ioctl(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     struct fe_ioctl *io);
int pt_backing_fd(void *b, struct fe_node *node, struct fe_handle *handle);
int pt_opendir(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags, struct fe_open *out);
int pt_readdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, uint64_t off,
	       struct fe_dirfill *fill);
void pt_releasedir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle);
ssize_t pt_getxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name, void *buf,
		    size_t size);
ssize_t pt_listxattr(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size);
int pt_setxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name, const void *value,
		size_t size, int flags, int kill_sgid);
int pt_removexattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name);
int locks_init(struct passthrough *pt);
/* In a successor. */
void locks_resume(struct passthrough *pt);
void locks_fini(struct passthrough *pt);
int pt_getlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     struct fe_lock *lock);
int pt_setlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     const struct fe_lock *lock);
void pt_interrupt(void *b, uint64_t token);
/* close(2) of a descriptor, of the last one: what locks end. */
void locks_flush(struct passthrough *pt, const struct fe_node *node, uint64_t owner);
void locks_release(struct passthrough *pt, const struct fe_node *node, uint64_t fh, const struct fe_release *how);

#endif
