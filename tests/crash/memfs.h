/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file system in memory, all of it in a checkpoint: nodes and blocks are records, and each request is
 * one step together with its reply.
 */
#ifndef TESTS_CRASH_MEMFS_H
#define TESTS_CRASH_MEMFS_H

#include <pthread.h>
#include <stdint.h>

#include "libfuserecover/internal.h"

#define MEMFS_THREADS	3
#define MEMFS_NAME	48
#define MEMFS_BLOCK	4096u
#define MEMFS_WRITE	(4 * MEMFS_BLOCK)	/* what a step can save, with room to spare */

struct memfs_node {
	uint64_t parent;		/* id; with the name the key. A node without a name is not in the index */
	char name[MEMFS_NAME];
	uint64_t size;
	uint64_t nlookup;
	uint32_t mode;
	uint32_t children;
	uint32_t opens;
	uint32_t named;
};

struct memfs_block {
	uint64_t node;
	uint64_t number;
	unsigned char data[MEMFS_BLOCK];
};

struct memfs_state {
	int32_t fds[MEMFS_THREADS];	/* /dev/fuse and clones */
	uint32_t mounted;
	uint32_t failed;		/* clients that found something wrong */
	uint32_t leave;			/* clients shall end */
	uint64_t operations;
	int32_t result;
	uint32_t returned;
};

struct memfs {
	struct fr *fr;
	struct fr_table *nodes, *blocks;
	struct memfs_state *state;
	const char *mountpoint;
	pthread_mutex_t lock;		/* each request alone: made new by each worker */
};

/* The tables, and the root. */
int memfs_init(struct memfs *fs);
/* Answers the request in the slot. */
void memfs_answer(struct memfs *fs, struct fr_slot *slot);
/* Works in a directory of its own until it is told to leave. */
void memfs_load(struct memfs *fs, unsigned number, uint64_t seed) __attribute__((noreturn));
uint64_t memfs_random(uint64_t *state);

#endif
