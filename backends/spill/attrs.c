/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Attributes are the inner backend's. Of a file with dirty data they are asked for when those are written
 * back, so that times do not change once more afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "backends/spill/spill.h"
#include "base/cleanup.h"

bool attrs_differ(const struct file *f, const struct statx *st)
{
	return st->stx_size != f->rec->inner_size || st->stx_mtime.tv_sec != f->rec->mtime ||
	       st->stx_mtime.tv_nsec != f->rec->mtime_ns || st->stx_ctime.tv_sec != f->rec->ctime ||
	       st->stx_ctime.tv_nsec != f->rec->ctime_ns;
}

static void note(struct file *f, const struct statx *st)
{
	f->rec->inner_size = st->stx_size;
	f->rec->mtime = st->stx_mtime.tv_sec;
	f->rec->mtime_ns = st->stx_mtime.tv_nsec;
	f->rec->ctime = st->stx_ctime.tv_sec;
	f->rec->ctime_ns = st->stx_ctime.tv_nsec;
	f->rec->mode = st->stx_mode;
}

void attrs_adopt(struct file *f, const struct statx *st)
{
	/* Half noted counts as not known. */
	file_set(f, FILE_KNOWN, false);
	note(f, st);
	file_set(f, FILE_KNOWN | FILE_SIZED, true);
}

bool attrs_check(struct spill *sp, struct file *f, const struct statx *st)
{
	bool same = file_is(f, FILE_KNOWN) && !attrs_differ(f, st);

	if (same)
		return true;
	if (f->present.count)
		atomic_fetch_add(&sp->counters->stale, 1);
	file_set(f, FILE_SHED, true);
	file_set(f, FILE_KNOWN | FILE_PLAIN, false);
	/* In this order: what a file grew by elsewhere is not known to be zeros. */
	store_resize(sp, f, st->stx_size);
	store_forget(sp, f, 0, UINT64_MAX);
	attrs_adopt(f, st);
	return false;
}

void attrs_doubt(struct spill *sp, struct file *f, const struct statx *st)
{
	uint64_t size = st->stx_size, a, b;

	for (uint64_t at = 0; ranges_next(&f->dirty, at, UINT64_MAX, &a, &b); at = b)
		size = b > size ? b : size;
	/* In this order: what a file grew by elsewhere is not known to be zeros. */
	if (size != f->rec->size)
		store_resize(sp, f, size);
	f->rec->mode = st->stx_mode;
	store_doubt(sp, f);
	file_set(f, FILE_SIZED, true);
}

int file_ready(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
	       struct fe_handle *handle)
{
	struct statx st = { 0 };
	uint64_t valid = 0;
	int err = 0;

	if (file_is(f, FILE_SIZED))
		return 0;
	file_claim(f);
	if (!file_is(f, FILE_SIZED)) {
		pthread_mutex_unlock(&f->lock);
		err = sp->in->getattr(sp->ip, req, node, inner_handle(sp, handle), &st, &valid);
		pthread_mutex_lock(&f->lock);
		/* Who was ready before may have written meanwhile. */
		if (!err && f->dirty.count)
			attrs_doubt(sp, f, &st);
		else if (!err)
			attrs_check(sp, f, &st);
	}
	file_unclaim(f);
	return err;
}

/* Attributes of the inner backend, asked for when the file had seen so many changes. */
static void settle(struct spill *sp, struct file *f, uint64_t changes, struct statx *st)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&f->lock);

	if (f->dirty.count || f->busy || changes != f->changes) {
		/* The kernel forgets what it has of another time than it is told, and reads it again here. */
		if (file_is(f, FILE_LOCKED) && !file_passed(sp, f) && (!file_is(f, FILE_KNOWN) || attrs_differ(f, st)))
			store_doubt(sp, f);
		if (file_is(f, FILE_SIZED))
			st->stx_size = f->rec->size;
	} else if (file_passed(sp, f)) {
		/* It is what it was at its first open, until the next one. */
		if (attrs_differ(f, st))
			st->stx_size = f->rec->size;
	} else if (file_is(f, FILE_KNOWN | FILE_LOCKED) || st->stx_size != f->rec->size) {
		attrs_check(sp, f, st);
	}
}

uint64_t changes_of(struct file *f)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&f->lock);

	return f->changes;
}

static bool spilled(const struct statx *st)
{
	return S_ISREG(st->stx_mode);
}

static int ask_again(struct spill *sp, struct file *f, const struct fe_request *req, struct statx *st, uint64_t *valid)
{
	struct fe_node node;
	uint64_t changes;
	int err = file_node(sp, f, &node);

	if (!err && (f->dirty.count || file_is(f, FILE_PASSED)))
		write_back(sp, f, &node, NULL, false);
	changes = changes_of(f);
	if (!err)
		err = sp->in->getattr(sp->ip, req, &node, NULL, st, valid);
	if (!err)
		settle(sp, f, changes, st);
	return err;
}

/* An entry that the inner backend found: its file may be newer here. */
static void entry_found(struct spill *sp, const struct fe_request *req, struct fe_entry *out)
{
	struct file *f = spilled(&out->attr) ? file_find(sp, out->record) : NULL;

	if (!f)
		return;
	/* It may have changed since it was looked up, so it is asked for again. */
	if (f->dirty.count || f->busy || file_is(f, FILE_PASSED))
		ask_again(sp, f, req, &out->attr, &out->attr_valid);
	file_put(sp, f);
}

int sp_lookup(void *b, const struct fe_request *req, struct fe_node *parent, const char *name, struct fe_entry *out)
{
	struct spill *sp = b;
	int err = sp->in->lookup(sp->ip, req, parent, name, out);

	if (!err)
		entry_found(sp, req, out);
	return err;
}

int sp_getattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	       struct statx *out, uint64_t *valid)
{
	struct spill *sp = b;
	bool raw = handle && part_of(sp, handle)->flags & HANDLE_RAW;
	struct file *f = raw ? NULL : file_find(sp, node->record);
	uint64_t changes = 0;
	int err;

	if (f && (f->dirty.count || file_is(f, FILE_PASSED)))
		write_back(sp, f, node, NULL, false);
	if (f)
		changes = changes_of(f);
	err = sp->in->getattr(sp->ip, req, node, handle ? inner_handle(sp, handle) : NULL, out, valid);
	if (!err && f)
		settle(sp, f, changes, out);
	file_put(sp, f);
	return err;
}

/*
 * What is set now is not to hide what somebody else has changed before: the file is known no more then. With
 * file.lock, which is let go meanwhile.
 */
static void look_before(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
			struct fe_handle *handle)
{
	struct fe_request look = *req;
	struct statx st = { 0 };
	uint64_t valid = 0;
	int err;

	if (!file_is(f, FILE_KNOWN))
		return;
	look.again = 0;
	look.intent = NULL;
	pthread_mutex_unlock(&f->lock);
	err = sp->in->getattr(sp->ip, &look, node, handle ? inner_handle(sp, handle) : NULL, &st, &valid);
	pthread_mutex_lock(&f->lock);
	if (err || attrs_differ(f, &st))
		file_set(f, FILE_KNOWN, false);
}

/* What the request itself set does not tell of somebody else's change. */
static bool as_asked(const struct file *f, const struct fe_setattr *set, const struct statx *st, bool passed)
{
	bool times = set->valid & (FE_SET_MTIME | FE_SET_MTIME_NOW);

	if (set->valid & FE_SET_SIZE)
		return passed ? st->stx_size == set->size : !set->size && !st->stx_size;
	return st->stx_size == f->rec->inner_size &&
	       (times || (st->stx_mtime.tv_sec == f->rec->mtime && st->stx_mtime.tv_nsec == f->rec->mtime_ns));
}

static int set_file(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
		    struct fe_handle *handle, const struct fe_setattr *set, struct statx *out, uint64_t *valid)
{
	bool known;
	int err = 0;

	/* Data that were written before under the old owner and mode, and with times that are to be the last. */
	if (set->valid & ~(uint32_t)FE_SET_SIZE)
		err = write_back_claimed(sp, f, node, NULL, false, false);
	if (err && f->dirty.count)
		err = 0; /* it stays dirty: fsync and close tell of it */
	if (!(set->valid & FE_SET_SIZE) || file_passed(sp, f))
		look_before(sp, f, req, node, handle);
	known = file_is(f, FILE_KNOWN);
	file_set(f, FILE_KNOWN, false);
	pthread_mutex_unlock(&f->lock);
	err = sp->in->setattr(sp->ip, req, node, handle ? inner_handle(sp, handle) : NULL, set, out, valid);
	pthread_mutex_lock(&f->lock);
	if (err) {
		file_set(f, FILE_KNOWN, known);
		return err;
	}
	if (set->valid & FE_SET_SIZE) {
		store_resize(sp, f, set->size);
		f->epoch++;
	}
	if ((known || (set->valid & FE_SET_SIZE && !set->size)) && as_asked(f, set, out, file_passed(sp, f)))
		attrs_adopt(f, out);
	f->rec->mode = out->stx_mode;
	if (set->valid & FE_SET_SIZE)
		file_set(f, FILE_SIZED, true);
	if (file_passed(sp, f) || f->dirty.count)
		out->stx_size = f->rec->size;
	return 0;
}

int sp_setattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
	       const struct fe_setattr *set, struct statx *out, uint64_t *valid)
{
	struct spill *sp = b;
	struct file *f = file_find(sp, node->record);
	int err;

	if (!f)
		return sp->in->setattr(sp->ip, req, node, handle ? inner_handle(sp, handle) : NULL, set, out, valid);
	pthread_mutex_lock(&f->lock);
	file_claim(f);
	err = set_file(sp, f, req, node, handle, set, out, valid);
	file_unclaim(f);
	pthread_mutex_unlock(&f->lock);
	file_put(sp, f);
	return err;
}

/* Before names or extended attributes of a file are changed; see attrs_touched(). */
static void touches(struct spill *sp, const struct fe_request *req, struct fe_node *node)
{
	struct file *f = file_find(sp, node->record);

	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	if (!f->busy)
		look_before(sp, f, req, node, NULL);
	pthread_mutex_unlock(&f->lock);
	file_put(sp, f);
}

/* Of a file that names were changed of: only ctime moved. */
static void attrs_touched(struct spill *sp, const unsigned char *key, const struct statx *st)
{
	struct file *f = spilled(st) ? file_find(sp, key) : NULL;

	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	if (file_is(f, FILE_KNOWN) && !f->busy && !f->dirty.count && st->stx_size == f->rec->inner_size &&
	    st->stx_mtime.tv_sec == f->rec->mtime && st->stx_mtime.tv_nsec == f->rec->mtime_ns)
		attrs_adopt(f, st);
	pthread_mutex_unlock(&f->lock);
	file_put(sp, f);
}

int sp_link(void *b, const struct fe_request *req, struct fe_node *node, struct fe_node *parent, const char *name,
	    struct fe_entry *out)
{
	struct spill *sp = b;
	int err;

	touches(sp, req, node);
	err = sp->in->link(sp->ip, req, node, parent, name, out);
	if (!err) {
		attrs_touched(sp, out->record, &out->attr);
		entry_found(sp, req, out);
	}
	return err;
}

static void renames(struct spill *sp, const struct fe_request *req, const struct fe_entry *e)
{
	struct file *f = spilled(&e->attr) ? file_find(sp, e->record) : NULL;
	struct fe_node node;

	if (f && !file_node(sp, f, &node))
		touches(sp, req, &node);
	file_put(sp, f);
}

static void renamed(struct spill *sp, const struct fe_request *req, const struct fe_entry *e)
{
	(void)req;
	attrs_touched(sp, e->record, &e->attr);
}

/* Calls fn for what has this name at the inner backend. */
static void with_name(struct spill *sp, const struct fe_request *req, struct fe_node *parent, const char *name,
		      void (*fn)(struct spill *sp, const struct fe_request *req, const struct fe_entry *e))
{
	static const unsigned char zeros[256];
	struct fe_request look = *req;
	struct fe_entry e = { 0 };

	if (!atomic_load(&sp->nfiles))
		return;
	e.record = sp->services->record_new(sp->host, sp->node_records, zeros);
	if (!e.record)
		return;
	look.again = 0;
	look.intent = NULL;
	if (!sp->in->lookup(sp->ip, &look, parent, name, &e)) {
		fn(sp, &look, &e);
		if (sp->in->forget)
			sp->in->forget(sp->ip, &(struct fe_node){ .record = e.record });
	}
	sp->services->record_free(sp->host, sp->node_records, e.record);
}

/* It moves the file's ctime on most file systems: that is no reason to fetch it again. */
int sp_rename(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
	      struct fe_node *newparent, const char *newname, uint32_t flags)
{
	struct spill *sp = b;
	int err;

	with_name(sp, req, parent, name, renames);
	err = sp->in->rename(sp->ip, req, parent, name, newparent, newname, flags);
	if (!err)
		with_name(sp, req, newparent, newname, renamed);
	return err;
}

struct fill {
	struct fe_dirfill fill;
	struct fe_dirfill *outer;
	struct spill *sp;
};

/* Attributes that come with a listing say nothing of what is dirty. */
static int fill_add(struct fe_dirfill *fill, const char *name, size_t len, uint64_t ino, unsigned type,
		    uint64_t next_off, const struct fe_entry *entry)
{
	struct fill *mine = (struct fill *)fill;
	struct file *f = entry && spilled(&entry->attr) ? file_find(mine->sp, entry->record) : NULL;
	struct fe_entry shown;
	int full;

	if (f && file_is(f, FILE_SIZED) && (f->dirty.count || f->busy || file_is(f, FILE_PASSED))) {
		shown = *entry;
		settle(mine->sp, f, UINT64_MAX, &shown.attr);
		entry = &shown;
	}
	full = mine->outer->add(mine->outer, name, len, ino, type, next_off, entry);
	mine->fill.room = mine->outer->room;
	file_put(mine->sp, f);
	return full;
}

int sp_readdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, uint64_t off,
	       struct fe_dirfill *fill)
{
	struct spill *sp = b;
	struct fill mine = {
		.fill = { .add = fill_add, .room = fill->room, .want_entry = fill->want_entry },
		.outer = fill,
		.sp = sp,
	};

	return sp->in->readdir(sp->ip, req, node, handle, off, &mine.fill);
}

static void xattr_changed(struct spill *sp, const struct fe_request *req, struct fe_node *node)
{
	struct file *f = file_find(sp, node->record);
	struct fe_request ask = *req;
	struct statx st = { 0 };
	uint64_t valid = 0;

	if (!f)
		return;
	ask.intent = NULL;
	file_set(f, FILE_PLAIN, false); /* it may have been capabilities */
	if (!sp->in->getattr(sp->ip, &ask, node, NULL, &st, &valid))
		attrs_touched(sp, f->rec->bytes, &st);
	file_put(sp, f);
}

int sp_setxattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name, const void *value,
		size_t size, int flags, int kill_sgid)
{
	struct spill *sp = b;
	int err;

	touches(sp, req, node);
	err = sp->in->setxattr(sp->ip, req, node, name, value, size, flags, kill_sgid);
	if (!err)
		xattr_changed(sp, req, node);
	return err;
}

int sp_removexattr(void *b, const struct fe_request *req, struct fe_node *node, const char *name)
{
	struct spill *sp = b;
	int err;

	touches(sp, req, node);
	err = sp->in->removexattr(sp->ip, req, node, name);
	if (!err)
		xattr_changed(sp, req, node);
	return err;
}
