/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The functions by which handlers read a request and answer it: what they copy, and what they refuse. */
#include "tests/unit/args.h"
#include "tests/unit/cache.h"

static struct extfuse_request r;

static void setup(void)
{
	libbpf_set_print(silent);
	runnable = bpf_object__open_file("tests/unit/args_run.bpf.o", NULL);
	ck_assert_msg(runnable, "tests/unit/args_run.bpf.o can not be read");
	ck_assert_int_eq(bpf_object__load(runnable), 0);
	r = request(FUSE_LOOKUP, 0x123456789abcdef0, "a name of 17 byte");
	r.pid = 4711;
	for (size_t i = 0; i < sizeof(r.in); i++)
		r.in[i] = (unsigned char)(i + 1);
}

static void teardown(void)
{
	bpf_object__close(runnable);
	runnable = NULL;
}

START_TEST(each_part_is_read)
{
	const struct args_read *got = (const void *)r.out;

	ck_assert_int_eq(run("reads", &r), EXTFUSE_RETURN);
	ck_assert_int_eq(got->errors, 0);
	ck_assert_uint_eq(r.out_size, sizeof(*got));
	ck_assert_uint_eq(got->opcode, FUSE_LOOKUP);
	ck_assert_uint_eq(got->nodeid, 0x123456789abcdef0);
	ck_assert_uint_eq(got->uid, 1000);
	ck_assert_uint_eq(got->gid, 100);
	ck_assert_uint_eq(got->pid, 4711);
	ck_assert_uint_eq(got->now, r.now);
	ck_assert_uint_eq(got->name_len, 17);
	ck_assert_mem_eq(got->name, "a name of 17 byt", 16);
	ck_assert_mem_eq(got->in, r.in, 16);
	ck_assert_uint_eq(got->part, 0x030201);
}
END_TEST

/* Of what lies behind the padding nothing is read. */
START_TEST(all_of_the_room)
{
	char name[EXTFUSE_NAME_SIZE] = "a name of 17 byte";

	ck_assert_int_eq(run("reads_all", &r), EXTFUSE_RETURN);
	ck_assert_int_eq(r.error, -13);
	ck_assert_uint_eq(r.out_size, EXTFUSE_OUT_SIZE);
	ck_assert_mem_eq(r.out, r.in, EXTFUSE_IN_SIZE);
	ck_assert_mem_eq(r.out + 96, name, sizeof(name));
}
END_TEST

START_TEST(more_is_refused)
{
	const struct args_bounds *said = (const void *)r.out;

	ck_assert_int_eq(run("bounds", &r), EXTFUSE_RETURN);
	for (int i = 0; i < BOUNDS; i++)
		ck_assert_msg(said->refused >> i & 1, "bound %d was taken", i);
	ck_assert_uint_eq(said->touched, 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { each_part_is_read, all_of_the_room, more_is_refused, NULL };

	need_bpf();
	return unit_run("args", tests, setup, teardown);
}
