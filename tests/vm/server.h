/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file system in shared memory for tests of the module: its server is a process of its own, that
 * tells how often it was asked what. It lets the kernel keep nothing (all timeouts are 0), so what it
 * is not
 * asked was answered by handlers.
 */
#ifndef VM_SERVER_H
#define VM_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/fuse.h>

#define NODES 2048
#define NAMES 4096
#define OPCODES 64

struct node {
	uint64_t id;		/* 0: not used */
	uint32_t mode, nlink, uid, changes;
	uint64_t size;
	uint32_t xattr_size;	/* of user.x; 0: there is none */
	char xattr[64];
	char target[64];
	atomic_long lookups, forgotten;
};

struct name {
	uint64_t parent, child;	/* parent 0: not used */
	char name[64];
};

struct fs {
	atomic_ulong asked[OPCODES];
	atomic_ulong opens_direct;	/* not 0: OPEN answers FOPEN_DIRECT_IO */
	atomic_int hold;	/* opcode whose requests wait until this is 0, each on a thread of the server */
	atomic_int held;	/* how many wait */
	atomic_ulong next_id;
	uint64_t valid;		/* seconds for which the kernel may keep names and attributes */
	atomic_flag lock;
	int n_nodes, n_names;	/* those behind were never used */
	struct node nodes[NODES];
	struct name names[NAMES];
};

struct mounted {
	struct fs *fs;
	char path[256];
	int fuse_fd;
	pid_t server;
};

/* Ends the test where something fails that is none of its matter. */
extern int fs_threads;	/* of servers to come */
struct mounted *fs_mount(const char *path);
void fs_kill(struct mounted *m);	/* the server; fuse_fd stays open here */
void fs_umount(struct mounted *m);
struct node *fs_node(struct fs *fs, uint64_t id);
uint64_t fs_child(struct fs *fs, uint64_t parent, const char *name);
void fs_attr(const struct node *n, struct fuse_attr *attr);
void fs_entry(const struct node *n, struct fuse_entry_out *entry);

#endif
