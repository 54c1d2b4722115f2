/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What handlers answer reaches the caller, without the server; and only what is true. */
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>

#include "tests/vm/rig.h"

static void test_getattr(struct rig *r)
{
	int fd = rig_handle(r, "f");
	uint64_t id = rig_id(r, "f");
	unsigned long before = rig_asked(r, FUSE_GETATTR);
	struct attr_value value;
	struct stat st;

	fstat(fd, &st);
	result(rig_asked(r, FUSE_GETATTR) == before + 1, "getattr-miss", "asked %lu times",
		rig_asked(r, FUSE_GETATTR) - before);
	value = rig_attr_value(r, id);
	((struct fuse_attr_out *)value.attr)->attr.nlink = 77;
	rig_put_attr_value(r, id, &value);
	before = rig_asked(r, FUSE_GETATTR);
	for (int i = 0; i < 100; i++)
		fstat(fd, &st);
	result(rig_asked(r, FUSE_GETATTR) == before && st.st_nlink == 77, "getattr-hit",
		"asked %lu times, nlink %lu", rig_asked(r, FUSE_GETATTR) - before, (unsigned long)st.st_nlink);
	result(rig_stats(r, FUSE_GETATTR).hits == 100, "getattr-counted", "%llu hits",
		(unsigned long long)rig_stats(r, FUSE_GETATTR).hits);

	value.expires = 1;
	rig_put_attr_value(r, id, &value);
	fstat(fd, &st);
	result(rig_asked(r, FUSE_GETATTR) == before + 1 && st.st_nlink == 1, "getattr-expired", "nlink %lu",
		(unsigned long)st.st_nlink);
	close(fd);
}

static void test_held(struct rig *r)
{
	int fd = rig_handle(r, "f");
	uint64_t id = rig_id(r, "f");
	unsigned long before;
	struct stat st;

	rig_put_attr(r, id);
	rig_node_word(r, id)->held = 1;
	before = rig_asked(r, FUSE_GETATTR);
	fstat(fd, &st);
	result(rig_asked(r, FUSE_GETATTR) == before + 1, "held", "answered");
	rig_node_word(r, id)->held = 0;
	fstat(fd, &st);
	result(rig_asked(r, FUSE_GETATTR) == before + 1, "held-no-more", "asked");
	rig_bump(r, rig_node_word(r, id));
	fstat(fd, &st);
	result(rig_asked(r, FUSE_GETATTR) == before + 2, "bumped-by-server", "answered");
	rig_put_attr(r, id);
	rig_bump(r, &r->words[0]);
	fstat(fd, &st);
	result(rig_asked(r, FUSE_GETATTR) == before + 3, "bumped-all", "answered");
	close(fd);
}

/* Without a mark the handler is not even asked. */
static void test_mark(struct rig *r)
{
	int fd = rig_handle(r, "f");
	uint64_t id = rig_id(r, "f");
	unsigned long before;
	struct stat st;

	rig_put_attr(r, id);
	before = rig_asked(r, FUSE_GETATTR);
	fstat(fd, &st);
	result(rig_asked(r, FUSE_GETATTR) == before, "marked", "asked");
	rig_node_word(r, id)->marked = 0;
	fstat(fd, &st);
	result(rig_asked(r, FUSE_GETATTR) == before + 1, "not-marked", "answered");
	rig_put_attr(r, id);
	chmod(rig_path(r, "f"), 0640);
	result(!rig_node_word(r, id)->marked, "mark-taken-by-mutation", "still there");
	close(fd);
}

static void test_lookup(struct rig *r)
{
	struct { const char *label, *name; } names[] = {
		{ "short", "f" }, { "seven", "1234567" }, { "eight", "12345678" }, { "nine", "123456789" },
		{ "long", "a name of thirty-nine bytes to the last" },
	};
	char label[64];
	struct stat st;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *path = rig_path(r, names[i].name);
		unsigned long before;

		if (i)
			rig_file(r, names[i].name);
		stat(path, &st);
		rig_put_name(r, 1, names[i].name);
		before = rig_asked(r, FUSE_LOOKUP);
		for (int n = 0; n < 10; n++)
			stat(path, &st);
		snprintf(label, sizeof(label), "lookup-%s", names[i].label);
		result(rig_asked(r, FUSE_LOOKUP) == before && st.st_ino == fs_child(r->fs, 1, names[i].name),
			label,
			"asked %lu times, ino %lu", rig_asked(r, FUSE_LOOKUP) - before, (unsigned long)st.st_ino);
	}
	rig_put_name(r, 1, "absent");
	unsigned long before = rig_asked(r, FUSE_LOOKUP);
	int rc = stat(rig_path(r, "absent"), &st);

	result(rc && errno == ENOENT && rig_asked(r, FUSE_LOOKUP) == before, "lookup-absent",
		"%d, errno %d", rc, errno);
	rc = stat(rig_path(r, "absent2"), &st);
	result(rc && rig_asked(r, FUSE_LOOKUP) == before + 1, "lookup-other-absent", "not asked");
	/* No handler goes as far as this one. */
	char longest[256];

	memset(longest, 'n', 255);
	longest[255] = 0;
	rc = stat(rig_path(r, longest), &st);
	result(rc && errno == ENOENT && rig_asked(r, FUSE_LOOKUP) == before + 2, "lookup-255",
		"%d, errno %d", rc, errno);
}

static void test_getxattr(struct rig *r)
{
	const char *path = rig_path(r, "f");
	uint64_t id = rig_id(r, "f");
	unsigned long before;
	char got[64];
	ssize_t n;

	rig_put_xattr(r, id, "user.x", "value", 5);
	rig_put_xattr(r, id, "user.absent", NULL, 0xffffffff);
	before = rig_asked(r, FUSE_GETXATTR);
	n = getxattr(path, "user.x", got, sizeof(got));
	result(n == 5 && !memcmp(got, "value", 5), "getxattr", "%zd", n);
	n = getxattr(path, "user.x", NULL, 0);
	result(n == 5, "getxattr-size", "%zd", n);
	n = getxattr(path, "user.x", got, 3);
	result(n < 0 && errno == ERANGE, "getxattr-range", "%zd, errno %d", n, errno);
	n = getxattr(path, "user.absent", got, sizeof(got));
	result(n < 0 && errno == ENODATA, "getxattr-absent", "%zd, errno %d", n, errno);
	result(rig_asked(r, FUSE_GETXATTR) == before, "getxattr-not-asked", "asked %lu times",
		rig_asked(r, FUSE_GETXATTR) - before);
}

/* Values of one connection mean nothing to another, nor to a mount without any. */
static void test_isolation(struct rig *r)
{
	struct rig *other = rig_new("other");
	struct mounted *plain = fs_mount("/tmp/plain");
	unsigned long before, before_plain;
	char path[300];
	struct stat st;

	rig_file(other, "f");
	rig_put_attr(r, rig_id(r, "f"));
	rig_put_name(r, 1, "f");
	before = rig_asked(other, FUSE_LOOKUP);
	stat(rig_path(other, "f"), &st);
	result(rig_asked(other, FUSE_LOOKUP) == before + 1, "isolation-attached", "not asked");
	snprintf(path, sizeof(path), "%s/x", plain->path);
	mknod(path, S_IFREG | 0600, 0);
	before_plain = plain->fs->asked[FUSE_LOOKUP];
	stat(path, &st);
	result(plain->fs->asked[FUSE_LOOKUP] == before_plain + 1, "isolation-plain", "not asked");
	fs_umount(plain);
	rig_free(other);
}

static void test_ids(struct rig *r)
{
	struct script s = { .result = (uint32_t)EXTFUSE_UPCALL };
	__u32 zero = 0;
	struct stat st;
	int fd = rig_handle(r, "f");
	extern int bpf_map_update_elem(int, const void *, const void *, __u64);
	extern int bpf_map_lookup_elem(int, const void *, void *);

	bpf_map_update_elem(r->script, &zero, &s, 0);
	rig_program(r, FUSE_GETATTR, "scripted", EXTFUSE_PROGRAM_IDS);
	if (syscall(SYS_setfsuid, 1234) < 0)
		fatal("setfsuid");
	fstat(fd, &st);
	syscall(SYS_setfsuid, 0);
	bpf_map_lookup_elem(r->script, &zero, &s);
	result(s.seen_ids == ((uint64_t)1234 << 32 | (uint32_t)getpid()), "ids", "uid %llu pid %llu",
		(unsigned long long)s.seen_ids >> 32, (unsigned long long)s.seen_ids & 0xffffffff);
	rig_program(r, FUSE_GETATTR, "getattr", 0);
	close(fd);
}

void test_answers(void)
{
	struct rig *r = rig_new("answers");

	rig_file(r, "f");
	test_getattr(r);
	test_held(r);
	test_mark(r);
	test_lookup(r);
	test_getxattr(r);
	test_ids(r);
	test_isolation(r);
	rig_free(r);
}
