/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FE_PROGRAMS_TOP_H
#define FE_PROGRAMS_TOP_H

#include "base/mountinfo.h"

struct top_options {
	double interval;	/* seconds */
	unsigned count;		/* of tables; 0: until it is interrupted, or the server ends */
};

/* Shows what is asked of a server, and what is answered without it. 0, or a negative errno of asking it. */
int top_run(const char *mountpoint, const struct mount_entry *entry, const struct top_options *options);

#endif
