/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* read(2) past the kernel's cache of what a backing file has: no request is made. */
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "tests/vm/rig.h"

#define SIZE 300000
#define PAGE 4096

static struct rig *r;
static char text[SIZE], got[SIZE];
static int backing, fd;
static uint64_t id;

static void pass(bool on)
{
	struct attr_value value = rig_attr_value(r, id);

	value.passthru = on;
	rig_put_attr_value(r, id, &value);
}

static void test_places(void)
{
	unsigned long before = rig_asked(r, FUSE_READ);
	unsigned long long passed = rig_stats(r, FUSE_READ).passthru;
	char *nowhere = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec parts[3] = { { got, 10 }, { got + 10, PAGE }, { got + 10 + PAGE, 77 } };

	result(read(fd, got, 1000) == 1000 && read(fd, got + 1000, 1) == 1 && read(fd, got + 1001, 5000) == 5000 &&
		!memcmp(got, text, 6001) && lseek(fd, 0, SEEK_CUR) == 6001, "direct-offset", "at %ld",
		(long)lseek(fd, 0, SEEK_CUR));
	memset(got, 0, sizeof(got));
	result(preadv(fd, parts, 3, 5) == 87 + PAGE && !memcmp(got, text + 5, 87 + PAGE), "direct-parts", "errno %d", errno);
	result(pread(fd, got, 10, SIZE) == 0 && pread(fd, got, 10, SIZE + 100000) == 0, "direct-behind-end", "errno %d", errno);
	errno = 0;
	result(pread(fd, nowhere, 100, 0) == -1 && errno == EFAULT, "direct-bad-address", "errno %d", errno);
	result(rig_asked(r, FUSE_READ) == before && rig_stats(r, FUSE_READ).passthru >= passed + 4, "direct-not-asked",
		"asked %lu times", rig_asked(r, FUSE_READ) - before);
	munmap(nowhere, PAGE);
}

/* The pages that it is read into are those of the file itself, and not there yet. */
static void test_own_pages(void)
{
	int other = open(rig_path(r, "f"), O_RDWR);
	char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);

	if (map == MAP_FAILED)
		fatal("map");
	result(pread(fd, map + 10 * PAGE, PAGE, 3 * PAGE) == PAGE && !memcmp(map + 10 * PAGE, text + 3 * PAGE, PAGE),
		"direct-into-own-pages", "errno %d", errno);
	munmap(map, SIZE);
	close(other);
}

/* Reads while others write, and while the pages that they read into are taken away. */
static void test_writers(void)
{
	char *into = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, open(rig_path(r, "f"), O_RDWR), 0);
	pid_t child = fork();
	int status = -1, bad = 0;

	if (!child) {
		int out = open(rig_path(r, "f"), O_WRONLY | O_DIRECT);
		static char page[PAGE] __attribute__((aligned(PAGE)));

		for (int i = 0; i < 300; i++) {
			memset(page, 'a' + i % 26, PAGE);
			if (pwrite(out, page, PAGE, 20 * PAGE) != PAGE)
				_exit(1);
			pass(true);
		}
		_exit(0);
	}
	while (!waitpid(child, &status, WNOHANG)) {
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		madvise(into, PAGE, MADV_DONTNEED);
		bad += pread(fd, into, PAGE, 20 * PAGE) != PAGE;
	}
	result(!status && !bad, "direct-while-written", "status %x, %d times short, errno %d", status, bad, errno);
	munmap(into, PAGE);
}

static void test_for_server(void)
{
	unsigned long before;

	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	pass(false);
	before = rig_asked(r, FUSE_READ);
	pread(fd, got, 100, 0);
	result(rig_asked(r, FUSE_READ) == before + 1, "direct-upcall", "asked %lu times", rig_asked(r, FUSE_READ) - before);
	pass(true);
	before = rig_asked(r, FUSE_READ);
	pread(fd, got, 100, 0);
	result(rig_asked(r, FUSE_READ) == before, "direct-again", "asked");
	rig_backing(r, id, -1);
	pread(fd, got, 100, 0);
	result(rig_asked(r, FUSE_READ) == before + 1, "direct-no-file", "asked %lu times", rig_asked(r, FUSE_READ) - before);
}

void test_direct(void)
{
	r = rig_new("direct");
	rig_file(r, "f");
	id = rig_id(r, "f");
	for (int i = 0; i < SIZE; i++)
		text[i] = i * 31 + i / 256;
	backing = open("/tmp/backing", O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (pwrite(backing, text, SIZE, 0) != SIZE || truncate(rig_path(r, "f"), SIZE))
		fatal("backing file");
	if (rig_program(r, FUSE_READ, "passthru", 0) || rig_program(r, FUSE_WRITE, "passthru", 0) ||
	    rig_backing(r, id, backing))
		fatal("backing");
	pass(true);
	fd = open(rig_path(r, "f"), O_RDONLY | O_DIRECT);
	test_places();
	test_own_pages();
	pass(true);
	test_writers();
	test_for_server();
	close(fd);
	close(backing);
	unlink("/tmp/backing");
	rig_free(r);
}
