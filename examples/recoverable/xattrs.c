/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Extended attributes: all of a node's in one block, one behind the other, then a 0. */
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "handlers.h"

struct pair {
	uint16_t size;		/* of all, a multiple of 4; 0: the end */
	uint16_t value_size;
	char key[];		/* and its 0; then the value */
};

static struct pair *pair_at(const struct node *n, size_t at)
{
	struct pair *p = (void *)(store->block[n->xattrs].data + at);

	return n->xattrs && at + sizeof(*p) <= BLOCK && p->size ? p : NULL;
}

static size_t size_of(const char *key, size_t value_size)
{
	return (sizeof(struct pair) + strlen(key) + 1 + value_size + 3) & ~(size_t)3;
}

/* Where it is, else where the end is. */
static struct pair *find(const struct node *n, const char *key, size_t *at)
{
	struct pair *p;

	for (*at = 0; (p = pair_at(n, *at)) != NULL; *at += p->size)
		if (!strcmp(p->key, key))
			return p;
	return NULL;
}

static size_t end_of(const struct node *n)
{
	struct pair *p;
	size_t at = 0;

	while ((p = pair_at(n, at)) != NULL)
		at += p->size;
	return at;
}

static int get_xattr(const struct node *n, const char *key, const void **value)
{
	size_t at;
	const struct pair *p = find(n, key, &at);

	if (!p)
		return -ENODATA;
	*value = p->key + strlen(key) + 1;
	return p->value_size;
}

static void take_out(struct node *n, size_t at, size_t size)
{
	unsigned char *data = store->block[n->xattrs].data;

	save(data, BLOCK);
	memmove(data + at, data + at + size, BLOCK - at - size);
	memset(data + BLOCK - size, 0, size);
}

static int set_xattr(struct node *n, const char *key, const void *value, size_t size,
		     int flags)
{
	size_t at, want = size_of(key, size), end = end_of(n);
	struct pair *p = find(n, key, &at);

	if (p ? flags & XATTR_CREATE : flags & XATTR_REPLACE)
		return p ? -EEXIST : -ENODATA;
	if (end - (p ? p->size : 0) + want > BLOCK)
		return -ENOSPC;
	if (p)
		take_out(n, at, p->size);
	if (!n->xattrs)
		set(n->xattrs, new_block());
	if (!n->xattrs)
		return -ENOSPC;
	at = end_of(n);
	p = (void *)(store->block[n->xattrs].data + at);
	save(p, want);
	p->size = (uint16_t)want;
	p->value_size = (uint16_t)size;
	strcpy(p->key, key);
	if (size)
		memcpy(p->key + strlen(key) + 1, value, size);
	touch(n, CHANGED);
	return 0;
}

static int remove_xattr(struct node *n, const char *key)
{
	size_t at;
	struct pair *p = find(n, key, &at);

	if (!p)
		return -ENODATA;
	take_out(n, at, p->size);
	touch(n, CHANGED);
	return 0;
}

/* Without room only how much there would have to be. */
static int list_xattrs(const struct node *n, char *to, size_t size)
{
	const struct pair *p;
	size_t at, used = 0;

	for (at = 0; (p = pair_at(n, at)) != NULL; at += p->size) {
		size_t len = strlen(p->key) + 1;

		if (size && used + len > size)
			return -ERANGE;
		if (size)
			memcpy(to + used, p->key, len);
		used += len;
	}
	return (int)used;
}

/* ---- the handlers ---- */

void mem_setxattr(fuse_req_t req, fuse_ino_t ino, const char *key, const char *value, size_t size,
		  int flags)
{
	struct node *n = begin_with(req, ino);

	if (n)
		end_err(req, -set_xattr(n, key, value, size, flags));
}

void mem_removexattr(fuse_req_t req, fuse_ino_t ino, const char *key)
{
	struct node *n = begin_with(req, ino);

	if (n)
		end_err(req, -remove_xattr(n, key));
}

/* Who asks with size 0 asks how much it is. */
static void end_xattr(fuse_req_t req, const void *value, int len, size_t size)
{
	if (len < 0)
		fuse_reply_err(req, -len);
	else if (!size)
		fuse_reply_xattr(req, (size_t)len);
	else if ((size_t)len > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, value, (size_t)len);
	end();
}

void mem_getxattr(fuse_req_t req, fuse_ino_t ino, const char *key, size_t size)
{
	struct node *n = begin_with(req, ino);
	const void *value = NULL;
	int len;

	if (!n)
		return;
	len = get_xattr(n, key, &value);
	end_xattr(req, value, len, size);
}

void mem_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct node *n = begin_with(req, ino);
	char list[BLOCK];

	if (n)
		end_xattr(req, list, list_xattrs(n, list, size < BLOCK ? size : BLOCK), size);
}
