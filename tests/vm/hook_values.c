/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hook_values DIRECTORY HANDLERS: the rest of what the engine hook answers, on a mount without
 * default_permissions, at DIRECTORY/mnt; and handlers of somebody else, from the folder HANDLERS.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "bpf/extfuse_ioctl.h"
#include "tests/mount/cachefs.h"

static char target[64] = "first/target";
static uint32_t allowed = R_OK | X_OK;
static uint64_t blocks = 1000;
static char names[64] = "user.note\0user.other";
static size_t names_size = sizeof("user.note\0user.other");

/* ---- the server ---- */

static void serve_readlink(const struct fuse_in_header *h)
{
	extfuse_put_link(x, extfuse_stamp(x), h->nodeid, target, strlen(target), 0);
	reply(h->unique, 0, target, strlen(target));
}

static void serve_access(const struct fuse_in_header *h, uint32_t mask)
{
	extfuse_put_access(x, extfuse_stamp(x), h->nodeid, h->uid, h->gid, allowed);
	reply(h->unique, mask & ~allowed ? -EACCES : 0, NULL, 0);
}

static void serve_statfs(const struct fuse_in_header *h)
{
	struct fuse_statfs_out out = { .st = { .blocks = blocks, .bsize = 4096, .namelen = 255 } };

	extfuse_put_statfs(x, extfuse_stamp(x), h->nodeid, &out, HOUR);
	reply(h->unique, 0, &out, sizeof(out));
}

static void serve_list(const struct fuse_in_header *h, const struct fuse_getxattr_in *in)
{
	struct fuse_getxattr_out out = { .size = (uint32_t)names_size };

	extfuse_put_xattr_list(x, extfuse_stamp(x), h->nodeid, names, (ssize_t)names_size, 0);
	if (in->size)
		reply(h->unique, 0, names, names_size);
	else
		reply(h->unique, 0, &out, sizeof(out));
}

static void serve_open(const struct fuse_in_header *h)
{
	struct fuse_open_out out = { .open_flags = FOPEN_KEEP_CACHE };

	if (h->nodeid != by_name("s")->nodeid)
		extfuse_put_open(x, extfuse_stamp(x), h->nodeid, &out, O_RDONLY, EXTFUSE_NO_RELEASE | EXTFUSE_NO_FLUSH);
	reply(h->unique, 0, &out, sizeof(out));
}

static bool serve(const struct fuse_in_header *h, const char *rest)
{
	switch (h->opcode) {
	case FUSE_READLINK:
		serve_readlink(h);
		return true;
	case FUSE_ACCESS:
		serve_access(h, ((const struct fuse_access_in *)rest)->mask);
		return true;
	case FUSE_STATFS:
		serve_statfs(h);
		return true;
	case FUSE_LISTXATTR:
		serve_list(h, (const struct fuse_getxattr_in *)rest);
		return true;
	case FUSE_OPEN:
		serve_open(h);
		return true;
	case FUSE_FLUSH:
		reply(h->unique, 0, NULL, 0);
		return true;
	}
	return false;
}

/* ---- what an application sees ---- */

static void links(void)
{
	char got[64] = "";
	unsigned before;
	ssize_t n = readlink("l", got, sizeof(got));

	before = so_far(FUSE_READLINK);
	for (int i = 0; i < 20; i++)
		n = readlink("l", got, sizeof(got));
	expect(n == 12 && !memcmp(got, "first/target", 12) && so_far(FUSE_READLINK) == before, "readlink",
	       "%zd bytes, asked %u times", n, so_far(FUSE_READLINK) - before);
	pthread_mutex_lock(&lock);
	strcpy(target, "second");
	pthread_mutex_unlock(&lock);
	extfuse_invalidate_node(x, by_name("l")->nodeid, 0);
	n = readlink("l", got, sizeof(got));
	expect(n == 6 && !memcmp(got, "second", 6) && so_far(FUSE_READLINK) == before + 1, "readlink-invalidated",
	       "%zd bytes, asked %u times", n, so_far(FUSE_READLINK) - before);
}

static void space(void)
{
	struct statfs st;
	unsigned before;
	int err = statfs(".", &st);

	before = so_far(FUSE_STATFS);
	for (int i = 0; i < 20; i++)
		err |= statfs(".", &st);
	expect(!err && st.f_blocks == 1000 && so_far(FUSE_STATFS) == before, "statfs", "%ld blocks, asked %u times",
	       (long)st.f_blocks, so_far(FUSE_STATFS) - before);
	pthread_mutex_lock(&lock);
	blocks = 2000;
	pthread_mutex_unlock(&lock);
	extfuse_invalidate_node(x, 1, 0);
	err = statfs(".", &st);
	expect(!err && st.f_blocks == 2000, "statfs-invalidated", "%ld blocks", (long)st.f_blocks);
}

/* The errno of access(2) for another user; the number of questions is in *asked. */
static int access_as(uid_t uid, int mask, unsigned *asked)
{
	unsigned before = so_far(FUSE_ACCESS);
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		if (setgid(uid) || setuid(uid))
			_exit(255);
		_exit(access("o", mask) ? errno : 0);
	}
	waitpid(pid, &status, 0);
	*asked = so_far(FUSE_ACCESS) - before;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void permissions(void)
{
	unsigned asked;
	int err;

	access_as(1000, R_OK, &asked);
	err = access_as(1000, R_OK, &asked);
	expect(!err && !asked, "access", "errno %d, asked %u times", err, asked);
	err = access_as(1000, W_OK, &asked);
	expect(err == EACCES && !asked, "access-denied", "errno %d, asked %u times", err, asked);
	err = access_as(1001, R_OK, &asked);
	expect(!err && asked, "access-of-another", "errno %d, asked %u times", err, asked);
	pthread_mutex_lock(&lock);
	allowed = W_OK;
	pthread_mutex_unlock(&lock);
	extfuse_invalidate_node(x, by_name("o")->nodeid, 0);
	err = access_as(1000, R_OK, &asked);
	expect(err == EACCES && asked, "access-invalidated", "errno %d, asked %u times", err, asked);
}

static unsigned opens(void)
{
	return so_far(FUSE_OPEN) + so_far(FUSE_FLUSH) + so_far(FUSE_RELEASE);
}

/* RELEASE has no answer that somebody waits for. */
static unsigned asked_to_close(int fd)
{
	unsigned before = opens();

	close(fd);
	usleep(50000);
	return opens() - before;
}

static unsigned open_and_close(int flags)
{
	unsigned before = opens();
	int fd = open("o", flags);

	return fd < 0 ? 99 : opens() - before + asked_to_close(fd);
}

static void handles(void)
{
	unsigned n;

	open_and_close(O_RDONLY);
	n = open_and_close(O_RDONLY);
	expect(!n, "open", "open and close asked %u times", n);
	n = open_and_close(O_RDWR);
	expect(n == 1, "open-for-writing", "open and close asked %u times", n);
	extfuse_invalidate_node(x, by_name("o")->nodeid, 0);
	n = open_and_close(O_RDONLY);
	expect(n >= 1 && n < 99, "open-invalidated", "open and close asked %u times", n);
}

/* Who has files open can not fill the module. */
static void standing_bounded(uint64_t id, int file)
{
	struct fuse_open_out out = { .fh = 1000, .open_flags = FOPEN_NOFLUSH };
	int fds[EXTFUSE_STANDING_OF_NODE], err;

	for (int i = 0; i < EXTFUSE_STANDING_OF_NODE; i++, out.fh++) {
		err = extfuse_standing(x, id, file, &out);
		fds[i] = open("s", O_RDONLY);
		if (!err)
			err = extfuse_standing_end(x, id, out.fh) != 1;
		expect(!err, "standing-ended-open", "number %d: %d", i, err);
	}
	err = extfuse_standing(x, id, file, &out);
	expect(err == -ENOSPC, "standing-of-one-node", "%d", err);
	asked_to_close(fds[0]);
	err = extfuse_standing(x, id, file, &out);
	expect(!err, "standing-when-closed", "%d", err);
	extfuse_standing_end(x, id, out.fh);
	for (int i = 1; i < EXTFUSE_STANDING_OF_NODE; i++)
		asked_to_close(fds[i]);
	err = extfuse_standing(x, id, -1, &out);
	expect(err == -EINVAL, "standing-no-file", "%d", err);
	err = extfuse_standing(x, id, 999, &out);
	expect(err == -EBADF, "standing-not-open", "%d", err);
}

/* A handle of the server's that all use. */
static void standing(void)
{
	struct fuse_open_out out = { .fh = 99, .open_flags = FOPEN_NOFLUSH };
	const struct timespec times[2] = { { .tv_sec = 1 }, { .tv_nsec = UTIME_OMIT } };
	int file = open("/tmp/standing", O_RDWR | O_CREAT, 0600), one, two, err;
	unsigned before, n;
	struct stat st;
	uint64_t id;

	stat("s", &st);
	id = by_name("s")->nodeid;
	err = extfuse_standing(x, id, file, &out);
	expect(!err, "standing", "%d", err);
	err = extfuse_standing(x, id, file, &out);
	expect(err == -EEXIST, "standing-once", "%d", err);
	before = opens();
	one = open("s", O_RDONLY);
	two = open("s", O_RDONLY);
	n = asked_to_close(open("s", O_RDONLY));
	expect(one >= 0 && two >= 0 && !n && opens() == before, "standing-open", "asked %u times", opens() - before);
	n = asked_to_close(open("s", O_RDWR));
	expect(n && opens() > before + 1, "standing-for-writing", "asked %u times", opens() - before);
	err = extfuse_standing_end(x, id, out.fh);
	expect(err == 2, "standing-end", "%d", err);
	err = extfuse_standing_end(x, id, out.fh);
	expect(err == 2, "standing-end-again", "%d", err);
	before = opens();
	asked_to_close(open("s", O_RDONLY));
	expect(opens() > before + 1, "standing-ended", "asked %u times", opens() - before);
	n = asked_to_close(one);
	expect(!n, "standing-not-last", "asked %u times", n);
	n = asked_to_close(two);
	expect(n == 1, "standing-last", "asked %u times", n);
	err = extfuse_standing_end(x, id, out.fh);
	expect(err == -ENOENT, "standing-over", "%d", err);
	standing_bounded(id, file);
	/* Reads are seen by the file's time. */
	extfuse_standing(x, id, file, &out);
	stat("s", &st);
	before = upcalls();
	stat("s", &st);
	n = upcalls() - before;
	futimens(file, times);
	stat("s", &st);
	expect(!n && upcalls() == before + 1, "standing-accessed", "asked %u times before, then %u", n,
	       upcalls() - before);
	stat("s", &st);
	expect(upcalls() == before + 1, "standing-accessed-once", "asked %u times", upcalls() - before);
	unlink("/tmp/standing");
	before = opens();
	asked_to_close(open("s", O_RDONLY));
	expect(opens() > before, "standing-unlinked", "not asked");
	err = extfuse_standing_end(x, id, out.fh);
	expect(!err, "standing-end-of-none", "%d", err);
	err = extfuse_standing(x, id, file, &out);
	expect(err == -ESTALE, "standing-nameless", "%d", err);
	close(file);
}

static void lists(void)
{
	char got[64];
	unsigned before;
	ssize_t n = listxattr("o", got, sizeof(got)), size, small;
	int err;

	before = so_far(FUSE_LISTXATTR);
	n = listxattr("o", got, sizeof(got));
	size = listxattr("o", NULL, 0);
	small = listxattr("o", got, 5);
	err = errno;
	expect(n == (ssize_t)names_size && size == n && small < 0 && err == ERANGE && so_far(FUSE_LISTXATTR) == before,
	       "listxattr", "%zd bytes, size %zd, into 5 bytes %zd (errno %d), asked %u times", n, size, small, err,
	       so_far(FUSE_LISTXATTR) - before);
}

/* ---- handlers of somebody else ---- */

static unsigned asked_xattr(const char *name, int *err)
{
	unsigned before = so_far(FUSE_GETXATTR);
	char value[64];

	*err = getxattr("o", name, value, sizeof(value)) < 0 ? errno : 0;
	return so_far(FUSE_GETXATTR) - before;
}

static int handler_of(const char *folder, const char *file, struct bpf_object **object)
{
	char path[512];
	struct bpf_program *program;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	*object = bpf_object__open_file(path, NULL);
	if (!*object || bpf_object__load(*object))
		return -1;
	program = bpf_object__next_program(*object, NULL);
	return program ? bpf_program__fd(program) : -1;
}

static void handlers(const char *folder)
{
	struct bpf_object *object, *other;
	int fd = handler_of(folder, "nocaps.bpf.o", &object), wrong = handler_of(folder, "nocaps_run.bpf.o", &other);
	int err;
	unsigned n;

	expect(fd >= 0 && wrong >= 0, "handler-loads", "%d, %d", fd, wrong);
	err = extfuse_handler(x, FUSE_GETXATTR, wrong, 0);
	expect(err == -EINVAL, "handler-of-a-wrong-type", "%d", err);
	err = extfuse_handler(x, FUSE_GETXATTR, fd, 0);
	expect(!err, "handler", "%d", err);
	n = asked_xattr("security.capability", &err);
	expect(!n && err == ENODATA, "handler-answers", "errno %d, asked %u times", err, n);
	asked_xattr("user.note", &err);
	n = asked_xattr("user.note", &err);
	expect(n == 1 && !err, "handler-asks", "errno %d, asked %u times", err, n);
	/* It is the module's, and outlives who loaded it. */
	bpf_object__close(object);
	bpf_object__close(other);
	n = asked_xattr("security.capability", &err);
	expect(!n && err == ENODATA, "handler-stays", "errno %d, asked %u times", err, n);
	extfuse_handler(x, FUSE_GETXATTR, EXTFUSE_HANDLER_OURS, 0);
	asked_xattr("user.note", &err);
	n = asked_xattr("user.note", &err);
	expect(!n && !err, "handler-ours-again", "errno %d, asked %u times", err, n);
	extfuse_handler(x, FUSE_GETXATTR, EXTFUSE_HANDLER_NONE, 0);
	n = asked_xattr("user.note", &err);
	expect(n == 1 && !err, "handler-none", "errno %d, asked %u times", err, n);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	prefix = "hook-values";
	mount_options = "allow_other";
	serve_first = serve;
	add("o", 10, 'o');
	add("s", 10, 's');
	add("l", 0, 'l')->mode = S_IFLNK | 0777;
	if (start(argv[1], EXTFUSE_ENGINE_HOOK))
		return 1;
	settle("o");
	links();
	space();
	permissions();
	handles();
	standing();
	lists();
	handlers(argv[2]);
	none_refused();
	stop(argv[1]);
	return failed;
}
