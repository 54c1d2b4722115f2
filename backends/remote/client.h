/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A connection to a 9P server, which is made again when it is lost.
 *
 * One thread connects and reads; whoever asks sends by himself and waits. Each time that a connection is
 * made is an epoch: fids belong to it. A request of an epoch that has ended is LOST: the server did it or
 * did not, and who asked finds out on the next connection.
 */
#ifndef FE_REMOTE_CLIENT_H
#define FE_REMOTE_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "backends/remote/protocol.h"

#define NS		1000000000u
#define LOST		(-5000)		/* no errno */
#define TAGS		1024u
#define MESSAGE_MAX	4608u		/* without data: a Twalk of 16 names, a Tsymlink */
#define REPLY_MAX	4224u
#define ROOT_FID	0u
#define CLIENT_NAME	64u

/* Where the server is. All strings are the address's own. */
struct address {
	char *host, *port;	/* by TCP, or */
	char *path;		/* by a socket in the file system, or */
	char *command;		/* as its standard input and output */
	char *aname;
	char *uname;
};

struct client;
struct rpc;

/* What somebody waits for: one request of the kernel, which may take several messages. */
struct waiter {
	struct client *client;
	pthread_cond_t cond;
	uint32_t pid;		/* whose request it is; 0: the kernel's */
	uint64_t deadline;	/* ns of CLOCK_MONOTONIC, 0: none */
	bool in_round, alone;
	unsigned answers;	/* in this round */
};

enum rpc_state { RPC_NEW, RPC_FLYING, RPC_ARRIVING, RPC_DONE };

struct rpc {
	struct client *client;
	struct waiter *waiter;
	struct rpc *next;
	uint8_t type;
	uint16_t tag;
	uint32_t epoch;
	enum rpc_state state;
	bool detached;		/* nobody waits: freed when it is done */
	int error;		/* 0, or LOST, or what was wrong with the reply */
	/* What a Rread or Rreaddir carries goes here, and `data` bytes of it came. */
	unsigned char *into;
	size_t room, data;
	/* What a Twrite carries. */
	const void *payload;
	size_t payload_size;
	/* In the thread that reads, when a detached one is done; for what it held on the server. */
	void (*done)(struct client *c, const struct rpc *r);
	uint32_t fid;
	uint16_t flushed_tag;	/* of a Tflush: what is dropped, unless it is answered first */
	struct p9_out out;
	struct p9_in in;	/* the body of the reply */
	unsigned char reply[REPLY_MAX];
	unsigned char message[MESSAGE_MAX];
};

struct client_options {
	struct address address;
	uint32_t uid;
	uint32_t msize;
	bool soft;
	uint64_t timeout;	/* ns */
	const _Atomic bool *closing;	/* whatever is waited for is given up then */
	void (*log)(void *arg, int level, const char *line);
	bool (*ended)(void *arg);	/* nobody takes answers any more */
	void (*connected)(void *arg);	/* in the thread that connects; with no lock held */
	void *arg;
};

/* What a successor finds: the connection of the process that died. */
struct client_shared {
	int fd;
	_Atomic uint32_t unused;	/* it was made by open(), and nobody has used it yet */
	_Atomic uint32_t epoch;
	uint32_t msize;			/* of the unused one */
};

struct client {
	struct client_options opt;
	struct client_shared *shared;
	void (*keep)(void *arg, int fd);	/* of the connection; -1: it is closed */
	void (*busy)(void *arg, bool now);	/* its thread has descriptors that are not kept */
	pthread_mutex_t lock;
	pthread_mutex_t send_lock;	/* taken before lock, where both are */
	pthread_cond_t ready;		/* up, or closing, or the thread has ended */
	pthread_cond_t tag_free;
	pthread_t thread;
	bool started, ended, up;
	_Atomic bool closing;
	unsigned rounds;		/* under way */
	unsigned want_alone;		/* who waits for being the only one */
	bool alone;
	_Atomic uint64_t end_by;	/* ns; then it is given up, 0: not yet */
	int fd;
	pid_t child;			/* of the command */
	uint32_t epoch;
	uint32_t msize;
	struct p9_attr root;		/* as of the first connection */
	char name[CLIENT_NAME];		/* what locks are taken as */
	struct rpc *tags[TAGS];
	bool flushing[TAGS];		/* by a Tflush that has no answer: not used again, though it may be answered */
	uint16_t free_tags[TAGS];	/* the one that is free for longest comes first: a late reply finds nobody */
	unsigned free_at, free_count;
	_Atomic uint64_t connections, unexpected, broken, sent, received;
};

void address_free(struct address *a);

/* dial.c. A descriptor, or a negative errno after a line in the log. *child: of a command, else 0. */
int dial(const struct client_options *opt, pid_t *child);
/* Tversion, Tattach, and what the root is, on a new connection. */
int client_handshake(const struct client_options *opt, int fd, uint32_t *msize, struct p9_attr *root);
/* All of it, or a negative errno; a peer that does not move for so long is gone. */
int send_all(const struct client_options *opt, int fd, const void *head, size_t head_size, const void *data,
	     size_t data_size);
/* timeout 0: it may take for ever. */
ssize_t receive_some(const struct client_options *opt, int fd, void *buf, size_t size, uint64_t timeout);
void client_log(const struct client_options *opt, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
uint64_t clock_ns(void);

static inline struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / NS), .tv_nsec = (long)(ns % NS) };
}

void client_init(struct client *c, const struct client_options *opt);
/* The first connection, before any thread runs. */
int client_first(struct client *c);
/* Starts the thread, once in a process. */
int client_start(struct client *c);
/* In a successor: what the dead process asked for is done or dropped when this returns. */
void client_resume(struct client *c);
void client_close(struct client *c);
/* This machine as locks are taken from it: an address, for there is a server that looks it up. */
void client_name(struct client *c, char name[CLIENT_NAME]);
/*
 * A round is what a request asks on one connection. Waits for that; its epoch, or 0 with *err: -ETIMEDOUT,
 * -EINTR, -ECANCELED. alone: none other is under way meanwhile, so that who loses the connection is known.
 */
uint32_t client_round(struct waiter *w, bool alone, int *err);
void client_round_end(struct waiter *w);

/* A request whose process is being killed ends with -EINTR, and the server is asked to drop it. */
void waiter_begin(struct waiter *w, struct client *c, uint32_t pid);
void waiter_end(struct waiter *w);
/* Asked after a second of waiting, or between what goes on for long: 0, -ETIMEDOUT, -EINTR, -ECANCELED. */
int waiter_gives_up(struct waiter *w);

struct rpc *rpc_new(struct waiter *w, uint8_t type);
int rpc_send(struct rpc *r, uint32_t epoch);
/* 0 or a negative errno: of a Rlerror, LOST, -EINTR, -ETIMEDOUT. */
int rpc_wait(struct rpc *r);
/* One that is still under way is freed when it is done. */
void rpc_end(struct rpc *r);

/* receive.c. With the client locked: nobody waits for a reply of this tag. */
void tag_give(struct client *c, uint16_t tag);
/* It is over, with the client locked. Returns it where nobody waits, to be freed without the lock. */
struct rpc *rpc_over(struct client *c, struct rpc *r, int error);
void rpc_free_detached(struct client *c, struct rpc *r);

static inline void rpc_cleanup(struct rpc **r)
{
	if (*r)
		rpc_end(*r);
}

#define _cleanup_rpc_ __attribute__((cleanup(rpc_cleanup)))

#endif
