/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the benchmark operations and the runner around them share.
 *
 * A client is one process with a working directory of its own.  The runner calls setup, then run
 * for 0 .. count-1 under the clock, then teardown.  What fails ends its client by die().
 */
#ifndef FUSE_EXTENT_BENCH_WORKLOAD_H
#define FUSE_EXTENT_BENCH_WORKLOAD_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>

#define NAME_LENGTH 16

struct client {
	unsigned long count;
	size_t block;
	bool direct;
	char **command;
	/* The working directory beneath the mount: what is made here the mount never saw. */
	int backing;
	/* Made once before the clock starts, so that no formatting is timed. */
	char (*names)[NAME_LENGTH];
	char (*new_names)[NAME_LENGTH];
	unsigned long *order;
	char *buffer;
	char *map;
	DIR *listing;
	int fd;
	int output;
};

struct operation {
	const char *name;
	void (*setup)(struct client *c);
	void (*run)(struct client *c, unsigned long i);
	void (*teardown)(struct client *c);
	bool moves_blocks;
};

extern const struct operation metadata_operations[];
extern const struct operation data_operations[];

/* Exit status 1 with errno's text, or 77 where the file system lacks the feature. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Makes the files names[0 .. count-1] of size bytes below directory. */
void populate(struct client *c, int directory, unsigned long count, size_t size);
void write_zeros(int fd, const char *name, size_t size);

#endif
