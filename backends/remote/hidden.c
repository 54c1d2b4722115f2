/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files that are removed while they are open. The protocol knows a file that has no name only as long as
 * the connection lasts that opened it, so it gets a name that is not shown, and loses it at the last close.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "backends/remote/remote.h"

#define MAX_HIDDEN	(1u << 20)

struct hidden_text {
	char name[64];
};

static struct hidden_text name_of(const struct remote *r, const struct r_hidden *h)
{
	struct hidden_text t;

	snprintf(t.name, sizeof(t.name), REMOVED_PREFIX "%016llx-%llx", (unsigned long long)r->shared->id,
		 (unsigned long long)h->number);
	return t;
}

bool hidden_name(const char *name, size_t len)
{
	const size_t prefix = sizeof(REMOVED_PREFIX) - 1;

	return len > prefix && !memcmp(name, REMOVED_PREFIX, prefix);
}

int hidden_init(struct remote *r)
{
	pthread_mutex_init(&r->hidden_lock, NULL);
	return r->services->table(r->host, "hidden files", sizeof(struct r_hidden), MAX_HIDDEN, &r->hidden_table);
}

static struct hidden *hidden_add(struct remote *r, struct r_hidden *record)
{
	struct hidden *h = malloc(sizeof(*h));

	if (!h)
		return NULL;
	*h = (struct hidden){ .next = r->hidden, .record = record };
	r->hidden = h;
	return h;
}

static int resume_one(void *arg, void *record)
{
	hidden_add(arg, record);
	return 0;
}

void hidden_resume(struct remote *r)
{
	pthread_mutex_init(&r->hidden_lock, NULL);
	r->hidden = NULL;
	r->services->record_each(r->host, r->hidden_table, resume_one, r);
}

/* Those with the lock held. */

static struct hidden *hidden_of(struct remote *r, const struct r_key *key)
{
	struct hidden *h = r->hidden;

	while (h && !key_equal(&h->record->key, key))
		h = h->next;
	return h;
}

static void hidden_drop(struct remote *r, struct hidden *gone)
{
	struct hidden **h = &r->hidden;

	while (*h != gone)
		h = &(*h)->next;
	*h = gone->next;
	r->services->record_free(r->host, r->hidden_table, gone->record);
	free(gone);
}

static struct hidden *hidden_new(struct remote *r, const struct r_key *parent, const struct r_key *key)
{
	struct r_hidden init = { .key = *key, .parent = *parent, .number = atomic_fetch_add(&r->shared->hidden, 1) };
	struct r_hidden *record = r->services->record_new(r->host, r->hidden_table, &init);
	struct hidden *h = record ? hidden_add(r, record) : NULL;

	if (record && !h)
		r->services->record_free(r->host, r->hidden_table, record);
	return h;
}

struct placing {
	struct remote *r;
	const struct r_key *parent;
	const char *name;
	bool sure;
};

static int place(void *arg, struct fe_node *node)
{
	struct placing *p = arg;

	node_rename(p->r, r_node(node), p->parent, p->name);
	__atomic_fetch_or(&r_node(node)->flags, NODE_HIDDEN, __ATOMIC_RELEASE);
	if (p->sure)
		__atomic_fetch_and(&r_node(node)->flags, ~NODE_HIDING, __ATOMIC_RELEASE);
	return 0;
}

/* Who asks may be killed before the answer: the last close sees to what has become of it. */
static int may_be_hidden(void *arg, struct fe_node *node)
{
	(void)arg;
	__atomic_fetch_or(&r_node(node)->flags, NODE_HIDING | NODE_HIDDEN, __ATOMIC_RELEASE);
	return 0;
}

static int not_hidden(void *arg, struct fe_node *node)
{
	(void)arg;
	__atomic_fetch_and(&r_node(node)->flags, ~(NODE_HIDING | NODE_HIDDEN), __ATOMIC_RELEASE);
	return 0;
}

static void hidden_place(struct remote *r, struct r_hidden *record, bool sure)
{
	struct hidden_text t = name_of(r, record);
	struct placing p = { .r = r, .parent = &record->parent, .name = t.name, .sure = sure };

	r->services->with_node(r->host, &record->key, place, &p);
}

static void hidden_done(struct remote *r, struct r_hidden *record)
{
	hidden_place(r, record, true);
	__atomic_store_n(&record->done, 1, __ATOMIC_RELEASE);
}

void hidden_again(struct remote *r, const struct r_key *key)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->hidden_lock);
	struct hidden *h = hidden_of(r, key);

	if (h)
		hidden_done(r, h->record);
}

int hidden_make(struct op *op, struct fid *dir, const struct r_key *parent, const char *name,
		const struct r_key *key)
{
	struct remote *r = op->r;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->hidden_lock);
	struct hidden *h = hidden_of(r, key);
	struct hidden_text t;
	struct fid *f;
	bool sent = false;
	int err;

	if (!h)
		h = hidden_new(r, parent, key);
	if (!h)
		return -ENOMEM;
	h->record->parent = *parent;
	t = name_of(r, h->record);
	r->services->with_node(r->host, key, may_be_hidden, NULL);
	err = name_fid(op, dir, name, &f, NULL);
	if (!err) {
		sent = true;
		err = rename_name(op, dir, name, dir, t.name, f);
		fid_put(op, f);
		/* A server may do late what a lost connection asked for. */
		if (err == -ENOENT && op->again) {
			err = name_fid(op, dir, t.name, &f, NULL);
			fid_put_any(op, f);
		}
	}
	if (!err) {
		fid_forget(op, key);
		hidden_done(r, h->record);
	} else if (sent && (err == -EINTR || err == -ETIMEDOUT)) {
		/* The server has most likely done it. If not, a lookup finds it by its old name. */
		fid_forget(op, key);
		hidden_place(r, h->record, false);
	} else if (err != LOST && err != -EINTR && err != -ETIMEDOUT) {
		r->services->with_node(r->host, key, not_hidden, NULL);
		hidden_drop(r, h);
	}
	return err;
}

int hidden_settle(struct op *op, struct fid *dir, const struct r_key *parent)
{
	struct remote *r = op->r;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->hidden_lock);

	for (struct hidden *h = r->hidden, *next; h; h = next) {
		struct hidden_text t = name_of(r, h->record);
		struct fid *f;
		int err;

		next = h->next;
		if (h->record->done || !key_equal(&h->record->parent, parent))
			continue;
		err = name_fid(op, dir, t.name, &f, NULL);
		if (!err) {
			fid_put(op, f);
			hidden_done(r, h->record);
		} else if (err == -ENOENT) {
			r->services->with_node(r->host, &h->record->key, not_hidden, NULL);
			hidden_drop(r, h);
		} else {
			return err;
		}
	}
	return 0;
}

int hidden_move(struct op *op, const struct r_key *from, struct fid *dir, struct fid *to,
		const struct r_key *to_key)
{
	struct remote *r = op->r;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->hidden_lock);
	int err = -ENOENT;

	for (struct hidden *h = r->hidden; h; h = h->next) {
		struct hidden_text t = name_of(r, h->record);
		struct fid *f;

		if (!key_equal(&h->record->parent, from))
			continue;
		err = name_fid(op, dir, t.name, &f, NULL);
		if (!err) {
			err = rename_name(op, dir, t.name, to, t.name, f);
			fid_put(op, f);
		} else if (err == -ENOENT && op->again) {
			err = name_fid(op, to, t.name, &f, NULL);
			if (!err)
				fid_put(op, f);
		}
		if (err)
			break;
		fid_forget(op, &h->record->key);
		h->record->parent = *to_key;
		hidden_done(r, h->record);
	}
	return err;
}

static int end_one(struct op *op, struct hidden *h)
{
	struct hidden_text t = name_of(op->r, h->record);
	struct fid *dir;
	int err = key_fid(op, &h->record->parent, &dir);

	if (err)
		return err;
	fid_forget(op, &h->record->key);
	err = remove_name(op, dir, t.name, false);
	fid_put(op, dir);
	return err;
}

static int end_of(struct op *op, const struct r_key *key)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&op->r->hidden_lock);
	struct hidden *h = hidden_of(op->r, key);

	return h ? end_one(op, h) : 0;
}

void hidden_end(struct remote *r, const struct fe_request *req, struct fe_node *node)
{
	_cleanup_unlock_ pthread_mutex_t *held = NULL;
	struct hidden *h;
	_cleanup_op_ struct op op;

	op_begin_change(&op, r, req);
	/* The lock is for within a round: who waits for one must not hold up those who are in theirs. */
	while (op_next(&op))
		op.result = end_of(&op, &r_node(node)->key);
	held = fe_lock(&r->hidden_lock);
	h = hidden_of(r, &r_node(node)->key);
	if (!h)
		return;
	if (op.result && op.result != -ENOENT)
		client_log(&r->client.opt, LOG_WARNING, "%s stays on the server: %s", name_of(r, h->record).name,
			   strerror((int)-op.result));
	not_hidden(NULL, node);
	/* That it was not there under a name that it perhaps had says nothing. */
	if (r_node(node)->nlink <= 1 && !(op.result == -ENOENT && !h->record->done))
		node_died(r_node(node));
	hidden_drop(r, h);
}
