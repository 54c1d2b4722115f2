/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FE_REMOTE_LOCKS_H
#define FE_REMOTE_LOCKS_H

#include "backends/remote/remote.h"

#define LOCK_STRIPES	64u

/* A record: what somebody here has locked. */
struct r_range {
	struct r_key key;
	uint64_t owner;
	uint64_t fh;		/* that it came by */
	uint64_t start, end;
	uint32_t type;
	uint32_t pid;
	uint32_t flock;
	uint32_t uid;
	uint32_t lost;		/* another client has had it meanwhile */
	uint32_t reserved;
};

struct range {
	struct range *next;
	struct r_range *record;
};

/* A file that somebody has locked, and the lock on it that the mount has on the server. */
struct lock_file {
	struct lock_file *next;
	struct r_key key;
	struct range *ranges;
	uint32_t fid, epoch;	/* opened for it; epoch 0: none is */
	uint32_t held;		/* by that fid */
	bool lost;
	bool tell;		/* the kernel is to forget what it has cached */
};

/* Held while the server is asked; in a round then. */
struct lock_stripe {
	pthread_mutex_t lock;
	struct lock_file *files;
};

struct lock_waiter {
	struct lock_waiter *next;
	uint64_t token;
	struct r_range want;
	uint64_t blocker;	/* the owner here who is in the way; 0: another client is */
	uint32_t pid;
	bool interrupted;
};

struct locks {
	struct fe_table *table;
	struct lock_stripe stripes[LOCK_STRIPES];
	_Atomic unsigned files;
	_Atomic uint64_t lost;
	/* lock_wait.c; never held while a stripe is waited for */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	bool started, closing, kicked;
	struct lock_waiter *waiters;
	uint32_t epoch;		/* all locks were asked for again on this connection */
	bool asks;		/* not yet */
	uint64_t pause;		/* ns, until other clients are asked again */
};

/* lock_ranges.c; the first ones with the stripe locked */
struct lock_stripe *lock_stripe(struct remote *r, const struct r_key *key);
struct lock_file *lock_file_find(struct lock_stripe *s, const struct r_key *key);
struct lock_file *lock_file_new(struct remote *r, struct lock_stripe *s, const struct r_key *key);
void lock_file_drop(struct remote *r, struct lock_stripe *s, struct lock_file *gone);
/* Who keeps this lock from being given; NULL: nobody here. */
const struct r_range *range_conflict(const struct lock_file *f, const struct r_range *want);
/* F_WRLCK, F_RDLCK, or F_UNLCK where there is none. */
uint32_t range_strongest(const struct lock_file *f);
/* What an owner has in this range is `want` from now on. Done again it changes nothing. */
int range_set(struct remote *r, struct lock_file *f, const struct r_range *want);
void range_remove(struct remote *r, struct range **at);
int lock_init(struct remote *r);
void lock_resume(struct remote *r);
void lock_fini(struct remote *r);

/* lock_server.c */
/* In a round. 0, -EAGAIN with who is in the way, or another error. */
int lock_set(struct op *op, const struct r_range *want, uint64_t *blocker);
/* A file that was locked on another connection, and is not on this one. */
bool lock_stale(struct remote *r, uint32_t epoch, struct r_key *key);
/* A file whose lock was lost, each once. */
bool lock_untold(struct remote *r, struct r_key *key);

/* lock_wait.c */
void lock_wait_init(struct locks *l);
/* Before the client is closed, and behind that. */
void lock_wait_stop(struct locks *l);
void lock_wait_end(struct locks *l);
/* FE_PENDING, or why not. */
int lock_wait(struct remote *r, const struct fe_request *req, const struct r_range *want, uint64_t blocker);
/* settled: what is locked here is locked on the server, on this connection. */
unsigned lock_waiters(struct locks *l, uint32_t epoch, bool *settled);
/* Something has changed that those may wait for who wait. */
void lock_kick(struct remote *r);

#endif
