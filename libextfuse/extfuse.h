/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libextfuse: answers of a FUSE file system that the kernel gives without asking the daemon again.
 *
 * Two engines do that, behind the same calls. `hook`: the kernel module extfuse answers requests from
 * maps by BPF programs, exactly, also with timeouts of 0 and while the daemon is dead. `native`, where
 * the module is not there: the FUSE driver's own caches, by timeouts and notifications.
 *
 * In the order of use:
 *   1. extfuse_open() makes a context, extfuse_attach() binds it to a connection, when INIT was read.
 *   2. Before a request asks the file system: stamp = extfuse_stamp().
 *   3. With the answer, before the reply is sent: extfuse_put_*(). These set the reply's timeouts, too.
 *   4. Where the file system changed by other ways than this connection: extfuse_invalidate_*().
 *   5. With the hook, nodeids that replies grant have a record: extfuse_node_new() before the first put,
 *      extfuse_forget() when the kernel forgets.
 *
 * What a request changes, the engines know by themselves. A put that comes too late does no harm: its
 * stamp tells that the value is older than a change, and it returns -ESTALE. All errors of puts may be
 * ignored.
 *
 * All functions return 0 or more, or a negative errno value. All are thread-safe, but for open, attach,
 * reopen and close. No state is in the process alone: see extfuse_reopen().
 */
#ifndef EXTFUSE_H
#define EXTFUSE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct extfuse;
/* of <linux/fuse.h> */
struct fuse_attr_out;
struct fuse_entry_out;
struct fuse_open_out;
struct fuse_statfs_out;

/* ---- life cycle ---- */

enum extfuse_engine {
	EXTFUSE_ENGINE_AUTO = 0,	/* hook where it can be had, else native */
	EXTFUSE_ENGINE_HOOK = 1,
	EXTFUSE_ENGINE_NATIVE = 2,
};

#define EXTFUSE_TTL_NONE UINT32_MAX

/*
 * Zeroed members get the default in brackets.
 * struct_size: sizeof(struct extfuse_options).
 * engine: an enum extfuse_engine.
 * memory: bytes of kernel memory for maps and records, taken at once; 1 MiB at least [32 MiB].
 * nodes: records for nodeids [as memory allows]; a nodeid without one is looked up by the daemon.
 * entry_ms, attr_ms, negative_ms: how long names, attributes (and other values), and absent names may be
 *   kept, in milliseconds; EXTFUSE_TTL_NONE: not at all [1000 each].
 * flags: EXTFUSE_KERNEL_TTL: with the hook, too, replies carry timeouts for the driver's own caches, and
 *   invalidations notify it. Faster still, but then a change is seen by everybody when the notification
 *   is done, not when it happens.
 * log: takes one line without a newline; level is a LOG_* of <syslog.h>. NULL: stderr.
 */
struct extfuse_options {
	uint32_t struct_size;
	uint32_t engine;
	uint64_t memory;
	uint32_t nodes;
	uint32_t entry_ms;
	uint32_t attr_ms;
	uint32_t negative_ms;
	uint32_t flags;
	uint32_t reserved0;
	void (*log)(void *arg, int level, const char *line);
	void *arg;
	uint64_t reserved[6];
};

#define EXTFUSE_KERNEL_TTL (1u << 0)

/*
 * What the kernel said in INIT.
 * struct_size: sizeof(struct extfuse_protocol).
 * minor: of the kernel's protocol version, as fuse_init_in.minor says.
 * flags: fuse_init_in.flags, with those of flags2 above.
 */
struct extfuse_protocol {
	uint32_t struct_size;
	uint32_t minor;
	uint64_t flags;
};

/* *out is NULL where it fails: -EINVAL, -ENOMEM, and for EXTFUSE_ENGINE_HOOK why the module can not be
 * used. Since 0.3. */
int extfuse_open(const struct extfuse_options *options, struct extfuse **out);

/*
 * fuse_fd is /dev/fuse of the connection, or a clone, and stays the caller's, who keeps it open. To be
 * called before the reply to INIT is sent. One log line tells which engine runs, and why. -EBUSY: the
 * connection has a context already. Since 0.3.
 */
int extfuse_attach(struct extfuse *x, int fuse_fd, const struct extfuse_protocol *protocol);

/* Detaches, unless its descriptors are still open elsewhere. NULL is allowed. Since 0.3. */
void extfuse_close(struct extfuse *x);

/* The engine that runs, after extfuse_attach(). Since 0.3. */
enum extfuse_engine extfuse_engine(const struct extfuse *x);

/*
 * The descriptors that the hook consists of: of the device, the maps, the programs. As long as they are
 * open, in whatever process, requests are answered. Returns how many there are, 0 with the engine
 * native; not more than `n` are stored. Since 0.3.
 */
#define EXTFUSE_FDS_MAX 64
int extfuse_fds(const struct extfuse *x, int *fds, unsigned n);

/*
 * In a process that takes over, instead of open and attach: the same descriptors, in the same order,
 * with the same options. They are the context's from then on, and closed with it. Nothing in them is
 * believed: -EINVAL where they are not what was made by such options. All values are kept. What was held
 * is not: see extfuse_hold(). With the engine native there is nothing to take over: open and attach
 * again. Since 0.3.
 */
int extfuse_reopen(const struct extfuse_options *options, int fuse_fd,
		   const struct extfuse_protocol *protocol, const int *fds, unsigned n,
		   struct extfuse **out);

/* ---- stamps ---- */

/* To be taken before the file system is asked, or asked to change, for what is put later. Since 0.3. */
uint64_t extfuse_stamp(const struct extfuse *x);

/*
 * Flags of puts. EXTFUSE_OWN_*: the value is the result of the very request that is being answered,
 * which is one that changes: name, attributes or directory. See extfuse_put(3) for which request changes
 * what. Without the flag such a put is refused, as the request is still under way.
 */
#define EXTFUSE_OWN_NAME	(1u << 0)
#define EXTFUSE_OWN_NODE	(1u << 1)
#define EXTFUSE_OWN_DIR		(1u << 2)
/* READ, WRITE of the node go to the file that extfuse_backing() has registered. */
#define EXTFUSE_PASSTHRU_READ	(1u << 3)
#define EXTFUSE_PASSTHRU_WRITE	(1u << 4)

/* ---- puts ----
 *
 * 0: kept. -ESTALE: older than a change, or a change is under way. -ENOTSUP: the engine can not keep
 * such a value. -EINVAL, -ENAMETOOLONG, -E2BIG: nobody can. -ENOMEM.
 */

/*
 * (parent, name) leads to out->nodeid with these attributes; `index`: of its record, UINT32_MAX: it has
 * none. Sets the four timeouts of `out`. For each name of a READDIRPLUS, too. Since 0.3.
 */
int extfuse_put_entry(struct extfuse *x, uint64_t stamp, uint64_t parent, const char *name,
		      uint32_t index, struct fuse_entry_out *out, uint32_t flags);

/* There is no such name. Fills `out` with zeros and the timeouts: where entry_valid or entry_valid_nsec
 * is not 0, it is the reply to a LOOKUP, else -ENOENT is. `out` may be NULL. Since 0.3. */
int extfuse_put_negative(struct extfuse *x, uint64_t stamp, uint64_t parent, const char *name,
			 struct fuse_entry_out *out, uint32_t flags);

/* Attributes. Sets the two timeouts of `out`. Since 0.3. */
int extfuse_put_attr(struct extfuse *x, uint64_t stamp, uint64_t nodeid, struct fuse_attr_out *out,
		     uint32_t flags);

/* An extended attribute; size below 0: an errno instead of a value, such as -ENODATA. `name` up to 48
 * bytes, values up to 1024. The list of names, and a symbolic link's target, the same. Since 0.3. */
int extfuse_put_xattr(struct extfuse *x, uint64_t stamp, uint64_t nodeid, const char *name,
		      const void *value, ssize_t size, uint32_t flags);
int extfuse_put_xattr_list(struct extfuse *x, uint64_t stamp, uint64_t nodeid, const char *list,
			   ssize_t size, uint32_t flags);
int extfuse_put_link(struct extfuse *x, uint64_t stamp, uint64_t nodeid, const char *target, size_t size,
		     uint32_t flags);

/*
 * What ACCESS allows, a mask of R_OK, W_OK and X_OK, to this uid and gid, or by EXTFUSE_ANYONE for both,
 * to all. What is not allowed is answered with EACCES. Groups of the caller beyond gid are not seen.
 * Since 0.3.
 */
#define EXTFUSE_ANYONE UINT32_MAX
int extfuse_put_access(struct extfuse *x, uint64_t stamp, uint64_t nodeid, uint32_t uid, uint32_t gid,
		       uint32_t allowed);

/* STATFS for this nodeid, for so many milliseconds: other files' changes are not seen earlier. Since
 * 0.3. */
int extfuse_put_statfs(struct extfuse *x, uint64_t stamp, uint64_t nodeid,
		       const struct fuse_statfs_out *out, uint32_t ttl_ms);

/*
 * OPEN of this file may be answered with `out` to everybody, where the open(2) flags are among `accept`:
 * so permissions are checked by the kernel (default_permissions), and the handle has no state. O_TRUNC
 * and O_CREAT are never accepted; with FOPEN_PASSTHROUGH neither are O_WRONLY and O_RDWR. out->fh must
 * be no handle that has a state. EXTFUSE_NO_RELEASE, EXTFUSE_NO_FLUSH: these are answered, too, if the
 * module can. The daemon must be prepared to get them anyway. Since 0.3.
 */
#define EXTFUSE_NO_RELEASE	(1u << 8)
#define EXTFUSE_NO_FLUSH	(1u << 9)
int extfuse_put_open(struct extfuse *x, uint64_t stamp, uint64_t nodeid, const struct fuse_open_out *out,
		     uint32_t accept, uint32_t flags);

/* ---- complete directories: any other name is ENOENT ---- */

/* All names of a directory, as bits. Plain data of a fixed size, which may be copied and kept anywhere.
 */
struct extfuse_names {
	uint32_t count;
	uint32_t since;		/* ms of CLOCK_BOOTTIME */
	uint64_t bits[64 * 7];
};

/* None yet; to be called before the first one is read: what is put lives from then on. Since 0.3. */
void extfuse_names_clear(struct extfuse_names *names);
/* "." and ".." need not be added. Since 0.3. */
int extfuse_names_add(struct extfuse_names *names, const char *name);

/* These are all, read since the stamp from the first to the last; up to 6000. -ESTALE, too, where reading
 * them took longer than absent names may be kept. Since 0.3. */
int extfuse_put_dir(struct extfuse *x, uint64_t stamp, uint64_t nodeid,
		    const struct extfuse_names *names);

/* The request that is being answered adds this name: where the directory was complete it remains so.
 * Since 0.3. */
int extfuse_put_dir_name(struct extfuse *x, uint64_t stamp, uint64_t nodeid, const char *name);

/* ---- what changed by other ways ----
 *
 * When these return, nothing older is answered any more. With the engine native they notify the kernel,
 * and wait for requests that it has sent for the same directory: they must not be called by a thread
 * that has to answer one of these. What the kernel does not know is no error.
 */

/* Attributes and other values of the node, and unless EXTFUSE_KEEP_DATA, its cached data. Since 0.3. */
#define EXTFUSE_KEEP_DATA	(1u << 0)
int extfuse_invalidate_node(struct extfuse *x, uint64_t nodeid, uint32_t flags);

/* The name may lead elsewhere, or to nothing, or may be new. Since 0.3. */
int extfuse_invalidate_entry(struct extfuse *x, uint64_t parent, const char *name);

/* The name is gone, and `child` with it or one link less. Since 0.3. */
int extfuse_invalidate_deleted(struct extfuse *x, uint64_t parent, uint64_t child, const char *name);

/* Any names may have come or gone, each of which can not be told. With the engine native: names that are
 * cached stay. Since 0.3. */
int extfuse_invalidate_dir(struct extfuse *x, uint64_t nodeid);

/* Everything. With the engine native: all names, since Linux 6.16; -ENOTSUP before. Since 0.3. */
int extfuse_invalidate_all(struct extfuse *x);

/*
 * What was put about the node, or the name and its directory's attributes, is answered no more; the driver
 * is not told. Where it knows already, as after a READ, which moves the time of access, or where the caller
 * notifies it himself. Any thread, at any time. Since 0.3.
 */
int extfuse_outdated_node(struct extfuse *x, uint64_t nodeid);
int extfuse_outdated_entry(struct extfuse *x, uint64_t parent, const char *name);

/* ---- records of nodeids ---- */

/*
 * A LOOKUP that is answered by the hook grants a nodeid without the daemon. So that its count is right,
 * a nodeid has a record, of an index that the caller chooses. -EBUSY: the record's nodeid is not dead;
 * -ERANGE: there are not so many records. A nodeid is never used twice in a connection. Since 0.3.
 */
int extfuse_node_new(struct extfuse *x, uint32_t index, uint64_t nodeid);
uint32_t extfuse_nodes(const struct extfuse *x);

/*
 * After a FORGET: `count` is what the daemon itself has granted less what all FORGETs of this nodeid
 * took, and may be below 0. 1: the kernel does not know the nodeid any more, now and for ever. 0: it
 * does. Can be asked again. Since 0.3.
 */
int extfuse_forget(struct extfuse *x, uint32_t index, uint64_t nodeid, int64_t count);

/* How often the hook has granted the nodeid. Since 0.3. */
uint64_t extfuse_granted(const struct extfuse *x, uint32_t index, uint64_t nodeid);

/* ---- data without the daemon ---- */

/*
 * The hook: this file is what READ and WRITE of the node go to, where its attributes were put with
 * EXTFUSE_PASSTHRU_*. fd -1: not any more. The descriptor stays the caller's. Since 0.3.
 */
int extfuse_backing(struct extfuse *x, uint64_t nodeid, int fd);

/*
 * FUSE_PASSTHROUGH of the driver (Linux 6.9, where INIT agreed on it), with both engines: an id above 0
 * for replies to OPEN with FOPEN_PASSTHROUGH. Registered as nobody, by a thread of its own, so that writes
 * keep no set-id bits, and use no reserved blocks. Needs CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID (-EPERM).
 * Since 0.3.
 */
int extfuse_backing_open(struct extfuse *x, int fd);
int extfuse_backing_close(struct extfuse *x, int backing_id);

/*
 * The hook: from now on OPEN of the node for reading is answered with `out`, to everybody whom the kernel lets,
 * and RELEASE of out->fh, too; the module counts them. Other than what extfuse_put_open() says it does not end
 * by itself, and what is known of the node is answered all the while: reads are seen by the time of access of
 * `fd`, which is the file that is read, and stays the caller's. out->fh is one that no open has which the daemon
 * answered. What the daemon grants itself must agree with it on FOPEN_PASSTHROUGH. To be called when
 * permissions are checked by the kernel, and where FLUSH has nothing to do (FOPEN_NOFLUSH). -EEXIST: the node
 * has one; -ENOTSUP: the module is older; -ELOOP, -EINVAL: not a regular file of an ordinary file system; -ESTALE: it
 * has no name; -EBADF: no such descriptor; -ENOSPC: there are too many, or of this node too many that were ended while
 * they were open. Since 0.3.
 */
int extfuse_standing(struct extfuse *x, uint64_t nodeid, int fd, const struct fuse_open_out *out);

/*
 * Ends that. Above 0: the handle is open so often, and the last RELEASE will come to the daemon, with which it may
 * give back what the handle has. 0 or -ENOENT: nobody has it open. Can be asked again. -ENOTSUP: the module is older, so
 * there is none. Since 0.3.
 */
int extfuse_standing_end(struct extfuse *x, uint64_t nodeid, uint64_t fh);

/*
 * Writes that make no request: from before the reply to an OPEN for writing with FOPEN_PASSTHROUGH,
 * until its RELEASE, nothing is answered about the node. A process that takes over begins with
 * extfuse_hold_reset(), and holds what is open. Since 0.3.
 */
int extfuse_hold(struct extfuse *x, uint64_t nodeid);
int extfuse_unhold(struct extfuse *x, uint64_t nodeid);
int extfuse_hold_reset(struct extfuse *x);

/* ---- handlers ---- */

/*
 * From now on requests with this opcode go to the BPF program of this descriptor, which stays the
 * caller's; see extfuse-handlers(7). EXTFUSE_HANDLER_NONE: to the daemon; EXTFUSE_HANDLER_OURS: to the
 * one that the library brings; EXTFUSE_HANDLER_BACKING, for READ and WRITE: to the file that
 * extfuse_backing() has registered, whatever attributes were put. -EINVAL: not a program that may. Since 0.3.
 */
#define EXTFUSE_HANDLER_NONE	(-1)
#define EXTFUSE_HANDLER_OURS	(-2)
#define EXTFUSE_HANDLER_BACKING	(-3)
#define EXTFUSE_HANDLER_IDS	(1u << 0)	/* it reads uid, gid or pid */
int extfuse_handler(struct extfuse *x, uint32_t opcode, int prog_fd, uint32_t flags);

/* The descriptor of a map by its name: "entry_map", "attr_map", ... for handlers that share it; -ENOENT.
 * Since 0.3. */
int extfuse_map_fd(const struct extfuse *x, const char *name);

/* ---- figures ---- */

struct extfuse_opcode_figures {
	uint64_t hits;		/* answered without the daemon */
	uint64_t passthru;	/* done on the backing file */
	uint64_t misses;	/* nothing known */
	uint64_t stale;		/* known, but no longer true */
	uint64_t refused;	/* an answer of a handler that the kernel must not be given */
	uint64_t mutations;	/* requests that changed something */
};

#define EXTFUSE_OPCODES 64

/* opcode[]: of the hook since it was attached. The others: of this context. */
struct extfuse_figures {
	uint32_t struct_size;
	uint32_t engine;
	uint64_t memory;	/* of maps and records, in bytes */
	uint64_t puts;		/* kept */
	uint64_t late;		/* -ESTALE */
	uint64_t invalidations;	/* told by the caller */
	uint64_t notifications;	/* sent to the driver */
	struct extfuse_opcode_figures opcode[EXTFUSE_OPCODES];
};

/* struct_size is set by the caller. Since 0.3. */
int extfuse_figures(const struct extfuse *x, struct extfuse_figures *out);

#ifdef __cplusplus
}
#endif

#endif
