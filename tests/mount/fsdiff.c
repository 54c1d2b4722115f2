/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsdiff: options, rounds, and the report of a difference. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fsdiff.h"

static struct {
	uint64_t seed;
	long steps, concurrent, rounds;
	int actors;
	bool shrink, seeded, stats;
	const char *log, *replay, *only, *tolerate[16];
	int n_tolerate;
	unsigned char *allowed;
	const char *program;
} opt = { .steps = 5000, .concurrent = 1000, .rounds = 1, .actors = 4 };

static void usage(FILE *f)
{
	fprintf(f,
		"usage: fsdiff [options] DIR_A DIR_B\n"
		"Runs the same random system calls on two directories and compares what they do.\n"
		"  --seed N              first seed (random by default)\n"
		"  --rounds N            that many sequences, with seeds from N on (1)\n"
		"  --steps N             steps in lock-step a round (%ld)\n"
		"  --concurrent-steps N  steps of every actor on a tree of its own, all at once "
		"(%ld)\n"
		"  --actors N            processes, root and others in turn (%d)\n"
		"  --only OP[,OP...]     draw these calls only (see --list)\n"
		"  --log FILE            write the steps before they are run\n"
		"  --replay FILE         run the steps of a log, in lock-step\n"
		"  --shrink              look for the shortest list of steps that still differs\n"
		"  --tolerate NAME[,NAME...]  allow known differences (see --list)\n"
		"  --stats               count the results of every call in tree A\n"
		"  --list                print the calls and the differences that can be "
		"tolerated\n",
		opt.steps, opt.concurrent, opt.actors);
}

static void list_all(void)
{
	printf("calls:");
	for (size_t i = 0; i < n_ops; i++)
		printf(" %s", ops[i].name);
	printf("\ntolerated differences:\n");
	list_tolerances(stdout);
}

static void parse_only(const char *list)
{
	char *copy = strdup(list), *save;

	opt.only = list;
	opt.allowed = calloc(n_ops, 1);
	for (char *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		int op = op_find(p);

		if (op < 0 || !ops[op].weight) {
			fprintf(stderr, "fsdiff: no such call: %s (see --list)\n", p);
			exit(2);
		}
		opt.allowed[op] = 1;
	}
	free(copy);
}

static long number(const char *text, long min, long max)
{
	char *end;
	long v = strtol(text, &end, 0);

	if (!*text || *end || v < min || v > max) {
		fprintf(stderr, "fsdiff: not a number from %ld to %ld: %s\n", min, max, text);
		exit(2);
	}
	return v;
}

static void parse_tolerate(const char *list)
{
	char *copy = strdup(list), *save;

	for (char *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		if (!tolerate(p) || opt.n_tolerate == 16) {
			fprintf(stderr, "fsdiff: no such tolerated difference: %s (see --list)\n", p);
			exit(2);
		}
	}
	free(copy);
	opt.tolerate[opt.n_tolerate++] = list;
}

static void parse_options(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "seed", 1, NULL, 's' },
		{ "steps", 1, NULL, 'n' },
		{ "actors", 1, NULL, 'a' },
		{ "only", 1, NULL, 'o' },
		{ "concurrent-steps", 1, NULL, 'c' },
		{ "replay", 1, NULL, 'r' },
		{ "log", 1, NULL, 'l' },
		{ "shrink", 0, NULL, 'S' },
		{ "tolerate", 1, NULL, 't' },
		{ "rounds", 1, NULL, 'R' },
		{ "list", 0, NULL, 'L' },
		{ "stats", 0, NULL, 'z' },
		{ "help", 0, NULL, 'h' },
		{ 0 },
	};
	int c;

	opt.program = argv[0];
	while ((c = getopt_long(argc, argv, "h", longopts, NULL)) != -1) {
		switch (c) {
		case 's':
			opt.seed = strtoull(optarg, NULL, 0);
			opt.seeded = true;
			break;
		case 'n': opt.steps = number(optarg, 0, 100000000); break;
		case 'a': opt.actors = (int)number(optarg, 1, MAX_ACTORS); break;
		case 'o': parse_only(optarg); break;
		case 'c': opt.concurrent = number(optarg, 0, 10000000); break;
		case 'r': opt.replay = optarg; break;
		case 'l': opt.log = optarg; break;
		case 'S': opt.shrink = true; break;
		case 't': parse_tolerate(optarg); break;
		case 'R': opt.rounds = number(optarg, 1, 1000000); break;
		case 'z': opt.stats = true; break;
		case 'L': list_all(); exit(0);
		case 'h': usage(stdout); exit(0);
		default: usage(stderr); exit(2);
		}
	}
	if (argc - optind != 2) {
		usage(stderr);
		exit(2);
	}
	if (!opt.seeded && getrandom(&opt.seed, 4, 0) != 4)
		opt.seed = (uint64_t)getpid();
}

static void print_command(uint64_t seed, const struct trees *t)
{
	printf("to run it again: %s", opt.program);
	if (opt.replay)
		printf(" --replay %s", opt.replay);
	else
		printf(" --seed %llu --steps %ld --concurrent-steps %ld --actors %d",
		       (unsigned long long)seed, opt.steps, opt.concurrent, opt.actors);
	if (opt.only)
		printf(" --only %s", opt.only);
	for (int i = 0; i < opt.n_tolerate; i++)
		printf(" --tolerate %s", opt.tolerate[i]);
	printf(" %s %s\n", t->name[0], t->name[1]);
}

static void report(uint64_t seed, const struct trees *t, struct steps *list, struct failure *f)
{
	const struct diff *d = &f->diff;

	printf("DIFFERENCE in step %zu: %s: %s\n", f->index, step_op(&list->v[f->index])->name,
	       d->key);
	printf("  A %s: %s\n  B %s: %s\n", t->name[0], d->a, t->name[1], d->b);
	if (f->outcome)
		print_steps(list, f, false);
	print_cred(list->v[f->index].actor);
	print_command(seed, t);
	if (opt.shrink && f->index < list->n && !f->fatal) {
		fflush(stdout);
		shrink(t, list, f);
		print_steps(list, f, true);
		printf("  A: %s: %s\n  B: %s: %s\n", f->diff.key, f->diff.a, f->diff.key,
		       f->diff.b);
	}
	/* The log of a failure stays: later rounds do not write over it. */
	if (opt.log) {
		steps_save(list, opt.log);
		opt.log = NULL;
	}
	fflush(stdout);
}

static bool lockstep_round(uint64_t seed, const struct trees *t, struct steps *list)
{
	struct failure f;
	bool same;

	if (opt.log)
		steps_save(list, opt.log);
	same = run_steps(t, list, &f);
	stats_add(list, &f);
	if (!same && !interrupted)
		report(seed, t, list, &f);
	free(f.outcome);
	return same;
}

static bool concurrent_round(uint64_t seed, const struct trees *t)
{
	struct steps lists[MAX_ACTORS] = { 0 };
	struct failure f;
	bool same;

	for (int i = 0; i < t->actors; i++) {
		struct gen_cfg cfg = { seed + (uint64_t)(i + 1) * 1000003, opt.concurrent,
				       t->actors, i, opt.allowed };

		gen_steps(&cfg, &lists[i]);
	}
	same = run_concurrent(t, lists, &f);
	if (!same && !interrupted) {
		printf("while %d actors ran at once, each on a tree of its own:\n", t->actors);
		report(seed, t, &lists[f.actor], &f);
	}
	free(f.outcome);
	for (int i = 0; i < t->actors; i++)
		free(lists[i].v);
	return same;
}

static bool one_round(uint64_t seed, struct trees *t)
{
	struct gen_cfg cfg = { seed, opt.steps, t->actors, -1, opt.allowed };
	struct steps list = { 0 };
	bool same;

	if (!opt.replay)
		printf("fsdiff: seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	if (opt.replay)
		t->actors = steps_load(&list, opt.replay);
	else
		gen_steps(&cfg, &list);
	same = !list.n || lockstep_round(seed, t, &list);
	if (same && !opt.replay && opt.concurrent && !interrupted)
		same = concurrent_round(seed, t);
	free(list.v);
	return same;
}

static int open_tree(const char *name, bool *made)
{
	int fd;

	*made = !mkdir(name, 0755);
	if (!*made && errno != EEXIST) {
		fprintf(stderr, "fsdiff: %s: %s\n", name, strerror(errno));
		exit(2);
	}
	fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "fsdiff: %s: %s\n", name, strerror(errno));
		exit(2);
	}
	return fd;
}

/* Mount flags that change what calls return are no fault of either file system. */
static void compare_mounts(const struct trees *t)
{
	struct statvfs a, b;

	if (fstatvfs(t->fd[0], &a) || fstatvfs(t->fd[1], &b))
		return;
	if ((a.f_flag ^ b.f_flag) & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC))
		fprintf(stderr,
			"fsdiff: note: mount flags differ: A %#lx, B %#lx (ro 1, nosuid 2, nodev "
			"4, "
			"noexec 8)\n",
			a.f_flag & 15, b.f_flag & 15);
}

static void on_signal(int sig)
{
	interrupted = sig;
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = on_signal };
	struct trees t = { 0 };
	bool made[2];
	long failed = 0;

	parse_options(argc, argv);
	if (geteuid()) {
		printf("fsdiff: skipped: actors of several users need root\n");
		return 77;
	}
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGHUP, &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	umask(022);
	t.actors = opt.actors;
	for (int i = 0; i < 2; i++) {
		t.name[i] = argv[optind + i];
		t.fd[i] = open_tree(t.name[i], &made[i]);
	}
	compare_mounts(&t);
	for (long i = 0; i < opt.rounds && !interrupted; i++)
		failed += !one_round(opt.seed + (uint64_t)i, &t);
	for (int i = 0; i < 2; i++) {
		close(t.fd[i]);
		if (made[i])
			rmdir(t.name[i]);
	}
	if (interrupted) {
		fprintf(stderr, "fsdiff: interrupted\n");
		return 1;
	}
	if (opt.stats)
		stats_print();
	printf("fsdiff: %ld of %ld rounds with a difference\n", failed, opt.rounds);
	return failed ? 1 : 0;
}
