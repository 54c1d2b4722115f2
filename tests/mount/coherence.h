/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations of many processes on a few names, with what each was told, and whether all of that can have happened in
 * one order.
 */
#ifndef FE_TESTS_COHERENCE_H
#define FE_TESTS_COHERENCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Names 0 to EACH - 1 are in the first directory. */
enum { DIRS = 2, EACH = 3, NAMES = DIRS * EACH, PROCS = 8, XATTRS = 2 };

enum kind {
	CREATE, MKDIR, SYMLINK, UNLINK, RMDIR, RENAME, LINK,
	CHMOD, TRUNCATE, WRITE, UTIMES, SETXATTR, REMOVEXATTR,
	LSTAT, STAT, OPEN, ACCESS, GETXATTR, LISTXATTR, READLINK, READDIR, KINDS
};

/* With node 0 it goes by the name x, else by a descriptor of that node. */
struct op {
	uint32_t begin, end;	/* of one clock that each begin and each end moves on */
	uint8_t kind, proc, x, y, flags, key;
	int err;
	uint32_t by;		/* the node of the descriptor, 0: by name */
	uint32_t value;		/* that was written, or was read of an attribute */
	/* What was seen. A node is known by its group, which is never used twice. */
	uint32_t node, type, mode, size, nlink, mtime;
	uint64_t ino;
	uint8_t listed[EACH];	/* DT_* + 1, or 0 */
};

extern const char *const coherence_kinds[KINDS];

/*
 * What the kernel's driver of FUSE makes of its own copy of a node, whoever serves. Where that is tolerated:
 * - link: link(2) of a file that has a name says ENOENT, as the driver counts a link down that the answer to another
 *   request has not counted any more;
 * - count: for that reason stat(2) tells of too few links;
 * - backwards: until a change has ended, an attribute is seen as it was also after it was seen changed, as an answer to
 *   GETATTR is dropped if an older one came meanwhile;
 * - open-truncate: nobody opens with O_TRUNC, for which the driver sets the size to 0 when it has the inode's lock,
 *   though the server may have done another's truncate(2) or write(2) since.
 */
enum { TOLERATE_LINK = 1, TOLERATE_COUNT = 2, TOLERATE_BACKWARDS = 4, TOLERATE_OPEN_TRUNCATE = 8 };
extern int coherence_tolerate;

/* Each begin and each end is a moment of its own of this clock, which all share. */
extern atomic_uint *coherence_clock;
uint32_t coherence_tick(void);
const char *coherence_path(unsigned name);
/* Does it, and notes when, and what was seen. A file that it opens stays open for some operations. */
void coherence_perform(struct op *op);
/* The node of that file, or 0; to be asked before each operation. */
uint32_t coherence_held(void);

/* Whether there is such an order; if not, says to `out` why. `ops` are in any order. */
bool coherence_check(const struct op *ops, size_t count, FILE *out);
void coherence_print(const struct op *op, FILE *out);
/* Histories whose verdict is known; the number of those that were judged wrongly. */
int coherence_self_test(void);

/* Of a symlink to nowhere that is this node. */
static inline int coherence_target(char *buf, size_t size, uint32_t node)
{
	return snprintf(buf, size, "nowhere.%u", node);
}

#endif
