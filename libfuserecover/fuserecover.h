/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libfuserecover: a FUSE server that may die at any instruction without its users noticing.
 *
 * A keeper process starts a worker that shares its table of file descriptors. When the worker dies,
 * every descriptor stays open under its number: /dev/fuse, unlinked files, locks. What else must
 * survive lies in the checkpoint, a memory file that both map: a slot for each thread that serves, and
 * tables of fixed-size records. A successor, started beforehand, takes both over and answers what was
 * left unanswered. The kernel and the applications see one server.
 *
 * In the order of use:
 *   1. fr_new() lays the checkpoint out; fr_table_new() adds each table.
 *   2. Mount, and fr_fd_keep() the descriptors that have to live on.
 *   3. fr_run() turns the calling process into the keeper. It starts workers, which call
 *      options.worker(), and returns when the service has ended.
 *   4. A worker's thread takes a slot (fr_slot_take), reads each request into it (fr_slot_read), and
 *      answers from it (fr_slot_reply). What it changes in tables, it changes between fr_begin() and
 *      fr_commit().
 *   5. A worker whose fr_generation() is above 1 is a successor: fr_slot_take() hands it slots with a
 *      request that its predecessor did not finish. It answers that first.
 *
 * Errors are negative errno values. Records and slots hold no pointers: the checkpoint may lie at
 * another address in the next process.
 */
#ifndef FUSERECOVER_H
#define FUSERECOVER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fr;
struct fr_table;
struct fr_slot;

/*
 * What fr_new() takes. Zeroed members get the default in brackets.
 * struct_size: sizeof(struct fr_options).
 * name: of the service, for the log and the memory file.
 * layout: the caller's own number for the layout of his records; a checkpoint with another one is
 *   refused.
 * slots: most threads that serve at a time, at most FR_SLOTS_MAX [16].
 * request_size, reply_size: bytes of a slot for one request and its reply [1 MiB and a page each].
 * intent_size, note_size: bytes of a slot for what the caller notes before an operation, and of what
 *   an unfinished request has got so far [512 each].
 * worker: runs in each worker process; a return value of 0 ends the service, anything else is a
 *   failure and counts like a crash.
 * reset: the calling process was forked from a worker that had threads, to become the keeper, since
 *   all others died: make every lock of the caller's new again. May be NULL where the caller has none.
 * log: takes one line without a newline; level is a LOG_* of <syslog.h>. Called in keeper and workers.
 * tries: so many workers may die of one request, by a signal that its own thread raised (SIGSEGV,
 *   SIGABRT, ...) or by hang_ms, until it is set aside and answered with EIO [3].
 * deaths, death_window: so many deaths (at most 256) within so many seconds, and the service gives up
 *   [30 in 10].
 * hang_ms: a worker that is in one request for so long is replaced; 0: never.
 * exec: replaces the calling process, by execve(2), by `program`, NULL: the one that runs, with the
 *   arguments that the caller was started with; returns a negative errno where that fails. Called in
 *   the keeper and its children, for fr_upgrade(). May be NULL: fr_upgrade() is refused.
 * notify: not 0: the service manager ($NOTIFY_SOCKET) is told who the keeper is (MAINPID=), when that
 *   changes, and of recoveries (STATUS=).
 */
struct fr_options {
	uint32_t struct_size;
	uint32_t layout;
	const char *name;
	uint32_t slots;
	uint32_t request_size;
	uint32_t reply_size;
	uint32_t intent_size;
	uint32_t note_size;
	int (*worker)(struct fr *fr, void *arg);
	void (*reset)(void *arg);
	void *arg;
	void (*log)(void *arg, int level, const char *line);
	uint32_t tries;
	uint32_t deaths;
	uint32_t death_window;
	uint32_t hang_ms;
	int (*exec)(void *arg, const char *program);
	uint32_t notify;
	uint32_t reserved0;
	uint64_t reserved[6];
};

#define FR_SLOTS_MAX 256
#define FR_NEVER UINT32_MAX	/* options.deaths: go on whatever happens */

/* ---- life cycle ---- */

/* Makes an empty checkpoint. Free with fr_free(). Not thread-safe. Since 0.2. */
int fr_new(const struct fr_options *options, struct fr **out);
void fr_free(struct fr *fr);

/*
 * Takes over a checkpoint that another process made, by a descriptor of its memory file, which from
 * then on is the library's. Nothing in it is believed: -EINVAL where it was laid out by other options,
 * -EBADMSG where it is not whole. The tables and areas are then asked for again, by the same calls in
 * the same order, and the descriptors that the requests were read from must be open under the same
 * numbers. Since 0.2.
 */
int fr_adopt(const struct fr_options *options, int fd, struct fr **out);
/* The memory file's descriptor, to be stored with others (systemd's FDSTORE). Since 0.2. */
int fr_checkpoint_fd(const struct fr *fr);

/*
 * Turns the caller, which must have a single thread, into the keeper, until the service ends: a
 * worker's function returned 0 (then 0), or after fr_stop() it returned something else (-EIO), or too
 * many workers died (-ELOOP), or the checkpoint is damaged beyond repair (-EBADMSG), or the kernel has not
 * what makes workers (-ENOSYS: CONFIG_CHECKPOINT_RESTORE or clone3).
 *
 * Workers are children that share the descriptor table; the caller's SIGCHLD must not be ignored. What
 * is open when this is called is kept, as long as this program serves. Where the keeper dies, the process
 * that stands by for the worker takes its place: this function then returns there, with all of the caller's
 * stack. Since 0.2.
 */
int fr_run(struct fr *fr);

/*
 * Runs the worker's function in the calling process, without a keeper: nothing is recovered, and the
 * calls below cost as little as they can. Returns what the function returned. Since 0.2.
 */
int fr_run_alone(struct fr *fr);

/* In a worker: 1 for the first, one more for each successor. Since 0.2. */
uint32_t fr_generation(const struct fr *fr);
/* Now; 0 where there is none. Since 0.2. */
pid_t fr_keeper_pid(const struct fr *fr);
pid_t fr_worker_pid(const struct fr *fr);

/*
 * In a worker: becomes readable when the service shall end: SIGTERM, SIGINT or SIGHUP came to the
 * keeper, or fr_stop() was called. An eventfd; it counts the signals. The worker then unmounts, and
 * its function returns 0. A worker itself dies by these signals, and is succeeded. Since 0.2.
 */
int fr_stop_fd(const struct fr *fr);
void fr_stop(struct fr *fr);	/* async-signal-safe */

/* ---- another program ---- */

/*
 * Asks the keeper to replace the program by `program` (NULL: by the file that it was started from), and
 * returns at once. The new program is tried first: it does all that it does up to fr_run(), with a copy
 * of the checkpoint, while the worker serves. Then the worker is killed, the keeper calls options.exec(),
 * and the new program, under the keeper's pid and with all descriptors that are kept, takes over as a
 * successor does. Where it does not come as far as that within 10 seconds, the old one goes on.
 * -EBUSY while another one is under way, -ENOTSUP without a keeper or options.exec, -ENAMETOOLONG.
 * In a worker; thread-safe. Since 0.2.
 */
int fr_upgrade(struct fr *fr, const char *program);

/*
 * What became of it: 0: the new program serves, -ENOENT: never asked for, -EINPROGRESS, or -ECANCELED: the
 * old one goes on; `text` then says why. Any process that has the checkpoint. Since 0.2.
 */
int fr_upgrade_result(const struct fr *fr, char *text, size_t size);

/*
 * The descriptor, for fr_adopt(), of the checkpoint that was handed to this process by fr_upgrade() in
 * another one, or by the service manager; -ENOENT: none was, and the service begins anew. To be called
 * first of all, once: all descriptors above 2 that are open are kept ones, and become close-on-exec.
 * *trial: fr_run() will end the process with status 0; why it does not come as far as that belongs on
 * stderr. -EBADF: it is not open. -EBADMSG and others, after a line on stderr: what the service manager
 * had can not be taken over. Since 0.2.
 */
int fr_inherited(int *trial);

/* ---- the death of all processes ---- */

/*
 * From now on the memory file, and all that is kept by fr_fd_keep(), are also held by the service manager
 * (systemd's FDSTORE=), by way of $NOTIFY_SOCKET. Where keeper, standby and worker die together, it starts
 * the program again and hands them back: fr_inherited() then finds them, as after fr_upgrade(). Keeping and
 * dropping cost a message each. What is not kept any more is removed when its step is committed, and has to
 * be closed after that. When fr_run() returns, nothing is stored any more.
 * Before fr_run() (fr_run_alone() refuses), also where the checkpoint was taken over. -ENOTSUP without
 * $NOTIFY_SOCKET. Since 0.2.
 */
int fr_store(struct fr *fr);

/*
 * Instead of fr_adopt(), or where that has failed: closes what fr_inherited() found in the service
 * manager's store, and empties that. 0 also where there was nothing. Since 0.2.
 */
int fr_store_clear(void);

/* Sends lines of sd_notify(3) to the service manager, such as "READY=1"; waits at most 5 seconds. -ENOTSUP
 * without $NOTIFY_SOCKET. Since 0.2. */
int fr_notify(const char *text);

/* Figures for an operator; pauses in nanoseconds. Any process that has the checkpoint. Since 0.2. */
struct fr_stats {
	uint32_t struct_size;
	uint32_t generation;
	uint64_t recoveries;
	uint64_t last_pause;	/* from the death until the successor was ready for requests */
	uint64_t resent;	/* replies that were stored and sent again */
	uint64_t redone;	/* requests without a result, done again or found done */
	uint64_t set_aside;	/* requests that were answered with EIO after `tries` deaths */
	int32_t last_status;	/* of the last worker that died, as waitpid(2) tells it */
	uint32_t reserved;
};
void fr_stats(const struct fr *fr, struct fr_stats *out);

/* ---- slots: one for each thread that serves ---- */

/*
 * Takes slot number `index`. A slot is held by one thread at a time, which alone may use it, and its
 * death sets it free; -EBUSY where another one holds it, -ENOMEM. The pages of the slot are made
 * resident: a request that is copied to a missing page while the process is being killed would be lost.
 * Since 0.2.
 */
int fr_slot_take(struct fr *fr, uint32_t index, struct fr_slot **out);
void fr_slot_leave(struct fr_slot *slot);

/* A slot without taking it, NULL where nobody ever took it: for a successor that looks at what is
 * unfinished before it starts its threads. fr_begin() and fr_commit() work on it. Since 0.2. */
struct fr_slot *fr_slot_peek(struct fr *fr, uint32_t index);

/*
 * In a successor that looks at a slot before it starts its threads: from here on, what the calling
 * thread dies of or hangs in is blamed on the slot's request, as if it was answered; NULL: on none.
 * Where the request is done already, the next successor finds its note zeroed. Since 0.2.
 */
void fr_slot_blame(struct fr *fr, struct fr_slot *slot);

/* Whether the slot's last request was answered with EIO after `tries` deaths: what its note says that it
 * has got is to be taken back, and it is not done again. Since 0.2. */
int fr_slot_set_aside(const struct fr_slot *slot);

/*
 * The first slot from `from` on with a request that a predecessor did not finish, FR_NO_SLOT where
 * there is none: a successor takes each of these, or their callers wait for ever. Since 0.2.
 */
#define FR_NO_SLOT UINT32_MAX
uint32_t fr_unfinished(const struct fr *fr, uint32_t from);

/*
 * Reads the next request from fd (/dev/fuse or a clone) into the slot, and notes fd, on which it has
 * to be answered. The one before must have been answered or parked. Returns its size, or what read(2)
 * returned as a negative errno. Since 0.2.
 */
ssize_t fr_slot_read(struct fr_slot *slot, int fd);

/* As fr_slot_read(), for a request that the caller has put into the slot's buffer himself. Since 0.2. */
void fr_slot_filled(struct fr_slot *slot, int fd, size_t size);

/*
 * The request that the slot's last holder did not finish: its size, 0 where there is none. Answered
 * ones are not reported, and stored replies have been sent. Since 0.2.
 */
size_t fr_slot_unfinished(const struct fr_slot *slot);

/* The request's bytes (struct fuse_in_header and what follows; a WRITE's payload starts on a page),
 * and room for the reply (struct fuse_out_header first; a READ's data starts on a page). */
void *fr_slot_request(struct fr_slot *slot);
void *fr_slot_reply_buffer(struct fr_slot *slot);
/* How many bytes these two have room for. Since 0.2. */
void fr_slot_sizes(const struct fr_slot *slot, size_t *request, size_t *reply);
/* The descriptor that the request was read from. */
int fr_slot_fd(const struct fr_slot *slot);

/*
 * What is to be known if the operation is interrupted. The caller fills fr_slot_intent() and then
 * declares it valid; from then on, until the next request, a successor gets it back with a size above
 * 0. Since 0.2.
 */
void *fr_slot_intent(struct fr_slot *slot);
void fr_slot_intent_set(struct fr_slot *slot, size_t size);
size_t fr_slot_intent_size(const struct fr_slot *slot);

/* What the request has got so far, to be taken back before it is done again; changed within
 * fr_begin/fr_commit. Zeroed when a request is read. Since 0.2. */
void *fr_slot_note(struct fr_slot *slot);

/*
 * Stores the reply as the request's result, in one step with the changes since fr_begin() where one is
 * open, and sends it. len counts the header, whose len and unique are filled in here. Returns 0, or a
 * negative errno of write(2); -ENOENT: the kernel does not wait for it. len 0: the request wants no
 * reply, and is done now. Since 0.2.
 */
int fr_slot_reply(struct fr_slot *slot, size_t len);

/* The request will be answered later, by fr_reply_later() on the same descriptor; the caller keeps
 * what he needs for that in a table. In one step with the changes since fr_begin(). Since 0.2. */
void fr_slot_park(struct fr_slot *slot);
/* Any thread; a successor may send it again: -ENOENT then, as for one that nobody waits for. error: 0 or
 * a negative errno. Since 0.2. */
int fr_reply_later(int fd, uint64_t unique, int error, const void *data, size_t size);

/* Whether the kernel still waits for the answer to a request that was read from fd: 1 or 0. Asks by
 * the INTERRUPT bit of `unique`, which changes nothing. Since 0.2. */
int fr_outstanding(int fd, uint64_t unique);

/*
 * A thread without a slot begins and ends to work: on records, with descriptors that are not kept (what a dead
 * predecessor left open is closed when nobody works), or in the kernel, where a lock that it
 * waits for may come to it when its process is being killed already. While any does, a successor waits
 * for the whole process to be gone, which takes a little longer than for the threads with slots. They
 * are counted: each enter has its leave, and a successor counts anew. Any thread. Since 0.2.
 */
void fr_helper_enter(struct fr *fr);
void fr_helper_leave(struct fr *fr);

/* ---- changes that are whole or not at all ---- */

/*
 * Between fr_begin() and fr_commit() a thread changes records of tables, and its slot, as one step: if
 * it dies in between, the successor finds everything as it was at fr_begin(). Before a change, save
 * what is about to change. Whatever is saved must be guarded by locks that are held until fr_commit()
 * returns, and that were taken before fr_begin(): taking and giving records locks the tables until
 * fr_commit(), so a thread that then waits for a lock may wait for ever. What is saved must lie in the
 * checkpoint (a record, an area, a note); new records need not be saved. 64 KiB can be. Since 0.2.
 */
void fr_begin(struct fr_slot *slot);
void fr_save(struct fr_slot *slot, void *address, size_t size);
void fr_commit(struct fr_slot *slot);

#define fr_set(slot, lvalue, value) \
	do { \
		fr_save((slot), &(lvalue), sizeof(lvalue)); \
		(lvalue) = (value); \
	} while (0)

/* ---- tables ---- */

/*
 * A table of records of one size, which grows without moving. An id names a record: the index in the
 * low 32 bits, in the high ones a generation, which rises each time the index is used again, so that
 * an id is never used twice. The first record has id 1. Index 0 is never used.
 * name: up to 31 bytes. record_size: bytes of the caller's. max: most records.
 * key_offset, key_size: the bytes of a record that fr_index_find() finds it by; key_size 0: no index.
 * To be called before fr_run(), in the same order in each version of a program. Since 0.2.
 */
int fr_table_new(struct fr *fr, const char *name, uint32_t record_size, uint32_t key_offset, uint32_t key_size,
		 uint32_t max, struct fr_table **out);

/* A zeroed record, NULL where the table is full or memory is short. Within fr_begin/fr_commit; so is
 * fr_free_record(). Thread-safe. Since 0.2. */
void *fr_alloc_record(struct fr_slot *slot, struct fr_table *t);
void fr_free_record(struct fr_slot *slot, struct fr_table *t, void *record);

/* The record that an id names, NULL where it names none. The caller sees to it that it stays. */
void *fr_record(struct fr_table *t, uint64_t id);
uint64_t fr_record_id(const struct fr_table *t, const void *record);

/* Calls fn for each record in use; ends with the first value that is not 0. Other threads may take and
 * give records meanwhile. Since 0.2. */
int fr_table_each(struct fr_table *t, int (*fn)(void *arg, uint64_t id, void *record), void *arg);
/* The same for the next `most` places of the table from *at on, 0 for its beginning; *at is moved on, and
 * 0 when the end is reached. So a large table is looked through bit by bit. Since 0.2. */
int fr_table_walk(struct fr_table *t, uint32_t *at, uint32_t most,
		  int (*fn)(void *arg, uint64_t id, void *record), void *arg);
uint32_t fr_table_used(const struct fr_table *t);

/*
 * The index. fr_key_lock() locks the part of it where the key belongs, for look-ups and for the
 * changes that follow; the lock is the caller's guard for the record, too. Lock before fr_begin(),
 * unlock after fr_commit(). A thread that needs two parts at a time takes the one with the lower
 * fr_key_part() first, and an equal one once.
 * fr_index_add() takes a record whose key is filled in, fr_index_remove() one that is in the index;
 * both within fr_begin/fr_commit. Since 0.2.
 */
uint32_t fr_key_hash(const struct fr_table *t, const void *key);
uint32_t fr_key_part(uint32_t hash);
void fr_key_lock(struct fr_table *t, uint32_t hash);
void fr_key_unlock(struct fr_table *t, uint32_t hash);
void *fr_index_find(struct fr_table *t, uint32_t hash, const void *key);
void fr_index_add(struct fr_slot *slot, struct fr_table *t, uint32_t hash, void *record);
void fr_index_remove(struct fr_slot *slot, struct fr_table *t, uint32_t hash, void *record);

/* A zeroed piece of the checkpoint for the caller's own use, the same one in each successor. To be
 * called like fr_table_new(). Since 0.2. */
int fr_area_new(struct fr *fr, const char *name, size_t size, void **out);

/* ---- descriptors ---- */

/*
 * A successor closes what was open in the worker that died and is neither kept nor its own: the
 * descriptors that were opened for a request and not yet noted anywhere. So everything that lives
 * longer than a request has to be kept, from when a record names it until it is about to be closed, and
 * so has what a thread without a slot opens. Another program (fr_upgrade()) is given what was kept by
 * this call, and 0 to 2. slot: the caller's, whose open step this belongs to; NULL:
 * it is done at once. Returns 0, -EBADF, or -ENOMEM. Thread-safe. Since 0.2.
 */
int fr_fd_keep(struct fr *fr, struct fr_slot *slot, int fd);
int fr_fd_drop(struct fr *fr, struct fr_slot *slot, int fd);

/* 1 where a successor leaves it open (it is kept, or was open when fr_run() was called, or is the
 * library's), else 0. Thread-safe. Since 0.2. */
int fr_fd_is_kept(const struct fr *fr, int fd);

#ifdef __cplusplus
}
#endif

#endif
