/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening: the moment at which changes made elsewhere are noticed, and at which a file is passed through. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/spill/spill.h"
#include "base/cleanup.h"

/* From before the file is looked at until the host counts the handle: see opening_end(). With file.lock. */
static void opening_begin(struct spill *sp, struct file *f, struct file_handle_part *part)
{
	f->opening++;
	f->opening_writers += !!(part->flags & HANDLE_WRITES);
	part->process = sp->process;
}

void opening_end(struct spill *sp, const struct fe_node *node, struct fe_handle *handle)
{
	struct file_handle_part *part = part_of(sp, handle);
	struct file *f = part->process && part->process == sp->process ? file_find(sp, node->record) : NULL;

	part->process = 0;
	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	f->opening--;
	f->opening_writers -= !!(part->flags & HANDLE_WRITES);
	pthread_mutex_unlock(&f->lock);
	file_put(sp, f);
}

void sp_opened(void *b, struct fe_node *node, struct fe_handle *handle)
{
	opening_end(b, node, handle);
}

static uint32_t part_flags(const struct spill *sp, uint32_t flags, uint32_t inner)
{
	uint32_t mode = flags & O_ACCMODE, part = HANDLE_OPEN;

	if (inner & (FE_OPEN_DIRECT_IO | FE_OPEN_NONSEEKABLE | FE_OPEN_STREAM))
		return part | HANDLE_RAW;
	if (mode != O_RDONLY)
		part |= HANDLE_WRITES;
	if (mode != O_WRONLY || sp->writeback)
		part |= HANDLE_READS;
	if (flags & O_DSYNC)
		part |= HANDLE_SYNC;
	return part;
}

/* The kernel goes on with the temporary file that it has, so that gets what the file is now. */
static int refresh(struct spill *sp, struct file *f, struct fe_node *node, const struct statx *st)
{
	struct fe_handle own = { 0 };
	int err = own_open(sp, f, node, &own);

	if (err)
		return err;
	/* What is a hole there is to be one here, too: its blocks are those that do not change. */
	err = store_resize(sp, f, st->stx_size);
	if (!err)
		err = fetch_whole(sp, f, node, &own);
	own_close(sp, f, node);
	if (!err)
		attrs_adopt(f, st);
	return err;
}

static bool cuts(const struct spill *sp, uint32_t flags)
{
	return flags & O_TRUNC && sp->inner->root.features & FE_FEAT_ATOMIC_O_TRUNC;
}

static int back_first(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *handle)
{
	int err;

	file_claim(f);
	err = write_back_claimed(sp, f, node, handle, true, false);
	file_unclaim(f);
	return err;
}

/* Only who has it open has a lock, or waits for one. In this order: who is not here any more is there. */
static bool first_open(struct spill *sp, const struct file *f)
{
	struct fe_node now;

	return f->opening == 1 && (file_node(sp, f, &now) || !now.opens);
}

/* With the file locked, and claimed where it is cut: *keep whether what the kernel has cached is still right. */
static int check_open(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
		      struct fe_handle *handle, uint32_t flags, bool *keep)
{
	bool cut = cuts(sp, flags);
	struct statx st = { 0 };
	uint64_t valid = 0, changes;
	int err = 0;

	*keep = false;
	if (cut)
		store_resize(sp, f, 0);
	/* What is dirty here is not to look like a change made elsewhere. */
	else if (f->dirty.count || file_passed(sp, f))
		err = back_first(sp, f, node, part_of(sp, handle)->flags & HANDLE_WRITES ? handle : NULL);
	if (err)
		return 0;
	changes = f->changes;
	pthread_mutex_unlock(&f->lock);
	err = sp->in->getattr(sp->ip, req, node, inner_handle(sp, handle), &st, &valid);
	pthread_mutex_lock(&f->lock);
	if (err)
		return err;
	if (part_of(sp, handle)->flags & HANDLE_WRITES && file_passed(sp, f)) {
		/* not while it is refreshed */
		if (!cut)
			file_claim(f);
		err = sums_make(sp, f);
		if (!cut)
			file_unclaim(f);
	}
	if (err)
		return err;
	/* Somebody writes meanwhile, and the next open looks again. */
	if (f->dirty.count || changes != f->changes || (f->busy && !cut))
		return 0;
	if (file_passed(sp, f) && (!file_is(f, FILE_KNOWN) || attrs_differ(f, &st)) && !cut) {
		struct fe_node now = *node;

		/* What the kernel writes now would be lost. In this order: who is not here any more is there. */
		if (f->opening_writers > !!(part_of(sp, handle)->flags & HANDLE_WRITES))
			return 0;
		file_node(sp, f, &now);
		if (now.writers)
			return 0;
		file_claim(f);
		if (!f->dirty.count && f->rec->sums_fd < 0)
			err = refresh(sp, f, node, &st);
		file_unclaim(f);
		return err;
	}
	*keep = attrs_check(sp, f, &st) && !cut && !file_is(f, FILE_SHED);
	file_set(f, FILE_SHED, false);
	if (cut)
		file_set(f, FILE_PLAIN, true);
	return 0;
}

static void opened(struct spill *sp, uint32_t flags, struct fe_open *out)
{
	struct fe_handle h = { .record = out->record };
	struct file_handle_part *part = part_of(sp, &h);
	uint32_t keeps = FE_OPEN_NOFLUSH;

	part->flags = part_flags(sp, flags, out->flags);
	if (part->flags & HANDLE_RAW)
		return;
	if (part->flags & HANDLE_WRITES)
		keeps = 0;
	out->flags &= keeps;
}

int sp_open_file(void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags, uint32_t io_flags,
		 struct fe_open *out)
{
	struct spill *sp = b;
	struct fe_handle handle = { .record = out->record };
	struct file *f = file_get(sp, node->record);
	struct fe_release how = { .flags = flags };
	bool failed = false, keep = false, cut = f && cuts(sp, flags);
	int err = 0;

	if (cut) {
		pthread_mutex_lock(&f->lock);
		file_claim(f);
		pthread_mutex_unlock(&f->lock);
	}
	if (sp->in->open_file)
		err = sp->in->open_file(sp->ip, req, node, flags, io_flags, out);
	if (!err)
		opened(sp, flags, out);
	if (f) {
		pthread_mutex_lock(&f->lock);
		if (!err && !(part_of(sp, &handle)->flags & HANDLE_RAW)) {
			opening_begin(sp, f, part_of(sp, &handle));
			if (first_open(sp, f))
				file_set(f, FILE_LOCKED, false);
			err = check_open(sp, f, req, node, &handle, flags, &keep);
			failed = err;
		}
		if (cut)
			file_unclaim(f);
		pthread_mutex_unlock(&f->lock);
		if (failed) {
			opening_end(sp, node, &handle);
			if (sp->in->release)
				sp->in->release(sp->ip, req, node, &handle, &how);
		}
		file_put(sp, f);
	}
	/* What a map made dirty reaches the inner backend, where holes are asked for, if it is not kept. */
	if (keep && !node->writers)
		out->flags |= FE_OPEN_KEEP_CACHE;
	return err;
}

/* Nobody else knows a file that was just made: all of it is here. What is left of another one with its key is not. */
static void made(struct spill *sp, const struct fe_entry *entry, const struct fe_open *out)
{
	struct fe_handle handle = { .record = out->record };
	struct file *f = file_get(sp, entry->record);

	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	if (!f->dirty.count && !entry->attr.stx_size) {
		attrs_check(sp, f, &entry->attr);
		file_set(f, FILE_SHED, false);
		file_set(f, FILE_PLAIN, true);
	}
	if (!(part_of(sp, &handle)->flags & HANDLE_RAW))
		opening_begin(sp, f, part_of(sp, &handle));
	pthread_mutex_unlock(&f->lock);
	file_put(sp, f);
}

int sp_create(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, uint32_t flags,
	      uint32_t mode, uint32_t io_flags, struct fe_entry *entry, struct fe_open *out)
{
	struct spill *sp = b;
	int err = sp->in->create(sp->ip, req, parent, name, flags, mode, io_flags, entry, out);

	if (err)
		return err;
	opened(sp, flags, out);
	made(sp, entry, out);
	return 0;
}

int sp_tmpfile(void *b, const struct fe_request *req, struct fe_node *parent, uint32_t flags, uint32_t mode,
	       struct fe_entry *entry, struct fe_open *out)
{
	struct spill *sp = b;
	int err = sp->in->tmpfile(sp->ip, req, parent, flags, mode, entry, out);

	if (err)
		return err;
	opened(sp, flags, out);
	made(sp, entry, out);
	return 0;
}

/* Whether the kernel may have it: all is there, and who writes does so by write(), which knows what. */
static bool whole(struct spill *sp, struct file *f, const struct fe_handle *handle)
{
	struct stat st;

	return part_of(sp, handle)->flags == (HANDLE_OPEN | HANDLE_READS) && !f->busy && !f->dirty.count &&
	       f->rec->fd >= 0 && f->rec->size && f->rec->size <= sp->limit && file_is(f, FILE_SIZED) &&
	       !(f->rec->mode & (S_ISUID | S_ISGID)) &&
	       ranges_cover(&f->present, 0, f->rec->size) && sp->nfiles < sp->max_files &&
	       !fstat(f->rec->fd, &st) && (uint64_t)st.st_size == f->rec->size;
}

int sp_backing_fd(void *b, struct fe_node *node, struct fe_handle *handle)
{
	struct spill *sp = b;
	struct file *f = file_find(sp, node->record);
	bool given;
	int fd;

	if (!f)
		return -EPERM;
	pthread_mutex_lock(&f->lock);
	/* Who takes a lock could not be shown anything else than what the kernel has. */
	given = !sp->locks && whole(sp, f, handle);
	/* It is the node's first open: the kernel uses it from now on, or does not. */
	file_set(f, FILE_PASSED, given);
	sums_end(sp, f);
	pthread_mutex_unlock(&f->lock);
	atomic_fetch_add(&sp->counters->passed, given);
	/* The handle that is being opened keeps the file. */
	fd = given ? f->rec->fd : -EPERM;
	file_put(sp, f);
	return fd;
}

void sp_backing_begin(void *b)
{
	struct spill *sp = b;

	if (sp->in->backing_begin && sp->in->backing_end)
		sp->in->backing_begin(sp->ip);
}

void sp_backing_end(void *b)
{
	struct spill *sp = b;

	if (sp->in->backing_begin && sp->in->backing_end)
		sp->in->backing_end(sp->ip);
}
