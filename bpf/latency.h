/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/* What bpf/latency.bpf.c counts, and fuse-extentctl shows. */
#ifndef FE_BPF_LATENCY_H
#define FE_BPF_LATENCY_H

#include <linux/types.h>

#define LATENCY_OPCODES	64
/* Four for each power of two of nanoseconds: so a figure is right to within a fifth. */
#define LATENCY_BUCKETS	160

struct latency {
	__u64 count;
	__u64 buckets[LATENCY_BUCKETS];
};

static inline __attribute__((always_inline)) __u32 latency_bucket(__u64 ns)
{
	__u32 log = 2, b;

	if (ns < 4)
		return (__u32)ns;
	for (b = 32; b; b /= 2) {
		if (ns >> b >= 4) {
			ns >>= b;
			log += b;
		}
	}
	b = (log - 1) * 4 + ((__u32)ns & 3);
	return b < LATENCY_BUCKETS ? b : LATENCY_BUCKETS - 1;
}

/* The least that falls into a bucket. */
static inline __u64 latency_of(__u32 bucket)
{
	return bucket < 4 ? bucket : (4ull + bucket % 4) << (bucket / 4 - 1);
}

#endif
