/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Draws random steps. Names come from a small pool, so that calls meet objects made by others. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fsdiff.h"

#define REFILL 200	/* steps after which the tree gets its directories and open files back */
#define AUDIT 400

struct gen {
	uint64_t state;
	const struct gen_cfg *cfg;
	int total_weight;
};

static uint64_t next(struct gen *g)
{
	uint64_t z = (g->state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static int64_t below(struct gen *g, int64_t n)
{
	return (int64_t)(next(g) % (uint64_t)n);
}

static bool chance(struct gen *g, int percent)
{
	return below(g, 100) < percent;
}

#define PICK(g, ...) pick(g, (const int64_t[]){ __VA_ARGS__ }, \
			  sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t))
static int64_t pick(struct gen *g, const int64_t *list, size_t n)
{
	return list[below(g, (int64_t)n)];
}

static const char *const odd_paths[] = {
	"", ".", "..", "/", "d0/", "f0/", "d0/.", "d1/..", "nx/f0", "@255", "@256", "d0/@255",
	"d1/@256", "@path/f0", "@path+/f0", "f0/x", "s0/", "//d0//f0", "s1/", "d0/d1/", "d2/@254",
	"f1/.", "f1/..",
};

static void gen_leaf(struct gen *g, char *out, enum kind kind)
{
	static const char prefix[] = "fdsp";
	static const int pool[] = { 5, 3, 2, 2 };
	int which;

	switch (kind) {
	case K_FILE: case K_FILE2: which = 0; break;
	case K_DIR: case K_CHDIR: which = 1; break;
	case K_LINK: which = 2; break;
	case K_SPECIAL: which = 3; break;
	default: which = (int)PICK(g, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3);
	}
	if (chance(g, 4))
		which = (int)below(g, 4);
	if (kind == K_FILE2 || kind == K_ANY2)
		sprintf(out, "%c%d", prefix[which], (int)below(g, which == 0 ? 8 : 4));
	else
		sprintf(out, "%c%d", prefix[which], (int)below(g, pool[which]));
}

static void gen_path(struct gen *g, char *out, enum kind kind)
{
	int depth = (int)PICK(g, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3);

	if (chance(g, 2) || (kind == K_CHDIR && chance(g, 30))) {
		strcpy(out, kind == K_CHDIR ? "/" :
		       odd_paths[below(g, sizeof(odd_paths) / sizeof(odd_paths[0]))]);
		return;
	}
	*out = 0;
	if (chance(g, 10))
		strcpy(out, "/");
	while (depth-- > 0) {
		if (chance(g, 8))
			strcat(out, chance(g, 30) ? "../" : "s0/");
		else
			sprintf(out + strlen(out), "d%d/", (int)below(g, 3));
	}
	gen_leaf(g, out + strlen(out), kind);
}

static void gen_target(struct gen *g, char *out)
{
	static const char *const odd[] = { "", "s0", "s1", "nowhere", "@255", "@path/f0",
					   "/", "..", "d0/" };

	if (chance(g, 25)) {
		strcpy(out, odd[below(g, sizeof(odd) / sizeof(odd[0]))]);
		return;
	}
	strcpy(out, chance(g, 30) ? "../" : "");
	gen_path(g, out + strlen(out), chance(g, 50) ? K_FILE : K_DIR);
}

static void gen_xname(struct gen *g, char *out)
{
	static const char *const names[] = {
		"user.a", "user.a", "user.a", "user.a", "user.b", "user.b", "user.a.longer.name",
		"trusted.t", "trusted.t", "security.capability", "security.capability",
		"security.other", "user.", "nonsense", "", "system.other", "user.@255", "trusted.",
		"system.posix_acl_access", "system.posix_acl_default",
	};

	strcpy(out, names[below(g, sizeof(names) / sizeof(names[0]))]);
}

static int64_t gen_sym(struct gen *g, const struct symtab *t)
{
	int total = 0, r;
	int64_t v = 0;

	for (const struct sym *b = t->base; b->name; b++)
		total += b->weight;
	r = (int)below(g, total);
	for (const struct sym *b = t->base; b->name; b++) {
		if (r < b->weight) {
			v = b->val;
			break;
		}
		r -= b->weight;
	}
	for (const struct sym *b = t->bits; b->name; b++)
		if (chance(g, b->weight))
			v |= b->val;
	return v;
}

static int64_t gen_offset(struct gen *g)
{
	int r = (int)below(g, 100);

	if (r < 15)
		return 0;
	if (r < 45)
		return below(g, 20000);
	if (r < 70)
		return below(g, 32) * 4096;
	if (r < 80)
		return below(g, 64) * 4096 + PICK(g, -1, 1, 511, 512);
	if (r < 90)
		return below(g, 1 << 20);
	if (r < 97)
		return (INT64_C(1) << 32) + PICK(g, -4096, -1, 0, 1, 4096, 1 << 20);
	return PICK(g, -1, -4096, INT64_C(1) << 40, INT64_C(5) << 32);
}

static int64_t gen_len(struct gen *g)
{
	int r = (int)below(g, 100);

	if (r < 4)
		return 0;
	if (r < 40)
		return 1 + below(g, 300);
	if (r < 70)
		return (1 + below(g, 8)) * 4096;
	if (r < 95)
		return below(g, 16384);
	return below(g, 128 * 1024);
}

static int64_t gen_size(struct gen *g)
{
	if (chance(g, 4))
		return PICK(g, -1, INT64_C(1) << 62, INT64_MAX);
	return chance(g, 30) ? gen_len(g) : gen_offset(g);
}

static int64_t gen_mode(struct gen *g, bool dir)
{
	if (dir)
		return PICK(g, 0777, 0777, 0777, 0755, 0775, 01777, 02777, 0700, 02775, 03777, 0711,
			    0);
	return PICK(g, 0777, 0777, 0666, 0666, 0644, 0600, 0640, 0755, 04755, 02755, 06777, 02766,
		    01777, 0400, 0222, 0000, 02777);
}

static int64_t gen_time(struct gen *g)
{
	return PICK(g, TIME_NOW, TIME_OMIT, 0, 1, 1000000000123456789, 999999999, -1, -1000000000,
		    86400000000001, 2147483647999999999, 2147483648000000000, 4294967296000000001);
}

static int8_t gen_slot(struct gen *g)
{
	return (int8_t)below(g, NFD);
}

static int64_t gen_num(struct gen *g, const struct arg *a)
{
	switch (a->kind) {
	case K_OFF: return gen_offset(g);
	case K_LEN: return gen_len(g);
	case K_SIZE: return gen_size(g);
	case K_TAG: return 1 + below(g, 200);
	case K_UID: return PICK(g, -1, -1, 0, 1001, 1001, 1002, 1002, 1003);
	case K_GID: return PICK(g, -1, -1, 0, 2001, 2002, 3000, 3000, 3001);
	case K_XSIZE:
		return PICK(g, 0, 0, 1, 5, 20, 20, 20, 24, 64, 100, 100, 255, 1000, 3000, 65536,
			    65537);
	case K_ROOM: return PICK(g, 0, 0, 1, 20, 100, 1000, 4096, 4096, 4096, 65536, 65537);
	case K_LOCK_OFF:
		return chance(g, 4) ? PICK(g, -1, INT64_MAX, INT64_C(1) << 33) : below(g, 60);
	case K_LOCK_LEN: return chance(g, 4) ? PICK(g, -5, INT64_MAX, -100) : below(g, 25);
	case K_MAP: return below(g, NMAP);
	case K_PAGE_OFF: return PICK(g, 0, 0, 0, 4096, 8192, 65536, INT64_C(1) << 32);
	case K_SMALL: return below(g, 8);
	case K_MODE: return gen_mode(g, chance(g, 35));
	case K_DIR_MODE: return gen_mode(g, chance(g, 95));
	case K_PERM: return PICK(g, 0, 0, 02, 07, 022, 022, 027, 077, 0777, 0111);
	case K_TIME: return gen_time(g);
	default: return gen_sym(g, a->tab);
	}
}

static void gen_arg(struct gen *g, struct step *s, const struct arg *a)
{
	switch (a->kind) {
	case K_AT:
		s->at = chance(g, 85) ? -1 : gen_slot(g);
		break;
	case K_AT2:
		s->at2 = chance(g, 85) ? -1 : gen_slot(g);
		break;
	case K_FD:
		s->fd = gen_slot(g);
		break;
	case K_FD2: case K_INTO:
		s->fd2 = gen_slot(g);
		break;
	case K_ANY: case K_FILE: case K_DIR: case K_LINK: case K_SPECIAL: case K_CHDIR:
		gen_path(g, s->path, a->kind);
		break;
	case K_ANY2: case K_FILE2:
		gen_path(g, s->path2, a->kind);
		break;
	case K_TARGET:
		gen_target(g, s->path2);
		break;
	case K_XNAME:
		gen_xname(g, s->name);
		break;
	default:
		s->num[a->idx] = gen_num(g, a);
	}
}

static int gen_op(struct gen *g)
{
	int r = (int)below(g, g->total_weight);

	for (size_t i = 0; i < n_ops; i++) {
		if (g->cfg->allowed && !g->cfg->allowed[i])
			continue;
		if (r < ops[i].weight)
			return (int)i;
		r -= ops[i].weight;
	}
	abort();
}

static void gen_one(struct gen *g, struct step *s)
{
	const struct op *op;

	memset(s, 0, sizeof(*s));
	s->actor = (uint8_t)(g->cfg->actor >= 0 ? g->cfg->actor : below(g, g->cfg->actors));
	s->op = (uint16_t)gen_op(g);
	op = step_op(s);
	for (int i = 0; i < NARG && op->arg[i].name; i++)
		gen_arg(g, s, &op->arg[i]);
	if (chance(g, 35))
		s->flags |= STEP_POST;
	if (!op->untimed && chance(g, 6))
		s->flags |= STEP_TIMED;
}

static void add_line(struct steps *out, int actor, const char *line)
{
	char buf[256];
	struct step s;

	snprintf(buf, sizeof(buf), "%d: %s", actor, line);
	if (!step_parse(&s, buf)) {
		fprintf(stderr, "fsdiff: bad built-in step: %s\n", buf);
		abort();
	}
	steps_add(out, &s);
}

static void gen_setup(struct gen *g, struct steps *out)
{
	static const char *const dirs[] = { "d0", "d1", "d2", "d0/d1", "d1/d2", "d2/d0", "d1/d0" };
	int owner = g->cfg->actor >= 0 ? g->cfg->actor : 0;
	char line[200];

	add_line(out, owner, "umask(mask=0)");
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(line, sizeof(line), "unlink(at=cwd, path=\"/%s\", flags=0)", dirs[i]);
		add_line(out, owner, line);
		snprintf(line, sizeof(line), "mkdir(at=cwd, path=\"/%s\", mode=0777)", dirs[i]);
		add_line(out, owner, line);
		snprintf(line, sizeof(line), "chmod(at=cwd, path=\"/%s\", mode=0%o)", dirs[i],
			 (unsigned int)PICK(g, 0777, 0777, 0777, 01777, 02777));
		add_line(out, owner, line);
	}
	for (int actor = 0; actor < g->cfg->actors; actor++) {
		int who = g->cfg->actor >= 0 ? g->cfg->actor : actor;

		add_line(out, who, "chdir(path=\"/\")");
		for (int k = 0; k < 4; k++) {
			snprintf(line, sizeof(line),
				 "open(at=cwd, path=\"%sf%d\", flags=O_RDWR|O_CREAT, "
				 "mode=0666, into=%d)",
				 k & 1 ? "" : "d0/", (int)below(g, 3), (int)below(g, NFD));
			add_line(out, who, line);
		}
		snprintf(line, sizeof(line),
			 "open(at=cwd, path=\"d%d\", flags=O_RDONLY|O_DIRECTORY, mode=0, "
			 "into=%d)",
			 (int)below(g, 3), (int)below(g, NFD));
		add_line(out, who, line);
		snprintf(line, sizeof(line), "umask(mask=0%o)",
			 (unsigned int)PICK(g, 0, 022, 02, 027));
		add_line(out, who, line);
		if (g->cfg->actor >= 0)
			break;
	}
}

void gen_steps(const struct gen_cfg *cfg, struct steps *out)
{
	struct gen g = { .state = cfg->seed * 0x2545f4914f6cdd1du + 88172645463325252u,
			 .cfg = cfg };

	for (size_t i = 0; i < n_ops; i++)
		if (!cfg->allowed || cfg->allowed[i])
			g.total_weight += ops[i].weight;
	for (long i = 0; i < cfg->steps; i++) {
		struct step s;

		if (i % REFILL == 0)
			gen_setup(&g, out);
		gen_one(&g, &s);
		steps_add(out, &s);
		if (i % AUDIT == AUDIT - 1 || i == cfg->steps - 1)
			add_line(out, cfg->actor >= 0 ? cfg->actor : 0, "audit()");
	}
}
