/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/limits.h>
#include <stddef.h>
#include <string.h>

#include "host/answers.h"

/* Both kinds of question: how long is it (size 0), and what is it. */
static int64_t xattr_reply(struct call *c, uint32_t asked, ssize_t n)
{
	struct fuse_getxattr_out *out = (void *)c->out;

	if (n < 0)
		return n;
	if (asked)
		return (size_t)n > asked ? -ERANGE : n;
	*out = (struct fuse_getxattr_out){ .size = (uint32_t)n };
	return sizeof(*out);
}

static size_t value_room(struct call *c, uint32_t asked)
{
	return asked < c->out_size ? asked : c->out_size;
}

int64_t op_getxattr(struct call *c)
{
	const struct fuse_getxattr_in *in = (const void *)c->arg;
	size_t room = value_room(c, in->size);
	const char *name;
	ssize_t n;

	c->arg += sizeof(*in);
	c->arg_size -= sizeof(*in);
	name = take_string(c);
	if (!name || !*name)
		return -EINVAL;
	if (!c->host->be->getxattr)
		return -ENOSYS;
	n = c->host->be->getxattr(c->host->priv, &c->req, &c->node, name, c->out, room);
	answers_xattr(c, name, c->out, n, room);
	return xattr_reply(c, in->size, n);
}

int64_t op_listxattr(struct call *c)
{
	const struct fuse_getxattr_in *in = (const void *)c->arg;
	size_t room = value_room(c, in->size);
	ssize_t n;

	if (!c->host->be->listxattr)
		return -ENOSYS;
	n = c->host->be->listxattr(c->host->priv, &c->req, &c->node, (char *)c->out, room);
	answers_xattr_list(c, (char *)c->out, n, room);
	return xattr_reply(c, in->size, n);
}

int64_t op_setxattr(struct call *c)
{
	bool ext = c->host->shared->flags & FUSE_SETXATTR_EXT;
	struct fuse_setxattr_in in = { 0 };
	size_t head = ext ? sizeof(in) : offsetof(struct fuse_setxattr_in, setxattr_flags);
	const char *name;

	if (c->arg_size < head)
		return -EINVAL;
	memcpy(&in, c->arg, head);
	c->arg += head;
	c->arg_size -= head;
	name = take_string(c);
	if (!name || !*name || in.size > c->arg_size || in.size > XATTR_SIZE_MAX)
		return -EINVAL;
	if (!c->host->be->setxattr)
		return -ENOSYS;
	return c->host->be->setxattr(c->host->priv, &c->req, &c->node, name, c->arg, in.size, (int)in.flags,
				     !!(in.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID));
}

int64_t op_removexattr(struct call *c)
{
	const char *name = take_string(c);

	if (!name || !*name)
		return -EINVAL;
	if (!c->host->be->removexattr)
		return -ENOSYS;
	return c->host->be->removexattr(c->host->priv, &c->req, &c->node, name);
}
