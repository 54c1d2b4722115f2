/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The temporary file of a file, and what of it counts. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/spill/spill.h"
#include "base/cleanup.h"

#define BLOCK 4096u

/* An inner backend may have left this thread with the ids of a caller: its last call restores the server's. */
static void as_server(struct spill *sp)
{
	if (sp->in->backing_begin && sp->in->backing_end) {
		sp->in->backing_begin(sp->ip);
		sp->in->backing_end(sp->ip);
	}
}

static int make_file(struct spill *sp)
{
	char path[4096];
	int fd;

	as_server(sp);
	fd = openat(sp->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
		return fd < 0 ? -errno : fd;
	if (snprintf(path, sizeof(path), "/proc/self/fd/%d/.spill-XXXXXX", sp->dir_fd) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	unlink(path);
	return fd;
}

static int store_open(struct spill *sp, struct file *f)
{
	int fd;

	if (f->rec->fd >= 0)
		return 0;
	if (f->broken)
		return -ENOSPC;
	fd = make_file(sp);
	/* Holes in it are what reads as zeros: as long as the file is. */
	if (fd >= 0 && ftruncate(fd, (off_t)f->rec->size)) {
		int err = -errno;

		close(fd);
		fd = err;
	}
	if (fd < 0) {
		f->broken = true;
		say(sp, LOG_WARNING, "no temporary file in %s: %s; data go past it", sp->dir, strerror(-fd));
		return fd;
	}
	sp->services->fd_put(sp->host, &f->rec->fd, fd);
	return 0;
}

void store_account(struct spill *sp, struct file *f)
{
	uint64_t now = 0;
	struct stat st;

	if (f->rec->fd >= 0 && !fstat(f->rec->fd, &st))
		now = (uint64_t)st.st_blocks * 512;
	atomic_fetch_add(&sp->allocated, now - f->allocated);
	f->allocated = now;
}

static bool is_zero(const unsigned char *p, size_t n)
{
	return !*p && !memcmp(p, p + 1, n - 1);
}

/* Leaves holes where nothing but zeros is: nothing that was not present has blocks. */
static int write_sparse(int fd, const unsigned char *buf, uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at < end;) {
		uint64_t stop = at;
		ssize_t n;

		while (stop < end) {
			uint64_t next = (stop / BLOCK + 1) * BLOCK < end ? (stop / BLOCK + 1) * BLOCK : end;

			if (is_zero(buf + (stop - start), next - stop))
				break;
			stop = next;
		}
		if (stop == at) {
			at = (at / BLOCK + 1) * BLOCK;
			continue;
		}
		n = pwrite(fd, buf + (at - start), stop - at, (off_t)at);
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		at += (uint64_t)n;
	}
	return 0;
}

/* The bytes of [start, end) become a hole that reads as zeros; -errno where that can not be. */
static int punch(struct file *f, uint64_t start, uint64_t end)
{
	if (f->rec->fd < 0 || start >= end)
		return 0;
	return fallocate(f->rec->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start, (off_t)(end - start)) ?
	       -errno : 0;
}

int store_over(struct spill *sp, struct file *f, const unsigned char *buf, uint64_t start, uint64_t end)
{
	ssize_t n;

	(void)sp;
	n = pwrite(f->rec->fd, buf, end - start, (off_t)start);
	return n < 0 ? -errno : (uint64_t)n < end - start ? -ENOSPC : 0;
}

int store_fetched(struct spill *sp, struct file *f, const unsigned char *buf, uint64_t start, uint64_t end)
{
	int err = store_open(sp, f);
	uint64_t a, b;

	for (uint64_t at = start; !err && ranges_gap(&f->present, at, end, &a, &b); at = b) {
		err = write_sparse(f->rec->fd, buf + (a - start), a, b);
		if (!err)
			err = ranges_add(&f->present, a, b);
		if (err)
			punch(f, a, b);
	}
	store_account(sp, f);
	return err;
}

static void dirtied(struct spill *sp, struct file *f)
{
	if (f->rec->dirty_since)
		return;
	put_size(&f->rec->dirty_since, clock_ns());
	if (!atomic_fetch_add(&sp->dirty_files, 1))
		writer_start(sp);
}

void dirty_end(struct spill *sp, struct file *f)
{
	if (f->dirty.count || !f->rec->dirty_since)
		return;
	put_size(&f->rec->dirty_since, 0);
	atomic_fetch_sub(&sp->dirty_files, 1);
}

ssize_t store_write(struct spill *sp, struct file *f, const void *buf, size_t size, uint64_t off, bool dirty)
{
	uint64_t end = off + size, old = f->rec->size;
	int err = store_open(sp, f);
	ssize_t n;

	if (err)
		return err;
	n = pwrite(f->rec->fd, buf, size, (off_t)off);
	if (n <= 0)
		return n < 0 ? -errno : -ENOSPC;
	end = off + (uint64_t)n;
	/* What it leaves out behind the old end reads as zeros, and is a hole here. */
	err = ranges_add(&f->present, off > old ? old : off, end);
	/* Before it is dirty: the size is not less than what is written back. */
	if (!err && end > old)
		put_size(&f->rec->size, end);
	if (!err && dirty) {
		dirtied(sp, f);
		err = ranges_add(&f->dirty, off, end);
	}
	f->changes++;
	if (f->sent_start < end && off < f->sent_end)
		f->sent_again = true;
	store_account(sp, f);
	return err ? err : n;
}

int store_resize(struct spill *sp, struct file *f, uint64_t size)
{
	uint64_t old = f->rec->size;

	f->changes++;
	if (size < old) {
		ranges_remove(&f->dirty, size, UINT64_MAX, true);
		ranges_remove(&f->present, size, UINT64_MAX, true);
		f->drops++;
		f->epoch++;
		if (f->sent_start < old && size < f->sent_end)
			f->sent_again = true;
	}
	put_size(&f->rec->size, size);
	if (f->rec->fd >= 0 && ftruncate(f->rec->fd, (off_t)size)) {
		int err = -errno;

		store_forget(sp, f, 0, UINT64_MAX);
		return err;
	}
	if (size > old && f->rec->fd >= 0)
		ranges_add(&f->present, old, size);
	store_account(sp, f);
	return 0;
}

void store_forget(struct spill *sp, struct file *f, uint64_t start, uint64_t end)
{
	f->changes++;
	f->drops++;
	f->epoch++;
	/* A piece of what is dirty goes from its end: a record for the rest there may not be had. */
	if (ranges_remove(&f->dirty, start, end, false))
		ranges_remove(&f->dirty, start, end, true);
	ranges_remove(&f->present, start, end, true);
	if (f->sent_start < end && start < f->sent_end)
		f->sent_again = true;
	if (f->rec->fd >= 0 && punch(f, start, end < f->rec->size ? end : f->rec->size)) {
		/* It would show through later holes. */
		store_drop_clean(sp, f, 0, UINT64_MAX);
	}
	store_account(sp, f);
}

/* What holes are to be in can show nothing through them, also where none can be made. */
static int blank(struct file *f, uint64_t start, uint64_t end)
{
	_cleanup_free_ unsigned char *zeros = calloc(1, PIECE);
	uint64_t a, b;
	int err = zeros ? 0 : -ENOMEM;

	for (uint64_t at = start; !err && at < end && next_data(f, at, &a, &b) && a < end; at = b) {
		a = a > at ? a : at;
		b = b < end ? b : end;
		if (pwrite(f->rec->fd, zeros, b - a, (off_t)a) != (ssize_t)(b - a))
			err = -EIO;
	}
	return err;
}

/* What is dirty beside stays as it is. */
static void drop_piece(struct spill *sp, struct file *f, uint64_t start, uint64_t end)
{
	ranges_remove(&f->present, start, end, true);
	if (punch(f, start, end) && blank(f, start, end))
		say(sp, LOG_ERR, "a temporary file keeps what is old: %s", strerror(errno));
}

void store_drop_clean(struct spill *sp, struct file *f, uint64_t start, uint64_t end)
{
	uint64_t a, b;

	if (f->rec->fd < 0 || file_passed(sp, f))
		return;
	if (end > f->rec->size)
		end = f->rec->size;
	f->drops++;
	if (!f->dirty.count && !start && end == f->rec->size) {
		ranges_remove(&f->present, 0, UINT64_MAX, true);
		if (ftruncate(f->rec->fd, 0) || ftruncate(f->rec->fd, (off_t)f->rec->size))
			say(sp, LOG_ERR, "a temporary file can not be emptied: %s", strerror(errno));
		store_account(sp, f);
		return;
	}
	for (uint64_t at = start; ranges_gap(&f->dirty, at, end, &a, &b); at = b)
		drop_piece(sp, f, a, b);
	store_account(sp, f);
}

void store_doubt(struct spill *sp, struct file *f)
{
	atomic_fetch_add(&sp->counters->stale, 1);
	f->epoch++;
	file_set(f, FILE_SHED, true);
	file_set(f, FILE_KNOWN | FILE_PLAIN, false);
	store_drop_clean(sp, f, 0, UINT64_MAX);
}

ssize_t store_read(struct file *f, void *buf, size_t size, uint64_t off)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(f->rec->fd, (char *)buf + done, size - done, (off_t)(off + done));

		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}
