/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The store: see store.h. The caller holds the lock. */
#include <errno.h>
#include <string.h>

#include "store.h"

struct store *store;

/* ---- pools ---- */

/* Each element begins with the index of the next one. */
static uint32_t take(struct pool *p, void *array, size_t size, uint32_t count)
{
	uint32_t i = p->free;

	if (!i && p->fresh >= count)
		return 0;
	if (i)
		set(p->free, *(uint32_t *)(void *)((char *)array + i * size));
	else {
		i = p->fresh;
		set(p->fresh, i + 1);
	}
	set(p->used, p->used + 1);
	return i;
}

static void give(struct pool *p, uint32_t *next, uint32_t i)
{
	set(*next, p->free);
	set(p->free, i);
	set(p->used, p->used - 1);
}

/* What else was in a free block is not saved: no request frees blocks and takes some. */
uint32_t new_block(void)
{
	uint32_t b = take(&store->blocks, store->block, sizeof(*store->block), BLOCKS);

	if (!b)
		return 0;
	save(&store->block[b].next, sizeof(uint32_t));
	memset(&store->block[b], 0, BLOCK);
	return b;
}

void free_block(uint32_t b)
{
	if (b)
		give(&store->blocks, &store->block[b].next, b);
}

/* ---- nodes ---- */

static struct timespec now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t;
}

static uint32_t index_of(const struct node *n)
{
	return (uint32_t)(n - store->node);
}

struct node *node_of(uint64_t ino)
{
	uint32_t i = (uint32_t)ino;

	if (!i || i >= NODES || !store->node[i].mode || store->node[i].uses != ino >> 32)
		return NULL;
	return &store->node[i];
}

uint64_t ino_of(const struct node *n)
{
	return (uint64_t)n->uses << 32 | index_of(n);
}

struct stat attr_of(const struct node *n)
{
	return (struct stat){
		.st_ino = ino_of(n),
		.st_mode = n->mode,
		.st_uid = n->uid,
		.st_gid = n->gid,
		.st_rdev = n->rdev,
		.st_size = (off_t)n->size,
		.st_blocks = (blkcnt_t)((n->size + 511) / 512),
		.st_nlink = S_ISDIR(n->mode) && n->links ? 2 + n->subdirs : n->links,
		.st_blksize = BLOCK,
		.st_atim = n->atime,
		.st_mtim = n->mtime,
		.st_ctim = n->ctime,
	};
}

void store_init(void)
{
	store->nodes.fresh = 2;
	store->names.fresh = store->blocks.fresh = 1;
	store->node[1] = (struct node){
		.mode = S_IFDIR | 0755,
		.links = 1,
		.parent = 1,
		.nlookup = 1,
		.atime = now(),
		.mtime = now(),
		.ctime = now(),
	};
}

struct node *new_node(mode_t mode, uid_t uid, gid_t gid, dev_t rdev)
{
	uint32_t i = take(&store->nodes, store->node, sizeof(*store->node), NODES), uses;
	struct node *n = &store->node[i];
	struct timespec t = now();

	if (!i)
		return NULL;
	uses = n->uses;
	save(n, sizeof(*n));
	*n = (struct node){
		.mode = mode,
		.uid = uid,
		.gid = gid,
		.rdev = (uint32_t)rdev,
		.uses = uses,
		.atime = t,
		.mtime = t,
		.ctime = t,
	};
	return n;
}

void touch(struct node *n, int what)
{
	struct timespec t = now();

	if (what & MODIFIED)
		set(n->mtime, t);
	set(n->ctime, t);
}

/* So many may go at once that the pool is saved for all of them. */
static void drop_blocks(struct node *n, uint64_t from)
{
	union block *map = &store->block[n->map];

	if (!n->map || from >= ENTRIES)
		return;
	save(&map->entry[from], (ENTRIES - from) * sizeof(*map->entry));
	save(&store->blocks, sizeof(store->blocks));
	for (uint64_t i = from; i < ENTRIES; i++) {
		uint32_t b = map->entry[i];

		map->entry[i] = 0;
		if (!b)
			continue;
		set(store->block[b].next, store->blocks.free);
		store->blocks.free = b;
		store->blocks.used--;
	}
	if (from)
		return;
	free_block(n->map);
	set(n->map, 0);
}

void maybe_free(struct node *n)
{
	if (n->links || n->nlookup || n->opens)
		return;
	drop_blocks(n, 0);
	free_block(n->xattrs);
	set(n->xattrs, 0);
	set(n->mode, 0);
	set(n->uses, n->uses + 1);
	give(&store->nodes, &n->next, index_of(n));
}

/* ---- names ---- */

static uint32_t *head_of(uint32_t dir, const char *text)
{
	uint32_t h = dir * 2654435761u;

	while (*text)
		h = (h ^ (unsigned char)*text++) * 16777619u;
	return &store->head[h % HEADS];
}

struct name *find_name(const struct node *dir, const char *text)
{
	uint32_t d = index_of(dir);

	for (uint32_t i = *head_of(d, text); i; i = store->name[i].next)
		if (store->name[i].dir == d && !strcmp(store->name[i].text, text))
			return &store->name[i];
	return NULL;
}

static void count_name(struct node *dir, struct node *n, int by)
{
	set(n->links, n->links + (uint32_t)by);
	if (S_ISDIR(n->mode))
		set(dir->subdirs, dir->subdirs + (uint32_t)by);
	touch(n, CHANGED);
	touch(dir, MODIFIED);
}

int add_name(struct node *dir, const char *text, struct node *n)
{
	uint32_t i, *head = head_of(index_of(dir), text);
	struct name *name;

	if (strlen(text) >= NAME_SIZE)
		return -ENAMETOOLONG;
	if (!dir->links)
		return -ENOENT;
	i = take(&store->names, store->name, sizeof(*store->name), NAMES);
	if (!i)
		return -ENOSPC;
	name = &store->name[i];
	save(name, sizeof(*name));
	*name = (struct name){
		.next = *head,
		.dir = index_of(dir),
		.node = index_of(n),
		.before = dir->last,
		.place = dir->places + 1,
	};
	memcpy(name->text, text, strlen(text));
	set(*head, i);
	set(dir->places, dir->places + 1);
	if (dir->last)
		set(store->name[dir->last].after, i);
	else
		set(dir->first, i);
	set(dir->last, i);
	if (S_ISDIR(n->mode))
		set(n->parent, index_of(dir));
	count_name(dir, n, 1);
	return 0;
}

void remove_name(struct name *name)
{
	struct node *dir = &store->node[name->dir];
	uint32_t i = (uint32_t)(name - store->name), *at = head_of(name->dir, name->text);

	while (*at != i)
		at = &store->name[*at].next;
	set(*at, name->next);
	if (name->before)
		set(store->name[name->before].after, name->after);
	else
		set(dir->first, name->after);
	if (name->after)
		set(store->name[name->after].before, name->before);
	else
		set(dir->last, name->before);
	count_name(dir, &store->node[name->node], -1);
	give(&store->names, &name->next, i);
}

struct name *name_behind(const struct node *dir, uint64_t place)
{
	uint32_t i = dir->first;

	while (i && store->name[i].place <= place)
		i = store->name[i].after;
	return i ? &store->name[i] : NULL;
}

/* ---- data ---- */

static uint32_t block_at(const struct node *n, uint64_t at)
{
	return n->map && at < FILE_MOST ? store->block[n->map].entry[at / BLOCK] : 0;
}

static uint32_t block_for_write(struct node *n, uint64_t at)
{
	uint32_t b = block_at(n, at);

	if (b)
		return b;
	if (!n->map)
		set(n->map, new_block());
	b = n->map ? new_block() : 0;
	if (b)
		set(store->block[n->map].entry[at / BLOCK], b);
	return b;
}

size_t read_data(const struct node *n, void *to, size_t size, uint64_t at)
{
	size_t done = 0;

	if (at >= n->size)
		return 0;
	if (size > n->size - at)
		size = n->size - at;
	while (done < size) {
		uint32_t in = (at + done) % BLOCK, b = block_at(n, at + done);
		size_t part = size - done < BLOCK - in ? size - done : BLOCK - in;

		if (b)
			memcpy((char *)to + done, store->block[b].data + in, part);
		else
			memset((char *)to + done, 0, part);
		done += part;
	}
	return size;
}

int write_data(struct node *n, const void *from, size_t size, uint64_t at)
{
	size_t done = 0;

	if (at >= FILE_MOST || size > FILE_MOST - at)
		return -EFBIG;
	while (done < size) {
		uint32_t in = (at + done) % BLOCK, b = block_for_write(n, at + done);
		size_t part = size - done < BLOCK - in ? size - done : BLOCK - in;

		if (!b)
			break;
		save(store->block[b].data + in, part);
		memcpy(store->block[b].data + in, (const char *)from + done, part);
		done += part;
	}
	if (done && at + done > n->size)
		set(n->size, at + done);
	if (done)
		touch(n, MODIFIED);
	return done || !size ? (int)done : -ENOSPC;
}

int set_size(struct node *n, uint64_t size)
{
	uint32_t in = size % BLOCK, b = block_at(n, size);

	if (size > FILE_MOST)
		return -EFBIG;
	if (size < n->size) {
		if (in && b) {
			save(store->block[b].data + in, BLOCK - in);
			memset(store->block[b].data + in, 0, BLOCK - in);
		}
		drop_blocks(n, (size + BLOCK - 1) / BLOCK);
	}
	set(n->size, size);
	touch(n, MODIFIED);
	return 0;
}
