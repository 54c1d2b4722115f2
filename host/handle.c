/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Handles, and whether the kernel reads and writes their files by itself (FUSE_PASSTHROUGH). */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "host/internal.h"

static struct node *node_at(struct fe_host *h, uint32_t index)
{
	return (struct node *)(h->nodes.base + (size_t)index * h->nodes.record_size);
}

static void node_of_handle(struct fe_host *h, const struct handle *hd, struct fe_node *out)
{
	struct node *n = node_at(h, hd->node);

	out->nodeid = table_id(&h->nodes, &n->table);
	out->record = n->record;
}

struct handle *handle_get(struct fe_host *h, uint64_t fh, bool dir, struct fe_handle *out)
{
	struct handle *hd = (struct handle *)table_find(&h->handles, fh);

	if (!hd || !hd->node || hd->dir != dir)
		return NULL;
	out->fh = fh;
	out->record = hd->record;
	return hd;
}

static void passthrough_off(struct fe_host *h, const char *reason)
{
	h->passthrough = false;
	h->passthrough_reason = reason;
	fe_log(LOG_WARNING, "files are read and written through the server: %s", reason);
}

/* A backing id for the node's first open, or -1. */
static int32_t backing_open(struct fe_host *h, struct fe_node *node, struct fe_handle *handle)
{
	struct fuse_backing_map map = { 0 };
	int id, err;

	map.fd = h->be->backing_fd(h->priv, node, handle);
	if (map.fd < 0)
		return -1;
	if (h->be->backing_begin)
		h->be->backing_begin(h->priv);
	id = ioctl(h->fd, FUSE_DEV_IOC_BACKING_OPEN, &map);
	err = errno;
	if (h->be->backing_end)
		h->be->backing_end(h->priv);
	if (id > 0)
		return id;
	if (err == ELOOP)
		passthrough_off(h, "the source lies on a stacked file system (ELOOP)");
	else if (err == EPERM)
		passthrough_off(h, "registering a backing file needs CAP_SYS_ADMIN (EPERM)");
	else if (err != EOPNOTSUPP && err != EMFILE && err != ENFILE)
		fe_log(LOG_WARNING, "a file is served without passing through: %s", strerror(err));
	return -1;
}

/* The kernel refuses (EIO) to mix both ways on one inode: the first open decides for all. */
static int32_t node_opened(struct fe_host *h, const struct fe_node *node, struct fe_handle *handle)
{
	struct node *n = node_of(node);
	pthread_mutex_t *lock = node_open_lock(h, node);
	struct fe_node pub = *node;
	int32_t id;

	pthread_mutex_lock(lock);
	if (!n->nopen++)
		n->backing_id = h->passthrough ? backing_open(h, &pub, handle) : -1;
	id = n->backing_id;
	pthread_mutex_unlock(lock);
	return id;
}

static void node_closed(struct fe_host *h, const struct fe_node *node)
{
	struct node *n = node_of(node);
	pthread_mutex_t *lock = node_open_lock(h, node);

	pthread_mutex_lock(lock);
	if (!--n->nopen && n->backing_id > 0) {
		uint32_t id = (uint32_t)n->backing_id;

		n->backing_id = 0;
		if (ioctl(h->fd, FUSE_DEV_IOC_BACKING_CLOSE, &id))
			fe_log(LOG_ERR, "closing backing id %u: %s", id, strerror(errno));
	}
	pthread_mutex_unlock(lock);
}

static uint32_t open_flags(uint32_t flags)
{
	static const struct {
		uint32_t fe, fuse;
	} map[] = {
		{ FE_OPEN_DIRECT_IO, FOPEN_DIRECT_IO }, { FE_OPEN_KEEP_CACHE, FOPEN_KEEP_CACHE },
		{ FE_OPEN_NONSEEKABLE, FOPEN_NONSEEKABLE }, { FE_OPEN_CACHE_DIR, FOPEN_CACHE_DIR },
		{ FE_OPEN_STREAM, FOPEN_STREAM }, { FE_OPEN_NOFLUSH, FOPEN_NOFLUSH },
		{ FE_OPEN_PARALLEL_WRITES, FOPEN_PARALLEL_DIRECT_WRITES },
	};
	uint32_t bits = 0;

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if (flags & map[i].fe)
			bits |= map[i].fuse;
	return bits;
}

int handle_add(struct call *c, const struct fe_node *node, const struct fe_open *o, bool dir,
	       struct fuse_open_out *out)
{
	struct fe_host *h = c->host;
	struct handle *hd = (struct handle *)table_alloc(&h->handles);
	struct fe_node held;
	struct fe_handle pub;
	int32_t backing;
	int err;

	if (!hd)
		return -ENFILE;
	err = node_get(h, node->nodeid, &held);
	if (err) {
		table_free(&h->handles, &hd->table);
		return err;
	}
	memcpy(hd->record, o->record, h->be->handle_size);
	hd->dir = dir;
	pub = (struct fe_handle){ .fh = table_id(&h->handles, &hd->table), .record = hd->record };
	memset(out, 0, sizeof(*out));
	out->fh = pub.fh;
	out->open_flags = open_flags(o->flags);
	backing = dir ? -1 : node_opened(h, node, &pub);
	if (backing > 0) {
		hd->passed_through = 1;
		out->open_flags = (out->open_flags & ~(uint32_t)(FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE)) |
				  FOPEN_PASSTHROUGH;
		memcpy((unsigned char *)out + FE_OPEN_OUT_BACKING_ID, &backing, sizeof(backing));
	}
	__atomic_store_n(&hd->node, (uint32_t)node->nodeid, __ATOMIC_RELEASE);
	return 0;
}

void handle_remove(struct fe_host *h, const struct fe_request *req, uint64_t fh, bool dir,
		   const struct fe_release *how)
{
	struct fe_handle pub;
	struct handle *hd = handle_get(h, fh, dir, &pub);
	struct fe_node node;

	if (!hd)
		return;
	node_of_handle(h, hd, &node);
	if (!dir)
		node_closed(h, &node);
	if (dir && h->be->releasedir)
		h->be->releasedir(h->priv, req, &node, &pub);
	else if (!dir && h->be->release)
		h->be->release(h->priv, req, &node, &pub, how);
	hd->node = 0;
	table_free(&h->handles, &hd->table);
	node_put(h, &node);
}

void handles_fini(struct fe_host *h)
{
	struct fe_request req = { .supp_group = FE_NO_GROUP };
	struct fe_release how = { 0 };

	for (uint32_t i = 1; i < h->handles.fresh; i++) {
		struct handle *hd = (struct handle *)(h->handles.base + (size_t)i * h->handles.record_size);

		if (hd->node)
			handle_remove(h, &req, table_id(&h->handles, &hd->table), hd->dir, &how);
	}
}
