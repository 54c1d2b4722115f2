/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What all unit test programs share: the runner and repeatable random numbers. */
#ifndef FE_TESTS_UNIT_H
#define FE_TESTS_UNIT_H

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/* Of FE_SEED, else a new one; printed, so that a failure can be repeated. */
static inline uint64_t unit_seed(void)
{
	const char *given = getenv("FE_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();

	printf("seed: FE_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	return seed;
}

/* splitmix64 */
static inline uint64_t unit_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* `tests` ends with NULL. The log is silent: many tests provoke what it would tell of. */
static inline int unit_run(const char *name, const TTest *const *tests, void (*setup)(void), void (*teardown)(void))
{
	Suite *suite = suite_create(name);
	SRunner *runner;
	int failed;

	fe_log_init("unit", getenv("FE_UNIT_LOG") ? LOG_DEBUG : LOG_EMERG - 1);
	for (; *tests; tests++) {
		TCase *one = tcase_create((*tests)->name);

		tcase_set_timeout(one, 300);
		if (setup)
			tcase_add_checked_fixture(one, setup, teardown);
		tcase_add_test(one, *tests);
		suite_add_tcase(suite, one);
	}
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
