/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Connections are made: by TCP, a socket in the file system, or a command. */
#include "backends/remote/client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define KEEPALIVE_S	20
#define LOOK_MS		200	/* how often it is seen that the client is closed */

uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void client_log(const struct client_options *opt, int level, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	opt->log(opt->arg, level, line);
}

void address_free(struct address *a)
{
	free(a->host);
	free(a->port);
	free(a->path);
	free(a->command);
	free(a->aname);
	free(a->uname);
	*a = (struct address){ 0 };
}

/* 0 when it is ready, -ETIMEDOUT when nothing moved for so long, -ECANCELED where the client is closed. */
static int wait_for(const struct client_options *opt, int fd, short events, uint64_t timeout)
{
	struct pollfd p = { .fd = fd, .events = events };
	uint64_t end = clock_ns() + timeout, now;
	int n;

	while ((now = clock_ns()) < end) {
		uint64_t left = (end - now) / 1000000 + 1;

		if (*opt->closing)
			return -ECANCELED;
		n = poll(&p, 1, left < LOOK_MS ? (int)left : LOOK_MS);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
	return -ETIMEDOUT;
}

int send_all(const struct client_options *opt, int fd, const void *head, size_t head_size, const void *data,
	     size_t data_size)
{
	struct iovec iov[2] = { { (void *)head, head_size }, { (void *)data, data_size } };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = data_size ? 2 : 1 };

	while (m.msg_iovlen) {
		ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			int err = wait_for(opt, fd, POLLOUT, opt->timeout);

			if (err)
				return err;
			continue;
		}
		if (n < 0)
			return -errno;
		while (m.msg_iovlen && (size_t)n >= m.msg_iov->iov_len) {
			n -= (ssize_t)m.msg_iov->iov_len;
			m.msg_iov++;
			m.msg_iovlen--;
		}
		if (m.msg_iovlen) {
			m.msg_iov->iov_base = (char *)m.msg_iov->iov_base + n;
			m.msg_iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

ssize_t receive_some(const struct client_options *opt, int fd, void *buf, size_t size, uint64_t timeout)
{
	for (;;) {
		ssize_t n = recv(fd, buf, size, timeout ? MSG_DONTWAIT : 0);

		if (n > 0)
			return n;
		if (!n)
			return -ECONNRESET;
		if (errno == EAGAIN) {
			int err = wait_for(opt, fd, POLLIN, timeout);

			if (err)
				return err;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
}

static void tune(int fd, uint64_t timeout)
{
	unsigned ms = (unsigned)(timeout / 1000000 < 600000 ? timeout / 1000000 : 600000);
	int one = 1, idle = KEEPALIVE_S, every = KEEPALIVE_S / 4;

	/* A peer that is gone without a word is found out; one that is slow is waited for. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

static int connect_within(const struct client_options *opt, int fd, const struct sockaddr *sa, socklen_t len)
{
	socklen_t size = sizeof(int);
	int err;

	if (!connect(fd, sa, len))
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	err = wait_for(opt, fd, POLLOUT, opt->timeout);
	if (err)
		return err;
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) ? -errno : -err;
}

static int dial_tcp(const struct client_options *opt)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *a;
	int err = getaddrinfo(opt->address.host, opt->address.port, &hints, &list);

	if (err) {
		client_log(opt, LOG_ERR, "%s: %s", opt->address.host, gai_strerror(err));
		return -EHOSTUNREACH;
	}
	err = -EHOSTUNREACH;
	for (a = list; a; a = a->ai_next) {
		_cleanup_close_ int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		err = fd < 0 ? -errno : connect_within(opt, fd, a->ai_addr, a->ai_addrlen);
		if (err)
			continue;
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
		tune(fd, opt->timeout);
		err = fe_steal_fd(&fd);
		break;
	}
	freeaddrinfo(list);
	return err;
}

static int dial_unix(const struct client_options *opt)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(opt->address.path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	strcpy(sa.sun_path, opt->address.path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return -errno;
	return fe_steal_fd(&fd);
}

extern char **environ;

static int dial_command(const struct client_options *opt, pid_t *child)
{
	char *argv[] = { (char *)"sh", (char *)"-c", opt->address.command, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int fds[2], err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 0);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
	/* The thread that connects again has all signals blocked, and would hand that down. */
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	err = -posix_spawn(child, "/bin/sh", &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	if (!err)
		return fds[0];
	close(fds[0]);
	*child = 0;
	return err;
}

int dial(const struct client_options *opt, pid_t *child)
{
	*child = 0;
	if (opt->address.command)
		return dial_command(opt, child);
	return opt->address.path ? dial_unix(opt) : dial_tcp(opt);
}

/* One message and its reply, alone on the connection. The body of the reply is in `in`. */
static int exchange(const struct client_options *opt, int fd, struct p9_out *o, uint8_t type, uint16_t tag,
		    unsigned char *buf, size_t size, struct p9_in *in)
{
	size_t want = P9_HEADER, have = 0, len = p9_end(o, tag, 0);
	int err = len ? send_all(opt, fd, o->base, len, NULL, 0) : -ENAMETOOLONG;

	while (!err && have < want) {
		ssize_t n = receive_some(opt, fd, buf + have, want - have, opt->timeout);

		if (n < 0)
			return (int)n;
		have += (size_t)n;
		if (have < P9_HEADER || want > P9_HEADER)
			continue;
		*in = (struct p9_in){ .at = buf, .left = have };
		want = p9_get32(in);
		if (want < P9_HEADER || want > size)
			return -EPROTO;
	}
	if (err)
		return err;
	*in = (struct p9_in){ .at = buf, .left = have };
	p9_get32(in);
	type++;
	if (p9_get8(in) != type) {
		if (!p9_is_error(buf[4]))
			return -EPROTO;
		p9_get16(in);
		return p9_read_error(in);
	}
	return p9_get16(in) == tag ? 0 : -EPROTO;
}

int client_handshake(const struct client_options *opt, int fd, uint32_t *msize, struct p9_attr *root)
{
	unsigned char out[MESSAGE_MAX * 2], buf[512];
	struct p9_out o;
	struct p9_in in;
	const char *version;
	uint16_t len;
	int err;

	p9_begin(&o, out, sizeof(out), P9_TVERSION);
	p9_put32(&o, opt->msize);
	p9_putstr(&o, P9_VERSION);
	err = exchange(opt, fd, &o, P9_TVERSION, P9_NOTAG, buf, sizeof(buf), &in);
	if (err)
		return err;
	*msize = p9_get32(&in);
	version = p9_getstr(&in, &len);
	if (in.bad || *msize < P9_MSIZE_MIN || *msize > opt->msize || len != strlen(P9_VERSION) ||
	    memcmp(version, P9_VERSION, len))
		return -EPROTONOSUPPORT;
	p9_begin(&o, out, sizeof(out), P9_TATTACH);
	p9_put32(&o, ROOT_FID);
	p9_put32(&o, P9_NOFID);
	p9_putstr(&o, opt->address.uname ? opt->address.uname : "");
	p9_putstr(&o, opt->address.aname);
	p9_put32(&o, opt->uid);
	err = exchange(opt, fd, &o, P9_TATTACH, 0, buf, sizeof(buf), &in);
	if (err)
		return err;
	p9_begin(&o, out, sizeof(out), P9_TGETATTR);
	p9_put32(&o, ROOT_FID);
	p9_put64(&o, P9_GETATTR_BASIC);
	err = exchange(opt, fd, &o, P9_TGETATTR, 0, buf, sizeof(buf), &in);
	if (err)
		return err;
	return p9_read_attr(&in, root) || !(root->qid.type & P9_QTDIR) ? -EPROTO : 0;
}
