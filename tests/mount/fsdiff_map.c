/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory maps, locks, and what a forked child inherits. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fsdiff.h"

static sigjmp_buf fault_point;

static void on_fault(int sig)
{
	siglongjmp(fault_point, sig);
}

static void unmap(struct map *m)
{
	if (!m->addr)
		return;
	munmap(m->addr, m->len);
	close(m->fd);
	m->addr = NULL;
}

void do_mmap(struct worker *w, const struct step *s)
{
	struct map *m = &w->map[s->num[0]];
	int fd = slot_fd(w, s->fd), prot = (int)s->num[3], flags = (int)s->num[4];
	char *addr = mmap(NULL, (size_t)s->num[2], prot, flags, fd, s->num[1]);

	finish(w, addr == MAP_FAILED ? -1 : 0);
	if (addr == MAP_FAILED)
		return;
	unmap(m);
	*m = (struct map){ addr, (size_t)s->num[2], s->num[1], dup(fd) };
	/* In tmpfs a load from a hole makes it data, too. */
	taint_fd(w, fd, HINT_UNWRITTEN);
	if ((prot & PROT_WRITE) && flags == MAP_SHARED)
		taint_fd(w, fd, HINT_MAPPED);
}

void do_munmap(struct worker *w, const struct step *s)
{
	finish(w, 0);
	unmap(&w->map[s->num[0]]);
}

/*
 * The part of the map that a step touches, ended at the end of the file: bytes behind it in the
 * last page belong to nobody, and a file that grows later may or may not show them.
 */
static size_t clip(const struct map *m, const struct step *s, size_t *off)
{
	size_t len = (size_t)s->num[2];
	struct stat st;

	*off = (uint64_t)s->num[1] % m->len;
	if (len > m->len - *off)
		len = m->len - *off;
	if (fstat(m->fd, &st) || !S_ISREG(st.st_mode))
		return 0;
	if (st.st_size > m->off + (off_t)*off) {
		size_t left = (size_t)(st.st_size - m->off) - *off;

		return len < left ? len : left;
	}
	/* Wholly behind the end: a fault, unless inside the last page. */
	if (((st.st_size + 4095) & ~(off_t)4095) > m->off + (off_t)*off)
		return 0;
	return len;
}

/* Returns the signal that ended it, or 0. Apart, so that no variable lives across the jump. */
__attribute__((noinline)) static int copy_guarded(void *to, const void *from, size_t len)
{
	int sig = sigsetjmp(fault_point, 1);

	if (!sig)
		memcpy(to, from, len);
	return sig;
}

static void touch(struct worker *w, const struct step *s, bool writing)
{
	struct map *m = &w->map[s->num[0]];
	struct sigaction act = { .sa_handler = on_fault }, old_bus, old_segv;
	size_t off, len;
	int sig;

	errno = EBADF;
	finish(w, m->addr ? 0 : -1);
	if (!m->addr)
		return;
	len = clip(m, s, &off);
	if (writing)
		fill_pattern(w->data, len, s->num[3]);
	sigaction(SIGBUS, &act, &old_bus);
	sigaction(SIGSEGV, &act, &old_segv);
	sig = writing ? copy_guarded(m->addr + off, w->data, len) : copy_guarded(w->data, m->addr + off, len);
	if (sig)
		emit(w, "signal", "%s", sig == SIGBUS ? "SIGBUS" : "SIGSEGV");
	sigaction(SIGBUS, &old_bus, NULL);
	sigaction(SIGSEGV, &old_segv, NULL);
	if (!sig && !writing)
		emit_data(w, w->data, len);
}

void do_mread(struct worker *w, const struct step *s)
{
	touch(w, s, false);
}

void do_mwrite(struct worker *w, const struct step *s)
{
	touch(w, s, true);
}

void do_msync(struct worker *w, const struct step *s)
{
	struct map *m = &w->map[s->num[0]];

	errno = EBADF;
	finish(w, m->addr ? msync(m->addr, m->len, (int)s->num[1]) : -1);
}

static struct flock make_lock(const struct step *s)
{
	return (struct flock){ .l_type = (short)s->num[1], .l_whence = (short)s->num[2],
			       .l_start = s->num[3], .l_len = s->num[4] };
}

static void emit_lock(struct worker *w, const struct flock *l)
{
	int holder = -1;

	if (l->l_type == F_UNLCK) {
		emit(w, "lock", "none");
		return;
	}
	for (int i = 0; i < MAX_ACTORS; i++)
		if (w->sh->pid[w->side][i] == l->l_pid)
			holder = i;
	emit(w, "lock", "%s whence %d start %lld len %lld", l->l_type == F_RDLCK ? "read" : "write",
	     l->l_whence, (long long)l->l_start, (long long)l->l_len);
	if (holder >= 0)
		emit(w, "holder", "actor %d", holder);
	else
		emit(w, "holder", "%s", l->l_pid == -1 ? "-1" : "unknown pid");
}

void do_setlk(struct worker *w, const struct step *s)
{
	struct flock l = make_lock(s);

	finish(w, fcntl(slot_fd(w, s->fd), s->num[0] ? F_OFD_SETLK : F_SETLK, &l));
	/* The two errors that POSIX allows for a lock held by another. */
	if (w->res->err == EACCES)
		w->res->err = EAGAIN;
}

static void query_lock(struct worker *w, const struct step *s, int cmd, struct flock l)
{
	finish(w, fcntl(slot_fd(w, s->fd), cmd, &l));
	if (w->res->ret == 0)
		emit_lock(w, &l);
}

void do_getlk(struct worker *w, const struct step *s)
{
	query_lock(w, s, s->num[0] ? F_OFD_GETLK : F_GETLK, make_lock(s));
}

void do_flock(struct worker *w, const struct step *s)
{
	finish(w, flock(slot_fd(w, s->fd), (int)s->num[0] | LOCK_NB));
}

static void child_acts(struct worker *w, const struct step *s)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = slot_fd(w, s->fd);

	switch (s->num[0]) {
	case 0:
		/* Direct I/O of this length would depend on alignment. */
		finish(w, (fcntl(fd, F_GETFL) & O_DIRECT) ? 0 : write(fd, "from a child", 12));
		break;
	case 1:
		finish(w, lseek(fd, 1, SEEK_CUR));
		break;
	case 2:
		finish(w, close(fd));
		break;
	case 3:
		query_lock(w, s, F_GETLK, all);
		break;
	case 4:
		finish(w, flock(fd, LOCK_UN));
		break;
	case 5:
		all.l_len = 30;
		finish(w, fcntl(fd, F_SETLK, &all));
	}
}

/* The child reports into the same shared result; afterwards the parent looks at what is left. */
void do_fork(struct worker *w, const struct step *s)
{
	pid_t pid = fork();
	int fd = slot_fd(w, s->fd), status;

	if (pid < 0) {
		finish(w, -1);
		return;
	}
	if (!pid) {
		child_acts(w, s);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	emit(w, "child", "%s", WIFEXITED(status) ? "exited" : "died");
	if (fd >= 0 && s->num[0] < 2)
		emit(w, "pos", "%lld", (long long)lseek(fd, 0, SEEK_CUR));
}
