/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Buckets of durations, and what is read from them. */
#include "programs/latency.h"
#include "tests/unit/unit.h"

START_TEST(buckets)
{
	for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
		ck_assert_uint_eq(latency_bucket(latency_of(i)), i);
		if (i)
			ck_assert_uint_eq(latency_bucket(latency_of(i) - 1), i - 1);
	}
	ck_assert_uint_eq(latency_bucket(UINT64_MAX), LATENCY_BUCKETS - 1);
}
END_TEST

/* Within a fifth of what was counted. */
static void close_to(double us, uint64_t ns)
{
	double is = (double)ns / 1000;

	ck_assert_msg(us > is * 0.8 && us < is * 1.2, "%f us instead of %f us", us, is);
}

START_TEST(percentiles)
{
	static struct latency none, before, now;

	ck_assert(latency_percentile(&none, &none, 50) < 0);
	for (int i = 0; i < 1000; i++) {
		before.buckets[latency_bucket(5)]++;
		now.buckets[latency_bucket(5)]++;
	}
	ck_assert(latency_percentile(&before, &now, 99) < 0);
	for (uint64_t i = 1; i <= 100; i++)
		now.buckets[latency_bucket(i * 10000)]++;
	close_to(latency_percentile(&before, &now, 50), 500000);
	close_to(latency_percentile(&before, &now, 99), 990000);
	close_to(latency_percentile(&before, &now, 1), 10000);
	now.buckets[latency_bucket(UINT64_MAX)] += 1000000;
	ck_assert(latency_percentile(&before, &now, 99) > 990);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { buckets, percentiles, NULL };

	return unit_run("latency", tests, NULL, NULL);
}
