/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every call that takes a path, against every way in which a path can be wrong or closed. */
#include "posix.h"

enum { CREATES = 1, NOFOLLOW = 2, CHANGES_DIR = 4, SHORT = 8 };

static const struct call {
	const char *name, *before, *after;	/* the path stands between them */
	int flags;
} calls[] = {
	{ "open", "open 0", "O_RDONLY", 0 },
	{ "open-rw", "open 0", "O_RDWR|O_NONBLOCK", 0 },
	{ "open-path", "open 0", "O_PATH|O_NOFOLLOW", NOFOLLOW },
	{ "creat", "open 0", "O_WRONLY|O_CREAT|O_TRUNC 0644", CREATES },
	{ "creat-excl", "open 0", "O_RDWR|O_CREAT|O_EXCL 0644", CREATES | NOFOLLOW | CHANGES_DIR },
	{ "stat", "stat", "", 0 },
	{ "lstat", "lstat", "", NOFOLLOW },
	{ "access", "access", "F_OK", 0 },
	{ "chmod", "chmod", "0640", 0 },
	{ "chown", "chown", "own GA", 0 },
	{ "lchown", "lchown", "own GA", NOFOLLOW },
	{ "truncate", "truncate", "7", 0 },
	{ "utimens", "utimens", "1 2", 0 },
	{ "link", "link", "new", NOFOLLOW },
	{ "link-to", "link f", "", CREATES | NOFOLLOW | CHANGES_DIR },
	{ "symlink", "symlink to", "", CREATES | NOFOLLOW | CHANGES_DIR },
	{ "readlink", "readlink", "", NOFOLLOW },
	{ "mkdir", "mkdir", "0755", CREATES | NOFOLLOW | CHANGES_DIR },
	{ "mkfifo", "mkfifo", "0644", CREATES | NOFOLLOW | CHANGES_DIR },
	{ "mknod", "mknod", "S_IFREG|0644", CREATES | NOFOLLOW | CHANGES_DIR },
	{ "unlink", "unlink", "", NOFOLLOW | CHANGES_DIR },
	{ "rmdir", "rmdir", "", NOFOLLOW | CHANGES_DIR },
	{ "rename", "rename", "new", NOFOLLOW | CHANGES_DIR },
	{ "rename-to", "rename f", "", CREATES | NOFOLLOW | CHANGES_DIR },
	{ "statvfs", "statvfs", "", 0 },
	{ "setxattr", "setxattr", "user.x v", NOFOLLOW },
	{ "getxattr", "hasxattr", "user.x", NOFOLLOW },
	{ "listxattr", "listxattr", "", NOFOLLOW },
	{ "removexattr", "removexattr", "user.x", NOFOLLOW },
	{ "chdir", "chdir", "", 0 },
	{ "readdir", "ls", "", 0 },
	{ "exec", "exec", "", 0 },
};

enum { CALLS = sizeof(calls) / sizeof(*calls) };

static void furniture(void)
{
	setup("mk data f 0644; mk dir d 0755; mk fifo p 0644; mk sock s 0644; symlink f lf");
	setup("symlink nowhere dangle; symlink loop2 loop; symlink loop loop2; symlink d ld");
	setup("mk data d/f 0644; mk fifo d/p 0644; mk sock d/s 0644; symlink f d/lf");
	setup("symlink nowhere d/dangle; symlink loop d/loop");
}

static const struct wrong {
	const char *name, *path, *expected;
	int unless;	/* not stated for these calls */
} wrongs[] = {
	{ "missing", "none", "ENOENT", CREATES },
	{ "missing-prefix", "none/x", "ENOENT", 0 },
	{ "file-prefix", "f/x", "ENOTDIR", 0 },
	{ "fifo-prefix", "p/x", "ENOTDIR", 0 },
	{ "socket-prefix", "s/x", "ENOTDIR", 0 },
	{ "link-to-file-prefix", "lf/x", "ENOTDIR", 0 },
	{ "dangling-prefix", "dangle/x", "ENOENT", 0 },
	{ "loop-prefix", "loop/x", "ELOOP", 0 },
	{ "loop-last", "loop", "ELOOP", NOFOLLOW },
	{ "dangling-last", "dangle", "ENOENT", NOFOLLOW | CREATES },
	{ "file-slash", "f/", "ENOTDIR", CREATES },
	{ "file-dot", "f/.", "ENOTDIR", 0 },
	{ "name-255", "<255>", "ENOENT", CREATES },
	{ "name-256", "<256>", "ENAMETOOLONG", 0 },
	{ "name-256-prefix", "<256>/x", "ENAMETOOLONG", 0 },
	{ "dot", ".", NULL, 0 },
	{ "dotdot", "..", NULL, 0 },
	{ "missing-slash", "none/", NULL, 0 },
};

static void path_check(const struct call *call, const char *kind, const char *path,
		       const char *expected)
{
	check("%s-%s", call->name, kind);
	furniture();
	act("@own %s %s %s%s%s", call->before, path, call->after, expected ? " = " : "",
	    expected ?: "");
}

static void wrong_paths(const struct call *call)
{
	static const char *const prefixes[][2] = { { "", "" },
						   { "d/", "in-dir-" },
						   { "ld/", "via-link-" } };

	for (size_t i = 0; i < sizeof(wrongs) / sizeof(*wrongs); i++) {
		const struct wrong *wrong = &wrongs[i];

		for (int p = 0; p < 3; p++) {
			char kind[64], path[64];

			snprintf(kind, sizeof(kind), "%s%s", prefixes[p][1], wrong->name);
			snprintf(path, sizeof(path), "%s%s", prefixes[p][0], wrong->path);
			path_check(call, kind, path,
				   wrong->unless & call->flags ? NULL : wrong->expected);
		}
	}
	path_check(call, "empty", "\"\"", "ENOENT");
	path_check(call, "bad-address", "BAD", "EFAULT");
	path_check(call, "path-4096", "{4095}x", "ENAMETOOLONG");
	path_check(call, "path-4095", "{4088}d/nonex", call->flags & CREATES ? NULL : "ENOENT");
	path_check(call, "path-4097", "{4096}x", "ENAMETOOLONG");
}

static void closed_dir(const struct call *call, const struct actor *actor, int digit)
{
	mode_t mode = class_mode(actor, digit);
	bool needs_write = call->flags & CHANGES_DIR;
	bool allowed = actor_may(actor, UID_OWN, GID_A, S_IFDIR | mode, 1 | (needs_write ? 2 : 0));
	const char *name = call->flags & CREATES ? "new" : !strcmp(call->name, "rmdir") ||
		!strcmp(call->name, "readdir") || !strcmp(call->name, "chdir") ? "sub" : "f";

	check("closed-%s-%s-%04o", call->name, actor->name, mode);
	setup("chmod . 0777; mk data f 0666; mk dir d 0777; mk data d/f 0666; mk dir d/sub 0777; "
	      "chmod d %04o", mode);
	act("@%s %s d/%s %s%s", actor->name, call->before, name, call->after,
	    allowed ? "" : " = EACCES");
}

void gen_paths(void)
{
	group("path", 0);
	for (int c = 0; c < CALLS; c++)
		wrong_paths(&calls[c]);
	group("search", 0);
	for (int c = 0; c < CALLS; c++)
		for (int a = 0; a < CLASSES; a++)
			for (int digit = 0; digit < 8; digit++)
				closed_dir(&calls[c], &actors[a], digit);
}
