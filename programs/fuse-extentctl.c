/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse-extentctl COMMAND MOUNTPOINT: asks a running fuse-extent how it is, what it does, or to be replaced. */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mountinfo.h"
#include "host/host.h"
#include "programs/control.h"
#include "programs/statustext.h"
#include "programs/top.h"

#define ANSWER_MAX	(1 << 20)
#define UPGRADE_S	60
#define LOOK_MS		20

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_WAIT = -1 };

__attribute__((format(printf, 1, 2))) static int fail(const char *fmt, ...)
{
	va_list ap;

	fputs("fuse-extentctl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EXIT_FAILED;
}

static int find_mount(const char *given, struct mount_entry *entry)
{
	_cleanup_free_ char *path = mountpoint_path(given);
	_cleanup_free_ char *resolved = NULL;
	int err;

	if (!path)
		return fail("%s: %s", given, strerror(errno));
	err = mountinfo_lookup(path, entry);
	if (err == -ENOENT) {
		/* It is no mountpoint, so it may be looked at: perhaps it is a symlink to one. */
		resolved = realpath(path, NULL);
		if (resolved && strcmp(resolved, path))
			err = mountinfo_lookup(resolved, entry);
	}
	if (err == -ENOENT)
		return fail("%s: nothing is mounted there; the path must be the mountpoint itself", path);
	if (err)
		return fail("/proc/self/mountinfo: %s", strerror(-err));
	if (strcmp(entry->fstype, FE_FSTYPE))
		return fail("%s: mounted, but not by fuse-extent (its type is %s)", path, entry->fstype);
	return EXIT_OK;
}

static int not_asked(const char *mountpoint, int err)
{
	if (err == -ECONNREFUSED)
		return fail("%s: no server listens; it has ended, or runs in another network namespace",
			    mountpoint);
	if (err == -ETIMEDOUT)
		return fail("%s: the server does not answer", mountpoint);
	if (err == -EPERM)
		return fail("%s: what listens in the server's place runs as another user; not asked", mountpoint);
	if (err)
		return fail("%s: asking the server: %s", mountpoint, strerror(-err));
	return EXIT_OK;
}

static int ask(const char *mountpoint, const struct mount_entry *entry, const char *command, char *answer)
{
	return not_asked(mountpoint, control_ask(entry, command, answer, ANSWER_MAX));
}

/* The answer as an object, to be put; NULL after a line that says what is wrong. */
static struct json_object *understand(const char *mountpoint, const char *answer)
{
	struct json_object *object = json_tokener_parse(answer);
	struct json_object *error;

	if (!json_object_is_type(object, json_type_object))
		fail("%s: the server's answer can not be read", mountpoint);
	else if (json_object_object_get_ex(object, "error", &error))
		fail("%s: the server refuses: %s", mountpoint, json_object_get_string(error));
	else
		return object;
	json_object_put(object);
	return NULL;
}

static int show_status(const char *mountpoint, const struct mount_entry *entry, char *answer, bool json)
{
	struct json_object *status;

	if (ask(mountpoint, entry, FE_CONTROL_STATUS, answer))
		return EXIT_FAILED;
	status = understand(mountpoint, answer);
	if (!status)
		return EXIT_FAILED;
	if (json)
		fputs(answer, stdout);
	else
		status_print(stdout, status);
	json_object_put(status);
	return EXIT_OK;
}

/* ---- upgrade ---- */

static const char *member(struct json_object *object, const char *name)
{
	struct json_object *value;

	return json_object_object_get_ex(object, name, &value) ? json_object_get_string(value) : "";
}

/* The outcome, or EXIT_WAIT. */
static int look_at_upgrade(const char *mountpoint, struct json_object *status)
{
	struct json_object *upgrade;
	const char *state;

	if (!json_object_object_get_ex(status, "upgrade", &upgrade))
		return fail("%s: the server knows of no upgrade", mountpoint);
	state = member(upgrade, "state");
	if (!strcmp(state, "failed"))
		return fail("%s: the new program does not take over: %s; the old one serves on", mountpoint,
			    member(upgrade, "why"));
	if (strcmp(state, "done"))
		return EXIT_WAIT;
	printf("%s: taken over by process %s, keeper %s, after %s ms\n", mountpoint, member(status, "worker_pid"),
	       member(status, "keeper_pid"), member(status, "last_pause_ms"));
	return EXIT_OK;
}

static int await_upgrade(const char *mountpoint, const struct mount_entry *entry, char *answer)
{
	time_t end = time(NULL) + UPGRADE_S;

	while (time(NULL) < end) {
		struct json_object *status;
		int result;

		/* While no worker lives, nobody answers. */
		result = control_ask(entry, FE_CONTROL_STATUS, answer, ANSWER_MAX);
		if (result == -ECONNREFUSED)
			return fail("%s: the server has ended", mountpoint);
		if (result || !*answer) {
			usleep(LOOK_MS * 1000);
			continue;
		}
		status = understand(mountpoint, answer);
		if (!status)
			return EXIT_FAILED;
		result = look_at_upgrade(mountpoint, status);
		json_object_put(status);
		if (result != EXIT_WAIT)
			return result;
		usleep(LOOK_MS * 1000);
	}
	return fail("%s: the upgrade is still under way; fuse-extentctl status tells what comes of it", mountpoint);
}

static int upgrade(const char *mountpoint, const struct mount_entry *entry, char *answer, const char *binary)
{
	_cleanup_free_ char *program = binary ? realpath(binary, NULL) : NULL;
	_cleanup_free_ char *command = NULL;
	struct json_object *object;

	if (binary && !program)
		return fail("%s: %s", binary, strerror(errno));
	if (asprintf(&command, FE_CONTROL_UPGRADE "%s%s\n", program ? " " : "", program ? program : "") < 0)
		return fail("out of memory");
	if (ask(mountpoint, entry, command, answer))
		return EXIT_FAILED;
	/* A worker that is slow to answer may have been replaced by then. */
	if (*answer) {
		object = understand(mountpoint, answer);
		if (!object)
			return EXIT_FAILED;
		json_object_put(object);
	}
	return await_upgrade(mountpoint, entry, answer);
}

/* ---- the command line ---- */

struct command {
	const char *name, *mountpoint, *binary;
	bool json;
	struct top_options top;
};

static int run(const struct command *c)
{
	_cleanup_free_ char *answer = malloc(ANSWER_MAX);
	struct mount_entry entry = { 0 };
	int result;

	if (!answer)
		return fail("out of memory");
	result = find_mount(c->mountpoint, &entry);
	if (!result && !strcmp(c->name, "upgrade"))
		result = upgrade(c->mountpoint, &entry, answer, c->binary);
	else if (!result && !strcmp(c->name, "top"))
		result = not_asked(c->mountpoint, top_run(c->mountpoint, &entry, &c->top));
	else if (!result)
		result = show_status(c->mountpoint, &entry, answer, c->json);
	if (fflush(stdout))
		return fail("writing: %s", strerror(errno));
	return result;
}

static void print_usage(FILE *f)
{
	fputs("usage: fuse-extentctl status MOUNTPOINT [--json]\n"
	      "       fuse-extentctl top MOUNTPOINT [--interval SECONDS] [--count N]\n"
	      "       fuse-extentctl upgrade MOUNTPOINT [--binary PATH]\n\n"
	      "  status       what the server of MOUNTPOINT does; --json for scripts\n"
	      "  top          what is asked of the server, what is answered without it, and how long requests\n"
	      "               take, each SECONDS (1) anew, N times or until it is interrupted\n"
	      "  upgrade      the server's program is replaced while it serves, by the file that it was\n"
	      "               started from, or by PATH; where that can not take over, all stays as it is\n"
	      "  -h, --help, -V, --version\n", f);
}

/* Seconds from a hundredth to an hour, or a number of tables. */
static bool number(const char *text, bool seconds, struct top_options *o)
{
	char *end;
	double n = strtod(text, &end);

	if (end == text || *end || !(n >= (seconds ? 0.01 : 1)) || n > (seconds ? 3600 : 1e9))
		return false;
	if (seconds)
		o->interval = n;
	else
		o->count = (unsigned)n;
	return true;
}

static bool is_known(const struct command *c, bool for_top)
{
	if (!strcmp(c->name, "top"))
		return !c->json && !c->binary;
	if (!strcmp(c->name, "status"))
		return !c->binary && !for_top;
	return !strcmp(c->name, "upgrade") && !c->json && !for_top;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "binary", required_argument, NULL, 'b' },
		{ "interval", required_argument, NULL, 'i' },
		{ "count", required_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	struct command command = { .top.interval = 1 };
	bool for_top = false;
	int c;

	while ((c = getopt_long(argc, argv, "jb:i:n:hV", options, NULL)) >= 0) {
		switch (c) {
		case 'j':
			command.json = true;
			break;
		case 'b':
			command.binary = optarg;
			break;
		case 'i':
		case 'n':
			if (!number(optarg, c == 'i', &command.top)) {
				print_usage(stderr);
				return EXIT_USAGE;
			}
			for_top = true;
			break;
		case 'h':
			print_usage(stdout);
			return fflush(stdout) ? EXIT_FAILED : EXIT_OK;
		case 'V':
			printf("fuse-extentctl " PACKAGE_VERSION "\n");
			return fflush(stdout) ? EXIT_FAILED : EXIT_OK;
		default:
			print_usage(stderr);
			return EXIT_USAGE;
		}
	}
	command.name = argc - optind == 2 ? argv[optind] : "";
	command.mountpoint = argv[optind + !!*command.name];
	if (!is_known(&command, for_top)) {
		print_usage(stderr);
		return EXIT_USAGE;
	}
	return run(&command);
}
