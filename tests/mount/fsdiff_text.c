/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Steps as text: "1: open(at=cwd, path="d0/f1", flags=O_RDWR|O_CREAT, mode=0644, into=3) timed". */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fsdiff.h"

enum form { FORM_SLOT, FORM_TEXT, FORM_DEC, FORM_OCT, FORM_SYM, FORM_TIME };

static enum form kind_form(enum kind k)
{
	switch (k) {
	case K_AT: case K_AT2: case K_FD: case K_FD2: case K_INTO:
		return FORM_SLOT;
	case K_ANY: case K_FILE: case K_DIR: case K_LINK: case K_SPECIAL: case K_CHDIR: case K_ANY2:
	case K_FILE2: case K_TARGET: case K_XNAME:
		return FORM_TEXT;
	case K_MODE: case K_DIR_MODE: case K_PERM:
		return FORM_OCT;
	case K_SYM:
		return FORM_SYM;
	case K_TIME:
		return FORM_TIME;
	default:
		return FORM_DEC;
	}
}

static int8_t *arg_slot(struct step *s, enum kind k)
{
	switch (k) {
	case K_AT: return &s->at;
	case K_AT2: return &s->at2;
	case K_FD: return &s->fd;
	default: return &s->fd2;
	}
}

static char *arg_text(struct step *s, enum kind k, size_t *size)
{
	*size = PATH_TEXT;
	switch (k) {
	case K_XNAME:
		*size = sizeof(s->name);
		return s->name;
	case K_ANY2: case K_FILE2: case K_TARGET:
		return s->path2;
	default:
		return s->path;
	}
}

static void sym_print(FILE *f, const struct symtab *tab, int64_t v)
{
	const char *sep = "";

	for (const struct sym *b = tab->bits; b->name; b++) {
		if ((v & b->val) != b->val)
			continue;
		fprintf(f, "%s%s", sep, b->name);
		sep = "|";
		v &= ~b->val;
	}
	if (!v && *sep && tab->base[0].val == 0 && tab->base[0].name[0] == '0')
		return;
	for (const struct sym *b = tab->base; b->name; b++)
		if (b->val == v) {
			fprintf(f, "%s%s", sep, b->name);
			return;
		}
	fprintf(f, "%s0x%llx", sep, (unsigned long long)v);
}

static bool sym_lookup(const struct sym *list, const char *name, int64_t *v)
{
	for (; list->name; list++)
		if (!strcmp(list->name, name)) {
			*v |= list->val;
			return true;
		}
	return false;
}

static bool sym_parse(const struct symtab *tab, char *text, int64_t *v)
{
	char *save, *end;

	*v = 0;
	for (char *t = strtok_r(text, "|", &save); t; t = strtok_r(NULL, "|", &save)) {
		if (sym_lookup(tab->bits, t, v) || sym_lookup(tab->base, t, v))
			continue;
		*v |= strtoll(t, &end, 0);
		if (*end)
			return false;
	}
	return true;
}

static void arg_print(FILE *f, const struct arg *a, struct step *s)
{
	int64_t v = s->num[a->idx];
	size_t size;

	fprintf(f, "%s=", a->name);
	switch (kind_form(a->kind)) {
	case FORM_SLOT:
		if (*arg_slot(s, a->kind) < 0)
			fprintf(f, "cwd");
		else
			fprintf(f, "%d", *arg_slot(s, a->kind));
		break;
	case FORM_TEXT:
		fprintf(f, "\"%s\"", arg_text(s, a->kind, &size));
		break;
	case FORM_OCT:
		fprintf(f, "0%llo", (unsigned long long)v);
		break;
	case FORM_SYM:
		sym_print(f, a->tab, v);
		break;
	case FORM_TIME:
		if (v == TIME_NOW || v == TIME_OMIT)
			fprintf(f, v == TIME_NOW ? "NOW" : "OMIT");
		else
			fprintf(f, "%lldns", (long long)v);
		break;
	case FORM_DEC:
		fprintf(f, "%lld", (long long)v);
	}
}

static bool arg_parse(const struct arg *a, struct step *s, char *text)
{
	int64_t *v = &s->num[a->idx];
	char *end = text, *dst;
	size_t size, len = strlen(text);

	switch (kind_form(a->kind)) {
	case FORM_SLOT:
		if (!strcmp(text, "cwd")) {
			*arg_slot(s, a->kind) = -1;
			return true;
		}
		*arg_slot(s, a->kind) = (int8_t)strtol(text, &end, 10);
		return !*end && *arg_slot(s, a->kind) < NFD && *arg_slot(s, a->kind) >= 0;
	case FORM_TEXT:
		dst = arg_text(s, a->kind, &size);
		if (len < 2 || len - 2 >= size || text[0] != '"' || text[len - 1] != '"')
			return false;
		memcpy(dst, text + 1, len - 2);
		dst[len - 2] = 0;
		return true;
	case FORM_SYM:
		return sym_parse(a->tab, text, v);
	case FORM_TIME:
		if (!strcmp(text, "NOW") || !strcmp(text, "OMIT")) {
			*v = text[0] == 'N' ? TIME_NOW : TIME_OMIT;
			return true;
		}
		*v = strtoll(text, &end, 10);
		return !strcmp(end, "ns");
	default:
		*v = strtoll(text, &end, 0);
		return !*end;
	}
}

void step_print(const struct step *s, char *buf, size_t size)
{
	struct step copy = *s;
	FILE *f = fmemopen(buf, size, "w");
	const struct arg *a = step_op(s)->arg;

	if (!f)
		abort();
	fprintf(f, "%d: %s(", s->actor, step_op(s)->name);
	for (int i = 0; i < NARG && a[i].name; i++) {
		fprintf(f, "%s", i ? ", " : "");
		arg_print(f, &a[i], &copy);
	}
	fprintf(f, ")%s%s", s->flags & STEP_TIMED ? " timed" : "",
		s->flags & STEP_POST ? " post" : "");
	fclose(f);
}

bool step_parse(struct step *s, const char *line)
{
	char copy[1024], *p, *open, *close, *save;
	const struct arg *a;
	long actor;
	int op, i = 0;

	memset(s, 0, sizeof(*s));
	if (strlen(line) >= sizeof(copy))
		return false;
	strcpy(copy, line);
	actor = strtol(copy, &p, 10);
	open = strchr(p, '(');
	close = strrchr(p, ')');
	if (actor < 0 || actor >= MAX_ACTORS || strncmp(p, ": ", 2) || !open || !close)
		return false;
	*open = *close = 0;
	op = op_find(p + 2);
	if (op < 0)
		return false;
	s->actor = (uint8_t)actor;
	s->op = (uint16_t)op;
	s->flags = (strstr(close + 1, "timed") ? STEP_TIMED : 0) |
		   (strstr(close + 1, "post") ? STEP_POST : 0);
	a = ops[op].arg;
	for (p = strtok_r(open + 1, " ", &save); p; p = strtok_r(NULL, " ", &save), i++) {
		size_t len = strlen(p), name_len = i < NARG && a[i].name ? strlen(a[i].name) : 0;

		if (len && p[len - 1] == ',')
			p[len - 1] = 0;
		if (!name_len || strncmp(p, a[i].name, name_len) || p[name_len] != '=')
			return false;
		if (!arg_parse(&a[i], s, p + name_len + 1))
			return false;
	}
	return i == NARG || !a[i].name;
}

void steps_add(struct steps *list, const struct step *s)
{
	if (list->n == list->room) {
		list->room = list->room ? 2 * list->room : 256;
		list->v = reallocarray(list->v, list->room, sizeof(*list->v));
		if (!list->v)
			abort();
	}
	list->v[list->n++] = *s;
}

/*
 * Long names stay short in a step: a component "@N" is a name of N bytes, a first component "@path"
 * fills up to the longest path the kernel takes, "@path+" to one byte more.
 */
void path_expand(const char *text, char *out, size_t size)
{
	size_t n = 0;

	if (!strncmp(text, "@path", 5)) {
		bool over = text[5] == '+';
		const char *rest = text + 5 + over;
		size_t want = PATH_MAX - 1 + over - strlen(rest);

		while (n < want)
			out[n] = n % 2 ? '/' : '.', n++;
		strcpy(out + n, rest);
		return;
	}
	while (*text && n + 300 < size) {
		if (*text == '@') {
			int len = (int)strtol(text + 1, (char **)&text, 10);

			memset(out + n, 'n', (size_t)len % 300);
			n += (size_t)len % 300;
		} else {
			out[n++] = *text++;
		}
	}
	out[n] = 0;
}

void steps_save(const struct steps *list, const char *file)
{
	FILE *f = fopen(file, "w");
	char buf[1024];

	if (!f) {
		fprintf(stderr, "fsdiff: %s: %s\n", file, strerror(errno));
		exit(2);
	}
	fprintf(f, "# steps of fsdiff: actor: call(arguments), \"timed\" and \"post\" ask for more "
		   "checks\n");
	for (size_t i = 0; i < list->n; i++) {
		step_print(&list->v[i], buf, sizeof(buf));
		fprintf(f, "%s\n", buf);
	}
	if (fclose(f)) {
		fprintf(stderr, "fsdiff: %s: %s\n", file, strerror(errno));
		exit(2);
	}
}

/* Returns the number of actors that the steps need. */
int steps_load(struct steps *list, const char *file)
{
	FILE *f = fopen(file, "r");
	char line[1024];
	int number = 0, actors = 1;

	if (!f) {
		fprintf(stderr, "fsdiff: %s: %s\n", file, strerror(errno));
		exit(2);
	}
	while (fgets(line, sizeof(line), f)) {
		struct step s;

		number++;
		line[strcspn(line, "\n")] = 0;
		if (!line[0] || line[0] == '#')
			continue;
		if (!step_parse(&s, line)) {
			fprintf(stderr, "fsdiff: %s:%d: not a step: %s\n", file, number, line);
			exit(2);
		}
		if (s.actor >= actors)
			actors = s.actor + 1;
		steps_add(list, &s);
	}
	fclose(f);
	return actors;
}
