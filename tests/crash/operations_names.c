/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names and what is noted with a file: made, moved, removed, listed, changed. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/crash/operations.h"

static bool files_a_b(void)
{
	return put("a", "alpha") && put("b", "beta");
}

static bool do_create(void)
{
	fd = open("a", O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0640);
	MUST(fd >= 0 && write(fd, "alpha", 5) == 5);
	return true;
}

static bool do_create_trunc(void)
{
	fd = open("a", O_CREAT | O_EXCL | O_TRUNC | O_RDWR | O_CLOEXEC, 0640);
	MUST(fd >= 0 && write(fd, "alpha", 5) == 5);
	return true;
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

static bool do_mknod_file(void)
{
	MUST(!mknod("a", S_IFREG | 0600, 0));
	return true;
}

static bool see_empty(void)
{
	return is("a", S_IFREG, 1) && has("a", "");
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

static bool made_dirs(void)
{
	MUST(!mkdir("a", 0750) && !mkdir("a/in", 0750) && !mkdir("b", 0750));
	return true;
}

static bool see_renamed_dir(void)
{
	return gone("a") && is("b", S_IFDIR, 0) && is("b/in", S_IFDIR, 0);
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

static bool do_setxattr(void)
{
	MUST(!setxattr("a", "user.one", "1", 1, XATTR_CREATE));
	return true;
}

static bool xattr_is(const char *value)
{
	char got[8];
	const ssize_t n = (ssize_t)strlen(value);

	MUST(getxattr("a", "user.one", got, sizeof(got)) == n && !memcmp(got, value, (size_t)n));
	return true;
}

static bool see_xattr(void)
{
	return xattr_is("1");
}

static bool file_a_xattr(void)
{
	return file_a() && do_setxattr();
}

static bool do_setxattr_replace(void)
{
	MUST(!setxattr("a", "user.one", "22", 2, XATTR_REPLACE));
	return true;
}

static bool see_xattr_replaced(void)
{
	return xattr_is("22");
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

static bool do_chown(void)
{
	MUST(!chown("a", 1, 2));
	return true;
}

static bool see_owner(void)
{
	struct stat st;

	MUST(!stat("a", &st) && st.st_uid == 1 && st.st_gid == 2);
	return true;
}

static bool do_utimens(void)
{
	MUST(!utimensat(AT_FDCWD, "a", (struct timespec[]){ { 1, 2 }, { 3, 4 } }, 0));
	return true;
}

static bool see_times(void)
{
	struct stat st;

	MUST(!stat("a", &st) && st.st_atim.tv_sec == 1 && st.st_atim.tv_nsec == 2);
	MUST(st.st_mtim.tv_sec == 3 && st.st_mtim.tv_nsec == 4);
	return true;
}

static bool do_statfs(void)
{
	struct statvfs st;

	MUST(!statvfs(".", &st) && st.f_blocks && st.f_namemax == 255);
	return true;
}

static bool opened_dir(void)
{
	fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	MUST(fd >= 0 && file_a());
	return true;
}

static bool do_fsyncdir(void)
{
	MUST(!fsync(fd));
	return true;
}

#define MANY	14	/* with their long names more than a page holds */

static bool many(void)
{
	char name[256];

	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "file.%d-%0200d", i, 0);
		MUST(!mknod(name, S_IFREG | 0644, 0));
	}
	return true;
}

static bool do_list(void)
{
	bool seen[MANY] = { false };
	DIR *d = opendir(".");
	struct dirent *e;
	int n, count = 0;

	MUST(d);
	while ((e = readdir(d)))
		if (sscanf(e->d_name, "file.%d", &n) == 1 && n >= 0 && n < MANY && !seen[n])
			seen[n] = true, count++;
	closedir(d);
	MUST(count == MANY);
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

const struct operation name_operations[] = {
	{ "lookup", file_a, do_stat, see_a },
	{ "absent", nothing, do_absent, nothing },
	{ "create", nothing, do_create, see_a },
	{ "create-truncate", nothing, do_create_trunc, see_a },
	{ "mkdir", nothing, do_mkdir, see_dir },
	{ "mknod", nothing, do_mknod, see_fifo },
	{ "mknod-file", nothing, do_mknod_file, see_empty },
	{ "symlink", nothing, do_symlink, see_symlink },
	{ "readlink", do_symlink, see_symlink, see_symlink },
	{ "link", file_a, do_link, see_link },
	{ "unlink", file_a, do_unlink, see_gone },
	{ "unlink-open", opened_a, do_unlink, see_gone },
	{ "rmdir", made_dir, do_rmdir, see_gone },
	{ "rename", file_a, do_rename, see_renamed },
	{ "rename-over", files_a_b, do_rename, see_renamed },
	{ "rename-directory", made_dirs, do_rename, see_renamed_dir },
	{ "rename-noreplace", file_a, do_noreplace, see_renamed },
	{ "rename-exchange", files_a_b, do_exchange, see_exchanged },
	{ "rename-whiteout", file_a, do_whiteout, see_whiteout },
	{ "setxattr", file_a, do_setxattr, see_xattr },
	{ "setxattr-replace", file_a_xattr, do_setxattr_replace, see_xattr_replaced },
	{ "setxattr-exists", file_a_xattr, do_setxattr_again, see_xattr },
	{ "removexattr", file_a_xattr, do_removexattr, see_no_xattr },
	{ "removexattr-absent", file_a, do_removexattr_absent, see_no_xattr },
	{ "chmod", file_a, do_chmod, see_mode },
	{ "chown", file_a, do_chown, see_owner },
	{ "utimens", file_a, do_utimens, see_times },
	{ "statfs", nothing, do_statfs, nothing },
	{ "fsyncdir", opened_dir, do_fsyncdir, see_a },
	{ "list", many, do_list, nothing },
	{ "tmpfile", nothing, do_tmpfile, see_a },
	{ .name = NULL },
};
