/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the operations of operations.c share. */
#ifndef FE_TESTS_CRASH_OPERATIONS_H
#define FE_TESTS_CRASH_OPERATIONS_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "base/mountinfo.h"

/* False, with the reason noted, where the condition does not hold. */
#define MUST(c) \
	do { \
		if (!(c)) { \
			snprintf(why, sizeof(why), "%s: %s", #c, strerror(errno)); \
			return false; \
		} \
	} while (0)

extern struct mount_entry mounted;
extern int fd, fd2;	/* closed after the operation */
extern char why[256];
extern bool kept_writes;	/* by the kernel, which asks for less: the option writeback */

struct operation {
	const char *name;
	bool (*before)(void);
	bool (*act)(void);
	bool (*after)(void);
};

/* Each ends with one that has no name. */
extern const struct operation name_operations[], data_operations[], lock_operations[];

bool put(const char *name, const char *text);
bool has(const char *name, const char *text);
/* links: 0 for any number */
bool is(const char *name, mode_t type, nlink_t links);
bool gone(const char *name);
bool nothing(void);
/* "a" exists. */
bool file_a(void);
/* ... and fd is open on it for reading and writing. */
bool opened_a(void);
bool do_unlink(void);
bool see_a(void);
bool see_gone(void);

/* operations_locks.c */
/* Ends the other process, if there is one. */
void other_end(void);

/* operations_upgrade.c: the second one with a standby that does not run meanwhile. */
bool do_upgrade(void);
bool do_upgrade_late(void);

#endif
