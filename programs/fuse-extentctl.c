/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse-extentctl status MOUNTPOINT [--json]: asks a running fuse-extent how it is. */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/host.h"
#include "programs/control.h"
#include "programs/mountinfo.h"
#include "programs/statustext.h"

#define FSTYPE		"fuse.fuse-extent"
#define ANSWER_MAX	(1 << 20)

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

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
	if (strcmp(entry->fstype, FSTYPE))
		return fail("%s: mounted, but not by fuse-extent (its type is %s)", path, entry->fstype);
	return EXIT_OK;
}

static int ask(const char *mountpoint, const struct mount_entry *entry, char *answer)
{
	int err = control_ask(entry, FE_CONTROL_STATUS, answer, ANSWER_MAX);

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

static int print_answer(const char *mountpoint, const char *answer, bool json)
{
	struct json_object *status = json_tokener_parse(answer);
	struct json_object *error;
	int result = EXIT_OK;

	if (!json_object_is_type(status, json_type_object))
		result = fail("%s: the server's answer can not be read", mountpoint);
	else if (json_object_object_get_ex(status, "error", &error))
		result = fail("%s: the server refuses: %s", mountpoint, json_object_get_string(error));
	else if (json)
		fputs(answer, stdout);
	else
		status_print(stdout, status);
	json_object_put(status);
	if (fflush(stdout))
		return fail("writing: %s", strerror(errno));
	return result;
}

static int show_status(const char *mountpoint, bool json)
{
	_cleanup_free_ char *answer = malloc(ANSWER_MAX);
	struct mount_entry entry = { 0 };
	int result;

	if (!answer)
		return fail("out of memory");
	result = find_mount(mountpoint, &entry);
	if (!result)
		result = ask(mountpoint, &entry, answer);
	if (!result)
		result = print_answer(mountpoint, answer, json);
	return result;
}

static void print_usage(FILE *f)
{
	fputs("usage: fuse-extentctl status MOUNTPOINT [--json]\n\n"
	      "  status       what the server of MOUNTPOINT does; --json for scripts\n"
	      "  -h, --help, -V, --version\n", f);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "hV", options, NULL)) >= 0) {
		switch (c) {
		case 'j':
			json = true;
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
	if (argc - optind != 2 || strcmp(argv[optind], "status")) {
		print_usage(stderr);
		return EXIT_USAGE;
	}
	return show_status(argv[optind + 1], json);
}
