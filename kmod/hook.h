/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by hook-asm.S and C. */
#ifndef EXTFUSE_HOOK_H
#define EXTFUSE_HOOK_H

/*
 * A connection is of one of 64 kinds, by these 6 bits of its address: they differ between neighbours.
 */
#define EXTFUSE_KIND_SHIFT 10

#ifndef __ASSEMBLY__
/* Bit N: there is a context for a connection of kind N. */
extern unsigned long extfuse_kinds;
#endif

#endif
