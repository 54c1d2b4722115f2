/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mirror SOURCE MOUNTPOINT [options of libfuse]: shows a directory tree, read-only, written with
 *libfuse's low-level interface. What it has answered once it is not asked again, by way of libextfuse;
 *changes that others make in the source are seen, for inotify tells of them. The extended attribute
 *user.upcalls of the mountpoint tells how often it was asked what.
 *
 *	cc -o mirror mirror.c nodes.c $(pkg-config --cflags --libs libextfuse fuse3) -lpthread
 */
#define FUSE_USE_VERSION 34

#include <dirent.h>
#include <errno.h>
#include <extfuse.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "mirror.h"

struct extfuse *cache;
static struct fuse_session *session;
static unsigned long lookups, getattrs, readlinks, reads, readdirs, xattrs;

/* ---- from what libfuse uses to what libextfuse takes, which is the kernel's, and back ---- */

static struct fuse_attr attr_of(const struct stat *st, uint64_t nodeid)
{
	return (struct fuse_attr){
		.ino = nodeid,
		.size = (uint64_t)st->st_size,
		.blocks = (uint64_t)st->st_blocks,
		.atime = (uint64_t)st->st_atim.tv_sec,
		.atimensec = (uint32_t)st->st_atim.tv_nsec,
		.mtime = (uint64_t)st->st_mtim.tv_sec,
		.mtimensec = (uint32_t)st->st_mtim.tv_nsec,
		.ctime = (uint64_t)st->st_ctim.tv_sec,
		.ctimensec = (uint32_t)st->st_ctim.tv_nsec,
		.mode = st->st_mode,
		.nlink = (uint32_t)st->st_nlink,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.rdev = (uint32_t)st->st_rdev,
		.blksize = (uint32_t)st->st_blksize,
	};
}

static double seconds(uint64_t sec, uint32_t nsec)
{
	return (double)sec + nsec / 1e9;
}

static void init(void *userdata, struct fuse_conn_info *conn)
{
	const struct extfuse_protocol protocol = { .struct_size = sizeof(protocol),
						   .minor = conn->proto_minor };
	int err = extfuse_attach(cache, fuse_session_fd(session), &protocol);

	(void)userdata;
	if (err) {
		fprintf(stderr, "mirror: %s\n", strerror(-err));
		exit(1);
	}
	err = watch_start();
	if (err)
		fprintf(stderr, "mirror: changes are not seen: %s\n", strerror(-err));
}

/* ---- what is asked once ---- */

static void lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	uint64_t stamp = extfuse_stamp(cache);
	struct fuse_entry_out out = { .nodeid = 0 };
	struct fuse_entry_param e = { .ino = 0 };
	int fd = node_fd(parent);

	lookups++;
	errno = ESTALE;
	out.nodeid = fd < 0 ? 0 : node_find(fd, name, &e.attr);
	if (!out.nodeid && errno != ENOENT) {
		fuse_reply_err(req, errno);
		return;
	}
	if (out.nodeid) {
		e.ino = out.nodeid;
		e.attr.st_ino = out.nodeid;
		out.attr = attr_of(&e.attr, e.ino);
		extfuse_put_entry(cache, stamp, parent, name, INDEX(e.ino), &out, 0);
	} else {
		extfuse_put_negative(cache, stamp, parent, name, &out, 0);
	}
	e.entry_timeout = seconds(out.entry_valid, out.entry_valid_nsec);
	e.attr_timeout = seconds(out.attr_valid, out.attr_valid_nsec);
	/* Nobody waits for it any more: then the kernel does not know of the lookup. */
	if (fuse_reply_entry(req, &e) == -ENOENT && e.ino)
		node_ungrant(e.ino, 1);
}

static void forget(fuse_req_t req, fuse_ino_t nodeid, uint64_t count)
{
	node_ungrant(nodeid, count);
	fuse_reply_none(req);
}

static void getattr(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi)
{
	uint64_t stamp = extfuse_stamp(cache);
	struct fuse_attr_out out = { .dummy = 0 };
	int fd = node_fd(nodeid);
	struct stat st;

	(void)fi;
	getattrs++;
	if (fd < 0 || fstat(fd, &st)) {
		fuse_reply_err(req, fd < 0 ? -fd : errno);
		return;
	}
	st.st_ino = nodeid;
	out.attr = attr_of(&st, nodeid);
	extfuse_put_attr(cache, stamp, nodeid, &out, 0);
	fuse_reply_attr(req, &st, seconds(out.attr_valid, out.attr_valid_nsec));
}

static void do_readlink(fuse_req_t req, fuse_ino_t nodeid)
{
	uint64_t stamp = extfuse_stamp(cache);
	int fd = node_fd(nodeid);
	char target[4096];
	ssize_t n;

	readlinks++;
	errno = ESTALE;
	n = fd < 0 ? -1 : readlinkat(fd, "", target, sizeof(target) - 1);
	if (n < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	target[n] = 0;
	extfuse_put_link(cache, stamp, nodeid, target, (size_t)n, 0);
	fuse_reply_readlink(req, target);
}

static void reply_xattr(fuse_req_t req, const char *value, ssize_t size, size_t room)
{
	if (size < 0)
		fuse_reply_err(req, (int)-size);
	else if (!room)
		fuse_reply_xattr(req, (size_t)size);
	else if ((size_t)size > room)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, value, (size_t)size);
}

static void do_getxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, size_t room)
{
	uint64_t stamp = extfuse_stamp(cache);
	int fd = node_fd(nodeid);
	static char value[65536];
	char path[64];
	ssize_t n;

	if (nodeid == FUSE_ROOT_ID && !strcmp(name, "user.upcalls")) {
		n = snprintf(value, sizeof(value),
			     "lookup=%lu getattr=%lu readlink=%lu read=%lu readdir=%lu xattr=%lu",
			     lookups, getattrs, readlinks, reads, readdirs, xattrs);
		reply_xattr(req, value, n, room);
		return;
	}
	xattrs++;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = fd < 0 ? -ESTALE : getxattr(path, name, value, sizeof(value));
	if (n == -1)
		n = -errno;
	extfuse_put_xattr(cache, stamp, nodeid, name, value, n, 0);
	reply_xattr(req, value, n, room);
}

/* ---- directories: when all of one was read, it is known what is not there ---- */

struct listing {
	DIR *dir;
	uint64_t stamp;
	struct extfuse_names names;
};

static void do_opendir(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi)
{
	struct listing *l = calloc(1, sizeof(*l));
	int fd = node_fd(nodeid);

	errno = ESTALE;
	fd = fd < 0 ? -1 : openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l && fd >= 0)
		l->dir = fdopendir(fd);
	if (!l || !l->dir) {
		fuse_reply_err(req, errno);
		if (fd >= 0)
			close(fd);
		free(l);
		return;
	}
	fi->fh = (uintptr_t)l;
	fuse_reply_open(req, fi);
}

static void do_readdir(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	struct listing *l = (struct listing *)(uintptr_t)fi->fh;
	char *buffer = malloc(size);
	struct dirent *d = NULL;
	size_t used = 0;

	readdirs++;
	if (!off) {
		rewinddir(l->dir);
		l->stamp = extfuse_stamp(cache);
		extfuse_names_clear(&l->names);
	} else {
		seekdir(l->dir, off);
	}
	while (buffer && (d = readdir(l->dir))) {
		struct stat st = { .st_ino = d->d_ino, .st_mode = (mode_t)d->d_type << 12 };
		size_t n = fuse_add_direntry(req, buffer + used, size - used, d->d_name, &st, d->d_off);

		if (n > size - used)
			break;
		used += n;
		extfuse_names_add(&l->names, d->d_name);
	}
	if (buffer && !d)
		extfuse_put_dir(cache, l->stamp, nodeid, &l->names);
	if (buffer)
		fuse_reply_buf(req, buffer, used);
	else
		fuse_reply_err(req, ENOMEM);
	free(buffer);
}

static void do_releasedir(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi)
{
	struct listing *l = (struct listing *)(uintptr_t)fi->fh;

	(void)nodeid;
	closedir(l->dir);
	free(l);
	fuse_reply_err(req, 0);
}

/* ---- data: the kernel's page cache is kept from one open to the next ---- */

static void do_open(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi)
{
	char path[64];
	int fd = node_fd(nodeid);

	errno = ESTALE;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = fd < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (fi->flags & O_ACCMODE) != O_RDONLY) {
		fuse_reply_err(req, fd < 0 ? errno : EROFS);
		if (fd >= 0)
			close(fd);
		return;
	}
	fi->fh = (uint64_t)fd;
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fuse_bufvec buf = FUSE_BUFVEC_INIT(size);

	(void)nodeid;
	reads++;
	buf.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	buf.buf[0].fd = (int)fi->fh;
	buf.buf[0].pos = off;
	fuse_reply_data(req, &buf, FUSE_BUF_SPLICE_MOVE);
}

static void do_release(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi)
{
	(void)nodeid;
	close((int)fi->fh);
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops operations = {
	.init = init,
	.lookup = lookup,
	.forget = forget,
	.getattr = getattr,
	.readlink = do_readlink,
	.getxattr = do_getxattr,
	.opendir = do_opendir,
	.readdir = do_readdir,
	.releasedir = do_releasedir,
	.open = do_open,
	.read = do_read,
	.release = do_release,
};

static int serve(const char *mountpoint, int foreground)
{
	int err = -EIO;

	if (fuse_set_signal_handlers(session))
		return err;
	if (!fuse_session_mount(session, mountpoint)) {
		fuse_daemonize(foreground);
		err = fuse_session_loop(session);
		fuse_session_unmount(session);
	}
	fuse_remove_signal_handlers(session);
	return err;
}

int main(int argc, char **argv)
{
	/* as long as inotify tells of changes, an answer is good for an hour */
	const struct extfuse_options o = {
		.struct_size = sizeof(o), .entry_ms = 3600000, .attr_ms = 3600000, .negative_ms = 3600000
	};
	struct fuse_args args = FUSE_ARGS_INIT(argc - 1, argv + 1);
	struct fuse_cmdline_opts opts;
	int err;

	if (argc < 3 || fuse_parse_cmdline(&args, &opts) || !opts.mountpoint) {
		fprintf(stderr, "usage: %s SOURCE MOUNTPOINT [options of libfuse]\n", argv[0]);
		return 2;
	}
	err = nodes_open(argv[1]);
	if (!err)
		err = extfuse_open(&o, &cache);
	session = err ? NULL : fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (session) {
		err = serve(opts.mountpoint, opts.foreground);
		fuse_session_destroy(session);
	}
	if (err < 0)
		fprintf(stderr, "%s: %s\n", argv[0], strerror(-err));
	free(opts.mountpoint);
	fuse_opt_free_args(&args);
	return err < 0;
}
