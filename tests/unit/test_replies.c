/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Replies of variable length: listings, data, attributes of any size; and notifications. */
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <string.h>

#include "tests/unit/rig.h"

static uint64_t dir, dirh, file, fh;

static void setup(void)
{
	rig_setup();
	dir = rig_lookup(ROOT_ID, "d");
	dirh = rig_open(dir, true);
	file = rig_lookup(ROOT_ID, "f");
	fh = rig_open(file, false);
}

static void teardown(void)
{
	rec.err = 0;
	rig_release(dir, dirh, true);
	rig_release(file, fh, false);
	rig_teardown();
}

static void send_readdir(uint32_t opcode, uint64_t off, uint32_t size)
{
	struct fuse_read_in in = { .fh = dirh, .offset = off, .size = size };

	rig_begin(opcode, dir);
	rig_put(&in, sizeof(in));
	rig_send();
}

/* The names that the recorder lists, by position. */
static size_t name_at(uint64_t at, char *name)
{
	return (size_t)snprintf(name, 32, "%.*s", at < 2 ? (int)at + 1 : at == 5 ? 7 : (int)at * 2,
				at < 2 ? ".." : at == 5 ? "missing" : "abcdefghijklmnopqrstuvwxyz");
}

static void put_dirent(unsigned char *to, uint64_t at, uint64_t ino, size_t *used)
{
	char name[32];
	size_t len = name_at(at, name);
	struct fuse_dirent d = { .ino = ino, .off = at + 1, .namelen = (uint32_t)len, .type = (uint32_t)at };

	memset(to + *used, 0, FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + len));
	memcpy(to + *used, &d, FUSE_NAME_OFFSET);
	memcpy(to + *used + FUSE_NAME_OFFSET, name, len);
	*used += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + len);
}

/* Any size of buffer, from any position: whole entries, as many as fit, no byte more. */
START_TEST(listing)
{
	for (uint64_t from = 0; from < 12; from++) {
		for (uint32_t size = 0; size < 700; size += 8) {
			unsigned char want[2048];
			char calls[128];
			size_t used = 0;

			for (uint64_t at = from; at < 12; at++) {
				size_t before = used;

				put_dirent(want, at, 0x1000 + at, &used);
				if (used > size) {
					used = before;
					break;
				}
			}
			send_readdir(FUSE_READDIR, from, size);
			snprintf(calls, sizeof(calls), "readdir 2:d h-d off=%llx room=%u entry=0\n",
				 (unsigned long long)from, size);
			expect_calls(calls);
			expect_body(want, used);
		}
	}
}
END_TEST

static void check_plus(const unsigned char *body, size_t size, uint64_t from, bool given, unsigned *listed)
{
	size_t at_byte = 0;
	uint64_t at = from;

	for (; at_byte < size; at++) {
		const struct fuse_entry_out *e = (const void *)(body + at_byte);
		bool bare = at < 2 || (at == 5 && !given);
		unsigned char want[256];
		size_t used = 0;

		put_dirent(want, at, bare ? 0x1000 + at : 0x0102030405060708, &used);
		ck_assert_uint_le(at_byte + sizeof(*e) + used, size);
		ck_assert_mem_eq(body + at_byte + sizeof(*e), want, used);
		if (bare) {
			memset(want, 0, sizeof(*e));
			ck_assert_mem_eq(e, want, sizeof(*e));
		} else {
			ck_assert_uint_gt(e->nodeid, file);
			ck_assert_uint_eq(e->entry_valid, given ? 4 : 1);
			ck_assert_uint_eq(e->entry_valid_nsec, given ? 5 : 500000002);
			ck_assert_uint_eq(e->attr_valid, given ? 6 : 2);
			ck_assert_uint_eq(e->attr.size, 0x1112131415161718);
			rig_forget(e->nodeid, 1);
		}
		at_byte += sizeof(*e) + used;
		++*listed;
	}
}

/* Each listed name counts as a lookup: exactly these are held afterwards. */
static void check_listing_plus(bool given)
{
	rec.plus = given;
	for (uint32_t size = 0; size < 2400; size += 56) {
		for (uint64_t from = 0; from < 12; from += 3) {
			unsigned char body[4096];
			unsigned listed = 0;
			size_t n;

			send_readdir(FUSE_READDIRPLUS, from, size);
			ck_assert_int_eq(rig.reply.error, 0);
			ck_assert_uint_le(rig.body_size, size);
			n = rig.body_size;
			memcpy(body, rig.body, n);
			check_plus(body, n, from, given, &listed);
			if (size >= 2352)
				ck_assert_uint_eq(listed, 12 - from);
			ck_assert_msg(fr_table_used(rig.host->nodes) == 3, "%u nodes are left of a listing that was forgotten",
				      fr_table_used(rig.host->nodes) - 3);
			recorder_clear();
		}
	}
}

START_TEST(listing_plus)
{
	check_listing_plus(false);
}
END_TEST

START_TEST(listing_plus_given)
{
	check_listing_plus(true);
}
END_TEST

/* An error counts only where nothing was listed. */
START_TEST(listing_error)
{
	rec.err = -EIO;
	send_readdir(FUSE_READDIR, 0, 0);
	expect_error(-EIO);
	send_readdir(FUSE_READDIR, 0, 4096);
	ck_assert_int_eq(rig.reply.error, 0);
	ck_assert_uint_gt(rig.body_size, 100);
	send_readdir(FUSE_READDIR, 12, 4096);
	expect_error(-EIO);
	/* a size beyond the reply's room */
	rec.err = 0;
	send_readdir(FUSE_READDIR, 0, UINT32_MAX);
	ck_assert_int_eq(rig.reply.error, 0);
}
END_TEST

START_TEST(read_sizes)
{
	static const uint32_t sizes[] = { 0, 1, 4095, 4096, 65536, 1 << 20 };
	struct fuse_read_in in = { .fh = fh };
	unsigned char *want = malloc(1 << 20);
	char calls[64];

	for (size_t i = 0; i < 1 << 20; i++)
		want[i] = (unsigned char)(9 + i);
	rec.first = 9;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		in.size = sizes[i];
		rec.data = sizes[i];
		rig_begin(FUSE_READ, file);
		rig_put(&in, sizeof(in));
		rig_send();
		expect_body(want, sizes[i]);
	}
	/* a short read */
	in.size = 100;
	rec.data = 99;
	rig_begin(FUSE_READ, file);
	rig_put(&in, sizeof(in));
	rig_send();
	expect_body(want, 99);
	recorder_clear();
	/* more than fits: what fits */
	in.size = UINT32_MAX;
	rig_begin(FUSE_READ, file);
	rig_put(&in, sizeof(in));
	rig_send();
	expect_body(want, 99);
	snprintf(calls, sizeof(calls), "read 3:f h-f size=%zu off=0\n", MAX_WRITE + rig.host->page);
	expect_calls(calls);
	in.offset = (uint64_t)INT64_MAX + 1;
	recorder_clear();
	rig_begin(FUSE_READ, file);
	rig_put(&in, sizeof(in));
	rig_send();
	expect_error(-EINVAL);
	expect_calls("");
	free(want);
}
END_TEST

START_TEST(write_sizes)
{
	struct fuse_write_in in = { .fh = fh, .size = 1 << 20 };
	struct fuse_write_out want = { .size = 1 << 20 };
	unsigned char *data = calloc(1, 1 << 20);
	unsigned char *at;

	rig_begin(FUSE_WRITE, file);
	rig_put(&in, sizeof(in));
	at = rig_put(data, 1 << 20);
	/* O_DIRECT of the file below needs it */
	ck_assert_uint_eq((uintptr_t)at % rig.host->page, 0);
	ck_assert_uint_eq(((uintptr_t)rig.worker.out + sizeof(struct fuse_out_header)) % rig.host->page, 0);
	rig_send();
	expect_body(&want, sizeof(want));
	expect_calls("write 3:f h-f size=1048576 off=0 io=0 sum=0\n");
	free(data);
	for (uint32_t size = 4; size; size = size == 4 ? UINT32_MAX : size == UINT32_MAX ? UINT32_MAX - 79 : 0) {
		in.size = size;
		rig_begin(FUSE_WRITE, file);
		rig_put(&in, sizeof(in));
		rig_put("123", 3);
		rig_send();
		expect_error(-EINVAL);
		expect_calls("");
	}
	in.size = 3;
	in.offset = (uint64_t)INT64_MAX + 1;
	rig_begin(FUSE_WRITE, file);
	rig_put(&in, sizeof(in));
	rig_put("123", 3);
	rig_send();
	expect_error(-EINVAL);
	/* a short write is what it is */
	in.offset = 0;
	rec.data = 2;
	rig_begin(FUSE_WRITE, file);
	rig_put(&in, sizeof(in));
	rig_put("123", 3);
	rig_send();
	want.size = 2;
	expect_body(&want, sizeof(want));
}
END_TEST

static void send_getxattr(uint32_t size)
{
	rig_begin(FUSE_GETXATTR, file);
	rig_put(&(struct fuse_getxattr_in){ .size = size }, sizeof(struct fuse_getxattr_in));
	rig_str("user.a");
	rig_send();
}

START_TEST(xattrs)
{
	struct fuse_getxattr_out length = { .size = 300 };
	unsigned char value[300];

	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (unsigned char)(3 + i);
	rec.first = 3;
	rec.data = 300;
	send_getxattr(0);
	expect_body(&length, sizeof(length));
	send_getxattr(300);
	expect_body(value, 300);
	send_getxattr(UINT32_MAX);
	expect_body(value, 300);
	send_getxattr(299);
	expect_error(-ERANGE);
	rec.data = 0;
	send_getxattr(10);
	expect_body(value, 0);
	rig_begin(FUSE_GETXATTR, file);
	rig_put(&(struct fuse_getxattr_in){ .size = 9 }, sizeof(struct fuse_getxattr_in));
	rig_str("");
	rig_str("x");
	recorder_clear();
	rig_send();
	expect_error(-EINVAL);
	expect_calls("");
}
END_TEST

static void send_setxattr(bool ext, uint32_t size, const char *name, const char *value)
{
	struct fuse_setxattr_in in = { .size = size, .flags = 1, .setxattr_flags = FUSE_SETXATTR_ACL_KILL_SGID };

	rig_begin(FUSE_SETXATTR, file);
	rig_put(&in, ext ? sizeof(in) : 8);
	if (name)
		rig_str(name);
	if (value)
		rig_put(value, strlen(value));
	rig_send();
}

START_TEST(setxattr_forms)
{
	send_setxattr(false, 3, "user.a", "abc");
	expect_error(0);
	expect_calls("setxattr 3:f \"user.a\" value=\"abc\" flags=1 kill=0\n");
	rig.host->shared->flags = FUSE_SETXATTR_EXT;
	send_setxattr(true, 3, "user.a", "abc");
	expect_error(0);
	expect_calls("setxattr 3:f \"user.a\" value=\"abc\" flags=1 kill=1\n");
	send_setxattr(true, 0, "user.a", NULL);
	expect_error(0);
	expect_calls("setxattr 3:f \"user.a\" value=\"\" flags=1 kill=1\n");
	send_setxattr(true, 4, "user.a", "abc");
	expect_error(-EINVAL);
	send_setxattr(true, UINT32_MAX, "user.a", "abc");
	expect_error(-EINVAL);
	send_setxattr(true, XATTR_SIZE_MAX + 1, "user.a", "abc");
	expect_error(-EINVAL);
	send_setxattr(true, 1, "", "a");
	expect_error(-EINVAL);
	send_setxattr(true, 0, NULL, "unterminated");
	expect_error(-EINVAL);
	/* the short form where the long one was agreed on: too short for its own header */
	send_setxattr(false, 1, "abc", "a");
	expect_error(-EINVAL);
	expect_calls("");
}
END_TEST

START_TEST(symlink_length)
{
	rec.data = (ssize_t)rig.host->page - 1;
	rig_begin(FUSE_READLINK, file);
	rig_send();
	ck_assert_int_eq(rig.reply.error, 0);
	ck_assert_uint_eq(rig.body_size, rig.host->page - 1);
}
END_TEST

static void send_ioctl(uint64_t handle, uint32_t flags, uint32_t in_size, uint32_t out_size)
{
	struct fuse_ioctl_in in = {
		.fh = handle, .flags = flags, .cmd = 5, .in_size = in_size, .out_size = out_size,
	};

	rig_begin(FUSE_IOCTL, flags & FUSE_IOCTL_DIR ? dir : file);
	rig_put(&in, sizeof(in));
	rig_put("12345678", 8);
	rig_send();
}

START_TEST(ioctls)
{
	recorder_clear();
	send_ioctl(fh, 0, 9, 0);
	expect_error(-EINVAL);
	send_ioctl(fh, 0, UINT32_MAX, 0);
	expect_error(-EINVAL);
	send_ioctl(fh, 0, 8, UINT32_MAX);
	expect_error(-EINVAL);
	send_ioctl(fh, FUSE_IOCTL_UNRESTRICTED, 8, 8);
	expect_error(-EINVAL);
	expect_calls("");
	send_ioctl(dirh, FUSE_IOCTL_DIR, 0, 0);
	expect_calls("ioctl 2:d h-d cmd=5 flags=10 arg=0 in=0 sum=0 out=0\n");
	send_ioctl(999, 0, 0, 0);
	expect_calls("ioctl 3:f none cmd=5 flags=0 arg=0 in=0 sum=0 out=0\n");
	ck_assert_uint_eq(rig.body_size, sizeof(struct fuse_ioctl_out));
}
END_TEST

START_TEST(out_of_range)
{
	struct fuse_fallocate_in falloc = { .fh = fh, .offset = INT64_MAX, .length = 1 };
	struct fuse_setattr_in set = { .valid = FATTR_SIZE, .size = (uint64_t)INT64_MAX + 1 };
	struct fuse_copy_file_range_in copy = { .fh_in = fh, .fh_out = fh, .nodeid_out = file };

	rig_begin(FUSE_FALLOCATE, file);
	rig_put(&falloc, sizeof(falloc));
	rig_send();
	expect_error(-EFBIG);
	rig_begin(FUSE_SETATTR, file);
	rig_put(&set, sizeof(set));
	rig_send();
	expect_error(-EINVAL);
	for (int i = 0; i < 2; i++) {
		copy.off_in = i ? 0 : UINT64_MAX;
		copy.off_out = i ? UINT64_MAX : 0;
		rig_begin(FUSE_COPY_FILE_RANGE, file);
		rig_put(&copy, sizeof(copy));
		rig_send();
		expect_error(-EINVAL);
	}
	copy = (struct fuse_copy_file_range_in){ .fh_in = fh, .fh_out = dirh, .nodeid_out = file };
	rig_begin(FUSE_COPY_FILE_RANGE, file);
	rig_put(&copy, sizeof(copy));
	rig_send();
	expect_error(-EBADF);
	copy = (struct fuse_copy_file_range_in){ .fh_in = fh, .fh_out = fh, .nodeid_out = 999 };
	rig_begin(FUSE_COPY_FILE_RANGE, file);
	rig_put(&copy, sizeof(copy));
	rig_send();
	expect_error(-ESTALE);
	for (int i = 0; i < 2; i++) {
		struct fuse_rename_in to = { .newdir = 999 };
		struct fuse_link_in from = { .oldnodeid = 999 };

		rig_begin(i ? FUSE_RENAME : FUSE_LINK, dir);
		rig_put(i ? (void *)&to : (void *)&from, 8);
		rig_str("a");
		rig_str("b");
		rig_send();
		expect_error(-ESTALE);
	}
	expect_calls("");
}
END_TEST

/* GETATTR, STATX and SETATTR without a handle, or with one of another node, work by the node. */
START_TEST(optional_handles)
{
	struct fuse_getattr_in get = { .fh = fh };
	struct fuse_setattr_in set = { .valid = FATTR_FH | FATTR_MTIME_NOW | FATTR_MTIME, .fh = dirh };

	rig_begin(FUSE_GETATTR, file);
	rig_put(&get, sizeof(get));
	rig_send();
	expect_calls("getattr 3:f none\n");
	get.getattr_flags = FUSE_GETATTR_FH;
	rig_begin(FUSE_GETATTR, dir);
	rig_put(&get, sizeof(get));
	rig_send();
	expect_calls("getattr 2:d none\n");
	rig_begin(FUSE_SETATTR, dir);
	rig_put(&set, sizeof(set));
	rig_send();
	expect_calls("setattr 2:d none valid=a0 mode=0 uid=0 gid=0 size=0 atime=0.0 mtime=0.0 ctime=0.0\n");
	/* flock(2) on a directory comes with the handle of one */
	rig_begin(FUSE_SETLK, dir);
	rig_put(&(struct fuse_lk_in){ .fh = dirh, .lk.type = F_UNLCK }, sizeof(struct fuse_lk_in));
	rig_send();
	expect_calls("setlk 2:d h-d 0-0 owner=0 type=2 pid=0 flock=0 wait=0\n");
	/* to unlock is never to wait */
	rig_begin(FUSE_SETLKW, dir);
	rig_put(&(struct fuse_lk_in){ .fh = dirh, .lk.type = F_UNLCK }, sizeof(struct fuse_lk_in));
	rig_send();
	expect_calls("setlk 2:d h-d 0-0 owner=0 type=2 pid=0 flock=0 wait=0\n");
}
END_TEST

static void expect_notice(int code, const void *body, size_t size)
{
	rig_collect();
	ck_assert_uint_eq(rig.reply.unique, 0);
	ck_assert_int_eq(rig.reply.error, code);
	ck_assert_uint_eq(rig.body_size, size);
	ck_assert_mem_eq(rig.body, body, size);
}

START_TEST(notifications)
{
	struct {
		struct fuse_notify_inval_entry_out out;
		char name[4];
	} entry = { { .parent = 7, .namelen = 3 }, "abc" };
	struct {
		struct fuse_notify_delete_out out;
		char name[4];
	} gone = { { .parent = 7, .child = 8, .namelen = 3 }, "abc" };
	struct fuse_notify_inval_inode_out inode = { .ino = 9, .off = -1, .len = 0x1234567890 };
	struct {
		struct fuse_notify_store_out out;
		char data[5];
	} store = { { .nodeid = 10, .offset = 0x1122334455667788, .size = 5 }, "12345" };
	const struct fe_services *s = rec.services;
	char longest[NAME_MAX + 2];

	rig.host->shared->fd = dup(rig.dev);
	ck_assert_int_eq(s->inval_inode(rec.host, 9, -1, 0x1234567890), 0);
	expect_notice(FUSE_NOTIFY_INVAL_INODE, &inode, sizeof(inode));
	ck_assert_int_eq(s->inval_entry(rec.host, 7, "abc", 0), 0);
	expect_notice(FUSE_NOTIFY_INVAL_ENTRY, &entry, sizeof(entry.out) + 4);
	/* to let a name expire is only asked of a kernel that can */
	ck_assert_int_eq(s->inval_entry(rec.host, 7, "abc", 1), 0);
	expect_notice(FUSE_NOTIFY_INVAL_ENTRY, &entry, sizeof(entry.out) + 4);
	rig.host->shared->flags = FUSE_HAS_EXPIRE_ONLY;
	entry.out.flags = FUSE_EXPIRE_ONLY;
	ck_assert_int_eq(s->inval_entry(rec.host, 7, "abc", 1), 0);
	expect_notice(FUSE_NOTIFY_INVAL_ENTRY, &entry, sizeof(entry.out) + 4);
	ck_assert_int_eq(s->notify_delete(rec.host, 7, 8, "abc"), 0);
	expect_notice(FUSE_NOTIFY_DELETE, &gone, sizeof(gone.out) + 4);
	ck_assert_int_eq(s->store(rec.host, 10, 0x1122334455667788, "12345", 5), 0);
	expect_notice(FUSE_NOTIFY_STORE, &store, sizeof(store.out) + 5);
	memset(longest, 'x', sizeof(longest));
	longest[NAME_MAX + 1] = 0;
	ck_assert_int_eq(s->inval_entry(rec.host, 7, longest, 0), -EINVAL);
	ck_assert_int_eq(s->notify_delete(rec.host, 7, 8, longest), -EINVAL);
	ck_assert_int_eq(s->inval_entry(rec.host, 7, "", 0), -EINVAL);
	ck_assert_int_eq(s->store(rec.host, 7, 0, longest, MAX_WRITE + 1), -EINVAL);
	rig_collect();
	ck_assert_uint_eq(rig.reply_size, 0);
}
END_TEST

/* Of files, not of directories, and only of those that were opened. */
START_TEST(opens_told)
{
	uint64_t more;

	ck_assert_uint_eq(rec.opened, 1);
	more = rig_open(file, false);
	ck_assert_uint_eq(rec.opened, 2);
	rig_release(file, more, false);
	rec.err = -EACCES;
	rig_begin(FUSE_OPEN, file);
	rig_put(&(struct fuse_open_in){ 0 }, sizeof(struct fuse_open_in));
	rig_send();
	rec.err = 0;
	ck_assert_uint_eq(rec.opened, 2);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		listing, listing_plus, listing_plus_given, listing_error, read_sizes, write_sizes, xattrs,
		setxattr_forms, symlink_length, ioctls, out_of_range, optional_handles, notifications, opens_told,
		NULL,
	};

	return unit_run("replies", tests, setup, teardown);
}
