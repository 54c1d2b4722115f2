/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "libfuserecover/killpoint.h"

#ifdef FR_KILL_POINTS
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define MOST	8

static _Atomic uint64_t *count;
static uint64_t kill_at[MOST];
static _Atomic uint64_t own;	/* for this process alone */

__attribute__((visibility("default"))) void fr_kill_points(_Atomic uint64_t *counter)
{
	const char *text = getenv("FUSERECOVER_KILL_AT");
	char *end;

	count = counter;
	for (unsigned i = 0; i < MOST; i++) {
		kill_at[i] = text && *text ? strtoull(text, &end, 10) : 0;
		text = kill_at[i] && *end == ',' ? end + 1 : NULL;
	}
}

static void die(void)
{
	kill(getenv("FUSERECOVER_KILL_GROUP") ? 0 : getpid(), SIGKILL);
}

__attribute__((visibility("default"))) void fr_kill_point(void)
{
	uint64_t now, due;

	if (!count)
		return;
	due = now = atomic_fetch_add_explicit(count, 1, memory_order_relaxed) + 1;
	if (now == atomic_load_explicit(&own, memory_order_relaxed) ||
	    atomic_compare_exchange_strong(&count[1], &due, FR_KILLED | (uint64_t)getpid()))
		die();
	for (unsigned i = 0; i < MOST && kill_at[i]; i++)
		if (now == kill_at[i])
			die();
}
__attribute__((visibility("default"))) uint64_t fr_kill_point_in(uint64_t n)
{
	uint64_t now = count ? atomic_load(&count[0]) : 0;

	atomic_store(&own, n ? now + n : 0);
	return now;
}

__attribute__((visibility("default"))) uint64_t fr_kill_any_in(uint64_t n)
{
	uint64_t now = count ? atomic_load(&count[0]) : 0;

	if (count)
		atomic_store(&count[1], n ? now + n : 0);
	return now;
}
#else
/* A translation unit must not be empty. */
typedef int fr_no_kill_points;
#endif
