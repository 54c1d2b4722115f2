/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the adapter share. */
#ifndef FUSERECOVER_FUSE3_INTERNAL_H
#define FUSERECOVER_FUSE3_INTERNAL_H

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "libfuserecover/fuse3/fuserecover-fuse3.h"

#define PUBLIC		__attribute__((visibility("default")))
#define MESSAGE_MAX	512u	/* an INIT request, or its reply */
#define INTERRUPT_BIT	1ull	/* of `unique`: an INTERRUPT, which lies in no list of requests */
#define LOOKED_AT	1000u	/* so many of each kind are looked at */

/* What the kernel is given to name things by. */
enum { NODEIDS, FILE_HANDLES, DIR_HANDLES, KINDS };

/* An area of the checkpoint. The lengths are set last: with reply_len, all is there. */
struct saved {
	uint32_t clones;		/* 1 more than there are: 0 is not prepared */
	int32_t fds[FR_SLOTS_MAX];	/* the session's, then the clones */
	int32_t own[FR_SLOTS_MAX];	/* by slot: the thread's clone by a descriptor that is kept; 0: none */
	bool cloned;			/* libfuse opens and closes clones */
	_Atomic uint32_t forked;	/* from a worker: the keeper has no way back to who called fr_run() */
	_Atomic uint32_t looked_at[KINDS];
	uint32_t request_len;
	_Atomic uint32_t reply_len;
	unsigned char request[MESSAGE_MAX];
	unsigned char reply[MESSAGE_MAX];
};

/* A thread that serves. */
struct seat {
	uint32_t index;
	pthread_t thread;
	struct fr_slot *slot;
	size_t request_size, reply_size;
	uint64_t unique;		/* of the request in work, 0: none. This and `late` by rig.lock */
	uint32_t opcode;
	_Atomic bool busy;		/* with a request */
	bool answered;			/* by this thread */
	bool taken, left;		/* own.c: by a thread; with a predecessor's request. By rig.lock */
	_Atomic bool reading;		/* own.c */
	int clone;			/* own.c: which libfuse opened for the thread; 0: none */
	void *late;			/* a reply that another thread made */
	size_t late_size;
	pthread_cond_t came;
};

struct rig {
	struct fr *fr;
	struct fuse_session *se;
	struct saved *saved;
	pthread_mutex_t lock;
	pthread_mutex_t start_lock;
	pthread_cond_t vacant;		/* a seat was left */
	uint32_t slots;			/* no more than there are. By lock */
	pthread_key_t key;		/* own.c: its destructor leaves the seat */
	_Atomic pid_t process;		/* this one, where it has begun to serve */
	_Atomic uint32_t left;		/* seats with a predecessor's request that nobody took */
	bool inited;			/* the session has seen INIT */
	bool unmounted;
	_Atomic bool stopping;
	_Atomic bool destroyed;
	_Atomic int failed;
	struct seat seats[FR_SLOTS_MAX];
};

extern struct rig fr_fuse3_rig;
extern __thread struct seat *fr_fuse3_seat;

/* The service can not go on, for a reason that was logged. */
void fr_fuse3_fail(int err);

/* ---- loop.c ---- */
/* All of rig that belongs to one process. */
void fr_fuse3_new_process(void);
/* At the end of the service, where nobody else will. */
void fr_fuse3_unmount(void);

/* ---- request.c ---- */
/* Around the handler's call. False: it is none for the handler. */
bool fr_fuse3_begin(struct seat *seat);
void fr_fuse3_finish(struct seat *seat);
int fr_fuse3_replay_init(void);
/* By rig.lock; only here is the thread cancelled, where its caller allows that. */
void fr_fuse3_wait(pthread_cond_t *cond);

/* ---- own.c ---- */
extern __thread int fr_fuse3_cancel_state;	/* of who reads */
int fr_fuse3_own_prepare(void);
/* What libfuse reads by, where its loops are used. */
ssize_t fr_fuse3_own_read(int fd, void *buf, size_t size);

/* ---- reply.c ---- */
extern const struct fuse_custom_io fr_fuse3_io;
/* libfuse answers a request that is none of the kernel's: its reply comes back, of at most `size` bytes. */
size_t fr_fuse3_private(void *request, size_t len, void *reply, size_t size);
/* Whether what libfuse writes comes through here. It takes libfuse's lock. */
bool fr_fuse3_has_replies(void);
/* The reply is in the slot's buffer. */
int fr_fuse3_send(struct seat *seat, size_t len);

/* ---- check.c ---- */
bool fr_fuse3_is_connection(int fd);
/* The INIT reply, made to fit the slots, and saved before it is sent. False: it does not fit, or is an error. */
bool fr_fuse3_init_reply(struct seat *seat, const struct fuse_in_header *in, struct fuse_out_header *out);
/* Whether a successful reply gives the kernel an address of this process; says so. */
bool fr_fuse3_gives_address(const struct fuse_in_header *in, const struct fuse_out_header *out, size_t len);

#endif
