/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/victim.h"

#include <signal.h>
#include <stdio.h>
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

/* One that is dead, which nobody has seen yet, must not count as the last of the three. */
static bool zombie(pid_t pid)
{
	char path[64], state = 'Z';
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "r");
	if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 'Z';
	if (f)
		fclose(f);
	return state == 'Z' || state == 'X';
}

static bool alive(pid_t pid, const pid_t killed[2])
{
	return pid > 0 && pid != killed[0] && pid != killed[1] && !kill(pid, 0) && !zombie(pid);
}

bool all_three_live(const struct cp_header *cp, const pid_t killed[2])
{
	uint64_t worker = atomic_load(&cp->worker);
	pid_t k = CLAIM_PID(atomic_load(&cp->keeper)), w = CLAIM_PID(worker), s = (pid_t)atomic_load(&cp->standby);

	return k != w && w != s && s != k && alive(k, killed) && alive(w, killed) && alive(s, killed) &&
	       atomic_load(&cp->ready) == CLAIM_NUMBER(worker);
}
