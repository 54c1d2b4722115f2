/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Other values that the handlers find: of nodes, whole directories, opened files. */
#include <fcntl.h>

#include "tests/unit/cache.h"

static struct extfuse_request r;

static void setup(void)
{
	open_context(0);
	load_maps();
}

/* ---- extended attributes ---- */

static int getxattr(uint64_t nodeid, const char *name, uint32_t size)
{
	struct fuse_getxattr_in in = { .size = size };

	r = request(name ? FUSE_GETXATTR : FUSE_LISTXATTR, nodeid, name);
	memcpy(r.in, &in, sizeof(in));
	r.in_size = sizeof(in);
	r.out_max = size ? size : sizeof(struct fuse_getxattr_out);
	return ask(name ? "extfuse_getxattr" : "extfuse_listxattr", &r);
}

static const char *bytes(size_t size)
{
	static char data[2048];

	for (size_t i = 0; i < size; i++)
		data[i] = (char)(i * 7 + size);
	return data;
}

START_TEST(xattr_sizes)
{
	static const size_t sizes[] = { 0, 1, 7, 8, 9, 87, 88, 89, 96, 1000, 1023, 1024 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		ssize_t size = (ssize_t)sizes[i];
		const struct fuse_getxattr_out *out = (const struct fuse_getxattr_out *)r.out;

		ck_assert_int_eq(
			extfuse_put_xattr(x, extfuse_stamp(x), 10, "user.a", bytes(sizes[i]), size, 0),
			0);
		ck_assert_int_eq(getxattr(10, "user.a", 2000), EXTFUSE_RETURN);
		ck_assert_int_eq(r.error, 0);
		ck_assert_uint_eq(r.out_size, sizes[i]);
		ck_assert_mem_eq(r.out, bytes(sizes[i]), sizes[i]);
		ck_assert_int_eq(getxattr(10, "user.a", 0), EXTFUSE_RETURN);
		ck_assert_uint_eq(r.out_size, sizeof(*out));
		ck_assert_uint_eq(out->size, sizes[i]);
		ck_assert_uint_eq(out->padding, 0);
		if (size) {
			ck_assert_int_eq(getxattr(10, "user.a", (uint32_t)size), EXTFUSE_RETURN);
			ck_assert_uint_eq(r.out_size, sizes[i]);
		}
		if (size > 1) {
			ck_assert_int_eq(getxattr(10, "user.a", (uint32_t)size - 1), EXTFUSE_RETURN);
			ck_assert_int_eq(r.error, -ERANGE);
			ck_assert_uint_eq(r.out_size, 0);
		}
	}
	ck_assert_int_eq(extfuse_put_xattr(x, extfuse_stamp(x), 10, "user.a", bytes(1025), 1025, 0),
			 -E2BIG);
}
END_TEST

START_TEST(xattr_names)
{
	char name[64];

	memset(name, 'x', sizeof(name));
	name[48] = 0;
	ck_assert_int_eq(extfuse_put_xattr(x, extfuse_stamp(x), 11, name, "long", 4, 0), 0);
	ck_assert_int_eq(getxattr(11, name, 10), EXTFUSE_RETURN);
	name[47] = 0;
	ck_assert_int_eq(getxattr(11, name, 10), EXTFUSE_UPCALL);
	name[47] = 'x';
	name[48] = 'x';
	name[49] = 0;
	ck_assert_int_eq(getxattr(11, name, 10), EXTFUSE_UPCALL);
	ck_assert_int_eq(extfuse_put_xattr(x, extfuse_stamp(x), 11, name, "long", 4, 0), -ENAMETOOLONG);
	ck_assert_int_eq(getxattr(12, "xxx", 10), EXTFUSE_UPCALL);
}
END_TEST

START_TEST(xattr_absent)
{
	ck_assert_int_eq(
		extfuse_put_xattr(x, extfuse_stamp(x), 13, "security.capability", NULL, -ENODATA, 0), 0);
	for (uint32_t size = 0; size < 100; size += 50) {
		ck_assert_int_eq(getxattr(13, "security.capability", size), EXTFUSE_RETURN);
		ck_assert_int_eq(r.error, -ENODATA);
		ck_assert_uint_eq(r.out_size, 0);
	}
	/* this one would switch the operation off for the whole mount */
	ck_assert_int_eq(extfuse_put_xattr(x, extfuse_stamp(x), 13, "user.b", NULL, -ENOSYS, 0),
			 -EINVAL);
	ck_assert_int_eq(extfuse_put_xattr(x, extfuse_stamp(x), 13, "user.b", NULL, -512, 0), -EINVAL);
	begin(word(ABOUT_NODE, 13, NULL));
	end(word(ABOUT_NODE, 13, NULL));
	ck_assert_int_eq(getxattr(13, "security.capability", 0), EXTFUSE_UPCALL);
}
END_TEST

START_TEST(xattr_lists)
{
	ck_assert_int_eq(getxattr(14, NULL, 100), EXTFUSE_UPCALL);
	ck_assert_int_eq(extfuse_put_xattr_list(x, extfuse_stamp(x), 14, "user.a\0user.b", 14, 0), 0);
	ck_assert_int_eq(getxattr(14, NULL, 100), EXTFUSE_RETURN);
	ck_assert_uint_eq(r.out_size, 14);
	ck_assert_mem_eq(r.out, "user.a\0user.b", 14);
}
END_TEST

/* ---- links, STATFS, ACCESS ---- */

START_TEST(links)
{
	r = request(FUSE_READLINK, 20, NULL);
	r.out_max = 4095;
	ck_assert_int_eq(ask("extfuse_readlink", &r), EXTFUSE_UPCALL);
	for (size_t size = 1; size <= 1024; size = size * 2 + 1) {
		ck_assert_int_eq(extfuse_put_link(x, extfuse_stamp(x), 20, bytes(size), size, 0), 0);
		r = request(FUSE_READLINK, 20, NULL);
		r.out_max = 4095;
		ck_assert_int_eq(ask("extfuse_readlink", &r), EXTFUSE_RETURN);
		ck_assert_uint_eq(r.out_size, size);
		ck_assert_mem_eq(r.out, bytes(size), size);
		r.out_max = (uint32_t)size - 1;
		ck_assert_int_eq(ask("extfuse_readlink", &r), EXTFUSE_UPCALL);
	}
	ck_assert_int_eq(extfuse_put_link(x, extfuse_stamp(x), 20, bytes(1025), SIZE_MAX, 0), -E2BIG);
	ck_assert_int_eq(extfuse_put_link(x, extfuse_stamp(x), 20, "", 0, 0), -EINVAL);
}
END_TEST

START_TEST(statfs)
{
	const struct fuse_statfs_out out = {
		.st = { .blocks = 1000, .bfree = 10, .bsize = 4096, .namelen = 255 }
	};

	ck_assert_int_eq(extfuse_put_statfs(x, extfuse_stamp(x), ROOT, &out, 500), 0);
	r = request(FUSE_STATFS, ROOT, NULL);
	ck_assert_int_eq(ask("extfuse_statfs", &r), EXTFUSE_RETURN);
	ck_assert_uint_eq(r.out_size, sizeof(out));
	ck_assert_mem_eq(r.out, &out, sizeof(out));
	r.now += 500000000;
	ck_assert_int_eq(ask("extfuse_statfs", &r), EXTFUSE_UPCALL);
}
END_TEST

static int access_as(uint32_t uid, uint32_t gid, uint32_t mask)
{
	struct fuse_access_in in = { .mask = mask };

	r = request(FUSE_ACCESS, 30, NULL);
	memcpy(r.in, &in, sizeof(in));
	r.uid = uid;
	r.gid = gid;
	r.out_max = 0;
	return ask("extfuse_access", &r) == EXTFUSE_RETURN ? r.error : 1;
}

START_TEST(access_by_user)
{
	ck_assert_int_eq(access_as(5, 6, R_OK), 1);
	ck_assert_int_eq(extfuse_put_access(x, extfuse_stamp(x), 30, 5, 6, R_OK | X_OK), 0);
	ck_assert_int_eq(access_as(5, 6, R_OK), 0);
	ck_assert_int_eq(access_as(5, 6, F_OK), 0);
	ck_assert_int_eq(access_as(5, 6, R_OK | X_OK), 0);
	ck_assert_int_eq(access_as(5, 6, R_OK | W_OK), -EACCES);
	ck_assert_int_eq(access_as(5, 7, R_OK), 1);
	ck_assert_int_eq(access_as(6, 5, R_OK), 1);
	ck_assert_int_eq(
		extfuse_put_access(x, extfuse_stamp(x), 30, EXTFUSE_ANYONE, EXTFUSE_ANYONE, W_OK), 0);
	ck_assert_int_eq(access_as(6, 5, W_OK), 0);
	ck_assert_int_eq(access_as(6, 5, R_OK), -EACCES);
	/* what is said of somebody comes before what is said of all */
	ck_assert_int_eq(access_as(5, 6, R_OK), 0);
	ck_assert_int_eq(extfuse_put_access(x, extfuse_stamp(x), 30, 5, 6, 8), -EINVAL);
}
END_TEST

/* ---- OPEN and what follows ---- */

static int open_with(uint32_t flags, uint32_t open_flags)
{
	struct fuse_open_in in = { .flags = flags, .open_flags = open_flags };

	r = request(FUSE_OPEN, 40, NULL);
	memcpy(r.in, &in, sizeof(in));
	r.out_max = sizeof(struct fuse_open_out);
	return ask("extfuse_open", &r);
}

START_TEST(opens)
{
	struct fuse_open_out out = { .fh = 77, .open_flags = FOPEN_KEEP_CACHE };

	ck_assert_int_eq(open_with(O_RDONLY, 0), EXTFUSE_UPCALL);
	ck_assert_int_eq(extfuse_put_open(x, extfuse_stamp(x), 40, &out, O_NONBLOCK, 0), 0);
	ck_assert_int_eq(open_with(O_RDONLY, 0), EXTFUSE_RETURN);
	ck_assert_uint_eq(r.out_size, sizeof(out));
	ck_assert_mem_eq(r.out, &out, sizeof(out));
	ck_assert_int_eq(open_with(O_RDONLY | O_NONBLOCK, 0), EXTFUSE_RETURN);
	/* as the kernel has it from a process of 64 bits */
#ifdef __x86_64__
	ck_assert_int_eq(open_with(O_RDONLY | 0100000, 0), EXTFUSE_RETURN);
#endif
	ck_assert_int_eq(open_with(O_WRONLY, 0), EXTFUSE_UPCALL);
	ck_assert_int_eq(open_with(O_RDONLY | O_TRUNC, 0), EXTFUSE_UPCALL);
	ck_assert_int_eq(open_with(O_RDONLY, FUSE_OPEN_KILL_SUIDGID), EXTFUSE_UPCALL);
	begin(word(ABOUT_NODE, 40, NULL));
	end(word(ABOUT_NODE, 40, NULL));
	ck_assert_int_eq(open_with(O_RDONLY, 0), EXTFUSE_UPCALL);
}
END_TEST

START_TEST(opens_that_pass_through)
{
	struct fuse_open_out out = { .fh = 78, .open_flags = FOPEN_PASSTHROUGH };
	int32_t id = 12;

	memcpy((char *)&out + FE_OPEN_OUT_BACKING_ID, &id, sizeof(id));
	ck_assert_int_eq(extfuse_put_open(x, extfuse_stamp(x), 40, &out, O_RDWR, 0), -EINVAL);
	ck_assert_int_eq(extfuse_put_open(x, extfuse_stamp(x), 40, &out, O_TRUNC, 0), -EINVAL);
	ck_assert_int_eq(extfuse_put_open(x, extfuse_stamp(x), 40, &out, 0, 0), 0);
	ck_assert_int_eq(open_with(O_RDONLY, 0), EXTFUSE_RETURN);
	ck_assert_mem_eq(r.out, &out, sizeof(out));
	/* while somebody writes it so, who opens it is the daemon's to know */
	ck_assert_int_eq(extfuse_hold(x, 40), 0);
	ck_assert_int_eq(open_with(O_RDONLY, 0), EXTFUSE_UPCALL);
}
END_TEST

static int closing(uint32_t opcode, uint64_t fh, uint32_t release_flags)
{
	struct fuse_release_in release = { .fh = fh, .release_flags = release_flags };
	struct fuse_flush_in flush = { .fh = fh };

	r = request(opcode, 40, NULL);
	memcpy(r.in, opcode == FUSE_FLUSH ? (void *)&flush : (void *)&release, sizeof(flush));
	r.out_max = 0;
	return ask(opcode == FUSE_FLUSH ? "extfuse_flush" : "extfuse_release", &r);
}

START_TEST(closes)
{
	struct fuse_open_out out = { .fh = 79 };

	ck_assert_int_eq(extfuse_put_open(x, extfuse_stamp(x), 40, &out, 0, 0), 0);
	ck_assert_int_eq(closing(FUSE_RELEASE, 79, 0), EXTFUSE_UPCALL);
	ck_assert_int_eq(closing(FUSE_FLUSH, 79, 0), EXTFUSE_UPCALL);
	ck_assert_int_eq(extfuse_put_open(x, extfuse_stamp(x), 40, &out, 0,
					  EXTFUSE_NO_RELEASE | EXTFUSE_NO_FLUSH),
			 0);
	ck_assert_int_eq(closing(FUSE_RELEASE, 79, 0), EXTFUSE_RETURN);
	ck_assert_int_eq(r.error, 0);
	ck_assert_int_eq(closing(FUSE_FLUSH, 79, 0), EXTFUSE_RETURN);
	ck_assert_int_eq(closing(FUSE_RELEASE, 80, 0), EXTFUSE_UPCALL);
	ck_assert_int_eq(closing(FUSE_FLUSH, 80, 0), EXTFUSE_UPCALL);
	ck_assert_int_eq(closing(FUSE_RELEASE, 79, FUSE_RELEASE_FLOCK_UNLOCK), EXTFUSE_UPCALL);
}
END_TEST

/* ---- complete directories ---- */

static struct extfuse_names names;

static int lookup_numbered(uint64_t parent, const char *what, unsigned i)
{
	char name[300];

	snprintf(name, sizeof(name), "%s%u", what, i);
	return lookup(parent, name, &r);
}

static void add_numbered(const char *what, unsigned n)
{
	char name[300];

	extfuse_names_clear(&names);
	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s%u", what, i);
		ck_assert_int_eq(extfuse_names_add(&names, name), 0);
	}
}

START_TEST(empty_directories)
{
	extfuse_names_clear(&names);
	ck_assert_int_eq(lookup(200, "x", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(extfuse_put_dir(x, extfuse_stamp(x), 200, &names), 0);
	for (unsigned i = 0; i < 1000; i++) {
		ck_assert_int_eq(lookup_numbered(200, "x", i), EXTFUSE_RETURN);
		ck_assert_int_eq(r.error, -ENOENT);
		ck_assert_uint_eq(r.out_size, 0);
	}
	ck_assert_int_eq(lookup(201, "x", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(lookup(200, ".", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(lookup(200, "..", &r), EXTFUSE_UPCALL);
	r = request(FUSE_LOOKUP, 200, "x");
	r.now += 3000000000;
	ck_assert_int_eq(run("extfuse_lookup", &r), EXTFUSE_UPCALL);
}
END_TEST

/* Of n names none is ever absent, and of others at most `most` in 1000 are taken for one of them. */
static void check_directory(unsigned n, unsigned most)
{
	char long_name[256];
	unsigned taken = 0;

	add_numbered("file-number-", n);
	memset(long_name, 'l', 255);
	long_name[255] = 0;
	ck_assert_int_eq(extfuse_names_add(&names, long_name), 0);
	ck_assert_int_eq(extfuse_put_dir(x, extfuse_stamp(x), 300, &names), 0);
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(lookup_numbered(300, "file-number-", i), EXTFUSE_UPCALL);
	ck_assert_int_eq(lookup(300, long_name, &r), EXTFUSE_UPCALL);
	for (unsigned i = 0; i < 10000; i++)
		taken += lookup_numbered(300, "other-", i) == EXTFUSE_UPCALL;
	ck_assert_msg(taken <= most * 10,
		      "with %u names, %u of 10000 others were not known to be absent", n, taken);
}

START_TEST(directories_of_all_sizes)
{
	check_directory(1, 1);
	check_directory(10, 1);
	check_directory(99, 40);
	check_directory(100, 1);
	check_directory(3200, 40);
	check_directory(5999, 200);
	add_numbered("n", 6001);
	ck_assert_int_eq(extfuse_put_dir(x, extfuse_stamp(x), 300, &names), -E2BIG);
}
END_TEST

START_TEST(names_come_before_absence)
{
	ck_assert_int_eq(put_entry(extfuse_stamp(x), 400, "here", 41, 0), 0);
	extfuse_names_clear(&names);
	extfuse_names_add(&names, "here");
	ck_assert_int_eq(extfuse_put_dir(x, extfuse_stamp(x), 400, &names), 0);
	ck_assert_int_eq(lookup(400, "here", &r), EXTFUSE_RETURN);
	ck_assert_uint_eq(r.out_size, sizeof(struct fuse_entry_out));
	ck_assert_int_eq(lookup(400, "there", &r), EXTFUSE_RETURN);
	ck_assert_int_eq(r.error, -ENOENT);
}
END_TEST

START_TEST(names_that_come)
{
	struct extfuse_word *w = word(ABOUT_DIR, 500, NULL);
	uint64_t stamp = extfuse_stamp(x);

	add_numbered("old", 50);
	ck_assert_int_eq(extfuse_put_dir(x, stamp, 500, &names), 0);
	/* added, and told */
	begin(w);
	stamp = extfuse_stamp(x);
	ck_assert_int_eq(lookup(500, "other", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(extfuse_put_dir_name(x, stamp, 500, "new"), 0);
	end(w);
	ck_assert_int_eq(lookup(500, "other", &r), EXTFUSE_RETURN);
	ck_assert_int_eq(lookup(500, "new", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(lookup(500, "old49", &r), EXTFUSE_UPCALL);
	/* added, and not told: nothing is known, and telling of the next one does not help */
	begin(w);
	end(w);
	ck_assert_int_eq(lookup(500, "other", &r), EXTFUSE_UPCALL);
	begin(w);
	ck_assert_int_eq(extfuse_put_dir_name(x, extfuse_stamp(x), 500, "newer"), -ESTALE);
	end(w);
	ck_assert_int_eq(lookup(500, "other", &r), EXTFUSE_UPCALL);
	/* read, while one was added */
	stamp = extfuse_stamp(x);
	begin(w);
	end(w);
	ck_assert_int_eq(extfuse_put_dir(x, stamp, 500, &names), -ESTALE);
	/* told without a request that adds */
	ck_assert_int_eq(extfuse_put_dir(x, extfuse_stamp(x), 500, &names), 0);
	ck_assert_int_eq(extfuse_put_dir_name(x, extfuse_stamp(x), 500, "newest"), -ESTALE);
	ck_assert_int_eq(extfuse_put_dir_name(x, extfuse_stamp(x), 501, "newest"), -ENOENT);
}
END_TEST

START_TEST(names_that_come_until_it_is_full)
{
	char name[32];

	for (unsigned large = 0; large < 2; large++) {
		unsigned before = large ? 5990 : 90, most = large ? 6000 : 100;
		uint64_t dir = 600 + large;
		struct extfuse_word *w = word(ABOUT_DIR, dir, NULL);

		add_numbered("old", before);
		ck_assert_int_eq(extfuse_put_dir(x, extfuse_stamp(x), dir, &names), 0);
		for (unsigned i = before; i <= most; i++) {
			snprintf(name, sizeof(name), "new%u", i);
			begin(w);
			ck_assert_int_eq(extfuse_put_dir_name(x, extfuse_stamp(x), dir, name),
					 i < most ? 0 : -E2BIG);
			end(w);
		}
		ck_assert_int_eq(lookup(dir, "other", &r), EXTFUSE_UPCALL);
	}
}
END_TEST

/* It is as old as the first name: 3 seconds is the most. */
START_TEST(directories_read_slowly)
{
	add_numbered("old", 3);
	names.since -= 2000;
	ck_assert_int_eq(extfuse_put_dir(x, extfuse_stamp(x), 800, &names), 0);
	ck_assert_int_eq(lookup(800, "other", &r), EXTFUSE_RETURN);
	ck_assert_uint_le(r.expires, expiry(1000));
	names.since -= 1000;
	ck_assert_int_eq(extfuse_put_dir(x, extfuse_stamp(x), 800, &names), -ESTALE);
}
END_TEST

START_TEST(told_changes_of_directories)
{
	extfuse_names_clear(&names);
	ck_assert_int_eq(extfuse_put_dir(x, extfuse_stamp(x), 700, &names), 0);
	ck_assert_int_eq(extfuse_invalidate_entry(x, 700, "came"), 0);
	ck_assert_int_eq(lookup(700, "came", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(extfuse_put_dir(x, extfuse_stamp(x), 700, &names), 0);
	ck_assert_int_eq(put_entry(extfuse_stamp(x), 700, "went", 71, 0), 0);
	ck_assert_int_eq(lookup(700, "went", &r), EXTFUSE_RETURN);
	ck_assert_int_eq(extfuse_invalidate_dir(x, 700), 0);
	ck_assert_int_eq(lookup(700, "went", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(lookup(700, "came", &r), EXTFUSE_UPCALL);
}
END_TEST

/* ---- handlers of others ---- */

/* examples/extfuse/nocaps.bpf.c, as it is loaded for the module, and as it can be run. */
START_TEST(custom_handlers)
{
	struct bpf_object *ours = runnable;
	struct bpf_object *real = bpf_object__open_file("examples/extfuse/nocaps.bpf.o", NULL);

	ck_assert(real && !bpf_object__load(real));
	bpf_object__close(real);
	runnable = bpf_object__open_file("examples/extfuse/nocaps_run.bpf.o", NULL);
	ck_assert(runnable && !bpf_object__load(runnable));
	r = request(FUSE_GETXATTR, 5, "security.capability");
	ck_assert_int_eq(ask("no_capabilities", &r), EXTFUSE_RETURN);
	ck_assert_int_eq(r.error, -ENODATA);
	ck_assert_uint_eq(r.ndeps, 0);
	for (const char *const *name =
		     (const char *const[]){ "security.capabilit", "security.capability2", "s",
					    "security.capability-and-more", NULL };
	     *name; name++) {
		r = request(FUSE_GETXATTR, 5, *name);
		ck_assert_int_eq(ask("no_capabilities", &r), EXTFUSE_UPCALL);
	}
	bpf_object__close(runnable);
	runnable = ours;
}
END_TEST

START_TEST(maps_of_others)
{
	struct sizes sizes = x->sizes;
	int fd = x->maps[MAP_ATTR];

	ck_assert_int_eq(maps_check(x), 0);
	x->sizes.elements[MAP_DIR]++;
	ck_assert_int_eq(maps_check(x), -EINVAL);
	x->sizes = sizes;
	x->maps[MAP_ATTR] = x->maps[MAP_OPEN];
	ck_assert_int_eq(maps_check(x), -EINVAL);
	x->maps[MAP_ATTR] = x->programs[0];
	ck_assert_int_eq(maps_check(x), -EINVAL);
	x->maps[MAP_ATTR] = fd;
	fd = x->programs[0];
	x->programs[0] = x->programs[1];
	ck_assert_int_eq(maps_check(x), -EINVAL);
	x->programs[0] = x->maps[MAP_ATTR];
	ck_assert_int_eq(maps_check(x), -EINVAL);
	x->programs[0] = fd;
	ck_assert_int_eq(maps_check(x), 0);
	ck_assert_int_eq(extfuse_map_fd(x, "dir_map"), x->maps[MAP_DIR]);
	ck_assert_int_eq(extfuse_map_fd(x, "no_map"), -ENOENT);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { xattr_sizes,
				       xattr_names,
				       xattr_absent,
				       xattr_lists,
				       links,
				       statfs,
				       access_by_user,
				       opens,
				       opens_that_pass_through,
				       closes,
				       empty_directories,
				       directories_of_all_sizes,
				       names_come_before_absence,
				       names_that_come,
				       names_that_come_until_it_is_full,
				       directories_read_slowly,
				       told_changes_of_directories,
				       custom_handlers,
				       maps_of_others,
				       NULL };

	need_bpf();
	return unit_run("values", tests, setup, close_context);
}
