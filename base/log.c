/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

static const char *log_ident = "fuse-extent";
static int log_level = LOG_INFO;
static int log_syslog;

void fe_log_init(const char *ident, int level)
{
	log_ident = ident;
	log_level = level;
}

void fe_log_to_syslog(void)
{
	log_syslog = 1;
}

void fe_vlog(int level, const char *fmt, va_list ap)
{
	char line[1024];

	if (level > log_level)
		return;
	if (log_syslog) {
		openlog(log_ident, LOG_PID, LOG_DAEMON);
		vsyslog(level, fmt, ap);
		/* It would outlive the process that opened it, unknown to the next one. */
		closelog();
		return;
	}
	/* One write a line: threads do not mix their words. */
	vsnprintf(line, sizeof(line), fmt, ap);
	fprintf(stderr, "%s: %s\n", log_ident, line);
}

void fe_log(int level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fe_vlog(level, fmt, ap);
	va_end(ap);
}
