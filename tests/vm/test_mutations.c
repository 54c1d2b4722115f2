/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each call that changes something: of what it changes no value from before is answered any more, of
 * everything else it is.
 */
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "tests/vm/rig.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

static struct rig *r;
static char base[32];
static const char *kind;

static const char *in(const char *name)
{
	static char texts[4][96];
	static int turn;
	char *text = texts[turn++ % 4];

	snprintf(text, sizeof(texts[0]), "%s/%s", base, name);
	return rig_path(r, text);
}

static int do_chmod(void) { return chmod(in("d/f"), 0600); }
static int do_chown(void) { return chown(in("d/f"), 5, -1); }
static int do_truncate(void) { return truncate(in("d/f"), 5); }
static int do_utimes(void) { return utimensat(AT_FDCWD, in("d/f"), NULL, 0); }
static int do_mknod(void) { return mknod(in("d/absent"), S_IFREG | 0600, 0); }
static int do_mkdir(void) { return mkdir(in("d/absent"), 0700); }
static int do_symlink(void) { return symlink("x", in("d/absent")); }
static int do_link(void) { return link(in("d/f"), in("e/absent")); }
static int do_unlink(void) { return unlink(in("d/f")); }
static int do_rmdir(void) { return rmdir(in("d/s")); }
static int do_rename(void) { return rename(in("d/f"), in("d/absent")); }
static int do_rename_over(void) { return rename(in("d/f"), in("d/g")); }
static int do_rename_across(void) { return rename(in("d/f"), in("e/absent")); }
static int do_rename_across_over(void) { return rename(in("d/f"), in("e/h")); }
static int do_exchange(void)
{
	return syscall(SYS_renameat2, AT_FDCWD, in("d/f"), AT_FDCWD, in("e/h"), RENAME_EXCHANGE);
}
static int do_setxattr(void) { return setxattr(in("d/f"), "user.x", "1", 1, 0); }
static int do_removexattr(void) { return removexattr(in("d/f"), "user.x"); }

static int closed(int fd)
{
	return fd < 0 ? -1 : close(fd);
}

static int do_create(void) { return closed(open(in("d/absent"), O_CREAT | O_EXCL | O_WRONLY, 0600)); }
static int do_open_truncate(void) { return closed(open(in("d/f"), O_WRONLY | O_TRUNC)); }

static int with_file(int flags, int (*act)(int fd))
{
	int fd = open(in("d/f"), flags), rc;

	if (fd < 0)
		return -1;
	rc = act(fd);
	close(fd);
	return rc;
}

static int act_write(int fd) { return write(fd, "text", 4) == 4 ? 0 : -1; }
static int act_fallocate(int fd) { return fallocate(fd, 0, 0, 9999); }
static int act_ioctl(int fd)
{
	int flags = 0;

	return ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

static int act_map(int fd)
{
	char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return -1;
	map[1] = 1;
	if (msync(map, 4096, MS_SYNC))
		return -1;
	return munmap(map, 4096);
}

static int do_write(void) { return with_file(O_WRONLY, act_write); }
static int do_append(void) { return with_file(O_WRONLY | O_APPEND, act_write); }
static int do_fallocate(void) { return with_file(O_WRONLY, act_fallocate); }
static int do_ioctl(void) { return with_file(O_RDONLY, act_ioctl); }

/* In the background, where it is no longer than the file. */
static int act_submit(int fd)
{
	static char page[4096] __attribute__((aligned(4096)));
	struct iocb one = { .aio_fildes = fd, .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_buf = (uintptr_t)page,
		.aio_nbytes = sizeof(page) }, *all[] = { &one };
	struct io_event event = { 0 };
	aio_context_t context = 0;
	bool good;

	if (syscall(SYS_io_setup, 1, &context))
		return -1;
	good = syscall(SYS_io_submit, context, 1, all) == 1 &&
		syscall(SYS_io_getevents, context, 1, 1, &event, NULL) == 1 && event.res == sizeof(page);
	syscall(SYS_io_destroy, context);
	return good ? 0 : -1;
}

static int do_map(void) { return with_file(O_RDWR, act_map); }
static int do_submit(void) { return with_file(O_WRONLY | O_DIRECT, act_submit); }

static int do_direct_write(void)
{
	static char page[4096] __attribute__((aligned(4096)));
	int fd = open(in("d/f"), O_WRONLY | O_DIRECT), rc;

	rc = write(fd, page, sizeof(page)) == sizeof(page) ? 0 : -1;
	close(fd);
	return rc;
}

static int do_copy(void)
{
	int from = open(in("d/g"), O_RDONLY), to = open(in("d/f"), O_WRONLY);
	ssize_t n = syscall(SYS_copy_file_range, from, NULL, to, NULL, 100, 0);

	close(from);
	close(to);
	return n == 100 ? 0 : -1;
}

static int do_read(void)
{
	int fd = open(in("d/g"), O_RDONLY);
	char text[10];
	int rc = read(fd, text, 10) == 10 ? 0 : -1;

	close(fd);
	return rc;
}

static int do_nothing(void) { return access(in("d/f"), R_OK); }

static const char *const nodes[] = { "d", "e", "d/f", "d/g", "d/s", "e/h" };
static const struct { const char *dir, *name; } names[] = {
	{ "d", "f" }, { "d", "g" }, { "d", "s" }, { "d", "absent" }, { "e", "h" }, { "e", "absent" },
};
#define N_NODES 6
#define N_NAMES 6

static const struct mutation {
	const char *name;
	int (*run)(void);
	const char *nodes;	/* that change */
	const char *names;
} mutations[] = {
	{ "nothing", do_nothing, "", "" },
	{ "read", do_read, "", "" },
	{ "chmod", do_chmod, "d/f", "" },
	{ "chown", do_chown, "d/f", "" },
	{ "truncate", do_truncate, "d/f", "" },
	{ "utimes", do_utimes, "d/f", "" },
	{ "mknod", do_mknod, "d", "d/absent" },
	{ "mkdir", do_mkdir, "d", "d/absent" },
	{ "symlink", do_symlink, "d", "d/absent" },
	{ "create", do_create, "d", "d/absent" },
	{ "link", do_link, "e d/f", "e/absent" },
	{ "unlink", do_unlink, "d d/f", "d/f" },
	{ "rmdir", do_rmdir, "d d/s", "d/s" },
	{ "rename", do_rename, "d d/f", "d/f d/absent" },
	{ "rename-over", do_rename_over, "d d/f d/g", "d/f d/g" },
	{ "rename-across", do_rename_across, "d e d/f", "d/f e/absent" },
	{ "rename-across-over", do_rename_across_over, "d e d/f e/h", "d/f e/h" },
	{ "exchange", do_exchange, "d e d/f e/h", "d/f e/h" },
	{ "setxattr", do_setxattr, "d/f", "" },
	{ "removexattr", do_removexattr, "d/f", "" },
	{ "open-truncate", do_open_truncate, "d/f", "" },
	{ "write", do_write, "d/f", "" },
	{ "append", do_append, "d/f", "" },
	{ "direct-write", do_direct_write, "d/f", "" },
	{ "mapped-write", do_map, "d/f", "" },
	{ "submitted-write", do_submit, "d/f", "" },
	{ "fallocate", do_fallocate, "d/f", "" },
	{ "ioctl", do_ioctl, "d/f", "" },
	{ "copy-file-range", do_copy, "d/f", "" },
};

static bool listed(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *at = list; (at = strstr(at, word)); at += n) {
		if ((at == list || at[-1] == ' ') && (!at[n] || at[n] == ' '))
			return true;
	}
	return false;
}

static void make_tree(int number)
{
	char path[64];

	snprintf(base, sizeof(base), "m%d", number);
	rig_dir(r, base);
	for (int i = 0; i < N_NODES; i++) {
		snprintf(path, sizeof(path), "%s/%s", base, nodes[i]);
		if (nodes[i][1] && nodes[i][2] != 's')
			rig_file(r, path);
		else
			rig_dir(r, path);
	}
	if (truncate(in("d/g"), 1000) || truncate(in("d/f"), 4096) || setxattr(in("d/f"), "user.x", "0", 1, 0))
		fatal("make tree");
}

static void run_one(const struct mutation *m)
{
	char text[600] = "", path[64];
	int handle[N_NODES];
	uint64_t id[N_NODES];
	struct stat st;
	bool good = true;
	unsigned long before;

	for (int i = 0; i < N_NODES; i++) {
		snprintf(path, sizeof(path), "%s/%s", base, nodes[i]);
		handle[i] = rig_handle(r, path);
		id[i] = rig_id(r, path);
		rig_put_attr(r, id[i]);
	}
	for (int i = 0; i < N_NAMES; i++)
		rig_put_name(r, id[names[i].dir[0] == 'd' ? 0 : 1], names[i].name);
	if (m->run()) {
		result(false, m->name, "failed: %s", strerror(errno));
		return;
	}
	for (int i = 0; i < N_NODES; i++) {
		bool touched = listed(m->nodes, nodes[i]), asked;

		before = rig_asked(r, FUSE_GETATTR);
		fstat(handle[i], &st);
		asked = rig_asked(r, FUSE_GETATTR) != before;
		if (asked != touched) {
			good = false;
			snprintf(text + strlen(text), sizeof(text) - strlen(text), " %s: %s;", nodes[i],
				touched ? "stale" : "lost");
		}
	}
	for (int i = 0; i < N_NAMES; i++) {
		bool touched, asked;

		snprintf(path, sizeof(path), "%s/%s", names[i].dir, names[i].name);
		touched = listed(m->names, path);
		before = rig_asked(r, FUSE_LOOKUP);
		fstatat(handle[names[i].dir[0] == 'd' ? 0 : 1], names[i].name, &st, AT_SYMLINK_NOFOLLOW);
		asked = rig_asked(r, FUSE_LOOKUP) != before;
		/* A name whose node changed is not answered either: its attributes come with it. */
		if (asked != (touched || listed(m->nodes, path))) {
			good = false;
			snprintf(text + strlen(text), sizeof(text) - strlen(text), " name %s: %s;", path,
				touched ? "stale" : "lost");
		}
	}
	for (int i = 0; i < N_NODES; i++)
		close(handle[i]);
	snprintf(path, sizeof(path), "mutation%s-%s", kind, m->name);
	result(good, path, "after it:%s", text);
}

/* ---- files that the kernel knows nothing of ---- */

/* Another way than the mount. */
static void moves_behind(const char *from, const char *to)
{
	for (int i = 0; i < r->fs->n_names; i++) {
		if (!strcmp(r->fs->names[i].name, from))
			snprintf(r->fs->names[i].name, sizeof(r->fs->names[i].name), "%s", to);
	}
}

/* CREATE finds a file where no name was, and truncates it. */
static void test_made_meanwhile(void)
{
	unsigned long before, creates = rig_asked(r, FUSE_CREATE);
	struct stat st;
	char label[64];
	int fd, made;

	rig_file(r, "meanwhile");
	if (truncate(rig_path(r, "meanwhile"), 100))
		fatal("truncate");
	fd = rig_handle(r, "meanwhile");
	rig_put_name(r, 1, "absent");
	rig_put_attr(r, rig_id(r, "meanwhile"));
	moves_behind("meanwhile", "absent");
	before = rig_asked(r, FUSE_GETATTR);
	made = open(rig_path(r, "absent"), O_CREAT | O_WRONLY, 0600);
	fstat(fd, &st);
	snprintf(label, sizeof(label), "made-meanwhile%s", kind);
	result(made >= 0 && rig_asked(r, FUSE_CREATE) == creates + 1 && st.st_size == 100 &&
		rig_asked(r, FUSE_GETATTR) == before, label, "size %ld, CREATE %lu times, asked %lu times",
		(long)st.st_size, rig_asked(r, FUSE_CREATE) - creates, rig_asked(r, FUSE_GETATTR) - before);
	close(made);
	moves_behind("absent", "meanwhile");
	rig_put_name(r, 1, "absent");
	moves_behind("meanwhile", "absent");
	made = open(rig_path(r, "absent"), O_CREAT | O_TRUNC | O_WRONLY, 0600);
	fstat(fd, &st);
	snprintf(label, sizeof(label), "made-meanwhile-truncated%s", kind);
	result(made >= 0 && rig_asked(r, FUSE_CREATE) == creates + 2 && st.st_size == 0 &&
		rig_asked(r, FUSE_GETATTR) == before + 1, label, "size %ld, CREATE %lu times, asked %lu times",
		(long)st.st_size, rig_asked(r, FUSE_CREATE) - creates, rig_asked(r, FUSE_GETATTR) - before);
	close(made);
	close(fd);
}

/* A file without a name gets one. */
static void test_nameless(void)
{
	int fd = open(rig_path(r, ""), O_TMPFILE | O_WRONLY, 0600);
	unsigned long before, lookups;
	char path[64], label[64];
	struct stat st, named;

	if (fd < 0 && errno == EOPNOTSUPP) {
		printf("SKIP module/nameless%s: this kernel asks for no such file\n", kind);
		return;
	}
	fstat(fd, &st);
	rig_put_attr(r, st.st_ino);
	rig_put_name(r, 1, "named");
	before = rig_asked(r, FUSE_GETATTR);
	fstat(fd, &st);
	snprintf(label, sizeof(label), "nameless%s", kind);
	result(fd >= 0 && st.st_nlink == 0 && rig_asked(r, FUSE_GETATTR) == before, label,
		"descriptor %d, %lu links, asked %lu times", fd, (unsigned long)st.st_nlink,
		rig_asked(r, FUSE_GETATTR) - before);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, path, AT_FDCWD, rig_path(r, "named"), AT_SYMLINK_FOLLOW))
		fatal("linkat");
	lookups = rig_asked(r, FUSE_LOOKUP);
	fstat(fd, &st);
	snprintf(label, sizeof(label), "nameless-linked%s", kind);
	result(st.st_nlink == 1 && rig_asked(r, FUSE_GETATTR) == before + 1, label, "%lu links, asked %lu times",
		(unsigned long)st.st_nlink, rig_asked(r, FUSE_GETATTR) - before);
	snprintf(label, sizeof(label), "nameless-named%s", kind);
	result(!stat(rig_path(r, "named"), &named) && named.st_ino == st.st_ino &&
		rig_asked(r, FUSE_LOOKUP) == lookups + 1, label, "asked %lu times", rig_asked(r, FUSE_LOOKUP) - lookups);
	close(fd);
}

static void all_mutations(bool early)
{
	kind = early ? "-early" : "";
	r = rig_new("mutations");
	if (early)
		rig_early(r);
	for (size_t i = 0; i < sizeof(mutations) / sizeof(mutations[0]); i++) {
		make_tree(i);
		run_one(&mutations[i]);
	}
	result(!(rig_all(r) & EXTFUSE_WORD_BUSY) && rig_all(r) >> 20 == 1, "mutation-nothing-for-all",
		"the word of everything is %llx", (unsigned long long)rig_all(r));
	test_made_meanwhile();
	test_nameless();
	rig_free(r);
}

void test_mutations(void)
{
	all_mutations(false);
	all_mutations(true);
}
