/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MIRROR_H
#define MIRROR_H

#include <stdint.h>
#include <sys/stat.h>

/* A file that the kernel knows. nodeids are never used twice: the low bits are the index, which is. */
struct node {
	uint64_t nodeid;	/* 0: free */
	int64_t nlookup;	/* granted by replies, less what was forgotten; the hook grants, too */
	dev_t dev;
	ino_t ino;
	int fd;			/* O_PATH */
	int wd;			/* inotify's, of a directory */
};

#define INDEX_BITS	16
#define INDEX(nodeid)	((uint32_t)(nodeid) & ((1u << INDEX_BITS) - 1))
#define ROOT_INDEX	1

extern struct extfuse *cache;

/* All of these take and leave the lock. */
int nodes_open(const char *source);
int node_fd(uint64_t nodeid);				/* -ESTALE */
uint64_t node_find(int parent_fd, const char *name, struct stat *st);	/* 0: errno; counts a lookup */
uint64_t node_of(dev_t dev, ino_t ino);			/* 0: the kernel does not know it */
void node_ungrant(uint64_t nodeid, uint64_t count);

/* The thread that hears what others change in the source. */
int watch_start(void);

#endif
