/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks, and requests that are answered later because somebody has to wait. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "host/internal.h"
#include "libfuserecover/killpoint.h"

static int park(struct call *c, uint64_t *token)
{
	struct fe_host *h = c->host;
	struct fr_slot *s = c->worker->slot;
	struct parked *p;
	struct fe_node held;
	int err = node_get(h, c->node.nodeid, &held);

	if (err)
		return err;
	pthread_mutex_lock(&h->parked_lock);
	fr_begin(s);
	p = fr_alloc_record(s, h->parked);
	if (p) {
		p->fd = c->worker->fd;
		p->opcode = c->in->opcode;
		p->nodeid = c->node.nodeid;
		p->unique = c->in->unique;
		memcpy(&p->lock, c->arg, sizeof(p->lock));
		*token = fr_record_id(h->parked, p);
		fr_set(s, c->note->parked, *token);
	}
	fr_commit(s);
	pthread_mutex_unlock(&h->parked_lock);
	if (!p)
		node_put(h, &held);
	else
		fr_helper_enter(h->fr);
	return p ? 0 : -ENOLCK;
}

/* Ends the record, if its answer was noted or was not, as `answered` says; false where it is none such. */
static bool parked_remove(struct fe_host *h, uint64_t token, bool answered, struct parked *copy)
{
	struct fr_slot *s = step_slot(h);
	struct parked *p;
	bool found;

	pthread_mutex_lock(&h->parked_lock);
	p = fr_record(h->parked, token);
	found = p && p->unique && p->answered == answered;
	if (found) {
		*copy = *p;
		fr_begin(s);
		fr_free_record(s, h->parked, p);
		fr_commit(s);
	}
	pthread_mutex_unlock(&h->parked_lock);
	step_slot_done(h);
	return found;
}

static void parked_drop_node(struct fe_host *h, const struct parked *p)
{
	struct node *n = fr_record(h->nodes, p->nodeid);

	if (n)
		node_put(h, &(struct fe_node){ .nodeid = p->nodeid, .record = n->record });
}

static void unpark(struct fe_host *h, uint64_t token)
{
	struct parked p;

	if (!parked_remove(h, token, false, &p))
		return;
	parked_drop_node(h, &p);
	fr_helper_leave(h->fr);
}

void unpark_of_dead(struct fe_host *h, uint64_t token, unsigned index)
{
	struct parked *p = fr_record(h->parked, token), copy;

	if (!p)
		return;
	/* The INTERRUPT was done with, and does not come again. */
	if (p->interrupted)
		atomic_store(&h->shared->interrupted[index], p->unique);
	FR_STEP();
	parked_remove(h, token, p->answered, &copy);
}

/* From here on a successor sends this answer, and nobody else gives another one. */
static bool parked_answer(struct fe_host *h, uint64_t token, int error, struct parked *copy)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&h->parked_lock);
	struct parked *p = fr_record(h->parked, token);

	if (!p || !p->unique || p->answered)
		return false;
	p->error = error;
	__atomic_store_n(&p->answered, 1, __ATOMIC_RELEASE);
	*copy = *p;
	return true;
}

void parked_complete(void *host, uint64_t token, int error)
{
	struct fe_host *h = host;
	struct parked p;

	FR_STEP();
	if (!parked_answer(h, token, error > 0 ? -EIO : error, &p))
		return;
	FR_STEP();
	reply_error(p.fd, p.unique, p.error);
	FR_STEP();
	parked_remove(h, token, true, &p);
	parked_drop_node(h, &p);
	fr_helper_leave(h->fr);
}

/* An INTERRUPT may come between park() and the backend's answer: it is passed on once more. */
static void parked_recheck(struct call *c, uint64_t token)
{
	struct fe_host *h = c->host;
	struct parked *p;
	bool asked;

	pthread_mutex_lock(&h->parked_lock);
	p = fr_record(h->parked, token);
	asked = atomic_load(&h->shared->interrupted[c->worker->index]) == c->in->unique || (p && p->interrupted);
	pthread_mutex_unlock(&h->parked_lock);
	if (asked && h->be->interrupt)
		h->be->interrupt(h->priv, token);
}

struct wanted {
	uint64_t unique;
	uint64_t token;
};

static int interrupt_one(void *arg, uint64_t id, void *record)
{
	struct wanted *w = arg;
	struct parked *p = record;

	if (p->unique != w->unique)
		return 0;
	p->interrupted = 1;
	w->token = id;
	return 1;
}

/* With parked_lock held. The token of a parked request, 0 where it is not parked. */
static uint64_t parked_interrupt(struct fe_host *h, uint64_t unique)
{
	struct wanted w = { .unique = unique };

	if (fr_table_used(h->parked))
		fr_table_each(h->parked, interrupt_one, &w);
	return w.token;
}

/*
 * Of a request that another worker may be reading just now. An INTERRUPT comes after its request was
 * read, so whatever is seen of others is not what it asks for.
 */
__attribute__((noinline, no_sanitize("thread")))
static uint64_t unique_in(const struct worker *w)
{
	const struct fuse_in_header *in = (const void *)w->in;

	return *(const volatile uint64_t *)&in->unique;
}

/* Noted where the request still is in its slot. */
static void note_interrupt(struct fe_host *h, uint64_t unique)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&h->pool.lock);

	for (unsigned i = 0; i < h->pool.count; i++) {
		struct worker *w = h->pool.workers[i];

		if (unique_in(w) == unique)
			atomic_store(&h->shared->interrupted[w->index], unique);
	}
}

int64_t op_interrupt(struct call *c)
{
	const struct fuse_interrupt_in *in = (const void *)c->arg;
	struct fe_host *h = c->host;
	uint64_t token;

	/* Both under the lock: a request that is parked in between would not hear of it. And both in any case:
	 * a successor gives the record back and parks the request anew. */
	pthread_mutex_lock(&h->parked_lock);
	token = in->unique ? parked_interrupt(h, in->unique) : 0;
	note_interrupt(h, in->unique);
	pthread_mutex_unlock(&h->parked_lock);
	if (token && h->be->interrupt)
		h->be->interrupt(h->priv, token);
	return NO_REPLY;
}

static int lock_handle(struct call *c, uint64_t fh, struct fe_handle *hd, struct fe_handle **out)
{
	struct handle *found = handle_get(c->host, fh, false, hd);

	if (!found)
		found = handle_get(c->host, fh, true, hd); /* flock on a directory */
	*out = found && found->nodeid == c->node.nodeid ? hd : NULL;
	return *out ? 0 : -EBADF;
}

static struct fe_lock lock_of(const struct fuse_lk_in *in)
{
	return (struct fe_lock){
		.start = in->lk.start,
		.end = in->lk.end,
		.owner = in->owner,
		.type = in->lk.type,
		.pid = in->lk.pid,
		.flock = !!(in->lk_flags & FUSE_LK_FLOCK),
	};
}

int64_t op_getlk(struct call *c)
{
	const struct fuse_lk_in *in = (const void *)c->arg;
	struct fuse_lk_out *out = (void *)c->out;
	struct fe_lock lock = lock_of(in);
	struct fe_handle hd, *handle;
	int err;

	if (!c->host->be->getlk)
		return -ENOSYS;
	err = lock_handle(c, in->fh, &hd, &handle);
	if (!err)
		err = c->host->be->getlk(c->host->priv, &c->req, &c->node, handle, &lock);
	if (err)
		return err;
	*out = (struct fuse_lk_out){
		.lk = { .start = lock.start, .end = lock.end, .type = lock.type, .pid = lock.pid },
	};
	return sizeof(*out);
}

static int64_t set_lock(struct call *c, bool wait)
{
	const struct fuse_lk_in *in = (const void *)c->arg;
	struct fe_lock lock = lock_of(in);
	struct fe_handle hd, *handle;
	uint64_t token;
	int err;

	if (!c->host->be->setlk)
		return -ENOSYS;
	err = lock_handle(c, in->fh, &hd, &handle);
	if (err)
		return err;
	lock.wait = wait && lock.type != F_UNLCK;
	if (!lock.wait)
		return c->host->be->setlk(c->host->priv, &c->req, &c->node, handle, &lock);
	err = park(c, &token);
	if (err)
		return err;
	c->req.token = token;
	err = c->host->be->setlk(c->host->priv, &c->req, &c->node, handle, &lock);
	if (err == FE_PENDING) {
		parked_recheck(c, token);
		return PARKED;
	}
	unpark(c->host, token);
	return err;
}

int64_t op_setlk(struct call *c)
{
	return set_lock(c, false);
}

int64_t op_setlkw(struct call *c)
{
	return set_lock(c, true);
}

static bool is_connection(const struct fe_host *h, int fd)
{
	bool found = fd == h->shared->fd;

	for (unsigned i = 0; i < FR_SLOTS_MAX && !found; i++)
		found = h->shared->clones[i] > 0 && h->shared->clones[i] == fd;
	return found;
}

/* Its number has been overwritten: who waits is told by whichever connection it is that knows it. */
static void refuse(struct fe_host *h, const struct parked *p)
{
	int err = p->answered ? p->error : -EIO;

	fe_log(LOG_ERR, "the record of a lock that waits is damaged: descriptor %d is no connection; its caller gets %d",
	       p->fd, err);
	reply_error(h->shared->fd, p->unique, err);
	for (unsigned i = 0; i < FR_SLOTS_MAX; i++)
		if (h->shared->clones[i] > 0)
			reply_error(h->shared->clones[i], p->unique, err);
}

/* One that waited when its process died: the lock is asked for once more, by the same owner. */
static int resume_one(void *arg, uint64_t token, void *record)
{
	struct fe_host *h = arg;
	struct parked *p = record, copy;
	struct fe_request req = {
		.unique = p->unique, .token = token, .opcode = p->opcode, .supp_group = FE_NO_GROUP, .again = 1,
	};
	struct fe_lock lock = lock_of(&p->lock);
	struct fe_node node;
	struct fe_handle hd;
	int err = -EINTR;

	if (!p->unique)
		return 0;
	if (!is_connection(h, p->fd)) {
		refuse(h, p);
		parked_remove(h, token, p->answered, &copy);
		return 0;
	}
	/* It may have been sent, which nobody minds. */
	if (p->answered)
		reply_error(p->fd, p->unique, p->error);
	/* Its reference to the node went with its process. */
	if (p->answered || !fr_outstanding(p->fd, p->unique)) {
		parked_remove(h, token, p->answered, &copy);
		return 0;
	}
	if (node_get(h, p->nodeid, &node)) {
		reply_error(p->fd, p->unique, -EIO);
		parked_remove(h, token, false, &copy);
		return 0;
	}
	fr_helper_enter(h->fr);
	/* One that was interrupted may have got its lock just before, and keeps it then. */
	lock.wait = !p->interrupted;
	if (handle_get(h, p->lock.fh, false, &hd) || handle_get(h, p->lock.fh, true, &hd))
		err = h->be->setlk(h->priv, &req, &node, &hd, &lock);
	if (!lock.wait && (err == -EAGAIN || err == -EACCES))
		err = -EINTR;
	if (err != FE_PENDING)
		parked_complete(h, token, err);
	return 0;
}

void parked_resume(struct fe_host *h)
{
	if (fr_table_used(h->parked))
		fr_table_each(h->parked, resume_one, h);
}
