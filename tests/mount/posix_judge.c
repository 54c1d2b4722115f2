/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fnmatch.h>
#include <stdarg.h>

#include "posix_judge.h"

enum { LINE_MAX_LEN = 1600 };

/* Differences a mount may show: the name of the check as a pattern, and why. */
static const struct {
	const char *name, *why;
} tolerated[] = {
	{ "open/fifo-*", "the FUSE driver hands a fifo to the kernel's own pipes, which set no times" },
	{ "data/collapse*", "FUSE has no FALLOC_FL_COLLAPSE_RANGE" },
	{ "data/insert*", "FUSE has no FALLOC_FL_INSERT_RANGE" },
	{ "data/limit-fallocate*", "the driver looks at RLIMIT_FSIZE before it asks, ext4 notes times first" },
	{ "data/read-nothing-times", "a read of 0 bytes makes no request" },
	{ "data/read-*-eof-times", "nopassthrough: a read at the end of the cached size makes no request" },
	{ "data/touch-*-cat e", "nopassthrough: a read of an empty file makes no request" },
	{ "mmap/mmap-without-right-to-write", "nopassthrough: mapping a cached file makes no request" },
	{ "data/write-bad-address*", "a write from a bad address makes no request, so nothing is noted" },
	{ "setid/*bad-address-*", "a write from a bad address makes no request, so nothing is noted" },
	{ "setid/*zero-range-*", "the driver takes set-id bits away before it learns that tmpfs can not" },
	{ "data/append-unset*", "passed through: the kernel's own file keeps O_APPEND for good" },
	{ "setid/chmod-then-write-*", "passed through before the bits came: any write takes them" },
};

static unsigned long total, failed, excused;

struct step {
	char actor[16];
	bool async;
	char text[STEP_MAX + 128];
	char expected[256];
};

/* Takes the next step off *rest. */
static bool next_step(const char **rest, struct step *step)
{
	char text[STEP_MAX], *at = text, *equals;
	const char *end;

	if (!*rest)
		return false;
	end = strchrnul(*rest, ';');
	snprintf(text, sizeof(text), "%.*s", (int)(end - *rest), *rest);
	*rest = *end ? end + 1 : NULL;
	while (*at == ' ')
		at++;
	*step = (struct step){ .actor = "root" };
	if (*at == '@') {
		char *space = strchr(at, ' ');

		*space = 0;
		snprintf(step->actor, sizeof(step->actor), "%s", at + 1);
		at = space + 1;
		step->async = step->actor[strlen(step->actor) - 1] == '&';
		if (step->async)
			step->actor[strlen(step->actor) - 1] = 0;
	}
	equals = strstr(at, " = ");
	if (equals) {
		*equals = 0;
		snprintf(step->expected, sizeof(step->expected), "%s", equals + 3);
	}
	snprintf(step->text, STEP_MAX, "%s", at);
	return true;
}

static void spoil(struct trial *trial, int side, const char *what, int err)
{
	char why[128];

	snprintf(why, sizeof(why), "%s: %s", what, strerrorname_np(err));
	trial->side[side].broken = strdup(why);
}

void trial_prepare(struct trial *trial, int side)
{
	const char *rest = trial->check->setup;
	char result[RESULT_MAX], *dir = trial->side[side].dir;
	struct step step;
	int err;

	if (mkdir(dir, 0755) || lchown(dir, UID_OWN, GID_A)) {
		spoil(trial, side, "mkdir", errno);
		return;
	}
	while (next_step(&rest, &step)) {
		actors_step(step.actor, dir, step.text, result);
		if (strcmp(result, "0")) {
			char why[STEP_MAX + RESULT_MAX + 256];

			snprintf(why, sizeof(why), "%s: %s", step.text, result);
			trial->side[side].broken = strdup(why);
			break;
		}
	}
	if (trial->check->setup)
		actors_reset();
	err = tree_baseline(&trial->side[side].before, dir);
	if (err && !trial->side[side].broken)
		spoil(trial, side, "state before", -err);
}

void trial_act(struct trial *trial, int side)
{
	const char *rest = trial->check->act;
	char result[RESULT_MAX], *dir = trial->side[side].dir;
	struct step step;

	if (trial->side[SIDE_PLAIN].broken || trial->side[SIDE_MOUNT].broken)
		return;
	while (next_step(&rest, &step)) {
		if (!strcmp(step.text, "wait"))
			actors_collect(step.actor, result);
		else if (step.async)
			actors_start(step.actor, dir, step.text, result);
		else
			actors_step(step.actor, dir, step.text, result);
		if (trial->side[side].steps < STEPS_MAX)
			trial->side[side].result[trial->side[side].steps++] = strdup(result);
	}
	actors_reset();
	tree_after(&trial->side[side].after, &trial->side[side].before, dir);
}

/* ---- judging ---- */

struct verdict {
	char line[LINE_MAX_LEN];
	size_t len;
};

static void say(struct verdict *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(struct verdict *v, const char *fmt, ...)
{
	va_list args;
	int n;

	if (v->len > LINE_MAX_LEN - 300)
		return;
	if (v->len)
		v->len += sprintf(v->line + v->len, " | ");
	va_start(args, fmt);
	n = vsnprintf(v->line + v->len, LINE_MAX_LEN - v->len, fmt, args);
	va_end(args);
	v->len += n < LINE_MAX_LEN - (int)v->len ? n : LINE_MAX_LEN - (int)v->len - 1;
}

static bool matches(const char *expected, const char *result)
{
	size_t len = strlen(result);

	for (const char *at = expected; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
		if (!strncmp(at, result, len) && (at[len] == 0 || at[len] == '|'))
			return true;
	return false;
}

static void judge_one(struct verdict *v, const char *what, const char *expected,
		      const char *plain, const char *mount)
{
	bool stated = expected && *expected;

	if (!strcmp(plain, mount) && (!stated || matches(expected, plain)))
		return;
	say(v, "%s -> expected %s, plain %.150s, mount %.150s", what,
	    stated ? expected : "the same", plain, mount);
}

static void judge_steps(struct verdict *v, const struct trial *trial)
{
	const char *rest = trial->check->act;
	struct step step;

	for (int i = 0; next_step(&rest, &step) && i < STEPS_MAX; i++) {
		const struct actor *actor = actor_named(step.actor);
		char what[STEP_MAX + 256];

		snprintf(what, sizeof(what), "as %u %u, %s", actor->uid, actor->gid, step.text);
		judge_one(v, what, step.expected, trial->side[SIDE_PLAIN].result[i] ?: "not run",
			  trial->side[SIDE_MOUNT].result[i] ?: "not run");
	}
}

static void judge_fact(struct verdict *v, const struct trial *trial, const char *path, int fact,
		       const char *expected)
{
	char buf[SIDES][PATH_MAX], what[128];
	const char *text[SIDES];

	for (int side = 0; side < SIDES; side++)
		text[side] = tree_fact(&trial->side[side].after, &trial->side[side].before, path,
				       fact, buf[side]);
	snprintf(what, sizeof(what), "%.60s %s", path, fact_names[fact]);
	judge_one(v, what, expected, text[0], text[1]);
}

/*
 * Takes the next fact off a list "path key=value key=value; path gone": key one of fact_names.
 * Returns false at its end. *path stays from word to word.
 */
static bool next_fact(char **rest, char **path, int *fact, char **value)
{
	char *word = strsep(rest, " ");

	while (word && (!*word || !*path)) {
		if (*word)
			*path = word;
		word = strsep(rest, " ");
	}
	if (!word)
		return false;
	*fact = 0;
	*value = strchr(word, '=');
	if (!*value) {
		*value = word;
		return true;
	}
	*(*value)++ = 0;
	while (strcmp(fact_names[*fact], word))
		++*fact;
	return true;
}

/* What post states of one fact, or NULL. */
static const char *stated(const struct check *check, const char *path, int fact, char *copy)
{
	char *rest = copy, *entry;

	snprintf(copy, STEP_MAX, "%s", check->post ?: "");
	while ((entry = strsep(&rest, ";"))) {
		char *of = NULL, *value;
		int which;

		while (next_fact(&entry, &of, &which, &value))
			if (which == fact && !strcmp(of, path))
				return value;
	}
	return NULL;
}

static void judge_object(struct verdict *v, const struct trial *trial, const char *path)
{
	char copy[STEP_MAX];
	bool there[SIDES];

	for (int side = 0; side < SIDES; side++)
		there[side] = tree_find(&trial->side[side].after, path);
	for (int fact = 0; fact < FACTS; fact++)
		if (fact == 0 || (there[SIDE_PLAIN] && there[SIDE_MOUNT]))
			judge_fact(v, trial, path, fact, stated(trial->check, path, fact, copy));
}

/* Only what is nowhere: the rest was judged with its object. */
static void judge_missing(struct verdict *v, const struct trial *trial)
{
	char copy[STEP_MAX], *rest = copy, *entry;

	snprintf(copy, sizeof(copy), "%s", trial->check->post ?: "");
	while ((entry = strsep(&rest, ";"))) {
		char *path = NULL, *value;
		int fact;

		while (next_fact(&entry, &path, &fact, &value))
			if (!tree_find(&trial->side[SIDE_PLAIN].after, path) &&
			    !tree_find(&trial->side[SIDE_MOUNT].after, path))
				judge_fact(v, trial, path, fact, value);
	}
}

static bool is_error(const char *result)
{
	return result[0] == 'E' && result[1] >= 'A' && result[1] <= 'Z';
}

/* A call that failed must have left no trace, but for the atime of what it passed through. */
static void judge_quiet(struct verdict *v, const struct trial *trial, int side)
{
	const struct tree *after = &trial->side[side].after, *before = &trial->side[side].before;

	if (trial->side[side].steps != 1 || !is_error(trial->side[side].result[0]))
		return;
	for (size_t i = 0; i < after->count; i++) {
		char buf[PATH_MAX];
		const char *chg = tree_fact(after, before, after->at[i].path, 6, buf);

		if (strpbrk(chg, "mc"))
			say(v, "%s: failed call, but %.60s chg %s", side ? "mount" : "plain",
			    after->at[i].path, chg);
	}
	if (after->count < before->count)
		say(v, "%s: failed call, but something is gone", side ? "mount" : "plain");
}

static void judge_tree(struct verdict *v, const struct trial *trial)
{
	const struct tree *plain = &trial->side[SIDE_PLAIN].after;
	const struct tree *mount = &trial->side[SIDE_MOUNT].after;

	for (size_t i = 0; i < plain->count; i++)
		judge_object(v, trial, plain->at[i].path);
	for (size_t i = 0; i < mount->count; i++)
		if (!tree_find(plain, mount->at[i].path))
			judge_object(v, trial, mount->at[i].path);
	judge_missing(v, trial);
	judge_quiet(v, trial, SIDE_PLAIN);
	judge_quiet(v, trial, SIDE_MOUNT);
}

static const char *excuse(const char *name)
{
	for (size_t i = 0; i < sizeof(tolerated) / sizeof(*tolerated); i++)
		if (tolerated[i].name && !fnmatch(tolerated[i].name, name, 0))
			return tolerated[i].why;
	return NULL;
}

void trial_judge(struct trial *trial)
{
	struct verdict v = { .len = 0 };
	char name[512];
	const char *why;

	snprintf(name, sizeof(name), "%s/%s", trial->check->group, trial->check->name);
	total++;
	for (int side = 0; side < SIDES; side++)
		if (trial->side[side].broken)
			say(&v, "%s: can not prepare: %.200s", side ? "mount" : "plain",
			    trial->side[side].broken);
	if (!v.len) {
		judge_steps(&v, trial);
		judge_tree(&v, trial);
	}
	why = v.len ? excuse(name) : NULL;
	if (why) {
		excused++;
	} else if (v.len) {
		failed++;
		printf("%s: %s [%s >> %s]\n", name, v.line, trial->check->setup ?: "",
		       trial->check->act);
	}
}

void trial_free(struct trial *trial)
{
	for (int side = 0; side < SIDES; side++) {
		tree_free(&trial->side[side].before);
		tree_free(&trial->side[side].after);
		free(trial->side[side].broken);
		for (int i = 0; i < trial->side[side].steps; i++)
			free(trial->side[side].result[i]);
	}
}

int judge_report(void)
{
	if (excused)
		printf("posix_matrix: %lu tolerated\n", excused);
	printf("posix_matrix: %lu checks, %lu failed\n", total, failed);
	return failed ? 1 : 0;
}
