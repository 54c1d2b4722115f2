/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* nlookup, a server that is stopped or dead, and many at once. */
#include <signal.h>
#include <sys/wait.h>

#include "tests/vm/rig.h"

static struct rig *r;

static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	if (fd < 0 || write(fd, "2", 1) != 1)
		fatal("drop_caches");
	close(fd);
}

static long nlookup(struct node *n)
{
	return n->lookups - n->forgotten + (r->nodes[n - r->fs->nodes].grants & EXTFUSE_NODE_COUNT);
}

static void test_nlookup(void)
{
	struct node *n;
	struct stat st;
	long granted, left = 0;

	rig_file(r, "counted");
	stat(rig_path(r, "counted"), &st);
	n = fs_node(r->fs, st.st_ino);
	rig_put_name(r, 1, "counted");
	for (int i = 0; i < 1000; i++)
		stat(rig_path(r, "counted"), &st);
	granted = r->nodes[n - r->fs->nodes].grants;
	result(granted == 1000, "grants", "%ld", granted);
	for (int i = 0; i < 1000; i++) {
		drop_caches();
		left = nlookup(n);
		if (!left)
			break;
		usleep(10000);
	}
	result(!left && n->forgotten >= 1000, "nlookup",
		"%ld left of %ld lookups and %ld grants, %ld forgotten", left,
		(long)n->lookups, granted, (long)n->forgotten);
}

/* Looks up and forgets at once, where handlers and the server take turns. */
static void test_nlookup_storm(void)
{
	struct node *n[8];
	char name[16];
	struct stat st;
	pid_t child[3];
	long left = 0;

	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "storm%d", i);
		rig_file(r, name);
		n[i] = fs_node(r->fs, rig_id(r, name));
		rig_put_name(r, 1, name);
	}
	for (int c = 0; c < 3; c++) {
		child[c] = fork();
		if (child[c])
			continue;
		for (int i = 0; i < 1500; i++) {
			snprintf(name, sizeof(name), "storm%d", (i + c) % 8);
			if (stat(rig_path(r, name), &st))
				_exit(1);
			if (i % 40 == 0)
				drop_caches();
			if (c == 0 && i % 7 == 0)
				chmod(rig_path(r, name), 0600 + i % 64);
			if (c == 1 && i % 5 == 0)
				rig_put_name(r, 1, name);
		}
		_exit(0);
	}
	for (int c = 0; c < 3; c++)
		waitpid(child[c], NULL, 0);
	for (int i = 0; i < 200; i++) {
		drop_caches();
		left = 0;
		for (int k = 0; k < 8; k++)
			left |= nlookup(n[k]);
		if (!left)
			break;
		usleep(10000);
	}
	result(!left, "nlookup-storm", "%ld and more left", left);
	result(rig_stats(r, FUSE_LOOKUP).hits > 1000 && rig_stats(r, FUSE_LOOKUP).stale,
		"nlookup-storm-mixed",
		"%llu hits, %llu stale", (unsigned long long)rig_stats(r, FUSE_LOOKUP).hits,
		(unsigned long long)rig_stats(r, FUSE_LOOKUP).stale);
}

static void test_without_server(void)
{
	struct stat st;
	int rc, fd;

	rig_file(r, "left");
	fd = rig_handle(r, "left");
	rig_put_attr(r, rig_id(r, "left"));
	rig_put_name(r, 1, "left");
	kill(r->m->server, SIGSTOP);
	rc = fstat(fd, &st);
	result(!rc, "server-stopped", "errno %d", errno);
	kill(r->m->server, SIGCONT);
	fs_kill(r->m);
	rc = 0;
	for (int i = 0; i < 100; i++)
		rc |= fstat(fd, &st) | fstatat(AT_FDCWD, rig_path(r, "left"), &st,
			AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC);
	result(!rc, "server-dead", "errno %d", errno);
	close(fd);
}

void test_life(void)
{
	r = rig_new("life");
	test_nlookup();
	test_nlookup_storm();
	test_without_server();
	rig_free(r);
}
