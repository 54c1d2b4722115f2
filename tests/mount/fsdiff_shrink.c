/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Delta debugging: the shortest list of steps that still shows the difference. */
#include <stdlib.h>
#include <string.h>

#include "fsdiff.h"

#define MAX_RUNS 800

struct search {
	const struct trees *t;
	struct steps *best;	/* fails, and its last step is the one that shows it */
	struct failure *f;
	int op;
	char key[80];
	int runs;
};

/* A candidate that shows the same kind of difference becomes the best, cut at that step. */
static bool try_list(struct search *q, struct steps *cand)
{
	struct failure f;

	if (interrupted || ++q->runs > MAX_RUNS || run_steps(q->t, cand, &f) || interrupted) {
		free(cand->v);
		return false;
	}
	if (cand->v[f.index].op != q->op || strcmp(f.diff.key, q->key)) {
		free(f.outcome);
		free(cand->v);
		return false;
	}
	cand->n = f.index + 1;
	free(q->best->v);
	*q->best = *cand;
	free(q->f->outcome);
	*q->f = f;
	return true;
}

static struct steps without(const struct steps *list, size_t from, size_t to)
{
	struct steps out = { 0 };

	for (size_t i = 0; i < list->n; i++)
		if (i < from || i >= to)
			steps_add(&out, &list->v[i]);
	return out;
}

/* Most failures need only the latest steps; this saves the long runs. */
static void keep_tail(struct search *q)
{
	for (size_t keep = 16; keep < q->best->n / 2; keep *= 4) {
		struct steps cand = without(q->best, 0, q->best->n - keep);

		if (try_list(q, &cand))
			return;
	}
}

static void remove_chunks(struct search *q)
{
	for (size_t chunk = q->best->n / 2; chunk && q->runs < MAX_RUNS && !interrupted;) {
		bool any = false;
		size_t end = q->best->n;

		while (end > 0 && q->runs < MAX_RUNS && !interrupted) {
			size_t from = end > chunk ? end - chunk : 0;
			struct steps cand = without(q->best, from, end);

			if (cand.n && try_list(q, &cand))
				any = true;
			else if (!cand.n)
				free(cand.v);
			end = from < q->best->n ? from : q->best->n;
		}
		if (!any || chunk > 1)
			chunk = any && chunk <= q->best->n / 2 ? chunk : chunk / 2;
	}
}

static void drop_flags(struct search *q)
{
	for (size_t i = 0; i < q->best->n && q->runs < MAX_RUNS && !interrupted; i++) {
		struct steps cand;

		if (!q->best->v[i].flags)
			continue;
		cand = without(q->best, 0, 0);
		cand.v[i].flags = 0;
		try_list(q, &cand);
	}
}

void shrink(const struct trees *t, struct steps *list, struct failure *f)
{
	struct trees quiet = *t;
	struct search q = { .t = &quiet, .best = list, .f = f, .op = list->v[f->index].op };
	struct steps cand = without(list, 0, 0);

	quiet.quiet = true;
	snprintf(q.key, sizeof(q.key), "%s", f->diff.key);
	if (!try_list(&q, &cand)) {
		printf("the difference does not come again when the steps are run once more\n");
		return;
	}
	keep_tail(&q);
	remove_chunks(&q);
	drop_flags(&q);
	printf("after %d runs, the steps that are needed:\n", q.runs);
}
