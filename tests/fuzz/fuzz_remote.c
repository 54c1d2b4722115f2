/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a 9P server sends, as a stream of bytes, to a client that waits for one answer of each kind.
 *
 * What must hold: a request ends once, with an answer of its own type or with an error; what it carries lies
 * within the memory that was given for it; and when the connection ends nobody waits any more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/remote/receive.c"

#define ROOM 4096u

static const uint8_t types[] = {
	P9_TWALK, P9_TGETATTR, P9_TREAD, P9_TREADDIR, P9_TREADLINK, P9_TSTATFS, P9_TLOPEN, P9_TWRITE,
	P9_TXATTRWALK, P9_TCLUNK,
};

#define KINDS (sizeof(types) / sizeof(types[0]))

static void check(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_remote: %s\n", what);
	abort();
}

static void quiet(void *arg, int level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

static void check_walk(struct rpc *r)
{
	unsigned n = p9_get16(&r->in);

	while (n-- && !r->in.bad)
		p9_getqid(&r->in);
}

static void check_listing(const unsigned char *bytes, size_t size)
{
	struct p9_in in = { .at = bytes, .left = size };
	struct p9_dirent d;

	while (p9_read_dirent(&in, &d) > 0) {
		check(p9_name_valid(d.name, d.len), "a name that is none");
		check((const unsigned char *)d.name >= bytes &&
		      (const unsigned char *)d.name + d.len <= bytes + size, "a name outside of the listing");
	}
}

static void check_answer(struct rpc *r)
{
	struct p9_statfs fs;
	struct p9_attr a;
	struct statx st;
	uint16_t len;

	check(r->error <= 0 && (r->error > -512 || r->error == LOST), "an error that the kernel does not take");
	if (r->error)
		return;
	switch (r->type) {
	case P9_TWALK:
		check_walk(r);
		break;
	case P9_TGETATTR:
		if (!p9_read_attr(&r->in, &a) && !p9_fill_statx(&a, &st))
			check(st.stx_size <= INT64_MAX && st.stx_mtime.tv_nsec < 1000000000, "attributes that can not be");
		break;
	case P9_TREAD:
	case P9_TREADDIR:
		check(r->data <= ROOM, "more data than there is room");
		check_listing(r->into, r->data);
		break;
	case P9_TREADLINK:
		p9_getstr(&r->in, &len);
		break;
	case P9_TSTATFS:
		p9_read_statfs(&r->in, &fs);
		break;
	default:
		p9_get64(&r->in);
	}
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	static struct client c;
	static struct input in;
	struct client_options opt = { .timeout = 1000000000, .log = quiet };
	struct rpc *all[KINDS];
	struct waiter w;
	int fds[2];

	if (size > 65536 || socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		return 0;
	client_init(&c, &opt);
	c.msize = 65536;
	c.free_at = KINDS;
	c.free_count = TAGS - KINDS;
	waiter_begin(&w, &c, 0);
	for (unsigned i = 0; i < KINDS; i++) {
		struct rpc *r = all[i] = rpc_new(&w, types[i]);

		r->tag = (uint16_t)i;
		r->state = RPC_FLYING;
		r->into = malloc(ROOM);
		r->room = ROOM;
		c.tags[i] = r;
	}
	check(write(fds[1], data, size) == (ssize_t)size, "the socket takes no more");
	close(fds[1]);
	in = (struct input){ .opt = &c.opt, .fd = fds[0] };
	while (!receive(&c, &in))
		;
	connection_down(&c);
	check(c.free_count == TAGS, "a tag was lost, or came back twice");
	for (unsigned i = 0; i < KINDS; i++) {
		unsigned char *into = all[i]->into;

		check(all[i]->state == RPC_DONE, "somebody still waits");
		check_answer(all[i]);
		rpc_end(all[i]);
		free(into);
	}
	waiter_end(&w);
	close(fds[0]);
	return 0;
}
