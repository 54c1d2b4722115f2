/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A host that can not be made leaves nothing behind; what is in the status; which backends are taken. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/unit/rig.h"

/* The open descriptors, one character each. */
static void open_descriptors(char map[256])
{
	for (int fd = 0; fd < 255; fd++)
		map[fd] = fcntl(fd, F_GETFD) < 0 ? '.' : 'o';
	map[255] = 0;
}

static int fail_open(const struct fe_open_args *args, struct fe_root *root, void **priv)
{
	(void)args;
	(void)root;
	(void)priv;
	return -ENXIO;
}

static struct fe_host_options usual(const struct fe_backend *be)
{
	return (struct fe_host_options){
		.struct_size = sizeof(struct fe_host_options), .source = "s", .mountpoint = "/", .backend = be,
	};
}

START_TEST(refused_by_backend)
{
	struct fe_backend be = recorder_backend;
	struct fe_host_options opt = usual(&be);
	struct fe_host *h = NULL;
	char before[256], after[256];

	open_descriptors(before);
	be.open = fail_open;
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(fe_host_new(&opt, &h), -ENXIO);
	ck_assert_ptr_null(h);
	opt.mountpoint = "/no/such/directory";
	ck_assert_int_eq(fe_host_new(&opt, &h), -ENOENT);
	opt.mountpoint = NULL;
	ck_assert_int_eq(fe_host_new(&opt, &h), -EINVAL);
	opt.mountpoint = "/";
	opt.source = NULL;
	ck_assert_int_eq(fe_host_new(&opt, &h), -EINVAL);
	open_descriptors(after);
	ck_assert_str_eq(before, after);
}
END_TEST

/* Descriptors run out at every step once. */
START_TEST(no_descriptors)
{
	struct fe_host_options opt = usual(&recorder_backend);
	struct fe_host *h = NULL;
	char before[256], after[256];
	struct rlimit old, tight;
	rlim_t limit = 0;
	int err = -1, failed = 0;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	while (fcntl((int)limit, F_GETFD) >= 0)
		limit++;
	open_descriptors(before);
	for (; err && limit < 200; limit++) {
		tight = (struct rlimit){ limit, old.rlim_max };
		setrlimit(RLIMIT_NOFILE, &tight);
		memset(&rec, 0, sizeof(rec));
		err = fe_host_new(&opt, &h);
		setrlimit(RLIMIT_NOFILE, &old);
		if (err) {
			failed++;
			ck_assert_int_lt(err, 0);
			open_descriptors(after);
			ck_assert_str_eq(before, after);
			ck_assert_uint_eq(recorder_unbalanced(), 0);
		}
	}
	ck_assert_int_eq(err, 0);
	ck_assert_int_ge(failed, 5);
	fe_host_free(h);
	open_descriptors(after);
	ck_assert_str_eq(before, after);
	ck_assert_uint_eq(recorder_unbalanced(), 0);
	fe_host_free(NULL);
}
END_TEST

#ifdef __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if !defined(SANITIZED) && (defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__))
#define SANITIZED 1
#endif

/* So does address space. A sanitizer needs too much of its own for this. */
START_TEST(no_address_space)
{
#ifndef SANITIZED
	struct fe_host_options opt = usual(&recorder_backend);
	struct fe_host *h = NULL;
	char before[256], after[256];
	struct rlimit old, tight;

	ck_assert_int_eq(getrlimit(RLIMIT_AS, &old), 0);
	open_descriptors(before);
	/* from much too little for the first table to enough for all */
	for (rlim_t gib = 1; gib <= 64; gib++) {
		tight = (struct rlimit){ gib << 30, old.rlim_max };
		setrlimit(RLIMIT_AS, &tight);
		memset(&rec, 0, sizeof(rec));
		h = NULL;
		if (fe_host_new(&opt, &h) == 0)
			fe_host_free(h);
		setrlimit(RLIMIT_AS, &old);
		open_descriptors(after);
		ck_assert_str_eq(before, after);
		ck_assert_uint_eq(recorder_unbalanced(), 0);
	}
#endif
}
END_TEST

START_TEST(strings_are_copied)
{
	char source[] = "source", argument[] = "argument", options[] = "a,b";
	struct fe_host_options opt = usual(&recorder_backend);
	struct fe_backend takes_options = recorder_backend;
	struct fe_host *h;

	memset(&rec, 0, sizeof(rec));
	opt.source = source;
	opt.argument = argument;
	opt.backend_options = options;
	/* a backend that names no options takes none */
	ck_assert_int_eq(fe_host_new(&opt, &h), -EINVAL);
	takes_options.options_help = "  -o a\n";
	opt.backend = &takes_options;
	opt.attr_valid = 5;
	opt.entry_valid = 6;
	opt.mount_flags = 1;
	opt.writeback = 1;
	ck_assert_int_eq(fe_host_new(&opt, &h), 0);
	ck_assert_str_eq(rec.args.argument, "argument");
	ck_assert_str_eq(rec.args.options, "a,b");
	ck_assert_uint_eq(rec.args.attr_valid, 5);
	ck_assert_uint_eq(rec.args.entry_valid, 6);
	ck_assert_int_eq(rec.args.read_only, 1);
	ck_assert_int_eq(rec.args.writeback, 1);
	memset(source, 'x', sizeof(source) - 1);
	memset(argument, 'x', sizeof(argument) - 1);
	memset(options, 'x', sizeof(options) - 1);
	/* valid until close() */
	ck_assert_str_eq(rec.args.argument, "argument");
	ck_assert_str_eq(rec.args.options, "a,b");
	ck_assert_str_eq(h->opt.source, "source");
	fe_host_free(h);
}
END_TEST

START_TEST(status)
{
	struct fe_host_options opt = usual(&recorder_backend);
	char buf[4096];
	ssize_t n;

	memset(&rec, 0, sizeof(rec));
	opt.source = "x:\"\\\n\001\x7f\xc3\xa4";
	rig_start(&recorder_backend, &opt);
	rig_lookup(ROOT_ID, "a");
	rig_lookup(ROOT_ID, "b");
	rig_begin(999, ROOT_ID);
	rig_send();
	n = fe_host_status(rig.host, buf, sizeof(buf));
	ck_assert_int_gt(n, 100);
	ck_assert_uint_eq(strlen(buf), n);
	ck_assert_ptr_eq(strchr(buf, '\n'), buf + n - 1);
	ck_assert_ptr_eq(strstr(buf,
				"{\"source\":\"x:\\\"\\\\\\u000a\\u0001\x7f\xc3\xa4\",\"backend\":\"recorder\""), buf);
	ck_assert_ptr_nonnull(strstr(buf, "\"requests\":{\"LOOKUP\":2,\"OTHER\":1}"));
	ck_assert_ptr_nonnull(strstr(buf, "\"nodes\":3,\"handles\":0"));
	for (size_t size = 0; size <= (size_t)n; size++) {
		memset(buf, '#', sizeof(buf));
		ck_assert_int_eq(fe_host_status(rig.host, buf, size), -ERANGE);
		ck_assert_int_eq(buf[size], '#');
	}
	ck_assert_int_eq(fe_host_status(rig.host, buf, (size_t)n + 1), n);
	rig_teardown();
}
END_TEST

START_TEST(backends)
{
	const struct fe_backend *be = NULL;

	ck_assert_int_eq(fe_backend_load("passthrough", &be), 0);
	ck_assert_str_eq(be->name, "passthrough");
	ck_assert_int_eq(fe_backend_load("passthroug", &be), -ENOENT);
	ck_assert_int_eq(fe_backend_load("", &be), -ENOENT);
	ck_assert_int_eq(fe_backend_load("./no-such.so", &be), -ENOENT);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		refused_by_backend, no_descriptors, no_address_space, strings_are_copied, status, backends, NULL,
	};

	return unit_run("session", tests, NULL, NULL);
}
