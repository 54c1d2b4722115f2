/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every operation by itself: each field of its request has a value of its own and has to reach the
 * backend, each byte of the reply is compared with the structure of <linux/fuse.h>.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "tests/unit/rig.h"

/* The scene: what setup_scene() leaves behind. The numbers are those of the first ids. */
#define DIR_NODE	2
#define FILE_NODE	3
#define OTHER_NODE	4
#define NEW_NODE	5
#define FILE_FH		1
#define DIR_FH		2
#define OTHER_FH	3

static void setup_scene(void)
{
	rig_setup();
	ck_assert_uint_eq(rig_lookup(ROOT_ID, "d"), DIR_NODE);
	ck_assert_uint_eq(rig_lookup(DIR_NODE, "f"), FILE_NODE);
	ck_assert_uint_eq(rig_lookup(DIR_NODE, "g"), OTHER_NODE);
	ck_assert_uint_eq(rig_open(FILE_NODE, false), FILE_FH);
	ck_assert_uint_eq(rig_open(DIR_NODE, true), DIR_FH);
	ck_assert_uint_eq(rig_open(OTHER_NODE, false), OTHER_FH);
}

static void end_scene(void)
{
	rig.head.opcode = 0;
	rec.err = 0;
	/* an id that a test released already is none any more, which RELEASE takes */
	rig_release(FILE_NODE, FILE_FH, false);
	rig_release(DIR_NODE, DIR_FH, true);
	rig_release(OTHER_NODE, OTHER_FH, false);
	/* what CREATE, OPEN, OPENDIR and TMPFILE may have added */
	rig_release(FILE_NODE, 4, false);
	rig_release(FILE_NODE, 4, true);
	rig_teardown();
}

#define PUT(type, ...) do { struct type in = { __VA_ARGS__ }; rig_put(&in, sizeof(in)); } while (0)

static void b_name(void)
{
	rig_str("new");
}

static void b_getattr(void)
{
	PUT(fuse_getattr_in, .getattr_flags = FUSE_GETATTR_FH, .fh = FILE_FH);
}

static void b_setattr(void)
{
	PUT(fuse_setattr_in, .valid = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME |
	    FATTR_FH | FATTR_ATIME_NOW | FATTR_MTIME_NOW | FATTR_LOCKOWNER | FATTR_CTIME | FATTR_KILL_SUIDGID,
	    .fh = FILE_FH, .size = 0x1122334455667788, .lock_owner = 9, .atime = (uint64_t)-3, .mtime = 0x100000001,
	    .ctime = 0x100000002, .atimensec = 11, .mtimensec = 12, .ctimensec = 13, .mode = 0104755,
	    .uid = 0xabcdef01, .gid = 0xabcdef02);
}

static void b_symlink(void)
{
	rig_str("new");
	rig_str("../to/where");
}

static void b_mknod(void)
{
	PUT(fuse_mknod_in, .mode = 020644, .rdev = 0x12345678, .umask = 027);
	rig_str("new");
}

static void b_mkdir(void)
{
	PUT(fuse_mkdir_in, .mode = 041777, .umask = 026);
	rig_str("new");
}

static void b_rename(void)
{
	PUT(fuse_rename_in, .newdir = ROOT_ID);
	rig_str("old");
	rig_str("new");
}

static void b_rename2(void)
{
	PUT(fuse_rename2_in, .newdir = ROOT_ID, .flags = 0x80000003);
	rig_str("old");
	rig_str("new");
}

static void b_link(void)
{
	PUT(fuse_link_in, .oldnodeid = FILE_NODE);
	rig_str("new");
}

static void b_open(void)
{
	PUT(fuse_open_in, .flags = O_RDWR | O_APPEND | O_TRUNC | O_CREAT | O_EXCL | O_NOCTTY | O_CLOEXEC,
	    .open_flags = FUSE_OPEN_KILL_SUIDGID);
}

static void b_opendir(void)
{
	PUT(fuse_open_in, .flags = 0x10000);
}

static void b_read(void)
{
	PUT(fuse_read_in, .fh = FILE_FH, .offset = 0x7edcba9876543210, .size = 100, .read_flags = 1, .lock_owner = 5,
	    .flags = O_RDWR);
}

static void b_write(void)
{
	PUT(fuse_write_in, .fh = FILE_FH, .offset = 0x7edcba9876543211, .size = 3,
	    .write_flags = FUSE_WRITE_CACHE | FUSE_WRITE_KILL_SUIDGID, .lock_owner = 5, .flags = O_RDWR);
	rig_put("\1\2\3", 3);
}

static void b_nothing(void)
{
}

static void b_release(void)
{
	PUT(fuse_release_in, .fh = FILE_FH, .flags = 0x8002, .release_flags = FUSE_RELEASE_FLOCK_UNLOCK,
	    .lock_owner = 0x1234567812345678);
}

static void b_releasedir(void)
{
	PUT(fuse_release_in, .fh = DIR_FH, .flags = 0x8002);
}

static void b_fsync(void)
{
	PUT(fuse_fsync_in, .fh = FILE_FH, .fsync_flags = FUSE_FSYNC_FDATASYNC);
}

static void b_fsyncdir(void)
{
	PUT(fuse_fsync_in, .fh = DIR_FH, .fsync_flags = 2);
}

static void b_setxattr(void)
{
	struct fuse_setxattr_in in = { .size = 5, .flags = 2 };

	rig_put(&in, 8); /* as without FUSE_SETXATTR_EXT */
	rig_str("user.new");
	rig_put("value", 5);
}

static void b_getxattr(void)
{
	PUT(fuse_getxattr_in, .size = 50);
	rig_str("user.new");
}

static void b_listxattr(void)
{
	PUT(fuse_getxattr_in, .size = 60);
}

static void b_flush(void)
{
	PUT(fuse_flush_in, .fh = FILE_FH, .lock_owner = 0xfedcba9876543210);
}

static void b_lock(void)
{
	PUT(fuse_lk_in, .fh = FILE_FH, .owner = 0xa1a2a3a4a5a6a7a8, .lk = { 0x10, UINT64_MAX, F_WRLCK, 77 },
	    .lk_flags = FUSE_LK_FLOCK);
}

static void b_access(void)
{
	PUT(fuse_access_in, .mask = 5);
}

static void b_create(void)
{
	PUT(fuse_create_in, .flags = O_WRONLY | O_EXCL, .mode = 0106755, .umask = 0137,
	    .open_flags = FUSE_OPEN_KILL_SUIDGID);
	rig_str("new");
}

static void b_tmpfile(void)
{
	PUT(fuse_create_in, .flags = O_RDWR | O_EXCL, .mode = 0100600, .umask = 077);
}

static void b_ioctl(void)
{
	PUT(fuse_ioctl_in, .fh = FILE_FH, .flags = 0, .cmd = 0x80086601, .arg = 0x1122334455667788, .in_size = 3,
	    .out_size = 8);
	rig_put("\1\2\3", 3);
}

static void b_poll(void)
{
	PUT(fuse_poll_in, .fh = FILE_FH, .kh = 5, .flags = 0, .events = 0x2043);
}

static void b_fallocate(void)
{
	PUT(fuse_fallocate_in, .fh = FILE_FH, .offset = 0x100000001, .length = 0x200000002, .mode = 3);
}

static void b_lseek(void)
{
	PUT(fuse_lseek_in, .fh = FILE_FH, .offset = 0x300000003, .whence = 4);
}

static void b_copy(void)
{
	PUT(fuse_copy_file_range_in, .fh_in = FILE_FH, .off_in = 0x400000004, .nodeid_out = OTHER_NODE,
	    .fh_out = OTHER_FH, .off_out = 0x500000005, .len = 0x600000006, .flags = 7);
}

static void b_statx(void)
{
	PUT(fuse_statx_in, .getattr_flags = FUSE_GETATTR_FH, .fh = FILE_FH, .sx_flags = 1, .sx_mask = 0xfff);
}

/* What the replies are made of. */
static const struct fuse_attr attr = {
	.ino = 0x0102030405060708, .size = 0x1112131415161718, .blocks = 0x2122232425262728, .atime = (uint64_t)-5,
	.mtime = 0x100000004, .ctime = 0x100000003, .atimensec = 101, .mtimensec = 104, .ctimensec = 103,
	.mode = 0104751, .nlink = 3, .uid = 0x11000011, .gid = 0x22000022,
	.rdev = 0x45 | 0xabc << 8 | 0x123 << 20, .blksize = 0x10001, .flags = 0,
};

static struct fuse_entry_out entry(uint64_t nodeid)
{
	return (struct fuse_entry_out){
		.nodeid = nodeid, .generation = 0, .entry_valid = 1, .attr_valid = 2, .entry_valid_nsec = 500000002,
		.attr_valid_nsec = 7, .attr = attr,
	};
}

static size_t r_entry(unsigned char *out)
{
	struct fuse_entry_out e = entry(NEW_NODE);

	memcpy(out, &e, sizeof(e));
	return sizeof(e);
}

static size_t r_linked(unsigned char *out)
{
	struct fuse_entry_out e = entry(FILE_NODE);

	memcpy(out, &e, sizeof(e));
	return sizeof(e);
}

static size_t r_open(unsigned char *out)
{
	struct fuse_open_out o = {
		.fh = 4,
		.open_flags = FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE | FOPEN_NONSEEKABLE | FOPEN_CACHE_DIR | FOPEN_STREAM |
			      FOPEN_NOFLUSH | FOPEN_PARALLEL_DIRECT_WRITES,
	};

	memcpy(out, &o, sizeof(o));
	return sizeof(o);
}

static size_t r_created(unsigned char *out)
{
	size_t n = r_entry(out);

	return n + r_open(out + n);
}

static size_t r_attr(unsigned char *out)
{
	struct fuse_attr_out a = { .attr_valid = 2, .attr_valid_nsec = 7, .attr = attr };

	memcpy(out, &a, sizeof(a));
	return sizeof(a);
}

static size_t r_statx(unsigned char *out)
{
	struct fuse_statx_out s = {
		.attr_valid = 2, .attr_valid_nsec = 7,
		.stat = {
			.mask = 0xfff, .blksize = 0x10001, .attributes = 0x1111222233334444, .nlink = 3,
			.uid = 0x11000011, .gid = 0x22000022, .mode = 0104751, .ino = 0x0102030405060708,
			.size = 0x1112131415161718, .blocks = 0x2122232425262728,
			.attributes_mask = 0x5555666677778888, .atime = { -5, 101, 0 },
			.btime = { 0x100000002, 102, 0 },
			.ctime = { 0x100000003, 103, 0 }, .mtime = { 0x100000004, 104, 0 }, .rdev_major = 0xabc,
			.rdev_minor = 0x12345,
		},
	};

	memcpy(out, &s, sizeof(s));
	return sizeof(s);
}

static size_t r_data(unsigned char *out)
{
	memcpy(out, "\x40\x41\x42\x43\x44\x45\x46", 7);
	return 7;
}

static size_t r_write(unsigned char *out)
{
	struct fuse_write_out w = { .size = 7 };

	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

/* What comes from the cache is written as a whole. */
static size_t r_write_cache(unsigned char *out)
{
	struct fuse_write_out w = { .size = 3 };

	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

static size_t r_statfs(unsigned char *out)
{
	struct fuse_statfs_out s = { .st = {
		.blocks = 0x1000000001, .bfree = 0x1000000002, .bavail = 0x1000000003, .files = 0x1000000004,
		.ffree = 0x1000000005, .bsize = 6, .namelen = 7, .frsize = 8,
	} };

	memcpy(out, &s, sizeof(s));
	return sizeof(s);
}

static size_t r_lock(unsigned char *out)
{
	struct fuse_lk_out l = { .lk = { .start = 0x31, .end = 0x32, .type = 1, .pid = 0x33 } };

	memcpy(out, &l, sizeof(l));
	return sizeof(l);
}

static size_t r_ioctl(unsigned char *out)
{
	struct fuse_ioctl_out io = { .result = -7 };

	memcpy(out, &io, sizeof(io));
	return sizeof(io) + r_data(out + sizeof(io));
}

static size_t r_poll(unsigned char *out)
{
	struct fuse_poll_out p = { .revents = 0x41 };

	memcpy(out, &p, sizeof(p));
	return sizeof(p);
}

static size_t r_lseek(unsigned char *out)
{
	struct fuse_lseek_out l = { .offset = 0x123456789abc };

	memcpy(out, &l, sizeof(l));
	return sizeof(l);
}

/* fh: where in the request the handle stands, counted behind the header; 0xff: it has none. */
#define NO_FH		0xff
static const struct op_case {
	uint32_t opcode;
	uint64_t nodeid;
	void (*build)(void);
	const char *calls;
	size_t (*reply)(unsigned char *out);
	uint32_t umask;
	uint8_t fh;
	bool no_error;		/* the backend has none to return */
} cases[] = {
	{ FUSE_LOOKUP, DIR_NODE, b_name, "lookup 2:d \"new\"\n", r_entry, 0, NO_FH, 0 },
	{ FUSE_GETATTR, FILE_NODE, b_getattr, "getattr 3:f h-f\n", r_attr, 0, NO_FH, 0 },
	{ FUSE_STATX, FILE_NODE, b_statx, "getattr 3:f h-f\n", r_statx, 0, NO_FH, 0 },
	{ FUSE_SETATTR, FILE_NODE, b_setattr, "setattr 3:f h-f valid=3ff mode=104755 uid=abcdef01 gid=abcdef02 "
	  "size=1122334455667788 atime=-3.11 mtime=4294967297.12 ctime=4294967298.13\n", r_attr, 0, NO_FH, 0 },
	{ FUSE_READLINK, FILE_NODE, b_nothing, "readlink 3:f size=4095\n", r_data, 0, NO_FH, 0 },
	{ FUSE_SYMLINK, DIR_NODE, b_symlink, "symlink 2:d \"new\" -> \"../to/where\"\n", r_entry, 0, NO_FH, 0 },
	{ FUSE_MKNOD, DIR_NODE, b_mknod, "mknod 2:d \"new\" mode=20644 rdev=12345678\n", r_entry, 027, NO_FH, 0 },
	{ FUSE_MKDIR, DIR_NODE, b_mkdir, "mkdir 2:d \"new\" mode=41777\n", r_entry, 026, NO_FH, 0 },
	{ FUSE_UNLINK, DIR_NODE, b_name, "unlink 2:d \"new\"\n", NULL, 0, NO_FH, 0 },
	{ FUSE_RMDIR, DIR_NODE, b_name, "rmdir 2:d \"new\"\n", NULL, 0, NO_FH, 0 },
	{ FUSE_RENAME, DIR_NODE, b_rename, "rename 2:d \"old\" to 1:/ \"new\" flags=0\n", NULL, 0, NO_FH, 0 },
	{ FUSE_RENAME2, DIR_NODE, b_rename2, "rename 2:d \"old\" to 1:/ \"new\" flags=80000003\n", NULL, 0, NO_FH, 0 },
	{ FUSE_LINK, DIR_NODE, b_link, "link 3:f to 2:d \"new\"\nforget 0:f\n", r_linked, 0, NO_FH, 0 },
	{ FUSE_OPEN, FILE_NODE, b_open, "open 3:f flags=602 io=1\n", r_open, 0, NO_FH, 0 },
	{ FUSE_READ, FILE_NODE, b_read, "read 3:f h-f size=100 off=7edcba9876543210\n", r_data, 0, 0, 0 },
	{ FUSE_WRITE, FILE_NODE, b_write, "write 3:f h-f size=3 off=7edcba9876543211 io=3 sum=402\n",
	  r_write_cache, 0, 0, 0 },
	{ FUSE_STATFS, ROOT_ID, b_nothing, "statfs 1:/\n", r_statfs, 0, NO_FH, 0 },
	{ FUSE_RELEASE, FILE_NODE, b_release, "release 3:f h-f flags=8002 owner=1234567812345678 flock=1\n", NULL, 0,
	  NO_FH, true },
	{ FUSE_FSYNC, FILE_NODE, b_fsync, "fsync 3:f h-f data=1\n", NULL, 0, 0, 0 },
	{ FUSE_SETXATTR, FILE_NODE, b_setxattr, "setxattr 3:f \"user.new\" value=\"value\" flags=2 kill=0\n", NULL, 0,
	  NO_FH, 0 },
	{ FUSE_GETXATTR, FILE_NODE, b_getxattr, "getxattr 3:f \"user.new\" size=50\n", r_data, 0, NO_FH, 0 },
	{ FUSE_LISTXATTR, FILE_NODE, b_listxattr, "listxattr 3:f size=60\n", r_data, 0, NO_FH, 0 },
	{ FUSE_REMOVEXATTR, FILE_NODE, b_name, "removexattr 3:f \"new\"\n", NULL, 0, NO_FH, 0 },
	{ FUSE_FLUSH, FILE_NODE, b_flush, "flush 3:f h-f owner=fedcba9876543210\n", NULL, 0, 0, 0 },
	{ FUSE_OPENDIR, DIR_NODE, b_opendir, "opendir 2:d flags=10000\n", r_open, 0, NO_FH, 0 },
	{ FUSE_RELEASEDIR, DIR_NODE, b_releasedir, "releasedir 2:d h-d\n", NULL, 0, NO_FH, true },
	{ FUSE_FSYNCDIR, DIR_NODE, b_fsyncdir, "fsyncdir 2:d h-d data=0\n", NULL, 0, 0, 0 },
	{ FUSE_GETLK, FILE_NODE, b_lock, "getlk 3:f h-f 10-ffffffffffffffff owner=a1a2a3a4a5a6a7a8 type=1 pid=77 "
	  "flock=1 wait=0\n", r_lock, 0, 0, 0 },
	{ FUSE_SETLK, FILE_NODE, b_lock, "setlk 3:f h-f 10-ffffffffffffffff owner=a1a2a3a4a5a6a7a8 type=1 pid=77 "
	  "flock=1 wait=0\n", NULL, 0, 0, 0 },
	{ FUSE_SETLKW, FILE_NODE, b_lock, "setlk 3:f h-f 10-ffffffffffffffff owner=a1a2a3a4a5a6a7a8 type=1 pid=77 "
	  "flock=1 wait=1\n", NULL, 0, 0, 0 },
	{ FUSE_ACCESS, FILE_NODE, b_access, "access 3:f mask=5\n", NULL, 0, NO_FH, 0 },
	{ FUSE_CREATE, DIR_NODE, b_create, "create 2:d \"new\" flags=81 mode=106755 io=1\n",
	  r_created, 0137, NO_FH, 0 },
	{ FUSE_TMPFILE, DIR_NODE, b_tmpfile, "tmpfile 2:d flags=82 mode=100600\n", r_created, 077, NO_FH, 0 },
	{ FUSE_IOCTL, FILE_NODE, b_ioctl, "ioctl 3:f h-f cmd=80086601 flags=0 arg=1122334455667788 in=3 sum=402 "
	  "out=8\n", r_ioctl, 0, NO_FH, 0 },
	{ FUSE_POLL, FILE_NODE, b_poll, "poll 3:f h-f events=2043\n", r_poll, 0, 0, 0 },
	{ FUSE_FALLOCATE, FILE_NODE, b_fallocate, "fallocate 3:f h-f mode=3 off=100000001 len=200000002\n",
	  NULL, 0, 0, 0 },
	{ FUSE_LSEEK, FILE_NODE, b_lseek, "lseek 3:f h-f off=300000003 whence=4\n", r_lseek, 0, 0, 0 },
	{ FUSE_COPY_FILE_RANGE, FILE_NODE, b_copy, "copy 3:f h-f off=400000004 to 4:g h-g off=500000005 len=600000006 "
	  "flags=7\n", r_write, 0, 0, 0 },
	{ FUSE_SYNCFS, ROOT_ID, b_nothing, "syncfs 1:/\n", NULL, 0, NO_FH, 0 },
};

#define CASES (sizeof(cases) / sizeof(cases[0]))

static void build(const struct op_case *c)
{
	setup_scene();
	rec.first = 0x40;
	rec.data = 7;
	rec.open_flags = FE_OPEN_DIRECT_IO | FE_OPEN_KEEP_CACHE | FE_OPEN_NONSEEKABLE | FE_OPEN_CACHE_DIR |
			 FE_OPEN_STREAM | FE_OPEN_NOFLUSH | FE_OPEN_PARALLEL_WRITES;
	recorder_clear();
	rig_begin(c->opcode, c->nodeid);
	c->build();
}

START_TEST(well_formed)
{
	for (size_t i = 0; i < CASES; i++) {
		unsigned char want[1024];

		build(&cases[i]);
		rig_send();
		expect_request(cases[i].umask, FE_NO_GROUP);
		expect_calls(cases[i].calls);
		if (cases[i].reply)
			expect_body(want, cases[i].reply(want));
		else
			expect_error(0);
		end_scene();
	}
}
END_TEST

/* The caller's group comes behind everything else; it must not be taken for data. */
START_TEST(with_group)
{
	const struct {
		struct fuse_ext_header head;
		uint32_t n, group;
	} ext = { { sizeof(ext), FUSE_EXT_GROUPS }, 1, 0xcafe };

	for (size_t i = 0; i < CASES; i++) {
		unsigned char want[1024];

		build(&cases[i]);
		rig.head.total_extlen = sizeof(ext) / 8;
		rig_put(&ext, sizeof(ext));
		rig_send();
		expect_request(cases[i].umask, 0xcafe);
		expect_calls(cases[i].calls);
		if (cases[i].reply)
			expect_body(want, cases[i].reply(want));
		else
			expect_error(0);
		end_scene();
	}
}
END_TEST

START_TEST(backend_error)
{
	for (size_t i = 0; i < CASES; i++) {
		if (cases[i].no_error)
			continue;
		build(&cases[i]);
		rec.err = -EXDEV;
		rig_send();
		expect_error(-EXDEV);
		end_scene();
	}
}
END_TEST

/* Cut anywhere: an error, and the backend does not hear of it. */
START_TEST(truncated)
{
	for (size_t i = 0; i < CASES; i++) {
		size_t whole, size;

		build(&cases[i]);
		whole = rig.size;
		end_scene();
		for (size = sizeof(struct fuse_in_header); size < whole; size++) {
			build(&cases[i]);
			rig_send_cut(size);
			expect_calls("");
			expect_error(-EINVAL);
			end_scene();
		}
	}
}
END_TEST

START_TEST(wrong_node)
{
	const uint64_t wrong[] = { 0, 99, FILE_NODE | (uint64_t)1 << 32, UINT64_MAX, NEW_NODE };

	for (size_t i = 0; i < CASES; i++) {
		if (cases[i].no_error)
			continue;
		for (size_t k = 0; k < sizeof(wrong) / sizeof(wrong[0]); k++) {
			build(&cases[i]);
			rig.head.nodeid = wrong[k];
			rig_send();
			expect_calls("");
			expect_error(-ESTALE);
			end_scene();
		}
	}
}
END_TEST

/* Handles that are unknown, of the other kind, or of another node. */
START_TEST(wrong_handle)
{
	const uint64_t wrong[] = { 0, 99, FILE_FH | (uint64_t)1 << 32, UINT64_MAX, OTHER_FH };

	for (size_t i = 0; i < CASES; i++) {
		for (size_t k = 0; k < sizeof(wrong) / sizeof(wrong[0]) && cases[i].fh != NO_FH; k++) {
			build(&cases[i]);
			memcpy((unsigned char *)rig.worker.in + sizeof(struct fuse_in_header) + cases[i].fh, &wrong[k], 8);
			rig_send();
			expect_calls("");
			expect_error(-EBADF);
			end_scene();
		}
	}
}
END_TEST

/* What an operation answers that the backend leaves out. */
START_TEST(left_out)
{
	for (size_t i = 0; i < CASES; i++) {
		uint32_t op = cases[i].opcode;
		int want = op == FUSE_TMPFILE || op == FUSE_FALLOCATE || op == FUSE_COPY_FILE_RANGE ? -EOPNOTSUPP :
										      -ENOSYS;

		memset(&rec, 0, sizeof(rec));
		rig_start(&minimal_backend, NULL);
		ck_assert_uint_eq(rig_lookup(ROOT_ID, "d"), DIR_NODE);
		ck_assert_uint_eq(rig_lookup(DIR_NODE, "f"), FILE_NODE);
		ck_assert_uint_eq(rig_lookup(DIR_NODE, "g"), OTHER_NODE);
		rig_begin(op, cases[i].nodeid);
		cases[i].build();
		rig_send();
		if (op == FUSE_LOOKUP || op == FUSE_GETATTR || op == FUSE_STATX ||
		    op == FUSE_STATFS)
			ck_assert_int_eq(rig.reply.error, 0);
		else
			expect_error(cases[i].no_error ? 0 : want);
		rig_teardown();
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		well_formed, with_group, backend_error, truncated, wrong_node, wrong_handle, left_out, NULL,
	};

	return unit_run("operations", tests, NULL, NULL);
}
