/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a successor finds: records in tables, notes in slots, and what there is once. */
#ifndef FE_HOST_RECORDS_H
#define FE_HOST_RECORDS_H

#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/fuse_abi.h"
#include "libextfuse/extfuse.h"
#include "libfuserecover/fuserecover.h"

#define OPCODES		64	/* counters per opcode; higher ones share the last */
#define RECORD_MAX	256	/* of fe_backend.node_size and .handle_size */

/* A node as the host keeps it. Guarded by the lock of its key, where nothing else is said. */
struct node {
	int64_t nlookup;	/* references that the kernel holds, less those that the hook granted */
	uint32_t hash;
	uint32_t refs;		/* requests under way in the process ... */
	uint32_t generation;	/* ... that wrote this last */
	uint32_t handles;
	uint32_t writers;	/* handles that are open for writing */
	uint32_t nopen;		/* open files; with backing_id guarded by open_locks */
	int32_t backing_id;	/* > 0: passed through until nopen is 0; < 0: by the module, - enum passed */
	uint32_t transient;	/* the backend lets its attributes not be kept */
	unsigned char record[];
};

enum passed { PASSED_READS = 1, PASSED_WRITES = 2 };

struct handle {
	uint64_t nodeid;	/* the handle holds it; 0: on its way in or out */
	uint16_t dir;
	uint16_t writes;
	uint16_t held;		/* by extfuse_hold() */
	uint8_t all_names;	/* a listing by it has all */
	uint8_t standing;	/* an enum standing_state */
	unsigned char record[];
};

/*
 * A handle that the kernel has may come to stand when it is released. Then the module may have it open; a successor
 * can not tell a handle that stands from one whose removal had begun.
 */
enum standing_state { STANDING_NOT = 0, STANDING_FIT = 1, STANDING = 2, STANDING_ENDED = 3 };

/* A request whose answer comes later (FE_PENDING). */
struct parked {
	uint64_t unique;
	uint64_t nodeid;	/* referenced */
	int32_t fd;		/* the clone that read it */
	uint32_t opcode;
	uint32_t interrupted;
	uint32_t answered;	/* by `error`, which a successor sends again */
	int32_t error;
	uint32_t reserved;
	struct fuse_lk_in lock;	/* what is waited for */
};

/* A backend's record that is no node's or handle's yet, or no more. */
struct note_record {
	uint64_t id;
	uint64_t owned;		/* what it owns has to go back to the backend */
	unsigned char bytes[RECORD_MAX];
};

/* What an unfinished request has got so far. It lies in its slot; all zero when the request comes. */
struct note {
	uint64_t since;			/* ns of CLOCK_REALTIME_COARSE, before it was begun */
	uint64_t progress;		/* of a FORGET: how many of it are done */
	uint64_t parked;		/* token */
	uint32_t granted;		/* bytes of the reply whose nodeid and fh the kernel was to get */
	uint32_t backing_after;		/* one is being opened, which will be this one or a later one; 0: none */
	uint32_t backing_opened;	/* it is this one, and not noted on its node yet */
	uint32_t backing_close;
	struct note_record entry;
	struct note_record open;
	struct note_record over;	/* a node that ended */
};

#define BACKING_RING	16384	/* so many are opened at most while one thread does not come to note its own */

/* Who reads and writes files: the server (0), the driver by FUSE_PASSTHROUGH, the module extfuse. */
enum passes { PASSES_NOTHING = 0, PASSES_DRIVER = 1, PASSES_MODULE = 2 };

/* What a successor finds besides tables and slots. */
struct shared {
	int fd;				/* /dev/fuse */
	int control_fd;
	unsigned dev_major, dev_minor;	/* st_dev of the mount */
	char mountpoint[PATH_MAX];
	int clones[FR_SLOTS_MAX];	/* what each slot reads; 0: not opened yet */
	uint32_t proto_minor;		/* agreed 7.x; 0 before INIT */
	uint32_t max_write;
	uint64_t flags;			/* agreed FUSE_* init flags */
	uint32_t passthrough;		/* an enum passes */
	char passthrough_reason[96];	/* why not, or what was seen */
	_Atomic uint64_t interrupted[FR_SLOTS_MAX];	/* unique of the last INTERRUPT for each slot's request */
	_Atomic uint32_t stops;		/* how often the end was asked for */
	_Atomic uint32_t aborted;	/* the connection was ended by fusectl */
	_Atomic uint32_t closings;	/* servers that began to close the backend */
	_Atomic uint32_t backing_last;	/* the last id that was noted */
	_Atomic uint32_t backing_ids[BACKING_RING];	/* the last ones that were noted, by their lowest bits */
	uint64_t asked;			/* hash of what the mount was asked for with */
	uint32_t cache_count;		/* descriptors of the hook, 0: it does not run */
	int cache_fds[EXTFUSE_FDS_MAX];
	char cache_line[160];		/* which engine runs, and why */
	_Atomic uint64_t counts[FR_SLOTS_MAX][OPCODES];
};

#endif
