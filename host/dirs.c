/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Directory listings, with and without attributes. */
#include <errno.h>
#include <string.h>

#include "host/answers.h"

struct listing {
	struct fe_dirfill fill;
	struct call *call;
	size_t used;
	size_t size;
	bool plus;
	bool full;
	struct reading *reading;
};

static int64_t plus_entry(struct listing *l, const char *name, const struct fe_entry *given,
			  struct fuse_entry_out *out)
{
	struct call *c = l->call;
	struct fe_entry e;
	int err;

	entry_begin(c, &e);
	if (given) {
		memcpy(e.record, given->record, c->host->be->node_size);
		e.attr = given->attr;
		e.entry_valid = given->entry_valid;
		e.attr_valid = given->attr_valid;
	} else {
		err = c->host->be->lookup(c->host->priv, &c->req, &c->node, name, &e);
		if (err)
			return err;
	}
	return entry_finish(c, name, 0, &e, out);
}

static int listing_add(struct fe_dirfill *fill, const char *name, size_t len, uint64_t ino, unsigned type,
		       uint64_t next_off, const struct fe_entry *entry)
{
	struct listing *l = (struct listing *)fill;
	size_t head = l->plus ? sizeof(struct fuse_entry_out) : 0;
	size_t size = head + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + len);
	unsigned char *at = l->call->out + l->used;
	struct fuse_dirent *d = (void *)(at + head);
	bool dots = (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.');

	if (size > l->size - l->used) {
		l->full = true;
		return 1;
	}
	memset(at, 0, size);
	*d = (struct fuse_dirent){ .ino = ino, .off = next_off, .namelen = (uint32_t)len, .type = type };
	memcpy((unsigned char *)d + FUSE_NAME_OFFSET, name, len);
	/* A name that can not be looked up is listed without attributes: nodeid stays 0. */
	if (l->plus && !dots) {
		struct fuse_entry_out *out = (void *)at;

		if (plus_entry(l, name, entry, out) < 0)
			memset(out, 0, sizeof(*out));
		else
			d->ino = out->attr.ino;
	}
	l->used += size;
	fill->room = l->size - l->used;
	if (l->reading)
		reading_add(l->reading, name, len, next_off);
	return 0;
}

static int64_t list(struct call *c, bool plus)
{
	const struct fuse_read_in *in = (const void *)c->arg;
	struct listing l = {
		.fill = { .add = listing_add, .want_entry = plus },
		.call = c,
		.size = in->size < c->out_size ? in->size : c->out_size,
		.plus = plus,
	};
	struct fe_handle hd, *handle = NULL;
	struct handle *found = NULL;
	int err;

	if (!c->host->be->readdir)
		return -ENOSYS;
	if (c->host->be->opendir) {
		found = handle_get(c->host, in->fh, true, &hd);
		if (!found || found->nodeid != c->node.nodeid)
			return -EBADF;
		handle = &hd;
	}
	l.fill.room = l.size;
	l.reading = handle ? reading_begin(c, found, in->fh, in->offset) : NULL;
	err = c->host->be->readdir(c->host->priv, &c->req, &c->node, handle, in->offset, &l.fill);
	answers_accessed(c);
	if (l.reading)
		reading_end(c, l.reading, err, !l.used && !l.full);
	/* What was listed before the error stands: it comes back with the next call. */
	return err && !l.used ? err : (int64_t)l.used;
}

int64_t op_readdir(struct call *c)
{
	return list(c, false);
}

int64_t op_readdirplus(struct call *c)
{
	return list(c, true);
}

void undo_readdirplus(struct call *c, size_t size)
{
	/* Of the last one no more than the attributes may be counted: its name lies behind them already. */
	for (size_t at = 0; at + sizeof(struct fuse_entry_out) <= size; ) {
		struct fuse_direntplus *d = (void *)(c->out + at);

		if (d->entry_out.nodeid)
			node_forget(c->worker->slot, c->host, d->entry_out.nodeid, 1, &d->entry_out.nodeid, 0);
		at += sizeof(d->entry_out) + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + d->dirent.namelen);
	}
}

int64_t op_releasedir(struct call *c)
{
	const struct fuse_release_in *in = (const void *)c->arg;

	handle_remove(c->host, &c->req, in->fh, true, NULL);
	return 0;
}

int64_t op_fsyncdir(struct call *c)
{
	const struct fuse_fsync_in *in = (const void *)c->arg;
	struct fe_handle hd;
	struct handle *found = handle_get(c->host, in->fh, true, &hd);

	if (!c->host->be->fsyncdir)
		return -ENOSYS;
	if (c->host->be->opendir && (!found || found->nodeid != c->node.nodeid))
		return -EBADF;
	return c->host->be->fsyncdir(c->host->priv, &c->req, &c->node, c->host->be->opendir ? &hd : NULL,
				     !!(in->fsync_flags & FUSE_FSYNC_FDATASYNC));
}
