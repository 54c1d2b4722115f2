/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing back: what is dirty stays so until the inner backend has it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "backends/spill/spill.h"
#include "base/cleanup.h"

#define BLOCK 4096u

struct fe_request own_request(const struct file *f)
{
	return (struct fe_request){ .uid = f->rec->uid, .gid = f->rec->gid, .supp_group = FE_NO_GROUP };
}

/* With the file claimed, and file.lock, which is let go meanwhile. */
int own_open(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *out)
{
	struct fe_request req = own_request(f);
	struct fe_open o = { .record = own_handle(sp, f) };
	int err = 0;

	*out = (struct fe_handle){ .record = o.record };
	memset(o.record, 0, sp->inner_handle);
	f->rec->own = OWN_OPENING;
	pthread_mutex_unlock(&f->lock);
	if (sp->in->open_file)
		err = sp->in->open_file(sp->ip, &req, node, O_RDWR, 0, &o);
	pthread_mutex_lock(&f->lock);
	f->rec->own = err ? OWN_NONE : OWN_OPEN;
	return err;
}

void own_close(struct spill *sp, struct file *f, struct fe_node *node)
{
	struct fe_request req = own_request(f);
	struct fe_handle h = { .record = own_handle(sp, f) };
	struct fe_release how = { .flags = O_RDWR };

	pthread_mutex_unlock(&f->lock);
	if (sp->in->open_file && sp->in->release)
		sp->in->release(sp->ip, &req, node, &h, &how);
	pthread_mutex_lock(&f->lock);
	f->rec->own = OWN_NONE;
}

static int send_piece(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
		      struct fe_handle *handle, const unsigned char *buf, uint64_t start, uint64_t end)
{
	uint32_t io_flags = FE_IO_CACHE | (file_is(f, FILE_KILL) ? FE_IO_KILL_SUIDGID : 0);

	for (uint64_t at = start; at < end;) {
		ssize_t n = sp->in->write(sp->ip, req, node, inner_handle(sp, handle), buf + (at - start),
					  end - at, at, io_flags);

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		atomic_fetch_add(&sp->counters->inner_writes, 1);
		atomic_fetch_add(&sp->counters->inner_write_bytes, (uint64_t)n);
		at += (uint64_t)n;
	}
	return 0;
}

static int send_all(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *handle)
{
	_cleanup_free_ unsigned char *buf = NULL;
	uint64_t at = 0, room = 0, a, b;
	struct fe_request req;
	int err = 0;

	while (!err && ranges_next(&f->dirty, at, UINT64_MAX, &a, &b)) {
		if (b > a + SEND_PIECE)
			b = a + SEND_PIECE;
		if (room < b - a) {
			free(buf);
			room = b - a;
			buf = malloc(room);
		}
		err = !buf ? -ENOMEM : store_read(f, buf, b - a, a) == (ssize_t)(b - a) ? 0 : -EIO;
		if (err)
			break;
		f->sent_start = a;
		f->sent_end = b;
		f->sent_again = false;
		req = own_request(f);
		pthread_mutex_unlock(&f->lock);
		err = send_piece(sp, f, &req, node, handle, buf, a, b);
		pthread_mutex_lock(&f->lock);
		f->sent_start = f->sent_end = 0;
		if (!err && !f->sent_again) {
			ranges_remove(&f->dirty, a, b, false);
			/* Attributes that were asked for before are of a file without it. */
			f->changes++;
		}
		at = b;
	}
	return err;
}

static int ask(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *handle, struct statx *st)
{
	struct fe_request req = own_request(f);
	uint64_t valid = 0;
	int err;

	memset(st, 0, sizeof(*st));
	pthread_mutex_unlock(&f->lock);
	err = sp->in->getattr(sp->ip, &req, node, inner_handle(sp, handle), st, &valid);
	pthread_mutex_lock(&f->lock);
	return err;
}

/* Without sums, what the kernel wrote by itself is what differs from the inner backend's. */
static int compare(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *own)
{
	_cleanup_free_ unsigned char *mine = malloc(PIECE), *theirs = malloc(PIECE);
	struct fe_request req = own_request(f);
	uint64_t at, end;
	int err = mine && theirs ? 0 : -ENOMEM;

	for (uint64_t from = 0; !err && next_data(f, from, &at, &end); from = end) {
		ssize_t m = store_read(f, mine, end - at, at), n = 0;

		if (m <= 0)
			return (int)m;
		pthread_mutex_unlock(&f->lock);
		n = sp->in->read(sp->ip, &req, node, inner_handle(sp, own), theirs, (size_t)m, at);
		pthread_mutex_lock(&f->lock);
		if (n < 0)
			return (int)n;
		for (size_t i = 0; !err && i < (size_t)m; i += BLOCK) {
			size_t len = (size_t)m - i < BLOCK ? (size_t)m - i : BLOCK;

			if (i + len > (size_t)n || memcmp(mine + i, theirs + i, len))
				err = ranges_add(&f->dirty, at + i, at + i + len);
		}
	}
	return err;
}

/* Of a file that is passed through: both opens may have come at once, and then there are no sums yet. */
static int find_dirty(struct spill *sp, struct file *f, struct fe_node *node, bool sure)
{
	struct fe_handle own = { 0 };
	int err;

	if (f->rec->sums_fd >= 0)
		return sums_look(sp, f, sure);
	err = own_open(sp, f, node, &own);
	if (err)
		return err;
	err = sums_make(sp, f);
	if (!err)
		err = compare(sp, f, node, &own);
	if (err)
		sums_end(sp, f);
	own_close(sp, f, node);
	return err;
}

int write_back_claimed(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *handle, bool settle,
		       bool last)
{
	struct fe_handle own = { 0 };
	struct statx st;
	uint64_t changes;
	int err = 0;

	/* Where the kernel has it, what is not certain at the next open is fetched whole. */
	if (node->writers && file_passed(sp, f)) {
		err = find_dirty(sp, f, node, last);
		settle = true;
	}
	dirty_end(sp, f);
	if (err || !f->dirty.count)
		return err;
	if (!handle) {
		err = own_open(sp, f, node, &own);
		if (err)
			return err;
		handle = &own;
	}
	/*
	 * Nobody else changed it since: what it will be is what was made of it here. Where there are locks, others
	 * may write between one question and the next, and what they wrote is to be seen.
	 */
	settle = settle && file_is(f, FILE_KNOWN) && !file_is(f, FILE_LOCKED) && !ask(sp, f, node, handle, &st) &&
		 !attrs_differ(f, &st);
	file_set(f, FILE_KNOWN, false);
	err = send_all(sp, f, node, handle);
	dirty_end(sp, f);
	changes = f->changes;
	if (!err && settle && !f->dirty.count && !ask(sp, f, node, handle, &st) && changes == f->changes &&
	    st.stx_size == f->rec->size && !file_is(f, FILE_LOCKED))
		attrs_adopt(f, &st);
	if (!err && !f->dirty.count && !file_is(f, FILE_KNOWN))
		put_size(&f->rec->inner_size, f->rec->size);
	if (f->rec->own != OWN_NONE)
		own_close(sp, f, node);
	return err;
}

int write_back(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *handle, bool settle)
{
	int err;

	pthread_mutex_lock(&f->lock);
	file_claim(f);
	err = write_back_claimed(sp, f, node, handle, settle, false);
	file_unclaim(f);
	pthread_mutex_unlock(&f->lock);
	return err;
}

static struct fe_handle *writable(const struct spill *sp, struct fe_handle *handle)
{
	return handle && part_of(sp, handle)->flags & HANDLE_WRITES ? handle : NULL;
}

/* Of a handle that may have written, or of any where others have. */
static int back_by(struct spill *sp, struct fe_node *node, struct fe_handle *handle, bool all)
{
	uint32_t flags = part_of(sp, handle)->flags;
	struct file *f;
	int err;

	if (flags & HANDLE_RAW || !(all || flags & HANDLE_WRITES))
		return 0;
	f = file_find(sp, node->record);
	if (!f)
		return 0;
	err = write_back(sp, f, node, writable(sp, handle),
			 __atomic_load_n(&f->rec->size, __ATOMIC_ACQUIRE) >= SETTLE_SIZE);
	file_put(sp, f);
	return err;
}

int sp_flush(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     uint64_t lock_owner)
{
	struct spill *sp = b;
	/* Any close of a file gives up the locks that its process has, also what it wrote by another descriptor. */
	int err = back_by(sp, node, handle, sp->locks);
	int inner = sp->in->flush ? sp->in->flush(sp->ip, req, node, inner_handle(sp, handle), lock_owner) : 0;

	return err ? err : inner;
}

int sp_fsync(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, int datasync)
{
	struct spill *sp = b;
	int err = back_by(sp, node, handle, true);

	if (!err && sp->in->fsync)
		err = sp->in->fsync(sp->ip, req, node, inner_handle(sp, handle), datasync);
	return err;
}

static void back_one(struct spill *sp, struct file *f)
{
	struct fe_node node;

	if ((f->dirty.count || file_is(f, FILE_PASSED)) && !file_node(sp, f, &node))
		write_back(sp, f, &node, NULL, true);
}

int sp_syncfs(void *b, const struct fe_request *req, struct fe_node *node)
{
	struct spill *sp = b;

	files_each(sp, back_one);
	return sp->in->syncfs ? sp->in->syncfs(sp->ip, req, node) : 0;
}

/* Nobody is left who could be told, and close(2) has told already. */
static void give_up(struct spill *sp, struct file *f, int err)
{
	atomic_fetch_add(&sp->counters->lost, 1);
	say(sp, LOG_ERR, "%llu bytes could not be written back when their file was closed: %s",
	    (unsigned long long)ranges_sum(&f->dirty), strerror(-err));
	file_set(f, FILE_SHED, true);
	file_set(f, FILE_KNOWN | FILE_SIZED, false);
	if (file_passed(sp, f))
		ranges_remove(&f->dirty, 0, UINT64_MAX, true);
	else
		store_forget(sp, f, 0, UINT64_MAX);
	dirty_end(sp, f);
}

static void last_write(struct spill *sp, struct fe_node *node, struct fe_handle *handle)
{
	struct file *f = file_find(sp, node->record);
	struct fe_node now = *node;
	bool last;
	int err;

	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	file_claim(f);
	file_node(sp, f, &now);
	err = write_back_claimed(sp, f, &now, handle, f->rec->size >= SETTLE_SIZE, true);
	/* In this order: who is not here any more is there. */
	last = !f->opening_writers && !file_node(sp, f, &now) && now.writers <= 1;
	if (err && f->dirty.count && last)
		give_up(sp, f, err);
	else if (!err && last)
		sums_end(sp, f);
	file_unclaim(f);
	pthread_mutex_unlock(&f->lock);
	file_put(sp, f);
}

void sp_release(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		const struct fe_release *how)
{
	struct spill *sp = b;
	struct file_handle_part *part = part_of(sp, handle);

	ahead_end(sp, handle);
	opening_end(sp, node, handle);
	if (part->flags & HANDLE_WRITES && !(part->flags & HANDLE_RAW))
		last_write(sp, node, handle);
	else if (sp->locks && how->flock_unlock)
		back_by(sp, node, handle, true);
	if (sp->in->release && sp->in->open_file)
		sp->in->release(sp->ip, req, node, handle, how);
	part->flags = 0;
}
