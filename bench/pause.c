/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pause [--kills N] [--clients N] [--interval MS] MOUNTPOINT FILE..
 * How long clients wait when the process that serves a mount is killed. Each client asks for the
 * attributes of the FILEs again and again, past the kernel's cache. After each SIGKILL of the worker
 * the first answer behind the longest silence counts. Prints a line for each kill: the time from the
 * kill to that answer in microseconds, and at the start the machine's own time for fork and exit.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host/host.h"
#include "programs/control.h"

enum { MAX_CLIENTS = 64, SETTLE_MS = 40 };

static struct shared {
	_Atomic uint32_t epoch;
	_Atomic int failed;
	struct {
		_Atomic uint64_t gap, end, done;
		char pad[64];
	} client[MAX_CLIENTS];
} *shared;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "pause: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void client(int me, char **files, int count)
{
	uint32_t epoch = 0;
	uint64_t last = now_ns(), longest = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned i = (unsigned)me;; i++) {
		struct statx st;
		uint64_t now;

		if (statx(AT_FDCWD, files[i % (unsigned)count], AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st)) {
			fprintf(stderr, "pause: a client saw: %s\n", strerror(errno));
			atomic_store(&shared->failed, 1);
			_exit(1);
		}
		now = now_ns();
		if (atomic_load(&shared->epoch) != epoch) {
			epoch = atomic_load(&shared->epoch);
			longest = 0;
		}
		if (now - last > longest) {
			longest = now - last;
			atomic_store(&shared->client[me].gap, longest);
			atomic_store(&shared->client[me].end, now);
		}
		last = now;
		atomic_fetch_add(&shared->client[me].done, 1);
	}
}

static pid_t worker_pid(const struct mount_entry *mounted)
{
	static const char key[] = "\"worker_pid\":";
	char status[16384] = "";
	const char *at;

	if (control_ask(mounted, FE_CONTROL_STATUS, status, sizeof(status)))
		return 0;
	at = strstr(status, key);
	return at ? atoi(at + sizeof(key) - 1) : 0;
}

static void fork_and_exit(void)
{
	enum { ROUNDS = 200 };
	uint64_t start = now_ns();

	for (int i = 0; i < ROUNDS; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		if (pid < 0 || waitpid(pid, NULL, 0) < 0)
			die("fork");
	}
	printf("fork %.1f\n", (double)(now_ns() - start) / ROUNDS / 1000);
}

static int one_kill(const struct mount_entry *mounted, int clients)
{
	uint64_t start, first = UINT64_MAX;
	pid_t pid = worker_pid(mounted);

	if (!pid)
		return 1;
	atomic_fetch_add(&shared->epoch, 1);
	start = now_ns();
	if (kill(pid, SIGKILL))
		return 1;
	usleep(SETTLE_MS * 1000);
	for (int i = 0; i < clients; i++) {
		uint64_t end = atomic_load(&shared->client[i].end);

		if (end > start && end < first)
			first = end;
	}
	if (first != UINT64_MAX)
		printf("pause %.1f\n", (double)(first - start) / 1000);
	else
		printf("pause %.1f\n", (double)SETTLE_MS * 1000);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "kills", 1, NULL, 'k' }, { "clients", 1, NULL, 'c' }, { "interval", 1, NULL, 'i' }, { 0 },
	};
	int kills = 300, clients = 4, interval = 20, c;
	pid_t pids[MAX_CLIENTS];
	struct mount_entry mounted;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'k')
			kills = atoi(optarg);
		else if (c == 'c')
			clients = atoi(optarg);
		else if (c == 'i')
			interval = atoi(optarg);
	}
	if (argc - optind < 2 || clients < 1 || clients > MAX_CLIENTS) {
		fprintf(stderr, "usage: pause [--kills N] [--clients N] [--interval MS] MOUNTPOINT FILE..\n");
		return 2;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	if (mountinfo_lookup(argv[optind], &mounted)) {
		fprintf(stderr, "pause: %s is not mounted\n", argv[optind]);
		return 1;
	}
	fork_and_exit();
	for (int i = 0; i < clients; i++) {
		pids[i] = fork();
		if (!pids[i])
			client(i, argv + optind + 1, argc - optind - 1);
	}
	usleep(100000);
	for (int i = 0; i < kills && !atomic_load(&shared->failed); ) {
		i += !one_kill(&mounted, clients);
		usleep((useconds_t)interval * 1000);
	}
	for (int i = 0; i < clients; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	return atomic_load(&shared->failed);
}
