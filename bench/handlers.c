/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a handler of libextfuse costs on this machine, in nanoseconds as the kernel counts them for BPF programs: it
 * is run by BPF_PROG_TEST_RUN, so without the module. Run in the build directory.
 */
#include "tests/unit/cache.h"

#define RUNS 20000

static struct extfuse_request r;

static void measure(const char *what, const char *program, uint32_t opcode, uint64_t nodeid, const char *name,
		    int expected)
{
	const struct bpf_program *p = bpf_object__find_program_by_name(runnable, program);
	struct bpf_prog_info before = { 0 }, after = { 0 };
	uint32_t size = sizeof(before);
	int result = 0;

	bpf_obj_get_info_by_fd(bpf_program__fd(p), &before, &size);
	for (int i = 0; i < RUNS; i++) {
		r = request(opcode, nodeid, name);
		memset(r.in, 0, sizeof(r.in));
		((struct fuse_getxattr_in *)(void *)r.in)->size = opcode == FUSE_GETXATTR ? 1024 : 0;
		result = run(program, &r);
	}
	size = sizeof(after);
	bpf_obj_get_info_by_fd(bpf_program__fd(p), &after, &size);
	printf("%-28s %6.0f ns%s\n", what,
	       (double)(after.run_time_ns - before.run_time_ns) / (double)(after.run_cnt - before.run_cnt),
	       result == expected ? "" : "  (not what was expected)");
}

START_TEST(costs)
{
	static const char long_name[] = "a name of more than forty bytes, which has a map of its own";
	static struct extfuse_names names;
	uint64_t stamp;
	char large[1000];
	int stats;

	stats = bpf_enable_stats(BPF_STATS_RUN_TIME);
	ck_assert_msg(stats >= 0, "the kernel does not count: %s", strerror(-stats));
	open_context(0);
	load_maps();
	stamp = extfuse_stamp(x);
	memset(large, 'l', sizeof(large));
	put_entry(stamp, ROOT, "short", 10, 0);
	put_entry(stamp, ROOT, long_name, 11, 0);
	extfuse_put_negative(x, stamp, ROOT, "absent", NULL, 0);
	extfuse_put_xattr(x, stamp, 10, "user.small", "small", 5, 0);
	extfuse_put_xattr(x, stamp, 10, "user.large", large, sizeof(large), 0);
	extfuse_put_xattr(x, stamp, 10, "security.capability", NULL, -ENODATA, 0);
	extfuse_put_link(x, stamp, 10, "target", 6, 0);
	extfuse_names_clear(&names);
	extfuse_put_dir(x, stamp, 20, &names);
	measure("LOOKUP", "extfuse_lookup", FUSE_LOOKUP, ROOT, "short", EXTFUSE_RETURN);
	measure("LOOKUP, 59 bytes", "extfuse_lookup", FUSE_LOOKUP, ROOT, long_name, EXTFUSE_RETURN);
	measure("LOOKUP, absent", "extfuse_lookup", FUSE_LOOKUP, ROOT, "absent", EXTFUSE_RETURN);
	measure("LOOKUP, complete directory", "extfuse_lookup", FUSE_LOOKUP, 20, "any", EXTFUSE_RETURN);
	measure("LOOKUP, nothing known", "extfuse_lookup", FUSE_LOOKUP, 21, "any", EXTFUSE_UPCALL);
	measure("GETATTR", "extfuse_getattr", FUSE_GETATTR, 10, NULL, EXTFUSE_RETURN);
	measure("GETATTR, nothing known", "extfuse_getattr", FUSE_GETATTR, 99, NULL, EXTFUSE_UPCALL);
	measure("GETXATTR, 5 bytes", "extfuse_getxattr", FUSE_GETXATTR, 10, "user.small", EXTFUSE_RETURN);
	measure("GETXATTR, 1000 bytes", "extfuse_getxattr", FUSE_GETXATTR, 10, "user.large", EXTFUSE_RETURN);
	measure("GETXATTR, absent", "extfuse_getxattr", FUSE_GETXATTR, 10, "security.capability", EXTFUSE_RETURN);
	measure("READLINK", "extfuse_readlink", FUSE_READLINK, 10, NULL, EXTFUSE_RETURN);
	close(stats);
	close_context();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { costs, NULL };

	need_bpf();
	return unit_run("handlers", tests, NULL, NULL);
}
