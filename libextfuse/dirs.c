/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Complete directories: a Bloom filter of all names. */
#include <bpf/bpf.h>
#include <string.h>

#include "libextfuse/internal.h"

_Static_assert(sizeof(((struct extfuse_names *)0)->bits) ==
		       EXTFUSE_DIR_LARGE_BLOCKS * EXTFUSE_BLOCK_WORDS * sizeof(uint64_t),
	       "names fill the large filter");

static void set_bits(void *block, const struct extfuse_probes *p)
{
	uint8_t *bytes = block;

	for (int i = 0; i < EXTFUSE_DIR_PROBES; i++)
		bytes[p->bit[i] / 8] |= (uint8_t)(1u << p->bit[i] % 8);
}

static struct extfuse_probes probes_of(const struct name *name)
{
	struct extfuse_probes p;

	extfuse_probes(&p, extfuse_name_bits(name->words, name->len));
	return p;
}

static uint32_t now_ms(void)
{
	return (uint32_t)(expiry(0) / NS_PER_MS);
}

API void extfuse_names_clear(struct extfuse_names *names)
{
	memset(names, 0, sizeof(*names));
	names->since = now_ms();
}

API int extfuse_names_add(struct extfuse_names *names, const char *text)
{
	struct extfuse_probes p;
	struct name name;
	int err = name_set(&name, text);

	if (err)
		return err;
	p = probes_of(&name);
	set_bits(&names->bits[p.block % EXTFUSE_DIR_LARGE_BLOCKS * EXTFUSE_BLOCK_WORDS], &p);
	if (names->count < UINT32_MAX)
		names->count++;
	return 0;
}

static void seal_blocks(uint64_t nodeid, const struct extfuse_head *head, struct extfuse_block *blocks,
			uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		blocks[i].check = extfuse_block_sum(nodeid, head, i, blocks[i].bits);
}

static bool sealed(uint64_t nodeid, const struct extfuse_head *head, const struct extfuse_block *blocks,
		   uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (blocks[i].check != extfuse_block_sum(nodeid, head, i, blocks[i].bits))
			return false;
	return true;
}

/* A block of the small filter has the bits of all blocks of the large one whose numbers end alike. */
static int store_small(struct extfuse *x, uint64_t nodeid, const struct extfuse_head *head,
		       const struct extfuse_names *names, struct extfuse_word *w)
{
	struct extfuse_dir value = { .head = *head, .count = names->count };

	for (uint32_t i = 0; i < EXTFUSE_DIR_LARGE_BLOCKS * EXTFUSE_BLOCK_WORDS; i++)
		value.blocks[i / EXTFUSE_BLOCK_WORDS % EXTFUSE_DIR_SMALL_BLOCKS]
			.bits[i % EXTFUSE_BLOCK_WORDS] |= names->bits[i];
	seal_blocks(nodeid, head, value.blocks, EXTFUSE_DIR_SMALL_BLOCKS);
	map_drop(x, MAP_DIR_LARGE, &nodeid);
	return map_put(x, MAP_DIR, &nodeid, &value, w);
}

static int store_large(struct extfuse *x, uint64_t nodeid, const struct extfuse_head *head,
		       const struct extfuse_names *names, struct extfuse_word *w)
{
	struct extfuse_dir_large value = { .head = *head, .count = names->count };

	for (uint32_t i = 0; i < EXTFUSE_DIR_LARGE_BLOCKS; i++)
		memcpy(value.blocks[i].bits, &names->bits[(size_t)i * EXTFUSE_BLOCK_WORDS],
		       sizeof(value.blocks[i].bits));
	seal_blocks(nodeid, head, value.blocks, EXTFUSE_DIR_LARGE_BLOCKS);
	map_drop(x, MAP_DIR, &nodeid);
	return map_put(x, MAP_DIR_LARGE, &nodeid, &value, w);
}

API int extfuse_put_dir(struct extfuse *x, uint64_t stamp, uint64_t nodeid,
			const struct extfuse_names *names)
{
	struct extfuse_names all;
	struct extfuse_head head = { .check = 0 };
	uint32_t age = now_ms() - names->since, ttl = ttl_ms(x->options.negative_ms);
	struct extfuse_word *w;
	int err;

	if (!x->attached)
		return -ENOTCONN;
	if (native(x))
		return -ENOTSUP;
	if (!nodeid)
		return -EINVAL;
	if (names->count > EXTFUSE_DIR_LARGE_NAMES)
		return -E2BIG;
	w = word_of(x, ABOUT_DIR, nodeid, NULL);
	err = age < ttl ? seal(x, w, stamp, false, &head) : -ESTALE;
	if (!err) {
		head.expires = expiry(ttl - age);
		/* These are asked for where the mount is exported. */
		all = *names;
		extfuse_names_add(&all, ".");
		extfuse_names_add(&all, "..");
		all.count = names->count;
		names = &all;
		err = names->count <= EXTFUSE_DIR_SMALL_NAMES ? store_small(x, nodeid, &head, names, w)
							      : store_large(x, nodeid, &head, names, w);
	}
	return counted(x, err);
}

/* ---- one more name ---- */

/* Whether this was true until the request that is being answered was begun. */
static bool was_true(const struct extfuse *x, const struct extfuse_word *w,
		     const struct extfuse_head *head)
{
	uint64_t state = __atomic_load_n(&w->state, __ATOMIC_SEQ_CST);
	uint64_t prev = __atomic_load_n(&w->prev, __ATOMIC_SEQ_CST);

	if ((state & EXTFUSE_WORD_BUSY) != 1 || __atomic_load_n(&w->state, __ATOMIC_SEQ_CST) != state)
		return false;
	return word_holds(word_all(x), head->stamp, 0) &&
	       (state >> EXTFUSE_WORD_TIME <= head->stamp || prev < head->own);
}

static bool now_own(struct extfuse *x, const struct extfuse_word *w, uint64_t stamp,
		    struct extfuse_head *head)
{
	struct extfuse_head before = *head;
	struct extfuse_head after;

	/* in this order: what is begun in between is seen by one of them */
	if (seal(x, w, stamp, true, &after) || !after.own || !was_true(x, w, &before))
		return false;
	head->stamp = after.stamp;
	head->own = after.own;
	return true;
}

static int add_small(struct extfuse *x, struct extfuse_word *w, uint64_t stamp, uint64_t nodeid,
		     const struct extfuse_probes *p, struct extfuse_dir *value)
{
	if (!sealed(nodeid, &value->head, value->blocks, EXTFUSE_DIR_SMALL_BLOCKS) ||
	    !now_own(x, w, stamp, &value->head))
		return -ESTALE;
	if (++value->count > EXTFUSE_DIR_SMALL_NAMES)
		return -E2BIG;
	set_bits(value->blocks[p->block % EXTFUSE_DIR_SMALL_BLOCKS].bits, p);
	seal_blocks(nodeid, &value->head, value->blocks, EXTFUSE_DIR_SMALL_BLOCKS);
	return map_put(x, MAP_DIR, &nodeid, value, w);
}

static int add_large(struct extfuse *x, struct extfuse_word *w, uint64_t stamp, uint64_t nodeid,
		     const struct extfuse_probes *p, struct extfuse_dir_large *value)
{
	if (!sealed(nodeid, &value->head, value->blocks, EXTFUSE_DIR_LARGE_BLOCKS) ||
	    !now_own(x, w, stamp, &value->head))
		return -ESTALE;
	if (++value->count > EXTFUSE_DIR_LARGE_NAMES)
		return -E2BIG;
	set_bits(value->blocks[p->block % EXTFUSE_DIR_LARGE_BLOCKS].bits, p);
	seal_blocks(nodeid, &value->head, value->blocks, EXTFUSE_DIR_LARGE_BLOCKS);
	return map_put(x, MAP_DIR_LARGE, &nodeid, value, w);
}

/* The kernel lets one request at a time add to a directory, so nobody else has read the same value. */
static int add_name(struct extfuse *x, uint64_t stamp, uint64_t nodeid, const struct name *name)
{
	struct extfuse_word *w = word_of(x, ABOUT_DIR, nodeid, NULL);
	struct extfuse_probes p = probes_of(name);
	struct extfuse_dir_large large;
	struct extfuse_dir small;

	if (!bpf_map_lookup_elem(x->maps[MAP_DIR], &nodeid, &small))
		return add_small(x, w, stamp, nodeid, &p, &small);
	if (!bpf_map_lookup_elem(x->maps[MAP_DIR_LARGE], &nodeid, &large))
		return add_large(x, w, stamp, nodeid, &p, &large);
	return -ENOENT;
}

API int extfuse_put_dir_name(struct extfuse *x, uint64_t stamp, uint64_t nodeid, const char *text)
{
	struct name name;
	int err;

	if (!x->attached)
		return -ENOTCONN;
	if (native(x))
		return -ENOTSUP;
	err = name_set(&name, text);
	if (err)
		return err;
	return counted(x, add_name(x, stamp, nodeid, &name));
}
