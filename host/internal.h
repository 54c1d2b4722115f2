/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of host/ share. */
#ifndef FE_HOST_INTERNAL_H
#define FE_HOST_INTERNAL_H

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/fuse_abi.h"
#include "host/host.h"
#include "host/records.h"
#include "libextfuse/extfuse.h"
#include "libfuserecover/fuserecover.h"

#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define TSAN 1
#else
#define TSAN 0
#endif

#define STRIPES		64	/* of the lock arrays */
#define MAX_WRITE	(1u << 20)	/* fc->max_pages_limit is 256 pages by default */
#define REQUEST_SIZE	(MAX_WRITE + 4096u)
#define REPLY_SIZE	(sizeof(struct fuse_out_header) + MAX_WRITE + 4096u)
#define ROOT_ID		FUSE_ROOT_ID

/* Of the nodes that share a place, which handle stands. Guarded by an open lock. */
struct standing {
	uint64_t nodeid;	/* 0: none; looked at without the lock, too */
	uint64_t fh;
	uint64_t candidate;	/* node that was released last */
};

#define STANDING_FILES	512	/* descriptors that are open for nobody, at most */

struct worker {
	struct fe_host *host;
	pthread_t thread;
	unsigned index;			/* of its slot and its clone */
	int fd;
	struct fr_slot *slot;
	const unsigned char *in;	/* the request, in the slot */
	size_t in_size;
	unsigned char *out;		/* its reply */
	size_t out_size;
	_Atomic uint64_t busy_since;	/* ns, 0 while it waits for a request */
	_Atomic uint32_t wake;		/* futex: 0 parked, 1 may read */
	uint32_t spin_hits;		/* of the last 32 spins, as bits */
	uint32_t spin_skips;
	pid_t tid;
	sem_t started;
	int start_error;
	bool prompt;			/* real-time until it has started */
	uint64_t answered;		/* ns, when the operation had its result */
	_Atomic uint32_t done;		/* requests */
	/* follow.c */
	_Atomic int cpu;		/* the core of its client that it keeps to, -1: none */
	uint32_t unlooked;		/* requests since the last look */
	uint32_t look_again;		/* after so many, where client and worker seem to have parted */
	uint8_t strayed;		/* of the last 8 looks, as bits: the client was elsewhere */
	uint32_t done_seen;		/* the monitor's */
	uint64_t done_at;		/* ns */
	_Atomic uint32_t follow_from;	/* `done` when it began */
	_Atomic uint64_t follow_pause;	/* ns */
	_Atomic uint64_t follow_after;	/* ns */
	unsigned saturated;		/* requests in a row for which it had not to wait */
	struct worker *next_parked;
};

struct pool {
	pthread_mutex_t lock;
	struct worker **workers;
	unsigned count;
	unsigned max;
	struct worker *parked;
	_Atomic unsigned active;	/* workers that are not parked */
	_Atomic unsigned idle;		/* active ones that wait for a request */
	_Atomic unsigned op_ns;		/* running mean of a request's duration */
	_Atomic bool monitor_asleep;
	unsigned cpus;
	bool follow;			/* workers may */
	pid_t monitor;
	cpu_set_t allowed;
};

/* A backend's own, by fe_services.table. */
struct fe_table {
	struct fr_table *records;
	uint32_t size;
};

#define BACKEND_TABLES	8

/* A WRITE that is under way. */
struct writing {
	struct writing *next;
	uint64_t nodeid;
	uint64_t start, end;
	uint64_t number;
};

/* Of the nodes of one stripe. */
struct order {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	struct writing *first;
	uint64_t last;			/* number given */
};

/* A directory that is being read, by the handle `fh`. */
struct reading {
	uint64_t fh;			/* 0: none */
	uint64_t stamp;
	uint64_t next;			/* where it goes on */
	bool busy;
	_Atomic bool broken;
	struct extfuse_names names;
};

#define READINGS	16	/* at a time; of more, the names are not kept */

struct fe_host {
	struct fe_host_options opt;
	const struct fe_backend *be;
	void *priv;
	struct fe_root root;
	struct fe_services services;
	struct fe_inner *inner;

	bool mounted;
	bool driver_lacks;		/* FUSE_PASSTHROUGH, which was wanted */
	size_t page;

	struct extfuse *cache;
	struct extfuse *hook;		/* the same, where that engine runs */

	struct fr *fr;
	unsigned slots;			/* the last one is the service slot */
	bool recovers;			/* a keeper runs, or will */
	bool rooted;			/* the root is a node */
	bool served;
	struct shared *shared;
	struct fr_table *nodes;
	struct fr_table *handles;
	struct fr_table *parked;
	struct fe_table tables[BACKEND_TABLES];
	unsigned ntables;
	struct fr_slot *service_slot;	/* for steps of threads that serve no requests */
	pthread_mutex_t service_lock;
	pthread_mutex_t parked_lock;	/* its records, and who was interrupted */
	pthread_mutex_t open_locks[STRIPES];
	struct order orders[STRIPES];
	struct standing standing[STANDING_FILES];
	unsigned standing_places;	/* of these; a multiple of STRIPES, so a place has one lock */
	_Atomic bool standing_lacks;	/* the module does not know it */
	pthread_mutex_t readings_lock;
	struct reading readings[READINGS];
	unsigned readings_at;

	struct pool pool;
	int quit_fd;			/* eventfd, never read: the workers shall end */
	int wake_fd;			/* eventfd: the monitor shall look */
	_Atomic bool ended;		/* the connection is gone */
	uint64_t sweep_due;		/* ns: when nodes_sweep() goes on, 0: it has seen all; */
	uint32_t sweep_at;		/* from here on */
};

/* One request while it is answered. */
struct call {
	struct fe_host *host;
	struct worker *worker;
	struct note *note;
	const struct fuse_in_header *in;
	const unsigned char *arg;	/* behind the header */
	size_t arg_size;		/* without the extensions */
	unsigned char *out;		/* behind the reply's header */
	size_t out_size;
	struct fe_request req;
	struct fe_node node;		/* of in->nodeid */
	uint64_t stamp;			/* before the backend was asked; with the hook only */
};

/* What an operation returns besides the length of its reply or a negative errno. */
#define NO_REPLY	INT64_MIN	/* done, and nobody waits */
#define PARKED		(INT64_MIN + 1)	/* answered later */

struct operation {
	const char *name;
	int64_t (*run)(struct call *c);
	/* The kernel did not take the reply: give back what it granted. */
	void (*undo)(struct call *c, size_t size);
	uint16_t arg_size;		/* least bytes behind the header */
	bool on_node;			/* in->nodeid must name a node */
};

/* node.c */
int nodes_init(struct fe_host *h);
/* Gives all records back to the backend. */
void nodes_forget(struct fe_host *h);
int node_add_root(struct fe_host *h, const unsigned char *record);
/* Looks a node up by its id and holds it until node_put(). -ESTALE where there is none. */
int node_get(struct fe_host *h, uint64_t nodeid, struct fe_node *out);
void node_put(struct fe_host *h, const struct fe_node *node);
/* Finds or adds the node of the note's entry, counts one lookup and writes its nodeid to `granted`. */
int node_intern(struct call *c, struct fuse_entry_out *granted, struct fe_node *out);
/* Sets *mark, which lies in the checkpoint, in the same step. */
void node_forget(struct fr_slot *s, struct fe_host *h, uint64_t nodeid, uint64_t nlookup, uint64_t *mark,
		 uint64_t value);
/* Looks through some of the nodes that a predecessor left. */
void nodes_sweep(struct fe_host *h);
/* With the node's key locked and a step open: ends the node where nobody holds it, commits, unlocks. */
void node_settle(struct fe_host *h, struct fr_slot *s, struct node *n);
/* Gives the note's node records back. */
void note_settle(struct fe_host *h, struct note *note);
uint64_t node_of_key(void *host, const void *key);
int node_with_key(void *host, const void *key, int (*fn)(void *arg, struct fe_node *node), void *arg);
struct node *node_of(const struct fe_node *n);
pthread_mutex_t *node_open_lock(struct fe_host *h, uint64_t nodeid);

/* worker.c */
/* For the thread that is to serve from the slot with w->index. */
int worker_take_slot(struct worker *w);
/* The slot of the calling thread, or the one that all other threads share. */
struct fr_slot *step_slot(struct fe_host *h);
void step_slot_done(struct fe_host *h);
/* unfinished: so many slots may have a request that a predecessor left. */
int pool_start(struct fe_host *h, unsigned unfinished);
void pool_join(struct fe_host *h);
/* After the backend is closed: what still waits is answered by the descriptors of the workers. */
void pool_free(struct fe_host *h);
/* Adds a reader where all are stuck; returns whether the monitor has to look again soon. */
bool pool_watch(struct fe_host *h);
uint64_t now_ns(void);

/* follow.c */
void follow_init(struct fe_host *h);
/* Before a request of a thread is served: on its core, where that pays. */
void follow(struct worker *w, uint32_t tid);
void follow_end(struct worker *w);
/* The monitor's look at a worker; returns whether it must look again. */
bool follow_watch(struct worker *w, bool pending);

/* dispatch.c */
extern const struct operation operations[OPCODES];
/* again: its process died before it was done with it. */
void dispatch(struct worker *w, size_t size, bool again);
void call_init(struct call *c, struct worker *w, size_t size);
void reply_error(int fd, uint64_t unique, int error);
/* The next string of the arguments, NULL where none ends within them; moves c->arg on. */
const char *take_string(struct call *c);
const char *take_name(struct call *c, int *err);

/* locks.c: answers that come later */
/* In a successor: of a request in slot `index` that is done again from the start. */
void unpark_of_dead(struct fe_host *h, uint64_t token, unsigned index);
/* In a successor: what waits is asked for once more. */
void parked_resume(struct fe_host *h);
void parked_complete(void *host, uint64_t token, int error);
int64_t op_interrupt(struct call *c);

/* attr.c */
void fill_attr(struct fuse_attr *out, const struct statx *st);
void split_ns(uint64_t ns, uint64_t *sec, uint32_t *nsec);

/* session.c */
/* The main thread of a worker, before and after its threads run. */
int serve_begin(struct fe_host *h, unsigned *unfinished);
void serve_end(struct fe_host *h);

/* loader.c */
/* Whether a table is whole and of this version; -ENOEXEC with a line in the log. */
int backend_check(const char *name, const struct fe_backend *be);

/* stack.c */
int backend_open(struct fe_host *h);
void backend_close(struct fe_host *h);

/* keep.c: services, see backend.h */
void fd_put(void *host, int *where, int fd);
int fd_take(void *host, int *where);
int keep_shared(void *host, const char *name, size_t size, void **out);
int keep_table(void *host, const char *name, uint32_t size, uint32_t most, struct fe_table **out);
void *keep_record(void *host, struct fe_table *t, const void *bytes);
void keep_no_record(void *host, struct fe_table *t, void *record);
int keep_each(void *host, struct fe_table *t, int (*fn)(void *arg, void *record), void *arg);
void helper_enter(void *host);
void helper_leave(void *host);

/* order.c */
void orders_init(struct fe_host *h);
/* A request that was just read: whether it is a WRITE, which has to be ended then. */
bool order_begin(const struct worker *w, struct writing *mine);
void order_end(struct fe_host *h, struct writing *gone);
/* Waits for the writes to these bytes that came before. */
void order_read(struct fe_host *h, uint64_t nodeid, uint64_t start, uint64_t size);

/* adopt.c */
void adopt_note(struct fe_host *h, const struct fe_host_options *o);
/* Whether a checkpoint that was handed down is that of this mount, and whole enough. */
int adopt_check(struct fe_host *h, const struct fe_host_options *o);
/* Nothing is mounted: it lives on, perhaps detached. */
int adopt_mount(struct fe_host *h);
/* From now on the service manager has the descriptors, too. */
int adopt_store(struct fe_host *h);

/* names.c */
void entry_begin(struct call *c, struct fe_entry *e);
/* The entry's nodeid is in `out` when it is counted. name: in c->node, NULL: none; own: EXTFUSE_OWN_*. */
int64_t entry_finish(struct call *c, const char *name, uint32_t own, struct fe_entry *e,
		     struct fuse_entry_out *out);

/* handle.c */
struct handle *handle_get(struct fe_host *h, uint64_t fh, bool dir, struct fe_handle *out);
int handle_add(struct call *c, const struct fe_node *node, const struct fe_open *o, bool dir, uint32_t flags,
	       struct fuse_open_out *out);
void handle_remove(struct fe_host *h, const struct fe_request *req, uint64_t fh, bool dir,
		   const struct fe_release *how);
/* At the end of service: gives back what is still open. */
void handles_fini(struct fe_host *h);
/* False where there was none. */
bool backing_close(struct fe_host *h, uint32_t id);

/* standing.c */
void standing_init(struct fe_host *h);
/* Whether a handle may stand that the backend opened so; told: FE_OPEN_*. */
bool standing_fit(const struct fe_host *h, uint32_t flags, uint32_t told);
/* An OPEN that the module did not answer. */
void standing_open(struct call *c, uint32_t flags);
/* A RELEASE: whether it is not the end of the handle, or that was seen to. */
bool standing_keep(struct call *c, uint64_t fh);
/* No handle of the node stands from now on. */
void standing_end(struct fe_host *h, const struct fe_request *req, uint64_t nodeid);
/* Whether that was for a lack of descriptors, and there are more now. */
bool standing_make_room(struct call *c, int err);
/* In a successor, when what was under way is settled. */
void standing_resume(struct fe_host *h);

/* recover.c */
/* Before anything is served: gives back what requests had got when their process died. Returns how many
 * slots have to be looked at for an unfinished request. */
unsigned recover(struct fe_host *h);
void backing_note(struct fe_host *h, struct note *note, uint32_t id);

/* mount.c */
int mount_fuse(struct fe_host *h, uint32_t root_mode);
int unmount_fuse(struct fe_host *h, bool lazy);

/* init.c */
void passthrough_set(struct fe_host *h, enum passes who, const char *reason);
int64_t op_init(struct call *c);
int handshake(struct fe_host *h);

/* notify.c */
int notify_inval_inode(void *host, uint64_t nodeid, int64_t off, int64_t len);
int notify_inval_entry(void *host, uint64_t parent, const char *name, int expire_only);
int notify_delete(void *host, uint64_t parent, uint64_t child, const char *name);
int notify_store(void *host, uint64_t nodeid, uint64_t off, const void *data, size_t len);

/* control.c */
int control_open(struct fe_host *h);
void control_serve(struct fe_host *h);
/* Whether the mountpoint, as the mount table has it, leads to this mount. */
bool lies_on_top(const struct fe_host *h);

/* operations */
int64_t op_lookup(struct call *c);
int64_t op_forget(struct call *c);
int64_t op_batch_forget(struct call *c);
int64_t op_mknod(struct call *c);
int64_t op_mkdir(struct call *c);
int64_t op_symlink(struct call *c);
int64_t op_link(struct call *c);
int64_t op_unlink(struct call *c);
int64_t op_rmdir(struct call *c);
int64_t op_rename(struct call *c);
int64_t op_rename2(struct call *c);
int64_t op_readlink(struct call *c);
void undo_entry(struct call *c, size_t size);
int64_t op_getattr(struct call *c);
int64_t op_statx(struct call *c);
int64_t op_setattr(struct call *c);
int64_t op_access(struct call *c);
int64_t op_statfs(struct call *c);
int64_t op_syncfs(struct call *c);
int64_t op_getxattr(struct call *c);
int64_t op_listxattr(struct call *c);
int64_t op_setxattr(struct call *c);
int64_t op_removexattr(struct call *c);
int64_t op_open(struct call *c);
int64_t op_create(struct call *c);
int64_t op_tmpfile(struct call *c);
void undo_open(struct call *c, size_t size);
void undo_create(struct call *c, size_t size);
int64_t op_read(struct call *c);
int64_t op_write(struct call *c);
int64_t op_flush(struct call *c);
int64_t op_release(struct call *c);
int64_t op_fsync(struct call *c);
int64_t op_fallocate(struct call *c);
int64_t op_copy_file_range(struct call *c);
int64_t op_lseek(struct call *c);
int64_t op_ioctl(struct call *c);
int64_t op_poll(struct call *c);
int64_t op_opendir(struct call *c);
int64_t op_readdir(struct call *c);
int64_t op_readdirplus(struct call *c);
void undo_readdirplus(struct call *c, size_t size);
int64_t op_releasedir(struct call *c);
int64_t op_fsyncdir(struct call *c);
int64_t op_getlk(struct call *c);
int64_t op_setlk(struct call *c);
int64_t op_setlkw(struct call *c);
int64_t op_destroy(struct call *c);

#endif
