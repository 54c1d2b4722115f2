/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/vm/server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUFFER (1 << 20)
#define MAX_IO (128 << 10)

struct request {
	struct fs *fs;
	int fd;
	const struct fuse_in_header *h;
	const void *in;
	struct node *node;
};

int fs_threads = 4;
static bool serving;

static void die(const char *what)
{
	fprintf(stderr, "server: %s: %s\n", what, strerror(errno));
	/* Or who waits for an answer would wait for ever. */
	if (serving)
		kill(getppid(), SIGKILL);
	exit(3);
}

static void lock(struct fs *fs)
{
	while (atomic_flag_test_and_set(&fs->lock))
		sched_yield();
}

static void unlock(struct fs *fs)
{
	atomic_flag_clear(&fs->lock);
}

/* ---- nodes and names ---- */

struct node *fs_node(struct fs *fs, uint64_t id)
{
	for (int i = 0; i < fs->n_nodes; i++) {
		if (fs->nodes[i].id == id)
			return &fs->nodes[i];
	}
	return NULL;
}

static struct name *find_name(struct fs *fs, uint64_t parent, const char *name)
{
	for (int i = 0; i < fs->n_names; i++) {
		if (fs->names[i].parent == parent && !strcmp(fs->names[i].name, name))
			return &fs->names[i];
	}
	return NULL;
}

uint64_t fs_child(struct fs *fs, uint64_t parent, const char *name)
{
	struct name *n = find_name(fs, parent, name);

	return n ? n->child : 0;
}

static void add_name(struct fs *fs, uint64_t parent, const char *name, uint64_t child)
{
	struct name *n = NULL;

	for (int i = 0; i < fs->n_names && !n; i++) {
		if (!fs->names[i].parent)
			n = &fs->names[i];
	}
	if (!n && fs->n_names == NAMES)
		die("too many names");
	if (!n)
		n = &fs->names[fs->n_names++];
	snprintf(n->name, sizeof(n->name), "%s", name);
	n->child = child;
	n->parent = parent;
	fs_node(fs, parent)->changes++;
}

static struct node *add_node(struct fs *fs, uint32_t mode)
{
	struct node *n = &fs->nodes[fs->n_nodes];

	if (fs->n_nodes == NODES)
		die("too many nodes");
	fs->n_nodes++;
	n->mode = mode;
	n->nlink = S_ISDIR(mode) ? 2 : 1;
	n->id = atomic_fetch_add(&fs->next_id, 1);
	return n;
}

static void remove_name(struct fs *fs, struct name *n)
{
	struct node *child = fs_node(fs, n->child);

	child->nlink--;
	child->changes++;
	fs_node(fs, n->parent)->changes++;
	n->parent = 0;
}

void fs_attr(const struct node *n, struct fuse_attr *attr)
{
	memset(attr, 0, sizeof(*attr));
	attr->ino = n->id;
	attr->mode = n->mode;
	attr->nlink = n->nlink;
	attr->uid = n->uid;
	attr->size = n->size;
	attr->blksize = 4096;
	attr->ctime = attr->mtime = 1000 + n->changes;
}

void fs_entry(const struct node *n, struct fuse_entry_out *entry)
{
	memset(entry, 0, sizeof(*entry));
	entry->nodeid = n->id;
	entry->generation = 1;
	fs_attr(n, &entry->attr);
}

/* ---- answers ---- */

static void reply(const struct request *r, int error, const void *data, size_t size)
{
	char buffer[sizeof(struct fuse_out_header) + MAX_IO];
	struct fuse_out_header *out = (void *)buffer;

	out->unique = r->h->unique;
	out->error = error;
	out->len = sizeof(*out) + (error ? 0 : size);
	if (!error && size)
		memcpy(out + 1, data, size);
	if (write(r->fd, buffer, out->len) < 0 && errno != ENOENT && errno != ENODEV)
		die("reply");
}

static void reply_attr(const struct request *r)
{
	struct fuse_attr_out out = { .attr_valid = r->fs->valid };

	fs_attr(r->node, &out.attr);
	reply(r, 0, &out, sizeof(out));
}

static void reply_entry(const struct request *r, struct node *n)
{
	struct fuse_entry_out out;

	fs_entry(n, &out);
	out.entry_valid = out.attr_valid = r->fs->valid;
	atomic_fetch_add(&n->lookups, 1);
	reply(r, 0, &out, sizeof(out));
}

static void do_init(const struct request *r)
{
	const struct fuse_init_in *in = r->in;
	uint32_t wanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_ASYNC_DIO |
		FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2;
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = 31,
		.max_readahead = in->max_readahead,
		.flags = in->flags & wanted,
		.max_write = MAX_IO,
		.max_background = 12,
		.max_pages = MAX_IO / 4096,
		.time_gran = 1,
	};

	reply(r, 0, &out, sizeof(out));
}

static void make(const struct request *r, const char *name, uint32_t mode, const char *target)
{
	struct node *n;

	if (find_name(r->fs, r->h->nodeid, name)) {
		reply(r, -EEXIST, NULL, 0);
		return;
	}
	n = add_node(r->fs, mode);
	if (target)
		snprintf(n->target, sizeof(n->target), "%s", target);
	add_name(r->fs, r->h->nodeid, name, n->id);
	if (S_ISDIR(mode))
		r->node->nlink++;
	reply_entry(r, n);
}

static void do_create(const struct request *r)
{
	const struct fuse_create_in *in = r->in;
	const char *name = (const char *)(in + 1);
	bool nameless = r->h->opcode == FUSE_TMPFILE;
	struct node *n = nameless ? NULL : fs_node(r->fs, fs_child(r->fs, r->h->nodeid, name) ?: UINT64_MAX);
	struct { struct fuse_entry_out entry; struct fuse_open_out open; } out = { 0 };

	if (!n) {
		n = add_node(r->fs, S_IFREG | (in->mode & 07777));
		if (nameless)
			n->nlink = 0;
		else
			add_name(r->fs, r->h->nodeid, name, n->id);
	} else if (in->flags & O_TRUNC) {
		n->size = 0;
		n->changes++;
	}
	fs_entry(n, &out.entry);
	atomic_fetch_add(&n->lookups, 1);
	reply(r, 0, &out, sizeof(out));
}

static void do_setattr(const struct request *r)
{
	const struct fuse_setattr_in *in = r->in;

	if (in->valid & FATTR_MODE)
		r->node->mode = (r->node->mode & S_IFMT) | (in->mode & 07777);
	if (in->valid & FATTR_SIZE)
		r->node->size = in->size;
	if (in->valid & FATTR_UID)
		r->node->uid = in->uid;
	r->node->changes++;
	reply_attr(r);
}

static void do_remove(const struct request *r)
{
	struct name *n = find_name(r->fs, r->h->nodeid, r->in);

	if (!n) {
		reply(r, -ENOENT, NULL, 0);
		return;
	}
	if (r->h->opcode == FUSE_RMDIR) {
		r->node->nlink--;
		fs_node(r->fs, n->child)->nlink--;
	}
	remove_name(r->fs, n);
	reply(r, 0, NULL, 0);
}

static void do_rename(const struct request *r)
{
	const struct fuse_rename2_in *in = r->in;
	bool second = r->h->opcode == FUSE_RENAME2;
	const char *from = (const char *)r->in + (second ? sizeof(*in) : sizeof(struct fuse_rename_in));
	const char *to = from + strlen(from) + 1;
	struct name *a = find_name(r->fs, r->h->nodeid, from), *b = find_name(r->fs, in->newdir, to);
	uint64_t child;

	if (!a) {
		reply(r, -ENOENT, NULL, 0);
		return;
	}
	fs_node(r->fs, r->h->nodeid)->changes++;
	fs_node(r->fs, a->child)->changes++;
	if (second && in->flags & 2 /* RENAME_EXCHANGE */) {
		child = a->child;
		a->child = b->child;
		b->child = child;
		fs_node(r->fs, a->child)->changes++;
		fs_node(r->fs, in->newdir)->changes++;
	} else {
		child = a->child;
		if (b)
			remove_name(r->fs, b);
		a->parent = 0;
		add_name(r->fs, in->newdir, to, child);
	}
	reply(r, 0, NULL, 0);
}

static void do_link(const struct request *r)
{
	const struct fuse_link_in *in = r->in;
	struct node *n = fs_node(r->fs, in->oldnodeid);

	n->nlink++;
	n->changes++;
	add_name(r->fs, r->h->nodeid, (const char *)(in + 1), n->id);
	reply_entry(r, n);
}

static void do_open(const struct request *r)
{
	const struct fuse_open_in *in = r->in;
	struct fuse_open_out out = { .open_flags = r->fs->opens_direct ? FOPEN_DIRECT_IO : 0 };

	if (r->h->opcode == FUSE_OPEN && in->flags & O_TRUNC) {
		r->node->size = 0;
		r->node->changes++;
	}
	reply(r, 0, &out, sizeof(out));
}

static void do_read(const struct request *r)
{
	static const char zeros[MAX_IO];
	const struct fuse_read_in *in = r->in;
	uint64_t left = in->offset < r->node->size ? r->node->size - in->offset : 0;

	reply(r, 0, zeros, left < in->size ? left : in->size);
}

static void do_write(const struct request *r)
{
	const struct fuse_write_in *in = r->in;
	struct fuse_write_out out = { .size = in->size };

	if (in->offset + in->size > r->node->size)
		r->node->size = in->offset + in->size;
	r->node->changes++;
	reply(r, 0, &out, sizeof(out));
}

static void do_getxattr(const struct request *r)
{
	const struct fuse_getxattr_in *in = r->in;
	struct fuse_getxattr_out out = { .size = r->node->xattr_size };
	bool is_list = r->h->opcode == FUSE_LISTXATTR;
	const char *data = is_list ? "user.x" : r->node->xattr;

	if (is_list && out.size)
		out.size = sizeof("user.x");
	if (!is_list && (!out.size || strcmp((const char *)(in + 1), "user.x")))
		reply(r, -ENODATA, NULL, 0);
	else if (!in->size)
		reply(r, 0, &out, sizeof(out));
	else if (in->size < out.size)
		reply(r, -ERANGE, NULL, 0);
	else
		reply(r, 0, data, out.size);
}

static void do_setxattr(const struct request *r)
{
	const struct fuse_setxattr_in *in = r->in;
	/* Without FUSE_SETXATTR_EXT. */
	const char *name = (const char *)r->in + FUSE_COMPAT_SETXATTR_IN_SIZE;

	r->node->changes++;
	if (!strcmp(name, "user.x")) {
		r->node->xattr_size = in->size;
		memcpy(r->node->xattr, name + strlen(name) + 1, in->size);
	}
	reply(r, 0, NULL, 0);
}

static void forget(struct fs *fs, uint64_t id, uint64_t n)
{
	struct node *node = fs_node(fs, id);

	if (node)
		atomic_fetch_add(&node->forgotten, n);
}

static void do_batch_forget(const struct request *r)
{
	const struct fuse_batch_forget_in *in = r->in;
	const struct fuse_forget_one *one = (const void *)(in + 1);

	for (uint32_t i = 0; i < in->count; i++)
		forget(r->fs, one[i].nodeid, one[i].nlookup);
}

static void do_lookup(const struct request *r)
{
	uint64_t id = fs_child(r->fs, r->h->nodeid, r->in);

	if (id)
		reply_entry(r, fs_node(r->fs, id));
	else
		reply(r, -ENOENT, NULL, 0);
}

static void touch(const struct request *r, uint64_t size)
{
	r->node->changes++;
	if (size > r->node->size)
		r->node->size = size;
	reply(r, 0, NULL, 0);
}

static void serve(const struct request *r)
{
	struct fuse_statfs_out statfs = { .st = { .bsize = 4096, .namelen = 255, .blocks = 1000 } };

	switch (r->h->opcode) {
	case FUSE_INIT: return do_init(r);
	case FUSE_LOOKUP: return do_lookup(r);
	case FUSE_FORGET: return forget(r->fs, r->h->nodeid, ((struct fuse_forget_in *)r->in)->nlookup);
	case FUSE_BATCH_FORGET: return do_batch_forget(r);
	case FUSE_INTERRUPT: return;
	case FUSE_GETATTR: return reply_attr(r);
	case FUSE_SETATTR: return do_setattr(r);
	case FUSE_READLINK: return reply(r, 0, r->node->target, strlen(r->node->target));
	case FUSE_MKNOD:
		return make(r, (char *)r->in + sizeof(struct fuse_mknod_in),
			((struct fuse_mknod_in *)r->in)->mode, NULL);
	case FUSE_MKDIR:
		return make(r, (char *)r->in + sizeof(struct fuse_mkdir_in),
			S_IFDIR | ((struct fuse_mkdir_in *)r->in)->mode, NULL);
	case FUSE_SYMLINK: return make(r, r->in, S_IFLNK | 0777, (char *)r->in + strlen(r->in) + 1);
	case FUSE_CREATE: case FUSE_TMPFILE: return do_create(r);
	case FUSE_UNLINK: case FUSE_RMDIR: return do_remove(r);
	case FUSE_RENAME: case FUSE_RENAME2: return do_rename(r);
	case FUSE_LINK: return do_link(r);
	case FUSE_OPEN: case FUSE_OPENDIR: return do_open(r);
	case FUSE_READ: return do_read(r);
	case FUSE_WRITE: return do_write(r);
	case FUSE_STATFS: return reply(r, 0, &statfs, sizeof(statfs));
	case FUSE_GETXATTR: case FUSE_LISTXATTR: return do_getxattr(r);
	case FUSE_SETXATTR: return do_setxattr(r);
	case FUSE_REMOVEXATTR:
		r->node->xattr_size = 0;
		return touch(r, 0);
	case FUSE_FALLOCATE: {
		const struct fuse_fallocate_in *in = r->in;
		return touch(r, in->offset + in->length);
	}
	case FUSE_COPY_FILE_RANGE: {
		const struct fuse_copy_file_range_in *in = r->in;
		struct fuse_write_out out = { .size = in->len };
		struct node *to = fs_node(r->fs, in->nodeid_out);

		to->changes++;
		if (in->off_out + in->len > to->size)
			to->size = in->off_out + in->len;
		return reply(r, 0, &out, sizeof(out));
	}
	case FUSE_IOCTL: {
		const struct fuse_ioctl_in *in = r->in;
		struct { struct fuse_ioctl_out out; char data[256]; } out = { 0 };
		r->node->changes++;
		return reply(r, 0, &out, sizeof(out.out) + in->out_size);
	}
	case FUSE_READDIR: case FUSE_RELEASE: case FUSE_RELEASEDIR:
	case FUSE_FLUSH: case FUSE_FSYNC: case FUSE_ACCESS:
		return reply(r, 0, NULL, 0);
	default: return reply(r, -ENOSYS, NULL, 0);
	}
}

static void wait_where_held(struct fs *fs, uint32_t opcode)
{
	if (!opcode || (uint32_t)fs->hold != opcode)
		return;
	atomic_fetch_add(&fs->held, 1);
	while ((uint32_t)fs->hold == opcode)
		usleep(1000);
	atomic_fetch_sub(&fs->held, 1);
}

static void *serve_all(void *arg)
{
	struct mounted *m = arg;
	char *buffer = malloc(BUFFER);
	const struct fuse_in_header *h = (void *)buffer;

	for (;;) {
		ssize_t n = read(m->fuse_fd, buffer, BUFFER);

		if (n < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
			continue;
		if (n < 0)
			_exit(errno == ENODEV ? 0 : 4);
		struct request r = { m->fs, m->fuse_fd, h, h + 1, fs_node(m->fs, h->nodeid) };

		atomic_fetch_add(&m->fs->asked[h->opcode % OPCODES], 1);
		wait_where_held(m->fs, h->opcode);
		lock(m->fs);
		serve(&r);
		unlock(m->fs);
	}
}

/* ---- mounts ---- */

static void run_server(struct mounted *m)
{
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	serving = true;
	for (int i = 1; i < fs_threads; i++)
		pthread_create(&thread, NULL, serve_all, m);
	serve_all(m);
}

struct mounted *fs_mount(const char *path)
{
	struct mounted *m = calloc(1, sizeof(*m));
	char options[128];

	m->fs = mmap(NULL, sizeof(*m->fs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (m->fs == MAP_FAILED)
		die("mmap");
	m->fs->next_id = 1;
	add_node(m->fs, S_IFDIR | 0777);
	m->fs->nodes[0].uid = 0;
	snprintf(m->path, sizeof(m->path), "%s", path);
	mkdir(path, 0777);
	m->fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other",
		m->fuse_fd);
	if (m->fuse_fd < 0 || mount("vm", path, "fuse.vm", 0, options) < 0)
		die("mount");
	m->server = fork();
	if (!m->server) {
		run_server(m);
		_exit(0);
	}
	return m;
}

void fs_kill(struct mounted *m)
{
	kill(m->server, SIGKILL);
	waitpid(m->server, NULL, 0);
	m->server = 0;
}

void fs_umount(struct mounted *m)
{
	if (umount2(m->path, 0) < 0)
		umount2(m->path, MNT_DETACH);
	if (m->server)
		fs_kill(m);
	close(m->fuse_fd);
	munmap(m->fs, sizeof(*m->fs));
	free(m);
}
