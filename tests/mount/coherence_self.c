/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Histories made by hand: what the checker must find, and what it must not. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/mount/coherence.h"

enum { MOST = 8 };

/* Process, begin, end. */
#define AT(p, b, e)	.proc = p, .begin = b, .end = e
#define MAKE(name, n)	.kind = CREATE, .x = name, .node = n, .value = 0644
#define GONE(k, name)	.kind = k, .x = name, .err = ENOENT
#define TO(k, name, v)	.kind = k, .x = name, .value = v
#define IS(n, s, l)	.kind = LSTAT, .node = n, .type = S_IFREG, .mode = 0644, .size = s, .nlink = l
#define SEES(name, n, s, l)	.x = name, IS(n, s, l)

static const struct history {
	const char *name;
	bool good;
	int tolerate;
	struct op ops[MOST];
} histories[] = {
	{ "in turn", true, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(1, 2, 3), SEES(0, 9, 0, 1) }, { AT(0, 4, 5), .kind = UNLINK },
		{ AT(1, 6, 7), GONE(LSTAT, 0) } } },
	{ "absent after create", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(1, 2, 3), GONE(LSTAT, 0) } } },
	{ "absent during create", true, 0, { { AT(0, 0, 3), MAKE(0, 9) }, { AT(1, 1, 2), GONE(LSTAT, 0) } } },
	{ "there after unlink", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), .kind = UNLINK },
		{ AT(1, 4, 5), SEES(0, 9, 0, 1) } } },
	{ "there before create", false, 0, { { AT(1, 0, 1), SEES(0, 9, 0, 1) }, { AT(0, 2, 3), MAKE(0, 9) } } },
	{ "unlinked by descriptor", true, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), .kind = UNLINK },
		{ AT(0, 4, 5), TO(TRUNCATE, 0, 7), .by = 9 }, { AT(1, 6, 7), IS(9, 7, 0), .by = 9 } } },
	{ "unlinked with a link", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), .kind = UNLINK },
		{ AT(1, 4, 5), IS(9, 0, 1), .by = 9 } } },
	{ "exists, but does not", false, 0, { { AT(0, 0, 1), .kind = MKDIR, .err = EEXIST } } },
	{ "size after truncate", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), TO(TRUNCATE, 0, 7) },
		{ AT(1, 4, 5), SEES(0, 9, 0, 1) } } },
	{ "size forwards", true, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 7), TO(TRUNCATE, 0, 7) },
		{ AT(1, 3, 4), SEES(0, 9, 0, 1) }, { AT(1, 5, 6), SEES(0, 9, 7, 1) } } },
	{ "size backwards", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 7), TO(TRUNCATE, 0, 7) },
		{ AT(1, 3, 4), SEES(0, 9, 7, 1) }, { AT(1, 5, 6), SEES(0, 9, 0, 1) } } },
	{ "size backwards, tolerated", true, TOLERATE_BACKWARDS, { { AT(0, 0, 1), MAKE(0, 9) },
		{ AT(0, 2, 7), TO(TRUNCATE, 0, 7) },
		{ AT(1, 3, 4), SEES(0, 9, 7, 1) }, { AT(1, 5, 6), SEES(0, 9, 0, 1) } } },
	{ "size backwards after the end", false, TOLERATE_BACKWARDS, { { AT(0, 0, 1), MAKE(0, 9) },
		{ AT(0, 2, 5), TO(TRUNCATE, 0, 7) },
		{ AT(1, 3, 4), SEES(0, 9, 7, 1) }, { AT(1, 6, 7), SEES(0, 9, 0, 1) } } },
	{ "size of neither", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 4), TO(TRUNCATE, 0, 7) },
		{ AT(1, 3, 5), TO(TRUNCATE, 0, 8) }, { AT(1, 6, 7), SEES(0, 9, 0, 1) } } },
	{ "size of either", true, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 4), TO(TRUNCATE, 0, 7) },
		{ AT(1, 3, 5), TO(TRUNCATE, 0, 8) }, { AT(1, 6, 7), SEES(0, 9, 7, 1) } } },
	{ "mode after chmod", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), TO(CHMOD, 0, 0600) },
		{ AT(1, 4, 5), SEES(0, 9, 0, 1) } } },
	{ "execute after chmod", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), TO(CHMOD, 0, 0700) },
		{ AT(1, 4, 5), .kind = ACCESS, .flags = X_OK, .err = EACCES } } },
	{ "time after utimes", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), TO(UTIMES, 0, 7) },
		{ AT(1, 4, 5), SEES(0, 9, 0, 1) } } },
	{ "links after link", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), .kind = LINK, .y = 1 },
		{ AT(1, 4, 5), SEES(1, 9, 0, 1) } } },
	{ "links during link", true, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 7), .kind = LINK, .y = 1 },
		{ AT(1, 3, 4), SEES(0, 9, 0, 2) }, { AT(1, 5, 6), GONE(LSTAT, 1) } } },
	{ "too few links", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), .kind = LINK, .y = 1, .err = ENOENT } } },
	{ "too few links, tolerated", true, TOLERATE_LINK, { { AT(0, 0, 1), MAKE(0, 9) },
		{ AT(0, 2, 3), .kind = LINK, .y = 1, .err = ENOENT } } },
	{ "renamed half", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 7), .kind = RENAME, .y = 4 },
		{ AT(1, 3, 4), GONE(LSTAT, 0) }, { AT(1, 5, 6), GONE(STAT, 4) } } },
	{ "renamed meanwhile", true, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 7), .kind = RENAME, .y = 4 },
		{ AT(1, 3, 4), GONE(LSTAT, 4) }, { AT(1, 5, 6), GONE(STAT, 0) } } },
	{ "exchanged half", false, 0, { { AT(0, 0, 1), MAKE(0, 8) }, { AT(0, 2, 3), MAKE(1, 9) },
		{ AT(0, 4, 9), .kind = RENAME, .y = 1, .flags = RENAME_EXCHANGE }, { AT(1, 5, 6), SEES(0, 9, 0, 1) },
		{ AT(1, 7, 8), SEES(1, 9, 0, 1) } } },
	{ "attribute after set", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), TO(SETXATTR, 0, 7) },
		{ AT(1, 4, 5), .kind = GETXATTR, .err = ENODATA } } },
	{ "attribute after removal", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), TO(SETXATTR, 0, 7) },
		{ AT(0, 4, 5), .kind = REMOVEXATTR }, { AT(1, 6, 7), TO(GETXATTR, 0, 7) } } },
	{ "attribute of the node before", false, 0, { { AT(0, 0, 1), MAKE(0, 8) }, { AT(0, 2, 3), TO(SETXATTR, 0, 7) },
		{ AT(0, 4, 5), .kind = UNLINK }, { AT(0, 6, 7), MAKE(0, 9) }, { AT(1, 8, 9), TO(GETXATTR, 0, 7) } } },
	{ "attribute of the node under way", true, 0, { { AT(0, 0, 1), MAKE(0, 8) }, { AT(1, 2, 9), TO(GETXATTR, 0, 7) },
		{ AT(0, 3, 4), TO(SETXATTR, 0, 7) }, { AT(0, 5, 6), .kind = UNLINK }, { AT(0, 7, 8), MAKE(0, 9) } } },
	{ "attributes listed", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), TO(SETXATTR, 0, 7), .key = 1 },
		{ AT(1, 4, 5), TO(LISTXATTR, 0, 1) } } },
	{ "link of another", false, 0, { { AT(0, 0, 1), .kind = SYMLINK, .node = 8 }, { AT(0, 2, 3), .kind = UNLINK },
		{ AT(0, 4, 5), .kind = SYMLINK, .node = 9 }, { AT(1, 6, 7), .kind = READLINK, .node = 8 } } },
	{ "listed without", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(1, 2, 3), .kind = READDIR } } },
	{ "listed with", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 3), .kind = UNLINK },
		{ AT(1, 4, 5), .kind = READDIR, .listed = { DT_REG + 1 } } } },
	{ "listed during unlink", true, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(0, 2, 5), .kind = UNLINK },
		{ AT(1, 3, 4), .kind = READDIR, .listed = { DT_REG + 1 } } } },
	{ "another number", false, 0, { { AT(0, 0, 1), MAKE(0, 9) }, { AT(1, 2, 3), SEES(0, 9, 0, 1), .ino = 5 },
		{ AT(1, 4, 5), SEES(0, 9, 0, 1), .ino = 6 } } },
};

int coherence_self_test(void)
{
	int wrong = 0;

	for (size_t i = 0; i < sizeof(histories) / sizeof(*histories); i++) {
		const struct history *h = &histories[i];
		char *text = NULL;
		size_t size = 0, count = 0;
		FILE *out = open_memstream(&text, &size);
		bool good;

		while (count < MOST && h->ops[count].end)
			count++;
		coherence_tolerate = h->tolerate;
		good = coherence_check(h->ops, count, out);
		fclose(out);
		if (good != h->good) {
			printf("coherence: '%s' is taken for %s\n%s", h->name, good ? "coherent" : "not coherent", text);
			wrong++;
		}
		free(text);
	}
	printf("coherence: %zu histories, %d judged wrongly\n", sizeof(histories) / sizeof(*histories), wrong);
	return wrong;
}
