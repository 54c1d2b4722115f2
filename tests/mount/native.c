/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* native DIRECTORY [DISK]: the engine native of libextfuse on a real mount, at DIRECTORY/mnt. DISK has blocks that
 * are reserved for root. */
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/statfs.h>
#include <sys/wait.h>

#include "tests/mount/cachefs.h"

static void attributes(void)
{
	struct file *a = by_name("a");
	unsigned before = upcalls();

	for (int i = 0; i < 100; i++)
		size_of("a");
	expect(upcalls() - before == 1, "no-upcall", "expected 1 upcall for 100 times stat, got %u",
	       upcalls() - before);
	change(a, 20, 'a');
	sees("cached", "a", 10, 0);
	expect(!extfuse_invalidate_node(x, a->nodeid, 0), "invalidate-node", "it failed");
	sees("changed-at-once", "a", 20, 1);
	sees("cached-again", "a", 20, 0);
	expect(extfuse_invalidate_node(x, 999999, 0) == 0, "invalidate-unknown", "it failed");
}

static void names(void)
{
	unsigned before;

	sees("absent", "none", -ENOENT, 1);
	before = upcalls();
	for (int i = 0; i < 50; i++)
		size_of("none");
	expect(upcalls() == before, "absent-no-upcall", "%u upcalls", upcalls() - before);
	pthread_mutex_lock(&lock);
	add("none", 7, 'n');
	pthread_mutex_unlock(&lock);
	sees("absent-cached", "none", -ENOENT, 0);
	expect(!extfuse_invalidate_entry(x, FUSE_ROOT_ID, "none"), "invalidate-entry", "it failed");
	/* the directory's attributes, too, are asked for anew */
	sees("appears-at-once", "none", 7, 2);
	pthread_mutex_lock(&lock);
	before = (unsigned)by_name("none")->nodeid;
	by_name("none")->name[0] = 0;
	pthread_mutex_unlock(&lock);
	sees("removed-cached", "none", 7, 0);
	expect(!extfuse_invalidate_deleted(x, FUSE_ROOT_ID, before, "none"), "invalidate-deleted",
	       "it failed");
	sees("removed-at-once", "none", -ENOENT, 2);
}

static void data(void)
{
	struct file *d = by_name("data");
	int fd = open("data", O_RDONLY);
	unsigned before;

	expect(first_of(fd) == 'd', "read", "got %c", first_of(fd));
	change(d, d->size, 'e');
	before = so_far(FUSE_READ);
	extfuse_invalidate_node(x, d->nodeid, EXTFUSE_KEEP_DATA);
	expect(first_of(fd) == 'd' && so_far(FUSE_READ) == before, "keep-data", "got %c after %u READs",
	       first_of(fd), so_far(FUSE_READ) - before);
	extfuse_invalidate_node(x, d->nodeid, 0);
	expect(first_of(fd) == 'e', "data-at-once", "got %c", first_of(fd));
	close(fd);
}

/* The same name leads elsewhere, and nothing but the epoch tells. */
static void epochs(unsigned minor)
{
	struct file *e = by_name("epoch");

	sees("epoch-first", "epoch", 30, 1);
	pthread_mutex_lock(&lock);
	e->name[0] = 0;
	add("epoch", 31, 'f');
	pthread_mutex_unlock(&lock);
	sees("epoch-cached", "epoch", 30, 0);
	if (minor < 44) {
		expect(extfuse_invalidate_all(x) == -ENOTSUP, "no-epoch", "expected ENOTSUP");
		return;
	}
	expect(!extfuse_invalidate_all(x), "invalidate-all", "it failed");
	sees("epoch-at-once", "epoch", 31, 1);
}

static void late(void)
{
	uint64_t stamp = extfuse_stamp(x);
	struct fuse_attr_out out = { .attr = { .mode = S_IFREG | 0644, .nlink = 1 } };

	/* the attributes of the first answer are not kept, those of the second are */
	sees("late", "late", 40, 2);
	sees("late-then-kept", "late", 40, 0);
	expect(!extfuse_put_attr(x, stamp, 777, &out, 0) && out.attr_valid == HOUR / 1000, "timely",
	       "timeout %llu", (unsigned long long)out.attr_valid);
	extfuse_invalidate_node(x, 777, 0);
	expect(extfuse_put_attr(x, stamp, 777, &out, 0) == -ESTALE && !out.attr_valid &&
		       !out.attr_valid_nsec,
	       "stale", "timeout %llu", (unsigned long long)out.attr_valid);
}

/*
 * Writes of nobody until there is no room: in a file system with blocks reserved for root, that is before it is full.
 * Returns what is free then.
 */
static unsigned long fill(const char *disk)
{
	static char block[1 << 16];
	char path[512];
	struct statfs fs = { 0 };
	struct file *p;
	int fd, id, status = -1;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/backing", disk);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	id = extfuse_backing_open(x, fd);
	pthread_mutex_lock(&lock);
	p = add("filled", 8, 'f');
	p->backing_id = id;
	p->mode = S_IFREG | 0666;
	pthread_mutex_unlock(&lock);
	pid = fork();
	if (!pid) {
		int out = open("filled", O_WRONLY);

		if (out < 0 || setgroups(0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
			_exit(1);
		while (write(out, block, sizeof(block)) > 0)
			;
		_exit(errno != ENOSPC || fsync(out));
	}
	waitpid(pid, &status, 0);
	expect(!status, "filled", "status %d", status);
	fstatfs(fd, &fs);
	extfuse_backing_close(x, id);
	close(fd);
	return fs.f_bfree;
}

/* A user writes to a file with set-id bits: the server's capabilities must not keep these. */
static void passing(const char *dir, const char *disk)
{
	char path[512], text[8] = "";
	struct stat st;
	struct statfs fs;
	unsigned before = so_far(FUSE_READ) + so_far(FUSE_WRITE);
	unsigned long left;
	struct file *p;
	pid_t pid;
	int fd, id, status = -1;

	if (!(init_flags & FUSE_PASSTHROUGH)) {
		printf("SKIP native/passthrough: the kernel has no FUSE_PASSTHROUGH\n");
		return;
	}
	if (disk && !statfs(disk, &fs)) {
		left = fill(disk);
		expect(left >= fs.f_bfree - fs.f_bavail && left > 100, "passed-reserved-blocks",
		       "%lu blocks are left, %lu are reserved", left, (unsigned long)(fs.f_bfree - fs.f_bavail));
	}
	expect(setfsuid((uid_t)-1) == 0, "registered-as-before", "it is %d now", setfsuid((uid_t)-1));
	snprintf(path, sizeof(path), "%s/backing", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0777);
	if (fd < 0 || fchmod(fd, 04777) || pwrite(fd, "backing", 7, 0) != 7)
		perror(path);
	id = extfuse_backing_open(x, fd);
	expect(id > 0, "backing-open", "got %d", id);
	expect(extfuse_backing_open(x, -1) == -EBADF, "backing-of-nothing", "not EBADF");
	pthread_mutex_lock(&lock);
	p = add("passed", 7, 'p');
	p->backing_id = id;
	p->mode = S_IFREG | 04777;
	pthread_mutex_unlock(&lock);
	pid = fork();
	if (!pid) {
		int in = open("passed", O_RDWR);

		_exit(in < 0 || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534) ||
		      pwrite(in, "B", 1, 0) != 1);
	}
	waitpid(pid, &status, 0);
	expect(!status, "passed-write", "status %d", status);
	expect(pread(fd, text, 7, 0) == 7 && !strcmp(text, "Backing"), "passed-data", "got %s", text);
	expect(so_far(FUSE_READ) + so_far(FUSE_WRITE) == before, "passed-no-upcall", "it was asked");
	expect(!fstat(fd, &st) && !(st.st_mode & S_ISUID), "passed-set-id", "mode %o", st.st_mode);
	expect(!extfuse_backing_close(x, id), "backing-close", "it failed");
	expect(extfuse_backing_close(x, id) == -ENOENT, "backing-close-again", "not ENOENT");
	close(fd);
}

int main(int argc, char **argv)
{
	unsigned minor;

	if (argc < 2 || argc > 3)
		return 2;
	add("a", 10, 'a');
	add("data", 4096, 'd');
	add("epoch", 30, 'e');
	add("late", 40, 'l')->late = 1;
	if (start(argv[1], EXTFUSE_ENGINE_NATIVE))
		return 1;
	expect(extfuse_engine(x) == EXTFUSE_ENGINE_NATIVE && strstr(log_text, "engine native"), "engine",
	       "log: %s", log_text);
	minor = strstr(log_text, "with epochs") ? 44 : 0;
	expect(extfuse_fds(x, NULL, 0) == 0, "no-descriptors", "some");
	expect(extfuse_put_xattr(x, 0, 1, "user.a", "", 0, 0) == -ENOTSUP, "no-xattrs", "it keeps one");
	attributes();
	names();
	data();
	epochs(minor);
	late();
	passing(argv[1], argv[2]);
	stop(argv[1]);
	return failed;
}
