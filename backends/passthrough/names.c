/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names: looked up, made, linked, renamed, removed. */
#include <errno.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"
#include "base/cleanup.h"

#define NS_PER_S 1000000000u

static int open_path(struct passthrough *pt, int parent, const char *name)
{
	struct open_how how = { .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_NO_XDEV };
	int fd;

	if (pt->confined)
		fd = (int)syscall(SYS_openat2, parent, name, &how, sizeof(how));
	else
		fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int entry_of_name(struct passthrough *pt, int parent, const char *name, struct fe_entry *out)
{
	int fd = open_path(pt, parent, name);

	return fd < 0 ? fd : entry_of_fd(pt, fd, true, out);
}

int pt_lookup(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, struct fe_entry *out)
{
	struct passthrough *pt = b;
	_cleanup_held_ struct held dir = { .fd = -1 };
	int err = node_hold(pt, parent, &dir);

	(void)req;
	return err ? err : entry_of_name(pt, dir.fd, name, out);
}

/*
 * A new file with set-group-ID and group execute loses the bit where its maker is not in the group
 * that the directory hands down. Kernels before 6.3 do not tell of supplementary groups: look.
 */
static struct fe_request with_group(struct passthrough *pt, const struct fe_request *req, int dir, uint32_t mode)
{
	struct fe_request out = *req;
	struct stat st;

	if (pt->privileged && req->uid && req->supp_group == FE_NO_GROUP && mode & S_ISGID && !fstat(dir, &st) &&
	    st.st_mode & S_ISGID && caller_in_group(req->pid, st.st_gid))
		out.supp_group = st.st_gid;
	return out;
}

/* What its file system rounds time stamps down to, at most: a power of ten, by its looks; FAT two seconds. */
static uint64_t grain_of(const struct statx_timestamp *t)
{
	uint64_t grain = 1;

	if (!t->tv_nsec)
		return UINT64_C(2) * NS_PER_S;
	while (!(t->tv_nsec % (grain * 10)))
		grain *= 10;
	return grain;
}

/*
 * Whether a name that is there already was made by this request, in a process that died: the kernel
 * found no such name, keeps the directory locked since, and the file was born after it asked.
 */
bool made_before(const struct fe_request *req, int dir, const char *name, mode_t type)
{
	struct statx st;
	const struct statx_timestamp *t = &st.stx_btime;

	if (!req->again || statx(dir, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &st))
		return false;
	if (!(st.stx_mask & STATX_BTIME))
		t = &st.stx_ctime;
	return (st.stx_mode & S_IFMT) == type &&
	       (uint64_t)t->tv_sec * NS_PER_S + t->tv_nsec >= req->since - req->since % grain_of(t);
}

int pt_mknod(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
	     uint32_t rdev, struct fe_entry *out)
{
	struct passthrough *pt = b;
	_cleanup_held_ struct held dir = { .fd = -1 };
	struct fe_request who;
	/* the kernel's encoding: 12 bits of major between the halves of the minor number */
	dev_t dev = makedev((rdev & 0xfff00) >> 8, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
	int err = node_hold(pt, parent, &dir);

	if (err)
		return err;
	who = with_group(pt, req, dir.fd, mode);
	creds_create(pt, &who);
	err = mknodat(dir.fd, name, mode, dev) ? -errno : 0;
	creds_server(pt);
	if (err == -EEXIST && made_before(req, dir.fd, name, mode & S_IFMT ? mode & S_IFMT : S_IFREG))
		err = 0;
	return err ? err : entry_of_name(pt, dir.fd, name, out);
}

int pt_mkdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t mode,
	     struct fe_entry *out)
{
	struct passthrough *pt = b;
	_cleanup_held_ struct held dir = { .fd = -1 };
	int err = node_hold(pt, parent, &dir);

	if (err)
		return err;
	creds_create(pt, req);
	err = mkdirat(dir.fd, name, mode) ? -errno : 0;
	creds_server(pt);
	if (err == -EEXIST && made_before(req, dir.fd, name, S_IFDIR))
		err = 0;
	return err ? err : entry_of_name(pt, dir.fd, name, out);
}

int pt_symlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, const char *target,
	       struct fe_entry *out)
{
	struct passthrough *pt = b;
	_cleanup_held_ struct held dir = { .fd = -1 };
	int err = node_hold(pt, parent, &dir);

	if (err)
		return err;
	creds_create(pt, req);
	err = symlinkat(target, dir.fd, name) ? -errno : 0;
	creds_server(pt);
	if (err == -EEXIST && made_before(req, dir.fd, name, S_IFLNK))
		err = 0;
	return err ? err : entry_of_name(pt, dir.fd, name, out);
}

static bool same_file(int dir, const char *name, int fd)
{
	struct stat a, b;

	return !fstatat(dir, name, &a, AT_SYMLINK_NOFOLLOW) && !fstat(fd, &b) && a.st_ino == b.st_ino &&
	       a.st_dev == b.st_dev;
}

int pt_link(void *b, const struct fe_request *req, struct fe_node *node, struct fe_node *parent, const char *name,
	    struct fe_entry *out)
{
	struct passthrough *pt = b;
	_cleanup_held_ struct held file = { .fd = -1 };
	_cleanup_held_ struct held dir = { .fd = -1 };
	int err = node_hold(pt, node, &file);

	if (!err)
		err = node_hold(pt, parent, &dir);
	if (err)
		return err;
	/* an empty path needs CAP_DAC_READ_SEARCH */
	if (pt->privileged)
		err = linkat(file.fd, "", dir.fd, name, AT_EMPTY_PATH);
	else
		err = linkat(AT_FDCWD, proc_path(file.fd).path, dir.fd, name, AT_SYMLINK_FOLLOW);
	err = err ? -errno : 0;
	if (err == -EEXIST && req->again && same_file(dir.fd, name, file.fd))
		err = 0;
	return err ? err : entry_of_node(pt, node, file.fd, out);
}

struct pin {
	struct passthrough *pt;
	int parent;
	const char *name;
};

static int pin_node(void *arg, struct fe_node *node)
{
	const struct pin *p = arg;
	struct pt_node *n = pt_node(node);
	struct stat st;
	int fd;

	if (n->fd >= 0)
		return 0;
	fd = openat(p->parent, p->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || (st.st_nlink > 1 && !S_ISDIR(st.st_mode))) {
		close(fd);
		return 0;
	}
	put_fd(p->pt, &n->fd, fd);
	return 0;
}

/*
 * Before the last name of a node goes: the kernel may still hold it (an open file, a working
 * directory), and a file handle of a file without a name opens nothing once its inode left memory.
 */
static void pin_name(struct passthrough *pt, int parent, const char *name)
{
	struct pin p = { pt, parent, name };
	struct pt_key key;

	if (!pt->handles || key_of_name(pt, parent, name, &key))
		return;
	pt->services->with_node(pt->host, &key, pin_node, &p);
}

static int remove_name(struct passthrough *pt, const struct fe_request *req, struct fe_node *parent,
		       const char *name, int flags)
{
	_cleanup_held_ struct held dir = { .fd = -1 };
	int err = node_hold(pt, parent, &dir);

	if (err)
		return err;
	pin_name(pt, dir.fd, name);
	if (!unlinkat(dir.fd, name, flags))
		return 0;
	/* The kernel knew the name and keeps it: this request removed it, in a process that died. */
	return errno == ENOENT && req->again ? 0 : -errno;
}

int pt_unlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name)
{
	return remove_name(b, req, parent, name, 0);
}

int pt_rmdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name)
{
	return remove_name(b, req, parent, name, AT_REMOVEDIR);
}

/* Where the source's name stays, only the file behind it tells whether a rename took place. */
static bool renamed(struct passthrough *pt, const struct fe_request *req, int from, const char *name, int to,
		    const char *newname)
{
	struct fe_intent *intent = req->intent;
	struct pt_key key;

	if (req->again && intent->state)
		return !key_of_name(pt, to, newname, &key) && !memcmp(&key, intent->data, sizeof(key));
	if (!key_of_name(pt, from, name, &key)) {
		memcpy(intent->data, &key, sizeof(key));
		__atomic_store_n(&intent->state, 1, __ATOMIC_RELEASE);
	}
	return false;
}

int pt_rename(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
	      struct fe_node *newparent, const char *newname, uint32_t flags)
{
	struct passthrough *pt = b;
	_cleanup_held_ struct held from = { .fd = -1 };
	_cleanup_held_ struct held to = { .fd = -1 };
	int err = node_hold(pt, parent, &from);

	if (!err)
		err = node_hold(pt, newparent, &to);
	if (err)
		return err;
	if (flags & (RENAME_EXCHANGE | RENAME_WHITEOUT) && req->intent && renamed(pt, req, from.fd, name, to.fd, newname))
		return 0;
	if (!(flags & (RENAME_NOREPLACE | RENAME_EXCHANGE)))
		pin_name(pt, to.fd, newname);
	if (flags & RENAME_WHITEOUT)
		creds_create(pt, req); /* it makes a node that has an owner */
	err = renameat2(from.fd, name, to.fd, newname, flags) ? -errno : 0;
	creds_server(pt);
	return err == -ENOENT && req->again ? 0 : err;
}

ssize_t pt_readlink(void *b, const struct fe_request *req, struct fe_node *node, char *buf, size_t size)
{
	_cleanup_held_ struct held link = { .fd = -1 };
	int err = node_hold(b, node, &link);
	ssize_t n;

	(void)req;
	if (err)
		return err;
	n = readlinkat(link.fd, "", buf, size);
	return n < 0 ? -errno : n;
}
