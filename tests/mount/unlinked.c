/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unlinked DIR COUNT
 * Files, directories and O_PATH descriptors whose names are gone stay what they were, also when the
 * kernel has dropped what it had cached. COUNT of them at once.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int top;
static long failures;

__attribute__((format(printf, 1, 2))) static void wrong(const char *fmt, ...)
{
	va_list ap;

	if (failures++ >= 20)
		return;
	va_start(ap, fmt);
	fputs("unlinked: ", stdout);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	va_start(ap, fmt);
	fputs("unlinked: ", stdout);
	vprintf(fmt, ap);
	va_end(ap);
	printf(": %s\n", strerror(err));
	exit(1);
}

static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	if (fd < 0 || write(fd, "3\n", 2) != 2)
		die("drop_caches");
	close(fd);
}

static void text_of(char buf[64], long i)
{
	memset(buf, 0, 64);
	snprintf(buf, 64, "what file %ld holds", i);
}

static void check_file(int fd, long i, const char *when)
{
	char want[64], got[64] = "";
	struct stat st;

	text_of(want, i);
	if (pread(fd, got, 64, 0) != 64 || memcmp(want, got, 64))
		wrong("file %ld %s: read \"%.30s\", expected \"%s\": %m", i, when, got, want);
	if (fstat(fd, &st))
		wrong("file %ld %s: fstat: %m", i, when);
	else if (st.st_nlink || st.st_size != 64)
		wrong("file %ld %s: fstat says %u links and %lld bytes, expected 0 and 64", i, when,
		      (unsigned)st.st_nlink, (long long)st.st_size);
}

static void check_change(int fd, long i)
{
	char c = 'x';
	struct stat st;

	if (pwrite(fd, &c, 1, 100) != 1)
		wrong("file %ld: pwrite: %m", i);
	if (fchmod(fd, 0640))
		wrong("file %ld: fchmod: %m", i);
	if (fstat(fd, &st) || (st.st_mode & 07777) != 0640 || st.st_size != 101)
		wrong("file %ld: after fchmod and pwrite: mode %o, %lld bytes, expected 640 and 101", i,
		      st.st_mode & 07777, (long long)st.st_size);
	if (ftruncate(fd, 64) || fchmod(fd, 0644))
		wrong("file %ld: ftruncate or fchmod: %m", i);
}

/* An unlinked file opened again by its descriptor's name in /proc. */
static void check_reopen(int fd, long i, const char *what)
{
	char path[64], want[64], got[64] = "";
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDONLY | O_CLOEXEC);
	if (again < 0) {
		wrong("%s %ld: opening it again: %m", what, i);
		return;
	}
	text_of(want, i);
	if (pread(again, got, 64, 0) != 64 || memcmp(want, got, 64))
		wrong("%s %ld: opened again it reads \"%.30s\", expected \"%s\": %m", what, i, got, want);
	close(again);
}

static int make(long i, int flags)
{
	char name[32], text[64];
	int fd;

	snprintf(name, sizeof(name), "f%ld", i);
	text_of(text, i);
	fd = openat(top, name, flags | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, 64) != 64)
		die("creating %s", name);
	return fd;
}

static void remove_name(long i)
{
	char name[32];

	snprintf(name, sizeof(name), "f%ld", i);
	if (unlinkat(top, name, 0))
		die("unlink %s", name);
}

static void open_files(long count)
{
	int *fds = calloc((size_t)count, sizeof(int));

	for (long i = 0; i < count; i++)
		fds[i] = make(i, O_RDWR);
	for (long i = 0; i < count; i++)
		remove_name(i);
	for (long i = 0; i < count; i++)
		check_file(fds[i], i, "after unlink");
	drop_caches();
	for (long i = 0; i < count; i++)
		check_file(fds[i], i, "after drop_caches");
	for (long i = 0; i < count; i += 10) {
		check_change(fds[i], i);
		check_reopen(fds[i], i, "file");
	}
	/* New files take the place of what is freed: an old descriptor must not see them. */
	for (long i = 0; i < count; i += 2)
		close(fds[i]);
	for (long i = 0; i < count; i += 2)
		close(make(i, O_RDWR));
	drop_caches();
	for (long i = 1; i < count; i += 2)
		check_file(fds[i], i, "beside new files");
	for (long i = 0; i < count; i += 2)
		remove_name(i);
	for (long i = 1; i < count; i += 2)
		close(fds[i]);
	free(fds);
}

static void path_descriptors(long count)
{
	int *fds = calloc((size_t)count, sizeof(int));
	struct stat st;

	for (long i = 0; i < count; i++) {
		char name[32];

		close(make(i, O_RDWR));
		snprintf(name, sizeof(name), "f%ld", i);
		fds[i] = openat(top, name, O_PATH | O_CLOEXEC);
		if (fds[i] < 0)
			die("O_PATH of %s", name);
	}
	drop_caches();
	for (long i = 0; i < count; i++)
		remove_name(i);
	drop_caches();
	for (long i = 0; i < count; i++) {
		if (fstat(fds[i], &st))
			wrong("O_PATH descriptor %ld: fstat: %m", i);
		else if (st.st_nlink || st.st_size != 64)
			wrong("O_PATH descriptor %ld: fstat says %u links and %lld bytes, expected 0 and 64", i,
			      (unsigned)st.st_nlink, (long long)st.st_size);
		check_reopen(fds[i], i, "O_PATH descriptor");
	}
	for (long i = 0; i < count; i++)
		close(fds[i]);
	free(fds);
}

static void mappings(long count)
{
	char **maps = calloc((size_t)count, sizeof(*maps)), want[64];

	for (long i = 0; i < count; i++) {
		int fd = make(i, O_RDWR);

		maps[i] = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (maps[i] == MAP_FAILED)
			die("mmap");
		close(fd);
		remove_name(i);
	}
	drop_caches();
	for (long i = 0; i < count; i++) {
		text_of(want, i);
		if (memcmp(maps[i], want, 64))
			wrong("mapping %ld reads \"%.30s\", expected \"%s\"", i, maps[i], want);
		maps[i][70] = 'y';
		if (msync(maps[i], 4096, MS_SYNC))
			wrong("mapping %ld: msync: %m", i);
		munmap(maps[i], 4096);
	}
	free(maps);
}

/* rmdir beneath descriptors and working directories. */
static void directories(long count)
{
	int *fds = calloc((size_t)count, sizeof(int));
	struct stat st;

	for (long i = 0; i < count; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d%ld", i);
		if (mkdirat(top, name, 0755) || (fds[i] = openat(top, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
		    unlinkat(top, name, AT_REMOVEDIR))
			die("mkdir, open, rmdir %s", name);
	}
	drop_caches();
	for (long i = 0; i < count; i++) {
		int fd;

		if (fstat(fds[i], &st) || !S_ISDIR(st.st_mode) || st.st_nlink > 1)
			wrong("removed directory %ld: fstat: mode %o, %u links: %m", i, st.st_mode,
			      (unsigned)st.st_nlink);
		fd = openat(fds[i], "new", O_WRONLY | O_CREAT, 0644);
		if (fd >= 0 || errno != ENOENT)
			wrong("creating in removed directory %ld: expected ENOENT, got %s", i,
			      fd >= 0 ? "success" : strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	for (long i = 0; i < count; i++)
		close(fds[i]);
	free(fds);
}

static void working_directory(void)
{
	struct dirent *e;
	struct stat st;
	DIR *dir;

	if (mkdirat(top, "cwd", 0755) || fchdir(top) || chdir("cwd") || unlinkat(top, "cwd", AT_REMOVEDIR))
		die("a removed working directory");
	for (int round = 0; round < 2; round++) {
		if (stat(".", &st))
			wrong("stat of a removed working directory: %m");
		if (!stat("x", &st) || errno != ENOENT)
			wrong("stat below a removed working directory: expected ENOENT, got %m");
		if (mkdir("x", 0755) != -1 || errno != ENOENT)
			wrong("mkdir in a removed working directory: expected ENOENT, got %m");
		dir = opendir(".");
		if (!dir)
			wrong("opendir of a removed working directory: %m");
		while (dir && (errno = 0, e = readdir(dir)))
			if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
				wrong("a removed working directory lists %s", e->d_name);
		if (dir)
			closedir(dir);
		drop_caches();
	}
	if (fchdir(top) || stat(".", &st))
		wrong("back from a removed working directory: %m");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(long count);
		long part;
	} parts[] = {
		{ "open files", open_files, 1 },
		{ "O_PATH descriptors", path_descriptors, 1 },
		{ "mappings", mappings, 5 },
		{ "removed directories", directories, 5 },
	};
	long count = argc == 3 ? atol(argv[2]) : 0;
	struct rlimit lim;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (count < 10) {
		fprintf(stderr, "usage: unlinked DIR COUNT\n");
		return 2;
	}
	getrlimit(RLIMIT_NOFILE, &lim);
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
	top = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		die("%s", argv[1]);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		long before = failures;

		parts[i].run(count / parts[i].part);
		printf("unlinked: %ld %s: %ld wrong\n", count / parts[i].part, parts[i].name, failures - before);
	}
	working_directory();
	return failures != 0;
}
