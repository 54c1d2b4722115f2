/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads a step and runs it: words, names of flags and ids, file descriptor slots. */
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "posix.h"

#ifndef RENAME_NOREPLACE
#include <linux/fs.h>
#endif
#include <linux/falloc.h>

static const struct {
	const char *name;
	long long value;
} words[] = {
#define W(word) { #word, word }
	W(O_RDONLY),
	W(O_WRONLY),
	W(O_RDWR),
	W(O_CREAT),
	W(O_EXCL),
	W(O_TRUNC),
	W(O_APPEND),
	W(O_NONBLOCK),
	W(O_DIRECTORY),
	W(O_NOFOLLOW),
	W(O_PATH),
	W(O_TMPFILE),
	W(O_SYNC),
	W(O_DSYNC),
	W(O_NOATIME),
	W(O_CLOEXEC),
	W(F_OK),
	W(R_OK),
	W(W_OK),
	W(X_OK),
	W(AT_EACCESS),
	W(AT_SYMLINK_NOFOLLOW),
	W(AT_SYMLINK_FOLLOW),
	W(AT_REMOVEDIR),
	W(RENAME_NOREPLACE),
	W(RENAME_EXCHANGE),
	W(RENAME_WHITEOUT),
	W(FALLOC_FL_KEEP_SIZE),
	W(FALLOC_FL_PUNCH_HOLE),
	W(FALLOC_FL_ZERO_RANGE),
	W(FALLOC_FL_COLLAPSE_RANGE),
	W(FALLOC_FL_INSERT_RANGE),
	W(SEEK_SET),
	W(SEEK_CUR),
	W(SEEK_END),
	W(SEEK_DATA),
	W(SEEK_HOLE),
	W(LOCK_SH),
	W(LOCK_EX),
	W(LOCK_UN),
	W(LOCK_NB),
	W(F_RDLCK),
	W(F_WRLCK),
	W(F_UNLCK),
	W(PROT_READ),
	W(PROT_WRITE),
	W(PROT_EXEC),
	W(MAP_SHARED),
	W(MAP_PRIVATE),
	W(MS_SYNC),
	W(MS_ASYNC),
	W(S_IFREG),
	W(S_IFDIR),
	W(S_IFIFO),
	W(S_IFCHR),
	W(S_IFBLK),
	W(S_IFSOCK),
	W(S_IFLNK),
	W(NAME_MAX),
	W(PATH_MAX),
	{ "XATTR_CREATE", 1 },
	{ "XATTR_REPLACE", 2 },
	{ "root", 0 },
	{ "own", UID_OWN },
	{ "grp", UID_GRP },
	{ "sup", UID_SUP },
	{ "oth", UID_OTH },
	{ "GA", GID_A },
	{ "GC", GID_C },
	{ "GD", GID_D },
	{ "GS", GID_S },
};

enum { WORDS = sizeof(words) / sizeof(*words) };

static void bad_step(const char *what, const char *word)
{
	fprintf(stderr, "posix_matrix: %s: %s\n", what, word);
	exit(1);
}

static long long one_num(const char *word, int base)
{
	char *end;
	long long value;

	for (int i = 0; i < WORDS; i++)
		if (!strcmp(words[i].name, word))
			return words[i].value;
	value = strtoll(word, &end, base);
	switch (*end) {
	case 'K': value <<= 10, end++; break;
	case 'M': value <<= 20, end++; break;
	case 'G': value <<= 30, end++; break;
	case 'T': value <<= 40, end++; break;
	}
	if (*end || end == word)
		bad_step("not a number", word);
	return value;
}

static long long words_num(const char *arg, int base)
{
	char copy[STEP_MAX], *rest = copy, *word;
	long long value = 0;

	snprintf(copy, sizeof(copy), "%s", arg);
	while ((word = strsep(&rest, "|")))
		value |= one_num(word, base);
	return value;
}

long long arg_num(const char *arg)
{
	return words_num(arg, 0);
}

mode_t arg_mode(const char *arg)
{
	return words_num(arg, 8);
}

const char *id_name(long id, char *buf)
{
	static const char *const uids[] = { "own", "grp", "sup", "oth" };

	if (id == 0)
		return "root";
	if (id >= UID_OWN && id <= UID_OTH)
		return uids[id - UID_OWN];
	snprintf(buf, 32, "%ld", id);
	for (int i = 0; i < WORDS; i++)
		if (words[i].value == id && words[i].name[0] == 'G')
			return words[i].name;
	return buf;
}

const char *type_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return "file";
	case S_IFDIR: return "dir";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "sock";
	case S_IFCHR: return "chr";
	case S_IFBLK: return "blk";
	case S_IFLNK: return "lnk";
	default: return "nothing";
	}
}

const char *arg_path(const char *arg)
{
	static char paths[4][4 * PATH_MAX];
	static unsigned int turn;
	char *start = paths[turn++ % 4], *to = start;

	if (!strcmp(arg, "BAD"))
		return (const char *)1;
	if (!strcmp(arg, "\"\""))
		return "";
	while (*arg) {
		char *end;
		long n;

		if (*arg != '<' && *arg != '{') {
			*to++ = *arg++;
			continue;
		}
		n = strtol(arg + 1, &end, 10);
		for (long i = 0; i < n; i++)
			*to++ = *arg == '<' ? 'x' : i & 1 || i == n - 1 ? '/' : '.';
		arg = end + 1;
	}
	*to = 0;
	return start;
}

int *arg_fd(struct ctx *ctx, const char *arg)
{
	unsigned int slot = *arg - '0';

	if (slot >= SLOTS || arg[1])
		bad_step("not a slot", arg);
	return &ctx->fd[slot];
}

void put_result(char *out, long rc)
{
	snprintf(out, RESULT_MAX, "%s", rc >= 0 ? "0" : strerrorname_np(errno) ?: "?");
}

static volatile int *signal_count;

static void count_signal(int sig)
{
	(void)sig;
	++*signal_count;
}

void ctx_init(struct ctx *ctx)
{
	struct sigaction action = { .sa_handler = count_signal };

	memset(ctx, 0, sizeof(*ctx));
	for (int i = 0; i < SLOTS; i++)
		ctx->fd[i] = -1;
	signal_count = &ctx->signals;
	sigaction(SIGXFSZ, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	umask(022);
}

void ctx_reset(struct ctx *ctx)
{
	struct rlimit limit;

	for (int i = 0; i < SLOTS; i++) {
		if (ctx->map[i])
			munmap(ctx->map[i], ctx->map_len[i]);
		ctx->map[i] = NULL;
		if (ctx->fd[i] >= 0)
			close(ctx->fd[i]);
		ctx->fd[i] = -1;
	}
	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_FSIZE, &limit);
	ctx->signals = 0;
	umask(022);
}

static const struct op *op_named(const char *name)
{
	static const struct op *const tables[] = { name_ops, attr_ops, io_ops, share_ops };

	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		for (const struct op *op = tables[i]; op->name; op++)
			if (!strcmp(op->name, name))
				return op;
	bad_step("no such op", name);
	return NULL;
}

void step_run(struct ctx *ctx, const char *step, char *out)
{
	char copy[STEP_MAX], *rest = copy, *word, *arg[16] = { NULL };
	const struct op *op;
	int n = 0;

	snprintf(copy, sizeof(copy), "%s", step);
	while ((word = strsep(&rest, " ")))
		if (*word && n < 15)
			arg[n++] = word;
	op = op_named(arg[0]);
	if (n - 1 < op->min_args)
		bad_step("arguments missing", step);
	op->run(ctx, arg + 1, out);
}
