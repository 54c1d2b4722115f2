/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Deaths of keeper, worker and standby. */
#ifndef TESTS_CRASH_VICTIM_H
#define TESTS_CRASH_VICTIM_H

#include <stdbool.h>
#include <sys/types.h>

#include "libfuserecover/internal.h"

/* pid may be 0: there is none now. */
void kill_one(pid_t pid);

/*
 * Who comes to the numbered point so many points from now dies there, within a second. Returns who it was, who may
 * take some time to be dead, or 0 where nobody came; -1 in a build without points.
 */
pid_t kill_at_point(struct cp_header *cp, uint64_t after);

/*
 * Whether keeper, worker and standby live, so that any of them may die next. Those who were killed may take a
 * moment to be dead, and a standby that becomes the worker or the keeper has both roles for a moment.
 */
bool all_three_live(const struct cp_header *cp, const pid_t killed[2]);

#endif
