/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* utimensat: permission by class, ranges, and what it leaves alone. */
#include "posix.h"

static const char *const values[] = { "NOW", "OMIT", "1234567.89" };

static const char *outcome(const struct actor *actor, mode_t mode, int a, int m)
{
	bool owner = !actor->uid || actor->uid == UID_OWN;

	if (a == 1 && m == 1)
		return "0";
	if (owner)
		return "0";
	if (a == 0 && m == 0)
		return actor_may(actor, UID_OWN, GID_A, mode, 2) ? "0" : "EACCES";
	return "EPERM";
}

static void permission(const char *type, const struct actor *actor, int digit)
{
	mode_t mode = class_mode(actor, digit);

	for (int a = 0; a < 3; a++) {
		for (int m = 0; m < 3; m++) {
			const char *expected = outcome(actor, mode, a, m);
			bool done = !strcmp(expected, "0") && (a != 1 || m != 1);

			check("%s-%s-%04o-%s-%s", type, actor->name, mode, values[a], values[m]);
			setup("mk %s f %04o", type, mode);
			act("@%s utimens f %s %s = %s", actor->name, values[a], values[m],
			    expected);
			post("f chg=%s%s%s; . chg=-", done && a != 1 ? "a" : "",
			     done && m != 1 ? "m" : "", done ? "c" : "-");
		}
	}
	check("%s-%s-%04o-null", type, actor->name, mode);
	setup("mk %s f %04o", type, mode);
	act("@%s utimenow f = %s", actor->name, outcome(actor, mode, 0, 0));
	post("f chg=%s", *outcome(actor, mode, 0, 0) == '0' ? "amc" : "-");
}

static void handles(const struct actor *actor, const char *flags)
{
	for (int a = 0; a < 3; a++) {
		for (int m = 0; m < 3; m++) {
			/* The descriptor's own mode grants nothing: the file's does. */
			const char *expected = outcome(actor, 0664, a, m);

			check("handle-%s-%s-%s-%s", flags, actor->name, values[a], values[m]);
			setup("mk data f 0664");
			act("@%s open 0 f %s; @%s futimens 0 %s %s", actor->name, flags,
			    actor->name, values[a], values[m]);
			if (!strcmp(flags, "O_RDONLY"))
				act("@%s futimens 0 %s %s = %s", actor->name, values[a], values[m],
				    expected);
		}
	}
}

static void ranges(void)
{
	static const char *const seconds[] = {
		"0",	       "1",	      "-1",	     "-2147483648", "-2147483649",
		"2147483647",  "2147483648",  "4294967295",  "4294967296",  "5000000000",
		"10000000000", "15032385535", "15032385536", "99999999999",
	};
	static const char *const parts[] = { "", ".1", ".999999999", ".500000000" };
	static const char *const invalid[] = { "5.1000000000", "5.-1", "5.2000000000" };

	for (size_t s = 0; s < sizeof(seconds) / sizeof(*seconds); s++) {
		for (int p = 0; p < 4; p++) {
			for (int t = 0; t < 2; t++) {
				check("range-%s-%s%s", t ? "dir" : "file", seconds[s], parts[p]);
				setup("mk %s f 0755", t ? "dir" : "file");
				act("@own utimens f %s%s %s%s = 0; @oth times f", seconds[s],
				    parts[p], seconds[s], parts[3 - p]);
				act("@own utimens f OMIT 77 = 0; @root times f");
			}
		}
	}
	for (size_t i = 0; i < sizeof(invalid) / sizeof(*invalid); i++) {
		check("invalid-atime-%s", invalid[i]);
		setup("mk file f 0644");
		act("@own utimens f %s 1 = EINVAL", invalid[i]);
		check("invalid-mtime-%s", invalid[i]);
		setup("mk file f 0644");
		act("@own utimens f 1 %s = EINVAL", invalid[i]);
	}
}

static void links(void)
{
	for (int a = 0; a < CLASSES; a++) {
		bool may = !actors[a].uid || actors[a].uid == UID_OWN;

		check("link-itself-%s", actors[a].name);
		setup("mk file t 0666; symlink t f; lchown f own GA");
		act("@%s utimens f 5 6 AT_SYMLINK_NOFOLLOW = %s", actors[a].name,
		    may ? "0" : "EPERM");
		post("t chg=-; f chg=%s", may ? "amc" : "-");
		check("link-itself-now-%s", actors[a].name);
		setup("mk file t 0666; symlink t f; lchown f own GA");
		act("@%s utimens f NOW NOW AT_SYMLINK_NOFOLLOW", actors[a].name);
		check("through-link-%s", actors[a].name);
		setup("mk file t 0666; symlink t f");
		act("@%s utimens f 5 6 = %s", actors[a].name, may ? "0" : "EPERM");
		post("t chg=%s", may ? "amc" : "-");
		check("dangling-%s", actors[a].name);
		setup("symlink nowhere f");
		act("@%s utimens f 5 6 = ENOENT", actors[a].name);
	}
	for (int i = 0; i < 4; i++) {
		static const char *const types[] = { "fifo", "sock", "chr", "blk" };

		check("exact-%s", types[i]);
		setup("mk %s f 0644", types[i]);
		act("@own utimens f 12.34 56.78 = 0; @own times f = 12.000000034,56.000000078");
	}
	check("exact-file");
	setup("mk data f 0644");
	act("@own utimens f 12.123456789 56.987654321 = 0");
	act("@oth times f = 12.123456789,56.987654321; @oth cat f; @oth moved f = am");
	check("kept-by-close");
	setup("mk data f 0644");
	act("@own open 0 f O_RDWR = 0; @own pwrite 0 zz 0 = 2; @own futimens 0 5 6 = 0; "
	    "@own close 0 = 0");
	act("@own times f = 5.000000000,6.000000000");
	check("kept-by-close-by-path");
	setup("mk data f 0644");
	act("@own open 0 f O_RDWR = 0; @own pwrite 0 zz 0 = 2; @own2 utimens f 5 6 = 0");
	act("@own close 0 = 0; @own2 times f = 5.000000000,6.000000000");
	check("kept-by-fsync");
	setup("mk data f 0644");
	act("@own open 0 f O_RDWR = 0; @own pwrite 0 <5000> 0 = 5000; @own futimens 0 5 6 = 0");
	act("@own fsync 0 = 0; @own close 0 = 0; @root times f = 5.000000000,6.000000000");
}

void gen_times(void)
{
	static const int digits[] = { 0, 2, 4, 6 };

	group("utimens", 0);
	for (int a = 0; a < CLASSES; a++) {
		for (int d = 0; d < 4; d++) {
			permission("file", &actors[a], digits[d]);
			permission("dir", &actors[a], digits[d]);
		}
		handles(&actors[a], "O_RDONLY");
		handles(&actors[a], "O_RDWR");
	}
	ranges();
	links();
}
