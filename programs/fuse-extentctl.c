/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse-extentctl status MOUNTPOINT [--json]: asks a running fuse-extent how it is. */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "host/host.h"
#include "programs/mountinfo.h"
#include "programs/statustext.h"

#define FSTYPE		"fuse.fuse-extent"
#define LIMIT_MS	5000
#define ANSWER_MAX	(1 << 20)

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

__attribute__((format(printf, 1, 2))) static int fail(const char *fmt, ...)
{
	va_list ap;

	fputs("fuse-extentctl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EXIT_FAILED;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static int find_in_table(const char *path, struct mount_entry *entry)
{
	FILE *table = fopen("/proc/self/mountinfo", "re");
	int err;

	if (!table)
		return -errno;
	err = mountinfo_find(table, path, entry);
	fclose(table);
	return err;
}

static int find_mount(const char *given, struct mount_entry *entry)
{
	_cleanup_free_ char *path = mountpoint_path(given);
	_cleanup_free_ char *resolved = NULL;
	int err;

	if (!path)
		return fail("%s: %s", given, strerror(errno));
	err = find_in_table(path, entry);
	if (err == -ENOENT) {
		/* It is no mountpoint, so it may be looked at: perhaps it is a symlink to one. */
		resolved = realpath(path, NULL);
		if (resolved && strcmp(resolved, path))
			err = find_in_table(resolved, entry);
	}
	if (err == -ENOENT)
		return fail("%s: nothing is mounted there; the path must be the mountpoint itself", path);
	if (err)
		return fail("/proc/self/mountinfo: %s", strerror(-err));
	if (strcmp(entry->fstype, FSTYPE))
		return fail("%s: mounted, but not by fuse-extent (its type is %s)", path, entry->fstype);
	return EXIT_OK;
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
		return -errno;
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

/* What comes until the end of the stream, terminated. */
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

static int ask(const char *mountpoint, const struct mount_entry *entry, char *answer)
{
	static const char command[] = FE_CONTROL_STATUS;
	_cleanup_close_ int fd = connect_server(entry);
	int err;

	if (fd == -ECONNREFUSED)
		return fail("%s: no server listens; it has ended, or runs in another network namespace",
			    mountpoint);
	if (fd == -EAGAIN)
		return fail("%s: the server does not answer", mountpoint);
	if (fd < 0)
		return fail("%s: connecting to the server: %s", mountpoint, strerror(-fd));
	if (!is_trusted(fd, entry))
		return fail("%s: what listens in the server's place runs as another user; not asked", mountpoint);
	if (send(fd, command, sizeof(command) - 1, MSG_NOSIGNAL) < 0)
		return fail("%s: asking the server: %s", mountpoint, strerror(errno));
	err = receive(fd, answer, ANSWER_MAX);
	if (err == -ETIMEDOUT)
		return fail("%s: the server does not answer", mountpoint);
	if (err)
		return fail("%s: reading the answer: %s", mountpoint, strerror(-err));
	return EXIT_OK;
}

static int print_answer(const char *mountpoint, const char *answer, bool json)
{
	struct json_object *status = json_tokener_parse(answer);
	struct json_object *error;
	int result = EXIT_OK;

	if (!json_object_is_type(status, json_type_object))
		result = fail("%s: the server's answer can not be read", mountpoint);
	else if (json_object_object_get_ex(status, "error", &error))
		result = fail("%s: the server refuses: %s", mountpoint, json_object_get_string(error));
	else if (json)
		fputs(answer, stdout);
	else
		status_print(stdout, status);
	json_object_put(status);
	if (fflush(stdout))
		return fail("writing: %s", strerror(errno));
	return result;
}

static int show_status(const char *mountpoint, bool json)
{
	_cleanup_free_ char *answer = malloc(ANSWER_MAX);
	struct mount_entry entry = { 0 };
	int result;

	if (!answer)
		return fail("out of memory");
	result = find_mount(mountpoint, &entry);
	if (!result)
		result = ask(mountpoint, &entry, answer);
	if (!result)
		result = print_answer(mountpoint, answer, json);
	return result;
}

static void print_usage(FILE *f)
{
	fputs("usage: fuse-extentctl status MOUNTPOINT [--json]\n\n"
	      "  status       what the server of MOUNTPOINT does; --json for scripts\n"
	      "  -h, --help, -V, --version\n", f);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "hV", options, NULL)) >= 0) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'h':
			print_usage(stdout);
			return fflush(stdout) ? EXIT_FAILED : EXIT_OK;
		case 'V':
			printf("fuse-extentctl " PACKAGE_VERSION "\n");
			return fflush(stdout) ? EXIT_FAILED : EXIT_OK;
		default:
			print_usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (argc - optind != 2 || strcmp(argv[optind], "status")) {
		print_usage(stderr);
		return EXIT_USAGE;
	}
	return show_status(argv[optind + 1], json);
}
