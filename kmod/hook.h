/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by hook-asm.S and C. */
#ifndef EXTFUSE_HOOK_H
#define EXTFUSE_HOOK_H

/*
 * A connection is of one of 64 kinds, by these 6 bits of its address: they differ between neighbours.
 */
#define EXTFUSE_KIND_SHIFT 10
#define EXTFUSE_KINDS 64

/* The kernel's LOOKUP_RCU. */
#define EXTFUSE_LOOKUP_RCU 0x40

/* Where walk.c knows what the driver's functions take, and where the time of a name is. */
#include <linux/version.h>
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
#define EXTFUSE_HAS_WALK 1
#endif

#ifndef __ASSEMBLY__
#include <linux/atomic.h>

/* Bit N: there is a context for a connection of kind N. */
extern unsigned long extfuse_kinds;
/* And the kernel checks permissions there. */
extern unsigned long extfuse_permission_kinds;
/* How many files are registered, of all contexts. */
extern atomic_long_t extfuse_backings;

struct extfuse_verdict {
	unsigned long instead;		/* 0: go on with the function */
	long result;
};
#endif

#endif
