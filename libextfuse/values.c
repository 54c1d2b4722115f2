/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Other values of a node: extended attributes, links, what ACCESS and STATFS say, how it is opened. */
#include <fcntl.h>
#include <string.h>

#include "libextfuse/internal.h"

#define CHECKED(value) ((const char *)(value) + sizeof(uint64_t))
#define SMALL_SIZE	(EXTFUSE_SMALL_WORDS * 8)
#define LARGE_SIZE	(EXTFUSE_LARGE_WORDS * 8)

/* What a put brings. */
struct given {
	uint64_t stamp;
	const void *data;
	size_t size;
	int error;		/* instead of data */
	uint32_t ttl;
	uint32_t flags;
};

/* The data is summed up as far as it reaches, in whole steps. */
static uint64_t sum_of(const struct extfuse_value_key *key, const struct extfuse_value_large *value,
		       size_t size)
{
	return extfuse_sum(
		extfuse_sum(EXTFUSE_SUM_START, key, sizeof(*key)), CHECKED(value),
		(uint32_t)(offsetof(struct extfuse_value_large, data) - 8 + (size + 7) / 8 * 8));
}

/* A small value is what a large one begins with. It is in one of the two maps only. */
static int store(struct extfuse *x, const struct extfuse_value_key *key, const struct given *g)
{
	struct extfuse_value_large value = { .error = g->error, .size = (uint32_t)g->size };
	bool is_small = g->size <= SMALL_SIZE;
	struct extfuse_word *w = word_of(x, ABOUT_NODE, key->nodeid, NULL);
	int err = seal(x, w, g->stamp, g->flags & EXTFUSE_OWN_NODE, &value.head);

	_Static_assert(offsetof(struct extfuse_value, data) ==
			       offsetof(struct extfuse_value_large, data),
		       "see above");
	if (err)
		return err;
	if (g->size)
		memcpy(value.data, g->data, g->size);
	value.head.expires = expiry(g->ttl);
	value.head.check = sum_of(key, &value, g->size);
	map_drop(x, is_small ? MAP_VALUE_LARGE : MAP_VALUE, key);
	return map_put(x, is_small ? MAP_VALUE : MAP_VALUE_LARGE, key, &value, w);
}

static int put(struct extfuse *x, const struct extfuse_value_key *key, const struct given *g)
{
	if (!x->attached)
		return -ENOTCONN;
	if (native(x))
		return -ENOTSUP;
	if (!key->nodeid || (g->error && (g->error <= -512 || g->error == -ENOSYS)))
		return -EINVAL;
	if (g->size > LARGE_SIZE)
		return -E2BIG;
	return counted(x, store(x, key, g));
}

/* A size below 0 is an errno. */
static struct given given(const struct extfuse *x, uint64_t stamp, const void *data, ssize_t size,
			  uint32_t flags)
{
	return (struct given){
		.stamp = stamp,
		.data = data,
		.size = size < 0 ? 0 : (size_t)size,
		.error = size < 0 ? (int)size : 0,
		.ttl = ttl_ms(x->options.attr_ms),
		.flags = flags,
	};
}

API int extfuse_put_xattr(struct extfuse *x, uint64_t stamp, uint64_t nodeid, const char *name,
			  const void *value, ssize_t size, uint32_t flags)
{
	struct extfuse_value_key key = { .nodeid = nodeid, .kind = EXTFUSE_KIND_XATTR };
	struct given g = given(x, stamp, value, size, flags);
	size_t len = strnlen(name, sizeof(key.name) + 1);

	if (!len)
		return -EINVAL;
	if (len > sizeof(key.name))
		return -ENAMETOOLONG;
	memcpy(key.name, name, len);
	return put(x, &key, &g);
}

API int extfuse_put_xattr_list(struct extfuse *x, uint64_t stamp, uint64_t nodeid, const char *list,
			       ssize_t size, uint32_t flags)
{
	struct extfuse_value_key key = { .nodeid = nodeid, .kind = EXTFUSE_KIND_XATTR_LIST };
	struct given g = given(x, stamp, list, size, flags);

	return put(x, &key, &g);
}

API int extfuse_put_link(struct extfuse *x, uint64_t stamp, uint64_t nodeid, const char *target,
			 size_t size, uint32_t flags)
{
	struct extfuse_value_key key = { .nodeid = nodeid, .kind = EXTFUSE_KIND_LINK };
	struct given g =
		given(x, stamp, target, (ssize_t)(size > LARGE_SIZE ? LARGE_SIZE + 1 : size), flags);

	return size ? put(x, &key, &g) : -EINVAL;
}

API int extfuse_put_access(struct extfuse *x, uint64_t stamp, uint64_t nodeid, uint32_t uid,
			   uint32_t gid, uint32_t allowed)
{
	struct extfuse_value_key key = { .nodeid = nodeid, .kind = EXTFUSE_KIND_ACCESS };
	uint64_t mask = allowed;
	struct given g = given(x, stamp, &mask, sizeof(mask), 0);

	if (allowed > 7)
		return -EINVAL;
	key.name[0] = uid | (uint64_t)gid << 32;
	return put(x, &key, &g);
}

API int extfuse_put_statfs(struct extfuse *x, uint64_t stamp, uint64_t nodeid,
			   const struct fuse_statfs_out *out, uint32_t ttl)
{
	struct extfuse_value_key key = { .nodeid = nodeid, .kind = EXTFUSE_KIND_STATFS };
	struct given g = given(x, stamp, out, sizeof(*out), 0);

	g.ttl = ttl;
	return put(x, &key, &g);
}

/* ---- OPEN ---- */

/* As the kernel says it of any open in a process of 64 bits, where the C library's O_LARGEFILE is 0. */
#if defined(__aarch64__) || defined(__arm__)
#define KERNEL_O_LARGEFILE 0400000
#elif defined(__powerpc__)
#define KERNEL_O_LARGEFILE 0200000
#else
#define KERNEL_O_LARGEFILE 0100000
#endif

static int store_open(struct extfuse *x, uint64_t stamp, uint64_t nodeid, struct extfuse_open *value)
{
	struct extfuse_word *w = word_of(x, ABOUT_NODE, nodeid, NULL);
	int err = seal(x, w, stamp, false, &value->head);

	if (err)
		return err;
	value->head.expires = expiry(ttl_ms(x->options.attr_ms));
	value->head.check =
		extfuse_sum(extfuse_mix(EXTFUSE_SUM_START, nodeid), CHECKED(value), sizeof(*value) - 8);
	return map_put(x, MAP_OPEN, &nodeid, value, w);
}

API int extfuse_put_open(struct extfuse *x, uint64_t stamp, uint64_t nodeid,
			 const struct fuse_open_out *out, uint32_t accept, uint32_t flags)
{
	struct extfuse_open value = { .fh = out->fh, .open_flags = out->open_flags,
				      .accept = accept | KERNEL_O_LARGEFILE };

	if (!x->attached)
		return -ENOTCONN;
	if (native(x))
		return -ENOTSUP;
	if (!nodeid || accept & (O_CREAT | O_TRUNC))
		return -EINVAL;
	/* Such writes make no request: the daemon has to know of the file, to hold it. */
	if (out->open_flags & FOPEN_PASSTHROUGH && accept & O_ACCMODE)
		return -EINVAL;
	memcpy(&value.backing_id, (const char *)out + FE_OPEN_OUT_BACKING_ID, sizeof(value.backing_id));
	value.flags = (flags & EXTFUSE_NO_RELEASE ? EXTFUSE_OPEN_NO_RELEASE : 0) |
		      (flags & EXTFUSE_NO_FLUSH ? EXTFUSE_OPEN_NO_FLUSH : 0);
	return counted(x, store_open(x, stamp, nodeid, &value));
}
