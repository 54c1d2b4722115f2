/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks between this process and another one: POSIX, open-file-description and flock(2), taken, asked
 * for, waited for, granted, interrupted, and dropped by close(2).
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/crash/operations.h"
#include "tests/mount/proc_locks.h"

#define PATIENCE 30 /* seconds; only for what hangs */

enum kind { POSIX, OFD, FLOCK };
enum what { TRY, WAIT, ASK };

struct cmd {
	enum kind kind;
	enum what what;
	int type, at;
};

static pid_t other;
static int sock = -1;

static void on_signal(int number)
{
	(void)number;
}

/* One byte at `at`, the file for flock(2). Returns errno, and for ASK the type found or errno. */
static int lock_on(int file, const struct cmd *c)
{
	static const int op[2][3] = { { F_SETLK, F_SETLKW, F_GETLK }, { F_OFD_SETLK, F_OFD_SETLKW, F_OFD_GETLK } };
	struct flock l = { .l_type = (short)c->type, .l_start = c->at, .l_len = 1 };
	int how = c->type == F_UNLCK ? LOCK_UN : c->type == F_RDLCK ? LOCK_SH : LOCK_EX;

	if (c->kind == FLOCK)
		return flock(file, how | (c->what == WAIT ? 0 : LOCK_NB)) ? errno : 0;
	if (fcntl(file, op[c->kind][c->what], &l))
		return errno;
	return c->what == ASK ? l.l_type : 0;
}

static void other_main(int end)
{
	struct sigaction sa = { .sa_handler = on_signal };
	int file = open("a", O_RDWR | O_CLOEXEC), err = file < 0 ? errno : 0;
	ssize_t n = sizeof(struct cmd);
	struct cmd c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGUSR1, &sa, NULL); /* without SA_RESTART */
	while (n == sizeof(c) && write(end, &err, sizeof(err)) == sizeof(err)) {
		do
			n = read(end, &c, sizeof(c));
		while (n < 0 && errno == EINTR);
		if (n == sizeof(c))
			err = lock_on(file, &c);
	}
	_exit(0);
}

static bool answered(int ms)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

/* What the other one got; -1 where he does not answer. */
static int answer(void)
{
	int err = -1;

	if (!answered(PATIENCE * 1000) || read(sock, &err, sizeof(err)) != sizeof(err)) {
		errno = ETIMEDOUT;
		return -1;
	}
	errno = err;
	return err;
}

static bool ask(enum kind kind, enum what what, int type, int at)
{
	struct cmd c = { kind, what, type, at };

	return write(sock, &c, sizeof(c)) == sizeof(c);
}

static int his(enum kind kind, enum what what, int type, int at)
{
	return ask(kind, what, type, at) ? answer() : -1;
}

static int mine(enum kind kind, enum what what, int type, int at)
{
	return errno = lock_on(fd, &(struct cmd){ kind, what, type, at });
}

/* The last close of an open file is told to a FUSE server without waiting for it. */
static int at_last(int (*who)(enum kind, enum what, int, int), enum kind kind)
{
	time_t until = time(NULL) + PATIENCE;
	int err;

	while ((err = who(kind, TRY, F_WRLCK, 0)) == EAGAIN && time(NULL) < until)
		usleep(1000);
	return err;
}

void other_end(void)
{
	if (sock >= 0)
		close(sock);
	/* Whose request was read and is never answered can not be killed: he goes with the mount. */
	if (other > 0) {
		kill(other, SIGKILL);
		for (int i = 0; i < 5000 && waitpid(other, NULL, WNOHANG) != other; i++)
			usleep(1000);
	}
	sock = -1;
	other = 0;
}

static bool both(void)
{
	int s[2];

	MUST(opened_a() && !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s));
	other = fork();
	if (!other) {
		close(s[0]);
		close(fd); /* it is the same open file */
		other_main(s[1]);
	}
	close(s[1]);
	sock = s[0];
	MUST(other > 0 && answer() == 0);
	return true;
}

static bool i_hold(enum kind kind)
{
	MUST(both());
	MUST(mine(kind, TRY, F_WRLCK, 0) == 0);
	return true;
}

/* He should be waiting when this returns; that he is not yet does no harm. */
static bool he_waits(enum kind kind, int type)
{
	MUST(ask(kind, WAIT, type, 0));
	usleep(8000);
	return true;
}

static bool arrow(void)
{
	struct stat st;

	return !fstat(fd, &st) && somebody_waits(st.st_ino);
}

static bool conflict(enum kind kind)
{
	MUST(mine(kind, TRY, F_WRLCK, 0) == 0);
	MUST(his(kind, TRY, F_WRLCK, 0) == EAGAIN);
	MUST(his(kind, TRY, F_RDLCK, 0) == EAGAIN);
	MUST(kind == FLOCK || his(kind, ASK, F_WRLCK, 0) == F_WRLCK);
	MUST(mine(kind, TRY, F_RDLCK, 0) == 0);
	MUST(his(kind, TRY, F_RDLCK, 0) == 0);
	MUST(mine(kind, TRY, F_UNLCK, 0) == 0);
	MUST(his(kind, TRY, F_WRLCK, 0) == 0);
	return true;
}

static bool he_holds(enum kind kind)
{
	MUST(mine(kind, TRY, F_RDLCK, 0) == EAGAIN);
	MUST(his(kind, TRY, F_UNLCK, 0) == 0);
	MUST(mine(kind, TRY, F_WRLCK, 0) == 0);
	MUST(his(kind, TRY, F_RDLCK, 0) == EAGAIN);
	return true;
}

static bool granted(enum kind kind)
{
	MUST(he_waits(kind, F_WRLCK));
	MUST(mine(kind, TRY, F_UNLCK, 0) == 0);
	MUST(answer() == 0);
	return true;
}

static bool interrupted(enum kind kind)
{
	time_t until = time(NULL) + PATIENCE;

	MUST(he_waits(kind, F_RDLCK));
	/* It may come before he waits; while he does, more than one make no difference. */
	do
		MUST(!kill(other, SIGUSR1));
	while (!answered(20) && time(NULL) < until);
	MUST(answered(0) && answer() == EINTR);
	return true;
}

static bool i_hold_still(enum kind kind)
{
	MUST(his(kind, TRY, F_RDLCK, 0) == EAGAIN);
	MUST(mine(kind, TRY, F_UNLCK, 0) == 0);
	/* Nothing was left behind. */
	MUST(mine(kind, TRY, F_WRLCK, 0) == 0);
	MUST(mine(kind, TRY, F_UNLCK, 0) == 0);
	MUST(his(kind, TRY, F_WRLCK, 0) == 0);
	return true;
}

static bool closed(enum kind kind)
{
	int f = fd;

	MUST(he_waits(kind, F_WRLCK));
	fd = -1;
	MUST(!close(f));
	MUST(answer() == 0);
	return true;
}

/* Who closes is done when close(2) returns. */
static bool flushed(enum kind kind)
{
	int f = fd;

	fd = -1;
	MUST(!close(f));
	MUST(his(kind, TRY, F_WRLCK, 0) == 0);
	return true;
}

static bool he_holds_mine_is_new(enum kind kind)
{
	fd = open("a", O_RDWR | O_CLOEXEC);
	MUST(fd >= 0);
	return he_holds(kind);
}

static bool he_ends(enum kind kind)
{
	MUST(mine(kind, TRY, F_UNLCK, 0) == 0);
	MUST(his(kind, TRY, F_WRLCK, 0) == 0);
	other_end();
	MUST(at_last(mine, kind) == 0);
	return true;
}

static bool i_hold_now(enum kind kind)
{
	MUST(mine(kind, TRY, F_UNLCK, 0) == 0 && mine(kind, TRY, F_RDLCK, 0) == 0);
	return true;
}

/* Each has a byte and waits for the other's: who comes last is told. */
static bool circle(enum kind kind)
{
	time_t until = time(NULL) + PATIENCE;

	MUST(his(kind, TRY, F_WRLCK, 1) == 0);
	MUST(ask(kind, WAIT, F_WRLCK, 0));
	while (!arrow() && time(NULL) < until)
		usleep(1000);
	MUST(arrow());
	MUST(mine(kind, WAIT, F_WRLCK, 1) == EDEADLK);
	MUST(mine(kind, TRY, F_UNLCK, 0) == 0);
	MUST(answer() == 0);
	return true;
}

static bool he_holds_two(enum kind kind)
{
	MUST(mine(kind, TRY, F_WRLCK, 1) == EAGAIN);
	return he_holds(kind);
}

#define OF(kind, fn) fn##_##kind
#define WITH(kind, fn) static bool OF(kind, fn)(void) { return fn(kind); }
#define ALL(fn) WITH(POSIX, fn) WITH(OFD, fn) WITH(FLOCK, fn)

ALL(i_hold) ALL(conflict) ALL(he_holds) ALL(granted) ALL(interrupted) ALL(i_hold_still) ALL(closed)
ALL(he_holds_mine_is_new) ALL(he_ends) ALL(i_hold_now)
WITH(POSIX, flushed) WITH(POSIX, circle) WITH(POSIX, he_holds_two)

#define EACH(name, kind) \
	{ "lock-conflict-" name, both, OF(kind, conflict), OF(kind, he_holds) }, \
	{ "lock-granted-" name, OF(kind, i_hold), OF(kind, granted), OF(kind, he_holds) }, \
	{ "lock-interrupted-" name, OF(kind, i_hold), OF(kind, interrupted), OF(kind, i_hold_still) }, \
	{ "lock-closed-" name, OF(kind, i_hold), OF(kind, closed), OF(kind, he_holds_mine_is_new) }, \
	{ "lock-exit-" name, OF(kind, i_hold), OF(kind, he_ends), OF(kind, i_hold_now) }

const struct operation lock_operations[] = {
	EACH("posix", POSIX),
	EACH("ofd", OFD),
	EACH("flock", FLOCK),
	{ "lock-flushed", OF(POSIX, i_hold), OF(POSIX, flushed), OF(POSIX, he_holds_mine_is_new) },
	{ "lock-circle", OF(POSIX, i_hold), OF(POSIX, circle), OF(POSIX, he_holds_two) },
	{ .name = NULL },
};
