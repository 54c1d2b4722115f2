/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * splice [--total MIB] DIRECTORY...
 * How data of a 9P server come into a temporary file: messages of a few sizes arrive by TCP on loopback, and
 * what is behind their 11 bytes of header goes to an unlinked file in DIRECTORY, once by recv(2) and
 * pwrite(2), once by splice(2) through a pipe. Five rounds of each in turn; the median is printed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 11, ROUNDS = 5, FILE_SIZE = 64 << 20 };

static size_t total = (size_t)1 << 30;

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "splice: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void send_messages(int fd, size_t payload)
{
	size_t size = HEADER + payload;
	char *message = malloc(size);

	if (!message)
		die("malloc");
	memset(message, 'x', size);
	for (size_t sent = 0; sent < total; sent += payload)
		for (size_t at = 0; at < size;) {
			ssize_t n = write(fd, message + at, size - at);

			if (n < 0)
				die("write");
			at += (size_t)n;
		}
	_exit(0);
}

/* A connected socket that messages come from. */
static int sender(size_t payload, pid_t *pid)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int from = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(a);
	int fd;

	if (from < 0 || to < 0 || bind(from, (void *)&a, len) || listen(from, 1) ||
	    getsockname(from, (void *)&a, &len) || connect(to, (void *)&a, len) || (fd = accept(from, NULL, NULL)) < 0)
		die("a connection on loopback");
	close(from);
	*pid = fork();
	if (*pid < 0)
		die("fork");
	if (!*pid)
		send_messages(to, payload);
	close(to);
	return fd;
}

static void receive(int fd, void *buf, size_t size)
{
	if (recv(fd, buf, size, MSG_WAITALL) != (ssize_t)size)
		die("recv");
}

static void by_read(int sock, int file, size_t payload, off_t at, char *buf)
{
	receive(sock, buf, payload);
	if (pwrite(file, buf, payload, at) != (ssize_t)payload)
		die("pwrite");
}

static void by_splice(int sock, int file, size_t payload, off_t at, const int *pipes)
{
	while (payload) {
		ssize_t n = splice(sock, NULL, pipes[1], NULL, payload, SPLICE_F_MOVE);

		if (n <= 0)
			die("splice from the socket");
		payload -= (size_t)n;
		while (n) {
			ssize_t m = splice(pipes[0], NULL, file, &at, (size_t)n, SPLICE_F_MOVE);

			if (m <= 0)
				die("splice to the file");
			n -= m;
		}
	}
}

struct result {
	double rate;	/* MB/s */
	double cpu;	/* of who receives, seconds for each GB */
};

static struct result once(const char *dir, size_t payload, bool spliced)
{
	int file = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), pipes[2], sock, status;
	char header[HEADER], *buf = malloc(payload);
	double wall, cpu;
	pid_t pid;

	if (file < 0)
		die(dir);
	if (!buf || pipe2(pipes, O_CLOEXEC) || fcntl(pipes[1], F_SETPIPE_SZ, 1 << 20) < 0)
		die("a pipe of 1 MiB");
	sock = sender(payload, &pid);
	wall = now(CLOCK_MONOTONIC);
	cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	for (size_t got = 0; got < total; got += payload) {
		off_t at = (off_t)(got % FILE_SIZE);

		receive(sock, header, HEADER);
		if (spliced)
			by_splice(sock, file, payload, at, pipes);
		else
			by_read(sock, file, payload, at, buf);
	}
	wall = now(CLOCK_MONOTONIC) - wall;
	cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	waitpid(pid, &status, 0);
	close(sock);
	close(file);
	close(pipes[0]);
	close(pipes[1]);
	free(buf);
	return (struct result){ .rate = (double)total / 1e6 / wall, .cpu = cpu * 1e9 / (double)total };
}

static int by_rate(const void *a, const void *b)
{
	const struct result *x = a, *y = b;

	return (x->rate > y->rate) - (x->rate < y->rate);
}

static void compare(const char *dir, size_t payload)
{
	struct result r[2][ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		for (int how = 0; how < 2; how++)
			r[how][i] = once(dir, payload, how);
	for (int how = 0; how < 2; how++)
		qsort(r[how], ROUNDS, sizeof(r[how][0]), by_rate);
	printf("%-24s %8zu  %8.0f %6.2f  %8.0f %6.2f  %6.2f\n", dir, payload, r[0][ROUNDS / 2].rate,
	       r[0][ROUNDS / 2].cpu, r[1][ROUNDS / 2].rate, r[1][ROUNDS / 2].cpu,
	       r[1][ROUNDS / 2].rate / r[0][ROUNDS / 2].rate);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const size_t payloads[] = { 8192, 65504, 1048552 };
	int first = 1;

	if (argc > 2 && !strcmp(argv[1], "--total")) {
		total = (size_t)strtoul(argv[2], NULL, 0) << 20;
		first = 3;
	}
	if (argc <= first || !total) {
		fprintf(stderr, "usage: splice [--total MIB] DIRECTORY...\n");
		return 2;
	}
	printf("%-24s %8s  %8s %6s  %8s %6s  %6s\n", "directory", "bytes", "read", "", "splice", "", "");
	printf("%-24s %8s  %8s %6s  %8s %6s  %6s\n", "", "each", "MB/s", "s/GB", "MB/s", "s/GB", "ratio");
	for (int i = first; i < argc; i++)
		for (size_t k = 0; k < sizeof(payloads) / sizeof(*payloads); k++)
			compare(argv[i], payloads[k]);
	return 0;
}
