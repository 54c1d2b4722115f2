/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One line to the operator: on stderr, or to syslog once the program runs in the background. */
#ifndef FE_BASE_LOG_H
#define FE_BASE_LOG_H

#include <stdarg.h>
#include <syslog.h>

/* `ident` stands before each line and is kept by address. level: the most talkative LOG_* to show. */
void fe_log_init(const char *ident, int level);
void fe_log_to_syslog(void);

void fe_log(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void fe_vlog(int level, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));

#endif
