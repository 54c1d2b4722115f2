/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls on names and descriptors: open, link, rename, directories to be in. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fsdiff.h"

/* A fifo must never block a step: the other end may belong to an actor that waits for us. */
static int safe_flags(struct worker *w, int at, int flags)
{
	struct stat st;

	if (!w->sh->has_fifo[w->side] || (flags & O_PATH))
		return flags;
	if (!fstatat(at, w->path, &st, 0) && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		flags |= O_NONBLOCK;
	return flags;
}

static void open_into(struct worker *w, const struct step *s, int at, int flags)
{
	int fd = openat(at, w->path, safe_flags(w, at, flags) | O_CLOEXEC, (mode_t)s->num[1]);

	finish(w, fd < 0 ? -1 : 0);
	if (fd >= 0)
		slot_put(w, s->fd2, fd);
}

void do_open(struct worker *w, const struct step *s)
{
	/* What only one side has open would be another file there in each step that follows. */
	if ((s->num[0] & O_TMPFILE) == O_TMPFILE && tolerated("tmpfile")) {
		leave_out(w, "a file without a name");
		return;
	}
	open_into(w, s, at_fd(w, s->at), (int)s->num[0]);
}

void do_creat(struct worker *w, const struct step *s)
{
	open_into(w, s, AT_FDCWD, O_CREAT | O_WRONLY | O_TRUNC);
}

void do_close(struct worker *w, const struct step *s)
{
	finish(w, close(slot_fd(w, s->fd)));
	w->slot[s->fd].fd = -1;
}

void do_dup(struct worker *w, const struct step *s)
{
	int fd = dup(slot_fd(w, s->fd));

	finish(w, fd < 0 ? -1 : 0);
	if (fd >= 0)
		slot_put(w, s->fd2, fd);
}

void do_dup2(struct worker *w, const struct step *s)
{
	int from = slot_fd(w, s->fd), to = slot_fd(w, s->fd2);

	finish(w, dup2(from, to) < 0 ? -1 : 0);
	if (from >= 0 && to >= 0)
		w->slot[s->fd2].ino = w->slot[s->fd].ino;
}

void do_mkdir(struct worker *w, const struct step *s)
{
	finish(w, mkdirat(at_fd(w, s->at), w->path, (mode_t)s->num[0]));
}

void do_rmdir(struct worker *w, const struct step *s)
{
	(void)s;
	finish(w, rmdir(w->path));
}

/* The directory of a name that is gone. */
static void taint_parent(struct worker *w, int at, const char *path)
{
	char dir[PATH_MAX];
	struct stat st;
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	snprintf(slash ? slash + 1 : dir, 2, ".");
	if (!fstatat(at, dir, &st, 0))
		taint_ino(w, st.st_ino, HINT_REMOVED);
}

void do_unlink(struct worker *w, const struct step *s)
{
	finish(w, unlinkat(at_fd(w, s->at), w->path, (int)s->num[0]));
	if (w->res->ret == 0)
		taint_parent(w, at_fd(w, s->at), w->path);
}

static void emit_same_inode(struct worker *w, const struct stat *a, int at, const char *path)
{
	struct stat b;

	if (fstatat(at, path, &b, AT_SYMLINK_NOFOLLOW)) {
		emit(w, "target", "%s", err_name(errno));
		return;
	}
	emit(w, "target", "%s", a->st_ino == b.st_ino ? "same inode" : "other inode");
	emit_stat(w, "target", &b);
}

void do_link(struct worker *w, const struct step *s)
{
	int at = at_fd(w, s->at), at2 = at_fd(w, s->at2), flags = (int)s->num[0];
	struct stat st;

	finish(w, linkat(at, w->path, at2, w->path2, flags));
	if (w->res->ret == 0 &&
	    !fstatat(at, w->path, &st, flags & AT_SYMLINK_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW))
		emit_same_inode(w, &st, at2, w->path2);
}

void do_linkfd(struct worker *w, const struct step *s)
{
	int at2 = at_fd(w, s->at2), fd = slot_fd(w, s->fd);
	struct stat st;

	finish(w, linkat(fd, "", at2, w->path2, AT_EMPTY_PATH));
	if (w->res->ret == 0 && !fstat(fd, &st))
		emit_same_inode(w, &st, at2, w->path2);
}

void do_symlink(struct worker *w, const struct step *s)
{
	finish(w, symlinkat(w->path2, at_fd(w, s->at), w->path));
}

void do_readlink(struct worker *w, const struct step *s)
{
	size_t size = (size_t)s->num[0] < DATA_MAX ? (size_t)s->num[0] : DATA_MAX;
	ssize_t n = readlinkat(at_fd(w, s->at), w->path, w->data, size);

	finish(w, n);
	if (n >= 0)
		emit_data(w, w->data, (size_t)n);
	if (n >= 0 && n < 200)
		emit(w, "text", "%.*s", (int)n, w->data);
}

void do_rename(struct worker *w, const struct step *s)
{
	int at = at_fd(w, s->at), at2 = at_fd(w, s->at2);
	struct stat st;
	bool known = !fstatat(at, w->path, &st, AT_SYMLINK_NOFOLLOW);

	if (s->num[0] & ~(int64_t)RENAME_NOREPLACE && tolerated("rename-flags")) {
		leave_out(w, "a rename with flags");
		return;
	}
	finish(w, renameat2(at, w->path, at2, w->path2, (unsigned int)s->num[0]));
	if (w->res->ret == 0)
		taint_parent(w, at2, w->path2);
	if (w->res->ret == 0 && known)
		emit_same_inode(w, &st, at2, w->path2);
}

void do_mknod(struct worker *w, const struct step *s)
{
	/* null, zero, full; block 240:0 belongs to no driver, so opening it fails without harm. */
	static const unsigned int minors[] = { 3, 5, 7 };
	dev_t dev =
		S_ISBLK((mode_t)s->num[0]) ? makedev(240, 0) : makedev(1, minors[s->num[2] % 3]);

	finish(w,
	       mknodat(at_fd(w, s->at), w->path, (mode_t)(s->num[0] | (s->num[1] & 07777)), dev));
	if (w->res->ret == 0)
		w->sh->has_fifo[w->side] = true;
}

void do_chdir(struct worker *w, const struct step *s)
{
	(void)s;
	finish(w, chdir(w->path));
}

void do_fchdir(struct worker *w, const struct step *s)
{
	finish(w, fchdir(slot_fd(w, s->fd)));
}

void do_getcwd(struct worker *w, const struct step *s)
{
	char buf[PATH_MAX];
	char *p = getcwd(buf, sizeof(buf));

	(void)s;
	finish(w, p ? 0 : -1);
	if (p)
		emit(w, "cwd", "%s", p);
}

void do_umask(struct worker *w, const struct step *s)
{
	finish(w, umask((mode_t)s->num[0]));
}

void do_getfl(struct worker *w, const struct step *s)
{
	finish(w, fcntl(slot_fd(w, s->fd), F_GETFL));
}

void do_setfl(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd), flags = (int)s->num[0];
	struct stat st;

	if (fd >= 0 && !fstat(fd, &st) && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		flags |= O_NONBLOCK;
	if (tolerated("kept-flags"))
		flags |= fcntl(fd, F_GETFL) & (O_APPEND | O_DIRECT);
	finish(w, fcntl(fd, F_SETFL, flags));
}

void do_getflags(struct worker *w, const struct step *s)
{
	int flags = 0;

	finish(w, ioctl(slot_fd(w, s->fd), FS_IOC_GETFLAGS, &flags));
	if (w->res->ret == 0)
		emit(w, "flags", "%x", flags);
}
