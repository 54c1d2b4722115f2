/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/mount.h>
#include <stdlib.h>
#include <string.h>

#include "programs/options.h"
#include "tests/unit/unit.h"

#define SECOND 1000000000ULL

static char error[OPTIONS_ERROR_SIZE];
static struct options o;

static void setup(void)
{
	o = (struct options){ 0 };
}

static void teardown(void)
{
	options_free(&o);
}

/* Parses "fuse-extent passthrough:/a /mnt -o LIST". */
static int parse_as(const char *list, bool privileged)
{
	char *argv[] = { "fuse-extent", "passthrough:/a", "/mnt", "-o", (char *)list, NULL };

	options_free(&o);
	return options_parse(&o, 5, argv, privileged, error);
}

static int parse(const char *list)
{
	return parse_as(list, true);
}

static void assert_refused(const char *list, const char *words)
{
	int err = parse(list);

	ck_assert_msg(err == -EINVAL, "-o %s: %d instead of -EINVAL", list, err);
	ck_assert_msg(strstr(error, words), "-o %s: \"%s\" does not say \"%s\"", list, error, words);
}

START_TEST(defaults)
{
	ck_assert_int_eq(parse("defaults"), 0);
	ck_assert_str_eq(error, "");
	ck_assert_uint_eq(o.host.struct_size, sizeof(struct fe_host_options));
	ck_assert_uint_eq(o.host.mount_flags, MS_NOSUID | MS_NODEV);
	ck_assert_uint_eq(o.host.entry_valid, SECOND);
	ck_assert_uint_eq(o.host.attr_valid, SECOND);
	ck_assert_uint_eq(o.host.negative_valid, 0);
	ck_assert_uint_eq(o.host.max_threads, 0);
	ck_assert_uint_eq(o.host.max_read, 0);
	ck_assert_uint_eq(o.host.max_write, 0);
	ck_assert(!o.host.allow_other && !o.host.default_permissions && !o.host.nopassthrough);
	ck_assert(!o.host.writeback && !o.host.debug);
	ck_assert_ptr_null(o.host.backend_options);
	ck_assert(!o.foreground && !o.help && !o.version);
	ck_assert_str_eq(o.host.source, "passthrough:/a");
	ck_assert_str_eq(o.host.argument, "/a");
	ck_assert_str_eq(o.host.mountpoint, "/mnt");
	ck_assert_str_eq(o.backend, "passthrough");
}
END_TEST

START_TEST(mount_flags)
{
	static const struct {
		const char *list;
		unsigned long flags;
	} cases[] = {
		{ "ro", MS_RDONLY | MS_NOSUID | MS_NODEV },
		{ "ro,rw", MS_NOSUID | MS_NODEV },
		{ "rw,ro", MS_RDONLY | MS_NOSUID | MS_NODEV },
		{ "suid", MS_NODEV },
		{ "dev", MS_NOSUID },
		{ "suid,dev", 0 },
		{ "dev,suid,nosuid,nodev", MS_NOSUID | MS_NODEV },
		{ "suid,dev,noexec", MS_NOEXEC },
		{ "suid,dev,noexec,exec", 0 },
		{ "suid,dev,sync", MS_SYNCHRONOUS },
		{ "suid,dev,sync,async", 0 },
		{ "suid,dev,dirsync", MS_DIRSYNC },
		{ "suid,dev,noatime", MS_NOATIME },
		{ "suid,dev,noatime,atime", 0 },
		{ "suid,dev,relatime", MS_RELATIME },
		{ "suid,dev,noatime,relatime", MS_RELATIME },
		{ "suid,dev,relatime,strictatime", MS_STRICTATIME },
		{ "suid,dev,strictatime,noatime", MS_NOATIME },
		{ "suid,dev,strictatime,nostrictatime", 0 },
		{ "suid,dev,relatime,norelatime", 0 },
		{ "suid,dev,nodiratime,noatime", MS_NODIRATIME | MS_NOATIME },
		{ "suid,dev,nodiratime,diratime", 0 },
		{ "suid,dev,lazytime", MS_LAZYTIME },
		{ "suid,dev,lazytime,nolazytime", 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ck_assert_msg(!parse(cases[i].list), "-o %s: %s", cases[i].list, error);
		ck_assert_msg(o.host.mount_flags == cases[i].flags, "-o %s: %#lx instead of %#lx",
			      cases[i].list, o.host.mount_flags, cases[i].flags);
	}
}
END_TEST

START_TEST(switches)
{
	ck_assert_int_eq(parse("allow_other"), 0);
	ck_assert(o.host.allow_other == 1 && !o.host.default_permissions);
	ck_assert_int_eq(parse("default_permissions"), 0);
	ck_assert(o.host.default_permissions == 1 && !o.host.nopassthrough);
	ck_assert_int_eq(parse("nopassthrough"), 0);
	ck_assert(o.host.nopassthrough == 1 && !o.host.writeback);
	ck_assert_int_eq(parse("writeback"), 0);
	ck_assert(o.host.writeback == 1 && !o.host.debug);
	ck_assert_int_eq(parse("debug"), 0);
	ck_assert(o.host.debug == 1 && !o.host.allow_other);
	assert_refused("allow_other=1", "takes no value");
	assert_refused("ro=yes", "takes no value");
}
END_TEST

START_TEST(cache)
{
	static const struct {
		const char *list;
		unsigned cache;
	} cases[] = {
		{ "ro", FE_CACHE_AUTO }, { "cache=auto", FE_CACHE_AUTO }, { "cache=hook", FE_CACHE_HOOK },
		{ "cache=exact", FE_CACHE_EXACT }, { "cache=native", FE_CACHE_NATIVE },
		{ "cache=off", FE_CACHE_OFF }, { "cache=off,cache=hook", FE_CACHE_HOOK },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ck_assert_msg(!parse(cases[i].list), "-o %s: %s", cases[i].list, error);
		ck_assert_msg(o.host.cache == cases[i].cache, "-o %s: %u", cases[i].list, o.host.cache);
	}
	ck_assert_int_eq(parse("cache_size=8M"), 0);
	ck_assert_uint_eq(o.host.cache_size, 8u << 20);
	assert_refused("cache", "write cache=WORD");
	assert_refused("cache=", "needs a value");
	assert_refused("cache=hooks", "must be auto, hook, exact, native or off");
	assert_refused("cache=0", "must be auto");
	assert_refused("cache_size=8X", "not a number");
}
END_TEST

START_TEST(seconds)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} cases[] = {
		{ "0", 0 }, { "1", SECOND }, { "0.5", SECOND / 2 }, { ".25", SECOND / 4 }, { "3.", 3 * SECOND },
		{ "007", 7 * SECOND }, { "0.000000001", 1 }, { "0.0000000019", 1 },
		{ "86400", 86400 * SECOND }, { "1000000000", SECOND * SECOND },
		{ "1.999999999", 2 * SECOND - 1 },
	};
	char list[64];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(list, sizeof(list), "entry_timeout=%s", cases[i].text);
		ck_assert_msg(!parse(list), "%s: %s", list, error);
		ck_assert_msg(o.host.entry_valid == cases[i].ns, "%s: %llu ns", list,
			      (unsigned long long)o.host.entry_valid);
	}
	ck_assert_int_eq(parse("entry_timeout=2,attr_timeout=3,negative_timeout=4"), 0);
	ck_assert_uint_eq(o.host.entry_valid, 2 * SECOND);
	ck_assert_uint_eq(o.host.attr_valid, 3 * SECOND);
	ck_assert_uint_eq(o.host.negative_valid, 4 * SECOND);
}
END_TEST

START_TEST(no_seconds)
{
	static const char *const bad[] = { ".", "-1", "+1", " 1", "1 ", "1s", "1.2.3", "1e3", "0x1", "inf", "nan" };
	char list[64];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(list, sizeof(list), "attr_timeout=%s", bad[i]);
		assert_refused(list, "not a number of seconds");
	}
	assert_refused("attr_timeout=1000000001", "too long");
	assert_refused("attr_timeout=99999999999999999999999999", "too long");
	assert_refused("attr_timeout", "needs a value");
	assert_refused("attr_timeout=", "needs a value");
}
END_TEST

START_TEST(sizes_and_counts)
{
	ck_assert_int_eq(parse("max_read=4096,max_write=64K,max_threads=1"), 0);
	ck_assert_uint_eq(o.host.max_read, 4096);
	ck_assert_uint_eq(o.host.max_write, 65536);
	ck_assert_uint_eq(o.host.max_threads, 1);
	ck_assert_int_eq(parse("max_read=1M,max_write=128k,max_threads=1024"), 0);
	ck_assert_uint_eq(o.host.max_read, 1 << 20);
	ck_assert_uint_eq(o.host.max_write, 128 << 10);
	ck_assert_uint_eq(o.host.max_threads, 1024);
	ck_assert_int_eq(parse("max_read=1024m"), 0);
	ck_assert_uint_eq(o.host.max_read, 1 << 30);

	assert_refused("max_read=4095", "between 4096");
	assert_refused("max_read=0", "between 4096");
	assert_refused("max_read=1025M", "between 4096");
	assert_refused("max_read=4294967296", "between 4096"); /* 0 in 32 bits */
	assert_refused("max_read=18446744073709551616", "between 4096"); /* 0 in 64 bits */
	assert_refused("max_read=17592186044417M", "between 4096"); /* 1M in 64 bits */
	assert_refused("max_read=64G", "not a number");
	assert_refused("max_read=64KB", "not a number");
	assert_refused("max_read=K", "not a number");
	assert_refused("max_read=-1", "not a number");
	assert_refused("max_threads=0", "between 1");
	assert_refused("max_threads=1025", "between 1");
	assert_refused("max_threads=4K", "not a number");
	assert_refused("max_threads=", "needs a value");
	assert_refused("max_write", "needs a value");
}
END_TEST

/* What mount.fuse3 passes on from /etc/fstab. */
START_TEST(words_of_mount)
{
	ck_assert_int_eq(parse("rw,defaults,auto,noauto,user,nouser,users,nousers,owner,group,_netdev,nofail,"
			       "user=joe,comment=a b,x-systemd.automount,x-systemd.idle-timeout=60,"
			       "X-mount.mkdir,x-,silent,loud,,,"), 0);
	ck_assert_ptr_null(o.backend_options);
	ck_assert_uint_eq(o.host.mount_flags, MS_NOSUID | MS_NODEV);
}
END_TEST

START_TEST(options_of_the_backend)
{
	ck_assert_int_eq(parse("submounts,ro,locks=source,allow_other,a=b=c,x-y,r,rox,=,path=a\\,ro"), 0);
	ck_assert_str_eq(o.host.backend_options, "submounts,locks=source,a=b=c,r,rox,=,path=a\\,ro");
	ck_assert_uint_eq(o.host.mount_flags, MS_RDONLY | MS_NOSUID | MS_NODEV);
	ck_assert_int_eq(parse("end\\"), 0);
	ck_assert_str_eq(o.host.backend_options, "end\\");
}
END_TEST

START_TEST(refused)
{
	assert_refused("allow_root", "use allow_other");
	assert_refused("fsname=x", "SOURCE");
	assert_refused("subtype=x", "fuse-extent");
	assert_refused("remount,ro", "mount -i -o remount");
	assert_refused("ro,attr_timeout=x,allow_root", "attr_timeout=x");
}
END_TEST

START_TEST(only_for_root)
{
	ck_assert_int_eq(parse_as("suid", false), -EPERM);
	ck_assert_ptr_nonnull(strstr(error, "suid is for root only"));
	ck_assert_int_eq(parse_as("rw,dev", false), -EPERM);
	ck_assert_int_eq(parse_as("nosuid,nodev,exec,ro,allow_other", false), 0);
}
END_TEST

START_TEST(sources)
{
	static const struct {
		const char *source, *backend, *argument;
	} cases[] = {
		{ "passthrough:/srv/a", "passthrough", "/srv/a" },
		{ "passthrough:a:b", "passthrough", "a:b" },
		{ "passthrough:", "passthrough", "" },
		{ "passthrough:./x.so:y", "passthrough", "./x.so:y" },
		{ "./my.so:ARG", "./my.so", "ARG" },
		{ "/lib/my.so:", "/lib/my.so", "" },
		{ "../my.so.1.2:a:b", "../my.so.1.2", "a:b" },
		{ "libs/my.so:a", "libs/my.so", "a" },
		{ "/we:ird/my.so:a", "/we:ird/my.so", "a" },
		{ "./my.so:/b.so:c", "./my.so", "/b.so:c" },
	};
	static const char *const bad[] = { "", ":", ":/a", "passthrough", "/srv/a", "./my.so", "/a:b", "./x:y" };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *argv[] = { "fuse-extent", (char *)cases[i].source, "mnt", NULL };

		options_free(&o);
		ck_assert_msg(!options_parse(&o, 3, argv, false, error), "%s: %s", cases[i].source, error);
		ck_assert_str_eq(o.backend, cases[i].backend);
		ck_assert_str_eq(o.host.argument, cases[i].argument);
		ck_assert_str_eq(o.host.source, cases[i].source);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char *argv[] = { "fuse-extent", (char *)bad[i], "mnt", NULL };

		options_free(&o);
		ck_assert_msg(options_parse(&o, 3, argv, false, error) == -EINVAL, "\"%s\" was taken", bad[i]);
		ck_assert_ptr_nonnull(strstr(error, "BACKEND:ARGUMENT"));
	}
}
END_TEST

static int parse_line(int argc, char *const argv[])
{
	options_free(&o);
	return options_parse(&o, argc, argv, true, error);
}

#define PARSE(...)	parse_line(sizeof((char *[]){ __VA_ARGS__ }) / sizeof(char *), \
				   (char *[]){ __VA_ARGS__, NULL })

START_TEST(arguments)
{
	ck_assert_int_eq(PARSE("fe", "-f", "p:a", "-o", "ro", "m", "-oallow_other,q"), 0);
	ck_assert(o.foreground && o.host.allow_other && o.host.mount_flags & MS_RDONLY && !o.host.debug);
	ck_assert_str_eq(o.mountpoint, "m");
	ck_assert_str_eq(o.backend_options, "q");
	ck_assert_int_eq(PARSE("fe", "-d", "p:a", "m"), 0);
	ck_assert(o.foreground && o.host.debug);
	ck_assert_int_eq(PARSE("fe", "-o", "ro", "--", "p:a", "-m"), 0);
	ck_assert_str_eq(o.mountpoint, "-m");
	ck_assert_int_eq(PARSE("fe", "--help"), 0);
	ck_assert(o.help && !o.version);
	ck_assert_int_eq(PARSE("fe", "-h"), 0);
	ck_assert(o.help);
	ck_assert_int_eq(PARSE("fe", "--version", "p:a"), 0);
	ck_assert(o.version && !o.help);
	ck_assert_int_eq(PARSE("fe", "-V"), 0);
	ck_assert(o.version);
}
END_TEST

START_TEST(wrong_arguments)
{
	ck_assert_int_eq(PARSE("fe"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(error, "SOURCE is missing"));
	ck_assert_int_eq(PARSE("fe", "p:a"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(error, "MOUNTPOINT is missing"));
	ck_assert_int_eq(PARSE("fe", "p:a", "/dev/fd/5", "-o", "rw"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(error, "leave the option drop_privileges of mount.fuse3 out"));
	ck_assert_int_eq(PARSE("fe", "p:a", "m", "ro"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(error, "too many arguments: ro"));
	ck_assert_int_eq(PARSE("fe", "p:a", "m", "-o"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(error, "-o needs a value"));
	ck_assert_int_eq(PARSE("fe", "p:a", "m", "-fx"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(error, "unknown argument -x"));
	ck_assert_int_eq(PARSE("fe", "p:a", "--bogus", "m"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(error, "unknown argument --bogus"));
}
END_TEST

/* An entry of the table that --help forgets, or one that nobody can type. */
START_TEST(help)
{
	static const char *const listed[] = {
		"ro ", "suid ", "dev ", "noexec ", "sync ", "dirsync ", "noatime ", "allow_other ",
		"default_permissions ", "entry_timeout=SEC ", "attr_timeout=SEC ", "negative_timeout=SEC ",
		"max_threads=N ", "max_read=N ", "max_write=N ", "nopassthrough ", "writeback ", "norecover ",
		"cache=WORD ", "cache_size=N ",
		"recover_limit=N ", "hang_limit=SEC ", "fdstore ", "debug ",
	};
	char *text, line[64];
	size_t size;
	FILE *f = open_memstream(&text, &size);

	options_print(f);
	fclose(f);
	for (size_t i = 0; i < sizeof(listed) / sizeof(listed[0]); i++) {
		snprintf(line, sizeof(line), "  -o %s", listed[i]);
		ck_assert_msg(strstr(text, line), "--help lacks \"%s\"", line);
	}
	ck_assert_ptr_null(strstr(text, "allow_root"));
	free(text);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		defaults, mount_flags, switches, cache, seconds, no_seconds, sizes_and_counts, words_of_mount,
		options_of_the_backend, refused, only_for_root, sources, arguments, wrong_arguments, help, NULL,
	};

	return unit_run("options", tests, setup, teardown);
}
