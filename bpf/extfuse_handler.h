/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * For authors of handlers, see extfuse-handlers(7). A handler is a function over the request:
 *
 *	EXTFUSE_HANDLER(name)
 *	{
 *		... return EXTFUSE_UPCALL, EXTFUSE_RETURN or EXTFUSE_PASSTHRU;
 *	}
 *	EXTFUSE_LICENSE("GPL");
 *
 * `ctx` stands for the request, EXTFUSE_REQ(ctx) is it. It is compiled by clang -O2 -target bpf, and
 * becomes a program of the type RAW_TRACEPOINT_WRITABLE; with EXTFUSE_TEST_RUN defined one of the type
 * SYSCALL, which BPF_PROG_TEST_RUN can run with a request as its context.
 */
#ifndef EXTFUSE_BPF_EXTFUSE_HANDLER_H
#define EXTFUSE_BPF_EXTFUSE_HANDLER_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "extfuse.h"
#include "extfuse_maps.h"

#ifdef EXTFUSE_TEST_RUN
#define EXTFUSE_SECTION "syscall"
#define EXTFUSE_REQ(ctx) ((struct extfuse_request *)(ctx))
#else
#define EXTFUSE_SECTION "raw_tp.w/extfuse"
/* Read anew each time: the verifier forgets what it is when the compiler puts it on the stack. */
#define EXTFUSE_REQ(ctx) ((struct extfuse_request *)*(volatile __u64 *)(ctx))
#endif
#define EXTFUSE_HANDLER(name) SEC(EXTFUSE_SECTION) int name(void *ctx)

#define EXTFUSE_LICENSE(text) char _license[] SEC("license") = text

/*
 * A handler may touch the request at constant offsets only, and can not hand parts of it to BPF's own
 * functions: what it works with is copied by these two. They are bounded by the areas of the request;
 * `size` must be a constant, and dst and src on multiples of 8. They return 0, or -EINVAL where size is
 * too large for what is asked for.
 */
enum extfuse_what {
	EXTFUSE_OPCODE,	  /* __u32 */
	EXTFUSE_NODEID,	  /* __u64 */
	EXTFUSE_UID,	  /* __u32 */
	EXTFUSE_GID,	  /* __u32 */
	EXTFUSE_PID,	  /* __u32 */
	EXTFUSE_NOW,	  /* __u64: CLOCK_BOOTTIME, ns */
	EXTFUSE_IN,	  /* the fixed argument, struct fuse_..._in */
	EXTFUSE_NAME,	  /* zero padded; bytes behind the padding are zero, too */
	EXTFUSE_NAME_LEN, /* __u32 */
	EXTFUSE_ERROR,	  /* written: __s32, 0 or -errno */
	EXTFUSE_OUT,	  /* written: struct fuse_..._out or data; sets the answer's size */
};

#define EXTFUSE_EINVAL 22

/* In steps that both sides are aligned for; volatile, or the compiler would read a map's value twice. */
static __always_inline void extfuse_copy(void *dst, const void *src, __u32 size)
{
	__u32 i;

#pragma clang loop unroll(full)
	for (i = 0; i + 8 <= size; i += 8)
		*(volatile extfuse_step *)(dst + i) = *(const volatile extfuse_step *)(src + i);
	if (size & 4) {
		*(volatile __u32 *)(dst + i) = *(const volatile __u32 *)(src + i);
		i += 4;
	}
	if (size & 2) {
		*(volatile __u16 *)(dst + i) = *(const volatile __u16 *)(src + i);
		i += 2;
	}
	if (size & 1)
		*(volatile __u8 *)(dst + i) = *(const volatile __u8 *)(src + i);
}

static __always_inline int extfuse_part(const void *from, __u32 room, void *dst,
					__u32 size)
{
	if (!__builtin_constant_p(size) || size > room)
		return -EXTFUSE_EINVAL;
	extfuse_copy(dst, from, size);
	return 0;
}

/* The name, in whole steps; nothing is read behind its padding. */
static __always_inline int extfuse_part_name(void *ctx, void *dst, __u32 size)
{
	__u32 len = EXTFUSE_REQ(ctx)->name_len;
	__u32 i;

	if (!__builtin_constant_p(size) || size > EXTFUSE_NAME_SIZE || size % 8)
		return -EXTFUSE_EINVAL;
#pragma clang loop unroll(full)
	for (i = 0; i < size; i += 8) {
		__u64 step = 0;

		if (i < len)
			step = *(const volatile extfuse_step *)(EXTFUSE_REQ(ctx)->name + i);
		*(volatile extfuse_step *)(dst + i) = step;
	}
	return 0;
}

static __always_inline int bpf_extfuse_read_args(void *ctx, enum extfuse_what what, void *dst,
						 __u32 size)
{
	switch (what) {
	case EXTFUSE_OPCODE:
		return extfuse_part(&EXTFUSE_REQ(ctx)->opcode, sizeof(EXTFUSE_REQ(ctx)->opcode), dst,
				    size);
	case EXTFUSE_NODEID:
		return extfuse_part(&EXTFUSE_REQ(ctx)->nodeid, sizeof(EXTFUSE_REQ(ctx)->nodeid), dst,
				    size);
	case EXTFUSE_UID:
		return extfuse_part(&EXTFUSE_REQ(ctx)->uid, sizeof(EXTFUSE_REQ(ctx)->uid), dst, size);
	case EXTFUSE_GID:
		return extfuse_part(&EXTFUSE_REQ(ctx)->gid, sizeof(EXTFUSE_REQ(ctx)->gid), dst, size);
	case EXTFUSE_PID:
		return extfuse_part(&EXTFUSE_REQ(ctx)->pid, sizeof(EXTFUSE_REQ(ctx)->pid), dst, size);
	case EXTFUSE_NOW:
		return extfuse_part(&EXTFUSE_REQ(ctx)->now, sizeof(EXTFUSE_REQ(ctx)->now), dst, size);
	case EXTFUSE_IN:
		return extfuse_part(EXTFUSE_REQ(ctx)->in, sizeof(EXTFUSE_REQ(ctx)->in), dst, size);
	case EXTFUSE_NAME:
		return extfuse_part_name(ctx, dst, size);
	case EXTFUSE_NAME_LEN:
		return extfuse_part(&EXTFUSE_REQ(ctx)->name_len, sizeof(EXTFUSE_REQ(ctx)->name_len), dst,
				    size);
	default:
		return -EXTFUSE_EINVAL;
	}
}

static __always_inline int bpf_extfuse_write_args(void *ctx, enum extfuse_what what, const void *src,
						  __u32 size)
{
	switch (what) {
	case EXTFUSE_ERROR:
		return extfuse_part(src, sizeof(EXTFUSE_REQ(ctx)->error), &EXTFUSE_REQ(ctx)->error,
				    size);
	case EXTFUSE_OUT:
		if (extfuse_part(src, sizeof(EXTFUSE_REQ(ctx)->out), EXTFUSE_REQ(ctx)->out, size))
			return -EXTFUSE_EINVAL;
		EXTFUSE_REQ(ctx)->out_size = size;
		return 0;
	default:
		return -EXTFUSE_EINVAL;
	}
}

/* "My answer holds as long as this does." number: 0 to EXTFUSE_DEPS - 1, a constant, ascending. */
static __always_inline void extfuse_rely(void *ctx, __u32 number, enum extfuse_dep_kind kind,
					 __u64 nodeid, __u64 stamp, __u64 own)
{
	EXTFUSE_REQ(ctx)->deps[number].kind = kind;
	EXTFUSE_REQ(ctx)->deps[number].nodeid = nodeid;
	EXTFUSE_REQ(ctx)->deps[number].stamp = stamp;
	EXTFUSE_REQ(ctx)->deps[number].own = own;
	EXTFUSE_REQ(ctx)->ndeps = number + 1;
}

/* The answer holds until then, too. */
static __always_inline void extfuse_until(void *ctx, __u64 expires)
{
	if (expires && (!EXTFUSE_REQ(ctx)->expires || expires < EXTFUSE_REQ(ctx)->expires))
		EXTFUSE_REQ(ctx)->expires = expires;
}

static __always_inline int extfuse_fail(void *ctx, int error)
{
	EXTFUSE_REQ(ctx)->error = error;
	EXTFUSE_REQ(ctx)->out_size = 0;
	return EXTFUSE_RETURN;
}

#endif
