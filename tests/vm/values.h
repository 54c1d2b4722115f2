/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/* Maps of handlers.bpf.c: keys and values, as the tests put them. */
#ifndef VM_VALUES_H
#define VM_VALUES_H

#include <linux/types.h>

#define NAME_KEY 40

struct name_key {
	__u64 parent;
	__u64 name[NAME_KEY / 8];	/* padded with zeros */
};

struct name_value {
	__u64 stamp, node_stamp;	/* of the name, of the child */
	__u64 expires;
	__u32 node_index, pad;
	__u64 entry[16];		/* struct fuse_entry_out */
};

struct attr_value {
	__u64 stamp, expires;
	__u32 passthru, pad;
	__u64 attr[13];			/* struct fuse_attr_out */
};

struct xattr_value {
	__u64 stamp;
	__u32 size;			/* 0xffffffff: there is none */
	__u32 pad;
	__u64 data[8];
};

/* What the handler `scripted` says, whatever it is asked. */
struct script {
	__u32 result;
	__s32 error;
	__u32 out_size, node_index, ndeps, name_len;
	__u64 expires;
	__u32 kind, pad;
	__u64 nodeid, stamp;		/* of the first dependency */
	__u64 out[16];
	__u64 seen_ids;			/* filled in: uid << 32 | pid */
};

#endif
