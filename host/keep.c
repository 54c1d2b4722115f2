/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Services for what a backend keeps for its successor: memory, records, descriptors. */
#include <errno.h>
#include <string.h>

#include "host/internal.h"

/* What is written where, and whether the descriptor is kept, in one step. */
static void fd_note(struct fe_host *h, int *where, int value, int (*note)(struct fr *, struct fr_slot *, int), int fd)
{
	struct fr_slot *s;

	if (!h->recovers || !h->service_slot) { /* nobody comes after; or: nobody has come yet */
		__atomic_store_n(where, value, __ATOMIC_RELEASE);
		if (!h->service_slot)
			note(h->fr, NULL, fd);
		return;
	}
	s = step_slot(h);
	fr_begin(s);
	fr_save(s, where, sizeof(*where));
	__atomic_store_n(where, value, __ATOMIC_RELEASE);
	note(h->fr, s, fd);
	fr_commit(s);
	step_slot_done(h);
}

void fd_put(void *host, int *where, int fd)
{
	fd_note(host, where, fd, fr_fd_keep, fd);
}

int fd_take(void *host, int *where)
{
	int fd = *where;

	if (fd >= 0)
		fd_note(host, where, -1, fr_fd_drop, fd);
	return fd >= 0 ? fd : -1;
}

int keep_shared(void *host, const char *name, size_t size, void **out)
{
	struct fe_host *h = host;

	return fr_area_new(h->fr, name, size, out);
}

int keep_table(void *host, const char *name, uint32_t size, uint32_t most, struct fe_table **out)
{
	struct fe_host *h = host;
	struct fe_table *t = &h->tables[h->ntables];
	int err;

	if (!size || size > RECORD_MAX)
		return -EINVAL;
	if (h->ntables == BACKEND_TABLES)
		return -ENOSPC;
	err = fr_table_new(h->fr, name, size, 0, 0, most, &t->records);
	if (err)
		return err;
	t->size = size;
	h->ntables++;
	*out = t;
	return 0;
}

void *keep_record(void *host, struct fe_table *t, const void *bytes)
{
	struct fe_host *h = host;
	struct fr_slot *s = step_slot(h);
	void *record;

	fr_begin(s);
	record = fr_alloc_record(s, t->records);
	if (record)
		memcpy(record, bytes, t->size);
	fr_commit(s);
	step_slot_done(h);
	return record;
}

void keep_no_record(void *host, struct fe_table *t, void *record)
{
	struct fe_host *h = host;
	struct fr_slot *s = step_slot(h);

	fr_begin(s);
	fr_free_record(s, t->records, record);
	fr_commit(s);
	step_slot_done(h);
}

struct each {
	int (*fn)(void *arg, void *record);
	void *arg;
};

static int each_one(void *arg, uint64_t id, void *record)
{
	struct each *e = arg;

	(void)id;
	return e->fn(e->arg, record);
}

int keep_each(void *host, struct fe_table *t, int (*fn)(void *arg, void *record), void *arg)
{
	struct each e = { fn, arg };

	(void)host;
	return fr_table_each(t->records, each_one, &e);
}

void helper_enter(void *host)
{
	struct fe_host *h = host;

	fr_helper_enter(h->fr);
}

void helper_leave(void *host)
{
	struct fe_host *h = host;

	fr_helper_leave(h->fr);
}
