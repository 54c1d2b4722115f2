/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/* Replaces a handler by a program that the module has not seen. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/extfuse.h"

SEC("freplace/getattr")
int extension(struct bpf_raw_tracepoint_args *ctx)
{
	volatile __u64 *beyond = (void *)((struct extfuse_request *)(unsigned long)ctx->args[0] + 1);

	*beyond = 1;
	return EXTFUSE_UPCALL;
}

char _license[] SEC("license") = "GPL";
