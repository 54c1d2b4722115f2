/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host.h"

extern const struct fe_backend passthrough_backend, remote_backend, spill_backend;

const struct fe_backend *const fe_builtin_backends[] = {
	&passthrough_backend,
	&remote_backend,
	&spill_backend,
	NULL,
};
