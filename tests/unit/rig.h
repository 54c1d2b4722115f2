/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A host without a mount: requests are built byte by byte, given to dispatch(), and the replies are
 * caught in a memory file that stands for /dev/fuse.
 */
#ifndef FE_TESTS_RIG_H
#define FE_TESTS_RIG_H

#include "host/internal.h"
#include "tests/unit/recorder.h"
#include "tests/unit/unit.h"

#define RIG_UID		0x10001
#define RIG_GID		0x20002
#define RIG_PID		0x3003

struct rig {
	struct fe_host *host;
	struct worker worker;
	struct worker *workers[1];
	int dev;			/* receives the replies */
	struct fuse_in_header head;
	size_t size;			/* of the request so far */
	uint64_t unique;
	size_t reply_size;		/* with its header; 0: there was none */
	struct fuse_out_header reply;
	unsigned char *body;
	size_t body_size;
};

extern struct rig rig;

/* Fixtures. The one for teardown demands that every record came back. */
void rig_setup(void);
void rig_teardown(void);
/* By hand, for other options than the usual ones. */
void rig_start(const struct fe_backend *be, const struct fe_host_options *change);
void rig_stop(void);

/* A request: begun, filled, sent. rig_send() sets its length and collects the reply. */
void rig_begin(uint32_t opcode, uint64_t nodeid);
void *rig_put(const void *data, size_t size);
void rig_str(const char *s);
void rig_send(void);
/* Sends the first `size` bytes of what was built, with a header that says so. */
void rig_send_cut(size_t size);
void rig_dispatch(size_t size);

/* Reads what is in the memory file now. */
void rig_collect(void);

/* The reply was this error alone, or 0 and this body. */
void expect_error(int error);
void expect_body(const void *body, size_t size);
void expect_no_reply(void);
/* The backend was called like this and in no other way, by the request that was sent last. */
void expect_calls(const char *log);
void expect_request(uint32_t umask, uint32_t supp_group);

/* Usual steps; each checks that it succeeded and clears the log. */
uint64_t rig_lookup(uint64_t parent, const char *name);
uint64_t rig_open(uint64_t nodeid, bool dir);
void rig_forget(uint64_t nodeid, uint64_t n);
void rig_release(uint64_t nodeid, uint64_t fh, bool dir);

#endif
