/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening the inner backend and the directory for temporary files, and the table of operations. */
#include "backends/spill/spill.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/cleanup.h"

#define LIMIT_DEFAULT	(4ull << 30)
#define FILES_DEFAULT	4096u
#define DELAY_DEFAULT	5000000000u
#define AHEAD_DEFAULT	(8ull << 20)
#define MAX_LOOKS	1024u

static bool parse_bytes(const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	char *end;
	unsigned long long n = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, *end) : NULL;
	unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;

	if (end == text || *text == '-' || (unit ? end[1] : *end) || n > UINT64_MAX >> 1 >> shift)
		return false;
	*out = (uint64_t)n << shift;
	return true;
}

static bool parse_seconds(const char *text, uint64_t *out)
{
	char *end;
	double s = strtod(text, &end);

	if (end == text || *end || !(s >= 0 && s <= 1e6))
		return false;
	*out = (uint64_t)(s * 1e9);
	return true;
}

static bool parse_files(const char *text, uint32_t *out)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (end == text || *end || *text == '-' || !n || n > MAX_FILES)
		return false;
	*out = (uint32_t)n;
	return true;
}

static const char *value_of(const char *word, const char *name)
{
	size_t len = strlen(name);

	return !strncmp(word, name, len) && word[len] == '=' ? word + len + 1 : NULL;
}

/* 1: it is the inner backend's. */
static int parse_one(struct spill *sp, const char *word)
{
	const char *value;
	bool right;

	if ((value = value_of(word, "spill_dir"))) {
		free(sp->dir);
		sp->dir = strdup(value);
		return sp->dir ? 0 : -ENOMEM;
	}
	if ((value = value_of(word, "spill_size")))
		right = parse_bytes(value, &sp->limit);
	else if ((value = value_of(word, "spill_files")))
		right = parse_files(value, &sp->max_files);
	else if ((value = value_of(word, "spill_delay")))
		right = parse_seconds(value, &sp->delay);
	else if ((value = value_of(word, "spill_ahead")))
		right = parse_bytes(value, &sp->ahead);
	else
		return 1;
	if (right)
		return 0;
	say(sp, LOG_ERR, "option \"%s\": the value is none; sizes are like 512M, times like 2.5 (seconds)", word);
	return -EINVAL;
}

/* The words that are not this backend's, by commas. */
static int parse_options(struct spill *sp, const char *text, char **rest)
{
	_cleanup_free_ char *copy = strdup(text);
	char *save = NULL;

	*rest = calloc(1, strlen(text) + 1);
	if (!copy || !*rest)
		return -ENOMEM;
	for (char *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		int result = parse_one(sp, word);

		if (result < 0)
			return result;
		if (result && **rest)
			strcat(*rest, ",");
		if (result)
			strcat(*rest, word);
	}
	return 0;
}

/* Half of the descriptors are for others. */
static void settle_files(struct spill *sp)
{
	struct rlimit lim;

	if (!getrlimit(RLIMIT_NOFILE, &lim) && sp->max_files > lim.rlim_cur / 2)
		sp->max_files = lim.rlim_cur > 16 ? (uint32_t)(lim.rlim_cur / 2) : 8;
}

static int open_dir(struct spill *sp)
{
	const char *tmp = getenv("TMPDIR");

	if (!sp->dir)
		sp->dir = strdup(tmp && *tmp == '/' ? tmp : "/var/tmp");
	if (!sp->dir)
		return -ENOMEM;
	sp->dir_fd = open(sp->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sp->dir_fd >= 0)
		return 0;
	say(sp, LOG_ERR, "the directory for temporary files %s: %s; -o spill_dir= names another one", sp->dir,
	    strerror(errno));
	return -errno;
}

static int open_inner(struct spill *sp, const struct fe_open_args *args, const char *options)
{
	int err = sp->services->open_inner(sp->host, args->argument, options, &sp->inner);

	if (err)
		return err;
	sp->in = sp->inner->backend;
	sp->ip = sp->inner->priv;
	if (*options && !sp->in->options_help) {
		say(sp, LOG_ERR, "unknown option \"%s\"; the backend %s takes none", options, sp->in->name);
		return -EINVAL;
	}
	if (!sp->in->read) {
		say(sp, LOG_ERR, "the backend %s has no files to read", sp->in->name);
		return -EINVAL;
	}
	sp->key_size = sp->in->key_size;
	sp->inner_handle = (sp->in->handle_size + 7u) & ~7u;
	if (sizeof(struct file_record) + sp->key_size + 7 + sp->inner_handle > 256) {
		say(sp, LOG_ERR, "the records of the backend %s are too large to stack upon", sp->in->name);
		return -E2BIG;
	}
	return 0;
}

static int make_tables(struct spill *sp)
{
	uint32_t size = (uint32_t)sizeof(struct file_record) + ((sp->key_size + 7u) & ~7u) + sp->inner_handle;
	int err = sp->services->shared(sp->host, "spill", sizeof(*sp->counters), (void **)&sp->counters);

	if (!err)
		err = sp->services->table(sp->host, "spilled files", size, MAX_FILES, &sp->file_records);
	if (!err)
		err = sp->services->table(sp->host, "spilled ranges", sizeof(struct range), MAX_RANGES,
					  &sp->range_records);
	if (!err)
		err = sp->services->table(sp->host, "spill nodes", (sp->in->node_size + 7u) & ~7u, MAX_LOOKS,
					  &sp->node_records);
	return err;
}

static void fill_table(struct spill *sp)
{
	sp->table = spill_backend;
	sp->table.node_size = sp->in->node_size;
	sp->table.key_size = sp->in->key_size;
	sp->table.handle_size = sp->inner_handle + (uint32_t)sizeof(struct file_handle_part);
	forward(sp, &sp->table);
}

static void fill_root(struct spill *sp, struct fe_root *root)
{
	const struct fe_root *inner = &sp->inner->root;
	unsigned char *record = root->root.record;
	struct statfs fs = { 0 };

	fstatfs(sp->dir_fd, &fs);
	memcpy(record, inner->root.record, sp->in->node_size);
	*root = *inner;
	root->root.record = record;
	root->table = &sp->table;
	/* overlayfs takes one level of stacking itself */
	root->max_stack_depth = fs.f_type == OVERLAYFS_SUPER_MAGIC ? 2 : 1;
	root->features |= FE_FEAT_PASSTHROUGH;
	/* What was given to the kernel is its own. */
	root->features &= ~(uint32_t)(FE_FEAT_PASSTHROUGH_MIXED | FE_FEAT_STANDING);
	sp->locks = root->features & (FE_FEAT_LOCKS | FE_FEAT_FLOCK);
	sp->kills = root->features & FE_FEAT_KILLPRIV;
}

static void sp_free(struct spill *sp)
{
	fe_close(sp->dir_fd);
	free(sp->dir);
	free(sp);
}

static void sp_close(void *b)
{
	struct spill *sp = b;

	threads_fini(sp);
	files_fini(sp);
	sp_free(sp);
}

/*
 * In a process of its own. Its memory may be that of a worker which served: what that had in memory, and its
 * threads, are no more.
 */
static void sp_resume(void *b)
{
	struct spill *sp = b;

	if (sp->in->resume)
		sp->in->resume(sp->ip);
	sp->process = atomic_fetch_add(&sp->counters->processes, 1) + 1;
	files_init(sp);
	threads_init(sp);
	files_resume(sp);
}

static int sp_open(const struct fe_open_args *args, struct fe_root *root, void **priv)
{
	struct spill *sp = calloc(1, sizeof(*sp));
	_cleanup_free_ char *rest = NULL;
	int err;

	if (!sp)
		return -ENOMEM;
	sp->services = args->services;
	sp->host = args->host;
	sp->attr_valid = args->attr_valid;
	sp->writeback = args->writeback;
	sp->dir_fd = -1;
	sp->limit = LIMIT_DEFAULT;
	sp->max_files = FILES_DEFAULT;
	sp->delay = DELAY_DEFAULT;
	sp->ahead = AHEAD_DEFAULT;
	err = parse_options(sp, args->options, &rest);
	if (!err)
		err = open_dir(sp);
	if (!err)
		err = open_inner(sp, args, rest);
	if (!err)
		err = make_tables(sp);
	if (err) {
		sp_free(sp);
		return err;
	}
	settle_files(sp);
	if (!args->adopted)
		sp->process = atomic_fetch_add(&sp->counters->processes, 1) + 1;
	files_init(sp);
	threads_init(sp);
	fill_root(sp, root);
	fill_table(sp);
	*priv = sp;
	return 0;
}

static ssize_t sp_status(void *b, char *buf, size_t size)
{
	struct spill *sp = b;
	const struct counters *c = sp->counters;
	char inner[4096];
	ssize_t in = sp->in->status ? sp->in->status(sp->ip, inner, sizeof(inner)) : 0;
	int n;

	if (in <= 0)
		in = snprintf(inner, sizeof(inner), "{}");
#define COUNT(name) (unsigned long long)atomic_load(&c->name)
	n = snprintf(buf, size,
		     "{\"files\":%u,\"bytes\":%llu,\"dirty_files\":%llu,\"inner_reads\":%llu,\"inner_read_bytes\":%llu,"
		     "\"inner_writes\":%llu,\"inner_write_bytes\":%llu,\"dropped\":%llu,\"passed\":%llu,\"direct\":%llu,"
		     "\"stale\":%llu,\"lost\":%llu,\"inner\":{\"backend\":\"%s\",\"state\":%.*s}}",
		     sp->nfiles, (unsigned long long)atomic_load(&sp->allocated),
		     (unsigned long long)atomic_load(&sp->dirty_files), COUNT(inner_reads), COUNT(inner_read_bytes),
		     COUNT(inner_writes), COUNT(inner_write_bytes), COUNT(dropped), COUNT(passed), COUNT(direct),
		     COUNT(stale), COUNT(lost), sp->in->name, (int)in, inner);
#undef COUNT
	return n > 0 && (size_t)n < size ? n : -ERANGE;
}

/* What the inner backend lacks is taken out when it is known. */
const struct fe_backend spill_backend = {
	.abi = FE_BACKEND_ABI,
	.struct_size = sizeof(struct fe_backend),
	.name = "spill",
	.description = "spill:BACKEND:ARGUMENT  keeps data of opened files of BACKEND in temporary files",
	.options_help =
		"  -o spill_dir=DIR     where temporary files are ($TMPDIR, or /var/tmp)\n"
		"  -o spill_size=N      bytes that they take at most, as 512M or 10G (4G)\n"
		"  -o spill_files=N     files that are kept at most (4096)\n"
		"  -o spill_delay=SEC   until data of a file that stays open are written back (5)\n"
		"  -o spill_ahead=N     bytes fetched ahead of a reader at most (8M)\n"
		"  and those of BACKEND\n",
	.node_size = 8,
	.key_size = 8,
	.handle_size = sizeof(struct file_handle_part),
	.open = sp_open,
	.close = sp_close,
	.lookup = sp_lookup,
	.getattr = sp_getattr,
	.setattr = sp_setattr,
	.link = sp_link,
	.rename = sp_rename,
	.open_file = sp_open_file,
	.create = sp_create,
	.tmpfile = sp_tmpfile,
	.read = sp_read,
	.write = sp_write,
	.flush = sp_flush,
	.release = sp_release,
	.fsync = sp_fsync,
	.fallocate = sp_fallocate,
	.copy_file_range = sp_copy_file_range,
	.lseek = sp_lseek,
	.backing_fd = sp_backing_fd,
	.backing_begin = sp_backing_begin,
	.backing_end = sp_backing_end,
	.opened = sp_opened,
	.readdir = sp_readdir,
	.setxattr = sp_setxattr,
	.removexattr = sp_removexattr,
	.setlk = sp_setlk,
	.syncfs = sp_syncfs,
	.resume = sp_resume,
	.status = sp_status,
};
