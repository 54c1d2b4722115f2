/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names: looked up, made, linked, renamed, removed, forgotten. */
#include <errno.h>
#include <string.h>

#include "host/answers.h"

void entry_begin(struct call *c, struct fe_entry *e)
{
	struct note_record *r = &c->note->entry;

	memset(e, 0, sizeof(*e));
	e->record = r->bytes;
	memset(r->bytes, 0, c->host->be->node_size);
	r->owned = 1;
	e->entry_valid = c->host->opt.entry_valid;
	e->attr_valid = c->host->opt.attr_valid;
}

int64_t entry_finish(struct call *c, const char *name, uint32_t own, struct fe_entry *e,
		     struct fuse_entry_out *out)
{
	struct fe_node node;

	memset(out, 0, sizeof(*out));
	split_ns(driver_valid(c->host, e->entry_valid), &out->entry_valid, &out->entry_valid_nsec);
	split_ns(driver_valid(c->host, e->attr_valid), &out->attr_valid, &out->attr_valid_nsec);
	fill_attr(&out->attr, &e->attr);
	/* From here on the reply is what the kernel gets. */
	if (node_intern(c, out, &node))
		return -ENOMEM;
	answers_entry(c, &node, name, own, e, out);
	return sizeof(*out);
}

void undo_entry(struct call *c, size_t size)
{
	struct fuse_entry_out *out = (void *)c->out;

	if (size >= sizeof(*out) && out->nodeid)
		node_forget(c->worker->slot, c->host, out->nodeid, 1, &out->nodeid, 0);
}

int64_t op_lookup(struct call *c)
{
	struct fuse_entry_out *out = (void *)c->out;
	struct fe_host *h = c->host;
	struct fe_entry e;
	int err;
	const char *name = take_name(c, &err);

	if (err)
		return err;
	do {
		entry_begin(c, &e);
		err = h->be->lookup(h->priv, &c->req, &c->node, name, &e);
	} while (standing_make_room(c, err));
	if (err == -ENOENT)
		answers_negative(c, name, 0);
	if (err == -ENOENT && driver_valid(h, h->opt.negative_valid)) {
		/* nodeid 0: the kernel may remember that there is no such name */
		memset(out, 0, sizeof(*out));
		split_ns(h->opt.negative_valid, &out->entry_valid, &out->entry_valid_nsec);
		return sizeof(*out);
	}
	return err ? err : entry_finish(c, name, 0, &e, out);
}

int64_t op_forget(struct call *c)
{
	const struct fuse_forget_in *in = (const void *)c->arg;

	if (!c->note->progress)
		node_forget(c->worker->slot, c->host, c->in->nodeid, in->nlookup, &c->note->progress, 1);
	return NO_REPLY;
}

int64_t op_batch_forget(struct call *c)
{
	const struct fuse_batch_forget_in *in = (const void *)c->arg;
	const struct fuse_forget_one *one = (const void *)(in + 1);
	size_t fit = (c->arg_size - sizeof(*in)) / sizeof(*one);

	for (size_t i = c->note->progress; i < in->count && i < fit; i++)
		node_forget(c->worker->slot, c->host, one[i].nodeid, one[i].nlookup, &c->note->progress, i + 1);
	return NO_REPLY;
}

int64_t op_mknod(struct call *c)
{
	const struct fuse_mknod_in *in = (const void *)c->arg;
	struct fe_entry e;
	const char *name;
	int err;

	c->arg += sizeof(*in);
	c->arg_size -= sizeof(*in);
	name = take_name(c, &err);
	if (err)
		return err;
	if (!c->host->be->mknod)
		return -ENOSYS;
	c->req.umask = in->umask;
	entry_begin(c, &e);
	err = c->host->be->mknod(c->host->priv, &c->req, &c->node, name, in->mode, in->rdev, &e);
	return err ? err : entry_finish(c, name, EXTFUSE_OWN_NAME, &e, (void *)c->out);
}

int64_t op_mkdir(struct call *c)
{
	const struct fuse_mkdir_in *in = (const void *)c->arg;
	struct fe_entry e;
	const char *name;
	int err;

	c->arg += sizeof(*in);
	c->arg_size -= sizeof(*in);
	name = take_name(c, &err);
	if (err)
		return err;
	if (!c->host->be->mkdir)
		return -ENOSYS;
	c->req.umask = in->umask;
	entry_begin(c, &e);
	err = c->host->be->mkdir(c->host->priv, &c->req, &c->node, name, in->mode, &e);
	return err ? err : entry_finish(c, name, EXTFUSE_OWN_NAME, &e, (void *)c->out);
}

int64_t op_symlink(struct call *c)
{
	struct fe_entry e;
	int err;
	const char *name = take_name(c, &err);
	const char *target = err ? NULL : take_string(c);

	if (!target)
		return -EINVAL;
	if (!c->host->be->symlink)
		return -ENOSYS;
	entry_begin(c, &e);
	err = c->host->be->symlink(c->host->priv, &c->req, &c->node, name, target, &e);
	return err ? err : entry_finish(c, name, EXTFUSE_OWN_NAME, &e, (void *)c->out);
}

int64_t op_link(struct call *c)
{
	const struct fuse_link_in *in = (const void *)c->arg;
	struct fe_node node;
	struct fe_entry e;
	const char *name;
	int err;

	c->arg += sizeof(*in);
	c->arg_size -= sizeof(*in);
	name = take_name(c, &err);
	if (err)
		return err;
	if (!c->host->be->link)
		return -ENOSYS;
	err = node_get(c->host, in->oldnodeid, &node);
	if (err)
		return err;
	entry_begin(c, &e);
	err = c->host->be->link(c->host->priv, &c->req, &node, &c->node, name, &e);
	node_put(c->host, &node);
	return err ? err : entry_finish(c, name, EXTFUSE_OWN_NAME | EXTFUSE_OWN_NODE, &e, (void *)c->out);
}

int64_t op_unlink(struct call *c)
{
	int err;
	const char *name = take_name(c, &err);

	if (err)
		return err;
	if (!c->host->be->unlink)
		return -ENOSYS;
	err = c->host->be->unlink(c->host->priv, &c->req, &c->node, name);
	if (!err)
		answers_negative(c, name, EXTFUSE_OWN_NAME);
	return err;
}

int64_t op_rmdir(struct call *c)
{
	int err;
	const char *name = take_name(c, &err);

	if (err)
		return err;
	if (!c->host->be->rmdir)
		return -ENOSYS;
	err = c->host->be->rmdir(c->host->priv, &c->req, &c->node, name);
	if (!err)
		answers_negative(c, name, EXTFUSE_OWN_NAME);
	return err;
}

static int64_t rename_names(struct call *c, uint64_t newdir, uint32_t flags)
{
	struct fe_node newparent;
	int err, err2;
	const char *name = take_name(c, &err);
	const char *newname = err ? NULL : take_name(c, &err2);

	if (!newname || err2)
		return -EINVAL;
	if (!c->host->be->rename)
		return -ENOSYS;
	err = node_get(c->host, newdir, &newparent);
	if (err)
		return err;
	err = c->host->be->rename(c->host->priv, &c->req, &c->node, name, &newparent, newname, flags);
	if (!err)
		answers_name(c, newdir, newname);
	node_put(c->host, &newparent);
	return err;
}

int64_t op_rename(struct call *c)
{
	const struct fuse_rename_in *in = (const void *)c->arg;

	c->arg += sizeof(*in);
	c->arg_size -= sizeof(*in);
	return rename_names(c, in->newdir, 0);
}

int64_t op_rename2(struct call *c)
{
	const struct fuse_rename2_in *in = (const void *)c->arg;

	c->arg += sizeof(*in);
	c->arg_size -= sizeof(*in);
	return rename_names(c, in->newdir, in->flags);
}

int64_t op_readlink(struct call *c)
{
	/* The kernel takes one page and puts the terminator itself. */
	size_t size = c->host->page - 1;
	ssize_t n;

	if (!c->host->be->readlink)
		return -ENOSYS;
	n = c->host->be->readlink(c->host->priv, &c->req, &c->node, (char *)c->out, size);
	answers_link(c, (char *)c->out, n);
	return n;
}
