/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names and attributes: into the maps, and what the kernel is told in replies. */
#include <limits.h>
#include <stddef.h>
#include <string.h>

#include "libextfuse/internal.h"

#define CHECKED(value) ((const char *)(value) + sizeof(uint64_t))

uint32_t ttl_ms(uint32_t option)
{
	return option == EXTFUSE_TTL_NONE ? 0 : option ? option : 1000;
}

int counted(struct extfuse *x, int err)
{
	if (!err)
		COUNT(x, puts);
	else if (err == -ESTALE)
		COUNT(x, late);
	return err;
}

/* Whether the driver's own caches may be used, too. */
static bool driver_caches(const struct extfuse *x)
{
	return native(x) || x->options.flags & EXTFUSE_KERNEL_TTL;
}

static void valid(uint32_t ms, uint64_t *sec, uint32_t *nsec)
{
	*sec = ms / 1000;
	*nsec = ms % 1000 * NS_PER_MS;
}

static uint32_t value_flags(const struct extfuse *x, uint32_t flags)
{
	return (x->options.flags & EXTFUSE_KERNEL_TTL ? EXTFUSE_VALUE_TTL : 0) |
	       (flags & EXTFUSE_PASSTHRU_READ ? EXTFUSE_VALUE_PASSTHRU_READ : 0) |
	       (flags & EXTFUSE_PASSTHRU_WRITE ? EXTFUSE_VALUE_PASSTHRU_WRITE : 0);
}

/* ---- attributes ---- */

/* What the driver would take for the end of the inode. */
static bool sound(const struct fuse_attr *attr)
{
	return attr->size <= (uint64_t)LLONG_MAX && attr->mode & 0170000;
}

static int store_attr(struct extfuse *x, uint64_t stamp, uint64_t nodeid, const struct fuse_attr *attr,
		      uint32_t flags)
{
	struct extfuse_attr value = { .flags = value_flags(x, flags) };
	struct extfuse_word *w = word_of(x, ABOUT_NODE, nodeid, NULL);
	int err = seal(x, w, stamp, flags & EXTFUSE_OWN_NODE, &value.head);

	_Static_assert(sizeof(*attr) == sizeof(value.attr), "the driver's attributes fit");
	if (err)
		return err;
	memcpy(value.attr, attr, sizeof(value.attr));
	value.head.expires = expiry(ttl_ms(x->options.attr_ms));
	value.head.check =
		extfuse_sum(extfuse_mix(EXTFUSE_SUM_START, nodeid), CHECKED(&value), sizeof(value) - 8);
	return map_put(x, MAP_ATTR, &nodeid, &value, w);
}

/* With the engine native: whether the reply may be kept. */
static int still_true(struct extfuse *x, uint64_t stamp, const struct extfuse_word *w)
{
	return word_holds(w, stamp, 0) && word_holds(word_all(x), stamp, 0) ? 0 : -ESTALE;
}

API int extfuse_put_attr(struct extfuse *x, uint64_t stamp, uint64_t nodeid, struct fuse_attr_out *out,
			 uint32_t flags)
{
	int err;

	valid(0, &out->attr_valid, &out->attr_valid_nsec);
	if (!x->attached)
		return -ENOTCONN;
	if (!nodeid || !sound(&out->attr))
		return -EINVAL;
	if (native(x))
		err = still_true(x, stamp, word_of(x, ABOUT_NODE, nodeid, NULL));
	else
		err = store_attr(x, stamp, nodeid, &out->attr, flags);
	if (!err && driver_caches(x))
		valid(ttl_ms(x->options.attr_ms), &out->attr_valid, &out->attr_valid_nsec);
	return counted(x, err);
}

/* ---- names ---- */

static int store_entry(struct extfuse *x, uint64_t stamp, uint64_t parent, const struct name *name,
		       const struct fuse_entry_out *out, uint32_t index, uint32_t ttl, uint32_t flags)
{
	struct extfuse_entry value = { .index_and_flags = index | (uint64_t)value_flags(x, 0) << 32 };
	struct extfuse_entry_key_long key = { .parent = parent };
	bool is_short = name->len <= EXTFUSE_NAME_SHORT;
	struct extfuse_word *w = word_of(x, ABOUT_NAME, parent, name);
	int err = seal(x, w, stamp, flags & EXTFUSE_OWN_NAME, &value.head);
	uint64_t sum;

	_Static_assert(offsetof(struct extfuse_entry_key, name) ==
			       offsetof(struct extfuse_entry_key_long, name),
		       "a short name's key is what a long one's begins with");
	if (err)
		return err;
	if (out) {
		value.nodeid = out->nodeid;
		value.generation = out->generation;
	}
	memcpy(key.name, name->words, sizeof(key.name));
	value.head.expires = expiry(ttl);
	sum = extfuse_sum(EXTFUSE_SUM_START, &key,
			  is_short ? sizeof(struct extfuse_entry_key) : sizeof(key));
	value.head.check = extfuse_sum(sum, CHECKED(&value), sizeof(value) - 8);
	err = map_put(x, is_short ? MAP_ENTRY : MAP_ENTRY_LONG, &key, &value, w);
	if (!err)
		__atomic_store_n(&word_of(x, ABOUT_DIR, parent, NULL)->named, 1, __ATOMIC_SEQ_CST);
	return err;
}

API int extfuse_put_entry(struct extfuse *x, uint64_t stamp, uint64_t parent, const char *text,
			  uint32_t index, struct fuse_entry_out *out, uint32_t flags)
{
	struct name name;
	int entry_err, attr_err, err;

	valid(0, &out->entry_valid, &out->entry_valid_nsec);
	valid(0, &out->attr_valid, &out->attr_valid_nsec);
	if (!x->attached)
		return -ENOTCONN;
	err = name_set(&name, text);
	if (err)
		return err;
	if (!parent || !out->nodeid || out->nodeid == FUSE_ROOT_ID || !sound(&out->attr))
		return -EINVAL;
	if (native(x)) {
		attr_err = still_true(x, stamp, word_of(x, ABOUT_NODE, out->nodeid, NULL));
		entry_err = still_true(x, stamp, word_of(x, ABOUT_NAME, parent, &name));
	} else {
		attr_err = store_attr(x, stamp, out->nodeid, &out->attr, flags);
		entry_err = store_entry(x, stamp, parent, &name, out,
					index < x->nodes_count ? index : EXTFUSE_NO_INDEX,
					ttl_ms(x->options.entry_ms), flags);
	}
	if (driver_caches(x)) {
		valid(entry_err ? 0 : ttl_ms(x->options.entry_ms), &out->entry_valid,
		      &out->entry_valid_nsec);
		valid(attr_err ? 0 : ttl_ms(x->options.attr_ms), &out->attr_valid,
		      &out->attr_valid_nsec);
	}
	return counted(x, entry_err ? entry_err : attr_err);
}

API int extfuse_put_negative(struct extfuse *x, uint64_t stamp, uint64_t parent, const char *text,
			     struct fuse_entry_out *out, uint32_t flags)
{
	uint32_t ttl = ttl_ms(x->options.negative_ms);
	struct name name;
	int err;

	if (out)
		memset(out, 0, sizeof(*out));
	if (!x->attached)
		return -ENOTCONN;
	err = name_set(&name, text);
	if (err)
		return err;
	if (!parent)
		return -EINVAL;
	if (native(x))
		err = still_true(x, stamp, word_of(x, ABOUT_NAME, parent, &name));
	else
		err = store_entry(x, stamp, parent, &name, NULL, EXTFUSE_NO_INDEX, ttl, flags);
	if (!err && out && driver_caches(x))
		valid(ttl, &out->entry_valid, &out->entry_valid_nsec);
	return counted(x, err);
}

/* ---- what changed by other ways ---- */

API int extfuse_outdated_node(struct extfuse *x, uint64_t nodeid)
{
	if (!x->attached)
		return -ENOTCONN;
	word_bump(x, word_of(x, ABOUT_NODE, nodeid, NULL));
	return 0;
}

/* The words first: nothing that was asked before may be put after. */
API int extfuse_invalidate_node(struct extfuse *x, uint64_t nodeid, uint32_t flags)
{
	int err = extfuse_outdated_node(x, nodeid);

	if (err)
		return err;
	COUNT(x, invalidations);
	return notify_inode(x, nodeid, flags & EXTFUSE_KEEP_DATA);
}

API int extfuse_outdated_entry(struct extfuse *x, uint64_t parent, const char *text)
{
	struct name name;
	int err = x->attached ? name_set(&name, text) : -ENOTCONN;

	if (err)
		return err;
	word_bump(x, word_of(x, ABOUT_DIR, parent, NULL));
	word_bump(x, word_of(x, ABOUT_NAME, parent, &name));
	word_bump(x, word_of(x, ABOUT_NODE, parent, NULL));
	return 0;
}

API int extfuse_invalidate_entry(struct extfuse *x, uint64_t parent, const char *name)
{
	int err = extfuse_outdated_entry(x, parent, name);

	if (err)
		return err;
	COUNT(x, invalidations);
	return driver_caches(x) ? notify_entry(x, parent, name) : 0;
}

API int extfuse_invalidate_deleted(struct extfuse *x, uint64_t parent, uint64_t child, const char *name)
{
	int err = extfuse_outdated_entry(x, parent, name);

	if (err)
		return err;
	COUNT(x, invalidations);
	word_bump(x, word_of(x, ABOUT_NODE, child, NULL));
	return notify_deleted(x, parent, child, name);
}

/* Which names it had, nobody knows any more: the maps forget all names. */
API int extfuse_invalidate_dir(struct extfuse *x, uint64_t nodeid)
{
	int err;

	if (!x->attached)
		return -ENOTCONN;
	COUNT(x, invalidations);
	word_bump(x, word_all(x));
	err = driver_caches(x) ? notify_epoch(x) : 0;
	if (err && err != -ENOTSUP)
		return err;
	return notify_inode(x, nodeid, false);
}

API int extfuse_invalidate_all(struct extfuse *x)
{
	if (!x->attached)
		return -ENOTCONN;
	COUNT(x, invalidations);
	word_bump(x, word_all(x));
	return driver_caches(x) ? notify_epoch(x) : 0;
}
