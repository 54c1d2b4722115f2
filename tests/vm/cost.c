/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What calls and commands cost in instructions, where the guest's clock counts these (boot -i). Each is
 * one line `note cost KIND CALL INSTRUCTIONS`.
 *	cost plain			calls on a server of these tests, without the module
 *	cost loaded			with it
 *	cost calls KIND DIRECTORY	calls on files there
 *	cost command KIND NAME COMMAND...	it is run in the current directory
 *	cost fresh KIND NAME COMMAND...		in a new one each time
 */
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <x86intrin.h>

#include "tests/vm/rig.h"

#define TIMES 1000
/* What else the guest does in between, timer ticks above all, is in some and not in others. */
#define ROUNDS 9

#define READ_SIZE (128 << 10)

static char path[300], absent[300], data[READ_SIZE] __attribute__((aligned(4096)));
static int file = -1;
static const char *attribute = "user.x";

static void call_stat(void)
{
	struct stat st;

	stat(path, &st);
}

static void call_absent(void)
{
	struct stat st;

	stat(absent, &st);
}

static void call_getxattr(void)
{
	char value[64];

	getxattr(path, attribute, value, sizeof(value));
}

static void call_read(void)
{
	if (pread(file, data, READ_SIZE, 0) != READ_SIZE)
		fatal("read");
}

static void call_open(void)
{
	static char some[4096];
	int fd = open(path, O_RDONLY);

	if (fd < 0 || read(fd, some, sizeof(some)) != sizeof(some) || close(fd))
		fatal("%s", path);
}

static char **command;
static bool fresh;

static void call_command(void)
{
	static int turn;
	char dir[16];
	int status;
	pid_t pid;

	snprintf(dir, sizeof(dir), "new%d", turn++);
	pid = fork();
	if (!pid) {
		if (!freopen("/dev/null", "w", stdout) || (fresh && (mkdir(dir, 0755) || chdir(dir))))
			_exit(127);
		execvp(command[0], command);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		fatal("%s ended with %d", command[0], status);
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void measure_times(const char *kind, const char *name, void (*call)(void), int before, int rounds,
	int times)
{
	uint64_t took[ROUNDS] = { 0 }, begun;

	for (int i = 0; i < before; i++)
		call();
	for (int round = 0; round < rounds; round++) {
		begun = __rdtsc();
		for (int i = 0; i < times; i++)
			call();
		took[round] = (__rdtsc() - begun) / times;
	}
	qsort(took, rounds, sizeof(took[0]), by_size);
	printf("note cost %s %s %llu\n", kind, name, (unsigned long long)took[rounds / 2]);
	fflush(stdout);
}

static void measure(const char *kind, const char *name, void (*call)(void))
{
	measure_times(kind, name, call, 50, ROUNDS, TIMES / ROUNDS);
}

static void measure_all(const char *kind, const char *mount)
{
	snprintf(path, sizeof(path), "%s/file", mount);
	snprintf(absent, sizeof(absent), "%s/none", mount);
	measure(kind, "stat", call_stat);
	measure(kind, "negative-stat", call_absent);
	measure(kind, "getxattr", call_getxattr);
}

static void on_tmpfs(void)
{
	mkdir("/tmp/costs", 0755);
	if (mount("t", "/tmp/costs", "tmpfs", 0, NULL) || mknod("/tmp/costs/file", S_IFREG | 0600, 0))
		fatal("tmpfs");
	measure_all("tmpfs", "/tmp/costs");
	umount("/tmp/costs");
}

/* Else who runs when the other one is woken depends on times: that is one in a hundred of the instructions. */
static void in_turn(void)
{
	if (sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){ .sched_priority = 1 }))
		fatal("scheduler");
}

static void plain(void)
{
	struct mounted *m;

	in_turn();
	m = fs_mount("/tmp/cost");

	if (mknod("/tmp/cost/file", S_IFREG | 0600, 0) || setxattr("/tmp/cost/file", "user.x", "1", 1, 0))
		fatal("file");
	measure_all("upcall", "/tmp/cost");
	m->fs->valid = 1000000;
	measure_all("dcache", "/tmp/cost");
	fs_umount(m);
}

/* 128 KiB: of the file, of the mount by its server, of the mount by that file. */
static void measure_read(struct rig *r)
{
	struct attr_value value;
	int backing = open("/tmp/backing", O_RDWR | O_CREAT, 0600);
	uint64_t id;

	rig_file(r, "data");
	id = rig_id(r, "data");
	if (write(backing, data, READ_SIZE) != READ_SIZE || truncate(rig_path(r, "data"), READ_SIZE) ||
	    rig_backing(r, id, backing))
		fatal("backing");
	file = backing;
	measure("backing", "read-128k", call_read);
	file = open(rig_path(r, "data"), O_RDONLY | O_DIRECT);
	measure("upcall", "read-128k", call_read);
	if (rig_program(r, FUSE_READ, "passthru", EXTFUSE_PROGRAM_MARKED))
		fatal("program");
	value = rig_attr_value(r, id);
	value.passthru = 1;
	rig_put_attr_value(r, id, &value);
	measure("hit", "read-128k", call_read);
	close(file);
	close(backing);
	unlink("/tmp/backing");
}

static void loaded(void)
{
	struct rig *r;

	in_turn();
	r = rig_open("cost");
	rig_file(r, "file");
	rig_file(r, "other");
	if (setxattr(rig_path(r, "file"), "user.x", "1", 1, 0))
		fatal("xattr");
	measure_all("loaded", r->m->path);
	rig_start(r);
	rig_early(r);
	measure_all("miss", r->m->path);
	rig_put_attr(r, rig_id(r, "file"));
	rig_put_name(r, 1, "file");
	rig_put_name(r, 1, "none");
	rig_put_xattr(r, rig_id(r, "file"), "user.x", "1", 1);
	measure_all("hit", r->m->path);
	/* Nothing was put for this one, but for its neighbours. */
	snprintf(path, sizeof(path), "%s/other", r->m->path);
	measure("near", "stat", call_stat);
	measure_read(r);
	rig_free(r);
}

static void calls(const char *kind, const char *directory)
{
	/* Some kernels' tmpfs has no attributes of users. */
	attribute = "trusted.x";
	measure_all(kind, directory);
	if (getxattr(path, attribute, data, sizeof(data)) < 0)
		fatal("%s", path);
	measure(kind, "open-read-close", call_open);
}

int main(int argc, char **argv)
{
	fs_threads = 1;
	if (argc == 2 && !strcmp(argv[1], "plain")) {
		on_tmpfs();
		plain();
	} else if (argc == 2 && !strcmp(argv[1], "loaded")) {
		loaded();
	} else if (argc == 4 && !strcmp(argv[1], "calls")) {
		calls(argv[2], argv[3]);
	} else if (argc > 4 && (!strcmp(argv[1], "command") || !strcmp(argv[1], "fresh"))) {
		command = argv + 4;
		fresh = !strcmp(argv[1], "fresh");
		measure_times(argv[2], argv[3], call_command, 1, 3, 1);
	} else {
		fprintf(stderr, "usage: see the first lines of tests/vm/cost.c\n");
		return 2;
	}
	return 0;
}
