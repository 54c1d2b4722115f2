/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* open(): flags by type of file by mode by class of caller. */
#include "posix.h"

static const char *const modes[] = { "O_RDONLY", "O_WRONLY", "O_RDWR" };
static const int wants[] = { 4, 2, 6 };

static void file_checks(const struct actor *actor, int digit, int m)
{
	static const char *const extras[] = {
		"", "|O_TRUNC", "|O_APPEND", "|O_CREAT", "|O_CREAT|O_TRUNC", "|O_NONBLOCK|O_SYNC",
	};
	mode_t mode = class_mode(actor, digit);

	for (size_t e = 0; e < sizeof(extras) / sizeof(*extras); e++) {
		bool trunc = strstr(extras[e], "TRUNC");
		int want = wants[m] | (trunc ? 2 : 0);
		bool may = actor_may(actor, UID_OWN, GID_A, mode, want);

		check("file-%s-%04o-%s%s", actor->name, mode, modes[m], extras[e]);
		setup("mk data f %04o", mode);
		act("@%s open 0 f %s%s 0600 = %s", actor->name, modes[m], extras[e],
		    may ? "0" : "EACCES");
		post("f size=%d mode=%04o chg=%s; . chg=-", may && trunc ? 0 : 100, mode,
		     may && trunc ? "mc" : "-");
	}
}

static void dir_checks(const struct actor *actor, int digit, int m)
{
	mode_t mode = class_mode(actor, digit);
	bool may = actor_may(actor, UID_OWN, GID_A, S_IFDIR | mode, wants[m]);

	check("dir-%s-%04o-%s", actor->name, mode, modes[m]);
	setup("mk full f %04o", mode);
	act("@%s open 0 f %s = %s", actor->name, modes[m], m ? "EISDIR" : may ? "0" : "EACCES");
	if (m == 0) {
		check("readdir-%s-%04o", actor->name, mode);
		setup("mk full f %04o", mode);
		act("@%s ls f = %s", actor->name, may ? "in:file" : "EACCES");
	}
}

static const char *type_outcome(const char *type, const char *flags)
{
	bool creat = strstr(flags, "O_CREAT"), missing = !strcmp(type, "none");
	bool write = strstr(flags, "O_WRONLY") || strstr(flags, "O_RDWR");

	if (strstr(flags, "O_TMPFILE") || (creat && strstr(flags, "O_DIRECTORY")))
		return NULL;
	if (creat && strstr(flags, "O_EXCL"))
		return missing ? "0" : "EEXIST";
	if (missing)
		return creat ? "0" : "ENOENT";
	if (!strncmp(type, "lnk", 3))
		return strstr(flags, "O_NOFOLLOW") && !strstr(flags, "O_PATH") &&
			!strstr(flags, "O_DIRECTORY") ? "ELOOP" : NULL;
	if (strstr(flags, "O_DIRECTORY") && strcmp(type, "dir"))
		return "ENOTDIR";
	if (strstr(flags, "O_PATH"))
		return "0";
	if (!strcmp(type, "dir") && (write || creat))
		return "EISDIR";
	if (!strcmp(type, "sock"))
		return strstr(flags, "NOATIME") ? NULL : "ENXIO";
	if (!strcmp(type, "fifo"))
		return strstr(flags, "O_WRONLY") ? "ENXIO" : strstr(flags, "NOATIME") ? NULL : "0";
	return NULL;
}

static void type_checks(const char *type, const struct actor *actor)
{
	static const char *const flags[] = {
		"O_RDONLY",
		"O_WRONLY",
		"O_RDWR",
		"O_RDONLY|O_CREAT",
		"O_WRONLY|O_CREAT",
		"O_RDWR|O_CREAT",
		"O_RDWR|O_CREAT|O_EXCL",
		"O_RDONLY|O_CREAT|O_EXCL",
		"O_WRONLY|O_TRUNC",
		"O_RDWR|O_CREAT|O_TRUNC",
		"O_RDONLY|O_DIRECTORY",
		"O_RDWR|O_DIRECTORY",
		"O_RDONLY|O_NOFOLLOW",
		"O_RDWR|O_NOFOLLOW",
		"O_PATH",
		"O_PATH|O_NOFOLLOW",
		"O_PATH|O_DIRECTORY",
		"O_RDONLY|O_NOATIME",
		"O_WRONLY|O_APPEND",
		"O_RDWR|O_CREAT|O_NOFOLLOW",
		"O_RDONLY|O_DIRECTORY|O_NOFOLLOW",
		"O_RDONLY|O_CREAT|O_DIRECTORY",
		"O_RDWR|O_TMPFILE",
		"O_RDWR|O_SYNC",
		"O_RDWR|O_DSYNC",
	};

	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		const char *outcome = type_outcome(type, flags[i]);

		check("type-%s-%s-%s", type, flags[i], actor->name);
		setup("chmod . 0777");
		if (!strcmp(type, "lnkfile"))
			setup("mk data t 0666; symlink t f");
		else if (!strcmp(type, "lnkdir"))
			setup("mk dir t 0777; symlink t f");
		else if (strcmp(type, "none"))
			setup("mk %s f 0666", type);
		act("@%s open 0 f %s|O_NONBLOCK 0640%s%s", actor->name, flags[i],
		    outcome ? " = " : "", outcome ?: "");
	}
}

static void create_permission(const struct actor *actor, int digit)
{
	static const char *const flags[] = {
		"O_RDONLY|O_CREAT", "O_WRONLY|O_CREAT|O_EXCL", "O_RDWR|O_CREAT|O_TRUNC",
	};
	mode_t mode = class_mode(actor, digit);
	bool may = actor_may(actor, UID_OWN, GID_A, S_IFDIR | mode, 3);

	for (int i = 0; i < 3; i++) {
		check("create-%s-%04o-%s", actor->name, mode, flags[i]);
		setup("mk dir d %04o", mode);
		act("@%s open 0 d/f %s 0640 = %s", actor->name, flags[i], may ? "0" : "EACCES");
		if (may)
			post("d chg=mc; d/f mode=0640 uid=%s size=0; . chg=-", actor->name);
	}
}

/* The mode binds the next open, not the one that made the file. */
static void made_with_mode(const struct actor *actor, int digit)
{
	check("made-%s-0%d00", actor->name, digit);
	setup("chmod . 0777");
	act("@%s open 0 f O_RDWR|O_CREAT 0%d00 = 0; @%s write 0 abc = 3; @%s pread 0 10 0 = 3:abc",
	    actor->name, digit, actor->name, actor->name);
	act("@%s open 1 f O_RDWR = %s", actor->name,
	    (digit & 6) == 6 || !actor->uid ? "0" : "EACCES");
	act("@%s fchmod 0 0444 = 0; @%s write 0 def = 3; @%s ftruncate 0 4 = 0", actor->name,
	    actor->name, actor->name);
	post("f mode=0444 size=4 uid=%s", actor->name);
}

static void handle_checks(void)
{
	check("read-on-write-only");
	setup("mk data f 0644");
	act("@own open 0 f O_WRONLY = 0; @own read 0 1 = EBADF; @own pread 0 1 0 = EBADF");
	check("write-on-read-only");
	setup("mk data f 0644");
	act("@own open 0 f O_RDONLY = 0; @own write 0 x = EBADF; @own pwrite 0 x 0 = EBADF");
	act("@own fallocate 0 0 0 10 = EBADF; @own ftruncate 0 5 = EINVAL");
	post("f chg=- size=100");
	check("read-directory");
	setup("mk dir d 0755");
	act("@own open 0 d O_RDONLY = 0; @own read 0 10 = EISDIR");
	check("path-handle");
	setup("mk data f 0644");
	act("@oth open 0 f O_PATH = 0; @oth read 0 1 = EBADF; @oth fchmod 0 0777 = EBADF");
	act("@oth fstat 0 tmus = file,0644,own,100; @oth ftruncate 0 0 = EBADF");
	check("path-handle-no-permission");
	setup("mk data f 0000");
	act("@oth open 0 f O_PATH = 0; @oth fstat 0 ms = 0000,100; "
	    "@oth reopen 1 0 O_RDONLY = EACCES");
	check("reopen-checks-mode");
	setup("mk data f 0644");
	act("@oth open 0 f O_RDONLY = 0; @oth reopen 1 0 O_RDWR = EACCES; "
	    "@oth reopen 1 0 O_RDONLY = 0");
	check("kept-after-chmod");
	setup("mk data f 0666");
	act("@oth open 0 f O_RDWR = 0; @own chmod f 0000 = 0; @oth pwrite 0 XY 0 = 2");
	act("@oth pread 0 4 0 = 4:XY23; @oth open 1 f O_RDONLY = EACCES; @oth ftruncate 0 2 = 0");
	post("f size=2");
	check("noatime-by-other");
	setup("mk data f 0666");
	act("@oth open 0 f O_RDONLY|O_NOATIME = EPERM");
	check("noatime-by-owner");
	setup("mk data f 0666");
	act("@own open 0 f O_RDONLY|O_NOATIME = 0; @own read 0 3 = 3:012");
	post("f chg=-");
	check("excl-dangling-link");
	setup("symlink there f");
	act("@own open 0 f O_RDWR|O_CREAT|O_EXCL 0644 = EEXIST");
	check("creat-through-dangling-link");
	setup("symlink there f");
	act("@own open 0 f O_RDWR|O_CREAT 0644 = 0");
	post("there type=file mode=0644 uid=own; f type=lnk");
	check("null-device");
	checks.at[checks.count - 1].needs = NEED_DEV;
	setup("mk chr f 0666");
	act("@oth open 0 f O_RDWR = 0; @oth write 0 abc = 3; @oth read 0 10 = 0:");
	check("fifo-passes-data");
	setup("mk fifo f 0666");
	act("@own open 0 f O_RDONLY|O_NONBLOCK = 0; @oth open 0 f O_WRONLY|O_NONBLOCK = 0");
	act("@oth write 0 hello = 5; @own read 0 20 = 5:hello; @oth close 0 = 0; "
	    "@own read 0 20 = 0:");
	check("fifo-waits-for-writer");
	setup("mk fifo f 0666");
	act("@own& open 0 f O_RDONLY; @oth open 0 f O_WRONLY = 0; @own wait = 0");
	act("@oth write 0 x = 1; @own read 0 9 = 1:x");
}

void gen_open(void)
{
	static const char *const types[] = {
		"none", "data", "dir", "fifo", "sock", "lnk", "lnkfile", "lnkdir",
	};

	group("open", 0);
	for (int a = 0; a < CLASSES; a++) {
		for (int digit = 0; digit < 8; digit++) {
			for (int m = 0; m < 3; m++) {
				file_checks(&actors[a], digit, m);
				dir_checks(&actors[a], digit, m);
			}
			create_permission(&actors[a], digit);
			made_with_mode(&actors[a], digit);
		}
		for (size_t t = 0; t < sizeof(types) / sizeof(*types); t++)
			type_checks(types[t], &actors[a]);
	}
	handle_checks();
}
