/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is looked at before a reply goes out: INIT, and what it gives the kernel to name things by. */
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "libfuserecover/fuse3/internal.h"

#define DEFAULT_PAGES	32u	/* the kernel's limit of a request where FUSE_MAX_PAGES is not agreed */

#define SMALL		65536u	/* nothing is mapped below */
#define FAR		(1ull << 40)
#define FUSE_DEVICE	makedev(10, 229)
#define OVER_IO_URING	(1ull << 41)	/* newer than the oldest headers */

bool fr_fuse3_is_connection(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISCHR(st.st_mode) && st.st_rdev == FUSE_DEVICE;
}

/* ---- INIT ---- */

static bool over_io_uring(const struct fuse_init_out *init)
{
	return init->flags & FUSE_INIT_EXT && ((uint64_t)init->flags2 << 32 & OVER_IO_URING);
}

/* The kernel refuses to read into less than its largest WRITE; a READ must fit into the reply. */
static uint32_t room_for_data(const struct seat *seat)
{
	size_t in = sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in);
	size_t out = sizeof(struct fuse_out_header);
	size_t page = (size_t)sysconf(_SC_PAGESIZE), a = seat->request_size, b = seat->reply_size;

	a = a > in ? a - in : 0;
	b = b > out ? b - out : 0;
	return (uint32_t)((a < b ? a : b) / page * page);
}

static bool fit(const struct seat *seat, struct fuse_init_out *init)
{
	uint32_t room = room_for_data(seat), page = (uint32_t)sysconf(_SC_PAGESIZE);
	uint32_t pages = init->flags & FUSE_MAX_PAGES ? init->max_pages : DEFAULT_PAGES;

	if (init->max_write > room)
		init->max_write = room;
	if (pages <= room / page)
		return room;
	if (!(init->flags & FUSE_MAX_PAGES) || !(room / page)) {
		fuse_log(FUSE_LOG_ERR, "fuserecover: slots have room for %u bytes of data, and the kernel "
			 "sends %u: raise request_size and reply_size\n", room, pages * page);
		return false;
	}
	init->max_pages = (uint16_t)(room / page);
	return true;
}

bool fr_fuse3_init_reply(struct seat *seat, const struct fuse_in_header *in, struct fuse_out_header *out)
{
	struct saved *s = fr_fuse3_rig.saved;
	uint32_t len = out->len;

	/* libfuse has said why. */
	if (out->error)
		return false;
	if (in->len > MESSAGE_MAX || len > MESSAGE_MAX ||
	    len < sizeof(*out) + sizeof(struct fuse_init_out)) {
		fuse_log(FUSE_LOG_ERR, "fuserecover: INIT of %u bytes, its reply of %u\n", in->len, len);
		return false;
	}
	if (over_io_uring((struct fuse_init_out *)(void *)(out + 1))) {
		fuse_log(FUSE_LOG_ERR, "fuserecover: requests by io_uring can not be recovered: "
			 "mount without that option\n");
		return false;
	}
	if (!fit(seat, (struct fuse_init_out *)(void *)(out + 1)))
		return false;
	memcpy(s->request, in, in->len);
	memcpy(s->reply, out, len);
	s->request_len = in->len;
	/* Not when its thread reads again: libfuse may end it, and who is forked has the session as it is now. */
	fr_fuse3_rig.inited = true;
	atomic_store(&s->reply_len, len);
	return true;
}

/* ---- addresses ---- */

static bool near(uint64_t value, const void *address, uint64_t distance)
{
	uint64_t at = (uint64_t)(uintptr_t)address;

	return at > UINT32_MAX && value - at + distance < 2 * distance;
}

/*
 * Ids of records are above 4 GiB, where sanitizers and some languages have memory; small numbers may be
 * inode numbers. So a value has to lie where this process has its heap, its stack, its mappings or its
 * static data, and small ones count only where the heap is there, too.
 */
static bool is_address(uint64_t value)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const struct rig *rig = &fr_fuse3_rig;
	const void *program = (const void *)(uintptr_t)getauxval(AT_PHDR);

	if (value % 4 || value > UINTPTR_MAX)
		return false;
	if (value <= UINT32_MAX) {
		if (value < SMALL || (uint64_t)(uintptr_t)rig->se > UINT32_MAX)
			return false;
	} else if (!near(value, rig->se, FAR) && !near(value, &page, FAR) && !near(value, rig, FAR) &&
		   !near(value, rig->saved, FAR) && !near(value, program, UINT32_MAX)) {
		return false;
	}
	/* ENOMEM: nothing is mapped there. */
	return !msync((void *)(uintptr_t)(value / page * page), page, MS_ASYNC);
}

static bool looked_enough(int kind)
{
	return atomic_load_explicit(&fr_fuse3_rig.saved->looked_at[kind], memory_order_relaxed) >= LOOKED_AT;
}

static bool look_at(int kind, uint64_t value, uint32_t opcode)
{
	struct saved *s = fr_fuse3_rig.saved;

	if (!value || looked_enough(kind))
		return false;
	if (!is_address(value)) {
		atomic_fetch_add_explicit(&s->looked_at[kind], 1, memory_order_relaxed);
		return false;
	}
	fuse_log(FUSE_LOG_ERR, "fuserecover: the reply to a request (opcode %u) gives the kernel the %s %#llx, "
		 "which is an address of this process and means nothing in the next one: such a file system "
		 "can not be recovered. Keep its objects in tables, and give the ids of records\n",
		 opcode, kind == NODEIDS ? "nodeid" : "file handle", (unsigned long long)value);
	return true;
}

static bool look_at_listing(const unsigned char *at, size_t len, uint32_t opcode)
{
	struct fuse_direntplus d;
	size_t size;

	while (len >= FUSE_NAME_OFFSET_DIRENTPLUS && !looked_enough(NODEIDS)) {
		memcpy(&d, at, FUSE_NAME_OFFSET_DIRENTPLUS);
		if (look_at(NODEIDS, d.entry_out.nodeid, opcode))
			return true;
		size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + d.dirent.namelen);
		if (size > len)
			break;
		at += size;
		len -= size;
	}
	return false;
}

bool fr_fuse3_gives_address(const struct fuse_in_header *in, const struct fuse_out_header *out, size_t len)
{
	const unsigned char *body = (const unsigned char *)(out + 1);
	const struct fuse_entry_out *entry = (const void *)body;
	const struct fuse_open_out *open = (const void *)body;

	if (out->error)
		return false;
	len -= sizeof(*out);
	switch (in->opcode) {
	case FUSE_LOOKUP:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_SYMLINK:
	case FUSE_LINK:
		return len >= sizeof(*entry) && look_at(NODEIDS, entry->nodeid, in->opcode);
	case FUSE_CREATE:
	case FUSE_TMPFILE:
		open = (const void *)(entry + 1);
		return len >= sizeof(*entry) + sizeof(*open) &&
		       (look_at(NODEIDS, entry->nodeid, in->opcode) ||
			look_at(FILE_HANDLES, open->fh, in->opcode));
	case FUSE_OPEN:
		return len >= sizeof(*open) && look_at(FILE_HANDLES, open->fh, in->opcode);
	case FUSE_OPENDIR:
		return len >= sizeof(*open) && look_at(DIR_HANDLES, open->fh, in->opcode);
	case FUSE_READDIRPLUS:
		return look_at_listing(body, len, in->opcode);
	default:
		return false;
	}
}
