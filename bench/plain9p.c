/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * plain9p PORT EXPORT FILE
 *
 * Reads a file of a 9P server on this machine, with as many requests under way as are of use, and throws away
 * what comes: what the server and the line can do. Prints bytes and nanoseconds as a line of JSON.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "backends/remote/protocol.h"

#define UNDER_WAY	128u
#define ROOT		0u
#define FILE_FID	1u

static int sock;
static unsigned char out_bytes[8192], in_bytes[P9_MSIZE_MAX];
static struct p9_in in;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "plain9p: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static struct p9_out begin(uint8_t type)
{
	struct p9_out o;

	p9_begin(&o, out_bytes, sizeof(out_bytes), type);
	return o;
}

static void send_message(struct p9_out *o, uint16_t tag)
{
	size_t size = p9_end(o, tag, 0);

	if (!size || send(sock, out_bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
		die("send");
}

static void take(unsigned char *to, size_t size)
{
	while (size) {
		ssize_t n = recv(sock, to, size, 0);

		if (n <= 0)
			die("the connection ended");
		to += n;
		size -= (size_t)n;
	}
}

/* Its tag. */
static uint16_t receive(uint8_t type)
{
	uint32_t size;
	uint16_t tag;

	take(in_bytes, P9_HEADER);
	in = (struct p9_in){ .at = in_bytes, .left = P9_HEADER };
	size = p9_get32(&in);
	if (size < P9_HEADER || size > sizeof(in_bytes) || p9_get8(&in) != type)
		die("another answer was expected");
	tag = p9_get16(&in);
	take(in_bytes, size - P9_HEADER);
	in = (struct p9_in){ .at = in_bytes, .left = size - P9_HEADER };
	return tag;
}

static void exchange(struct p9_out *o, uint8_t type, uint16_t tag)
{
	send_message(o, tag);
	receive(type + 1);
}

static uint32_t attach(const char *export)
{
	struct p9_out o = begin(P9_TVERSION);
	uint32_t msize;

	p9_put32(&o, P9_MSIZE_MAX);
	p9_putstr(&o, P9_VERSION);
	exchange(&o, P9_TVERSION, P9_NOTAG);
	msize = p9_get32(&in);
	o = begin(P9_TATTACH);
	p9_put32(&o, ROOT);
	p9_put32(&o, P9_NOFID);
	p9_putstr(&o, "");
	p9_putstr(&o, export);
	p9_put32(&o, 0);
	exchange(&o, P9_TATTACH, 0);
	return msize;
}

static void open_file(char *path)
{
	struct p9_out o;

	o = begin(P9_TWALK);
	p9_put32(&o, ROOT);
	p9_put32(&o, FILE_FID);
	p9_put16(&o, 0);
	exchange(&o, P9_TWALK, 0);
	for (char *name = strtok(path, "/"); name; name = strtok(NULL, "/")) {
		o = begin(P9_TWALK);
		p9_put32(&o, FILE_FID);
		p9_put32(&o, FILE_FID);
		p9_put16(&o, 1);
		p9_putstr(&o, name);
		exchange(&o, P9_TWALK, 0);
	}
	o = begin(P9_TLOPEN);
	p9_put32(&o, FILE_FID);
	p9_put32(&o, 0);
	exchange(&o, P9_TLOPEN, 0);
}

static void ask(uint64_t *off, uint32_t size, uint16_t tag)
{
	struct p9_out o = begin(P9_TREAD);

	p9_put32(&o, FILE_FID);
	p9_put64(&o, *off);
	p9_put32(&o, size);
	send_message(&o, tag);
	*off += size;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	uint64_t started, off = 0, bytes = 0;
	unsigned under_way = 0;
	bool ended = false;
	uint32_t size;
	int one = 1;

	if (argc != 4) {
		fputs("usage: plain9p PORT EXPORT FILE\n", stderr);
		return 2;
	}
	there.sin_port = htons((uint16_t)atoi(argv[1]));
	sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0 || connect(sock, (struct sockaddr *)&there, sizeof(there)))
		die("connect");
	setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	size = attach(argv[2]) - P9_IOHDRSZ;
	open_file(argv[3]);
	started = now();
	for (uint16_t tag = 0; tag < UNDER_WAY; tag++, under_way++)
		ask(&off, size, tag);
	while (under_way) {
		uint16_t tag = receive(P9_TREAD + 1);
		uint32_t n = p9_get32(&in);

		bytes += n;
		ended |= n < size;
		if (ended)
			under_way--;
		else
			ask(&off, size, tag);
	}
	printf("{\"bytes\": %llu, \"wall_ns\": %llu}\n", (unsigned long long)bytes,
	       (unsigned long long)(now() - started));
	return 0;
}
