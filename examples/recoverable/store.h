/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the file system in memory knows: nodes, names and blocks in three arrays, which name each
 * other by index. It holds no pointers, so it means the same wherever it lies. A node's number is
 * never used twice: its index, and above it how often that was used before.
 */
#ifndef MEMORY_STORE_H
#define MEMORY_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

/* What is about to change is saved before, to be undone where the process dies within the change. */
#ifdef RECOVERABLE
#include <fuserecover-fuse3.h>
#define save(address, size)	fr_save(fr_fuse3_slot(), (address), (size))
#else
#define save(address, size)	((void)(address), (void)(size))
#endif
#define set(lvalue, value) \
	do { \
		save(&(lvalue), sizeof(lvalue)); \
		(lvalue) = (value); \
	} while (0)

#define NODES		16384u		/* index 0 is nobody */
#define NAMES		32768u
#define BLOCKS		16384u
#define HEADS		8192u
#define BLOCK		4096u
#define NAME_SIZE	256u
#define ENTRIES		(BLOCK / 4)
#define FILE_MOST	((uint64_t)ENTRIES * BLOCK)
#define MOST		16384u		/* of a WRITE: 64 KiB can be saved */

struct node {
	uint32_t next;			/* free ones only, as in the others */
	uint32_t uses;
	uint32_t mode;			/* 0: free */
	uint32_t uid, gid, rdev;
	uint32_t links, subdirs, opens;
	uint32_t map;			/* the block with the numbers of the file's blocks */
	uint32_t xattrs;		/* the block with them */
	uint32_t parent, first, last;	/* of a directory: its own, and its names */
	uint64_t nlookup, size, places;
	struct timespec atime, mtime, ctime;
};

struct name {
	uint32_t next;			/* with the same hash */
	uint32_t dir, node, before, after;
	uint64_t place;			/* in the listing; stays as it is */
	char text[NAME_SIZE];
};

union block {
	uint32_t next;
	uint32_t entry[ENTRIES];
	unsigned char data[BLOCK];
};

struct pool {
	uint32_t free, fresh, used;
};

struct store {
	struct pool nodes, names, blocks;
	uint32_t head[HEADS];
	struct node node[NODES];
	struct name name[NAMES];
	union block block[BLOCKS];
};

extern struct store *store;

/* Makes the root, of zeroed memory. */
void store_init(void);

struct node *node_of(uint64_t ino);
uint64_t ino_of(const struct node *n);
struct stat attr_of(const struct node *n);
/* NULL where there is no room. It has no name yet. */
struct node *new_node(mode_t mode, uid_t uid, gid_t gid, dev_t rdev);
/* Where nobody holds it. */
void maybe_free(struct node *n);
#define MODIFIED	1
#define CHANGED		2
void touch(struct node *n, int what);

struct name *find_name(const struct node *dir, const char *text);
int add_name(struct node *dir, const char *text, struct node *n);
/* Its node stays. */
void remove_name(struct name *name);
/* The next one in a listing. NULL at the end. */
struct name *name_behind(const struct node *dir, uint64_t place);

/* These return a size or a negative errno. */
size_t read_data(const struct node *n, void *to, size_t size, uint64_t at);
int write_data(struct node *n, const void *from, size_t size, uint64_t at);
int set_size(struct node *n, uint64_t size);

/* 0 where there is none. Zeroed. */
uint32_t new_block(void);
void free_block(uint32_t b);

#endif
