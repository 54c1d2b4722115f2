/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is answered before there is a request: only names and attributes that the driver has and that are true. */
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/vm/rig.h"

#define TIMES 100
#define RENAMES 300

static struct rig *r;

struct asked {
	unsigned long lookups, getattrs;
	unsigned long long name_hits, attr_hits;
};

static struct asked asked(void)
{
	return (struct asked){ rig_asked(r, FUSE_LOOKUP), rig_asked(r, FUSE_GETATTR),
		rig_stats(r, FUSE_LOOKUP).hits, rig_stats(r, FUSE_GETATTR).hits };
}

static void put(const char *name)
{
	rig_put_attr(r, rig_id(r, name));
	rig_put_name(r, 1, name);
}

static void test_hits(void)
{
	const char *path = rig_path(r, "f"), *none = rig_path(r, "none");
	struct node *n;
	struct asked before, after;
	unsigned long granted;
	struct stat st = { 0 };
	int rc = 0;

	rig_file(r, "f");
	put("f");
	rig_put_name(r, 1, "none");
	n = fs_node(r->fs, rig_id(r, "f"));
	stat(none, &st);
	granted = r->nodes[n - r->fs->nodes].grants;
	before = asked();
	for (int i = 0; i < TIMES; i++)
		rc |= stat(path, &st);
	after = asked();
	result(!rc && st.st_ino == n->id && st.st_nlink == n->nlink && (st.st_mode & 07777) == 0644,
		"early-stat", "%d, ino %lu, nlink %lu, mode %o", rc, st.st_ino, (unsigned long)st.st_nlink,
		st.st_mode);
	result(after.lookups == before.lookups && after.getattrs == before.getattrs, "early-not-asked",
		"LOOKUP %lu GETATTR %lu", after.lookups - before.lookups, after.getattrs - before.getattrs);
	after.name_hits -= before.name_hits;
	after.attr_hits -= before.attr_hits;
	result(after.name_hits == TIMES && after.attr_hits == TIMES, "early-counted",
		"LOOKUP %llu GETATTR %llu", after.name_hits, after.attr_hits);
	/* What the kernel has already is not granted again: there was no request. */
	result(r->nodes[n - r->fs->nodes].grants == granted, "early-no-grant", "%lu grants more",
		(unsigned long)r->nodes[n - r->fs->nodes].grants - granted);
	before = asked();
	for (int i = 0; i < TIMES; i++)
		rc |= !stat(none, &st) || errno != ENOENT;
	after = asked();
	result(!rc && after.lookups == before.lookups && after.name_hits - before.name_hits == TIMES,
		"early-absent", "asked %lu times", after.lookups - before.lookups);
}

/* What was said before is not said again where another value was put, or another program, though no word has changed. */
static void test_said_before(void)
{
	const char *path = rig_path(r, "said");
	struct asked before;
	struct node *n;
	struct stat st;

	rig_file(r, "said");
	n = fs_node(r->fs, rig_id(r, "said"));
	put("said");
	stat(path, &st);
	stat(path, &st);
	n->nlink = 7;
	before = asked();
	stat(path, &st);
	result(st.st_nlink == 1 && asked().getattrs == before.getattrs, "early-said-again", "asked %lu times",
		asked().getattrs - before.getattrs);
	put("said");
	stat(path, &st);
	result(st.st_nlink == 7 && asked().getattrs == before.getattrs, "early-put-again",
		"the count before, asked %lu times", asked().getattrs - before.getattrs);
	rig_program(r, FUSE_LOOKUP, "nothing", EXTFUSE_PROGRAM_MARKED | EXTFUSE_PROGRAM_EARLY);
	before = asked();
	stat(path, &st);
	result(asked().lookups == before.lookups + 1, "early-other-program", "answered");
	rig_early(r);
}

/* What the driver has is not what is true by now: it must be told. */
static void test_differs(void)
{
	const char *path = rig_path(r, "differs");
	struct node *n;
	struct stat st;
	int fd, size = 0;

	rig_file(r, "differs");
	put("differs");
	stat(path, &st);
	n = fs_node(r->fs, st.st_ino);
	n->mode = S_IFREG | 0600;
	n->uid = 77;
	rig_bump(r, rig_node_word(r, n->id));
	rig_put_attr(r, n->id);
	rig_put_name(r, 1, "differs");
	stat(path, &st);
	result((st.st_mode & 07777) == 0600 && st.st_uid == 77, "early-other-mode", "mode %o uid %u",
		st.st_mode, st.st_uid);
	/* Who maps it goes by the size that the driver has; so does this. */
	n->size = 4096;
	rig_bump(r, rig_node_word(r, n->id));
	rig_put_attr(r, n->id);
	rig_put_name(r, 1, "differs");
	fd = open(path, O_RDONLY);
	result(!ioctl(fd, FIONREAD, &size) && size == 4096, "early-other-size", "%d", size);
	close(fd);
	/* Another node by the same name. */
	unlink(path);
	rig_file(r, "differs");
	put("differs");
	result(!stat(path, &st) && st.st_ino != n->id, "early-other-node", "ino %lu", st.st_ino);
	rig_bump(r, rig_name_word(r, 1, "differs"));
	struct asked before = asked();
	stat(path, &st);
	result(asked().lookups == before.lookups + 1, "early-bumped", "answered");
	put("differs");
	rig_node_word(r, st.st_ino)->held = 1;
	before = asked();
	stat(path, &st);
	result(asked().lookups == before.lookups + 1 && asked().getattrs == before.getattrs + 1,
		"early-held", "answered");
	rig_node_word(r, st.st_ino)->held = 0;
}

/* Names move back and forth, while others put and look. */
static void test_renames(void)
{
	unsigned long long hits = rig_stats(r, FUSE_LOOKUP).hits;
	atomic_int *stop = mmap(NULL, sizeof(*stop), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char here[2][64];
	pid_t child[4];
	struct stat st;
	uint64_t id;
	int bad = 0;

	snprintf(here[0], sizeof(here[0]), "%s", rig_path(r, "here"));
	snprintf(here[1], sizeof(here[1]), "%s", rig_path(r, "a-longer-name-that-is-not-within-the-dentry"));
	rig_file(r, "here");
	id = rig_id(r, "here");
	for (int c = 0; c < 4; c++) {
		child[c] = fork();
		while (!child[c]) {
			if (*stop)
				_exit(0);
			if (c < 2) {
				rig_put_attr(r, id);
				rig_put_name(r, 1, c ? "here" : strrchr(here[1], '/') + 1);
				usleep(50);
			} else {
				stat(here[c - 2], &st);
			}
		}
	}
	for (int i = 0; i < RENAMES; i++) {
		bad += rename(here[i % 2], here[!(i % 2)]) != 0;
		for (int k = 0; k < 5; k++) {
			bad += !stat(here[i % 2], &st);
			bad += stat(here[!(i % 2)], &st) || st.st_ino != id;
		}
	}
	*stop = 1;
	for (int c = 0; c < 4; c++)
		waitpid(child[c], NULL, 0);
	munmap(stop, sizeof(*stop));
	hits = rig_stats(r, FUSE_LOOKUP).hits - hits;
	result(!bad, "early-renames", "%d of %d answers are wrong", bad, RENAMES * 11);
	result(hits > RENAMES, "early-renames-mixed", "%llu hits", hits);
}

void test_early(void)
{
	r = rig_new("early");
	rig_early(r);
	test_hits();
	test_said_before();
	test_differs();
	test_renames();
	rig_free(r);
}
