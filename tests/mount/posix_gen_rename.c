/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* rename: every type onto every type, within and across directories, with each flag. */
#include "posix.h"

static const char *const sources[] = { "data", "dir", "full", "fifo", "sock", "chr", "blk", "lnk" };
static const char *const targets[] = {
	"none", "data", "dir", "full", "fifo", "sock", "chr", "blk", "lnk", "hard",
};

enum { SOURCES = 8, TARGETS = 10 };

static bool is_dir(const char *type)
{
	return !strcmp(type, "dir") || !strcmp(type, "full");
}

static const char *replacing(const char *source, const char *target)
{
	if (!strcmp(target, "none") || !strcmp(target, "hard"))
		return "0";
	if (is_dir(source) && !is_dir(target))
		return "ENOTDIR";
	if (!is_dir(source) && is_dir(target))
		return "EISDIR";
	return strcmp(target, "full") ? "0" : "ENOTEMPTY|EEXIST";
}

static const char *outcome(const char *source, const char *target, int flags)
{
	bool missing = !strcmp(target, "none");

	if (flags == 0)
		return replacing(source, target);
	if (flags == 1)
		return missing ? "0" : "EEXIST";
	return missing ? "ENOENT" : "0";
}

static void type_on_type(const char *source, const char *target, int flags, bool across)
{
	static const char *const names[] = { "0", "RENAME_NOREPLACE", "RENAME_EXCHANGE" };
	const char *expected = outcome(source, target, flags), *to = across ? "d2/b" : "d1/b";
	bool hard = !strcmp(target, "hard");

	check("%s-to-%s-%s-%s", source, target, names[flags], across ? "across" : "within");
	setup("mk dir d1 0755; mk dir d2 0755; mk %s d1/a 0644", source);
	if (hard && !is_dir(source))
		setup("link d1/a %s", to);
	else if (strcmp(target, "none") && !hard)
		setup("mk %s %s 0600", target, to);
	if (hard && is_dir(source) && flags)
		expected = outcome(source, "none", flags);
	act("@own rename2 d1/a %s %s = %s", to, names[flags], expected);
	/* Two names of one inode: nothing happens, and both stay. */
	if (hard && !is_dir(source) && flags == 0)
		post("d1/a nlink=2 chg=-; d1 chg=-; d2 chg=-");
	else if (!strcmp(expected, "0") && flags != 2)
		post("d1/a gone; d1 chg=mc; d2 chg=%s; . chg=-", across ? "mc" : "-");
	else if (flags == 2 && !strcmp(expected, "0") && !hard)
		post("d1 chg=mc; d2 chg=%s", across ? "mc" : "-");
}

static void permission(const struct actor *actor, int digit, bool source, bool dir)
{
	mode_t mode = class_mode(actor, digit);
	bool may = actor_may(actor, UID_OWN, GID_A, S_IFDIR | mode, 3);

	check("%s-dir-%04o-%s-%s", source ? "from" : "to", mode, actor->name, dir ? "dir" : "file");
	setup("mk dir d1 0777; mk dir d2 0777; mk %s d1/a 0777; chmod d%d %04o",
	      dir ? "dir" : "data", source ? 1 : 2, mode);
	act("@%s rename d1/a d2/b = %s", actor->name, may ? "0" : "EACCES");
}

/* Moving a directory rewrites its "..": that takes the right to write to it. */
static void moving_directories(const struct actor *actor, int digit)
{
	mode_t mode = class_mode(actor, digit);
	bool may = actor_may(actor, UID_OWN, GID_A, S_IFDIR | mode, 2);

	check("dotdot-%04o-%s", mode, actor->name);
	setup("mk dir d1 0777; mk dir d2 0777; mk dir d1/a %04o", mode);
	act("@%s rename d1/a d2/b = %s", actor->name, may ? "0" : "EACCES");
	if (may)
		post("d2/b type=dir mode=%04o chg=c nlink=2; d1 nlink=2; d2 nlink=3", mode);
	check("dotdot-within-%04o-%s", mode, actor->name);
	setup("mk dir d1 0777; mk dir d1/a %04o", mode);
	act("@%s rename d1/a d1/b = 0", actor->name);
	check("dotdot-exchange-%04o-%s", mode, actor->name);
	setup("mk dir d1 0777; mk dir d2 0777; mk dir d1/a %04o; mk data d2/b 0666", mode);
	act("@%s rename2 d1/a d2/b RENAME_EXCHANGE = %s", actor->name, may ? "0" : "EACCES");
}

static void seen_elsewhere(void)
{
	check("dotdot-leads-to-the-new-parent");
	setup("mk dir d1 0755; mk dir d2 0700; mk dir d1/a 0755");
	act("@own chdir d1/a; @own2 rename d1/a d2/a = 0; @own2 stat d2/a/.. m = 0700");
	check("handle-follows-the-file");
	setup("mk data f 0644; mk dir d 0755");
	act("@own open 0 f O_RDWR = 0; @own2 rename f d/g = 0; @own write 0 abc = 3");
	act("@own2 cat d/g; @own fstat 0 n = 1; @own2 stat f = ENOENT");
	check("other-process-sees-the-new-name");
	setup("mk data f 0644; mk file g 0644");
	act("@oth stat f s = 100; @oth stat g s = 0; @own rename f g = 0; @oth stat f = ENOENT");
	act("@oth stat g s = 100; @oth ls . = g:file");
	check("negative-name-comes-to-life");
	setup("mk data f 0644");
	act("@oth stat g = ENOENT; @own rename f g = 0; @oth stat g s = 100; @oth stat f = ENOENT");
	check("exchange-seen-by-others");
	setup("mk data f 0644; mk dir g 0755");
	act("@oth stat f t = file; @oth stat g t = dir; @own rename2 f g RENAME_EXCHANGE = 0");
	act("@oth stat f t = dir; @oth stat g t = file");
	check("tree-moves-as-a-whole");
	setup("mk dir a 0755; mk dir a/b 0755; mk data a/b/c 0644; mk dir d 0755");
	act("@oth cat a/b/c; @own rename a d/e = 0; @oth stat a/b/c = ENOENT; "
	    "@oth stat d/e/b/c s = 100");
	check("into-own-child-of-child");
	setup("mk dir a 0755; mk dir a/b 0755; mk dir a/b/c 0755");
	act("@own rename a a/b/c/d = EINVAL");
	check("child-onto-parent");
	setup("mk dir a 0755; mk dir a/b 0755; mk dir a/b/c 0755");
	act("@own rename a/b/c a/b = ENOTEMPTY|EEXIST");
	check("exchange-with-own-child");
	setup("mk dir a 0755; mk dir a/b 0755");
	act("@own rename2 a a/b RENAME_EXCHANGE = EINVAL");
	check("exchange-child-with-parent");
	setup("mk dir a 0755; mk dir a/b 0755");
	act("@own rename2 a/b a RENAME_EXCHANGE = ENOTEMPTY|EINVAL");
	check("whiteout");
	setup("mk data f 0644");
	act("@root rename2 f g RENAME_WHITEOUT");
	check("name-255");
	setup("mk data f 0644");
	act("@own rename f <255> = 0; @own rename <255> <256> = ENAMETOOLONG; "
	    "@own stat <255> s = 100");
}

void gen_rename(void)
{
	group("rename", 0);
	for (int s = 0; s < SOURCES; s++)
		for (int t = 0; t < TARGETS; t++)
			for (int flags = 0; flags < 3; flags++)
				for (int across = 0; across < 2; across++)
					type_on_type(sources[s], targets[t], flags, across);
	for (int a = 0; a < CLASSES; a++) {
		for (int digit = 0; digit < 8; digit++) {
			for (int i = 0; i < 4; i++)
				permission(&actors[a], digit, i & 1, i & 2);
			moving_directories(&actors[a], digit);
		}
	}
	seen_elsewhere();
}
