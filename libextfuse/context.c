/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a context, and which engine it has. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "libextfuse/internal.h"

static int because(struct extfuse *x, int err, const char *what)
{
	snprintf(x->reason, sizeof(x->reason), "%s: %s", what, strerror(-err));
	return err;
}

static int options_take(struct extfuse_options *to, const struct extfuse_options *from)
{
	size_t size = from->struct_size;

	memset(to, 0, sizeof(*to));
	if (size < offsetof(struct extfuse_options, reserved0) || size > sizeof(*to))
		return -EINVAL;
	memcpy(to, from, size);
	if (to->engine > EXTFUSE_ENGINE_NATIVE || to->flags & ~EXTFUSE_KERNEL_TTL || to->reserved0)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(to->reserved) / sizeof(*to->reserved); i++)
		if (to->reserved[i])
			return -EINVAL;
	return 0;
}

static int protocol_take(struct extfuse_protocol *to, const struct extfuse_protocol *from)
{
	if (from->struct_size != sizeof(*to))
		return -EINVAL;
	*to = *from;
	return 0;
}

static void hook_drop(struct extfuse *x)
{
	if (x->area)
		area_drop(x);
	maps_close(x);
	fe_close(x->device);
	x->device = -1;
}

static void dismantle(struct extfuse *x)
{
	hook_drop(x);
	free(x);
}

static void dismantlep(struct extfuse **x)
{
	if (*x)
		dismantle(*x);
}

#define _cleanup_context_ __attribute__((cleanup(dismantlep)))

static int context_new(const struct extfuse_options *options, struct extfuse **out)
{
	_cleanup_context_ struct extfuse *x = calloc(1, sizeof(*x));
	int err;

	*out = NULL;
	if (!x)
		return -ENOMEM;
	x->device = -1;
	x->fuse_fd = -1;
	memset(x->maps, -1, sizeof(x->maps));
	memset(x->programs, -1, sizeof(x->programs));
	err = options_take(&x->options, options);
	if (!err)
		err = sizes_of(&x->options, &x->sizes);
	if (err)
		return err;
	*out = x;
	x = NULL;
	return 0;
}

/* ---- the module ---- */

static int device_version(struct extfuse *x)
{
	struct extfuse_version version = { 0 };

	if (ioctl(x->device, EXTFUSE_IOC_VERSION, &version))
		return because(x, -errno, "the module's version");
	if (version.abi != EXTFUSE_ABI || version.request_size != sizeof(struct extfuse_request)) {
		snprintf(x->reason, sizeof(x->reason),
			 "the module has version %u of the interface, not %u", version.abi, EXTFUSE_ABI);
		return -EPROTO;
	}
	return 0;
}

static int device_open(struct extfuse *x)
{
	x->device = open(EXTFUSE_DEVICE, O_RDWR | O_CLOEXEC);
	if (x->device < 0)
		return because(x, -errno, EXTFUSE_DEVICE);
	return device_version(x);
}

static int hook_open(struct extfuse *x)
{
	int err = device_open(x);

	if (!err)
		err = maps_load(x);
	if (err)
		hook_drop(x);
	return err;
}

/* An opcode that this module does not let handlers answer stays the daemon's. */
static int programs_set(struct extfuse *x)
{
	for (int i = 0; i < PROGRAMS; i++) {
		int err = extfuse_handler(x, program_kinds[i].opcode, EXTFUSE_HANDLER_OURS, 0);

		if (err && err != -EOPNOTSUPP)
			return because(x, err, program_kinds[i].name);
	}
	return 0;
}

static int hook_attach(struct extfuse *x)
{
	struct extfuse_attach attach = {
		.fuse_fd = x->fuse_fd,
		.word_bits = x->sizes.word_bits,
		.nodes = x->sizes.nodes,
	};
	int err = ioctl(x->device, EXTFUSE_IOC_ATTACH, &attach) ? -errno : 0;

	if (err)
		return because(x, err, "attaching");
	err = area_map(x);
	if (err)
		return because(x, err, "the module's memory");
	return programs_set(x);
}

/* ---- life ---- */

API int extfuse_open(const struct extfuse_options *options, struct extfuse **out)
{
	struct extfuse *x;
	int err = context_new(options, &x);

	*out = NULL;
	if (err)
		return err;
	x->engine = (enum extfuse_engine)x->options.engine;
	if (x->engine == EXTFUSE_ENGINE_NATIVE)
		snprintf(x->reason, sizeof(x->reason), "as asked for");
	else
		err = hook_open(x);
	if (err && x->engine == EXTFUSE_ENGINE_HOOK) {
		log_line(x, LOG_ERR, "no engine: %s", x->reason);
		dismantle(x);
		return err;
	}
	*out = x;
	return 0;
}

static void say_engine(const struct extfuse *x)
{
	if (native(x))
		log_line(x, LOG_INFO, "engine native: %s; the kernel's own caches, %s", x->reason,
			 x->protocol.minor >= NOTIFY_INC_EPOCH_MINOR ? "with epochs" : "without epochs");
	else
		log_line(x, LOG_INFO,
			 "engine hook: module of interface %d, %u names, %u records, %llu KiB",
			 EXTFUSE_ABI, x->sizes.elements[MAP_ENTRY], x->nodes_count,
			 (unsigned long long)x->sizes.memory / 1024);
}

API int extfuse_attach(struct extfuse *x, int fuse_fd, const struct extfuse_protocol *protocol)
{
	int err = protocol_take(&x->protocol, protocol);

	if (err)
		return err;
	if (x->attached)
		return -EBUSY;
	x->fuse_fd = fuse_fd;
	if (x->device >= 0) {
		err = hook_attach(x);
		if (err)
			hook_drop(x);
		if (err && x->engine == EXTFUSE_ENGINE_HOOK) {
			log_line(x, LOG_ERR, "no engine: %s", x->reason);
			return err;
		}
	}
	x->engine = x->device >= 0 ? EXTFUSE_ENGINE_HOOK : EXTFUSE_ENGINE_NATIVE;
	if (native(x)) {
		err = area_make(x);
		if (err)
			return err;
	}
	x->attached = true;
	say_engine(x);
	return 0;
}

API void extfuse_close(struct extfuse *x)
{
	if (x)
		dismantle(x);
}

API enum extfuse_engine extfuse_engine(const struct extfuse *x)
{
	return x->engine;
}

/* ---- from one process to the next ---- */

#define FDS (1 + MAPS + PROGRAMS)

API int extfuse_fds(const struct extfuse *x, int *fds, unsigned n)
{
	_Static_assert(FDS <= EXTFUSE_FDS_MAX, "the caller has room");
	if (!x->attached || native(x))
		return 0;
	for (unsigned i = 0; i < n && i < FDS; i++)
		fds[i] = !i ? x->device : i <= MAPS ? x->maps[i - 1] : x->programs[i - 1 - MAPS];
	return FDS;
}

static int hook_adopt(struct extfuse *x)
{
	struct stat st;
	int err;

	if (fstat(x->device, &st) || !S_ISCHR(st.st_mode))
		return because(x, -EINVAL, "the first descriptor");
	err = device_version(x);
	if (err)
		return -EINVAL;
	if (maps_check(x))
		return because(x, -EINVAL, "maps or programs are not what these options make");
	err = area_map(x);
	return err ? because(x, err, "the module's memory") : 0;
}

/* Where it fails, the descriptors stay the caller's. */
static void give_back(struct extfuse *x)
{
	x->device = -1;
	memset(x->maps, -1, sizeof(x->maps));
	memset(x->programs, -1, sizeof(x->programs));
}

API int extfuse_reopen(const struct extfuse_options *options, int fuse_fd,
		       const struct extfuse_protocol *protocol, const int *fds, unsigned n,
		       struct extfuse **out)
{
	struct extfuse *x;
	int err;

	*out = NULL;
	if (n != FDS)
		return -EINVAL;
	err = context_new(options, &x);
	if (err)
		return err;
	err = protocol_take(&x->protocol, protocol);
	x->fuse_fd = fuse_fd;
	x->engine = EXTFUSE_ENGINE_HOOK;
	x->device = fds[0];
	memcpy(x->maps, fds + 1, sizeof(x->maps));
	memcpy(x->programs, fds + 1 + MAPS, sizeof(x->programs));
	if (!err)
		err = hook_adopt(x);
	if (err) {
		log_line(x, LOG_ERR, "not taken over: %s", x->reason);
		give_back(x);
		dismantle(x);
		return err;
	}
	x->attached = true;
	say_engine(x);
	*out = x;
	return 0;
}
