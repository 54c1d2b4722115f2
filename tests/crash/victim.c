/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/victim.h"

#include <signal.h>
#include <time.h>

void kill_one(pid_t pid)
{
	if (pid > 0)
		kill(pid, SIGKILL);
}

#ifdef FR_KILL_POINTS
pid_t kill_at_point(struct cp_header *cp, uint64_t after)
{
	const struct timespec ms = { .tv_nsec = 1000000 };
	uint64_t at = atomic_load(&cp->steps[0]) + 1 + after;

	atomic_store(&cp->steps[1], at);
	for (int i = 0; i < 1000 && atomic_load(&cp->steps[1]) == at; i++)
		nanosleep(&ms, NULL);
	/* Where nobody has come by now, nobody must when the others are dead. */
	return atomic_compare_exchange_strong(&cp->steps[1], &at, 0) ? 0 : (pid_t)(at & ~FR_KILLED);
}
#else
pid_t kill_at_point(struct cp_header *cp, uint64_t after)
{
	(void)cp;
	(void)after;
	return -1;
}
#endif
