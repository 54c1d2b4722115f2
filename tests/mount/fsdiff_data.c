/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls that move bytes through descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fsdiff.h"

static bool is_direct(int fd)
{
	int fl = fcntl(fd, F_GETFL);

	return fl >= 0 && (fl & O_DIRECT);
}

/*
 * What unaligned direct I/O does is up to the file system, the page cache and where a server keeps
 * its buffers, so it is left out, on both sides alike. off < 0: at the current position.
 */
static bool unaligned_direct(struct worker *w, int fd, off_t off, int64_t len, bool writing)
{
	struct stat st;

	if (!is_direct(fd) || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return false;
	if (off < 0)
		off = lseek(fd, 0, SEEK_CUR);
	if (writing && (fcntl(fd, F_GETFL) & O_APPEND))
		off = st.st_size;
	if ((off | len) % 4096 == 0)
		return false;
	leave_out(w, "unaligned direct I/O");
	return true;
}

static bool any_direct(struct worker *w, int a, int b)
{
	if (!is_direct(a) && !is_direct(b))
		return false;
	leave_out(w, "copy with a direct descriptor");
	return true;
}

/* How far a copy of a file to itself has read when it writes is open. */
static bool to_itself(struct worker *w, int a, int b)
{
	struct stat in, out;

	if (fstat(a, &in) || fstat(b, &out) || in.st_ino != out.st_ino)
		return false;
	leave_out(w, "copy of a file to itself");
	return true;
}

static void got(struct worker *w, ssize_t n)
{
	finish(w, n);
	if (n >= 0)
		emit_data(w, w->data, (size_t)n);
}

static void emit_pos(struct worker *w, int fd)
{
	long long pos = (long long)lseek(fd, 0, SEEK_CUR);
	struct stat st;

	/* In a directory it is a cookie. */
	if (pos > 0 && !fstat(fd, &st) && S_ISDIR(st.st_mode))
		pos = 1;
	emit(w, "pos", "%lld", pos);
}

static int split(struct worker *w, int fd, size_t len, struct iovec *v)
{
	size_t a = is_direct(fd) ? len : len / 3, b = is_direct(fd) ? 0 : len / 2;

	v[0] = (struct iovec){ w->data, a };
	v[1] = (struct iovec){ w->data + a, b };
	v[2] = (struct iovec){ w->data + a + b, len - a - b };
	return 3;
}

void do_read(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd);

	if (unaligned_direct(w, fd, -1, s->num[0], false))
		return;
	got(w, read(fd, w->data, (size_t)s->num[0]));
	emit_pos(w, fd);
}

void do_pread(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd);

	if (unaligned_direct(w, fd, s->num[0], s->num[1], false))
		return;
	got(w, pread(fd, w->data, (size_t)s->num[1], s->num[0]));
}

void do_readv(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd);
	struct iovec v[3];

	if (unaligned_direct(w, fd, -1, s->num[0], false))
		return;
	got(w, readv(fd, v, split(w, fd, (size_t)s->num[0], v)));
	emit_pos(w, fd);
}

void do_preadv2(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd);
	struct iovec v[3];

	if (unaligned_direct(w, fd, s->num[0], s->num[1], false))
		return;
	got(w, preadv2(fd, v, split(w, fd, (size_t)s->num[1], v), s->num[0], (int)s->num[2]));
	emit_pos(w, fd);
}

void do_write(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd);

	if (unaligned_direct(w, fd, -1, s->num[0], true))
		return;
	fill_pattern(w->data, (size_t)s->num[0], s->num[1]);
	finish(w, write(fd, w->data, (size_t)s->num[0]));
	emit_pos(w, fd);
}

void do_pwrite(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd);

	if (unaligned_direct(w, fd, s->num[0], s->num[1], true))
		return;
	fill_pattern(w->data, (size_t)s->num[1], s->num[2]);
	finish(w, pwrite(fd, w->data, (size_t)s->num[1], s->num[0]));
}

void do_writev(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd);
	struct iovec v[3];

	if (unaligned_direct(w, fd, -1, s->num[0], true))
		return;
	fill_pattern(w->data, (size_t)s->num[0], s->num[1]);
	finish(w, writev(fd, v, split(w, fd, (size_t)s->num[0], v)));
	emit_pos(w, fd);
}

void do_pwritev2(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd);
	struct iovec v[3];

	if (unaligned_direct(w, fd, s->num[0], s->num[1], true))
		return;
	if ((s->num[3] & RWF_APPEND) && is_direct(fd) && any_direct(w, fd, fd))
		return;
	fill_pattern(w->data, (size_t)s->num[1], s->num[2]);
	finish(w, pwritev2(fd, v, split(w, fd, (size_t)s->num[1], v), s->num[0], (int)s->num[3]));
	emit_pos(w, fd);
}

void do_lseek(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd);
	struct stat st;
	bool seeks_data = s->num[1] == SEEK_DATA || s->num[1] == SEEK_HOLE;

	if (fd >= 0 && !fstat(fd, &st)) {
		w->res->hints |= taint_of(w, st.st_ino);
		if (seeks_data && !S_ISDIR(st.st_mode))
			emit(w, "size", "%lld", (long long)st.st_size);
		/* Positions in a directory are cookies, and their limits those of the cookie. */
		if (S_ISDIR(st.st_mode) && (s->num[0] || s->num[1] > SEEK_CUR)) {
			leave_out(w, "seeking in a directory");
			return;
		}
	}
	finish(w, lseek(fd, s->num[0], (int)s->num[1]));
	if (fd >= 0 && S_ISDIR(st.st_mode) && w->res->ret > 0)
		w->res->ret = 1;
	/* Positions that may differ must not be carried on to the next read. */
	if (seeks_data && fd >= 0)
		lseek(fd, s->num[0], SEEK_SET);
}

void do_truncate(struct worker *w, const struct step *s)
{
	struct stat st;

	if (!stat(w->path, &st) && st.st_size == s->num[0])
		taint_ino(w, st.st_ino, HINT_OWN_TIMES);
	finish(w, truncate(w->path, s->num[0]));
}

void do_ftruncate(struct worker *w, const struct step *s)
{
	finish(w, ftruncate(slot_fd(w, s->fd), s->num[0]));
}

void do_fallocate(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd);

	if (tolerated("no-fallocate")) {
		leave_out(w, "fallocate");
		return;
	}
	/* Through FUSE the kernel takes them away before it asks, which then may be refused. */
	if (fgetxattr(fd, "security.capability", NULL, 0) > 0) {
		leave_out(w, "fallocate of a file with capabilities");
		return;
	}
	finish(w, fallocate(fd, (int)s->num[0], s->num[1], s->num[2]));
	taint_fd(w, fd, w->res->ret ? HINT_OWN_TIMES : HINT_UNWRITTEN);
}

void do_copy_range(struct worker *w, const struct step *s)
{
	int in = slot_fd(w, s->fd), out = slot_fd(w, s->fd2);
	loff_t from = s->num[0], to = s->num[1];

	if (any_direct(w, in, out))
		return;
	/* Blocks may be shared or copied with their holes: what is data afterwards is open. */
	taint_fd(w, out, HINT_UNWRITTEN);
	finish(w, copy_file_range(in, &from, out, &to, (size_t)s->num[2], 0));
	emit(w, "offsets", "%lld %lld", (long long)from, (long long)to);
}

void do_sendfile(struct worker *w, const struct step *s)
{
	int in = slot_fd(w, s->fd), out = slot_fd(w, s->fd2);
	off_t from = s->num[0];

	if (any_direct(w, in, out) || to_itself(w, in, out))
		return;
	finish(w, sendfile(out, in, &from, (size_t)s->num[1]));
	emit(w, "offset", "%lld", (long long)from);
	emit_pos(w, out);
}

/* At most what any pipe takes, so that a short count always comes from the file. */
#define SPLICE_MAX 4096

void do_splice(struct worker *w, const struct step *s)
{
	int in = slot_fd(w, s->fd), out = slot_fd(w, s->fd2), p[2];
	loff_t from = s->num[0], to = s->num[1];
	size_t len = s->num[2] < SPLICE_MAX ? (size_t)s->num[2] : SPLICE_MAX;
	ssize_t n;

	if (any_direct(w, in, out) || to_itself(w, in, out))
		return;
	if (pipe2(p, O_CLOEXEC | O_NONBLOCK)) {
		finish(w, -1);
		return;
	}
	n = splice(in, &from, p[1], NULL, len, SPLICE_F_NONBLOCK);
	finish(w, n);
	if (n > 0) {
		n = splice(p[0], NULL, out, &to, (size_t)n, SPLICE_F_NONBLOCK);
		emit(w, "out", "%zd %s", n, n < 0 ? err_name(errno) : "ok");
	}
	emit(w, "offsets", "%lld %lld", (long long)from, (long long)to);
	close(p[0]);
	close(p[1]);
}

void do_fsync(struct worker *w, const struct step *s)
{
	finish(w, fsync(slot_fd(w, s->fd)));
}

void do_fdatasync(struct worker *w, const struct step *s)
{
	finish(w, fdatasync(slot_fd(w, s->fd)));
}

void do_sync_range(struct worker *w, const struct step *s)
{
	finish(w,
	       sync_file_range(slot_fd(w, s->fd), s->num[0], s->num[1], (unsigned int)s->num[2]));
}

void do_syncfs(struct worker *w, const struct step *s)
{
	finish(w, syncfs(slot_fd(w, s->fd)));
}
