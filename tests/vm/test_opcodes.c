/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opcodes that no handler of the library answers, and the module lets handlers answer. */
#include <bpf/bpf.h>

#include "tests/vm/rig.h"

static struct rig *r;

static void say(uint32_t opcode, const struct script *s)
{
	__u32 zero = 0;

	if (bpf_map_update_elem(r->script, &zero, s, BPF_ANY))
		fatal("put script");
	errno = rig_program(r, opcode, "scripted", 0);
	if (errno)
		fatal("handler of %u", opcode);
}

static void test_directory(void)
{
	struct fuse_open_out out = { .fh = 4711 };
	struct script s = { .out_size = sizeof(out) };
	unsigned long before = rig_asked(r, FUSE_OPENDIR);
	int fd;

	memcpy(s.out, &out, sizeof(out));
	say(FUSE_OPENDIR, &s);
	fd = open(rig_path(r, "d"), O_RDONLY | O_DIRECTORY);
	result(fd >= 0 && rig_asked(r, FUSE_OPENDIR) == before && rig_stats(r, FUSE_OPENDIR).hits == 1,
		"opendir-answered", "descriptor %d, asked %lu times, %llu hits", fd, rig_asked(r, FUSE_OPENDIR) - before,
		(unsigned long long)rig_stats(r, FUSE_OPENDIR).hits);
	s = (struct script){ 0 };
	say(FUSE_RELEASEDIR, &s);
	before = rig_asked(r, FUSE_RELEASEDIR);
	close(fd);
	result(rig_asked(r, FUSE_RELEASEDIR) == before && rig_stats(r, FUSE_RELEASEDIR).hits == 1,
		"releasedir-answered", "asked %lu times, %llu hits", rig_asked(r, FUSE_RELEASEDIR) - before,
		(unsigned long long)rig_stats(r, FUSE_RELEASEDIR).hits);
}

static void test_directory_refused(void)
{
	struct script s = { .error = -EACCES };
	unsigned long before = rig_asked(r, FUSE_RELEASEDIR);
	int fd;

	say(FUSE_OPENDIR, &s);
	fd = open(rig_path(r, "d"), O_RDONLY | O_DIRECTORY);
	result(fd < 0 && errno == EACCES, "opendir-error", "descriptor %d, errno %d", fd, errno);
	rig_program(r, FUSE_OPENDIR, NULL, 0);
	fd = open(rig_path(r, "d"), O_RDONLY | O_DIRECTORY);
	/* An error is no answer to what nobody waits for: the server is asked, some time. */
	say(FUSE_RELEASEDIR, &s);
	close(fd);
	for (int i = 0; i < 1000 && rig_asked(r, FUSE_RELEASEDIR) == before; i++)
		usleep(10000);
	result(rig_asked(r, FUSE_RELEASEDIR) == before + 1 && rig_stats(r, FUSE_RELEASEDIR).refused == 1,
		"releasedir-error", "asked %lu times, %llu refused", rig_asked(r, FUSE_RELEASEDIR) - before,
		(unsigned long long)rig_stats(r, FUSE_RELEASEDIR).refused);
	rig_program(r, FUSE_RELEASEDIR, NULL, 0);
}

static void test_seek(void)
{
	struct fuse_lseek_out out = { .offset = 4242 };
	struct script s = { .out_size = sizeof(out) };
	unsigned long before = rig_asked(r, FUSE_LSEEK);
	int fd = open(rig_path(r, "f"), O_RDONLY);
	off_t at;

	memcpy(s.out, &out, sizeof(out));
	say(FUSE_LSEEK, &s);
	at = lseek(fd, 0, SEEK_DATA);
	result(at == 4242 && rig_asked(r, FUSE_LSEEK) == before, "lseek-answered", "at %ld, asked %lu times", (long)at,
		rig_asked(r, FUSE_LSEEK) - before);
	s = (struct script){ .error = -ENXIO };
	say(FUSE_LSEEK, &s);
	at = lseek(fd, 0, SEEK_DATA);
	result(at < 0 && errno == ENXIO && rig_asked(r, FUSE_LSEEK) == before, "lseek-error", "at %ld, errno %d, asked %lu times",
		(long)at, errno, rig_asked(r, FUSE_LSEEK) - before);
	rig_program(r, FUSE_LSEEK, NULL, 0);
	at = lseek(fd, 0, SEEK_DATA);
	result(at == 0 && rig_asked(r, FUSE_LSEEK) == before + 1, "lseek-asked", "at %ld, asked %lu times", (long)at,
		rig_asked(r, FUSE_LSEEK) - before);
	close(fd);
}

void test_opcodes(void)
{
	r = rig_new("opcodes");
	rig_dir(r, "d");
	rig_file(r, "f");
	if (truncate(rig_path(r, "f"), 10000))
		fatal("truncate");
	test_directory();
	test_directory_refused();
	test_seek();
	rig_free(r);
}
