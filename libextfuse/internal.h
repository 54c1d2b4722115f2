/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of libextfuse share. */
#ifndef EXTFUSE_INTERNAL_H
#define EXTFUSE_INTERNAL_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

#include "base/fuse_abi.h"
#include "bpf/extfuse.h"
#include "bpf/extfuse_ioctl.h"
#include "bpf/extfuse_maps.h"
#include "libextfuse/extfuse.h"

#define API __attribute__((visibility("default")))

/* of Linux 6.16 */
#define NOTIFY_INC_EPOCH	8
#define NOTIFY_INC_EPOCH_MINOR	44

enum map {
	MAP_ENTRY,
	MAP_ENTRY_LONG,
	MAP_ATTR,
	MAP_VALUE,
	MAP_VALUE_LARGE,
	MAP_OPEN,
	MAP_DIR,
	MAP_DIR_LARGE,
	MAPS
};

/* What a map must be like, also one that another process has made. */
struct map_kind {
	const char *name;
	uint32_t key_size;
	uint32_t value_size;
	uint32_t per_16k;	/* elements for each 16384 nodes that memory is meant for */
};

struct program_kind {
	const char *name;
	uint32_t opcode;
	uint32_t flags;		/* EXTFUSE_PROGRAM_* */
};

#define PROGRAMS 12

extern const struct map_kind map_kinds[MAPS];
extern const struct program_kind program_kinds[PROGRAMS];

/* Sizes that follow from the limit of memory. */
struct sizes {
	uint32_t elements[MAPS];
	uint32_t word_bits;
	uint32_t nodes;
	uint64_t memory;
};

struct counters {
	uint64_t puts, late, invalidations, notifications;
};

struct extfuse {
	struct extfuse_options options;
	struct extfuse_protocol protocol;
	struct sizes sizes;
	enum extfuse_engine engine;
	char reason[256];	/* why the engine is native */
	int fuse_fd;
	bool attached;

	/* the area: the module's, or with the engine native, the process's own */
	struct extfuse_area *area;
	uint64_t area_size;
	uint64_t seed;
	uint32_t word_bits;
	uint32_t nodes_count;
	struct extfuse_word *words;
	struct extfuse_node *nodes;

	int device;
	int maps[MAPS];
	int programs[PROGRAMS];
	struct counters counters;
};

/* ---- log.c ---- */
void log_line(const struct extfuse *x, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- maps.c ---- */

#define MEMORY_DEFAULT	(32ull << 20)
#define MEMORY_MIN	(1ull << 20)
#define MEMORY_MAX	(1ull << 40)

int sizes_of(const struct extfuse_options *o, struct sizes *sizes);
/* Makes maps and programs; what went wrong is in x->reason. */
int maps_load(struct extfuse *x);
/* Whether these descriptors are what maps_load() makes with the same options. */
int maps_check(const struct extfuse *x);
void maps_close(struct extfuse *x);
/* Of what a request for it is found by, the word is marked then: only where there is a mark, handlers
 * run. */
int map_put(struct extfuse *x, enum map map, const void *key, const void *value, struct extfuse_word *w);
void map_drop(const struct extfuse *x, enum map map, const void *key);

/* ---- area.c ---- */
int area_map(struct extfuse *x);
int area_make(struct extfuse *x);
void area_drop(struct extfuse *x);

/* ---- words.c ---- */

enum about { ABOUT_NODE, ABOUT_NAME, ABOUT_DIR };

/* A name as keys have it. */
struct name {
	uint32_t len;
	__u64 words[EXTFUSE_NAME_SIZE / 8];
};

int name_set(struct name *name, const char *text);
struct extfuse_word *word_all(const struct extfuse *x);
struct extfuse_word *word_of(const struct extfuse *x, enum about about, uint64_t nodeid,
			     const struct name *name);
void word_mark(struct extfuse_word *w);
void word_bump(struct extfuse *x, struct extfuse_word *w);
bool word_holds(const struct extfuse_word *w, uint64_t stamp, uint64_t own);
/* Fills stamp and own of a head; -ESTALE where the value is too old already. */
int seal(const struct extfuse *x, const struct extfuse_word *w, uint64_t stamp, bool own,
	 struct extfuse_head *head);
uint64_t expiry(uint32_t ms);

/* ---- put.c ---- */
#define NS_PER_MS 1000000u
#define COUNT(x, what) __atomic_fetch_add(&(x)->counters.what, 1, __ATOMIC_RELAXED)
int counted(struct extfuse *x, int err);
uint32_t ttl_ms(uint32_t option);
static inline bool native(const struct extfuse *x)
{
	return x->engine == EXTFUSE_ENGINE_NATIVE;
}

/* ---- notify.c ---- */
int notify_inode(struct extfuse *x, uint64_t nodeid, bool keep_data);
int notify_entry(struct extfuse *x, uint64_t parent, const char *name);
int notify_deleted(struct extfuse *x, uint64_t parent, uint64_t child, const char *name);
int notify_epoch(struct extfuse *x);

#endif
