/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A backend that writes down how it is called and answers what a test tells it to.
 *
 * A node is shown as NODEID:NAME and a handle as TAG, where name and tag come from the records: a call
 * with the wrong record shows. Every record owns a token that has to come back once.
 */
#ifndef FE_TESTS_RECORDER_H
#define FE_TESTS_RECORDER_H

#include "backends/backend.h"

#define RECORDER_TOKENS	65536u

struct recorder {
	char log[8192];			/* a line for each call, since recorder_clear() */
	struct fe_request req;		/* of the last call */
	int err;			/* returned by every function if it is not 0 */
	struct fe_entry *last_entry;
	uint64_t entry_valid;		/* if not 0: in place of what was preset */
	uint64_t attr_valid;
	uint32_t open_flags;
	ssize_t data;			/* what read, readlink, xattrs, ... return as length */
	unsigned char first;		/* their bytes count up from here */
	int plus;			/* readdir passes attributes itself */
	int pending;			/* setlk with wait returns FE_PENDING */
	int (*during_setlk)(uint64_t token);
	int complete_in_close;		/* pending requests are completed by close() */
	_Atomic uint64_t token;		/* of the last pending request */
	const struct fe_services *services;
	void *host;
	struct fe_open_args args;
	uint32_t features;
	uint32_t opened;		/* handles that were told to be counted */
	uint32_t tokens;
	unsigned char returned[RECORDER_TOKENS];
};

extern struct recorder rec;
extern const struct fe_backend recorder_backend;

/* Only what a backend must have. */
extern const struct fe_backend minimal_backend;

/* The attributes of every file: each field has a value of its own. */
struct statx recorder_attr(void);
void recorder_clear(void);
/* Records that did not come back, or came back twice. */
unsigned recorder_unbalanced(void);

#endif
