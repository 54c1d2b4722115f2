/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * delay PORT MICROSECONDS
 *
 * A long line to PORT of this machine: all bytes come so much later, each way, and as many as are on their
 * way at a time as there are. Prints the port that it listens on, and ends with its standard input.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE	(64u << 10)
#define HELD	(64u << 20)	/* bytes on their way, more than any window of those who are measured */

struct piece {
	struct piece *next;
	uint64_t due;
	size_t size;
	unsigned char bytes[];
};

struct pair {
	int fds[2];
	_Atomic unsigned threads;
};

/* One way of a connection: a thread that reads, and one that writes what is due. */
struct way {
	struct pair *pair;
	int from, to;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct piece *first, **last;
	size_t held;
	bool ended;
	_Atomic unsigned threads;
};

static uint16_t target;
static uint64_t delay;

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(EXIT_FAILURE);
}

static void *allocate(size_t size)
{
	void *memory = malloc(size);

	if (!memory)
		die("malloc");
	return memory;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void way_leave(struct way *w)
{
	struct pair *p = w->pair;

	if (!--w->threads) {
		while (w->first) {
			struct piece *gone = w->first;

			w->first = gone->next;
			free(gone);
		}
		free(w);
	}
	if (--p->threads)
		return;
	close(p->fds[0]);
	close(p->fds[1]);
	free(p);
}

static void way_end(struct way *w)
{
	pthread_mutex_lock(&w->lock);
	w->ended = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static bool way_add(struct way *w, struct piece *p)
{
	bool ended;

	pthread_mutex_lock(&w->lock);
	while (w->held > HELD && !w->ended)
		pthread_cond_wait(&w->changed, &w->lock);
	ended = w->ended;
	*w->last = p;
	w->last = &p->next;
	w->held += p->size;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	return !ended;
}

static void *reads(void *arg)
{
	struct way *w = arg;
	struct piece *p;
	ssize_t n;

	do {
		p = allocate(sizeof(*p) + PIECE);
		do
			n = recv(w->from, p->bytes, PIECE, 0);
		while (n < 0 && errno == EINTR);
		p->next = NULL;
		p->size = n > 0 ? (size_t)n : 0;
		p->due = now() + delay;
	} while (n > 0 && way_add(w, p));
	if (n <= 0)
		free(p);
	way_end(w);
	way_leave(w);
	return NULL;
}

static struct piece *way_take(struct way *w)
{
	struct piece *p;

	pthread_mutex_lock(&w->lock);
	while (!w->first && !w->ended)
		pthread_cond_wait(&w->changed, &w->lock);
	p = w->first;
	if (p) {
		w->first = p->next;
		if (!w->first)
			w->last = &w->first;
		w->held -= p->size;
		pthread_cond_broadcast(&w->changed);
	}
	pthread_mutex_unlock(&w->lock);
	return p;
}

static bool deliver(const struct way *w, const struct piece *p)
{
	struct timespec due = { (time_t)(p->due / 1000000000), (long)(p->due % 1000000000) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
		;
	for (size_t at = 0; at < p->size;) {
		ssize_t n = send(w->to, p->bytes + at, p->size - at, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return false;
		at += n > 0 ? (size_t)n : 0;
	}
	return true;
}

static void *writes(void *arg)
{
	struct way *w = arg;
	struct piece *p;
	bool well = true;

	prctl(PR_SET_TIMERSLACK, 1000);
	while (well && (p = way_take(w))) {
		well = deliver(w, p);
		free(p);
	}
	way_end(w);
	shutdown(w->to, SHUT_WR);
	if (!well)
		shutdown(w->from, SHUT_RD);
	way_leave(w);
	return NULL;
}

static void start(void *(*fn)(void *), void *arg)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, fn, arg);
	if (errno)
		die("pthread_create");
	pthread_detach(thread);
}

static void way_begin(struct pair *p, int from, int to)
{
	struct way *w = allocate(sizeof(*w));

	*w = (struct way){ .pair = p, .from = from, .to = to, .threads = 2 };
	w->last = &w->first;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	start(reads, w);
	start(writes, w);
}

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static void serve(int client)
{
	struct sockaddr_in there = loopback(target);
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	struct pair *p;

	if (server < 0 || connect(server, (struct sockaddr *)&there, sizeof(there))) {
		perror("connect");
		close(server);
		close(client);
		return;
	}
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	p = allocate(sizeof(*p));
	*p = (struct pair){ { client, server }, 4 };
	way_begin(p, client, server);
	way_begin(p, server, client);
}

static void *accepts(void *arg)
{
	int listener = *(int *)arg;

	for (;;) {
		int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (client >= 0)
			serve(client);
		else if (errno != EINTR && errno != ECONNABORTED)
			die("accept");
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in here = loopback(0);
	socklen_t size = sizeof(here);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char byte;

	if (argc != 3) {
		fputs("usage: delay PORT MICROSECONDS\n", stderr);
		return 2;
	}
	target = (uint16_t)atoi(argv[1]);
	delay = strtoull(argv[2], NULL, 10) * 1000;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (listener < 0 || bind(listener, (struct sockaddr *)&here, size) || listen(listener, 64) ||
	    getsockname(listener, (struct sockaddr *)&here, &size))
		die("listen");
	printf("%u\n", ntohs(here.sin_port));
	fflush(stdout);
	start(accepts, &listener);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}
