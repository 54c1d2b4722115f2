/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One twin process: who it is, its open files, and how it reports what it sees. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "fsdiff.h"

static const struct cred creds[] = {
	{ 0, 0, 0, { 0 } },
	{ 1001, 2001, 1, { 3000 } },
	{ 1002, 2002, 2, { 3000, 3001 } },
	{ 0, 0, 1, { 3001 } },
	{ 1003, 2001, 0, { 0 } },
	{ 1001, 2001, 1, { 3000 } },
};

const struct cred *actor_cred(int actor)
{
	return &creds[(size_t)actor % (sizeof(creds) / sizeof(creds[0]))];
}

static void die(const char *what)
{
	fprintf(stderr, "fsdiff: actor: %s: %s\n", what, strerror(errno));
	_exit(3);
}

void worker_init(struct worker *w, int side, int actor, struct shared *sh, struct chan *ch,
		 int root)
{
	const struct cred *c = actor_cred(actor);
	struct stat st;

	memset(w, 0, sizeof(*w));
	w->side = side;
	w->actor = actor;
	w->sh = sh;
	w->ch = ch;
	w->res = &ch->res;
	w->data = ch->data;
	for (int i = 0; i < NFD; i++)
		w->slot[i].fd = -1;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	if (fchdir(root) || chroot(".") || chdir("/") || stat("/", &st))
		die("chroot");
	w->root_dev = st.st_dev;
	close(root);
	umask(022);
	if (setgroups((size_t)c->n_groups, c->groups) || setresgid(c->gid, c->gid, c->gid) ||
	    setresuid(c->uid, c->uid, c->uid))
		die("setresuid");
	/* After setresuid, which clears it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

void finish(struct worker *w, int64_t ret)
{
	w->res->ret = ret;
	w->res->err = ret < 0 ? errno : 0;
}

void emit(struct worker *w, const char *key, const char *fmt, ...)
{
	struct result *r = w->res;
	size_t room = sizeof(r->text) - r->len;
	va_list ap;
	int a, b;

	a = snprintf(r->text + r->len, room, "%s=", key);
	if ((size_t)a + 2 > room)
		return;
	va_start(ap, fmt);
	b = vsnprintf(r->text + r->len + a, room - (size_t)a, fmt, ap);
	va_end(ap);
	if ((size_t)a + (size_t)b + 2 > room)
		return;
	r->len += (uint32_t)(a + b);
	r->text[r->len++] = '\n';
	r->text[r->len] = 0;
}

void leave_out(struct worker *w, const char *what)
{
	finish(w, 0);
	emit(w, "left out", "%s", what);
}

const char *err_name(int err)
{
	const char *name = strerrorname_np(err);

	return err ? name ? name : "E?" : "ok";
}

uint64_t hash_bytes(uint64_t h, const void *data, size_t len)
{
	const unsigned char *p = data;
	uint64_t word;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&word, p, 8);
		h = (h ^ word) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	for (; len; len--)
		h = (h ^ *p++) * 0x100000001b3u;
	return h ^ (h >> 32);
}

void emit_data(struct worker *w, const void *data, size_t len)
{
	if (data == w->data)
		w->res->data_len = (uint32_t)len;
	emit(w, "data", "%zu bytes, hash %016llx", len,
	     (unsigned long long)hash_bytes(1, data, len));
}

/* A time that no call set explicitly is only "now"; the rest must be equal to the nanosecond. */
void emit_time(struct worker *w, const char *key, int64_t sec, long nsec)
{
	if (sec > w->sh->started - 86400 && sec < w->sh->started + 30 * 86400)
		emit(w, key, "now");
	else
		emit(w, key, "%lld.%09ld", (long long)sec, nsec);
}

void emit_stat(struct worker *w, const char *prefix, const struct stat *st)
{
	static char key[EXPANDED + 16];

#define KEY(x) (snprintf(key, sizeof(key), "%s.%s", prefix, x), key)
	w->res->hints |= taint_of(w, st->st_ino);
	emit(w, KEY("mode"), "%07o", st->st_mode);
	emit(w, KEY("nlink"), "%lu", (unsigned long)st->st_nlink);
	emit(w, KEY("owner"), "%u:%u", st->st_uid, st->st_gid);
	if (!S_ISDIR(st->st_mode))
		emit(w, KEY("size"), "%lld", (long long)st->st_size);
	if (S_ISREG(st->st_mode))
		emit(w, KEY("blocks"), "%lld", (long long)st->st_blocks);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		emit(w, KEY("rdev"), "%lx", (unsigned long)st->st_rdev);
	emit_time(w, KEY("mtime"), st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
	if (st->st_dev != w->root_dev)
		emit(w, KEY("dev"), "not that of the root");
#undef KEY
}

int slot_fd(const struct worker *w, int slot)
{
	return slot < 0 || slot >= NFD ? -1 : w->slot[slot].fd;
}

int at_fd(const struct worker *w, int slot)
{
	return slot < 0 ? AT_FDCWD : slot_fd(w, slot);
}

void slot_put(struct worker *w, int slot, int fd)
{
	struct stat st;

	if (w->slot[slot].fd >= 0)
		close(w->slot[slot].fd);
	w->slot[slot].fd = fd;
	w->slot[slot].ino = fd >= 0 && !fstat(fd, &st) ? st.st_ino : 0;
}

void taint_ino(struct worker *w, ino_t ino, uint32_t hint)
{
	w->sh->taint[w->side][ino % TAINTS] |= (unsigned char)hint;
}

void taint_fd(struct worker *w, int fd, uint32_t hint)
{
	struct stat st;

	if (!fstat(fd, &st))
		taint_ino(w, st.st_ino, hint);
}

uint32_t taint_of(const struct worker *w, ino_t ino)
{
	return w->sh->taint[w->side][ino % TAINTS];
}

void fill_pattern(char *buf, size_t len, int64_t tag)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (char)(tag + (int64_t)i * 7 + (int64_t)(i >> 8) * 13);
}

#define N_SEEN 6
struct seen {
	const char *name;
	bool ok;
	struct stat st;
};

static void look(struct seen *seen, const char *name, int at, const char *path, int flags)
{
	seen->name = name;
	seen->ok = !fstatat(at, path, &seen->st, flags);
}

static bool parent_of(const char *path, char *out, size_t size)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;

	if (!*path || len >= size || (slash && !slash[1]))
		return false;
	snprintf(out, size, "%.*s", (int)len, path);
	if (!len)
		strcpy(out, slash ? "/" : ".");
	return true;
}

static bool uses(const struct step *s, enum kind first, enum kind last)
{
	const struct arg *a = step_op(s)->arg;

	for (int i = 0; i < NARG && a[i].name; i++)
		if (a[i].kind >= first && a[i].kind <= last)
			return true;
	return false;
}

static int look_all(struct worker *w, const struct step *s, struct seen *seen, bool parents)
{
	static char parent[EXPANDED];
	int n = 0, at;

	if (uses(s, K_FD, K_FD))
		look(&seen[n++], "fd", slot_fd(w, s->fd), "", AT_EMPTY_PATH);
	if (uses(s, K_FD2, K_INTO))
		look(&seen[n++], "fd2", slot_fd(w, s->fd2), "", AT_EMPTY_PATH);
	if (uses(s, K_ANY, K_CHDIR)) {
		at = uses(s, K_AT, K_AT) ? at_fd(w, s->at) : AT_FDCWD;
		look(&seen[n++], "path", at, w->path, AT_SYMLINK_NOFOLLOW);
		if (parents && parent_of(w->path, parent, sizeof(parent)))
			look(&seen[n++], "parent", at, parent, 0);
	}
	if (uses(s, K_ANY2, K_FILE2)) {
		at = uses(s, K_AT2, K_AT2) ? at_fd(w, s->at2) : AT_FDCWD;
		look(&seen[n++], "path2", at, w->path2, AT_SYMLINK_NOFOLLOW);
		if (parents && parent_of(w->path2, parent, sizeof(parent)))
			look(&seen[n++], "parent2", at, parent, 0);
	}
	return n;
}

static bool later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* Kernels stamp inodes with a clock that moves once per tick: let it move past what was seen. */
static void wait_tick(const struct seen *seen, int n)
{
	struct timespec real, now, last = { 0 }, nap = { 0, 500000 };

	clock_gettime(CLOCK_REALTIME, &real);
	for (int i = 0; i < n; i++) {
		const struct timespec *t[] = { &seen[i].st.st_ctim, &seen[i].st.st_mtim };

		for (int k = 0; k < 2 && seen[i].ok; k++)
			if (later(t[k], &last) && !later(t[k], &real))
				last = *t[k];
	}
	for (;;) {
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
		if (later(&now, &last))
			return;
		nanosleep(&nap, NULL);
	}
}

static void emit_changes(struct worker *w, const struct seen *before, const struct seen *after,
			 int n)
{
	struct timespec now;
	char key[32], val[32];

	clock_gettime(CLOCK_REALTIME, &now);
	for (int i = 0; i < n; i++) {
		const struct stat *b = &before[i].st, *a = &after[i].st;

		/* A FUSE server hears nothing of what goes through a fifo. */
		if (before[i].ok && S_ISFIFO(b->st_mode))
			continue;
		snprintf(key, sizeof(key), "times.%s", before[i].name);
		if (!before[i].ok || !after[i].ok || a->st_ino != b->st_ino) {
			emit(w, key, "%s", after[i].ok ? "other object" : "none");
			continue;
		}
		w->res->hints |= taint_of(w, a->st_ino);
		snprintf(val, sizeof(val), "mtime %s, ctime %s",
			 memcmp(&a->st_mtim, &b->st_mtim, sizeof(a->st_mtim)) ? "changed" : "same",
			 memcmp(&a->st_ctim, &b->st_ctim, sizeof(a->st_ctim)) ? "changed" : "same");
		emit(w, key, "%s", val);
		/* One that lies ahead goes back with the next read. */
		if (later(&b->st_atim, &a->st_atim) && !later(&b->st_atim, &now) &&
		    !strstr(step_op(&w->ch->step)->name, "utimens"))
			emit(w, key, "atime went back");
	}
}

static void emit_post(struct worker *w, const struct step *s)
{
	struct seen seen[N_SEEN];
	int n = look_all(w, s, seen, false);
	char key[32];

	for (int i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "post.%s", seen[i].name);
		if (seen[i].ok)
			emit_stat(w, key, &seen[i].st);
		else
			emit(w, key, "none");
		if (!strcmp(seen[i].name, "fd") && seen[i].ok &&
		    seen[i].st.st_ino != w->slot[s->fd].ino)
			emit(w, key, "inode number changed while open");
	}
}

void worker_step(struct worker *w, const struct step *s)
{
	struct seen before[N_SEEN], after[N_SEEN];
	int n = 0;

	w->res->len = w->res->hints = w->res->data_len = 0;
	w->res->text[0] = 0;
	path_expand(s->path, w->path, sizeof(w->path));
	path_expand(s->path2, w->path2, sizeof(w->path2));
	if (s->flags & STEP_TIMED) {
		n = look_all(w, s, before, true);
		wait_tick(before, n);
	}
	step_op(s)->exec(w, s);
	if (s->flags & STEP_TIMED) {
		look_all(w, s, after, true);
		emit_changes(w, before, after, n);
	}
	if (s->flags & STEP_POST)
		emit_post(w, s);
}
