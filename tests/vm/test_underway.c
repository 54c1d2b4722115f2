/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* While a change is with the server nothing about it is answered, and a value from before it never again. */
#include <linux/aio_abi.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include <bpf/bpf.h>

#include "tests/vm/rig.h"

static struct rig *r;
static const char *kind;
static atomic_int submitted;

static const char *text(const char *below)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", r->m->path, below);
	return path;
}

static int write_way(int flags, int (*act)(int fd))
{
	int fd = open(text("way"), O_WRONLY | flags), rc;

	if (fd < 0)
		return -1;
	rc = act(fd);
	close(fd);
	return rc;
}

/* It returns at once; the file is as long already, or it would wait for the server. */
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
	good = syscall(SYS_io_submit, context, 1, all) == 1;
	submitted = 1;
	good = good && syscall(SYS_io_getevents, context, 1, 1, &event, NULL) == 1 && event.res == sizeof(page);
	syscall(SYS_io_destroy, context);
	return good ? 0 : -1;
}

static int act_write(int fd) { return pwrite(fd, "text", 4, 0) == 4 ? 0 : -1; }

static int do_chmod(void) { return chmod(text("way"), 0611); }
static int do_write(void) { return write_way(0, act_write); }
static int do_submit(void) { return write_way(O_DIRECT, act_submit); }
static int do_setxattr(void) { return setxattr(text("way"), "user.x", "new", 3, 0); }
static int do_unlink(void) { return unlink(text("way")); }
static int do_rename(void)
{
	char from[512];

	snprintf(from, sizeof(from), "%s", text("way"));
	return rename(from, text("gone"));
}

static const struct way {
	const char *name;
	uint32_t opcode;
	int (*run)(void);
	bool names;	/* the name goes */
} ways[] = {
	{ "chmod", FUSE_SETATTR, do_chmod, false },
	{ "write", FUSE_WRITE, do_write, false },
	{ "submitted", FUSE_WRITE, do_submit, false },
	{ "setxattr", FUSE_SETXATTR, do_setxattr, false },
	{ "rename", FUSE_RENAME, do_rename, true },
	{ "unlink", FUSE_UNLINK, do_unlink, true },
};

static void *run(void *arg)
{
	return (void *)(long)((const struct way *)arg)->run();
}

static void tell(const struct way *w, const char *what, bool good, const char *wrong)
{
	char label[64];

	snprintf(label, sizeof(label), "under-way%s-%s%s%s", kind, w->name, *what ? "-" : "", what);
	result(good, label, "%s", wrong);
}

/* How often the server is asked for what is known of the file. */
static unsigned long asked_attr(int fd)
{
	unsigned long before = rig_asked(r, FUSE_GETATTR);
	struct stat st;

	fstat(fd, &st);
	return rig_asked(r, FUSE_GETATTR) - before;
}

static unsigned long asked_xattr(int fd)
{
	unsigned long before = rig_asked(r, FUSE_GETXATTR);
	char path[64], value[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	getxattr(path, "user.x", value, sizeof(value));
	return rig_asked(r, FUSE_GETXATTR) - before;
}

static unsigned long asked_name(void)
{
	unsigned long before = rig_asked(r, FUSE_LOOKUP);
	struct stat st;

	stat(text("way"), &st);
	return rig_asked(r, FUSE_LOOKUP) - before;
}

static void put_all(uint64_t id)
{
	rig_put_attr(r, id);
	rig_put_xattr(r, id, "user.x", "0", 1);
}

static void wait_until_held(const struct way *w)
{
	while (!r->fs->held)
		usleep(1000);
	for (int i = 0; i < 10000 && w->run == do_submit && !submitted; i++)
		usleep(1000);
}

static void while_under_way(const struct way *w, int fd, uint64_t id)
{
	tell(w, "seen", rig_node_state(r, id) & EXTFUSE_WORD_BUSY, "the word is idle");
	tell(w, "", asked_attr(fd) == 1 && asked_xattr(fd) == 1, "attributes are answered");
	if (w->names)
		tell(w, "name", asked_name() == 1, "the name is answered");
	if (w->run == do_submit)
		tell(w, "in-background", submitted, "io_submit() waits for the server");
}

/* What is known of the name now, whatever becomes of its node. */
static struct name_value name_value(uint64_t id)
{
	struct name_value value = { .stamp = rig_stamp(r), .node_stamp = UINT64_MAX };
	struct node *n = fs_node(r->fs, id);
	struct fuse_entry_out entry;

	fs_entry(n, &entry);
	memcpy(value.entry, &entry, sizeof(entry));
	value.node_index = n - r->fs->nodes;
	return value;
}

static void put_name_value(const struct name_value *value)
{
	struct name_key key = { .parent = 1 };

	memcpy(key.name, "way", 3);
	if (bpf_map_update_elem(r->names, &key, value, BPF_ANY))
		fatal("put name");
	rig_name_word(r, 1, "way")->marked = 1;
}

static void name_after(const struct way *w, const struct name_value *late)
{
	struct stat st;

	put_name_value(late);
	tell(w, "name-put-late", asked_name() == 1, "a name from before is answered");
	rig_put_name(r, 1, "way");
	tell(w, "name-put", asked_name() == 0, "what is put is not answered");
	tell(w, "name-gone", stat(text("way"), &st) && errno == ENOENT, "the name is there still");
}

static void one_way(const struct way *w)
{
	struct name_value late_name;
	struct attr_value late;
	pthread_t thread;
	uint64_t id;
	void *rc;
	int fd;

	unlink(text("way"));
	unlink(text("gone"));
	rig_file(r, "way");
	if (truncate(text("way"), 4096) || setxattr(text("way"), "user.x", "0", 1, 0))
		fatal("make file");
	fd = rig_handle(r, "way");
	id = rig_id(r, "way");
	put_all(id);
	rig_put_name(r, 1, "way");
	late = rig_attr_value(r, id);
	late_name = name_value(id);
	tell(w, "before", !asked_attr(fd) && !asked_xattr(fd) && !asked_name(), "something is asked for");
	submitted = 0;
	r->fs->hold = w->opcode;
	pthread_create(&thread, NULL, run, (void *)w);
	wait_until_held(w);
	while_under_way(w, fd, id);
	put_all(id);
	if (w->names)
		rig_put_name(r, 1, "way");
	r->fs->hold = 0;
	pthread_join(thread, &rc);
	tell(w, "done", !rc, "it failed");
	tell(w, "put", asked_attr(fd) == 1 && asked_xattr(fd) == 1, "a value put meanwhile is answered");
	if (w->names)
		tell(w, "name-put-meanwhile", asked_name() == 1, "a name put meanwhile is answered");
	rig_put_attr_value(r, id, &late);
	tell(w, "put-late", asked_attr(fd) == 1, "a value from before is answered");
	tell(w, "idle-again", !(rig_node_state(r, id) & EXTFUSE_WORD_BUSY), "the word stays busy");
	put_all(id);
	tell(w, "known-again", !asked_attr(fd) && !asked_xattr(fd), "what is put is not answered");
	if (w->names)
		name_after(w, &late_name);
	close(fd);
}

static void all_ways(bool early)
{
	kind = early ? "-early" : "";
	r = rig_new("underway");
	if (early)
		rig_early(r);
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		one_way(&ways[i]);
	result(rig_stats(r, FUSE_GETATTR).stale > 0, early ? "stale-counted-early" : "stale-counted", "none");
	rig_free(r);
}

void test_underway(void)
{
	all_ways(false);
	all_ways(true);
}
