/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A client of memfs: does what applications do, and knows what must come of it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/crash/memfs.h"

uint64_t memfs_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static struct memfs *fs;
static unsigned client;
static uint64_t seed, step;

static void must(bool holds, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void must(bool holds, const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	if (holds)
		return;
	va_start(ap, fmt);
	printf("FAIL mount: client %u, step %llu, FE_SEED=%llu: ", client, (unsigned long long)step,
	       (unsigned long long)seed);
	vprintf(fmt, ap);
	printf(": %s\n", strerror(err));
	va_end(ap);
	fflush(stdout);
	__atomic_add_fetch(&fs->state->failed, 1, __ATOMIC_SEQ_CST);
	_exit(1);
}

static void fill(unsigned char *buf, size_t size, uint64_t of)
{
	for (size_t i = 0; i < size; i++)
		buf[i] = (unsigned char)(of * 31 + i * 7 + (i >> 8));
}

static void check_file(const char *path, const unsigned char *want, size_t size)
{
	static unsigned char got[65536];
	int fd = open(path, O_RDONLY);
	size_t n = 0;
	ssize_t part;

	must(fd >= 0, "open %s", path);
	while ((part = read(fd, got + n, sizeof(got) - n)) > 0)
		n += (size_t)part;
	must(part == 0, "read %s", path);
	must(n == size && !memcmp(got, want, size), "%s has %zu bytes, expected %zu, or other ones", path, n, size);
	must(!close(fd), "close");
}

/* A file is made, written, appended to, shortened, renamed, read and removed. */
static void life_of_a_file(uint64_t r)
{
	static unsigned char data[65536];
	char a[64], b[64];
	size_t size = r % 12000 + 1, more;
	struct stat st;
	int fd;

	snprintf(a, sizeof(a), "file-%llu", (unsigned long long)step);
	snprintf(b, sizeof(b), "sub/moved-%llu", (unsigned long long)(step % 8));
	fill(data, sizeof(data), step);
	fd = open(a, O_RDWR | O_CREAT | O_EXCL, 0644);
	must(fd >= 0, "create %s", a);
	must(write(fd, data, size) == (ssize_t)size, "write");
	must(!close(fd), "close");
	fd = open(a, O_WRONLY | O_APPEND);
	must(fd >= 0, "open for append");
	for (int i = 0; i < 5; i++) {
		more = (r >> (8 + i)) % 3000 + 1;
		must(write(fd, data + size, more) == (ssize_t)more, "append");
		size += more;
	}
	must(!fstat(fd, &st) && (size_t)st.st_size == size, "size %lld after appends, expected %zu",
	     (long long)st.st_size, size);
	check_file(a, data, size);
	must(open(a, O_RDWR | O_CREAT | O_EXCL, 0644) < 0 && errno == EEXIST, "O_EXCL of what exists");
	must(!rename(a, b), "rename");
	must(stat(a, &st) < 0 && errno == ENOENT, "what was renamed is still there");
	check_file(b, data, size);
	size /= 2;
	must(!truncate(b, (off_t)size), "truncate");
	check_file(b, data, size);
	must(!unlink(b), "unlink");
	must(unlink(b) < 0 && errno == ENOENT, "unlink of what is gone");
	/* still open, without a name */
	must(write(fd, data, 10) == 10, "write to an unlinked file");
	must(!fstat(fd, &st) && (size_t)st.st_size == size + 10 && !st.st_nlink,
	     "an unlinked file has %lld bytes, %u names", (long long)st.st_size, (unsigned)st.st_nlink);
	must(!close(fd), "close");
}

static void directories(void)
{
	char name[64];
	unsigned seen = 0;
	struct dirent *d;
	DIR *dir;

	must(!mkdir("dir", 0755), "mkdir");
	must(mkdir("dir", 0755) < 0 && errno == EEXIST, "mkdir of what exists");
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "dir/%d", i);
		must(!mkdir(name, 0700), "mkdir %s", name);
	}
	must(rmdir("dir") < 0 && errno == ENOTEMPTY, "rmdir of what is not empty");
	dir = opendir("dir");
	must(dir != NULL, "opendir");
	while ((errno = 0, d = readdir(dir)))
		seen += d->d_name[0] != '.';
	must(!errno && seen == 20, "%u names in a directory, expected 20", seen);
	must(!closedir(dir), "closedir");
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "dir/%d", i);
		must(!rmdir(name), "rmdir %s", name);
	}
	must(!rmdir("dir"), "rmdir");
}

void memfs_load(struct memfs *of, unsigned number, uint64_t random_seed)
{
	uint64_t r = random_seed + number;
	char name[512];

	fs = of;
	client = number;
	seed = random_seed;
	snprintf(name, sizeof(name), "%s/client-%u", fs->mountpoint, client);
	must(!mkdir(name, 0755) && !chdir(name) && !mkdir("sub", 0755), "mkdir");
	while (!__atomic_load_n(&fs->state->leave, __ATOMIC_SEQ_CST)) {
		step++;
		life_of_a_file(memfs_random(&r));
		if (step % 10 == 0)
			directories();
	}
	must(!rmdir("sub") && !chdir("/") && !rmdir(name), "rmdir at the end");
	_exit(0);
}
