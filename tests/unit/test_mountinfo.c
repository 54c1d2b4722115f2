/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mountinfo.h"
#include "tests/unit/unit.h"

static const char table[] =
	"22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
	"30 22 0:40 / /mnt rw,nosuid shared:5 master:2 - fuse.bindfs /a rw,user_id=5,group_id=5\n"
	"31 30 0:52 / /mnt rw,nosuid - fuse.fuse-extent passthrough:/a rw,user_idle=9,user_id=1000,group_id=7,allow_other\n"
	"32 22 0:53 / /mnt/b\\040c\\011d\\134e\\012f rw - fuse.fuse-extent x rw,user_id=0\n"
	"33 22 0:54 /sub /mnt/sub rw shared:9 - tmpfs - rw\n"
	"34 22 0:55\n"
	"35 22 0:56 / /short rw -\n"
	"- tmpfs s rw x\n"
	"36 22 0:57 / /noopts rw - fuse.fuse-extent\n"
	"37 22 7:58 / /mnt2 rw - fuse.fuse-extent s rw\n";

static int find(const char *path, struct mount_entry *entry)
{
	FILE *f = fmemopen((char *)table, sizeof(table) - 1, "r");
	int err = mountinfo_find(f, path, entry);

	fclose(f);
	return err;
}

START_TEST(topmost_entry_wins)
{
	struct mount_entry e;

	ck_assert_int_eq(find("/mnt", &e), 0);
	ck_assert_uint_eq(e.major, 0);
	ck_assert_uint_eq(e.minor, 52);
	ck_assert_str_eq(e.fstype, "fuse.fuse-extent");
	ck_assert_uint_eq(e.owner, 1000);
}
END_TEST

START_TEST(optional_fields_are_skipped)
{
	struct mount_entry e;

	ck_assert_int_eq(find("/", &e), 0);
	ck_assert_str_eq(e.fstype, "ext4");
	ck_assert_uint_eq(e.owner, (uid_t)-1);
	ck_assert_int_eq(find("/mnt/sub", &e), 0);
	ck_assert_str_eq(e.fstype, "tmpfs");
	ck_assert_int_eq(find("/mnt2", &e), 0);
	ck_assert_uint_eq(e.major, 7);
}
END_TEST

START_TEST(octal_escapes)
{
	struct mount_entry e;

	ck_assert_int_eq(find("/mnt/b c\td\\e\nf", &e), 0);
	ck_assert_uint_eq(e.minor, 53);
	ck_assert_int_eq(find("/mnt/b\\040c", &e), -ENOENT);
}
END_TEST

START_TEST(only_whole_paths_of_whole_lines)
{
	static const char *const absent[] = { "/mn", "/mnt/", "/mnt/s", "/mnt3", "", "/short", "/noopts" };
	struct mount_entry e;

	for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
		ck_assert_msg(find(absent[i], &e) == -ENOENT, "%s was found", absent[i]);
}
END_TEST

static char base[4096];

static void enter_scratch(void)
{
	const char *tmp = getenv("TMPDIR");
	char template[512];

	snprintf(template, sizeof(template), "%s/fe-mountinfo-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(template));
	ck_assert_ptr_nonnull(realpath(template, base));
	ck_assert_int_eq(chdir(base), 0);
	ck_assert_int_eq(symlink(".", "link"), 0);
}

static void leave_scratch(void)
{
	ck_assert_int_eq(unlink("link"), 0);
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_int_eq(rmdir(base), 0);
}

/* The last component is not looked at: it need not even exist. */
START_TEST(relative_paths)
{
	static const struct {
		const char *given, *below_base;
	} cases[] = {
		{ "gone", "/gone" }, { "./gone///", "/gone" }, { "link/gone", "/gone" }, { "link", "/link" },
		{ ".", "" }, { "./", "" }, { "link/.", "" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char expected[sizeof(base) + 16];
		char *got = mountpoint_path(cases[i].given);

		snprintf(expected, sizeof(expected), "%s%s", base, cases[i].below_base);
		ck_assert_str_eq(got, expected);
		free(got);
	}
}
END_TEST

START_TEST(absolute_paths)
{
	static const struct {
		const char *given, *expected;
	} cases[] = {
		{ "/", "/" }, { "//", "/" }, { "/gone", "/gone" }, { "//gone/", "/gone" },
		{ "/proc/../gone", "/gone" }, { "/proc/..", "/" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *got = mountpoint_path(cases[i].given);

		ck_assert_str_eq(got, cases[i].expected);
		free(got);
	}
}
END_TEST

START_TEST(parent_must_exist)
{
	errno = 0;
	ck_assert_ptr_null(mountpoint_path("gone/gone"));
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		topmost_entry_wins, optional_fields_are_skipped, octal_escapes, only_whole_paths_of_whole_lines,
		relative_paths, absolute_paths, parent_must_exist, NULL,
	};

	return unit_run("mountinfo", tests, enter_scratch, leave_scratch);
}
