/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * operations [--only files|locks|NAME] MOUNTPOINT
 * Each operation of a file system, once for each numbered step of the server that serves it: there the
 * server dies (killpoint.h). The caller must see what it would see otherwise, and so must who looks
 * afterwards. An upgrade is done by its name only, since the keeper may die of it. The server has to be
 * built with --enable-kill-points.
 */
#define _LARGEFILE64_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "host/host.h"
#include "programs/control.h"
#include "tests/crash/operations.h"

#define MOST_STEPS 4000

struct mount_entry mounted;
int fd = -1, fd2 = -1;
char why[256];

static bool put(const char *name, const char *text)
{
	int f = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	MUST(f >= 0 && write(f, text, strlen(text)) == (ssize_t)strlen(text) && !close(f));
	return true;
}

static bool has(const char *name, const char *text)
{
	char got[256] = "";
	int f = open(name, O_RDONLY | O_CLOEXEC);

	MUST(f >= 0 && read(f, got, sizeof(got) - 1) >= 0 && !close(f));
	MUST(!strcmp(got, text));
	return true;
}

static bool is(const char *name, mode_t type, nlink_t links)
{
	struct stat st;

	MUST(!lstat(name, &st));
	MUST((st.st_mode & S_IFMT) == type);
	MUST(!links || st.st_nlink == links);
	return true;
}

static bool gone(const char *name)
{
	struct stat st;

	MUST(lstat(name, &st) && errno == ENOENT);
	return true;
}

static bool nothing(void)
{
	return true;
}

static bool file_a(void)
{
	return put("a", "alpha");
}

static bool files_a_b(void)
{
	return put("a", "alpha") && put("b", "beta");
}

bool opened_a(void)
{
	MUST(file_a());
	fd = open("a", O_RDWR | O_CLOEXEC);
	MUST(fd >= 0);
	return true;
}

static bool do_create(void)
{
	fd = open("a", O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0640);
	MUST(fd >= 0 && write(fd, "alpha", 5) == 5);
	return true;
}

static bool see_a(void)
{
	return is("a", S_IFREG, 1) && has("a", "alpha");
}

static bool do_mkdir(void)
{
	MUST(!mkdir("a", 0750));
	return true;
}

static bool see_dir(void)
{
	return is("a", S_IFDIR, 0);
}

static bool do_mknod(void)
{
	MUST(!mkfifo("a", 0600));
	return true;
}

static bool see_fifo(void)
{
	return is("a", S_IFIFO, 1);
}

static bool do_symlink(void)
{
	MUST(!symlink("target", "a"));
	return true;
}

static bool see_symlink(void)
{
	char target[32] = "";

	MUST(readlink("a", target, sizeof(target) - 1) == 6 && !strcmp(target, "target"));
	return true;
}

static bool do_link(void)
{
	MUST(!link("a", "b"));
	return true;
}

static bool see_link(void)
{
	return is("a", S_IFREG, 2) && is("b", S_IFREG, 2) && has("b", "alpha");
}

static bool do_unlink(void)
{
	MUST(!unlink("a"));
	return true;
}

static bool see_gone(void)
{
	return gone("a");
}

static bool made_dir(void)
{
	return do_mkdir();
}

static bool do_rmdir(void)
{
	MUST(!rmdir("a"));
	return true;
}

static bool do_rename(void)
{
	MUST(!rename("a", "b"));
	return true;
}

static bool see_renamed(void)
{
	return gone("a") && is("b", S_IFREG, 1) && has("b", "alpha");
}

static bool do_noreplace(void)
{
	MUST(!renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
	return true;
}

static bool do_exchange(void)
{
	MUST(!renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE));
	return true;
}

static bool see_exchanged(void)
{
	return has("a", "beta") && has("b", "alpha");
}

static bool do_whiteout(void)
{
	MUST(!renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_WHITEOUT));
	return true;
}

static bool see_whiteout(void)
{
	return is("a", S_IFCHR, 1) && has("b", "alpha");
}

static bool appending_a(void)
{
	MUST(file_a());
	fd = open("a", O_WRONLY | O_APPEND | O_CLOEXEC);
	MUST(fd >= 0);
	return true;
}

static bool do_append(void)
{
	MUST(write(fd, "-more", 5) == 5);
	return true;
}

static bool see_appended(void)
{
	return has("a", "alpha-more");
}

static bool do_write(void)
{
	MUST(pwrite(fd, "ALP", 3, 0) == 3);
	return true;
}

static bool see_written(void)
{
	return has("a", "ALPha");
}

static bool do_read(void)
{
	char got[16] = "";

	MUST(pread(fd, got, sizeof(got), 0) == 5 && !strcmp(got, "alpha"));
	return true;
}

static bool do_truncate(void)
{
	MUST(!ftruncate(fd, 2));
	return true;
}

static bool see_truncated(void)
{
	return has("a", "al");
}

static bool do_open_trunc(void)
{
	fd = open("a", O_WRONLY | O_TRUNC | O_CLOEXEC);
	MUST(fd >= 0);
	return true;
}

static bool see_empty(void)
{
	return has("a", "");
}

static bool do_fallocate(void)
{
	struct stat st;

	MUST(!fallocate(fd, 0, 0, 8192) && !fstat(fd, &st) && st.st_size == 8192);
	return true;
}

static bool do_punch(void)
{
	MUST(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1, 2));
	return true;
}

static bool see_punched(void)
{
	char got[5];

	MUST(pread(fd, got, 5, 0) == 5 && !memcmp(got, "a\0\0ha", 5));
	return true;
}

static bool do_setxattr(void)
{
	MUST(!setxattr("a", "user.one", "1", 1, XATTR_CREATE));
	return true;
}

static bool see_xattr(void)
{
	char got[8];

	MUST(getxattr("a", "user.one", got, sizeof(got)) == 1 && *got == '1');
	return true;
}

static bool file_a_xattr(void)
{
	return file_a() && do_setxattr();
}

static bool do_setxattr_again(void)
{
	MUST(setxattr("a", "user.one", "1", 1, XATTR_CREATE) && errno == EEXIST);
	return true;
}

static bool do_removexattr(void)
{
	MUST(!removexattr("a", "user.one"));
	return true;
}

static bool do_removexattr_absent(void)
{
	MUST(removexattr("a", "user.one") && errno == ENODATA);
	return true;
}

static bool see_no_xattr(void)
{
	char got[8];

	MUST(getxattr("a", "user.one", got, sizeof(got)) < 0 && errno == ENODATA);
	return true;
}

static bool do_chmod(void)
{
	MUST(!chmod("a", 0604));
	return true;
}

static bool see_mode(void)
{
	struct stat st;

	MUST(!stat("a", &st) && (st.st_mode & 07777) == 0604);
	return true;
}

static bool many(void)
{
	char name[32];

	for (int i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "file.%d", i);
		MUST(put(name, ""));
	}
	return true;
}

static bool do_list(void)
{
	bool seen[60] = { false };
	DIR *d = opendir(".");
	struct dirent *e;
	int n, count = 0;

	MUST(d);
	while ((e = readdir(d)))
		if (sscanf(e->d_name, "file.%d", &n) == 1 && n >= 0 && n < 60 && !seen[n])
			seen[n] = true, count++;
	closedir(d);
	MUST(count == 60);
	return true;
}

static bool do_tmpfile(void)
{
	char path[40];

	fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	MUST(fd >= 0 && write(fd, "alpha", 5) == 5);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	MUST(!linkat(AT_FDCWD, path, AT_FDCWD, "a", AT_SYMLINK_FOLLOW));
	return true;
}

static bool opened_a_b(void)
{
	MUST(opened_a() && put("b", ""));
	fd2 = open("b", O_RDWR | O_CLOEXEC);
	MUST(fd2 >= 0);
	return true;
}

static bool do_copy(void)
{
	off64_t from = 0, to = 0;

	MUST(copy_file_range(fd, &from, fd2, &to, 5, 0) == 5);
	return true;
}

static bool see_copied(void)
{
	return has("b", "alpha");
}

static bool unlinked_a(void)
{
	return opened_a() && do_unlink();
}

static bool do_unlinked(void)
{
	char got[16] = "";

	MUST(pwrite(fd, "OMEGA", 5, 5) == 5 && pread(fd, got, 10, 0) == 10 && !strcmp(got, "alphaOMEGA"));
	return true;
}

static bool upgrade(void)
{
	return do_upgrade() && do_unlinked();
}

static bool upgrade_late(void)
{
	return do_upgrade_late() && do_unlinked();
}

static bool do_close(void)
{
	int f = fd;

	fd = -1;
	MUST(!close(f));
	return true;
}

static bool do_open(void)
{
	fd = open("a", O_RDONLY | O_CLOEXEC);
	MUST(fd >= 0);
	return do_read();
}

static bool do_flock(void)
{
	MUST(!flock(fd, LOCK_EX) && !flock(fd, LOCK_UN));
	return true;
}

static bool do_lock(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_len = 3 };

	MUST(!fcntl(fd, F_SETLK, &l));
	l.l_type = F_UNLCK;
	MUST(!fcntl(fd, F_SETLK, &l));
	l.l_type = F_WRLCK;
	MUST(!fcntl(fd, F_OFD_SETLK, &l));
	return true;
}

static bool do_stat(void)
{
	struct stat st;

	/* A name that the kernel does not know yet is looked up. */
	MUST(!stat("a", &st) && st.st_size == 5);
	return true;
}

static bool do_absent(void)
{
	return gone("absent");
}

static bool do_mmap(void)
{
	char *p = mmap(NULL, 5, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	MUST(p != MAP_FAILED);
	p[0] = 'A';
	MUST(!msync(p, 5, MS_SYNC) && !munmap(p, 5));
	return true;
}

static bool see_mapped(void)
{
	return has("a", "Alpha");
}

static bool do_fsync(void)
{
	MUST(!fsync(fd));
	return true;
}

static bool do_ioctl(void)
{
	int flags;

	/* Not every source has them; what matters is that the answer comes. */
	MUST(!ioctl(fd, FS_IOC_GETFLAGS, &flags) || errno == ENOTTY || errno == EOPNOTSUPP);
	return true;
}

static const struct operation operations[] = {
	{ "lookup", file_a, do_stat, see_a },
	{ "absent", nothing, do_absent, nothing },
	{ "create", nothing, do_create, see_a },
	{ "mkdir", nothing, do_mkdir, see_dir },
	{ "mknod", nothing, do_mknod, see_fifo },
	{ "symlink", nothing, do_symlink, see_symlink },
	{ "link", file_a, do_link, see_link },
	{ "unlink", file_a, do_unlink, see_gone },
	{ "unlink-open", opened_a, do_unlink, see_gone },
	{ "rmdir", made_dir, do_rmdir, see_gone },
	{ "rename", file_a, do_rename, see_renamed },
	{ "rename-over", files_a_b, do_rename, see_renamed },
	{ "rename-noreplace", file_a, do_noreplace, see_renamed },
	{ "rename-exchange", files_a_b, do_exchange, see_exchanged },
	{ "rename-whiteout", file_a, do_whiteout, see_whiteout },
	{ "open", file_a, do_open, see_a },
	{ "open-truncate", file_a, do_open_trunc, see_empty },
	{ "read", opened_a, do_read, see_a },
	{ "write", opened_a, do_write, see_written },
	{ "append", appending_a, do_append, see_appended },
	{ "mmap", opened_a, do_mmap, see_mapped },
	{ "truncate", opened_a, do_truncate, see_truncated },
	{ "fallocate", opened_a, do_fallocate, nothing },
	{ "punch", opened_a, do_punch, see_punched },
	{ "copy", opened_a_b, do_copy, see_copied },
	{ "fsync", opened_a, do_fsync, see_a },
	{ "ioctl", opened_a, do_ioctl, see_a },
	{ "flock", opened_a, do_flock, see_a },
	{ "lock", opened_a, do_lock, see_a },
	{ "close", opened_a, do_close, see_a },
	{ "setxattr", file_a, do_setxattr, see_xattr },
	{ "setxattr-exists", file_a_xattr, do_setxattr_again, see_xattr },
	{ "removexattr", file_a_xattr, do_removexattr, see_no_xattr },
	{ "removexattr-absent", file_a, do_removexattr_absent, see_no_xattr },
	{ "chmod", file_a, do_chmod, see_mode },
	{ "list", many, do_list, nothing },
	{ "tmpfile", nothing, do_tmpfile, see_a },
	{ "unlinked", unlinked_a, do_unlinked, see_gone },
	{ "upgrade", unlinked_a, upgrade, see_gone },
	{ "upgrade-late", unlinked_a, upgrade_late, see_gone },
};

static bool upgrades(const struct operation *op)
{
	return op->act == upgrade || op->act == upgrade_late;
}

/* "kill N": the N-th step from now on is deadly, in an upgrade for whichever process takes it. Returns the
 * count of steps. */
static uint64_t kill_in(const struct operation *op, unsigned n)
{
	char command[32], answer[64] = "";

	snprintf(command, sizeof(command), "kill%s %u\n", upgrades(op) ? "-any" : "", n);
	for (int tries = 0; tries < 2000 && (control_ask(&mounted, command, answer, sizeof(answer)) || !*answer); tries++)
		usleep(5000);
	if (*answer < '0' || *answer > '9') {
		fprintf(stderr, "operations: the server does not take \"kill\": it is not built with kill points\n");
		exit(77);
	}
	return strtoull(answer, NULL, 10);
}

/* Returns whether the server died, -1 where something was not as it should be. */
static int one_death(const struct operation *op, unsigned step)
{
	char dir[64];
	uint64_t at;
	bool good;

	snprintf(dir, sizeof(dir), "%s.%u", op->name, step);
	fd = fd2 = -1;
	*why = 0;
	if (mkdir(dir, 0755) || chdir(dir) || !op->before()) {
		printf("FAIL operations/%s: preparing step %u: %s\n", op->name, step, *why ? why : strerror(errno));
		return -1;
	}
	at = kill_in(op, step) + step;
	good = op->act();
	/* What follows without an answer, as RELEASE does. */
	usleep(2000);
	if (good)
		good = op->after();
	other_end();
	if (fd >= 0)
		close(fd);
	if (fd2 >= 0)
		close(fd2);
	if (chdir("..") && good) {
		snprintf(why, sizeof(why), "and a moment later: %s", strerror(errno));
		good = false;
	}
	if (!good) {
		printf("FAIL operations/%s: with a death at step %u: %s\n", op->name, step, why);
		return -1;
	}
	return kill_in(op, 0) >= at;
}

/* Else the kernel keeps the locks of the mount, and asks nobody. */
static bool asked_for_locks(void)
{
	char status[16384];

	return !control_ask(&mounted, FE_CONTROL_STATUS, status, sizeof(status)) &&
	       strstr(status, "\"locks\":\"source\"");
}

/* Whether all was well. */
static bool all_deaths(const struct operation *op, bool asks)
{
	unsigned step = 0;
	int died = 1;

	while (died == 1 && step < MOST_STEPS)
		died = one_death(op, ++step);
	if (died < 0)
		return false;
	if (asks && step < 3) {
		printf("FAIL operations/%s: only %u steps\n", op->name, step);
		return false;
	}
	printf("ok operations/%s (%u steps)\n", op->name, step - 1);
	return true;
}

static bool wanted(const struct operation *op, bool lock, const char *only)
{
	if (!only || !strcmp(only, "files"))
		return !upgrades(op) && !(only && lock);
	return !strcmp(only, op->name) || (lock && !strcmp(only, "locks"));
}

int main(int argc, char **argv)
{
	const char *only = argc == 4 && !strcmp(argv[1], "--only") ? argv[2] : NULL;
	const char *mountpoint = argv[argc - 1];
	const size_t n = sizeof(operations) / sizeof(operations[0]);
	bool well = true, any = false, locks;

	setlinebuf(stdout);
	umask(022);
	if (argc < 2 || mountinfo_lookup(mountpoint, &mounted) || chdir(mountpoint)) {
		fprintf(stderr, "usage: operations [--only files|locks|NAME] MOUNTPOINT\n");
		return 2;
	}
	locks = asked_for_locks();
	for (size_t i = 0; i < n + n_lock_operations; i++) {
		const struct operation *op = i < n ? &operations[i] : &lock_operations[i - n];

		if (!wanted(op, i >= n, only))
			continue;
		any = true;
		well &= all_deaths(op, i < n || locks);
	}
	if (!any) {
		fprintf(stderr, "operations: there is no operation %s\n", only);
		return 2;
	}
	return !well;
}
