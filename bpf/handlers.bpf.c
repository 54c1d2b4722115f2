// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * The handlers that libextfuse brings: they look answers up in maps, and say what these rely upon.
 * Whether that still holds is the module's to judge, so nothing here can make an answer stale; only
 * wrong, where a value was written by another than the library.
 */
#define __KERNEL__ /* the types of <linux/fuse.h> without the C library */
#include <linux/types.h>
#include <linux/fuse.h>
#undef __KERNEL__

#include "extfuse_handler.h"

#define ENOENT 2
#define EACCES 13
#define ERANGE 34

/* The library sets max_entries from its limit of memory. */
#define MAP(name, key_type, value_type) \
	struct { \
		__uint(type, BPF_MAP_TYPE_LRU_HASH); \
		__uint(max_entries, 1); \
		__type(key, key_type); \
		__type(value, value_type); \
	} name SEC(".maps")

MAP(entry_map, struct extfuse_entry_key, struct extfuse_entry);
MAP(entry_map_long, struct extfuse_entry_key_long, struct extfuse_entry);
MAP(attr_map, __u64, struct extfuse_attr);
MAP(value_map, struct extfuse_value_key, struct extfuse_value);
MAP(value_map_large, struct extfuse_value_key, struct extfuse_value_large);
MAP(open_map, __u64, struct extfuse_open);
MAP(dir_map, __u64, struct extfuse_dir);
MAP(dir_map_large, __u64, struct extfuse_dir_large);

#define OUT(ctx, type) ((struct fuse_##type##_out *)EXTFUSE_REQ(ctx)->out)
#define WORD(p, i) (((const volatile extfuse_step *)(p))[i])

static __always_inline int expired(void *ctx, __u64 expires)
{
	return expires && EXTFUSE_REQ(ctx)->now >= expires;
}

/* ---- what is found is copied and summed up in one go ---- */

/* The next word of a value. */
static __always_inline __u64 take(const void *value, __u32 offset, __u64 *sum)
{
	__u64 word = *(const volatile extfuse_step *)(value + offset);

	*sum = extfuse_mix(*sum, word);
	return word;
}

/* The head, but for `check`. */
static __always_inline void take_head(struct extfuse_head *head, const void *value, __u64 *sum)
{
	head->check = WORD(value, 0);
	head->stamp = take(value, 8, sum);
	head->own = take(value, 16, sum);
	head->expires = take(value, 24, sum);
}

static __always_inline void put_word(void *ctx, __u32 offset, __u64 word)
{
	*(volatile extfuse_step *)(EXTFUSE_REQ(ctx)->out + offset) = word;
}

/* ---- names ---- */

struct entry {
	struct extfuse_head head;
	__u64 nodeid;
	__u64 generation;
	__u64 index_and_flags;
};

static __always_inline int take_entry(const struct extfuse_entry *found, __u64 sum, struct entry *entry)
{
	take_head(&entry->head, found, &sum);
	entry->nodeid = take(found, 32, &sum);
	entry->generation = take(found, 40, &sum);
	entry->index_and_flags = take(found, 48, &sum);
	return sum == entry->head.check;
}

/* Short names' keys are what long ones' begin with; one is on the stack, which has 512 bytes. */
static __always_inline int find_entry(void *ctx, struct entry *entry)
{
	struct extfuse_entry_key_long key;
	struct extfuse_entry *found;
	__u32 len = EXTFUSE_REQ(ctx)->name_len;

	key.parent = EXTFUSE_REQ(ctx)->nodeid;
	if (len - 1 < EXTFUSE_NAME_SHORT) {
		bpf_extfuse_read_args(ctx, EXTFUSE_NAME, key.name, EXTFUSE_NAME_SHORT);
		found = bpf_map_lookup_elem(&entry_map, &key);
		return found &&
		       take_entry(found,
				  extfuse_sum(EXTFUSE_SUM_START, &key, sizeof(struct extfuse_entry_key)),
				  entry);
	}
	if (len - 1 >= EXTFUSE_NAME_MAX)
		return 0;
	bpf_extfuse_read_args(ctx, EXTFUSE_NAME, key.name, EXTFUSE_NAME_SIZE);
	found = bpf_map_lookup_elem(&entry_map_long, &key);
	return found && take_entry(found, extfuse_sum(EXTFUSE_SUM_START, &key, sizeof(key)), entry);
}

/* ---- complete directories ---- */

/* As extfuse_name_bits(), at constant offsets. */
static __always_inline __u64 name_bits(void *ctx)
{
	__u32 len = EXTFUSE_REQ(ctx)->name_len;
	__u64 h = extfuse_mix(len, 0);
	__u32 i;

#pragma clang loop unroll(full)
	for (i = 0; i < EXTFUSE_NAME_SIZE / 8; i++)
		if (i * 8 < len)
			h = extfuse_mix(h, WORD(EXTFUSE_REQ(ctx)->name, i));
	return extfuse_mix(h, 0x5eed);
}

/* The name is absent since its directory is known as a whole. */
static __always_inline int absent(void *ctx)
{
	__u64 nodeid = EXTFUSE_REQ(ctx)->nodeid;
	struct extfuse_dir *small = bpf_map_lookup_elem(&dir_map, &nodeid);
	struct extfuse_dir_large *large = small ? 0 : bpf_map_lookup_elem(&dir_map_large, &nodeid);
	struct extfuse_probes probes;
	struct extfuse_block block;
	struct extfuse_head head;
	__u32 i, lacks = 0;

	if ((!small && !large) || EXTFUSE_REQ(ctx)->name_len - 1 >= EXTFUSE_NAME_MAX)
		return 0;
	extfuse_probes(&probes, name_bits(ctx));
	if (small) {
		probes.block &= EXTFUSE_DIR_SMALL_BLOCKS - 1;
		extfuse_copy(&head, &small->head, sizeof(head));
		extfuse_copy(&block, &small->blocks[probes.block], sizeof(block));
	} else {
		probes.block &= EXTFUSE_DIR_LARGE_BLOCKS - 1;
		extfuse_copy(&head, &large->head, sizeof(head));
		extfuse_copy(&block, &large->blocks[probes.block], sizeof(block));
	}
	if (block.check != extfuse_block_sum(nodeid, &head, probes.block, block.bits) ||
	    expired(ctx, head.expires))
		return 0;
#pragma clang loop unroll(full)
	for (i = 0; i < EXTFUSE_DIR_PROBES; i++)
		lacks |= !(block.bits[(probes.bit[i] >> 6) & 7] >> (probes.bit[i] & 63) & 1);
	if (!lacks)
		return 0;
	extfuse_until(ctx, head.expires);
	extfuse_rely(ctx, 0, EXTFUSE_DEP_DIR, nodeid, head.stamp, head.own);
	return 1;
}

/* ---- attributes ---- */

struct attr {
	struct extfuse_head head;
	__u32 flags;
};

/* The attributes themselves go to that place of `out`. */
static __always_inline int find_attr(void *ctx, __u64 nodeid, struct attr *attr, __u32 offset)
{
	struct extfuse_attr *found = bpf_map_lookup_elem(&attr_map, &nodeid);
	__u64 sum = extfuse_mix(EXTFUSE_SUM_START, nodeid);
	__u32 i;

	if (!found)
		return 0;
	take_head(&attr->head, found, &sum);
	attr->flags = (__u32)take(found, 32, &sum);
#pragma clang loop unroll(full)
	for (i = 0; i < EXTFUSE_ATTR_WORDS; i++)
		put_word(ctx, offset + i * 8, take(found, 40 + i * 8, &sum));
	return sum == attr->head.check;
}

/* What the driver may keep an answer for. */
#define VALID(ctx, flags, expires, sec, nsec) \
	do { \
		__u64 left_ = \
			(flags)&EXTFUSE_VALUE_TTL && (expires) ? (expires)-EXTFUSE_REQ(ctx)->now : 0; \
\
		(sec) = left_ / 1000000000; \
		(nsec) = (__u32)(left_ % 1000000000); \
	} while (0)

EXTFUSE_HANDLER(extfuse_lookup)
{
	struct entry entry;
	struct attr attr;

	if (!find_entry(ctx, &entry) || expired(ctx, entry.head.expires))
		return absent(ctx) ? extfuse_fail(ctx, -ENOENT) : EXTFUSE_UPCALL;
	extfuse_until(ctx, entry.head.expires);
	extfuse_rely(ctx, 0, EXTFUSE_DEP_NAME, EXTFUSE_REQ(ctx)->nodeid, entry.head.stamp,
		     entry.head.own);
	if (!entry.nodeid)
		return extfuse_fail(ctx, -ENOENT);
	EXTFUSE_REQ(ctx)->node_index = (__u32)entry.index_and_flags;
	if (EXTFUSE_REQ(ctx)->node_index == EXTFUSE_NO_INDEX ||
	    !find_attr(ctx, entry.nodeid, &attr, offsetof(struct fuse_entry_out, attr)) ||
	    expired(ctx, attr.head.expires))
		return EXTFUSE_UPCALL;
	extfuse_until(ctx, attr.head.expires);
	extfuse_rely(ctx, 1, EXTFUSE_DEP_NODE, entry.nodeid, attr.head.stamp, attr.head.own);
	OUT(ctx, entry)->nodeid = entry.nodeid;
	OUT(ctx, entry)->generation = entry.generation;
	VALID(ctx, entry.index_and_flags >> 32, entry.head.expires, OUT(ctx, entry)->entry_valid,
	      OUT(ctx, entry)->entry_valid_nsec);
	VALID(ctx, attr.flags, attr.head.expires, OUT(ctx, entry)->attr_valid,
	      OUT(ctx, entry)->attr_valid_nsec);
	EXTFUSE_REQ(ctx)->out_size = sizeof(struct fuse_entry_out);
	return EXTFUSE_RETURN;
}

EXTFUSE_HANDLER(extfuse_getattr)
{
	struct attr attr;

	if (!find_attr(ctx, EXTFUSE_REQ(ctx)->nodeid, &attr, offsetof(struct fuse_attr_out, attr)) ||
	    expired(ctx, attr.head.expires))
		return EXTFUSE_UPCALL;
	extfuse_until(ctx, attr.head.expires);
	extfuse_rely(ctx, 0, EXTFUSE_DEP_NODE, EXTFUSE_REQ(ctx)->nodeid, attr.head.stamp, attr.head.own);
	VALID(ctx, attr.flags, attr.head.expires, OUT(ctx, attr)->attr_valid,
	      OUT(ctx, attr)->attr_valid_nsec);
	OUT(ctx, attr)->dummy = 0;
	EXTFUSE_REQ(ctx)->out_size = sizeof(struct fuse_attr_out);
	return EXTFUSE_RETURN;
}

/* The module knows the backing file; that it holds is no matter of attributes. */
static __always_inline int passthru(void *ctx, __u32 flag)
{
	struct attr attr;

	return find_attr(ctx, EXTFUSE_REQ(ctx)->nodeid, &attr, 0) && attr.flags & flag ? EXTFUSE_PASSTHRU
										       : EXTFUSE_UPCALL;
}

EXTFUSE_HANDLER(extfuse_read)
{
	return passthru(ctx, EXTFUSE_VALUE_PASSTHRU_READ);
}

EXTFUSE_HANDLER(extfuse_write)
{
	return passthru(ctx, EXTFUSE_VALUE_PASSTHRU_WRITE);
}

/* ---- other values of a node ---- */

struct value_head {
	struct extfuse_head head;
	__s32 error;
	__u32 size;
};

/* Head and data, the data right into the answer. Whatever the size says, no more than `words` are. */
static __always_inline int take_value(void *ctx, const struct extfuse_value_key *key,
				      const void *found, struct value_head *v, __u32 words)
{
	__u64 sum = extfuse_sum(EXTFUSE_SUM_START, key, sizeof(*key));
	__u64 word;
	__u32 i;

	take_head(&v->head, found, &sum);
	word = take(found, 32, &sum);
	v->error = (__s32)word;
	v->size = word >> 32;
#pragma clang loop unroll(full)
	for (i = 0; i < words; i++) {
		if (i * 8 >= v->size)
			break;
		put_word(ctx, i * 8, take(found, 40 + i * 8, &sum));
	}
	return v->size <= words * 8 && sum == v->head.check;
}

/* Leaves the value's bytes in EXTFUSE_REQ(ctx)->out. */
static __always_inline int find_value(void *ctx, const struct extfuse_value_key *key,
				      struct value_head *v)
{
	struct extfuse_value *small = bpf_map_lookup_elem(&value_map, key);

	if (small) {
		if (!take_value(ctx, key, small, v, EXTFUSE_SMALL_WORDS))
			return 0;
	} else {
		struct extfuse_value_large *large = bpf_map_lookup_elem(&value_map_large, key);

		if (!large || !take_value(ctx, key, large, v, EXTFUSE_LARGE_WORDS))
			return 0;
	}
	if (expired(ctx, v->head.expires))
		return 0;
	extfuse_until(ctx, v->head.expires);
	extfuse_rely(ctx, 0, EXTFUSE_DEP_NODE, EXTFUSE_REQ(ctx)->nodeid, v->head.stamp, v->head.own);
	return 1;
}

static __always_inline int return_value(void *ctx, const struct value_head *v)
{
	if (v->error)
		return extfuse_fail(ctx, v->error);
	if (v->size > EXTFUSE_REQ(ctx)->out_max)
		return EXTFUSE_UPCALL;
	EXTFUSE_REQ(ctx)->out_size = v->size;
	return EXTFUSE_RETURN;
}

/* GETXATTR and LISTXATTR: the size alone where the caller has no room, as the daemon would tell it. */
static __always_inline int return_xattr(void *ctx, const struct value_head *v)
{
	struct fuse_getxattr_out size = { .size = v->size };
	struct fuse_getxattr_in in;

	bpf_extfuse_read_args(ctx, EXTFUSE_IN, &in, sizeof(in));
	if (v->error || in.size >= v->size)
		if (v->error || in.size)
			return return_value(ctx, v);
	if (in.size)
		return extfuse_fail(ctx, -ERANGE);
	bpf_extfuse_write_args(ctx, EXTFUSE_OUT, &size, sizeof(size));
	return EXTFUSE_RETURN;
}

EXTFUSE_HANDLER(extfuse_getxattr)
{
	struct extfuse_value_key key = { .nodeid = EXTFUSE_REQ(ctx)->nodeid,
					 .kind = EXTFUSE_KIND_XATTR };
	struct value_head v;

	if (EXTFUSE_REQ(ctx)->name_len - 1 >= EXTFUSE_VALUE_NAME)
		return EXTFUSE_UPCALL;
	bpf_extfuse_read_args(ctx, EXTFUSE_NAME, key.name, sizeof(key.name));
	return find_value(ctx, &key, &v) ? return_xattr(ctx, &v) : EXTFUSE_UPCALL;
}

EXTFUSE_HANDLER(extfuse_listxattr)
{
	struct extfuse_value_key key = { .nodeid = EXTFUSE_REQ(ctx)->nodeid,
					 .kind = EXTFUSE_KIND_XATTR_LIST };
	struct value_head v;

	return find_value(ctx, &key, &v) ? return_xattr(ctx, &v) : EXTFUSE_UPCALL;
}

EXTFUSE_HANDLER(extfuse_readlink)
{
	struct extfuse_value_key key = { .nodeid = EXTFUSE_REQ(ctx)->nodeid, .kind = EXTFUSE_KIND_LINK };
	struct value_head v;

	return find_value(ctx, &key, &v) ? return_value(ctx, &v) : EXTFUSE_UPCALL;
}

EXTFUSE_HANDLER(extfuse_statfs)
{
	struct extfuse_value_key key = { .nodeid = EXTFUSE_REQ(ctx)->nodeid,
					 .kind = EXTFUSE_KIND_STATFS };
	struct value_head v;

	return find_value(ctx, &key, &v) ? return_value(ctx, &v) : EXTFUSE_UPCALL;
}

EXTFUSE_HANDLER(extfuse_access)
{
	struct extfuse_value_key key = { .nodeid = EXTFUSE_REQ(ctx)->nodeid,
					 .kind = EXTFUSE_KIND_ACCESS };
	struct fuse_access_in in;
	struct value_head v;

	key.name[0] = EXTFUSE_REQ(ctx)->uid | (__u64)EXTFUSE_REQ(ctx)->gid << 32;
	if (!find_value(ctx, &key, &v)) {
		key.name[0] = ~0ULL; /* anybody */
		if (!find_value(ctx, &key, &v))
			return EXTFUSE_UPCALL;
	}
	if (v.error)
		return extfuse_fail(ctx, v.error);
	bpf_extfuse_read_args(ctx, EXTFUSE_IN, &in, sizeof(in));
	return extfuse_fail(ctx, in.mask & ~*(__u32 *)EXTFUSE_REQ(ctx)->out ? -EACCES : 0);
}

/* ---- opened files ---- */

static __always_inline int find_open(void *ctx, struct extfuse_open *o)
{
	__u64 nodeid = EXTFUSE_REQ(ctx)->nodeid;
	struct extfuse_open *found = bpf_map_lookup_elem(&open_map, &nodeid);

	if (!found)
		return 0;
	extfuse_copy(o, found, sizeof(*o));
	return o->head.check ==
	       extfuse_sum(extfuse_mix(EXTFUSE_SUM_START, nodeid), &o->head.stamp, sizeof(*o) - 8);
}

EXTFUSE_HANDLER(extfuse_open)
{
	struct extfuse_open o;
	struct fuse_open_in in;

	bpf_extfuse_read_args(ctx, EXTFUSE_IN, &in, sizeof(in));
	if (!find_open(ctx, &o) || expired(ctx, o.head.expires) || in.flags & ~o.accept || in.open_flags)
		return EXTFUSE_UPCALL;
	extfuse_until(ctx, o.head.expires);
	extfuse_rely(ctx, 0, EXTFUSE_DEP_NODE, EXTFUSE_REQ(ctx)->nodeid, o.head.stamp, o.head.own);
	OUT(ctx, open)->fh = o.fh;
	OUT(ctx, open)->open_flags = o.open_flags;
	OUT(ctx, open)->padding = (__u32)o.backing_id;
	EXTFUSE_REQ(ctx)->out_size = sizeof(struct fuse_open_out);
	return EXTFUSE_RETURN;
}

/* A file handle without a state: there is nothing to release, whatever has become of the file. */
EXTFUSE_HANDLER(extfuse_release)
{
	struct extfuse_open o;
	struct fuse_release_in in;

	bpf_extfuse_read_args(ctx, EXTFUSE_IN, &in, sizeof(in));
	if (!find_open(ctx, &o) || !(o.flags & EXTFUSE_OPEN_NO_RELEASE) || in.fh != o.fh ||
	    in.release_flags)
		return EXTFUSE_UPCALL;
	return extfuse_fail(ctx, 0);
}

EXTFUSE_HANDLER(extfuse_flush)
{
	struct extfuse_open o;
	struct fuse_flush_in in;

	bpf_extfuse_read_args(ctx, EXTFUSE_IN, &in, sizeof(in));
	if (!find_open(ctx, &o) || !(o.flags & EXTFUSE_OPEN_NO_FLUSH) || in.fh != o.fh)
		return EXTFUSE_UPCALL;
	return extfuse_fail(ctx, 0);
}

/* Some of BPF's functions are for GPL programs only. */
EXTFUSE_LICENSE("GPL");
