/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fsdiff: run one sequence of system calls on two directory trees and compare all that can be seen.
 *
 * A sequence is an array of steps, plain data that prints and parses as text. Every actor has two
 * twin processes, one chrooted in tree A and one in tree B; both run the same step, write what they
 * saw as "key=value" lines, and the coordinator compares the two texts.
 */
#ifndef FSDIFF_H
#define FSDIFF_H

#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

#define NFD 10
#define NMAP 4
#define NNUM 5
#define NARG 8
#define MAX_ACTORS 16
#define PATH_TEXT 112
#define DATA_MAX (256 * 1024)
#define TEXT_MAX (1024 * 1024)
#define TAINTS 8192
#define EXPANDED (2 * PATH_MAX)

#define TIME_NOW INT64_MIN
#define TIME_OMIT (INT64_MIN + 1)

/* step.flags */
#define STEP_TIMED 1	/* report which mtime and ctime the call changed */
#define STEP_POST 2	/* stat every object named in the step afterwards */

struct step {
	uint16_t op;
	uint8_t actor, flags;
	int8_t at, at2, fd, fd2;
	int64_t num[NNUM];
	char path[PATH_TEXT], path2[PATH_TEXT], name[48];
};

struct steps {
	struct step *v;
	size_t n, room;
};

/* result.hints: why a field may differ although nothing is wrong */
#define HINT_UNWRITTEN 1	/* fallocated: what counts as data depends on the page cache */
#define HINT_MAPPED 2		/* written by mmap: when mtime moves depends on writeback */
#define HINT_REMOVED 8		/* names in it were removed: see hidden */
#define HINT_OWN_TIMES 4	/* the times may or may not have moved: see kernel-times */

struct result {
	int64_t ret;
	int err;
	uint32_t hints, len, data_len;
	char text[TEXT_MAX];
};

struct shared {
	pid_t pid[2][MAX_ACTORS];
	unsigned char taint[2][TAINTS];
	bool has_fifo[2];
	int64_t started;
};

struct chan {
	struct step step;
	struct result res;
	char data[DATA_MAX] __attribute__((aligned(4096)));
};

struct slot {
	int fd;
	ino_t ino;
};

struct map {
	char *addr;
	size_t len;
	off_t off;
	int fd;
};

struct worker {
	struct shared *sh;
	struct chan *ch;
	struct result *res;
	char *data;
	int side, actor;
	dev_t root_dev;
	struct slot slot[NFD];
	struct map map[NMAP];
	char path[EXPANDED], path2[EXPANDED];
};

enum kind {
	K_NONE, K_AT, K_AT2, K_FD, K_FD2, K_INTO,
	K_ANY, K_FILE, K_DIR, K_LINK, K_SPECIAL, K_CHDIR, K_ANY2, K_FILE2, K_TARGET,
	K_XNAME,
	K_OFF, K_LEN, K_SIZE, K_TAG, K_UID, K_GID, K_XSIZE, K_ROOM, K_LOCK_OFF, K_LOCK_LEN,
	K_MAP, K_PAGE_OFF, K_SMALL, K_MODE, K_DIR_MODE, K_PERM, K_SYM, K_TIME,
};

struct sym {
	const char *name;
	int64_t val;
	int weight;	/* base: relative; bits: percent */
};

/* A value is one of base, or'ed with any of bits. */
struct symtab {
	const struct sym *base, *bits;
};

struct arg {
	const char *name;
	enum kind kind;
	int idx;
	const struct symtab *tab;
};

struct op {
	const char *name;
	int weight;
	void (*exec)(struct worker *w, const struct step *s);
	bool untimed;	/* times after it are not determined */
	struct arg arg[NARG];
};

extern const struct op ops[];
extern const size_t n_ops;
int op_find(const char *name);
static inline const struct op *step_op(const struct step *s) { return &ops[s->op]; }

/* fsdiff_text.c */
void step_print(const struct step *s, char *buf, size_t size);
bool step_parse(struct step *s, const char *line);
void steps_add(struct steps *list, const struct step *s);
void path_expand(const char *text, char *out, size_t size);
void steps_save(const struct steps *list, const char *file);
int steps_load(struct steps *list, const char *file);

/* fsdiff_gen.c */
struct gen_cfg {
	uint64_t seed;
	long steps;
	int actors;
	int actor;	/* all steps by this one, or -1 */
	const unsigned char *allowed;	/* per op, or NULL */
};
void gen_steps(const struct gen_cfg *cfg, struct steps *out);

/* fsdiff_worker.c */
struct cred {
	uid_t uid;
	gid_t gid;
	int n_groups;
	gid_t groups[3];
};
const struct cred *actor_cred(int actor);
void worker_init(struct worker *w, int side, int actor, struct shared *sh, struct chan *ch,
		 int root);
void worker_step(struct worker *w, const struct step *s);
void finish(struct worker *w, int64_t ret);
void leave_out(struct worker *w, const char *what);
void emit(struct worker *w, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void emit_stat(struct worker *w, const char *prefix, const struct stat *st);
void emit_time(struct worker *w, const char *key, int64_t sec, long nsec);
void emit_data(struct worker *w, const void *data, size_t len);
uint64_t hash_bytes(uint64_t h, const void *data, size_t len);
int slot_fd(const struct worker *w, int slot);
int at_fd(const struct worker *w, int slot);
void slot_put(struct worker *w, int slot, int fd);
void taint_ino(struct worker *w, ino_t ino, uint32_t hint);
void taint_fd(struct worker *w, int fd, uint32_t hint);
uint32_t taint_of(const struct worker *w, ino_t ino);
void fill_pattern(char *buf, size_t len, int64_t tag);
const char *err_name(int err);

/* fsdiff_diff.c */
struct diff {
	char key[80];
	char a[400], b[400];
	const char *tolerated;	/* the name of the entry that allows it */
};
bool results_differ(const struct step *s, const struct result *a, const struct result *b,
		    struct diff *d);
bool tolerate(const char *name);
bool tolerated(const char *name);
void list_tolerances(FILE *f);

/* fsdiff_run.c */
struct trees {
	const char *name[2];
	int fd[2];
	int actors;
	bool quiet;
};
struct outcome {
	int64_t ret;
	int err;
};
struct failure {
	size_t index;	/* of the step in the list */
	int actor;	/* whose list, in a concurrent run */
	bool fatal;	/* nothing to compare: an actor died or hangs; see diff.key */
	struct diff diff;
	struct outcome *outcome;	/* in tree A, of the steps up to index; to be freed */
};
/* Both return false with *f filled where the trees differ. */
bool run_steps(const struct trees *t, const struct steps *list, struct failure *f);
bool run_concurrent(const struct trees *t, const struct steps *lists, struct failure *f);
extern volatile sig_atomic_t interrupted;

/* fsdiff_proc.c: the twin processes of a run and the directories they live in */
#define SILENCE 120	/* seconds without an answer until a twin counts as hanging */
struct twin {
	pid_t pid;
	int sock;
	struct chan *ch;
};
struct run {
	const struct trees *t;
	char name[64];
	int dir[2];
	struct shared *sh;
	struct twin twin[2][MAX_ACTORS];
};
bool run_open(struct run *r, const struct trees *t);
bool run_fork(struct run *r, bool own_roots, void (*body)(struct worker *w, int sock, void *arg),
	      void *arg);
void run_close(struct run *r);

/* fsdiff_shrink.c */
void shrink(const struct trees *t, struct steps *list, struct failure *f);

/* fsdiff_report.c */
void print_steps(const struct steps *list, const struct failure *f, bool all);
void print_cred(int actor);
void stats_add(const struct steps *list, const struct failure *f);
void stats_print(void);

/* the calls */
#define CALL(name) void do_##name(struct worker *w, const struct step *s);
CALL(open) CALL(creat) CALL(close) CALL(dup) CALL(dup2) CALL(mkdir) CALL(rmdir) CALL(unlink)
CALL(link) CALL(linkfd) CALL(symlink) CALL(readlink) CALL(rename) CALL(mknod) CALL(chdir)
CALL(fchdir) CALL(getcwd) CALL(umask) CALL(getfl) CALL(setfl) CALL(getflags)
CALL(chmod) CALL(fchmod) CALL(chown) CALL(fchown) CALL(utimens) CALL(futimens) CALL(access)
CALL(stat) CALL(fstat) CALL(statx) CALL(statfs) CALL(fstatfs)
CALL(setxattr) CALL(fsetxattr) CALL(getxattr) CALL(fgetxattr) CALL(listxattr) CALL(flistxattr)
CALL(removexattr) CALL(fremovexattr) CALL(setacl) CALL(getacl)
CALL(read) CALL(pread) CALL(readv) CALL(preadv2) CALL(write) CALL(pwrite) CALL(writev)
CALL(pwritev2) CALL(lseek) CALL(truncate) CALL(ftruncate) CALL(fallocate) CALL(copy_range)
CALL(sendfile) CALL(splice) CALL(fsync) CALL(fdatasync) CALL(sync_range) CALL(syncfs)
CALL(mmap) CALL(munmap) CALL(mread) CALL(mwrite) CALL(msync)
CALL(setlk) CALL(getlk) CALL(flock) CALL(fork)
CALL(list) CALL(fdlist) CALL(seekdir) CALL(dirchange) CALL(audit)
#undef CALL

void list_xattrs(struct worker *w, const char *prefix, int fd, const char *path, bool values);

#endif
