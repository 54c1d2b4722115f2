/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fids of a connection. Those that nobody uses are kept for the next who needs the file, until there
 * are too many: servers have limits of their own, which show as a refused number.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/remote/remote.h"

#define ROOM	64u	/* fids given up at a time */
#define IDLE	8192u	/* kept for files that nobody uses: diod 1.0.24 looks for a fid among all */

void fids_init(struct fids *t, uint32_t limit)
{
	memset(t, 0, sizeof(*t));
	pthread_mutex_init(&t->lock, NULL);
	t->limit = limit;
	t->next = ROOT_FID + 1;
}

static uint32_t bucket_of(const struct r_key *key, uint32_t uid)
{
	return (key_hash(key) ^ uid * 2654435761u) % FID_BUCKETS;
}

/* All of these with the table locked. */

static void lru_remove(struct fids *t, struct fid *f)
{
	*(f->older ? &f->older->newer : &t->oldest) = f->newer;
	*(f->newer ? &f->newer->older : &t->newest) = f->older;
	f->older = f->newer = NULL;
	t->idle--;
}

static void lru_add(struct fids *t, struct fid *f)
{
	f->older = t->newest;
	f->newer = NULL;
	*(t->newest ? &t->newest->newer : &t->oldest) = f;
	t->newest = f;
	t->idle++;
}

static void hash_remove(struct fids *t, struct fid *f)
{
	struct fid **at = &t->buckets[bucket_of(&f->key, f->uid)];

	if (!f->cached)
		return;
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	f->cached = false;
}

static void number_free(struct fids *t, uint32_t number)
{
	t->by_number[number] = NULL;
	t->used--;
	if (number < t->limit)
		t->free[t->nfree++] = number;
}

/* Those of another connection are gone; who still uses one keeps an empty shell. */
static void new_epoch(struct fids *t, uint32_t epoch)
{
	if (t->epoch == epoch)
		return;
	for (uint32_t i = 0; i < t->next; i++) {
		struct fid *f = t->by_number[i];

		t->by_number[i] = NULL;
		if (!f)
			continue;
		f->cached = false;
		if (!f->refs)
			free(f);
	}
	memset(t->buckets, 0, sizeof(t->buckets));
	t->oldest = t->newest = NULL;
	t->next = ROOT_FID + 1;
	t->used = t->nfree = t->idle = 0;
	t->epoch = epoch;
}

static void clunked(struct client *c, const struct rpc *r)
{
	struct remote *remote = c->opt.arg;
	struct fids *t = &remote->fids;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&t->lock);

	if (t->epoch == r->epoch)
		number_free(t, r->fid);
}

/* Nobody waits for it; the number is free when the server has answered. */
static void clunk(struct op *op, uint32_t number, uint32_t epoch)
{
	struct rpc *r = call_new(op, P9_TCLUNK, number);

	if (!r)
		return;
	r->done = clunked;
	r->fid = number;
	rpc_send(r, epoch);
	rpc_end(r);
}

/* Ends one of this connection that nobody uses. Unlocks the table. */
static void give_up(struct op *op, struct fid *f)
{
	struct fids *t = &op->r->fids;
	uint32_t number = f->number, epoch = f->epoch;

	t->by_number[number] = NULL;
	pthread_mutex_unlock(&t->lock);
	free(f);
	clunk(op, number, epoch);
}

/* Takes the fid that was unused for longest out of the cache. Its number, or 0. */
static uint32_t evict(struct fids *t)
{
	struct fid *f = t->oldest;
	uint32_t number;

	if (!f)
		return 0;
	number = f->number;
	lru_remove(t, f);
	hash_remove(t, f);
	t->by_number[number] = NULL;
	free(f);
	return number;
}

/* Makes room: whoever comes next need not wait for it. With the table locked, let go meanwhile. */
static int make_room(struct op *op)
{
	struct fids *t = &op->r->fids;
	uint32_t old[ROOM];
	unsigned n = 0;
	int err;

	while (n < ROOM && (old[n] = evict(t)))
		n++;
	if (!n)
		return -ENFILE;
	pthread_mutex_unlock(&t->lock);
	for (unsigned i = 1; i < n; i++)
		clunk(op, old[i], op->epoch);
	err = call_plain(op, P9_TCLUNK, old[0]);
	pthread_mutex_lock(&t->lock);
	if (err == LOST || t->epoch != op->epoch)
		return LOST;
	if (err == -EINTR || err == -ETIMEDOUT)
		return err;
	number_free(t, old[0]);
	return 0;
}

static int number_new(struct op *op, uint32_t *number)
{
	struct fids *t = &op->r->fids;

	for (;;) {
		int err = t->idle > IDLE ? make_room(op) : 0;

		if (err)
			return err;
		if (t->nfree) {
			*number = t->free[--t->nfree];
			if (*number >= t->limit)
				continue;
			break;
		}
		if (t->next < t->limit) {
			*number = t->next++;
			break;
		}
		err = make_room(op);
		if (err)
			return err;
	}
	t->used++;
	return 0;
}

int fid_new(struct op *op, struct fid **out)
{
	struct fids *t = &op->r->fids;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&t->lock);
	struct fid *f;
	uint32_t number = 0;
	int err;

	*out = NULL;
	if ((int32_t)(op->epoch - t->epoch) < 0)
		return LOST;
	new_epoch(t, op->epoch);
	err = number_new(op, &number);
	if (err)
		return err;
	f = calloc(1, sizeof(*f));
	if (!f) {
		number_free(t, number);
		return -ENOMEM;
	}
	*f = (struct fid){ .number = number, .uid = op->uid, .epoch = op->epoch, .refs = 1 };
	t->by_number[number] = f;
	*out = f;
	return 0;
}

struct fid *fid_find(struct op *op, const struct r_key *key)
{
	struct fids *t = &op->r->fids;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&t->lock);
	struct fid *f;

	if (t->epoch != op->epoch)
		return NULL;
	f = t->buckets[bucket_of(key, op->uid)];
	while (f && (f->uid != op->uid || !key_equal(&f->key, key)))
		f = f->next;
	if (f && !f->refs++)
		lru_remove(t, f);
	return f;
}

void fid_cache(struct op *op, struct fid *f, const struct r_key *key)
{
	struct fids *t = &op->r->fids;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&t->lock);
	struct fid **bucket = &t->buckets[bucket_of(key, f->uid)];

	f->key = *key;
	if (f->epoch != t->epoch)
		return;
	/* One is enough; the newer is as good. */
	for (struct fid *o = *bucket; o; o = o->next)
		if (o->uid == f->uid && key_equal(&o->key, key))
			return;
	f->cached = true;
	f->next = *bucket;
	*bucket = f;
}

void fid_drop(struct op *op, struct fid *f, int err)
{
	struct fids *t = &op->r->fids;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&t->lock);

	if (f->epoch == t->epoch && t->by_number[f->number] == f) {
		hash_remove(t, f);
		/* Where nobody knows whether there is one, its number rests until the next connection. */
		if (err == -EINTR || err == -ETIMEDOUT)
			t->by_number[f->number] = NULL;
		else
			number_free(t, f->number);
	}
	free(f);
}

void fid_put(struct op *op, struct fid *f)
{
	struct fids *t = &op->r->fids;

	pthread_mutex_lock(&t->lock);
	if (--f->refs || f->opened) {
		pthread_mutex_unlock(&t->lock);
		return;
	}
	if (f->epoch != t->epoch) {
		pthread_mutex_unlock(&t->lock);
		free(f);
		return;
	}
	if (f->cached) {
		lru_add(t, f);
		pthread_mutex_unlock(&t->lock);
		return;
	}
	give_up(op, f);
}

/* Takes it, where there is one, out of the cache; who uses it gives it back later. Unlocks the table. */
static void forget(struct op *op, struct fid *f)
{
	struct fids *t = &op->r->fids;

	if (f)
		hash_remove(t, f);
	if (!f || f->refs) {
		pthread_mutex_unlock(&t->lock);
		return;
	}
	lru_remove(t, f);
	give_up(op, f);
}

static void forget_some(struct op *op, const struct r_key *key)
{
	struct fids *t = &op->r->fids;
	struct fid *f;

	do {
		f = NULL;
		pthread_mutex_lock(&t->lock);
		for (uint32_t i = 0; i < t->next && !f; i++)
			if (t->by_number[i] && t->by_number[i]->cached && (!key || key_equal(&t->by_number[i]->key, key)))
				f = t->by_number[i];
		forget(op, f);
	} while (f);
}

void fid_forget(struct op *op, const struct r_key *key)
{
	struct fids *t = &op->r->fids;
	struct fid *f;

	if (op->r->per_user) {
		forget_some(op, key);
		return;
	}
	pthread_mutex_lock(&t->lock);
	f = t->buckets[bucket_of(key, op->uid)];
	while (f && !key_equal(&f->key, key))
		f = f->next;
	forget(op, f);
}

void fid_forget_all(struct op *op)
{
	forget_some(op, NULL);
}

/* The server refused its number. Returns whether smaller ones may do. */
static bool refused(struct fids *t, const struct fid *f)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&t->lock);

	/* A server with room for less is none to work with. */
	if (f->number < 64 || f->epoch != t->epoch)
		return false;
	/* Where it has taken a larger one, it means something else. */
	for (uint32_t i = f->number + 1; i < t->next; i++)
		if (t->by_number[i] && (t->by_number[i]->cached || t->by_number[i]->opened))
			return false;
	if (f->number < t->limit)
		t->limit = f->number;
	return true;
}

bool fid_failed(struct op *op, struct fid *f, int err)
{
	bool again = err == -ERANGE && refused(&op->r->fids, f);

	fid_drop(op, f, err);
	return again;
}

int fid_make(struct op *op, int (*make)(struct op *op, uint32_t number, void *arg), void *arg, struct fid **out)
{
	int err;

	do {
		err = fid_new(op, out);
		if (err)
			return err;
		err = make(op, (*out)->number, arg);
	} while (err && fid_failed(op, *out, err));
	if (err)
		*out = NULL;
	return err;
}

bool fid_opened(struct op *op, const struct r_key *key, uint32_t *number)
{
	struct fids *t = &op->r->fids;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&t->lock);

	for (uint32_t i = 0; i < t->next && t->epoch == op->epoch; i++) {
		if (t->by_number[i] && t->by_number[i]->opened && key_equal(&t->by_number[i]->key, key)) {
			*number = i;
			return true;
		}
	}
	return false;
}

void fid_keep(struct op *op, struct fid *f)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&op->r->fids.lock);

	f->opened = true;
	f->refs--;
}

void fid_close(struct op *op, uint32_t number, uint32_t epoch)
{
	struct fids *t = &op->r->fids;
	struct fid *f;

	pthread_mutex_lock(&t->lock);
	f = epoch == t->epoch && number < FIDS_MAX ? t->by_number[number] : NULL;
	if (f && f->opened)
		give_up(op, f);
	else
		pthread_mutex_unlock(&t->lock);
}

void fids_fini(struct fids *t)
{
	new_epoch(t, t->epoch + 1);
}
