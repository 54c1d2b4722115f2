/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * The device of the module, /dev/extfuse. One open file of it serves one FUSE connection, from
 * EXTFUSE_ATTACH until the last descriptor of it is closed; requests then go to the daemon only.
 * It goes on answering while the daemon is dead, as long as somebody holds the descriptor.
 *
 * All return 0 or set errno. EINVAL: a flag or value that is not known; ENOTCONN: not attached.
 * Structures grow at their end only, with another EXTFUSE_ABI where they change otherwise.
 */
#ifndef EXTFUSE_IOCTL_H
#define EXTFUSE_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define EXTFUSE_DEVICE "/dev/extfuse"

/* What the module is: asked before anything else. */
struct extfuse_version {
	__u32 abi;		/* EXTFUSE_ABI */
	__u32 request_size;	/* sizeof(struct extfuse_request) */
	__u64 opcodes;		/* bit N: a handler may answer opcode N */
};

/*
 * Who may: who could open the device and holds /dev/fuse of the connection, in the user namespace in
 * which it was mounted, else EPERM. EBADF: fuse_fd is not that. EBUSY: the connection has
 * another context, or this file another connection.
 * Word 0 is busy, so nothing is answered, until no request from before is under way: attach early.
 */
struct extfuse_attach {
	__s32 fuse_fd;
	__u32 flags;		/* 0 */
	__u32 word_bits;	/* 6 to 22 */
	__u32 nodes;		/* records, up to 1 << 24 */
};

#define EXTFUSE_PROGRAM_IDS	(1U << 0)	/* it reads uid, gid or pid */
/*
 * Run it only where the word of the request's node is marked; for LOOKUP, that of all names of the directory,
 * or that of the name where the directory's is named, too. So what nothing was put for costs next to nothing.
 * A mutation takes the mark away.
 */
#define EXTFUSE_PROGRAM_MARKED	(1U << 1)
/*
 * Of LOOKUP and GETATTR: ask it before there is a request, of names and attributes that the driver may
 * keep no longer. Where it says the same of them, there is none; where it says something else, it is
 * asked once more by the request, and of a name that it has no answer for it is not. Of one node both
 * must say the same: where LOOKUP has an answer, GETATTR may not be asked.
 * With EXTFUSE_PROGRAM_MARKED only. What it says is remembered, and said again as long as it rests on what is true, the
 * marks of the words of the name, the directory and the node stay as they are, and no other program is set for any
 * opcode: so whoever changes a map changes the mark.
 */
#define EXTFUSE_PROGRAM_EARLY	(1U << 2)

/* What it is not shown, and what it does not write, is 0; not with EXTFUSE_PROGRAM_EARLY. */
#define EXTFUSE_PROGRAM_CLEARED	(1U << 3)

/*
 * From now on this program answers the opcode; -1: none does. A program of another type, or one that
 * could reach beyond the request (also by tail calls: so it may have no PROG_ARRAY), is EINVAL.
 * EOPNOTSUPP: an opcode that handlers do not answer.
 */
struct extfuse_program {
	__u32 opcode;
	__s32 prog_fd;
	__u32 flags;		/* EXTFUSE_PROGRAM_* */
	__u32 pad;
};

/*
 * The kernel reads and writes this file where the handler of READ or WRITE says EXTFUSE_PASSTHRU, with
 * the rights of nobody and no capability. fd -1: no longer. ELOOP: a file of FUSE or of a stacked file
 * system; EINVAL: not a regular file, or O_APPEND; ENOSPC: EXTFUSE_BACKING_MAX are registered.
 */
struct extfuse_backing {
	__u64 nodeid;
	__s32 fd;
	__u32 flags;		/* 0 */
};

#define EXTFUSE_BACKING_MAX	65536

/*
 * A file that the daemon has open for all who open it for reading: OPEN of the node is answered with this handle,
 * to whoever the driver lets open it, and so is RELEASE of that; no handler is asked. `fd` is the file whose data
 * it is, open_flags and backing_id are those of struct fuse_open_out. No open that the daemon answered may have the
 * handle. What was put about the node is answered only as long as the file's time of access stays, so reads
 * need not be seen. A file without any name is opened by the daemon.
 * fd -1 ends it: returns how often it is open still. If not 0, the last RELEASE goes to the daemon, and so may
 * this be asked again; if 0, or ENOENT, nobody has the handle any more.
 * EEXIST: the node has one, or the handle; ENOSPC: EXTFUSE_STANDING_MAX are registered, or EXTFUSE_STANDING_OF_NODE
 * of this node; ESTALE: the file has no name; EBADF: no such descriptor; ELOOP, EINVAL: as above.
 */
struct extfuse_standing {
	__u64 nodeid;
	__u64 fh;
	__s32 fd;
	__u32 open_flags;
	__s32 backing_id;
	__u32 flags;		/* 0 */
};

#define EXTFUSE_STANDING_MAX	8192
#define EXTFUSE_STANDING_OF_NODE	4	/* with those that are ended and open still */

struct extfuse_opcode_stats {
	__u64 hits;		/* answered by the handler */
	__u64 passthru;		/* by the backing file */
	__u64 misses;		/* the handler said EXTFUSE_UPCALL */
	__u64 stale;		/* ... had an answer that is no longer true */
	__u64 refused;		/* ... had one that the kernel must not be given */
	__u64 mutations;	/* sent to the daemon, with what it changes invalidated */
};

#define EXTFUSE_STATS_OPCODES	64	/* those from 63 on are counted in the last */

struct extfuse_stats {
	struct extfuse_opcode_stats opcode[EXTFUSE_STATS_OPCODES];
};

#define EXTFUSE_IOC_VERSION	_IOR('E', 0x80, struct extfuse_version)
#define EXTFUSE_IOC_ATTACH	_IOW('E', 0x81, struct extfuse_attach)
#define EXTFUSE_IOC_PROGRAM	_IOW('E', 0x82, struct extfuse_program)
#define EXTFUSE_IOC_BACKING	_IOW('E', 0x83, struct extfuse_backing)
#define EXTFUSE_IOC_STATS	_IOR('E', 0x84, struct extfuse_stats)
#define EXTFUSE_IOC_STANDING	_IOW('E', 0x85, struct extfuse_standing)

#endif
