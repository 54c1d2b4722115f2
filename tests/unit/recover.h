/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the tests of libfuserecover's parts give to fr_new(): none of them runs a worker. */
#ifndef FE_TESTS_UNIT_RECOVER_H
#define FE_TESTS_UNIT_RECOVER_H

#include "base/log.h"
#include "libfuserecover/internal.h"
#include "tests/unit/unit.h"

static int no_worker(struct fr *f, void *arg)
{
	(void)f;
	(void)arg;
	return 0;
}

static void quiet(void *arg, int level, const char *line)
{
	(void)arg;
	fe_log(level, "%s", line);
}

#endif
