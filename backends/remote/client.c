/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests and who waits for them. */
#include "backends/remote/client.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"

#define LOOK_NS		1000000000u	/* how often somebody who waits is looked after */
#define END_NS		5000000000u	/* what a server gets for answering when it is unmounted */

/* Rounds of this thread: one within another waits for nobody who waits for the outer one. */
static _Thread_local unsigned depth;

/* Deadlines are of CLOCK_MONOTONIC. */
static void cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

void client_init(struct client *c, const struct client_options *opt)
{
	c->opt = *opt;
	c->fd = -1;
	c->started = c->ended = c->up = c->alone = false;
	atomic_store(&c->closing, false);
	c->opt.closing = &c->closing;
	c->rounds = c->want_alone = 0;
	atomic_store(&c->end_by, 0);
	c->child = 0;
	memset(c->tags, 0, sizeof(c->tags));
	memset(c->flushing, 0, sizeof(c->flushing));
	for (unsigned i = 0; i < TAGS; i++)
		c->free_tags[i] = (uint16_t)i;
	c->free_at = 0;
	c->free_count = TAGS;
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->send_lock, NULL);
	cond_init(&c->ready);
	cond_init(&c->tag_free);
}

void waiter_begin(struct waiter *w, struct client *c, uint32_t pid)
{
	*w = (struct waiter){ .client = c, .pid = pid };
	if (c->opt.soft)
		w->deadline = clock_ns() + c->opt.timeout;
	cond_init(&w->cond);
}

void waiter_end(struct waiter *w)
{
	pthread_cond_destroy(&w->cond);
}

/* SIGKILL is pending for a process that any other fatal signal has reached, too. */
static bool being_killed(uint32_t pid)
{
	char path[40], line[128];
	unsigned long long set;
	bool killed = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%u/status", pid);
	f = pid ? fopen(path, "re") : NULL;
	while (f && !killed && fgets(line, sizeof(line), f))
		killed = (sscanf(line, "SigPnd: %llx", &set) == 1 || sscanf(line, "ShdPnd: %llx", &set) == 1) &&
			 set >> (SIGKILL - 1) & 1;
	if (f)
		fclose(f);
	return killed;
}

int waiter_gives_up(struct waiter *w)
{
	struct client *c = w->client;
	uint64_t now = clock_ns(), end_by = atomic_load(&c->end_by);

	if (w->deadline && now >= w->deadline)
		return -ETIMEDOUT;
	if (!end_by && c->opt.ended && c->opt.ended(c->opt.arg))
		atomic_store(&c->end_by, now + END_NS);
	if (end_by && now >= end_by)
		return -ECANCELED;
	return being_killed(w->pid) ? -EINTR : 0;
}

/* With the client locked: on a condition, until the deadline, or until nobody wants to know any more. */
static int wait_on(struct waiter *w, pthread_cond_t *cond)
{
	struct client *c = w->client;
	uint64_t now = clock_ns(), end = now + LOOK_NS;
	struct timespec until;
	int err;

	if (w->deadline && w->deadline < end)
		end = w->deadline;
	until = timespec_of(end);
	err = pthread_cond_timedwait(cond, &c->lock, &until);
	if (err != ETIMEDOUT)
		return 0;
	return waiter_gives_up(w);
}

static bool may_begin(const struct client *c, bool alone)
{
	if (!c->up)
		return false;
	return depth || (!c->alone && (alone ? !c->rounds : !c->want_alone));
}

uint32_t client_round(struct waiter *w, bool alone, int *err)
{
	struct client *c = w->client;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c->lock);

	*err = 0;
	alone = alone && !depth;
	c->want_alone += alone;
	while (!*err && !may_begin(c, alone))
		*err = c->closing ? -ECANCELED : wait_on(w, &c->ready);
	c->want_alone -= alone;
	if (*err) {
		pthread_cond_broadcast(&c->ready);
		return 0;
	}
	c->alone |= alone;
	c->rounds++;
	depth++;
	w->in_round = true;
	w->alone = alone;
	w->answers = 0;
	return c->epoch;
}

void client_round_end(struct waiter *w)
{
	struct client *c = w->client;

	if (!w->in_round)
		return;
	pthread_mutex_lock(&c->lock);
	c->rounds--;
	depth--;
	w->in_round = false;
	if (w->alone)
		c->alone = false;
	if (w->alone || (c->want_alone && !c->rounds))
		pthread_cond_broadcast(&c->ready);
	pthread_mutex_unlock(&c->lock);
}

struct rpc *rpc_new(struct waiter *w, uint8_t type)
{
	struct rpc *r = malloc(sizeof(*r));

	if (!r)
		return NULL;
	memset(r, 0, offsetof(struct rpc, reply));
	r->client = w->client;
	r->waiter = w;
	r->type = type;
	p9_begin(&r->out, r->message, sizeof(r->message), type);
	return r;
}

/* With the client locked. */
static int tag_take(struct rpc *r, uint32_t epoch)
{
	struct client *c = r->client;
	int err = 0;

	while (!err && c->up && c->epoch == epoch && !c->free_count)
		err = wait_on(r->waiter, &c->tag_free);
	if (err)
		return err;
	if (!c->up || c->epoch != epoch)
		return LOST;
	r->tag = c->free_tags[c->free_at];
	c->free_at = (c->free_at + 1) % TAGS;
	c->free_count--;
	c->tags[r->tag] = r;
	r->epoch = epoch;
	r->state = RPC_FLYING;
	return 0;
}

/*
 * With the send_lock. One whose connection has ended was ended as LOST, and fd may be the next connection's before
 * that has an epoch.
 */
static bool is_flying(const struct rpc *r)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->client->lock);

	return r->state == RPC_FLYING;
}

int rpc_send(struct rpc *r, uint32_t epoch)
{
	struct client *c = r->client;
	size_t size;
	int err;

	if (r->out.over)
		return r->error = -ENAMETOOLONG;
	pthread_mutex_lock(&c->lock);
	err = tag_take(r, epoch);
	pthread_mutex_unlock(&c->lock);
	if (err)
		return r->error = err;
	size = p9_end(&r->out, r->tag, r->payload_size);
	pthread_mutex_lock(&c->send_lock);
	if (is_flying(r)) {
		err = send_all(&c->opt, c->fd, r->out.base, size, r->payload, r->payload_size);
		atomic_fetch_add(&c->sent, size + r->payload_size);
		if (err)
			shutdown(c->fd, SHUT_RDWR); /* the thread that reads ends all */
	}
	pthread_mutex_unlock(&c->send_lock);
	return 0;
}

/*
 * A request has no answer any more when its Tflush has one; it may have had one before, or that is coming in. Until
 * then its tag is the server's, which might drop another request of that tag.
 */
static void flushed(struct client *c, const struct rpc *f)
{
	uint16_t tag = f->flushed_tag;
	struct rpc *r;

	pthread_mutex_lock(&c->lock);
	r = c->tags[tag];
	c->flushing[tag] = false;
	if (!r)
		tag_give(c, tag);
	else if (!f->error && r->state == RPC_FLYING)
		r = rpc_over(c, r, LOST);
	else
		r = NULL;
	pthread_mutex_unlock(&c->lock);
	rpc_free_detached(c, r);
}

/*
 * Interrupted, or too late: the server is asked to drop what has this tag. Whoever asked for it takes no answer, but
 * one may have come.
 */
static void flush_old(struct client *c, uint16_t tag, uint32_t epoch)
{
	struct waiter w = { .client = c, .deadline = clock_ns() + c->opt.timeout };
	struct rpc *f;

	cond_init(&w.cond);
	f = rpc_new(&w, P9_TFLUSH);
	if (f) {
		p9_put16(&f->out, tag);
		f->done = flushed;
		f->flushed_tag = tag;
		/* A server that does not answer the one need not answer the other. */
		rpc_send(f, epoch);
		rpc_end(f);
	} else {
		flushed(c, &(struct rpc){ .flushed_tag = tag, .error = -ENOMEM });
	}
	pthread_cond_destroy(&w.cond);
}

int rpc_wait(struct rpc *r)
{
	struct client *c = r->client;
	struct waiter *w = r->waiter;
	int err = 0;

	pthread_mutex_lock(&c->lock);
	if (r->state == RPC_NEW) {
		pthread_mutex_unlock(&c->lock);
		return r->error ? r->error : LOST;
	}
	while (r->state != RPC_DONE) {
		/* What is arriving is written to the caller's memory; the one who reads gives up in time. */
		if (r->state == RPC_ARRIVING) {
			pthread_cond_wait(&w->cond, &c->lock);
			continue;
		}
		err = wait_on(w, &w->cond);
		if (err && r->state != RPC_ARRIVING)
			break;
	}
	if (r->state == RPC_DONE) {
		err = r->error;
		w->answers += err != LOST;
		pthread_mutex_unlock(&c->lock);
		return err;
	}
	/* The answer, if one comes, is for nobody. */
	r->into = NULL;
	r->room = 0;
	c->flushing[r->tag] = true;
	pthread_mutex_unlock(&c->lock);
	flush_old(c, r->tag, r->epoch);
	return err;
}

void rpc_end(struct rpc *r)
{
	struct client *c = r->client;
	bool done;

	pthread_mutex_lock(&c->lock);
	while (r->state == RPC_ARRIVING && r->waiter)
		pthread_cond_wait(&r->waiter->cond, &c->lock);
	done = r->state == RPC_NEW || r->state == RPC_DONE;
	r->detached = true;
	r->waiter = NULL;
	if (!done) {
		r->into = NULL;
		r->room = 0;
	}
	pthread_mutex_unlock(&c->lock);
	if (!done)
		return;
	if (r->done)
		r->done(c, r);
	free(r);
}
