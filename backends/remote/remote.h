/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files of a 9P2000.L server.
 *
 * A node's record says which file it is on the server (key), and by which name it was found last: parent
 * and name lead from the root to it, so that its fid can be walked again on another connection, or in
 * another process. Fids are kept in a cache (fids.c) and belong to one connection.
 */
#ifndef FE_REMOTE_H
#define FE_REMOTE_H

#include <sys/stat.h>

#include "backends/backend.h"
#include "backends/caller.h"
#include "backends/remote/client.h"
#include "base/cleanup.h"

extern const struct fe_backend remote_backend;

#define NAME_INLINE	112u
#define REMOVED_PREFIX	".fuse-extent-removed-"

/* The file. `life` tells files apart that had one number after each other; 0 in `type`: nothing is here. */
struct r_key {
	uint64_t path;		/* of the qid */
	uint32_t life;
	uint32_t type;		/* S_IFMT >> 12 */
};

/* Bits of r_node.flags. */
#define NODE_DEAD	1u	/* its last name is gone, its number may come again */
#define NODE_HIDDEN	2u	/* removed while it was open: it has a name that is not shown (hidden.c) */
#define NODE_HIDING	4u	/* ... or may have: the answer is not there yet, and may never be */

/* A node record. Guarded by remote.names_lock, but for the key. */
struct r_node {
	struct r_key key;
	struct r_key parent;
	uint32_t named;		/* parent and name are whole */
	uint32_t flags;
	uint32_t opens;		/* never less than there are */
	uint32_t mode;		/* as seen last, with the rest */
	uint32_t uid, gid;
	uint32_t nlink;
	uint64_t size, rdev;
	int64_t atime, mtime, ctime;	/* ns */
	uint64_t blocks;
	uint32_t blksize;
	uint32_t bare;		/* s; made here then, and given no extended attribute since; or 0 */
	uint64_t noted, noted_changes;	/* when, and remote.dir_changes before they were asked for */
	uint16_t name_len;
	char name[NAME_INLINE];	/* its beginning; the rest is a record of its own */
};

/* The rest of a long name. */
struct r_long {
	struct r_key key;
	uint16_t len;
	char name[P9_NAME_MAX - NAME_INLINE + 1];
};

/* A file that was removed while it was open. */
struct r_hidden {
	struct r_key key;
	struct r_key parent;
	uint64_t number;	/* in its name */
	uint32_t done;		/* it has that name */
	uint32_t reserved;
};

/* A handle record. */
struct r_file {
	uint32_t opened;
	uint32_t flags;		/* to open it again */
	uint32_t uid;
	uint32_t reserved;
	uint64_t fid;		/* epoch << 32 | fid */
};

/* A fid while it is used, or cached. */
struct fid {
	struct fid *next;		/* of the same hash */
	struct fid *older, *newer;	/* where nobody uses it */
	struct r_key key;
	uint32_t number;
	uint32_t uid;
	uint32_t epoch;
	uint32_t refs;
	bool cached;
	bool opened;			/* a handle has it */
};

#define FID_BUCKETS	4096u
#define FIDS_MAX	65536u

struct fids {
	pthread_mutex_t lock;
	uint32_t epoch;
	uint32_t limit;			/* what the server takes, as far as known */
	uint32_t next;			/* numbers from here on were never used in this epoch */
	uint32_t used;
	struct fid *oldest, *newest;
	struct fid *buckets[FID_BUCKETS];
	struct fid *by_number[FIDS_MAX];
	uint32_t free[FIDS_MAX];
	uint32_t nfree;
	uint32_t idle;			/* that nobody uses */
};

struct remote_shared {
	struct client_shared client;
	uint64_t id;			/* of this mount, in hidden names */
	_Atomic uint64_t hidden;	/* the last number */
};

struct hidden {
	struct hidden *next;
	struct r_hidden *record;
};

struct listing;
struct locks;

#define VIEWS 128u

/* Whole listings of directories (views.c). */
struct views {
	pthread_mutex_t lock;
	struct listing *of[VIEWS];
	unsigned next;
	bool fetching;		/* for somebody who looks up names */
	struct r_key last;	/* the directory of the last name that had to be asked for */
	uint64_t last_at, last_changes;
};

struct remote {
	const struct fe_services *services;
	void *host;
	struct remote_shared *shared;
	uint64_t entry_valid, attr_valid;
	uint32_t uid;			/* who is attached */
	bool per_user;			/* everybody is, and the server checks, too */
	bool writeback;
	bool source_locks;		/* other clients see locks */
	bool acl;			/* the server keeps ACLs, which the kernel checks */
	uint32_t max_fids;
	_Atomic uint32_t lacks;		/* what the server does not know: LACKS_* */
	pthread_mutex_t names_lock;
	struct fe_table *long_table, *hidden_table;
	struct long_name *longs[256];
	pthread_mutex_t hidden_lock;
	struct hidden *hidden;
	pthread_mutex_t listings_lock;
	struct listing *listings;
	struct views views;
	pthread_mutex_t open_locks[64];	/* who opens a handle's file again */
	/* Raised before and after all that changes attributes: what was fetched ahead is old then. */
	_Atomic uint64_t changes;
	_Atomic uint64_t dir_changes;	/* likewise, of attributes of directories */
	/* The last figures of the file system, asked for by this file at that time; with names_lock. */
	struct fe_statfs figures;
	struct r_key figures_of;
	uint64_t figures_at, figures_changes;
	struct locks *locks;		/* NULL: the kernel keeps them */
	struct client client;
	struct fids fids;
};

#define LACKS_RENAMEAT	1u
#define LACKS_UNLINKAT	2u
#define LACKS_NOW	4u

/* One request of the kernel, tried until it has a result. */
struct op {
	struct remote *r;
	const struct fe_request *req;
	struct waiter waiter;
	uint32_t epoch;
	uint32_t uid;			/* who acts on the server */
	bool again;			/* it may have happened already */
	bool cached;			/* a fid of this round came from the cache */
	bool fresh;			/* none may in this round */
	bool changes, changes_dirs;
	bool kill_setid;		/* of an open that truncates */
	unsigned rounds, losses, losses_alone;
	int64_t result;
	uint64_t seen;			/* remote.dir_changes when it began */
	struct fe_intent *intent, own_intent;
};

/* node.c */
void op_begin(struct op *op, struct remote *r, const struct fe_request *req);
/* Of a request that changes what attributes or listings tell, or those of this file only. */
void op_begin_change(struct op *op, struct remote *r, const struct fe_request *req);
void op_begin_file_change(struct op *op, struct remote *r, const struct fe_request *req, const struct fe_node *node);
/* Whether the operation is to be tried, for the first time or once more. */
bool op_next(struct op *op);
void op_end(struct op *op);
#define _cleanup_op_ __attribute__((cleanup(op_end)))

static inline struct r_node *r_node(const struct fe_node *node)
{
	return (struct r_node *)(void *)node->record;
}

static inline struct r_node *r_entry(const struct fe_entry *entry)
{
	return (struct r_node *)(void *)entry->record;
}

static inline struct r_file *r_file(const struct fe_handle *handle)
{
	return (struct r_file *)(void *)handle->record;
}

static inline bool key_equal(const struct r_key *a, const struct r_key *b)
{
	return a->path == b->path && a->life == b->life && a->type == b->type;
}

static inline bool qid_is(const struct p9_qid *q, const struct r_key *key)
{
	return q->path == key->path && !!(q->type & P9_QTDIR) == (key->type == S_IFDIR >> 12);
}

uint32_t key_hash(const struct r_key *key);
bool is_root(const struct remote *r, const struct r_key *key);
/* The fid of a node, walked to where it is not known. To be given back. */
int node_fid(struct op *op, const struct fe_node *node, struct fid **out);
int key_fid(struct op *op, const struct r_key *key, struct fid **out);
/* The name that a node is known by, terminated; -ESTALE where there is none. */
int node_name(struct remote *r, struct r_node *n, struct r_key *parent, char *name);
void node_rename(struct remote *r, struct r_node *n, const struct r_key *parent, const char *name);
/* What was found under a name. Takes a fid over for the cache. */
int entry_of(struct op *op, const struct r_key *parent, const char *name, const struct p9_attr *a, struct fid *f,
	     struct fe_entry *out);
/* For a listing, of which nobody knows how much the kernel takes: what opens compare with stays. */
int entry_listed(struct op *op, const struct r_key *parent, const char *name, const struct p9_attr *a,
		 struct fe_entry *out);
/* What is known of a file that has no name any more, and that nobody can ask for. */
int attr_of_dead(struct remote *r, const struct r_node *n, struct statx *out);
/*
 * Attributes of a directory that are as good as those that the kernel had: it asks once more where only the time
 * of access has moved, by a listing. *valid: for how long they are.
 */
bool attr_of_dir(struct remote *r, const struct r_node *n, struct statx *out, uint64_t *valid);
/* Notes those of a directory that this request has changed; at: remote.dir_changes before they were asked for. */
void note_dir(struct op *op, struct r_node *n, const struct p9_attr *a, uint64_t at);
/* Whether what was noted of a directory held when this request began. */
bool dir_known(struct op *op, const struct r_node *n, uint32_t *mode, uint32_t *gid);
void node_died(struct r_node *n);
bool same_mtime(const struct r_node *n, const struct p9_attr *a);
/* Whether data that the kernel has cached is still that of the server; notes what is seen now. */
bool data_unchanged(struct remote *r, struct r_node *n, const struct p9_attr *a);
/* Attributes of a node, as the kernel gets them; notes them in the record. */
int attr_of(struct op *op, struct r_node *n, const struct p9_attr *a, struct statx *out);
/* Another fid of the same file, the caller's. */
int fid_clone(struct op *op, uint32_t number, struct fid **out);
/* The fid of (parent, name), with its key; -ENOENT where there is none. */
int name_fid(struct op *op, struct fid *dir, const char *name, struct fid **out, struct r_key *key);
struct r_key key_of(struct remote *r, const struct p9_qid *qid, uint32_t mode);
void remote_forget(void *b, struct fe_node *node);
int names_init(struct remote *r);
void names_resume(struct remote *r);

/* fids.c */
void fids_init(struct fids *t, uint32_t limit);
void fids_fini(struct fids *t);
/* A number nobody uses, for a fid that is to be made. */
int fid_new(struct op *op, struct fid **out);
struct fid *fid_find(struct op *op, const struct r_key *key);
/* From now on others find it. */
void fid_cache(struct op *op, struct fid *f, const struct r_key *key);
/* The server does not have it: what was to make it ended with err, or it is gone with its request (0). */
void fid_drop(struct op *op, struct fid *f, int err);
void fid_put(struct op *op, struct fid *f);
static inline void fid_put_any(struct op *op, struct fid *f)
{
	if (f)
		fid_put(op, f);
}
/* Nobody finds those of this file any more, of all files. */
void fid_forget(struct op *op, const struct r_key *key);
void fid_forget_all(struct op *op);
/* What was to make it ended with err. Returns whether that was for its number, and smaller ones may do. */
bool fid_failed(struct op *op, struct fid *f, int err);
/* By a message of make(), once more with a smaller number where the server refuses one. *out: NULL where it failed. */
int fid_make(struct op *op, int (*make)(struct op *op, uint32_t number, void *arg), void *arg, struct fid **out);
/* One that a handle has of this file; it must not be walked from, nor given back. */
bool fid_opened(struct op *op, const struct r_key *key, uint32_t *number);
/* A handle keeps it until fid_close(). */
void fid_keep(struct op *op, struct fid *f);
void fid_close(struct op *op, uint32_t number, uint32_t epoch);

/* calls.c: one message each. 0, LOST, or a negative errno */
struct rpc *call_new(struct op *op, uint8_t type, uint32_t fid);
int call(struct op *op, struct rpc *r);
int call_walk(struct op *op, uint32_t fid, uint32_t newfid, const char *const *names, unsigned n,
	      struct p9_qid *last);
int call_attach(struct op *op, uint32_t fid);
/* type: P9_TREAD or P9_TREADDIR; as much as goes into one message. */
struct rpc *read_send(struct op *op, uint8_t type, uint32_t fid, uint64_t off, void *into, size_t n);
struct rpc *write_send(struct op *op, uint32_t fid, uint64_t off, const void *bytes, size_t n);
struct rpc *getattr_send(struct op *op, uint32_t fid);
int getattr_wait(struct rpc *r, struct p9_attr *a);
int call_getattr(struct op *op, uint32_t fid, struct p9_attr *a);
int call_setattr(struct op *op, uint32_t fid, const struct p9_setattr *set);
/* With the attributes as they are then. */
int call_setattr_get(struct op *op, uint32_t fid, const struct p9_setattr *set, struct p9_attr *a);
int call_lopen(struct op *op, uint32_t fid, uint32_t flags);
int call_lcreate(struct op *op, uint32_t fid, const char *name, uint32_t flags, uint32_t mode, uint32_t gid);
int call_mkdir(struct op *op, uint32_t fid, const char *name, uint32_t mode, uint32_t gid);
int call_mknod(struct op *op, uint32_t fid, const char *name, uint32_t mode, uint32_t major, uint32_t minor,
	       uint32_t gid);
int call_symlink(struct op *op, uint32_t fid, const char *name, const char *target, uint32_t gid);
int call_link(struct op *op, uint32_t dir, uint32_t fid, const char *name);
int call_rename(struct op *op, uint32_t fid, uint32_t dir, const char *name);
int call_renameat(struct op *op, uint32_t dir, const char *name, uint32_t newdir, const char *newname);
int call_unlinkat(struct op *op, uint32_t dir, const char *name, uint32_t flags);
int call_plain(struct op *op, uint8_t type, uint32_t fid);

/* hidden.c: files that are removed while they are open */
int hidden_init(struct remote *r);
void hidden_resume(struct remote *r);
bool hidden_name(const char *name, size_t len);
int hidden_make(struct op *op, struct fid *dir, const struct r_key *parent, const char *name,
		const struct r_key *key);
/* Of files in this directory that were on their way to be hidden when an answer was lost. */
int hidden_settle(struct op *op, struct fid *dir, const struct r_key *parent);
/* One of the names of a file is gone; where it is hidden, that name is left. */
void hidden_again(struct remote *r, const struct r_key *key);
/* Nobody has it open any more. */
void hidden_end(struct remote *r, const struct fe_request *req, struct fe_node *node);
/* Moves what is hidden in a directory to its parent, so that it can be removed. */
int hidden_move(struct op *op, const struct r_key *from, struct fid *dir, struct fid *to,
		const struct r_key *to_key);

/* gone.c: names that go */
/* Renames by whichever message the server knows; `key`: which file it is. */
int rename_name(struct op *op, struct fid *dir, const char *name, struct fid *newdir, const char *newname,
		struct fid *file);
int remove_name(struct op *op, struct fid *dir, const char *name, bool directory);
int remote_unlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name);
int remote_rmdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name);
int remote_rename(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		  struct fe_node *newparent, const char *newname, uint32_t flags);

/* names.c */
int remote_lookup(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		  struct fe_entry *out);
int remote_mknod(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
		 uint32_t rdev, struct fe_entry *out);
int remote_mkdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
		 struct fe_entry *out);
int remote_symlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		   const char *target, struct fe_entry *out);
int remote_link(void *b, const struct fe_request *req, struct fe_node *node, struct fe_node *parent,
		const char *name, struct fe_entry *out);
ssize_t remote_readlink(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size);

/* create.c: what is made, and whose it is */
struct creation {
	struct fid *dir;
	struct r_node *parent;
	const char *name;
	const char *target;	/* of a symbolic link */
	uint32_t mode;
	uint32_t gid;
	uint32_t parent_mode;
	bool sent;		/* it may have been made by this request, before a connection was lost */
};
int creation_begin(struct op *op, struct fe_node *parent, const char *name, uint32_t mode, struct creation *c);
/* Directly before the message that makes: from then on what is there may be this request's. */
void creation_sends(struct op *op);
/* 0: what is there was made by this request, before its answer was lost. */
int creation_made(struct op *op, const struct creation *c);
/* The length of what a symbolic link says, or a negative errno. */
int64_t link_text(struct op *op, uint32_t fid, char *buf, size_t size);
/* Makes a plain file; its fid is open. */
int file_make(struct op *op, const struct creation *c, uint32_t flags, struct fid **out);
/* Gives the new file to its owner and makes the entry. */
int creation_end(struct op *op, const struct creation *c, struct fid *f, struct fe_entry *out);
int remote_create(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t flags,
		  uint32_t mode, uint32_t io_flags, struct fe_entry *entry, struct fe_open *out);

/* attrs.c */
/* What attributes are asked for and set by; *named, where it is not NULL, is to be given back. */
int attr_fid(struct op *op, struct fe_node *node, struct fid **named, uint32_t *number);
/* The mode without what a change by the caller takes away. */
uint32_t mode_killed(const struct fe_request *req, const struct r_node *n);
int remote_getattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		   struct statx *out, uint64_t *valid);
int remote_setattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		   const struct fe_setattr *set, struct statx *out, uint64_t *valid);
int remote_statfs(void *b, const struct fe_request *req, struct fe_node *node, struct fe_statfs *out);

/* files.c */
/* The fid of an open file on this connection. */
int file_fid(struct op *op, const struct fe_node *node, const struct fe_handle *handle, uint32_t *out);
/* Opens a file of which nobody has a handle; the caller's. */
int key_open(struct op *op, const struct r_key *key, uint32_t flags, struct fid **out);
void file_opened(struct op *op, struct r_node *n, struct fid *f, uint32_t flags, unsigned char *record);
int remote_open_file(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags,
		     uint32_t io_flags, struct fe_open *out);
ssize_t remote_read(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		    void *buf, size_t size, uint64_t off);
ssize_t remote_write(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		     const void *buf, size_t size, uint64_t off, uint32_t io_flags);
void remote_release(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		    const struct fe_release *how);
int remote_fsync(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 int datasync);
int remote_fsyncdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		    int datasync);

/* lock_server.c */
/* What this file was locked for on the server is so on this connection; -EIO: another client has had it. */
int lock_ready(struct op *op, const struct r_key *key);
void lock_release(struct remote *r, const struct fe_request *req, const struct r_key *key, uint64_t fh,
		   const struct fe_release *how);
int remote_getlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 struct fe_lock *lock);
int remote_setlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 const struct fe_lock *lock);
int remote_flush(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 uint64_t lock_owner);
void remote_interrupt(void *b, uint64_t token);

/* dirs.c */
int remote_opendir(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags,
		   struct fe_open *out);
int remote_readdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		   uint64_t off, struct fe_dirfill *fill);
void remote_releasedir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle);

/* views.c */
void views_init(struct remote *r);
void views_fini(struct remote *r);

/* xattrs.c */
ssize_t remote_getxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name, void *buf,
			size_t size);
ssize_t remote_listxattr(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size);
int remote_setxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name,
		    const void *value, size_t size, int flags, int kill_sgid);
/* Whether a directory hands an ACL down, which takes the place of the umask. */
bool has_default_acl(struct op *op, uint32_t fid);
int remote_removexattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name);

#endif
