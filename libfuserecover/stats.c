/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What can be asked of a checkpoint at any time, and the wish that the service ends. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

PUBLIC uint32_t fr_generation(const struct fr *fr)
{
	return fr->generation;
}

PUBLIC pid_t fr_keeper_pid(const struct fr *fr)
{
	return CLAIM_PID(atomic_load(&fr->cp->keeper));
}

PUBLIC pid_t fr_worker_pid(const struct fr *fr)
{
	return CLAIM_PID(atomic_load(&fr->cp->worker));
}

PUBLIC int fr_stop_fd(const struct fr *fr)
{
	return fr->stop_fd;
}

PUBLIC void fr_stop(struct fr *fr)
{
	uint64_t one = 1;
	int saved = errno;
	ssize_t n;

	atomic_store(&fr->cp->stopping, 1);
	n = write(fr->stop_fd, &one, sizeof(one));
	(void)n; /* its counter is full: it is readable */
	errno = saved;
}

PUBLIC void fr_stats(const struct fr *fr, struct fr_stats *out)
{
	const struct cp_header *h = fr->cp;
	struct fr_stats s = {
		.struct_size = out->struct_size,
		.generation = fr->alone ? 1 : CLAIM_NUMBER(h->worker),
		.recoveries = h->recoveries,
		.last_pause = h->last_pause,
		.resent = h->resent,
		.redone = h->redone,
		.set_aside = h->set_aside,
		.last_status = h->last_status,
	};

	memcpy(out, &s, out->struct_size < sizeof(s) ? out->struct_size : sizeof(s));
}
