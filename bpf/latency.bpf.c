// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * How long requests of one FUSE connection take, from when the driver queues them until they are
 * answered, by the driver's own tracepoints (Linux 6.12).
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "latency.h"

/* As the format files in tracefs describe them, which is checked before this is loaded. */
struct request_send {
	__u64 common;
	__u32 connection;
	__u32 pad;
	__u64 unique;
	__u32 opcode;
	__u32 len;
};

struct request_end {
	__u64 common;
	__u32 connection;
	__u32 pad;
	__u64 unique;
	__u32 len;
	__s32 error;
};

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

static __always_inline int is_wanted(__u32 connection)
{
	__u32 zero = 0, *dev = bpf_map_lookup_elem(&wanted, &zero);

	return dev && *dev == connection;
}

SEC("tracepoint/fuse/fuse_request_send")
int request_send(struct request_send *ctx)
{
	struct started s = { .opcode = ctx->opcode };
	__u64 unique = ctx->unique;

	if (!is_wanted(ctx->connection))
		return 0;
	s.when = bpf_ktime_get_ns();
	bpf_map_update_elem(&under_way, &unique, &s, BPF_ANY);
	return 0;
}

SEC("tracepoint/fuse/fuse_request_end")
int request_end(struct request_end *ctx)
{
	__u64 unique = ctx->unique;
	struct started *s;
	struct latency *l;
	__u32 opcode, bucket;
	__u64 ns;

	if (!is_wanted(ctx->connection))
		return 0;
	s = bpf_map_lookup_elem(&under_way, &unique);
	if (!s)
		return 0;
	ns = bpf_ktime_get_ns() - s->when;
	opcode = s->opcode < LATENCY_OPCODES ? (__u32)s->opcode : LATENCY_OPCODES - 1;
	bpf_map_delete_elem(&under_way, &unique);
	l = bpf_map_lookup_elem(&latencies, &opcode);
	bucket = latency_bucket(ns);
	if (!l || bucket >= LATENCY_BUCKETS)
		return 0;
	__sync_fetch_and_add(&l->count, 1);
	__sync_fetch_and_add(&l->buckets[bucket], 1);
	return 0;
}

char gpl[] SEC("license") = "GPL";
