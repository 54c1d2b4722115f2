/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A backend that stacks on another one and keeps the data of opened files in unlinked temporary files.
 *
 * Names, attributes, directories, links and locks are the inner backend's; a node's record is the inner
 * one's. A file of the inner backend that was opened gets a struct file: its temporary file, which ranges
 * of it are present there, and which of those are dirty, which means newer than the inner backend's.
 * What must outlive the process lies in records; whatever says that a byte is dirty is written before the
 * write is answered, and goes only when the inner backend has the byte.
 *
 * Locks, in this order: file.lock, then spill.lock or spill.jobs_lock. None is held while the inner backend
 * is called; who changes data at the inner backend has claimed the file (file.busy).
 */
#ifndef FE_SPILL_H
#define FE_SPILL_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <syslog.h>
#include <time.h>

#include "backends/backend.h"
#include "backends/spill/ranges.h"

extern const struct fe_backend spill_backend;

#define BUCKETS		4096u
#define MAX_FILES	(1u << 20)	/* records */
#define MAX_RANGES	(1u << 24)
#define FILE_RANGES	4096u		/* dirty pieces of a file, until it is written back */
#define PIECE		(1u << 20)	/* of one read of the inner backend */
#define SEND_PIECE	(4u << 20)	/* of one write: what a network takes at once */
#define SMALL_PIECE	(64u << 10)	/* where reads jump about */
#define SETTLE_SIZE	(128u << 10)	/* smaller files are fetched again rather than waited for at close(2) */
#define AHEAD_THREADS	8u
#define FULL_TRIES	8u

/* Bits of file_record.flags. */
#define FILE_KNOWN	(1u << 0)	/* what is present is of the state that size, mtime and ctime stand for */
#define FILE_PASSED	(1u << 1)	/* the kernel may read and write the temporary file itself */
#define FILE_PLAIN	(1u << 2)	/* a write has nothing to take away: no set-id bits, no capabilities */
#define FILE_KILL	(1u << 3)	/* who wrote last lacks CAP_FSETID */
#define FILE_SIZED	(1u << 4)	/* size and mode say something */
#define FILE_SHED	(1u << 5)	/* what the kernel has cached may be older, since the last open */
#define FILE_LOCKED	(1u << 6)	/* by a lock that others see, at some time since its first open */

enum { RANGE_PRESENT = 1, RANGE_DIRTY };

/* How far the opening of file_record's own inner handle has come. */
enum { OWN_NONE, OWN_OPENING, OWN_OPEN };

/* What outlives the process. The inner key follows, and then a handle of the inner backend, of the file's own. */
struct file_record {
	uint64_t id;
	uint64_t size;		/* as applications see it */
	uint64_t inner_size;
	int64_t mtime, ctime;
	uint32_t mtime_ns, ctime_ns;
	uint64_t dirty_since;	/* ns of CLOCK_MONOTONIC; 0: not dirty */
	uint32_t flags;
	int32_t fd;		/* the temporary file, -1: not made yet */
	uint32_t uid, gid;	/* of who wrote last */
	uint32_t own;
	uint32_t mode;
	int32_t sums_fd;	/* see sums.c; -1: there are none */
	uint32_t reserved;
	unsigned char bytes[];
};

/* A read of the inner backend that is under way. */
struct fetch {
	struct fetch *next;
	uint64_t start, end;
	uint64_t epoch, drops, changes;	/* of the file when it began */
	uint64_t number;
};

struct file {
	struct file *next;		/* of its bucket */
	struct file *newer, *older;	/* by use; spill.lock */
	struct file_record *rec;
	uint32_t refs;			/* spill.lock */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool busy;			/* somebody changes it at the inner backend */
	bool broken;			/* no temporary file is to be had */
	uint32_t opening, opening_writers;	/* that the host does not count yet */
	struct range_set present, dirty;
	uint64_t changes;		/* counts changes of data and size by this process */
	uint64_t drops;			/* counts losses of present ranges */
	uint64_t epoch;			/* counts those of data that were right no more */
	uint64_t allocated;		/* bytes of the temporary file */
	struct fetch *fetches;
	uint64_t last_fetch;		/* number given */
	uint64_t sent_start, sent_end;	/* on its way to the inner backend ... */
	bool sent_again;		/* ... and written meanwhile */
	uint64_t next_read;		/* where reads would go on */
	uint64_t ahead_end;		/* what was asked for ahead of them */
	uint32_t runs;			/* reads in a row that went on */
	uint64_t seen_mtime, seen_at;	/* ns: of the temporary file, and when it was looked through */
};

/* A piece to fetch before anybody asks. */
struct job {
	struct job *next;
	struct file *file;
	struct fe_node node;
	struct fe_handle handle;	/* outlives the job: release waits */
	uint64_t start, end;
	bool running;
};

/* For the operator; they go on in a successor. */
struct counters {
	_Atomic uint64_t next_id;
	_Atomic uint32_t processes;
	_Atomic uint64_t inner_reads, inner_read_bytes;
	_Atomic uint64_t inner_writes, inner_write_bytes;
	_Atomic uint64_t dropped, passed, direct, stale, lost;
};

struct spill {
	const struct fe_services *services;
	void *host;
	struct fe_inner *inner;
	const struct fe_backend *in;
	void *ip;
	struct fe_backend table;
	struct fe_table *file_records, *range_records;
	struct fe_table *node_records;	/* of nodes that are looked at for the time of a request */
	struct range_store store;
	struct counters *counters;
	uint32_t key_size, inner_handle;	/* bytes; the latter rounded up to 8 */

	/* options */
	char *dir;
	int dir_fd;
	uint64_t limit;
	uint32_t max_files;
	uint64_t delay;		/* ns */
	uint64_t ahead;
	uint64_t attr_valid;
	bool writeback;
	uint32_t process;	/* a number for each process that serves */
	bool locks;		/* the inner backend keeps them, for others to see */
	bool kills;		/* a write has to take set-id bits and capabilities away */

	pthread_mutex_t lock;
	struct file *files[BUCKETS];
	struct file *newest, *oldest;
	_Atomic uint32_t nfiles;
	_Atomic uint64_t allocated;
	_Atomic uint64_t dirty_files;
	_Atomic uint64_t full_since;	/* ns: when there was no space last; 0: never */

	/* threads.c */
	pthread_mutex_t jobs_lock;
	pthread_cond_t jobs_changed, writer_due;
	struct job *jobs;
	pthread_t ahead_threads[AHEAD_THREADS];
	unsigned nahead, idle_ahead;
	pthread_t writer;
	bool has_writer, quit;
};

/* A handle's record: the inner one, and this behind it. */
struct file_handle_part {
	uint32_t flags;
	uint32_t process;	/* spill.process in which it is counted in file.opening; 0: nowhere */
};

#define HANDLE_OPEN	(1u << 0)
#define HANDLE_WRITES	(1u << 1)
#define HANDLE_READS	(1u << 2)
#define HANDLE_SYNC	(1u << 3)
#define HANDLE_RAW	(1u << 4)	/* the inner backend's own business */

static inline struct file_handle_part *part_of(const struct spill *sp, const struct fe_handle *h)
{
	return (struct file_handle_part *)(h->record + sp->inner_handle);
}

/* What an inner backend that opens nothing is called with. */
static inline struct fe_handle *inner_handle(const struct spill *sp, struct fe_handle *h)
{
	return sp->in->open_file ? h : NULL;
}

static inline unsigned char *own_handle(const struct spill *sp, const struct file *f)
{
	return f->rec->bytes + ((sp->key_size + 7u) & ~7u);
}

static inline bool file_is(const struct file *f, uint32_t flag)
{
	return __atomic_load_n(&f->rec->flags, __ATOMIC_ACQUIRE) & flag;
}

static inline void file_set(struct file *f, uint32_t flag, bool on)
{
	if (on)
		__atomic_fetch_or(&f->rec->flags, flag, __ATOMIC_ACQ_REL);
	else
		__atomic_fetch_and(&f->rec->flags, ~flag, __ATOMIC_ACQ_REL);
}

static inline void put_size(uint64_t *where, uint64_t value)
{
	__atomic_store_n(where, value, __ATOMIC_RELEASE);
}

#define say(sp, level, ...) (sp)->services->log((sp)->host, level, __VA_ARGS__)

/* file.c: who the files are, and how many */
void files_init(struct spill *sp);
void files_resume(struct spill *sp);
/* All of them, written back where the inner backend takes it. */
void files_fini(struct spill *sp);
/* The file of a node, referenced until file_put(); NULL where there is none or no room. */
struct file *file_find(struct spill *sp, const unsigned char *key);
struct file *file_get(struct spill *sp, const unsigned char *key);
void file_put(struct spill *sp, struct file *f);
/* Calls fn for all files, each referenced. */
void files_each(struct spill *sp, void (*fn)(struct spill *sp, struct file *f));
/* Its node, while it is dirty or the kernel has it: the kernel holds the node then. */
int file_node(struct spill *sp, const struct file *f, struct fe_node *out);
/* Whether the kernel may use the temporary file now. With file.lock. */
bool file_passed(struct spill *sp, struct file *f);
/* Gives up something clean for others, or writes back; false where nothing is left to give. */
bool files_give(struct spill *sp, struct file *keep);
/* Whether so much more may be kept, after files_give() where need be. */
bool files_room(struct spill *sp, struct file *f, uint64_t size);
static inline bool is_full(ssize_t err)
{
	return err == -ENOSPC || err == -EDQUOT || err == -ENOMEM || err == -EMFILE || err == -ENFILE || err == -EFBIG;
}
/* Waits until nobody else changes the file at the inner backend. With file.lock, which is let go meanwhile. */
void file_claim(struct file *f);
void file_unclaim(struct file *f);

/* store.c: the temporary file; all with file.lock */
void store_account(struct spill *sp, struct file *f);
/* Puts what was fetched over all that is there. */
int store_over(struct spill *sp, struct file *f, const unsigned char *buf, uint64_t start, uint64_t end);
/* ... where nothing is present yet. Returns 0, or a negative errno with nothing lost. */
int store_fetched(struct spill *sp, struct file *f, const unsigned char *buf, uint64_t start, uint64_t end);
/* The bytes written and noted as dirty, or a negative errno. */
ssize_t store_write(struct spill *sp, struct file *f, const void *buf, size_t size, uint64_t off, bool dirty);
/* Counts it as dirty no more, where nothing of it is: what was may have been cut off. */
void dirty_end(struct spill *sp, struct file *f);
/* The size becomes this; what is new reads as zeros. */
int store_resize(struct spill *sp, struct file *f, uint64_t size);
/* Nothing of it is present any more; what is dirty goes too. */
void store_forget(struct spill *sp, struct file *f, uint64_t start, uint64_t end);
/* What is clean goes; of a file that the kernel uses nothing. */
void store_drop_clean(struct spill *sp, struct file *f, uint64_t start, uint64_t end);
/* What is clean may be older than what the inner backend has: it goes. */
void store_doubt(struct spill *sp, struct file *f);
ssize_t store_read(struct file *f, void *buf, size_t size, uint64_t off);

/* fetch.c: from the inner backend */
/* Fetches all that is not a hole there, also what is present; the size is what it is here. own: see own_open(). */
int fetch_whole(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *own);
ssize_t sp_read(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, void *buf,
		size_t size, uint64_t off);
/* Of a range what there is room for. The handle must be open for reading. */
int fetch_range(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
		struct fe_handle *handle, uint64_t start, uint64_t end);

/* sums.c: what the kernel wrote by itself into a file that is passed through; all with file.lock */
int sums_make(struct spill *sp, struct file *f);
/* The next blocks of the temporary file that are no hole, one piece at most. */
bool next_data(struct file *f, uint64_t from, uint64_t *start, uint64_t *end);
void sums_end(struct spill *sp, struct file *f);
/* Makes dirty what changed since they were made or looked at; sure: also where no time tells of it. */
int sums_look(struct spill *sp, struct file *f, bool sure);

/* back.c: to the inner backend */
/* handle: open for writing, or NULL. settle: what the inner backend has then is known to be this. */
int write_back(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *handle, bool settle);
/* With the file claimed and locked. last: the handle is being closed. */
int write_back_claimed(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *handle,
		       bool settle, bool last);
/* The file's own handle at the inner backend, for reading and writing; with the file claimed. */
int own_open(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *out);
void own_close(struct spill *sp, struct file *f, struct fe_node *node);
struct fe_request own_request(const struct file *f);
int sp_flush(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     uint64_t lock_owner);
int sp_fsync(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, int datasync);
int sp_syncfs(void *b, const struct fe_request *req, struct fe_node *node);
void sp_release(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		const struct fe_release *how);

/* write.c */
ssize_t sp_write(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 const void *buf, size_t size, uint64_t off, uint32_t io_flags);
ssize_t sp_copy_file_range(void *b, const struct fe_request *req, struct fe_node *in_node, struct fe_handle *in,
			   uint64_t in_off, struct fe_node *out_node, struct fe_handle *out, uint64_t out_off,
			   uint64_t len, uint32_t flags);
int sp_fallocate(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 uint32_t mode, uint64_t off, uint64_t len);
int64_t sp_lseek(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, int64_t off,
		 uint32_t whence);

/* open.c */
int sp_open_file(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags, uint32_t io_flags,
		 struct fe_open *out);
int sp_create(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t flags,
	      uint32_t mode, uint32_t io_flags, struct fe_entry *entry, struct fe_open *out);
int sp_tmpfile(void *b, const struct fe_request *req, struct fe_node *parent, uint32_t flags, uint32_t mode,
	       struct fe_entry *entry, struct fe_open *out);
int sp_backing_fd(void *b, struct fe_node *node, struct fe_handle *handle);
void sp_opened(void *b, struct fe_node *node, struct fe_handle *handle);
/* It is not, and will not be, or no more. */
void opening_end(struct spill *sp, const struct fe_node *node, struct fe_handle *handle);
void sp_backing_begin(void *b);
void sp_backing_end(void *b);

/* locks.c */
int sp_setlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     const struct fe_lock *lock);

/* attrs.c */
/* Sees to it that the size is known: the file may have been given up while it was open. With file.lock, which is
 * let go meanwhile. */
int file_ready(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
	       struct fe_handle *handle);
/* How often the file has changed here. */
uint64_t changes_of(struct file *f);
bool attrs_differ(const struct file *f, const struct statx *st);
/* Attributes that the inner backend has just given, of a file that is not dirty: whether what is present is of
 * that state; if not, it goes. With file.lock. */
bool attrs_check(struct spill *sp, struct file *f, const struct statx *st);
/* ... of a file that is claimed, so that all that is not dirty is at the inner backend: of it nothing is kept. */
void attrs_doubt(struct spill *sp, struct file *f, const struct statx *st);
/* The state that the inner backend has now is the one that is present. */
void attrs_adopt(struct file *f, const struct statx *st);
int sp_lookup(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, struct fe_entry *out);
int sp_getattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	       struct statx *out, uint64_t *valid);
int sp_setattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	       const struct fe_setattr *set, struct statx *out, uint64_t *valid);
int sp_link(void *b, const struct fe_request *req, struct fe_node *node, struct fe_node *parent, const char *name,
	    struct fe_entry *out);
int sp_rename(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
	      struct fe_node *newparent, const char *newname, uint32_t flags);
int sp_readdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, uint64_t off,
	       struct fe_dirfill *fill);
int sp_setxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name, const void *value,
		size_t size, int flags, int kill_sgid);
int sp_removexattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name);

/* threads.c */
void threads_init(struct spill *sp);
void threads_fini(struct spill *sp);
/* Fetches [start, end) without anybody waiting for it, if there is a thread to do so. */
void ahead(struct spill *sp, struct file *f, const struct fe_node *node, const struct fe_handle *handle,
	   uint64_t start, uint64_t end);
/* Nothing uses the handle any more after this. */
void ahead_end(struct spill *sp, const struct fe_handle *handle);
/* Sees to it that dirty files are written back in time. */
void writer_start(struct spill *sp);

/* forward.c: what is the inner backend's alone; takes out of the table what it has not */
void forward(struct spill *sp, struct fe_backend *table);

static inline uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
