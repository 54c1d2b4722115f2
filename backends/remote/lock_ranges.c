/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the users of this mount have locked. Ranges are records, so a successor finds them. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "backends/remote/locks.h"

#define MAX_RANGES	(1u << 20)

struct lock_stripe *lock_stripe(struct remote *r, const struct r_key *key)
{
	return &r->locks->stripes[key_hash(key) % LOCK_STRIPES];
}

/* All of these with the stripe locked. */

struct lock_file *lock_file_find(struct lock_stripe *s, const struct r_key *key)
{
	struct lock_file *f = s->files;

	while (f && !key_equal(&f->key, key))
		f = f->next;
	return f;
}

struct lock_file *lock_file_new(struct remote *r, struct lock_stripe *s, const struct r_key *key)
{
	struct lock_file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	*f = (struct lock_file){ .next = s->files, .key = *key, .held = F_UNLCK };
	s->files = f;
	atomic_fetch_add(&r->locks->files, 1);
	return f;
}

void lock_file_drop(struct remote *r, struct lock_stripe *s, struct lock_file *gone)
{
	struct lock_file **at = &s->files;

	while (*at != gone)
		at = &(*at)->next;
	*at = gone->next;
	free(gone);
	atomic_fetch_sub(&r->locks->files, 1);
}

static struct range *range_keep(struct lock_file *f, struct r_range *record)
{
	struct range *x = malloc(sizeof(*x));

	if (!x)
		return NULL;
	*x = (struct range){ .next = f->ranges, .record = record };
	f->ranges = x;
	return x;
}

static struct range *range_add(struct remote *r, struct lock_file *f, const struct r_range *init)
{
	struct r_range *record = r->services->record_new(r->host, r->locks->table, init);
	struct range *x = record ? range_keep(f, record) : NULL;

	if (record && !x)
		r->services->record_free(r->host, r->locks->table, record);
	return x;
}

void range_remove(struct remote *r, struct range **at)
{
	struct range *gone = *at;

	*at = gone->next;
	r->services->record_free(r->host, r->locks->table, gone->record);
	free(gone);
}

static bool same_owner(const struct r_range *a, const struct r_range *b)
{
	return a->owner == b->owner && a->flock == b->flock;
}

static bool overlap(const struct r_range *a, const struct r_range *b)
{
	return a->start <= b->end && b->start <= a->end;
}

const struct r_range *range_conflict(const struct lock_file *f, const struct r_range *want)
{
	for (const struct range *x = f->ranges; x; x = x->next)
		if (x->record->flock == want->flock && !same_owner(x->record, want) && overlap(x->record, want) &&
		    (x->record->type == F_WRLCK || want->type == F_WRLCK))
			return x->record;
	return NULL;
}

uint32_t range_strongest(const struct lock_file *f)
{
	uint32_t type = F_UNLCK;

	for (const struct range *x = f->ranges; x; x = x->next)
		if (type == F_UNLCK || x->record->type == F_WRLCK)
			type = x->record->type;
	return type;
}

/* Takes `want` out of an owner's range. What is left behind it comes first: a process that dies loses none. */
static int range_cut(struct remote *r, struct lock_file *f, struct range **at, const struct r_range *want)
{
	struct r_range *x = (*at)->record, tail = *x;

	if (x->start >= want->start && x->end <= want->end) {
		range_remove(r, at);
		return 1;
	}
	tail.start = want->end + 1;
	if (x->start >= want->start)
		__atomic_store_n(&x->start, tail.start, __ATOMIC_RELEASE);
	else if (x->end > want->end && !range_add(r, f, &tail))
		return -ENOLCK;
	if (x->start < want->start)
		__atomic_store_n(&x->end, want->start - 1, __ATOMIC_RELEASE);
	return 0;
}

int range_set(struct remote *r, struct lock_file *f, const struct r_range *want)
{
	struct range *kept = NULL, **at;
	int err;

	for (struct range *x = f->ranges; x && want->type != F_UNLCK; x = x->next)
		if (same_owner(x->record, want) && x->record->type == want->type && x->record->start <= want->start &&
		    x->record->end >= want->end)
			kept = x;
	if (kept)
		kept->record->fh = want->fh;
	else if (want->type != F_UNLCK && !(kept = range_add(r, f, want)))
		return -ENOLCK;
	for (at = &f->ranges; *at; ) {
		bool cut = *at != kept && same_owner((*at)->record, want) && overlap((*at)->record, want);

		err = cut ? range_cut(r, f, at, want) : 0;
		if (err < 0)
			return err;
		/* What range_cut() adds comes before. */
		if (!err)
			at = &(*at)->next;
	}
	return 0;
}

/* ---- from process to process ---- */

int lock_init(struct remote *r)
{
	r->locks = calloc(1, sizeof(*r->locks));
	if (!r->locks)
		return -ENOMEM;
	for (unsigned i = 0; i < LOCK_STRIPES; i++)
		pthread_mutex_init(&r->locks->stripes[i].lock, NULL);
	lock_wait_init(r->locks);
	return r->services->table(r->host, "locks", sizeof(struct r_range), MAX_RANGES, &r->locks->table);
}

static int resume_one(void *arg, void *record)
{
	struct remote *r = arg;
	struct r_range *rec = record;
	struct lock_stripe *s = lock_stripe(r, &rec->key);
	struct lock_file *f = lock_file_find(s, &rec->key);

	if (!f)
		f = lock_file_new(r, s, &rec->key);
	if (f && range_keep(f, rec)) {
		f->lost = f->lost || rec->lost;
		return 0;
	}
	r->services->record_free(r->host, r->locks->table, rec);
	return 0;
}

void lock_resume(struct remote *r)
{
	struct locks *l = r->locks;

	if (!l)
		return;
	*l = (struct locks){ .table = l->table };
	for (unsigned i = 0; i < LOCK_STRIPES; i++)
		pthread_mutex_init(&l->stripes[i].lock, NULL);
	lock_wait_init(l);
	r->services->record_each(r->host, l->table, resume_one, r);
}

void lock_fini(struct remote *r)
{
	struct locks *l = r->locks;

	lock_wait_end(l);
	for (unsigned i = 0; i < LOCK_STRIPES; i++) {
		while (l->stripes[i].files) {
			struct lock_file *f = l->stripes[i].files;

			while (f->ranges)
				range_remove(r, &f->ranges);
			lock_file_drop(r, &l->stripes[i], f);
		}
	}
	free(l);
	r->locks = NULL;
}
