/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * The maps: what the library puts there and the handlers find. The kernel module never looks at them.
 *
 * Elements of a map that evicts are used again at once, also while a handler still reads one. So a value
 * carries a checksum over its key and itself: a handler copies first and then believes what sums up.
 */
#ifndef EXTFUSE_BPF_EXTFUSE_MAPS_H
#define EXTFUSE_BPF_EXTFUSE_MAPS_H

#include "extfuse.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "pairs of 32 bits are read as one word, the first of them as the low half"
#endif

/* Whatever it consists of, it is read and copied in steps of this. */
typedef __u64 __attribute__((may_alias)) extfuse_step;

#define EXTFUSE_NAME_SIZE (EXTFUSE_NAME_MAX + 1)

/* What all values begin with. It is read in steps of 8 bytes, as all of a value is. */
struct extfuse_head {
	__u64 check;			/* extfuse_sum() of the key and of what follows */
	__u64 stamp;
	__u64 own;
	__u64 expires;			/* CLOCK_BOOTTIME, ns; 0: never */
};

/* ---- names: entry_map, entry_map_long ---- */

#define EXTFUSE_NAME_SHORT 40

struct extfuse_entry_key {
	__u64 parent;
	__u64 name[EXTFUSE_NAME_SHORT / 8];
};

struct extfuse_entry_key_long {
	__u64 parent;
	__u64 name[EXTFUSE_NAME_SIZE / 8];
};

#define EXTFUSE_NO_INDEX 0xffffffffu	/* no record that lookups can be counted in */

struct extfuse_entry {
	struct extfuse_head head;
	__u64 nodeid;			/* 0: there is no such name */
	__u64 generation;
	__u64 index_and_flags;		/* of its record; EXTFUSE_VALUE_TTL in the upper half */
};

/* ---- attributes: attr_map, by nodeid ---- */

#define EXTFUSE_ATTR_WORDS 11		/* struct fuse_attr */

struct extfuse_attr {
	struct extfuse_head head;
	__u32 flags;			/* EXTFUSE_VALUE_* */
	__u32 pad;
	__u64 attr[EXTFUSE_ATTR_WORDS];
};

/* Of entries and attributes: the driver's own caches may keep it as long as it does not expire. */
#define EXTFUSE_VALUE_TTL		(1u << 0)
/* Of attributes: READ, WRITE go to the backing file that the module has for the node. */
#define EXTFUSE_VALUE_PASSTHRU_READ	(1u << 1)
#define EXTFUSE_VALUE_PASSTHRU_WRITE	(1u << 2)

/* ---- other values of a node: value_map, value_map_large ---- */

#define EXTFUSE_VALUE_NAME 48

enum extfuse_value_kind {
	EXTFUSE_KIND_XATTR = 1,		/* name: of the attribute */
	EXTFUSE_KIND_XATTR_LIST,
	EXTFUSE_KIND_LINK,
	EXTFUSE_KIND_ACCESS,		/* name: uid, gid as __u32, or all ones for anybody */
	EXTFUSE_KIND_STATFS,
};

struct extfuse_value_key {
	__u64 nodeid;
	__u32 kind;
	__u32 pad;
	__u64 name[EXTFUSE_VALUE_NAME / 8];
};

#define EXTFUSE_SMALL_WORDS	11
#define EXTFUSE_LARGE_WORDS	(EXTFUSE_OUT_SIZE / 8)

/* data is zero behind `size`. Of ACCESS: the mask of what is allowed, as __u64. */
struct extfuse_value {
	struct extfuse_head head;
	__s32 error;			/* 0, or -errno: then size is 0 */
	__u32 size;
	__u64 data[EXTFUSE_SMALL_WORDS];
};

struct extfuse_value_large {
	struct extfuse_head head;
	__s32 error;
	__u32 size;
	__u64 data[EXTFUSE_LARGE_WORDS];
};

/* ---- files that may be opened without the daemon: open_map, by nodeid ---- */

struct extfuse_open {
	struct extfuse_head head;
	__u64 fh;
	__u32 open_flags;		/* FOPEN_* */
	__s32 backing_id;
	__u32 accept;			/* open(2) flags; with another one the daemon is asked */
	__u32 flags;			/* EXTFUSE_OPEN_* */
};

#define EXTFUSE_OPEN_NO_RELEASE	(1u << 0)	/* RELEASE of this fh is answered, too */
#define EXTFUSE_OPEN_NO_FLUSH	(1u << 1)

/* ---- complete directories: dir_map, dir_map_large, by nodeid ---- */

/*
 * A Bloom filter of all names; a name that is not in it does not exist. All probes for a name fall into
 * one block, which has its own checksum: over the nodeid, stamp, own, expires, its number and its bits.
 */
#define EXTFUSE_DIR_SMALL_BLOCKS	2	/* 100 names: 2 in 100 others are taken for some */
#define EXTFUSE_DIR_LARGE_BLOCKS	64	/* 3200 names at the same odds */
#define EXTFUSE_DIR_SMALL_NAMES		100
#define EXTFUSE_DIR_LARGE_NAMES		6000
#define EXTFUSE_BLOCK_WORDS		7
#define EXTFUSE_DIR_PROBES		4

struct extfuse_block {
	__u64 bits[EXTFUSE_BLOCK_WORDS];
	__u64 check;
};

struct extfuse_dir {
	struct extfuse_head head;	/* `check` is not used */
	__u64 count;
	struct extfuse_block blocks[EXTFUSE_DIR_SMALL_BLOCKS];
};

struct extfuse_dir_large {
	struct extfuse_head head;
	__u64 count;
	struct extfuse_block blocks[EXTFUSE_DIR_LARGE_BLOCKS];
};

/* What a name's bits are made of: its words, zero padded, and its length. */
static inline __attribute__((always_inline)) __u64 extfuse_name_bits(const __u64 *name, __u32 len)
{
	__u64 h = extfuse_mix(len, 0);
	__u32 i;

	for (i = 0; i < EXTFUSE_NAME_SIZE / 8 && i * 8 < len; i++)
		h = extfuse_mix(h, name[i]);
	return extfuse_mix(h, 0x5eed);
}

/* Where a name's bits are; the small filter takes the low bit of `block`. */
struct extfuse_probes {
	__u32 block;
	__u32 bit[EXTFUSE_DIR_PROBES];
};

static inline __attribute__((always_inline)) void extfuse_probes(struct extfuse_probes *p, __u64 hash)
{
	__u32 i;

	p->block = (__u32)hash & (EXTFUSE_DIR_LARGE_BLOCKS - 1);
	/* nine bits each, scaled from 0..511 to 0..447 */
	for (i = 0; i < EXTFUSE_DIR_PROBES; i++)
		p->bit[i] = ((__u32)(hash >> (6 + 9 * i)) & 511) * EXTFUSE_BLOCK_WORDS / 8;
}

/* ---- the checksum: extfuse_mix() over the words of key and value, without `check` ---- */

#define EXTFUSE_SUM_START 0x6578746675736531ULL

static inline __attribute__((always_inline)) __u64 extfuse_sum(__u64 h, const void *from, __u32 size)
{
	const extfuse_step *word = (const extfuse_step *)from;
	__u32 i;

	for (i = 0; i < size / 8; i++)
		h = extfuse_mix(h, word[i]); /* NOLINT(clang-analyzer-core.*): memcpy() has written it */
	return h;
}

static inline __attribute__((always_inline)) __u64
extfuse_block_sum(__u64 nodeid, const struct extfuse_head *head, __u32 number, const __u64 *bits)
{
	__u64 h = extfuse_mix(EXTFUSE_SUM_START + number, nodeid);

	h = extfuse_mix(extfuse_mix(extfuse_mix(h, head->stamp), head->own), head->expires);
	return extfuse_sum(h, bits, EXTFUSE_BLOCK_WORDS * 8);
}

#endif
