/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One operation, and what it sees. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/mount/coherence.h"

enum { MOST_USES = 8, LAST_NODE = 1 << 20, NO_TIME = 1 << 27 };

atomic_uint *coherence_clock;
static int held = -1;
static uint32_t held_node, held_uses;

uint32_t coherence_tick(void)
{
	return atomic_fetch_add(coherence_clock, 1);
}

const char *coherence_path(unsigned name)
{
	static char buf[2][8];
	static unsigned n;

	snprintf(buf[++n % 2], sizeof(buf[0]), "%c/%c", 'a' + (int)(name / EACH) % DIRS, '0' + (int)name % EACH);
	return buf[n % 2];
}

static int see(struct op *op, int error, const struct stat *st)
{
	if (error)
		return error;
	op->node = st->st_gid < LAST_NODE ? st->st_gid : LAST_NODE;
	op->type = st->st_mode & S_IFMT;
	op->mode = st->st_mode & 07777;
	op->size = st->st_size < UINT32_MAX ? (uint32_t)st->st_size : UINT32_MAX;
	op->nlink = (uint32_t)st->st_nlink;
	op->mtime = st->st_mtime < NO_TIME ? (uint32_t)st->st_mtime : 0;
	op->ino = st->st_ino;
	return 0;
}

static int make(const struct op *op, const char *path)
{
	char target[32];
	int fd;

	switch (op->kind) {
	case MKDIR:
		return mkdir(path, op->value);
	case SYMLINK:
		coherence_target(target, sizeof(target), op->node);
		return symlink(target, path);
	default:
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, op->value);
		return fd < 0 ? -1 : close(fd);
	}
}

static int open_and_hold(struct op *op, const char *path)
{
	struct stat st;

	held = open(path, op->flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (held < 0 || see(op, fstat(held, &st), &st))
		return -1;
	held_node = op->node;
	held_uses = 0;
	return 0;
}

static int set_time(const struct op *op, const char *path)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = op->value } };

	return op->by ? futimens(held, times) : utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

static int use_xattr(struct op *op, const char *path)
{
	char name[8] = "user.0", value[16] = "";
	int n;

	name[5] = (char)('0' + op->key);
	switch (op->kind) {
	case SETXATTR:
		n = snprintf(value, sizeof(value), "%u", op->value);
		return op->by ? fsetxattr(held, name, value, (size_t)n, op->flags) :
				lsetxattr(path, name, value, (size_t)n, op->flags);
	case REMOVEXATTR:
		return op->by ? fremovexattr(held, name) : lremovexattr(path, name);
	default:
		n = (int)(op->by ? fgetxattr(held, name, value, sizeof(value) - 1) :
				   lgetxattr(path, name, value, sizeof(value) - 1));
		op->value = (uint32_t)strtoul(value, NULL, 10);
		return n;
	}
}

static int list_xattrs(struct op *op, const char *path)
{
	char list[1024];
	ssize_t n = op->by ? flistxattr(held, list, sizeof(list)) : llistxattr(path, list, sizeof(list));

	for (const char *p = list; p < list + n; p += strlen(p) + 1)
		if (!strncmp(p, "user.", 5))
			op->value |= 1u << (p[5] - '0');
	return (int)n;
}

static int read_link(struct op *op, const char *path)
{
	char target[32];
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (n >= 0) {
		target[n] = 0;
		if (sscanf(target, "nowhere.%u", &op->node) != 1 || op->node > LAST_NODE)
			op->node = LAST_NODE;
	}
	return (int)n;
}

static int list(struct op *op)
{
	const char name[] = { (char)('a' + op->x), 0 };
	DIR *dir = opendir(name);
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (*e->d_name >= '0' && *e->d_name < '0' + EACH)
			op->listed[*e->d_name - '0'] = (uint8_t)(e->d_type + 1);
	return dir ? closedir(dir) : -1;
}

static int call(struct op *op, const char *path, const char *other)
{
	struct stat st;
	int fd;

	switch ((enum kind)op->kind) {
	case CREATE:
	case MKDIR:
	case SYMLINK:
		return make(op, path);
	case UNLINK:
		return unlink(path);
	case RMDIR:
		return rmdir(path);
	case RENAME:
		return renameat2(AT_FDCWD, path, AT_FDCWD, other, op->flags);
	case LINK:
		return link(path, other);
	case CHMOD:
		return op->by ? fchmod(held, op->value) : chmod(path, op->value);
	case TRUNCATE:
		if (op->by)
			return ftruncate(held, op->value);
		if (op->value)
			return truncate(path, op->value);
		fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
		return fd < 0 ? -1 : close(fd);
	case WRITE:
		return pwrite(held, "x", 1, op->value - 1) == 1 ? 0 : -1;
	case UTIMES:
		return set_time(op, path);
	case SETXATTR:
	case REMOVEXATTR:
	case GETXATTR:
		return use_xattr(op, path);
	case LSTAT:
		return see(op, op->by ? fstat(held, &st) : lstat(path, &st), &st);
	case STAT:
		return see(op, stat(path, &st), &st);
	case OPEN:
		return open_and_hold(op, path);
	case ACCESS:
		return access(path, op->flags);
	case LISTXATTR:
		return list_xattrs(op, path);
	case READLINK:
		return read_link(op, path);
	default:
		return list(op);
	}
}

static void drop(void)
{
	if (held >= 0)
		close(held);
	held = -1;
}

void coherence_perform(struct op *op)
{
	const char *path = coherence_path(op->x), *other = coherence_path(op->y);

	if (op->kind <= SYMLINK)
		setfsgid(op->node);
	if (op->kind == OPEN)
		drop();
	op->begin = coherence_tick();
	op->err = call(op, path, other) < 0 ? errno : 0;
	op->end = coherence_tick();
	if (op->kind <= SYMLINK) {
		setfsgid(0);
		op->node = op->err ? 0 : op->node;
	}
}

uint32_t coherence_held(void)
{
	if (held_uses++ >= MOST_USES)
		drop();
	return held >= 0 ? held_node : 0;
}
