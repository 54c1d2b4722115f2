/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What holds for requests of any kind: framing, names, extensions, lookups, handles; and INIT. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "tests/unit/rig.h"

START_TEST(malformed_header)
{
	uint32_t lens[] = { 0, 1, 39, 40, 41, 43, 45, 100, UINT32_MAX };

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		rig_begin(FUSE_LOOKUP, ROOT_ID);
		rig_str("abc");
		rig.head.len = lens[i];
		memcpy((unsigned char *)rig.worker.in, &rig.head, sizeof(rig.head));
		rig_dispatch(rig.size);
		expect_no_reply();
		expect_calls("");
	}
	for (size_t size = 1; size < sizeof(struct fuse_in_header); size++) {
		rig_begin(FUSE_STATFS, ROOT_ID);
		rig_send_cut(size);
		expect_no_reply();
		expect_calls("");
	}
}
END_TEST

START_TEST(unknown_opcodes)
{
	const uint32_t known_but_not_served[] = { FUSE_BMAP, FUSE_SETUPMAPPING, FUSE_REMOVEMAPPING };
	const uint32_t unknown[] = { 0, 7, 19, 53, 54, 63, 64, 65, 4096, 1u << 20, 1u << 31, UINT32_MAX };

	for (size_t i = 0; i < sizeof(known_but_not_served) / sizeof(uint32_t); i++) {
		rig_begin(known_but_not_served[i], ROOT_ID);
		rig_put("0123456789abcdef0123456789abcdef", 32);
		rig_send();
		expect_error(-ENOSYS);
	}
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		uint64_t before = rig.host->shared->counts[0][unknown[i] < OPCODES ? unknown[i] : OPCODES - 1];

		rig_begin(unknown[i], ROOT_ID);
		rig_put("0123456789abcdef0123456789abcdef", 32);
		rig_send();
		expect_error(-ENOSYS);
		ck_assert_uint_eq(rig.host->shared->counts[0][unknown[i] < OPCODES ? unknown[i] : OPCODES - 1], before + 1);
	}
	/* an answer to a notification is not answered */
	rig_begin(FUSE_NOTIFY_REPLY, ROOT_ID);
	rig_put("0123456789abcdef0123456789abcdef", 32);
	rig_send();
	expect_no_reply();
	rig_begin(FUSE_DESTROY, 0);
	rig_send();
	expect_error(0);
	expect_calls("");
}
END_TEST

/* Every operation that takes a name, with one that is none. */
START_TEST(bad_names)
{
	static const struct {
		uint32_t opcode;
		size_t head;
		const char *before;
		const char *after;
	} ops[] = {
		{ FUSE_LOOKUP, 0, NULL, NULL },
		{ FUSE_MKNOD, sizeof(struct fuse_mknod_in), NULL, NULL },
		{ FUSE_MKDIR, sizeof(struct fuse_mkdir_in), NULL, NULL },
		{ FUSE_SYMLINK, 0, NULL, "target" },
		{ FUSE_UNLINK, 0, NULL, NULL },
		{ FUSE_RMDIR, 0, NULL, NULL },
		{ FUSE_RENAME, sizeof(struct fuse_rename_in), NULL, "good" },
		{ FUSE_RENAME, sizeof(struct fuse_rename_in), "good", NULL },
		{ FUSE_RENAME2, sizeof(struct fuse_rename2_in), NULL, "good" },
		{ FUSE_RENAME2, sizeof(struct fuse_rename2_in), "good", NULL },
		{ FUSE_LINK, sizeof(struct fuse_link_in), NULL, NULL },
		{ FUSE_CREATE, sizeof(struct fuse_create_in), NULL, NULL },
	};
	static const char *const bad[] = { "", ".", "..", "/", "a/b", "/a", "a/", "../x", "./", "a//" };
	/* the first eight bytes of LINK, RENAME and RENAME2 are a nodeid */
	const unsigned char head[64] = { ROOT_ID };

	for (size_t o = 0; o < sizeof(ops) / sizeof(ops[0]); o++) {
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			rig_begin(ops[o].opcode, ROOT_ID);
			rig_put(head, ops[o].head);
			if (ops[o].before)
				rig_str(ops[o].before);
			rig_str(bad[i]);
			if (ops[o].after)
				rig_str(ops[o].after);
			rig_send();
			expect_error(-EINVAL);
			expect_calls("");
		}
		/* and one without an end: what follows the request is not part of it */
		rig_begin(ops[o].opcode, ROOT_ID);
		rig_put(head, ops[o].head);
		if (ops[o].before)
			rig_str(ops[o].before);
		rig_put("unterminated", 12);
		rig_send();
		expect_error(-EINVAL);
		expect_calls("");
	}
	/* dots are fine as long as they are not alone */
	rig_lookup(ROOT_ID, "...");
	rig_lookup(ROOT_ID, "..a");
	rig_lookup(ROOT_ID, ".a");
}
END_TEST

static void send_extension(const void *ext, size_t size, uint16_t claimed)
{
	rig_begin(FUSE_MKDIR, ROOT_ID);
	rig_put(&(struct fuse_mkdir_in){ .mode = 0755, .umask = 022 }, sizeof(struct fuse_mkdir_in));
	rig_str("new");
	rig_put(ext, size);
	rig.head.total_extlen = claimed;
	rig_send();
}

START_TEST(extensions)
{
	uint32_t groups[] = { 16, FUSE_EXT_GROUPS, 1, 4711 };
	uint32_t two[] = { 20, FUSE_EXT_GROUPS, 2, 4712, 4713, 0 };
	uint32_t none[] = { 16, FUSE_EXT_GROUPS, 0, 4714 };
	uint32_t other_first[] = { 16, 5, 0, 0, 16, FUSE_EXT_GROUPS, 1, 4715 };
	uint32_t short_groups[] = { 8, FUSE_EXT_GROUPS };
	uint32_t bad[][4] = {
		{ 0, FUSE_EXT_GROUPS, 1, 1 }, { 7, FUSE_EXT_GROUPS, 1, 1 }, { 17, FUSE_EXT_GROUPS, 1, 1 },
		{ UINT32_MAX, FUSE_EXT_GROUPS, 1, 1 }, { 12, 5, 1, 1 },
	};

	send_extension(groups, sizeof(groups), 2);
	expect_request(022, 4711);
	expect_calls("mkdir 1:/ \"new\" mode=755\n");
	two[0] = 24;
	send_extension(two, sizeof(two), 3);
	expect_request(022, 4712);
	send_extension(none, sizeof(none), 2);
	expect_request(022, FE_NO_GROUP);
	send_extension(other_first, sizeof(other_first), 4);
	expect_request(022, 4715);
	send_extension(short_groups, sizeof(short_groups), 1);
	expect_request(022, FE_NO_GROUP);
	recorder_clear();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		send_extension(bad[i], sizeof(bad[i]), 2);
		expect_error(-EINVAL);
		expect_calls("");
	}
	/* more than the request has */
	send_extension(groups, sizeof(groups), 100);
	expect_error(-EINVAL);
	send_extension(groups, sizeof(groups), UINT16_MAX);
	expect_error(-EINVAL);
	/* so much that name or structure are cut */
	send_extension(NULL, 0, 1);
	expect_error(-EINVAL);
	expect_calls("");
	/* malformed ones on a request without a reply */
	rig_begin(FUSE_FORGET, ROOT_ID);
	rig_put(&(struct fuse_forget_in){ 1 }, sizeof(struct fuse_forget_in));
	rig.head.total_extlen = 9;
	rig_send();
	expect_no_reply();
}
END_TEST

START_TEST(timeouts)
{
	struct fuse_entry_out *e;
	struct fuse_attr_out *a;

	rec.entry_valid = 3000000004;
	rec.attr_valid = UINT64_MAX;
	rig_lookup(ROOT_ID, "a");
	e = (void *)rig.body;
	ck_assert_uint_eq(e->entry_valid, 3);
	ck_assert_uint_eq(e->entry_valid_nsec, 4);
	ck_assert_uint_eq(e->attr_valid, UINT64_MAX / 1000000000);
	ck_assert_uint_eq(e->attr_valid_nsec, UINT64_MAX % 1000000000);
	rec.attr_valid = 1000000001;
	rig_begin(FUSE_GETATTR, ROOT_ID);
	rig_put(&(struct fuse_getattr_in){ 0 }, sizeof(struct fuse_getattr_in));
	rig_send();
	a = (void *)rig.body;
	ck_assert_uint_eq(a->attr_valid, 1);
	ck_assert_uint_eq(a->attr_valid_nsec, 1);
}
END_TEST

START_TEST(negative_entries)
{
	struct fe_host_options opt = {
		.struct_size = sizeof(opt), .source = "s", .mountpoint = "/", .negative_valid = 5000000006,
	};
	struct fuse_entry_out want = { .entry_valid = 5, .entry_valid_nsec = 6 };

	rig_begin(FUSE_LOOKUP, ROOT_ID);
	rig_str("missing");
	rig_send();
	expect_error(-ENOENT);
	rig_teardown();
	memset(&rec, 0, sizeof(rec));
	rig_start(&recorder_backend, &opt);
	rig_begin(FUSE_LOOKUP, ROOT_ID);
	rig_str("missing");
	rig_send();
	expect_body(&want, sizeof(want));
	/* no node was made of it */
	ck_assert_uint_eq(fr_table_used(rig.host->nodes), 1);
	rec.err = -EACCES;
	rig_send();
	expect_error(-EACCES);
	rec.err = 0;
}
END_TEST

START_TEST(forgets)
{
	uint64_t a = rig_lookup(ROOT_ID, "a"), b, c;
	struct {
		struct fuse_batch_forget_in head;
		struct fuse_forget_one one[3];
	} batch;

	ck_assert_uint_eq(rig_lookup(ROOT_ID, "a"), a);
	b = rig_lookup(a, "b");
	c = rig_lookup(a, "c");
	rig_forget(a, 1);
	ck_assert_uint_eq(fr_table_used(rig.host->nodes), 4);
	expect_calls("");
	rig_forget(a, 1);
	expect_calls("forget 2:a\n");
	rig_forget(ROOT_ID, 5);
	rig_forget(12345, 5);
	rig_forget(0, 5);
	expect_calls("");
	batch.head = (struct fuse_batch_forget_in){ .count = 3 };
	batch.one[0] = (struct fuse_forget_one){ b, 1 };
	batch.one[1] = (struct fuse_forget_one){ 777, 1 };
	batch.one[2] = (struct fuse_forget_one){ c, 1 };
	/* a count beyond the request: what is there counts, half an entry does not */
	batch.head.count = UINT32_MAX;
	rig_begin(FUSE_BATCH_FORGET, 0);
	rig_put(&batch, sizeof(batch) - sizeof(batch.one[2]) + 8);
	rig_send();
	expect_no_reply();
	expect_calls("forget 3:b\n");
	/* and one that is smaller than the request */
	batch.head.count = 0;
	rig_begin(FUSE_BATCH_FORGET, 0);
	rig_put(&batch, sizeof(batch));
	rig_send();
	expect_no_reply();
	expect_calls("");
	batch.head.count = 3;
	rig_begin(FUSE_BATCH_FORGET, 0);
	rig_put(&batch, sizeof(batch));
	rig_send();
	expect_no_reply();
	expect_calls("forget 4:c\n");
	ck_assert_uint_eq(fr_table_used(rig.host->nodes), 1);
	for (size_t size = sizeof(struct fuse_in_header); size < sizeof(struct fuse_in_header) + 8; size++) {
		rig_begin(FUSE_BATCH_FORGET, 0);
		rig_send_cut(size);
		expect_no_reply();
		rig_begin(FUSE_FORGET, 2);
		rig_send_cut(size);
		expect_no_reply();
	}
}
END_TEST

/* An open handle keeps its node, whatever the kernel forgets. */
START_TEST(handles_hold_nodes)
{
	uint64_t a = rig_lookup(ROOT_ID, "a"), fh = rig_open(a, false), dirh = rig_open(a, true);
	struct fuse_read_in in = { .fh = fh, .size = 16 };

	rig_forget(a, 1);
	expect_calls("");
	rig_begin(FUSE_READ, a);
	rig_put(&in, sizeof(in));
	rig_send();
	ck_assert_int_eq(rig.reply.error, 0);
	recorder_clear();
	/* of the other kind: not released */
	rig_release(a, fh, true);
	rig_release(a, dirh, false);
	expect_calls("");
	rig_release(a, fh, false);
	expect_calls("release 2:a h-a flags=0 owner=0 flock=0\n");
	rig_release(a, fh, false);
	expect_calls("");
	rig_release(a, dirh, true);
	expect_calls("releasedir 2:a h-a\nforget 2:a\n");
	ck_assert_uint_eq(fr_table_used(rig.host->handles), 0);
	ck_assert_uint_eq(fr_table_used(rig.host->nodes), 1);
}
END_TEST

/* What is open when service ends goes back to the backend, as everything else. */
START_TEST(handles_at_the_end)
{
	uint64_t a = rig_lookup(ROOT_ID, "a");

	rig_open(a, false);
	rig_open(a, true);
}
END_TEST

static void send_init(uint32_t major, uint32_t minor, uint32_t flags, uint32_t flags2, size_t size)
{
	struct fuse_init_in in = {
		.major = major, .minor = minor, .max_readahead = 0x20000, .flags = flags, .flags2 = flags2,
	};

	rig_begin(FUSE_INIT, 0);
	rig_put(&in, size);
	rig_send();
}

static const uint64_t always = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_HAS_IOCTL_DIR |
			       FUSE_AUTO_INVAL_DATA | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_ABORT_ERROR |
			       FUSE_MAX_PAGES | FUSE_INIT_EXT | FUSE_SETXATTR_EXT |
			       FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO;
static const uint64_t extended = FUSE_CREATE_SUPP_GROUP | FUSE_HAS_EXPIRE_ONLY | FUSE_DIRECT_IO_ALLOW_MMAP;

static struct fuse_init_out init_out(uint32_t minor, uint64_t flags)
{
	return (struct fuse_init_out){
		.major = 7, .minor = minor, .max_readahead = 0x20000, .flags = (uint32_t)flags,
		.max_background = 64, .congestion_threshold = 48, .max_write = 1 << 20, .time_gran = 1,
		.max_pages = 256, .flags2 = (uint32_t)(flags >> 32),
	};
}

START_TEST(init_versions)
{
	static const struct {
		uint32_t minor;
		size_t size;
		uint32_t agreed;
	} kernels[] = { { 31, 16, 31 }, { 34, 16, 34 }, { 35, 16, 35 }, { 36, 64, 36 }, { 38, 64, 38 }, { 41, 64, 41 },
			{ 45, 64, 41 }, { 99, 64, 41 } };

	for (size_t i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++) {
		bool ext = kernels[i].size > 16;
		uint32_t flags = ext ? UINT32_MAX : UINT32_MAX & ~(uint32_t)FUSE_INIT_EXT;
		uint64_t want = ext ? always | extended : always & ~(uint64_t)FUSE_INIT_EXT;
		struct fuse_init_out out = init_out(kernels[i].agreed, want);

		rig_stop();
		rig_setup();
		send_init(7, kernels[i].minor, flags, UINT32_MAX, kernels[i].size);
		expect_body(&out, sizeof(out));
		ck_assert_uint_eq(rig.host->shared->proto_minor, kernels[i].agreed);
		ck_assert_uint_eq(rig.host->shared->flags, want);
		/* it comes once */
		send_init(7, kernels[i].minor, flags, UINT32_MAX, kernels[i].size);
		expect_error(-EIO);
		ck_assert_uint_eq(rig.host->shared->flags, want);
	}
}
END_TEST

START_TEST(init_refused)
{
	static const uint32_t old[][2] = { { 7, 26 }, { 7, 30 }, { 7, 0 }, { 6, 99 }, { 0, 0 } };

	for (size_t i = 0; i < sizeof(old) / sizeof(old[0]); i++) {
		send_init(old[i][0], old[i][1], UINT32_MAX, UINT32_MAX, sizeof(struct fuse_init_in));
		expect_error(-EPROTO);
		ck_assert_uint_eq(rig.host->shared->proto_minor, 0);
	}
	for (size_t size = 0; size < 16; size++) {
		send_init(7, 41, 0, 0, size);
		expect_error(-EINVAL);
	}
}
END_TEST

/* A later major: our version goes back, and the kernel asks again with it. */
START_TEST(init_major_8)
{
	struct fuse_init_out want = { .major = 7 };

	send_init(8, 3, UINT32_MAX, UINT32_MAX, sizeof(struct fuse_init_in));
	ck_assert_int_eq(rig.reply.error, 0);
	ck_assert_uint_eq(((struct fuse_init_out *)rig.body)->major, 7);
	expect_body(&want, sizeof(want));
	ck_assert_uint_eq(rig.host->shared->proto_minor, 0);
	send_init(7, 41, UINT32_MAX, UINT32_MAX, sizeof(struct fuse_init_in));
	want = init_out(41, always | extended);
	expect_body(&want, sizeof(want));
}
END_TEST

/* Only what the kernel offers is agreed on; flags2 counts only with FUSE_INIT_EXT. */
START_TEST(init_offer)
{
	struct fuse_init_out want = init_out(41, 0);

	send_init(7, 41, 0, UINT32_MAX, sizeof(struct fuse_init_in));
	expect_body(&want, sizeof(want));
	rig_stop();
	rig_setup();
	send_init(7, 41, FUSE_INIT_EXT | FUSE_ASYNC_READ, UINT32_MAX, 16);
	want = init_out(41, FUSE_INIT_EXT | FUSE_ASYNC_READ);
	expect_body(&want, sizeof(want));
}
END_TEST

START_TEST(init_features)
{
	static const struct {
		uint32_t feature;
		uint64_t flag;
	} map[] = {
		{ FE_FEAT_ATOMIC_O_TRUNC, FUSE_ATOMIC_O_TRUNC }, { FE_FEAT_LOCKS, FUSE_POSIX_LOCKS },
		{ FE_FEAT_FLOCK, FUSE_FLOCK_LOCKS }, { FE_FEAT_POSIX_ACL, FUSE_POSIX_ACL },
		{ FE_FEAT_KILLPRIV, FUSE_HANDLE_KILLPRIV_V2 }, { FE_FEAT_KERNEL_PERMS, 0 },
	};
	struct fe_host_options writeback = {
		.struct_size = sizeof(writeback), .source = "s", .mountpoint = "/", .writeback = 1, .max_write = 4,
	};
	struct fuse_init_out want;
	uint32_t depth = 2;

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
		rig_stop();
		memset(&rec, 0, sizeof(rec));
		rec.features = map[i].feature;
		rig_start(&recorder_backend, NULL);
		send_init(7, 41, UINT32_MAX, UINT32_MAX, sizeof(struct fuse_init_in));
		want = init_out(41, always | extended | map[i].flag);
		expect_body(&want, sizeof(want));
	}
	rig_stop();
	rig_setup();
	rig.host->shared->passthrough = true;
	rig.host->root.max_stack_depth = depth;
	rig.host->root.time_gran = 1000;
	send_init(7, 41, UINT32_MAX, UINT32_MAX, sizeof(struct fuse_init_in));
	want = init_out(41, always | extended | FUSE_PASSTHROUGH);
	want.time_gran = 1000;
	memcpy((unsigned char *)&want + FE_INIT_OUT_MAX_STACK_DEPTH, &depth, sizeof(depth));
	expect_body(&want, sizeof(want));
	rig_stop();
	/* an older kernel does without, and the host says why */
	rig_setup();
	rig.host->shared->passthrough = true;
	send_init(7, 38, UINT32_MAX, (uint32_t)~(FUSE_PASSTHROUGH >> 32), sizeof(struct fuse_init_in));
	want = init_out(38, always | extended);
	expect_body(&want, sizeof(want));
	ck_assert(!rig.host->shared->passthrough);
	ck_assert_ptr_nonnull(strstr(rig.host->shared->passthrough_reason, "kernel"));
	rig_stop();
	memset(&rec, 0, sizeof(rec));
	rig_start(&recorder_backend, &writeback);
	rig.host->shared->passthrough = true;
	send_init(7, 41, UINT32_MAX, UINT32_MAX, sizeof(struct fuse_init_in));
	want = init_out(41, always | extended | FUSE_WRITEBACK_CACHE);
	want.max_write = 4096;
	expect_body(&want, sizeof(want));
	rig_stop();
	memset(&rec, 0, sizeof(rec));
	rig_start(&minimal_backend, NULL);
	send_init(7, 41, UINT32_MAX, UINT32_MAX, sizeof(struct fuse_init_in));
	want = init_out(41, (always & ~(uint64_t)(FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO)) | extended |
			FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT);
	expect_body(&want, sizeof(want));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		malformed_header, unknown_opcodes, bad_names, extensions, timeouts, negative_entries, forgets,
		handles_hold_nodes, handles_at_the_end, init_versions, init_refused, init_major_8, init_offer,
		init_features, NULL,
	};

	return unit_run("dispatch", tests, rig_setup, rig_teardown);
}
