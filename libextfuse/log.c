/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stdio.h>

#include "libextfuse/internal.h"

#define LINE_SIZE 512

void log_line(const struct extfuse *x, int level, const char *fmt, ...)
{
	char line[LINE_SIZE];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (x->options.log)
		x->options.log(x->options.arg, level, line);
	else if (level <= LOG_INFO)
		fprintf(stderr, "libextfuse: %s\n", line);
}
