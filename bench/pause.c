/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pause [--kills N] [--clients N] [--interval MS] [--private KIB] [--shared KIB] MOUNTPOINT FILE..
 *
 * How long clients wait when the process that serves a mount is killed. Each client asks for the
 * attributes of the FILEs again and again, past the kernel's cache; who kills asks once, at once.
 *
 * What a pause is: from the call of kill(2) to the first answer to a request that was made after
 * kill(2) had returned. All threads of the worker have the signal by then, so none gets from reading
 * a request to answering it: only the successor can have answered. Of requests that were under way at
 * the kill this can not be told, so they end no pause; they count in the longest wait of any client.
 *
 * Prints a line of JSON with the machine's time for fork and exit, of this process and of one that
 * has KIB resident, then one for each kill.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
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

enum { MAX_CLIENTS = 64, ANSWER_MS = 10000, WARM_MS = 200, SETTLE_MS = 5 };

struct options {
	unsigned kills, clients, interval;
	size_t private_kib, shared_kib;
	char **files;
	unsigned count;
};

/* Of one kill, by each client and, behind them, by who kills; of 0 nothing has happened yet. */
struct seen {
	_Atomic uint64_t first;		/* end of its first request that was made after the kill */
	_Atomic uint64_t longest;	/* of that one and of what was under way at the kill */
};

static struct shared {
	_Atomic uint32_t kill;		/* number of the present one */
	_Atomic uint32_t failed;
	struct {
		uint64_t called;
		_Atomic uint64_t returned;
		uint64_t server_ns;	/* as the server reports it */
		struct seen seen[MAX_CLIENTS + 1];
	} kills[];
} *shared;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void sleep_ms(unsigned ms)
{
	usleep((useconds_t)ms * 1000);
}

static void die(const char *what)
{
	fprintf(stderr, "pause: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *map(size_t size, int how)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, how | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		die("mmap");
	return memory;
}

/* ---- asking ---- */

static void ask(const struct options *o, unsigned me, unsigned i)
{
	uint64_t start = now_ns(), end, returned;
	struct seen *seen;
	struct statx st;
	uint32_t number;

	if (statx(AT_FDCWD, o->files[i % o->count], AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st)) {
		fprintf(stderr, "pause: a client saw: %s\n", strerror(errno));
		atomic_store(&shared->failed, 1);
		return;
	}
	end = now_ns();
	number = atomic_load(&shared->kill);
	returned = atomic_load(&shared->kills[number].returned);
	seen = &shared->kills[number].seen[me];
	if (!returned || end < returned || atomic_load(&seen->first))
		return;
	if (end - start > atomic_load(&seen->longest))
		atomic_store(&seen->longest, end - start);
	if (start > returned)
		atomic_store(&seen->first, end);
}

static void client(const struct options *o, unsigned me)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned i = me; !atomic_load(&shared->failed); i++)
		ask(o, me, i);
	_exit(1);
}

/* ---- killing ---- */

/* The number behind a key of the server's status. */
static double status_number(const struct mount_entry *mounted, const char *key)
{
	char status[16384] = "";
	const char *at;
	int err = -EAGAIN;

	/* On a busy machine it may take longer than control_ask() waits. */
	for (int i = 0; err && i < 5; i++)
		err = control_ask(mounted, FE_CONTROL_STATUS, status, sizeof(status));
	if (err) {
		fprintf(stderr, "pause: asking for the status: %s\n", strerror(-err));
		return 0;
	}
	at = strstr(status, key);
	return at ? strtod(at + strlen(key), NULL) : 0;
}

/* Until every client has an answer to a request that it made after the kill. */
static bool all_answered(const struct options *o, uint32_t number)
{
	for (unsigned ms = 0; ms < ANSWER_MS; ms++) {
		unsigned answered = 0;

		for (unsigned i = 0; i < o->clients; i++)
			answered += atomic_load(&shared->kills[number].seen[i].first) != 0;
		if (answered == o->clients || atomic_load(&shared->failed))
			return answered == o->clients;
		sleep_ms(1);
	}
	fprintf(stderr, "pause: no answer within %d ms of a kill\n", ANSWER_MS);
	return false;
}

static bool one_kill(const struct options *o, const struct mount_entry *mounted, uint32_t number)
{
	pid_t pid = (pid_t)status_number(mounted, "\"worker_pid\":");

	if (pid <= 0) {
		fprintf(stderr, "pause: the server does not tell its worker's pid\n");
		return false;
	}
	/* Where the thread that told it is at work still, a successor waits for the end of the whole process. */
	sleep_ms(SETTLE_MS);
	atomic_store(&shared->kill, number);
	shared->kills[number].called = now_ns();
	if (kill(pid, SIGKILL))
		die("kill");
	atomic_store(&shared->kills[number].returned, now_ns());
	ask(o, o->clients, number);
	if (!all_answered(o, number))
		return false;
	/* The next standby is forked meanwhile; and no kill shall always hit the same moment. */
	sleep_ms(o->interval + (unsigned)rand() % (o->interval + 1));
	if ((pid_t)status_number(mounted, "\"worker_pid\":") == pid) {
		fprintf(stderr, "pause: worker %d survived its kill\n", pid);
		return false;
	}
	shared->kills[number].server_ns = (uint64_t)(status_number(mounted, "\"last_pause_ms\":") * 1e6);
	return true;
}

static bool kill_all(const struct options *o, const struct mount_entry *mounted)
{
	for (uint32_t i = 0; i < o->kills; i++)
		if (!one_kill(o, mounted, i))
			return false;
	return !atomic_load(&shared->failed);
}

static void report(const struct options *o)
{
	for (uint32_t n = 0; n < o->kills; n++) {
		uint64_t first = UINT64_MAX, longest = 0;

		for (unsigned i = 0; i <= o->clients; i++) {
			uint64_t end = atomic_load(&shared->kills[n].seen[i].first);
			uint64_t wait = atomic_load(&shared->kills[n].seen[i].longest);

			first = end && end < first ? end : first;
			longest = wait > longest ? wait : longest;
		}
		printf("{\"pause_ns\": %llu, \"longest_ns\": %llu, \"server_ns\": %llu}\n",
		       (unsigned long long)(first - shared->kills[n].called), (unsigned long long)longest,
		       (unsigned long long)shared->kills[n].server_ns);
	}
}

/* ---- what the machine takes for a process ---- */

static double fork_and_exit(void)
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
	return (double)(now_ns() - start) / ROUNDS;
}

static void measure_fork(const struct options *o)
{
	size_t private_size = (o->private_kib + 1) << 10, shared_size = (o->shared_kib + 1) << 10;
	double small = fork_and_exit();
	void *of_its_own = map(private_size, MAP_PRIVATE), *of_all = map(shared_size, MAP_SHARED);

	printf("{\"fork_ns\": %.0f, \"fork_same_size_ns\": %.0f}\n", small, fork_and_exit());
	munmap(of_its_own, private_size);
	munmap(of_all, shared_size);
}

/* ---- */

static void usage(void)
{
	fputs("usage: pause [--kills N] [--clients N] [--interval MS] [--private KIB] [--shared KIB] "
	      "MOUNTPOINT FILE..\n", stderr);
	exit(2);
}

static void parse(struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{ "kills", 1, NULL, 'k' }, { "clients", 1, NULL, 'c' }, { "interval", 1, NULL, 'i' },
		{ "private", 1, NULL, 'p' }, { "shared", 1, NULL, 's' }, { 0 },
	};
	int c;

	*o = (struct options){ .kills = 300, .clients = 4, .interval = 20 };
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		unsigned long n = c == '?' ? 0 : strtoul(optarg, NULL, 10);

		if (c == 'k')
			o->kills = (unsigned)n;
		else if (c == 'c')
			o->clients = (unsigned)n;
		else if (c == 'i')
			o->interval = (unsigned)n;
		else if (c == 'p')
			o->private_kib = n;
		else if (c == 's')
			o->shared_kib = n;
		else
			usage();
	}
	if (argc - optind < 2 || !o->kills || !o->clients || o->clients > MAX_CLIENTS)
		usage();
	o->files = argv + optind + 1;
	o->count = (unsigned)(argc - optind - 1);
}

int main(int argc, char **argv)
{
	pid_t pids[MAX_CLIENTS];
	struct mount_entry mounted;
	struct options o;
	bool done;

	parse(&o, argc, argv);
	if (mountinfo_lookup(argv[optind], &mounted)) {
		fprintf(stderr, "pause: %s is not mounted\n", argv[optind]);
		return 1;
	}
	measure_fork(&o);
	fflush(stdout);
	shared = map(sizeof(*shared) + o.kills * sizeof(shared->kills[0]), MAP_SHARED);
	for (unsigned i = 0; i < o.clients; i++) {
		pids[i] = fork();
		if (!pids[i])
			client(&o, i);
		if (pids[i] < 0)
			die("fork");
	}
	sleep_ms(WARM_MS);
	done = kill_all(&o, &mounted);
	for (unsigned i = 0; i < o.clients; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	if (done)
		report(&o);
	return !done;
}
