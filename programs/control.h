/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asks the server of a mount over its control socket. */
#ifndef FE_PROGRAMS_CONTROL_H
#define FE_PROGRAMS_CONTROL_H

#include <stddef.h>

#include "base/mountinfo.h"

/*
 * Sends `command` and receives what comes until the end of the stream, terminated, at most size - 1
 * bytes. -ECONNREFUSED where nobody listens, -ETIMEDOUT where no answer comes within 5 seconds, -EPERM
 * where what listens runs as a user who has no business with this mount, -EMSGSIZE.
 */
int control_ask(const struct mount_entry *entry, const char *command, char *answer, size_t size);

#endif
