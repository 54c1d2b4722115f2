/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Directories that somebody reads from the first name to the last: then it is known which names there are
 * not. What has been read so far is kept in the process only; with it ends what it knew.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/answers.h"

static struct reading *find(struct fe_host *h, uint64_t fh)
{
	for (int i = 0; i < READINGS; i++)
		if (h->readings[i].fh == fh)
			return &h->readings[i];
	return NULL;
}

/* Whoever does not come to the end gives way in turn. */
static struct reading *another(struct fe_host *h)
{
	struct reading *r = find(h, 0);

	if (!r)
		r = &h->readings[h->readings_at++ % READINGS];
	return r->busy ? NULL : r;
}

static void start(struct call *c, struct reading *r, uint64_t fh)
{
	r->fh = fh;
	r->stamp = c->stamp;
	r->next = 0;
	r->broken = false;
	extfuse_names_clear(&r->names);
}

struct reading *reading_begin(struct call *c, const struct handle *hd, uint64_t fh, uint64_t off)
{
	struct fe_host *h = c->host;
	_cleanup_unlock_ pthread_mutex_t *held = NULL;
	struct reading *r;

	if (!h->hook || !hd->all_names || !answers_keep(h->opt.negative_valid, h->opt.negative_valid))
		return NULL;
	held = fe_lock(&h->readings_lock);
	r = find(h, fh);
	/* Two readers of one open directory: neither sees all. */
	if (r && (r->busy || (off && r->next != off))) {
		r->broken = true;
		return NULL;
	}
	if (!off && !r)
		r = another(h);
	if (!r)
		return NULL;
	if (!off)
		start(c, r, fh);
	r->busy = true;
	return r;
}

void reading_add(struct reading *r, const char *name, size_t len, uint64_t next)
{
	char text[NAME_MAX + 1] = "";

	if (len < sizeof(text))
		memcpy(text, name, len);
	/* It might be asked for nevertheless. */
	if (extfuse_names_add(&r->names, text))
		r->broken = true;
	r->next = next;
}

void reading_end(struct call *c, struct reading *r, int err, bool end)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c->host->readings_lock);

	r->busy = false;
	if (end && !err && !r->broken)
		extfuse_put_dir(c->host->hook, r->stamp, c->node.nodeid, &r->names);
	if (end || err || r->broken)
		r->fh = 0;
}
