/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * clients WHAT [--procs N] [--steps N] DIR
 * Processes that share files in a way that shows when an operation is lost, doubled or half done:
 *   direct   a reader and a writer of one file in blocks of 4 KiB, by O_DIRECT
 *   locks    who holds a lock adds one to a counter, by POSIX, open file description and flock(2) locks
 *   maps     all add to the words of one file, each by a mapping of its own
 *   unlinked files, directories and a working directory without a name
 *   all      all of these at once
 *   idle     reads, writes and maps a file opened before, when it is told to: see idle()
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/mount/mix.h"

enum { BLOCK = 4096, WORDS = BLOCK / 8, BLOCKS = 64, PAGES = 4, ROUND = 100, MAX_PROCS = 64 };

/* Mapped by all. */
struct shared {
	atomic_uint stop;
	atomic_uint begun[BLOCKS], written[BLOCKS];	/* versions of direct's blocks */
	atomic_ullong counted[2];			/* by locks, what the file must say, too */
};

static struct {
	int procs;
	long steps;
} opt = { .procs = 4, .steps = 500 };

static struct shared *shared;
static const char *what = "";
static int me = -1, top;
static long step_now;
static uint64_t state;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "clients: %s, process %d, step %ld: %s\n", what, me, step_now, text);
	if (shared)
		atomic_store(&shared->stop, 1);
	exit(1);
}

#define MUST(c) \
	do { \
		if (!(c)) \
			die("%s: %m", #c); \
	} while (0)

static unsigned below(unsigned n)
{
	state = mix(state);
	return (unsigned)(state % n);
}

/* Whether to go on: not where another process has found something wrong. */
static bool more(long steps)
{
	return step_now < steps && !atomic_load(&shared->stop);
}

static int open_in(int dir, const char *name, int flags)
{
	int fd = openat(dir, name, flags | O_CLOEXEC, 0644);

	if (fd < 0)
		die("open %s with flags %#x: %m", name, flags);
	return fd;
}

/* So many zeros. */
static void new_file(const char *name, off_t size)
{
	int fd = open_in(top, name, O_WRONLY | O_CREAT | O_EXCL);

	MUST(!ftruncate(fd, size));
	MUST(!close(fd));
}

/* Past the attributes that the kernel keeps: a request each time. */
static nlink_t links_of(int fd)
{
	struct statx st;

	MUST(!statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_NLINK, &st));
	return st.stx_nlink;
}

/* ---- direct ---- */

static uint64_t word_of(unsigned block, unsigned version, unsigned word)
{
	return version ? mix((uint64_t)block << 48 | (uint64_t)version << 16 | word) : 0;
}

/*
 * What was written before the read began must be seen, and nothing that was begun after it ended. A
 * block that is written meanwhile may be read half old and half new, as on any file system.
 */
static void read_block(int fd, uint64_t *buf, unsigned block)
{
	unsigned first = atomic_load(&shared->written[block]), last, v;
	ssize_t n = pread(fd, buf, BLOCK, (off_t)block * BLOCK);

	if (n != BLOCK)
		die("reading block %u gave %zd: %m", block, n);
	last = atomic_load(&shared->begun[block]);
	for (unsigned i = 0; i < WORDS; i++) {
		for (v = first; v <= last && buf[i] != word_of(block, v, i); v++)
			;
		if (v > last)
			die("block %u, byte %u: %#llx is of none of the versions %u to %u", block, i * 8,
			    (unsigned long long)buf[i], first, last);
	}
}

static void write_block(int fd, uint64_t *buf, unsigned block)
{
	unsigned version = atomic_fetch_add(&shared->begun[block], 1) + 1;
	ssize_t n;

	for (unsigned i = 0; i < WORDS; i++)
		buf[i] = word_of(block, version, i);
	n = pwrite(fd, buf, BLOCK, (off_t)block * BLOCK);
	if (n != BLOCK)
		die("writing block %u gave %zd: %m", block, n);
	atomic_store(&shared->written[block], version);
}

static void direct_prepare(void)
{
	new_file("direct", (off_t)BLOCKS * BLOCK);
}

static void direct(void)
{
	bool writer = me == 0;
	uint64_t *buf = aligned_alloc(BLOCK, BLOCK);
	int fd = -1;

	MUST(buf);
	for (step_now = 0; more(opt.steps * 4); step_now++) {
		/* Where data is passed through, little but an open needs the server. */
		if (fd < 0)
			fd = open_in(top, "direct", O_DIRECT | (writer ? O_WRONLY : O_RDONLY));
		(writer ? write_block : read_block)(fd, buf, below(BLOCKS));
		if (!below(8)) {
			close(fd);
			fd = -1;
		}
	}
	free(buf);
}

static void direct_judge(void)
{
	uint64_t *buf = aligned_alloc(BLOCK, BLOCK);
	int fd = open_in(top, "direct", O_RDONLY);

	MUST(buf);
	for (unsigned b = 0; b < BLOCKS; b++)
		read_block(fd, buf, b);
	free(buf);
	close(fd);
}

/* ---- locks ---- */

/*
 * Byte ranges exclude each other whoever owns them; flock(2) is apart. So each has a file of its own: of
 * a page that is dropped by an open and read while it is written to, the kernel may show the old bytes
 * once more after the write.
 */
static const char *const counters[] = { "ranges", "flocks" };

static const struct kind {
	const char *name;
	int set, wait;		/* 0: flock(2) */
	unsigned counter;
} kinds[] = {
	{ "posix", F_SETLK, F_SETLKW, 0 },
	{ "ofd", F_OFD_SETLK, F_OFD_SETLKW, 0 },
	{ "flock", 0, 0, 1 },
};

static void lock(const struct kind *k, int fd, bool wait)
{
	struct flock l = { .l_type = F_WRLCK, .l_len = 8 };
	int err;

	do {
		if (k->set)
			err = fcntl(fd, wait ? k->wait : k->set, &l);
		else
			err = flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB);
		if (err && (wait || (errno != EAGAIN && errno != EACCES)))
			die("%s lock: %m", k->name);
		if (err)
			sched_yield();
	} while (err);
}

static void unlock(const struct kind *k, int fd)
{
	struct flock l = { .l_type = F_UNLCK, .l_len = 8 };

	if (k->set ? fcntl(fd, k->set, &l) : flock(fd, LOCK_UN))
		die("%s unlock: %m", k->name);
}

static void locks_prepare(void)
{
	new_file(counters[0], 8);
	new_file(counters[1], 8);
}

static void locks(void)
{
	int fds[2] = { -1, -1 };

	for (step_now = 0; more(opt.steps); step_now++) {
		const struct kind *k = &kinds[below(3)];
		int *fd = &fds[k->counter];
		uint64_t count;

		if (*fd < 0)
			*fd = open_in(top, counters[k->counter], O_RDWR);
		lock(k, *fd, below(3));
		MUST(pread(*fd, &count, 8, 0) == 8);
		if (count != atomic_load(&shared->counted[k->counter]))
			die("%s: the counter is %llu, expected %llu", k->name, (unsigned long long)count,
			    atomic_load(&shared->counted[k->counter]));
		if (!below(4))
			sched_yield();
		atomic_store(&shared->counted[k->counter], ++count);
		MUST(pwrite(*fd, &count, 8, 0) == 8);
		/* The last close gives all locks back, too. */
		if (below(16)) {
			unlock(k, *fd);
		} else {
			close(*fd);
			*fd = -1;
		}
	}
}

static void locks_judge(void)
{
	uint64_t count[2];

	for (int i = 0; i < 2; i++) {
		int fd = open_in(top, counters[i], O_RDONLY);

		MUST(pread(fd, &count[i], 8, 0) == 8);
		close(fd);
	}
	if (count[0] + count[1] != (uint64_t)opt.procs * (uint64_t)opt.steps)
		die("%llu steps by byte ranges and %llu by flock were counted, expected %lld in all",
		    (unsigned long long)count[0], (unsigned long long)count[1],
		    (long long)opt.procs * opt.steps);
}

/* ---- maps ---- */

static void *mapped(int fd)
{
	void *map = mmap(NULL, PAGES * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	MUST(map != MAP_FAILED);
	return map;
}

static void maps_prepare(void)
{
	new_file("words", PAGES * BLOCK);
}

static void maps(void)
{
	for (step_now = 0; more(opt.steps / 4); step_now++) {
		int fd = open_in(top, "words", O_RDWR);
		_Atomic uint64_t *map = mapped(fd);

		/* A mapping outlives its descriptor. */
		close(fd);
		for (unsigned i = 0; i < ROUND; i++)
			atomic_fetch_add(&map[below(PAGES * WORDS)], 1);
		if (!below(8))
			MUST(!msync((void *)map, PAGES * BLOCK, MS_SYNC));
		MUST(!munmap((void *)map, PAGES * BLOCK));
	}
}

static void maps_judge(void)
{
	uint64_t expected = (uint64_t)opt.procs * (uint64_t)(opt.steps / 4) * ROUND;
	uint64_t words[PAGES * WORDS], sum = 0;
	int fd = open_in(top, "words", O_RDONLY);

	MUST(pread(fd, words, sizeof(words), 0) == (ssize_t)sizeof(words));
	for (unsigned i = 0; i < PAGES * WORDS; i++)
		sum += words[i];
	if (sum != expected)
		die("the words add up to %llu, expected %llu", (unsigned long long)sum,
		    (unsigned long long)expected);
	close(fd);
}

/* ---- unlinked ---- */

static void unlinked_file(int dir)
{
	char text[64], got[64];
	int fd = open_in(dir, "file", O_RDWR | O_CREAT | O_EXCL);
	int len = snprintf(text, sizeof(text), "process %d step %ld", me, step_now);
	struct stat st;

	MUST(write(fd, text, 5) == 5);
	MUST(!unlinkat(dir, "file", 0));
	MUST(links_of(fd) == 0);
	MUST(pwrite(fd, text + 5, (size_t)len - 5, 5) == len - 5);
	MUST(pread(fd, got, sizeof(got), 0) == len && !memcmp(got, text, (size_t)len));
	MUST(!ftruncate(fd, 4) && !fstat(fd, &st) && st.st_size == 4);
	MUST(faccessat(dir, "file", F_OK, 0) && errno == ENOENT);
	MUST(!close(fd));
}

static void unlinked_directory(int dir, const char *name)
{
	char path[256];
	struct dirent *e;
	int fd;
	DIR *d;

	MUST(!mkdirat(dir, name, 0755));
	fd = open_in(dir, name, O_PATH);
	MUST(!fchdir(fd));
	close(fd);
	MUST(!unlinkat(dir, name, AT_REMOVEDIR));
	fd = open_in(AT_FDCWD, ".", O_RDONLY | O_DIRECTORY);
	MUST(links_of(fd) == 0);
	MUST(openat(AT_FDCWD, "new", O_RDWR | O_CREAT, 0644) < 0 && errno == ENOENT);
	MUST(mkdir("new", 0755) && errno == ENOENT);
	MUST(!getcwd(path, sizeof(path)) && errno == ENOENT);
	MUST((d = fdopendir(fd)));
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			die("a directory that was removed lists %s", e->d_name);
	closedir(d);
	MUST(!fchdir(dir));
}

static void unlinked(void)
{
	char name[32];
	int dir;

	snprintf(name, sizeof(name), "own.%d", me);
	MUST(!mkdirat(top, name, 0755));
	dir = open_in(top, name, O_RDONLY | O_DIRECTORY);
	for (step_now = 0; more(opt.steps / 4); step_now++) {
		unlinked_file(dir);
		unlinked_directory(dir, "gone");
	}
	close(dir);
	MUST(!unlinkat(top, name, AT_REMOVEDIR));
}

/* ---- idle: a file of which the kernel has all it needs ---- */

/*
 * Opens, prints "opened" and waits for a line; then uses the file without any call that needs the
 * server, prints "used" and waits for another one; then looks by a call that does.
 */
static void idle(void)
{
	char *got = aligned_alloc(BLOCK, BLOCK), *map, line[8];
	int fd, direct_fd;

	MUST(got);
	new_file("idle", PAGES * BLOCK);
	fd = open_in(top, "idle", O_RDWR);
	direct_fd = open_in(top, "idle", O_RDWR | O_DIRECT);
	map = mapped(fd);
	/* The first write since the kernel was told of attributes asks for security.capability. */
	MUST(pwrite(fd, "", 1, 0) == 1);
	puts("opened");
	MUST(fgets(line, sizeof(line), stdin));
	for (step_now = 0; step_now < opt.steps; step_now++) {
		off_t at = (off_t)below(PAGES) * BLOCK;
		int c = 'a' + (int)below(26);

		memset(got, c, BLOCK);
		MUST(pwrite(below(2) ? fd : direct_fd, got, BLOCK, at) == BLOCK);
		memset(got, 0, BLOCK);
		MUST(pread(below(2) ? fd : direct_fd, got, BLOCK, at) == BLOCK);
		for (int i = 0; i < BLOCK; i++)
			if (got[i] != c || map[at + i] != c)
				die("byte %lld was read as %d and mapped as %d, expected %d",
				    (long long)at + i, got[i], map[at + i], c);
		map[at] = 'A';
		MUST(pread(direct_fd, got, BLOCK, at) == BLOCK && *got == 'A');
	}
	puts("used");
	MUST(fgets(line, sizeof(line), stdin));
	MUST(links_of(fd) == 1);
	puts("asked");
}

/* ---- main ---- */

static const struct part {
	const char *name;
	void (*prepare)(void);
	void (*child)(void);
	void (*judge)(void);
} parts[] = {
	{ "direct", direct_prepare, direct, direct_judge },
	{ "locks", locks_prepare, locks, locks_judge },
	{ "maps", maps_prepare, maps, maps_judge },
	{ "unlinked", NULL, unlinked, NULL },
};

static bool chosen(const struct part *p, const char *name)
{
	return !strcmp(name, p->name) || !strcmp(name, "all");
}

static void start(const struct part *p)
{
	what = p->name;
	if (p->prepare)
		p->prepare();
	for (int i = 0; i < opt.procs; i++) {
		pid_t pid = fork();

		MUST(pid >= 0);
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		me = i;
		state = mix((uint64_t)getpid());
		p->child();
		exit(0);
	}
}

static bool parse(int argc, char **argv)
{
	static const struct option options[] = {
		{ "procs", 1, NULL, 'p' }, { "steps", 1, NULL, 'n' }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'p')
			opt.procs = atoi(optarg);
		else if (c == 'n')
			opt.steps = atol(optarg);
		else
			return false;
	}
	return argc - optind == 2 && opt.procs >= 1 && opt.procs <= MAX_PROCS && opt.steps >= 4;
}

int main(int argc, char **argv)
{
	bool failed = false, known = false;
	const char *name;
	int status;

	setlinebuf(stdout);
	if (!parse(argc, argv)) {
		fprintf(stderr, "usage: clients WHAT [--procs 1..%d] [--steps 4..] DIR\n", MAX_PROCS);
		return 2;
	}
	name = argv[optind];
	top = open_in(AT_FDCWD, argv[optind + 1], O_RDONLY | O_DIRECTORY);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(shared != MAP_FAILED);
	if (!strcmp(name, "idle"))
		return idle(), 0;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (chosen(&parts[i], name))
			known = true, start(&parts[i]);
	while (wait(&status) > 0)
		failed |= status != 0;
	me = -1;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (!failed && chosen(&parts[i], name) && parts[i].judge)
			what = parts[i].name, parts[i].judge();
	if (!known)
		fprintf(stderr, "clients: no such part: %s\n", name);
	return failed || !known;
}
