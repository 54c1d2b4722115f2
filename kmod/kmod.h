/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of the module. hook.c is entered by the driver's requests and asks the others: answer.c
 * (can a handler answer it?), remember.c (what did one say last?), mutate.c (what does it change?), passthru.c (I/O on the backing file),
 * standing.c (files that are open for all who read them).
 * walk.c is entered before there is a request, for names and attributes that the driver has.
 * context.c has what belongs to one connection, device.c how the daemon reaches it.
 */
#ifndef EXTFUSE_KMOD_H
#define EXTFUSE_KMOD_H

#include <linux/bpf.h>
#include <linux/fuse.h>
#include <linux/fs.h>
#include <linux/hashtable.h>
#include <linux/percpu.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/workqueue.h>
#include <asm/ioctls.h>
#include <asm/word-at-a-time.h>

#include "extfuse.h"
#include "extfuse_ioctl.h"
#include "driver.h"
#include "hook.h"

/* FUSE_STATX is the last of Linux 6.12: no handler has a later one, nor is it known what that changes. */
#define EXTFUSE_OPCODES 53

struct extfuse_backing_file {
	struct hlist_node node;
	struct rcu_head rcu;
	refcount_t refs;
	u64 nodeid;
	struct file *file;
	const struct cred *cred;
	struct rw_semaphore order;	/* a READ stays behind the WRITEs that came before it */
};

struct extfuse_context {
	/* read by each request */
	struct hlist_node by_kind;
	struct fuse_conn *fc;
	u64 seed;
	u32 word_bits;
	u32 nodes_max;
	struct extfuse_word *words;
	struct extfuse_node *nodes;
	struct extfuse_stats __percpu *stats;
	struct bpf_prog __rcu *programs[EXTFUSE_OPCODES];
	u32 program_flags[EXTFUSE_OPCODES];	/* 0: there is none */
	u32 programs_set;			/* how often */
	/* the rest */
	refcount_t refs;
	struct extfuse_area *area;
	struct delayed_work settle;
	bool all_counted;
	spinlock_t backing_lock;
	u32 backing_count;
	DECLARE_HASHTABLE(backing, 10);
	raw_spinlock_t standing_lock;	/* taken with preemption disabled */
	u32 standing_count;
	DECLARE_HASHTABLE(standing, 9);
};

#define extfuse_count(ctx, op, what) \
	this_cpu_inc((ctx)->stats->opcode[min_t(u32, (op), EXTFUSE_STATS_OPCODES - 1)].what)

/* ---- context.c ---- */

extern struct hlist_head extfuse_by_kind[EXTFUSE_KINDS];

static inline u32 extfuse_kind(const struct fuse_conn *fc)
{
	return (unsigned long)fc >> EXTFUSE_KIND_SHIFT & (EXTFUSE_KINDS - 1);
}

/* With preemption disabled; what is found then stays until it is enabled. */
static inline struct extfuse_context *extfuse_find(const struct fuse_conn *fc)
{
	struct extfuse_context *ctx;

	hlist_for_each_entry_rcu(ctx, &extfuse_by_kind[extfuse_kind(fc)], by_kind,
			rcu_read_lock_sched_held()) {
		if (ctx->fc == fc)
			return ctx;
	}
	return NULL;
}

struct extfuse_context *extfuse_attach(const struct extfuse_attach *arg);
void extfuse_detach(struct extfuse_context *ctx);
void extfuse_put(struct extfuse_context *ctx);
void extfuse_sum_stats(struct extfuse_context *ctx, struct extfuse_stats *sum);

/* ---- programs.c ---- */

#define EXTFUSE_PROGRAM_THERE	(1U << 31)

int extfuse_set_program(struct extfuse_context *ctx, const struct extfuse_program *arg);
void extfuse_drop_programs(struct extfuse_context *ctx);

/* ---- words ---- */

#define EXTFUSE_TOUCHED_MAX 8

/* The words of what a mutation changes. */
struct extfuse_touched {
	u32 n;
	u32 index[EXTFUSE_TOUCHED_MAX];
};

static inline void extfuse_word_begin(struct extfuse_context *ctx, u32 index)
{
	atomic64_inc((atomic64_t *)&ctx->words[index].state);
}

void extfuse_word_end(struct extfuse_context *ctx, u32 index);
void extfuse_word_bump(struct extfuse_context *ctx, u32 index);

static inline u32 extfuse_node_word(const struct extfuse_context *ctx, u64 nodeid)
{
	return extfuse_word_node(ctx->seed, ctx->word_bits, nodeid);
}

/* Of a name that is the argument of a request; with or without NUL, by the kernel. */
static inline u32 extfuse_name_len(const struct fuse_in_arg *arg)
{
	const char *name = arg->value;
	u32 len = min_t(u32, arg->size, EXTFUSE_NAME_MAX + 1);

	if (len && !name[len - 1])
		len--;
	return min_t(u32, len, EXTFUSE_NAME_MAX);
}

static __always_inline u32 extfuse_name_word(const struct extfuse_context *ctx, u64 parent, const char *name,
	u32 len)
{
	u64 h = extfuse_name_hash(ctx->seed, parent), step;

	for (; len >= 8; len -= 8, name += 8) {
		memcpy(&step, name, 8);
		h = extfuse_mix(h, step);
	}
	if (len)
		h = extfuse_mix(h, load_unaligned_zeropad(name) & bytemask_from_count(len));
	return extfuse_word_index(ctx->word_bits, h);
}

/* ---- answer.c ---- */

static inline bool extfuse_alive(const struct fuse_conn *fc)
{
	return EXTFUSE_CONNECTED(fc) && EXTFUSE_INITIALIZED(fc) && !EXTFUSE_CONN_ERROR(fc);
}

/* The word of a directory, where something was put for its names that may still be true. */
static __always_inline const struct extfuse_word *extfuse_marked_dir(const struct extfuse_context *ctx, u64 dir)
{
	const struct extfuse_word *word = &ctx->words[extfuse_word_dir(ctx->seed, ctx->word_bits, dir)];

	return READ_ONCE(word->named) || READ_ONCE(word->marked) ? word : NULL;
}

/* The word of a name in that directory, where something was put for it that may still be true; else 0. */
static __always_inline u32 extfuse_marked_name(const struct extfuse_context *ctx,
	const struct extfuse_word *of_dir, u64 dir, const char *name, u32 len)
{
	u32 own = extfuse_name_word(ctx, dir, name, len);

	return READ_ONCE(ctx->words[own].marked) || READ_ONCE(of_dir->marked) ? own : 0;
}

/*
 * What was not foreseen here last: the driver's request comes next, and is not asked about once more. Where that is
 * another one after all, an answer is lost.
 */
struct extfuse_unforeseen {
	const struct task_struct *by;	/* NULL: none */
	u64 what;
};

#define EXTFUSE_NAME_IN(dir)	(dir)
#define EXTFUSE_ATTR_OF(nodeid)	(~(nodeid))

DECLARE_PER_CPU(struct extfuse_unforeseen, extfuse_unforeseen);

static inline void extfuse_not_foreseen(u64 what)
{
	this_cpu_write(extfuse_unforeseen.by, current);
	this_cpu_write(extfuse_unforeseen.what, what);
}

static inline bool extfuse_was_not_foreseen(u64 what)
{
	if (this_cpu_read(extfuse_unforeseen.by) != current || this_cpu_read(extfuse_unforeseen.what) != what)
		return false;
	this_cpu_write(extfuse_unforeseen.by, NULL);
	return true;
}

struct extfuse_answered {
	long what;			/* enum extfuse_result */
	long result;			/* of EXTFUSE_RETURN: what the driver's function returns */
};

int extfuse_answers_init(void);
void extfuse_answers_exit(void);
u64 extfuse_answerable(void);
struct extfuse_answered extfuse_answer(struct extfuse_context *ctx, struct fuse_args *args, u32 own);

const struct extfuse_request *extfuse_ask_early(struct extfuse_context *ctx, u32 op, u64 nodeid,
	const struct fuse_in_arg *in, u32 out_size, u32 own);

static inline bool extfuse_asks_early(const struct extfuse_context *ctx, u32 op)
{
	return READ_ONCE(ctx->program_flags[op]) & EXTFUSE_PROGRAM_EARLY;
}

/* Whether the handler of READ sends this one to the file; nothing is counted. With preemption disabled. */
bool extfuse_is_passed(struct extfuse_context *ctx, const struct fuse_args *args, u32 own);

/* What an answer rests on. */
struct extfuse_grounds {
	const struct extfuse_dep *deps;
	u64 expires;
	u32 n;
};

/* `own` is the word of what was asked about; `op` and `nodeid` are those of the question. */
bool extfuse_is_true(struct extfuse_context *ctx, const struct extfuse_grounds *grounds, u32 op, u64 nodeid,
	u32 own, u64 now);

/* ---- remember.c ---- */

/* What a handler said of a name or of a node's attributes, before there was a request. */
struct extfuse_early {
	u64 seed;			/* of the context; 0: not to be said again */
	u64 nodeid;			/* of the node, or of the name's directory */
	u32 own;
	u32 programs;			/* programs_set of the context then */
	u16 mark, dir_mark, node_mark;	/* of words, then */
	u16 name_len;
	u64 name[5];
	struct extfuse_grounds grounds;
	struct extfuse_dep deps[EXTFUSE_DEPS];
	s32 error;
	union {
		struct fuse_entry_out entry;
		struct fuse_attr_out attr;
	} out;
};

int extfuse_remember_init(void);
void extfuse_remember_exit(void);
/*
 * Of a name that `inode` has now; NULL: the daemon is to be asked. It stays until preemption is enabled. Where the name
 * changed meanwhile, its `seed` is to be set to 0.
 */
struct extfuse_early *extfuse_early_name(struct extfuse_context *ctx, u64 dir, const struct extfuse_word *of_dir,
	const struct fuse_in_arg *name, u32 own, const struct inode *inode);
const struct fuse_attr *extfuse_early_attr(struct extfuse_context *ctx, const struct inode *inode);

/* ---- mutate.c ---- */

#define EXTFUSE_BIT(op) (1ULL << (op))
#define EXTFUSE_MUTATIONS ( \
	EXTFUSE_BIT(FUSE_SETATTR) | EXTFUSE_BIT(FUSE_SYMLINK) | EXTFUSE_BIT(FUSE_MKNOD) | \
	EXTFUSE_BIT(FUSE_MKDIR) | EXTFUSE_BIT(FUSE_UNLINK) | EXTFUSE_BIT(FUSE_RMDIR) | \
	EXTFUSE_BIT(FUSE_RENAME) | EXTFUSE_BIT(FUSE_LINK) | EXTFUSE_BIT(FUSE_WRITE) | \
	EXTFUSE_BIT(FUSE_SETXATTR) | EXTFUSE_BIT(FUSE_REMOVEXATTR) | EXTFUSE_BIT(FUSE_CREATE) | \
	EXTFUSE_BIT(FUSE_IOCTL) | EXTFUSE_BIT(FUSE_FALLOCATE) | EXTFUSE_BIT(FUSE_RENAME2) | \
	EXTFUSE_BIT(FUSE_COPY_FILE_RANGE) | EXTFUSE_BIT(FUSE_TMPFILE))

/* What is asked of any file: isatty(3), lsattr(1). Others may change something, whatever their direction says. */
static inline bool extfuse_ioctl_asks(u32 command)
{
	switch (command) {
	case TCGETS:
	case TIOCGWINSZ:
	case FS_IOC_GETFLAGS:
	case FS_IOC32_GETFLAGS:
	case FS_IOC_FSGETXATTR:
	case FS_IOC_GETVERSION:
		return true;
	default:
		return false;
	}
}

static inline bool extfuse_mutates(const struct fuse_args *args)
{
	if (args->opcode >= EXTFUSE_OPCODES)
		return true;
	if (EXTFUSE_MUTATIONS & EXTFUSE_BIT(args->opcode))
		return args->opcode != FUSE_IOCTL ||
			!extfuse_ioctl_asks(((const struct fuse_ioctl_in *)args->in_args[0].value)->cmd);
	return args->opcode == FUSE_OPEN &&
		((const struct fuse_open_in *)args->in_args[0].value)->flags & O_TRUNC;
}

void extfuse_begin(struct extfuse_context *ctx, struct fuse_mount *fm, const struct fuse_args *args,
	struct extfuse_touched *t);
void extfuse_end(struct extfuse_context *ctx, const struct fuse_args *args,
	const struct extfuse_touched *t, long result);

/* ---- passthru.c ---- */

int extfuse_set_backing(struct extfuse_context *ctx, const struct extfuse_backing *arg);
void extfuse_drop_backing(struct extfuse_context *ctx);
/* 0, or why a file is none that data of a node may come from. */
int extfuse_fit_for_backing(const struct file *file);
struct extfuse_backing_file *extfuse_get_backing(struct extfuse_context *ctx, u64 nodeid);
void extfuse_put_backing(struct extfuse_backing_file *backing);
/* A count, or a negative errno. */
ssize_t extfuse_read_backing(struct extfuse_backing_file *backing, struct fuse_args *args);
ssize_t extfuse_write_backing(struct extfuse_backing_file *backing, struct fuse_args *args);

/* ---- standing.c ---- */

int extfuse_set_standing(struct extfuse_context *ctx, const struct extfuse_standing *arg);
void extfuse_drop_standing(struct extfuse_context *ctx);
enum extfuse_stands {
	EXTFUSE_NOT_STANDING,
	EXTFUSE_STANDS,			/* it is answered */
	EXTFUSE_LAST_RELEASE,		/* the daemon's, whatever handlers say */
};

/* Of an OPEN or a RELEASE; with preemption disabled, as the next ones. */
enum extfuse_stands extfuse_ask_standing(struct extfuse_context *ctx, const struct fuse_args *args);

static __always_inline enum extfuse_stands extfuse_standing(struct extfuse_context *ctx,
	const struct fuse_args *args)
{
	if (likely(args->opcode != FUSE_OPEN && args->opcode != FUSE_RELEASE) || !READ_ONCE(ctx->standing_count))
		return EXTFUSE_NOT_STANDING;
	return extfuse_ask_standing(ctx, args);
}

/* Whether the node's time of access has moved: what was put before is too old then, from now on. */
bool extfuse_was_read(struct extfuse_context *ctx, u64 nodeid);

/* ---- hook.c, device.c ---- */

int extfuse_hook(void);
void extfuse_unhook(void);
int extfuse_device_init(void);
void extfuse_device_exit(void);

#endif
