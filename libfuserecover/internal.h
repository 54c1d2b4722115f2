/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the library share: how the checkpoint is laid out, and what each process keeps of
 * it for itself.
 *
 * A worker may have written anywhere before it died. So where things lie is known privately, in
 * struct fr, which each process inherits from the keeper; and an index or a size that was read from
 * the checkpoint is checked before it is used.
 *
 * Processes die by SIGKILL and the machine lives on: what a dead thread has stored is there, in the
 * order of its instructions. So barrier() against the compiler is all that orders a log and its data.
 */
#ifndef FUSERECOVER_INTERNAL_H
#define FUSERECOVER_INTERNAL_H

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <syslog.h>

#include "libfuserecover/fuserecover.h"
#include "libfuserecover/killpoint.h"

#define PUBLIC		__attribute__((visibility("default")))
#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define barrier()	atomic_signal_fence(memory_order_seq_cst)

#define CP_MAGIC	0x31767265636f6572u	/* "reocerv1", little endian */
#define CP_ABI		2u
#define NAME_SIZE	32
#define PARTS_MAX	48
#define UNDO_SIZE	(64u << 10)
#define STRIPES		64u		/* parts of an index that are locked by themselves */
#define FIRST_BUCKETS	STRIPES
#define DEATHS_MOST	256u
#define PROBE_SIZE	(64u << 10)	/* is not mapped by itself */
#define NIL		0u		/* no record */

/* ---- the checkpoint ---- */

enum part_kind { PART_AREA = 1, PART_TABLE };

struct cp_part {
	char name[NAME_SIZE];
	uint32_t kind;
	uint32_t record_size;
	uint32_t key_offset;
	uint32_t key_size;
	uint32_t max;
	uint32_t reserved;
	uint64_t offset;
	uint64_t size;
};

/* What stays as it is from fr_run() on. */
struct cp_layout {
	uint64_t magic;
	uint32_t abi;
	uint32_t layout;
	uint32_t page;
	uint32_t slots;
	uint32_t request_size;
	uint32_t reply_size;
	uint32_t intent_size;
	uint32_t note_size;
	uint32_t fds;			/* bytes of the map of descriptors */
	uint32_t parts;
	uint64_t seed;			/* of the hashes */
	uint64_t size;			/* of the whole file */
	struct cp_part part[PARTS_MAX];
};

/* Who is what: a number that rises each time somebody else takes the role, above his pid. */
#define CLAIM(number, pid)	((uint64_t)(number) << 32 | (uint32_t)(pid))
#define CLAIM_NUMBER(claim)	((uint32_t)((claim) >> 32))
#define CLAIM_PID(claim)	((pid_t)(uint32_t)(claim))

enum role { KEEPER, STANDBY, WORKER, ALONE, ROLES };

/*
 * Another program is to take over. ASKED: the keeper tries it. SWITCHING: no worker lives, and the
 * keeper becomes it. Out of that, whoever is first to say so: its worker has taken over (DONE), or the
 * standby of the old program goes on (FAILED).
 */
enum upgrade { UPGRADE_NONE, UPGRADE_ASKED, UPGRADE_SWITCHING, UPGRADE_DONE, UPGRADE_FAILED };
#define PROGRAM_SIZE	4096
#define UPGRADE_TEXT	256

struct cp_header {
	struct cp_layout layout;
	_Atomic uint64_t keeper;	/* CLAIM() */
	_Atomic uint64_t worker;	/* CLAIM(): the number is the generation */
	_Atomic uint64_t alive_claim;	/* the worker that `alive` tells of */
	_Atomic uint32_t ready;		/* generation of the last worker that began to serve */
	_Atomic uint32_t standby;	/* pid */
	_Atomic uint32_t ended;		/* the worker's function returned: the service ends */
	_Atomic uint32_t given_up;	/* positive errno */
	_Atomic uint32_t stopping;
	_Atomic uint32_t helpers;	/* threads without a slot that work */
	_Atomic uint32_t damaged;	/* found by a worker, which then ends: to be mended */
	_Atomic uint32_t opening[ROLES + 1]; /* a descriptor is being opened or closed, and is not marked */
	_Atomic uint32_t fds_grown;	/* bytes of the map that have memory */
	_Atomic uint64_t steps[2];	/* killpoint.h */
	_Atomic uint64_t recoveries;
	_Atomic uint64_t last_pause;
	_Atomic uint64_t resent;
	_Atomic uint64_t redone;
	_Atomic uint64_t set_aside;
	_Atomic int32_t last_status;
	_Atomic uint32_t upgrade;	/* enum upgrade */
	_Atomic uint32_t program;	/* number of the last one that was switched to, or from */
	_Atomic uint64_t switched_at;	/* ns, when the worker was killed for it */
	_Atomic uint32_t stored;	/* the service manager has the memory file */
	char upgrade_to[PROGRAM_SIZE];	/* empty: the same file */
	char upgrade_text[UPGRADE_TEXT];
	pthread_mutex_t alive;		/* robust, held by the worker's main thread */
};

/* A slot's request is unfinished where its state is SLOT_READ and the request's header has a length. */
enum slot_state { SLOT_IDLE, SLOT_READ, SLOT_DONE, SLOT_PARKED };

struct cp_slot {
	pthread_mutex_t alive;		/* robust, held by the thread that serves */
	uint32_t has_memory;
	uint32_t state;
	int32_t fd;
	uint32_t result;		/* bytes of the stored reply */
	uint32_t intent;
	uint32_t tries;			/* workers that died of this request */
	_Atomic uint32_t fault;		/* the signal that the thread raised */
	uint32_t undo_used;
	_Atomic uint64_t busy_since;	/* ms of CLOCK_MONOTONIC_COARSE, 0: no request */
} __attribute__((aligned(64)));

/* The end of an entry of the undo log, behind the old bytes: the log is read from its end. */
struct undo {
	uint64_t offset;		/* in the checkpoint */
	uint64_t size;
};

/* `gen` of a record in use is the upper half of its id. */
enum record_state { RECORD_FREE, RECORD_LIVE, RECORD_INDEXED, RECORD_RETIRED, RECORD_STATES };

struct record {
	_Atomic uint32_t gen;
	_Atomic uint32_t state;
	uint32_t link;			/* free: the next free one; indexed: the next of its bucket */
	uint32_t hash;
	unsigned char bytes[];
};

struct cp_table {
	_Atomic uint32_t used;
	_Atomic uint32_t fresh;		/* the first index that was never used */
	uint32_t free_head;
	uint32_t reserved;
	_Atomic uint32_t grown;		/* indices below have memory */
	_Atomic uint32_t buckets;	/* of the index */
	uint32_t buckets_grown;
};

/* What taking and giving a record changes of a table. */
#define TABLE_COUNTS	offsetof(struct cp_table, grown)

/* What a byte of the map of descriptors says. FD_CALLERS are handed down to another program; FD_PROGRAMS
 * were open when this one called fr_run(), and nobody said that they are kept. */
enum fd_owner { FD_NONE, FD_CALLERS, FD_PROGRAMS, FD_KEEPERS, FD_WORKERS, FD_LIBRARYS };

/* Beside it: the service manager may have it, or something else under its number (store.c). */
#define FD_STORED	0x80u
#define FD_STALE	0x40u
#define FD_HELD		(FD_STORED | FD_STALE)
#define FD_OWNER(byte)	((uint8_t)((byte) & ~FD_HELD))
#define FDS_MOST	(1u << 22)
#define STORE_NAME	"fuserecover"	/* the memory file; others have a dash and their number behind it */

/* ---- what each process has of its own ---- */

struct fr_table {
	struct fr *fr;
	char name[NAME_SIZE];
	struct cp_table *cp;
	uint32_t *heads;		/* buckets */
	unsigned char *records;		/* number 0 is never used */
	uint32_t stride;
	uint32_t record_size;
	uint32_t key_offset;
	uint32_t key_size;
	uint32_t max;			/* records; indices go up to it */
	uint32_t max_buckets;
	uint64_t seed;
	uint64_t heads_offset;		/* in the checkpoint */
	uint64_t records_offset;
	uint32_t freed;			/* the first record given in the step that holds the tables */
	pthread_mutex_t locks[STRIPES];
};

struct fr_slot {
	struct fr *fr;
	struct cp_slot *cp;
	unsigned char *undo, *intent, *note, *request, *reply;
	uint32_t index;
	_Atomic uint32_t pending;	/* bytes of an unfinished request */
	bool taken;
	uint32_t populated;		/* bytes, by this process */
	uint32_t resident;		/* of them, those that were seen to have memory */
	bool open;			/* between fr_begin() and fr_commit() */
	bool holds_tables;
	bool clean;			/* nothing was read since it was emptied */
	bool drops;			/* the step drops what is stored */
	uint32_t held;			/* stripes locked for a split */
	pthread_mutex_t *stripe[4];
	_Atomic uint32_t busy;		/* against `stopped` of struct fr */
	void *signal_stack;
};

/* Where the pieces of a slot lie in it. */
struct slot_shape {
	uint32_t intent, note, request, reply, size;
};

struct fr {
	struct fr_options options;
	char name[NAME_SIZE];
	struct cp_layout layout;
	int fd;
	unsigned char *base;
	size_t span;			/* of the mapping; the file may end before */
	struct cp_header *cp;
	struct cp_slot *cp_slots;
	_Atomic uint8_t *fd_map;
	uint64_t bodies;		/* offset of the first slot's memory */
	struct slot_shape shape;
	struct fr_slot *slots;
	struct fr_table *tables[PARTS_MAX];
	uint32_t parts_asked;		/* of an adopted checkpoint */
	bool adopted;
	bool from_store;
	int store_fd;			/* to the service manager; -1: nothing is stored */
	_Atomic uint32_t store_failed;
	bool trial;			/* of a program that might take over: with a private copy */
	uint32_t program;		/* number of this one */
	bool alone;
	enum role role;
	uint32_t generation;
	pthread_mutex_t tables_lock;	/* records are taken and given, indexes grow */
	int stop_fd, wake_fd;
	_Atomic uint32_t stopped;	/* the collector looks: no request may be begun */
	_Atomic uint64_t died_at;	/* ns, when the predecessor was found dead; 0: reported */
	_Atomic uint32_t mlock_failed;

	/* keeper and standby */
	uint64_t keeper_claim;		/* whom the standby works for */
	int keeper_pidfd;
	uint64_t worker_claim;		/* whom worker_pidfd names */
	int worker_pidfd;
	pid_t standby;
	int standby_pidfd;
	bool prompt;			/* real-time until the worker is ready */
	uint64_t half_dead_since;	/* ns, all of the worker but its main thread; 0: it lives; UINT64_MAX: told */
	pid_t trial_pid;
	int trial_pidfd;
	int trial_out;			/* what it writes to its standard error */
	char trial_words[4096];		/* the end of that */
	uint32_t trial_said;		/* bytes of it */
	uint64_t trial_since;		/* ms */
	pid_t old_standby;		/* of the program before this one */
	sigset_t mask;			/* of who called fr_run() */
	int *programs;			/* descriptors that were open when fr_run() was called */
	uint32_t nprograms;
	bool after_upgrade;		/* one that failed: there was no worker, and none had died */
	void *probe;			/* memory of malloc(3) from before there were threads, see prove() */
	uint32_t deaths;		/* as many have been noted below */
	uint64_t death_times[DEATHS_MOST];
};

/* ---- checkpoint.c, log.c ---- */
void fr_log(const struct fr *fr, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* For a mistake of the caller's that must not go on: one line, then abort(3). */
void fr_die(const struct fr *fr, const char *fmt, ...)
	__attribute__((noreturn, cold, format(printf, 2, 3)));
/* A worker found the checkpoint damaged: notes that, and dies; the successor mends it. */
void fr_damaged(const struct fr *fr, const char *fmt, ...)
	__attribute__((noreturn, cold, format(printf, 2, 3)));
uint64_t fr_now_ns(void);
uint64_t fr_now_ms(void);
int fr_give_memory(struct fr *fr, uint64_t offset, uint64_t size);
/* The next part of an adopted checkpoint, or a new one behind the last; its layout, NULL with *err. */
const struct cp_part *fr_part(struct fr *fr, struct cp_part *want, int *err);
/* New locks: in a process that was forked, or after a death. */
void fr_reset_locks(struct fr *fr);
int fr_mutex_robust(pthread_mutex_t *m);
uint64_t fr_map_offset(const struct cp_layout *l);
/* The layout as it is known privately, over what may have been written there. */
void fr_restore_layout(struct fr *fr);
/* Of an adopted checkpoint, before the first role is taken: the processes that had it are gone, or were
 * a program that waits to be succeeded. A trial ends here with status 0: that is all that it can tell. */
int fr_take_possession(struct fr *fr);

/* ---- step.c ---- */
/* Back to what was at fr_begin(). -EBADMSG where the log is damaged. */
int fr_rollback(struct fr *fr, uint32_t slot);
/* In all slots, whose threads are dead. */
int fr_rollback_all(struct fr *fr);
void fr_hold_tables(struct fr_slot *slot);
bool fr_try_hold_tables(struct fr_slot *slot);
/* Outside of a step, and without a keeper, they are not held any longer than need be. */
void fr_release_tables(struct fr_slot *slot);
static inline uint32_t fr_undo_room(const struct fr_slot *slot)
{
	return UNDO_SIZE - slot->cp->undo_used;
}
static inline uint32_t fr_undo_rounded(size_t size)
{
	return (uint32_t)((size + 7) & ~(size_t)7);
}

/* ---- table.c, index.c, repair.c ---- */
static inline struct record *fr_at(const struct fr_table *t, uint32_t index)
{
	return (struct record *)(void *)(t->records + (size_t)index * t->stride);
}

static inline uint32_t fr_index_of(const struct fr_table *t, const struct record *r)
{
	return (uint32_t)((size_t)((const unsigned char *)r - t->records) / t->stride);
}

static inline struct record *fr_record_of(const void *bytes)
{
	return (struct record *)(void *)((unsigned char *)(uintptr_t)bytes - offsetof(struct record, bytes));
}

/* The bucket of a hash where there are n of them, by linear hashing. */
static inline uint32_t fr_bucket(uint32_t hash, uint32_t n)
{
	uint32_t low = 1u << (31 - __builtin_clz(n));	/* the greatest power of two that is not above n */
	uint32_t b = hash & (2 * low - 1);

	return b < n ? b : hash & (low - 1);
}

uint32_t fr_hash(const struct fr_table *t, const void *key);
/* Whether everything in a table fits together; else says in `why` what does not. */
bool fr_table_whole(const struct fr_table *t, char *why, size_t size);
/* Whether the counts can be relied on; looks at no record. */
bool fr_table_plausible(const struct fr_table *t);
/* Makes free list and index anew from the records. Nobody else may use the table meanwhile. */
int fr_table_repair(struct fr_table *t);
int fr_tables_recover(struct fr *fr);

/* ---- slot.c, takeover.c, blame.c ---- */
extern __thread struct fr_slot *fr_current __attribute__((tls_model("initial-exec")));
void fr_slots_init(struct fr *fr);
struct slot_shape fr_slot_shape(const struct cp_layout *l);
/* The next of the slots that were in use, before it is needed; in pieces. False: none. */
bool fr_slots_populate(struct fr *fr);
void fr_slot_populate(struct fr_slot *slot);
bool fr_wants_no_reply(uint32_t opcode);
/* Of an unfinished request in a slot, 0 where there is none. */
uint32_t fr_slot_request_length(const struct fr_slot *slot);
/* One line about a slot's request. */
void fr_describe_request(const struct fr_slot *slot, char *text, size_t size);
/* What the successor does before it serves. 0, or -EBADMSG. */
int fr_takeover(struct fr *fr);
void fr_blame_install(void);
void fr_blame_thread(struct fr_slot *slot);
void fr_blame_leave(struct fr_slot *slot);

/* ---- process.c ---- */
/* fork(2), with one table of descriptors for both or a copy: 0 in the child, or a negative errno. */
pid_t fr_fork(bool share_descriptors, int *pidfd);
/* A negative one is of a process that is dead, but for this: there was no descriptor to be had. */
#define PIDFD_UNKNOWN	(-2)
bool fr_pidfd_dead(int pidfd);
/* At most ms; whether it is dead then. */
bool fr_pidfd_wait(int pidfd, int ms);
int fr_pidfd_of(struct fr *fr, pid_t pid, enum fd_owner owner, enum role opener);
void fr_close_own(struct fr *fr, int *fd);
/* Of a robust lock, whether it is held, as its futex says. */
enum owner { OWNER_NONE, OWNER_DEAD, OWNER_ALIVE };
enum owner fr_owner(pthread_mutex_t *m);
/* The thread that holds it, 0: none. */
pid_t fr_owner_tid(pthread_mutex_t *m);
/* Waits at most ms until that may have changed. */
void fr_owner_wait(pthread_mutex_t *m, unsigned ms);
/* Of an adopted checkpoint: until no thread of those that had it has it any more. A service manager may not
 * wait for what is killed and still within a system call, which may yet read a request into a slot. */
void fr_wait_for_predecessors(struct fr *fr);
void fr_wake_keeper(const struct fr *fr);
/* SIGTERM, SIGINT and SIGHUP become fr_stop(), unless they are ignored. */
void fr_signals_catch(struct fr *fr);
void fr_signals_restore(void);
/* As in a worker: they kill. */
void fr_signals_default(void);
/* how: SIG_BLOCK or SIG_UNBLOCK */
void fr_signals_mask(int how, sigset_t *before);

/* ---- keeper.c, standby.c, worker.c, watcher.c ---- */
/* Keeps until the end of the service: what fr_run() returns. */
int fr_keep(struct fr *fr);
/* The role of the keeper, if nobody has taken it since `from` had it. */
bool fr_claim_keeper(struct fr *fr, uint64_t from);
/* This one is none any more. */
void fr_no_standby(struct fr *fr, pid_t pid);
/* In the standby. Returns only where it has become the keeper. */
void fr_standby(struct fr *fr);
void fr_be_usual(struct fr *fr);
void fr_worker(struct fr *fr, uint64_t claim) __attribute__((noreturn));
/* From now on it is worth while to start a standby for this worker. */
void fr_worker_ready(struct fr *fr);
/* In the worker: looks after the keeper, and closes what the predecessor left open. */
int fr_watcher_start(struct fr *fr);

/* ---- upgrade.c ---- */
/* The keeper: goes on with what was asked for; returns whether it has to look again within 50 ms. Becomes
 * another program, or does not return, where that one is to take over. */
bool fr_upgrade_step(struct fr *fr);
/* The trial of the other program, if there is one. */
void fr_upgrade_end_trial(struct fr *fr);
/* Whether this process belongs to a program that is being replaced. */
bool fr_upgrade_begun(const struct fr *fr);
/* Its standby waits, until it has become the keeper or may leave. */
enum standby { STANDBY_LOOKS, STANDBY_WAITS, STANDBY_KEEPS };
enum standby fr_upgrade_wait(struct fr *fr);
/* In a process of the new program, which has not taken over yet. */
bool fr_upgrade_starts(const struct fr *fr);
/* It has, unless the old one goes on: then this does not return. */
void fr_upgrade_done(struct fr *fr);
/* ns, when the worker was killed for it, where nobody has its role; 0: there was none yet. */
uint64_t fr_upgrade_failed_since(const struct fr *fr);
/* In a keeper of the old program, whose predecessor may have been about to become another one. */
void fr_upgrade_keeper_died(struct fr *fr);
/* In a process of the new program: the old one goes on. */
bool fr_upgrade_lost(const struct fr *fr);
/* Whether the checkpoint in `fd` was handed down for a trial only. */
bool fr_inherited_for_trial(int fd);
/* Whether this process was the keeper of another program, and is to take over from that. */
bool fr_is_upgrade(const struct fr *fr);

/* ---- store.c ---- */
/* Before a descriptor is kept: hands it over. Returns what belongs into the map beside the owner. */
uint8_t fr_store_keep(struct fr *fr, int fd);
/* After one was dropped for good. */
void fr_store_drop(struct fr *fr, int fd);
/* The same for all that a step dropped, of which `used` bytes of the slot's log tell. */
void fr_store_committed(struct fr_slot *slot, uint32_t used);
/* What a predecessor had dropped and not removed. */
void fr_store_settle(struct fr *fr);
/* At the end of service. */
void fr_store_empty(struct fr *fr);
/* What may as well be lost. */
int fr_notify_now(const char *text);

/* ---- stored.c ---- */
#define STORE_MEMORY	(-1)
#define STORE_FOREIGN	(-2)
#define STORE_CLOSED	(-3)
struct handed_fd {
	int number;			/* that it had, or one of the above */
	int at;				/* that it has */
	bool came;			/* no placeholder */
	bool doubtful;			/* another one came under this number, too */
};
struct handed {
	int fd;				/* the memory file */
	unsigned count;
	struct handed_fd *item;
	char *names;
};
const struct handed *fr_handed(void);
/* The memory file that the service manager had stored; -ENOENT where it hands down nothing of ours. */
int fr_stored(void);
/* The numbers behind $LISTEN_FDNAMES. -ENOENT: none is ours; -EBADMSG with a reason: they do not fit. */
int fr_store_names(const char *names, unsigned count, int *numbers, const char **why);

/* ---- fds.c ---- */
int fr_fd_own(struct fr *fr, int fd, enum fd_owner owner);
bool fr_fd_is_of(const struct fr *fr, int fd, enum fd_owner owner);
void fr_fd_disown(struct fr *fr, int fd);
/* Numbers from here on are in nobody's care. */
uint32_t fr_fds_end(const struct fr *fr);
/* No file's data: a connection, or what stands for one. */
bool fr_fd_takes_replies(int fd);
/* EIO for a request of which it is not known where it came from. */
void fr_fds_refuse(struct fr *fr, uint64_t unique);
/* Keeps all that are open: they are the program's. */
int fr_fds_keep_open(struct fr *fr);
/* Those of them that still are, after fr_fds_forget(). */
void fr_fds_keep_again(struct fr *fr);
/* Nobody but the caller owns any. */
void fr_fds_forget(struct fr *fr);
/* Marks those of struct fr. */
int fr_fds_own(struct fr *fr);
/* What is kept stays open over execve(2), in this process' own table. */
int fr_fds_hand_down(struct fr *fr);
/* Closes those of an owner that has died, but for `spare`. */
void fr_fds_close_of(struct fr *fr, enum fd_owner owner, const int *spare, unsigned spares);
/* One try; false where it has to be tried again. */
bool fr_collect(struct fr *fr);
/* Until that is over. */
void fr_collect_wait(struct fr *fr);

#endif
