/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FE_CALLER_H
#define FE_CALLER_H

#include <stdbool.h>
#include <stdint.h>

/* Is gid among the process's supplementary groups? Asked where the protocol does not tell. */
bool caller_in_group(uint32_t pid, uint32_t gid);

#endif
