/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Command lines of any kind. An input is one byte (bit 0: the caller is root) and then the arguments
 * behind the program's name, each ended by a NUL byte.
 *
 * What must hold: an error comes with a sentence, success with everything that a mount needs; only root
 * gets a mount without nosuid and nodev; the same arguments give the same result twice.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/mount.h>

#include "programs/options.h"

#define MAX_ARGS 24

static void check(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_options: %s\n", what);
	abort();
}

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

static void check_success(const struct options *o, bool root)
{
	const struct fe_host_options *h = &o->host;
	char source[8192];

	if (o->help || o->version)
		return;
	check(h->struct_size == sizeof(*h), "struct_size is not set");
	check(o->source && o->backend && o->argument && o->mountpoint, "a string is missing");
	check(h->source == o->source && h->argument == o->argument && h->mountpoint == o->mountpoint &&
	      h->backend_options == o->backend_options, "the host's strings are not those of the options");
	snprintf(source, sizeof(source), "%s:%s", o->backend, o->argument);
	check(!strcmp(source, o->source), "BACKEND:ARGUMENT is not SOURCE");
	check(*o->backend, "BACKEND is empty");
	check(root || (h->mount_flags & (MS_NOSUID | MS_NODEV)) == (MS_NOSUID | MS_NODEV),
	      "suid or dev for somebody else than root");
	check(h->entry_valid <= 1000000001ull * 1000000000, "a timeout of more than the most");
	check(!h->max_read || h->max_read >= 4096, "max_read below a page");
	check(!h->max_write || h->max_write >= 4096, "max_write below a page");
	check(h->max_threads <= 1024, "too many threads");
	check(!o->backend_options || *o->backend_options, "empty options for the backend");
	check(!h->kernel_options, "options for the kernel from the command line");
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	char *argv[MAX_ARGS + 2] = { (char *)"fuse-extent" }, *again[MAX_ARGS + 2];
	char *copy, first[OPTIONS_ERROR_SIZE], second[OPTIONS_ERROR_SIZE];
	struct options a, b;
	int argc = 1, err;
	bool root;

	if (!size || size > 4096)
		return 0;
	root = data[0] & 1;
	copy = malloc(size + 1);
	memcpy(copy, data, size);
	copy[size] = 0;
	for (size_t at = 1; at < size && argc <= MAX_ARGS; at += strlen(copy + at) + 1)
		argv[argc++] = copy + at;
	/* getopt(3) moves them about */
	memcpy(again, argv, sizeof(argv));

	memset(first, 0x7f, sizeof(first));
	err = options_parse(&a, argc, argv, root, first);
	check(err == 0 || err == -EINVAL || err == -EPERM, "an unknown error code");
	check(memchr(first, 0, sizeof(first)), "the error has no end");
	check(!err == !*first, "an error without a sentence, or a sentence without an error");
	check(err != -EPERM || !root, "EPERM for root");
	if (!err)
		check_success(&a, root);

	check(options_parse(&b, argc, again, root, second) == err && !strcmp(first, second), "another result");
	if (!err)
		check(same(a.source, b.source) && same(a.backend, b.backend) && same(a.argument, b.argument) &&
		      same(a.mountpoint, b.mountpoint) && same(a.backend_options, b.backend_options) &&
		      a.host.mount_flags == b.host.mount_flags && a.foreground == b.foreground &&
		      a.help == b.help && a.version == b.version, "another result");
	options_free(&a);
	options_free(&b);
	/* it is due in any case, and may come twice */
	options_free(&a);
	free(copy);
	return 0;
}
