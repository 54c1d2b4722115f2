/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A backend that serves a directory as passthrough does, and is slow, stuck or broken on purpose, to be
 * stacked upon. $SLOW_CONTROL is a directory with
 *   delay    microseconds before each read, write and getattr
 *   hold     while it is there, reads wait
 *   hold_writes    while it is there, writes wait
 *   hold_locks     while it is there, locks are refused, and not asked for yet where they are waited for
 *   read, write, fsync, getattr    the errno that each of these ends with
 *   no_fallocate   anything but 0 when it is mounted: there is no fallocate
 *   counts   made here: struct counts, as 64-bit numbers
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"

struct counts {
	_Atomic uint64_t reads, read_bytes, writes, write_bytes, fsyncs, getattrs, opens, reading, most_reading,
		writing, lock_waits;
};

static struct counts *counts;
static struct fe_backend table;
static int control = -1;

static int number(const char *name)
{
	char text[32] = "";
	int fd = openat(control, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	return atoi(text);
}

static int trouble(const char *name)
{
	int delay = number("delay");

	if (delay > 0)
		usleep((useconds_t)delay);
	return -number(name);
}

static ssize_t slow_read(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			 void *buf, size_t size, uint64_t off)
{
	uint64_t now = atomic_fetch_add(&counts->reading, 1) + 1, most = atomic_load(&counts->most_reading);
	ssize_t n;

	while (now > most && !atomic_compare_exchange_weak(&counts->most_reading, &most, now))
		;
	while (!faccessat(control, "hold", F_OK, 0))
		usleep(2000);
	n = trouble("read");
	if (!n)
		n = passthrough_backend.read(b, req, node, handle, buf, size, off);
	atomic_fetch_sub(&counts->reading, 1);
	atomic_fetch_add(&counts->reads, 1);
	if (n > 0)
		atomic_fetch_add(&counts->read_bytes, (uint64_t)n);
	return n;
}

static ssize_t slow_write(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			  const void *buf, size_t size, uint64_t off, uint32_t io_flags)
{
	ssize_t n;

	atomic_fetch_add(&counts->writing, 1);
	while (!faccessat(control, "hold_writes", F_OK, 0))
		usleep(2000);
	atomic_fetch_sub(&counts->writing, 1);
	n = trouble("write");
	/* not more than one could send at once */
	if (!n)
		n = passthrough_backend.write(b, req, node, handle, buf, size < 65536 ? size : 65536, off, io_flags);
	atomic_fetch_add(&counts->writes, 1);
	if (n > 0)
		atomic_fetch_add(&counts->write_bytes, (uint64_t)n);
	return n;
}

static int slow_setlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		      const struct fe_lock *lock)
{
	if (!lock->wait && lock->type != F_UNLCK && !faccessat(control, "hold_locks", F_OK, 0))
		return -EAGAIN;
	if (lock->wait)
		atomic_fetch_add(&counts->lock_waits, 1);
	while (lock->wait && !faccessat(control, "hold_locks", F_OK, 0))
		usleep(2000);
	return passthrough_backend.setlk(b, req, node, handle, lock);
}

static int slow_fsync(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		      int datasync)
{
	int err = trouble("fsync");

	atomic_fetch_add(&counts->fsyncs, 1);
	return err ? err : passthrough_backend.fsync(b, req, node, handle, datasync);
}

static int slow_getattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			struct statx *out, uint64_t *valid)
{
	int err = trouble("getattr");

	atomic_fetch_add(&counts->getattrs, 1);
	return err ? err : passthrough_backend.getattr(b, req, node, handle, out, valid);
}

static int slow_open_file(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags,
			  uint32_t io_flags, struct fe_open *out)
{
	atomic_fetch_add(&counts->opens, 1);
	return passthrough_backend.open_file(b, req, node, flags, io_flags, out);
}

static int open_counts(void)
{
	int fd = openat(control, "counts", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	void *map = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, sizeof(*counts)))
		map = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (map == MAP_FAILED)
		return -errno;
	counts = map;
	return 0;
}

static int slow_open(const struct fe_open_args *args, struct fe_root *root, void **priv)
{
	const char *dir = getenv("SLOW_CONTROL");
	int err;

	control = dir ? open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	err = control < 0 ? -ENOENT : open_counts();
	if (!err)
		err = passthrough_backend.open(args, root, priv);
	if (err)
		return err;
	table = passthrough_backend;
	table.name = "slow";
	table.read = slow_read;
	table.write = slow_write;
	table.fsync = slow_fsync;
	table.setlk = slow_setlk;
	table.getattr = slow_getattr;
	table.open_file = slow_open_file;
	if (number("no_fallocate"))
		table.fallocate = NULL;
	root->table = &table;
	return 0;
}

static void slow_close(void *b)
{
	passthrough_backend.close(b);
}

static int slow_lookup(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		       struct fe_entry *out)
{
	return passthrough_backend.lookup(b, req, parent, name, out);
}

/* What is served is passthrough's table with some functions put in place of its own. */
const struct fe_backend fe_backend = {
	.abi = FE_BACKEND_ABI,
	.struct_size = sizeof(struct fe_backend),
	.name = "slow",
	.options_help = "",
	.node_size = sizeof(struct pt_node),
	.key_size = sizeof(struct pt_key),
	.handle_size = sizeof(struct pt_file),
	.open = slow_open,
	.close = slow_close,
	.lookup = slow_lookup,
	.getattr = slow_getattr,
};
