/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* link, unlink, rmdir, mkdir, symlink, listings: counts, times, and what is left. */
#include "posix.h"

static const char *const types[] = { "data", "dir", "full", "fifo", "sock", "chr", "blk", "lnk" };

enum { TYPES = 8 };

static bool is_dir(const char *type)
{
	return !strcmp(type, "dir") || !strcmp(type, "full");
}

static void link_checks(const char *type, const struct actor *actor)
{
	const char *who = actor->name;
	bool root = !actor->uid || actor->uid == UID_OWN;

	check("link-%s-%s", type, who);
	setup("mk dir d 0777; mk %s f 0644", type);
	/* Others' files: fs.protected_hardlinks decides. */
	act("@%s link f d/n%s", who, is_dir(type) ? " = EPERM" : root ? " = 0" : "");
	if (!is_dir(type) && root)
		post("f nlink=2 chg=c; d/n same=f; d chg=mc; . chg=-");
	check("unlink-%s-%s", type, who);
	setup("chmod . 0777; mk %s f 0644", type);
	act("@%s unlink f = %s", who, is_dir(type) ? "EISDIR" : "0");
	if (!is_dir(type))
		post("f gone; . chg=mc");
	check("unlink-one-of-two-%s-%s", type, who);
	setup("mk dir d 0777; mk %s d/f 0644%s", type, is_dir(type) ? "" : "; link d/f g");
	act("@%s unlink d/f = %s", who, is_dir(type) ? "EISDIR" : "0");
	if (!is_dir(type))
		post("g nlink=1 chg=c; d chg=mc; . chg=-");
	check("rmdir-%s-%s", type, who);
	setup("chmod . 0777; mk %s f 0755", type);
	act("@%s rmdir f = %s", who, !is_dir(type) ? "ENOTDIR" : !strcmp(type, "dir") ? "0" :
	    "ENOTEMPTY|EEXIST");
	if (!strcmp(type, "dir"))
		post("f gone; . chg=mc nlink=2");
	check("list-%s-%s", type, who);
	setup("mk dir d 0755; mk %s d/f 0644", type);
	act("@%s ls d = f:%s; @%s inos d", who,
	    !strcmp(type, "data") ? "file"
	    : is_dir(type)	  ? "dir"
				  : type,
	    who);
	check("remove-and-list-%s-%s", type, who);
	setup("mk dir d 0777; mk %s d/f 0644; mk file d/g 0644", type);
	act("@root ls d; @%s %s d/f; @%s ls d", who, is_dir(type) ? "rmdir" : "unlink", who);
	act("@%s lstat d/f = %s", who, strcmp(type, "full") ? "ENOENT" : "0");
	check("make-remove-make-%s-%s", type, who);
	setup("mk dir d 0777; mk %s d/f 0644", type);
	act("@%s %s d/f; @%s mkdir d/f 0700; @%s stat d/f tmu", who,
	    is_dir(type) ? "rmdir" : "unlink", who, who);
	check("open-unlinked-%s-%s", type, who);
	setup("mk dir d 0777; mk %s d/f 0666", type);
	act("@%s open 0 d/f O_PATH|O_NOFOLLOW = 0; @%s %s d/f; @%s fstat 0 tmun", who, who,
	    is_dir(type) ? "rmdir" : "unlink", who);
}

static void dot_names(void)
{
	static const char *const steps[] = {
		"rmdir d/. = EINVAL",
		"rmdir d/.. = ENOTEMPTY",
		"rmdir d/sub/.. = ENOTEMPTY",
		"rmdir . = EINVAL",
		"rmdir .. = ENOTEMPTY|EACCES|EPERM",
		"unlink d/. = EISDIR|EINVAL",
		"unlink d/.. = EISDIR",
		"mkdir d/. 0755 = EEXIST",
		"mkdir d/.. 0755 = EEXIST",
		"mkdir d/ 0755 = EEXIST",
		"mkdir new/ 0755 = 0",
		"mkdir new/. 0755 = ENOENT",
		"rename d/. n = EBUSY",
		"rename d/.. n = EBUSY",
		"rename d d/. = EBUSY",
		"rename d d/.. = EBUSY",
		"rename d/ n/ = 0",
		"rename f n/ = ENOTDIR",
		"rename f d/ = ENOTDIR|EISDIR",
		"rename d d/sub = EINVAL",
		"rename d d/sub/x = EINVAL",
		"rename d/sub d = ENOTEMPTY",
		"rename d d = 0",
		"rename f f = 0",
		"rename f g = 0",
		"rename d/sub d/sub = 0",
		"link f f = EEXIST",
		"link f g = EEXIST",
		"link d n = EPERM",
		"link f n/ = ENOENT",
		"symlink x n/ = ENOENT",
		"open 0 n/ O_RDWR|O_CREAT 0644 = EISDIR",
		"mknod n/ S_IFREG|0644 = ENOENT",
		"mkfifo n/ 0644 = ENOENT",
		"rmdir d/ = ENOTEMPTY",
		"rmdir d/sub/ = 0",
		"unlink f/ = ENOTDIR",
		"linkat lf n 0 = 0",
		"linkat lf n AT_SYMLINK_FOLLOW = 0",
		"linkat ld n AT_SYMLINK_FOLLOW = EPERM",
		"linkat f n 0x40000000 = EINVAL",
		"rename ld/ n = ENOTDIR",
		"rename ld n = 0",
		"rmdir ld = ENOTDIR",
		"rmdir ld/ = ENOTDIR",
		"mkdir lf 0755 = EEXIST",
		"unlink ld = 0",
		"rename d lf = ENOTDIR",
		"rename lf d = EISDIR",
		"rename ld lf = 0",
		"symlink <4000> n = 0",
		"symlink {4096}x n = ENAMETOOLONG",
		"symlink \"\" n = ENOENT",
		"link /proc/version n = EXDEV",
		"rename f /proc/n = EXDEV",
		"rename f /n/n = ENOENT",
		"rename2 f n 0x40 = EINVAL",
		"rename2 f d RENAME_NOREPLACE|RENAME_EXCHANGE = EINVAL",
	};

	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		for (int a = 0; a < 2; a++) {
			check("names-%zu-%s", i, actors[a].name);
			setup("mk dir d 0755; mk dir d/sub 0755; mk file f 0644; link f g");
			setup("symlink f lf; symlink d ld; lchown lf own GA; lchown ld own GA");
			act("@%s %s", actors[a].name, steps[i]);
		}
	}
}

static void links_followed(void)
{
	for (int depth = 1; depth <= 45; depth += depth < 38 ? 9 : 1) {
		check("link-chain-%d", depth);
		setup("mk data l0 0644");
		for (int i = 1; i <= depth; i++)
			setup("symlink l%d l%d", i - 1, i);
		/* 40 is the limit of Linux. */
		act("@own stat l%d ts = %s", depth, depth <= 40 ? "file,100" : "ELOOP");
	}
}

static void counts(void)
{
	for (int n = 0; n <= 12; n++) {
		check("dir-nlink-%d", n);
		setup("mk dir d 0755");
		for (int i = 0; i < n; i++)
			act("@own mkdir d/%d 0755 = 0", i);
		if (n > 2)
			act("@own rmdir d/0 = 0");
		act("@own stat d n = %d", 2 + n - (n > 2));
		check("file-nlink-%d", n);
		setup("mk file f 0644");
		for (int i = 0; i < n; i++)
			act("@own link f %d = 0", i);
		act("@own stat f n = %d", n + 1);
		if (n)
			act("@own unlink f = 0; @own stat 0 n = %d", n);
	}
	for (int n = 10; n <= 330; n += 80) {
		check("listing-%d", n);
		setup("mk dir d 0755; many d %d", n);
		act("@own count d = %d; @own inos d = %d,2,0; @oth count d = %d", n, n + 2, n);
		act("@own unlink d/file-with-a-name-0003 = 0; @oth count d = %d", n - 1);
		act("@own rename d/file-with-a-name-0004 x = 0; @oth count d = %d", n - 2);
		act("@own rename x d/y = 0; @oth count d = %d", n - 1);
	}
}

static void gone_but_open(void)
{
	check("unlinked-file-lives");
	setup("mk data f 0644");
	act("@own open 0 f O_RDWR = 0; @own2 unlink f = 0; @own fstat 0 tns = file,0,100");
	act("@own pwrite 0 XY 0 = 2; @own pread 0 4 0 = 4:XY23; @own ftruncate 0 3 = 0");
	act("@own fstat 0 s = 3; @own fchmod 0 0600 = 0; @own fstat 0 mn = 0600,0; "
	    "@own stat f = ENOENT");
	act("@own futimens 0 5 6 = 0; @own fchown 0 -1 GS = 0; @own fstat 0 gn = GS,0");
	check("unlinked-file-can-not-come-back");
	setup("mk data f 0644");
	act("@root open 0 f O_RDWR = 0; @root unlink f = 0; @root linkfd 0 g = ENOENT");
	check("unlinked-one-name-comes-back");
	setup("mk data f 0644; link f g");
	act("@root open 0 f O_RDWR = 0; @root unlink f = 0; @root linkfd 0 h = 0; "
	    "@root fstat 0 n = 2");
	check("replaced-file-lives");
	setup("mk data f 0644; mk file g 0644");
	act("@own open 0 f O_RDWR = 0; @own2 rename g f = 0; @own fstat 0 ns = 0,100");
	act("@own pread 0 3 0 = 3:012; @own2 stat f ns = 1,0");
	check("removed-cwd");
	setup("mk dir d 0755");
	act("@own open 0 d O_RDONLY = 0; @own2 rmdir d = 0; @own fstat 0 tn = dir,0");
	act("@own fchdir 0 = 0; @own open 1 x O_RDWR|O_CREAT 0644 = ENOENT; @own getcwd = ENOENT");
	check("removed-dir-accepts-nothing");
	setup("mk dir d 0755");
	act("@own chdir d = 0; @own2 rmdir d = 0; @own open 0 x O_RDWR|O_CREAT 0644 = ENOENT");
	act("@own mkdir x 0755 = ENOENT; @own symlink a b = ENOENT; @own getcwd = ENOENT");
	act("@own stat . tn = dir,0; @own stat .. t = dir; @own ls . = -");
	check("tmpfile-has-no-name");
	checks.at[checks.count - 1].needs = NEED_TMPFILE;
	act("@own open 0 . O_TMPFILE|O_RDWR 0644 = 0; @own write 0 abc = 3; "
	    "@own fstat 0 tns = file,0,3");
	act("@own linkfd 0 f = 0; @own fstat 0 n = 1; @oth cat f = 3:abc; @own linkfd 0 g = 0");
	check("tmpfile-excl-stays-nameless");
	checks.at[checks.count - 1].needs = NEED_TMPFILE;
	act("@own open 0 . O_TMPFILE|O_RDWR|O_EXCL 0644 = 0; @own linkfd 0 f = ENOENT");
	check("tmpfile-read-only");
	checks.at[checks.count - 1].needs = NEED_TMPFILE;
	act("@own open 0 . O_TMPFILE|O_RDONLY 0644 = EINVAL");
	check("tmpfile-not-in-file");
	checks.at[checks.count - 1].needs = NEED_TMPFILE;
	setup("mk file f 0644");
	act("@own open 0 f O_TMPFILE|O_RDWR 0644 = ENOTDIR");
}

void gen_names(void)
{
	group("names", 0);
	for (int t = 0; t < TYPES; t++)
		for (int a = 0; a < CLASSES; a++)
			link_checks(types[t], &actors[a]);
	dot_names();
	links_followed();
	counts();
	gone_but_open();
}
