/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The 9P client's way of reading what a server says, and what it is given on the command line. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "backends/remote/options.h"
#include "backends/remote/protocol.h"
#include "base/cleanup.h"
#include "unit.h"

static unsigned char buf[4096];

static struct p9_in reading(const struct p9_out *o)
{
	return (struct p9_in){ .at = o->base + P9_HEADER, .left = (size_t)(o->at - o->base) - P9_HEADER };
}

static void put_qid(struct p9_out *o, uint8_t type, uint64_t path)
{
	p9_put8(o, type);
	p9_put32(o, 1);
	p9_put64(o, path);
}

static struct p9_out attr_message(uint32_t mode, uint8_t type, uint64_t size, uint64_t valid)
{
	struct p9_out o;

	p9_begin(&o, buf, sizeof(buf), P9_TGETATTR + 1);
	p9_put64(&o, valid);
	put_qid(&o, type, 77);
	p9_put32(&o, mode);
	p9_put32(&o, 1000);
	p9_put32(&o, 1001);
	for (int i = 0; i < 15; i++)
		p9_put64(&o, i == 2 ? size : (uint64_t)i);
	return o;
}

START_TEST(message_has_size_type_and_tag)
{
	static const unsigned char expected[] = { 19, 0, 0, 0, P9_TWALK, 0x34, 0x12, 2, 0, 0, 0, 3, 0, 'a', 'b', 'c', 9,
						  0xff, 0xff };
	struct p9_out o;

	p9_begin(&o, buf, sizeof(buf), P9_TWALK);
	p9_put32(&o, 2);
	p9_putstr(&o, "abc");
	p9_put8(&o, 9);
	p9_put16(&o, 0xffff);
	ck_assert_uint_eq(p9_end(&o, 0x1234, 0), sizeof(expected));
	ck_assert_mem_eq(buf, expected, sizeof(expected));
	ck_assert_uint_eq(p9_end(&o, 0x1234, 300), sizeof(expected));
	ck_assert_uint_eq(buf[0] | buf[1] << 8, sizeof(expected) + 300);
}
END_TEST

START_TEST(message_that_does_not_fit_is_none)
{
	struct p9_out o;

	for (size_t room = P9_HEADER; room < P9_HEADER + 9; room++) {
		p9_begin(&o, buf, room, P9_TWALK);
		p9_put32(&o, 2);
		p9_putstr(&o, "abc");
		ck_assert(o.over);
		ck_assert_uint_eq(p9_end(&o, 1, 0), 0);
	}
}
END_TEST

START_TEST(attributes_are_read_whole_or_not)
{
	struct p9_out o = attr_message(S_IFREG | 0644, 0, 1234, P9_GETATTR_BASIC);
	struct p9_in in = reading(&o);
	struct p9_attr a;
	struct statx st;

	ck_assert_int_eq(p9_read_attr(&in, &a), 0);
	ck_assert_int_eq(p9_fill_statx(&a, &st), 0);
	ck_assert_uint_eq(st.stx_ino, 77);
	ck_assert_uint_eq(st.stx_size, 1234);
	ck_assert_uint_eq(st.stx_uid, 1000);
	ck_assert_uint_eq(st.stx_mode, S_IFREG | 0644);
	for (size_t left = 0; left < (size_t)(o.at - o.base) - P9_HEADER; left++) {
		in = (struct p9_in){ .at = o.base + P9_HEADER, .left = left };
		ck_assert_int_eq(p9_read_attr(&in, &a), -EIO);
	}
	p9_put8(&o, 0);
	in = reading(&o);
	ck_assert_int_eq(p9_read_attr(&in, &a), -EIO);
}
END_TEST

START_TEST(attributes_that_can_not_be_are_refused)
{
	static const struct {
		uint32_t mode;
		uint8_t type;
		uint64_t size, valid;
	} bad[] = {
		{ S_IFDIR | 0755, 0, 0, P9_GETATTR_BASIC },
		{ S_IFREG | 0644, P9_QTDIR, 0, P9_GETATTR_BASIC },
		{ 0644, 0, 0, P9_GETATTR_BASIC },
		{ S_IFREG, 0, 1ull << 63, P9_GETATTR_BASIC },
		{ S_IFREG, 0, 0, 1 },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct p9_out o = attr_message(bad[i].mode, bad[i].type, bad[i].size, bad[i].valid);
		struct p9_in in = reading(&o);
		struct p9_attr a;
		struct statx st;
		int err = p9_read_attr(&in, &a);

		ck_assert_int_eq(err ? err : p9_fill_statx(&a, &st), -EIO);
	}
}
END_TEST

START_TEST(errors_are_errors)
{
	static const struct {
		uint32_t code;
		int error;
	} cases[] = {
		{ ENOENT, -ENOENT }, { 0, -EIO }, { 512, -EIO }, { 0x80000000, -EIO }, { 0xffffffff, -EIO },
		{ ENOSYS, -EOPNOTSUPP }, { 511, -511 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct p9_out o;
		struct p9_in in;

		p9_begin(&o, buf, sizeof(buf), P9_RLERROR);
		p9_put32(&o, cases[i].code);
		in = reading(&o);
		ck_assert_int_eq(p9_read_error(&in), cases[i].error);
	}
}
END_TEST

static int read_one_name(const char *name, size_t len, uint64_t offset)
{
	struct p9_dirent d;
	struct p9_out o;
	struct p9_in in;

	p9_begin(&o, buf, sizeof(buf), P9_TREADDIR + 1);
	put_qid(&o, 0, 1);
	p9_put64(&o, offset);
	p9_put8(&o, 8);
	p9_put16(&o, (uint16_t)len);
	for (size_t i = 0; i < len; i++)
		p9_put8(&o, (uint8_t)name[i]);
	in = reading(&o);
	return p9_read_dirent(&in, &d);
}

START_TEST(names_lead_nowhere_else)
{
	char longest[P9_NAME_MAX + 2];

	memset(longest, 'x', sizeof(longest));
	ck_assert_int_eq(read_one_name("name", 4, 1), 1);
	ck_assert_int_eq(read_one_name(longest, P9_NAME_MAX, 1), 1);
	ck_assert_int_eq(read_one_name(longest, P9_NAME_MAX + 1, 1), -EIO);
	ck_assert_int_eq(read_one_name("", 0, 1), -EIO);
	ck_assert_int_eq(read_one_name("a/b", 3, 1), -EIO);
	ck_assert_int_eq(read_one_name("a\0b", 3, 1), -EIO);
	ck_assert_int_eq(read_one_name("name", 4, 0), -EIO);
}
END_TEST

START_TEST(flags_are_those_of_the_protocol)
{
	ck_assert_uint_eq(p9_open_flags(O_RDWR | O_TRUNC | O_APPEND | O_DIRECT | O_CLOEXEC),
			  O_RDWR | P9_O_LARGEFILE | P9_O_TRUNC);
	ck_assert_uint_eq(p9_open_flags(O_WRONLY | O_SYNC), O_WRONLY | P9_O_LARGEFILE | P9_O_SYNC | P9_O_DSYNC);
}
END_TEST

START_TEST(addresses)
{
	static const struct {
		const char *text, *command, *host, *port, *path, *aname;
	} good[] = {
		{ "9p://server/srv", NULL, "server", "564", NULL, "/srv" },
		{ "9p://server:5640/srv/a:b", NULL, "server", "5640", NULL, "/srv/a:b" },
		{ "9p://[fe80::1]:5/", NULL, "fe80::1", "5", NULL, "/" },
		{ "9p://[::1]/x", NULL, "::1", "564", NULL, "/x" },
		{ "9p+unix:/run/a:b:/srv", NULL, NULL, NULL, "/run/a:b", "/srv" },
		{ "9p:/srv", "ssh host diod", NULL, NULL, NULL, "/srv" },
	};
	static const char *const bad[] = {
		"9p://host:99999/srv", "9p://host:0/srv", "9p://host:56x/srv", "9p://host:-1/srv",
		"", "9p://", "9p://host", "9p:///srv", "9p://host:/srv", "9p://[::1", "9p://[::1]x/srv", "9p:/srv",
		"9p+unix:/run/a", "9p+unix::/srv", "nfs://host/srv",
	};
	struct address a;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		ck_assert_int_eq(address_parse(good[i].text, good[i].command, &a), 0);
		ck_assert_pstr_eq(a.host, good[i].host);
		ck_assert_pstr_eq(a.port, good[i].port);
		ck_assert_pstr_eq(a.path, good[i].path);
		ck_assert_pstr_eq(a.aname, good[i].aname);
		ck_assert_pstr_eq(a.command, good[i].command);
		address_free(&a);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_int_eq(address_parse(bad[i], NULL, &a), -EINVAL);
}
END_TEST

START_TEST(options)
{
	static const char *const bad[] = { "sof", "msize=4095", "msize=1048577", "msize=", "timeout=0", "uid=-1", "fids=63",
					   "fids=1x", "command=", "access=me", "locks=all" };
	struct remote_options o = { .msize = 1 };

	ck_assert_int_eq(remote_options_parse("soft,access=user,acl,locks=source,msize=8192,timeout=3,fids=64,uid=7,uname=me,"
					      "command=ssh host x=y", &o), 0);
	ck_assert(o.soft && o.per_user && o.acl && o.source_locks);
	ck_assert_uint_eq(o.msize, 8192);
	ck_assert_uint_eq(o.timeout, 3000000000u);
	ck_assert_uint_eq(o.fids, 64);
	ck_assert_uint_eq(o.uid, 7);
	ck_assert_str_eq(o.uname, "me");
	ck_assert_str_eq(o.command, "ssh host x=y");
	remote_options_free(&o);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_int_eq(remote_options_parse(bad[i], &o), -EINVAL);
		ck_assert_str_eq(o.unknown, bad[i]);
		remote_options_free(&o);
	}
}
END_TEST

/* ---- a server that takes requests back, and answers nothing else ---- */

#define PATIENCE 10000000000u	/* ns; for what hangs */

static void say(int fd, struct p9_out *o, uint16_t tag)
{
	/* The client may have closed its side. */
	send(fd, o->base, p9_end(o, tag, 0), MSG_NOSIGNAL);
}

static void answer(int fd, uint8_t type, uint16_t tag)
{
	struct p9_out o;

	p9_begin(&o, buf, sizeof(buf), (uint8_t)(type + 1));
	if (type == P9_TVERSION) {
		p9_put32(&o, P9_MSIZE_MIN);
		p9_putstr(&o, P9_VERSION);
	} else if (type == P9_TATTACH) {
		put_qid(&o, P9_QTDIR, 77);
	} else if (type == P9_TGETATTR) {
		o = attr_message(S_IFDIR | 0755, P9_QTDIR, 0, P9_GETATTR_BASIC);
	}
	say(fd, &o, tag);
}

struct server {
	int listener;
	_Atomic int fd;		/* of the connection */
	_Atomic bool mute;	/* answers nothing by itself any more */
};

static void *takes_back(void *arg)
{
	struct server *s = arg;
	int fd = accept(s->listener, NULL, NULL);
	unsigned char message[MESSAGE_MAX * 2];

	s->fd = fd;
	while (recv(fd, message, 4, MSG_WAITALL) == 4) {
		struct p9_in in = { .at = message, .left = sizeof(message) };
		size_t size = p9_get32(&in);
		uint8_t type;

		ck_assert(size >= P9_HEADER && size <= sizeof(message));
		ck_assert_int_eq(recv(fd, message + 4, size - 4, MSG_WAITALL), (ssize_t)size - 4);
		type = p9_get8(&in);
		if (s->mute)
			continue;
		if (type == P9_TFLUSH || type == P9_TVERSION || type == P9_TATTACH || type == P9_TGETATTR)
			answer(fd, type, p9_get16(&in));
	}
	close(fd);
	return NULL;
}

static void no_line(void *arg, int level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

static void keep_none(void *arg, int fd)
{
	(void)arg;
	(void)fd;
}

static void not_busy(void *arg, bool now)
{
	(void)arg;
	(void)now;
}

static int listen_at(char *dir, struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	ck_assert_ptr_nonnull(mkdtemp(dir));
	sa->sun_family = AF_UNIX;
	snprintf(sa->sun_path, sizeof(sa->sun_path), "%s/socket", dir);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)sa, sizeof(*sa)), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

static char socket_dir[32], aname[] = "/";
static struct sockaddr_un address;
static struct server server;
static pthread_t server_thread;
static struct client_shared shared;
static struct client c;

static void client_prepare(void)
{
	struct client_options opt = { .address = { .path = address.sun_path, .aname = aname }, .msize = P9_MSIZE_MAX,
				      .timeout = PATIENCE, .log = no_line };

	shared.fd = -1;
	c.shared = &shared;
	c.keep = keep_none;
	c.busy = not_busy;
	client_init(&c, &opt);
}

/* Returns the epoch of its round. */
static uint32_t client_begin(struct waiter *w)
{
	uint32_t epoch;
	int err;

	strcpy(socket_dir, "/tmp/fuse-extent-unit.XXXXXX");
	server.listener = listen_at(socket_dir, &address);
	client_prepare();
	ck_assert_int_eq(pthread_create(&server_thread, NULL, takes_back, &server), 0);
	ck_assert_int_eq(client_start(&c), 0);
	waiter_begin(w, &c, 0);
	epoch = client_round(w, false, &err);
	ck_assert_int_eq(err, 0);
	return epoch;
}

static void client_end(struct waiter *w)
{
	client_round_end(w);
	waiter_end(w);
	client_close(&c);
	pthread_join(server_thread, NULL);
	close(server.listener);
	unlink(address.sun_path);
	rmdir(socket_dir);
}

START_TEST(requests_that_are_taken_back_use_nothing_up)
{
	struct waiter w;
	uint32_t epoch = client_begin(&w);

	for (unsigned i = 0; i < 3 * TAGS; i++) {
		struct rpc *r = rpc_new(&w, P9_TCLUNK);

		p9_put32(&r->out, 1);
		w.deadline = clock_ns() + PATIENCE;
		ck_assert_msg(!rpc_send(r, epoch), "no tag is left after %u requests", i);
		w.deadline = 1;
		ck_assert_int_eq(rpc_wait(r), -ETIMEDOUT);
		rpc_end(r);
	}
	client_end(&w);
}
END_TEST

static struct rpc *of_tag(uint16_t tag)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c.lock);

	return c.tags[tag];
}

static enum rpc_state state_of(const struct rpc *r)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c.lock);

	return r->state;
}

static _Atomic bool gave_up;

static void *waits_in_vain(void *arg)
{
	struct rpc *r = arg;

	ck_assert_int_eq(rpc_wait(r), -ETIMEDOUT);
	gave_up = true;
	rpc_end(r);
	return NULL;
}

/* The server says that it took a request back, before it is asked to, and then answers it none the less. */
START_TEST(answer_that_arrives_is_not_taken_back)
{
	static const unsigned char rest[4];
	struct waiter w;
	uint32_t epoch = client_begin(&w);
	struct rpc *r = rpc_new(&w, P9_TCLUNK);
	pthread_t caller;
	struct p9_out o;
	uint16_t tag;

	p9_put32(&r->out, 1);
	ck_assert_int_eq(rpc_send(r, epoch), 0);
	tag = r->tag;
	w.deadline = 1;
	server.mute = true;
	pthread_mutex_lock(&c.send_lock);
	ck_assert_int_eq(pthread_create(&caller, NULL, waits_in_vain, r), 0);
	while (!of_tag(tag + 1))
		usleep(1000);
	answer(server.fd, P9_TFLUSH, tag + 1);
	while (of_tag(tag + 1))
		usleep(1000);
	p9_begin(&o, buf, sizeof(buf), P9_TCLUNK + 1);
	ck_assert_int_eq(send(server.fd, buf, p9_end(&o, tag, sizeof(rest)), MSG_NOSIGNAL), P9_HEADER);
	while (state_of(r) != RPC_ARRIVING)
		usleep(1000);
	pthread_mutex_unlock(&c.send_lock);
	while (!gave_up)
		usleep(1000);
	ck_assert_ptr_eq(of_tag(tag), r);
	ck_assert_int_eq(send(server.fd, rest, sizeof(rest), MSG_NOSIGNAL), sizeof(rest));
	pthread_join(caller, NULL);
	ck_assert_uint_eq(c.free_count, TAGS);
	client_end(&w);
}
END_TEST

struct sending {
	struct rpc *r;
	uint32_t epoch;
};

static void *sends(void *arg)
{
	struct sending *s = arg;

	ck_assert_int_eq(rpc_send(s->r, s->epoch), 0);
	return NULL;
}

/* Who sends sleeps until the next connection is there, which nobody may use yet. */
START_TEST(request_of_a_lost_connection_is_not_sent_on_the_next)
{
	int lost[2], next[2];
	struct sending s = { .epoch = 1 };
	pthread_t caller;
	struct waiter w;
	char byte;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, lost), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, next), 0);
	client_prepare();
	c.fd = lost[0];
	c.up = true;
	c.epoch = s.epoch;
	waiter_begin(&w, &c, 0);
	s.r = rpc_new(&w, P9_TCLUNK);
	p9_put32(&s.r->out, 1);
	pthread_mutex_lock(&c.send_lock);
	ck_assert_int_eq(pthread_create(&caller, NULL, sends, &s), 0);
	while (!of_tag(0))
		usleep(1000);
	pthread_mutex_lock(&c.lock);
	c.up = false;
	rpc_over(&c, s.r, LOST);
	pthread_mutex_unlock(&c.lock);
	c.fd = next[0];
	pthread_mutex_unlock(&c.send_lock);
	pthread_join(caller, NULL);
	ck_assert_int_eq(recv(next[1], &byte, 1, MSG_DONTWAIT), -1);
	ck_assert_int_eq(rpc_wait(s.r), LOST);
	rpc_end(s.r);
	waiter_end(&w);
	for (int i = 0; i < 2; i++) {
		close(lost[i]);
		close(next[i]);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		message_has_size_type_and_tag, message_that_does_not_fit_is_none, attributes_are_read_whole_or_not,
		attributes_that_can_not_be_are_refused, errors_are_errors, names_lead_nowhere_else,
		flags_are_those_of_the_protocol, addresses, options, requests_that_are_taken_back_use_nothing_up,
		answer_that_arrives_is_not_taken_back, request_of_a_lost_connection_is_not_sent_on_the_next, NULL,
	};

	return unit_run("remote", tests, NULL, NULL);
}
