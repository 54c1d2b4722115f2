// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* Handlers that use all of bpf_extfuse_read_args() and bpf_extfuse_write_args(), as they may and as they may not. */
#include "extfuse_handler.h"

#include "args.h"

/* More than there is room for in any part of a request. */
#define MUCH 1032
static char much[MUCH];
static __u32 zero;

#define READ(ctx, what, member) (got.errors |= bpf_extfuse_read_args(ctx, what, &got.member, sizeof(got.member)))

EXTFUSE_HANDLER(reads)
{
	struct args_read got = { 0 };

	READ(ctx, EXTFUSE_OPCODE, opcode);
	READ(ctx, EXTFUSE_NODEID, nodeid);
	READ(ctx, EXTFUSE_UID, uid);
	READ(ctx, EXTFUSE_GID, gid);
	READ(ctx, EXTFUSE_PID, pid);
	READ(ctx, EXTFUSE_NOW, now);
	READ(ctx, EXTFUSE_NAME_LEN, name_len);
	READ(ctx, EXTFUSE_NAME, name);
	READ(ctx, EXTFUSE_IN, in);
	/* The beginning of it. */
	got.errors |= bpf_extfuse_read_args(ctx, EXTFUSE_IN, &got.part, 3);
	if (bpf_extfuse_write_args(ctx, EXTFUSE_OUT, &got, sizeof(got)))
		return EXTFUSE_UPCALL;
	return EXTFUSE_RETURN;
}

/* All that there is room for. */
EXTFUSE_HANDLER(reads_all)
{
	__s32 error = -13;

	if (bpf_extfuse_read_args(ctx, EXTFUSE_IN, much, EXTFUSE_IN_SIZE) ||
	    bpf_extfuse_read_args(ctx, EXTFUSE_NAME, much + 96, EXTFUSE_NAME_SIZE) ||
	    bpf_extfuse_write_args(ctx, EXTFUSE_OUT, much, EXTFUSE_OUT_SIZE) ||
	    bpf_extfuse_write_args(ctx, EXTFUSE_ERROR, &error, sizeof(error)))
		return EXTFUSE_UPCALL;
	return EXTFUSE_RETURN;
}

#define BOUND(bit, call) (said.refused |= (__u64)((call) == -EXTFUSE_EINVAL) << (bit))
#define READ_TOO_MUCH(what) BOUND(BOUND_##what, bpf_extfuse_read_args(ctx, EXTFUSE_##what, much, size_of_##what + 1))
#define size_of_OPCODE 4
#define size_of_NODEID 8
#define size_of_UID 4
#define size_of_GID 4
#define size_of_PID 4
#define size_of_NOW 8
#define size_of_IN EXTFUSE_IN_SIZE
#define size_of_NAME_LEN 4

EXTFUSE_HANDLER(bounds)
{
	struct args_bounds said = { 0 };
	__u32 variable = *(volatile __u32 *)&zero;
	__u32 i;

	READ_TOO_MUCH(OPCODE);
	READ_TOO_MUCH(NODEID);
	READ_TOO_MUCH(UID);
	READ_TOO_MUCH(GID);
	READ_TOO_MUCH(PID);
	READ_TOO_MUCH(NOW);
	READ_TOO_MUCH(IN);
	READ_TOO_MUCH(NAME_LEN);
	BOUND(BOUND_NAME, bpf_extfuse_read_args(ctx, EXTFUSE_NAME, much, EXTFUSE_NAME_SIZE + 8));
	BOUND(BOUND_NAME_PART, bpf_extfuse_read_args(ctx, EXTFUSE_NAME, much, 12));
	BOUND(BOUND_READ_ERROR, bpf_extfuse_read_args(ctx, EXTFUSE_ERROR, much, 4));
	BOUND(BOUND_READ_OUT, bpf_extfuse_read_args(ctx, EXTFUSE_OUT, much, 8));
	BOUND(BOUND_READ_UNKNOWN, bpf_extfuse_read_args(ctx, EXTFUSE_OUT + 1, much, 8));
	BOUND(BOUND_READ_VARIABLE, bpf_extfuse_read_args(ctx, EXTFUSE_IN, much, variable));
	for (i = 0; i < MUCH; i++)
		said.touched |= (unsigned char)much[i];
	BOUND(BOUND_ERROR, bpf_extfuse_write_args(ctx, EXTFUSE_ERROR, much, 5));
	BOUND(BOUND_OUT, bpf_extfuse_write_args(ctx, EXTFUSE_OUT, much, EXTFUSE_OUT_SIZE + 1));
	BOUND(BOUND_WRITE_OPCODE, bpf_extfuse_write_args(ctx, EXTFUSE_OPCODE, much, 4));
	BOUND(BOUND_WRITE_UNKNOWN, bpf_extfuse_write_args(ctx, EXTFUSE_OUT + 1, much, 4));
	said.touched |= EXTFUSE_REQ(ctx)->out_size | (__u32)EXTFUSE_REQ(ctx)->error;
	return bpf_extfuse_write_args(ctx, EXTFUSE_OUT, &said, sizeof(said)) ? EXTFUSE_UPCALL : EXTFUSE_RETURN;
}

EXTFUSE_LICENSE("GPL");
