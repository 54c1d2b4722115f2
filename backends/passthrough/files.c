/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"
#include "base/cleanup.h"

/* Without O_APPEND, which fcntl(2) may change: each write says whether it appends. */
#define OPEN_FLAGS (O_ACCMODE | O_NONBLOCK | O_DSYNC | O_SYNC | O_DIRECT | O_LARGEFILE | O_NOATIME)

/* With a writeback cache the kernel reads pages of files that are open for writing only. */
static int backing_flags(const struct passthrough *pt, uint32_t flags)
{
	int out = (int)flags & OPEN_FLAGS;

	if (pt->writeback && (out & O_ACCMODE) == O_WRONLY)
		out = (out & ~O_ACCMODE) | O_RDWR;
	return out;
}

static void opened(struct passthrough *pt, int fd, uint32_t flags, struct fe_open *out)
{
	struct pt_file *f = (struct pt_file *)out->record;

	f->fd = -1;
	f->opened = 1;
	f->direct = !!(flags & O_DIRECT);
	put_fd(pt, &f->fd, fd);
	out->flags = FE_OPEN_PARALLEL_WRITES | (tells_nothing(pt, fd) ? FE_OPEN_NOFLUSH : 0);
}

int truncate_node(struct passthrough *pt, const struct fe_request *req, struct fe_node *node, int fd, off_t size,
		  uint32_t io_flags)
{
	_cleanup_close_ int own = -1;
	int err;

	/* it may be open for reading only, by O_RDONLY | O_TRUNC */
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY) {
		fd = own = node_open(pt, node, O_WRONLY | O_NONBLOCK | O_NOCTTY);
		if (fd < 0)
			return fd;
	}
	creds_io(pt, req, fd, io_flags);
	err = ftruncate(fd, size) ? -errno : 0;
	creds_server(pt);
	return err;
}

int pt_open_file(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags, uint32_t io_flags,
		 struct fe_open *out)
{
	struct passthrough *pt = b;
	_cleanup_close_ int fd = node_open(pt, node, backing_flags(pt, flags) | O_NOFOLLOW | O_NOCTTY);
	struct stat st;
	int err;

	if (fd < 0)
		return fd;
	/* The kernel opens nothing else by a request, and a handle must not lead to a device. */
	err = fstat(fd, &st) ? -errno : S_ISREG(st.st_mode) ? 0 : -EIO;
	if (!err && flags & O_TRUNC)
		err = truncate_node(pt, req, node, fd, 0, io_flags);
	if (err)
		return err;
	opened(pt, fe_steal_fd(&fd), flags, out);
	return 0;
}

/* A file that was made just now, with a mode that may forbid its owner to open it. */
static int reopen(int dir, const char *name, int flags)
{
	_cleanup_close_ int path = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	int fd = path < 0 ? -1 : open(proc_path(path).path, flags | O_CLOEXEC);

	if (fd < 0 && errno == EACCES && !fstat(path, &st) && !chmod(proc_path(path).path, 0600)) {
		fd = open(proc_path(path).path, flags | O_CLOEXEC);
		chmod(proc_path(path).path, st.st_mode & 07777);
	}
	return fd < 0 ? -errno : fd;
}

int pt_create(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t flags,
	      uint32_t mode, uint32_t io_flags, struct fe_entry *entry, struct fe_open *out)
{
	struct passthrough *pt = b;
	_cleanup_held_ struct held dir = { .fd = -1 };
	_cleanup_close_ int fd = -1;
	int err = node_hold(pt, parent, &dir);

	(void)io_flags;
	if (err)
		return err;
	creds_create(pt, req);
	fd = openat(dir.fd, name, backing_flags(pt, flags) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	err = fd < 0 ? -errno : 0;
	creds_server(pt);
	if (err == -EEXIST && made_before(req, dir.fd, name, S_IFREG)) {
		fd = reopen(dir.fd, name, backing_flags(pt, flags));
		err = fd < 0 ? fd : 0;
	}
	/* Somebody made it meanwhile: the kernel looks again, and checks whether the caller may open it. */
	if (err == -EEXIST && !(flags & O_EXCL))
		return -ESTALE;
	if (!err)
		err = entry_of_fd(pt, fd, false, entry);
	if (err)
		return err;
	opened(pt, fe_steal_fd(&fd), flags, out);
	return 0;
}

int pt_tmpfile(void *b, const struct fe_request *req, struct fe_node *parent, uint32_t flags, uint32_t mode,
	       struct fe_entry *entry, struct fe_open *out)
{
	struct passthrough *pt = b;
	struct pt_node *n = (struct pt_node *)entry->record;
	_cleanup_held_ struct held dir = { .fd = -1 };
	_cleanup_close_ int fd = -1;
	int pin = -1, err = node_hold(pt, parent, &dir);

	if (err)
		return err;
	creds_create(pt, req);
	fd = openat(dir.fd, ".", backing_flags(pt, flags) | (int)(flags & O_EXCL) | O_TMPFILE | O_CLOEXEC, mode);
	err = fd < 0 ? -errno : 0;
	creds_server(pt);
	if (!err)
		err = entry_of_fd(pt, fd, false, entry);
	if (err)
		return err;
	/* It has no name: only a descriptor keeps its handle good after the last close. */
	if (n->fd < 0)
		pin = open(proc_path(fd).path, O_PATH | O_CLOEXEC);
	if (pin >= 0)
		put_fd(pt, &n->fd, pin);
	opened(pt, fe_steal_fd(&fd), flags, out);
	return 0;
}

/*
 * O_DIRECT takes whole blocks only. Others come where fcntl(2) took the flag away, as dd(1) does for
 * the last one, and where the kernel writes its cache back by whichever handle there is.
 */
static int open_buffered(struct passthrough *pt, const struct fe_node *node, int fd, int mode)
{
	int sync = fcntl(fd, F_GETFL) & (O_DSYNC | O_SYNC);

	return node_open(pt, node, mode | sync | O_NONBLOCK | O_NOCTTY);
}

ssize_t pt_read(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, void *buf,
		size_t size, uint64_t off)
{
	_cleanup_close_ int own = -1;
	int fd = pt_file(handle)->fd;
	ssize_t n;

	(void)req;
	/* The kernel reads whole pages; the last one of the largest file ends where no offset reaches. */
	if (size > INT64_MAX - off)
		size = INT64_MAX - off;
	n = pread(fd, buf, size, (off_t)off);
	if (n < 0 && errno == EINVAL && pt_file(handle)->direct) {
		own = open_buffered(b, node, fd, O_RDONLY);
		if (own < 0)
			return own;
		n = pread(own, buf, size, (off_t)off);
	}
	return n < 0 ? -errno : n;
}

/* What depends on the file's size, which it changes: notes it first, returns what it was noted as. */
static bool size_before(const struct fe_request *req, int fd, uint64_t *size)
{
	struct fe_intent *intent = req->intent;
	struct stat st;

	if (intent && req->again && intent->state) {
		memcpy(size, intent->data, sizeof(*size));
		return true;
	}
	if (intent && !fstat(fd, &st)) {
		*size = (uint64_t)st.st_size;
		memcpy(intent->data, size, sizeof(*size));
		__atomic_store_n(&intent->state, 1, __ATOMIC_RELEASE);
	}
	return false;
}

/* Whether a process that died may have appended already, and where: it is written there again. */
static bool appended(const struct fe_request *req, int fd, uint64_t *off)
{
	uint64_t size;

	if (!size_before(req, fd, &size))
		return false;
	*off = size;
	return true;
}

static ssize_t write_at(struct passthrough *pt, const struct fe_request *req, int fd, const void *buf, size_t size,
			uint64_t off, uint32_t io_flags)
{
	struct iovec iov = { (void *)buf, size };

	/* With a writeback cache only the kernel knows where the file ends: the offset counts. */
	if (io_flags & FE_IO_APPEND && !pt->writeback && !appended(req, fd, &off))
		return pwritev2(fd, &iov, 1, (off_t)off, RWF_APPEND);
	return pwrite(fd, buf, size, (off_t)off);
}

ssize_t pt_write(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 const void *buf, size_t size, uint64_t off, uint32_t io_flags)
{
	struct passthrough *pt = b;
	_cleanup_close_ int own = -1;
	int fd = pt_file(handle)->fd;
	ssize_t n;

	creds_io(pt, req, fd, io_flags);
	n = write_at(pt, req, fd, buf, size, off, io_flags);
	if (n < 0 && errno == EINVAL && pt_file(handle)->direct) {
		own = open_buffered(pt, node, fd, O_WRONLY);
		if (own < 0)
			return own;
		creds_io(pt, req, own, io_flags);
		n = write_at(pt, req, own, buf, size, off, io_flags);
	}
	return n < 0 ? -errno : n;
}

int pt_flush(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     uint64_t lock_owner)
{
	struct passthrough *pt = b;
	int fd;

	(void)req;
	if (pt->source_locks)
		locks_flush(pt, node, lock_owner);
	/* Network file systems report failed writes at close(2). */
	fd = dup(pt_file(handle)->fd);
	if (fd < 0)
		return -errno;
	return close(fd) ? -errno : 0;
}

void pt_release(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		const struct fe_release *how)
{
	struct passthrough *pt = b;

	(void)req;
	if (pt->source_locks)
		locks_release(pt, node, handle->fh, how);
	if (pt_file(handle)->opened)
		close_fd(pt, &pt_file(handle)->fd);
}

int pt_fsync(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, int datasync)
{
	int fd = pt_file(handle)->fd;

	(void)b;
	(void)req;
	(void)node;
	return (datasync ? fdatasync(fd) : fsync(fd)) ? -errno : 0;
}

int pt_fallocate(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 uint32_t mode, uint64_t off, uint64_t len)
{
	struct stat st;
	uint64_t size;

	(void)node;
	/* These move the rest of the file: twice would move it twice. */
	if (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE) && size_before(req, pt_file(handle)->fd, &size) &&
	    !fstat(pt_file(handle)->fd, &st) && (uint64_t)st.st_size != size)
		return 0;
	creds_io(b, req, pt_file(handle)->fd, req->uid ? FE_IO_KILL_SUIDGID : 0);
	return fallocate(pt_file(handle)->fd, (int)mode, (off_t)off, (off_t)len) ? -errno : 0;
}

ssize_t pt_copy_file_range(void *b, const struct fe_request *req, struct fe_node *in_node, struct fe_handle *in,
			   uint64_t in_off, struct fe_node *out_node, struct fe_handle *out, uint64_t out_off,
			   uint64_t len, uint32_t flags)
{
	struct passthrough *pt = b;
	off_t from = (off_t)in_off, to = (off_t)out_off;
	ssize_t n;

	(void)out_node;
	creds_io(b, req, pt_file(out)->fd, req->uid ? FE_IO_KILL_SUIDGID : 0);
	/* The reply has 32 bits for the length. */
	if (len > (UINT32_MAX & ~0xfffu))
		len = UINT32_MAX & ~0xfffu;
	n = copy_file_range(pt_file(in)->fd, &from, pt_file(out)->fd, &to, len, flags);
	if (n < 0)
		return -errno;
	/* It was read: the kernel notes that of the file written only. */
	pt->services->inval_inode(pt->host, in_node->nodeid, -1, 0);
	return n;
}

int64_t pt_lseek(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, int64_t off,
		 uint32_t whence)
{
	const struct passthrough *pt = b;
	off_t at;

	(void)req;
	(void)node;
	/*
	 * The kernel asks without writing back first, and what lies in its cache would be told as a hole,
	 * which cp(1) leaves out. After ENOSYS it takes all of a file to be data, by its own size.
	 */
	if (pt->writeback)
		return -ENOSYS;
	/* Nobody uses the descriptor's own position: SEEK_DATA and SEEK_HOLE may move it. */
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	at = lseek(pt_file(handle)->fd, off, (int)whence);
	return at < 0 ? -errno : at;
}

/* Inode flags and the like: of known size, harmless, and checked by the kernel for the caller. */
int pt_ioctl(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	     struct fe_ioctl *io)
{
	struct passthrough *pt = b;
	_cleanup_close_ int own = -1;
	size_t in_size = 0, out_size = 0;
	unsigned char arg[sizeof(struct fsxattr)] = { 0 };
	int fd, flags;

	(void)req;
	switch (io->cmd) {
	case FS_IOC_GETFLAGS:
	case FS_IOC_GETVERSION:
		out_size = sizeof(int);
		break;
	case FS_IOC_SETFLAGS:
		in_size = sizeof(int);
		break;
	case FS_IOC_FSGETXATTR:
		out_size = sizeof(struct fsxattr);
		break;
	case FS_IOC_FSSETXATTR:
		in_size = sizeof(struct fsxattr);
		break;
	default:
		return -ENOTTY;
	}
	if (io->in_size < in_size || io->out_size < out_size)
		return -EINVAL;
	if (handle) {
		fd = pt_file(handle)->fd;
	} else {
		fd = own = node_open(pt, node, O_RDONLY | O_NONBLOCK | O_NOCTTY);
		if (fd < 0)
			return fd;
	}
	creds_server(pt);
	memcpy(arg, io->in, in_size);
	flags = ioctl(fd, io->cmd, arg);
	if (flags < 0)
		return -errno;
	io->result = flags;
	memcpy(io->out, arg, out_size);
	io->out_size = out_size;
	return 0;
}

int pt_backing_fd(void *b, struct fe_node *node, struct fe_handle *handle)
{
	int fd = pt_file(handle)->fd;
	struct stat st;

	(void)b;
	(void)node;
	/* Whether a write takes set-id bits away depends on who writes: only write() knows. */
	if (fstat(fd, &st) || st.st_mode & (S_ISUID | S_ISGID))
		return -EPERM;
	return fd;
}
