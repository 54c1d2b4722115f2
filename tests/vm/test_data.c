/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* READ and WRITE by a backing file. */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/vm/rig.h"

#define SIZE 300000

static struct rig *r;
static char text[SIZE], got[SIZE + 100000];
static int backing;

static void put_passthru(uint64_t id)
{
	struct attr_value value = rig_attr_value(r, id);

	value.passthru = 1;
	rig_put_attr_value(r, id, &value);
}

static void test_read(const char *how, int flags)
{
	int fd = open(rig_path(r, "f"), O_RDONLY | flags);
	unsigned long before = rig_asked(r, FUSE_READ);
	char label[64];
	ssize_t n;

	memset(got, 1, sizeof(got));
	n = read(fd, got, sizeof(got));
	snprintf(label, sizeof(label), "read-%s", how);
	result(n == SIZE && !memcmp(got, text, SIZE) && rig_asked(r, FUSE_READ) == before, label,
		"%zd bytes, %s, asked %lu times", n, memcmp(got, text, SIZE) ? "other bytes" : "right",
		rig_asked(r, FUSE_READ) - before);
	n = pread(fd, got, 1000, 100001);
	snprintf(label, sizeof(label), "read-%s-part", how);
	result(n == 1000 && !memcmp(got, text + 100001, 1000), label, "%zd bytes", n);
	n = pread(fd, got, 1000, SIZE - 10);
	snprintf(label, sizeof(label), "read-%s-end", how);
	result(n == 10 && !memcmp(got, text + SIZE - 10, 10), label, "%zd bytes", n);
	close(fd);
}

static void test_map(void)
{
	int fd = open(rig_path(r, "f"), O_RDONLY);
	unsigned long before = rig_asked(r, FUSE_READ);
	char *map;
	bool zeros = true;

	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	map = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
	result(!memcmp(map, text, SIZE) && rig_asked(r, FUSE_READ) == before, "read-mapped",
		"%s, asked %lu times",
		memcmp(map, text, SIZE) ? "other bytes" : "right", rig_asked(r, FUSE_READ) - before);
	for (int i = SIZE; i < (SIZE + 4095) / 4096 * 4096; i++)
		zeros &= !map[i];
	result(zeros, "read-mapped-behind-end", "there is something");
	munmap(map, SIZE);
	close(fd);
}

static void test_write(const char *how, int flags)
{
	static char page[8192] __attribute__((aligned(4096)));
	int fd = open(rig_path(r, "f"), O_WRONLY | flags);
	unsigned long before = rig_asked(r, FUSE_WRITE);
	uint64_t stamp = rig_node_state(r, rig_id(r, "f"));
	char label[64];
	ssize_t n;

	memset(page, how[0], sizeof(page));
	put_passthru(rig_id(r, "f"));
	n = pwrite(fd, page, sizeof(page), 8192);
	memcpy(text + 8192, page, sizeof(page));
	snprintf(label, sizeof(label), "write-%s", how);
	pread(backing, got, sizeof(page), 8192);
	result(n == sizeof(page) && !memcmp(got, page, sizeof(page)) && rig_asked(r, FUSE_WRITE) == before,
		label,
		"%zd bytes, %s, asked %lu times", n, memcmp(got, page, sizeof(page)) ? "not there" : "there",
		rig_asked(r, FUSE_WRITE) - before);
	snprintf(label, sizeof(label), "write-%s-invalidates", how);
	result(rig_node_state(r, rig_id(r, "f")) > stamp && !(rig_node_state(r, rig_id(r,
		"f")) & EXTFUSE_WORD_BUSY),
		label, "the word is %llx", (unsigned long long)rig_node_state(r, rig_id(r, "f")));
	close(fd);
}

static void test_set_id(void)
{
	struct stat st;
	int fd = open(rig_path(r, "f"), O_WRONLY), status;
	pid_t child;

	fchmod(backing, 06777);
	put_passthru(rig_id(r, "f"));
	child = fork();
	if (!child) {
		if (setgid(1000) || setuid(1000) || pwrite(fd, "x", 1, 0) != 1)
			_exit(1);
		_exit(0);
	}
	waitpid(child, &status, 0);
	fstat(backing, &st);
	result(!status && !(st.st_mode & 06000), "write-drops-set-id", "status %d, mode %o", status,
		st.st_mode);
	text[0] = 'x';
	close(fd);
}

static void test_registration(void)
{
	uint64_t id = rig_id(r, "f");
	int append = open("/tmp/backing", O_RDWR | O_APPEND), dir = open("/tmp", O_RDONLY);
	int own = open(rig_path(r, "f"), O_RDONLY);
	unsigned long before;

	result(rig_backing(r, id, append) == EINVAL, "backing-append", "taken");
	result(rig_backing(r, id, dir) == EINVAL, "backing-directory", "taken");
	result(rig_backing(r, id, own) == ELOOP, "backing-fuse", "taken");
	result(rig_backing(r, id, 9999) == EBADF, "backing-closed", "taken");
	result(rig_backing(r, id, -1) == 0, "backing-removed", "not");
	before = rig_asked(r, FUSE_READ);
	posix_fadvise(own, 0, 0, POSIX_FADV_DONTNEED);
	pread(own, got, 100, 0);
	result(rig_asked(r, FUSE_READ) > before, "backing-gone-asks", "not asked");
	close(append);
	close(dir);
	close(own);
}

/* Frozen again and again while it is written to: neither waits for the other for good. */
static void freeze_all_the_time(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY);

	for (int i = 0; i < 200; i++) {
		if (ioctl(fd, FIFREEZE, 0) || ioctl(fd, FITHAW, 0))
			_exit(1);
		usleep(500);
	}
	_exit(0);
}

static void test_frozen(void)
{
	uint64_t id = rig_id(r, "f");
	int fd = open(rig_path(r, "f"), O_WRONLY), other, status = -1, ended = 0;
	unsigned long before, writes = 0;
	pid_t child;

	if (system("mkdir -p /tmp/frozen && truncate -s 16M /tmp/image && mkfs.ext4 -q /tmp/image && "
		   "mount -o loop /tmp/image /tmp/frozen"))
		fatal("an ext4");
	other = open("/tmp/frozen/f", O_RDWR | O_CREAT, 0600);
	if (rig_backing(r, id, other))
		fatal("backing on ext4");
	put_passthru(id);
	before = rig_asked(r, FUSE_WRITE);
	child = fork();
	if (!child)
		freeze_all_the_time("/tmp/frozen");
	for (; !ended; writes++) {
		if (pwrite(fd, "x", 1, 0) != 1)
			break;
		put_passthru(id);
		ended = waitpid(child, &status, WNOHANG);
	}
	result(ended == child && !status, "write-while-frozen", "status %x, %lu writes, errno %d", status, writes, errno);
	result(rig_asked(r, FUSE_WRITE) == before, "write-while-frozen-not-asked", "asked");
	rig_backing(r, id, -1);
	close(other);
	close(fd);
	if (system("umount /tmp/frozen && rm /tmp/image"))
		fatal("umount");
}

void test_data(void)
{
	uint64_t id;

	r = rig_new("data");
	rig_file(r, "f");
	chmod(rig_path(r, "f"), 0777);
	id = rig_id(r, "f");
	for (int i = 0; i < SIZE; i++)
		text[i] = i * 31 + i / 256;
	backing = open("/tmp/backing", O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (pwrite(backing, text, SIZE, 0) != SIZE || truncate(rig_path(r, "f"), SIZE))
		fatal("backing file");
	if (rig_program(r, FUSE_READ, "passthru", 0) || rig_program(r, FUSE_WRITE, "passthru", 0) ||
	    rig_backing(r, id, backing))
		fatal("backing");
	put_passthru(id);
	test_read("cached", 0);
	test_map();
	test_read("direct", O_DIRECT);
	test_write("cached", 0);
	test_write("direct", O_DIRECT);
	test_write("synchronous", O_SYNC);
	test_read("again", O_DIRECT);
	test_set_id();
	test_frozen();
	test_registration();
	close(backing);
	unlink("/tmp/backing");
	rig_free(r);
}
