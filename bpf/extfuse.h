/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * What the kernel module, the BPF handlers and libextfuse agree on: the request as a handler sees it,
 * and the area of memory that module and daemon share. The module's ioctls are in extfuse_ioctl.h.
 *
 * A handler (BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE) gets `struct extfuse_request *` as its first
 * argument and returns an enum extfuse_result. It only finds answers; whether one is still true, the
 * module decides by what the handler says that it rests on (`deps`).
 */
#ifndef EXTFUSE_ABI
#define EXTFUSE_ABI 2

#include <linux/types.h>

enum extfuse_result {
	EXTFUSE_UPCALL = -38,	/* -ENOSYS: ask the daemon; so is any value not named here */
	EXTFUSE_RETURN = 0,	/* answered: `error`, and `out` where that is 0 */
	EXTFUSE_PASSTHRU = 1,	/* READ, WRITE: by the backing file that is registered for the node */
};

#define EXTFUSE_NAME_MAX	255
#define EXTFUSE_IN_SIZE		88	/* the largest fixed argument: struct fuse_setattr_in */
#define EXTFUSE_OUT_SIZE	1024	/* what a handler can answer at most */
#define EXTFUSE_DEPS		4

/* ---- the request ---- */

/* "My answer holds as long as the word of this holds for `stamp` or `own`" (see struct extfuse_word). */
enum extfuse_dep_kind {
	EXTFUSE_DEP_NODE = 1,	/* attributes, xattrs, target of a link, ...: all of `nodeid` */
	EXTFUSE_DEP_NAME = 2,	/* what the request's (nodeid, name) leads to */
	EXTFUSE_DEP_DIR = 3,	/* all names of the request's nodeid are known */
};

struct extfuse_dep {
	__u64 nodeid;		/* of EXTFUSE_DEP_NODE; not looked at for others */
	__u64 stamp;
	__u64 own;
	__u32 kind;
	__u32 pad;
};

/* enum extfuse_request_flags */
#define EXTFUSE_REQ_ARGVAR	(1U << 1)	/* an answer may be shorter than out_max, else exactly that */
#define EXTFUSE_REQ_IDS		(1U << 2)	/* uid, gid and pid are set, by EXTFUSE_PROGRAM_IDS */

/*
 * The verifier allows constant offsets only. What is not said to be set holds remains of requests before, those of
 * other mounts, too: `in` beyond in_size, `name` beyond name_len rounded up to 8, deps, out. Programs with
 * EXTFUSE_PROGRAM_CLEARED find 0 there; others must write all that they answer.
 */
struct extfuse_request {
	/* set by the module */
	__u32 opcode;
	__u32 flags;
	__u64 nodeid;
	__u64 now;		/* CLOCK_BOOTTIME in ns, at most a clock tick old */
	__u32 name_len;		/* without NUL; 0: there is no name */
	__u32 in_size;		/* of the fixed argument in `in` */
	__u32 out_max;		/* what the caller takes */
	__u32 uid, gid, pid;	/* in the connection's namespaces */
	/* answer; set to 0 before the handler runs */
	__s32 error;		/* of EXTFUSE_RETURN: 0 or -errno, neither -ENOSYS nor below -511 */
	__u32 out_size;
	__u32 node_index;	/* LOOKUP that grants a nodeid: its record in the nodes of the area */
	__u32 ndeps;		/* 0: it rests on nothing */
	__u64 expires;		/* CLOCK_BOOTTIME in ns of the first of the values to expire; 0: never */
	struct extfuse_dep deps[EXTFUSE_DEPS];
	/* set by the module */
	__u8 in[EXTFUSE_IN_SIZE];
	__u8 name[EXTFUSE_NAME_MAX + 1];	/* padded by zeros to a multiple of 8, at least one of them */
	/* answer */
	__u8 out[EXTFUSE_OUT_SIZE];
};

/* ---- the area that module and daemon share: mmap() of the attached device from offset 0 ---- */

struct extfuse_area {		/* at 0; but for the clock, the daemon only reads it */
	__u32 abi;		/* EXTFUSE_ABI of the module */
	__u32 word_bits;	/* there are 1 << word_bits words */
	__u32 nodes;		/* number of records */
	__u32 pad;
	__u64 seed;		/* of extfuse_word_*() */
	__u64 words_offset;	/* struct extfuse_word[], from the start of the area */
	__u64 nodes_offset;	/* struct extfuse_node[] */
	__u64 size;		/* of all */
	__u64 clock;		/* advances when a mutation is over */
};

/*
 * One word stands for each thing that a value can rest on, found by hash: two things in one word only
 * cost hits. Word 0 stands for everything.
 *
 * The low bits of `state` count the mutations under way, the high bits say when the last one was over, in
 * ticks of the clock: who ends one advances the clock first, and then sets the time and counts down by one
 * compare and exchange. A value has a `stamp`, the clock before the backend was asked for it: it is true as long
 * as no mutation is under way and the last one was over by then. The thing itself need not be known before.
 *
 * `prev` is when the mutation before the last one was over. It is raised, and never lowered, to the time that
 * the state still has, before that is replaced. The result of a mutation, put while that alone is under
 * way, has `own`, one more than the state's time then: it is true as long as no mutation is under way, and prev is
 * less. So it becomes true when its mutation is over, unless another one came between.
 *
 * Everything has to hold, too: word 0 for the least stamp of what an answer rests on.
 */
struct extfuse_word {
	__u64 state;
	__u64 prev;
	__u32 held;		/* by the daemon: while it is not 0, nothing about this is answered */
	/* Set by the daemon after it put a value; see EXTFUSE_PROGRAM_MARKED. */
	__u16 marked;		/* for this: one more each time, but not 0; a mutation sets it to 0 */
	__u16 named;		/* for a name in this directory: 1, from then on */
};

#define EXTFUSE_WORD_BEGIN	1ULL			/* add: a mutation begins */
#define EXTFUSE_WORD_BUSY	((1ULL << 20) - 1)	/* mask: mutations under way */
#define EXTFUSE_WORD_TIME	20			/* shift: when the last one was over */

/*
 * A record says for one nodeid how often the module has granted it: a LOOKUP answered by a handler
 * adds 1 to `grants`, before the kernel knows of it. nlookup of the nodeid is then
 *	lookups answered by the daemon - nlookup of all FORGETs + grants.
 * Where that is 0 the daemon may set EXTFUSE_NODE_DEAD by compare and exchange with the grants that
 * it has counted; no LOOKUP is granted from then on. To use the record for another nodeid (an id is
 * never used twice in a connection): dead, then nodeid, then grants = extfuse_node_reborn(grants),
 * each visible before the next.
 */
struct extfuse_node {
	__u64 nodeid;
	__u64 grants;
};

#define EXTFUSE_NODE_DEAD	(1ULL << 63)
#define EXTFUSE_NODE_COUNT	((1ULL << 48) - 1)	/* mask: how often granted */
#define EXTFUSE_NODE_LIFE	(1ULL << 48)		/* add: one life of the record later */

static inline __u64 extfuse_node_reborn(__u64 grants)
{
	return ((grants & ~EXTFUSE_NODE_COUNT) + EXTFUSE_NODE_LIFE) & ~EXTFUSE_NODE_DEAD;
}

/* ---- which word ---- */

static inline __u64 extfuse_mix(__u64 h, __u64 v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ULL;
	return h ^ (h >> 29);
}

/* Word 0 is everything's. */
static inline __u32 extfuse_word_index(__u32 word_bits, __u64 h)
{
	__u32 i = (__u32)((h * 0xd6e8feb86659fd93ULL) >> (64 - word_bits));

	return i ? i : 1;
}

static inline __u32 extfuse_word_node(__u64 seed, __u32 word_bits, __u64 nodeid)
{
	return extfuse_word_index(word_bits, seed ^ nodeid);
}

static inline __u32 extfuse_word_dir(__u64 seed, __u32 word_bits, __u64 nodeid)
{
	return extfuse_word_index(word_bits, ~(seed ^ nodeid));
}

/* Of a name: this, then extfuse_mix() with each 8 bytes of it. */
static inline __u64 extfuse_name_hash(__u64 seed, __u64 parent)
{
	return extfuse_mix(seed + 1, parent);
}

/*
 * `steps` = the name padded by zeros to a multiple of 8 (none where that is the case), `n` of 8 bytes.
 */
static inline __u32 extfuse_word_name(__u64 seed, __u32 word_bits, __u64 parent, const __u64 *steps,
	__u32 n)
{
	__u64 h = extfuse_name_hash(seed, parent);
	__u32 i;

	for (i = 0; i < n; i++)
		h = extfuse_mix(h, steps[i]);
	return extfuse_word_index(word_bits, h);
}

#endif
