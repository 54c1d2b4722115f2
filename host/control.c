/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control socket. It is abstract and named after the mount's device number, so fuse-extentctl
 * finds it without touching the mount, and nothing is left behind when the server is killed.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/mountinfo.h"
#include "host/internal.h"
#include "libfuserecover/killpoint.h"

#define STATUS_SIZE 16384
#define BIND_TRIES 500	/* of 10 ms each */

bool lies_on_top(const struct fe_host *h)
{
	struct mount_entry top;

	return !mountinfo_lookup(h->shared->mountpoint, &top) && top.major == h->shared->dev_major &&
	       top.minor == h->shared->dev_minor;
}

int control_open(struct fe_host *h)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;
	socklen_t len;
	struct mount_entry top;
	/* stat(2) on the mount would be a request to ourselves: the mount table tells its device number. */
	int err = mountinfo_lookup(h->shared->mountpoint, &top);

	if (err) {
		fe_log(LOG_WARNING, "%s is not in /proc/self/mountinfo: fuse-extentctl will not find this server",
		       h->shared->mountpoint);
		return 0;
	}
	h->shared->dev_major = top.major;
	h->shared->dev_minor = top.minor;
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
			  (size_t)snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, FE_CONTROL_NAME,
					   top.major, top.minor));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	err = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&addr, len);
	/* The number may be that of a mount whose server is about to end. */
	for (int i = 0; fd >= 0 && err && errno == EADDRINUSE && i < BIND_TRIES; i++) {
		usleep(10000);
		err = bind(fd, (struct sockaddr *)&addr, len);
	}
	if (err || listen(fd, 8)) {
		fe_log(LOG_WARNING, "the control socket: %s; fuse-extentctl will not find this server",
		       strerror(errno));
		return 0;
	}
	fd_put(h, &h->shared->control_fd, fe_steal_fd(&fd));
	return 0;
}

static bool may_ask(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && (!peer.uid || peer.uid == geteuid());
}

static void answer(int fd, const char *error)
{
	char text[256];
	int len = snprintf(text, sizeof(text), error ? "{\"error\":\"%s\"}\n" : "{}\n", error);
	ssize_t n = send(fd, text, (size_t)len, MSG_NOSIGNAL);

	(void)n; /* whoever asked is gone */
}

/* NULL, or why not. */
static const char *upgrade(struct fe_host *h, char *argument)
{
	int err;

	argument[strcspn(argument, "\n")] = 0;
	if (*argument && strncmp(argument, " /", 2))
		return "the new program has to be named by its absolute path";
	if (!h->recovers)
		return "this server runs without a keeper, so nobody can take over";
	if (!(h->root.features & FE_FEAT_ADOPT))
		return "the backend can not be taken over by another program";
	err = fr_upgrade(h->fr, *argument ? argument + 1 : NULL);
	return !err ? NULL : err == -EBUSY ? "an upgrade is under way" : err == -ENOTSUP ?
	       "this program can not be replaced" : strerror(-err);
}

void control_serve(struct fe_host *h)
{
	_cleanup_close_ int fd = accept4(h->shared->control_fd, NULL, NULL, SOCK_CLOEXEC);
	struct timeval limit = { .tv_usec = 200000 };
	_cleanup_free_ char *reply = NULL;
	char command[PATH_MAX + 16];
	ssize_t n;

	if (fd < 0)
		return;
	/* A silent client must not hold the monitor up. */
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	/* First: closing a socket with something unread would take the answer away. */
	n = recv(fd, command, sizeof(command) - 1, 0);
	if (n <= 0)
		return;
	command[n] = 0;
	if (!may_ask(fd)) {
		answer(fd, "permission denied");
		return;
	}
#ifdef FR_KILL_POINTS
	if (!strncmp(command, "kill ", 5) || !strncmp(command, "kill-any ", 9)) {
		uint64_t in = strtoull(strchr(command, ' '), NULL, 10);
		uint64_t now = command[4] == ' ' ? fr_kill_point_in(in) : fr_kill_any_in(in);

		n = snprintf(command, sizeof(command), "%llu\n", (unsigned long long)now);
		n = send(fd, command, (size_t)n, MSG_NOSIGNAL);
		return;
	}
#endif
	if (!strncmp(command, FE_CONTROL_UPGRADE, strlen(FE_CONTROL_UPGRADE))) {
		answer(fd, upgrade(h, command + strlen(FE_CONTROL_UPGRADE)));
		return;
	}
	if (strcmp(command, FE_CONTROL_STATUS)) {
		answer(fd, "unknown command");
		return;
	}
	reply = malloc(STATUS_SIZE);
	n = reply ? fe_host_status(h, reply, STATUS_SIZE) : -1;
	if (n > 0)
		n = send(fd, reply, (size_t)n, MSG_NOSIGNAL);
}
