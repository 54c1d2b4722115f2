/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether all answers can have come about by one order (linearizability, as Wing and Gong look for it): of all
 * orders of the operations under way, those worlds are kept that are in keeping with what was answered so far.
 * When an operation has ended and there is no world in which it has been done with its answer, that is not coherent.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/mount/coherence_world.h"

enum { HISTORY = 40, MOST_WORLDS = 200000 };

struct worlds {
	struct world *all;
	size_t count, room, buckets;
	uint32_t *bucket;	/* number + 1 */
};

static struct worlds now, seen, next;
static uint32_t *node_until;	/* the end of the last operation that saw it, by node */
static uint64_t *node_ino;
static uint32_t nodes;

/* ---- sets of worlds ---- */

static uint64_t hash(const struct world *w)
{
	const uint64_t *p = (const uint64_t *)w;
	uint64_t h = 14695981039346656037u;

	_Static_assert(sizeof(*w) % 8 == 0, "hashed by 8 bytes");
	for (size_t i = 0; i < sizeof(*w) / 8; i++)
		h = ((h ^ p[i]) * 1099511628211u) ^ (h >> 29);
	return h;
}

static void *grown(void *p, size_t size)
{
	p = realloc(p, size);
	if (!p) {
		perror("coherence");
		exit(2);
	}
	return p;
}

static void clear(struct worlds *s)
{
	s->count = 0;
	if (s->buckets > 4096) {
		free(s->bucket);
		s->bucket = NULL;
		s->buckets = 0;
	}
	if (s->bucket)
		memset(s->bucket, 0, s->buckets * sizeof(*s->bucket));
}

static uint32_t *place(struct worlds *s, const struct world *w)
{
	size_t at = hash(w) & (s->buckets - 1);

	while (s->bucket[at] && memcmp(&s->all[s->bucket[at] - 1], w, sizeof(*w)))
		at = (at + 1) & (s->buckets - 1);
	return &s->bucket[at];
}

static void put(struct worlds *s, const struct world *w)
{
	uint32_t *at;

	if (s->count * 2 >= s->buckets) {
		s->buckets = s->buckets ? s->buckets * 2 : 64;
		s->bucket = grown(s->bucket, s->buckets * sizeof(*s->bucket));
		memset(s->bucket, 0, s->buckets * sizeof(*s->bucket));
		for (size_t i = 0; i < s->count; i++)
			*place(s, &s->all[i]) = (uint32_t)i + 1;
	}
	at = place(s, w);
	if (*at)
		return;
	if (s->count == s->room) {
		s->room = s->room ? s->room * 2 : 64;
		s->all = grown(s->all, s->room * sizeof(*s->all));
	}
	if (s->count == MOST_WORLDS) {
		fprintf(stderr, "coherence: too much may be\n");
		exit(2);
	}
	s->all[s->count++] = *w;
	*at = (uint32_t)s->count;
}

/* ---- slots ---- */

static bool is_making(uint32_t node)
{
	for (int p = 0; p < PROCS; p++)
		if (running[p] && running[p]->kind <= SYMLINK && !running[p]->err && running[p]->node == node)
			return true;
	return false;
}

/* A slot that no world needs; or, where they `must` have one, that no name leads to. */
static bool is_free(int slot, bool must)
{
	if (!slot_node[slot] || slot_until[slot] > clock_now || is_making(slot_node[slot]))
		return false;
	for (size_t i = 0; i < now.count; i++)
		if (must ? names_of(&now.all[i], slot) != 0 : !forlorn(&now.all[i], slot, PROCS))
			return false;
	return true;
}

static void free_slot(int slot)
{
	slot_node[slot] = 0;
	for (size_t i = 0; i < now.count; i++) {
		struct world *w = &now.all[i];

		memset(&w->nodes[slot], 0, sizeof(w->nodes[slot]));
		for (int p = 0; p < PROCS; p++) {
			if (w->pending[p].found & BIT(slot))
				w->pending[p].found = (w->pending[p].found & ~BIT(slot)) | DROPPED;
			if (w->pending[p].touched == slot)
				w->pending[p].touched = NONE;
		}
	}
}

static void sweep(void)
{
	for (int s = 0; s < SLOTS; s++)
		if (is_free(s, false))
			free_slot(s);
}

static void take_slot(const struct op *op)
{
	int s = slot_of(0);

	for (int i = 0; s < 0 && i < SLOTS; i++)
		if (is_free(i, true)) {
			free_slot(i);
			s = i;
		}
	if (s < 0) {
		fprintf(stderr, "coherence: too many nodes at once\n");
		exit(2);
	}
	slot_node[s] = op->node;
	slot_until[s] = node_until[op->node];
}

/* ---- what is told ---- */

const char *const coherence_kinds[KINDS] = {
	"create", "mkdir", "symlink", "unlink", "rmdir", "rename", "link", "chmod", "truncate", "write", "utimes", "setxattr",
	"removexattr", "lstat", "stat", "open", "access", "getxattr", "listxattr", "readlink", "readdir",
};

static const char *name_of(int name)
{
	static char buf[4][8];
	static unsigned n;

	snprintf(buf[++n % 4], sizeof(buf[0]), "%c/%d", 'a' + name / EACH, name % EACH);
	return buf[n % 4];
}

static void print_attributes(const struct op *op, FILE *out)
{
	fprintf(out, " = node %u", op->node);
	if (!S_ISDIR(op->type))
		fprintf(out, " size %u nlink %u", op->size, op->nlink);
	fprintf(out, " mode %o mtime %u", op->mode, op->mtime);
}

void coherence_print(const struct op *op, FILE *out)
{
	fprintf(out, "[%u %u] %u: %s ", op->begin, op->end, op->proc, coherence_kinds[op->kind]);
	if (op->kind == READDIR)
		fprintf(out, "%c", 'a' + op->x);
	else if (op->by)
		fprintf(out, "node %u", op->by);
	else
		fprintf(out, "%s", name_of(op->x));
	if (op->kind == RENAME || op->kind == LINK)
		fprintf(out, " %s", name_of(op->y));
	if (op->flags)
		fprintf(out, " flags %u", op->flags);
	if (op->kind == SETXATTR || op->kind == REMOVEXATTR || op->kind == GETXATTR)
		fprintf(out, " user.%u", op->key);
	if (op->kind < LSTAT && op->kind != UNLINK && op->kind != RMDIR && op->kind != RENAME && op->kind != LINK)
		fprintf(out, op->kind <= CHMOD ? " %o" : " %u", op->value);
	if (op->err)
		fprintf(out, ": %s", strerrorname_np(op->err) ? strerrorname_np(op->err) : "no errno");
	else if (op->kind == LSTAT || op->kind == STAT || op->kind == OPEN)
		print_attributes(op, out);
	else if (op->kind == GETXATTR || op->kind == LISTXATTR)
		fprintf(out, " = %u", op->value);
	else if (op->node)
		fprintf(out, " = node %u", op->node);
	for (int i = 0; i < EACH && op->kind == READDIR; i++)
		if (op->listed[i])
			fprintf(out, " %d", i);
	fprintf(out, "\n");
}

static void print_world(const struct world *w, FILE *out)
{
	for (int s = 0; s < SLOTS; s++) {
		const struct node *n = &w->nodes[s];

		if (!n->type)
			continue;
		fprintf(out, "      node %u type %o mode %o size %u mtime %u xattrs %u %u:", slot_node[s], n->type, n->mode,
			n->size, n->mtime, n->xattr[0], n->xattr[1]);
		for (int i = 0; i < NAMES; i++)
			if (w->names[i] == s)
				fprintf(out, " %s", name_of(i));
		fprintf(out, "\n");
	}
	fprintf(out, "      not done:");
	for (int p = 0; p < PROCS; p++)
		if (running[p] && w->pending[p].left)
			fprintf(out, " %u", running[p]->proc);
	fprintf(out, "\n");
}

/* Those before it that may have to do with it, and those under way. */
static void explain(const struct op *ops, const uint32_t *events, const struct op *bad, const char *why, FILE *out)
{
	uint32_t from = bad->end;

	fprintf(out, "not coherent, %s: ", why);
	coherence_print(bad, out);
	fprintf(out, "    what came before, in the order of its beginning:\n");
	for (int n = 0; from > 0 && (n < HISTORY || (from > bad->begin && n < 4 * HISTORY)); from--)
		n += !(events[from - 1] & 1);
	for (; from < bad->end; from++)
		if (!(events[from] & 1)) {
			fprintf(out, "    ");
			coherence_print(&ops[events[from] >> 1], out);
		}
	fprintf(out, "    what may be (%zu):\n", now.count);
	for (size_t i = 0; i < now.count && i < 4; i++) {
		fprintf(out, "    - %zu\n", i + 1);
		print_world(&now.all[i], out);
	}
}

/* ---- in the order of the clock ---- */

static void reached(const struct world *w)
{
	put(&seen, w);
}

static void swap_next(void)
{
	struct worlds t = now;

	now = next;
	next = t;
}

static void begin(const struct op *op)
{
	if (op->kind <= SYMLINK && !op->err)
		take_slot(op);
	running[op->proc] = op;
	clear(&next);
	for (size_t i = 0; i < now.count; i++) {
		begin_in(&now.all[i], op);
		put(&next, &now.all[i]);
	}
	swap_next();
}

static bool end(const struct op *op)
{
	clear(&seen);
	clear(&next);
	for (size_t i = 0; i < now.count; i++)
		put(&seen, &now.all[i]);
	for (size_t i = 0; i < seen.count; i++) {
		struct world w = seen.all[i];

		if (w.pending[op->proc].left) {
			for (int p = 0; p < PROCS; p++)
				steps(&w, p, reached);
			continue;
		}
		memset(&w.pending[op->proc], 0, sizeof(w.pending[0]));
		w.pending[op->proc].touched = NONE;
		put(&next, &w);
	}
	if (!next.count)
		return false;
	running[op->proc] = NULL;
	swap_next();
	sweep();
	return true;
}

static void prepare(const struct op *ops, size_t count, uint32_t *events)
{
	struct world w = { 0 };

	nodes = 0;
	for (size_t i = 0; i < count; i++) {
		nodes = ops[i].node > nodes ? ops[i].node : nodes;
		nodes = ops[i].by > nodes ? ops[i].by : nodes;
		events[ops[i].begin] = (uint32_t)i << 1;
		events[ops[i].end] = (uint32_t)i << 1 | 1;
	}
	node_until = grown(NULL, (nodes + 1) * sizeof(*node_until));
	node_ino = grown(NULL, (nodes + 1) * sizeof(*node_ino));
	memset(node_until, 0, (nodes + 1) * sizeof(*node_until));
	memset(node_ino, 0, (nodes + 1) * sizeof(*node_ino));
	for (size_t i = 0; i < count; i++) {
		if (node_until[ops[i].node] < ops[i].end)
			node_until[ops[i].node] = ops[i].end;
		if (node_until[ops[i].by] < ops[i].end)
			node_until[ops[i].by] = ops[i].end;
	}
	memset(running, 0, sizeof(running));
	memset(slot_node, 0, sizeof(slot_node));
	memset(w.names, NONE, NAMES);
	for (int p = 0; p < PROCS; p++)
		w.pending[p].touched = NONE;
	clear(&now);
	put(&now, &w);
}

bool coherence_check(const struct op *ops, size_t count, FILE *out)
{
	uint32_t *events = grown(NULL, count * 2 * sizeof(*events));
	bool good = true;

	prepare(ops, count, events);
	for (clock_now = 0; clock_now < count * 2 && good; clock_now++) {
		const struct op *op = &ops[events[clock_now] >> 1];

		if (!(events[clock_now] & 1)) {
			begin(op);
			continue;
		}
		good = end(op);
		if (!good)
			explain(ops, events, op, "no order explains", out);
		if (good && op->ino && node_ino[op->node] && op->ino != node_ino[op->node]) {
			explain(ops, events, op, "another inode number", out);
			good = false;
		}
		if (op->ino)
			node_ino[op->node] = op->ino;
	}
	free(events);
	free(node_until);
	free(node_ino);
	return good;
}
