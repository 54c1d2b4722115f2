/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on file contents; count blocks of one file per client. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workload.h"

#define DATA "data"

static void open_data(struct client *c, int flags)
{
	c->fd = open(DATA, flags | (c->direct ? O_DIRECT : 0), 0644);
	if (c->fd < 0 && c->direct && errno == EINVAL)
		skip("no O_DIRECT here");
	if (c->fd < 0)
		die("open %s", DATA);
}

/* Beneath the mount, so that a mount with a page cache of its own starts with an empty one. */
static void fill_data(struct client *c)
{
	int fd = openat(c->backing, DATA, O_CREAT | O_EXCL | O_WRONLY, 0644);

	if (fd < 0)
		die("create %s", DATA);
	write_zeros(fd, DATA, c->block * c->count);
	if (close(fd))
		die("close %s", DATA);
}

static void existing_for_read(struct client *c)
{
	fill_data(c);
	open_data(c, O_RDONLY);
}

static void existing_for_write(struct client *c)
{
	fill_data(c);
	open_data(c, O_WRONLY);
}

static void new_for_write(struct client *c)
{
	open_data(c, O_CREAT | O_EXCL | O_WRONLY);
}

static void read_block(struct client *c, unsigned long block)
{
	if (pread(c->fd, c->buffer, c->block, (off_t)(block * c->block)) != (ssize_t)c->block)
		die("read block %lu", block);
}

static void write_block(struct client *c, unsigned long block)
{
	if (pwrite(c->fd, c->buffer, c->block, (off_t)(block * c->block)) != (ssize_t)c->block)
		die("write block %lu", block);
}

static void read_random(struct client *c, unsigned long i)
{
	read_block(c, c->order[i]);
}

static void write_random(struct client *c, unsigned long i)
{
	write_block(c, c->order[i]);
}

/* One block of each MiB, so that nothing that is read with it is asked for. */
static void scattered_for_read(struct client *c)
{
	int fd = openat(c->backing, DATA, O_CREAT | O_EXCL | O_WRONLY, 0644);

	if (fd < 0 || ftruncate(fd, (off_t)c->count << 20) || close(fd))
		die("create %s", DATA);
	open_data(c, O_RDONLY);
}

static void read_scattered(struct client *c, unsigned long i)
{
	if (pread(c->fd, c->buffer, c->block, (off_t)c->order[i] << 20) != (ssize_t)c->block)
		die("read at %lu MiB", c->order[i]);
}

static void end_scattered(struct client *c)
{
	if (close(c->fd) || unlink(DATA))
		die("remove %s", DATA);
}

static void warm_for_read(struct client *c)
{
	existing_for_read(c);
	for (unsigned long i = 0; i < c->count; i++)
		read_block(c, i);
}

/* Opened once more, after all of it was read; not zeros, which a file system may keep as holes. */
static void known_for_read(struct client *c)
{
	int fd;

	fill_data(c);
	fd = openat(c->backing, DATA, O_WRONLY);
	memset(c->buffer, 'x', c->block);
	for (unsigned long i = 0; i < c->count; i++)
		if (fd < 0 || pwrite(fd, c->buffer, c->block, (off_t)(i * c->block)) != (ssize_t)c->block)
			die("fill %s", DATA);
	close(fd);
	open_data(c, O_RDONLY);
	for (unsigned long i = 0; i < c->count; i++)
		read_block(c, i);
	if (close(c->fd))
		die("close %s", DATA);
	open_data(c, O_RDONLY);
}

static void existing_mapped(struct client *c)
{
	existing_for_read(c);
	c->map = mmap(NULL, c->block * c->count, PROT_READ, MAP_SHARED, c->fd, 0);
	if (c->map == MAP_FAILED)
		die("mmap");
}

static void copy_mapped(struct client *c, unsigned long i)
{
	memcpy(c->buffer, c->map + i * c->block, c->block);
}

static void end_data(struct client *c)
{
	struct stat st;

	if (fstat(c->fd, &st) || (size_t)st.st_size != c->block * c->count)
		die("size %lld instead of %zu", (long long)st.st_size, c->block * c->count);
	if (c->map)
		munmap(c->map, c->block * c->count);
	if (close(c->fd) || unlink(DATA))
		die("remove %s", DATA);
}

const struct operation data_operations[] = {
	{ "read", existing_for_read, read_block, end_data, true },
	{ "write", new_for_write, write_block, end_data, true },
	{ "read-random", existing_for_read, read_random, end_data, true },
	{ "read-scattered", scattered_for_read, read_scattered, end_scattered, true },
	{ "read-known", known_for_read, read_block, end_data, true },
	{ "read-warm", warm_for_read, read_random, end_data, true },
	{ "write-random", existing_for_write, write_random, end_data, true },
	{ "mmap-read", existing_mapped, copy_mapped, end_data, true },
	{ NULL, NULL, NULL, NULL, false },
};
