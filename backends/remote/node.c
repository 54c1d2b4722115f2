/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests and their rounds, names of nodes, and nodes from what the server tells. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include "backends/remote/remote.h"

#define LOSSES		4	/* connections that ended with a request: from then on it is tried alone */
#define LOSSES_ALONE	16	/* and those that ended with nothing but it: that is its doing */
#define MAX_LIVES	(1u << 16)
#define MAX_LONG	(1u << 24)

struct long_name {
	struct long_name *next;
	struct r_long *record;
};

void op_begin(struct op *op, struct remote *r, const struct fe_request *req)
{
	memset(op, 0, offsetof(struct op, own_intent));
	op->own_intent.state = 0;
	op->r = r;
	op->req = req;
	op->uid = r->per_user && req ? req->uid : r->uid;
	op->again = req && req->again;
	op->seen = atomic_load(&r->dir_changes);
	op->intent = req && req->intent ? req->intent : &op->own_intent;
	waiter_begin(&op->waiter, &r->client, req ? req->pid : 0);
}

static void op_changes(struct op *op, bool dirs)
{
	op->changes = true;
	op->changes_dirs = dirs;
	atomic_fetch_add(&op->r->changes, 1);
	if (dirs)
		atomic_fetch_add(&op->r->dir_changes, 1);
}

void op_begin_change(struct op *op, struct remote *r, const struct fe_request *req)
{
	op_begin(op, r, req);
	op_changes(op, true);
}

void op_begin_file_change(struct op *op, struct remote *r, const struct fe_request *req, const struct fe_node *node)
{
	op_begin(op, r, req);
	op_changes(op, r_node(node)->key.type == S_IFDIR >> 12);
}

void op_end(struct op *op)
{
	if (op->changes)
		atomic_fetch_add(&op->r->changes, 1);
	if (op->changes_dirs)
		atomic_fetch_add(&op->r->dir_changes, 1);
	client_round_end(&op->waiter);
	waiter_end(&op->waiter);
}

bool op_next(struct op *op)
{
	int err;

	if (op->rounds++) {
		if (op->result == LOST) {
			op->again = true;
			op->losses++;
			/* A server that answers nothing at all fails everybody. */
			if (op->waiter.alone && op->waiter.answers && ++op->losses_alone == LOSSES_ALONE) {
				client_log(&op->r->client.opt, LOG_ERR, "%d connections ended with the same request (operation %u): "
					   "it fails; see why the server does so", LOSSES_ALONE, op->req ? op->req->opcode : 0);
				op->result = -EIO;
				return false;
			}
		} else if ((op->result == -ENOENT || op->result == -ESTALE) && op->cached && !op->fresh) {
			/* Some servers keep a path for each fid, and what is above it may have moved. */
			op->fresh = true;
		} else {
			return false;
		}
	}
	op->cached = false;
	client_round_end(&op->waiter);
	err = client_start(&op->r->client);
	if (!err)
		op->epoch = client_round(&op->waiter, op->losses >= LOSSES, &err);
	op->result = err;
	return !err;
}

uint32_t key_hash(const struct r_key *key)
{
	uint64_t h = (key->path ^ (uint64_t)key->life << 40 ^ key->type) * 0x9e3779b97f4a7c15u;

	return (uint32_t)(h >> 32);
}

/* ---- names ---- */

static struct long_name **long_find(struct remote *r, const struct r_key *key)
{
	struct long_name **l = &r->longs[key_hash(key) % 256];

	while (*l && !key_equal(&(*l)->record->key, key))
		l = &(*l)->next;
	return l;
}

static void long_drop(struct remote *r, const struct r_key *key)
{
	struct long_name **at = long_find(r, key), *l = *at;

	if (!l)
		return;
	*at = l->next;
	r->services->record_free(r->host, r->long_table, l->record);
	free(l);
}

static bool long_add(struct remote *r, struct r_long *record)
{
	struct long_name *l = malloc(sizeof(*l)), **at = &r->longs[key_hash(&record->key) % 256];

	if (!l)
		return false;
	*l = (struct long_name){ .next = *at, .record = record };
	*at = l;
	return true;
}

static bool long_set(struct remote *r, const struct r_key *key, const char *rest, size_t len)
{
	struct r_long fresh = { .key = *key, .len = (uint16_t)len };
	struct r_long *record;

	long_drop(r, key);
	memcpy(fresh.name, rest, len);
	record = r->services->record_new(r->host, r->long_table, &fresh);
	if (record && !long_add(r, record)) {
		r->services->record_free(r->host, r->long_table, record);
		record = NULL;
	}
	return record;
}

int names_init(struct remote *r)
{
	return r->services->table(r->host, "long names", sizeof(struct r_long), MAX_LONG, &r->long_table);
}

static int long_resume(void *arg, void *record)
{
	struct remote *r = arg;

	if (*long_find(r, &((struct r_long *)record)->key) || !long_add(r, record))
		r->services->record_free(r->host, r->long_table, record);
	return 0;
}

void names_resume(struct remote *r)
{
	memset(r->longs, 0, sizeof(r->longs));
	r->services->record_each(r->host, r->long_table, long_resume, r);
}

static void set_name(struct remote *r, struct r_node *n, const struct r_key *parent, const char *name)
{
	size_t len = strlen(name), inside = len < NAME_INLINE ? len : NAME_INLINE;
	bool whole = true;

	/* A process that dies here leaves a node without a name: what it did is done again. */
	__atomic_store_n(&n->named, 0, __ATOMIC_RELEASE);
	if (len > NAME_INLINE)
		whole = long_set(r, &n->key, name + NAME_INLINE, len - NAME_INLINE);
	else if (n->name_len > NAME_INLINE)
		long_drop(r, &n->key);
	n->parent = *parent;
	n->name_len = (uint16_t)len;
	memcpy(n->name, name, inside);
	__atomic_store_n(&n->named, whole, __ATOMIC_RELEASE);
}

void node_rename(struct remote *r, struct r_node *n, const struct r_key *parent, const char *name)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->names_lock);

	set_name(r, n, parent, name);
}

/* name: of P9_NAME_MAX + 1 bytes. */
int node_name(struct remote *r, struct r_node *n, struct r_key *parent, char *name)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->names_lock);
	size_t inside = n->name_len < NAME_INLINE ? n->name_len : NAME_INLINE;

	if (!n->named || n->flags & NODE_DEAD || n->name_len > P9_NAME_MAX)
		return -ESTALE;
	memcpy(name, n->name, inside);
	if (n->name_len > NAME_INLINE) {
		const struct long_name *l = *long_find(r, &n->key);

		if (!l || l->record->len != n->name_len - NAME_INLINE)
			return -ESTALE;
		memcpy(name + NAME_INLINE, l->record->name, l->record->len);
	}
	name[n->name_len] = 0;
	*parent = n->parent;
	return 0;
}

/* ---- what the server tells ---- */

static int is_dead(void *arg, struct fe_node *node)
{
	(void)arg;
	return !!(r_node(node)->flags & NODE_DEAD);
}

struct r_key key_of(struct remote *r, const struct p9_qid *qid, uint32_t mode)
{
	struct r_key key = { .path = qid->path, .type = (mode & S_IFMT) >> 12 };

	/* A number that a removed file had, which the kernel may still know. */
	while (key.life < MAX_LIVES && r->services->with_node(r->host, &key, is_dead, NULL) == 1)
		key.life++;
	return key;
}

static int64_t ns_of(uint64_t sec, uint64_t nsec)
{
	return (int64_t)(sec * NS + nsec);
}

static void note_owner(struct r_node *n, const struct p9_attr *a)
{
	n->mode = a->mode;
	n->uid = a->uid;
	n->gid = a->gid;
	n->rdev = a->rdev;
	n->blocks = a->blocks;
	n->blksize = a->blksize < UINT32_MAX ? (uint32_t)a->blksize : UINT32_MAX;
	n->atime = ns_of(a->atime, a->atime_nsec);
	n->nlink = a->nlink < UINT32_MAX ? (uint32_t)a->nlink : UINT32_MAX;
}

static bool same_data(const struct r_node *n, const struct p9_attr *a)
{
	return n->size == a->size && n->mtime == ns_of(a->mtime, a->mtime_nsec) &&
	       n->ctime == ns_of(a->ctime, a->ctime_nsec);
}

/* Records have no room for times that are further away. */
static bool ns_have(uint64_t sec)
{
	return (int64_t)sec > INT64_MIN / (int64_t)NS && (int64_t)sec < INT64_MAX / (int64_t)NS;
}

/* changes: remote.dir_changes before they were asked for */
static void note_when(struct r_node *n, const struct p9_attr *a, uint64_t changes)
{
	n->noted = ns_have(a->atime) && ns_have(a->mtime) && ns_have(a->ctime) ? clock_ns() : 0;
	n->noted_changes = changes;
}

static void note_attr(struct r_node *n, const struct p9_attr *a)
{
	note_owner(n, a);
	n->size = a->size;
	n->mtime = ns_of(a->mtime, a->mtime_nsec);
	n->ctime = ns_of(a->ctime, a->ctime_nsec);
}

/* What was fetched ahead is older than what has just been seen. */
static void note_news(struct remote *r, struct r_node *n, const struct p9_attr *a)
{
	if (!same_data(n, a)) {
		atomic_fetch_add(&r->changes, 1);
		if (n->key.type == S_IFDIR >> 12)
			atomic_fetch_add(&r->dir_changes, 1);
	}
	note_attr(n, a);
}

int attr_of(struct op *op, struct r_node *n, const struct p9_attr *a, struct statx *out)
{
	struct remote *r = op->r;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->names_lock);
	int err = p9_fill_statx(a, out);

	if (err)
		return err;
	if (a->qid.path != n->key.path || (a->mode & S_IFMT) >> 12 != n->key.type)
		return -ESTALE;
	note_news(r, n, a);
	note_when(n, a, op->seen);
	if (n->flags & NODE_HIDDEN && out->stx_nlink)
		out->stx_nlink--;
	return 0;
}

bool same_mtime(const struct r_node *n, const struct p9_attr *a)
{
	return __atomic_load_n(&n->mtime, __ATOMIC_RELAXED) == ns_of(a->mtime, a->mtime_nsec);
}

bool data_unchanged(struct remote *r, struct r_node *n, const struct p9_attr *a)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->names_lock);
	bool same = same_data(n, a);

	note_news(r, n, a);
	return same;
}

void node_died(struct r_node *n)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	n->ctime = ns_of((uint64_t)now.tv_sec, (uint64_t)now.tv_nsec);
	n->nlink = 0;
	__atomic_fetch_or(&n->flags, NODE_DEAD, __ATOMIC_RELEASE);
}

static uint64_t sec_of(int64_t ns)
{
	return (uint64_t)(ns / (int64_t)NS - (ns % (int64_t)NS < 0));
}

static uint64_t nsec_of(int64_t ns)
{
	return (uint64_t)(ns - (int64_t)sec_of(ns) * NS);
}

/* With names_lock. */
static struct p9_attr noted_attr(const struct r_node *n)
{
	return (struct p9_attr){
		.valid = P9_GETATTR_BASIC,
		.qid = { .path = n->key.path, .type = n->key.type == S_IFDIR >> 12 ? P9_QTDIR : 0 },
		.mode = n->mode, .uid = n->uid, .gid = n->gid, .rdev = n->rdev, .size = n->size, .nlink = n->nlink,
		.blocks = n->blocks, .blksize = n->blksize,
		.atime = sec_of(n->atime), .atime_nsec = nsec_of(n->atime),
		.mtime = sec_of(n->mtime), .mtime_nsec = nsec_of(n->mtime),
		.ctime = sec_of(n->ctime), .ctime_nsec = nsec_of(n->ctime),
	};
}

int attr_of_dead(struct remote *r, const struct r_node *n, struct statx *out)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->names_lock);
	struct p9_attr a = noted_attr(n);

	return n->flags & NODE_DEAD || !n->named ? p9_fill_statx(&a, out) : -ESTALE;
}

void note_dir(struct op *op, struct r_node *n, const struct p9_attr *a, uint64_t at)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&op->r->names_lock);

	if (a->qid.path != n->key.path)
		return;
	note_attr(n, a);
	note_when(n, a, at + 1); /* by op_end() */
}

/* With names_lock: nanoseconds for which what was noted is good, when the directories have changed so often. */
static uint64_t note_left(const struct remote *r, const struct r_node *n, uint64_t changes)
{
	uint64_t age = clock_ns() - n->noted;

	return n->noted && n->noted_changes == changes && age < r->attr_valid ? r->attr_valid - age : 0;
}

bool dir_known(struct op *op, const struct r_node *n, uint32_t *mode, uint32_t *gid)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&op->r->names_lock);

	*mode = n->mode;
	*gid = n->gid;
	return note_left(op->r, n, op->seen);
}

bool attr_of_dir(struct remote *r, const struct r_node *n, struct statx *out, uint64_t *valid)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->names_lock);
	struct p9_attr a = noted_attr(n);

	*valid = note_left(r, n, atomic_load(&r->dir_changes));
	return n->key.type == S_IFDIR >> 12 && !n->flags && *valid && !p9_fill_statx(&a, out);
}

struct found {
	const struct op *op;
	struct remote *r;
	const struct r_key *parent;
	const char *name;
	const struct p9_attr *attr;
	uint32_t hidden;
	bool listed;
};

/* A node that the kernel has already was found by this name now. */
static int found_again(void *arg, struct fe_node *node)
{
	struct found *f = arg;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&f->r->names_lock);

	set_name(f->r, r_node(node), f->parent, f->name);
	if (f->listed)
		note_owner(r_node(node), f->attr);
	else
		note_attr(r_node(node), f->attr);
	note_when(r_node(node), f->attr, f->op->seen);
	f->hidden = r_node(node)->flags & NODE_HIDDEN;
	return 0;
}

static int entry_fill(struct op *op, const struct r_key *parent, const char *name, const struct p9_attr *a,
		      bool listed, struct fe_entry *out)
{
	struct remote *r = op->r;
	struct r_node *n = r_entry(out);
	struct found found = { .op = op, .r = r, .parent = parent, .name = name, .attr = a, .listed = listed };
	int err = p9_fill_statx(a, &out->attr);

	if (err)
		return err;
	memset(n, 0, sizeof(*n));
	n->key = key_of(r, &a->qid, a->mode);
	if (is_root(r, &n->key))
		return -EIO;
	if (r->services->with_node(r->host, &n->key, found_again, &found) == -ENOENT) {
		_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->names_lock);

		note_attr(n, a);
		note_when(n, a, op->seen);
		set_name(r, n, parent, name);
	} else if (found.hidden && out->attr.stx_nlink) {
		out->attr.stx_nlink--;
	}
	return 0;
}

int entry_of(struct op *op, const struct r_key *parent, const char *name, const struct p9_attr *a, struct fid *f,
	     struct fe_entry *out)
{
	int err = entry_fill(op, parent, name, a, false, out);

	if (!err && f)
		fid_cache(op, f, &r_entry(out)->key);
	return err;
}

int entry_listed(struct op *op, const struct r_key *parent, const char *name, const struct p9_attr *a,
		 struct fe_entry *out)
{
	return entry_fill(op, parent, name, a, true, out);
}

void remote_forget(void *b, struct fe_node *node)
{
	struct remote *r = b;
	struct r_node *n = r_node(node);
	_cleanup_op_ struct op op;

	op_begin(&op, r, NULL);
	/* Without a nodeid it is a second record of a node that lives on. */
	if (!n->key.type || !node->nodeid)
		return;
	op.epoch = __atomic_load_n(&r->client.epoch, __ATOMIC_ACQUIRE);
	if (!is_root(r, &n->key))
		fid_forget(&op, &n->key);
	if (n->name_len > NAME_INLINE) {
		_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&r->names_lock);

		long_drop(r, &n->key);
	}
	if (n->flags & NODE_HIDDEN)
		hidden_end(r, NULL, node);
	n->key.type = 0;
}
