/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The handlers. Each runs under one lock, as one step that ends with its reply. */
#include <errno.h>
#include <stdio.h>		/* RENAME_* */
#include <string.h>
#include <sys/statvfs.h>

#include "handlers.h"

pthread_mutex_t memory_lock = PTHREAD_MUTEX_INITIALIZER;

static void begin(void)
{
	pthread_mutex_lock(&memory_lock);
#ifdef RECOVERABLE
	fr_begin(fr_fuse3_slot());
#endif
}

void end(void)
{
	pthread_mutex_unlock(&memory_lock);
}

void end_err(fuse_req_t req, int err)
{
	fuse_reply_err(req, err);
	end();
}

struct node *begin_with(fuse_req_t req, fuse_ino_t ino)
{
	struct node *n;

	begin();
	n = node_of(ino);
	if (!n)
		end_err(req, ESTALE);
	return n;
}

/* ---- names ---- */

static struct fuse_entry_param entry_of(struct node *n)
{
	set(n->nlookup, n->nlookup + 1);
	return (struct fuse_entry_param){ .ino = ino_of(n), .attr = attr_of(n) };
}

static void end_entry(fuse_req_t req, struct node *n)
{
	struct fuse_entry_param e = entry_of(n);

	fuse_reply_entry(req, &e);
	end();
}

static void mem_lookup(fuse_req_t req, fuse_ino_t parent, const char *text)
{
	struct node *dir = begin_with(req, parent);
	struct name *name;

	if (!dir)
		return;
	name = find_name(dir, text);
	if (name)
		end_entry(req, &store->node[name->node]);
	else
		end_err(req, strlen(text) < NAME_SIZE ? ENOENT : ENAMETOOLONG);
}

/* A node with a name; NULL with the error, which is for end_err(). */
static struct node *make(fuse_req_t req, struct node *dir, const char *text, mode_t mode,
			 dev_t rdev, int *err)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	gid_t gid = dir->mode & S_ISGID ? dir->gid : ctx->gid;
	struct node *n;

	*err = EEXIST;
	if (find_name(dir, text))
		return NULL;
	*err = ENOSPC;
	if (S_ISDIR(mode))
		mode |= dir->mode & S_ISGID;
	n = new_node(mode, ctx->uid, gid, rdev);
	if (!n)
		return NULL;
	*err = -add_name(dir, text, n);
	if (!*err)
		return n;
	maybe_free(n);
	return NULL;
}

static void make_and_reply(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode,
			   dev_t rdev)
{
	struct node *dir = begin_with(req, parent), *n;
	int err;

	if (!dir)
		return;
	n = make(req, dir, text, mode, rdev, &err);
	if (n)
		end_entry(req, n);
	else
		end_err(req, err);
}

static void mem_mknod(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode,
		      dev_t rdev)
{
	make_and_reply(req, parent, text, mode, rdev);
}

static void mem_mkdir(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode)
{
	make_and_reply(req, parent, text, S_IFDIR | (mode & 07777), 0);
}

static void mem_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *text)
{
	struct node *dir = begin_with(req, parent), *n;
	int err;

	if (!dir)
		return;
	n = make(req, dir, text, S_IFLNK | 0777, 0, &err);
	if (n && write_data(n, target, strlen(target), 0) != (int)strlen(target)) {
		remove_name(find_name(dir, text));
		maybe_free(n);
		n = NULL;
		err = ENOSPC;
	}
	if (n)
		end_entry(req, n);
	else
		end_err(req, err);
}

static void mem_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct node *n = begin_with(req, ino);
	char target[BLOCK];

	if (!n)
		return;
	target[read_data(n, target, sizeof(target) - 1, 0)] = 0;
	fuse_reply_readlink(req, target);
	end();
}

static void mem_create(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode,
		       struct fuse_file_info *fi)
{
	struct node *dir = begin_with(req, parent), *n;
	struct fuse_entry_param e;
	int err;

	if (!dir)
		return;
	n = make(req, dir, text, S_IFREG | (mode & 07777), 0, &err);
	if (!n) {
		end_err(req, err);
		return;
	}
	set(n->opens, n->opens + 1);
	e = entry_of(n);
	fuse_reply_create(req, &e, fi);
	end();
}

static void mem_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *text)
{
	struct node *n = begin_with(req, ino), *dir = n ? node_of(parent) : NULL;
	int err;

	if (!n)
		return;
	err = !dir ? ESTALE : find_name(dir, text) ? EEXIST : !n->links ? ENOENT : 0;
	if (!err)
		err = -add_name(dir, text, n);
	if (err)
		end_err(req, err);
	else
		end_entry(req, n);
}

static void remove_and_reply(fuse_req_t req, fuse_ino_t parent, const char *text)
{
	struct node *dir = begin_with(req, parent), *n;
	struct name *name;

	if (!dir)
		return;
	name = find_name(dir, text);
	n = name ? &store->node[name->node] : NULL;
	if (!n || n->first) {
		end_err(req, n ? ENOTEMPTY : ENOENT);
		return;
	}
	remove_name(name);
	maybe_free(n);
	end_err(req, 0);
}

static void mem_unlink(fuse_req_t req, fuse_ino_t parent, const char *text)
{
	remove_and_reply(req, parent, text);
}

static void mem_rmdir(fuse_req_t req, fuse_ino_t parent, const char *text)
{
	remove_and_reply(req, parent, text);
}

static int move(struct node *from, struct name *name, struct node *to, const char *text,
		unsigned flags)
{
	struct node *n = &store->node[name->node], *old;
	struct name *there = find_name(to, text);
	char text_before[NAME_SIZE];
	int err;

	old = there ? &store->node[there->node] : NULL;
	if (old == n)
		return 0;
	if (flags & RENAME_EXCHANGE ? !old : old && (flags & RENAME_NOREPLACE))
		return old ? -EEXIST : -ENOENT;
	if (old && old->first && !(flags & RENAME_EXCHANGE))
		return -ENOTEMPTY;
	strcpy(text_before, name->text);
	remove_name(name);
	if (old)
		remove_name(there);
	err = add_name(to, text, n);
	/* What goes makes room for what comes: only too long a name can fail. */
	if (err)
		add_name(from, text_before, n);
	else if (flags & RENAME_EXCHANGE)
		add_name(from, text_before, old);
	if (old)
		maybe_free(old);
	return err;
}

static void mem_rename(fuse_req_t req, fuse_ino_t parent, const char *text, fuse_ino_t newparent,
		       const char *newtext, unsigned flags)
{
	struct node *from = begin_with(req, parent), *to = from ? node_of(newparent) : NULL;
	struct name *name = from ? find_name(from, text) : NULL;

	if (!from)
		return;
	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE))
		end_err(req, EINVAL);
	else if (!to || !name)
		end_err(req, to ? ENOENT : ESTALE);
	else
		end_err(req, -move(from, name, to, newtext, flags));
}

/* ---- what the kernel holds ---- */

static void mem_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	begin();
	for (size_t i = 0; i < count; i++) {
		struct node *n = node_of(forgets[i].ino);

		if (!n || forgets[i].ino == FUSE_ROOT_ID)
			continue;
		set(n->nlookup, n->nlookup - forgets[i].nlookup);
		maybe_free(n);
	}
#ifdef RECOVERABLE
	fr_slot_reply(fr_fuse3_slot(), 0);	/* no other reply ends the step */
#endif
	end();
	fuse_reply_none(req);
}

static void mem_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	mem_forget_multi(req, 1, &(struct fuse_forget_data){ .ino = ino, .nlookup = nlookup });
}

static void mem_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = begin_with(req, ino);

	if (!n)
		return;
	set(n->opens, n->opens + 1);
	fuse_reply_open(req, fi);
	end();
}

static void mem_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = begin_with(req, ino);

	(void)fi;
	if (!n)
		return;
	set(n->opens, n->opens - 1);
	maybe_free(n);
	end_err(req, 0);
}

/* ---- attributes ---- */

static void end_attr(fuse_req_t req, const struct node *n)
{
	struct stat st = attr_of(n);

	fuse_reply_attr(req, &st, 0);
	end();
}

static void mem_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = begin_with(req, ino);

	(void)fi;
	if (n)
		end_attr(req, n);
}

static void change(struct node *n, const struct stat *attr, int to_set)
{
	if (to_set & FUSE_SET_ATTR_MODE)
		set(n->mode, (n->mode & S_IFMT) | (attr->st_mode & 07777));
	if (to_set & FUSE_SET_ATTR_UID)
		set(n->uid, attr->st_uid);
	if (to_set & FUSE_SET_ATTR_GID)
		set(n->gid, attr->st_gid);
	touch(n, CHANGED);
	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		set(n->atime, n->ctime);
	else if (to_set & FUSE_SET_ATTR_ATIME)
		set(n->atime, attr->st_atim);
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		set(n->mtime, n->ctime);
	else if (to_set & FUSE_SET_ATTR_MTIME)
		set(n->mtime, attr->st_mtim);
}

static void mem_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
			struct fuse_file_info *fi)
{
	struct node *n = begin_with(req, ino);
	int err = 0;

	(void)fi;
	if (!n)
		return;
	if (to_set & FUSE_SET_ATTR_SIZE)
		err = -set_size(n, (uint64_t)attr->st_size);
	if (err) {
		end_err(req, err);
		return;
	}
	change(n, attr, to_set);
	end_attr(req, n);
}

/* ---- data ---- */

static void mem_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	static char data[LISTING];	/* under the lock */
	struct node *n = begin_with(req, ino);

	(void)fi;
	if (!n)
		return;
	size = read_data(n, data, size < sizeof(data) ? size : sizeof(data), (uint64_t)off);
	fuse_reply_buf(req, data, size);
	end();
}

static void mem_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		      struct fuse_file_info *fi)
{
	struct node *n = begin_with(req, ino);
	int done;

	(void)fi;
	if (!n)
		return;
	done = write_data(n, buf, size, (uint64_t)off);
	if (done < 0)
		fuse_reply_err(req, -done);
	else
		fuse_reply_write(req, (size_t)done);
	end();
}

static void mem_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st = { .f_bsize = BLOCK, .f_frsize = BLOCK, .f_namemax = NAME_SIZE - 1 };

	(void)ino;
	begin();
	st.f_blocks = BLOCKS - 1;
	st.f_files = NODES - 1;
	st.f_bfree = st.f_bavail = st.f_blocks - store->blocks.used;
	st.f_ffree = st.f_favail = st.f_files - 1 - store->nodes.used;
	fuse_reply_statfs(req, &st);
	end();
}

static void mem_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_write = MOST;
}

const struct fuse_lowlevel_ops memory_ops = {
	.init = mem_init,
	.lookup = mem_lookup,
	.forget = mem_forget,
	.forget_multi = mem_forget_multi,
	.getattr = mem_getattr,
	.setattr = mem_setattr,
	.readlink = mem_readlink,
	.mknod = mem_mknod,
	.mkdir = mem_mkdir,
	.unlink = mem_unlink,
	.rmdir = mem_rmdir,
	.symlink = mem_symlink,
	.rename = mem_rename,
	.link = mem_link,
	.open = mem_open,
	.read = mem_read,
	.write = mem_write,
	.release = mem_release,
	.opendir = mem_open,
	.readdir = mem_readdir,
	.readdirplus = mem_readdirplus,
	.releasedir = mem_release,
	.statfs = mem_statfs,
	.setxattr = mem_setxattr,
	.getxattr = mem_getxattr,
	.listxattr = mem_listxattr,
	.removexattr = mem_removexattr,
	.create = mem_create,
};
