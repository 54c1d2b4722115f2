/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Content and what it does to size and times: reading, writing, holes, limits. */
#include "posix.h"

/* One file f of 100 bytes, owned by the caller; what is done, and which times of f move. */
static const struct plain_case {
	const char *name, *open, *steps, *post;
} cases[] = {
	{ "read", "O_RDONLY", "read 0 10 = 10:0123456789", "f chg=a" },
	{ "read-nothing", "O_RDONLY", "read 0 0 = 0:", NULL },
	{ "read-at-eof", "O_RDONLY", "pread 0 10 100 = 0:", NULL },
	{ "read-beyond-eof", "O_RDONLY", "pread 0 10 1000 = 0:", NULL },
	{ "read-short", "O_RDONLY", "pread 0 10 95 = 5:xyzAB", "f chg=a" },
	{ "read-noatime", "O_RDONLY|O_NOATIME", "read 0 10 = 10:0123456789", "f chg=-" },
	{ "read-negative", "O_RDONLY", "pread 0 1 -1 = EINVAL", "f chg=-" },
	{ "read-bad-address", "O_RDONLY", "read 0 10 BAD = EFAULT", NULL },
	{ "write", "O_WRONLY", "write 0 abc = 3", "f chg=mc size=100" },
	{ "write-nothing", "O_WRONLY", "write 0 \"\" = 0", "f chg=- size=100" },
	{ "write-grows", "O_WRONLY", "pwrite 0 abc 99 = 3", "f chg=mc size=102" },
	{ "write-negative", "O_WRONLY", "pwrite 0 a -1 = EINVAL", "f chg=-" },
	{ "write-bad-address", "O_WRONLY", "write 0 BAD = EFAULT", "f size=100" },
	{ "open-close", "O_RDWR", "close 0 = 0", "f chg=-" },
	{ "open-fsync", "O_RDWR", "fsync 0 = 0", "f chg=-" },
	{ "fdatasync", "O_RDWR", "fdatasync 0 = 0", "f chg=-" },
	{ "ftruncate-same", "O_RDWR", "ftruncate 0 100 = 0", "f size=100 chg=mc" },
	{ "append", "O_WRONLY|O_APPEND", "write 0 xyz = 3", "f size=103 chg=mc" },
	/* Linux: pwrite() on an appending descriptor appends, whatever the offset. */
	{ "append-pwrite", "O_WRONLY|O_APPEND", "pwrite 0 xyz 5 = 3", "f size=103 chg=mc" },
	{ "append-two", "O_RDWR|O_APPEND",
	  "pread 0 3 0 = 3:012; @own write 0 a = 1; @own lseek 0 0 SEEK_CUR = 101; "
	  "@own pread 0 9 98 = 3:ABa",
	  "f size=101" },
	{ "append-setfl", "O_WRONLY", "setfl 0 O_APPEND = 0; @own write 0 abc = 3", "f size=103" },
	{ "append-unset", "O_WRONLY|O_APPEND", "setfl 0 0 = 0; @own write 0 abc = 3",
	  "f size=100" },
	{ "sync", "O_WRONLY|O_SYNC", "write 0 abc = 3", "f chg=mc size=100" },
	{ "hole", "O_RDWR", "pwrite 0 x 9000 = 1; @own zeros 0 100 8900 = 8900,0", "f size=9001" },
	{ "hole-truncate", "O_RDWR", "ftruncate 0 8192 = 0; @own zeros 0 100 9000 = 8092,0",
	  "f size=8192" },
	{ "cut-and-grow", "O_RDWR",
	  "ftruncate 0 10 = 0; @own ftruncate 0 50 = 0; "
	  "@own pread 0 50 5 = 45:56789________________________________________",
	  "f size=50" },
	{ "seek-end", "O_RDONLY", "lseek 0 0 SEEK_END = 100", "f chg=-" },
	{ "seek-beyond", "O_RDONLY", "lseek 0 1T SEEK_SET", "f chg=- size=100" },
	{ "seek-negative", "O_RDONLY", "lseek 0 -1 SEEK_SET = EINVAL", NULL },
	{ "seek-whence", "O_RDONLY", "lseek 0 0 77 = EINVAL", NULL },
	{ "seek-data", "O_RDONLY",
	  "lseek 0 0 SEEK_DATA = 0; @own lseek 0 0 SEEK_HOLE = 100; "
	  "@own lseek 0 100 SEEK_DATA = ENXIO; @own lseek 0 101 SEEK_HOLE = ENXIO",
	  NULL },
	{ "seek-in-hole", "O_RDWR",
	  "ftruncate 0 1M = 0; @own pwrite 0 x 512K = 1; @own lseek 0 64K SEEK_DATA = 524288; "
	  "@own lseek 0 528384 SEEK_HOLE = 528384",
	  NULL },
	{ "fallocate-grow", "O_RDWR", "fallocate 0 0 0 5000 = 0; @own zeros 0 100 4900 = 4900,0",
	  "f size=5000 chg=amc" },
	{ "fallocate-within", "O_RDWR", "fallocate 0 0 0 50 = 0", "f size=100" },
	{ "fallocate-keep", "O_RDWR", "fallocate 0 FALLOC_FL_KEEP_SIZE 0 9000 = 0", "f size=100" },
	{ "fallocate-zero-length", "O_RDWR", "fallocate 0 0 0 0 = EINVAL", "f chg=-" },
	{ "fallocate-negative", "O_RDWR", "fallocate 0 0 -1 5 = EINVAL", "f chg=-" },
	{ "fallocate-mode", "O_RDWR", "fallocate 0 0x4000 0 5 = EOPNOTSUPP", "f chg=-" },
	{ "posix-fallocate", "O_RDWR", "posix_fallocate 0 50 100 = 0", "f size=150 chg=mc" },
	{ "posix-fallocate-bad", "O_RDWR", "posix_fallocate 0 0 0 = EINVAL", "f chg=-" },
	{ "posix-fallocate-read-only", "O_RDONLY", "posix_fallocate 0 0 10 = EBADF", "f chg=-" },
	{ "punch", "O_RDWR",
	  "fallocate 0 FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE 2 3 = 0; "
	  "@own pread 0 6 0 = 6:01___5",
	  "f size=100" },
	{ "punch-changes-size", "O_RDWR", "fallocate 0 FALLOC_FL_PUNCH_HOLE 2 3 = EOPNOTSUPP",
	  "f chg=-" },
	{ "zero-range", "O_RDWR", "fallocate 0 FALLOC_FL_ZERO_RANGE 1 2; @own pread 0 5 0", NULL },
	{ "collapse", "O_RDWR",
	  "pwrite 0 <8192> 0 = 8192; @own fallocate 0 FALLOC_FL_COLLAPSE_RANGE 0 4096",
	  NULL },
	{ "insert", "O_RDWR",
	  "pwrite 0 <8192> 0 = 8192; @own fallocate 0 FALLOC_FL_INSERT_RANGE 0 4096",
	  NULL },
	{ "limit-write", "O_WRONLY",
	  "fsize 100 = 0; @own lseek 0 100 SEEK_SET = 100; @own write 0 x = EFBIG+SIGXFSZ",
	  "f size=100 chg=-" },
	{ "limit-partial", "O_WRONLY", "fsize 120 = 0; @own pwrite 0 <50> 100 = 20", "f size=120" },
	{ "limit-beyond", "O_WRONLY", "fsize 50 = 0; @own pwrite 0 x 70 = EFBIG+SIGXFSZ",
	  "f chg=-" },
	{ "limit-within", "O_WRONLY", "fsize 50 = 0; @own pwrite 0 x 10 = 1", "f size=100 chg=mc" },
	{ "limit-append", "O_WRONLY|O_APPEND",
	  "fsize 102 = 0; @own write 0 abcdef = 2; @own write 0 z = EFBIG+SIGXFSZ",
	  "f size=102" },
	{ "limit-ftruncate", "O_WRONLY", "fsize 100 = 0; @own ftruncate 0 101 = EFBIG+SIGXFSZ",
	  "f size=100 chg=-" },
	{ "limit-fallocate", "O_WRONLY",
	  "fsize 100 = 0; @own fallocate 0 0 0 200 = EFBIG|EFBIG+SIGXFSZ", "f size=100" },
	{ "fionread", "O_RDONLY", "read 0 10 = 10:0123456789; @own fionread 0", NULL },
	{ "shared-offset", "O_RDWR",
	  "dup 1 0 = 0; @own read 0 3 = 3:012; @own read 1 3 = 3:345; @own write 1 X = 1; "
	  "@own lseek 0 0 SEEK_CUR = 7",
	  NULL },
	{ "own-offset", "O_RDWR",
	  "open 1 f O_RDWR = 0; @own read 0 3 = 3:012; @own read 1 3 = 3:012", NULL },
	{ "rdonly-trunc-by-path", "O_RDONLY",
	  "truncate f 4 = 0; @own read 0 10 = 4:0123; @own fstat 0 s = 4",
	  "f size=4" },
	{ "copy-within", "O_RDWR", "copy 0 0 10 0 200 = 10; @own pread 0 5 200 = 5:01234",
	  "f size=210" },
	{ "copy-overlapping", "O_RDWR", "copy 0 0 50 0 10 = EINVAL", "f chg=-" },
	{ "copy-at-eof", "O_RDWR", "copy 0 0 10 100 500 = 0", "f size=100" },
	{ "copy-read-only", "O_RDONLY", "copy 0 0 10 0 200 = EBADF", "f chg=-" },
};

static void plain_cases(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct plain_case *c = &cases[i];

		check("%s", c->name);
		setup("mk data f 0644");
		act("@own open 0 f %s = 0; @own %s", c->open, c->steps);
		/* Closed or not, others see the same. */
		act("@oth stat f s; @oth cat f");
		if (c->post && !strstr(c->post, "chg"))
			post("%s", c->post);
		check("%s-times", c->name);
		setup("mk data f 0644");
		act("@own open 0 f %s = 0; @own %s", c->open, c->steps);
		if (c->post)
			post("%s; . chg=-", c->post);
	}
}

/* Times of what a call touches, and of the directories about it. */
static void touched(void)
{
	static const char *const steps[][2] = {
		{ "stat f", "f chg=-; . chg=-" },
		{ "access f R_OK", "f chg=-; . chg=-" },
		{ "ls d", "d chg=a; . chg=-" },
		{ "readlink l", "f chg=-" },
		{ "statvfs f", "f chg=-" },
		{ "mkdir d/n 0755", "d chg=mc nlink=3; . chg=- ; d/n nlink=2" },
		{ "mkfifo d/n 0644", "d chg=mc; . chg=-" },
		{ "symlink f d/n", "d chg=mc; f chg=-" },
		{ "link f d/n", "d chg=mc; f chg=c nlink=2; . chg=-" },
		{ "unlink d/a", "d chg=mc; . chg=-; d/a gone" },
		{ "rename d/a d/b", "d chg=mc; d/b chg=c; . chg=-" },
		{ "rename d/a b", "d chg=mc; b chg=c; . chg=mc" },
		{ "rename d b", "b chg=c; . chg=mc; b/a chg=-" },
		{ "chmod f 0600", "f chg=c; . chg=-" },
		{ "chmod l 0600", "f chg=c; . chg=-" },
		{ "chmod f 0644", "f chg=c" },
		{ "chown f own GA", "f chg=c" },
		{ "chown f -1 GS", "f chg=c; . chg=-" },
		{ "truncate f 5", "f chg=mc; . chg=-" },
		{ "open 0 f O_RDONLY", "f chg=-; . chg=-" },
		{ "open 0 f O_RDWR|O_CREAT 0644", "f chg=-; . chg=-" },
		{ "open 0 f O_WRONLY|O_TRUNC", "f chg=mc; . chg=-" },
		{ "open 0 e O_WRONLY|O_TRUNC", "e chg=mc size=0; . chg=-" },
		{ "open 0 n O_WRONLY|O_CREAT 0644", "f chg=-; . chg=mc" },
		{ "open 0 d/n O_WRONLY|O_CREAT 0644", "d chg=mc; . chg=-" },
		{ "cat f", "f chg=a; . chg=-" },
		{ "cat e", "e size=0" },
		{ "rewrite f", "f chg=amc; . chg=-" },
		{ "chdir d", "d chg=-" },
		{ "rename f f", "f chg=-; . chg=-" },
		{ "rename f e", "e chg=c size=100; . chg=mc; f gone" },
		{ "exec f", "f chg=-" },
		{ "utimens f NOW OMIT", "f chg=ac; . chg=-" },
		{ "utimens f OMIT OMIT", "f chg=-; . chg=-" },
	};

	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		for (int root = 0; root < 2; root++) {
			check("touch-%s-%s", root ? "root" : "own", steps[i][0]);
			setup("mk data f 0644; mk file e 0644; mk dir d 0755; mk file d/a 0644");
			setup("symlink f l; lchown l own GA");
			act("@%s %s", root ? "root" : "own", steps[i][0]);
			post("%s", steps[i][1]);
		}
	}
}

static void statvfs_everywhere(void)
{
	static const char *const types[] = { "file", "dir", "fifo", "sock", "chr" };

	for (int t = 0; t < 5; t++) {
		check("statvfs-%s", types[t]);
		setup("mk %s f 0000", types[t]);
		act("@oth statvfs f; @own statvfs f");
	}
}

/* Sizes around the edges of pages: what one wrote, the other reads. */
static void sizes(void)
{
	static const int edges[] = { 1, 511, 4095, 4096, 4097, 8191, 12289, 65535 };

	for (int e = 0; e < 8; e++) {
		for (int o = 0; o < 8; o++) {
			int from = edges[o] * 3;

			check("size-%d-at-%d", edges[e], from);
			setup("mk data f 0644");
			act("@own open 0 f O_RDWR = 0; @own pwrite 0 <%d> %d = %d",
			    edges[e] % 15000 + 1, from, edges[e] % 15000 + 1);
			act("@oth stat f s; @oth open 0 f O_RDONLY; @oth pread 0 20 %d; "
			    "@own pread 0 30 %d",
			    from - 5, from + edges[e] % 15000 - 10);
			act("@own ftruncate 0 %d = 0; @oth fstat 0 s = %d; @oth pread 0 9 %d",
			    from + 3, from + 3, from);
		}
	}
}

void gen_data(void)
{
	group("data", 0);
	plain_cases();
	touched();
	statvfs_everywhere();
	sizes();
}
