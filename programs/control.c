/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "host/host.h"
#include "programs/control.h"

#define LIMIT_MS	5000

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static int connect_server(const struct mount_entry *entry)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = LIMIT_MS / 1000 };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int n = snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, FE_CONTROL_NAME, entry->major,
			 entry->minor);
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);

	/* connect() waits where the queue of an unresponsive server is full */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) ||
	    connect(fd, (struct sockaddr *)&addr, len))
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return fe_steal_fd(&fd);
}

/* Abstract names belong to nobody: anyone could have taken it while no server was there. */
static bool is_trusted(int fd, const struct mount_entry *entry)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return false;
	return !peer.uid || peer.uid == geteuid() || peer.uid == entry->owner;
}

static int receive(int fd, char *buf, size_t size)
{
	int64_t end = now_ms() + LIMIT_MS;
	size_t used = 0;

	while (used < size - 1) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = end - now_ms();
		ssize_t n;

		n = poll(&p, 1, left > 0 ? (int)left : 0);
		if (!n)
			return -ETIMEDOUT;
		if (n > 0)
			n = recv(fd, buf + used, size - 1 - used, MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		/* a server that refuses leaves the question unread, which resets the connection */
		if (n < 0 && !(errno == ECONNRESET && used))
			return -errno;
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	buf[used] = 0;
	return used == size - 1 ? -EMSGSIZE : 0;
}

int control_ask(const struct mount_entry *entry, const char *command, char *answer, size_t size)
{
	_cleanup_close_ int fd = connect_server(entry);

	if (fd < 0)
		return fd;
	if (!is_trusted(fd, entry))
		return -EPERM;
	if (send(fd, command, strlen(command), MSG_NOSIGNAL) < 0)
		return -errno;
	return receive(fd, answer, size);
}
