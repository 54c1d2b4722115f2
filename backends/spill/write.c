/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes, and what else changes data: into the temporary file where that can be, else past it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/spill/spill.h"
#include "base/cleanup.h"

#define COPY_MOST	(16u << 20)

/* Where an append goes: where it went before a process that died. With file.lock. */
static uint64_t append_at(struct file *f, const struct fe_request *req)
{
	struct fe_intent *intent = req->intent;
	uint64_t off = f->rec->size;

	if (intent && req->again && intent->state)
		memcpy(&off, intent->data, sizeof(off));
	else if (intent) {
		memcpy(intent->data, &off, sizeof(off));
		__atomic_store_n(&intent->state, 1, __ATOMIC_RELEASE);
	}
	return off;
}

/*
 * Set-id bits and capabilities go with the write, not when it is written back: so the inner backend gets a
 * write to a file that may have some at once, by who writes.
 */
static bool needs_through(const struct spill *sp, struct file *f)
{
	return sp->kills && (!file_is(f, FILE_PLAIN) || f->rec->mode & (S_ISUID | S_ISGID));
}

static void ask_mode(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
		     struct fe_handle *handle)
{
	struct statx st = { 0 };
	uint64_t valid = 0;
	int err;

	pthread_mutex_unlock(&f->lock);
	err = sp->in->getattr(sp->ip, req, node, inner_handle(sp, handle), &st, &valid);
	pthread_mutex_lock(&f->lock);
	if (!err)
		f->rec->mode = st.stx_mode;
}

/* At the inner backend first. store: and here, too, else what is here is given up. With file.lock. */
static ssize_t write_through(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
			     struct fe_handle *handle, const void *buf, size_t size, uint64_t off, uint32_t io_flags,
			     bool store)
{
	struct fe_request mine = *req;
	bool known;
	ssize_t n;

	mine.intent = NULL;
	mine.again = 0;
	file_claim(f);
	known = file_is(f, FILE_KNOWN);
	file_set(f, FILE_KNOWN, false);
	pthread_mutex_unlock(&f->lock);
	n = sp->in->write(sp->ip, &mine, node, inner_handle(sp, handle), buf, size, off,
			  io_flags & ~(uint32_t)FE_IO_APPEND);
	pthread_mutex_lock(&f->lock);
	if (n > 0) {
		uint64_t end = off + (uint64_t)n;

		atomic_fetch_add(&sp->counters->inner_writes, 1);
		atomic_fetch_add(&sp->counters->inner_write_bytes, (uint64_t)n);
		if (!store || store_write(sp, f, buf, (size_t)n, off, false) != n)
			store_forget(sp, f, off, end);
		else
			ranges_remove(&f->dirty, off, end, false);
		if (end > f->rec->size)
			store_resize(sp, f, end);
		file_set(f, FILE_PLAIN, true);
	} else if (known) {
		file_set(f, FILE_KNOWN, true);
	}
	file_unclaim(f);
	if (n > 0 && f->rec->mode & (S_ISUID | S_ISGID))
		ask_mode(sp, f, req, node, handle);
	return n;
}

/* With file.lock, which is let go meanwhile. */
static bool more_room(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *handle)
{
	bool given;

	pthread_mutex_unlock(&f->lock);
	given = files_give(sp, f) || (f->dirty.count && !write_back(sp, f, node, handle, false));
	pthread_mutex_lock(&f->lock);
	return given;
}

static void note_writer(struct file *f, const struct fe_request *req, uint32_t io_flags)
{
	if (io_flags & FE_IO_CACHE)
		return;
	f->rec->uid = req->uid;
	f->rec->gid = req->gid;
	file_set(f, FILE_KILL, io_flags & FE_IO_KILL_SUIDGID);
}

/* With file.lock, which is let go meanwhile. */
static ssize_t write_file(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
			  struct fe_handle *handle, const void *buf, size_t size, uint64_t off, uint32_t io_flags)
{
	bool through = needs_through(sp, f);
	ssize_t n = 0;

	for (unsigned tries = 0; !through; tries++) {
		/* In a file that is passed through the place is there. */
		bool fits = atomic_load(&sp->allocated) + size <= sp->limit || file_is(f, FILE_PASSED);

		note_writer(f, req, io_flags);
		n = fits ? store_write(sp, f, buf, size, off, true) : -ENOSPC;
		if (n > 0)
			return n;
		if (!is_full(n) || tries == FULL_TRIES || !more_room(sp, f, node, handle))
			break;
	}
	if (!through)
		atomic_fetch_add(&sp->counters->direct, 1);
	return write_through(sp, f, req, node, handle, buf, size, off, io_flags, through);
}

static int sync_now(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
		    struct fe_handle *handle)
{
	struct fe_request mine = *req;
	int err = write_back(sp, f, node, handle, false);

	mine.intent = NULL;
	if (!err && sp->in->fsync)
		err = sp->in->fsync(sp->ip, &mine, node, inner_handle(sp, handle), 0);
	return err;
}

ssize_t sp_write(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 const void *buf, size_t size, uint64_t off, uint32_t io_flags)
{
	struct spill *sp = b;
	bool raw = part_of(sp, handle)->flags & HANDLE_RAW;
	struct file *f = raw ? NULL : file_get(sp, node->record);
	size_t done = 0;
	ssize_t n;

	if (!f)
		return sp->in->write(sp->ip, req, node, inner_handle(sp, handle), buf, size, off, io_flags);
	pthread_mutex_lock(&f->lock);
	n = file_ready(sp, f, req, node, handle);
	if (!n && io_flags & FE_IO_APPEND && !sp->writeback)
		off = append_at(f, req);
	while (n >= 0 && done < size) {
		n = write_file(sp, f, req, node, handle, (const char *)buf + done, size - done, off + done, io_flags);
		if (!n)
			break;
		done += n > 0 ? (size_t)n : 0;
	}
	pthread_mutex_unlock(&f->lock);
	if (n > 0 && f->dirty.count > FILE_RANGES)
		write_back(sp, f, node, handle, false);
	if (n > 0 && part_of(sp, handle)->flags & HANDLE_SYNC) {
		int err = sync_now(sp, f, req, node, handle);

		if (err)
			n = err, done = 0;
	}
	file_put(sp, f);
	return done ? (ssize_t)done : n;
}

ssize_t sp_copy_file_range(void *b, const struct fe_request *req, struct fe_node *in_node, struct fe_handle *in,
			   uint64_t in_off, struct fe_node *out_node, struct fe_handle *out, uint64_t out_off,
			   uint64_t len, uint32_t flags)
{
	_cleanup_free_ unsigned char *buf = NULL;
	uint32_t io_flags = req->uid ? FE_IO_KILL_SUIDGID : 0;
	struct fe_request mine = *req;
	uint64_t done = 0;

	mine.intent = NULL;
	mine.again = 0;
	if (flags)
		return -EINVAL;
	buf = malloc(PIECE);
	if (!buf)
		return -ENOMEM;
	if (len > COPY_MOST)
		len = COPY_MOST;
	while (done < len) {
		size_t size = len - done < PIECE ? (size_t)(len - done) : PIECE;
		ssize_t n = sp_read(b, &mine, in_node, in, buf, size, in_off + done), m;

		if (n <= 0)
			return done ? (ssize_t)done : n;
		m = sp_write(b, &mine, out_node, out, buf, (size_t)n, out_off + done, io_flags);
		if (m <= 0)
			return done ? (ssize_t)done : m;
		done += (uint64_t)m;
		if (m < n)
			break;
	}
	return (ssize_t)done;
}

/* What a change of the inner file left right of what is here. With the file claimed and locked. */
static void allocated(struct spill *sp, struct file *f, uint32_t mode, uint64_t off, uint64_t len,
		      const struct statx *st)
{
	if (st->stx_size != f->rec->size)
		store_resize(sp, f, st->stx_size);
	if (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE))
		store_forget(sp, f, off, UINT64_MAX);
	else if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		store_forget(sp, f, off, off + len);
	f->rec->inner_size = st->stx_size;
}

static int allocate(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
		    struct fe_handle *handle, uint32_t mode, uint64_t off, uint64_t len)
{
	bool passed;
	struct fe_handle own;
	struct statx st = { 0 };
	uint64_t valid = 0;
	bool known;
	int err = write_back_claimed(sp, f, node, handle, false, false);

	if (err)
		return err;
	known = file_is(f, FILE_KNOWN);
	file_set(f, FILE_KNOWN, false);
	pthread_mutex_unlock(&f->lock);
	err = sp->in->fallocate(sp->ip, req, node, inner_handle(sp, handle), mode, off, len);
	if (!err)
		err = sp->in->getattr(sp->ip, req, node, inner_handle(sp, handle), &st, &valid);
	pthread_mutex_lock(&f->lock);
	if (err)
		return err;
	passed = file_passed(sp, f);
	allocated(sp, f, mode, off, len, &st);
	/* The kernel reads it there. */
	if (passed && !ranges_cover(&f->present, 0, f->rec->size)) {
		err = own_open(sp, f, node, &own);
		if (!err) {
			err = fetch_whole(sp, f, node, &own);
			own_close(sp, f, node);
		}
	}
	/* Else it is fetched again at the next open, which of a file that the kernel has means at once. */
	if (!err && passed && known)
		attrs_adopt(f, &st);
	return err;
}

int sp_fallocate(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 uint32_t mode, uint64_t off, uint64_t len)
{
	struct spill *sp = b;
	bool raw = part_of(sp, handle)->flags & HANDLE_RAW;
	struct file *f = raw ? NULL : file_get(sp, node->record);
	int err;

	if (!f)
		return sp->in->fallocate(sp->ip, req, node, inner_handle(sp, handle), mode, off, len);
	pthread_mutex_lock(&f->lock);
	err = file_ready(sp, f, req, node, handle);
	if (!err) {
		file_claim(f);
		err = allocate(sp, f, req, node, handle, mode, off, len);
		file_unclaim(f);
	}
	pthread_mutex_unlock(&f->lock);
	file_put(sp, f);
	return err;
}

int64_t sp_lseek(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, int64_t off,
		 uint32_t whence)
{
	struct spill *sp = b;
	struct file *f = file_find(sp, node->record);
	int err = 0;

	/* Where holes are is for the inner backend to say. */
	if (f && !sp->writeback && (f->dirty.count || file_is(f, FILE_PASSED)))
		err = write_back(sp, f, node, part_of(sp, handle)->flags & HANDLE_WRITES ? handle : NULL, false);
	file_put(sp, f);
	return err ? err : sp->in->lseek(sp->ip, req, node, inner_handle(sp, handle), off, whence);
}
