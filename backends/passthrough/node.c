/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a node to a descriptor of its file, and back. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"
#include "base/cleanup.h"

struct handle_buf {
	struct file_handle head;
	unsigned char bytes[MAX_HANDLE_SZ];
};

struct proc_path proc_path(int fd)
{
	struct proc_path p;

	snprintf(p.path, sizeof(p.path), "/proc/self/fd/%d", fd);
	return p;
}

uint64_t mix_ino(unsigned mount, uint64_t ino)
{
	/* Two files of one st_dev must not share a number, or tar takes them for hard links. */
	return ino ^ (uint64_t)mount << 48;
}

static int open_handle(struct passthrough *pt, const struct pt_key *key, int flags)
{
	struct handle_buf h = { .head = { .handle_bytes = key->len, .handle_type = key->type } };
	int fd;

	memcpy(h.head.f_handle, key->bytes, key->len);
	fd = open_by_handle_at(pt->shared->mounts[key->mount].fd, &h.head, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int node_hold(struct passthrough *pt, const struct fe_node *node, struct held *out)
{
	const struct pt_node *n = pt_node(node);
	int fd;

	creds_server(pt);
	*out = (struct held){ .pt = pt, .fd = __atomic_load_n(&n->fd, __ATOMIC_ACQUIRE) };
	if (out->fd >= 0)
		return 0;
	out->entry = cache_get(&pt->cache, &n->key);
	if (out->entry) {
		out->fd = out->entry->fd;
		return 0;
	}
	fd = open_handle(pt, &n->key, O_PATH | O_NOFOLLOW);
	if (fd < 0)
		return fd;
	out->fd = fd;
	out->entry = cache_add(&pt->cache, &n->key, fd);
	if (out->entry)
		out->fd = out->entry->fd;
	out->own = !out->entry;
	return 0;
}

void held_end(struct held *h)
{
	if (h->entry)
		cache_put(&h->pt->cache, h->entry);
	else if (h->own)
		fe_close(h->fd);
}

int node_open(struct passthrough *pt, const struct fe_node *node, int flags)
{
	const struct pt_node *n = pt_node(node);
	int held = __atomic_load_n(&n->fd, __ATOMIC_ACQUIRE);
	int fd;

	creds_server(pt);
	if (held < 0)
		return open_handle(pt, &n->key, flags);
	fd = open(proc_path(held).path, (flags & ~O_NOFOLLOW) | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The index of a mount, a new one where it is seen for the first time; -1 where it can not be used. */
static int mount_index(struct passthrough *pt, int id, int fd)
{
	struct pt_mount *mounts = pt->shared->mounts;
	unsigned count = atomic_load(&pt->shared->nmounts);
	int real, index = -1;

	for (unsigned i = 0; i < count; i++)
		if (mounts[i].id == id)
			return (int)i;
	if (!pt->cross)
		return -1;
	/* open_by_handle_at takes no O_PATH descriptor */
	real = open(proc_path(fd).path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (real < 0)
		return -1;
	pthread_mutex_lock(&pt->mounts_lock);
	count = atomic_load(&pt->shared->nmounts);
	for (unsigned i = 0; i < count; i++)
		if (mounts[i].id == id)
			index = (int)i;
	if (index < 0 && count < MAX_MOUNTS) {
		close_fd(pt, &mounts[count].fd); /* of one who died before it counted */
		mounts[count].id = id;
		put_fd(pt, &mounts[count].fd, fe_steal_fd(&real));
		atomic_store(&pt->shared->nmounts, count + 1);
		index = (int)count;
	}
	pthread_mutex_unlock(&pt->mounts_lock);
	fe_close(real);
	return index;
}

/* Fills a key from a file handle; false where there is none that could be opened again. */
static bool key_of_handle(struct passthrough *pt, int fd, const char *name, int flags, struct pt_key *key)
{
	struct handle_buf h = { .head = { .handle_bytes = MAX_HANDLE_SZ } };
	int id, mount;

	if (!pt->handles || name_to_handle_at(fd, name, &h.head, &id, flags))
		return false;
	mount = h.head.handle_bytes <= HANDLE_BYTES ? mount_index(pt, id, fd) : -1;
	if (mount < 0 || h.head.handle_type < 0 || h.head.handle_type > INT16_MAX)
		return false;
	memset(key, 0, sizeof(*key));
	key->kind = PT_HANDLE;
	key->mount = (uint16_t)mount;
	key->len = (uint8_t)h.head.handle_bytes;
	key->type = (int16_t)h.head.handle_type;
	memcpy(key->bytes, h.head.f_handle, h.head.handle_bytes);
	return true;
}

static void key_of_inode(const struct statx *st, struct pt_key *key)
{
	struct {
		uint64_t ino, dev, born;
	} id = { st->stx_ino, makedev(st->stx_dev_major, st->stx_dev_minor),
		 (uint64_t)st->stx_btime.tv_sec << 32 | st->stx_btime.tv_nsec };

	memset(key, 0, sizeof(*key));
	key->kind = PT_INODE;
	key->len = sizeof(id);
	memcpy(key->bytes, &id, sizeof(id));
}

static int raw_statx(int fd, const char *name, struct statx *st)
{
	int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH);

	return statx(fd, name, flags, STATX_BASIC_STATS | STATX_BTIME, st) ? -errno : 0;
}

int stat_fd(struct passthrough *pt, int fd, unsigned mount, struct statx *st)
{
	int err = raw_statx(fd, "", st);

	(void)pt;
	st->stx_ino = mix_ino(mount, st->stx_ino);
	return err;
}

uint64_t attr_valid_of(const struct passthrough *pt, const struct statx *st)
{
	/*
	 * A write through FUSE_PASSTHROUGH takes set-id bits away behind the kernel's back: with these
	 * attributes expired, execve(2) asks for them and does not act on the old mode.
	 */
	return S_ISREG(st->stx_mode) && st->stx_mode & (S_ISUID | S_ISGID) ? 0 : pt->attr_valid;
}

int key_of_name(struct passthrough *pt, int parent_fd, const char *name, struct pt_key *key)
{
	struct statx st;
	int err;

	if (key_of_handle(pt, parent_fd, name, 0, key))
		return 0;
	err = raw_statx(parent_fd, name, &st);
	if (!err)
		key_of_inode(&st, key);
	return err;
}

int entry_of_fd(struct passthrough *pt, int fd, bool path_fd, struct fe_entry *e)
{
	struct pt_node *n = (struct pt_node *)e->record;
	struct cached_fd *cached = NULL;
	int err = raw_statx(fd, "", &e->attr);

	n->fd = -1;
	if (err)
		goto out;
	if (key_of_handle(pt, fd, "", AT_EMPTY_PATH, &n->key)) {
		if (path_fd)
			cached = cache_add(&pt->cache, &n->key, fd);
		if (cached)
			cache_put(&pt->cache, cached);
	} else {
		key_of_inode(&e->attr, &n->key);
		fd = path_fd ? fd : open(proc_path(fd).path, O_PATH | O_CLOEXEC);
		if (fd < 0)
			err = -errno;
		else
			put_fd(pt, &n->fd, fd);
		path_fd = false;
	}
	e->attr.stx_ino = mix_ino(n->key.mount, e->attr.stx_ino);
	e->attr_valid = e->attr_valid < attr_valid_of(pt, &e->attr) ? e->attr_valid : attr_valid_of(pt, &e->attr);
out:
	if (path_fd && !cached)
		fe_close(fd);
	return err;
}

int entry_of_node(struct passthrough *pt, const struct fe_node *node, int fd, struct fe_entry *e)
{
	struct pt_node *n = (struct pt_node *)e->record;
	int err;

	n->fd = -1;
	n->key = pt_node(node)->key;
	err = stat_fd(pt, fd, n->key.mount, &e->attr);
	e->attr_valid = attr_valid_of(pt, &e->attr);
	return err;
}

void forget_node(void *b, struct fe_node *node)
{
	struct passthrough *pt = b;
	struct pt_node *n = pt_node(node);

	if (!n->key.kind)
		return;
	/* Without a nodeid it is a second record of a node that lives on. */
	if (node->nodeid && n->key.kind == PT_HANDLE)
		cache_drop(&pt->cache, &n->key);
	close_fd(pt, &n->fd);
}
