/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cost STEP: what calls cost in instructions, where the guest's clock counts these (boot -i). STEP is
 * `plain` without the module, `loaded` with it. One line `note cost KIND CALL INSTRUCTIONS` for each.
 */
#include <sys/mount.h>
#include <sys/xattr.h>
#include <x86intrin.h>

#include "tests/vm/rig.h"

#define TIMES 1000
/* What else the guest does in between, timer ticks above all, is in some and not in others. */
#define ROUNDS 9

#define READ_SIZE (128 << 10)

static char path[300], absent[300], data[READ_SIZE] __attribute__((aligned(4096)));
static int file = -1;

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

	getxattr(path, "user.x", value, sizeof(value));
}

static void call_read(void)
{
	if (pread(file, data, READ_SIZE, 0) != READ_SIZE)
		fatal("read");
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void measure(const char *kind, const char *name, void (*call)(void))
{
	uint64_t took[ROUNDS], begun;

	for (int i = 0; i < 50; i++)
		call();
	for (int round = 0; round < ROUNDS; round++) {
		begun = __rdtsc();
		for (int i = 0; i < TIMES / ROUNDS; i++)
			call();
		took[round] = (__rdtsc() - begun) / (TIMES / ROUNDS);
	}
	qsort(took, ROUNDS, sizeof(took[0]), by_size);
	printf("note cost %s %s %llu\n", kind, name, (unsigned long long)took[ROUNDS / 2]);
	fflush(stdout);
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

static void plain(void)
{
	struct mounted *m = fs_mount("/tmp/cost");

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
	struct rig *r = rig_open("cost");

	rig_file(r, "file");
	if (setxattr(rig_path(r, "file"), "user.x", "1", 1, 0))
		fatal("xattr");
	measure_all("loaded", r->m->path);
	rig_start(r);
	measure_all("miss", r->m->path);
	rig_put_attr(r, rig_id(r, "file"));
	rig_put_name(r, 1, "file");
	rig_put_name(r, 1, "none");
	rig_put_xattr(r, rig_id(r, "file"), "user.x", "1", 1);
	measure_all("hit", r->m->path);
	measure_read(r);
	rig_free(r);
}

int main(int argc, char **argv)
{
	fs_threads = 1;
	if (argc == 2 && !strcmp(argv[1], "plain")) {
		on_tmpfs();
		plain();
	} else {
		loaded();
	}
	return 0;
}
