/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls on attributes: modes, owners, times, access, stat in all its forms. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "fsdiff.h"

void do_chmod(struct worker *w, const struct step *s)
{
	finish(w, fchmodat(at_fd(w, s->at), w->path, (mode_t)s->num[0], 0));
}

void do_fchmod(struct worker *w, const struct step *s)
{
	finish(w, fchmod(slot_fd(w, s->fd), (mode_t)s->num[0]));
}

/* What is not known of a set-id file that somebody has open for writing is not asked. */
static bool chown_nothing(struct worker *w, const struct step *s, int at, const char *path,
			  int flags)
{
	struct stat st;

	if (s->num[0] != -1 || s->num[1] != -1 || !tolerated("chown-nothing") ||
	    fstatat(at, path, &st, flags) || !S_ISREG(st.st_mode))
		return false;
	leave_out(w, "chown of nothing");
	return true;
}

void do_chown(struct worker *w, const struct step *s)
{
	if (chown_nothing(w, s, at_fd(w, s->at), w->path, (int)s->num[2]))
		return;
	finish(w, fchownat(at_fd(w, s->at), w->path, (uid_t)s->num[0], (gid_t)s->num[1],
			   (int)s->num[2]));
}

void do_fchown(struct worker *w, const struct step *s)
{
	if (chown_nothing(w, s, slot_fd(w, s->fd), "", AT_EMPTY_PATH))
		return;
	finish(w, fchown(slot_fd(w, s->fd), (uid_t)s->num[0], (gid_t)s->num[1]));
}

static void to_timespec(int64_t v, struct timespec *ts)
{
	ts->tv_sec = 0;
	if (v == TIME_NOW || v == TIME_OMIT) {
		ts->tv_nsec = v == TIME_NOW ? UTIME_NOW : UTIME_OMIT;
		return;
	}
	ts->tv_sec = v / 1000000000;
	ts->tv_nsec = v % 1000000000;
	if (ts->tv_nsec < 0) {
		ts->tv_nsec += 1000000000;
		ts->tv_sec--;
	}
}

static void set_times(struct worker *w, int at, const char *path, const struct step *s, int flags)
{
	struct timespec ts[2];
	struct stat st;

	to_timespec(s->num[0], &ts[0]);
	to_timespec(s->num[1], &ts[1]);
	finish(w, path ? utimensat(at, path, ts, flags) : futimens(at, ts));
	if (w->res->ret || fstatat(at, path ? path : "", &st, flags | (path ? 0 : AT_EMPTY_PATH)))
		return;
	w->res->hints |= taint_of(w, st.st_ino);
	/* Only here is atime certain: a later read moves it or not, as mount options say. */
	if (s->num[0] != TIME_OMIT)
		emit_time(w, "atime", st.st_atim.tv_sec, st.st_atim.tv_nsec);
	emit_time(w, "mtime", st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	emit_time(w, "ctime", st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

void do_utimens(struct worker *w, const struct step *s)
{
	set_times(w, at_fd(w, s->at), w->path, s, (int)s->num[2]);
}

void do_futimens(struct worker *w, const struct step *s)
{
	set_times(w, slot_fd(w, s->fd), NULL, s, 0);
}

void do_access(struct worker *w, const struct step *s)
{
	finish(w, faccessat(at_fd(w, s->at), w->path, (int)s->num[0], (int)s->num[1]));
}

void do_stat(struct worker *w, const struct step *s)
{
	struct stat st;

	finish(w, fstatat(at_fd(w, s->at), w->path, &st, (int)s->num[0]));
	if (w->res->ret == 0)
		emit_stat(w, "st", &st);
}

void do_fstat(struct worker *w, const struct step *s)
{
	struct stat st;

	finish(w, fstat(slot_fd(w, s->fd), &st));
	if (w->res->ret == 0)
		emit_stat(w, "st", &st);
}

void do_statx(struct worker *w, const struct step *s)
{
	struct statx sx;

	memset(&sx, 0, sizeof(sx));
	finish(w, statx(at_fd(w, s->at), w->path, (int)s->num[0], STATX_BASIC_STATS | STATX_BTIME,
			&sx));
	if (w->res->ret)
		return;
	w->res->hints |= taint_of(w, sx.stx_ino);
	emit(w, "mask", "%x", sx.stx_mask & STATX_BASIC_STATS);
	emit(w, "mode", "%07o", sx.stx_mode);
	emit(w, "nlink", "%u", sx.stx_nlink);
	emit(w, "owner", "%u:%u", sx.stx_uid, sx.stx_gid);
	if (!S_ISDIR(sx.stx_mode))
		emit(w, "size", "%llu", (unsigned long long)sx.stx_size);
	emit(w, "rdev", "%u:%u", sx.stx_rdev_major, sx.stx_rdev_minor);
	emit_time(w, "mtime", sx.stx_mtime.tv_sec, sx.stx_mtime.tv_nsec);
	emit_time(w, "ctime", sx.stx_ctime.tv_sec, sx.stx_ctime.tv_nsec);
	if (sx.stx_mask & STATX_BTIME)
		emit_time(w, "btime", sx.stx_btime.tv_sec, sx.stx_btime.tv_nsec);
	else
		emit(w, "btime", "none");
}

static void emit_statfs(struct worker *w, const struct statfs *f)
{
	if (w->res->ret)
		return;
	emit(w, "namelen", "%ld", (long)f->f_namelen);
	emit(w, "bsize", "%ld", (long)f->f_bsize);
	emit(w, "blocks", "%llu", (unsigned long long)f->f_blocks);
	emit(w, "files", "%llu", (unsigned long long)f->f_files);
}

void do_statfs(struct worker *w, const struct step *s)
{
	struct statfs f;

	(void)s;
	finish(w, statfs(w->path, &f));
	emit_statfs(w, &f);
}

void do_fstatfs(struct worker *w, const struct step *s)
{
	struct statfs f;

	finish(w, fstatfs(slot_fd(w, s->fd), &f));
	emit_statfs(w, &f);
}
