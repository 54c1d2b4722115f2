/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory with words and records: the module's, or where that is not there, one's own. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libextfuse/internal.h"

#define NATIVE_WORD_BITS 12

static bool inside(uint64_t offset, uint64_t count, uint64_t each, uint64_t size)
{
	return !(offset % 8) && offset >= sizeof(struct extfuse_area) && offset <= size &&
	       count <= (size - offset) / each;
}

/* The module's word is taken once, and is right or refused. */
static int area_take(struct extfuse *x, const struct extfuse_area *a, uint64_t size)
{
	if (a->abi != EXTFUSE_ABI || a->word_bits < 1 || a->word_bits > 30 || a->nodes > x->sizes.nodes)
		return -EPROTO;
	if (!inside(a->words_offset, 1ull << a->word_bits, sizeof(struct extfuse_word), size) ||
	    !inside(a->nodes_offset, a->nodes, sizeof(struct extfuse_node), size))
		return -EPROTO;
	x->seed = a->seed;
	x->word_bits = a->word_bits;
	x->nodes_count = a->nodes;
	x->words = (struct extfuse_word *)((char *)x->area + a->words_offset);
	x->nodes = (struct extfuse_node *)((char *)x->area + a->nodes_offset);
	return 0;
}

int area_map(struct extfuse *x)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct extfuse_area head;
	void *map = mmap(NULL, page, PROT_READ, MAP_SHARED, x->device, 0);
	int err;

	if (map == MAP_FAILED)
		return -errno;
	memcpy(&head, map, sizeof(head));
	munmap(map, page);
	if (head.size < page || head.size > MEMORY_MAX || head.size % page)
		return -EPROTO;
	map = mmap(NULL, head.size, PROT_READ | PROT_WRITE, MAP_SHARED, x->device, 0);
	if (map == MAP_FAILED)
		return -errno;
	x->area = map;
	x->area_size = head.size;
	err = area_take(x, &head, head.size);
	if (err)
		area_drop(x);
	return err;
}

int area_make(struct extfuse *x)
{
	struct extfuse_area head = {
		.abi = EXTFUSE_ABI,
		.word_bits = NATIVE_WORD_BITS,
		.seed = (uintptr_t)x,
		.words_offset = 128,
		.nodes_offset = 128,
		.size = 128 + (sizeof(struct extfuse_word) << NATIVE_WORD_BITS),
	};
	int err;

	_Static_assert(sizeof(head) <= 128, "words begin behind the head");
	x->area = calloc(1, head.size);
	if (!x->area)
		return -ENOMEM;
	*x->area = head;
	err = area_take(x, &head, head.size);
	if (err)
		area_drop(x);
	return err;
}

void area_drop(struct extfuse *x)
{
	if (x->area_size)
		munmap(x->area, x->area_size);
	else
		free(x->area);
	x->area = NULL;
	x->area_size = 0;
}
