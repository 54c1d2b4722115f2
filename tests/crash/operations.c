/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * operations [--only files|data|locks|NAME] [--sample N --seed SEED] MOUNTPOINT
 * Each operation of a file system, once for each numbered step of the server that serves it, or for N of them:
 * there the server dies (killpoint.h). The caller must see what it would see otherwise, and so must who looks
 * afterwards. An upgrade is done by its name only, since the keeper may die of it. The server has to be
 * built with --enable-kill-points.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/host.h"
#include "programs/control.h"
#include "tests/crash/operations.h"

#define MOST_STEPS 4000
#define NO_STEP 1000000000u	/* beyond all */

struct mount_entry mounted;
int fd = -1, fd2 = -1;
char why[256];
bool kept_writes;

bool put(const char *name, const char *text)
{
	int f = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	MUST(f >= 0 && write(f, text, strlen(text)) == (ssize_t)strlen(text) && !close(f));
	return true;
}

bool has(const char *name, const char *text)
{
	char got[256] = "";
	int f = open(name, O_RDONLY | O_CLOEXEC);

	MUST(f >= 0 && read(f, got, sizeof(got) - 1) >= 0 && !close(f));
	MUST(!strcmp(got, text));
	return true;
}

bool is(const char *name, mode_t type, nlink_t links)
{
	struct stat st;

	MUST(!lstat(name, &st));
	MUST((st.st_mode & S_IFMT) == type);
	MUST(!links || st.st_nlink == links);
	return true;
}

bool gone(const char *name)
{
	struct stat st;

	MUST(lstat(name, &st) && errno == ENOENT);
	return true;
}

bool nothing(void)
{
	return true;
}

bool file_a(void)
{
	return put("a", "alpha");
}

bool opened_a(void)
{
	MUST(file_a());
	fd = open("a", O_RDWR | O_CLOEXEC);
	MUST(fd >= 0);
	return true;
}

bool see_a(void)
{
	return is("a", S_IFREG, 1) && has("a", "alpha");
}

bool do_unlink(void)
{
	MUST(!unlink("a"));
	return true;
}

bool see_gone(void)
{
	return gone("a");
}

static bool upgrades(const struct operation *op)
{
	return !strncmp(op->name, "upgrade", 7);
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

/* Returns whether the server died, -1 where something was not as it should be. taken: steps that there were. */
static int one_death(const struct operation *op, unsigned step, uint64_t *taken)
{
	static unsigned tries;
	char dir[64];
	uint64_t from;
	bool good;

	snprintf(dir, sizeof(dir), "%s.%u.%u", op->name, step, tries++);
	fd = fd2 = -1;
	*why = 0;
	if (mkdir(dir, 0755) || chdir(dir) || !op->before()) {
		printf("FAIL operations/%s: preparing step %u: %s\n", op->name, step, *why ? why : strerror(errno));
		return -1;
	}
	from = kill_in(op, step);
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
	*taken = kill_in(op, 0) - from;
	return *taken >= step;
}

static bool status_has(const char *text)
{
	char status[16384];

	return !control_ask(&mounted, FE_CONTROL_STATUS, status, sizeof(status)) && strstr(status, text);
}

/*
 * Whether all was well. How many steps there are is known when nobody dies, and is not always the same, for some of
 * them follow the answer: where nobody died in another try, it was less.
 */
static bool some_deaths(const struct operation *op, bool asks, unsigned sample, unsigned *seed)
{
	uint64_t steps, taken;
	unsigned deaths = 0;
	int died = one_death(op, NO_STEP, &steps);

	for (unsigned tries = 0; died >= 0 && steps && deaths < sample && tries < 10 * sample; tries++) {
		died = one_death(op, 1 + (unsigned)((uint64_t)rand_r(seed) % steps), &taken);
		deaths += died > 0;
		if (!died)
			steps = taken;
	}
	if (died < 0)
		return false;
	if (asks && deaths < sample) {
		printf("FAIL operations/%s: only %u deaths in %u steps\n", op->name, deaths, (unsigned)steps);
		return false;
	}
	printf("ok operations/%s (%u deaths)\n", op->name, deaths);
	return true;
}

static bool all_deaths(const struct operation *op, bool asks)
{
	uint64_t taken;
	unsigned step = 0;
	int died = 1;

	while (died == 1 && step < MOST_STEPS)
		died = one_death(op, ++step, &taken);
	if (died < 0)
		return false;
	if (asks && step < 3) {
		printf("FAIL operations/%s: only %u steps\n", op->name, step);
		return false;
	}
	printf("ok operations/%s (%u steps)\n", op->name, step - 1);
	return true;
}

static const struct operation *const tables[] = { name_operations, data_operations, lock_operations };

static bool wanted(const struct operation *op, const struct operation *table, const char *only)
{
	bool lock = table == lock_operations;

	if (!only || !strcmp(only, "files"))
		return !upgrades(op) && !(only && lock);
	if (!strcmp(only, "data"))
		return table == data_operations && !upgrades(op);
	return !strcmp(only, op->name) || (lock && !strcmp(only, "locks"));
}

static int usage(void)
{
	fprintf(stderr, "usage: operations [--only files|data|locks|NAME] [--sample N --seed SEED] MOUNTPOINT\n");
	return 2;
}

int main(int argc, char **argv)
{
	const char *only = NULL, *mountpoint = argv[argc - 1];
	bool well = true, any = false, locks;
	unsigned sample = 0, seed = 1;

	setlinebuf(stdout);
	umask(022);
	if (argc % 2)
		return usage();
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--only"))
			only = argv[i + 1];
		else if (!strcmp(argv[i], "--sample"))
			sample = (unsigned)atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--seed"))
			seed = (unsigned)atoi(argv[i + 1]);
		else
			return usage();
	}
	if (mountinfo_lookup(mountpoint, &mounted) || chdir(mountpoint))
		return usage();
	/* Else the kernel keeps the locks of the mount, and asks nobody. */
	locks = status_has("\"locks\":\"source\"");
	kept_writes = status_has("the writeback option excludes it");
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		bool lock = tables[i] == lock_operations, asks = !lock || locks;

		for (const struct operation *op = tables[i]; op->name; op++) {
			if (!wanted(op, tables[i], only))
				continue;
			any = true;
			well &= sample ? some_deaths(op, asks, sample, &seed) : all_deaths(op, asks);
		}
	}
	if (!any) {
		fprintf(stderr, "operations: there is no operation %s\n", only);
		return 2;
	}
	return !well;
}
