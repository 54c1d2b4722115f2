/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hammer [--seed N] [--procs N] [--steps N] [--no-exchange] [--no-shared-pages] DIR
 * Many processes at once on one directory. Each keeps a model of its own files and verifies every
 * byte against it; on what they share, they verify that nothing is lost, doubled or won twice.
 * What is in the files follows from the seed, the order between processes does not.
 *   HAMMER_NO_SHARED_PAGES   as --no-shared-pages
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
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
#include <sys/wait.h>
#include <unistd.h>

#include "tests/mount/mix.h"

enum { BLOCK = 512, BLOCKS = 192, NAMES = 48, DIRS = 3, MAX_PROCS = 256, RACES = 64, SHARED_EACH = 64 };

struct file {
	uint64_t id;
	unsigned links;
	size_t size;
	uint32_t version[BLOCKS];	/* of each block; 0: zeros, where a truncate left a hole */
};

struct record {
	uint32_t proc, seq;
	uint64_t check;
};

/* Mapped by all. */
struct shared {
	atomic_uint created[RACES], made[RACES], renamed[RACES], removed[RACES];
	atomic_uint stop;
};

static struct {
	uint64_t seed;
	long steps;
	int procs;
	bool no_exchange;	/* the file system can not do RENAME_EXCHANGE */
	bool no_shared_pages;	/* the kernel shows a page again that it read before a WRITE was done */
} opt = { .steps = 1500, .procs = 24 };

static struct shared *shared;
static int me = -1, top, own, common;
static uint64_t state, next_id;
static uint32_t next_version, appended;
static struct file *names[NAMES];
static long step_now;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "hammer: process %d, step %ld: %s (--seed %llu --procs %d --steps %ld)\n", me, step_now,
		text, (unsigned long long)opt.seed, opt.procs, opt.steps);
	if (shared)
		atomic_store(&shared->stop, 1);
	_exit(1);
}

static unsigned below(unsigned n)
{
	state = mix(state);
	return (unsigned)(state % n);
}

/* ---- own files ---- */

static void fill(unsigned char *buf, uint64_t id, size_t block, uint32_t version)
{
	uint64_t x = mix(id ^ mix(block << 32 | version));

	for (size_t i = 0; i < BLOCK; i += 8, x = mix(x))
		memcpy(buf + i, &x, 8);
	if (!version)
		memset(buf, 0, BLOCK);
}

static const char *name_of(unsigned slot)
{
	static char buf[4][32];
	static unsigned n;

	snprintf(buf[n++ % 4], 32, "d%u/f%u", slot % DIRS, slot);
	return buf[(n - 1) % 4];
}

static int open_own(unsigned slot, int flags)
{
	int fd = openat(own, name_of(slot), flags | O_CLOEXEC, 0644);

	if (fd < 0)
		die("open %s with flags %#x: %m", name_of(slot), flags);
	return fd;
}

static void drop(unsigned slot)
{
	if (names[slot] && !--names[slot]->links)
		free(names[slot]);
	names[slot] = NULL;
}

static void put_blocks(int fd, struct file *f, size_t from, size_t count, bool append)
{
	unsigned char buf[BLOCKS * BLOCK];
	ssize_t n;

	for (size_t b = from; b < from + count; b++) {
		f->version[b] = ++next_version;
		fill(buf + (b - from) * BLOCK, f->id, b, f->version[b]);
	}
	n = append ? write(fd, buf, count * BLOCK) : pwrite(fd, buf, count * BLOCK, (off_t)(from * BLOCK));
	if (n != (ssize_t)(count * BLOCK))
		die("write of %zu blocks at %zu gave %zd: %m", count, from, n);
	if (f->size < (from + count) * BLOCK)
		f->size = (from + count) * BLOCK;
}

static void verify(unsigned slot)
{
	unsigned char got[BLOCKS * BLOCK + 1], want[BLOCK];
	struct file *f = names[slot];
	struct stat st;
	int fd = open_own(slot, O_RDONLY);
	ssize_t n = pread(fd, got, sizeof(got), 0);

	if (n != (ssize_t)f->size)
		die("%s has %zu bytes, a read gave %zd: %m", name_of(slot), f->size, n);
	for (size_t b = 0; b < f->size / BLOCK; b++) {
		fill(want, f->id, b, f->version[b]);
		for (size_t i = 0; i < BLOCK; i++)
			if (got[b * BLOCK + i] != want[i])
				die("%s: byte %zu is %#x, expected %#x (block version %u)", name_of(slot),
				    b * BLOCK + i, got[b * BLOCK + i], want[i], f->version[b]);
	}
	if (fstat(fd, &st) || st.st_size != (off_t)f->size || st.st_nlink != f->links)
		die("%s: fstat says %lld bytes and %u links, expected %zu and %u", name_of(slot),
		    (long long)st.st_size, (unsigned)st.st_nlink, f->size, f->links);
	close(fd);
}

static void do_create(unsigned slot)
{
	int fd = open_own(slot, O_RDWR | O_CREAT | O_EXCL);

	names[slot] = calloc(1, sizeof(struct file));
	if (!names[slot])
		die("out of memory");
	names[slot]->links = 1;
	names[slot]->id = mix(opt.seed ^ (uint64_t)me << 40) + ++next_id;
	put_blocks(fd, names[slot], 0, 1 + below(16), false);
	close(fd);
}

static void do_append(unsigned slot)
{
	struct file *f = names[slot];
	size_t at = f->size / BLOCK, room = BLOCKS - at;
	int fd;

	if (!room)
		return;
	fd = open_own(slot, O_WRONLY | O_APPEND);
	put_blocks(fd, f, at, 1 + below(room < 20 ? (unsigned)room : 20), true);
	close(fd);
}

static void do_overwrite(unsigned slot)
{
	struct file *f = names[slot];
	size_t from = below(BLOCKS), max = BLOCKS - from;
	int fd = open_own(slot, O_WRONLY);

	put_blocks(fd, f, from, 1 + below(max < 40 ? (unsigned)max : 40), false);
	if (!below(8) && fsync(fd))
		die("fsync %s: %m", name_of(slot));
	close(fd);
}

static void do_map(unsigned slot)
{
	struct file *f = names[slot];
	size_t blocks = f->size / BLOCK, at;
	int fd = open_own(slot, O_RDWR);
	unsigned char *map;

	if (blocks) {
		map = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED)
			die("mmap %s: %m", name_of(slot));
		at = below((unsigned)blocks);
		f->version[at] = ++next_version;
		fill(map + at * BLOCK, f->id, at, f->version[at]);
		munmap(map, f->size);
	}
	close(fd);
}

static void do_truncate(unsigned slot)
{
	struct file *f = names[slot];
	size_t blocks = below(BLOCKS);
	int fd = open_own(slot, O_WRONLY);

	if (ftruncate(fd, (off_t)(blocks * BLOCK)))
		die("truncate %s: %m", name_of(slot));
	for (size_t b = blocks; b < BLOCKS; b++)
		f->version[b] = 0;
	f->size = blocks * BLOCK;
	close(fd);
}

static void do_rename(unsigned slot)
{
	unsigned to = below(NAMES);
	unsigned flags = names[to] && !below(3) && !opt.no_exchange ? RENAME_EXCHANGE : 0;
	struct file *f = names[slot];

	if (renameat2(own, name_of(slot), own, name_of(to), flags))
		die("rename %s to %s, flags %u: %m", name_of(slot), name_of(to), flags);
	if (flags) {
		names[slot] = names[to];
		names[to] = f;
	} else if (f != names[to]) { /* two names of one file: rename(2) leaves both */
		drop(to);
		names[to] = f;
		names[slot] = NULL;
	}
}

static void do_link(unsigned slot)
{
	unsigned to = below(NAMES);
	int err = linkat(own, name_of(slot), own, name_of(to), 0) ? errno : 0;

	if (err != (names[to] ? EEXIST : 0))
		die("link %s to %s: %s", name_of(slot), name_of(to), strerror(err));
	if (!err) {
		names[to] = names[slot];
		names[to]->links++;
	}
}

static void do_unlink(unsigned slot)
{
	if (unlinkat(own, name_of(slot), 0))
		die("unlink %s: %m", name_of(slot));
	drop(slot);
}

static void own_step(void)
{
	static void (*const steps[])(unsigned) = {
		do_append, do_append, do_overwrite, do_overwrite, do_map, do_truncate, do_rename, do_rename,
		do_link, do_unlink, verify, verify,
	};
	unsigned slot = below(NAMES);

	if (names[slot])
		steps[below(sizeof(steps) / sizeof(steps[0]))](slot);
	else if (faccessat(own, name_of(slot), F_OK, 0) != -1 || errno != ENOENT)
		die("%s is there, it must not be", name_of(slot));
	else
		do_create(slot);
}

static void verify_listing(void)
{
	for (unsigned d = 0; d < DIRS; d++) {
		char name[16];
		bool seen[NAMES] = { 0 };
		struct dirent *e;
		DIR *dir;

		snprintf(name, sizeof(name), "d%u", d);
		dir = fdopendir(openat(own, name, O_RDONLY | O_DIRECTORY));
		if (!dir)
			die("opendir %s: %m", name);
		while ((errno = 0, e = readdir(dir))) {
			unsigned slot;

			if (*e->d_name == '.')
				continue;
			if (sscanf(e->d_name, "f%u", &slot) != 1 || slot >= NAMES || slot % DIRS != d ||
			    !names[slot])
				die("%s lists %s, which is not there", name, e->d_name);
			if (seen[slot])
				die("%s lists %s twice", name, e->d_name);
			seen[slot] = true;
		}
		if (errno)
			die("readdir %s: %m", name);
		closedir(dir);
		for (unsigned slot = d; slot < NAMES; slot += DIRS)
			if (names[slot] && !seen[slot])
				die("%s does not list f%u", name, slot);
	}
}

/* ---- what all share ---- */

static void append_record(void)
{
	int fd = openat(top, "log", O_WRONLY | O_APPEND | O_CLOEXEC);
	struct record r[3];
	unsigned count = 1 + below(3);

	for (unsigned i = 0; i < count; i++) {
		r[i] = (struct record){ .proc = (uint32_t)me, .seq = appended++ };
		r[i].check = mix((uint64_t)r[i].proc << 32 | r[i].seq);
	}
	if (fd < 0 || write(fd, r, count * sizeof(*r)) != (ssize_t)(count * sizeof(*r)))
		die("append to log: %m");
	close(fd);
}

/* Blocks of one page belong to different processes; half of them write by a mapping. */
static void share_block(void)
{
	size_t block = below(SHARED_EACH) * (size_t)opt.procs + (size_t)me, at = block * BLOCK;
	unsigned char buf[BLOCK], got[BLOCK], *map;
	int fd = openat(common, "blocks", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		die("open blocks: %m");
	fill(buf, opt.seed, block, 1 + below(2));
	if (me & 1) {
		map = mmap(NULL, (size_t)opt.procs * SHARED_EACH * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED)
			die("mmap blocks: %m");
		memcpy(map + at, buf, BLOCK);
		munmap(map, (size_t)opt.procs * SHARED_EACH * BLOCK);
	} else if (pwrite(fd, buf, BLOCK, (off_t)at) != BLOCK) {
		die("write of block %zu: %m", block);
	}
	if (pread(fd, got, BLOCK, (off_t)at) != BLOCK || memcmp(buf, got, BLOCK))
		die("block %zu is not what was just written", block);
	close(fd);
}

/* Of all who try, one must win. */
static void race(unsigned n)
{
	char name[32], mine[32];
	int fd;

	snprintf(name, sizeof(name), "excl.%u", n);
	fd = openat(common, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0 && errno != EEXIST)
		die("create %s: %m", name);
	if (fd >= 0)
		atomic_fetch_add(&shared->created[n], 1);
	close(fd);
	snprintf(name, sizeof(name), "dir.%u", n);
	if (!mkdirat(common, name, 0755))
		atomic_fetch_add(&shared->made[n], 1);
	else if (errno != EEXIST)
		die("mkdir %s: %m", name);
	snprintf(mine, sizeof(mine), "mine.%d.%u", me, n);
	snprintf(name, sizeof(name), "one.%u", n);
	close(openat(common, mine, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
	if (!renameat2(common, mine, common, name, RENAME_NOREPLACE))
		atomic_fetch_add(&shared->renamed[n], 1);
	else if (errno != EEXIST || unlinkat(common, mine, 0))
		die("rename %s to %s: %m", mine, name);
	snprintf(name, sizeof(name), "prey.%u", n);
	if (!unlinkat(common, name, 0))
		atomic_fetch_add(&shared->removed[n], 1);
	else if (errno != ENOENT)
		die("unlink %s: %m", name);
}

static int child(int i)
{
	char name[16];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	me = i;
	state = mix(opt.seed + (uint64_t)i * 7919);
	snprintf(name, sizeof(name), "own.%d", i);
	if (mkdirat(top, name, 0755) || (own = openat(top, name, O_RDONLY | O_DIRECTORY)) < 0)
		die("mkdir %s: %m", name);
	for (unsigned d = 0; d < DIRS; d++) {
		snprintf(name, sizeof(name), "d%u", d);
		if (mkdirat(own, name, 0755))
			die("mkdir %s: %m", name);
	}
	for (step_now = 0; step_now < opt.steps && !atomic_load(&shared->stop); step_now++) {
		own_step();
		if (!(step_now % 4))
			append_record();
		if (!(step_now % 3) && !opt.no_shared_pages)
			share_block();
		/* All come by the same races at about the same time. */
		if (!(step_now % (opt.steps / RACES)) && step_now / (opt.steps / RACES) < RACES)
			race((unsigned)(step_now / (opt.steps / RACES)));
	}
	for (unsigned slot = 0; slot < NAMES; slot++)
		if (names[slot])
			verify(slot);
	verify_listing();
	return 0;
}

/* ---- the end ---- */

static void verify_log(void)
{
	uint32_t next[MAX_PROCS] = { 0 };
	struct record r;
	FILE *f = fdopen(openat(top, "log", O_RDONLY), "r");
	long n = 0;

	if (!f)
		die("open log: %m");
	while (fread(&r, sizeof(r), 1, f) == 1) {
		if (r.proc >= (uint32_t)opt.procs || r.check != mix((uint64_t)r.proc << 32 | r.seq))
			die("log: record %ld is torn", n);
		if (r.seq != next[r.proc])
			die("log: record %ld of process %u has number %u, expected %u: lost or out of order", n,
			    r.proc, r.seq, next[r.proc]);
		next[r.proc]++;
		n++;
	}
	if (ftell(f) != n * (long)sizeof(r))
		die("log: bytes behind record %ld", n);
	fclose(f);
	for (int i = 0; i < opt.procs; i++)
		if (next[i] < (uint32_t)opt.steps / 4)
			die("log: process %d has %u records, at least %ld were written", i, next[i], opt.steps / 4);
}

static void verify_blocks(void)
{
	unsigned char got[BLOCK], a[BLOCK], b[BLOCK], none[BLOCK] = { 0 };
	int fd = openat(common, "blocks", O_RDONLY);

	for (size_t n = 0; n < (size_t)opt.procs * SHARED_EACH; n++) {
		fill(a, opt.seed, n, 1);
		fill(b, opt.seed, n, 2);
		if (pread(fd, got, BLOCK, (off_t)(n * BLOCK)) != BLOCK)
			die("reading shared block %zu: %m", n);
		if (memcmp(got, a, BLOCK) && memcmp(got, b, BLOCK) && memcmp(got, none, BLOCK))
			die("shared block %zu of process %zu is torn", n, n % (size_t)opt.procs);
	}
	close(fd);
}

static void verify_races(void)
{
	unsigned names_left = 0;
	struct dirent *e;
	DIR *dir;

	for (unsigned n = 0; n < RACES; n++)
		if (shared->created[n] != 1 || shared->made[n] != 1 || shared->renamed[n] != 1 ||
		    shared->removed[n] != 1)
			die("race %u was won by %u (O_EXCL), %u (mkdir), %u (rename), %u (unlink), expected 1 of each",
			    n, shared->created[n], shared->made[n], shared->renamed[n], shared->removed[n]);
	dir = fdopendir(openat(common, ".", O_RDONLY | O_DIRECTORY));
	while (dir && (e = readdir(dir))) {
		if (*e->d_name == '.' || !strcmp(e->d_name, "blocks"))
			continue;
		if (strncmp(e->d_name, "excl.", 5) && strncmp(e->d_name, "dir.", 4) && strncmp(e->d_name, "one.", 4))
			die("common lists %s, which must be gone", e->d_name);
		names_left++;
	}
	if (!dir || names_left != 3 * RACES)
		die("common lists %u names, expected %d", names_left, 3 * RACES);
	closedir(dir);
}

static void prepare(const char *path)
{
	char name[32];
	int fd;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	top = open(path, O_RDONLY | O_DIRECTORY);
	if (shared == MAP_FAILED || top < 0 || mkdirat(top, "common", 0755) ||
	    (common = openat(top, "common", O_RDONLY | O_DIRECTORY)) < 0)
		die("%s: %m; it must be an empty directory", path);
	close(openat(top, "log", O_WRONLY | O_CREAT | O_EXCL, 0644));
	fd = openat(common, "blocks", O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (fd < 0 || ftruncate(fd, (off_t)opt.procs * SHARED_EACH * BLOCK))
		die("blocks: %m");
	close(fd);
	for (unsigned n = 0; n < RACES; n++) {
		snprintf(name, sizeof(name), "prey.%u", n);
		close(openat(common, name, O_WRONLY | O_CREAT | O_EXCL, 0644));
	}
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", 1, NULL, 's' }, { "procs", 1, NULL, 'p' }, { "steps", 1, NULL, 'n' },
		{ "no-exchange", 0, NULL, 'x' }, { "no-shared-pages", 0, NULL, 'g' }, { 0 },
	};
	int c;

	if (getrandom(&opt.seed, 4, 0) != 4)
		opt.seed = 1;
	opt.no_shared_pages = getenv("HAMMER_NO_SHARED_PAGES");
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			opt.seed = strtoull(optarg, NULL, 0);
		else if (c == 'p')
			opt.procs = atoi(optarg);
		else if (c == 'n')
			opt.steps = atol(optarg);
		else if (c == 'x')
			opt.no_exchange = true;
		else if (c == 'g')
			opt.no_shared_pages = true;
		else
			exit(2);
	}
	if (argc - optind != 1 || opt.procs < 1 || opt.procs > MAX_PROCS || opt.steps < RACES) {
		fprintf(stderr, "usage: hammer [--seed N] [--procs 1..%d] [--steps %d..] [--no-exchange] [--no-shared-pages] DIR\n",
			MAX_PROCS, RACES);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	bool failed = false;
	int status;

	parse(argc, argv);
	prepare(argv[optind]);
	for (int i = 0; i < opt.procs; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork: %m");
		if (!pid)
			_exit(child(i));
	}
	while (wait(&status) > 0)
		failed |= status != 0;
	if (failed)
		return 1;
	verify_log();
	verify_blocks();
	verify_races();
	printf("hammer: seed %llu, %d processes, %ld steps each: all verified\n", (unsigned long long)opt.seed,
	       opt.procs, opt.steps);
	return 0;
}
