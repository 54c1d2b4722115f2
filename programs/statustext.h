/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FE_PROGRAMS_STATUSTEXT_H
#define FE_PROGRAMS_STATUSTEXT_H

#include <stdio.h>

struct json_object;

/* Prints a JSON object as aligned text: whatever members it has, in their order. */
void status_print(FILE *f, struct json_object *status);

#endif
