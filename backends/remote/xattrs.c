/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Extended attributes: a fid that stands for one is read, or written and clunked. */
#include <errno.h>
#include <linux/limits.h>
#include <linux/xattr.h>
#include <stdlib.h>
#include <string.h>

#include "backends/remote/remote.h"

struct xattr_walk {
	uint32_t file;
	const char *name;
	int64_t size;		/* or a negative errno */
};

static int walk_to(struct op *op, uint32_t number, void *arg)
{
	struct xattr_walk *w = arg;
	_cleanup_rpc_ struct rpc *r = call_new(op, P9_TXATTRWALK, w->file);
	uint64_t size;
	int err;

	if (!r)
		return -ENOMEM;
	p9_put32(&r->out, number);
	p9_putstr(&r->out, w->name);
	err = call(op, r);
	if (err)
		return err;
	size = p9_get64(&r->in);
	w->size = r->in.bad || r->in.left || size > XATTR_LIST_MAX ? -EIO : (int64_t)size;
	return 0;
}

/* A fid of an attribute, of the list of names for "". Its size, or a negative errno. */
static int64_t xattr_walk(struct op *op, uint32_t file, const char *name, struct fid **out)
{
	struct xattr_walk w = { .file = file, .name = name };
	int err = fid_make(op, walk_to, &w, out);

	return err ? err : w.size;
}

static int64_t xattr_fid(struct op *op, struct fe_node *node, const char *name, struct fid **out)
{
	struct fid *file;
	int64_t n = node_fid(op, node, &file);

	*out = NULL;
	if (n)
		return n;
	n = xattr_walk(op, file->number, name, out);
	fid_put(op, file);
	return n;
}

bool has_default_acl(struct op *op, uint32_t fid)
{
	struct fid *f;
	int64_t n = xattr_walk(op, fid, XATTR_NAME_POSIX_ACL_DEFAULT, &f);

	if (f)
		fid_put(op, f);
	return n > 0;
}

/* Without the option nobody checks them, so there are none. */
static bool left_out(const struct remote *r, const char *name)
{
	return !r->acl && !strncmp(name, "system.posix_acl_", 17);
}

static int read_attr(struct op *op, struct fid *f, unsigned char *buf, size_t size)
{
	size_t chunk = op->r->client.msize - P9_IOHDRSZ, done = 0;

	while (done < size) {
		size_t n = size - done < chunk ? size - done : chunk;
		_cleanup_rpc_ struct rpc *r = read_send(op, P9_TREAD, f->number, done, buf + done, n);
		int err = r ? rpc_wait(r) : -ENOMEM;

		if (err)
			return err;
		if (!r->data)
			return -EIO;
		done += r->data;
	}
	return 0;
}

static int64_t get(struct op *op, struct fe_node *node, const char *name, void *buf, size_t size)
{
	struct fid *f;
	int64_t len = xattr_fid(op, node, name, &f);
	int err = 0;

	if (len > 0 && size && (size_t)len > size)
		err = -ERANGE;
	if (len > 0 && size && !err)
		err = read_attr(op, f, buf, (size_t)len);
	if (f)
		fid_put(op, f);
	return err ? err : len;
}

/* The kernel asks before the first write to a file for what the write would have to take away. */
static bool is_bare(const struct remote *r, const struct fe_node *node)
{
	uint32_t since = __atomic_load_n(&r_node(node)->bare, __ATOMIC_RELAXED);

	return since && clock_ns() - (uint64_t)since * NS < r->attr_valid;
}

ssize_t remote_getxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name, void *buf,
			size_t size)
{
	_cleanup_op_ struct op op;

	op_begin(&op, b, req);
	if (left_out(b, name))
		return -EOPNOTSUPP;
	if (is_bare(b, node) && !strcmp(name, XATTR_NAME_CAPS))
		return -ENODATA;
	while (op_next(&op))
		op.result = get(&op, node, name, buf, size);
	return op.result;
}

/* trusted.* is shown to the privileged only; the kernel leaves that to the file system. */
static size_t without_hidden(const struct remote *r, char *list, size_t size, bool trusted)
{
	size_t kept = 0;

	for (size_t at = 0, len; at < size; at += len) {
		len = strnlen(list + at, size - at - 1) + 1;
		if (left_out(r, list + at) ||
		    (!trusted && !strncmp(list + at, XATTR_TRUSTED_PREFIX, XATTR_TRUSTED_PREFIX_LEN)))
			continue;
		memmove(list + kept, list + at, len);
		kept += len;
	}
	return kept;
}

ssize_t remote_listxattr(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size)
{
	_cleanup_op_ struct op op;
	_cleanup_free_ char *list = malloc(XATTR_LIST_MAX);
	ssize_t n;

	op_begin(&op, b, req);
	if (!list)
		return -ENOMEM;
	while (op_next(&op))
		op.result = get(&op, node, "", list, XATTR_LIST_MAX);
	n = op.result;
	if (n <= 0)
		return n;
	if (list[n - 1])
		return -EIO;
	n = (ssize_t)without_hidden(b, list, (size_t)n, !req->uid);
	if (!size)
		return n;
	if ((size_t)n > size)
		return -ERANGE;
	memcpy(buf, list, (size_t)n);
	return n;
}

enum { ABSENT = 1, PRESENT };

/* Whether it was as `state` says before the answer was lost: if it is not so now, that was this request. */
static bool was_before(struct op *op, struct fe_node *node, const char *name, uint32_t state)
{
	int64_t n;

	if (op->again && op->intent->state)
		return op->intent->state == state;
	n = get(op, node, name, NULL, 0);
	if (n >= 0 || n == -ENODATA)
		__atomic_store_n(&op->intent->state, n >= 0 ? PRESENT : ABSENT, __ATOMIC_RELEASE);
	return false;
}

static int write_attr(struct op *op, struct fid *f, const unsigned char *value, size_t size)
{
	size_t chunk = op->r->client.msize - P9_IOHDRSZ;

	for (size_t done = 0; done < size; ) {
		size_t n = size - done < chunk ? size - done : chunk;
		_cleanup_rpc_ struct rpc *r = write_send(op, f->number, done, value + done, n);
		int err = r ? rpc_wait(r) : -ENOMEM;
		uint32_t got;

		if (err)
			return err;
		got = p9_get32(&r->in);
		if (r->in.bad || !got || got > n)
			return -EIO;
		done += got;
	}
	return 0;
}

/* The clunk is what sets it, or removes it where there is no value and XATTR_REPLACE. */
static int set(struct op *op, struct fe_node *node, const char *name, const void *value, size_t size, int flags)
{
	_cleanup_rpc_ struct rpc *r = NULL;
	struct fid *file, *f;
	int err = node_fid(op, node, &file), clunk;

	if (err)
		return err;
	err = fid_clone(op, file->number, &f);
	fid_put(op, file);
	if (err)
		return err;
	r = call_new(op, P9_TXATTRCREATE, f->number);
	if (r) {
		p9_putstr(&r->out, name);
		p9_put64(&r->out, size);
		p9_put32(&r->out, (uint32_t)flags);
	}
	err = call(op, r);
	if (!err)
		err = write_attr(op, f, value, size);
	clunk = call_plain(op, P9_TCLUNK, f->number);
	fid_drop(op, f, clunk);
	return err ? err : clunk;
}

static int set_one(struct op *op, struct fe_node *node, const char *name, const void *value, size_t size, int flags,
		   int kill_sgid)
{
	struct r_node *n = r_node(node);
	struct p9_setattr mode = { .valid = P9_SET_MODE, .mode = n->mode & 07777 & ~(uint32_t)S_ISGID };
	struct fid *f;
	int err;

	if (flags & XATTR_CREATE && was_before(op, node, name, ABSENT))
		flags &= ~XATTR_CREATE;
	err = set(op, node, name, value, size, flags);
	if (err || !kill_sgid || !(n->mode & S_ISGID))
		return err;
	err = node_fid(op, node, &f);
	if (err)
		return err;
	err = call_setattr(op, f->number, &mode);
	fid_put(op, f);
	return err;
}

int remote_setxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name,
		    const void *value, size_t size, int flags, int kill_sgid)
{
	_cleanup_op_ struct op op;

	op_begin_file_change(&op, b, req, node);
	__atomic_store_n(&r_node(node)->bare, 0, __ATOMIC_RELAXED);
	/* The protocol removes an attribute by setting it to nothing. */
	if (left_out(b, name) || !size)
		return -EOPNOTSUPP;
	while (op_next(&op))
		op.result = set_one(&op, node, name, value, size, flags, kill_sgid);
	return (int)op.result;
}

static int remove_attr(struct op *op, struct fe_node *node, const char *name)
{
	bool was_there = was_before(op, node, name, PRESENT);
	struct p9_setattr touch = { .valid = P9_SET_MODE, .mode = r_node(node)->mode & 07777 };
	int64_t n = get(op, node, name, NULL, 0);
	struct fid *f;
	int err = n < 0 ? (int)n : set(op, node, name, NULL, 0, XATTR_REPLACE);

	if (err != -ENODATA || strncmp(name, "system.posix_acl_", 17))
		return err == -ENODATA && was_there ? 0 : err;
	/* To take an ACL away where there is none is no error, and a change. */
	err = node_fid(op, node, &f);
	if (err)
		return err;
	err = call_setattr(op, f->number, &touch);
	fid_put(op, f);
	return err;
}

int remote_removexattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name)
{
	_cleanup_op_ struct op op;

	op_begin_file_change(&op, b, req, node);
	if (left_out(b, name))
		return -EOPNOTSUPP;
	while (op_next(&op))
		op.result = remove_attr(&op, node, name);
	return (int)op.result;
}
