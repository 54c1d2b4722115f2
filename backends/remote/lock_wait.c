/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who waits for a lock, and the thread that asks again: when somebody here has given one up, after a while
 * where another client is in the way, and on each new connection for all that was held.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "backends/remote/locks.h"

#define MAX_CIRCLE	16
#define PAUSE_FIRST	20000000u	/* ns */
#define PAUSE_MOST	1000000000u
#define ASK_NS		5000000000u	/* a server that does not answer keeps nobody longer from being killed */

void lock_wait_init(struct locks *l)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->changed, &attr);
	pthread_condattr_destroy(&attr);
	l->started = l->closing = false;
	l->waiters = NULL;
	l->epoch = 0;
	l->pause = PAUSE_FIRST;
}

/* A round of its own: what is lost, or takes too long, is asked for again later. */
static void ask_begin(struct op *op, struct remote *r, uint32_t uid, uint32_t pid)
{
	op_begin(op, r, NULL);
	op->uid = uid;
	op->waiter.pid = pid;
	op->waiter.deadline = clock_ns() + ASK_NS;
}

static bool is_later(int64_t err)
{
	return err == LOST || err == -ETIMEDOUT;
}

static int try_one(struct remote *r, const struct lock_waiter *w, uint64_t *blocker)
{
	_cleanup_op_ struct op op;

	*blocker = 0;
	ask_begin(&op, r, w->want.uid, w->pid);
	while (op_next(&op)) {
		op.result = lock_set(&op, &w->want, blocker);
		if (op.result == LOST)
			break;
	}
	if (!op.result)
		r->services->inval_inode(r->host, r->services->nodeid_of_key(r->host, &w->want.key), -1, 0);
	return is_later(op.result) ? -EAGAIN : (int)op.result;
}

/* Whether all that was held on other connections is held on this one, or lost. */
static bool ask_again(struct remote *r, uint32_t epoch)
{
	struct r_key key, next;

	while (lock_stale(r, epoch, &key)) {
		_cleanup_op_ struct op op;

		ask_begin(&op, r, r->uid, 0);
		while (op_next(&op)) {
			op.result = lock_ready(&op, &key);
			if (op.result == LOST)
				break;
		}
		if ((op.result && op.result != -EIO) || (lock_stale(r, epoch, &next) && key_equal(&key, &next)))
			return false;
	}
	return true;
}

static void waiter_remove(struct locks *l, struct lock_waiter *gone)
{
	struct lock_waiter **at = &l->waiters;

	while (*at != gone)
		at = &(*at)->next;
	*at = gone->next;
	free(gone);
}

/* With the lock, let go meanwhile. Only this thread takes waiters off the list. */
static void try_all(struct remote *r)
{
	struct locks *l = r->locks;

	for (struct lock_waiter *w = l->waiters, *next; w && !l->closing; w = next) {
		uint64_t token = w->token, blocker = w->blocker;
		int err = -EAGAIN;

		if (!w->interrupted) {
			pthread_mutex_unlock(&l->lock);
			err = try_one(r, w, &blocker);
			pthread_mutex_lock(&l->lock);
		}
		w->blocker = blocker;
		if (err == -EAGAIN && w->interrupted)
			err = -EINTR;
		next = w->next;
		if (err == -EAGAIN)
			continue;
		waiter_remove(l, w);
		pthread_mutex_unlock(&l->lock);
		r->services->complete(r->host, token, err);
		pthread_mutex_lock(&l->lock);
	}
}

static void tell_kernel(struct remote *r)
{
	struct r_key key;

	while (lock_untold(r, &key)) {
		uint64_t nodeid = r->services->nodeid_of_key(r->host, &key);

		if (nodeid)
			r->services->inval_inode(r->host, nodeid, 0, 0);
	}
}

/* With the lock, let go meanwhile. */
static void pass(struct remote *r)
{
	uint32_t epoch = __atomic_load_n(&r->client.epoch, __ATOMIC_ACQUIRE);
	struct locks *l = r->locks;
	bool done = l->epoch == epoch;

	pthread_mutex_unlock(&l->lock);
	r->services->helper_enter(r->host);
	done = done || ask_again(r, epoch);
	tell_kernel(r);
	r->services->helper_leave(r->host);
	pthread_mutex_lock(&l->lock);
	if (done)
		l->epoch = epoch;
	l->asks = !done;
	try_all(r);
}

static bool somebody_elsewhere(const struct locks *l)
{
	for (const struct lock_waiter *w = l->waiters; w; w = w->next)
		if (!w->blocker)
			return true;
	return false;
}

static void rest(struct locks *l)
{
	const struct timespec until = timespec_of(clock_ns() + l->pause);

	if (!l->asks && !somebody_elsewhere(l)) {
		pthread_cond_wait(&l->changed, &l->lock);
		return;
	}
	pthread_cond_timedwait(&l->changed, &l->lock, &until);
	l->pause = l->pause * 2 < PAUSE_MOST ? l->pause * 2 : PAUSE_MOST;
}

static void *lock_main(void *arg)
{
	struct remote *r = arg;
	struct locks *l = r->locks;

	client_start(&r->client);
	pthread_mutex_lock(&l->lock);
	while (!l->closing) {
		l->kicked = false;
		pass(r);
		if (!l->kicked && !l->closing)
			rest(l);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

/* With the lock. */
static int thread_start(struct remote *r)
{
	struct locks *l = r->locks;
	sigset_t all, saved;
	int err;

	if (l->started || l->closing)
		return 0;
	/* Signals are for the threads of the host. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	err = -pthread_create(&l->thread, NULL, lock_main, r);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	l->started = !err;
	return err;
}

void lock_kick(struct remote *r)
{
	struct locks *l = r->locks;
	_cleanup_unlock_ pthread_mutex_t *held = NULL;

	if (!l)
		return;
	held = fe_lock(&l->lock);
	if (!l->waiters && !atomic_load(&l->files))
		return;
	thread_start(r);
	l->kicked = true;
	pthread_cond_broadcast(&l->changed);
}

/* Whether `owner` waits for `first`, at last. */
static bool in_circle(const struct locks *l, uint64_t first, uint64_t owner)
{
	for (int i = 0; i < MAX_CIRCLE && owner; i++) {
		const struct lock_waiter *w = l->waiters;

		if (owner == first)
			return true;
		while (w && (w->want.flock || w->want.owner != owner))
			w = w->next;
		owner = w ? w->blocker : 0;
	}
	return false;
}

int lock_wait(struct remote *r, const struct fe_request *req, const struct r_range *want, uint64_t blocker)
{
	struct locks *l = r->locks;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&l->lock);
	struct lock_waiter *w, **last = &l->waiters;
	int err;

	if (!want->flock && in_circle(l, want->owner, blocker))
		return -EDEADLK;
	w = malloc(sizeof(*w));
	err = w ? thread_start(r) : -ENOLCK;
	if (err) {
		free(w);
		return -ENOLCK;
	}
	*w = (struct lock_waiter){ .token = req->token, .want = *want, .blocker = blocker, .pid = req->pid };
	while (*last)
		last = &(*last)->next;
	*last = w;
	/* What was in the way may be gone by now. */
	l->pause = PAUSE_FIRST;
	l->kicked = true;
	pthread_cond_broadcast(&l->changed);
	return FE_PENDING;
}

void remote_interrupt(void *b, uint64_t token)
{
	struct remote *r = b;
	struct locks *l = r->locks;
	_cleanup_unlock_ pthread_mutex_t *held = NULL;

	if (!l)
		return;
	held = fe_lock(&l->lock);
	for (struct lock_waiter *w = l->waiters; w; w = w->next) {
		if (w->token != token)
			continue;
		w->interrupted = true;
		l->kicked = true;
		pthread_cond_broadcast(&l->changed);
	}
}

unsigned lock_waiters(struct locks *l, uint32_t epoch, bool *settled)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&l->lock);
	unsigned n = 0;

	for (const struct lock_waiter *w = l->waiters; w; w = w->next)
		n++;
	*settled = !atomic_load(&l->files) || l->epoch == epoch;
	return n;
}

void lock_wait_stop(struct locks *l)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&l->lock);

	l->closing = true;
	pthread_cond_broadcast(&l->changed);
}

void lock_wait_end(struct locks *l)
{
	if (l->started)
		pthread_join(l->thread, NULL);
	while (l->waiters)
		waiter_remove(l, l->waiters);
}
