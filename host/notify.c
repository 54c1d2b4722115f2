/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Telling the kernel of changes that it did not make itself. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "host/internal.h"

/* A notification is a reply to no request: unique 0, its code in the place of the error. */
static int notify(struct fe_host *h, int code, struct iovec *iov, int count)
{
	struct fuse_out_header head = { .len = sizeof(head), .error = code };

	for (int i = 1; i < count; i++)
		head.len += (uint32_t)iov[i].iov_len;
	iov[0] = (struct iovec){ &head, sizeof(head) };
	return writev(h->shared->fd, iov, count) < 0 ? -errno : 0;
}

/* The hook first: when the driver asks again, it is not to hear what was true before. */
static void outdated_node(struct fe_host *h, uint64_t nodeid)
{
	if (h->hook)
		extfuse_outdated_node(h->hook, nodeid);
}

static void outdated_entry(struct fe_host *h, uint64_t parent, const char *name)
{
	if (h->hook)
		extfuse_outdated_entry(h->hook, parent, name);
}

int notify_inval_inode(void *host, uint64_t nodeid, int64_t off, int64_t len)
{
	struct fuse_notify_inval_inode_out out = { .ino = nodeid, .off = off, .len = len };
	struct iovec iov[] = { { 0 }, { &out, sizeof(out) } };

	outdated_node(host, nodeid);
	return notify(host, FUSE_NOTIFY_INVAL_INODE, iov, 2);
}

static int check_name(const char *name, size_t *len)
{
	*len = strlen(name);
	return *len && *len <= NAME_MAX ? 0 : -EINVAL;
}

int notify_inval_entry(void *host, uint64_t parent, const char *name, int expire_only)
{
	struct fe_host *h = host;
	struct fuse_notify_inval_entry_out out = { .parent = parent };
	struct iovec iov[] = { { 0 }, { &out, sizeof(out) }, { (void *)name, 0 } };
	size_t len;
	int err = check_name(name, &len);

	if (err)
		return err;
	outdated_entry(h, parent, name);
	if (expire_only && h->shared->flags & FUSE_HAS_EXPIRE_ONLY)
		out.flags = FUSE_EXPIRE_ONLY;
	out.namelen = (uint32_t)len;
	iov[2].iov_len = len + 1;
	return notify(h, FUSE_NOTIFY_INVAL_ENTRY, iov, 3);
}

int notify_delete(void *host, uint64_t parent, uint64_t child, const char *name)
{
	struct fuse_notify_delete_out out = { .parent = parent, .child = child };
	struct iovec iov[] = { { 0 }, { &out, sizeof(out) }, { (void *)name, 0 } };
	size_t len;
	int err = check_name(name, &len);

	if (err)
		return err;
	outdated_entry(host, parent, name);
	outdated_node(host, child);
	out.namelen = (uint32_t)len;
	iov[2].iov_len = len + 1;
	return notify(host, FUSE_NOTIFY_DELETE, iov, 3);
}

int notify_store(void *host, uint64_t nodeid, uint64_t off, const void *data, size_t len)
{
	struct fuse_notify_store_out out = { .nodeid = nodeid, .offset = off, .size = (uint32_t)len };
	struct iovec iov[] = { { 0 }, { &out, sizeof(out) }, { (void *)data, len } };

	if (len > MAX_WRITE)
		return -EINVAL;
	outdated_node(host, nodeid);
	return notify(host, FUSE_NOTIFY_STORE, iov, 3);
}
