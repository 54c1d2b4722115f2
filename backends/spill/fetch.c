/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads: from the temporary file, where to the inner backend's data come in pieces and ahead of being asked. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/spill/spill.h"
#include "base/cleanup.h"

#define DEMAND	(256u << 10)	/* of one that goes on: what follows is fetched meanwhile */
#define FULL_PAUSE 500000000u
#define SLACK	(1u << 20)	/* the kernel's reads of one file may overtake each other by so much */

/* Until an error or the end of the inner file. */
static ssize_t inner_read(struct spill *sp, const struct fe_request *req, struct fe_node *node,
			  struct fe_handle *handle, unsigned char *buf, size_t size, uint64_t off)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = sp->in->read(sp->ip, req, node, inner_handle(sp, handle), buf + done, size - done,
					 off + done);

		if (n < 0)
			return n;
		atomic_fetch_add(&sp->counters->inner_reads, 1);
		atomic_fetch_add(&sp->counters->inner_read_bytes, (uint64_t)n);
		if (!n)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static struct fetch *under_way(const struct file *f, uint64_t start, uint64_t end)
{
	struct fetch *first = NULL;

	for (struct fetch *t = f->fetches; t; t = t->next)
		if (t->start < end && start < t->end && (!first || t->start < first->start))
			first = t;
	return first;
}

static void fetch_begin(struct file *f, struct fetch *mine, uint64_t start, uint64_t end)
{
	*mine = (struct fetch){
		.next = f->fetches, .start = start, .end = end,
		.epoch = f->epoch, .drops = f->drops, .changes = f->changes, .number = ++f->last_fetch,
	};
	f->fetches = mine;
}

static void fetch_end(struct file *f, struct fetch *gone)
{
	struct fetch **at = &f->fetches;

	while (*at != gone)
		at = &(*at)->next;
	*at = gone->next;
	pthread_cond_broadcast(&f->changed);
}

/* With file.lock, let go meanwhile: until this one has ended, not just any. */
static void fetch_wait(struct file *f, uint64_t number)
{
	const struct fetch *t;

	do {
		pthread_cond_wait(&f->changed, &f->lock);
		for (t = f->fetches; t && t->number != number; t = t->next)
			;
	} while (t);
}

/* A directory that was full just now is asked again a little later only: what was fetched for it is lost. */
static bool was_full(struct spill *sp)
{
	uint64_t since = atomic_load_explicit(&sp->full_since, memory_order_relaxed);

	return since && clock_ns() - since < FULL_PAUSE;
}

/*
 * What was fetched may be of a state that is no more: all of it, or where something was written, sent back
 * and given up since, so that it is absent again.
 */
static bool outdated(const struct file *f, const struct fetch *t)
{
	return t->epoch != f->epoch || (t->drops != f->drops && t->changes != f->changes);
}

/* With file.lock, which is let go while others give. */
static int store_piece(struct spill *sp, struct file *f, const unsigned char *buf, uint64_t start, uint64_t end,
		       const struct fetch *mine)
{
	for (unsigned tries = 0;; tries++) {
		int err = store_fetched(sp, f, buf, start, end);
		bool given;

		if (err != -ENOSPC && err != -EDQUOT)
			return err;
		pthread_mutex_unlock(&f->lock);
		/* What others give may be taken by others. */
		given = tries < FULL_TRIES && files_give(sp, f);
		pthread_mutex_lock(&f->lock);
		if (outdated(f, mine))
			return 0;
		if (!given) {
			atomic_store(&sp->full_since, clock_ns());
			return err;
		}
	}
}

/* At most one piece at `start`, or as far as somebody else does not fetch it. With file.lock, let go meanwhile. */
static int fetch_piece(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
		       struct fe_handle *handle, uint64_t start, uint64_t end)
{
	_cleanup_free_ unsigned char *buf = NULL;
	struct fetch mine = { 0 }, *other;
	uint64_t a, b;
	ssize_t n;

	if (end > f->rec->size)
		end = f->rec->size;
	if (!ranges_gap(&f->present, start, end, &a, &b))
		return 0;
	if (b > a + PIECE)
		b = a + PIECE;
	other = under_way(f, a, b);
	if (other && other->start <= a) {
		fetch_wait(f, other->number);
		return 0;
	}
	if (other)
		b = other->start;
	fetch_begin(f, &mine, a, b);
	pthread_mutex_unlock(&f->lock);
	n = files_room(sp, f, b - a) ? 0 : -ENOSPC;
	buf = n ? NULL : malloc(b - a);
	if (!n)
		n = buf ? inner_read(sp, req, node, handle, buf, b - a, a) : -ENOMEM;
	pthread_mutex_lock(&f->lock);
	fetch_end(f, &mine);
	if (n < 0)
		return (int)n;
	if (outdated(f, &mine))
		return 0; /* the caller looks again */
	/* Where the inner file ends early, somebody else has made it shorter since it was opened. */
	memset(buf + n, 0, b - a - (size_t)n);
	return store_piece(sp, f, buf, a, b, &mine);
}

/* Each piece once: where room is short, the next one may take the place of the last one. */
int fetch_range(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
		struct fe_handle *handle, uint64_t start, uint64_t end)
{
	uint64_t a, b;
	int err = was_full(sp) ? -ENOSPC : 0;

	for (uint64_t at = start; !err && at < f->rec->size && ranges_gap(&f->present, at, end, &a, &b); at = b) {
		if (b > a + PIECE)
			b = a + PIECE;
		err = fetch_piece(sp, f, req, node, handle, a, b);
	}
	return err;
}

/* Where the inner file has data from `from` on; without lseek() all of it is. */
static bool inner_data(struct spill *sp, const struct fe_request *req, struct fe_node *node, struct fe_handle *own,
		       uint64_t from, uint64_t size, uint64_t *start, uint64_t *end)
{
	int64_t a = (int64_t)from, b = (int64_t)size;

	if (sp->in->lseek) {
		a = sp->in->lseek(sp->ip, req, node, inner_handle(sp, own), (int64_t)from, SEEK_DATA);
		if (a == -ENXIO)
			return false;
		b = a < 0 ? a : sp->in->lseek(sp->ip, req, node, inner_handle(sp, own), a, SEEK_HOLE);
		if (a < 0 || b < 0) {
			a = (int64_t)from;
			b = (int64_t)size;
		}
	}
	*start = (uint64_t)a;
	*end = (uint64_t)b < size ? (uint64_t)b : size;
	if (*end > *start + PIECE)
		*end = *start + PIECE;
	return *start < *end;
}

int fetch_whole(struct spill *sp, struct file *f, struct fe_node *node, struct fe_handle *own)
{
	_cleanup_free_ unsigned char *buf = malloc(PIECE), *zeros = calloc(1, PIECE);
	uint64_t size = f->rec->size, at = 0, a, b, c, d;
	struct fe_request req = own_request(f);
	int err = buf && zeros ? 0 : -ENOMEM;

	while (!err && at < size) {
		ssize_t n = 0;
		bool data;

		pthread_mutex_unlock(&f->lock);
		data = inner_data(sp, &req, node, own, at, size, &a, &b);
		if (data)
			n = inner_read(sp, &req, node, own, buf, b - a, a);
		pthread_mutex_lock(&f->lock);
		if (n < 0)
			return (int)n;
		if (!data)
			a = b = size;
		/* Up to there it is a hole. */
		for (uint64_t from = at; !err && next_data(f, from, &c, &d) && c < a; from = d) {
			c = c > at ? c : at;
			d = d < a ? d : a;
			err = store_over(sp, f, zeros, c, d);
		}
		if (!err && n > 0)
			err = store_over(sp, f, buf, a, a + (uint64_t)n);
		at = data && n > 0 ? a + (uint64_t)n : b;
	}
	if (!err)
		err = ranges_add(&f->present, 0, size);
	store_account(sp, f);
	return err;
}

/* How a read goes on from those before: sets how much is fetched with it, and returns what is ahead. */
static uint64_t follow_reads(struct spill *sp, struct file *f, uint64_t off, uint64_t end, uint64_t *from,
			     uint64_t *to)
{
	uint64_t near = f->next_read > off ? f->next_read - off : off - f->next_read;
	uint64_t window;

	if (near <= SLACK && (off || f->next_read)) {
		f->runs++;
	} else {
		f->runs = 0;
		f->ahead_end = 0;
		f->next_read = 0;
	}
	if (end > f->next_read)
		f->next_read = end;
	*from = off;
	*to = end;
	if (!f->runs && off) {
		*from = off & ~(uint64_t)(SMALL_PIECE - 1);
		*to = (end + SMALL_PIECE - 1) & ~(uint64_t)(SMALL_PIECE - 1);
		return 0;
	}
	if (*to < off + DEMAND)
		*to = off + DEMAND;
	if (!f->runs)
		return 0;
	window = (uint64_t)PIECE << (f->runs < 8 ? f->runs : 8);
	return window < sp->ahead ? window : sp->ahead;
}

static void read_ahead(struct spill *sp, struct file *f, const struct fe_node *node, const struct fe_handle *handle,
		       uint64_t from, uint64_t window)
{
	uint64_t end = from + window < f->rec->size ? from + window : f->rec->size, a, b;
	uint64_t at = f->ahead_end > from ? f->ahead_end : from;

	/* not in bits and pieces */
	if (at + PIECE / 2 > end && end < f->rec->size)
		return;
	while (ranges_gap(&f->present, at, end, &a, &b)) {
		if (b > a + PIECE)
			b = a + PIECE;
		ahead(sp, f, node, handle, a, b);
		at = b;
	}
	f->ahead_end = end;
}

/* Straight from the inner backend, where there is no room for it. */
static ssize_t read_past(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
			 struct fe_handle *handle, unsigned char *buf, uint64_t at, uint64_t end)
{
	uint64_t a, b;
	ssize_t n;

	if (!ranges_gap(&f->present, at, end, &a, &b) || a != at)
		return 0;
	pthread_mutex_unlock(&f->lock);
	atomic_fetch_add(&sp->counters->direct, 1);
	n = inner_read(sp, req, node, handle, buf, b - a, a);
	pthread_mutex_lock(&f->lock);
	if (n >= 0)
		memset(buf + n, 0, b - a - (size_t)n);
	return n < 0 ? n : (ssize_t)(b - a);
}

static ssize_t read_file(struct spill *sp, struct file *f, const struct fe_request *req, struct fe_node *node,
			 struct fe_handle *handle, unsigned char *buf, uint64_t off, uint64_t end)
{
	uint64_t at = off, from, to, window, a, b;
	unsigned tries = 0;

	if (end > f->rec->size)
		end = f->rec->size;
	if (off >= end)
		return 0;
	window = follow_reads(sp, f, off, end, &from, &to);
	if (window)
		read_ahead(sp, f, node, handle, to, window);
	while (at < end) {
		ssize_t n;

		if (end > f->rec->size)
			end = f->rec->size; /* it became shorter meanwhile */
		if (at >= end)
			break;
		if (ranges_next(&f->present, at, end, &a, &b) && a == at) {
			uint64_t drops = f->drops;

			pthread_mutex_unlock(&f->lock);
			n = store_read(f, buf + (at - off), b - at, at);
			pthread_mutex_lock(&f->lock);
			if (n < 0)
				return n;
			if (drops != f->drops)
				continue;
			memset(buf + (at - off) + n, 0, b - at - (size_t)n);
			at = b;
			tries = 0;
			continue;
		}
		/* What was fetched may be given up for others before it is read. */
		n = f->broken || was_full(sp) || tries++ == FULL_TRIES ? -ENOSPC :
		    fetch_piece(sp, f, req, node, handle, from < at && at == off ? from : at, to);
		if (is_full(n)) {
			n = read_past(sp, f, req, node, handle, buf + (at - off), at, end);
			at += n > 0 ? (uint64_t)n : 0;
			tries = 0;
		}
		if (n < 0)
			return n;
	}
	return (ssize_t)(at - off);
}

ssize_t sp_read(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle, void *buf,
		size_t size, uint64_t off)
{
	struct spill *sp = b;
	bool raw = part_of(sp, handle)->flags & HANDLE_RAW;
	struct file *f = raw ? NULL : file_get(sp, node->record);
	ssize_t n;

	if (!f)
		return sp->in->read(sp->ip, req, node, inner_handle(sp, handle), buf, size, off);
	if (size > INT64_MAX - off)
		size = INT64_MAX - off;
	pthread_mutex_lock(&f->lock);
	n = file_ready(sp, f, req, node, handle);
	if (!n)
		n = read_file(sp, f, req, node, handle, buf, off, off + size);
	pthread_mutex_unlock(&f->lock);
	file_put(sp, f);
	return n;
}
