/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/caller.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool caller_in_group(uint32_t pid, uint32_t gid)
{
	char path[32], line[4096];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%u/status", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		char *at = line + 7, *end;

		if (strncmp(line, "Groups:", 7))
			continue;
		for (;;) {
			unsigned long id = strtoul(at, &end, 10);

			if (end == at)
				break;
			found |= id == gid;
			at = end;
		}
	}
	fclose(f);
	return found;
}
