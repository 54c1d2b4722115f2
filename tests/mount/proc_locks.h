/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FE_TESTS_MOUNT_PROC_LOCKS_H
#define FE_TESTS_MOUNT_PROC_LOCKS_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

/* Whether somebody waits for a lock on the file; /proc/locks marks him by an arrow. */
static inline bool somebody_waits(ino_t ino)
{
	char mark[32], line[256];
	bool found = false;
	FILE *f;

	snprintf(mark, sizeof(mark), ":%lu ", (unsigned long)ino);
	f = fopen("/proc/locks", "re");
	while (f && fgets(line, sizeof(line), f))
		found |= strstr(line, "->") && strstr(line, mark);
	if (f)
		fclose(f);
	return found;
}

#endif
