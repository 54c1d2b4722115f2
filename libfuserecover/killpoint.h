/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Death at a numbered step, for tests. FR_STEP() stands between any two stores that must not come apart.
 * Built with --enable-kill-points each of them counts, in the checkpoint, and raises SIGKILL where the
 * count is one of those in the environment: FUSERECOVER_KILL_AT=N[,N...]. Otherwise it is nothing. With
 * FUSERECOVER_KILL_GROUP in the environment the whole process group dies.
 */
#ifndef FUSERECOVER_KILLPOINT_H
#define FUSERECOVER_KILLPOINT_H

#ifdef FR_KILL_POINTS
#include <stdint.h>

/* counter[0] counts, in all processes that have the checkpoint; counter[1] is one more deadly count,
 * which can be set at any time. Who dies of it leaves FR_KILLED there, and its process id. NULL: no more. */
#define FR_KILLED	(UINT64_C(1) << 63)
void fr_kill_points(_Atomic uint64_t *counter);
void fr_kill_point(void);
/* The n-th step from now on is deadly, for the calling process or for whoever takes it; 0: none. Returns
 * the count. */
uint64_t fr_kill_point_in(uint64_t n);
uint64_t fr_kill_any_in(uint64_t n);
#define FR_STEP()	fr_kill_point()
#else
#define FR_STEP()	((void)0)
#endif

#endif
