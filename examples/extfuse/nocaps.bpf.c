// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * A handler of one's own, for GETXATTR: no file has capabilities, which the kernel asks for before it
 * writes. This is so whatever happens to files, so the answer rests on nothing. Other attributes are the
 * daemon's.
 *
 *	clang -O2 -g -target bpf -ffreestanding -I/usr/include/$(uname -m)-linux-gnu $(pkg-config --cflags libextfuse)/extfuse -c nocaps.bpf.c
 */
#define __KERNEL__ /* the types of <linux/fuse.h> without the C library */
#include <linux/types.h>
#include <linux/fuse.h>
#undef __KERNEL__

#include "extfuse_handler.h"

#define ENODATA 61

union text {
	char bytes[24];
	__u64 words[3];
};

EXTFUSE_HANDLER(no_capabilities)
{
	const union text wanted = { .bytes = "security.capability" };
	union text name;
	__s32 error = -ENODATA;

	if (bpf_extfuse_read_args(ctx, EXTFUSE_NAME, &name, sizeof(name)))
		return EXTFUSE_UPCALL;
	if (name.words[0] != wanted.words[0] || name.words[1] != wanted.words[1] ||
	    name.words[2] != wanted.words[2])
		return EXTFUSE_UPCALL;
	bpf_extfuse_write_args(ctx, EXTFUSE_ERROR, &error, sizeof(error));
	return EXTFUSE_RETURN;
}

EXTFUSE_LICENSE("GPL");
