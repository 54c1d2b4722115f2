/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The thread that connects, reads what the server sends, and connects again. */
#include "backends/remote/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define INPUT		(64u << 10)
#define BACKOFF_FIRST	50000000u	/* ns */
#define BACKOFF_MOST	5000000000u
#define DRAIN_NS	5000000000u
#define CLOSE_NS	2000000000u	/* as long may a server hold up an unmount */
#define SETTLE_NS	50000000u
#define SETTLE_MOST	1000000000u
#define LOOK_MS		50
#define CHILD_LOOKS	200
#define CHILD_LOOK_US	10000
#define OTHER_ROOT	(-5001)		/* no errno */

struct input {
	const struct client_options *opt;
	int fd;
	size_t at, end;
	unsigned char bytes[INPUT];
};

/* At least `want` bytes, which lie in one piece. begun: of a message, which has to come to its end. */
static int input_need(struct input *in, size_t want, bool begun)
{
	if (in->end - in->at >= want)
		return 0;
	memmove(in->bytes, in->bytes + in->at, in->end - in->at);
	in->end -= in->at;
	in->at = 0;
	while (in->end < want) {
		ssize_t n = receive_some(in->opt, in->fd, in->bytes + in->end, sizeof(in->bytes) - in->end,
					 begun || in->end ? in->opt->timeout : 0);

		if (n < 0)
			return (int)n;
		in->end += (size_t)n;
	}
	return 0;
}

/* to NULL: dropped. */
static int input_take(struct input *in, void *to, size_t size)
{
	unsigned char *out = to;

	while (size) {
		size_t have = in->end - in->at, n;

		if (!have && out && size >= sizeof(in->bytes) / 4) {
			ssize_t got = receive_some(in->opt, in->fd, out, size, in->opt->timeout);

			if (got < 0)
				return (int)got;
			out += got;
			size -= (size_t)got;
			continue;
		}
		if (!have) {
			int err = input_need(in, 1, true);

			if (err)
				return err;
			have = in->end - in->at;
		}
		n = have < size ? have : size;
		if (out) {
			memcpy(out, in->bytes + in->at, n);
			out += n;
		}
		in->at += n;
		size -= n;
	}
	return 0;
}

void tag_give(struct client *c, uint16_t tag)
{
	c->tags[tag] = NULL;
	if (c->flushing[tag])
		return;
	c->free_tags[(c->free_at + c->free_count) % TAGS] = tag;
	c->free_count++;
	pthread_cond_signal(&c->tag_free);
}

struct rpc *rpc_over(struct client *c, struct rpc *r, int error)
{
	tag_give(c, r->tag);
	r->error = error;
	r->state = RPC_DONE;
	if (r->waiter)
		pthread_cond_broadcast(&r->waiter->cond);
	return r->detached ? r : NULL;
}

void rpc_free_detached(struct client *c, struct rpc *r)
{
	if (r && r->done)
		r->done(c, r);
	free(r);
}

static struct rpc *rpc_arrives(struct client *c, uint16_t tag)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c->lock);
	struct rpc *r = tag < TAGS ? c->tags[tag] : NULL;

	if (r)
		r->state = RPC_ARRIVING;
	return r;
}

static void rpc_arrived(struct client *c, struct rpc *r, int error)
{
	struct rpc *over;

	pthread_mutex_lock(&c->lock);
	over = rpc_over(c, r, error);
	pthread_mutex_unlock(&c->lock);
	rpc_free_detached(c, over);
}

static bool carries_data(uint8_t type)
{
	return type == P9_TREAD || type == P9_TREADDIR;
}

/* The body of a reply. *error: what is wrong with it; returns what is wrong with the connection. */
static int take_body(struct input *in, struct rpc *r, uint8_t type, size_t size, int *error)
{
	unsigned char count_bytes[4];
	struct p9_in count = { .at = count_bytes, .left = sizeof(count_bytes) };
	size_t room = r->into ? r->room : 0;
	int err;

	*error = 0;
	if (type == r->type + 1 && carries_data(r->type) && size >= 4) {
		err = input_take(in, count_bytes, 4);
		if (err)
			return err;
		size -= 4;
		r->data = p9_get32(&count);
		if (r->data == size && size <= room)
			return input_take(in, r->into, size);
		*error = -EIO;
	} else if ((type == r->type + 1 || p9_is_error(type)) && size <= sizeof(r->reply)) {
		err = input_take(in, r->reply, size);
		r->in = (struct p9_in){ .at = r->reply, .left = size };
		if (!err && p9_is_error(type))
			*error = p9_read_error(&r->in);
		return err;
	} else {
		*error = -EIO;
	}
	return input_take(in, NULL, size);
}

/* One message. Returns what ends the connection. */
static int receive(struct client *c, struct input *in)
{
	struct p9_in head;
	struct rpc *r;
	uint32_t size;
	uint8_t type;
	int err = input_need(in, P9_HEADER, false), error;

	if (err)
		return err;
	head = (struct p9_in){ .at = in->bytes + in->at, .left = P9_HEADER };
	size = p9_get32(&head);
	type = p9_get8(&head);
	if (size < P9_HEADER || size > c->msize)
		return -EPROTO;
	r = rpc_arrives(c, p9_get16(&head));
	in->at += P9_HEADER;
	atomic_fetch_add(&c->received, size);
	if (!r) {
		/* Answered twice, or not asked for. */
		atomic_fetch_add(&c->unexpected, 1);
		return input_take(in, NULL, size - P9_HEADER);
	}
	err = take_body(in, r, type, size - P9_HEADER, &error);
	if (err || error == -EIO)
		atomic_fetch_add(&c->broken, !p9_is_error(type));
	rpc_arrived(c, r, err ? LOST : error);
	return err;
}

/* All that is under way is lost. */
static void connection_down(struct client *c)
{
	struct rpc *over = NULL;

	pthread_mutex_lock(&c->lock);
	c->up = false;
	for (unsigned i = 0; i < TAGS; i++) {
		struct rpc *r = c->tags[i];

		if (!r || !rpc_over(c, r, LOST))
			continue;
		r->next = over;
		over = r;
	}
	pthread_cond_broadcast(&c->tag_free);
	pthread_mutex_unlock(&c->lock);
	while (over) {
		struct rpc *r = over;

		over = r->next;
		rpc_free_detached(c, r);
	}
}

/*
 * What lies on the way to the server is done by it before it closes its side. What it says is for nobody; but
 * one that found nobody to say it to might die of that, or do the rest after what it is asked for next.
 */
static void connection_drain(struct client *c, int fd)
{
	uint64_t end = clock_ns() + DRAIN_NS, now;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char buf[4096];
	ssize_t n;

	shutdown(fd, SHUT_WR);
	while ((now = clock_ns()) < end) {
		if (c->closing && end > now + CLOSE_NS)
			end = now + CLOSE_NS;
		if (poll(&p, 1, LOOK_MS) <= 0)
			continue;
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (!n || (n < 0 && errno != EINTR && errno != EAGAIN))
			break;
	}
}

static void connection_close(struct client *c)
{
	pid_t child = c->child;

	if (c->fd >= 0)
		connection_drain(c, c->fd);
	pthread_mutex_lock(&c->send_lock);
	if (c->fd >= 0) {
		c->keep(c->opt.arg, -1);
		close(c->fd);
	}
	c->fd = -1;
	c->child = 0;
	pthread_mutex_unlock(&c->send_lock);
	if (!child)
		return;
	kill(child, SIGTERM);
	for (int i = 0; i < CHILD_LOOKS && !waitpid(child, NULL, WNOHANG); i++)
		usleep(CHILD_LOOK_US);
	/* One that was waited for is gone, or somebody else's. */
	if (waitpid(child, NULL, WNOHANG))
		return;
	kill(child, SIGKILL);
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
}

/* Returns whether the client goes on. */
static bool pause_before(struct client *c, uint64_t ns)
{
	uint64_t end = clock_ns() + ns;
	const struct timespec until = timespec_of(end);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c->lock);

	while (!c->closing && clock_ns() < end)
		pthread_cond_timedwait(&c->ready, &c->lock, &until);
	return !c->closing;
}

/* By the connection; where that has no IPv4 address, which every server knows, the host's name. */
static void name_client(struct client *c, int fd)
{
	struct sockaddr_in sa = { 0 };
	socklen_t size = sizeof(sa);

	if (getsockname(fd, (struct sockaddr *)&sa, &size) || (sa.sin_family != AF_INET && sa.sin_family != AF_UNIX))
		gethostname(c->name, sizeof(c->name) - 1);
	else if (sa.sin_family == AF_UNIX)
		strcpy(c->name, "127.0.0.1");
	else
		inet_ntop(AF_INET, &sa.sin_addr, c->name, sizeof(c->name));
}

void client_name(struct client *c, char name[CLIENT_NAME])
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c->send_lock);

	memcpy(name, c->name, CLIENT_NAME);
}

static int connection_new(struct client *c)
{
	struct p9_attr root;
	uint32_t msize;
	pid_t child;
	int fd = dial(&c->opt, &child), err;

	if (fd < 0)
		return fd;
	err = client_handshake(&c->opt, fd, &msize, &root);
	if (!err && !c->root.mode)
		c->root = root;
	/* Nothing is where it was: what is removed would seem to be gone, and what is made would be lost. */
	if (!err && root.qid.path != c->root.qid.path)
		err = OTHER_ROOT;
	pthread_mutex_lock(&c->send_lock);
	c->fd = fd;
	c->child = child;
	c->msize = msize;
	name_client(c, fd);
	pthread_mutex_unlock(&c->send_lock);
	c->keep(c->opt.arg, fd);
	/* Who closes the client ends the connection that he sees, or is seen here. */
	pthread_mutex_lock(&c->lock);
	if (c->closing)
		err = -ECANCELED;
	pthread_mutex_unlock(&c->lock);
	if (err)
		connection_close(c);
	return err;
}

/* The one that open() made serves the first process. */
static bool connection_first(struct client *c)
{
	if (c->shared->fd < 0 || !atomic_exchange(&c->shared->unused, 0))
		return false;
	c->fd = c->shared->fd;
	c->msize = c->shared->msize;
	return true;
}

static void connection_up(struct client *c)
{
	pthread_mutex_lock(&c->lock);
	__atomic_store_n(&c->epoch, atomic_fetch_add(&c->shared->epoch, 1) + 1, __ATOMIC_RELEASE);
	c->up = true;
	pthread_cond_broadcast(&c->ready);
	pthread_mutex_unlock(&c->lock);
	atomic_fetch_add(&c->connections, 1);
	if (c->opt.connected)
		c->opt.connected(c->opt.arg);
}

static void serve_connection(struct client *c)
{
	struct input *in = malloc(sizeof(*in));
	int err = -ENOMEM;

	if (in) {
		*in = (struct input){ .opt = &c->opt, .fd = c->fd };
		connection_up(c);
		do
			err = receive(c, in);
		while (!err);
	}
	connection_down(c);
	c->busy(c->opt.arg, true);
	connection_close(c);
	c->busy(c->opt.arg, false);
	free(in);
	if (!c->closing)
		client_log(&c->opt, LOG_WARNING, "the connection to the server ended: %s", strerror(-err));
}

static int connect_again(struct client *c)
{
	int err;

	c->busy(c->opt.arg, true);
	err = connection_new(c);
	c->busy(c->opt.arg, false);
	return err;
}

static void log_failed(const struct client *c, int err)
{
	if (err == OTHER_ROOT)
		client_log(&c->opt, LOG_WARNING, "the server shows another directory as %s than before: see that what it "
			   "exported is mounted there; it is tried again", c->opt.address.aname);
	else
		client_log(&c->opt, LOG_WARNING, "connecting to the server: %s; it is tried again", strerror(-err));
}

static void *client_main(void *arg)
{
	struct client *c = arg;
	uint64_t wait = 0;
	bool told = false;

	for (;;) {
		uint64_t began = clock_ns(), received = atomic_load(&c->received);
		int err = connection_first(c) ? 0 : connect_again(c);

		if (!err) {
			/* One that was slow to take it is as slow with what it had before, see below. */
			uint64_t settle = 2 * (clock_ns() - began);

			pause_before(c, settle < SETTLE_MOST ? settle : SETTLE_MOST);
			if (told)
				client_log(&c->opt, LOG_NOTICE, "connected again");
			told = true;
			serve_connection(c);
			/* What the server still has of that connection it should do before it is asked again:
			 * a write that comes late would replace a newer one. */
			if (!pause_before(c, SETTLE_NS))
				break;
			/* One that served nobody is no better than none. */
			if (atomic_load(&c->received) != received)
				wait = 0;
		} else if (wait >= BACKOFF_MOST / 2 || !wait) {
			log_failed(c, err);
			told = true;
		}
		if (wait && !pause_before(c, wait))
			break;
		wait = !wait ? BACKOFF_FIRST : wait * 2 < BACKOFF_MOST ? wait * 2 : BACKOFF_MOST;
		pthread_mutex_lock(&c->lock);
		if (c->closing)
			wait = BACKOFF_MOST;
		pthread_mutex_unlock(&c->lock);
		if (!pause_before(c, 0))
			break;
	}
	pthread_mutex_lock(&c->lock);
	c->ended = true;
	pthread_cond_broadcast(&c->ready);
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

int client_first(struct client *c)
{
	int err = connection_new(c);

	if (err)
		return err;
	c->shared->msize = c->msize;
	atomic_store(&c->shared->unused, 1);
	return 0;
}

int client_start(struct client *c)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c->lock);
	sigset_t all, saved;
	int err = 0;

	if (c->started)
		return 0;
	/* Signals are for the threads of the host. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	err = -pthread_create(&c->thread, NULL, client_main, c);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	c->started = !err;
	return err;
}

void client_resume(struct client *c)
{
	int fd = c->shared->fd;

	client_init(c, &c->opt);
	if (fd < 0)
		return;
	atomic_store(&c->shared->unused, 0);
	connection_drain(c, fd);
	c->keep(c->opt.arg, -1);
	close(fd);
}

static void connection_shut(struct client *c, int how)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c->send_lock);

	if (c->fd >= 0)
		shutdown(c->fd, how);
}

void client_close(struct client *c)
{
	const struct timespec until = timespec_of(clock_ns() + CLOSE_NS);
	bool started;

	pthread_mutex_lock(&c->lock);
	c->closing = true;
	started = c->started;
	pthread_cond_broadcast(&c->ready);
	pthread_mutex_unlock(&c->lock);
	connection_shut(c, SHUT_WR);
	pthread_mutex_lock(&c->lock);
	while (started && !c->ended && !pthread_cond_timedwait(&c->ready, &c->lock, &until))
		;
	pthread_mutex_unlock(&c->lock);
	connection_shut(c, SHUT_RDWR);
	if (started)
		pthread_join(c->thread, NULL);
	if (c->fd >= 0 || c->shared->fd >= 0) {
		c->fd = c->fd >= 0 ? c->fd : c->shared->fd;
		connection_close(c);
	}
}
