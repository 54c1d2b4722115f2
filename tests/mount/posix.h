/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The POSIX conformance matrix: every check is a short script that runs in a fresh directory of
 * a plain file system and again in one of a mount, and both must give the same.
 *
 * A script is a list of steps separated by ';'. A step is "[@actor[&]] op arguments [= expected]":
 *   setup  run by root before the starting state is recorded
 *   act    run by the actor's process; "= expected" states the outcome ("A|B": either), without it
 *          only plain and mount are compared; '&' starts the step and "@actor wait" collects it
 *   post   "path key=value ..." facts about the tree afterwards (see posix_tree.c)
 */
#ifndef TESTS_MOUNT_POSIX_H
#define TESTS_MOUNT_POSIX_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { STEP_MAX = 1024, RESULT_MAX = 2048, SLOTS = 8 };

/* atime and mtime of every object before the act: any update is seen, and relatime never hides one.
 */
#define PAST_SEC 1000000000

/* ---- who acts ---- */

enum { UID_OWN = 60001, UID_GRP, UID_SUP, UID_OTH };
enum { GID_A = 60101, GID_C = 60103, GID_D, GID_S };

struct actor {
	const char *name;
	uid_t uid;
	gid_t gid;
	gid_t extra;	/* the one supplementary group, or 0 */
};

extern const struct actor actors[];
/* root own grp sup oth: one of each class; the entries behind them are second processes. */
enum { CLASSES = 5 };

const struct actor *actor_named(const char *name);
bool actor_in_group(const struct actor *actor, gid_t gid);
/* What the permission bits grant (rwx as 4|2|1): the rule of POSIX, root's overrides included. */
bool actor_may(const struct actor *actor, uid_t uid, gid_t gid, mode_t mode, int want);
/*
 * Permission bits for a file of own and GA: the class of the actor gets the digit, the others what
 * it is not given, so that a mixed-up class shows.
 */
mode_t class_mode(const struct actor *actor, int digit);

/* Runs one step in the process of the actor; dir is where its paths start. */
void actors_step(const char *actor, const char *dir, const char *step, char *result);
void actors_start(const char *actor, const char *dir, const char *step, char *result);
void actors_collect(const char *actor, char *result);
void actors_reset(void);	/* closes what the steps left open */
void actors_end(void);
int actors_hung(void);		/* steps that never came back */

/* ---- what a step does ---- */

struct ctx {
	int fd[SLOTS];
	char *map[SLOTS];
	size_t map_len[SLOTS];
	volatile int signals;	/* SIGXFSZ seen */
};

struct op {
	const char *name;
	int min_args;
	void (*run)(struct ctx *ctx, char **arg, char *out);
};

extern const struct op name_ops[], attr_ops[], io_ops[], share_ops[];

void ctx_init(struct ctx *ctx);
void ctx_reset(struct ctx *ctx);
void step_run(struct ctx *ctx, const char *step, char *out);

void put_result(char *out, long rc);	/* "0", or the name of errno */
long long arg_num(const char *arg);	/* numbers, ids and flags by name, joined by '|' */
mode_t arg_mode(const char *arg);	/* the same, in octal */
const char *arg_path(const char *arg);	/* <N>: N letters; {N}: N characters of "./"; BAD; "" */
int *arg_fd(struct ctx *ctx, const char *arg);
const char *id_name(long id, char *buf);
const char *type_name(mode_t mode);

/* ---- the checks ---- */

enum need {
	NEED_ACL = 1,
	NEED_DEV = 2,
	NEED_SUID = 4,
	NEED_CAPS = 8,
	NEED_TMPFILE = 16,
	NEED_XATTR = 32,
	NEED_EXEC = 64,
};

struct check {
	const char *group;
	char *name, *setup, *act, *post;
	unsigned int needs;
};

struct check_list {
	struct check *at;
	size_t count;
};

extern struct check_list checks;

#define PRINTF(n) __attribute__((format(printf, n, n + 1)))
void group(const char *name, unsigned int needs);
void check(const char *fmt, ...) PRINTF(1);	/* begins a check of the current group */
void setup(const char *fmt, ...) PRINTF(1);
void act(const char *fmt, ...) PRINTF(1);
void post(const char *fmt, ...) PRINTF(1);

void gen_paths(void);
void gen_access(void);
void gen_open(void);
void gen_create(void);
void gen_attr(void);
void gen_chown(void);
void gen_times(void);
void gen_names(void);
void gen_rename(void);
void gen_sticky(void);
void gen_setid(void);
void gen_acl(void);
void gen_data(void);
void gen_share(void);

/* ---- the tree of a check ---- */

struct object {
	char *path;
	struct stat st;
	char *target;
	unsigned char d_type;
};

struct tree {
	struct object *at;
	size_t count;
};

int tree_baseline(struct tree *tree, const char *dir);	/* also puts all times to PAST_SEC */
int tree_after(struct tree *after, const struct tree *before, const char *dir);
void tree_free(struct tree *tree);
int tree_remove(const char *dir);
/* One fact of one object as text; "gone" where there is no such object. */
enum { FACTS = 10 };
extern const char *const fact_names[FACTS];
const char *tree_fact(const struct tree *after, const struct tree *before, const char *path,
		      int fact, char *buf);
struct object *tree_find(const struct tree *tree, const char *path);

#endif
