/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file that is passed through for a reader may be opened for writing meanwhile, and has to be passed
 * through then, too: what is written reaches the temporary file by nobody's request. So before the first
 * such open is answered a sum of each block is noted, and what has another one later was written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/spill/spill.h"
#include "base/cleanup.h"

#define BLOCK	4096u
#define PER_PIECE (PIECE / BLOCK)
#define TICK	50000000u	/* ns: time stamps of files are no finer than half of this */

static uint64_t mix(uint64_t x, uint64_t y)
{
	__uint128_t p = (__uint128_t)(x ^ 0x9e3779b97f4a7c15u) * (y ^ 0xbf58476d1ce4e5b9u);

	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

/* Never 0, which stands for what was not there. */
static uint64_t sum_of(const unsigned char *p, size_t n)
{
	uint64_t a = n, b = 0x94d049bb133111ebu, w[4];

	for (; n >= sizeof(w); p += sizeof(w), n -= sizeof(w)) {
		memcpy(w, p, sizeof(w));
		a = mix(a ^ w[0], w[1]) + b;
		b = mix(b ^ w[2], w[3]) + (a << 1 | a >> 63);
	}
	memset(w, 0, sizeof(w));
	memcpy(w, p, n);
	a = mix(a ^ w[0], w[1] + 1) ^ mix(b ^ w[2], w[3] + 2);
	return a ? a : 1;
}

static size_t sum_piece(const unsigned char *buf, size_t size, uint64_t *sums)
{
	size_t n = 0;

	for (size_t at = 0; at < size; at += BLOCK)
		sums[n++] = sum_of(buf + at, size - at < BLOCK ? size - at : BLOCK);
	return n;
}

bool next_data(struct file *f, uint64_t from, uint64_t *start, uint64_t *end)
{
	off_t a = lseek(f->rec->fd, (off_t)from, SEEK_DATA), b;

	if (a < 0)
		return false;
	b = lseek(f->rec->fd, a, SEEK_HOLE);
	*start = (uint64_t)a & ~(uint64_t)(BLOCK - 1);
	*end = b < a ? f->rec->size : (uint64_t)b;
	if (*end > *start + PIECE)
		*end = *start + PIECE;
	return *start < f->rec->size;
}

int sums_make(struct spill *sp, struct file *f)
{
	_cleanup_free_ unsigned char *buf = NULL;
	_cleanup_close_ int fd = -1;
	uint64_t sums[PER_PIECE], at, end;

	if (f->rec->sums_fd >= 0)
		return 0;
	buf = malloc(PIECE);
	fd = memfd_create("spill-sums", MFD_CLOEXEC);
	if (!buf || fd < 0)
		return -ENOMEM;
	for (uint64_t from = 0; next_data(f, from, &at, &end); from = end) {
		ssize_t n = store_read(f, buf, end - at, at);
		size_t size;

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		size = sum_piece(buf, (size_t)n, sums) * sizeof(*sums);
		if (pwrite(fd, sums, size, (off_t)(at / BLOCK * sizeof(*sums))) != (ssize_t)size)
			return -ENOSPC;
	}
	f->seen_at = 0;
	sp->services->fd_put(sp->host, &f->rec->sums_fd, fe_steal_fd(&fd));
	return 0;
}

void sums_end(struct spill *sp, struct file *f)
{
	fe_close(sp->services->fd_take(sp->host, &f->rec->sums_fd));
	f->seen_at = 0;
}

/* The range is dirty before its sum says that it was seen. */
static int look_piece(struct file *f, const unsigned char *buf, size_t size, uint64_t at)
{
	off_t where = (off_t)(at / BLOCK * sizeof(uint64_t));
	uint64_t now[PER_PIECE], then[PER_PIECE] = { 0 };
	size_t n = sum_piece(buf, size, now), bytes = n * sizeof(*now);
	bool changed = false;

	if (pread(f->rec->sums_fd, then, bytes, where) < 0)
		return -errno;
	for (size_t i = 0; i < n; i++) {
		uint64_t start = at + i * BLOCK, end = start + BLOCK < at + size ? start + BLOCK : at + size;

		if (now[i] == then[i])
			continue;
		if (ranges_add(&f->dirty, start, end))
			return -ENOMEM;
		changed = true;
	}
	if (changed && pwrite(f->rec->sums_fd, now, bytes, where) != (ssize_t)bytes)
		return -ENOSPC;
	return 0;
}

int sums_look(struct spill *sp, struct file *f, bool sure)
{
	_cleanup_free_ unsigned char *buf = NULL;
	uint64_t mtime, at, end;
	struct timespec now;
	struct stat st;
	int err = 0;

	if (fstat(f->rec->fd, &st))
		return -errno;
	mtime = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
	if (!sure && f->seen_at && f->seen_mtime == mtime && f->seen_at > mtime + TICK)
		return 0;
	buf = malloc(PIECE);
	if (!buf)
		return -ENOMEM;
	clock_gettime(CLOCK_REALTIME, &now);
	if ((uint64_t)st.st_size > f->rec->size) {
		err = ranges_add(&f->present, f->rec->size, (uint64_t)st.st_size);
		put_size(&f->rec->size, (uint64_t)st.st_size);
	}
	for (uint64_t from = 0; !err && next_data(f, from, &at, &end); from = end) {
		ssize_t n = store_read(f, buf, end - at, at);

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		err = look_piece(f, buf, (size_t)n, at);
	}
	if (err)
		return err;
	f->seen_mtime = mtime;
	f->seen_at = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	f->changes += f->dirty.count;
	store_account(sp, f);
	return 0;
}
