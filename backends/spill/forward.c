/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What has nothing to do with data of files is the inner backend's. */
#include "backends/spill/spill.h"

#define IN(b) (((struct spill *)(b))->in)
#define IP(b) (((struct spill *)(b))->ip)

static void sp_forget(void *b, struct fe_node *node)
{
	IN(b)->forget(IP(b), node);
}

static void sp_thread_start(void *b)
{
	IN(b)->thread_start(IP(b));
}

static int sp_access(void *b, const struct fe_request *req, struct fe_node *node, uint32_t mask)
{
	return IN(b)->access(IP(b), req, node, mask);
}

static ssize_t sp_readlink(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size)
{
	return IN(b)->readlink(IP(b), req, node, buf, size);
}

static int sp_mknod(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
		    uint32_t rdev, struct fe_entry *out)
{
	return IN(b)->mknod(IP(b), req, parent, name, mode, rdev, out);
}

static int sp_mkdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
		    struct fe_entry *out)
{
	return IN(b)->mkdir(IP(b), req, parent, name, mode, out);
}

static int sp_symlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		      const char *target, struct fe_entry *out)
{
	return IN(b)->symlink(IP(b), req, parent, name, target, out);
}

static int sp_unlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name)
{
	return IN(b)->unlink(IP(b), req, parent, name);
}

static int sp_rmdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name)
{
	return IN(b)->rmdir(IP(b), req, parent, name);
}

static int sp_ioctl(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		    struct fe_ioctl *io)
{
	return IN(b)->ioctl(IP(b), req, node, inner_handle(b, handle), io);
}

static int sp_poll(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		   uint32_t events)
{
	return IN(b)->poll(IP(b), req, node, inner_handle(b, handle), events);
}

static int sp_opendir(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags, struct fe_open *out)
{
	return IN(b)->opendir(IP(b), req, node, flags, out);
}

static void sp_releasedir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle)
{
	IN(b)->releasedir(IP(b), req, node, handle);
}

static int sp_fsyncdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		       int datasync)
{
	return IN(b)->fsyncdir(IP(b), req, node, handle, datasync);
}

static ssize_t sp_getxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name, void *buf,
			   size_t size)
{
	return IN(b)->getxattr(IP(b), req, node, name, buf, size);
}

static ssize_t sp_listxattr(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size)
{
	return IN(b)->listxattr(IP(b), req, node, buf, size);
}

static int sp_getlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		    struct fe_lock *lock)
{
	return IN(b)->getlk(IP(b), req, node, inner_handle(b, handle), lock);
}

static void sp_interrupt(void *b, uint64_t token)
{
	IN(b)->interrupt(IP(b), token);
}

static int sp_statfs(void *b, const struct fe_request *req, struct fe_node *node, struct fe_statfs *out)
{
	return IN(b)->statfs(IP(b), req, node, out);
}

void forward(struct spill *sp, struct fe_backend *t)
{
	const struct fe_backend *in = sp->in;

#define FORWARD(member) t->member = in->member ? sp_##member : NULL
	FORWARD(forget);
	FORWARD(thread_start);
	FORWARD(access);
	FORWARD(readlink);
	FORWARD(mknod);
	FORWARD(mkdir);
	FORWARD(symlink);
	FORWARD(unlink);
	FORWARD(rmdir);
	FORWARD(ioctl);
	FORWARD(poll);
	FORWARD(opendir);
	FORWARD(releasedir);
	FORWARD(fsyncdir);
	FORWARD(getxattr);
	FORWARD(listxattr);
	FORWARD(getlk);
	FORWARD(interrupt);
	FORWARD(statfs);
	/* ... and what does more, but not without it */
	FORWARD(setattr);
	FORWARD(link);
	FORWARD(rename);
	FORWARD(create);
	FORWARD(tmpfile);
	FORWARD(write);
	FORWARD(fallocate);
	FORWARD(lseek);
	FORWARD(readdir);
	FORWARD(setxattr);
	FORWARD(removexattr);
	FORWARD(setlk);
#undef FORWARD
	if (!in->write)
		t->copy_file_range = NULL;
}
