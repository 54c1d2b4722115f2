/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What libextfuse is given from outside: the module's memory, and options. An input is a struct
 * extfuse_area, the size of the file behind it in pages, and then names and values to be put.
 *
 * What must hold: memory is refused, or all of its words and records can be used; whatever is put,
 * nothing is read or written beyond what there is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libextfuse/internal.h"

#define PAGES_MAX 64

static void check(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_area: %s\n", what);
	abort();
}

static void silent(void *arg, int level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

/* The first and the last of all, within what was mapped: reading them is what a wrong offset dies of. */
static void touch(struct extfuse *x)
{
	const char *base = (const char *)x->area;

	x->words[0].held++;
	x->words[(1u << x->word_bits) - 1].held++;
	check((const char *)&x->words[1u << x->word_bits] <= base + x->area_size,
	      "words beyond the end");
	if (x->nodes_count)
		x->nodes[x->nodes_count - 1].grants++;
	check((const char *)&x->nodes[x->nodes_count] <= base + x->area_size, "records beyond the end");
}

static void try_area(struct extfuse *x, const struct extfuse_area *head, unsigned pages)
{
	int err;

	x->device = memfd_create("area", MFD_CLOEXEC);
	check(x->device >= 0 && !ftruncate(x->device, (off_t)pages * 4096), "no file");
	check(pwrite(x->device, head, sizeof(*head), 0) == sizeof(*head), "no header");
	/* A driver refuses to map more than it has; a file does not. */
	if (head->size <= (uint64_t)pages * 4096) {
		err = area_map(x);
		check(err <= 0, "an unknown error");
		if (!err) {
			touch(x);
			area_drop(x);
		}
	}
	close(x->device);
	x->device = -1;
}

/* NUL-terminated pieces of the input. */
static void try_names(struct extfuse *x, const char *text, size_t size)
{
	static struct extfuse_names names;
	uint64_t nodeid = 1;

	extfuse_names_clear(&names);
	while (size) {
		size_t n = strnlen(text, size);
		char *name = strndup(text, n);
		struct fuse_entry_out entry = { .nodeid = nodeid++,
						.attr.mode = 0100644,
						.attr.size = n };

		extfuse_names_add(&names, name);
		extfuse_put_entry(x, extfuse_stamp(x), 1, name, 0, &entry, 0);
		extfuse_put_negative(x, extfuse_stamp(x), 1, name, &entry, 0);
		extfuse_put_xattr(x, extfuse_stamp(x), 1, name, name, (ssize_t)n, 0);
		extfuse_put_link(x, extfuse_stamp(x), 2, name, n, 0);
		extfuse_invalidate_entry(x, 1, name);
		free(name);
		n += n < size;
		text += n;
		size -= n;
	}
	extfuse_put_dir(x, extfuse_stamp(x), 1, &names);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	struct extfuse_options o = { .struct_size = sizeof(o),
				     .engine = EXTFUSE_ENGINE_NATIVE,
				     .log = silent };
	const struct extfuse_protocol protocol = { .struct_size = sizeof(protocol) };
	struct extfuse_area head = { 0 };
	struct extfuse *x;
	size_t n = size < sizeof(head) ? size : sizeof(head);

	memcpy(&head, data, n);
	data += n;
	size -= n;
	check(!extfuse_open(&o, &x), "no context");
	x->sizes.nodes = 1 << 16;
	if (size)
		try_area(x, &head, data[0] % PAGES_MAX + 1);
	check(!extfuse_attach(x, -1, &protocol), "not attached");
	if (size > 1) {
		try_names(x, (const char *)data + 1, size - 1);
		/* As with the hook, but for the maps: these puts fail. */
		x->engine = EXTFUSE_ENGINE_HOOK;
		try_names(x, (const char *)data + 1, size - 1);
	}
	extfuse_close(x);
	if (size > sizeof(o)) {
		memcpy(&o, data, sizeof(o));
		o.log = silent;
		o.arg = NULL;
		o.engine = o.engine == EXTFUSE_ENGINE_NATIVE ? o.engine : 7;
		if (!extfuse_open(&o, &x))
			extfuse_close(x);
	}
	return 0;
}
