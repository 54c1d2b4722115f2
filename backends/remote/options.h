/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FE_REMOTE_OPTIONS_H
#define FE_REMOTE_OPTIONS_H

#include "backends/remote/client.h"

struct remote_options {
	char *command;
	char *uname;
	char *unknown;		/* the word that was refused */
	bool soft;
	bool per_user;
	bool acl;
	bool source_locks;
	uint32_t msize;
	uint32_t fids;
	uint32_t uid;
	uint64_t timeout;	/* ns */
};

/* 0, -EINVAL, -ENOMEM. Fills what is given; the rest is as it was. */
int remote_options_parse(const char *text, struct remote_options *o);
void remote_options_free(struct remote_options *o);
/* The argument of the backend; command: NULL or what speaks for the server. */
int address_parse(const char *text, const char *command, struct address *a);

#endif
