/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file system of one directory, with libextfuse and nothing else, served by a thread of the process
 * that looks at it. It counts what it is asked, and its files can be changed behind its back. Prints `ok
 * NAME` and `FAIL NAME: text`.
 */
#ifndef FE_TESTS_CACHEFS_H
#define FE_TESTS_CACHEFS_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fuse_abi.h"
#include "libextfuse/extfuse.h"

#define HOUR	3600000u
#define OPS	64

struct file {
	char name[32];		/* "": none */
	uint64_t nodeid;
	uint64_t size;
	int64_t nlookup;	/* granted by replies, less what was forgotten */
	uint32_t mode;
	char letter;		/* what it is full of */
	char note[16];		/* the value of user.note */
	int backing_id;
	int late;		/* it changes between what is read and the reply */
	uint32_t flags;		/* of puts of its attributes */
};

extern struct extfuse *x;
extern int fuse_fd;
extern uint64_t init_flags;	/* what the kernel offers */
extern char log_text[512];
extern int failed;
extern pthread_mutex_t lock;	/* the server's: while it is held, it answers nothing */
extern const char *prefix;	/* of names of results */
extern const char *mount_options;	/* to be set before start() */
/* Where it is set: answers what it returns true for, with the server's lock held. */
extern bool (*serve_first)(const struct fuse_in_header *head, const char *rest);
int reply(uint64_t unique, int error, const void *data, size_t size);

struct file *by_name(const char *name);
struct file *by_nodeid(uint64_t nodeid);
struct file *add(const char *name, uint64_t size, char letter);

/* Mounts at DIRECTORY/mnt, and goes there. */
int start(const char *directory, enum extfuse_engine engine);
void stop(const char *directory);

unsigned so_far(int opcode);
unsigned upcalls(void);		/* LOOKUP and GETATTR */
long long size_of(const char *name);
char first_of(int fd);
/* With the hook: until nothing of before the attachment is under way. Then hits stay hits. */
void settle(const char *name);
/* Of a handler's answers the module has refused none. */
void none_refused(void);
void change(struct file *f, uint64_t size, char letter);
void expect(int good, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Expects that size, after so many upcalls. */
void sees(const char *name, const char *file, long long size, unsigned calls);

#endif
