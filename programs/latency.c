/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "programs/latency.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* The programs, as clang left them. */
static const unsigned char object[] __attribute__((aligned(16))) = {
#include "bpf/latency_object.h"
};

struct latencies {
	struct bpf_object *object;
	struct bpf_link *links[2];
	int map;
};

static int silent(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	(void)level;
	(void)fmt;
	(void)ap;
	return 0;
}

static int load(struct latencies *l, uint32_t dev)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "fuse_latency");
	uint32_t zero = 0;
	int wanted, err;

	l->object = bpf_object__open_mem(object, sizeof(object), &opts);
	if (!l->object)
		return -errno;
	err = bpf_object__load(l->object);
	if (err)
		return err;
	wanted = bpf_object__find_map_fd_by_name(l->object, "wanted");
	l->map = bpf_object__find_map_fd_by_name(l->object, "latencies");
	if (wanted < 0 || l->map < 0)
		return -ENOENT;
	return bpf_map_update_elem(wanted, &zero, &dev, BPF_ANY);
}

static int attach(struct latencies *l)
{
	static const char *const programs[] = { "request_send", "request_end" };

	for (int i = 0; i < 2; i++) {
		struct bpf_program *p = bpf_object__find_program_by_name(l->object, programs[i]);

		l->links[i] = p ? bpf_program__attach(p) : NULL;
		if (!l->links[i])
			return p ? -errno : -ENOENT;
	}
	return 0;
}

struct latencies *latencies_open(uint32_t major, uint32_t minor, char *why)
{
	struct latencies *l = calloc(1, sizeof(*l));
	int err;

	libbpf_set_print(silent);
	/* As the kernel itself writes device numbers. */
	err = l ? load(l, major << 20 | minor) : -ENOMEM;
	if (!err)
		err = attach(l);
	if (!err)
		return l;
	if (err == -ENOENT)
		snprintf(why, LATENCY_WHY_SIZE, "this kernel does not trace requests of FUSE");
	else
		snprintf(why, LATENCY_WHY_SIZE, "BPF programs for them: %s%s", strerror(-err),
			 err == -EPERM ? " (root may)" : "");
	latencies_close(l);
	return NULL;
}

void latencies_close(struct latencies *l)
{
	if (!l)
		return;
	for (int i = 0; i < 2; i++)
		bpf_link__destroy(l->links[i]);
	bpf_object__close(l->object);
	free(l);
}

int latencies_read(const struct latencies *l, struct latency out[LATENCY_OPCODES])
{
	for (uint32_t i = 0; i < LATENCY_OPCODES; i++) {
		int err = bpf_map_lookup_elem(l->map, &i, &out[i]);

		if (err)
			return err;
	}
	return 0;
}

double latency_percentile(const struct latency *before, const struct latency *now, unsigned percent)
{
	uint64_t all = 0, so_far = 0;
	uint32_t i;

	for (i = 0; i < LATENCY_BUCKETS; i++)
		all += now->buckets[i] - before->buckets[i];
	if (!all)
		return -1;
	for (i = 0; i < LATENCY_BUCKETS - 1; i++) {
		so_far += now->buckets[i] - before->buckets[i];
		if (so_far * 100 >= all * percent)
			break;
	}
	/* The middle of the bucket. */
	return (double)(latency_of(i) + latency_of(i + 1)) / 2000;
}
