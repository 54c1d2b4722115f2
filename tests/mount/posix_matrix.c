/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posix_matrix [--list] [--only GROUP] PLAIN_DIR MOUNTED_DIR
 * Root only: the callers of all classes are made here.
 */
#include <fcntl.h>
#include <fnmatch.h>
#include <getopt.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>

#include "posix.h"
#include "posix_judge.h"

enum { BATCH = 64, SKIP = 77 };

struct check_list checks;

static const struct {
	unsigned int bit;
	const char *why;
} needs[] = {
	{ NEED_ACL, "access lists: not on the plain file system" },
	{ NEED_DEV, "device nodes: a side is mounted nodev" },
	{ NEED_SUID, "set-id programs: a side is mounted nosuid" },
	{ NEED_CAPS, "file capabilities: not on the plain file system" },
	{ NEED_TMPFILE, "O_TMPFILE: not on the plain file system" },
	{ NEED_XATTR, "user attributes: not on the plain file system" },
	{ NEED_EXEC, "running programs: a side is mounted noexec" },
};

static volatile sig_atomic_t interrupted;
static char top[SIDES][PATH_MAX];
static int made;

/* ---- building the list ---- */

static const char *group_name;
static unsigned int group_needs;

void group(const char *name, unsigned int bits)
{
	group_name = name;
	group_needs = bits;
}

static void append(char **text, const char *fmt, va_list args)
{
	char *added, *whole;

	if (vasprintf(&added, fmt, args) < 0 ||
	    asprintf(&whole, "%s%s%s", *text ?: "", *text ? "; " : "", added) < 0)
		abort();
	free(added);
	free(*text);
	*text = whole;
}

void check(const char *fmt, ...)
{
	struct check new = { .group = group_name, .needs = group_needs };
	va_list args;

	va_start(args, fmt);
	append(&new.name, fmt, args);
	va_end(args);
	if ((checks.count & 1023) == 0)
		checks.at = realloc(checks.at, (checks.count + 1024) * sizeof(new));
	checks.at[checks.count++] = new;
}

#define APPENDER(what)							\
	void what(const char *fmt, ...)					\
	{								\
		va_list args;						\
									\
		va_start(args, fmt);					\
		append(&checks.at[checks.count - 1].what, fmt, args);	\
		va_end(args);						\
	}

APPENDER(setup)
APPENDER(act)
APPENDER(post)

static void build(void)
{
	gen_paths();
	gen_access();
	gen_open();
	gen_create();
	gen_attr();
	gen_chown();
	gen_times();
	gen_names();
	gen_rename();
	gen_sticky();
	gen_setid();
	gen_acl();
	gen_data();
	gen_share();
}

static void select_checks(const char *only)
{
	size_t kept = 0;

	for (size_t i = 0; only && i < checks.count; i++) {
		char name[512];

		snprintf(name, sizeof(name), "%s/%s", checks.at[i].group, checks.at[i].name);
		if (!strcmp(checks.at[i].group, only) || !fnmatch(only, name, 0))
			checks.at[kept++] = checks.at[i];
	}
	if (only)
		checks.count = kept;
}

/* ---- what the two sides can do ---- */

static bool root_can(const char *steps)
{
	char copy[STEP_MAX], *rest = copy, *step, result[RESULT_MAX] = "0", dir[PATH_MAX + 8];

	snprintf(dir, sizeof(dir), "%s/probe", top[SIDE_PLAIN]);
	mkdir(dir, 0755);
	snprintf(copy, sizeof(copy), "%s", steps);
	while (!strcmp(result, "0") && (step = strsep(&rest, ";")))
		actors_step("root", dir, step, result);
	actors_reset();
	tree_remove(dir);
	return !strcmp(result, "0");
}

static unsigned int missing(void)
{
	unsigned int bits = 0;

	for (int side = 0; side < SIDES; side++) {
		struct statvfs st;

		if (statvfs(top[side], &st))
			continue;
		bits |= (st.f_flag & ST_NODEV ? NEED_DEV : 0) |
			(st.f_flag & ST_NOSUID ? NEED_SUID : 0) |
			(st.f_flag & ST_NOEXEC ? NEED_EXEC : 0);
	}
	if (!root_can("mk file f;setacl f access u:rw,u:oth:r,g:r,m:r,o:r"))
		bits |= NEED_ACL;
	if (!root_can("mk file f;setcap f"))
		bits |= NEED_CAPS;
	if (!root_can("open 0 . O_TMPFILE|O_RDWR 0600"))
		bits |= NEED_TMPFILE;
	if (!root_can("mk file f;setxattr f user.a b"))
		bits |= NEED_XATTR;
	return bits;
}

static void report_missing(unsigned int bits)
{
	for (size_t i = 0; i < sizeof(needs) / sizeof(*needs); i++) {
		size_t count = 0;

		for (size_t j = 0; j < checks.count; j++)
			count += (checks.at[j].needs & bits & needs[i].bit) != 0;
		if (count)
			printf("posix_matrix: skipped %zu checks of %s\n", count, needs[i].why);
	}
}

/* ---- running ---- */

/* ctime is the one time nobody can set: the clock that stamps it must move between before and
 * after. */
static void wait_for_tick(void)
{
	const struct timespec nap = { .tv_nsec = 500000 };
	struct timespec start, now;

	clock_gettime(CLOCK_REALTIME_COARSE, &start);
	do {
		nanosleep(&nap, NULL);
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	} while (now.tv_sec == start.tv_sec && now.tv_nsec == start.tv_nsec);
}

static void run_batch(const struct check *first, size_t count, unsigned int lacks)
{
	static struct trial trials[BATCH];

	for (size_t i = 0; i < count; i++) {
		trials[i] = (struct trial){ .check = &first[i] };
		trials[i].skipped = first[i].needs & lacks;
		for (int side = 0; side < SIDES && !trials[i].skipped; side++) {
			char *dir = trials[i].side[side].dir;

			snprintf(dir, PATH_MAX, "%.4000s/%d", top[side], made++ / 2);
			trial_prepare(&trials[i], side);
		}
	}
	wait_for_tick();
	for (size_t i = 0; i < count; i++) {
		for (int side = 0; side < SIDES && !trials[i].skipped && !interrupted; side++)
			trial_act(&trials[i], side);
		if (!trials[i].skipped && !interrupted)
			trial_judge(&trials[i]);
		for (int side = 0; side < SIDES && !trials[i].skipped; side++)
			tree_remove(trials[i].side[side].dir);
		trial_free(&trials[i]);
	}
}

static void interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* Each directory far from the others: ext4 is slow to make files where many were just removed. */
static void spread_out(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_CLOEXEC), flags;

	if (fd < 0)
		return;
	if (!ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
		flags |= FS_TOPDIR_FL;
		ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
	close(fd);
}

static int open_up(const char *dir, int side)
{
	char result[RESULT_MAX];

	snprintf(top[side], PATH_MAX, "%.4000s/posix-matrix.XXXXXX", dir);
	if (!mkdtemp(top[side]) || chmod(top[side], 0755)) {
		fprintf(stderr, "posix_matrix: %s: %m\n", top[side]);
		return -1;
	}
	spread_out(top[side]);
	actors_step("oth", top[side], "stat .", result);
	if (strcmp(result, "0")) {
		fprintf(stderr, "posix_matrix: an unprivileged caller %s\n", result);
		return -1;
	}
	return 0;
}

static int run(char *const dirs[SIDES])
{
	unsigned int lacks;
	int rc = 1;

	if (open_up(dirs[0], SIDE_PLAIN) || open_up(dirs[1], SIDE_MOUNT))
		goto out;
	umask(022);
	lacks = missing();
	for (size_t i = 0; i < checks.count && !interrupted && actors_hung() < 5; i += BATCH)
		run_batch(&checks.at[i], checks.count - i < BATCH ? checks.count - i : BATCH,
			  lacks);
	report_missing(lacks);
	if (actors_hung() >= 5)
		printf("posix_matrix: given up: too many steps never returned\n");
	rc = judge_report() || interrupted || actors_hung() ? 1 : 0;
out:
	actors_end();
	for (int side = 0; side < SIDES; side++)
		if (*top[side])
			tree_remove(top[side]);
	return rc;
}

static int usage(void)
{
	fprintf(stderr, "usage: posix_matrix [--list] [--only GROUP] PLAIN_DIR MOUNTED_DIR\n");
	return 1;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "list", no_argument, NULL, 'l' },
		{ "only", required_argument, NULL, 'o' },
		{ NULL, 0, NULL, 0 },
	};
	const struct sigaction stop = { .sa_handler = interrupt };
	const char *only = NULL;
	bool list = false;
	int opt;

	if (!strcmp(argv[0], "tell-ids"))
		return printf("%u,%u", geteuid(), getegid()) < 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'l')
			list = true;
		else if (opt == 'o')
			only = optarg;
		else
			return usage();
	}
	build();
	select_checks(only);
	for (size_t i = 0; list && i < checks.count; i++)
		printf("%s/%s\n", checks.at[i].group, checks.at[i].name);
	if (list)
		return 0;
	if (argc - optind != SIDES)
		return usage();
	if (geteuid()) {
		printf("posix_matrix: skipped: needs root to act as others\n");
		return SKIP;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGHUP, &stop, NULL);
	return run(argv + optind);
}
