/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks that other clients see (-o locks=source).
 *
 * Which user of this mount may lock which bytes is settled here (lock_ranges.c). On the server the mount has one
 * lock on the whole file, the strongest of theirs: there are servers that know no other. It goes with its
 * connection, and is asked for again on the next one before anything else is done to the file. If another client
 * has taken it meanwhile, the file fails with EIO until all who had locks have given them up.
 */
#include "backends/remote/locks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#define UNSURE		3u	/* what is held after an answer that was not waited for */

/* ---- the lock on the server; with the stripe locked, in a round ---- */

static struct rpc *lock_call(struct op *op, uint32_t fid, uint32_t type)
{
	struct rpc *rpc = call_new(op, P9_TLOCK, fid);
	char name[CLIENT_NAME];

	if (!rpc)
		return NULL;
	client_name(&op->r->client, name);
	/* The numbers of F_RDLCK, F_WRLCK and F_UNLCK; of all bytes. */
	p9_put8(&rpc->out, (uint8_t)type);
	p9_put32(&rpc->out, 0);
	p9_put64(&rpc->out, 0);
	p9_put64(&rpc->out, 0);
	p9_put32(&rpc->out, (uint32_t)op->r->shared->id);
	p9_putstr(&rpc->out, name);
	return rpc;
}

static int server_ask(struct op *op, struct lock_file *f, uint32_t type)
{
	_cleanup_rpc_ struct rpc *rpc = lock_call(op, f->fid, type);
	int err = call(op, rpc);
	uint8_t status;

	if (err == -EINTR || err == -ETIMEDOUT)
		f->held = UNSURE;
	if (err)
		return err;
	status = p9_get8(&rpc->in);
	if (rpc->in.bad || rpc->in.left || status > P9_LOCK_GRACE)
		return -EIO;
	if (status == P9_LOCK_SUCCESS)
		f->held = type;
	/* nfs-ganesha 4.3 calls a conflict an error. */
	return status == P9_LOCK_SUCCESS ? 0 : status == P9_LOCK_GRACE ? -EBUSY : -EAGAIN;
}

static void server_close(struct op *op, struct lock_file *f)
{
	if (f->epoch)
		fid_close(op, f->fid, f->epoch);
	f->epoch = 0;
	f->held = F_UNLCK;
}

static int server_open(struct op *op, struct lock_file *f)
{
	uint32_t uid = op->uid;
	struct fid *fid;
	int err;

	if (f->epoch == op->epoch)
		return 0;
	if (f->ranges)
		op->uid = f->ranges->record->uid;
	err = key_open(op, &f->key, O_RDWR, &fid);
	if (err == -EACCES || err == -EPERM || err == -EROFS || err == -ETXTBSY)
		err = key_open(op, &f->key, O_RDONLY, &fid);
	op->uid = uid;
	if (err)
		return err;
	fid_keep(op, fid);
	f->fid = fid->number;
	f->epoch = op->epoch;
	f->held = F_UNLCK;
	return 0;
}

static void lost(struct op *op, struct lock_file *f)
{
	client_log(&op->r->client.opt, LOG_WARNING, "a lock was lost with the connection, and another client may have "
		   "had it: file %llu fails until who held it has given it up", (unsigned long long)f->key.path);
	for (struct range *x = f->ranges; x; x = x->next)
		x->record->lost = 1;
	f->lost = true;
	f->tell = true;
	atomic_fetch_add(&op->r->locks->lost, 1);
	lock_kick(op->r);
}

/* 0, -EAGAIN where another client is in the way, or another error. */
static int server_set(struct op *op, struct lock_file *f, uint32_t type)
{
	bool had = f->epoch == op->epoch && f->held != F_UNLCK;
	int err;

	if (type == F_UNLCK && f->epoch != op->epoch)
		return 0;
	err = server_open(op, f);
	if (err || f->held == type)
		return err;
	err = server_ask(op, f, type);
	/* A server by flock(2) has given up the one for the other. */
	if (err == -EAGAIN && had && f->ranges && type != range_strongest(f)) {
		f->held = UNSURE;
		if (server_ask(op, f, range_strongest(f)) == -EAGAIN)
			lost(op, f);
	}
	return err;
}

static bool may_come_right(const struct op *op, int err)
{
	switch (err) {
	case LOST:
	case -EINTR:
	case -ETIMEDOUT:
	case -ECANCELED:
	case -ENOMEM:
	case -ENFILE:
		return true;
	default:
		return (err == -ENOENT || err == -ESTALE) && op->cached && !op->fresh;
	}
}

/* What is held there is to be what is held here. Where nothing is, the file is gone when this returns. */
static int server_settle(struct op *op, struct lock_stripe *s, struct lock_file *f)
{
	uint32_t type = range_strongest(f);
	int err;

	if (type == F_UNLCK) {
		err = server_set(op, f, F_UNLCK);
		server_close(op, f);
		lock_file_drop(op->r, s, f);
		return err == -EAGAIN ? 0 : err;
	}
	if (f->lost)
		return -EIO;
	err = server_set(op, f, type);
	/* A server that has just started gives nobody a lock: it is asked for again. */
	if (err == -EBUSY)
		return 0;
	if (!err || may_come_right(op, err))
		return err;
	if (!f->lost)
		lost(op, f);
	return -EIO;
}

int lock_ready(struct op *op, const struct r_key *key)
{
	_cleanup_unlock_ pthread_mutex_t *held = NULL;
	struct remote *r = op->r;
	struct lock_stripe *s;
	struct lock_file *f;

	if (!r->locks || !atomic_load(&r->locks->files))
		return 0;
	s = lock_stripe(r, key);
	held = fe_lock(&s->lock);
	f = lock_file_find(s, key);
	if (!f || !f->ranges)
		return 0;
	return !f->lost && f->epoch == op->epoch && f->held == range_strongest(f) ? 0 : server_settle(op, s, f);
}

/* ---- what is asked for ---- */

int lock_set(struct op *op, const struct r_range *want, uint64_t *blocker)
{
	struct lock_stripe *s = lock_stripe(op->r, &want->key);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&s->lock);
	struct lock_file *f = lock_file_find(s, &want->key);
	const struct r_range *other;
	int err;

	*blocker = 0;
	err = f && f->ranges ? server_settle(op, s, f) : 0;
	if (err)
		return err;
	if (!f)
		f = lock_file_new(op->r, s, &want->key);
	if (!f)
		return -ENOLCK;
	other = range_conflict(f, want);
	if (other) {
		*blocker = other->owner;
		return -EAGAIN;
	}
	err = server_set(op, f, range_strongest(f) == F_WRLCK ? F_WRLCK : want->type);
	if (!err)
		err = range_set(op->r, f, want);
	/* Somebody asked for less than he had, or nobody has anything. */
	if (!f->ranges || f->held != range_strongest(f)) {
		int e = server_settle(op, s, f);

		err = err ? err : e;
	}
	return err == -EBUSY ? -EAGAIN : err;
}

static int settle_one(struct op *op, const struct r_key *key)
{
	struct lock_stripe *s = lock_stripe(op->r, key);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&s->lock);
	struct lock_file *f = lock_file_find(s, key);

	return f ? server_settle(op, s, f) : 0;
}

/* Ranges are gone: the server is told, and those who wait here. */
static void settle(struct remote *r, const struct fe_request *req, const struct r_key *key)
{
	_cleanup_op_ struct op op;

	op_begin(&op, r, req);
	while (op_next(&op))
		op.result = settle_one(&op, key);
	lock_kick(r);
}

static int unlock(struct remote *r, const struct fe_request *req, const struct r_range *want)
{
	struct lock_stripe *s = lock_stripe(r, &want->key);
	struct lock_file *f;
	int err;

	pthread_mutex_lock(&s->lock);
	f = lock_file_find(s, &want->key);
	err = f ? range_set(r, f, want) : 0;
	pthread_mutex_unlock(&s->lock);
	if (f && !err)
		settle(r, req, &want->key);
	return err;
}

static struct r_range range_of(const struct op *op, const struct fe_node *node, const struct fe_handle *handle,
			       const struct fe_lock *lock)
{
	return (struct r_range){
		.key = r_node(node)->key, .owner = lock->owner, .fh = handle->fh, .start = lock->start, .end = lock->end,
		.type = lock->type, .pid = lock->pid, .flock = !!lock->flock, .uid = op->uid,
	};
}

int remote_setlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 const struct fe_lock *lock)
{
	struct remote *r = b;
	uint64_t blocker = 0;
	struct r_range want;
	_cleanup_op_ struct op op;

	op_begin(&op, r, req);
	if (!r->locks)
		return -ENOSYS;
	want = range_of(&op, node, handle, lock);
	if (want.type == F_UNLCK)
		return unlock(r, req, &want);
	/* A successor goes on before the server has answered. */
	if (lock->wait && req->again)
		return lock_wait(r, req, &want, 0);
	while (op_next(&op))
		op.result = lock_set(&op, &want, &blocker);
	/* What others wrote before is seen from now on. */
	if (!op.result)
		r->services->inval_inode(r->host, node->nodeid, -1, 0);
	return op.result == -EAGAIN && lock->wait ? lock_wait(r, req, &want, blocker) : (int)op.result;
}

struct closing {
	uint64_t owner;		/* of POSIX locks, or */
	uint64_t fh;
	const struct fe_release *how;
};

static bool ends(const struct r_range *x, const struct closing *c)
{
	if (!c->how)
		return !x->flock && x->owner == c->owner;
	return x->fh == c->fh || (c->how->flock_unlock && x->flock && x->owner == c->how->lock_owner);
}

static void drop(struct remote *r, const struct fe_request *req, const struct r_key *key, const struct closing *c)
{
	struct lock_stripe *s;
	struct lock_file *f;
	bool any = false;

	if (!r->locks || !atomic_load(&r->locks->files))
		return;
	s = lock_stripe(r, key);
	pthread_mutex_lock(&s->lock);
	f = lock_file_find(s, key);
	for (struct range **at = f ? &f->ranges : NULL; at && *at; ) {
		if (ends((*at)->record, c)) {
			range_remove(r, at);
			any = true;
		} else {
			at = &(*at)->next;
		}
	}
	pthread_mutex_unlock(&s->lock);
	if (any)
		settle(r, req, key);
}

int remote_flush(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 uint64_t lock_owner)
{
	(void)handle;
	drop(b, req, &r_node(node)->key, &(struct closing){ .owner = lock_owner });
	return 0;
}

void lock_release(struct remote *r, const struct fe_request *req, const struct r_key *key, uint64_t fh,
		   const struct fe_release *how)
{
	static const struct fe_release plain;

	drop(r, req, key, &(struct closing){ .fh = fh, .how = how ? how : &plain });
}

/* ---- who has it ---- */

/*
 * By taking the lock for a moment: of nfs-ganesha 4.3 a Rgetlock says nothing. While the mount has a lock it is
 * not asked whether others have a shared one, too.
 */
static int ask_server(struct op *op, struct lock_stripe *s, struct lock_file *f, const struct r_range *want)
{
	int err, done;

	if (f && f->ranges)
		return server_settle(op, s, f);
	if (!f)
		f = lock_file_new(op->r, s, &want->key);
	if (!f)
		return -ENOLCK;
	err = server_set(op, f, want->type);
	done = server_settle(op, s, f);
	return err ? err : done;
}

static int lock_get(struct op *op, const struct r_range *want, struct fe_lock *lock)
{
	struct lock_stripe *s = lock_stripe(op->r, &want->key);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&s->lock);
	struct lock_file *f = lock_file_find(s, &want->key);
	const struct r_range *other = f ? range_conflict(f, want) : NULL;
	int err = 0;

	if (other) {
		lock->type = other->type;
		lock->start = other->start;
		lock->end = other->end < INT64_MAX ? other->end : INT64_MAX;
		lock->pid = other->pid;
		return 0;
	}
	err = ask_server(op, s, f, want);
	if (err && err != -EAGAIN && err != -EBUSY)
		return err;
	*lock = (struct fe_lock){ .type = err ? F_WRLCK : F_UNLCK, .end = INT64_MAX, .owner = lock->owner };
	return 0;
}

int remote_getlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 struct fe_lock *lock)
{
	struct remote *r = b;
	struct r_range want;
	_cleanup_op_ struct op op;

	op_begin(&op, r, req);
	if (!r->locks)
		return -ENOSYS;
	want = range_of(&op, node, handle, lock);
	while (op_next(&op))
		op.result = lock_get(&op, &want, lock);
	return (int)op.result;
}

/* ---- on another connection ---- */

bool lock_stale(struct remote *r, uint32_t epoch, struct r_key *key)
{
	for (unsigned i = 0; i < LOCK_STRIPES; i++) {
		struct lock_stripe *s = &r->locks->stripes[i];
		_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&s->lock);

		for (struct lock_file *f = s->files; f; f = f->next) {
			if (f->lost || !f->ranges || (f->epoch == epoch && f->held == range_strongest(f)))
				continue;
			*key = f->key;
			return true;
		}
	}
	return false;
}

bool lock_untold(struct remote *r, struct r_key *key)
{
	for (unsigned i = 0; i < LOCK_STRIPES; i++) {
		struct lock_stripe *s = &r->locks->stripes[i];
		_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&s->lock);

		for (struct lock_file *f = s->files; f; f = f->next) {
			if (!f->tell)
				continue;
			f->tell = false;
			*key = f->key;
			return true;
		}
	}
	return false;
}
