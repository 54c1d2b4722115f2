/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handles that stay when the kernel releases them, where the hook runs: from then on the module answers whoever
 * opens the file for reading with such a handle, and the server sees neither that OPEN nor its RELEASE. Only the
 * module knows how often the handle is open. So what is to end is ended there first: where nobody has it open it
 * goes at once, else the last RELEASE comes up, and ends it.
 *
 * A file gets one when it is released for the second time. It goes when another file takes its place, when the
 * kernel forgets the node, with each OPEN that is not of this kind, and when a server dies: its successor need not
 * know how far it got.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "host/answers.h"

/* What makes a handle one of its own. */
#define SPECIAL (O_ACCMODE | O_APPEND | O_DIRECT | O_SYNC | O_DSYNC | O_NOATIME | O_TRUNC)

/* Both by the place in the table: so one of the locks for opens guards it. */
static struct standing *standing_of(struct fe_host *h, uint64_t nodeid)
{
	_Static_assert(STANDING_FILES % STRIPES == 0, "a place has one lock");
	return &h->standing[(uint32_t)nodeid % STANDING_FILES];
}

bool standing_fit(const struct fe_host *h, uint32_t flags)
{
	return h->hook && h->root.features & FE_FEAT_STANDING && h->opt.default_permissions && !h->opt.writeback &&
	       !(flags & SPECIAL);
}

/* Whether the caller is who removes it. */
static bool claimed(struct fe_host *h, uint64_t nodeid, uint64_t fh)
{
	struct fe_handle pub;
	struct handle *hd = handle_get(h, fh, false, &pub);
	_cleanup_unlock_ pthread_mutex_t *held = NULL;

	if (!hd || hd->nodeid != nodeid)
		return false;
	held = fe_lock(node_open_lock(h, &(struct fe_node){ .nodeid = nodeid }));
	if (handle_get(h, fh, false, &pub) != hd || hd->standing != STANDING)
		return false;
	hd->standing = STANDING_ENDED;
	return true;
}

/* Where it is open somewhere, its last RELEASE ends it. */
static void end_handle(struct fe_host *h, const struct fe_request *req, uint64_t nodeid, uint64_t fh)
{
	struct fe_release how = { 0 };
	int opens = extfuse_standing_end(h->hook, nodeid, fh);

	/* ENOENT: it had not come to stand, or its last RELEASE is on its way. */
	if (opens && opens != -ENOENT) {
		if (opens < 0)
			fe_log(LOG_ERR, "the module does not tell how often a file is open: %s; it stays open",
			       strerror(-opens));
		return;
	}
	if (claimed(h, nodeid, fh))
		handle_remove(h, req, fh, false, &how);
}

void standing_end(struct fe_host *h, const struct fe_request *req, uint64_t nodeid)
{
	struct standing *place = standing_of(h, nodeid);
	pthread_mutex_t *lock = node_open_lock(h, &(struct fe_node){ .nodeid = nodeid });
	uint64_t fh = 0;

	if (!h->hook || __atomic_load_n(&place->nodeid, __ATOMIC_RELAXED) != nodeid)
		return;
	pthread_mutex_lock(lock);
	if (place->nodeid == nodeid) {
		fh = place->fh;
		*place = (struct standing){ 0 };
	}
	pthread_mutex_unlock(lock);
	if (fh)
		end_handle(h, req, nodeid, fh);
}

/* Marked first: so that a successor ends it, whether the module knows of it or not. */
static bool give(struct fe_host *h, struct handle *hd, struct fe_handle *pub)
{
	struct fe_node node = { .nodeid = hd->nodeid };
	struct node *n = fr_record(h->nodes, hd->nodeid);
	struct fuse_open_out out = { .fh = pub->fh, .open_flags = FOPEN_NOFLUSH };
	int32_t backing = n->backing_id;
	int fd;

	/* Who writes, or opens next, decides how data pass. */
	if (n->writers || (h->shared->passthrough == PASSES_DRIVER && backing <= 0))
		return false;
	node.record = n->record;
	fd = h->be->backing_fd(h->priv, &node, pub);
	if (fd < 0)
		return false;
	if (backing > 0) {
		out.open_flags |= FOPEN_PASSTHROUGH;
		memcpy((unsigned char *)&out + FE_OPEN_OUT_BACKING_ID, &backing, sizeof(backing));
	}
	__atomic_store_n(&hd->standing, STANDING, __ATOMIC_SEQ_CST);
	if (extfuse_standing(h->hook, node.nodeid, fd, &out)) {
		hd->standing = STANDING_FIT;
		return false;
	}
	/* It does not write, and that it reads is seen by the module. */
	if (hd->held) {
		hd->held = 0;
		extfuse_unhold(h->hook, node.nodeid);
	}
	return true;
}

bool standing_keep(struct call *c, uint64_t fh)
{
	struct fe_host *h = c->host;
	struct fe_handle pub;
	struct handle *hd = handle_get(h, fh, false, &pub);
	struct standing *place, before = { 0 };
	pthread_mutex_t *lock;
	uint64_t nodeid;
	bool keeps = false;

	if (!hd || !h->hook || hd->standing == STANDING_NOT)
		return false;
	nodeid = hd->nodeid;
	/* The last RELEASE; or one that a predecessor has begun, and of what stood since. */
	if (hd->standing != STANDING_FIT) {
		end_handle(h, &c->req, nodeid, fh);
		return true;
	}
	place = standing_of(h, nodeid);
	lock = node_open_lock(h, &(struct fe_node){ .nodeid = nodeid });
	pthread_mutex_lock(lock);
	if (place->candidate == nodeid)
		keeps = give(h, hd, &pub);
	place->candidate = nodeid;
	if (keeps) {
		before = *place;
		place->nodeid = nodeid;
		place->fh = fh;
	}
	pthread_mutex_unlock(lock);
	if (before.fh)
		end_handle(h, &c->req, before.nodeid, before.fh);
	return keeps;
}

static int resume_one(void *arg, uint64_t id, void *record)
{
	struct fe_request req = { .supp_group = FE_NO_GROUP };
	struct fe_host *h = arg;
	struct handle *hd = record;

	if (!hd->nodeid || hd->dir || hd->standing < STANDING)
		return 0;
	/* Its predecessor may have died while it removed it. */
	hd->standing = STANDING;
	end_handle(h, &req, hd->nodeid, id);
	return 0;
}

void standing_resume(struct fe_host *h)
{
	if (h->hook)
		fr_table_each(h->handles, resume_one, h);
}
