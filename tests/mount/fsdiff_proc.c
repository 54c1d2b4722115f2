/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The scratch directories of a run, the twin processes in them, and the end of both. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fsdiff.h"

static bool remove_tree(int dir, const char *name);

static bool remove_inside(int fd)
{
	DIR *d = fdopendir(fd);
	struct dirent *e;
	bool ok = true;

	if (!d)
		return false;
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			ok &= remove_tree(dirfd(d), e->d_name);
	closedir(d);
	return ok;
}

static bool remove_tree(int dir, const char *name)
{
	int fd;

	if (!unlinkat(dir, name, 0))
		return true;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return false;
	return remove_inside(fd) && !unlinkat(dir, name, AT_REMOVEDIR);
}

static int make_root(int dir, const char *name)
{
	int fd;

	if (mkdirat(dir, name, 0777))
		return -1;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && fchmod(fd, 0777)) {
		close(fd);
		return -1;
	}
	return fd;
}

bool run_open(struct run *r, const struct trees *t)
{
	static int count;

	memset(r, 0, sizeof(*r));
	r->t = t;
	r->dir[0] = r->dir[1] = -1;
	snprintf(r->name, sizeof(r->name), "fsdiff.%d.%d", getpid(), count++);
	r->sh = mmap(NULL, sizeof(*r->sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (r->sh == MAP_FAILED)
		return false;
	r->sh->started = time(NULL);
	for (int side = 0; side < 2; side++) {
		for (int i = 0; i < t->actors; i++)
			r->twin[side][i].sock = -1;
		r->dir[side] = make_root(t->fd[side], r->name);
		if (r->dir[side] < 0) {
			fprintf(stderr, "fsdiff: %s/%s: %s\n", t->name[side], r->name,
				strerror(errno));
			return false;
		}
	}
	return true;
}

static void close_inherited(struct run *r, int keep)
{
	for (int side = 0; side < 2; side++) {
		for (int i = 0; i < r->t->actors; i++)
			if (r->twin[side][i].sock >= 0)
				close(r->twin[side][i].sock);
		if (r->dir[side] != keep)
			close(r->dir[side]);
		close(r->t->fd[side]);
	}
}

static bool fork_one(struct run *r, int side, int actor, bool own_root,
		     void (*body)(struct worker *w, int sock, void *arg), void *arg)
{
	struct twin *twin = &r->twin[side][actor];
	int pair[2], root = r->dir[side];
	static struct worker w;
	char name[16];

	snprintf(name, sizeof(name), "c%d", actor);
	if (own_root)
		root = make_root(r->dir[side], name);
	twin->ch = mmap(NULL, sizeof(*twin->ch), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (root < 0 || twin->ch == MAP_FAILED ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		perror("fsdiff: cannot start an actor");
		return false;
	}
	fflush(NULL);
	twin->pid = fork();
	if (!twin->pid) {
		close(pair[0]);
		close_inherited(r, root);
		worker_init(&w, side, actor, r->sh, twin->ch, root);
		body(&w, pair[1], arg);
		_exit(0);
	}
	close(pair[1]);
	if (own_root)
		close(root);
	twin->sock = pair[0];
	r->sh->pid[side][actor] = twin->pid;
	return twin->pid > 0;
}

bool run_fork(struct run *r, bool own_roots, void (*body)(struct worker *w, int sock, void *arg),
	      void *arg)
{
	for (int side = 0; side < 2; side++)
		for (int i = 0; i < r->t->actors; i++)
			if (!fork_one(r, side, i, own_roots, body, arg))
				return false;
	return true;
}

/* A process that sleeps in a dead mount may never end: do not wait for it for ever. */
static void reap(struct twin *twin)
{
	struct timespec nap = { 0, 1000000 };

	kill(twin->pid, SIGKILL);
	for (int i = 0; i < 10000; i++) {
		pid_t got = waitpid(twin->pid, NULL, WNOHANG);

		if (got == twin->pid || (got < 0 && errno != EINTR))
			return;
		nanosleep(&nap, NULL);
	}
	fprintf(stderr, "fsdiff: process %d does not end\n", twin->pid);
}

void run_close(struct run *r)
{
	for (int side = 0; side < 2; side++)
		for (int i = 0; i < r->t->actors; i++) {
			struct twin *twin = &r->twin[side][i];

			if (twin->pid > 0)
				reap(twin);
			if (twin->sock >= 0)
				close(twin->sock);
			if (twin->ch && twin->ch != MAP_FAILED)
				munmap(twin->ch, sizeof(*twin->ch));
		}
	for (int side = 0; side < 2; side++) {
		if (r->dir[side] < 0)
			continue;
		close(r->dir[side]);
		if (!remove_tree(r->t->fd[side], r->name))
			fprintf(stderr, "fsdiff: cannot remove %s/%s: %s\n", r->t->name[side],
				r->name, strerror(errno));
	}
	if (r->sh != MAP_FAILED)
		munmap(r->sh, sizeof(*r->sh));
}
