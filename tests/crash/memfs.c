/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/memfs.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define NODE_KEY	(8 + MEMFS_NAME)

struct call {
	struct memfs *fs;
	struct fr_slot *slot;
	const struct fuse_in_header *in;
	const unsigned char *arg;
	unsigned char *out;
	struct memfs_node *node;	/* of in->nodeid */
};

struct node_key {
	uint64_t parent;
	char name[MEMFS_NAME];
};

int memfs_init(struct memfs *fs)
{
	int err = fr_table_new(fs->fr, "nodes", sizeof(struct memfs_node), 0, NODE_KEY, 1u << 20, &fs->nodes);

	return err ? err : fr_table_new(fs->fr, "blocks", sizeof(struct memfs_block), 0, 16, 1u << 20, &fs->blocks);
}

/* ---- nodes ---- */

static struct memfs_node *node_of(struct call *c, uint64_t id)
{
	return fr_record(c->fs->nodes, id);
}

static struct memfs_node *child(struct call *c, uint64_t parent, const char *name)
{
	struct node_key key = { .parent = parent };
	uint32_t hash;
	void *node;

	strncpy(key.name, name, MEMFS_NAME - 1);
	hash = fr_key_hash(c->fs->nodes, &key);
	fr_key_lock(c->fs->nodes, hash);
	node = fr_index_find(c->fs->nodes, hash, &key);
	fr_key_unlock(c->fs->nodes, hash);
	return node;
}

/* The index is changed under the lock of the file system: no stripe is ever needed by somebody else. */
static void name_node(struct call *c, struct memfs_node *node, struct memfs_node *parent, const char *name)
{
	struct fr_slot *slot = c->slot;

	fr_save(slot, node, NODE_KEY);
	node->parent = fr_record_id(c->fs->nodes, parent);
	memset(node->name, 0, MEMFS_NAME);
	strncpy(node->name, name, MEMFS_NAME - 1);
	fr_index_add(slot, c->fs->nodes, fr_key_hash(c->fs->nodes, node), node);
	fr_set(slot, node->named, 1);
	fr_set(slot, parent->children, parent->children + 1);
	FR_STEP();
}

static void unname_node(struct call *c, struct memfs_node *node)
{
	struct memfs_node *parent = node_of(c, node->parent);

	fr_index_remove(c->slot, c->fs->nodes, fr_key_hash(c->fs->nodes, node), node);
	fr_set(c->slot, node->named, 0);
	fr_set(c->slot, parent->children, parent->children - 1);
	FR_STEP();
}

static struct memfs_block *block_of(struct call *c, uint64_t node, uint64_t number)
{
	uint64_t key[2] = { node, number };

	return fr_index_find(c->fs->blocks, fr_key_hash(c->fs->blocks, key), key);
}

static void drop_blocks(struct call *c, struct memfs_node *node, uint64_t from)
{
	uint64_t id = fr_record_id(c->fs->nodes, node);

	for (uint64_t n = from; n * MEMFS_BLOCK < node->size; n++) {
		struct memfs_block *b = block_of(c, id, n);

		if (!b)
			continue;
		fr_index_remove(c->slot, c->fs->blocks, fr_key_hash(c->fs->blocks, b), b);
		fr_free_record(c->slot, c->fs->blocks, b);
	}
}

static void maybe_free(struct call *c, struct memfs_node *node)
{
	if (node->named || node->nlookup || node->opens || fr_record_id(c->fs->nodes, node) == FUSE_ROOT_ID)
		return;
	drop_blocks(c, node, 0);
	fr_free_record(c->slot, c->fs->nodes, node);
}

static void forget(struct call *c, uint64_t id, uint64_t n)
{
	struct memfs_node *node = node_of(c, id);

	if (!node || id == FUSE_ROOT_ID)
		return;
	fr_set(c->slot, node->nlookup, node->nlookup - n);
	FR_STEP();
	maybe_free(c, node);
}

/* ---- replies ---- */

static void attr_of(const struct memfs_node *node, uint64_t id, struct fuse_attr *a)
{
	memset(a, 0, sizeof(*a));
	a->ino = id;
	a->size = node->size;
	a->mode = node->mode;
	a->nlink = S_ISDIR(node->mode) ? 2 : node->named;
	a->blksize = MEMFS_BLOCK;
}

static size_t entry(struct call *c, struct memfs_node *node)
{
	struct fuse_entry_out *e = (void *)c->out;

	memset(e, 0, sizeof(*e));
	fr_set(c->slot, node->nlookup, node->nlookup + 1);
	e->nodeid = fr_record_id(c->fs->nodes, node);
	attr_of(node, e->nodeid, &e->attr);
	return sizeof(*e);
}

static size_t open_out(struct call *c, struct memfs_node *node, size_t at)
{
	struct fuse_open_out *o = (void *)(c->out + at);

	memset(o, 0, sizeof(*o));
	o->open_flags = FOPEN_DIRECT_IO;
	fr_set(c->slot, node->opens, node->opens + 1);
	return at + sizeof(*o);
}

/* ---- operations: the bytes of the reply, or a negative errno ---- */

static ssize_t op_init(struct call *c)
{
	const struct fuse_init_in *in = (const void *)c->arg;
	struct fuse_init_out *out = (void *)c->out;

	memset(out, 0, sizeof(*out));
	out->major = FUSE_KERNEL_VERSION;
	out->minor = in->minor < FUSE_KERNEL_MINOR_VERSION ? in->minor : FUSE_KERNEL_MINOR_VERSION;
	out->max_readahead = in->max_readahead;
	out->flags = in->flags & (FUSE_BIG_WRITES | FUSE_ATOMIC_O_TRUNC | FUSE_PARALLEL_DIROPS);
	out->max_write = MEMFS_WRITE;
	out->max_background = 16;
	out->congestion_threshold = 12;
	return sizeof(*out);
}

static ssize_t op_lookup(struct call *c)
{
	struct memfs_node *node = child(c, c->in->nodeid, (const char *)c->arg);

	return node ? (ssize_t)entry(c, node) : -ENOENT;
}

static struct memfs_node *make_node(struct call *c, const char *name, uint32_t mode, int *err)
{
	struct memfs_node *node;

	*err = strlen(name) >= MEMFS_NAME ? -ENAMETOOLONG : child(c, c->in->nodeid, name) ? -EEXIST : 0;
	if (*err)
		return NULL;
	node = fr_alloc_record(c->slot, c->fs->nodes);
	*err = node ? 0 : -ENOSPC;
	if (!node)
		return NULL;
	node->mode = mode;
	name_node(c, node, c->node, name);
	return node;
}

static ssize_t op_mkdir(struct call *c)
{
	const struct fuse_mkdir_in *in = (const void *)c->arg;
	int err;
	struct memfs_node *node = make_node(c, (const char *)(in + 1), S_IFDIR | (in->mode & 07777), &err);

	return node ? (ssize_t)entry(c, node) : err;
}

static ssize_t op_create(struct call *c)
{
	const struct fuse_create_in *in = (const void *)c->arg;
	int err;
	struct memfs_node *node = make_node(c, (const char *)(in + 1), S_IFREG | (in->mode & 07777), &err);

	return node ? (ssize_t)open_out(c, node, entry(c, node)) : err;
}

static ssize_t op_open(struct call *c)
{
	const struct fuse_open_in *in = (const void *)c->arg;

	if (in->flags & 01000 /* O_TRUNC */) {
		drop_blocks(c, c->node, 0);
		fr_set(c->slot, c->node->size, 0);
	}
	return (ssize_t)open_out(c, c->node, 0);
}

static ssize_t op_release(struct call *c)
{
	fr_set(c->slot, c->node->opens, c->node->opens - 1);
	maybe_free(c, c->node);
	return 0;
}

static ssize_t op_unlink(struct call *c)
{
	struct memfs_node *node = child(c, c->in->nodeid, (const char *)c->arg);
	bool dir = c->in->opcode == FUSE_RMDIR;

	if (!node)
		return -ENOENT;
	if (dir && node->children)
		return -ENOTEMPTY;
	unname_node(c, node);
	maybe_free(c, node);
	return 0;
}

static ssize_t op_rename(struct call *c)
{
	bool two = c->in->opcode == FUSE_RENAME2;
	const char *from = (const char *)c->arg + (two ? sizeof(struct fuse_rename2_in) : sizeof(struct fuse_rename_in));
	const char *to = from + strlen(from) + 1;
	uint64_t newdir = ((const struct fuse_rename_in *)(const void *)c->arg)->newdir;
	struct memfs_node *node = child(c, c->in->nodeid, from), *old = child(c, newdir, to);

	if (!node || !node_of(c, newdir))
		return -ENOENT;
	if (node == old)
		return 0;
	if (old && old->children)
		return -ENOTEMPTY;
	if (old) {
		unname_node(c, old);
		maybe_free(c, old);
	}
	unname_node(c, node);
	name_node(c, node, node_of(c, newdir), to);
	return 0;
}

static ssize_t op_getattr(struct call *c)
{
	struct fuse_attr_out *out = (void *)c->out;

	memset(out, 0, sizeof(*out));
	attr_of(c->node, c->in->nodeid, &out->attr);
	return sizeof(*out);
}

static ssize_t op_setattr(struct call *c)
{
	const struct fuse_setattr_in *in = (const void *)c->arg;
	struct memfs_block *b;

	if (in->valid & FATTR_MODE)
		fr_set(c->slot, c->node->mode, (c->node->mode & S_IFMT) | (in->mode & 07777));
	if (in->valid & FATTR_SIZE) {
		drop_blocks(c, c->node, (in->size + MEMFS_BLOCK - 1) / MEMFS_BLOCK);
		b = in->size < c->node->size && in->size % MEMFS_BLOCK ? block_of(c, c->in->nodeid, in->size / MEMFS_BLOCK) : NULL;
		if (b) {
			fr_save(c->slot, b->data, MEMFS_BLOCK);
			memset(b->data + in->size % MEMFS_BLOCK, 0, MEMFS_BLOCK - in->size % MEMFS_BLOCK);
		}
		fr_set(c->slot, c->node->size, in->size);
	}
	return op_getattr(c);
}

static ssize_t op_read(struct call *c)
{
	const struct fuse_read_in *in = (const void *)c->arg;
	uint64_t at = in->offset, end = in->offset + in->size;

	end = end < c->node->size ? end : c->node->size;
	while (at < end) {
		uint64_t part = MEMFS_BLOCK - at % MEMFS_BLOCK;
		struct memfs_block *b = block_of(c, c->in->nodeid, at / MEMFS_BLOCK);

		part = part < end - at ? part : end - at;
		if (b)
			memcpy(c->out + (at - in->offset), b->data + at % MEMFS_BLOCK, part);
		else
			memset(c->out + (at - in->offset), 0, part);
		at += part;
	}
	return at > in->offset ? (ssize_t)(at - in->offset) : 0;
}

static struct memfs_block *block_for_write(struct call *c, uint64_t number)
{
	struct memfs_block *b = block_of(c, c->in->nodeid, number);

	if (b) {
		fr_save(c->slot, b->data, MEMFS_BLOCK);
		return b;
	}
	b = fr_alloc_record(c->slot, c->fs->blocks);
	if (!b)
		return NULL;
	b->node = c->in->nodeid;
	b->number = number;
	fr_index_add(c->slot, c->fs->blocks, fr_key_hash(c->fs->blocks, b), b);
	return b;
}

static ssize_t op_write(struct call *c)
{
	const struct fuse_write_in *in = (const void *)c->arg;
	const unsigned char *data = (const void *)(in + 1);
	struct fuse_write_out *out = (void *)c->out;
	uint64_t at = in->offset, end = in->offset + in->size;

	while (at < end) {
		uint64_t part = MEMFS_BLOCK - at % MEMFS_BLOCK;
		struct memfs_block *b = block_for_write(c, at / MEMFS_BLOCK);

		if (!b)
			break;
		part = part < end - at ? part : end - at;
		memcpy(b->data + at % MEMFS_BLOCK, data + (at - in->offset), part);
		FR_STEP();
		at += part;
	}
	if (at > c->node->size)
		fr_set(c->slot, c->node->size, at);
	memset(out, 0, sizeof(*out));
	out->size = (uint32_t)(at - in->offset);
	return out->size ? (ssize_t)sizeof(*out) : -ENOSPC;
}

struct listing {
	struct call *c;
	const struct fuse_read_in *in;
	size_t used;
};

static int list_one(void *arg, uint64_t id, void *record)
{
	struct listing *l = arg;
	struct memfs_node *node = record;
	struct fuse_dirent *d = (void *)(l->c->out + l->used);
	size_t len = strlen(node->name), size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + len);

	/* The index of a record is where it stands in the listing. */
	if (!node->named || node->parent != l->c->in->nodeid || (uint32_t)id <= l->in->offset || id == FUSE_ROOT_ID)
		return 0;
	if (l->used + size > l->in->size)
		return 1;
	memset(d, 0, size);
	d->ino = id;
	d->off = (uint32_t)id;
	d->namelen = (uint32_t)len;
	d->type = node->mode >> 12;
	memcpy(d->name, node->name, len);
	l->used += size;
	return 0;
}

static ssize_t op_readdir(struct call *c)
{
	struct listing l = { .c = c, .in = (const void *)c->arg };

	fr_table_each(c->fs->nodes, list_one, &l);
	return (ssize_t)l.used;
}

static ssize_t op_statfs(struct call *c)
{
	memset(c->out, 0, sizeof(struct fuse_statfs_out));
	return sizeof(struct fuse_statfs_out);
}

static ssize_t run(struct call *c)
{
	switch (c->in->opcode) {
	case FUSE_INIT: return op_init(c);
	case FUSE_LOOKUP: return op_lookup(c);
	case FUSE_MKDIR: return op_mkdir(c);
	case FUSE_CREATE: return op_create(c);
	case FUSE_OPEN: return op_open(c);
	case FUSE_OPENDIR: return (ssize_t)open_out(c, c->node, 0);
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR: return op_release(c);
	case FUSE_UNLINK:
	case FUSE_RMDIR: return op_unlink(c);
	case FUSE_RENAME:
	case FUSE_RENAME2: return op_rename(c);
	case FUSE_GETATTR: return op_getattr(c);
	case FUSE_SETATTR: return op_setattr(c);
	case FUSE_READ: return op_read(c);
	case FUSE_WRITE: return op_write(c);
	case FUSE_READDIR: return op_readdir(c);
	case FUSE_STATFS: return op_statfs(c);
	case FUSE_DESTROY: return 0;
	default: return -ENOSYS;
	}
}

static void run_forgets(struct call *c)
{
	const struct fuse_batch_forget_in *batch = (const void *)c->arg;
	const struct fuse_forget_one *one = (const void *)(batch + 1);

	if (c->in->opcode == FUSE_FORGET)
		forget(c, c->in->nodeid, ((const struct fuse_forget_in *)(const void *)c->arg)->nlookup);
	for (uint32_t i = 0; c->in->opcode == FUSE_BATCH_FORGET && i < batch->count; i++)
		forget(c, one[i].nodeid, one[i].nlookup);
}

void memfs_answer(struct memfs *fs, struct fr_slot *slot)
{
	struct fuse_out_header *out = fr_slot_reply_buffer(slot);
	struct call c = {
		.fs = fs,
		.slot = slot,
		.in = fr_slot_request(slot),
		.out = (unsigned char *)(out + 1),
	};
	ssize_t n;

	c.arg = (const unsigned char *)(c.in + 1);
	pthread_mutex_lock(&fs->lock);
	c.node = node_of(&c, c.in->nodeid);
	fr_begin(slot);
	switch (c.in->opcode) {
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		run_forgets(&c);
		/* fall through */
	case FUSE_INTERRUPT:
		fr_slot_reply(slot, 0);
		break;
	default:
		n = c.node || c.in->opcode == FUSE_INIT || c.in->opcode == FUSE_DESTROY ? run(&c) : -ESTALE;
		out->error = n < 0 ? (int)n : 0;
		fs->state->operations++;
		fr_slot_reply(slot, sizeof(*out) + (n < 0 ? 0 : (size_t)n));
	}
	pthread_mutex_unlock(&fs->lock);
}
