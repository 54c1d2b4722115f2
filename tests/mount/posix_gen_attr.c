/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* chmod, truncate, extended attributes. */
#include "posix.h"

static const mode_t modes[] = {
	0, 0111, 0222, 0444, 0644, 0755, 0777, 01644, 02755, 02644, 04755, 06777,
};

enum { MODES = sizeof(modes) / sizeof(*modes) };

static void chmod_checks(const char *type, const struct actor *actor, bool foreign)
{
	bool may = !actor->uid || actor->uid == UID_OWN;

	for (int m = 0; m < MODES; m++) {
		mode_t becomes = modes[m] & (actor->uid && foreign ? ~02000 : ~0);

		check("chmod-%s-%s-%s-%04o", type, actor->name, foreign ? "GD" : "GA", modes[m]);
		setup("mk %s f 0751 own %s; symlink f l", type, foreign ? "GD" : "GA");
		act("@%s chmod %s %04o = %s", actor->name, m & 1 ? "l" : "f", modes[m],
		    may ? "0" : "EPERM");
		post("f mode=%04o chg=%s; . chg=-", may ? becomes : 0751, may ? "c" : "-");
	}
}

static void fchmod_checks(const struct actor *actor)
{
	bool may = !actor->uid || actor->uid == UID_OWN;

	for (int m = 0; m < MODES; m++) {
		check("fchmod-%s-%04o", actor->name, modes[m]);
		setup("mk data f 0644");
		act("@%s open 0 f O_RDONLY = 0; @%s fchmod 0 %04o = %s", actor->name, actor->name,
		    modes[m], may ? "0" : "EPERM");
		act("@%s fstat 0 m = %04o", actor->name, may ? modes[m] : 0644);
		post("f mode=%04o chg=%s", may ? modes[m] : 0644, may ? "c" : "-");
	}
}

static void truncate_checks(const struct actor *actor, int digit)
{
	static const int sizes[] = { 0, 50, 100, 200 };
	mode_t mode = class_mode(actor, digit);
	bool may = actor_may(actor, UID_OWN, GID_A, mode, 2);

	for (int s = 0; s < 4; s++) {
		check("truncate-%s-%04o-%d", actor->name, mode, sizes[s]);
		setup("mk data f %04o", mode);
		act("@%s truncate f %d = %s", actor->name, sizes[s], may ? "0" : "EACCES");
		post("f size=%d mode=%04o; . chg=-", may ? sizes[s] : 100, mode);
		/* truncate() to the size a file has changes the times, unlike what POSIX allows. */
		post("f chg=%s", may ? "mc" : "-");
	}
}

static void truncate_wrong(void)
{
	static const char *const steps[][2] = {
		{ "dir", "EISDIR" },  { "fifo", "EINVAL" }, { "sock", "EINVAL" },
		{ "full", "EISDIR" }, { "chr", "EINVAL" },  { "lnk", "ENOENT" },
	};

	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		for (int a = 0; a < CLASSES; a++) {
			check("truncate-type-%s-%s", steps[i][0], actors[a].name);
			setup("mk %s f 0777", steps[i][0]);
			act("@%s truncate f 5 = %s", actors[a].name, steps[i][1]);
		}
	}
	check("truncate-negative");
	setup("mk data f 0644");
	act("@own truncate f -1 = EINVAL");
	check("ftruncate-negative");
	setup("mk data f 0644");
	act("@own open 0 f O_RDWR = 0; @own ftruncate 0 -1 = EINVAL");
	post("f chg=-");
	check("truncate-too-big");
	setup("mk data f 0644");
	act("@own truncate f 0x7fffffffffffffff");
	for (int size = 10; size <= 210; size += 100) {
		check("ftruncate-%d", size);
		setup("mk data f 0644");
		act("@own open 0 f O_WRONLY = 0; @own ftruncate 0 %d = 0; @own fstat 0 s = %d",
		    size, size);
		post("f size=%d chg=mc", size);
		check("truncate-limit-%d", size);
		setup("mk data f 0644");
		act("@own fsize 150; @own truncate f %d = %s", size,
		    size > 150 ? "EFBIG+SIGXFSZ" : "0");
		post("f size=%d chg=%s", size > 150 ? 100 : size, size > 150 ? "-" : "mc");
	}
}

static void xattr_permission(const char *type, const struct actor *actor, int digit)
{
	mode_t mode = class_mode(actor, digit);
	mode_t full = mode | (*type == 'd' && type[1] == 'i' ? S_IFDIR : S_IFREG);
	const char *who = actor->name;

	check("xattr-set-%s-%s-%04o", type, who, mode);
	setup("mk %s f %04o", type, mode);
	act("@%s setxattr f user.a value = %s", who,
	    actor_may(actor, UID_OWN, GID_A, full, 2) ? "0" : "EACCES");
	check("xattr-get-%s-%s-%04o", type, who, mode);
	setup("mk %s f %04o; setxattr f user.a value", type, mode);
	act("@%s getxattr f user.a = %s", who,
	    actor_may(actor, UID_OWN, GID_A, full, 4) ? "5:value" : "EACCES");
	post("f chg=-");
	check("xattr-remove-%s-%s-%04o", type, who, mode);
	setup("mk %s f %04o; setxattr f user.a value", type, mode);
	act("@%s removexattr f user.a = %s", who,
	    actor_may(actor, UID_OWN, GID_A, full, 2) ? "0" : "EACCES");
	check("xattr-list-%s-%s-%04o", type, who, mode);
	setup("mk %s f %04o; setxattr f user.a value; setxattr f user.b value", type, mode);
	act("@%s listxattr f = user.a,user.b", who);
}

static void xattr_rules(const struct actor *actor)
{
	static const char *const types[] = { "fifo", "sock", "chr", "lnk", "dir", "file" };
	const char *who = actor->name;

	for (size_t t = 0; t < sizeof(types) / sizeof(*types); t++) {
		bool special = t < 4;

		check("xattr-user-on-%s-%s", types[t], who);
		setup("mk %s f 0777", types[t]);
		act("@%s setxattr f user.a v = %s", who, special ? "EPERM" : "0");
		check("xattr-trusted-on-%s-%s", types[t], who);
		setup("mk %s f 0777", types[t]);
		act("@%s setxattr f trusted.a v = %s", who, actor->uid ? "EPERM" : "0");
		check("xattr-trusted-read-%s-%s", types[t], who);
		setup("mk %s f 0777; setxattr f trusted.a v", types[t]);
		act("@%s getxattr f trusted.a = %s; @%s listxattr f", who,
		    actor->uid ? "ENODATA" : "1:v", who);
	}
	/* In a sticky directory only the owner may set user attributes of the directory. */
	check("xattr-sticky-dir-%s", who);
	setup("mk dir f 01777");
	act("@%s setxattr f user.a v = %s", who,
	    actor->uid && actor->uid != UID_OWN ? "EPERM" : "0");
	check("xattr-create-%s", who);
	setup("mk file f 0666; setxattr f user.a v");
	act("@%s setxattr f user.a w XATTR_CREATE = EEXIST", who);
	check("xattr-replace-%s", who);
	setup("mk file f 0666");
	act("@%s setxattr f user.a w XATTR_REPLACE = ENODATA", who);
	check("xattr-missing-%s", who);
	setup("mk file f 0666");
	act("@%s removexattr f user.a = ENODATA", who);
	check("xattr-no-namespace-%s", who);
	setup("mk file f 0666");
	act("@%s setxattr f nothing.a v = EOPNOTSUPP", who);
	check("xattr-empty-value-%s", who);
	setup("mk file f 0666");
	act("@%s setxattr f user.e \"\" = 0; @%s getxattr f user.e = 0:; @%s hasxattr f user.e = 0",
	    who, who, who);
	post("f chg=c");
}

void gen_attr(void)
{
	static const char *const types[] = { "file", "dir", "fifo", "sock" };

	group("chmod", 0);
	for (int a = 0; a < CLASSES; a++) {
		for (int t = 0; t < 4; t++) {
			chmod_checks(types[t], &actors[a], false);
			chmod_checks(types[t], &actors[a], true);
		}
		fchmod_checks(&actors[a]);
	}
	group("truncate", 0);
	for (int a = 0; a < CLASSES; a++)
		for (int digit = 0; digit < 8; digit++)
			truncate_checks(&actors[a], digit);
	truncate_wrong();
	group("xattr", NEED_XATTR);
	for (int a = 0; a < CLASSES; a++) {
		for (int digit = 0; digit < 8; digit++) {
			xattr_permission("file", &actors[a], digit);
			xattr_permission("dir", &actors[a], digit);
		}
		xattr_rules(&actors[a]);
	}
}
