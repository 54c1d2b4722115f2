/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the adapter for libfuse refuses to send, and can not be had of every kernel or libfuse. */
#include <errno.h>
#include <string.h>

#include "libfuserecover/fuse3/internal.h"
#include "tests/unit/unit.h"

#define OVER_IO_URING_2	(1u << (41 - 32))

struct rig fr_fuse3_rig;

static struct saved saved;
static struct seat seat = { .request_size = 1 << 20, .reply_size = 1 << 20 };
static int said;

static struct {
	struct fuse_in_header in;
	struct fuse_init_in init;
} request;

static union {
	struct fuse_out_header head;
	struct {
		struct fuse_out_header head;
		struct fuse_init_out init;
	} init;
	struct {
		struct fuse_out_header head;
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} created;
} reply;

static void note(enum fuse_log_level level, const char *fmt, va_list ap)
{
	(void)ap;
	ck_assert_int_eq(level, FUSE_LOG_ERR);
	said += strstr(fmt, "can not be recovered") != NULL;
}

static void setup(void)
{
	memset(&saved, 0, sizeof(saved));
	memset(&request, 0, sizeof(request));
	memset(&reply, 0, sizeof(reply));
	fr_fuse3_rig.saved = &saved;
	fr_fuse3_rig.se = malloc(64);	/* where the heap is */
	fuse_set_log_func(note);
	said = 0;
	request.in.opcode = FUSE_INIT;
	request.in.len = sizeof(request);
	reply.init.init.major = FUSE_KERNEL_VERSION;
	reply.init.init.max_write = 65536;
	reply.init.init.flags = FUSE_BIG_WRITES | FUSE_MAX_PAGES;
	reply.init.init.max_pages = 16;
	reply.head.len = sizeof(reply.init);
}

static void teardown(void)
{
	free(fr_fuse3_rig.se);
	fuse_set_log_func(NULL);
}

static bool init_reply(void)
{
	return fr_fuse3_init_reply(&seat, &request.in, &reply.head);
}

START_TEST(init_is_saved)
{
	ck_assert(init_reply());
	ck_assert_uint_eq(saved.request_len, sizeof(request));
	ck_assert_uint_eq(saved.reply_len, sizeof(reply.init));
	ck_assert_mem_eq(saved.reply, &reply.init, sizeof(reply.init));
	ck_assert_int_eq(said, 0);
}
END_TEST

START_TEST(init_over_io_uring)
{
	reply.init.init.flags |= FUSE_INIT_EXT;
	reply.init.init.flags2 = OVER_IO_URING_2;
	ck_assert(!init_reply());
	ck_assert_uint_eq(saved.reply_len, 0);
	ck_assert_int_eq(said, 1);
}
END_TEST

/* Without FUSE_INIT_EXT the kernel does not look at them; others are no harm. */
START_TEST(init_other_flags)
{
	reply.init.init.flags2 = OVER_IO_URING_2;
	ck_assert(init_reply());
	reply.init.init.flags |= FUSE_INIT_EXT;
	reply.init.init.flags2 = ~OVER_IO_URING_2;
	ck_assert(init_reply());
	ck_assert_int_eq(said, 0);
}
END_TEST

START_TEST(init_failed)
{
	reply.head.error = -EPROTO;
	reply.head.len = sizeof(reply.head);
	ck_assert(!init_reply());
	ck_assert_uint_eq(saved.reply_len, 0);
}
END_TEST

static bool made(uint64_t nodeid, uint64_t fh)
{
	reply.created.entry.nodeid = nodeid;
	reply.created.open.fh = fh;
	return fr_fuse3_gives_address(&request.in, &reply.head, sizeof(reply.created));
}

START_TEST(tmpfile_with_address)
{
	uint64_t address = (uint64_t)(uintptr_t)fr_fuse3_rig.se;

	memset(&reply, 0, sizeof(reply));
	request.in.opcode = FUSE_TMPFILE;
	ck_assert(!made(1ull << 32 | 2, 7));
	ck_assert(made(address, 7));
	ck_assert(made(1ull << 32 | 2, address));
	ck_assert_int_eq(said, 2);
	reply.head.error = -EOPNOTSUPP;
	ck_assert(!made(address, address));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		init_is_saved, init_over_io_uring, init_other_flags, init_failed, tmpfile_with_address, NULL,
	};

	return unit_run("fuse3_check", tests, setup, teardown);
}
