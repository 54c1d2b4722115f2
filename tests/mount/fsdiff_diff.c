/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compares what the twins of an actor saw, and knows which differences are allowed and why. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fsdiff.h"

struct seen_diff {
	const struct step *s;
	const struct result *a, *b;
	const char *key, *va, *vb;	/* key "result": return value or errno */
};

static bool is_op(const struct seen_diff *d, const char *name)
{
	return !strcmp(step_op(d->s)->name, name);
}

static bool key_ends(const struct seen_diff *d, const char *end)
{
	size_t n = strlen(d->key), m = strlen(end);

	return n >= m && !strcmp(d->key + n - m, end);
}

static bool hinted(const struct seen_diff *d, uint32_t hint)
{
	return (d->a->hints | d->b->hints) & hint;
}

static bool about_blocks(const struct seen_diff *d)
{
	long long a, b;

	if (!key_ends(d, ".blocks"))
		return false;
	a = atoll(d->va);
	b = atoll(d->vb);
	return llabs(a - b) <= 2048 + (a < b ? a : b) / 4;
}

static bool about_seek_data(const struct seen_diff *d)
{
	return is_op(d, "lseek") && (d->s->num[1] == SEEK_DATA || d->s->num[1] == SEEK_HOLE) &&
	       (hinted(d, HINT_UNWRITTEN) || hinted(d, HINT_MAPPED));
}

/* All below the size is data: B answers as a file without holes does. */
static bool about_no_holes(const struct seen_diff *d)
{
	const char *size = strstr(d->b->text, "size=");
	int64_t off = d->s->num[0], whence = d->s->num[1];

	if (!is_op(d, "lseek") || strcmp(d->key, "result") || !size || off >= atoll(size + 5))
		return false;
	return (whence == SEEK_DATA && d->b->ret == off) ||
	       (whence == SEEK_HOLE && d->b->ret == atoll(size + 5));
}

static bool about_map_times(const struct seen_diff *d)
{
	return hinted(d, HINT_MAPPED) && (key_ends(d, "mtime") || !strncmp(d->key, "times.", 6));
}

static bool about_kernel_times(const struct seen_diff *d)
{
	return hinted(d, HINT_OWN_TIMES) && (key_ends(d, "mtime") || !strncmp(d->key, "times.", 6));
}

static bool about_removed_acl(const struct seen_diff *d)
{
	const char *op = step_op(d->s)->name;
	bool removed = is_op(d, "setacl") ||
		       (!strncmp(d->s->name, "system.posix_acl", 16) &&
			(strstr(op, "removexattr") || (strstr(op, "setxattr") && !d->s->num[0])));

	return removed && !d->a->ret && !strncmp(d->key, "times.", 6) &&
	       strstr(d->vb, "ctime changed");
}

static bool about_inode_flags(const struct seen_diff *d)
{
	return is_op(d, "getflags");
}

static bool about_btime(const struct seen_diff *d)
{
	return is_op(d, "statx") && !strcmp(d->key, "btime");
}

static bool about_lock_holder(const struct seen_diff *d)
{
	return !strcmp(d->key, "holder");
}

static bool about_acl(const struct seen_diff *d)
{
	return is_op(d, "setacl") || is_op(d, "getacl") ||
	       !strncmp(d->s->name, "system.posix_acl", 16);
}

static bool about_statfs(const struct seen_diff *d)
{
	return (is_op(d, "statfs") || is_op(d, "fstatfs")) && strcmp(d->key, "result");
}

/* The mode of the file whose field the key names, 0 where the result does not tell. */
static unsigned long mode_beside(const struct seen_diff *d)
{
	const char *dot = strrchr(d->key, '.'), *at;
	char key[128];

	snprintf(key, sizeof(key), "%.*smode=", dot ? (int)(dot + 1 - d->key) : 0, d->key);
	at = strstr(d->a->text, key);
	return at ? strtoul(at + strlen(key), NULL, 8) : 0;
}

static bool about_fifo_times(const struct seen_diff *d)
{
	return (key_ends(d, "atime") || key_ends(d, "mtime") || key_ends(d, "ctime")) &&
	       (S_ISFIFO(mode_beside(d)) || is_op(d, "audit"));
}

static bool about_size_blocks(const struct seen_diff *d)
{
	return key_ends(d, ".blocks") && atoll(d->vb) > atoll(d->va);
}

/* The last close is told to the server some time after close(2): then the directory changes besides what was asked. */
static bool about_hidden(const struct seen_diff *d)
{
	return hinted(d, HINT_REMOVED) &&
	       ((!strncmp(d->key, "times.", 6) && (!strcmp(d->va, "mtime same, ctime same") ||
						   !strcmp(d->vb, "mtime changed, ctime changed"))) ||
		((key_ends(d, "mtime") || key_ends(d, "ctime")) && S_ISDIR(mode_beside(d))));
}

static bool about_truncate_times(const struct seen_diff *d)
{
	return is_op(d, "truncate") && !d->a->ret && !strcmp(d->key, "times.path") &&
	       !strcmp(d->va, "mtime same, ctime same") && !strcmp(d->vb, "mtime changed, ctime changed");
}

static bool about_chown_times(const struct seen_diff *d)
{
	return (is_op(d, "chown") || is_op(d, "fchown")) && d->s->num[0] == -1 && d->s->num[1] == -1 &&
	       !strncmp(d->key, "times.", 6) && !strcmp(d->va, "mtime same, ctime changed") &&
	       !strcmp(d->vb, "mtime same, ctime same");
}

/* Left out of the steps instead. */
static bool about_nothing(const struct seen_diff *d)
{
	(void)d;
	return false;
}

static bool about_setid(const struct seen_diff *d)
{
	unsigned long a = strtoul(d->va, NULL, 8), b = strtoul(d->vb, NULL, 8);

	return key_ends(d, "mode") && (b & a) == b && !((a ^ b) & ~(S_ISUID | S_ISGID));
}

static bool about_unsynced(const struct seen_diff *d)
{
	return is_op(d, "statx") && d->s->num[0] & AT_STATX_DONT_SYNC &&
	       strcmp(d->key, "result") && strcmp(d->key, "size");
}

static struct tolerance {
	const char *name;
	bool on;
	bool (*match)(const struct seen_diff *d);
	const char *reason;
} tolerances[] = {
	{ "blocks", true, about_blocks,
	  "st_blocks depends on preallocation and writeback; only more than 1 MiB and a quarter "
	  "counts" },
	{ "seek-unwritten", true, about_seek_data,
	  "after fallocate, a copy between files or a map, data and holes depend on the page cache" },
	{ "map-times", true, about_map_times,
	  "a store to a shared map moves the times at the fault or at writeback" },
	{ "inode-flags", true, about_inode_flags,
	  "FS_IOC_GETFLAGS needs an ioctl that a FUSE server may leave out" },
	{ "fifo-times", true, about_fifo_times,
	  "FUSE hands a fifo to the kernel's own pipes, which set no times" },
	{ "unsynced", true, about_unsynced,
	  "FUSE keeps no birth time, and of the rest what it was told last, but for the size: that "
	  "is what AT_STATX_DONT_SYNC has" },
	{ "setid", false, about_setid,
	  "passed through before the bits came: any write takes set-id bits away" },
	{ "kept-flags", false, about_nothing,
	  "passed through: O_APPEND and O_DIRECT stay as at the open; none is taken away" },
	{ "chown-nothing", false, about_nothing,
	  "chown(-1, -1) on a set-id file that is open for writing looks like a write; left out" },
	{ "tmpfile", false, about_nothing, "O_TMPFILE: the server does not offer it; left out" },
	{ "btime", false, about_btime, "statx: no birth time without FUSE_STATX" },
	{ "lock-holder", false, about_lock_holder, "F_GETLK: the server does not know the pid" },
	{ "acl-calls", false, about_acl,
	  "ACLs: mounted without them; what they do to modes still counts" },
	{ "no-holes", false, about_no_holes,
	  "writeback: a hole may hide what the kernel has not written, so all is data" },
	{ "kernel-times", false, about_kernel_times,
	  "writeback: the kernel moves the times before it asks for fallocate, which may be "
	  "refused, and leaves them at truncate(2) to the same size, where ext4 moves them" },
	{ "late-caps", false, about_nothing,
	  "writeback: a write takes security.capability away when it reaches the source; left out" },
	{ "removed-acl", false, about_removed_acl,
	  "writeback: the kernel moves ctime also where an ACL was none before and is none after" },
	{ "rename-flags", false, about_nothing,
	  "the server knows no RENAME_EXCHANGE and no RENAME_WHITEOUT; left out" },
	{ "hidden", false, about_hidden,
	  "what is removed while it is open keeps a name on the server until its last close, and "
	  "the times of its directory tell" },
	{ "empty-xattr", false, about_nothing,
	  "to the server an attribute that is empty is one that is removed; left out" },
	{ "size-blocks", false, about_size_blocks,
	  "st_blocks: the server makes them up from the size, and knows no holes" },
	{ "no-fallocate", false, about_nothing, "the server knows no fallocate; left out" },
	{ "statfs", false, about_statfs, "statfs: figures made up by the server" },
	{ "truncate-times", false, about_truncate_times,
	  "truncate(2): the server moves the times also where the size stays, as ftruncate(2) does" },
	{ "chown-times", false, about_chown_times,
	  "chown(-1, -1): the server knows no way to move ctime only, and leaves it" },
};

static struct tolerance *tolerance_find(const char *name)
{
	for (size_t i = 0; i < sizeof(tolerances) / sizeof(tolerances[0]); i++)
		if (!strcmp(tolerances[i].name, name))
			return &tolerances[i];
	return NULL;
}

bool tolerate(const char *name)
{
	struct tolerance *t = tolerance_find(name);

	return t ? t->on = true : false;
}

bool tolerated(const char *name)
{
	return tolerance_find(name)->on;
}

void list_tolerances(FILE *f)
{
	for (size_t i = 0; i < sizeof(tolerances) / sizeof(tolerances[0]); i++)
		fprintf(f, "  %-15s %-7s %s\n", tolerances[i].name,
			tolerances[i].on ? "always" : "", tolerances[i].reason);
}

static const char *tolerated_by(const struct seen_diff *d)
{
	for (size_t i = 0; i < sizeof(tolerances) / sizeof(tolerances[0]); i++)
		if (tolerances[i].on && tolerances[i].match(d))
			return tolerances[i].name;
	return NULL;
}

/* Fills d; true where the difference counts. */
static bool judge(const struct seen_diff *seen, struct diff *d)
{
	const char *by = tolerated_by(seen);

	if (by) {
		d->tolerated = by;
		return false;
	}
	snprintf(d->key, sizeof(d->key), "%s", seen->key);
	snprintf(d->a, sizeof(d->a), "%s", seen->va);
	snprintf(d->b, sizeof(d->b), "%s", seen->vb);
	return true;
}

static void result_text(const struct result *r, char *buf, size_t size)
{
	if (r->ret < 0)
		snprintf(buf, size, "%lld %s", (long long)r->ret, err_name(r->err));
	else
		snprintf(buf, size, "%lld", (long long)r->ret);
}

static const char *take_line(const char *p, char *buf, size_t size)
{
	size_t n = strcspn(p, "\n"), keep = n < size - 1 ? n : size - 1;

	memcpy(buf, p, keep);
	buf[keep] = 0;
	return p[n] ? p + n + 1 : p + n;
}

/* Cuts "key=value" and returns the value. */
static char *cut(char *line)
{
	char *eq = strchr(line, '=');

	if (!eq)
		return line + strlen(line);
	*eq = 0;
	return eq + 1;
}

/* A late write takes security.capability away: what is said of it is passed over then. */
static const char *skip_caps(const char *p, uint32_t hints)
{
	static const char *const said[] = { "name=security.capability\n",
					    ".xattr=security.capability:" };
	const char *at, *end;

	for (; (end = strchr(p, '\n')); p = end + 1) {
		bool found = !strncmp(p, said[0], strlen(said[0]));

		at = strstr(p, said[1]);
		if (!(hints & HINT_MAPPED) || !(found || (at && at < end)))
			break;
	}
	return p;
}

static bool lines_differ(const struct step *s, const struct result *a, const struct result *b,
			 struct diff *d)
{
	static char la[16384], lb[16384];
	uint32_t hints = a->hints | b->hints;
	const char *pa = skip_caps(a->text, hints), *pb = skip_caps(b->text, hints);

	while (*pa || *pb) {
		const char *qa = take_line(pa, la, sizeof(la)), *qb = take_line(pb, lb, sizeof(lb));
		struct seen_diff seen = { s, a, b, la, "", "" };
		char *va = cut(la), *vb = cut(lb);

		if (!*pa || !*pb || strcmp(la, lb)) {
			/* From here on one side says more than the other. */
			snprintf(d->a, sizeof(d->a), "%.100s=%.290s", la, va);
			snprintf(d->b, sizeof(d->b), "%.100s=%.290s", lb, vb);
			snprintf(d->key, sizeof(d->key), "what is reported");
			return true;
		}
		seen.va = va;
		seen.vb = vb;
		if (strcmp(va, vb) && judge(&seen, d))
			return true;
		pa = skip_caps(qa, hints);
		pb = skip_caps(qb, hints);
	}
	return false;
}

bool results_differ(const struct step *s, const struct result *a, const struct result *b,
		    struct diff *d)
{
	char ta[64], tb[64];
	struct seen_diff seen = { s, a, b, "result", ta, tb };

	memset(d, 0, sizeof(*d));
	if (a->ret != b->ret || a->err != b->err) {
		result_text(a, ta, sizeof(ta));
		result_text(b, tb, sizeof(tb));
		return judge(&seen, d);
	}
	if (a->len == b->len && !memcmp(a->text, b->text, a->len))
		return false;
	return lines_differ(s, a, b, d);
}
