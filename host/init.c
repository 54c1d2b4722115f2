/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* INIT: what this kernel and this backend can both do. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "host/answers.h"

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
		want |= FUSE_DO_READDIRPLUS | (features & FE_FEAT_READDIRPLUS ? 0 : FUSE_READDIRPLUS_AUTO);
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
	else if (h->shared->passthrough)
		want |= FUSE_PASSTHROUGH;
	return want;
}

void passthrough_set(struct fe_host *h, enum passes who, const char *reason)
{
	h->shared->passthrough = who;
	snprintf(h->shared->passthrough_reason, sizeof(h->shared->passthrough_reason), "%s", reason);
}

static void settle_passthrough(struct fe_host *h)
{
	h->driver_lacks = h->shared->passthrough && !(h->shared->flags & FUSE_PASSTHROUGH);
	if (h->driver_lacks)
		passthrough_set(h, PASSES_NOTHING, "the kernel has no FUSE_PASSTHROUGH (Linux 6.9 is the first)");
	if (h->shared->passthrough)
		passthrough_set(h, PASSES_DRIVER, "the kernel reads and writes the backing files");
}

int64_t op_init(struct call *c)
{
	struct fe_host *h = c->host;
	struct fuse_init_in in = { 0 };
	struct fuse_init_out *out = (void *)c->out;
	uint64_t offered;
	uint32_t depth = h->root.max_stack_depth ? h->root.max_stack_depth : 1;

	if (h->shared->proto_minor)
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
#ifdef FR_KILL_POINTS
	/* For tests: as if it was Linux 6.1, protocol 7.37 with FUSE_HAS_INODE_DAX as its last flag. */
	if (getenv("FE_LINUX_6_1")) {
		offered &= (1ull << 34) - 1;
		in.minor = 37;
	}
#endif
	h->shared->flags = offered & wanted_flags(h);
	h->shared->proto_minor = in.minor < NEWEST_MINOR ? in.minor : NEWEST_MINOR;
	settle_passthrough(h);

	out->minor = h->shared->proto_minor;
	out->max_readahead = in.max_readahead;
	out->flags = (uint32_t)h->shared->flags;
	out->flags2 = (uint32_t)(h->shared->flags >> 32);
	out->max_background = 64;
	out->congestion_threshold = 48;
	out->max_write = h->shared->max_write;
	out->max_pages = (uint16_t)(MAX_WRITE / h->page);
	out->time_gran = h->root.time_gran ? (uint32_t)h->root.time_gran : 1;
	if (h->shared->flags & FUSE_PASSTHROUGH)
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
	_Alignas(8) unsigned char in[FUSE_MIN_READ_BUFFER], out[256];
	struct fuse_out_header *head = (void *)out;
	struct pollfd readable = { .fd = h->shared->fd, .events = POLLIN };
	struct call c = {
		.host = h,
		.in = (const void *)in,
		.arg = in + sizeof(struct fuse_in_header),
		.out = out + sizeof(*head),
	};

	while (!h->shared->proto_minor) {
		ssize_t n = read(h->shared->fd, in, sizeof(in));
		int64_t result;

		if (n < 0 && errno == EAGAIN)
			poll(&readable, 1, -1);
		else if (n < 0 && errno != EINTR && errno != ENOENT)
			return -errno;
		if (n < (ssize_t)(sizeof(*c.in) + operations[FUSE_INIT].arg_size) || c.in->opcode != FUSE_INIT)
			continue;
		c.arg_size = (size_t)n - sizeof(*c.in);
		result = op_init(&c);
		if (result >= 0 && h->shared->proto_minor) {
			int err = answers_attach(h);

			if (!h->shared->passthrough)
				fe_log(LOG_INFO, "files are read and written through the server: %s",
				       h->shared->passthrough_reason);
			result = err ? err : result;
		}
		*head = (struct fuse_out_header){ .unique = c.in->unique, .len = sizeof(*head) };
		if (result < 0)
			head->error = (int)result;
		else
			head->len += (uint32_t)result;
		if (write(h->shared->fd, out, head->len) < 0)
			return -errno;
		if (result < 0)
			return (int)result;
	}
	return 0;
}
