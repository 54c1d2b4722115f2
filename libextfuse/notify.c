/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Telling the FUSE driver what its own caches must not keep. */
#include <string.h>
#include <sys/uio.h>

#include "libextfuse/internal.h"

/* A notification is a reply to no request: unique 0, its code in the place of the error. */
static int notify(struct extfuse *x, int code, const void *data, size_t size, const char *name)
{
	struct fuse_out_header head = { .error = code };
	struct iovec iov[] = {
		{ &head, sizeof(head) },
		{ (void *)data, size },
		{ (void *)name, name ? strlen(name) + 1 : 0 },
	};

	head.len = (uint32_t)(sizeof(head) + size + iov[2].iov_len);
	COUNT(x, notifications);
	if (writev(x->fuse_fd, iov, name ? 3 : size ? 2 : 1) >= 0)
		return 0;
	/* What the kernel does not know, it does not keep; and a directory in use is looked up anew. */
	return errno == ENOENT || errno == ENOTDIR || errno == ENOTEMPTY || errno == EBUSY ? 0 : -errno;
}

int notify_inode(struct extfuse *x, uint64_t nodeid, bool keep_data)
{
	/* An offset below 0: the attributes alone. */
	struct fuse_notify_inval_inode_out out = { .ino = nodeid, .off = keep_data ? -1 : 0 };

	return notify(x, FUSE_NOTIFY_INVAL_INODE, &out, sizeof(out), NULL);
}

int notify_entry(struct extfuse *x, uint64_t parent, const char *name)
{
	struct fuse_notify_inval_entry_out out = { .parent = parent, .namelen = (uint32_t)strlen(name) };

	return notify(x, FUSE_NOTIFY_INVAL_ENTRY, &out, sizeof(out), name);
}

int notify_deleted(struct extfuse *x, uint64_t parent, uint64_t child, const char *name)
{
	struct fuse_notify_delete_out out = { .parent = parent,
					      .child = child,
					      .namelen = (uint32_t)strlen(name) };

	return notify(x, FUSE_NOTIFY_DELETE, &out, sizeof(out), name);
}

int notify_epoch(struct extfuse *x)
{
	if (x->protocol.minor < NOTIFY_INC_EPOCH_MINOR)
		return -ENOTSUP;
	return notify(x, NOTIFY_INC_EPOCH, NULL, 0, NULL);
}
