/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/* Handlers that the tests of the module load: honest ones, and some that are not. */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/fuse.h>
#include <bpf/bpf_helpers.h>

#include "bpf/extfuse.h"
#include "tests/vm/values.h"

#define MAP(name, map_type, max, k, v) struct { \
		__uint(type, map_type); \
		__uint(max_entries, max); \
		__type(key, k); \
		__type(value, v); \
	} name SEC(".maps")

MAP(names, BPF_MAP_TYPE_LRU_HASH, 16384, struct name_key, struct name_value);
MAP(attrs, BPF_MAP_TYPE_LRU_HASH, 16384, __u64, struct attr_value);
MAP(xattrs, BPF_MAP_TYPE_LRU_HASH, 1024, struct name_key, struct xattr_value);
MAP(script, BPF_MAP_TYPE_ARRAY, 1, __u32, struct script);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} jumps SEC(".maps");

#define REQUEST(ctx) ((struct extfuse_request *)(unsigned long)(ctx)->args[0])

#define DEP(req, i, k, n, s) do { \
		(req)->deps[i].kind = (k); \
		(req)->deps[i].nodeid = (n); \
		(req)->deps[i].stamp = (s); \
		(req)->deps[i].own = 0; \
	} while (0)

static __always_inline void name_key(struct name_key *key, const struct extfuse_request *req)
{
	const __u64 *name = (const __u64 *)req->name;
	__u32 len = req->name_len;

	__builtin_memset(key, 0, sizeof(*key));
	key->parent = req->nodeid;
#pragma unroll
	for (int i = 0; i < NAME_KEY / 8; i++) {
		if (len > i * 8)
			key->name[i] = name[i];
	}
}

SEC("raw_tp.w")
int lookup(struct bpf_raw_tracepoint_args *ctx)
{
	struct extfuse_request *req = REQUEST(ctx);
	struct name_key key;
	struct name_value *value;

	if (req->name_len >= NAME_KEY)
		return EXTFUSE_UPCALL;
	name_key(&key, req);
	value = bpf_map_lookup_elem(&names, &key);
	if (!value)
		return EXTFUSE_UPCALL;
	DEP(req, 0, EXTFUSE_DEP_NAME, 0, value->stamp);
	DEP(req, 1, EXTFUSE_DEP_NODE, value->entry[0], value->node_stamp);
	req->ndeps = value->entry[0] ? 2 : 1;
	req->expires = value->expires;
	req->node_index = value->node_index;
	req->out_size = sizeof(value->entry);
#pragma unroll
	for (int i = 0; i < 16; i++)
		((__u64 *)req->out)[i] = value->entry[i];
	return EXTFUSE_RETURN;
}

SEC("raw_tp.w")
int getattr(struct bpf_raw_tracepoint_args *ctx)
{
	struct extfuse_request *req = REQUEST(ctx);
	__u64 nodeid = req->nodeid;
	struct attr_value *value = bpf_map_lookup_elem(&attrs, &nodeid);

	if (!value)
		return EXTFUSE_UPCALL;
	DEP(req, 0, EXTFUSE_DEP_NODE, nodeid, value->stamp);
	req->ndeps = 1;
	req->expires = value->expires;
	req->out_size = sizeof(value->attr);
#pragma unroll
	for (int i = 0; i < 13; i++)
		((__u64 *)req->out)[i] = value->attr[i];
	return EXTFUSE_RETURN;
}

SEC("raw_tp.w")
int getxattr(struct bpf_raw_tracepoint_args *ctx)
{
	struct extfuse_request *req = REQUEST(ctx);
	struct name_key key;
	struct xattr_value *value;

	if (req->name_len >= NAME_KEY)
		return EXTFUSE_UPCALL;
	name_key(&key, req);
	value = bpf_map_lookup_elem(&xattrs, &key);
	if (!value)
		return EXTFUSE_UPCALL;
	DEP(req, 0, EXTFUSE_DEP_NODE, req->nodeid, value->stamp);
	req->ndeps = 1;
	if (value->size == 0xffffffff) {
		req->error = -ENODATA;
		return EXTFUSE_RETURN;
	}
	if (!(req->flags & EXTFUSE_REQ_ARGVAR)) {
		((__u64 *)req->out)[0] = value->size;
		req->out_size = 8;
		return EXTFUSE_RETURN;
	}
	if (value->size > req->out_max) {
		req->error = -ERANGE;
		return EXTFUSE_RETURN;
	}
	req->out_size = value->size;
#pragma unroll
	for (int i = 0; i < 8; i++)
		((__u64 *)req->out)[i] = value->data[i];
	return EXTFUSE_RETURN;
}

/* READ and WRITE: by the backing file where the attributes say so, and are true. */
SEC("raw_tp.w")
int passthru(struct bpf_raw_tracepoint_args *ctx)
{
	struct extfuse_request *req = REQUEST(ctx);
	__u64 nodeid = req->nodeid;
	struct attr_value *value = bpf_map_lookup_elem(&attrs, &nodeid);

	return value && value->passthru ? EXTFUSE_PASSTHRU : EXTFUSE_UPCALL;
}

SEC("raw_tp.w")
int scripted(struct bpf_raw_tracepoint_args *ctx)
{
	struct extfuse_request *req = REQUEST(ctx);
	__u32 zero = 0;
	struct script *s = bpf_map_lookup_elem(&script, &zero);

	if (!s)
		return EXTFUSE_UPCALL;
	s->seen_ids = (__u64)req->uid << 32 | req->pid;
	req->error = s->error;
	req->out_size = s->out_size;
	req->node_index = s->node_index;
	req->ndeps = s->ndeps;
	req->expires = s->expires;
	if (s->name_len)
		req->name_len = s->name_len;
	DEP(req, 0, s->kind, s->nodeid, s->stamp);
#pragma unroll
	for (int i = 0; i < 16; i++)
		((__u64 *)req->out)[i] = s->out[i];
	return s->result;
}

SEC("raw_tp.w")
int nothing(struct bpf_raw_tracepoint_args *ctx)
{
	return EXTFUSE_UPCALL;
}

/* Says that it has answered, and has written nothing. */
SEC("raw_tp.w")
int careless(struct bpf_raw_tracepoint_args *ctx)
{
	REQUEST(ctx)->out_size = 16;
	return EXTFUSE_RETURN;
}

/* ---- programs that the module must not take ---- */

SEC("raw_tp.w")
int reaches_beyond(struct bpf_raw_tracepoint_args *ctx)
{
	volatile __u64 *beyond = (void *)(REQUEST(ctx) + 1);

	*beyond = 1;
	return EXTFUSE_UPCALL;
}

SEC("raw_tp.w")
int jumps_away(struct bpf_raw_tracepoint_args *ctx)
{
	bpf_tail_call(ctx, &jumps, 0);
	return EXTFUSE_UPCALL;
}

SEC("raw_tp")
int not_writable(struct bpf_raw_tracepoint_args *ctx)
{
	return EXTFUSE_UPCALL;
}

char _license[] SEC("license") = "GPL";
