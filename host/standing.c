/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handles that stay when the kernel releases them, where the hook runs: from then on the module answers whoever
 * opens the file for reading with such a handle, and the server sees neither that OPEN nor its RELEASE. Only the
 * module knows how often the handle is open. So what is to end is ended there first: where nobody has it open it
 * goes at once, else the last RELEASE comes up, and ends it.
 *
 * A file gets one when it is released for the second time. It goes when another file takes its place, when the
 * kernel forgets the node, with each OPEN that is not of this kind, where descriptors are short, and when a server
 * dies: its successor need not know how far it got.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "host/answers.h"

/* What makes a handle one of its own. */
#define SPECIAL (O_ACCMODE | O_APPEND | O_DIRECT | O_SYNC | O_DSYNC | O_NOATIME | O_TRUNC)

/* Most descriptors are for files that somebody has open. */
void standing_init(struct fe_host *h)
{
	struct rlimit limit = { .rlim_cur = 0 };
	unsigned places = STANDING_FILES;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur / 8 < places)
		places = (unsigned)limit.rlim_cur / 8;
	h->standing_places = places - places % STRIPES;
	memset(h->standing, 0, sizeof(h->standing));
}

static struct standing *standing_of(struct fe_host *h, uint64_t nodeid)
{
	return &h->standing[(uint32_t)nodeid % h->standing_places];
}

static uint64_t stands_at(const struct standing *place)
{
	return __atomic_load_n(&place->nodeid, __ATOMIC_RELAXED);
}

/* With the lock. */
static void put_at(struct standing *place, uint64_t nodeid, uint64_t fh)
{
	place->fh = fh;
	__atomic_store_n(&place->nodeid, nodeid, __ATOMIC_RELAXED);
}

/* Whether a file that is opened so may be opened by a handle that stands. */
static bool fit(const struct fe_host *h, uint32_t flags)
{
	uint32_t features = h->root.features;

	return h->hook && h->standing_places && features & FE_FEAT_STANDING &&
	       !(features & (FE_FEAT_LOCKS | FE_FEAT_FLOCK)) && h->be->backing_fd && h->opt.default_permissions &&
	       !h->opt.writeback && !(flags & SPECIAL);
}

/* The module tells who opens FE_OPEN_NOFLUSH and nothing else; how writes go does not matter to who reads. */
bool standing_fit(const struct fe_host *h, uint32_t flags, uint32_t told)
{
	return fit(h, flags) && (told & ~(uint32_t)FE_OPEN_PARALLEL_WRITES) == FE_OPEN_NOFLUSH;
}

static int file_of(struct fe_host *h, const struct handle *hd, struct fe_handle *pub)
{
	struct node *n = fr_record(h->nodes, hd->nodeid);

	return h->be->backing_fd(h->priv, &(struct fe_node){ .nodeid = hd->nodeid, .record = n->record }, pub);
}

/* Whether the caller is who removes it. */
static bool claimed(struct fe_host *h, uint64_t nodeid, uint64_t fh)
{
	struct fe_handle pub;
	struct handle *hd = handle_get(h, fh, false, &pub);
	_cleanup_unlock_ pthread_mutex_t *held = NULL;

	if (!hd || hd->nodeid != nodeid)
		return false;
	held = fe_lock(node_open_lock(h, nodeid));
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

	/* ENOENT: it had not come to stand, or its last RELEASE is on its way; ENOTSUP: none ever does. */
	if (opens && opens != -ENOENT && opens != -ENOTSUP) {
		if (opens < 0)
			fe_log(LOG_ERR, "the module does not tell how often a file is open: %s; it stays open",
			       strerror(-opens));
		return;
	}
	if (claimed(h, nodeid, fh))
		handle_remove(h, req, fh, false, &how);
}

/* Whether one stood. */
static bool end_at(struct fe_host *h, const struct fe_request *req, struct standing *place, uint64_t nodeid)
{
	pthread_mutex_t *lock = node_open_lock(h, nodeid);
	uint64_t fh = 0;

	if (!nodeid || stands_at(place) != nodeid)
		return false;
	pthread_mutex_lock(lock);
	if (place->nodeid == nodeid) {
		fh = place->fh;
		put_at(place, 0, 0);
		place->candidate = 0;
	}
	pthread_mutex_unlock(lock);
	if (fh)
		end_handle(h, req, nodeid, fh);
	return fh;
}

void standing_end(struct fe_host *h, const struct fe_request *req, uint64_t nodeid)
{
	if (h->standing_places)
		end_at(h, req, standing_of(h, nodeid), nodeid);
}

bool standing_make_room(struct call *c, int err)
{
	struct fe_host *h = c->host;
	bool made = false;

	if (err != -EMFILE && err != -ENFILE)
		return false;
	for (unsigned i = 0; i < h->standing_places; i++)
		made |= end_at(h, &c->req, &h->standing[i], stands_at(&h->standing[i]));
	return made;
}

static bool is_nameless(struct fe_host *h, uint64_t nodeid)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(node_open_lock(h, nodeid));
	struct standing *place = standing_of(h, nodeid);
	struct fe_handle pub;
	struct handle *hd = place->nodeid == nodeid ? handle_get(h, place->fh, false, &pub) : NULL;
	struct stat st;

	return hd && !fstat(file_of(h, hd, &pub), &st) && !st.st_nlink;
}

/*
 * Who writes decides anew how data pass. And a file that has no name any more is opened only for as long as it has
 * to be. Else the handle came to stand while this OPEN was under way, and they go together.
 */
void standing_open(struct call *c, uint32_t flags)
{
	struct fe_host *h = c->host;
	uint64_t nodeid = c->node.nodeid;

	if (!h->standing_places || stands_at(standing_of(h, nodeid)) != nodeid)
		return;
	if (!fit(h, flags) || is_nameless(h, nodeid))
		standing_end(h, &c->req, nodeid);
}

/* Marked first: so that a successor ends it, whether the module knows of it or not. */
static bool offer(struct fe_host *h, struct handle *hd, struct fe_handle *pub)
{
	struct node *n = fr_record(h->nodes, hd->nodeid);
	struct fuse_open_out out = { .fh = pub->fh, .open_flags = FOPEN_NOFLUSH };
	int32_t backing = n->backing_id;
	int fd, err;

	/* Who writes, or opens next, decides how data pass. */
	if (n->writers || h->standing_lacks || (h->shared->passthrough == PASSES_DRIVER && backing <= 0))
		return false;
	fd = file_of(h, hd, pub);
	if (fd < 0)
		return false;
	if (backing > 0) {
		out.open_flags |= FOPEN_PASSTHROUGH;
		memcpy((unsigned char *)&out + FE_OPEN_OUT_BACKING_ID, &backing, sizeof(backing));
	}
	__atomic_store_n(&hd->standing, STANDING, __ATOMIC_SEQ_CST);
	err = extfuse_standing(h->hook, hd->nodeid, fd, &out);
	if (err) {
		hd->standing = STANDING_FIT;
		h->standing_lacks = err == -ENOTSUP;
		return false;
	}
	/* It does not write, and that it reads is seen by the module. */
	if (hd->held) {
		hd->held = 0;
		extfuse_unhold(h->hook, hd->nodeid);
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
	/* Opened by a predecessor that had more descriptors. */
	if (!h->standing_places)
		return false;
	place = standing_of(h, nodeid);
	lock = node_open_lock(h, nodeid);
	pthread_mutex_lock(lock);
	if (place->candidate == nodeid && place->nodeid != nodeid)
		keeps = offer(h, hd, &pub);
	place->candidate = nodeid;
	if (keeps) {
		before = *place;
		put_at(place, nodeid, fh);
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
