/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the module counts, exactly: by known numbers of requests. */
#include <sys/xattr.h>

#include "tests/vm/rig.h"

static struct rig *r;
static const char *kind;
static int handle;
static uint64_t id;

static void stats(int times)
{
	struct stat st;

	while (times--)
		fstat(handle, &st);
}

static void names(int times, const char *name)
{
	struct stat st;

	while (times--)
		stat(rig_path(r, name), &st);
}

static void xattrs(int times)
{
	char path[64], value[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", handle);
	while (times--)
		getxattr(path, "user.x", value, sizeof(value));
}

/* Since `was`, of one opcode. */
static void counts(const char *name, uint32_t opcode, const struct extfuse_opcode_stats *was,
	const struct extfuse_opcode_stats *expected)
{
	struct extfuse_opcode_stats is = rig_stats(r, opcode);
	const uint64_t *a = (const void *)was, *b = (const void *)expected;
	uint64_t *got = (void *)&is;
	bool good = true;
	char label[64];

	for (size_t i = 0; i < sizeof(is) / sizeof(uint64_t); i++) {
		got[i] -= a[i];
		good &= got[i] == b[i];
	}
	snprintf(label, sizeof(label), "figures%s-%s", kind, name);
	result(good, label, "hits %llu, passthru %llu, misses %llu, stale %llu, refused %llu, mutations %llu",
		(unsigned long long)is.hits, (unsigned long long)is.passthru, (unsigned long long)is.misses,
		(unsigned long long)is.stale, (unsigned long long)is.refused, (unsigned long long)is.mutations);
}

#define COUNTS(name, opcode, what, ...) do { \
		struct extfuse_opcode_stats was_ = rig_stats(r, opcode); \
		what; \
		counts(name, opcode, &was_, &(struct extfuse_opcode_stats){ __VA_ARGS__ }); \
	} while (0)

static void test_attributes(void)
{
	COUNTS("not-put", FUSE_GETATTR, stats(5), .misses = 5);
	rig_node_word(r, id)->marked = 1;
	COUNTS("not-found", FUSE_GETATTR, stats(3), .misses = 3);
	rig_put_attr(r, id);
	COUNTS("hits", FUSE_GETATTR, stats(7), .hits = 7);
	rig_bump(r, rig_node_word(r, id));
	COUNTS("stale", FUSE_GETATTR, stats(2), .stale = 2);
	rig_put_attr(r, id);
	COUNTS("hits-again", FUSE_GETATTR, stats(4), .hits = 4);
}

static void test_names(void)
{
	COUNTS("absent", FUSE_LOOKUP, names(5, "absent"), .misses = 5);
	rig_put_name(r, 1, "absent");
	COUNTS("absent-known", FUSE_LOOKUP, names(7, "absent"), .hits = 7);
	COUNTS("present", FUSE_LOOKUP, names(4, "f"), .misses = 4);
	rig_put_name(r, 1, "f");
	COUNTS("present-known", FUSE_LOOKUP, names(6, "f"), .hits = 6);
	rig_bump(r, rig_name_word(r, 1, "f"));
	/* Where it was looked for before there was a request, nobody says why it was not found. */
	if (!*kind)
		COUNTS("present-stale", FUSE_LOOKUP, names(1, "f"), .stale = 1);
}

static void chmod_times(int times)
{
	while (times--)
		if (chmod(rig_path(r, "f"), 0600 + times))
			fatal("chmod");
}

static void test_figures_of(bool early)
{
	kind = early ? "-early" : "";
	r = rig_new("figures");
	if (early)
		rig_early(r);
	rig_file(r, "f");
	handle = rig_handle(r, "f");
	id = rig_id(r, "f");
	test_attributes();
	test_names();
	rig_put_attr(r, id);
	COUNTS("xattr-not-found", FUSE_GETXATTR, xattrs(3), .misses = 3);
	rig_put_xattr(r, id, "user.x", "0", 1);
	COUNTS("xattr", FUSE_GETXATTR, xattrs(2), .hits = 2);
	COUNTS("mutations", FUSE_SETATTR, chmod_times(6), .mutations = 6);
	COUNTS("xattr-changed", FUSE_GETXATTR, xattrs(2), .misses = 2);
	close(handle);
	rig_free(r);
}

void test_figures(void)
{
	test_figures_of(false);
	test_figures_of(true);
}
