/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/recorder.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct rec_node {
	char name[24];
	uint64_t token;
};

struct rec_handle {
	char tag[24];
	uint64_t token;
};

struct recorder rec;

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

void recorder_clear(void)
{
	pthread_mutex_lock(&log_lock);
	rec.log[0] = 0;
	memset(&rec.req, 0, sizeof(rec.req));
	pthread_mutex_unlock(&log_lock);
}

unsigned recorder_unbalanced(void)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < rec.tokens; i++)
		n += rec.returned[i] != 1;
	return n;
}

__attribute__((format(printf, 2, 3))) static int say(const struct fe_request *req, const char *fmt, ...)
{
	size_t used;
	va_list ap;

	pthread_mutex_lock(&log_lock);
	if (req)
		rec.req = *req;
	used = strlen(rec.log);
	va_start(ap, fmt);
	vsnprintf(rec.log + used, sizeof(rec.log) - used, fmt, ap);
	va_end(ap);
	used = strlen(rec.log);
	snprintf(rec.log + used, sizeof(rec.log) - used, "\n");
	pthread_mutex_unlock(&log_lock);
	return rec.err;
}

static char *text(void)
{
	static __thread char bufs[8][64];
	static __thread unsigned next;

	return bufs[next++ % 8];
}

static const char *nd(const struct fe_node *node)
{
	const struct rec_node *n = (const void *)node->record;
	char *s = text();

	snprintf(s, 64, "%llx:%.23s", (unsigned long long)node->nodeid, n->name);
	return s;
}

static const char *hd(const struct fe_handle *handle)
{
	const struct rec_handle *h = handle ? (const void *)handle->record : NULL;
	char *s = text();

	snprintf(s, 64, "%.23s", h ? h->tag : "none");
	return s;
}

static uint64_t own(void)
{
	uint64_t t;

	pthread_mutex_lock(&log_lock);
	t = rec.tokens++;
	pthread_mutex_unlock(&log_lock);
	return t;
}

static void give_back(uint64_t token)
{
	pthread_mutex_lock(&log_lock);
	if (token < RECORDER_TOKENS)
		rec.returned[token]++;
	pthread_mutex_unlock(&log_lock);
}

struct statx recorder_attr(void)
{
	return (struct statx){
		.stx_mask = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID,
		.stx_blksize = 0x10001,
		.stx_attributes = 0x1111222233334444,
		.stx_attributes_mask = 0x5555666677778888,
		.stx_nlink = 3,
		.stx_uid = 0x11000011,
		.stx_gid = 0x22000022,
		.stx_mode = S_IFREG | 04751,
		.stx_ino = 0x0102030405060708,
		.stx_size = 0x1112131415161718,
		.stx_blocks = 0x2122232425262728,
		.stx_atime = { .tv_sec = -5, .tv_nsec = 101 },
		.stx_btime = { .tv_sec = 0x100000002, .tv_nsec = 102 },
		.stx_ctime = { .tv_sec = 0x100000003, .tv_nsec = 103 },
		.stx_mtime = { .tv_sec = 0x100000004, .tv_nsec = 104 },
		.stx_rdev_major = 0xabc,
		.stx_rdev_minor = 0x12345,
		.stx_dev_major = 0x77,
		.stx_dev_minor = 0x78,
		.stx_mnt_id = 0x79,
	};
}

static void fill_entry(struct fe_entry *e, const char *name)
{
	struct rec_node *n = (void *)e->record;

	snprintf(n->name, sizeof(n->name), "%s", name);
	n->token = own();
	e->attr = recorder_attr();
	if (rec.entry_valid)
		e->entry_valid = rec.entry_valid;
	if (rec.attr_valid)
		e->attr_valid = rec.attr_valid;
}

static void fill_open(struct fe_open *o, const char *name)
{
	struct rec_handle *h = (void *)o->record;

	snprintf(h->tag, sizeof(h->tag), "h-%.20s", name);
	h->token = own();
	o->flags = rec.open_flags;
}

static ssize_t fill_data(void *buf, size_t size)
{
	if (rec.err)
		return rec.err;
	for (size_t i = 0; i < size && (ssize_t)i < rec.data; i++)
		((unsigned char *)buf)[i] = (unsigned char)(rec.first + i);
	return rec.data;
}

static int r_open(const struct fe_open_args *args, struct fe_root *root, void **priv)
{
	rec.services = args->services;
	rec.host = args->host;
	rec.args = *args;
	root->features = rec.features;
	fill_entry(&root->root, "/");
	root->root.attr.stx_mode = S_IFDIR | 0755;
	*priv = &rec;
	return 0;
}

static void r_close(void *b)
{
	(void)b;
	if (rec.complete_in_close)
		rec.services->complete(rec.host, rec.token, -EINTR);
	say(NULL, "close");
}

static int r_lookup(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		    struct fe_entry *out)
{
	int err = say(req, "lookup %s \"%s\"", nd(parent), name);

	(void)b;
	if (!err && !strncmp(name, "missing", 7))
		err = -ENOENT;
	if (!err)
		fill_entry(out, name);
	return err;
}

static void r_forget(void *b, struct fe_node *node)
{
	(void)b;
	say(NULL, "forget %s", nd(node));
	give_back(((struct rec_node *)node->record)->token);
}

static int attrs(int err, struct statx *out, uint64_t *valid)
{
	if (err)
		return err;
	*out = recorder_attr();
	if (rec.attr_valid)
		*valid = rec.attr_valid;
	return 0;
}

static int r_getattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		     struct statx *out, uint64_t *valid)
{
	(void)b;
	return attrs(say(req, "getattr %s %s", nd(node), hd(handle)), out, valid);
}

static int r_setattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		     const struct fe_setattr *s, struct statx *out, uint64_t *valid)
{
	(void)b;
	return attrs(say(req, "setattr %s %s valid=%x mode=%o uid=%x gid=%x size=%llx atime=%lld.%u mtime=%lld.%u "
			 "ctime=%lld.%u", nd(node), hd(handle), s->valid, s->mode, s->uid, s->gid,
			 (unsigned long long)s->size, (long long)s->atime.tv_sec, s->atime.tv_nsec,
			 (long long)s->mtime.tv_sec, s->mtime.tv_nsec, (long long)s->ctime.tv_sec,
			 s->ctime.tv_nsec), out, valid);
}

static int r_access(void *b, const struct fe_request *req, struct fe_node *node, uint32_t mask)
{
	(void)b;
	return say(req, "access %s mask=%x", nd(node), mask);
}

static ssize_t r_readlink(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size)
{
	(void)b;
	say(req, "readlink %s size=%zu", nd(node), size);
	return fill_data(buf, size);
}

static int made(int err, const char *name, struct fe_entry *out)
{
	if (!err)
		fill_entry(out, name);
	return err;
}

static int r_mknod(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
		   uint32_t rdev, struct fe_entry *out)
{
	(void)b;
	return made(say(req, "mknod %s \"%s\" mode=%o rdev=%x", nd(parent), name, mode, rdev), name, out);
}

static int r_mkdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
		   struct fe_entry *out)
{
	(void)b;
	return made(say(req, "mkdir %s \"%s\" mode=%o", nd(parent), name, mode), name, out);
}

static int r_symlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		     const char *target, struct fe_entry *out)
{
	(void)b;
	return made(say(req, "symlink %s \"%s\" -> \"%s\"", nd(parent), name, target), name, out);
}

static int r_link(void *b, const struct fe_request *req, struct fe_node *node, struct fe_node *parent,
		  const char *name, struct fe_entry *out)
{
	(void)b;
	/* a second name of the same file: the key stays */
	return made(say(req, "link %s to %s \"%s\"", nd(node), nd(parent), name),
		    ((struct rec_node *)node->record)->name, out);
}

static int r_unlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name)
{
	(void)b;
	return say(req, "unlink %s \"%s\"", nd(parent), name);
}

static int r_rmdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name)
{
	(void)b;
	return say(req, "rmdir %s \"%s\"", nd(parent), name);
}

static int r_rename(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		    struct fe_node *newparent, const char *newname, uint32_t flags)
{
	(void)b;
	return say(req, "rename %s \"%s\" to %s \"%s\" flags=%x", nd(parent), name, nd(newparent), newname, flags);
}

static void r_opened(void *b, struct fe_node *node, struct fe_handle *handle)
{
	(void)b;
	(void)node;
	rec.opened += !!handle->fh;
}

static int r_open_file(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags,
		       uint32_t io_flags, struct fe_open *out)
{
	int err = say(req, "open %s flags=%x io=%x", nd(node), flags, io_flags);

	(void)b;
	if (!err)
		fill_open(out, ((struct rec_node *)node->record)->name);
	return err;
}

static int r_create(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t flags,
		    uint32_t mode, uint32_t io_flags, struct fe_entry *entry, struct fe_open *out)
{
	int err = say(req, "create %s \"%s\" flags=%x mode=%o io=%x", nd(parent), name, flags, mode, io_flags);

	(void)b;
	if (err)
		return err;
	fill_entry(entry, name);
	fill_open(out, name);
	return 0;
}

static int r_tmpfile(void *b, const struct fe_request *req, struct fe_node *parent, uint32_t flags, uint32_t mode,
		     struct fe_entry *entry, struct fe_open *out)
{
	int err = say(req, "tmpfile %s flags=%x mode=%o", nd(parent), flags, mode);

	(void)b;
	if (err)
		return err;
	fill_entry(entry, "#tmp");
	fill_open(out, "#tmp");
	return 0;
}

static ssize_t r_read(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		      void *buf, size_t size, uint64_t off)
{
	(void)b;
	say(req, "read %s %s size=%zu off=%llx", nd(node), hd(handle), size, (unsigned long long)off);
	return fill_data(buf, size);
}

static ssize_t r_write(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		       const void *buf, size_t size, uint64_t off, uint32_t io_flags)
{
	const unsigned char *p = buf;
	uint32_t sum = 0;

	(void)b;
	for (size_t i = 0; i < size; i++)
		sum = sum * 31 + p[i];
	say(req, "write %s %s size=%zu off=%llx io=%x sum=%x", nd(node), hd(handle), size, (unsigned long long)off,
	    io_flags, sum);
	return rec.err ? rec.err : rec.data ? rec.data : (ssize_t)size;
}

static int r_flush(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		   uint64_t lock_owner)
{
	(void)b;
	return say(req, "flush %s %s owner=%llx", nd(node), hd(handle), (unsigned long long)lock_owner);
}

static void r_release(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		      const struct fe_release *how)
{
	(void)b;
	say(req, "release %s %s flags=%x owner=%llx flock=%d", nd(node), hd(handle), how->flags,
	    (unsigned long long)how->lock_owner, how->flock_unlock);
	give_back(((struct rec_handle *)handle->record)->token);
}

static int r_fsync(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, int datasync)
{
	(void)b;
	return say(req, "fsync %s %s data=%d", nd(node), hd(handle), datasync);
}

static int r_fallocate(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		       uint32_t mode, uint64_t off, uint64_t len)
{
	(void)b;
	return say(req, "fallocate %s %s mode=%x off=%llx len=%llx", nd(node), hd(handle), mode,
		   (unsigned long long)off, (unsigned long long)len);
}

static ssize_t r_copy_file_range(void *b, const struct fe_request *req, struct fe_node *in_node,
				 struct fe_handle *in, uint64_t in_off, struct fe_node *out_node,
				 struct fe_handle *out, uint64_t out_off, uint64_t len, uint32_t flags)
{
	(void)b;
	say(req, "copy %s %s off=%llx to %s %s off=%llx len=%llx flags=%x", nd(in_node), hd(in),
	    (unsigned long long)in_off, nd(out_node), hd(out), (unsigned long long)out_off, (unsigned long long)len,
	    flags);
	return rec.err ? rec.err : rec.data;
}

static int64_t r_lseek(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		       int64_t off, uint32_t whence)
{
	(void)b;
	say(req, "lseek %s %s off=%llx whence=%u", nd(node), hd(handle), (long long)off, whence);
	return rec.err ? rec.err : 0x123456789abc;
}

static int r_ioctl(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		   struct fe_ioctl *io)
{
	uint32_t sum = 0;

	(void)b;
	for (size_t i = 0; i < io->in_size; i++)
		sum = sum * 31 + ((const unsigned char *)io->in)[i];
	if (say(req, "ioctl %s %s cmd=%x flags=%x arg=%llx in=%zu sum=%x out=%zu", nd(node), hd(handle), io->cmd,
		io->flags, (unsigned long long)io->arg, io->in_size, sum, io->out_size))
		return rec.err;
	io->out_size = (size_t)rec.data < io->out_size ? (size_t)rec.data : io->out_size;
	fill_data(io->out, io->out_size);
	io->result = -7;
	return 0;
}

static int r_poll(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		  uint32_t events)
{
	(void)b;
	say(req, "poll %s %s events=%x", nd(node), hd(handle), events);
	return rec.err ? rec.err : 0x41;
}

static int r_opendir(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags, struct fe_open *out)
{
	int err = say(req, "opendir %s flags=%x", nd(node), flags);

	(void)b;
	if (!err)
		fill_open(out, ((struct rec_node *)node->record)->name);
	return err;
}

/* ".", "..", then names of growing length, until the reply is full. */
static int r_readdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		     uint64_t off, struct fe_dirfill *fill)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
	int full = 0;

	(void)b;
	say(req, "readdir %s %s off=%llx room=%zu entry=%d", nd(node), hd(handle), (unsigned long long)off, fill->room,
	    fill->want_entry);
	for (uint64_t at = off; !full && at < 12; at++) {
		const char *name = at < 2 ? ".." : at == 5 ? "missing" : letters;
		size_t len = at < 2 ? at + 1 : at == 5 ? 7 : at * 2;
		unsigned char record[sizeof(struct rec_node)] __attribute__((aligned(8))) = { 0 };
		struct fe_entry e = { .record = record, .entry_valid = 4000000005, .attr_valid = 6000000007 };
		int give = rec.plus && fill->want_entry && at >= 2;
		char copy[32];

		snprintf(copy, sizeof(copy), "%.*s", (int)len, name);
		if (give)
			fill_entry(&e, copy);
		full = fill->add(fill, copy, len, 0x1000 + at, (unsigned)at, at + 1, give ? &e : NULL);
		if (full && give)
			give_back(((struct rec_node *)record)->token);
	}
	return rec.err;
}

static void r_releasedir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle)
{
	(void)b;
	say(req, "releasedir %s %s", nd(node), hd(handle));
	give_back(((struct rec_handle *)handle->record)->token);
}

static int r_fsyncdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		      int datasync)
{
	(void)b;
	return say(req, "fsyncdir %s %s data=%d", nd(node), hd(handle), datasync);
}

static ssize_t r_getxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name, void *buf,
			  size_t size)
{
	(void)b;
	say(req, "getxattr %s \"%s\" size=%zu", nd(node), name, size);
	return fill_data(buf, size);
}

static ssize_t r_listxattr(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size)
{
	(void)b;
	say(req, "listxattr %s size=%zu", nd(node), size);
	return fill_data(buf, size);
}

static int r_setxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name,
		      const void *value, size_t size, int flags, int kill_sgid)
{
	(void)b;
	return say(req, "setxattr %s \"%s\" value=\"%.*s\" flags=%x kill=%d", nd(node), name, (int)size,
		   (const char *)value, (unsigned)flags, kill_sgid);
}

static int r_removexattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name)
{
	(void)b;
	return say(req, "removexattr %s \"%s\"", nd(node), name);
}

static int r_getlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		   struct fe_lock *l)
{
	int err = say(req, "getlk %s %s %llx-%llx owner=%llx type=%u pid=%u flock=%d wait=%d", nd(node), hd(handle),
		      (unsigned long long)l->start, (unsigned long long)l->end, (unsigned long long)l->owner,
		      l->type, l->pid, l->flock, l->wait);

	(void)b;
	l->start = 0x31;
	l->end = 0x32;
	l->type = 1;
	l->pid = 0x33;
	return err;
}

static int r_setlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		   const struct fe_lock *l)
{
	int err = say(req, "setlk %s %s %llx-%llx owner=%llx type=%u pid=%u flock=%d wait=%d", nd(node), hd(handle),
		      (unsigned long long)l->start, (unsigned long long)l->end, (unsigned long long)l->owner,
		      l->type, l->pid, l->flock, l->wait);

	(void)b;
	if (err || !l->wait)
		return err;
	rec.token = req->token;
	if (rec.during_setlk)
		return rec.during_setlk(req->token);
	return rec.pending ? FE_PENDING : 0;
}

static void r_interrupt(void *b, uint64_t token)
{
	(void)b;
	say(NULL, "interrupt %s", token == rec.token ? "of the last" : "of another");
}

static int r_statfs(void *b, const struct fe_request *req, struct fe_node *node, struct fe_statfs *out)
{
	(void)b;
	*out = (struct fe_statfs){ .blocks = 0x1000000001, .bfree = 0x1000000002, .bavail = 0x1000000003,
				   .files = 0x1000000004, .ffree = 0x1000000005, .bsize = 6, .namelen = 7,
				   .frsize = 8 };
	return say(req, "statfs %s", nd(node));
}

static int r_syncfs(void *b, const struct fe_request *req, struct fe_node *node)
{
	(void)b;
	return say(req, "syncfs %s", nd(node));
}

const struct fe_backend recorder_backend = {
	.abi = FE_BACKEND_ABI,
	.struct_size = sizeof(struct fe_backend),
	.name = "recorder",
	.node_size = sizeof(struct rec_node),
	.key_size = sizeof(((struct rec_node *)0)->name),
	.handle_size = sizeof(struct rec_handle),
	.open = r_open, .close = r_close, .lookup = r_lookup, .forget = r_forget, .getattr = r_getattr,
	.setattr = r_setattr, .access = r_access, .readlink = r_readlink, .mknod = r_mknod, .mkdir = r_mkdir,
	.symlink = r_symlink, .link = r_link, .unlink = r_unlink, .rmdir = r_rmdir, .rename = r_rename,
	.open_file = r_open_file, .opened = r_opened, .create = r_create, .tmpfile = r_tmpfile,
	.read = r_read, .write = r_write,
	.flush = r_flush, .release = r_release, .fsync = r_fsync, .fallocate = r_fallocate,
	.copy_file_range = r_copy_file_range, .lseek = r_lseek, .ioctl = r_ioctl, .poll = r_poll,
	.opendir = r_opendir, .readdir = r_readdir, .releasedir = r_releasedir, .fsyncdir = r_fsyncdir,
	.getxattr = r_getxattr, .listxattr = r_listxattr, .setxattr = r_setxattr, .removexattr = r_removexattr,
	.getlk = r_getlk, .setlk = r_setlk, .interrupt = r_interrupt, .statfs = r_statfs, .syncfs = r_syncfs,
};

const struct fe_backend minimal_backend = {
	.abi = FE_BACKEND_ABI,
	.struct_size = sizeof(struct fe_backend),
	.name = "minimal",
	.node_size = sizeof(struct rec_node),
	.key_size = sizeof(((struct rec_node *)0)->name),
	.open = r_open, .close = r_close, .lookup = r_lookup, .forget = r_forget, .getattr = r_getattr,
};
