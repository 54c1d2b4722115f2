/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks that users of the source directory see too (-o locks=source).
 *
 * Each owner gets an open file description of its own for each file that it locks, and locks by
 * F_OFD_SETLK or flock(2) on it, so that two owners behind one handle conflict and two handles of one
 * owner do not. A lock that has to wait does so on a thread of its own.
 *
 * Owners are records, so a successor finds them, and the locks with their descriptors. Asking again for
 * a lock that one has changes nothing. Waiters are known to the host, which asks for each of them again.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"
#include "base/cleanup.h"
#include "libfuserecover/killpoint.h"

#define MAX_OWNERS	(1u << 20)
#define BUCKETS		256u
#define MAX_WAITERS	1024u
#define WAITER_STACK	(size_t)(64 << 10)
#define WAKE_SIGNAL	SIGUSR1
#define MAX_CIRCLE	10

/* A record; nothing is locked by its descriptor before it is noted in it, nor after it is taken out. */
struct pt_owner {
	uint64_t nodeid;
	uint64_t owner;
	uint64_t fh;		/* that the last lock came by */
	uint32_t pid;
	int32_t flock;
	int32_t fd;		/* -1: on its way in or out */
	uint32_t reserved;
};

struct owner {
	struct owner *next;
	struct pt_owner *rec;
	unsigned waiters;	/* who wait by its descriptor */
};

struct waiter {
	struct waiter *next;
	struct passthrough *pt;
	pthread_t thread;
	uint64_t token;
	struct owner *owner;
	struct flock lock;
	bool ended;		/* waits no more */
};

struct lock_table {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct fe_table *records;
	struct owner *owners[BUCKETS];	/* by node */
	struct waiter *waiters;
	unsigned nwaiters;
};

static void wake_nothing(int sig)
{
	(void)sig;
}

int locks_init(struct passthrough *pt)
{
	struct sigaction sa = { .sa_handler = wake_nothing };

	if (!pt->source_locks)
		return 0;
	pt->locks = calloc(1, sizeof(*pt->locks));
	if (!pt->locks)
		return -ENOMEM;
	pthread_mutex_init(&pt->locks->lock, NULL);
	pthread_cond_init(&pt->locks->changed, NULL);
	/* without SA_RESTART: it ends a wait */
	if (sigaction(WAKE_SIGNAL, &sa, NULL))
		return -errno;
	return pt->services->table(pt->host, "lock owners", sizeof(struct pt_owner), MAX_OWNERS, &pt->locks->records);
}

static struct owner **owners_of(struct lock_table *t, uint64_t nodeid)
{
	return &t->owners[(uint32_t)nodeid % BUCKETS];
}

static struct owner **owner_find(struct lock_table *t, uint64_t nodeid, uint64_t owner, int flock)
{
	struct owner **o = owners_of(t, nodeid);

	while (*o && ((*o)->rec->nodeid != nodeid || (*o)->rec->owner != owner || (*o)->rec->flock != flock))
		o = &(*o)->next;
	return o;
}

static struct owner *owner_add(struct lock_table *t, struct pt_owner *rec)
{
	struct owner **at = owners_of(t, rec->nodeid);
	struct owner *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	*o = (struct owner){ .next = *at, .rec = rec };
	*at = o;
	return o;
}

static struct owner *owner_new(struct passthrough *pt, const struct pt_owner *init, int fd)
{
	struct lock_table *t = pt->locks;
	struct pt_owner *rec = pt->services->record_new(pt->host, t->records, init);
	struct owner *o = rec ? owner_add(t, rec) : NULL;

	if (o) {
		put_fd(pt, &rec->fd, fd);
		return o;
	}
	if (rec)
		pt->services->record_free(pt->host, t->records, rec);
	close(fd);
	return NULL;
}

static int open_to_lock(struct passthrough *pt, const struct fe_node *node, const struct fe_handle *handle, int whole)
{
	int mode = fcntl(pt_file(handle)->fd, F_GETFL) & O_ACCMODE;
	int fd = -EACCES;

	/* Nobody can run a file that is open for writing: flock(2) needs no more than the caller has. */
	if (!whole || mode != O_RDONLY)
		fd = node_open(pt, node, O_RDWR | O_NONBLOCK | O_NOCTTY);
	return fd < 0 ? node_open(pt, node, O_RDONLY | O_NONBLOCK | O_NOCTTY) : fd;
}

static int owner_get(struct passthrough *pt, const struct fe_node *node, const struct fe_handle *handle,
		     const struct fe_lock *lock, struct owner **out)
{
	struct owner *o = *owner_find(pt->locks, node->nodeid, lock->owner, lock->flock);

	if (!o) {
		struct pt_owner init = {
			.nodeid = node->nodeid, .owner = lock->owner, .flock = lock->flock, .fd = -1,
		};
		int fd = open_to_lock(pt, node, handle, lock->flock);

		if (fd < 0)
			return fd;
		o = owner_new(pt, &init, fd);
		if (!o)
			return -ENOLCK;
	}
	o->rec->fh = handle->fh;
	o->rec->pid = lock->pid;
	*out = o;
	return 0;
}

static struct flock range_of(const struct fe_lock *lock)
{
	return (struct flock){
		.l_type = (short)lock->type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)lock->start,
		.l_len = lock->end >= INT64_MAX ? 0 : (off_t)(lock->end - lock->start + 1),
	};
}

static int flock_op(uint32_t type)
{
	return type == F_RDLCK ? LOCK_SH : type == F_WRLCK ? LOCK_EX : LOCK_UN;
}

static int apply(int fd, const struct flock *range, int whole, bool wait)
{
	struct flock l = *range;

	if (whole)
		return flock(fd, flock_op((uint32_t)l.l_type) | (wait ? 0 : LOCK_NB)) ? -errno : 0;
	return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &l) ? -errno : 0;
}

/*
 * Ends an owner's locks, and himself where nobody waits in his name; whether he is gone. What a process
 * that dies did not close is closed late, so the locks go first.
 */
static bool owner_drop(struct passthrough *pt, struct owner **o)
{
	const struct flock all = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
	struct owner *gone = *o;

	apply(gone->rec->fd, &all, gone->rec->flock, false);
	FR_STEP();
	if (gone->waiters)
		return false;
	*o = gone->next;
	close_fd(pt, &gone->rec->fd);
	FR_STEP();
	pt->services->record_free(pt->host, pt->locks->records, gone->rec);
	free(gone);
	return true;
}

/* Whether an owner holds what keeps others from this range; /proc tells it per open file. */
static bool owner_blocks(const struct pt_owner *o, const struct flock *range)
{
	off_t last = range->l_len ? range->l_start + range->l_len - 1 : INT64_MAX;
	char path[40], line[256], type[8], to[32];
	long long from;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", o->fd);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "lock: %*d: OFDLCK %*s %7s %*d %*s %lld %31s", type, &from, to) != 3)
			continue;
		found = from <= last && (!strcmp(to, "EOF") || atoll(to) >= range->l_start) &&
			(range->l_type == F_WRLCK || !strcmp(type, "WRITE"));
	}
	if (f)
		fclose(f);
	return found;
}

/*
 * With the table locked. Whether `first` would wait for somebody who waits for him, at last: the source
 * sees open files there, for which the kernel does not look.
 */
static bool waits_in_circle(struct lock_table *t, uint64_t first, uint64_t nodeid, uint64_t owner,
			    const struct flock *range, int depth)
{
	for (const struct owner *o = *owners_of(t, nodeid); o && depth; o = o->next) {
		const struct pt_owner *r = o->rec;

		if (r->nodeid != nodeid || r->flock || r->owner == owner || !owner_blocks(r, range))
			continue;
		if (r->owner == first)
			return true;
		for (const struct waiter *w = t->waiters; w; w = w->next) {
			const struct pt_owner *waits = w->ended ? NULL : w->owner->rec;

			if (waits && !waits->flock && waits->owner == r->owner &&
			    waits_in_circle(t, first, waits->nodeid, waits->owner, &w->lock, depth - 1))
				return true;
		}
	}
	return false;
}

static void waiter_remove(struct lock_table *t, struct waiter *gone)
{
	struct waiter **w = &t->waiters;

	pthread_mutex_lock(&t->lock);
	while (*w != gone)
		w = &(*w)->next;
	*w = gone->next;
	t->nwaiters--;
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
}

static void *waiter_main(void *arg)
{
	struct waiter *w = arg;
	struct passthrough *pt = w->pt;
	int err;

	FR_STEP();
	err = apply(w->owner->rec->fd, &w->lock, w->owner->rec->flock, true);
	FR_STEP();
	/* Who gets the answer may close the file at once: nobody waits in his name then. */
	pthread_mutex_lock(&pt->locks->lock);
	w->owner->waiters--;
	w->ended = true;
	pthread_cond_broadcast(&pt->locks->changed);
	pthread_mutex_unlock(&pt->locks->lock);
	/* A lock that came together with the interrupt is a lock. */
	pt->services->complete(pt->host, w->token, err);
	waiter_remove(pt->locks, w);
	free(w);
	return NULL;
}

/* With the table locked. */
static int waiter_start(struct passthrough *pt, const struct fe_request *req, struct owner *owner,
			const struct flock *range)
{
	struct lock_table *t = pt->locks;
	struct waiter *w = t->nwaiters < MAX_WAITERS ? calloc(1, sizeof(*w)) : NULL;
	pthread_attr_t attr;
	int err;

	if (!w)
		return -ENOLCK;
	*w = (struct waiter){ .next = t->waiters, .pt = pt, .token = req->token, .owner = owner, .lock = *range };
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, WAITER_STACK);
	err = -pthread_create(&w->thread, &attr, waiter_main, w);
	pthread_attr_destroy(&attr);
	if (err) {
		free(w);
		return err == -EAGAIN ? -ENOLCK : err;
	}
	owner->waiters++;
	t->waiters = w;
	t->nwaiters++;
	return FE_PENDING;
}

int pt_setlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     const struct fe_lock *lock)
{
	struct passthrough *pt = b;
	struct flock range = range_of(lock);
	_cleanup_unlock_ pthread_mutex_t *held = NULL;
	struct owner *o;
	int err;

	if (!pt->locks)
		return -ENOSYS;
	held = fe_lock(&pt->locks->lock);
	if (lock->type == F_UNLCK && !*owner_find(pt->locks, node->nodeid, lock->owner, lock->flock))
		return 0;
	err = owner_get(pt, node, handle, lock, &o);
	if (err)
		return err;
	FR_STEP();
	err = apply(o->rec->fd, &range, lock->flock, false);
	FR_STEP();
	if ((err != -EAGAIN && err != -EACCES) || !lock->wait)
		return err;
	if (!lock->flock && waits_in_circle(pt->locks, lock->owner, node->nodeid, lock->owner, &range, MAX_CIRCLE))
		return -EDEADLK;
	return waiter_start(pt, req, o, &range);
}

int pt_getlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     struct fe_lock *lock)
{
	struct passthrough *pt = b;
	_cleanup_unlock_ pthread_mutex_t *held = NULL;
	_cleanup_close_ int own = -1;
	struct flock range = range_of(lock);
	short asked_type = range.l_type;
	struct owner *o;

	(void)req;
	if (!pt->locks)
		return -ENOSYS;
	held = fe_lock(&pt->locks->lock);
	o = *owner_find(pt->locks, node->nodeid, lock->owner, lock->flock);
	if (!o) {
		own = open_to_lock(pt, node, handle, lock->flock);
		if (own < 0)
			return own;
	}
	if (fcntl(o ? o->rec->fd : own, F_OFD_GETLK, &range))
		return -errno;
	lock->type = (uint32_t)range.l_type;
	if (range.l_type == F_UNLCK)
		return 0;
	lock->start = (uint64_t)range.l_start;
	lock->end = range.l_len ? (uint64_t)(range.l_start + range.l_len - 1) : INT64_MAX;
	/* The kernel tells no process of such a lock: name one of ours that holds the file. */
	lock->pid = range.l_pid > 0 ? (uint32_t)range.l_pid : 0;
	range.l_type = asked_type;
	for (o = *owners_of(pt->locks, node->nodeid); o && !lock->pid; o = o->next)
		if (o->rec->nodeid == node->nodeid && o->rec->owner != lock->owner && !o->rec->flock &&
		    owner_blocks(o->rec, &range))
			lock->pid = o->rec->pid;
	return 0;
}

void pt_interrupt(void *b, uint64_t token)
{
	struct passthrough *pt = b;
	struct lock_table *t = pt->locks;
	struct timespec soon;

	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	/* The signal may come before the thread waits: again, until it is gone. */
	for (;;) {
		struct waiter *w = t->waiters;

		while (w && (w->token != token || w->ended))
			w = w->next;
		if (!w)
			break;
		pthread_kill(w->thread, WAKE_SIGNAL);
		clock_gettime(CLOCK_REALTIME, &soon);
		soon.tv_nsec += 1000000;
		if (soon.tv_nsec >= 1000000000) {
			soon.tv_nsec -= 1000000000;
			soon.tv_sec++;
		}
		pthread_cond_timedwait(&t->changed, &t->lock, &soon);
	}
	pthread_mutex_unlock(&t->lock);
}

void locks_flush(struct passthrough *pt, const struct fe_node *node, uint64_t owner)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&pt->locks->lock);
	struct owner **o = owner_find(pt->locks, node->nodeid, owner, 0);

	if (*o)
		owner_drop(pt, o);
}

void locks_release(struct passthrough *pt, const struct fe_node *node, uint64_t fh, const struct fe_release *how)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&pt->locks->lock);
	struct owner **at = owners_of(pt->locks, node->nodeid);

	/* What came by this handle and is still there belongs to the open file: OFD locks and flock. */
	while (*at) {
		struct owner *o = *at;
		bool gone = o->rec->nodeid == node->nodeid && o->rec->fh == fh;

		if (how->flock_unlock && o->rec->nodeid == node->nodeid && o->rec->flock &&
		    o->rec->owner == how->lock_owner)
			gone = true;
		if (!gone || !owner_drop(pt, at))
			at = &o->next;
	}
}

static int resume_owner(void *arg, void *record)
{
	struct passthrough *pt = arg;
	struct pt_owner *rec = record;

	if (rec->fd >= 0 && owner_add(pt->locks, rec))
		return 0;
	close_fd(pt, &rec->fd);
	pt->services->record_free(pt->host, pt->locks->records, rec);
	return 0;
}

void locks_resume(struct passthrough *pt)
{
	struct lock_table *t = pt->locks;

	if (!t)
		return;
	*t = (struct lock_table){ .records = t->records };
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->changed, NULL);
	pt->services->record_each(pt->host, t->records, resume_owner, pt);
}

void locks_fini(struct passthrough *pt)
{
	struct lock_table *t = pt->locks;

	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	while (t->waiters) {
		struct timespec soon;

		for (struct waiter *w = t->waiters; w; w = w->next)
			if (!w->ended)
				pthread_kill(w->thread, WAKE_SIGNAL);
		clock_gettime(CLOCK_REALTIME, &soon);
		soon.tv_sec++;
		pthread_cond_timedwait(&t->changed, &t->lock, &soon);
	}
	for (unsigned i = 0; i < BUCKETS; i++)
		while (t->owners[i])
			owner_drop(pt, &t->owners[i]);
	pthread_mutex_unlock(&t->lock);
	free(t);
	pt->locks = NULL;
}
