/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that the kernel reads and writes without asking. */
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libextfuse/internal.h"

#define BIT(cap) (1u << (cap))
#define NOBODY	 65534

/* A negative errno, or what the module returns; -ENOTSUP from one that does not know this. */
static int ask_module(struct extfuse *x, unsigned long request, void *arg)
{
	int n;

	if (!x->attached)
		return -ENOTCONN;
	if (native(x))
		return -ENOTSUP;
	n = ioctl(x->device, request, arg);
	return n >= 0 ? n : errno == ENOTTY ? -ENOTSUP : -errno;
}

API int extfuse_backing(struct extfuse *x, uint64_t nodeid, int fd)
{
	return ask_module(x, EXTFUSE_IOC_BACKING, &(struct extfuse_backing){ .nodeid = nodeid, .fd = fd });
}

API int extfuse_standing(struct extfuse *x, uint64_t nodeid, int fd, const struct fuse_open_out *out)
{
	struct extfuse_standing s = { .nodeid = nodeid, .fh = out->fh, .fd = fd, .open_flags = out->open_flags };

	if (!nodeid || fd < 0)
		return -EINVAL;
	memcpy(&s.backing_id, (const char *)out + FE_OPEN_OUT_BACKING_ID, sizeof(s.backing_id));
	return ask_module(x, EXTFUSE_IOC_STANDING, &s);
}

API int extfuse_standing_end(struct extfuse *x, uint64_t nodeid, uint64_t fh)
{
	return ask_module(x, EXTFUSE_IOC_STANDING,
			  &(struct extfuse_standing){ .nodeid = nodeid, .fh = fh, .fd = -1 });
}

static int caps_call(long call, struct __user_cap_data_struct *data)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return syscall(call, &head, data) ? -errno : 0;
}

/* ---- as nobody ---- */

struct registration {
	int fuse_fd;
	int id; /* or a negative errno */
	struct fuse_backing_map map;
};

static int become_nobody(void)
{
	struct __user_cap_data_struct data[2];
	int err;

	syscall(SYS_setgroups, 0, NULL);
	syscall(SYS_setfsgid, NOBODY);
	syscall(SYS_setfsuid, NOBODY);
	if (syscall(SYS_setfsgid, -1) != NOBODY || syscall(SYS_setfsuid, -1) != NOBODY || getgroups(0, NULL))
		return -EPERM;
	err = caps_call(SYS_capget, data);
	data[0].effective &= ~(BIT(CAP_FSETID) | BIT(CAP_SYS_RESOURCE));
	return err ? err : caps_call(SYS_capset, data);
}

/* Ids, groups and capabilities are this thread's, and end with it. */
static void *register_as_nobody(void *arg)
{
	struct registration *r = arg;

	r->id = become_nobody();
	if (!r->id) {
		r->id = ioctl(r->fuse_fd, FUSE_DEV_IOC_BACKING_OPEN, &r->map);
		if (r->id < 0)
			r->id = -errno;
	}
	return NULL;
}

/*
 * The driver uses the file with the credentials that it is registered with: whoever writes must not keep set-id
 * bits by the daemon's capabilities, nor fill blocks that are reserved for root or for a group.
 */
API int extfuse_backing_open(struct extfuse *x, int fd)
{
	struct registration r = { .fuse_fd = x->fuse_fd, .map.fd = fd };
	sigset_t all, before;
	pthread_t thread;
	int err;

	if (!x->attached)
		return -ENOTCONN;
	if (!(x->protocol.flags & FUSE_PASSTHROUGH))
		return -ENOTSUP;
	/* Signals are for the daemon's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&thread, NULL, register_as_nobody, &r);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		return -err;
	pthread_join(thread, NULL);
	return r.id;
}

API int extfuse_backing_close(struct extfuse *x, int backing_id)
{
	uint32_t id = (uint32_t)backing_id;

	if (!x->attached)
		return -ENOTCONN;
	return ioctl(x->fuse_fd, FUSE_DEV_IOC_BACKING_CLOSE, &id) ? -errno : 0;
}
