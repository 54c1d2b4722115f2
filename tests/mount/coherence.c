/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * coherence [--seed N] [--mutators N] [--readers N] [--ops N] [--tolerate WORDS] [--behind SOURCE] [--stale]
 *           [--log FILE] DIR
 * coherence --self-test
 * Some processes change a few names and nodes of DIR while others look at them; then it is decided whether some
 * order of all that was done explains each answer (coherence_check.c). Status 1: none does.
 *   --ops      of each mutator; readers go on for as long, or for READS times as many
 *   --tolerate any of link,count,backwards,open-truncate (coherence.h)
 *   --behind   mutators work in SOURCE, which DIR shows
 *   --stale    readers give old answers at times, which has to be found
 * What each process does follows from the seed, the order between them does not.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/mount/coherence.h"
#include "tests/mount/mix.h"

enum { READS = 6, FIRST_NODE = 1000 };

static struct {
	uint64_t seed;
	int mutators, readers;
	uint32_t ops;
	const char *behind, *log;
	bool stale, no_exchange, no_xattrs;
} opt = { .mutators = 3, .readers = 3, .ops = 1500 };

/* Mapped by all. */
static struct {
	atomic_uint clock, ready, mutators;
	atomic_uint count[PROCS];
} *shared;
static struct op *logs[PROCS];

static int me;
static uint32_t made, written;
static uint64_t state;
static struct op last[NAMES];

static void die(const char *what)
{
	fprintf(stderr, "coherence: %s: %m\n", what);
	exit(2);
}

static unsigned below(unsigned n)
{
	state = mix(state);
	return (unsigned)(state % n);
}

/* ---- what is done ---- */

static const uint8_t mutations[] = {
	CREATE, CREATE, CREATE, CREATE, MKDIR, SYMLINK, UNLINK, UNLINK, UNLINK, RMDIR, RMDIR, RENAME, RENAME, RENAME, RENAME,
	LINK, LINK, LINK, CHMOD, CHMOD, TRUNCATE, TRUNCATE, WRITE, WRITE, UTIMES, SETXATTR, SETXATTR, SETXATTR, REMOVEXATTR,
	OPEN,
};
static const uint8_t looks[] = {
	LSTAT, LSTAT, LSTAT, LSTAT, LSTAT, LSTAT, STAT, STAT, OPEN, ACCESS, ACCESS, GETXATTR, GETXATTR, GETXATTR, GETXATTR,
	LISTXATTR, READLINK, READDIR,
};

/* What is written is written once only. */
static uint32_t unique(void)
{
	return 1 + (uint32_t)me + PROCS * written++;
}

static void with_values(struct op *op)
{
	static const uint8_t renames[] = { 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	static const uint8_t sets[] = { 0, 0, XATTR_CREATE, XATTR_REPLACE };

	op->key = (uint8_t)below(XATTRS);
	switch (op->kind) {
	case CREATE:
	case MKDIR:
	case SYMLINK:
		op->node = FIRST_NODE + (uint32_t)me + PROCS * made++;
		op->value = below(01000);
		break;
	case RENAME:
		op->flags = renames[below(opt.no_exchange ? 2 : 4)];
		break;
	case CHMOD:
		op->value = below(01000);
		break;
	case TRUNCATE:
		op->value = op->by || (coherence_tolerate & TOLERATE_OPEN_TRUNCATE) || below(3) ? unique() : 0;
		break;
	case SETXATTR:
		op->flags = sets[below(4)];
		/* fall through */
	case WRITE:
	case UTIMES:
		op->value = unique();
		break;
	case OPEN:
		op->flags = me < opt.mutators ? O_RDWR : O_RDONLY;
		break;
	case ACCESS:
		op->flags = below(2) ? X_OK : F_OK;
		break;
	case READDIR:
		op->x /= EACH;
	}
}

static void choose(struct op *op)
{
	static unsigned name;
	uint32_t held;

	/* Some of what is asked for is to be known already. */
	if (me < opt.mutators || !below(4))
		name = below(NAMES);
	*op = (struct op){ .proc = (uint8_t)me, .x = (uint8_t)name, .y = (uint8_t)((name + 1 + below(NAMES - 1)) % NAMES) };
	op->kind = me < opt.mutators ? mutations[below(sizeof(mutations))] : looks[below(sizeof(looks))];
	if (opt.no_xattrs && (op->kind == SETXATTR || op->kind == REMOVEXATTR || op->kind == GETXATTR || op->kind == LISTXATTR))
		op->kind = me < opt.mutators ? CHMOD : LSTAT;
	held = coherence_held();
	if (op->kind == WRITE && !held)
		op->kind = OPEN;
	if (op->kind == WRITE || (held && !below(4) && ((op->kind >= CHMOD && op->kind <= LSTAT) ||
				  op->kind == GETXATTR || op->kind == LISTXATTR)))
		op->by = held;
	with_values(op);
}

/* An old answer as if it were new. */
static bool stale(struct op *op)
{
	struct op *old = &last[op->x];
	bool take = opt.stale && op->kind == LSTAT && !op->by && old->end && !below(16);

	if (take) {
		*op = *old;
		op->begin = coherence_tick();
		op->end = coherence_tick();
	} else if (op->kind == LSTAT && !op->by) {
		coherence_perform(op);
		*old = *op;
		take = true;
	}
	return take;
}

static void run(void)
{
	bool mutates = me < opt.mutators;
	uint32_t room = mutates ? opt.ops : opt.ops * READS;
	atomic_uint *n = &shared->count[me];

	state = mix(opt.seed + (uint64_t)me * 7919);
	if (chdir(mutates && opt.behind ? opt.behind : "."))
		die(opt.behind);
	atomic_fetch_add(&shared->ready, 1);
	while (atomic_load(&shared->ready) < (unsigned)(opt.mutators + opt.readers))
		sched_yield();
	while (*n < room && (mutates || *n < opt.ops || atomic_load(&shared->mutators))) {
		choose(&logs[me][*n]);
		if (!stale(&logs[me][*n]))
			coherence_perform(&logs[me][*n]);
		++*n;
		/* So that others see the same twice, and do not come to their end before there is something to see. */
		if (mutates ? !below(8) : *n > READS * shared->count[0] + 64 && atomic_load(&shared->mutators))
			usleep(below(mutates ? 300 : 100));
	}
	if (mutates)
		atomic_fetch_sub(&shared->mutators, 1);
}

/* ---- all of it ---- */

static void prepare(const char *dir)
{
	int fd;

	umask(0);
	if (opt.behind && !(opt.behind = realpath(opt.behind, NULL)))
		die("SOURCE");
	if (chdir(dir) || mkdir("a", 0755) || mkdir("b", 0755))
		die(dir);
	for (int i = 0; i < 2; i++) {
		fd = open(coherence_path((unsigned)i), O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd < 0 || close(fd))
			die("creating a file");
	}
	opt.no_exchange = renameat2(AT_FDCWD, "a/0", AT_FDCWD, "a/1", RENAME_EXCHANGE) != 0;
	opt.no_xattrs = setxattr("a/0", "user.0", "", 0, 0) && errno == EOPNOTSUPP;
	if (unlink("a/0") || unlink("a/1"))
		die("unlink");
}

static void start(void)
{
	for (me = 0; me < opt.mutators + opt.readers; me++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run();
		_exit(0);
	}
}

static int judge(struct op *all, size_t count)
{
	size_t changed = 0, saw = 0;
	FILE *file = opt.log ? fopen(opt.log, "we") : NULL;

	for (size_t i = 0; i < count; i++) {
		changed += !all[i].err && all[i].kind <= REMOVEXATTR;
		saw += !all[i].err && all[i].kind > REMOVEXATTR;
		if (file)
			coherence_print(&all[i], file);
	}
	if (file)
		fclose(file);
	printf("coherence: seed %llu, %d mutators, %d readers, %zu operations, %zu changed something, %zu saw something%s%s\n",
	       (unsigned long long)opt.seed, opt.mutators, opt.readers, count, changed, saw,
	       opt.no_exchange ? ", no RENAME_EXCHANGE" : "", opt.no_xattrs ? ", no attributes" : "");
	fflush(stdout);
	if (!changed || !saw)
		return printf("coherence: nothing was tested\n"), 2;
	return coherence_check(all, count, stdout) ? 0 : 1;
}

static void tolerate(char *text)
{
	char *const words[] = { "link", "count", "backwards", "open-truncate", NULL };
	char *value;

	while (*text) {
		int word = getsubopt(&text, words, &value);

		if (word < 0)
			exit(2);
		coherence_tolerate |= 1 << word;
	}
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", 1, NULL, 's' }, { "mutators", 1, NULL, 'm' }, { "readers", 1, NULL, 'r' }, { "ops", 1, NULL, 'n' },
		{ "behind", 1, NULL, 'b' }, { "stale", 0, NULL, 'o' }, { "tolerate", 1, NULL, 'd' },
		 { "log", 1, NULL, 'l' }, { "self-test", 0, NULL, 't' }, { 0 },
	};
	int c;

	if (getrandom(&opt.seed, 4, 0) != 4)
		opt.seed = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			opt.seed = strtoull(optarg, NULL, 0);
		else if (c == 'm')
			opt.mutators = atoi(optarg);
		else if (c == 'r')
			opt.readers = atoi(optarg);
		else if (c == 'n')
			opt.ops = (uint32_t)strtoul(optarg, NULL, 0);
		else if (c == 'b')
			opt.behind = optarg;
		else if (c == 'o')
			opt.stale = true;
		else if (c == 'd')
			tolerate(optarg);
		else if (c == 'l')
			opt.log = optarg;
		else if (c == 't')
			exit(coherence_self_test() ? 1 : 0);
		else
			exit(2);
	}
	if (argc - optind != 1 || opt.mutators < 1 || opt.readers < 0 || opt.mutators + opt.readers > PROCS || !opt.ops ||
	    opt.ops > 50000) {
		fprintf(stderr, "usage: coherence [--seed N] [--mutators N] [--readers N] [--ops N] [--tolerate WORDS] [--behind SOURCE]\n"
				"                 [--stale] [--log FILE] DIR\n"
				"       coherence --self-test\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	size_t count = 0, room;
	struct op *all;
	int status;

	parse(argc, argv);
	room = (size_t)opt.ops * READS;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	all = mmap(NULL, room * PROCS * sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (shared == MAP_FAILED || all == MAP_FAILED)
		die("mmap");
	coherence_clock = &shared->clock;
	for (int i = 0; i < PROCS; i++)
		logs[i] = all + (size_t)i * room;
	prepare(argv[optind]);
	shared->mutators = (unsigned)opt.mutators;
	start();
	while (wait(&status) > 0)
		if (status)
			return fprintf(stderr, "coherence: a process failed\n"), 2;
	for (int i = 0; i < PROCS; i++) {
		memmove(all + count, logs[i], shared->count[i] * sizeof(*all));
		count += shared->count[i];
	}
	return judge(all, count);
}
