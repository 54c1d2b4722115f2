/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Handles, and whether the kernel reads and writes their files by itself (FUSE_PASSTHROUGH). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "host/internal.h"
#include "libfuserecover/killpoint.h"

static struct node *node_at(struct fe_host *h, const struct handle *hd, struct fe_node *out)
{
	/* The handle holds its node: the index alone names it. */
	struct node *n = fr_record(h->nodes, hd->nodeid);

	*out = (struct fe_node){ .nodeid = hd->nodeid, .record = n->record };
	return n;
}

struct handle *handle_get(struct fe_host *h, uint64_t fh, bool dir, struct fe_handle *out)
{
	struct handle *hd = fr_record(h->handles, fh);

	if (!hd || !hd->nodeid || hd->dir != dir)
		return NULL;
	out->fh = fh;
	out->record = hd->record;
	return hd;
}

static void passthrough_off(struct fe_host *h, const char *reason)
{
	passthrough_set(h, PASSES_NOTHING, reason);
	fe_log(LOG_WARNING, "files are read and written through the server: %s", reason);
}

/* A backing id for a node's first open, or 0. */
static int32_t backing_open(struct fe_host *h, struct note *note, struct fe_node *node, struct fe_handle *handle)
{
	struct fuse_backing_map map = { .fd = h->be->backing_fd(h->priv, node, handle) };
	int id, err;

	if (map.fd < 0)
		return 0;
	if (h->be->backing_begin)
		h->be->backing_begin(h->priv);
	note->backing_after = atomic_load(&h->shared->backing_last) + 1;
	FR_STEP();
	id = ioctl(h->shared->fd, FUSE_DEV_IOC_BACKING_OPEN, &map);
	err = errno;
	if (h->be->backing_end)
		h->be->backing_end(h->priv);
	FR_STEP();
	if (id > 0) {
		backing_note(h, note, (uint32_t)id);
		return id;
	}
	note->backing_after = 0;
	if (err == ELOOP)
		passthrough_off(h, "the source lies on a stacked file system (ELOOP)");
	else if (err == EPERM)
		passthrough_off(h, "registering a backing file needs CAP_SYS_ADMIN (EPERM)");
	else if (err != EOPNOTSUPP && err != EMFILE && err != ENFILE)
		fe_log(LOG_WARNING, "a file is served without passing through: %s", strerror(err));
	return 0;
}

bool backing_close(struct fe_host *h, uint32_t id)
{
	bool closed = !ioctl(h->shared->fd, FUSE_DEV_IOC_BACKING_CLOSE, &id);

	if (!closed && errno != ENOENT)
		fe_log(LOG_ERR, "closing backing id %u: %s", id, strerror(errno));
	return closed;
}

static void backing_mode(struct fr_slot *s, struct node *n, int32_t mode)
{
	fr_begin(s);
	fr_set(s, n->backing_id, -mode);
	fr_commit(s);
}

/*
 * The module has one file for all opens of a node: the first one, until one comes that may do more. Others' data,
 * and what asks for another way than the file was opened for, comes to the server.
 */
static void backing_give(struct fe_host *h, struct fr_slot *s, struct node *n, struct fe_node *node,
			 struct fe_handle *handle, uint32_t flags)
{
	static const int32_t can[O_ACCMODE + 1] = {
		[O_RDONLY] = PASSED_READS, [O_WRONLY] = PASSED_WRITES, [O_RDWR] = PASSED_READS | PASSED_WRITES,
	};
	int32_t has = -n->backing_id, more = can[flags & O_ACCMODE];
	int fd, err;

	if (flags & (O_DIRECT | O_SYNC | O_DSYNC | O_NOATIME) || more == has || (more & has) != has)
		return;
	fd = h->be->backing_fd(h->priv, node, handle);
	if (fd < 0)
		return;
	/* First: so that a successor takes it back whether it was given or not. */
	backing_mode(s, n, more);
	err = extfuse_backing(h->hook, node->nodeid, fd);
	if (err)
		backing_mode(s, n, has);
	if (err == -ELOOP)
		passthrough_off(h, "the source lies on a stacked file system (ELOOP)");
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

/* The kernel refuses (EIO) to mix both ways on one inode: the first open decides for all. */
int handle_add(struct call *c, const struct fe_node *node, const struct fe_open *o, bool dir, uint32_t flags,
	       struct fuse_open_out *out)
{
	struct fe_host *h = c->host;
	struct fr_slot *s = c->worker->slot;
	struct note *note = fr_slot_note(s);
	struct node *n = node_of(node);
	struct fe_node pub = *node;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(node_open_lock(h, node->nodeid));
	bool first = !dir && !n->nopen, hold;
	int32_t backing = dir ? 0 : n->backing_id;
	struct handle *hd;

	if (first)
		backing = h->shared->passthrough != PASSES_DRIVER ? 0 :
			  backing_open(h, note, &pub, &(struct fe_handle){ .record = o->record });
	/* Neither what it writes nor that it reads makes a request. */
	hold = h->hook && !dir && backing > 0;
	if (hold)
		extfuse_hold(h->hook, node->nodeid);
	memset(out, 0, sizeof(*out));
	out->open_flags = open_flags(o->flags);
	fr_key_lock(h->nodes, n->hash);
	fr_begin(s);
	hd = fr_alloc_record(s, h->handles);
	if (hd) {
		memcpy(hd->record, o->record, h->be->handle_size);
		hd->nodeid = node->nodeid;
		hd->dir = dir;
		hd->writes = !dir && (flags & O_ACCMODE) != O_RDONLY;
		hd->held = hold;
		hd->all_names = dir && o->flags & FE_OPEN_ALL_NAMES;
		hd->standing = !dir && standing_fit(h, flags, o->flags) ? STANDING_FIT : STANDING_NOT;
		out->fh = fr_record_id(h->handles, hd);
		fr_set(s, n->handles, n->handles + 1);
		fr_set(s, n->writers, n->writers + hd->writes);
		fr_set(s, n->nopen, n->nopen + !dir);
		if (first)
			fr_set(s, n->backing_id, backing);
		fr_set(s, note->backing_opened, 0);
		fr_set(s, note->open.owned, 0);
		fr_set(s, note->granted, (uint32_t)((unsigned char *)(out + 1) - c->out));
	}
	fr_commit(s);
	fr_key_unlock(h->nodes, n->hash);
	if (!hd) {
		if (hold)
			extfuse_unhold(h->hook, node->nodeid);
		if (first && backing > 0)
			backing_close(h, (uint32_t)backing);
		note->backing_opened = 0;
		return -ENFILE;
	}
	if (backing > 0) {
		out->open_flags = (out->open_flags & ~(uint32_t)(FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE)) |
				  FOPEN_PASSTHROUGH;
		memcpy((unsigned char *)out + FE_OPEN_OUT_BACKING_ID, &backing, sizeof(backing));
	}
	if (!dir && h->shared->passthrough == PASSES_MODULE)
		backing_give(h, s, n, &pub, &(struct fe_handle){ .fh = out->fh, .record = hd->record }, flags);
	if (!dir && h->be->opened)
		h->be->opened(h->priv, &pub, &(struct fe_handle){ .fh = out->fh, .record = hd->record });
	return 0;
}

/* The backend's release() comes first and may come twice: it leaves a record that owns nothing. */
void handle_remove(struct fe_host *h, const struct fe_request *req, uint64_t fh, bool dir,
		   const struct fe_release *how)
{
	struct fe_handle pub;
	struct handle *hd = handle_get(h, fh, dir, &pub);
	struct fr_slot *s;
	struct note *note;
	struct fe_node node;
	struct node *n = hd ? node_at(h, hd, &node) : NULL;
	pthread_mutex_t *lock;
	bool held;

	if (!n)
		return;
	if (dir && h->be->releasedir)
		h->be->releasedir(h->priv, req, &node, &pub);
	else if (!dir && h->be->release)
		h->be->release(h->priv, req, &node, &pub, how);
	held = hd->held;
	s = step_slot(h);
	note = fr_slot_note(s);
	lock = node_open_lock(h, node.nodeid);
	pthread_mutex_lock(lock);
	/* Before the handle ends: then a successor does it again. */
	if (h->hook && !dir && n->nopen == 1 && n->backing_id < 0)
		extfuse_backing(h->hook, node.nodeid, -1);
	fr_key_lock(h->nodes, n->hash);
	fr_begin(s);
	fr_set(s, n->handles, n->handles - 1);
	fr_set(s, n->writers, n->writers - hd->writes);
	fr_set(s, n->nopen, n->nopen - !dir);
	if (!dir && !n->nopen) {
		fr_set(s, note->backing_close, n->backing_id > 0 ? (uint32_t)n->backing_id : 0);
		fr_set(s, n->backing_id, 0);
	}
	fr_set(s, hd->nodeid, 0);
	fr_free_record(s, h->handles, hd);
	node_settle(h, s, n);
	pthread_mutex_unlock(lock);
	if (note->backing_close)
		backing_close(h, note->backing_close);
	note->backing_close = 0;
	/* A successor counts anew by the handles that there are. */
	if (held && h->hook)
		extfuse_unhold(h->hook, node.nodeid);
	step_slot_done(h);
}

static int remove_one(void *arg, uint64_t id, void *record)
{
	struct fe_request req = { .supp_group = FE_NO_GROUP };
	struct fe_release how = { 0 };
	struct handle *hd = record;

	handle_remove(arg, &req, id, hd->dir, &how);
	return 0;
}

void handles_fini(struct fe_host *h)
{
	fr_table_each(h->handles, remove_one, h);
}
