/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See coherence_world.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/mount/coherence_world.h"

const struct op *running[PROCS];
int coherence_tolerate;
uint32_t slot_node[SLOTS], slot_until[SLOTS], clock_now;

static bool by_names(const struct op *op)
{
	return op->kind <= RENAME;
}

bool changes(const struct op *op)
{
	return op->kind <= REMOVEXATTR && !op->err;
}

int slot_of(uint32_t node)
{
	for (int s = 0; s < SLOTS; s++)
		if (slot_node[s] == node)
			return s;
	return NONE;
}

int names_of(const struct world *w, int slot)
{
	int n = 0;

	for (int i = 0; i < NAMES; i++)
		n += w->names[i] == slot;
	return n;
}

static void nlink_range(const struct world *w, int slot, int *lo, int *hi)
{
	*lo = *hi = names_of(w, slot);
	for (int p = 0; p < PROCS; p++) {
		const struct op *op = running[p];
		const struct pending *q = &w->pending[p];

		if (!op || op->err || op->kind < UNLINK || op->kind > LINK)
			continue;
		if (op->kind == LINK) {
			*hi += (q->left & MAIN) && (q->found & BIT(slot)) && w->names[op->y] == NONE;
			*lo -= q->touched == slot;
			continue;
		}
		if (op->kind == RENAME && op->flags == RENAME_EXCHANGE)
			continue;
		*hi += q->touched == slot;
		if (q->left & MAIN)
			*lo -= op->kind == RENAME ? w->names[op->y] == slot && w->names[op->x] != slot :
						    w->names[op->x] == slot;
	}
	if (coherence_tolerate & TOLERATE_COUNT)
		*lo = 0;
}

static int rename_error(const struct world *w, const struct op *op)
{
	int from = w->names[op->x], to = w->names[op->y];
	bool dir;

	if (from == NONE)
		return ENOENT;
	if (op->flags == RENAME_NOREPLACE && to != NONE)
		return EEXIST;
	if (op->flags == RENAME_EXCHANGE)
		return to == NONE ? ENOENT : 0;
	if (to == NONE || from == to)
		return 0;
	dir = S_ISDIR(w->nodes[from].type);
	if (dir == S_ISDIR(w->nodes[to].type))
		return 0;
	return dir ? ENOTDIR : EISDIR;
}

/* Of what goes by names alone. */
static int names_error(const struct world *w, const struct op *op)
{
	int s = w->names[op->x];

	switch (op->kind) {
	case CREATE:
	case MKDIR:
	case SYMLINK:
		return s == NONE ? 0 : EEXIST;
	case UNLINK:
		return s == NONE ? ENOENT : S_ISDIR(w->nodes[s].type) ? EISDIR : 0;
	case RMDIR:
		return s == NONE ? ENOENT : S_ISDIR(w->nodes[s].type) ? 0 : ENOTDIR;
	default:
		return rename_error(w, op);
	}
}

static bool link_says(const struct world *w, const struct op *op, int slot)
{
	int lo, hi;

	if (w->names[op->y] != NONE)
		return op->err == EEXIST;
	if (S_ISDIR(w->nodes[slot].type))
		return op->err == EPERM;
	nlink_range(w, slot, &lo, &hi);
	return op->err == ENOENT ? lo <= 0 || (coherence_tolerate & TOLERATE_LINK) : !op->err && names_of(w, slot) > 0;
}

static int xattr_error(const struct node *n, const struct op *op)
{
	bool has = n->xattr[op->key];

	if (S_ISLNK(n->type))
		return op->kind == GETXATTR ? ENODATA : EPERM;
	if (op->kind == SETXATTR && op->flags == XATTR_CREATE)
		return has ? EEXIST : 0;
	if (op->kind == SETXATTR && op->flags == 0)
		return 0;
	return has ? 0 : ENODATA;
}

static int changed_by(enum kind kind)
{
	return kind == CHMOD ? MODE : kind == UTIMES ? MTIME : kind == TRUNCATE || kind == WRITE ? SIZE | MTIME : 0;
}

static bool was(const struct world *w, const struct op *op, int slot, int attribute)
{
	for (int p = 0; p < PROCS && (coherence_tolerate & TOLERATE_BACKWARDS); p++) {
		const struct pending *q = &w->pending[p];

		if (!running[p] || !changes(running[p]) || !(changed_by(running[p]->kind) & attribute) || q->touched != slot ||
		    (q->left & (MAIN | attribute)))
			continue;
		if (op->kind == ACCESS ? !(q->was[0] & 0111) == (op->err == EACCES) :
		    attribute == MODE ? q->was[0] == op->mode :
		    attribute == SIZE ? q->was[1] == op->size : q->was[2] == op->mtime)
			return true;
	}
	return false;
}

/* Whether it may be answered so if its path led to this node. */
static bool node_says(const struct world *w, const struct op *op, int slot)
{
	const struct node *n = &w->nodes[slot];
	bool link = S_ISLNK(n->type), dir = S_ISDIR(n->type), same = op->node == slot_node[slot];
	uint32_t mask = 0;

	if (link && (op->kind == STAT || op->kind == ACCESS || op->kind == CHMOD || op->kind == TRUNCATE))
		return op->err == ENOENT;
	switch (op->kind) {
	case LINK:
		return link_says(w, op, slot);
	case CHMOD:
	case WRITE:
	case UTIMES:
		return !op->err;
	case TRUNCATE:
		return op->err == (dir ? EISDIR : 0);
	case SETXATTR:
	case REMOVEXATTR:
		return op->err == xattr_error(n, op);
	case GETXATTR:
		return op->err == xattr_error(n, op) && (op->err || op->value == n->xattr[op->key]);
	case LISTXATTR:
		for (int i = 0; i < XATTRS && !link; i++)
			mask |= (uint32_t)!!n->xattr[i] << i;
		return !op->err && op->value == mask;
	case ACCESS:
		if (op->flags != X_OK || dir)
			return !op->err;
		return op->err == (n->mode & 0111 ? 0 : EACCES) || ((!op->err || op->err == EACCES) && was(w, op, slot, MODE));
	case READLINK:
		return link ? !op->err && same : op->err == EINVAL;
	case OPEN:
		if (link || (dir && op->flags == O_RDWR))
			return op->err == (link ? ELOOP : EISDIR);
		/* fall through */
	default:
		return !op->err && same;
	}
}

static bool path_says(const struct world *w, const struct op *op, uint64_t found)
{
	if ((found & DROPPED) || ((found & ABSENT) && op->err == ENOENT))
		return true;
	for (int s = 0; s < SLOTS; s++)
		if ((found & BIT(s)) && node_says(w, op, s))
			return true;
	return false;
}

static bool listing_says(const struct world *w, const struct op *op, int i)
{
	int s = w->names[op->x * EACH + i];

	if (!op->listed[i] || s == NONE)
		return !op->listed[i] && s == NONE;
	return op->listed[i] == DT_UNKNOWN + 1 || op->listed[i] == IFTODT(w->nodes[s].type) + 1;
}

static void look(const struct world *w, const struct op *op, struct pending *q)
{
	int s = slot_of(op->node), lo, hi;
	const struct node *n = &w->nodes[s < 0 ? 0 : s];

	if (op->kind == READDIR) {
		for (int i = 0; i < EACH; i++)
			if ((q->left & NAME << i) && listing_says(w, op, i))
				q->left &= ~(NAME << i);
		return;
	}
	if ((q->left & MAIN) && (by_names(op) ? names_error(w, op) == op->err : path_says(w, op, q->found)))
		q->left &= ~MAIN;
	if (s < 0 || (q->left & MAIN))
		return;
	if ((q->left & MODE) && (n->mode == op->mode || was(w, op, s, MODE)))
		q->left &= ~MODE;
	if ((q->left & SIZE) && (n->size == op->size || was(w, op, s, SIZE)))
		q->left &= ~SIZE;
	if ((q->left & MTIME) && (n->mtime == op->mtime || was(w, op, s, MTIME)))
		q->left &= ~MTIME;
	if (q->left & NLINK) {
		nlink_range(w, s, &lo, &hi);
		if (lo <= (int)op->nlink && (int)op->nlink <= hi)
			q->left &= ~NLINK;
	}
}

/* Whoever only looks does so as soon as he can: that takes nothing from anybody. */
static void look_all(struct world *w)
{
	for (int p = 0; p < PROCS; p++) {
		const struct op *op = running[p];
		struct pending *q = &w->pending[p];
		int s;

		if (!op || !q->left)
			continue;
		if (!op->by && !by_names(op) && ((q->left & MAIN) || (changes(op) && q->left == (SIZE | MTIME)))) {
			s = w->names[op->x];
			if (s == NONE)
				q->found |= ABSENT;
			else if (!op->node || op->node == slot_node[s])
				q->found |= BIT(s);
		}
		if (!changes(op))
			look(w, op, q);
	}
}

/* ---- steps ---- */

static void change_names(struct world *w, const struct op *op, struct pending *q)
{
	int from = w->names[op->x], to = w->names[op->y], s;
	char target[32];

	switch (op->kind) {
	case CREATE:
	case MKDIR:
	case SYMLINK:
		s = slot_of(op->node);
		w->names[op->x] = (int8_t)s;
		w->nodes[s] = (struct node){ .type = op->kind == CREATE ? S_IFREG : op->kind == MKDIR ? S_IFDIR : S_IFLNK,
			.mode = op->kind == SYMLINK ? 0777 : op->value,
			.size = op->kind == SYMLINK ? (uint32_t)coherence_target(target, sizeof(target), op->node) : 0 };
		return;
	case RENAME:
		if (from == to)
			return;
		w->names[op->y] = (int8_t)from;
		w->names[op->x] = (int8_t)(op->flags == RENAME_EXCHANGE ? to : NONE);
		if (op->flags != RENAME_EXCHANGE)
			q->touched = to;
		return;
	default:
		w->names[op->x] = NONE;
		q->touched = from;
	}
}

static void change_node(struct world *w, const struct op *op, struct pending *q, int slot, int step)
{
	struct node *n = &w->nodes[slot];

	if ((coherence_tolerate & TOLERATE_BACKWARDS) && changed_by(op->kind)) {
		q->touched = slot;
		q->was[0] = n->mode;
		q->was[step == SIZE ? 1 : 2] = step == SIZE ? n->size : n->mtime;
	}
	switch (op->kind) {
	case LINK:
		w->names[op->y] = (int8_t)slot;
		q->touched = slot;
		return;
	case CHMOD:
		n->mode = op->value;
		return;
	case UTIMES:
		n->mtime = op->value;
		return;
	case SETXATTR:
		n->xattr[op->key] = op->value;
		return;
	case REMOVEXATTR:
		n->xattr[op->key] = 0;
		return;
	default:
		if (step == MTIME)
			n->mtime = 0;
		else if (op->kind == TRUNCATE || n->size < op->value)
			n->size = op->value;
	}
}

bool forlorn(const struct world *w, int slot, int p)
{
	if (slot_until[slot] > clock_now || names_of(w, slot))
		return false;
	for (int other = 0; other < PROCS; other++)
		if (other != p && ((w->pending[other].found & BIT(slot)) || w->pending[other].touched == slot))
			return false;
	return true;
}

static void step(const struct world *from, int p, int bit, void (*reached)(const struct world *w))
{
	const struct op *op = running[p];
	bool idle = false;

	if (by_names(op)) {
		struct world w = *from;

		if (names_error(&w, op))
			return;
		w.pending[p].left &= ~bit;
		change_names(&w, op, &w.pending[p]);
		look_all(&w);
		reached(&w);
		return;
	}
	for (int s = 0; s < SLOTS; s++) {
		struct world w = *from;
		struct pending *q = &w.pending[p];

		if (!(q->found & BIT(s)) || !node_says(&w, op, s))
			continue;
		if (op->kind != LINK && forlorn(&w, s, p)) {
			/* What becomes of it is all one, so it counts as dropped. */
			idle = true;
			continue;
		}
		q->left &= ~bit;
		q->found = q->left ? BIT(s) : 0;
		change_node(&w, op, q, s, bit);
		look_all(&w);
		reached(&w);
	}
	if (idle || (op->kind != LINK && (from->pending[p].found & DROPPED))) {
		struct world w = *from;

		w.pending[p].left = 0;
		w.pending[p].found = 0;
		look_all(&w);
		reached(&w);
	}
}

static int steps_of(const struct op *op)
{
	if (op->kind == READDIR)
		return op->err ? MAIN : (NAME << EACH) - NAME;
	if (op->err)
		return MAIN;
	if (op->kind == TRUNCATE || op->kind == WRITE)
		return SIZE | MTIME;
	if (op->kind != LSTAT && op->kind != STAT && op->kind != OPEN)
		return MAIN;
	return MAIN | MODE | MTIME | (S_ISDIR(op->type) ? 0 : SIZE | NLINK);
}

void begin_in(struct world *w, const struct op *op)
{
	struct pending *q = &w->pending[op->proc];

	q->left = steps_of(op);
	q->touched = NONE;
	q->found = op->by ? BIT(slot_of(op->by)) : 0;
	look_all(w);
}

void steps(const struct world *w, int p, void (*reached)(const struct world *w))
{
	static const int bits[] = { MAIN, SIZE, MTIME };

	if (running[p] && changes(running[p]))
		for (int i = 0; i < 3; i++)
			if (w->pending[p].left & bits[i])
				step(w, p, bits[i], reached);
}
