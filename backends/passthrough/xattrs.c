/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/limits.h>
#include <linux/xattr.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"
#include "base/cleanup.h"

/*
 * By /proc/self/fd: fgetxattr(2) refuses O_PATH descriptors, and so does getxattrat(2) with an empty
 * path (EBADF, Linux 6.18).
 */

ssize_t pt_getxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name, void *buf,
		    size_t size)
{
	_cleanup_held_ struct held file = { .fd = -1 };
	int err = node_hold(b, node, &file);
	ssize_t n;

	(void)req;
	if (err)
		return err;
	n = getxattr(proc_path(file.fd).path, name, buf, size);
	return n < 0 ? -errno : n;
}

/* trusted.* is shown to the privileged only; the kernel leaves that to the file system. */
static size_t without_trusted(char *list, size_t size)
{
	size_t kept = 0;

	for (size_t at = 0, len; at < size; at += len) {
		len = strnlen(list + at, size - at - 1) + 1;
		if (!strncmp(list + at, XATTR_TRUSTED_PREFIX, XATTR_TRUSTED_PREFIX_LEN))
			continue;
		memmove(list + kept, list + at, len);
		kept += len;
	}
	return kept;
}

ssize_t pt_listxattr(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size)
{
	struct passthrough *pt = b;
	_cleanup_held_ struct held file = { .fd = -1 };
	char list[XATTR_LIST_MAX];
	int err = node_hold(pt, node, &file);
	ssize_t n;

	if (err)
		return err;
	n = listxattr(proc_path(file.fd).path, list, sizeof(list));
	if (n < 0)
		return -errno;
	if (req->uid)
		n = (ssize_t)without_trusted(list, (size_t)n);
	if (!size)
		return n;
	if ((size_t)n > size)
		return -ERANGE;
	memcpy(buf, list, (size_t)n);
	return n;
}

enum { ABSENT = 1, PRESENT };

/*
 * Whether the attribute was as `state` says before a process that died began with this request: if it
 * is not so now, the request did that itself.
 */
static bool was_before(const struct fe_request *req, int fd, const char *name, uint32_t state)
{
	struct fe_intent *intent = req->intent;
	bool absent;

	if (!intent)
		return false;
	if (req->again && intent->state)
		return intent->state == state;
	absent = getxattr(proc_path(fd).path, name, NULL, 0) < 0;
	__atomic_store_n(&intent->state, absent ? ABSENT : PRESENT, __ATOMIC_RELEASE);
	return false;
}

int pt_setxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name, const void *value,
		size_t size, int flags, int kill_sgid)
{
	struct passthrough *pt = b;
	_cleanup_held_ struct held file = { .fd = -1 };
	int err = node_hold(pt, node, &file);

	if (err)
		return err;
	if (flags & XATTR_CREATE && was_before(req, file.fd, name, ABSENT))
		flags &= ~XATTR_CREATE;
	if (kill_sgid)
		creds_attr(pt, req);
	err = setxattr(proc_path(file.fd).path, name, value, size, flags);
	err = err ? -errno : 0;
	creds_server(pt);
	return err;
}

int pt_removexattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name)
{
	struct passthrough *pt = b;
	_cleanup_held_ struct held file = { .fd = -1 };
	int err = node_hold(pt, node, &file);
	bool was_there;

	if (err)
		return err;
	was_there = was_before(req, file.fd, name, PRESENT);
	if (!removexattr(proc_path(file.fd).path, name))
		return 0;
	return errno == ENODATA && was_there ? 0 : -errno;
}
