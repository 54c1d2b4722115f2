/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files: opened, created, read, written, released. */
#include <errno.h>
#include <string.h>
#include <fcntl.h>

#include "host/answers.h"

/* Flags that the kernel has dealt with itself and that a second open must not repeat. */
#define DONE_BY_KERNEL (O_CREAT | O_EXCL | O_NOCTTY | O_CLOEXEC)

static void open_begin(struct call *c, struct fe_open *o)
{
	struct note_record *r = &c->note->open;

	memset(o, 0, sizeof(*o));
	o->record = r->bytes;
	memset(r->bytes, 0, c->host->be->handle_size);
	r->owned = 1;
}

/* The backend opened something that got no handle: it takes it back. */
static void open_drop(struct call *c, struct fe_node *node, struct fe_open *o, bool dir, uint32_t flags)
{
	struct fe_handle hd = { .record = o->record };
	struct fe_release how = { .flags = flags };

	if (dir && c->host->be->releasedir)
		c->host->be->releasedir(c->host->priv, &c->req, node, &hd);
	else if (!dir && c->host->be->release)
		c->host->be->release(c->host->priv, &c->req, node, &hd, &how);
	c->note->open.owned = 0;
}

static int64_t open_finish(struct call *c, struct fe_node *node, struct fe_open *o, bool dir, uint32_t flags,
			   struct fuse_open_out *out)
{
	int err = handle_add(c, node, o, dir, flags, out);

	if (err) {
		open_drop(c, node, o, dir, flags);
		return err;
	}
	return sizeof(*out);
}

static uint32_t io_flags(uint32_t open_flags)
{
	return open_flags & FUSE_OPEN_KILL_SUIDGID ? FE_IO_KILL_SUIDGID : 0;
}

int64_t op_open(struct call *c)
{
	const struct fuse_open_in *in = (const void *)c->arg;
	uint32_t flags = in->flags & ~(uint32_t)DONE_BY_KERNEL;
	struct fe_open o;
	int err;

	/* The kernel then opens files by itself (FUSE_NO_OPEN_SUPPORT). */
	if (!c->host->be->open_file)
		return -ENOSYS;
	standing_open(c, flags);
	do {
		open_begin(c, &o);
		err = c->host->be->open_file(c->host->priv, &c->req, &c->node, flags, io_flags(in->open_flags), &o);
	} while (standing_make_room(c, err));
	return err ? err : open_finish(c, &c->node, &o, false, flags, (void *)c->out);
}

int64_t op_opendir(struct call *c)
{
	const struct fuse_open_in *in = (const void *)c->arg;
	struct fe_open o;
	int err;

	if (!c->host->be->opendir)
		return -ENOSYS;
	do {
		open_begin(c, &o);
		err = c->host->be->opendir(c->host->priv, &c->req, &c->node, in->flags, &o);
	} while (standing_make_room(c, err));
	return err ? err : open_finish(c, &c->node, &o, true, in->flags, (void *)c->out);
}

static int64_t created(struct call *c, const char *name, struct fe_entry *e, struct fe_open *o,
		       uint32_t flags)
{
	struct fuse_entry_out *entry = (void *)c->out;
	struct fuse_open_out *open = (void *)(entry + 1);
	struct fe_node node;
	int64_t n = entry_finish(c, name, EXTFUSE_OWN_NAME, e, entry);
	int err;

	if (n < 0) {
		open_drop(c, &(struct fe_node){ .record = e->record }, o, false, flags);
		return n;
	}
	err = node_get(c->host, entry->nodeid, &node);
	if (err) {
		open_drop(c, &(struct fe_node){ .record = e->record }, o, false, flags);
		undo_entry(c, sizeof(*entry));
		return err;
	}
	n = open_finish(c, &node, o, false, flags, open);
	node_put(c->host, &node);
	if (n < 0) {
		undo_entry(c, sizeof(*entry));
		return n;
	}
	return sizeof(*entry) + sizeof(*open);
}

int64_t op_create(struct call *c)
{
	const struct fuse_create_in *in = (const void *)c->arg;
	struct fe_entry e;
	struct fe_open o;
	const char *name;
	int err;

	c->arg += sizeof(*in);
	c->arg_size -= sizeof(*in);
	name = take_name(c, &err);
	if (err)
		return err;
	/* The kernel then makes it by MKNOD and OPEN. */
	if (!c->host->be->create)
		return -ENOSYS;
	c->req.umask = in->umask;
	entry_begin(c, &e);
	open_begin(c, &o);
	err = c->host->be->create(c->host->priv, &c->req, &c->node, name, in->flags, in->mode,
				  io_flags(in->open_flags), &e, &o);
	return err ? err : created(c, name, &e, &o, in->flags);
}

int64_t op_tmpfile(struct call *c)
{
	const struct fuse_create_in *in = (const void *)c->arg;
	struct fe_entry e;
	struct fe_open o;
	int err;

	if (!c->host->be->tmpfile)
		return -EOPNOTSUPP;
	c->req.umask = in->umask;
	entry_begin(c, &e);
	open_begin(c, &o);
	err = c->host->be->tmpfile(c->host->priv, &c->req, &c->node, in->flags, in->mode, &e, &o);
	return err ? err : created(c, NULL, &e, &o, in->flags);
}

void undo_open(struct call *c, size_t size)
{
	const struct fuse_open_out *out = (const void *)c->out;
	struct fe_release how = { 0 };

	if (size >= sizeof(*out))
		handle_remove(c->host, &c->req, out->fh, c->in->opcode == FUSE_OPENDIR, &how);
}

void undo_create(struct call *c, size_t size)
{
	const struct fuse_entry_out *entry = (const void *)c->out;
	const struct fuse_open_out *open = (const void *)(entry + 1);
	struct fe_release how = { 0 };

	if (size >= sizeof(*entry) + sizeof(*open))
		handle_remove(c->host, &c->req, open->fh, false, &how);
	undo_entry(c, size);
}

/* The handle of a request that must have one; NULL is right for a backend that opens nothing. */
static int file_handle(struct call *c, uint64_t fh, struct fe_handle *hd, struct fe_handle **out)
{
	struct handle *found;

	*out = NULL;
	if (!c->host->be->open_file)
		return 0;
	found = handle_get(c->host, fh, false, hd);
	if (!found || found->nodeid != c->node.nodeid)
		return -EBADF;
	*out = hd;
	return 0;
}

int64_t op_read(struct call *c)
{
	const struct fuse_read_in *in = (const void *)c->arg;
	struct fe_handle hd, *handle;
	size_t size = in->size < c->out_size ? in->size : c->out_size;
	ssize_t n;
	int err = file_handle(c, in->fh, &hd, &handle);

	if (err)
		return err;
	if (!c->host->be->read)
		return -ENOSYS;
	if (in->offset > INT64_MAX)
		return -EINVAL;
	order_read(c->host, c->node.nodeid, in->offset, size);
	n = c->host->be->read(c->host->priv, &c->req, &c->node, handle, c->out, size, in->offset);
	answers_accessed(c);
	return n;
}

/* Of what it writes back from its cache the kernel does not look at how much was written: all, or an error. */
static ssize_t write_back(struct call *c, struct fe_handle *handle, const unsigned char *data, size_t size,
			  uint64_t off, uint32_t flags)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = c->host->be->write(c->host->priv, &c->req, &c->node, handle, data + done, size - done,
					       off + done, flags);

		if (n <= 0)
			return n ? n : -EIO;
		done += (size_t)n;
	}
	return (ssize_t)size;
}

int64_t op_write(struct call *c)
{
	const struct fuse_write_in *in = (const void *)c->arg;
	struct fuse_write_out *out = (void *)c->out;
	const unsigned char *data = c->arg + sizeof(*in);
	struct fe_handle hd, *handle;
	uint32_t flags = 0;
	ssize_t n;
	int err = file_handle(c, in->fh, &hd, &handle);

	if (err)
		return err;
	if (!c->host->be->write)
		return -ENOSYS;
	if (in->size > c->arg_size - sizeof(*in) || in->offset > INT64_MAX)
		return -EINVAL;
	if (in->write_flags & FUSE_WRITE_KILL_SUIDGID)
		flags |= FE_IO_KILL_SUIDGID;
	if (in->write_flags & FUSE_WRITE_CACHE)
		flags |= FE_IO_CACHE;
	else if (in->flags & O_APPEND)
		flags |= FE_IO_APPEND;
	n = flags & FE_IO_CACHE ?
		write_back(c, handle, data, in->size, in->offset, flags) :
		c->host->be->write(c->host->priv, &c->req, &c->node, handle, data, in->size, in->offset, flags);
	if (n < 0)
		return n;
	*out = (struct fuse_write_out){ .size = (uint32_t)n };
	return sizeof(*out);
}

int64_t op_flush(struct call *c)
{
	const struct fuse_flush_in *in = (const void *)c->arg;
	struct fe_handle hd, *handle;
	int err = file_handle(c, in->fh, &hd, &handle);

	if (err)
		return err;
	if (!c->host->be->flush)
		return -ENOSYS;
	return c->host->be->flush(c->host->priv, &c->req, &c->node, handle, in->lock_owner);
}

int64_t op_release(struct call *c)
{
	const struct fuse_release_in *in = (const void *)c->arg;
	struct fe_release how = {
		.flags = in->flags,
		.lock_owner = in->lock_owner,
		.flock_unlock = !!(in->release_flags & FUSE_RELEASE_FLOCK_UNLOCK),
	};

	if (!standing_keep(c, in->fh))
		handle_remove(c->host, &c->req, in->fh, false, &how);
	return 0;
}

int64_t op_fsync(struct call *c)
{
	const struct fuse_fsync_in *in = (const void *)c->arg;
	struct fe_handle hd, *handle;
	int err = file_handle(c, in->fh, &hd, &handle);

	if (err)
		return err;
	if (!c->host->be->fsync)
		return -ENOSYS;
	return c->host->be->fsync(c->host->priv, &c->req, &c->node, handle,
				  !!(in->fsync_flags & FUSE_FSYNC_FDATASYNC));
}

int64_t op_fallocate(struct call *c)
{
	const struct fuse_fallocate_in *in = (const void *)c->arg;
	struct fe_handle hd, *handle;
	int err = file_handle(c, in->fh, &hd, &handle);

	if (err)
		return err;
	if (!c->host->be->fallocate)
		return -EOPNOTSUPP;
	if (in->offset > INT64_MAX || in->length > INT64_MAX - in->offset)
		return -EFBIG;
	return c->host->be->fallocate(c->host->priv, &c->req, &c->node, handle, in->mode, in->offset, in->length);
}

int64_t op_copy_file_range(struct call *c)
{
	const struct fuse_copy_file_range_in *in = (const void *)c->arg;
	struct fuse_write_out *out = (void *)c->out;
	struct fe_handle from_hd, to_hd, *from, *to;
	struct fe_node from_node = c->node, to_node;
	ssize_t n;
	int err = file_handle(c, in->fh_in, &from_hd, &from);

	if (!c->host->be->copy_file_range)
		return -EOPNOTSUPP; /* -ENOSYS would turn it off for good */
	if (err)
		return err;
	if (in->off_in > INT64_MAX || in->off_out > INT64_MAX)
		return -EINVAL;
	err = node_get(c->host, in->nodeid_out, &to_node);
	if (err)
		return err;
	c->node = to_node;
	err = file_handle(c, in->fh_out, &to_hd, &to);
	c->node = from_node;
	n = err ? err :
	    c->host->be->copy_file_range(c->host->priv, &c->req, &c->node, from, in->off_in, &to_node, to,
					 in->off_out, in->len, (uint32_t)in->flags);
	node_put(c->host, &to_node);
	if (n < 0)
		return n;
	*out = (struct fuse_write_out){ .size = (uint32_t)n };
	return sizeof(*out);
}

int64_t op_lseek(struct call *c)
{
	const struct fuse_lseek_in *in = (const void *)c->arg;
	struct fuse_lseek_out *out = (void *)c->out;
	struct fe_handle hd, *handle;
	int64_t n;
	int err = file_handle(c, in->fh, &hd, &handle);

	if (err)
		return err;
	if (!c->host->be->lseek)
		return -ENOSYS;
	n = c->host->be->lseek(c->host->priv, &c->req, &c->node, handle, (int64_t)in->offset, in->whence);
	if (n < 0)
		return n;
	*out = (struct fuse_lseek_out){ .offset = (uint64_t)n };
	return sizeof(*out);
}

int64_t op_ioctl(struct call *c)
{
	const struct fuse_ioctl_in *in = (const void *)c->arg;
	struct fuse_ioctl_out *out = (void *)c->out;
	struct fe_handle hd, *handle = NULL;
	struct handle *found;
	struct fe_ioctl io = {
		.cmd = in->cmd,
		.flags = in->flags,
		.arg = in->arg,
		.in = c->arg + sizeof(*in),
		.in_size = in->in_size,
		.out = out + 1,
		.out_size = in->out_size,
	};
	int err;

	if (!c->host->be->ioctl)
		return -ENOSYS;
	/* unrestricted ioctls read and write the caller's memory at will: only CUSE has them */
	if (in->flags & FUSE_IOCTL_UNRESTRICTED || in->in_size > c->arg_size - sizeof(*in) ||
	    in->out_size > c->out_size - sizeof(*out))
		return -EINVAL;
	found = handle_get(c->host, in->fh, !!(in->flags & FUSE_IOCTL_DIR), &hd);
	if (found && found->nodeid == c->node.nodeid)
		handle = &hd;
	err = c->host->be->ioctl(c->host->priv, &c->req, &c->node, handle, &io);
	if (err)
		return err;
	memset(out, 0, sizeof(*out));
	out->result = io.result;
	return (int64_t)(sizeof(*out) + io.out_size);
}

int64_t op_poll(struct call *c)
{
	const struct fuse_poll_in *in = (const void *)c->arg;
	struct fuse_poll_out *out = (void *)c->out;
	struct fe_handle hd, *handle;
	int events, err = file_handle(c, in->fh, &hd, &handle);

	if (err)
		return err;
	if (!c->host->be->poll)
		return -ENOSYS;
	events = c->host->be->poll(c->host->priv, &c->req, &c->node, handle, in->events);
	if (events < 0)
		return events;
	*out = (struct fuse_poll_out){ .revents = (uint32_t)events };
	return sizeof(*out);
}
