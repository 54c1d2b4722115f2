/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FE_TESTS_CRASH_TSAN_H
#define FE_TESTS_CRASH_TSAN_H

#include <stdbool.h>
#include <stdio.h>

/* Whether this test can not run, which is then said. */
static inline bool left_out_by_tsan(const char *test)
{
#ifdef __SANITIZE_THREAD__
	printf("SKIP %s: not in CI: ThreadSanitizer has a thread of its own, fr_run() wants one only\n", test);
	return true;
#else
	(void)test;
	return false;
#endif
}

#endif
