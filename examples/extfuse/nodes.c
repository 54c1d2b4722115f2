/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The files that the kernel knows, and who hears of changes. */
#include <errno.h>
#include <extfuse.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "mirror.h"

#define NAMES	(IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)
#define CONTENT	(IN_MODIFY | IN_ATTRIB)

static struct node nodes[1 << INDEX_BITS];
static uint32_t used = ROOT_INDEX + 1;
static uint64_t serial;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int inotify = -1;

static int watch_add(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return inotify_add_watch(inotify, path, NAMES | CONTENT | IN_ONLYDIR);
}

int nodes_open(const char *source)
{
	struct node *root = &nodes[ROOT_INDEX];
	struct stat st;
	int fd;

	inotify = inotify_init1(IN_CLOEXEC);
	fd = open(source, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (inotify < 0 || fd < 0 || fstat(fd, &st))
		return -errno;
	*root = (struct node){ .nodeid = 1, .nlookup = 1, .dev = st.st_dev, .ino = st.st_ino, .fd = fd };
	root->wd = watch_add(fd);
	return 0;
}

static struct node *get(uint64_t nodeid)
{
	struct node *n = &nodes[nodeid == 1 ? ROOT_INDEX : INDEX(nodeid)];

	return n->nodeid == nodeid ? n : NULL;
}

int node_fd(uint64_t nodeid)
{
	struct node *n;
	int fd;

	pthread_mutex_lock(&lock);
	n = get(nodeid);
	fd = n ? n->fd : -ESTALE;
	pthread_mutex_unlock(&lock);
	return fd;
}

/* An example's way to find one: all are looked at. */
static struct node *find(dev_t dev, ino_t ino)
{
	for (uint32_t i = ROOT_INDEX; i < used; i++)
		if (nodes[i].nodeid && nodes[i].ino == ino && nodes[i].dev == dev)
			return &nodes[i];
	return NULL;
}

static struct node *take_free(void)
{
	for (uint32_t i = ROOT_INDEX + 1; i < used; i++)
		if (!nodes[i].nodeid)
			return &nodes[i];
	return used < 1u << INDEX_BITS ? &nodes[used++] : NULL;
}

static struct node *add(int fd, const struct stat *st)
{
	struct node *n = take_free();

	if (!n)
		return NULL;
	*n = (struct node){ .dev = st->st_dev, .ino = st->st_ino, .fd = fd, .wd = -1 };
	n->nodeid = ++serial << INDEX_BITS | (uint64_t)(n - nodes);
	/* so that a lookup that the hook answers is counted there */
	extfuse_node_new(cache, (uint32_t)(n - nodes), n->nodeid);
	if (S_ISDIR(st->st_mode))
		n->wd = watch_add(fd);
	return n;
}

uint64_t node_find(int parent_fd, const char *name, struct stat *st)
{
	int fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	uint64_t nodeid = 0;
	struct node *n;

	if (fd < 0)
		return 0;
	pthread_mutex_lock(&lock);
	n = fstat(fd, st) ? NULL : find(st->st_dev, st->st_ino);
	if (!n) {
		n = add(fd, st);
		fd = n ? -1 : fd;
	}
	if (n) {
		n->nlookup++;
		nodeid = n->nodeid;
	}
	pthread_mutex_unlock(&lock);
	if (fd >= 0)
		close(fd);
	errno = nodeid ? 0 : ENFILE;
	return nodeid;
}

uint64_t node_of(dev_t dev, ino_t ino)
{
	uint64_t nodeid;
	struct node *n;

	pthread_mutex_lock(&lock);
	n = find(dev, ino);
	nodeid = n ? n->nodeid : 0;
	pthread_mutex_unlock(&lock);
	return nodeid;
}

void node_ungrant(uint64_t nodeid, uint64_t count)
{
	struct node *n;

	pthread_mutex_lock(&lock);
	n = get(nodeid);
	if (n)
		n->nlookup -= (int64_t)count;
	if (n && nodeid != 1 && extfuse_forget(cache, INDEX(nodeid), nodeid, n->nlookup) == 1) {
		if (n->wd >= 0)
			inotify_rm_watch(inotify, n->wd);
		close(n->fd);
		n->nodeid = 0;
	}
	pthread_mutex_unlock(&lock);
}

/* ---- what others change ---- */

static uint64_t watched(int wd)
{
	uint64_t nodeid = 0;

	pthread_mutex_lock(&lock);
	for (uint32_t i = ROOT_INDEX; i < used; i++)
		if (nodes[i].nodeid && nodes[i].wd == wd)
			nodeid = nodes[i].nodeid;
	pthread_mutex_unlock(&lock);
	return nodeid;
}

/* Without the lock: the kernel may wait for an answer before it takes the notification. */
static void changed(const struct inotify_event *e)
{
	uint64_t dir = watched(e->wd), nodeid;
	int fd = dir ? node_fd(dir) : -1;
	struct stat st;

	if (e->mask & IN_Q_OVERFLOW)
		extfuse_invalidate_all(cache);
	if (fd < 0)
		return;
	if (!e->len) {
		extfuse_invalidate_node(cache, dir, EXTFUSE_KEEP_DATA);
		return;
	}
	if (e->mask & NAMES)
		extfuse_invalidate_entry(cache, dir, e->name);
	if (fstatat(fd, e->name, &st, AT_SYMLINK_NOFOLLOW))
		return;
	nodeid = node_of(st.st_dev, st.st_ino);
	if (nodeid)
		extfuse_invalidate_node(cache, nodeid, 0);
}

static void *watch(void *arg)
{
	static char buffer[65536] __attribute__((aligned(8)));
	ssize_t n;

	while ((n = read(inotify, buffer, sizeof(buffer))) > 0) {
		for (char *p = buffer; p < buffer + n;) {
			const struct inotify_event *e = (const struct inotify_event *)(const void *)p;

			changed(e);
			p += sizeof(*e) + e->len;
		}
	}
	return arg;
}

int watch_start(void)
{
	pthread_t thread;
	int err = pthread_create(&thread, NULL, watch, NULL);

	if (!err)
		pthread_detach(thread);
	return -err;
}
