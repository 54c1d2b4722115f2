/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/passthrough/passthrough.h"
#include "host/host.h"

const struct fe_backend *const fe_builtin_backends[] = {
	&passthrough_backend,
	NULL,
};
