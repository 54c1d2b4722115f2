/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A READ does not overtake a WRITE to the same bytes that came before it. The kernel lets go of a cached page
 * when it has sent what was written there; an open may drop the page then, and the next read asks for it again.
 * What that got if it came first would be cached from then on, and written back where somebody maps it.
 */
#include <time.h>

#include "base/cleanup.h"
#include "host/internal.h"

#define PATIENCE 10	/* seconds: who waits can not be killed, and a backend may wait for a server for ever */

void orders_init(struct fe_host *h)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	for (int i = 0; i < STRIPES; i++) {
		struct order *o = &h->orders[i];

		pthread_mutex_init(&o->lock, NULL);
		pthread_cond_init(&o->ended, &attr);
		o->first = NULL;
	}
	pthread_condattr_destroy(&attr);
}

static struct order *order_of(struct fe_host *h, uint64_t nodeid)
{
	return &h->orders[(uint32_t)nodeid % STRIPES];
}

bool order_begin(const struct worker *w, struct writing *mine)
{
	const struct fuse_in_header *in = (const void *)w->in;
	const struct fuse_write_in *write = (const void *)(in + 1);
	_cleanup_unlock_ pthread_mutex_t *held = NULL;
	struct order *o;

	if (in->opcode != FUSE_WRITE || in->len < sizeof(*in) + sizeof(*write))
		return false;
	o = order_of(w->host, in->nodeid);
	held = fe_lock(&o->lock);
	*mine = (struct writing){ o->first, in->nodeid, write->offset, write->offset + write->size, ++o->last };
	o->first = mine;
	return true;
}

void order_end(struct fe_host *h, struct writing *gone)
{
	struct order *o = order_of(h, gone->nodeid);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&o->lock);
	struct writing **at = &o->first;

	while (*at != gone)
		at = &(*at)->next;
	*at = gone->next;
	pthread_cond_broadcast(&o->ended);
}

static bool under_way(const struct order *o, uint64_t nodeid, uint64_t start, uint64_t end, uint64_t last)
{
	for (const struct writing *w = o->first; w; w = w->next)
		if (w->nodeid == nodeid && w->start < end && start < w->end && w->number <= last)
			return true;
	return false;
}

void order_read(struct fe_host *h, uint64_t nodeid, uint64_t start, uint64_t size)
{
	struct order *o = order_of(h, nodeid);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&o->lock);
	const uint64_t last = o->last;
	struct timespec until;

	if (!under_way(o, nodeid, start, start + size, last))
		return;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += PATIENCE;
	while (under_way(o, nodeid, start, start + size, last))
		if (pthread_cond_timedwait(&o->ended, &o->lock, &until))
			return;
}
