/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/internal.h"

/* What precedes a WRITE's payload, and a READ's data. */
#define IN_HEAD		(sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define OUT_HEAD	sizeof(struct fuse_out_header)

static size_t slot_bytes(size_t page)
{
	return 2 * (page + MAX_WRITE + page);
}

int slot_init(struct slot *s, size_t page)
{
	size_t half = slot_bytes(page) / 2;
	int fd = memfd_create("fuse-extent-slot", MFD_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (fallocate(fd, 0, 0, (off_t)slot_bytes(page)))
		err = -errno;
	/* Populated: a request must never find its page missing when the process is being killed. */
	s->map = err ? MAP_FAILED : mmap(NULL, slot_bytes(page), PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_POPULATE, fd, 0);
	if (!err && s->map == MAP_FAILED)
		err = -errno;
	close(fd);
	if (err)
		return err;
	madvise(s->map, slot_bytes(page), MADV_DONTDUMP);
	s->in = s->map + page - IN_HEAD;
	s->in_size = half - (page - IN_HEAD);
	s->out = s->map + half + page - OUT_HEAD;
	s->out_size = half - (page - OUT_HEAD);
	return 0;
}

void slot_fini(struct slot *s, size_t page)
{
	if (s->map)
		munmap(s->map, slot_bytes(page));
	s->map = NULL;
}
