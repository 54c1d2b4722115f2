/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <dirent.h>
#include <errno.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"
#include "base/cleanup.h"

#define CHUNK_MAX	32768u
/* A READDIRPLUS entry is about five times as long as what getdents64 returns for it. */
#define PLUS_RATIO	5u

/*
 * Where a position in a directory is that of a name (tmpfs before Linux 6.6 counts names, and one that goes
 * makes a reader miss another), and what is looked up is what is listed (not so without regard to case, or
 * while a key is missing).
 */
static bool lists_all(int fd)
{
	struct statfs fs;
	int flags;

	if (fstatfs(fd, &fs) || (fs.f_type != EXT4_SUPER_MAGIC && fs.f_type != BTRFS_SUPER_MAGIC))
		return false;
	return !ioctl(fd, FS_IOC_GETFLAGS, &flags) && !(flags & (FS_CASEFOLD_FL | FS_ENCRYPT_FL));
}

int pt_opendir(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags, struct fe_open *out)
{
	int fd = node_open(b, node, O_RDONLY | O_DIRECTORY | (int)(flags & O_NOATIME));
	struct pt_file *f = (struct pt_file *)out->record;
	const struct passthrough *pt = b;

	(void)req;
	if (fd < 0)
		return fd;
	if (pt->absences && lists_all(fd))
		out->flags = FE_OPEN_ALL_NAMES;
	f->fd = -1;
	f->opened = 1;
	put_fd(b, &f->fd, fd);
	return 0;
}

/* How much to ask for, so that little of it has to be asked for again. */
static size_t chunk_size(const struct fe_dirfill *fill)
{
	size_t size = fill->want_entry ? fill->room / PLUS_RATIO : fill->room;

	if (size < 512)
		size = 512;
	return size < CHUNK_MAX ? size : CHUNK_MAX;
}

static int fill_from(const struct pt_node *n, struct pt_file *f, const char *buf, size_t size,
		     struct fe_dirfill *fill)
{
	for (size_t at = 0; at < size; ) {
		const struct dirent64 *d = (const void *)(buf + at);

		if (fill->add(fill, d->d_name, strlen(d->d_name), mix_ino(n->key.mount, d->d_ino), d->d_type,
			      (uint64_t)d->d_off, NULL)) {
			/* What did not fit is read again from the last cookie. */
			return 1;
		}
		f->pos = d->d_off;
		at += d->d_reclen;
	}
	return 0;
}

int pt_readdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, uint64_t off,
	       struct fe_dirfill *fill)
{
	struct passthrough *pt = b;
	struct pt_file *f = pt_file(handle);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&pt->dir_locks[handle->fh % 64]);
	char buf[CHUNK_MAX] __attribute__((aligned(8)));
	int full = 0;

	creds_server(pt);
	/* A process that died may have read on. */
	if (f->pos != (int64_t)off || !off || req->again) {
		if (lseek(f->fd, (off_t)off, SEEK_SET) < 0)
			return -errno;
		f->pos = (int64_t)off;
	}
	while (!full && fill->room >= 24) {
		ssize_t n = syscall(SYS_getdents64, f->fd, buf, chunk_size(fill));

		if (n < 0)
			return -errno;
		if (!n)
			break;
		full = fill_from(pt_node(node), f, buf, (size_t)n, fill);
		if (full && lseek(f->fd, f->pos, SEEK_SET) < 0)
			return -errno;
	}
	return 0;
}

void pt_releasedir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle)
{
	(void)req;
	(void)node;
	if (pt_file(handle)->opened)
		close_fd(b, &pt_file(handle)->fd);
}
