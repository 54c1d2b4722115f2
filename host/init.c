/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* INIT: what this kernel and this backend can both do. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "host/internal.h"

/* 7.31 is Linux 5.4; older kernels lay out some requests in another way. */
#define OLDEST_MINOR	31
#define NEWEST_MINOR	41

/* struct fuse_init_in of kernels before 7.36 ends after `flags`. */
#define INIT_IN_SHORT	16

static uint64_t wanted_flags(const struct fe_host *h)
{
	const struct fe_backend *be = h->be;
	uint32_t features = h->root.features;
	uint64_t want = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_HAS_IOCTL_DIR | FUSE_AUTO_INVAL_DATA |
			FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_ABORT_ERROR | FUSE_MAX_PAGES |
			FUSE_INIT_EXT | FUSE_SETXATTR_EXT | FUSE_CREATE_SUPP_GROUP |
			FUSE_HAS_EXPIRE_ONLY | FUSE_DIRECT_IO_ALLOW_MMAP;

	if (be->readdir)
		want |= FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO;
	if (!be->open_file)
		want |= FUSE_NO_OPEN_SUPPORT;
	if (!be->opendir)
		want |= FUSE_NO_OPENDIR_SUPPORT;
	if (features & FE_FEAT_ATOMIC_O_TRUNC)
		want |= FUSE_ATOMIC_O_TRUNC;
	if (features & FE_FEAT_LOCKS)
		want |= FUSE_POSIX_LOCKS;
	if (features & FE_FEAT_FLOCK)
		want |= FUSE_FLOCK_LOCKS;
	if (features & FE_FEAT_POSIX_ACL)
		want |= FUSE_POSIX_ACL;
	if (features & FE_FEAT_KILLPRIV)
		want |= FUSE_HANDLE_KILLPRIV_V2;
	if (h->opt.writeback)
		want |= FUSE_WRITEBACK_CACHE;
	else if (h->passthrough)
		want |= FUSE_PASSTHROUGH;
	return want;
}

static void settle_passthrough(struct fe_host *h)
{
	if (h->passthrough && !(h->flags & FUSE_PASSTHROUGH)) {
		h->passthrough = false;
		h->passthrough_reason = "the kernel has no FUSE_PASSTHROUGH (Linux 6.9 is the first)";
	}
	if (h->passthrough)
		h->passthrough_reason = "the kernel reads and writes the backing files";
	else
		fe_log(LOG_INFO, "files are read and written through the server: %s", h->passthrough_reason);
}

int64_t op_init(struct call *c)
{
	struct fe_host *h = c->host;
	struct fuse_init_in in = { 0 };
	struct fuse_init_out *out = (void *)c->out;
	uint64_t offered;
	uint32_t depth = h->root.max_stack_depth ? h->root.max_stack_depth : 1;

	if (h->proto_minor)
		return -EIO; /* it comes once */
	memcpy(&in, c->arg, c->arg_size < sizeof(in) ? c->arg_size : sizeof(in));
	memset(out, 0, sizeof(*out));
	out->major = FUSE_KERNEL_VERSION;
	if (in.major > FUSE_KERNEL_VERSION)
		return sizeof(*out); /* the kernel comes back with our version */
	if (in.major < FUSE_KERNEL_VERSION || in.minor < OLDEST_MINOR) {
		fe_log(LOG_ERR, "the kernel speaks FUSE %u.%u; %u.%u (Linux 5.4) is needed", in.major, in.minor,
		       FUSE_KERNEL_VERSION, OLDEST_MINOR);
		return -EPROTO;
	}
	offered = in.flags;
	if (c->arg_size > INIT_IN_SHORT && in.flags & FUSE_INIT_EXT)
		offered |= (uint64_t)in.flags2 << 32;
	h->flags = offered & wanted_flags(h);
	h->proto_minor = in.minor < NEWEST_MINOR ? in.minor : NEWEST_MINOR;
	settle_passthrough(h);

	out->minor = h->proto_minor;
	out->max_readahead = in.max_readahead;
	out->flags = (uint32_t)h->flags;
	out->flags2 = (uint32_t)(h->flags >> 32);
	out->max_background = 64;
	out->congestion_threshold = 48;
	out->max_write = h->max_write;
	out->max_pages = (uint16_t)(MAX_WRITE / h->page);
	out->time_gran = h->root.time_gran ? (uint32_t)h->root.time_gran : 1;
	if (h->flags & FUSE_PASSTHROUGH)
		memcpy((unsigned char *)out + FE_INIT_OUT_MAX_STACK_DEPTH, &depth, sizeof(depth));
	return sizeof(*out);
}

int64_t op_destroy(struct call *c)
{
	(void)c;
	return 0;
}

/* Answers INIT, which the kernel sends by itself after the mount; nothing else can come before it. */
int handshake(struct fe_host *h)
{
	struct worker w = { .host = h, .fd = h->fd };
	struct pollfd readable = { .fd = h->fd, .events = POLLIN };
	int err = slot_init(&w.slot, h->page);

	while (!err && !h->proto_minor) {
		ssize_t n = read(h->fd, w.slot.in, w.slot.in_size);

		if (n > 0)
			dispatch(&w, (size_t)n);
		else if (n < 0 && errno == EAGAIN)
			poll(&readable, 1, -1);
		else if (n < 0 && errno != EINTR && errno != ENOENT)
			err = -errno;
		if (n > 0 && ((struct fuse_out_header *)w.slot.out)->error)
			err = -EPROTO;
	}
	if (w.slot.map)
		slot_fini(&w.slot, h->page);
	return err;
}
