/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "programs/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <linux/mount.h>

#define SECOND		1000000000ULL
#define MAX_SECONDS	1000000000ULL	/* some thirty years: as good as for ever */
#define MAX_THREADS	1024
#define MIN_IO		4096
#define MAX_IO		(1u << 30)

#define ATIME_FLAGS	(MS_NOATIME | MS_RELATIME | MS_STRICTATIME)

enum kind {
	FLAGS,		/* takes the mount flags `clear` away, then adds `set` */
	SWITCH,		/* an int in struct fe_host_options becomes 1 */
	SECONDS,	/* =SEC, decimals allowed, to nanoseconds */
	BYTES,		/* =N, N K, N M */
	COUNT,		/* =N */
	CACHE,		/* =WORD, to an enum fe_cache */
	IGNORE,		/* a word of mount(8) */
	REFUSE,		/* `help` says why */
};

struct row {
	const char *name;
	enum kind kind;
	unsigned long set;
	unsigned long clear;
	bool root_only;
	size_t member;
	const char *help;	/* NULL: --help does not list it */
};

#define MEMBER(m) .member = offsetof(struct fe_host_options, m)

/* relatime is what a mount has by itself; fusermount3 of libfuse 3.14 knows none of its kin but noatime. */
static const struct row table[] = {
	{ "ro", FLAGS, .set = MS_RDONLY, .help = "nothing can be changed through the mount" },
	{ "rw", FLAGS, .clear = MS_RDONLY },
	{ "suid", FLAGS, .clear = MS_NOSUID, .root_only = true, .help = "set-id bits count (default: nosuid)" },
	{ "nosuid", FLAGS, .set = MS_NOSUID },
	{ "dev", FLAGS, .clear = MS_NODEV, .root_only = true, .help = "device files work (default: nodev)" },
	{ "nodev", FLAGS, .set = MS_NODEV },
	{ "exec", FLAGS, .clear = MS_NOEXEC },
	{ "noexec", FLAGS, .set = MS_NOEXEC, .help = "programs can not be run from the mount" },
	{ "sync", FLAGS, .set = MS_SYNCHRONOUS, .help = "writes are on disk when they return" },
	{ "async", FLAGS, .clear = MS_SYNCHRONOUS },
	{ "dirsync", FLAGS, .set = MS_DIRSYNC, .help = "changes of directories, too" },
	{ "atime", FLAGS, .clear = MS_NOATIME },
	{ "noatime", FLAGS, .set = MS_NOATIME, .clear = ATIME_FLAGS,
	  .help = "as for any mount; so are relatime, strictatime, nodiratime, lazytime" },
	{ "relatime", FLAGS, .set = MS_RELATIME, .clear = ATIME_FLAGS },
	{ "norelatime", FLAGS, .clear = MS_RELATIME },
	{ "strictatime", FLAGS, .set = MS_STRICTATIME, .clear = ATIME_FLAGS, .root_only = true },
	{ "nostrictatime", FLAGS, .clear = MS_STRICTATIME },
	{ "diratime", FLAGS, .clear = MS_NODIRATIME },
	{ "nodiratime", FLAGS, .set = MS_NODIRATIME, .root_only = true },
	{ "lazytime", FLAGS, .set = MS_LAZYTIME, .root_only = true },
	{ "nolazytime", FLAGS, .clear = MS_LAZYTIME },

	{ "allow_other", SWITCH, MEMBER(allow_other), .help = "other users may use the mount" },
	{ "default_permissions", SWITCH, MEMBER(default_permissions),
	  .help = "the kernel checks permissions by mode and ACL" },
	{ "entry_timeout", SECONDS, MEMBER(entry_valid), .help = "how long the kernel keeps a name (1)" },
	{ "attr_timeout", SECONDS, MEMBER(attr_valid), .help = "... attributes (1)" },
	{ "negative_timeout", SECONDS, MEMBER(negative_valid),
	  .help = "... that there is no such name (0)" },
	{ "max_threads", COUNT, MEMBER(max_threads), .help = "at most N threads (16)" },
	{ "max_read", BYTES, MEMBER(max_read), .help = "bytes of one read request, as 65536, 64K or 1M" },
	{ "max_write", BYTES, MEMBER(max_write), .help = "bytes of one write request" },
	{ "nopassthrough", SWITCH, MEMBER(nopassthrough),
	  .help = "file data goes through the server, never past it" },
	{ "cache", CACHE, MEMBER(cache),
	  .help = "who answers besides the server: auto, hook, exact, native, off" },
	{ "cache_size", BYTES, MEMBER(cache_size), .help = "memory of the hook (32M)" },
	{ "writeback", SWITCH, MEMBER(writeback),
	  .help = "the kernel caches writes; implies nopassthrough" },
	{ "norecover", SWITCH, MEMBER(norecover),
	  .help = "the death of the server ends the mount" },
	{ "recover_limit", COUNT, MEMBER(recover_limit),
	  .help = "give up after N deaths within 10 seconds (30)" },
	{ "hang_limit", SECONDS, MEMBER(hang_limit),
	  .help = "replace a server that is in one request for so long (0: never)" },
	{ "fdstore", SWITCH, MEMBER(fdstore),
	  .help = "the service manager keeps what is open; see the manual" },
	{ "debug", SWITCH, MEMBER(debug), .help = "a line in the log for each request" },

	{ "allow_root", REFUSE, .help = "allow_root is not supported; use allow_other" },
	{ "fsname", REFUSE, .help = "fsname can not be set: the mount table shows SOURCE" },
	{ "subtype", REFUSE, .help = "subtype can not be set: it is fuse-extent" },
	{ "remount", REFUSE,
	  .help = "remount would mount a second time; use mount -i -o remount,... to change mount flags" },

	{ .name = "defaults", .kind = IGNORE },
	{ .name = "auto", .kind = IGNORE },
	{ .name = "noauto", .kind = IGNORE },
	{ .name = "user", .kind = IGNORE },
	{ .name = "nouser", .kind = IGNORE },
	{ .name = "users", .kind = IGNORE },
	{ .name = "nousers", .kind = IGNORE },
	{ .name = "owner", .kind = IGNORE },
	{ .name = "noowner", .kind = IGNORE },
	{ .name = "group", .kind = IGNORE },
	{ .name = "nogroup", .kind = IGNORE },
	{ .name = "_netdev", .kind = IGNORE },
	{ .name = "nofail", .kind = IGNORE },
	{ .name = "comment", .kind = IGNORE },
	{ .name = "silent", .kind = IGNORE },
	{ .name = "loud", .kind = IGNORE },
};

#define ROWS (sizeof(table) / sizeof(table[0]))

struct parser {
	struct options *o;
	bool privileged;
	char *error;
};

__attribute__((format(printf, 3, 4))) static int fail(struct parser *p, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->error, OPTIONS_ERROR_SIZE, fmt, ap);
	va_end(ap);
	return err;
}

static bool takes_value(enum kind kind)
{
	return kind == SECONDS || kind == BYTES || kind == COUNT || kind == CACHE;
}

static int add_digit(uint64_t *n, char c)
{
	if (__builtin_mul_overflow(*n, 10, n) || __builtin_add_overflow(*n, (uint64_t)(c - '0'), n))
		return -ERANGE;
	return 0;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* By hand: strtod() takes "nan", "inf", "0x1" and signs, and what it takes depends on the locale. */
static int parse_seconds(const char *s, uint64_t *ns)
{
	uint64_t whole = 0, fraction = 0, unit = SECOND;

	if (!is_digit(*s) && !(*s == '.' && is_digit(s[1])))
		return -EINVAL;
	for (; is_digit(*s); s++)
		if (add_digit(&whole, *s))
			return -ERANGE;
	if (*s == '.')
		for (s++; is_digit(*s); s++) {
			unit /= 10;
			fraction += unit * (uint64_t)(*s - '0');
		}
	if (*s)
		return -EINVAL;
	if (whole > MAX_SECONDS)
		return -ERANGE;
	*ns = whole * SECOND + fraction;
	return 0;
}

static int parse_number(const char *s, bool suffix, uint64_t *out)
{
	uint64_t n = 0, unit = 1;

	if (!is_digit(*s))
		return -EINVAL;
	for (; is_digit(*s); s++)
		if (add_digit(&n, *s))
			return -ERANGE;
	if (suffix && (*s == 'K' || *s == 'k'))
		unit = 1 << 10;
	else if (suffix && (*s == 'M' || *s == 'm'))
		unit = 1 << 20;
	if (unit > 1)
		s++;
	if (*s)
		return -EINVAL;
	return __builtin_mul_overflow(n, unit, out) ? -ERANGE : 0;
}

static int set_cache(struct parser *p, unsigned *cache, const char *word)
{
	static const char *const words[] = {
		[FE_CACHE_AUTO] = "auto", [FE_CACHE_HOOK] = "hook", [FE_CACHE_EXACT] = "exact",
		[FE_CACHE_NATIVE] = "native", [FE_CACHE_OFF] = "off",
	};

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(words[i], word))
			continue;
		*cache = i;
		return 0;
	}
	return fail(p, -EINVAL, "option cache=%s: must be auto, hook, exact, native or off", word);
}

static int set_value(struct parser *p, const struct row *row, const char *value)
{
	char *member = (char *)&p->o->host + row->member;
	uint64_t n, min = 1, max = MAX_THREADS;
	int err;

	if (row->kind == CACHE)
		return set_cache(p, (unsigned *)member, value);
	if (row->kind == SECONDS) {
		err = parse_seconds(value, (uint64_t *)member);
		if (err == -ERANGE)
			return fail(p, -EINVAL, "option %s=%s: too long; %llu seconds are the most", row->name,
				    value, MAX_SECONDS);
		if (err)
			return fail(p, -EINVAL, "option %s=%s: not a number of seconds; write 1 or 0.5",
				    row->name, value);
		return 0;
	}
	if (row->kind == BYTES) {
		min = MIN_IO;
		max = MAX_IO;
	}
	err = parse_number(value, row->kind == BYTES, &n);
	if (err == -EINVAL)
		return fail(p, -EINVAL, "option %s=%s: not a number; write %s", row->name, value,
			    row->kind == BYTES ? "65536, 64K or 1M" : "a whole number");
	if (err || n < min || n > max)
		return fail(p, -EINVAL, "option %s=%s: must be between %llu and %llu", row->name, value,
			    (unsigned long long)min, (unsigned long long)max);
	*(unsigned *)member = (unsigned)n;
	return 0;
}

static int apply(struct parser *p, const struct row *row, const char *value)
{
	unsigned long *flags = &p->o->host.mount_flags;

	if (row->kind == REFUSE)
		return fail(p, -EINVAL, "option %s", row->help);
	if (row->kind == IGNORE)
		return 0;
	if (takes_value(row->kind) && (!value || !*value))
		return fail(p, -EINVAL, "option %s needs a value; write %s=%s", row->name, row->name,
			    row->kind == SECONDS ? "SEC" : row->kind == CACHE ? "WORD" : "N");
	if (!takes_value(row->kind) && value)
		return fail(p, -EINVAL, "option %s takes no value; leave \"=%s\" out", row->name, value);
	if (row->root_only && !p->privileged)
		return fail(p, -EPERM, "option %s is for root only; leave it out", row->name);
	if (takes_value(row->kind))
		return set_value(p, row, value);
	if (row->kind == SWITCH)
		*(int *)((char *)&p->o->host + row->member) = 1;
	else
		*flags = (*flags & ~row->clear) | row->set;
	return 0;
}

static const struct row *find_row(const char *name, size_t len)
{
	for (size_t i = 0; i < ROWS; i++)
		if (!strncmp(table[i].name, name, len) && !table[i].name[len])
			return &table[i];
	return NULL;
}

static int append_backend_option(struct parser *p, const char *option)
{
	char *old = p->o->backend_options;
	char *joined;

	if (asprintf(&joined, "%s%s%s", old ? old : "", old ? "," : "", option) < 0)
		return fail(p, -ENOMEM, "out of memory");
	free(old);
	p->o->backend_options = joined;
	return 0;
}

static int parse_option(struct parser *p, char *option)
{
	char *equals = strchr(option, '=');
	size_t len = equals ? (size_t)(equals - option) : strlen(option);
	const struct row *row = find_row(option, len);

	if (row)
		return apply(p, row, equals ? equals + 1 : NULL);
	if (!*option || !strncmp(option, "x-", 2) || !strncmp(option, "X-", 2))
		return 0;
	return append_backend_option(p, option);
}

/* The end of the option that begins at s. A backslash protects a comma in a backend's option. */
static char *option_end(char *s)
{
	while (*s && *s != ',')
		s += *s == '\\' && s[1] ? 2 : 1;
	return s;
}

static int parse_list(struct parser *p, const char *list)
{
	char *copy = strdup(list);
	char *s = copy;
	int err = 0;

	if (!copy)
		return fail(p, -ENOMEM, "out of memory");
	for (bool more = true; more && !err;) {
		char *end = option_end(s);

		more = *end;
		*end = 0;
		err = parse_option(p, s);
		s = end + 1;
	}
	free(copy);
	return err;
}

/* The ':' that ends BACKEND. The path of a shared object may have others before its ".so". */
static const char *backend_end(const char *source)
{
	const char *colon = strchr(source, ':');
	const char *slash = strchr(source, '/');
	const char *so;

	if (!slash || (colon && colon < slash))
		return colon;
	so = strstr(source, ".so");
	return so ? strchr(so, ':') : NULL;
}

static int split_source(struct parser *p, const char *source)
{
	const char *end = backend_end(source);
	struct options *o = p->o;

	if (!end || end == source)
		return fail(p, -EINVAL, "%s: SOURCE has no BACKEND:ARGUMENT; write passthrough:DIRECTORY, or "
			    "./my-backend.so:ARGUMENT", source);
	o->source = strdup(source);
	o->backend = strndup(source, (size_t)(end - source));
	o->argument = strdup(end + 1);
	if (!o->source || !o->backend || !o->argument)
		return fail(p, -ENOMEM, "out of memory");
	return 0;
}

static int parse_operands(struct parser *p, int count, char *const operands[])
{
	int err;

	if (count < 2)
		return fail(p, -EINVAL, "%s is missing; usage: fuse-extent BACKEND:ARGUMENT MOUNTPOINT [-o "
			    "OPTIONS], more with --help", count ? "MOUNTPOINT" : "SOURCE");
	if (count > 2)
		return fail(p, -EINVAL, "too many arguments: %s; options are joined by commas behind one -o, "
			    "more with --help", operands[2]);
	if (!strncmp(operands[1], "/dev/fd/", 8))
		return fail(p, -EINVAL, "MOUNTPOINT %s: fuse-extent mounts by itself and takes no opened /dev/fuse; "
			    "leave the option drop_privileges of mount.fuse3 out", operands[1]);
	err = split_source(p, operands[0]);
	if (err)
		return err;
	p->o->mountpoint = strdup(operands[1]);
	return p->o->mountpoint ? 0 : fail(p, -ENOMEM, "out of memory");
}

static int parse_switch(struct parser *p, int c, const char *word)
{
	struct options *o = p->o;

	switch (c) {
	case 'o':
		return parse_list(p, optarg);
	case 'd':
		o->host.debug = 1;
		o->foreground = true;
		return 0;
	case 'f':
		o->foreground = true;
		return 0;
	case 'h':
		o->help = true;
		return 0;
	case 'V':
		o->version = true;
		return 0;
	case ':':
		return fail(p, -EINVAL, "%s needs a value, more with --help", word);
	default:
		return fail(p, -EINVAL, "unknown argument %s; --help lists them all", word);
	}
}

static int parse_arguments(struct parser *p, int argc, char *const argv[])
{
	static const struct option longs[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	char short_word[] = "-?";
	int c, err = 0;

	optind = 0; /* glibc: from the start, whatever was parsed before */
	while (!err && !p->o->help && !p->o->version) {
		const char *word = argv[optind ? optind : 1];

		c = getopt_long(argc, argv, ":o:dfhV", longs, NULL);
		if (c < 0)
			return parse_operands(p, argc - optind, argv + optind);
		if ((c == '?' || c == ':') && optopt) {
			short_word[1] = (char)optopt;
			word = short_word;
		} else if (c == '?') {
			word = argv[optind - 1];
		}
		err = parse_switch(p, c, word);
	}
	return err;
}

int options_parse(struct options *o, int argc, char *const argv[], bool privileged, char *error)
{
	struct parser p = { o, privileged, error };
	int err;

	*error = 0;
	*o = (struct options){
		.host = {
			.struct_size = sizeof(o->host),
			.mount_flags = MS_NOSUID | MS_NODEV,
			.entry_valid = SECOND,
			.attr_valid = SECOND,
		},
	};
	err = parse_arguments(&p, argc, argv);
	o->host.source = o->source;
	o->host.argument = o->argument;
	o->host.mountpoint = o->mountpoint;
	o->host.backend_options = o->backend_options;
	return err;
}

void options_free(struct options *o)
{
	free(o->source);
	free(o->backend);
	free(o->argument);
	free(o->mountpoint);
	free(o->backend_options);
	*o = (struct options){ 0 };
}

void options_print(FILE *f)
{
	static const char *const values[] = { [SECONDS] = "=SEC", [BYTES] = "=N", [COUNT] = "=N",
					       [CACHE] = "=WORD" };

	for (size_t i = 0; i < ROWS; i++) {
		const struct row *row = &table[i];
		int width;

		if (!row->help || row->kind == REFUSE)
			continue;
		width = fprintf(f, "  -o %s%s", row->name, takes_value(row->kind) ? values[row->kind] : "");
		fprintf(f, "%*s%s\n", width < 27 ? 27 - width : 1, "", row->help);
	}
}
