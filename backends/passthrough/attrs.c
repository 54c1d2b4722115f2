/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"
#include "base/cleanup.h"

int pt_getattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	       struct statx *out, uint64_t *valid)
{
	struct passthrough *pt = b;
	_cleanup_held_ struct held file = { .fd = -1 };
	int err;

	(void)req;
	if (handle) {
		err = stat_fd(pt, pt_file(handle)->fd, pt_node(node)->key.mount, out);
	} else {
		err = node_hold(pt, node, &file);
		if (!err)
			err = stat_fd(pt, file.fd, pt_node(node)->key.mount, out);
	}
	*valid = attr_valid_of(pt, out);
	return err;
}

static int set_mode(int fd, uint32_t mode)
{
	return chmod(proc_path(fd).path, mode & 07777) ? -errno : 0;
}

static int set_owner(int fd, const struct fe_setattr *set)
{
	uid_t uid = set->valid & FE_SET_UID ? set->uid : (uid_t)-1;
	gid_t gid = set->valid & FE_SET_GID ? set->gid : (gid_t)-1;

	return fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static struct timespec set_time(uint32_t valid, uint32_t bit, uint32_t now, struct fe_time t)
{
	if (valid & now)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	if (valid & bit)
		return (struct timespec){ .tv_sec = t.tv_sec, .tv_nsec = t.tv_nsec };
	return (struct timespec){ .tv_nsec = UTIME_OMIT };
}

static int set_times(int fd, const struct fe_setattr *set)
{
	struct timespec ts[2] = {
		set_time(set->valid, FE_SET_ATIME, FE_SET_ATIME_NOW, set->atime),
		set_time(set->valid, FE_SET_MTIME, FE_SET_MTIME_NOW, set->mtime),
	};

	if (!utimensat(fd, "", ts, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
		return 0;
	if (errno != EINVAL) /* Linux before 5.8 knows no empty path here */
		return -errno;
	return utimensat(AT_FDCWD, proc_path(fd).path, ts, 0) ? -errno : 0;
}

static bool has_setid(const struct stat *st)
{
	return !S_ISDIR(st->st_mode) && st->st_mode & (S_ISUID | S_ISGID);
}

static bool has_caps(int fd)
{
	return getxattr(proc_path(fd).path, "security.capability", NULL, 0) > 0;
}

/*
 * chown(-1, -1), or what the kernel sends before a write to a file with set-id bits or capabilities.
 * Only the first moves ctime, which is told where the kernel keeps the times (writeback).
 */
static bool changes_nothing(const struct fe_setattr *set)
{
	return !(set->valid & ~(uint32_t)(FE_SET_KILL_SUIDGID | FE_SET_CTIME));
}

static int change_owner(struct passthrough *pt, const struct fe_request *req, struct fe_node *node, int fd,
			const struct fe_setattr *set)
{
	struct stat st;
	int err;

	if (fstat(fd, &st))
		return -errno;
	if (changes_nothing(set) && (has_setid(&st) || has_caps(fd))) {
		bool owner = !req->uid || req->uid == st.st_uid;
		bool writes = !(set->valid & FE_SET_CTIME) && node->writers;

		/* Where it may be either, nothing: the write takes them away. */
		if (writes)
			return 0;
		if (!owner && has_setid(&st) && (st.st_mode & S_ISUID || !keeps_sgid(req, &st)))
			return -EPERM;
	}
	if (has_setid(&st) && !keeps_sgid(req, &st))
		creds_attr(pt, req);
	err = set_owner(fd, set);
	creds_server(pt);
	return err;
}

static int set_size(struct passthrough *pt, const struct fe_request *req, struct fe_node *node,
		    struct fe_handle *handle, int fd, const struct fe_setattr *set)
{
	uint32_t io_flags = set->valid & FE_SET_KILL_SUIDGID ? FE_IO_KILL_SUIDGID : 0;
	int err;

	/* ftruncate(2) moves the times in any case, truncate(2) only with the size. */
	if (handle)
		return truncate_node(pt, req, node, pt_file(handle)->fd, (off_t)set->size, io_flags);
	creds_truncate(pt, req, fd, io_flags);
	err = truncate(proc_path(fd).path, (off_t)set->size) ? -errno : 0;
	creds_server(pt);
	return err;
}

int pt_setattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	       const struct fe_setattr *set, struct statx *out, uint64_t *valid)
{
	const uint32_t times = FE_SET_ATIME | FE_SET_MTIME | FE_SET_ATIME_NOW | FE_SET_MTIME_NOW;
	struct passthrough *pt = b;
	_cleanup_held_ struct held file = { .fd = -1 };
	int err = node_hold(pt, node, &file);

	if (err)
		return err;
	if (set->valid & FE_SET_MODE)
		err = set_mode(file.fd, set->mode);
	if (!err && (set->valid & (FE_SET_UID | FE_SET_GID) || changes_nothing(set)))
		err = change_owner(pt, req, node, file.fd, set);
	if (!err && set->valid & FE_SET_SIZE)
		err = set_size(pt, req, node, handle, file.fd, set);
	if (!err && set->valid & times)
		err = set_times(file.fd, set);
	if (!err)
		err = stat_fd(pt, file.fd, pt_node(node)->key.mount, out);
	*valid = attr_valid_of(pt, out);
	return err;
}

int pt_statfs(void *b, const struct fe_request *req, struct fe_node *node, struct fe_statfs *out)
{
	_cleanup_held_ struct held file = { .fd = -1 };
	struct statfs st;
	int err = node_hold(b, node, &file);

	(void)req;
	if (err)
		return err;
	if (fstatfs(file.fd, &st))
		return -errno;
	*out = (struct fe_statfs){
		.blocks = st.f_blocks, .bfree = st.f_bfree, .bavail = st.f_bavail,
		.files = st.f_files, .ffree = st.f_ffree,
		.bsize = (uint32_t)st.f_bsize, .namelen = (uint32_t)st.f_namelen, .frsize = (uint32_t)st.f_frsize,
	};
	return 0;
}

int pt_syncfs(void *b, const struct fe_request *req, struct fe_node *node)
{
	_cleanup_close_ int fd = node_open(b, node, O_RDONLY | O_NONBLOCK | O_NOCTTY);

	(void)req;
	if (fd < 0)
		return fd;
	return syncfs(fd) ? -errno : 0;
}
