/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a person reads: the steps around a difference, and how often the calls met which error. */
#include <string.h>

#include "fsdiff.h"

#define SHOWN 20	/* steps before the difference that a report shows */

static const char *leaf(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool same_name(const char *a, const char *b)
{
	return *leaf(a) && !strcmp(leaf(a), leaf(b));
}

/* Does step a speak of an object that step b speaks of too, as far as names can tell? */
static bool relevant(const struct step *a, const struct step *b)
{
	const struct arg *arg = step_op(a)->arg;

	if (same_name(a->path, b->path) || same_name(a->path, b->path2) ||
	    same_name(a->path2, b->path) || same_name(a->path2, b->path2))
		return true;
	if (a->actor != b->actor)
		return false;
	for (int i = 0; i < NARG && arg[i].name; i++) {
		int8_t slot = arg[i].kind == K_FD ? a->fd : arg[i].kind == K_AT ? a->at :
			arg[i].kind == K_FD2 || arg[i].kind == K_INTO ? a->fd2 : -1;

		if (slot >= 0 && (slot == b->fd || slot == b->fd2 || slot == b->at))
			return true;
	}
	return !strcmp(step_op(a)->name, "umask") || !strcmp(step_op(a)->name, "chdir");
}

static void print_step(const struct steps *list, size_t i, const struct failure *f)
{
	const struct outcome *o = f->outcome ? &f->outcome[i] : NULL;
	char buf[1024];

	step_print(&list->v[i], buf, sizeof(buf));
	printf("  %6zu  %s", i, buf);
	if (o && i < f->index)
		printf(" = %lld%s%s", (long long)o->ret, o->err ? " " : "",
		       o->err ? err_name(o->err) : "");
	printf("\n");
}

void print_steps(const struct steps *list, const struct failure *f, bool all)
{
	const struct step *last = &list->v[f->index];
	size_t from = f->index, count = 0;

	while (from > 0 && count < SHOWN)
		count += relevant(&list->v[--from], last);
	for (size_t i = all ? 0 : from; i <= f->index; i++)
		if (all || i == f->index || relevant(&list->v[i], last))
			print_step(list, i, f);
}

void print_cred(int actor)
{
	const struct cred *c = actor_cred(actor);

	printf("actor %d is uid %u, gid %u, groups", actor, c->uid, c->gid);
	for (int i = 0; i < c->n_groups; i++)
		printf(" %u", c->groups[i]);
	printf("%s\n", c->n_groups ? "" : " none");
}

#define N_ERR 134	/* one more than the largest errno */

static long counts[256][N_ERR];

void stats_add(const struct steps *list, const struct failure *f)
{
	for (size_t i = 0; f->outcome && i < f->index; i++) {
		int err = f->outcome[i].err;

		counts[list->v[i].op][err >= 0 && err < N_ERR ? err : N_ERR - 1]++;
	}
}

void stats_print(void)
{
	for (size_t op = 0; op < n_ops; op++) {
		printf("%-13s ok %ld", ops[op].name, counts[op][0]);
		for (int err = 1; err < N_ERR; err++)
			if (counts[op][err])
				printf(", %s %ld", err_name(err), counts[op][err]);
		printf("\n");
	}
}
