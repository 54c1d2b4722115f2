// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * How long requests of one FUSE connection take, from when the driver queues them until they are answered, by the
 * driver's own tracepoints (Linux 6.12). A request has no number yet where the first of these is, so it is known by
 * its address.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "latency.h"

/* The driver's, as far as they are read; where that is, is found out when this is loaded. */
struct fuse_conn {
	__u32 dev;
} __attribute__((preserve_access_index));

struct fuse_mount {
	struct fuse_conn *fc;
} __attribute__((preserve_access_index));

struct fuse_in_header {
	__u32 opcode;
} __attribute__((preserve_access_index));

struct fuse_req {
	struct {
		struct fuse_in_header h;
	} in;
	struct fuse_mount *fm;
} __attribute__((preserve_access_index));

struct started {
	__u64 when;
	__u64 opcode;
};

/* Which connection; set before the programs are attached. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} wanted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct started);
} under_way SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LATENCY_OPCODES);
	__type(key, __u32);
	__type(value, struct latency);
} latencies SEC(".maps");

static __always_inline int is_wanted(const struct fuse_req *req)
{
	__u32 zero = 0, *dev = bpf_map_lookup_elem(&wanted, &zero);

	return dev && *dev == BPF_CORE_READ(req, fm, fc, dev);
}

SEC("raw_tp/fuse_request_send")
int request_send(struct bpf_raw_tracepoint_args *ctx)
{
	const struct fuse_req *req = (const struct fuse_req *)ctx->args[0];
	__u64 key = ctx->args[0];
	struct started s;

	if (!is_wanted(req))
		return 0;
	s.opcode = BPF_CORE_READ(req, in.h.opcode);
	s.when = bpf_ktime_get_ns();
	bpf_map_update_elem(&under_way, &key, &s, BPF_ANY);
	return 0;
}

SEC("raw_tp/fuse_request_end")
int request_end(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 key = ctx->args[0], ns;
	struct started *s = bpf_map_lookup_elem(&under_way, &key);
	__u32 opcode, bucket;
	struct latency *l;

	if (!s)
		return 0;
	ns = bpf_ktime_get_ns() - s->when;
	opcode = s->opcode < LATENCY_OPCODES ? (__u32)s->opcode : LATENCY_OPCODES - 1;
	bpf_map_delete_elem(&under_way, &key);
	l = bpf_map_lookup_elem(&latencies, &opcode);
	bucket = latency_bucket(ns);
	if (!l || bucket >= LATENCY_BUCKETS)
		return 0;
	__sync_fetch_and_add(&l->count, 1);
	__sync_fetch_and_add(&l->buckets[bucket], 1);
	return 0;
}

char gpl[] SEC("license") = "GPL";
