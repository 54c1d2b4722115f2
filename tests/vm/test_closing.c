/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The device is closed while requests pass the hook, and while a change is with the server. */
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <bpf/libbpf.h>

#include "tests/vm/rig.h"

#define ROUNDS 12
#define CLIENTS 3

static struct rig *r;
static atomic_int *stop;
static uint64_t ids[CLIENTS];

static int use_once(const char *path, const char *other, int i)
{
	struct stat st;
	int fd, rc;

	if (stat(path, &st) || chmod(path, 0600 + i % 64) || stat(path, &st))
		return 1;
	fd = open(path, O_RDWR);
	rc = fd < 0 || pwrite(fd, "text", 4, 0) != 4 || fstat(fd, &st) || st.st_size != 4;
	close(fd);
	return rc || rename(path, other) || rename(other, path) || stat(path, &st) || (st.st_mode & 07777) != 0600u + i % 64;
}

static void close_device(void)
{
	munmap(r->area, r->area->size);
	close(r->dev);
}

/* Of the device it has nothing. */
static pid_t child_of(void)
{
	pid_t child = fork();

	if (!child)
		close_device();
	return child;
}

static pid_t client(int number)
{
	char name[16], moved[16];
	const char *path, *other;
	pid_t child = child_of();

	if (child)
		return child;
	snprintf(name, sizeof(name), "c%d", number);
	snprintf(moved, sizeof(moved), "o%d", number);
	path = rig_path(r, name);
	other = rig_path(r, moved);
	for (int i = 0; !*stop; i++) {
		if (use_once(path, other, i))
			_exit(1);
	}
	_exit(0);
}

static pid_t client_held(void)
{
	pid_t child = child_of();

	if (!child)
		_exit(setxattr(rig_path(r, "held"), "user.x", "1", 1, 0) ? 1 : 0);
	return child;
}

/* What was read while a change is under way has a stamp from before its end. */
static void put_all(void)
{
	char name[16];

	for (int i = 0; i < CLIENTS; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		rig_put_name(r, 1, name);
		rig_put_attr(r, ids[i]);
	}
}

/* Until all kinds of requests pass: answered, not answered, and those that change something. */
static bool at_work(void)
{
	for (int i = 0; i < 5000; i++) {
		put_all();
		if (rig_stats(r, FUSE_GETATTR).hits + rig_stats(r, FUSE_LOOKUP).hits > 10 &&
		    rig_stats(r, FUSE_LOOKUP).misses > 10 && rig_stats(r, FUSE_WRITE).mutations > 10 &&
		    rig_stats(r, FUSE_RENAME).mutations > 10)
			return true;
		usleep(1000);
	}
	return false;
}

static int unload(void)
{
	return syscall(SYS_delete_module, "extfuse", O_NONBLOCK) ? errno : 0;
}

/* Who is in the module lets go of it some time after. */
static int unload_in_the_end(void)
{
	int err = unload();

	for (int i = 0; i < 1000 && err == EWOULDBLOCK; i++) {
		usleep(10000);
		err = unload();
	}
	return err;
}

static int load(void)
{
	int fd = open(getenv("VM_MODULE"), O_RDONLY), rc = syscall(SYS_finit_module, fd, "", 0);

	close(fd);
	return rc ? errno : 0;
}

struct seen {
	bool at_work;
	int held, unloaded, loaded, status;
};

/* The server goes on, and so do its clients. */
static void close_at_work(struct seen *seen)
{
	pid_t children[CLIENTS + 1];
	int status;

	*stop = 0;
	r->fs->hold = FUSE_SETXATTR;
	children[CLIENTS] = client_held();
	while (!r->fs->held)
		usleep(1000);
	for (int i = 0; i < CLIENTS; i++)
		children[i] = client(i);
	seen->at_work = at_work();
	close_device();
	seen->held = unload();
	r->fs->hold = 0;
	seen->unloaded = unload_in_the_end();
	seen->loaded = load();
	*stop = 1;
	for (int i = 0; i <= CLIENTS; i++) {
		waitpid(children[i], &status, 0);
		seen->status |= status;
	}
}

static void one_round(struct seen *seen)
{
	char name[16];

	r = rig_new("closing");
	for (int i = 0; i < CLIENTS; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		rig_file(r, name);
		ids[i] = rig_id(r, name);
	}
	rig_file(r, "held");
	close_at_work(seen);
	fs_umount(r->m);
	bpf_object__close(r->object);
	free(r);
}

/* Nothing else uses the module here. */
void test_closing(void)
{
	int at_work = 0, held = 0, unloaded = 0, loaded = 0, good = 0;
	struct seen seen;

	if (!getenv("VM_MODULE"))
		fatal("VM_MODULE is not set");
	stop = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	/* One that is bad is enough. */
	for (int i = 0; i < ROUNDS && at_work == i && good == i; i++) {
		seen = (struct seen){ 0 };
		one_round(&seen);
		at_work += seen.at_work;
		held += seen.held == EWOULDBLOCK;
		unloaded += !seen.unloaded;
		loaded += !seen.loaded;
		good += !seen.status;
	}
	result(at_work == ROUNDS, "closing-at-work", "%d rounds of %d", at_work, ROUNDS);
	result(held == ROUNDS, "closing-held-by-a-change", "%d rounds of %d", held, ROUNDS);
	result(unloaded == ROUNDS && loaded == ROUNDS, "closing-unloaded", "%d rounds, and %d loaded, of %d", unloaded,
		loaded, ROUNDS);
	result(good == ROUNDS, "closing-clients", "%d rounds of %d", good, ROUNDS);
	munmap(stop, 4096);
}
