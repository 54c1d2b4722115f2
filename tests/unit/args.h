/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/* What the handlers of args.bpf.c say of the functions that copy from and to a request. */
#ifndef FE_TESTS_ARGS_H
#define FE_TESTS_ARGS_H

#include <linux/types.h>

struct args_read {
	__u64 nodeid, now;
	__u32 opcode, uid, gid, pid, name_len, part;
	__u64 name[2], in[2];
	__s32 errors;		/* of all of them */
	__u32 pad;
};

/* One bit each: refused with -EINVAL. */
enum args_bound {
	BOUND_OPCODE, BOUND_NODEID, BOUND_UID, BOUND_GID, BOUND_PID, BOUND_NOW, BOUND_IN, BOUND_NAME,
	BOUND_NAME_PART,	/* not a multiple of 8 */
	BOUND_NAME_LEN,
	BOUND_READ_ERROR,	/* which is written only, and so is OUT */
	BOUND_READ_OUT,
	BOUND_READ_UNKNOWN,
	BOUND_READ_VARIABLE,	/* a size that is no constant */
	BOUND_ERROR, BOUND_OUT,
	BOUND_WRITE_OPCODE,	/* what is read only */
	BOUND_WRITE_UNKNOWN,
	BOUNDS,
};

struct args_bounds {
	__u64 refused;
	__u64 touched;		/* something was copied nevertheless */
};

#endif
