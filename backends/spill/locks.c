/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks that the inner backend keeps: who takes one sees what others wrote under it before, and what was written here
 * is there before one is given up, also while others here write beside it.
 */
#include <fcntl.h>
#include <string.h>

#include "backends/spill/spill.h"

/* What is clean may be old, and so may the size. With the file claimed. */
static void distrust(struct spill *sp, struct file *f)
{
	if (file_passed(sp, f))
		return;
	file_set(f, FILE_SHED, true);
	file_set(f, FILE_KNOWN, false);
	f->epoch++;
	if (f->dirty.count) {
		store_doubt(sp, f);
	} else {
		store_forget(sp, f, 0, UINT64_MAX);
		file_set(f, FILE_SIZED, false);
	}
}

/* What was changed elsewhere is noticed as at an open; where others write here, what they did not is asked for again. */
static void look_again(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node)
{
	struct statx st = { 0 };
	uint64_t changes, valid = 0;
	int err;

	pthread_mutex_lock(&f->lock);
	file_claim(f);
	write_back_claimed(sp, f, node, NULL, false, false);
	changes = f->changes;
	pthread_mutex_unlock(&f->lock);
	err = sp->in->getattr(sp->ip, req, node, NULL, &st, &valid);
	pthread_mutex_lock(&f->lock);
	if (err) {
		distrust(sp, f);
	} else if (!file_passed(sp, f)) {
		if (f->dirty.count || changes != f->changes)
			attrs_doubt(sp, f, &st);
		else
			attrs_check(sp, f, &st);
	}
	file_unclaim(f);
	pthread_mutex_unlock(&f->lock);
	sp->services->inval_inode(sp->host, node->nodeid, -1, 0);
}

static void suspect(struct spill *sp, struct file *f)
{
	pthread_mutex_lock(&f->lock);
	file_claim(f);
	distrust(sp, f);
	file_unclaim(f);
	pthread_mutex_unlock(&f->lock);
}

static int give_back(struct spill *sp, struct file *f, struct fe_node *node)
{
	return f->dirty.count || file_is(f, FILE_PASSED) ? write_back(sp, f, node, NULL, false) : 0;
}

static int unlock_file(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
		       struct fe_handle *handle, const struct fe_lock *lock)
{
	int err = give_back(sp, f, node);

	/* Nobody heeds what the call ends with, and it stays dirty: fsync and close tell of it. */
	if (err)
		say(sp, LOG_ERR, "what was written could not be written back before a lock of it was given up: %s",
		    strerror(-err));
	return sp->in->setlk(sp->ip, req, node, inner_handle(sp, handle), lock);
}

static int lock_file(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
		     struct fe_handle *handle, const struct fe_lock *lock)
{
	struct fe_lock at_once = *lock;
	int err = -EAGAIN;

	file_set(f, FILE_LOCKED, true);
	at_once.wait = 0;
	/* A successor goes on before the inner backend has answered; who waits has been refused once. */
	if (!lock->wait || !req->again) {
		give_back(sp, f, node);
		err = sp->in->setlk(sp->ip, req, node, inner_handle(sp, handle), &at_once);
	}
	if (lock->wait && (err == -EAGAIN || err == -EACCES)) {
		/* When it is granted later nobody is asked here, so nothing is kept until then. */
		suspect(sp, f);
		err = sp->in->setlk(sp->ip, req, node, inner_handle(sp, handle), lock);
	}
	if (!err)
		look_again(sp, f, req, node);
	return err;
}

int sp_setlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     const struct fe_lock *lock)
{
	struct spill *sp = b;
	struct file *f = part_of(sp, handle)->flags & HANDLE_RAW ? NULL : file_find(sp, node->record);
	int err;

	if (!f)
		return sp->in->setlk(sp->ip, req, node, inner_handle(sp, handle), lock);
	err = lock->type == F_UNLCK ? unlock_file(sp, f, req, node, handle, lock) :
	      lock_file(sp, f, req, node, handle, lock);
	file_put(sp, f);
	return err;
}
