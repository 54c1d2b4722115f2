/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * locks shared|apart DIR_A DIR_B: POSIX, open-file-description and flock(2) locks, taken by processes
 * in two views of one directory, which see each other's locks or do not.
 *   LOCKS_WAITERS   a command that says how many wait, where the server keeps the locks and /proc/locks does not
 *                   show them; two views see each other's locks as locks of whole files then
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/mount/proc_locks.h"

#define FDS 4
#define PATIENCE 60 /* seconds; only for what hangs */

enum kind { POSIX, OFD, FLOCK };
enum what { OPEN, OPEN_DIR, DUP, CLOSE, LOCK, WAIT, WAIT_AND_CLOSE, TEST };

struct cmd {
	enum what what;
	enum kind kind;
	int fd, fd2, type;
	long start, len;
	char path[512];
};

struct res {
	int ret, err;
	struct flock found;
};

struct actor {
	pid_t pid;
	int sock;
};

static const char *const kind_name[] = { "posix", "ofd", "flock" };
static const char *dir[2];
static enum kind kind;
static const char *test;
static int failed, passed;
static struct actor all[8];
static int n_all;
static const char *waiters_command;
static int waiters;	/* of this test */

/* ---- in an actor ---- */

static void on_signal(int sig)
{
	(void)sig;
}

static int flock_type(int type)
{
	return type == F_RDLCK ? LOCK_SH : type == F_WRLCK ? LOCK_EX : LOCK_UN;
}

static int lock_call(const struct cmd *c, int fd, struct flock *l)
{
	static const int op[2][3] = { { F_SETLK, F_SETLKW, F_GETLK },
				      { F_OFD_SETLK, F_OFD_SETLKW, F_OFD_GETLK } };
	bool wait = c->what == WAIT;

	if (c->kind == FLOCK)
		return flock(fd, flock_type(c->type) | (wait ? 0 : LOCK_NB));
	*l = (struct flock){ .l_type = (short)c->type, .l_start = c->start, .l_len = c->len };
	return fcntl(fd, op[c->kind == OFD][c->what == TEST ? 2 : wait], l);
}

static bool someone_waits(const char *path)
{
	struct stat st;
	int n = 0;
	FILE *f;

	if (!waiters_command)
		return !stat(path, &st) && somebody_waits(st.st_ino);
	f = popen(waiters_command, "r");
	if (f && fscanf(f, "%d", &n) != 1)
		n = 0;
	if (f)
		pclose(f);
	return n >= waiters;
}

/* Whether what is locked is told from the rest of the file. */
static bool has_ranges(void)
{
	return kind != FLOCK && (!waiters_command || dir[0] == dir[1]);
}

/* When somebody waits for the file, it is opened and closed; that it is done is told by another name. */
static void *close_beside(void *arg)
{
	const struct cmd *c = arg;
	char told[600];

	while (!someone_waits(c->path))
		poll(NULL, 0, 5);
	close(open(c->path, O_RDWR));
	snprintf(told, sizeof(told), "%s.closed", c->path);
	close(open(told, O_RDWR | O_CREAT, 0600));
	return NULL;
}

static int wait_and_close(const struct cmd *c, int fd, struct flock *found)
{
	struct cmd wait = *c;
	pthread_t thread;
	int ret, err;

	wait.what = WAIT;
	if (pthread_create(&thread, NULL, close_beside, &wait))
		return -1;
	ret = lock_call(&wait, fd, found);
	err = errno;
	pthread_join(thread, NULL);
	errno = err;
	return ret;
}

static int act(const struct cmd *c, int *fds, struct flock *found)
{
	switch (c->what) {
	case OPEN:
		return (fds[c->fd] = open(c->path, O_RDWR | O_CREAT, 0644)) < 0 ? -1 : 0;
	case OPEN_DIR:
		return (fds[c->fd] = open(c->path, O_RDONLY | O_DIRECTORY)) < 0 ? -1 : 0;
	case DUP:
		return (fds[c->fd2] = dup(fds[c->fd])) < 0 ? -1 : 0;
	case CLOSE:
		return close(fds[c->fd]);
	case WAIT_AND_CLOSE:
		return wait_and_close(c, fds[c->fd], found);
	default:
		return lock_call(c, fds[c->fd], found);
	}
}

static void actor_main(int sock)
{
	struct sigaction sa = { .sa_handler = on_signal };
	int fds[FDS] = { -1, -1, -1, -1 };
	struct cmd c;

	sigaction(SIGUSR1, &sa, NULL); /* without SA_RESTART */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(sock, &c, sizeof(c)) == sizeof(c)) {
		struct res r = { 0 };

		r.ret = act(&c, fds, &r.found);
		r.err = r.ret ? errno : 0;
		if (write(sock, &r, sizeof(r)) != sizeof(r))
			break;
	}
	_exit(0);
}

/* ---- results ---- */

static void wrong(const char *fmt, ...)
{
	va_list ap;

	printf("%s %s: ", kind_name[kind], test);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n    between %s and %s\n", dir[0], dir[1]);
	failed++;
}

static void expect(const char *what, int want, int got)
{
	if (want == got)
		passed++;
	else
		wrong("%s: expected %s, got %s", what, want ? strerrorname_np(want) : "success",
		      got ? strerrorname_np(got) : "success");
}

/* ---- actors ---- */

static struct actor *actor(void)
{
	struct actor *a = &all[n_all++];
	int s[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s)) {
		perror("socketpair");
		exit(1);
	}
	fflush(stdout);
	a->pid = fork();
	if (!a->pid) {
		/* An end of another's socket would keep him from seeing the end. */
		for (int i = 0; i < n_all - 1; i++)
			close(all[i].sock);
		close(s[0]);
		actor_main(s[1]);
	}
	close(s[1]);
	a->sock = s[0];
	return a;
}

static void end(struct actor *a)
{
	if (a->sock >= 0)
		close(a->sock);
	if (a->pid > 0) {
		kill(a->pid, SIGKILL);
		waitpid(a->pid, NULL, 0);
	}
	*a = (struct actor){ 0, -1 };
}

static void end_all(void)
{
	while (n_all)
		end(&all[--n_all]);
}

static void send_cmd(struct actor *a, const struct cmd *c)
{
	if (write(a->sock, c, sizeof(*c)) != sizeof(*c)) {
		wrong("an actor is gone");
		exit(1);
	}
}

static bool answered(struct actor *a, int seconds)
{
	struct pollfd p = { .fd = a->sock, .events = POLLIN };

	return poll(&p, 1, seconds * 1000) == 1;
}

static struct res answer(struct actor *a)
{
	struct res r = { 0 };

	if (!answered(a, PATIENCE) || read(a->sock, &r, sizeof(r)) != sizeof(r)) {
		wrong("no answer: an actor hangs or is gone");
		end_all();
		exit(1);
	}
	return r;
}

static struct res call(struct actor *a, const struct cmd *c)
{
	send_cmd(a, c);
	return answer(a);
}

static void file_of(char *out, size_t size, int side, const char *name)
{
	snprintf(out, size, "%s/%s", dir[side], name);
}

static void open_file(struct actor *a, int fd, int side, const char *name)
{
	struct cmd c = { .what = OPEN, .fd = fd };

	file_of(c.path, sizeof(c.path), side, name);
	expect("open", 0, call(a, &c).err);
}

static int plain(struct actor *a, enum what what, int fd, int fd2)
{
	return call(a, &(struct cmd){ .what = what, .fd = fd, .fd2 = fd2 }).err;
}

static int lock_range(struct actor *a, int fd, int type, long start, long len)
{
	return call(a, &(struct cmd){ LOCK, kind, fd, 0, type, start, len, "" }).err;
}

static int lock(struct actor *a, int fd, int type)
{
	return lock_range(a, fd, type, 0, 0);
}

static void wait_lock(struct actor *a, int fd, int type)
{
	waiters++;
	send_cmd(a, &(struct cmd){ WAIT, kind, fd, 0, type, 0, 0, "" });
}

/* Sooner or later: the last close of an open file is told to a FUSE server without waiting for it, so what
 * the test before this one held may be held still. */
static int lock_at_last(struct actor *a, int fd, int type)
{
	time_t until = time(NULL) + PATIENCE;
	int err;

	while ((err = lock(a, fd, type)) == EAGAIN && time(NULL) < until)
		poll(NULL, 0, 5);
	return err;
}

static void see_wait(struct actor *a, int side, const char *name)
{
	time_t until = time(NULL) + PATIENCE;
	char path[600];

	file_of(path, sizeof(path), side, name);
	while (!someone_waits(path) && !answered(a, 0) && time(NULL) < until)
		poll(NULL, 0, 5);
	if (answered(a, 0))
		wrong("did not wait: %s", strerror(answer(a).err));
	else
		passed++;
}

/* ---- what is tested ---- */

static void t_conflict(struct actor *a, struct actor *b)
{
	expect("exclusive", 0, lock_at_last(a, 0, F_WRLCK));
	expect("exclusive beside it", EAGAIN, lock(b, 0, F_WRLCK));
	expect("shared beside it", EAGAIN, lock(b, 0, F_RDLCK));
	expect("downgrade", 0, lock(a, 0, F_RDLCK));
	expect("shared beside shared", 0, lock(b, 0, F_RDLCK));
	expect("upgrade beside shared", EAGAIN, lock(a, 0, F_WRLCK));
	expect("unlock", 0, lock(b, 0, F_UNLCK));
	expect("upgrade", 0, lock(a, 0, F_WRLCK));
	expect("unlock", 0, lock(a, 0, F_UNLCK));
	expect("after the unlock", 0, lock(b, 0, F_WRLCK));
}

static void t_ranges(struct actor *a, struct actor *b)
{
	if (!has_ranges())
		return;
	expect("all", 0, lock_at_last(a, 0, F_WRLCK));
	expect("unlock", 0, lock(a, 0, F_UNLCK));
	expect("bytes 10 to 29", 0, lock_range(a, 0, F_WRLCK, 10, 20));
	expect("bytes 30 on", 0, lock_range(b, 0, F_WRLCK, 30, 0));
	expect("bytes 0 to 9", 0, lock_range(b, 0, F_WRLCK, 0, 10));
	expect("byte 29", EAGAIN, lock_range(b, 0, F_RDLCK, 29, 1));
	expect("a hole in the range", 0, lock_range(a, 0, F_UNLCK, 15, 5));
	expect("in the hole", 0, lock_range(b, 0, F_WRLCK, 15, 5));
	expect("beside the hole", EAGAIN, lock_range(b, 0, F_WRLCK, 14, 1));
}

static void t_getlk(struct actor *a, struct actor *b)
{
	struct cmd c = { TEST, kind, 0, 0, F_WRLCK, 0, 50, "" };
	struct actor *third;
	struct res r;

	if (!has_ranges())
		return;
	/* One that asked, or holds something else, is never named. */
	third = actor();
	open_file(third, 0, 0, "file");
	call(third, &c);
	expect("byte 100", 0, lock_range(third, 0, F_WRLCK, 100, 1));
	expect("bytes 10 to 29", 0, lock_range(a, 0, F_WRLCK, 10, 20));
	r = call(b, &c);
	expect("F_GETLK", 0, r.err);
	if (r.found.l_type != F_WRLCK || r.found.l_start != 10 || r.found.l_len != 20)
		wrong("F_GETLK: type %d, start %ld, len %ld", r.found.l_type,
		      (long)r.found.l_start, (long)r.found.l_len);
	if (r.found.l_pid == third->pid || r.found.l_pid == b->pid)
		wrong("F_GETLK names process %d, which holds nothing", r.found.l_pid);
	if (kind == POSIX && dir[0] == dir[1] && r.found.l_pid != a->pid)
		wrong("F_GETLK names process %d, not %d", r.found.l_pid, a->pid);
	expect("unlock", 0, lock(a, 0, F_UNLCK));
	expect("unlock", 0, lock(third, 0, F_UNLCK));
	r = call(b, &c);
	expect("F_GETLK", 0, r.err);
	if (r.found.l_type != F_UNLCK)
		wrong("F_GETLK after the unlock: type %d", r.found.l_type);
}

static void t_wait(struct actor *a, struct actor *b)
{
	expect("exclusive", 0, lock_at_last(a, 0, F_WRLCK));
	wait_lock(b, 0, F_WRLCK);
	see_wait(b, 1, "file");
	expect("unlock", 0, lock(a, 0, F_UNLCK));
	expect("granted", 0, answer(b).err);
	expect("taken by the one who waited", EAGAIN, lock(a, 0, F_RDLCK));
}

static void t_signal(struct actor *a, struct actor *b)
{
	expect("exclusive", 0, lock_at_last(a, 0, F_WRLCK));
	wait_lock(b, 0, F_RDLCK);
	see_wait(b, 1, "file");
	kill(b->pid, SIGUSR1);
	expect("interrupted", EINTR, answer(b).err);
	expect("unlock", 0, lock(a, 0, F_UNLCK));
	expect("nothing was left behind", 0, lock(a, 0, F_WRLCK));
}

static void t_killed(struct actor *a, struct actor *b)
{
	expect("exclusive", 0, lock_at_last(a, 0, F_WRLCK));
	wait_lock(b, 0, F_WRLCK);
	see_wait(b, 1, "file");
	end(b);
	expect("unlock", 0, lock(a, 0, F_UNLCK));
	expect("nothing was left behind", 0, lock_at_last(a, 0, F_WRLCK));
}

static void t_close(struct actor *a, struct actor *b)
{
	open_file(a, 1, 0, "file");
	expect("exclusive", 0, lock_at_last(a, 0, F_WRLCK));
	expect("dup", 0, plain(a, DUP, 0, 2));
	expect("close of the other one", 0, plain(a, CLOSE, 1, 0));
	if (kind == POSIX) {
		expect("after any close", 0, lock(b, 0, F_WRLCK));
		return;
	}
	expect("after the close of another file", EAGAIN, lock(b, 0, F_WRLCK));
	expect("close", 0, plain(a, CLOSE, 0, 0));
	expect("with a descriptor left", EAGAIN, lock(b, 0, F_WRLCK));
	expect("last close", 0, plain(a, CLOSE, 2, 0));
	expect("after the last close", 0, lock_at_last(b, 0, F_WRLCK));
}

/* POSIX: a close lets go of what the process holds, not of what a thread of it waits for. */
static void t_close_beside(struct actor *a, struct actor *b)
{
	struct cmd c = { WAIT_AND_CLOSE, kind, 0, 0, F_WRLCK, 0, 0, "" };
	time_t until = time(NULL) + PATIENCE;
	char told[600];

	if (kind != POSIX)
		return;
	expect("exclusive", 0, lock_at_last(a, 0, F_WRLCK));
	file_of(c.path, sizeof(c.path), 1, "file");
	file_of(told, sizeof(told), 1, "file.closed");
	unlink(told);
	waiters++;
	send_cmd(b, &c);
	while (access(told, F_OK) && time(NULL) < until)
		poll(NULL, 0, 5);
	expect("unlock", 0, lock(a, 0, F_UNLCK));
	expect("granted", 0, answer(b).err);
	expect("taken by the one who waited", EAGAIN, lock(a, 0, F_RDLCK));
}

static void t_exit(struct actor *a, struct actor *b)
{
	expect("exclusive", 0, lock_at_last(a, 0, F_WRLCK));
	wait_lock(b, 0, F_WRLCK);
	see_wait(b, 1, "file");
	end(a);
	expect("granted", 0, answer(b).err);
}

/* Those who wait for each other do so forever: the last one is told. */
static void t_deadlock(struct actor *a, struct actor *b)
{
	struct actor *c;

	if (kind != POSIX || dir[0] != dir[1])
		return;
	c = actor();
	open_file(c, 0, 0, "file");
	for (int i = 1; i < 3; i++) {
		open_file(a, i, 0, i == 1 ? "second" : "third");
		open_file(b, i, 0, i == 1 ? "second" : "third");
		open_file(c, i, 0, i == 1 ? "second" : "third");
	}
	expect("first", 0, lock(a, 0, F_WRLCK));
	expect("second", 0, lock(b, 1, F_WRLCK));
	expect("third", 0, lock(c, 2, F_WRLCK));
	wait_lock(a, 1, F_WRLCK);
	see_wait(a, 0, "second");
	wait_lock(b, 2, F_RDLCK);
	see_wait(b, 0, "third");
	wait_lock(c, 0, F_WRLCK);
	expect("a circle", EDEADLK, answer(c).err);
	expect("unlock", 0, lock(c, 2, F_UNLCK));
	expect("second in the circle", 0, answer(b).err);
	expect("unlock", 0, lock(b, 1, F_UNLCK));
	expect("first in the circle", 0, answer(a).err);
}

static void t_directory(struct actor *a, struct actor *b)
{
	struct cmd c = { .what = OPEN_DIR, .fd = 3 };

	/* The kernel asks no FUSE server for a lock on a directory: each mount has its own. */
	if (kind != FLOCK || dir[0] != dir[1])
		return;
	file_of(c.path, sizeof(c.path), 0, "dir");
	expect("open", 0, call(a, &c).err);
	file_of(c.path, sizeof(c.path), 1, "dir");
	expect("open", 0, call(b, &c).err);
	expect("exclusive", 0, lock_at_last(a, 3, F_WRLCK));
	expect("shared beside it", EAGAIN, lock(b, 3, F_RDLCK));
	expect("close", 0, plain(a, CLOSE, 3, 0));
	expect("after the close", 0, lock_at_last(b, 3, F_RDLCK));
}

/* Who locks must not keep the file from being run. */
static void t_program(struct actor *a, struct actor *b)
{
	char path[600];
	pid_t pid;
	int status, fd;

	(void)a;
	(void)b;
	if (kind != FLOCK)
		return;
	file_of(path, sizeof(path), 0, "program");
	fd = open(path, O_RDONLY);
	expect("flock", 0, fd < 0 || flock(fd, LOCK_EX) ? errno : 0);
	file_of(path, sizeof(path), 1, "program");
	pid = fork();
	if (!pid) {
		execl(path, path, (char *)NULL);
		_exit(errno);
	}
	waitpid(pid, &status, 0);
	expect("execve", 0, WEXITSTATUS(status));
	close(fd);
}

static void t_apart(struct actor *a, struct actor *b)
{
	expect("exclusive", 0, lock_at_last(a, 0, F_WRLCK));
	expect("exclusive where it is not seen", 0, lock(b, 0, F_WRLCK));
}

static const struct {
	const char *name;
	bool apart;
	void (*run)(struct actor *a, struct actor *b);
} tests[] = {
	{ "conflict", false, t_conflict }, { "ranges", false, t_ranges },
	{ "getlk", false, t_getlk }, { "wait", false, t_wait },
	{ "signal", false, t_signal }, { "killed", false, t_killed },
	{ "close", false, t_close }, { "exit", false, t_exit },
	{ "close-beside", false, t_close_beside },
	{ "deadlock", false, t_deadlock }, { "directory", false, t_directory },
	{ "program", false, t_program }, { "apart", true, t_apart },
};

int main(int argc, char **argv)
{
	bool apart;

	if (argc != 4 || (strcmp(argv[1], "shared") && strcmp(argv[1], "apart"))) {
		fprintf(stderr, "usage: locks shared|apart DIR_A DIR_B\n");
		return 2;
	}
	apart = !strcmp(argv[1], "apart");
	dir[0] = argv[2];
	dir[1] = strcmp(argv[2], argv[3]) ? argv[3] : argv[2];
	waiters_command = getenv("LOCKS_WAITERS");
	signal(SIGPIPE, SIG_IGN);
	for (kind = POSIX; kind <= FLOCK; kind++) {
		for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
			struct actor *a, *b;

			if (tests[i].apart != apart)
				continue;
			test = tests[i].name;
			waiters = 0;
			a = actor();
			b = actor();
			open_file(a, 0, 0, "file");
			open_file(b, 0, 1, "file");
			tests[i].run(a, b);
			end_all();
		}
	}
	printf("%d as expected, %d not\n", passed, failed);
	return failed ? 1 : 0;
}
