/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Maps and programs in the kernel: how large, made, and looked at where others made them. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "libextfuse/internal.h"

/* The programs, as clang left them. */
static const unsigned char object[] __attribute__((aligned(16))) = {
#include "bpf/handlers.h"
};

#define KEY(key) sizeof(struct extfuse_##key)
#define VALUE(value) sizeof(struct extfuse_##value)

/* For each nodeid one name and its attributes, for most of them a small value more. */
const struct map_kind map_kinds[MAPS] = {
	[MAP_ENTRY] = { "entry_map", KEY(entry_key), VALUE(entry), 16384 },
	[MAP_ENTRY_LONG] = { "entry_map_long", KEY(entry_key_long), VALUE(entry), 1024 },
	[MAP_ATTR] = { "attr_map", 8, VALUE(attr), 16384 },
	[MAP_VALUE] = { "value_map", KEY(value_key), VALUE(value), 12288 },
	[MAP_VALUE_LARGE] = { "value_map_large", KEY(value_key), VALUE(value_large), 256 },
	[MAP_OPEN] = { "open_map", 8, VALUE(open), 2048 },
	[MAP_DIR] = { "dir_map", 8, VALUE(dir), 2048 },
	[MAP_DIR_LARGE] = { "dir_map_large", 8, VALUE(dir_large), 64 },
};

/*
 * Changes take the marks away; what does not end with them is looked for in any case: which data has a
 * file of its own, and which handle no state. For STATFS there is nothing to be marked.
 */
const struct program_kind program_kinds[PROGRAMS] = {
	{ "extfuse_lookup", FUSE_LOOKUP, EXTFUSE_PROGRAM_MARKED | EXTFUSE_PROGRAM_EARLY },
	{ "extfuse_getattr", FUSE_GETATTR, EXTFUSE_PROGRAM_MARKED | EXTFUSE_PROGRAM_EARLY },
	{ "extfuse_readlink", FUSE_READLINK, EXTFUSE_PROGRAM_MARKED },
	{ "extfuse_open", FUSE_OPEN, EXTFUSE_PROGRAM_MARKED },
	{ "extfuse_read", FUSE_READ, 0 },
	{ "extfuse_write", FUSE_WRITE, 0 },
	{ "extfuse_statfs", FUSE_STATFS, 0 },
	{ "extfuse_release", FUSE_RELEASE, 0 },
	{ "extfuse_getxattr", FUSE_GETXATTR, EXTFUSE_PROGRAM_MARKED },
	{ "extfuse_listxattr", FUSE_LISTXATTR, EXTFUSE_PROGRAM_MARKED },
	{ "extfuse_flush", FUSE_FLUSH, 0 },
	{ "extfuse_access", FUSE_ACCESS, EXTFUSE_PROGRAM_IDS | EXTFUSE_PROGRAM_MARKED },
};

/* ---- sizes ---- */

/* What the kernel adds to key and value: struct htab_elem, which evicting needs, and buckets. */
#define ELEMENT_OVERHEAD	48
#define BUCKET_SIZE		16
#define ELEMENTS_MIN		64
#define WORDS_PER_NODE		2
/* for the records of nodes that the kernel knows, and maps have evicted */
#define RECORDS_PER_NODE	2

static uint64_t power_of_two(uint64_t n)
{
	uint64_t p = 1;

	while (p < n)
		p *= 2;
	return p;
}

static uint64_t map_memory(const struct map_kind *k, uint64_t elements)
{
	uint64_t each = ELEMENT_OVERHEAD + (k->key_size + 7u) / 8 * 8 + (k->value_size + 7u) / 8 * 8;

	return elements * each + power_of_two(elements) * BUCKET_SIZE;
}

static void sizes_for(const struct extfuse_options *o, uint64_t nodes, struct sizes *s)
{
	uint64_t words = power_of_two(nodes * WORDS_PER_NODE);

	s->memory = 0;
	for (int i = 0; i < MAPS; i++) {
		uint64_t n = nodes * map_kinds[i].per_16k / 16384;

		s->elements[i] = n < ELEMENTS_MIN ? ELEMENTS_MIN
				 : n > INT32_MAX  ? INT32_MAX
						  : (uint32_t)n;
		s->memory += map_memory(&map_kinds[i], s->elements[i]);
	}
	for (s->word_bits = 6; s->word_bits < 22 && 1ull << s->word_bits < words;)
		s->word_bits++;
	if (o->nodes)
		s->nodes = o->nodes;
	else
		s->nodes = nodes * RECORDS_PER_NODE > 1u << 24 ? 1u << 24
							       : (uint32_t)(nodes * RECORDS_PER_NODE);
	s->memory +=
		(sizeof(struct extfuse_word) << s->word_bits) + s->nodes * sizeof(struct extfuse_node);
}

/* The most nodes for which all of it stays below the limit. */
int sizes_of(const struct extfuse_options *o, struct sizes *sizes)
{
	uint64_t limit = o->memory ? o->memory : MEMORY_DEFAULT;
	uint64_t low = 1, high = 1u << 30;

	if (limit < MEMORY_MIN || limit > MEMORY_MAX || o->nodes > 1u << 24)
		return -EINVAL;
	while (low < high) {
		uint64_t middle = (low + high + 1) / 2;

		sizes_for(o, middle, sizes);
		if (sizes->memory <= limit)
			low = middle;
		else
			high = middle - 1;
	}
	sizes_for(o, low, sizes);
	return sizes->memory <= limit ? 0 : -EINVAL;
}

/* ---- making them ---- */

static char said[160];

/* libbpf has one function for all of a process: the last warning is kept while a context is made. */
static int keep_warning(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	if (level == LIBBPF_WARN) {
		vsnprintf(said, sizeof(said), fmt, ap);
		said[strcspn(said, "\n")] = 0;
	}
	return 0;
}

static int stolen(int fd)
{
	return fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int take_fds(struct extfuse *x, const struct bpf_object *o)
{
	for (int i = 0; i < MAPS; i++) {
		x->maps[i] = stolen(bpf_object__find_map_fd_by_name(o, map_kinds[i].name));
		if (x->maps[i] < 0)
			return -errno;
	}
	for (int i = 0; i < PROGRAMS; i++) {
		const struct bpf_program *p = bpf_object__find_program_by_name(o, program_kinds[i].name);

		x->programs[i] = p ? stolen(bpf_program__fd(p)) : -1;
		if (x->programs[i] < 0)
			return p ? -errno : -ENOENT;
	}
	return 0;
}

static int load(struct extfuse *x)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "extfuse");
	struct bpf_object *o = bpf_object__open_mem(object, sizeof(object), &opts);
	int err = 0;

	if (!o)
		return -errno;
	for (int i = 0; !err && i < MAPS; i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(o, map_kinds[i].name);

		err = map ? bpf_map__set_max_entries(map, x->sizes.elements[i]) : -ENOENT;
	}
	if (!err)
		err = bpf_object__load(o);
	if (!err)
		err = take_fds(x, o);
	bpf_object__close(o);
	return err;
}

int maps_load(struct extfuse *x)
{
	libbpf_print_fn_t print = libbpf_set_print(keep_warning);
	int err;

	said[0] = 0;
	err = load(x);
	libbpf_set_print(print);
	if (err) {
		snprintf(x->reason, sizeof(x->reason), "BPF programs or maps: %s%s%s", strerror(-err),
			 said[0] ? ": " : "", said);
		maps_close(x);
	}
	return err;
}

/* ---- those of another process ---- */

static int map_check(const struct extfuse *x, enum map map)
{
	struct bpf_map_info info = { 0 };
	uint32_t size = sizeof(info);

	if (bpf_obj_get_info_by_fd(x->maps[map], &info, &size))
		return -EINVAL;
	return info.type == BPF_MAP_TYPE_LRU_HASH && info.key_size == map_kinds[map].key_size &&
			       info.value_size == map_kinds[map].value_size &&
			       info.max_entries == x->sizes.elements[map]
		       ? 0
		       : -EINVAL;
}

int maps_check(const struct extfuse *x)
{
	for (int i = 0; i < MAPS; i++)
		if (map_check(x, (enum map)i))
			return -EINVAL;
	for (int i = 0; i < PROGRAMS; i++) {
		struct bpf_prog_info info = { 0 };
		uint32_t size = sizeof(info);

		if (bpf_obj_get_info_by_fd(x->programs[i], &info, &size) ||
		    info.type != BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE ||
		    strncmp(info.name, program_kinds[i].name, sizeof(info.name) - 1))
			return -EINVAL;
	}
	return 0;
}

void maps_close(struct extfuse *x)
{
	for (int i = 0; i < MAPS; i++) {
		fe_close(x->maps[i]);
		x->maps[i] = -1;
	}
	for (int i = 0; i < PROGRAMS; i++) {
		fe_close(x->programs[i]);
		x->programs[i] = -1;
	}
}

/* ---- elements ---- */

int map_put(struct extfuse *x, enum map map, const void *key, const void *value, struct extfuse_word *w)
{
	int err = bpf_map_update_elem(x->maps[map], key, value, BPF_ANY);

	if (!err)
		word_mark(w);
	return err;
}

void map_drop(const struct extfuse *x, enum map map, const void *key)
{
	if (x->maps[map] >= 0)
		bpf_map_delete_elem(x->maps[map], key);
}

API int extfuse_map_fd(const struct extfuse *x, const char *name)
{
	for (int i = 0; i < MAPS; i++)
		if (!strcmp(name, map_kinds[i].name))
			return x->maps[i] < 0 ? -ENOENT : x->maps[i];
	return -ENOENT;
}
