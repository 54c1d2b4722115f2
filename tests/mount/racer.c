/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * racer [--follow] [--seed N] [--ops N] SOURCE OUTSIDE SEEN
 * Swaps names in SOURCE between directories, files and symlinks to OUTSIDE, and moves directories out
 * of SOURCE and back, while clients work on SEEN, where SOURCE is mounted. A client follows no symlink
 * (openat2 with RESOLVE_NO_SYMLINKS), so what it reads and changes must be in SOURCE. OUTSIDE has the
 * same names, and canaries in them; the caller compares it before and after.
 * With --follow the clients follow symlinks: then the canary must be met, or nothing was raced.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { CLIENTS = 4, MOST = 50 };

static struct {
	uint64_t seed;
	long ops;
	bool follow;
} opt = { .ops = 4000 };

/* Mapped by all. */
static struct {
	atomic_long read_inside, read_canary, changed, refused, swapped;
	atomic_bool done;
} *seen;

static uint64_t state;
static int src, out, mnt, d;

static void die(const char *what)
{
	fprintf(stderr, "racer: %s: %m\n", what);
	exit(1);
}

static unsigned below(unsigned n)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(state >> 33) % n;
}

static void put(int dir, const char *path, const char *text)
{
	int fd = openat(dir, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0 || write(fd, text, strlen(text)) < 0 || fchmod(fd, 0666))
		die(path);
	close(fd);
}

/* SOURCE and OUTSIDE get the same names: a server that goes by names ends up in the wrong one. */
static void plant(int dir, const char *text)
{
	static const char *const dirs[] = { "d", "d/sub", "d/sub/deep", "hold" };
	static const char *const files[] = { "f", "d/f", "d/sub/f", "d/sub/deep/f" };

	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++)
		if (mkdirat(dir, dirs[i], 0777) && errno != EEXIST)
			die(dirs[i]);
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		put(dir, files[i], text);
}

static void swap(const char *a, const char *b)
{
	if (renameat2(src, a, src, b, RENAME_EXCHANGE))
		die("exchange");
	atomic_fetch_add(&seen->swapped, 1);
}

/* Each swap is taken back, so that the tree is whole in between. */
static void swap_names(void)
{
	static const char *const names[][2] = { { "d", "d.link" }, { "f", "f.link" }, { "hold", "hold.link" } };

	while (!atomic_load(&seen->done)) {
		unsigned n = below(3);

		swap(names[n][0], names[n][1]);
		swap(names[n][0], names[n][1]);
	}
}

/* d/sub leaves the source with whoever is in it, and a symlink to its double takes its place. */
static void move_out(void)
{
	while (!atomic_load(&seen->done)) {
		if (renameat(d, "sub", out, "gone/sub") || symlinkat("../../outside/d/sub", d, "sub"))
			die("moving sub out");
		usleep(50);
		if (unlinkat(d, "sub", 0) || renameat(out, "gone/sub", d, "sub"))
			die("moving sub back");
		atomic_fetch_add(&seen->swapped, 1);
		usleep(50);
	}
}

static int open_beneath(const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC), .mode = flags & O_CREAT ? mode : 0,
		.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
	};

	return opt.follow ? openat(mnt, path, flags | O_CLOEXEC, mode) :
			    (int)syscall(SYS_openat2, mnt, path, &how, sizeof(how));
}

static void read_it(int fd)
{
	char text[16] = "";

	if (read(fd, text, sizeof(text) - 1) < 0)
		atomic_fetch_add(&seen->refused, 1);
	else if (strstr(text, "CANARY"))
		atomic_fetch_add(&seen->read_canary, 1);
	else if (*text)
		atomic_fetch_add(&seen->read_inside, 1);
}

static void count(long result)
{
	atomic_fetch_add(result < 0 ? &seen->refused : &seen->changed, 1);
}

/* What a client does with a directory it holds. Names of its own, and names that are there. */
static void use_directory(int dir)
{
	char mine[32], target[256] = "";
	struct stat st;
	int fd;

	snprintf(mine, sizeof(mine), "mine.%d", (int)getpid());
	switch (below(7)) {
	case 0:
		fd = openat(dir, mine, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		count(fd);
		if (fd >= 0) {
			count(write(fd, "mine", 4));
			close(fd);
		}
		count(unlinkat(dir, mine, 0));
		break;
	case 1:
		count(mkdirat(dir, mine, 0700));
		count(unlinkat(dir, mine, AT_REMOVEDIR));
		break;
	case 2:
		count(linkat(dir, "f", dir, mine, 0));
		count(unlinkat(dir, mine, 0));
		break;
	case 3:
		count(symlinkat("f", dir, mine));
		if (readlinkat(dir, mine, target, sizeof(target) - 1) > 0 && strcmp(target, "f"))
			atomic_fetch_add(&seen->read_canary, 1);
		count(unlinkat(dir, mine, 0));
		break;
	case 4:
		fd = openat(dir, "f", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0) {
			read_it(fd);
			close(fd);
		}
		break;
	case 5:
		count(fstatat(dir, "f", &st, AT_SYMLINK_NOFOLLOW));
		break;
	default:
		count(utimensat(dir, "f", NULL, AT_SYMLINK_NOFOLLOW));
	}
}

static void use_file(int fd)
{
	static const char text[] = "INSIDE";

	switch (below(5)) {
	case 0:
		count(pwrite(fd, text, 6, 0));
		break;
	case 1:
		count(ftruncate(fd, 6));
		break;
	case 2:
		count(fchmod(fd, 0666));
		break;
	case 3:
		count(fsetxattr(fd, "user.mine", text, 6, 0));
		break;
	default:
		read_it(fd);
	}
}

/* Whether anything was put to the test: the kernel may remember a symlink for most of a short run. */
static bool raced(void)
{
	return opt.follow ? seen->read_canary : seen->read_inside && seen->changed;
}

static void client(void)
{
	static const char *const dirs[] = { "d", "d/sub", "d/sub/deep", "hold", "." };
	static const char *const files[] = { "f", "d/f", "d/sub/f", "d/sub/deep/f" };

	for (long i = 0; i < opt.ops || (i < MOST * opt.ops && !raced()); i++) {
		bool dir = below(2);
		int flags = dir ? O_RDONLY | O_DIRECTORY : below(2) ? O_RDWR : O_RDONLY;
		int fd;

		if (!dir && !below(8))
			flags = O_RDWR | O_CREAT | O_TRUNC;
		/* To read the canary is enough for --follow; OUTSIDE is left as it is. */
		if (opt.follow)
			dir = false, flags = O_RDONLY;
		fd = open_beneath(dir ? dirs[below(5)] : files[below(4)], flags, 0666);
		if (fd < 0) {
			atomic_fetch_add(&seen->refused, 1);
			continue;
		}
		if (dir)
			use_directory(fd);
		else if (flags == O_RDONLY)
			read_it(fd);
		else
			use_file(fd);
		/* O_TRUNC left it empty: what is inside must be told from a canary again. */
		if (flags & O_TRUNC)
			count(pwrite(fd, "INSIDE", 6, 0));
		close(fd);
	}
}

static pid_t start(void (*work)(void), uint64_t n)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	state = opt.seed * 31 + n;
	work();
	_exit(0);
}

static int open_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		die(path);
	return fd;
}

static void prepare(char **argv)
{
	static const char *const links[] = { "d", "f", "hold" };
	char *outside = realpath(argv[1], NULL), target[4200], name[16];

	src = open_dir(argv[0]);
	out = open_dir(argv[1]);
	mnt = open_dir(argv[2]);
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!outside || seen == MAP_FAILED)
		die("setting up");
	plant(src, "INSIDE");
	d = openat(src, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < sizeof(links) / sizeof(*links); i++) {
		snprintf(target, sizeof(target), "%s/%s", outside, links[i]);
		snprintf(name, sizeof(name), "%s.link", links[i]);
		if (symlinkat(target, src, name) && errno != EEXIST)
			die(name);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "follow", 0, NULL, 'f' }, { "plant", 0, NULL, 'p' }, { "seed", 1, NULL, 's' },
		{ "ops", 1, NULL, 'n' }, { 0 },
	};
	pid_t swappers[2], clients[CLIENTS];
	bool failed = false, plant_only = false;
	int c, status;

	if (getrandom(&opt.seed, 4, 0) != 4)
		opt.seed = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'f')
			opt.follow = true;
		else if (c == 'p')
			plant_only = true;
		else if (c == 's')
			opt.seed = strtoull(optarg, NULL, 0);
		else if (c == 'n')
			opt.ops = atol(optarg);
	}
	umask(0);
	if (plant_only && argc - optind == 1) {
		out = open_dir(argv[optind]);
		plant(out, "CANARY");
		return mkdirat(out, "gone", 0777) ? 1 : 0;
	}
	if (argc - optind != 3) {
		fprintf(stderr, "usage: racer --plant OUTSIDE\n"
				"       racer [--follow] [--seed N] [--ops N] SOURCE OUTSIDE SEEN\n");
		return 2;
	}
	prepare(argv + optind);
	swappers[0] = start(swap_names, 0);
	swappers[1] = start(move_out, 1);
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = start(client, 100 + (uint64_t)i);
	for (int i = 0; i < CLIENTS; i++)
		if (waitpid(clients[i], &status, 0) < 0 || status)
			failed = true;
	atomic_store(&seen->done, true);
	for (int i = 0; i < 2; i++)
		if (waitpid(swappers[i], &status, 0) < 0 || status)
			failed = true;
	printf("racer: seed %llu: %ld swaps; clients read %ld times inside and %ld times a canary, changed %ld, "
	       "were refused %ld\n", (unsigned long long)opt.seed, seen->swapped, seen->read_inside,
	       seen->read_canary, seen->changed, seen->refused);
	if (failed || !seen->swapped || !raced())
		return printf("racer: a process failed, or nothing was done\n"), 1;
	return !opt.follow && seen->read_canary;
}
