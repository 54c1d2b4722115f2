/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of fuse-extent: arguments, and the options behind -o. */
#ifndef FE_PROGRAMS_OPTIONS_H
#define FE_PROGRAMS_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "host/host.h"

struct options {
	struct fe_host_options host;	/* all but .backend; its strings are those below */
	char *source;			/* SOURCE as it was given */
	char *backend;			/* a name, or the path of a shared object */
	char *argument;			/* behind "BACKEND:" */
	char *mountpoint;
	char *backend_options;		/* the -o options that the table does not have, by commas */
	bool foreground;
	bool help;
	bool version;
};

#define OPTIONS_ERROR_SIZE 512

/*
 * Fills *o from a command line. privileged: the caller is root. Returns 0, or -EINVAL or -EPERM with
 * a sentence in error[OPTIONS_ERROR_SIZE]. options_free() is due in any case.
 * With .help or .version set, nothing else is.
 */
int options_parse(struct options *o, int argc, char *const argv[], bool privileged, char *error);
void options_free(struct options *o);

/* The options of the table, for --help. */
void options_print(FILE *f);

#endif
