/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libfuserecover/internal.h"

#define LINE_SIZE	512

static void __attribute__((format(printf, 3, 0))) log_line(const struct fr *fr, int level, const char *fmt,
							    va_list ap)
{
	char line[LINE_SIZE];

	vsnprintf(line, sizeof(line), fmt, ap);
	if (fr->options.log)
		fr->options.log(fr->options.arg, level, line);
	else if (level <= LOG_INFO)
		fprintf(stderr, "%s: %s\n", fr->name, line);
}

void fr_log(const struct fr *fr, int level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(fr, level, fmt, ap);
	va_end(ap);
}

void fr_die(const struct fr *fr, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(fr, LOG_CRIT, fmt, ap);
	va_end(ap);
	abort();
}

void fr_damaged(const struct fr *fr, const char *fmt, ...)
{
	va_list ap;

	atomic_store(&fr->cp->damaged, 1);
	va_start(ap, fmt);
	log_line(fr, LOG_CRIT, fmt, ap);
	va_end(ap);
	abort();
}
