/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on names and attributes, and whole commands. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "workload.h"

/* Few enough that all stay in every cache, more than one so that no single inode lock decides. */
#define FEW 64
#define READ_SIZE 4096
#define APPEND_SIZE 100
#define XATTR_NAME "user.fuse-extent-bench"

extern char **environ;

static void remove_names(char (*names)[NAME_LENGTH], unsigned long count, int flags)
{
	for (unsigned long i = 0; i < count; i++)
		if (unlinkat(AT_FDCWD, names[i], flags))
			die("remove %s", names[i]);
}

static void remove_files(struct client *c)
{
	remove_names(c->names, c->count, 0);
}

static void remove_few(struct client *c)
{
	remove_names(c->names, FEW, 0);
}

static void remove_one(struct client *c)
{
	remove_names(c->names, 1, 0);
}

static void files_through_mount(struct client *c)
{
	populate(c, AT_FDCWD, c->count, 0);
}

static void files_beneath_mount(struct client *c)
{
	populate(c, c->backing, c->count, 0);
}

static void few_files(struct client *c)
{
	populate(c, AT_FDCWD, FEW, READ_SIZE);
}

static void one_file(struct client *c)
{
	populate(c, AT_FDCWD, 1, 0);
}

static void create(struct client *c, unsigned long i)
{
	int fd = open(c->names[i], O_CREAT | O_EXCL | O_WRONLY, 0644);

	if (fd < 0 || close(fd))
		die("create %s", c->names[i]);
}

static void small_file(struct client *c, unsigned long i)
{
	int fd = open(c->names[i], O_CREAT | O_EXCL | O_WRONLY, 0644);

	if (fd < 0)
		die("create %s", c->names[i]);
	write_zeros(fd, c->names[i], READ_SIZE);
	if (close(fd))
		die("close %s", c->names[i]);
}

static void stat_one(struct client *c, unsigned long i)
{
	struct stat st;

	(void)i;
	if (stat(c->names[0], &st))
		die("stat %s", c->names[0]);
}

static void stat_next(struct client *c, unsigned long i)
{
	struct stat st;

	if (stat(c->names[i], &st))
		die("stat %s", c->names[i]);
}

static void expect_absent(const char *name)
{
	struct stat st;

	if (!stat(name, &st) || errno != ENOENT)
		die("stat of the absent %s", name);
}

static void absent_next(struct client *c, unsigned long i)
{
	expect_absent(c->names[i]);
}

static void absent_one(struct client *c, unsigned long i)
{
	(void)i;
	expect_absent(c->names[0]);
}

static void open_close(struct client *c, unsigned long i)
{
	int fd = open(c->names[i % FEW], O_RDONLY);

	if (fd < 0 || close(fd))
		die("open %s", c->names[i % FEW]);
}

static void open_read_close(struct client *c, unsigned long i)
{
	char data[READ_SIZE];
	int fd = open(c->names[i % FEW], O_RDONLY);

	if (fd < 0 || read(fd, data, sizeof(data)) != sizeof(data) || close(fd))
		die("open and read %s", c->names[i % FEW]);
}

/* One entry and its attributes; the first call opens the directory, so that is timed too. */
static void readdir_stat(struct client *c, unsigned long i)
{
	struct dirent *entry;
	struct stat st;

	if (!i)
		c->listing = opendir(".");
	if (!c->listing)
		die("opendir");
	do {
		errno = 0;
		entry = readdir(c->listing);
		if (!entry)
			die("readdir ends after %lu of %lu entries", i, c->count);
	} while (entry->d_name[0] == '.');
	if (fstatat(dirfd(c->listing), entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
		die("stat %s", entry->d_name);
}

static void end_listing(struct client *c)
{
	closedir(c->listing);
	remove_files(c);
}

static void file_with_xattr(struct client *c)
{
	one_file(c);
	if (!setxattr(c->names[0], XATTR_NAME, "value", 5, 0))
		return;
	if (errno == EOPNOTSUPP)
		skip("no user extended attributes here");
	die("setxattr");
}

static void get_xattr(struct client *c, unsigned long i)
{
	char value[64];

	(void)i;
	if (getxattr(c->names[0], XATTR_NAME, value, sizeof(value)) != 5)
		die("getxattr");
}

static void open_for_append(struct client *c)
{
	c->fd = open(c->names[0], O_CREAT | O_EXCL | O_WRONLY | O_APPEND, 0644);
	if (c->fd < 0)
		die("create %s", c->names[0]);
}

static void append(struct client *c, unsigned long i)
{
	(void)i;
	if (write(c->fd, c->buffer, APPEND_SIZE) != APPEND_SIZE)
		die("append");
}

static void end_append(struct client *c)
{
	struct stat st;

	if (fstat(c->fd, &st) || (unsigned long)st.st_size != c->count * APPEND_SIZE)
		die("size %lld after %lu appends", (long long)st.st_size, c->count);
	close(c->fd);
	remove_one(c);
}

static void rename_next(struct client *c, unsigned long i)
{
	if (rename(c->names[i], c->new_names[i]))
		die("rename %s", c->names[i]);
}

static void remove_renamed(struct client *c)
{
	remove_names(c->new_names, c->count, 0);
}

static void unlink_next(struct client *c, unsigned long i)
{
	if (unlink(c->names[i]))
		die("unlink %s", c->names[i]);
}

static void mkdir_next(struct client *c, unsigned long i)
{
	if (mkdir(c->names[i], 0755))
		die("mkdir %s", c->names[i]);
}

static void rmdir_next(struct client *c, unsigned long i)
{
	if (rmdir(c->names[i]))
		die("rmdir %s", c->names[i]);
}

static void make_directories(struct client *c)
{
	for (unsigned long i = 0; i < c->count; i++)
		mkdir_next(c, i);
}

static void remove_directories(struct client *c)
{
	remove_names(c->names, c->count, AT_REMOVEDIR);
}

static void symlink_readlink(struct client *c, unsigned long i)
{
	char target[NAME_LENGTH];

	if (symlink("target", c->names[i]) || readlink(c->names[i], target, sizeof(target)) != 6)
		die("symlink %s", c->names[i]);
}

static void chmod_few(struct client *c, unsigned long i)
{
	if (chmod(c->names[i % FEW], i / FEW % 2 ? 0644 : 0600))
		die("chmod %s", c->names[i % FEW]);
}

static void keep_output(struct client *c)
{
	/* Not /dev/null: grep and tar notice that and do less. */
	c->output = memfd_create("output", 0);
	if (c->output < 0)
		die("memfd_create");
}

static void command(struct client *c, unsigned long i)
{
	posix_spawn_file_actions_t actions;
	int status;
	pid_t pid;

	(void)i;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, c->output, STDOUT_FILENO);
	errno = posix_spawnp(&pid, c->command[0], &actions, NULL, c->command, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (errno)
		die("start %s", c->command[0]);
	if (waitpid(pid, &status, 0) != pid || status) {
		errno = 0;
		die("%s ended with wait status %#x", c->command[0], (unsigned int)status);
	}
}

const struct operation metadata_operations[] = {
	{ "create", NULL, create, remove_files, false },
	{ "small-file", NULL, small_file, remove_files, false },
	{ "stat-hot", one_file, stat_one, remove_one, false },
	{ "stat-cold", files_beneath_mount, stat_next, remove_files, false },
	{ "absent-new", NULL, absent_next, NULL, false },
	{ "absent-same", NULL, absent_one, NULL, false },
	{ "open-close", few_files, open_close, remove_few, false },
	{ "open-read-close", few_files, open_read_close, remove_few, false },
	{ "readdir-stat", files_beneath_mount, readdir_stat, end_listing, false },
	{ "getxattr", file_with_xattr, get_xattr, remove_one, false },
	{ "append", open_for_append, append, end_append, false },
	{ "rename", files_through_mount, rename_next, remove_renamed, false },
	{ "unlink", files_through_mount, unlink_next, NULL, false },
	{ "mkdir", NULL, mkdir_next, remove_directories, false },
	{ "rmdir", make_directories, rmdir_next, NULL, false },
	{ "symlink-readlink", NULL, symlink_readlink, remove_files, false },
	{ "chmod", few_files, chmod_few, remove_few, false },
	{ "command", keep_output, command, NULL, false },
	{ NULL, NULL, NULL, NULL, false },
};
