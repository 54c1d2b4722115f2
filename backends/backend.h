/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The backend vtable: what a file system fills in to be served by fuse-extent.
 *
 * A backend is a table of functions over nodes and handles. A node is one file of any type, known to
 * the kernel by its nodeid; a handle is one open file or directory, known by its fh. Both are plain
 * records in tables of the host: the backend says how many bytes of its own each one carries
 * (node_size, handle_size) and keeps no pointer in them, so that a later process can take them over.
 *
 * In the order of use:
 *   1. open() gets the argument behind "NAME:" and the options, and fills struct fe_root.
 *   2. lookup() and the functions that create turn (parent, name) into an entry: the backend fills
 *      its node record and the attributes; the host finds out by the first key_size bytes whether
 *      the node is known already, numbers it and counts what the kernel holds (nlookup).
 *   3. All other functions work on nodes and handles.
 *   4. forget() gives back what a node record owns, release() what a handle record owns.
 *   5. close() ends it.
 *
 * Return values: 0 or a positive count, or a negative errno. A function that is NULL answers -ENOSYS
 * or what its comment says. Names are single components: never empty, ".", ".." or with a slash.
 *
 * Threads: every function may be called from several threads at once, also on the same node or
 * handle. The kernel keeps two changes of one directory apart, and lookups from changes; nothing else.
 * A function may block; other requests go on meanwhile. One that may wait without end (a lock that
 * somebody else holds) has to return FE_PENDING instead.
 */
#ifndef FUSE_EXTENT_BACKEND_H
#define FUSE_EXTENT_BACKEND_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <linux/stat.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. A backend built for another one is refused. Since 0.1. */
#define FE_BACKEND_ABI 2

/* The symbol of type `const struct fe_backend` that a backend's shared object exports. Since 0.1. */
#define FE_BACKEND_SYMBOL "fe_backend"

/* "I keep the request and answer it later through fe_services.complete." */
#define FE_PENDING 1

#define FE_NO_GROUP UINT32_MAX

struct fe_backend;
struct fe_inner;
struct fe_table;

/*
 * Who asks. Valid during the call only.
 * uid, gid: the caller's file system ids. pid: its process, 0 where the kernel itself asks (writeback,
 * readahead). umask: of create, mkdir, mknod, tmpfile; to be applied by the backend, unless the parent
 * directory has a default ACL. supp_group: the caller's supplementary group that is also the parent
 * directory's, FE_NO_GROUP where there is none (or the kernel is older than 6.3).
 * token: names the request in fe_services.complete.
 *
 * A server that died is succeeded by another process (FE_FEAT_RECOVER), which does the requests again
 * that have no result yet. Then `again` is 1: the operation may have happened already, wholly or in
 * part, and its result is to be the same as if it happened once. The kernel keeps a directory locked
 * while a name in it changes, so where nobody else writes to the source, what the request was to make
 * and is there was made by it, and what it was to remove and is gone was removed by it.
 * since: when the request came, in nanoseconds of CLOCK_REALTIME_COARSE: what time stamps of files are
 * taken from. intent: memory of the request in which the backend may note what it has to know in that
 * case, as found before the operation; zero at first, as it was left by the process that died when
 * `again` is set. NULL where nothing is recovered.
 */
struct fe_request {
	uint64_t unique;
	uint64_t token;
	uint32_t opcode;
	uint32_t uid;
	uint32_t gid;
	uint32_t pid;
	uint32_t umask;
	uint32_t supp_group;
	uint32_t again;
	uint32_t reserved;
	uint64_t since;
	struct fe_intent *intent;
};

/* What a backend notes before an operation that it could not tell done from not done. */
#define FE_INTENT_SIZE 512
struct fe_intent {
	uint32_t state;		/* 0: nothing noted; the backend's own numbers else, written last */
	uint32_t size;
	unsigned char data[FE_INTENT_SIZE - 8];
};

/* One file of any type. record holds node_size bytes, aligned to 8. nodeid is never used twice. The counts
 * are those of when a function was called. */
struct fe_node {
	uint64_t nodeid;
	unsigned char *record;
	uint32_t writers;	/* handles that are open for writing */
	uint32_t opens;		/* open files; not of directories */
};

/* One open file or directory. record holds handle_size bytes, aligned to 8. */
struct fe_handle {
	uint64_t fh;
	unsigned char *record;
};

/*
 * What a lookup or a creation finds. The backend fills all but `record`'s address.
 * record: node_size zeroed bytes; the first key_size bytes identify the file: the same file has the
 * same key whatever name led to it, a later file never has it. What the record owns passes to the
 * host with a return value of 0; the host gives it back by forget().
 * attr: as statx(2) fills it; stx_ino is what applications see, all of STATX_BASIC_STATS must be set,
 * STATX_BTIME where known.
 * entry_valid, attr_valid: for how long the kernel may keep name and attributes, in nanoseconds;
 * preset to the mount's options.
 */
struct fe_entry {
	unsigned char *record;
	struct statx attr;
	uint64_t entry_valid;
	uint64_t attr_valid;
};

/* Bits of fe_setattr.valid. */
#define FE_SET_MODE		(1u << 0)
#define FE_SET_UID		(1u << 1)
#define FE_SET_GID		(1u << 2)
#define FE_SET_SIZE		(1u << 3)
#define FE_SET_ATIME		(1u << 4)
#define FE_SET_MTIME		(1u << 5)
#define FE_SET_ATIME_NOW	(1u << 6)
#define FE_SET_MTIME_NOW	(1u << 7)
#define FE_SET_CTIME		(1u << 8)
/* The caller lacks CAP_FSETID: take set-user-ID and set-group-ID away with the change. */
#define FE_SET_KILL_SUIDGID	(1u << 9)

struct fe_time {
	int64_t tv_sec;
	uint32_t tv_nsec;
};

/* valid == 0 is chown(-1, -1): permitted, and it moves ctime. */
struct fe_setattr {
	uint32_t valid;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	uint64_t size;
	struct fe_time atime, mtime, ctime;
};

/*
 * How an open ended.
 * flags: FE_OPEN_*. The kernel demands that all opens of one node agree on passing through; the host
 * sees to it: it decides at the first open and keeps to that until the last close.
 */
#define FE_OPEN_DIRECT_IO	(1u << 0)	/* do not cache the data in the kernel */
#define FE_OPEN_KEEP_CACHE	(1u << 1)	/* what the kernel has cached is still right */
#define FE_OPEN_NONSEEKABLE	(1u << 2)
#define FE_OPEN_CACHE_DIR	(1u << 3)	/* the kernel may keep the listing */
#define FE_OPEN_STREAM		(1u << 4)	/* no file position at all */
#define FE_OPEN_NOFLUSH		(1u << 5)	/* flush() need not be called on close */
#define FE_OPEN_PARALLEL_WRITES	(1u << 6)	/* direct writes need no inode lock */
/*
 * Of a directory. A listing by this handle, from offset 0 to its end, has each name that was there all the
 * while, whatever came and went; and what it does not have can not be looked up. Then other names are known
 * to be absent, as long as absent names are kept, and where the module extfuse answers, without a lookup.
 * Names that come by other ways are told by inval_entry, or not seen before that time is over. Since 0.3.
 */
#define FE_OPEN_ALL_NAMES	(1u << 7)

struct fe_open {
	unsigned char *record;	/* handle_size zeroed bytes to fill; owned as in fe_entry */
	uint32_t flags;
};

/* io_flags of open_file, create and write. The caller lacks CAP_FSETID: take the set-id bits away. */
#define FE_IO_KILL_SUIDGID	(1u << 0)
/* The kernel writes back its cache: `req` does not say who wrote. */
#define FE_IO_CACHE		(1u << 1)
/* write: the file is in append mode now; off is where the kernel thinks that it ends. */
#define FE_IO_APPEND		(1u << 2)

/*
 * Receives a directory listing. add() takes one entry and returns 0, or 1 when it did not fit: stop
 * then. next_off is the cookie that continues behind this entry, never 0. type is a DT_* value.
 * The entry may be NULL: where the kernel wants the attributes too, the host then calls lookup().
 * A backend that has them at hand passes them if want_entry is set.
 */
struct fe_dirfill {
	int (*add)(struct fe_dirfill *fill, const char *name, size_t len, uint64_t ino, unsigned type,
		   uint64_t next_off, const struct fe_entry *entry);
	size_t room;		/* bytes left in the reply */
	int want_entry;
};

/* A byte-range lock. end is inclusive, UINT64_MAX for "to the end". type: F_RDLCK, F_WRLCK, F_UNLCK. */
struct fe_lock {
	uint64_t start;
	uint64_t end;
	uint64_t owner;		/* opaque; locks of one owner do not conflict */
	uint32_t type;
	uint32_t pid;
	int wait;		/* setlk: wait for it (return FE_PENDING, never block) */
	int flock;		/* a whole-file flock(2) lock */
};

/* What close(2) has to undo. */
struct fe_release {
	uint32_t flags;		/* the open flags */
	uint64_t lock_owner;
	int flock_unlock;	/* drop the flock of lock_owner */
};

/* valid: for how long the same may be told again, whatever happens to files meanwhile, in nanoseconds; preset
 * to 0. Heeded where the module extfuse answers. Since 0.3. */
struct fe_statfs {
	uint64_t blocks, bfree, bavail, files, ffree;
	uint32_t bsize, namelen, frsize;
	uint64_t valid;
};

/* ioctl(2) with data of known size. out_size: room on entry, bytes used on return. */
struct fe_ioctl {
	uint32_t cmd;
	uint32_t flags;		/* FUSE_IOCTL_* */
	uint64_t arg;
	const void *in;
	size_t in_size;
	void *out;
	size_t out_size;
	int32_t result;		/* what ioctl(2) returns */
};

/* Bits of fe_root.features: what the backend is able to do. */
#define FE_FEAT_POSIX_ACL	(1u << 0)	/* keeps system.posix_acl_* and applies them on create */
#define FE_FEAT_KILLPRIV	(1u << 1)	/* honours every *_KILL_SUIDGID, clears caps on write */
#define FE_FEAT_KERNEL_PERMS	(1u << 2)	/* the kernel checks permissions (default_permissions) */
#define FE_FEAT_LOCKS		(1u << 3)	/* wants getlk/setlk; else the kernel keeps the locks */
#define FE_FEAT_FLOCK		(1u << 4)	/* wants flock; else the kernel keeps it */
#define FE_FEAT_PASSTHROUGH	(1u << 5)	/* backing_fd() may give descriptors */
#define FE_FEAT_ATOMIC_O_TRUNC	(1u << 6)	/* open() truncates for O_TRUNC */
/* Can be taken over: all that changes after open() is in records and in fe_services.shared memory,
 * descriptors in either are put and taken by fd_put and fd_take, and operations heed fe_request.again. */
#define FE_FEAT_RECOVER		(1u << 7)
/* ... by another program, too: open() heeds fe_open_args.adopted. */
#define FE_FEAT_ADOPT		(1u << 8)
/* Attributes come cheap with a listing, and dear one by one: the kernel always asks for both. */
#define FE_FEAT_READDIRPLUS	(1u << 9)
/* What access() allows is up to the node and to fe_request's uid and gid, and to each bit of the mask alone:
 * it may be kept as long as attributes. Not where other groups of the caller count. Since 0.3. */
#define FE_FEAT_ACCESS_BY_IDS	(1u << 10)
/* backing_fd() may be asked at any open, and read() and write() come also for files whose descriptor was given:
 * then the module extfuse passes data through where the driver can not (before Linux 6.9). Since 0.3. */
#define FE_FEAT_PASSTHROUGH_MIXED (1u << 11)
/*
 * A handle that was opened for reading, without flags that change how, serves whoever the kernel lets open the file
 * for reading, where open_file() has told FE_OPEN_NOFLUSH and nothing else but FE_OPEN_PARALLEL_WRITES: several may
 * read(), lseek(), fsync(), ioctl(), getattr() and copy_file_range() by it at a time. backing_fd() tells the file that
 * is read: one of a file system on this machine, whose time of access says when. Then the module extfuse may answer
 * opens by it, and release() comes later. Needs FE_FEAT_PASSTHROUGH, and does nothing with FE_FEAT_LOCKS or
 * FE_FEAT_FLOCK. Since 0.3.
 */
#define FE_FEAT_STANDING	(1u << 12)

/*
 * What open() tells of the file system. The root node's record is in root.record.
 * table: what is called from now on in place of the table that open() was found in, for a backend whose
 * record sizes and functions depend on what it stacks upon; valid until close(). NULL: that table.
 */
struct fe_root {
	struct fe_entry root;
	uint32_t features;
	uint32_t max_stack_depth; /* of what lies below, for FUSE_PASSTHROUGH; 1 fits most */
	uint64_t time_gran;	/* of time stamps, in nanoseconds; 0 or 1 for exact */
	/* How far the kernel is to read ahead, in bytes, where root mounts; 0: what it does by itself. */
	uint64_t read_ahead;
	const struct fe_backend *table;
};

/*
 * What the host does for a backend; valid from open() to close(), from any thread.
 * Since 0.1.
 */
struct fe_services {
	uint32_t struct_size;

	/* Ends a request that returned FE_PENDING; `error` is 0 or a negative errno. */
	void (*complete)(void *host, uint64_t token, int error);

	/*
	 * Tell the kernel of a change made elsewhere. They return 0, -ENOENT where the kernel knows
	 * nothing of it, or another negative errno. They may wait for requests that run on the same
	 * node: never call them from inside one of the backend's functions, except inval_inode with
	 * off < 0, which lets the attributes expire and touches nothing else.
	 */
	int (*inval_inode)(void *host, uint64_t nodeid, int64_t off, int64_t len);
	int (*inval_entry)(void *host, uint64_t parent, const char *name, int expire_only);
	int (*notify_delete)(void *host, uint64_t parent, uint64_t child, const char *name);
	int (*store)(void *host, uint64_t nodeid, uint64_t off, const void *data, size_t len);

	/* The nodeid that a key has now, 0 where the kernel does not know the node. */
	uint64_t (*nodeid_of_key)(void *host, const void *key);

	/*
	 * Calls fn on the live record of the node with that key, while the host holds it in place: for
	 * a backend that must note something on a node it was not called with. Returns -ENOENT where
	 * there is none, else what fn returns.
	 */
	int (*with_node)(void *host, const void *key, int (*fn)(void *arg, struct fe_node *node), void *arg);

	/* One line to the operator. level: LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG of <syslog.h>. */
	void (*log)(void *host, int level, const char *fmt, ...)
#ifdef __GNUC__
		__attribute__((format(printf, 3, 4)))
#endif
		;

	/*
	 * Memory that a successor finds as it was left, zeroed at first; from open() only. name: up to
	 * 31 bytes. It holds no pointers; locks do not belong there. Returns 0 or a negative errno.
	 */
	int (*shared)(void *host, const char *name, size_t size, void **out);

	/*
	 * A descriptor that outlives its request is known to a successor only by the place, in a record
	 * or in shared memory, where it is written: fd_put writes it there and fd_take writes -1 and
	 * returns it to be closed, each in one step. All others are closed after a death.
	 */
	void (*fd_put)(void *host, int *where, int fd);
	int (*fd_take)(void *host, int *where);

	/* Opens another backend to stack upon: "NAME:ARGUMENT", as on the command line. One only:
	 * -EBUSY for a second. */
	int (*open_inner)(void *host, const char *source, const char *options, struct fe_inner **inner);

	/*
	 * Records of the backend's own, for what is neither a node nor a handle; a successor finds them as
	 * they were left, where they were. table: from open() only; name: up to 31 bytes; size: of a record,
	 * at most 256 bytes; most: records at a time. record_new gives one with these bytes, NULL where
	 * there is no room, and record_free ends it, each in one step; both from the first request on.
	 * A record holds no pointers, and does not move; its bytes may be changed at any time, what must
	 * not come apart with one store. record_each calls fn for all that there are, until it returns
	 * something else than 0. Since 0.2.
	 */
	int (*table)(void *host, const char *name, uint32_t size, uint32_t most, struct fe_table **out);
	void *(*record_new)(void *host, struct fe_table *t, const void *bytes);
	void (*record_free)(void *host, struct fe_table *t, void *record);
	int (*record_each)(void *host, struct fe_table *t, int (*fn)(void *arg, void *record), void *arg);

	/*
	 * Whether the file system is no longer mounted: nobody takes an answer any more. What a backend
	 * waits for without end it gives up then, within seconds. Since 0.2.
	 */
	int (*ended)(void *host);

	/*
	 * A thread of the backend's own begins and ends to work: with descriptors, records or files. What a dead
	 * process left open is closed, and a successor begins, when none does. Each enter has its leave. Not in
	 * the backend's functions, which are called by the host's threads. Since 0.2.
	 */
	void (*helper_enter)(void *host);
	void (*helper_leave)(void *host);
};

/*
 * An inner backend: call its functions with `priv` in place of your own. Owned by the host. Its services
 * are those of the outer one: so a record of the outer one begins with that of the inner one, and the keys
 * are the same.
 */
struct fe_inner {
	const struct fe_backend *backend;	/* the table to call */
	void *priv;
	struct fe_root root;
};

/* Given to open(). All strings are valid until close(). */
struct fe_open_args {
	uint32_t struct_size;
	const char *argument;		/* behind "NAME:" */
	const char *options;		/* the -o options that the host did not know, by commas; or "" */
	const struct fe_services *services;
	void *host;			/* first argument of every service */
	uint64_t entry_valid;		/* the mount's defaults, in nanoseconds */
	uint64_t attr_valid;
	/*
	 * The kernel caches writes: open files for reading as well, write at the offset also where
	 * FE_IO_APPEND is given, and fail lseek with -ENOSYS: what is not written yet is no hole.
	 */
	int writeback;
	int read_only;
	/*
	 * Another program served the mount before this one: shared() gives what that one had there,
	 * descriptors in it are open, and resume() follows. Nothing of it may be changed here, and the
	 * root's record is not asked for.
	 */
	int adopted;
	/* Each fd_put and fd_take costs a message to the service manager: put what has to be, and no more. */
	int stored;
	uint64_t negative_valid;	/* how long absent names are kept, in nanoseconds. Since 0.3 */
};

/*
 * The table. Everything but abi, struct_size, name, node_size, key_size, open, close, lookup and
 * getattr may be 0 or NULL. `b` is what open() stored in *priv.
 * Since 0.1, except where a member says otherwise.
 */
struct fe_backend {
	uint32_t abi;			/* FE_BACKEND_ABI */
	uint32_t struct_size;		/* sizeof(struct fe_backend) */
	const char *name;		/* in "NAME:ARGUMENT" */
	const char *description;	/* a line for --help */
	const char *options_help;	/* "  -o opt    text\n" lines; NULL: it takes no options */

	uint32_t node_size;		/* bytes of a node record, at most 256 */
	uint32_t key_size;		/* leading bytes of it that identify the file */
	uint32_t handle_size;		/* bytes of a handle record, at most 256 */
	uint32_t reserved;

	/* Where it fails, close() is called only if *priv was set. */
	int (*open)(const struct fe_open_args *args, struct fe_root *root, void **priv);
	void (*close)(void *b);

	/* Called once on each worker thread before its first request; to set up per-thread state. */
	void (*thread_start)(void *b);

	/* Names. lookup: -ENOENT where there is none. */
	int (*lookup)(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		      struct fe_entry *out);
	/* The kernel holds the node no longer and no handle is open: give back what the record owns.
	 * Also called for a record from lookup() whose key the host knew already. */
	void (*forget)(void *b, struct fe_node *node);

	/* Attributes. handle may be NULL. *valid is preset as in fe_entry. */
	int (*getattr)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		       struct statx *out, uint64_t *valid);
	int (*setattr)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		       const struct fe_setattr *set, struct statx *out, uint64_t *valid);
	int (*access)(void *b, const struct fe_request *req, struct fe_node *node, uint32_t mask);
	/* Returns the length; the target is not terminated. */
	ssize_t (*readlink)(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size);

	/* Names that come and go. mode is without the umask applied. */
	int (*mknod)(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		     uint32_t mode, uint32_t rdev, struct fe_entry *out);
	int (*mkdir)(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		     uint32_t mode, struct fe_entry *out);
	int (*symlink)(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		       const char *target, struct fe_entry *out);
	int (*link)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_node *parent,
		    const char *name, struct fe_entry *out);
	int (*unlink)(void *b, const struct fe_request *req, struct fe_node *parent, const char *name);
	int (*rmdir)(void *b, const struct fe_request *req, struct fe_node *parent, const char *name);
	/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT; -EINVAL for one it can not do. */
	int (*rename)(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		      struct fe_node *newparent, const char *newname, uint32_t flags);

	/* Files. flags: of open(2). Without open(), files are opened without asking, and read() and
	 * write() are called with a NULL handle. io_flags: FE_IO_*. */
	int (*open_file)(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags,
			 uint32_t io_flags, struct fe_open *out);
	/* Creates and opens; flags has O_EXCL or not. Where the name exists already: -EEXIST for O_EXCL,
	 * else -ESTALE, on which the kernel looks it up and opens it with all its checks. Without
	 * create(), mknod() and open_file() serve. */
	int (*create)(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		      uint32_t flags, uint32_t mode, uint32_t io_flags, struct fe_entry *entry,
		      struct fe_open *out);
	/* As create, without a name; link() may give it one later. */
	int (*tmpfile)(void *b, const struct fe_request *req, struct fe_node *parent, uint32_t flags,
		       uint32_t mode, struct fe_entry *entry, struct fe_open *out);
	ssize_t (*read)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			void *buf, size_t size, uint64_t off);
	ssize_t (*write)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			 const void *buf, size_t size, uint64_t off, uint32_t io_flags);
	/* On every close(2) of a descriptor; its error is what close(2) returns. */
	int (*flush)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		     uint64_t lock_owner);
	/* Once for each open_file, create and tmpfile: give back what the record owns. */
	void (*release)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			const struct fe_release *how);
	int (*fsync)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		     int datasync);
	int (*fallocate)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			 uint32_t mode, uint64_t off, uint64_t len);
	ssize_t (*copy_file_range)(void *b, const struct fe_request *req, struct fe_node *in_node,
				   struct fe_handle *in, uint64_t in_off, struct fe_node *out_node,
				   struct fe_handle *out, uint64_t out_off, uint64_t len, uint32_t flags);
	int64_t (*lseek)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			 int64_t off, uint32_t whence);
	int (*ioctl)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		     struct fe_ioctl *io);
	/* Returns the ready events (POLLIN, ...); -ENOSYS means always ready. */
	int (*poll)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		    uint32_t events);

	/*
	 * The descriptor that the kernel may read and write in place of the handle, owned by the
	 * record, or -errno to serve the node by read() and write(). Needs FE_FEAT_PASSTHROUGH. Asked
	 * at a node's first open. backing_begin and backing_end bracket the registration: the kernel keeps the
	 * credentials that the thread has then and uses them for all I/O, so drop what would let a
	 * write keep set-id bits (CAP_FSETID) or take reserved blocks (CAP_SYS_RESOURCE, uid 0).
	 */
	int (*backing_fd)(void *b, struct fe_node *node, struct fe_handle *handle);
	void (*backing_begin)(void *b);
	void (*backing_end)(void *b);

	/*
	 * The handle is counted in node->opens, and in node->writers, from now on; not called where the
	 * process died before, nor where release() followed at once. For a backend that has to tell files
	 * that nobody has open from those that somebody is opening. Since 0.2.
	 */
	void (*opened)(void *b, struct fe_node *node, struct fe_handle *handle);

	/* Directories. Without opendir, readdir() is called with a NULL handle. */
	int (*opendir)(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags,
		       struct fe_open *out);
	/* off: 0 or a next_off that was given before. "." and ".." belong to the listing. */
	int (*readdir)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		       uint64_t off, struct fe_dirfill *fill);
	void (*releasedir)(void *b, const struct fe_request *req, struct fe_node *node,
			   struct fe_handle *handle);
	int (*fsyncdir)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			int datasync);

	/* Extended attributes. size 0 asks for the length; -ERANGE where it does not fit. */
	ssize_t (*getxattr)(void *b, const struct fe_request *req, struct fe_node *node, const char *name,
			    void *buf, size_t size);
	ssize_t (*listxattr)(void *b, const struct fe_request *req, struct fe_node *node, char *buf,
			     size_t size);
	/* flags: XATTR_CREATE, XATTR_REPLACE. kill_sgid: take set-group-ID away (an ACL was set). */
	int (*setxattr)(void *b, const struct fe_request *req, struct fe_node *node, const char *name,
			const void *value, size_t size, int flags, int kill_sgid);
	int (*removexattr)(void *b, const struct fe_request *req, struct fe_node *node, const char *name);

	/* Locks; only with FE_FEAT_LOCKS or FE_FEAT_FLOCK. setlk with `wait` returns FE_PENDING. */
	int (*getlk)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		     struct fe_lock *lock);
	int (*setlk)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		     const struct fe_lock *lock);
	/* The caller of a pending request was interrupted: complete it with -EINTR soon. */
	void (*interrupt)(void *b, uint64_t token);

	/* The file system as a whole. */
	int (*statfs)(void *b, const struct fe_request *req, struct fe_node *node, struct fe_statfs *out);
	int (*syncfs)(void *b, const struct fe_request *req, struct fe_node *node);

	/*
	 * Once in a successor, before anything else is called and before any other thread runs: memory
	 * is as open() left it, shared memory and records as the process left them that died. forget()
	 * and release() may then be called for records that are zeroed, half filled or given back
	 * already: what they take from the record is taken once.
	 */
	void (*resume)(void *b);

	/* One JSON object ("{...}") with what an operator may want to know; returns its length. */
	ssize_t (*status)(void *b, char *buf, size_t size);
};

/* What a shared object defines: found by dlsym(3), also where all else is built hidden. */
#ifdef __GNUC__
__attribute__((visibility("default")))
#endif
extern const struct fe_backend fe_backend;

#ifdef __cplusplus
}
#endif

#endif
