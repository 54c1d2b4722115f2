/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What may be, while some operations are under way: names, nodes, and what is left to be done. One step each are: the
 * change of names (of all names of a rename together), the change of one attribute of a node, each attribute that
 * stat(2) tells, each name that a listing has or has not. A path is resolved by a step of its own. When a count of
 * links changes is open until the operation that changes it has ended.
 */
#ifndef FE_TESTS_COHERENCE_WORLD_H
#define FE_TESTS_COHERENCE_WORLD_H

#include "tests/mount/coherence.h"

enum { SLOTS = 56, NONE = -1 };

/* What is left to be done of an operation. */
enum { MAIN = 1, MODE = 2, SIZE = 4, NLINK = 8, MTIME = 16, NAME = 32 };

/* A path may have led to nothing, or to a node that was dropped as there were too many. */
#define BIT(slot) (1ull << (slot))
#define ABSENT BIT(62)
#define DROPPED BIT(63)

struct node {
	uint32_t type, mode, size, mtime, xattr[XATTRS];
};

struct pending {
	uint64_t found;	/* slots that its path may have led to */
	int32_t left;
	int32_t touched;	/* the node that got a name or lost one, or was changed */
	uint32_t was[4];	/* for TOLERATE_BACKWARDS: its mode, size and mtime before, where they were changed */
};

/* Compared as bytes. */
struct world {
	int8_t names[(NAMES + 7) / 8 * 8];
	struct pending pending[PROCS];
	struct node nodes[SLOTS];
};

extern const struct op *running[PROCS];
extern uint32_t slot_node[SLOTS];	/* 0: free */
extern uint32_t slot_until[SLOTS];	/* the end of the last operation that saw it */
extern uint32_t clock_now;

int slot_of(uint32_t node);
int names_of(const struct world *w, int slot);
bool changes(const struct op *op);
/* Nobody but process `p` will come by this node again. */
bool forlorn(const struct world *w, int slot, int p);
void begin_in(struct world *w, const struct op *op);
/* All worlds that come of this one by a step of process `p`. */
void steps(const struct world *w, int p, void (*reached)(const struct world *w));

#endif
