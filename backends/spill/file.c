/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The files whose data are spilled: found by their key, ordered by use, bounded in number and space. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/spill/spill.h"
#include "base/cleanup.h"

static struct range *range_make(void *arg, const struct range *bytes)
{
	struct spill *sp = arg;

	return sp->services->record_new(sp->host, sp->range_records, bytes);
}

static void range_end(void *arg, struct range *r)
{
	struct spill *sp = arg;

	sp->services->record_free(sp->host, sp->range_records, r);
}

void files_init(struct spill *sp)
{
	sp->store = (struct range_store){ .make = range_make, .end = range_end, .arg = sp };
	pthread_mutex_init(&sp->lock, NULL);
	memset(sp->files, 0, sizeof(sp->files));
	sp->newest = sp->oldest = NULL;
	sp->nfiles = 0;
	sp->allocated = sp->dirty_files = sp->full_since = 0;
}

static struct file **bucket(struct spill *sp, const unsigned char *key)
{
	uint64_t x = 0xcbf29ce484222325u;

	for (uint32_t i = 0; i < sp->key_size; i++)
		x = (x ^ key[i]) * 0x100000001b3u;
	return &sp->files[(x ^ x >> 32) % BUCKETS];
}

static void use_end(struct spill *sp, struct file *f)
{
	*(f->newer ? &f->newer->older : &sp->newest) = f->older;
	*(f->older ? &f->older->newer : &sp->oldest) = f->newer;
	f->newer = f->older = NULL;
}

static void use_begin(struct spill *sp, struct file *f)
{
	f->older = sp->newest;
	*(sp->newest ? &sp->newest->newer : &sp->oldest) = f;
	sp->newest = f;
}

static struct file *find(struct spill *sp, const unsigned char *key)
{
	struct file *f = *bucket(sp, key);

	while (f && memcmp(f->rec->bytes, key, sp->key_size))
		f = f->next;
	return f;
}

static struct file *add(struct spill *sp, struct file_record *rec)
{
	struct file *f = calloc(1, sizeof(*f)), **at;

	if (!f)
		return NULL;
	f->rec = rec;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	ranges_init(&f->present, &sp->store, rec->id, RANGE_PRESENT);
	ranges_init(&f->dirty, &sp->store, rec->id, RANGE_DIRTY);
	at = bucket(sp, rec->bytes);
	f->next = *at;
	*at = f;
	use_begin(sp, f);
	sp->nfiles++;
	return f;
}

static struct file *file_new(struct spill *sp, const unsigned char *key)
{
	_Alignas(8) unsigned char bytes[256] = { 0 };
	struct file_record *rec = (struct file_record *)bytes;
	struct file *f;

	rec->id = atomic_fetch_add(&sp->counters->next_id, 1) + 1;
	rec->fd = rec->sums_fd = -1;
	memcpy(rec->bytes, key, sp->key_size);
	rec = sp->services->record_new(sp->host, sp->file_records, bytes);
	if (!rec)
		return NULL;
	f = add(sp, rec);
	if (!f)
		sp->services->record_free(sp->host, sp->file_records, rec);
	return f;
}

/* Out of the tables, so that nobody finds it any more; with spill.lock. */
static void unhook(struct spill *sp, struct file *f)
{
	struct file **at = bucket(sp, f->rec->bytes);

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	use_end(sp, f);
	sp->nfiles--;
}

static void file_end(struct spill *sp, struct file *f)
{
	ranges_fini(&f->dirty, true);
	dirty_end(sp, f);
	ranges_fini(&f->present, true);
	atomic_fetch_sub(&sp->allocated, f->allocated);
	sums_end(sp, f);
	fe_close(sp->services->fd_take(sp->host, &f->rec->fd));
	sp->services->record_free(sp->host, sp->file_records, f->rec);
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->changed);
	free(f);
}

struct file *file_find(struct spill *sp, const unsigned char *key)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&sp->lock);
	struct file *f = find(sp, key);

	if (f)
		f->refs++;
	return f;
}

struct file *file_get(struct spill *sp, const unsigned char *key)
{
	struct file *f;

	/* Those in use may be more than it should be; then the kernel is given no more of them. */
	for (unsigned tries = 0; atomic_load(&sp->nfiles) >= sp->max_files && tries < 4; tries++)
		if (!files_give(sp, NULL))
			break;
	pthread_mutex_lock(&sp->lock);
	f = find(sp, key);
	if (f) {
		use_end(sp, f);
		use_begin(sp, f);
	} else {
		f = file_new(sp, key);
	}
	if (f)
		f->refs++;
	pthread_mutex_unlock(&sp->lock);
	return f;
}

void file_put(struct spill *sp, struct file *f)
{
	_cleanup_unlock_ pthread_mutex_t *held = f ? fe_lock(&sp->lock) : NULL;

	if (f)
		f->refs--;
}

void files_each(struct spill *sp, void (*fn)(struct spill *sp, struct file *f))
{
	_cleanup_free_ struct file **all = NULL;
	size_t n = 0;

	pthread_mutex_lock(&sp->lock);
	all = malloc((sp->nfiles + 1) * sizeof(*all));
	for (struct file *f = all ? sp->oldest : NULL; f; f = f->newer) {
		f->refs++;
		all[n++] = f;
	}
	pthread_mutex_unlock(&sp->lock);
	for (size_t i = 0; i < n; i++) {
		fn(sp, all[i]);
		file_put(sp, all[i]);
	}
}

static int copy_node(void *arg, struct fe_node *node)
{
	*(struct fe_node *)arg = *node;
	return 0;
}

int file_node(struct spill *sp, const struct file *f, struct fe_node *out)
{
	return sp->services->with_node(sp->host, f->rec->bytes, copy_node, out);
}

bool file_passed(struct spill *sp, struct file *f)
{
	struct fe_node node;

	return file_is(f, FILE_PASSED) && (f->opening || (!file_node(sp, f, &node) && node.opens));
}

void file_claim(struct file *f)
{
	while (f->busy)
		pthread_cond_wait(&f->changed, &f->lock);
	f->busy = true;
}

void file_unclaim(struct file *f)
{
	f->busy = false;
	pthread_cond_broadcast(&f->changed);
}

/* With spill.lock, and no references: nobody has its lock. */
static bool may_end(struct spill *sp, struct file *f)
{
	return !f->refs && !f->opening && !f->dirty.count && !file_passed(sp, f);
}

/* The least recently used one that is clean; or else one that is dirty, to be written back. */
static struct file *victim(struct spill *sp, struct file **dirty)
{
	*dirty = NULL;
	for (struct file *f = sp->oldest; f; f = f->newer) {
		if (may_end(sp, f))
			return f;
		if (!*dirty && !f->refs && f->dirty.count)
			*dirty = f;
	}
	return NULL;
}

bool files_give(struct spill *sp, struct file *keep)
{
	struct file *f, *dirty;
	struct fe_node node;
	bool given = false;

	pthread_mutex_lock(&sp->lock);
	f = victim(sp, &dirty);
	if (f)
		unhook(sp, f);
	else if (dirty)
		dirty->refs++;
	pthread_mutex_unlock(&sp->lock);
	if (f) {
		file_end(sp, f);
		atomic_fetch_add(&sp->counters->dropped, 1);
		return true;
	}
	if (dirty && !file_node(sp, dirty, &node) && !write_back(sp, dirty, &node, NULL, true)) {
		pthread_mutex_lock(&dirty->lock);
		store_drop_clean(sp, dirty, 0, UINT64_MAX);
		pthread_mutex_unlock(&dirty->lock);
		given = true;
	}
	file_put(sp, dirty);
	if (!given && keep) {
		uint64_t before;

		pthread_mutex_lock(&keep->lock);
		before = keep->allocated;
		store_drop_clean(sp, keep, 0, UINT64_MAX);
		given = keep->allocated < before;
		pthread_mutex_unlock(&keep->lock);
	}
	return given;
}

bool files_room(struct spill *sp, struct file *f, uint64_t size)
{
	if (size > sp->limit)
		return false;
	while (atomic_load(&sp->allocated) + size > sp->limit)
		if (!files_give(sp, f))
			return false;
	return true;
}

static int resume_file(void *arg, void *record)
{
	struct spill *sp = arg;
	struct file_record *rec = record;

	if (!add(sp, rec))
		say(sp, LOG_ERR, "no memory for a file that is spilled");
	return 0;
}

static struct file *by_id(struct spill *sp, uint64_t id)
{
	for (struct file *f = sp->oldest; f; f = f->newer)
		if (f->rec->id == id)
			return f;
	return NULL;
}

struct id_table {
	struct spill *sp;
	struct file **at;
	size_t mask;
};

static struct file *of_id(const struct id_table *t, uint64_t id)
{
	if (!t->at)
		return by_id(t->sp, id);
	for (size_t i = id & t->mask;; i = (i + 1) & t->mask)
		if (!t->at[i] || t->at[i]->rec->id == id)
			return t->at[i];
}

static void id_table_init(struct id_table *t, struct spill *sp)
{
	size_t size = 64;

	while (size < sp->nfiles * 2ull)
		size *= 2;
	*t = (struct id_table){ .sp = sp, .at = calloc(size, sizeof(*t->at)), .mask = size - 1 };
	for (struct file *f = t->at ? sp->oldest : NULL; f; f = f->newer) {
		size_t i = f->rec->id & t->mask;

		while (t->at[i])
			i = (i + 1) & t->mask;
		t->at[i] = f;
	}
}

static int resume_range(void *arg, void *record)
{
	struct id_table *t = arg;
	struct range *r = record;
	struct file *f = of_id(t, r->file);
	int err;

	if (!f || r->start >= r->end) {
		range_end(t->sp, r);
		return 0;
	}
	err = ranges_adopt(r->kind == RANGE_DIRTY ? &f->dirty : &f->present, r);
	if (err && r->kind == RANGE_DIRTY)
		say(t->sp, LOG_ERR, "no memory for what a file has dirty");
	return 0;
}

/* What the predecessor was in the middle of is done again; what is clean and not certain is fetched again. */
static void settle(struct spill *sp, struct file *f)
{
	struct fe_release how = { 0 };
	struct fe_handle own = { .record = own_handle(sp, f) };
	_Alignas(8) unsigned char record[256] = { 0 };
	struct fe_node node = { .record = record };

	if (f->rec->own != OWN_NONE) {
		memcpy(record, f->rec->bytes, sp->key_size);
		file_node(sp, f, &node);
		if (sp->in->release)
			sp->in->release(sp->ip, &(struct fe_request){ .supp_group = FE_NO_GROUP }, &node, &own, &how);
		f->rec->own = OWN_NONE;
	}
	for (size_t i = 0; i < f->dirty.count; i++)
		ranges_add(&f->present, f->dirty.at[i]->start, f->dirty.at[i]->end);
	if (!f->dirty.count) {
		f->rec->dirty_since = 0;
		if (f->rec->size != f->rec->inner_size)
			file_set(f, FILE_KNOWN, false);
	} else {
		/* What the kernel wrote by itself was found dirty. */
		if (!f->rec->dirty_since)
			put_size(&f->rec->dirty_since, clock_ns());
		atomic_fetch_add(&sp->dirty_files, 1);
	}
	store_account(sp, f);
}

static int resume_node(void *arg, void *record)
{
	struct spill *sp = arg;

	if (sp->in->forget)
		sp->in->forget(sp->ip, &(struct fe_node){ .record = record });
	sp->services->record_free(sp->host, sp->node_records, record);
	return 0;
}

void files_resume(struct spill *sp)
{
	struct id_table ids;
	bool dirty = false;

	sp->services->record_each(sp->host, sp->node_records, resume_node, sp);
	sp->services->record_each(sp->host, sp->file_records, resume_file, sp);
	id_table_init(&ids, sp);
	sp->services->record_each(sp->host, sp->range_records, resume_range, &ids);
	free(ids.at);
	for (struct file *f = sp->oldest; f; f = f->newer) {
		settle(sp, f);
		dirty |= f->dirty.count;
	}
	if (dirty)
		writer_start(sp);
}

static void last_chance(struct spill *sp, struct file *f)
{
	struct fe_node node;

	if (f->dirty.count && !file_node(sp, f, &node))
		write_back(sp, f, &node, NULL, false);
	if (f->dirty.count) {
		atomic_fetch_add(&sp->counters->lost, 1);
		say(sp, LOG_ERR, "%llu bytes that were written could not be written back",
		    (unsigned long long)ranges_sum(&f->dirty));
	}
}

void files_fini(struct spill *sp)
{
	for (struct file *f = sp->oldest; f; f = sp->oldest) {
		last_chance(sp, f);
		unhook(sp, f);
		file_end(sp, f);
	}
}
