/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files: opened, read, written, released. Large reads and writes are many messages at once. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "backends/remote/remote.h"

#define FLIGHT	64u	/* messages of one request under way at a time */

static uint64_t fid_word(uint32_t epoch, uint32_t number)
{
	return (uint64_t)epoch << 32 | number;
}

static uint32_t flags_again(const struct remote *r, uint32_t flags)
{
	uint32_t p9 = p9_open_flags(flags & ~(uint32_t)O_TRUNC);

	/* The kernel reads pages of files that are open for writing only, to write them back whole. */
	if (r->writeback && (p9 & O_ACCMODE) == O_WRONLY)
		p9 = (p9 & ~(uint32_t)O_ACCMODE) | O_RDWR;
	if (flags & O_DIRECTORY)
		p9 |= P9_O_DIRECTORY;
	return p9;
}

/* A fid of its own, opened; the caller's. Gives `file` back. */
static int open_walked(struct op *op, struct fid *file, const struct r_key *key, uint32_t p9_flags,
		       struct fid **out)
{
	struct fid *f;
	int err = fid_clone(op, file->number, &f);

	fid_put(op, file);
	if (err)
		return err;
	err = call_lopen(op, f->number, p9_flags);
	if (err) {
		fid_put(op, f);
		return err;
	}
	f->key = *key;
	*out = f;
	return 0;
}

static int open_fid(struct op *op, const struct fe_node *node, uint32_t p9_flags, struct fid **out)
{
	struct fid *file;
	int err = node_fid(op, node, &file);

	return err ? err : open_walked(op, file, &r_node(node)->key, p9_flags, out);
}

int key_open(struct op *op, const struct r_key *key, uint32_t flags, struct fid **out)
{
	struct fid *file;
	int err = key_fid(op, key, &file);

	return err ? err : open_walked(op, file, key, p9_open_flags(flags), out);
}

int file_fid(struct op *op, const struct fe_node *node, const struct fe_handle *handle, uint32_t *out)
{
	struct r_file *file = r_file(handle);
	uint64_t word = __atomic_load_n(&file->fid, __ATOMIC_ACQUIRE);
	_cleanup_unlock_ pthread_mutex_t *held = NULL;
	struct fid *f;
	int err;

	if (!file->opened)
		return -EBADF;
	op->uid = file->uid;
	*out = (uint32_t)word;
	if (word >> 32 == op->epoch)
		return 0;
	held = fe_lock(&op->r->open_locks[handle->fh % 64]);
	word = __atomic_load_n(&file->fid, __ATOMIC_ACQUIRE);
	*out = (uint32_t)word;
	if (word >> 32 == op->epoch)
		return 0;
	err = open_fid(op, node, flags_again(op->r, file->flags), &f);
	if (err)
		return err;
	fid_keep(op, f);
	*out = f->number;
	__atomic_store_n(&file->fid, fid_word(op->epoch, f->number), __ATOMIC_RELEASE);
	return 0;
}

void file_opened(struct op *op, struct r_node *n, struct fid *f, uint32_t flags, unsigned char *record)
{
	struct r_file *file = (struct r_file *)(void *)record;

	f->key = n->key;
	__atomic_fetch_add(&n->opens, 1, __ATOMIC_ACQ_REL);
	file->flags = flags & ~(uint32_t)O_TRUNC;
	file->uid = op->uid;
	file->fid = fid_word(op->epoch, f->number);
	__atomic_store_n(&file->opened, 1, __ATOMIC_RELEASE);
	fid_keep(op, f);
}

/* The server acts for somebody whose writes leave these bits. */
static int kill_setid(struct op *op, struct fe_node *node)
{
	struct r_node *n = r_node(node);
	struct p9_setattr set = { .valid = P9_SET_MODE };
	uint32_t number;
	struct fid *f = NULL;
	int err;

	if (!(n->mode & (S_ISUID | S_ISGID)))
		return 0;
	set.mode = mode_killed(op->req, n);
	if (set.mode == (n->mode & 07777))
		return 0;
	err = attr_fid(op, node, &f, &number);
	if (!err)
		err = call_setattr(op, number, &set);
	if (!err)
		n->mode = (n->mode & S_IFMT) | set.mode;
	if (f)
		fid_put(op, f);
	return err;
}

static int open_file(struct op *op, struct fe_node *node, uint32_t flags, struct fe_open *out)
{
	uint32_t p9 = flags_again(op->r, flags) | (flags & O_TRUNC ? P9_O_TRUNC : 0);
	struct p9_attr a;
	struct fid *f;
	int err;

	/* Anything else would make the server wait, or do things to its devices. */
	if (r_node(node)->key.type != S_IFREG >> 12)
		return -EIO;
	err = open_fid(op, node, p9, &f);
	if (err)
		return err;
	err = flags & O_TRUNC && op->kill_setid ? kill_setid(op, node) : 0;
	if (!err)
		err = call_getattr(op, f->number, &a);
	if (!err && a.qid.path != r_node(node)->key.path)
		err = -ESTALE;
	/* Not every server heeds O_TRUNC. */
	if (!err && flags & O_TRUNC && (a.size || same_mtime(r_node(node), &a)))
		err = call_setattr_get(op, f->number, &(struct p9_setattr){ .valid = P9_SET_SIZE | P9_SET_MTIME }, &a);
	if (err) {
		fid_put(op, f);
		return err;
	}
	out->flags = op->r->locks ? 0 : FE_OPEN_NOFLUSH;
	if (data_unchanged(op->r, r_node(node), &a) && !(flags & O_TRUNC))
		out->flags |= FE_OPEN_KEEP_CACHE;
	file_opened(op, r_node(node), f, flags, out->record);
	return 0;
}

typedef int (*open_fn)(struct op *op, struct fe_node *node, uint32_t flags, struct fe_open *out);

static int open_one(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags,
		    uint32_t io_flags, struct fe_open *out, open_fn fn)
{
	_cleanup_op_ struct op op;

	if (flags & O_TRUNC)
		op_begin_file_change(&op, b, req, node);
	else
		op_begin(&op, b, req);
	op.kill_setid = io_flags & FE_IO_KILL_SUIDGID;
	while (op_next(&op))
		op.result = fn(&op, node, flags, out);
	return (int)op.result;
}

int remote_open_file(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags,
		     uint32_t io_flags, struct fe_open *out)
{
	return open_one(b, req, node, flags, io_flags, out, open_file);
}

/*
 * The kernel keeps listings for as long as it knows that the time of change is the same, and need not ask for one:
 * so the server opens the directory when it is listed. Where it checks permissions, it has to at once.
 */
static int open_dir_later(struct op *op, struct fe_node *node, struct fe_open *out)
{
	struct r_file *file = (struct r_file *)(void *)out->record;

	__atomic_fetch_add(&r_node(node)->opens, 1, __ATOMIC_ACQ_REL);
	file->flags = O_RDONLY | O_DIRECTORY;
	file->uid = op->uid;
	file->fid = 0;
	__atomic_store_n(&file->opened, 1, __ATOMIC_RELEASE);
	return 0;
}

static int open_dir(struct op *op, struct fe_node *node, uint32_t flags, struct fe_open *out)
{
	struct fid *f;
	int err;

	(void)flags;
	if (op->r->attr_valid)
		out->flags = FE_OPEN_CACHE_DIR | FE_OPEN_KEEP_CACHE;
	if (!op->r->per_user)
		return open_dir_later(op, node, out);
	err = open_fid(op, node, flags_again(op->r, O_RDONLY | O_DIRECTORY), &f);
	if (!err)
		file_opened(op, r_node(node), f, O_RDONLY | O_DIRECTORY, out->record);
	return err;
}

int remote_opendir(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags,
		   struct fe_open *out)
{
	return open_one(b, req, node, flags & ~(uint32_t)O_TRUNC, 0, out, open_dir);
}

/* ---- data ---- */

struct flight {
	struct rpc *rpc[FLIGHT];
	unsigned n;
};

static void flight_end(struct flight *f)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->rpc[i])
			rpc_end(f->rpc[i]);
}

#define _cleanup_flight_ __attribute__((cleanup(flight_end)))

static size_t chunk_size(const struct op *op)
{
	return __atomic_load_n(&op->r->client.msize, __ATOMIC_RELAXED) - P9_IOHDRSZ;
}

/* As much as goes at once. Returns what came in one piece; *short_at: less came than was asked for. */
static int64_t read_flight(struct op *op, uint32_t fid, unsigned char *buf, size_t size, uint64_t off, bool *ended)
{
	_cleanup_flight_ struct flight f = { .n = 0 };
	size_t chunk = chunk_size(op), at = 0, done = 0;
	int err = 0;

	*ended = false;
	while (at < size && f.n < FLIGHT) {
		size_t n = size - at < chunk ? size - at : chunk;

		f.rpc[f.n] = read_send(op, P9_TREAD, fid, off + at, buf + at, n);
		if (!f.rpc[f.n++])
			return -ENOMEM;
		at += n;
	}
	for (unsigned i = 0; i < f.n && !*ended; i++) {
		err = rpc_wait(f.rpc[i]);
		if (err)
			break;
		done += f.rpc[i]->data;
		*ended = f.rpc[i]->data < f.rpc[i]->room;
	}
	return err && !done ? err : err == LOST ? LOST : (int64_t)done;
}

static int64_t read_file(struct op *op, struct fe_node *node, struct fe_handle *handle, unsigned char *buf,
			 size_t size, uint64_t off)
{
	uint32_t fid;
	size_t done = 0;
	int err = file_fid(op, node, handle, &fid);

	if (!err)
		err = lock_ready(op, &r_node(node)->key);
	while (!err && done < size) {
		bool ended;
		int64_t n = read_flight(op, fid, buf + done, size - done, off + done, &ended);

		if (n < 0)
			return done && n != LOST ? (int64_t)done : n;
		done += (size_t)n;
		/* A server may return less at any time: it is the end where nothing more comes. */
		if (!n || (ended && off + done == __atomic_load_n(&r_node(node)->size, __ATOMIC_RELAXED)))
			break;
	}
	return err ? err : (int64_t)done;
}

ssize_t remote_read(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		    void *buf, size_t size, uint64_t off)
{
	_cleanup_op_ struct op op;

	if (size > INT64_MAX - off)
		size = INT64_MAX - off;
	op_begin(&op, b, req);
	while (op_next(&op))
		op.result = read_file(&op, node, handle, buf, size, off);
	return op.result;
}

static int64_t write_flight(struct op *op, uint32_t fid, const unsigned char *buf, size_t size, uint64_t off)
{
	_cleanup_flight_ struct flight f = { .n = 0 };
	size_t chunk = chunk_size(op), at = 0, done = 0;
	int err = 0;
	bool whole = true;

	while (at < size && f.n < FLIGHT) {
		size_t n = size - at < chunk ? size - at : chunk;

		f.rpc[f.n] = write_send(op, fid, off + at, buf + at, n);
		if (!f.rpc[f.n++])
			return -ENOMEM;
		at += n;
	}
	for (unsigned i = 0; i < f.n; i++) {
		uint32_t n;
		int e = rpc_wait(f.rpc[i]);

		if (e == LOST || e == -EINTR || e == -ETIMEDOUT)
			return e;
		if (e && whole)
			err = e;
		whole = whole && !e;
		if (!whole)
			continue;
		n = p9_get32(&f.rpc[i]->in);
		if (f.rpc[i]->in.bad || n > f.rpc[i]->payload_size)
			return -EIO;
		done += n;
		whole = n == f.rpc[i]->payload_size;
	}
	return err && !done ? err : (int64_t)done;
}

enum { APPENDS = 1 };

/* Where a file ends, for who appends to it: the same if it is done again. */
static int append_at(struct op *op, struct fe_node *node, uint64_t *off)
{
	struct fid *f = NULL;
	struct p9_attr a;
	uint32_t number;
	int err;

	if (op->again && op->intent->state == APPENDS) {
		memcpy(off, op->intent->data, sizeof(*off));
		return 0;
	}
	err = attr_fid(op, node, &f, &number);
	if (!err)
		err = call_getattr(op, number, &a);
	if (f)
		fid_put(op, f);
	if (!err && a.qid.path != r_node(node)->key.path)
		err = -ESTALE;
	if (err)
		return err;
	*off = a.size;
	memcpy(op->intent->data, off, sizeof(*off));
	__atomic_store_n(&op->intent->state, APPENDS, __ATOMIC_RELEASE);
	return 0;
}

static int64_t write_file(struct op *op, struct fe_node *node, struct fe_handle *handle, const unsigned char *buf,
			  size_t size, uint64_t off, uint32_t io_flags)
{
	uint32_t fid;
	size_t done = 0;
	int err = file_fid(op, node, handle, &fid);

	if (!err)
		err = lock_ready(op, &r_node(node)->key);
	if (!err && io_flags & FE_IO_KILL_SUIDGID)
		err = kill_setid(op, node);
	/* With a writeback cache only the kernel knows where the file ends: the offset counts. */
	if (!err && io_flags & FE_IO_APPEND && !op->r->writeback)
		err = append_at(op, node, &off);
	while (!err && done < size) {
		int64_t n = write_flight(op, fid, buf + done, size - done, off + done);

		if (n < 0)
			return done && n != LOST ? (int64_t)done : n;
		if (!n)
			return done ? (int64_t)done : -EIO;
		done += (size_t)n;
	}
	return err ? err : (int64_t)done;
}

ssize_t remote_write(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		     const void *buf, size_t size, uint64_t off, uint32_t io_flags)
{
	_cleanup_op_ struct op op;

	op_begin_file_change(&op, b, req, node);
	while (op_next(&op))
		op.result = write_file(&op, node, handle, buf, size, off, io_flags);
	return op.result;
}

void remote_release(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		    const struct fe_release *how)
{
	struct remote *r = b;
	struct r_file *file = r_file(handle);
	struct r_node *n = r_node(node);
	_cleanup_op_ struct op op;

	lock_release(r, req, &n->key, handle->fh, how);
	op_begin(&op, r, req);
	if (!__atomic_exchange_n(&file->opened, 0, __ATOMIC_ACQ_REL))
		return;
	op.epoch = (uint32_t)(file->fid >> 32);
	fid_close(&op, (uint32_t)file->fid, op.epoch);
	if (!__atomic_load_n(&n->opens, __ATOMIC_ACQUIRE) || __atomic_sub_fetch(&n->opens, 1, __ATOMIC_ACQ_REL))
		return;
	if (__atomic_load_n(&n->flags, __ATOMIC_ACQUIRE) & NODE_HIDDEN)
		hidden_end(r, req, node);
}

static int sync_file(struct op *op, struct fe_node *node, struct fe_handle *handle, int datasync)
{
	_cleanup_rpc_ struct rpc *r = NULL;
	uint32_t fid;
	int err = file_fid(op, node, handle, &fid);

	if (!err)
		err = lock_ready(op, &r_node(node)->key);
	if (err)
		return err;
	r = call_new(op, P9_TFSYNC, fid);
	if (r)
		p9_put32(&r->out, datasync ? 1 : 0);
	return call(op, r);
}

int remote_fsync(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		 int datasync)
{
	_cleanup_op_ struct op op;

	op_begin(&op, b, req);
	while (op_next(&op))
		op.result = sync_file(&op, node, handle, datasync);
	return (int)op.result;
}

int remote_fsyncdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		    int datasync)
{
	int err = remote_fsync(b, req, node, handle, datasync);

	/* To some servers a directory is nothing that could be synced. */
	return err == -EISDIR || err == -EINVAL || err == -EOPNOTSUPP ? 0 : err;
}
