/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Steps on names: making, linking, renaming, removing, listing. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "posix.h"

#define OP(name) static void do_##name(struct ctx *ctx, char **a, char *out)
#define UNUSED ((void)ctx, (void)a)

static mode_t mode_or(const char *arg, mode_t mode)
{
	return arg ? arg_mode(arg) : mode;
}

static int make_socket(const char *path)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc, err;

	if (fd < 0)
		return -1;
	snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
	rc = bind(fd, (struct sockaddr *)&name, sizeof(name));
	err = errno;
	close(fd);
	errno = err;
	return rc;
}

static int make_file(const char *path, const char *content)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc;

	if (fd < 0)
		return -1;
	rc = write(fd, content, strlen(content)) < 0 ? -1 : 0;
	return close(fd) ?: rc;
}

/* A copy of this program: run under another first argument it only tells its ids. */
static int make_program(const char *path)
{
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	char buf[65536];
	ssize_t n = -1;

	if (from >= 0 && to >= 0)
		while ((n = read(from, buf, sizeof(buf))) > 0)
			if (write(to, buf, n) != n)
				break;
	close(from);
	return close(to) ?: n ? -1 : 0;
}

static int make(const char *type, const char *path)
{
	char sub[PATH_MAX];

	if (!strcmp(type, "file"))
		return make_file(path, "");
	if (!strcmp(type, "data"))
		return make_file(path,
				 "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				 "0123456789abcdefghijklmnopqrstuvwxyzAB");
	if (!strcmp(type, "prog"))
		return make_program(path);
	if (!strcmp(type, "fifo"))
		return mkfifo(path, 0600);
	if (!strcmp(type, "sock"))
		return make_socket(path);
	if (!strcmp(type, "chr"))
		return mknod(path, S_IFCHR | 0600, makedev(1, 3));
	if (!strcmp(type, "blk"))
		return mknod(path, S_IFBLK | 0600, makedev(7, 99));
	if (!strcmp(type, "lnk"))
		return symlink("nowhere", path);
	snprintf(sub, sizeof(sub), "%s/in", path);
	if (!strcmp(type, "full"))
		return mkdir(path, 0700) ?: make_file(sub, "");
	return mkdir(path, 0700);
}

/* mk TYPE PATH [MODE [UID [GID]]]: exactly so, whatever umask and parent say */
OP(mk)
{
	const char *path = arg_path(a[1]);
	bool link = !strcmp(a[0], "lnk");
	int rc = make(a[0], path);

	UNUSED;
	if (!rc)
		rc = lchown(path, a[2] && a[3] ? arg_num(a[3]) : UID_OWN,
			    a[2] && a[3] && a[4] ? arg_num(a[4]) : GID_A);
	if (!rc && !link)
		rc = chmod(path, mode_or(a[2], 0644));
	put_result(out, rc);
}

OP(mkdir) { UNUSED; put_result(out, mkdir(arg_path(a[0]), mode_or(a[1], 0755))); }
OP(mkfifo) { UNUSED; put_result(out, mkfifo(arg_path(a[0]), mode_or(a[1], 0644))); }
OP(bind) { UNUSED; put_result(out, make_socket(arg_path(a[0]))); }
OP(unlink) { UNUSED; put_result(out, unlink(arg_path(a[0]))); }
OP(rmdir) { UNUSED; put_result(out, rmdir(arg_path(a[0]))); }
OP(link) { UNUSED; put_result(out, link(arg_path(a[0]), arg_path(a[1]))); }
OP(rename) { UNUSED; put_result(out, rename(arg_path(a[0]), arg_path(a[1]))); }
OP(chdir) { UNUSED; put_result(out, chdir(arg_path(a[0]))); }

/* mknod PATH TYPE|MODE [MAJOR MINOR] */
OP(mknod)
{
	dev_t dev = a[2] ? makedev(arg_num(a[2]), arg_num(a[3])) : 0;

	UNUSED;
	put_result(out, mknod(arg_path(a[0]), arg_mode(a[1]), dev));
}

OP(symlink)
{
	UNUSED;
	put_result(out, symlink(arg_path(a[0]), arg_path(a[1])));
}

OP(linkat)
{
	UNUSED;
	put_result(out, linkat(AT_FDCWD, arg_path(a[0]), AT_FDCWD, arg_path(a[1]), arg_num(a[2])));
}

/* linkfd SLOT PATH: gives a name to an open file */
OP(linkfd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", *arg_fd(ctx, a[0]));
	put_result(out, linkat(AT_FDCWD, path, AT_FDCWD, arg_path(a[1]), AT_SYMLINK_FOLLOW));
}

OP(rename2)
{
	UNUSED;
	put_result(out,
		   renameat2(AT_FDCWD, arg_path(a[0]), AT_FDCWD, arg_path(a[1]), arg_num(a[2])));
}

OP(readlink)
{
	char target[PATH_MAX];
	ssize_t n = readlink(arg_path(a[0]), target, sizeof(target));

	UNUSED;
	put_result(out, n);
	if (n >= 0)
		snprintf(out, RESULT_MAX, "%.*s", n > 200 ? 200 : (int)n, target);
}

static int visible(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct dirent *const *)a)->d_name, (*(struct dirent *const *)b)->d_name);
}

/* Not scandir(): it takes no bad address, and its like with a descriptor wants to search. */
static int list(const char *path, struct dirent ***names)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
	struct dirent *entry;
	DIR *dir;

	*names = NULL;
	if (fd < 0)
		return -1;
	dir = fdopendir(fd);
	while ((entry = readdir(dir))) {
		if (!visible(entry))
			continue;
		*names = realloc(*names, (n + 1) * sizeof(**names));
		(*names)[n] = malloc(entry->d_reclen);
		memcpy((*names)[n++], entry, entry->d_reclen);
	}
	closedir(dir);
	if (n)
		qsort(*names, n, sizeof(**names), by_name);
	return n;
}

/* ls PATH: name:d_type, sorted; "-" for none */
OP(ls)
{
	struct dirent **names;
	int n = list(arg_path(a[0]), &names), len = 0;

	UNUSED;
	put_result(out, n);
	if (n == 0)
		strcpy(out, "-");
	for (int i = 0; i < n; i++) {
		if (len < RESULT_MAX - 300)
			len += sprintf(out + len, "%s%s:%s", i ? "," : "", names[i]->d_name,
				       type_name(DTTOIF(names[i]->d_type)));
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

/* inos PATH: whether each d_ino is the st_ino of the name, dots included */
OP(inos)
{
	DIR *dir = opendir(arg_path(a[0]));
	struct dirent *entry;
	int n = 0, dots = 0, wrong = 0;
	struct stat st;

	UNUSED;
	put_result(out, dir ? 0 : -1);
	while (dir && (entry = readdir(dir))) {
		n++;
		dots += !visible(entry);
		if (visible(entry) &&
		    (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
		     st.st_ino != entry->d_ino))
			wrong++;
	}
	if (dir) {
		closedir(dir);
		snprintf(out, RESULT_MAX, "%d,%d,%d", n, dots, wrong);
	}
}

/* many PATH COUNT: so many empty files; count PATH: how many names a listing gives, dots apart */
OP(many)
{
	char path[PATH_MAX];
	int rc = 0;

	UNUSED;
	for (long i = 0; i < arg_num(a[1]) && !rc; i++) {
		snprintf(path, sizeof(path), "%s/file-with-a-name-%04ld", arg_path(a[0]), i);
		rc = make_file(path, "");
	}
	put_result(out, rc);
}

OP(count)
{
	struct dirent **names;
	int n = list(arg_path(a[0]), &names);

	UNUSED;
	put_result(out, n);
	if (n < 0)
		return;
	snprintf(out, RESULT_MAX, "%d", n);
	while (n > 0)
		free(names[--n]);
	free(names);
}

OP(getcwd)
{
	char path[PATH_MAX];

	UNUSED;
	put_result(out, getcwd(path, sizeof(path)) ? 0 : -1);
}

OP(statvfs)
{
	struct statvfs st;
	int rc = statvfs(arg_path(a[0]), &st);

	UNUSED;
	put_result(out, rc);
	if (!rc)
		snprintf(out, RESULT_MAX, "%s,%s,%s,%lu", st.f_blocks ? "blocks" : "0",
			 st.f_bavail <= st.f_bfree ? "free" : "odd", st.f_bsize ? "bsize" : "0",
			 st.f_namemax);
}

/* exec PATH: the effective ids the program runs with */
OP(exec)
{
	const char *path = arg_path(a[0]);
	int pipefd[2], status;
	ssize_t n;
	pid_t pid;

	UNUSED;
	if (pipe(pipefd)) {
		put_result(out, -1);
		return;
	}
	pid = fork();
	if (pid == 0) {
		char text[32];

		dup2(pipefd[1], STDOUT_FILENO);
		/* A socket of another caller must not stay open in the program. */
		close_range(3, ~0U, 0);
		execl(path, "tell-ids", (char *)NULL);
		n = snprintf(text, sizeof(text), "%s", strerrorname_np(errno));
		_exit(write(STDOUT_FILENO, text, n) != n);
	}
	close(pipefd[1]);
	n = read(pipefd[0], out, RESULT_MAX - 1);
	close(pipefd[0]);
	out[n > 0 ? n : 0] = 0;
	waitpid(pid, &status, 0);
	if (n <= 0)
		snprintf(out, RESULT_MAX, "status 0x%x", status);
}

const struct op name_ops[] = {
#define N(name, args) { #name, args, do_##name }
	N(mk, 2), N(mkdir, 1), N(mkfifo, 1), N(mknod, 2), N(bind, 1), N(unlink, 1), N(rmdir, 1),
	N(link, 2), N(linkat, 3), N(linkfd, 2), N(symlink, 2), N(rename, 2), N(rename2, 3),
	N(readlink, 1), N(ls, 1), N(inos, 1), N(many, 2), N(count, 1), N(chdir, 1), N(getcwd, 0),
	N(statvfs, 1), N(exec, 1),
	{ NULL, 0, NULL },
};
