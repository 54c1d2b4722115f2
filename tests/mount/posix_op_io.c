/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Steps on open files: descriptors, content, size. */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "posix.h"

#define OP(name) static void do_##name(struct ctx *ctx, char **a, char *out)
#define UNUSED ((void)ctx, (void)a)

static void take_fd(struct ctx *ctx, const char *slot, int fd, char *out)
{
	int *place = arg_fd(ctx, slot);

	put_result(out, fd);
	if (fd < 0)
		return;
	if (*place >= 0)
		close(*place);
	*place = fd;
}

/* open SLOT PATH FLAGS [MODE] */
OP(open)
{
	int flags = arg_num(a[2]) | O_CLOEXEC;

	take_fd(ctx, a[0], open(arg_path(a[1]), flags, a[3] ? arg_mode(a[3]) : 0644), out);
}

OP(creat)
{
	take_fd(ctx, a[0], creat(arg_path(a[1]), a[2] ? arg_mode(a[2]) : 0644), out);
}

/* reopen SLOT FROM FLAGS: the same open file by /proc */
OP(reopen)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", *arg_fd(ctx, a[1]));
	take_fd(ctx, a[0], open(path, arg_num(a[2]) | O_CLOEXEC), out);
}

OP(dup) { take_fd(ctx, a[0], fcntl(*arg_fd(ctx, a[1]), F_DUPFD_CLOEXEC, 3), out); }

OP(close)
{
	int *fd = arg_fd(ctx, a[0]);

	put_result(out, close(*fd));
	*fd = -1;
}

static void put_count(struct ctx *ctx, char *out, ssize_t n)
{
	put_result(out, n);
	if (n >= 0)
		snprintf(out, RESULT_MAX, "%zd", n);
	if (ctx->signals)
		strcat(out, "+SIGXFSZ");
	ctx->signals = 0;
}

/* write SLOT TEXT: TEXT may be "<N>" for N letters, "" or BAD */
static void do_write_any(struct ctx *ctx, char **a, char *out, const char *at)
{
	const char *text = arg_path(a[1]);
	int fd = *arg_fd(ctx, a[0]);
	size_t len = text == (const char *)1 ? 10 : strlen(text);

	put_count(ctx, out, at ? pwrite(fd, text, len, arg_num(at)) : write(fd, text, len));
}

OP(write) { do_write_any(ctx, a, out, NULL); }
OP(pwrite) { do_write_any(ctx, a, out, a[2]); }

static void put_data(char *out, const char *data, ssize_t n)
{
	int len = 0;

	put_result(out, n);
	if (n < 0)
		return;
	len = sprintf(out, "%zd:", n);
	for (ssize_t i = 0; i < n && i < 64; i++)
		out[len++] = data[i] == 0 ? '_' : data[i];
	out[len] = 0;
}

static void do_read_any(struct ctx *ctx, char **a, char *out, const char *at)
{
	static char data[65536];
	int fd = *arg_fd(ctx, a[0]);
	size_t len = arg_num(a[1]);
	char *to = a[2] && !strcmp(a[2], "BAD") ? (char *)1 : data;

	if (len > sizeof(data))
		len = sizeof(data);
	put_data(out, data, at ? pread(fd, to, len, arg_num(at)) : read(fd, to, len));
}

OP(read) { do_read_any(ctx, a, out, NULL); }	/* read SLOT COUNT [BAD]: zeros shown as _ */
OP(pread) { do_read_any(ctx, a, out, a[2]); }

OP(lseek)
{
	off_t at = lseek(*arg_fd(ctx, a[0]), arg_num(a[1]), arg_num(a[2]));

	put_result(out, at);
	if (at >= 0)
		snprintf(out, RESULT_MAX, "%ld", (long)at);
}

/* rewrite PATH: opens, overwrites the first byte by what it was, closes */
OP(rewrite)
{
	int fd = open(arg_path(a[0]), O_RDWR | O_CLOEXEC);
	char byte;

	UNUSED;
	put_result(out, fd);
	if (fd < 0)
		return;
	put_result(out, pread(fd, &byte, 1, 0) == 1 && pwrite(fd, &byte, 1, 0) == 1 ? 0 : -1);
	close(fd);
}

/* cat PATH: the first bytes and the length */
OP(cat)
{
	static char data[65536];
	int fd = open(arg_path(a[0]), O_RDONLY | O_CLOEXEC);

	UNUSED;
	put_result(out, fd);
	if (fd < 0)
		return;
	put_data(out, data, read(fd, data, sizeof(data)));
	close(fd);
}

static void put_signal(struct ctx *ctx, char *out, int rc)
{
	put_result(out, rc);
	if (ctx->signals)
		strcat(out, "+SIGXFSZ");
	ctx->signals = 0;
}

OP(truncate) { put_signal(ctx, out, truncate(arg_path(a[0]), arg_num(a[1]))); }
OP(ftruncate) { put_signal(ctx, out, ftruncate(*arg_fd(ctx, a[0]), arg_num(a[1]))); }

/* fallocate SLOT MODE OFFSET LENGTH */
OP(fallocate)
{
	put_signal(ctx, out, fallocate(*arg_fd(ctx, a[0]), arg_num(a[1]), arg_num(a[2]),
				       arg_num(a[3])));
}

OP(posix_fallocate)
{
	errno = posix_fallocate(*arg_fd(ctx, a[0]), arg_num(a[1]), arg_num(a[2]));
	put_signal(ctx, out, errno ? -1 : 0);
}

OP(fsync) { put_result(out, fsync(*arg_fd(ctx, a[0]))); }
OP(fdatasync) { put_result(out, fdatasync(*arg_fd(ctx, a[0]))); }
OP(fchdir) { put_result(out, fchdir(*arg_fd(ctx, a[0]))); }
OP(umask) { UNUSED; umask(arg_mode(a[0])); put_result(out, 0); }

/* copy FROM TO LENGTH [FROM_OFFSET TO_OFFSET] */
OP(copy)
{
	off_t from = a[3] ? arg_num(a[3]) : 0, to = a[3] ? arg_num(a[4]) : 0;

	put_count(ctx, out, copy_file_range(*arg_fd(ctx, a[0]), &from, *arg_fd(ctx, a[1]), &to,
					    arg_num(a[2]), 0));
}

OP(sendfile)
{
	off_t from = 0;

	put_count(ctx, out, sendfile(*arg_fd(ctx, a[1]), *arg_fd(ctx, a[0]), &from, arg_num(a[2])));
}

/* fsize BYTES: the limit of this process on the size of files */
OP(fsize)
{
	struct rlimit limit;

	UNUSED;
	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = arg_num(a[0]);
	put_result(out, setrlimit(RLIMIT_FSIZE, &limit));
}

OP(setfl)
{
	put_result(out, fcntl(*arg_fd(ctx, a[0]), F_SETFL, (int)arg_num(a[1])));
}

OP(writev)
{
	struct iovec part[3] = { { a[1], strlen(a[1]) }, { a[2], 0 }, { a[2], strlen(a[2]) } };

	put_count(ctx, out, writev(*arg_fd(ctx, a[0]), part, 3));
}

OP(fionread)
{
	int n = -1, rc = ioctl(*arg_fd(ctx, a[0]), FIONREAD, &n);

	put_result(out, rc);
	if (!rc)
		snprintf(out, RESULT_MAX, "%d", n);
}

/* zeros SLOT FROM LENGTH: whether the range reads as zeros */
OP(zeros)
{
	static char data[65536];
	ssize_t n = pread(*arg_fd(ctx, a[0]), data, arg_num(a[2]), arg_num(a[1]));
	int other = 0;

	put_result(out, n);
	for (ssize_t i = 0; i < n; i++)
		other += data[i] != 0;
	if (n >= 0)
		snprintf(out, RESULT_MAX, "%zd,%d", n, other);
}

const struct op io_ops[] = {
#define N(name, args) { #name, args, do_##name }
	N(open, 3), N(creat, 2), N(reopen, 3), N(dup, 2), N(close, 1), N(write, 2), N(pwrite, 3),
	N(read, 2), N(pread, 3), N(lseek, 3), N(rewrite, 1), N(cat, 1), N(truncate, 2),
	N(ftruncate, 2), N(fallocate, 4), N(posix_fallocate, 3), N(fsync, 1), N(fdatasync, 1),
	N(fchdir, 1), N(umask, 1), N(copy, 3), N(sendfile, 3), N(fsize, 1), N(setfl, 2),
	N(writev, 3), N(fionread, 1), N(zeros, 3),
	{ NULL, 0, NULL },
};
