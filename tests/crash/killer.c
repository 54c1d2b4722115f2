/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * killer [--kills N] [--seed N] [--min US] [--max US] [--who WHO[,WHO..]] [--signals NAME[,..]] MOUNTPOINT
 * Kills the processes that serve a mount, one at a random moment after the other, until N are dead or
 * it gets SIGTERM, and prints how many it were. WHO: worker, keeper. It asks the server's control
 * socket for the pids before each kill; a worker that has no successor within a minute is a failure.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "host/host.h"
#include "programs/control.h"

#define STATUS_SIZE	16384
#define GIVE_UP_S	60

static struct {
	long kills;
	uint64_t seed;
	unsigned min_us, max_us;
	bool worker, keeper;
	int signals[8];
	unsigned nsignals;
	const char *mountpoint;
} opt = { .kills = 100, .min_us = 200, .max_us = 20000, .worker = true };

static volatile sig_atomic_t enough;

static void on_term(int number)
{
	(void)number;
	enough = 1;
}

static void die(const char *what)
{
	fprintf(stderr, "killer: %s: %m\n", what);
	exit(1);
}

static unsigned below(unsigned n)
{
	opt.seed = opt.seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(opt.seed >> 33) % n;
}

static pid_t pid_of(const char *status, const char *key)
{
	const char *at = strstr(status, key);

	return at ? (pid_t)atol(at + strlen(key)) : 0;
}

/* The process to kill next; `but` died already. */
static pid_t next_victim(const struct mount_entry *mounted, bool keeper, pid_t but)
{
	static char status[STATUS_SIZE];
	time_t start = time(NULL);
	pid_t pid;

	while (!enough && time(NULL) - start < GIVE_UP_S) {
		if (!control_ask(mounted, FE_CONTROL_STATUS, status, sizeof(status))) {
			pid = pid_of(status, keeper ? "\"keeper_pid\":" : "\"worker_pid\":");
			if (pid > 0 && pid != but)
				return pid;
		}
		usleep(500);
	}
	return 0;
}

static void parse_signals(char *text)
{
	static const struct {
		const char *name;
		int number;
	} known[] = { { "KILL", SIGKILL }, { "TERM", SIGTERM }, { "SEGV", SIGSEGV }, { "ABRT", SIGABRT } };

	opt.nsignals = 0;
	for (char *word = strtok(text, ","); word; word = strtok(NULL, ","))
		for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
			if (!strcmp(word, known[i].name) && opt.nsignals < 8)
				opt.signals[opt.nsignals++] = known[i].number;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{ "kills", 1, NULL, 'k' }, { "seed", 1, NULL, 's' }, { "min", 1, NULL, 'm' }, { "max", 1, NULL, 'x' },
		{ "who", 1, NULL, 'w' }, { "signals", 1, NULL, 'g' }, { 0 },
	};
	int c;

	opt.signals[opt.nsignals++] = SIGKILL;
	if (getrandom(&opt.seed, 4, 0) != 4)
		opt.seed = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'k')
			opt.kills = atol(optarg);
		else if (c == 's')
			opt.seed = strtoull(optarg, NULL, 0);
		else if (c == 'm')
			opt.min_us = (unsigned)atol(optarg);
		else if (c == 'x')
			opt.max_us = (unsigned)atol(optarg);
		else if (c == 'g')
			parse_signals(optarg);
		else if (c == 'w')
			opt.worker = strstr(optarg, "worker"), opt.keeper = strstr(optarg, "keeper");
	}
	opt.mountpoint = argv[optind];
	if (argc - optind != 1 || !opt.nsignals || opt.max_us <= opt.min_us) {
		fprintf(stderr, "usage: killer [--kills N] [--seed N] [--min US] [--max US] [--who worker,keeper] "
				"[--signals KILL,TERM,SEGV,ABRT] MOUNTPOINT\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_term };
	struct mount_entry mounted;
	pid_t dead[2] = { 0 };
	long kills = 0;
	uint64_t seed;

	parse(argc, argv);
	seed = opt.seed;
	sigaction(SIGTERM, &sa, NULL);
	/* From the mount table: stat(2) on the mount would be a request to the server. */
	if (mountinfo_lookup(opt.mountpoint, &mounted)) {
		fprintf(stderr, "killer: %s is not mounted\n", opt.mountpoint);
		return 1;
	}
	while (kills < opt.kills && !enough) {
		bool keeper = opt.keeper && (!opt.worker || below(4) == 0);
		pid_t pid = next_victim(&mounted, keeper, dead[keeper]);

		/* One at a time: where all are dead, nothing goes on. */
		if (pid && opt.keeper && opt.worker && !next_victim(&mounted, !keeper, dead[!keeper]))
			pid = 0;
		if (!pid && enough)
			break;
		if (!pid) {
			fprintf(stderr, "killer: seed %llu: nobody succeeded process %d after %ld kills\n",
				(unsigned long long)seed, (int)dead[keeper], kills);
			return 1;
		}
		usleep(opt.min_us + below(opt.max_us - opt.min_us));
		if (kill(pid, opt.signals[below(opt.nsignals)])) {
			if (errno == ESRCH)
				continue;
			die("kill");
		}
		dead[keeper] = pid;
		kills++;
	}
	printf("killer: seed %llu: %ld kills\n", (unsigned long long)seed, kills);
	return kills ? 0 : 1;
}
