/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that the kernel reads and writes without asking. */
#include <linux/capability.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libextfuse/internal.h"

#define BIT(cap) (1u << (cap))

API int extfuse_backing(struct extfuse *x, uint64_t nodeid, int fd)
{
	struct extfuse_backing b = { .nodeid = nodeid, .fd = fd };

	if (!x->attached)
		return -ENOTCONN;
	if (native(x))
		return -ENOTSUP;
	return ioctl(x->device, EXTFUSE_IOC_BACKING, &b) ? -errno : 0;
}

static int standing(struct extfuse *x, struct extfuse_standing *s)
{
	int n;

	if (!x->attached)
		return -ENOTCONN;
	if (native(x))
		return -ENOTSUP;
	n = ioctl(x->device, EXTFUSE_IOC_STANDING, s);
	/* A module that does not know it. */
	return n >= 0 ? n : errno == ENOTTY ? -ENOTSUP : -errno;
}

API int extfuse_standing(struct extfuse *x, uint64_t nodeid, int fd, const struct fuse_open_out *out)
{
	struct extfuse_standing s = { .nodeid = nodeid, .fh = out->fh, .fd = fd, .open_flags = out->open_flags };

	if (!nodeid || fd < 0)
		return -EINVAL;
	memcpy(&s.backing_id, (const char *)out + FE_OPEN_OUT_BACKING_ID, sizeof(s.backing_id));
	return standing(x, &s);
}

API int extfuse_standing_end(struct extfuse *x, uint64_t nodeid, uint64_t fh)
{
	return standing(x, &(struct extfuse_standing){ .nodeid = nodeid, .fh = fh, .fd = -1 });
}

static int caps_call(long call, struct __user_cap_data_struct *data)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return syscall(call, &head, data) ? -errno : 0;
}

/* The driver uses the file with the credentials of now: whoever writes must not keep set-id bits by the
 * daemon's capabilities, nor fill reserved blocks. Of this thread only. */
static int register_without(int fuse_fd, struct fuse_backing_map *map, uint32_t drop)
{
	struct __user_cap_data_struct had[2], less[2];
	int id, err = caps_call(SYS_capget, had);

	if (err)
		return err;
	less[0] = had[0];
	less[1] = had[1];
	less[0].effective &= ~drop;
	err = caps_call(SYS_capset, less);
	if (err)
		return err;
	id = ioctl(fuse_fd, FUSE_DEV_IOC_BACKING_OPEN, map);
	if (id < 0)
		id = -errno;
	err = caps_call(SYS_capset, had);
	if (err && id > 0)
		ioctl(fuse_fd, FUSE_DEV_IOC_BACKING_CLOSE, &id);
	return err ? err : id;
}

API int extfuse_backing_open(struct extfuse *x, int fd)
{
	struct fuse_backing_map map = { .fd = fd };

	if (!x->attached)
		return -ENOTCONN;
	if (!(x->protocol.flags & FUSE_PASSTHROUGH))
		return -ENOTSUP;
	return register_without(x->fuse_fd, &map, BIT(CAP_FSETID) | BIT(CAP_SYS_RESOURCE));
}

API int extfuse_backing_close(struct extfuse *x, int backing_id)
{
	uint32_t id = (uint32_t)backing_id;

	if (!x->attached)
		return -ENOTCONN;
	return ioctl(x->fuse_fd, FUSE_DEV_IOC_BACKING_CLOSE, &id) ? -errno : 0;
}
