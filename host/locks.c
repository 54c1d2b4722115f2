/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks, and requests that are answered later because somebody has to wait. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/internal.h"

int park(struct call *c, uint64_t *token)
{
	struct fe_host *h = c->host;
	struct parked *p;
	struct fe_node held;
	int err = node_get(h, c->node.nodeid, &held);

	if (err)
		return err;
	pthread_mutex_lock(&h->parked_lock);
	p = (struct parked *)table_alloc(&h->parked);
	if (p) {
		p->fd = c->worker->fd;
		p->opcode = c->in->opcode;
		p->node = (uint32_t)c->node.nodeid;
		p->unique = c->in->unique;
		*token = table_id(&h->parked, &p->table);
	}
	pthread_mutex_unlock(&h->parked_lock);
	if (!p)
		node_put(h, &held);
	return p ? 0 : -ENOLCK;
}

/* Takes the record out of service, once; false where it is not in service. */
static bool parked_take(struct fe_host *h, uint64_t token, struct parked *copy)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&h->parked_lock);
	struct parked *p = (struct parked *)table_find(&h->parked, token);

	if (!p || !p->unique)
		return false;
	*copy = *p;
	p->unique = 0;
	table_free(&h->parked, &p->table);
	return true;
}

static void parked_drop_node(struct fe_host *h, const struct parked *p)
{
	struct node *n = (struct node *)(h->nodes.base + (size_t)p->node * h->nodes.record_size);

	node_put(h, &(struct fe_node){ .record = n->record });
}

void unpark(struct fe_host *h, uint64_t token)
{
	struct parked p;

	if (parked_take(h, token, &p))
		parked_drop_node(h, &p);
}

void parked_complete(void *host, uint64_t token, int error)
{
	struct fe_host *h = host;
	struct parked p;

	if (!parked_take(h, token, &p))
		return;
	reply_error(p.fd, p.unique, error > 0 ? -EIO : error);
	parked_drop_node(h, &p);
}

/* An INTERRUPT may come between park() and the backend's answer: it is passed on once more. */
static void parked_recheck(struct call *c, uint64_t token)
{
	struct fe_host *h = c->host;
	struct parked *p;
	bool asked;

	pthread_mutex_lock(&h->parked_lock);
	p = (struct parked *)table_find(&h->parked, token);
	asked = atomic_load(&c->worker->slot.interrupted) == c->in->unique || (p && p->interrupted);
	pthread_mutex_unlock(&h->parked_lock);
	if (asked && h->be->interrupt)
		h->be->interrupt(h->priv, token);
}

/* With parked_lock held. The token of a parked request, 0 where it is not parked. */
static uint64_t parked_interrupt(struct fe_host *h, uint64_t unique)
{
	for (uint32_t i = 1; i < h->parked.fresh; i++) {
		struct parked *p = (struct parked *)(h->parked.base + (size_t)i * h->parked.record_size);

		if (p->unique != unique)
			continue;
		p->interrupted = 1;
		return table_id(&h->parked, &p->table);
	}
	return 0;
}

/*
 * Of a request that another worker may be reading just now. An INTERRUPT comes after its request was
 * read, so whatever is seen of others is not what it asks for.
 */
__attribute__((noinline, no_sanitize("thread")))
static uint64_t unique_in(const struct slot *s)
{
	const struct fuse_in_header *in = (const void *)s->in;

	return *(const volatile uint64_t *)&in->unique;
}

/* Not parked yet, or answered already: noted where the request still is in its slot. */
static void note_interrupt(struct fe_host *h, uint64_t unique)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&h->pool.lock);

	for (unsigned i = 0; i < h->pool.count; i++) {
		struct slot *s = &h->pool.workers[i]->slot;

		if (unique_in(s) == unique)
			atomic_store(&s->interrupted, unique);
	}
}

int64_t op_interrupt(struct call *c)
{
	const struct fuse_interrupt_in *in = (const void *)c->arg;
	struct fe_host *h = c->host;
	uint64_t token;

	/* Both steps under the lock: a request that is parked in between would not hear of it. */
	pthread_mutex_lock(&h->parked_lock);
	token = in->unique ? parked_interrupt(h, in->unique) : 0;
	if (!token)
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
	*out = found && found->node == (uint32_t)c->node.nodeid ? hd : NULL;
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
		return NO_REPLY;
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
