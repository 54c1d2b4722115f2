/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether a server's threads may follow their clients, by what it is allowed itself. */
#include <sched.h>
#include <stdlib.h>

#include "host/internal.h"
#include "tests/unit/unit.h"

static bool follows(int policy, int priority)
{
	const struct sched_param param = { .sched_priority = priority };
	struct fe_host *h = calloc(1, sizeof(*h));
	bool follows;

	ck_assert_ptr_nonnull(h);
	ck_assert_int_eq(sched_setscheduler(0, policy, &param), 0);
	h->pool.cpus = 2;
	follow_init(h);
	follows = h->pool.follow;
	free(h);
	return follows;
}

START_TEST(policies)
{
	const struct sched_param lowest = { .sched_priority = 1 };
	cpu_set_t cpus;

	ck_assert_int_eq(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	/* Where one core only is there, or little is allowed, nobody follows in any case. */
	if (geteuid() || CPU_COUNT(&cpus) < 2 || sched_setscheduler(0, SCHED_FIFO, &lowest))
		return;
	ck_assert(!follows(SCHED_FIFO, 1));
	/* A successor is so for its first moments; its threads are not. */
	ck_assert(follows(SCHED_FIFO | SCHED_RESET_ON_FORK, 1));
	ck_assert(!follows(SCHED_BATCH, 0));
	ck_assert(follows(SCHED_OTHER, 0));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { policies, NULL };

	return unit_run("follow", tests, NULL, NULL);
}
