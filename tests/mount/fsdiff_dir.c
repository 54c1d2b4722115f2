/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Directory listings, seeking, changes while a directory is read, and the audit of a tree. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsdiff.h"

#define MAX_DEPTH 48

struct entry {
	char *name;
	uint64_t ino;
	int64_t off;
	unsigned char type;
};

struct listing {
	struct entry *v;
	size_t n, room;
	int err;
};

static void listing_free(struct listing *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].name);
	free(l->v);
	memset(l, 0, sizeof(*l));
}

static bool listing_read(struct listing *l, int fd, size_t buf_size)
{
	char buf[8192] __attribute__((aligned(8)));
	ssize_t n = getdents64(fd, buf, buf_size);

	if (n < 0)
		l->err = errno;
	for (char *p = buf; n > 0 && p < buf + n; p += ((struct dirent64 *)p)->d_reclen) {
		struct dirent64 *d = (struct dirent64 *)p;

		if (l->n == l->room) {
			l->room = l->room ? 2 * l->room : 32;
			l->v = reallocarray(l->v, l->room, sizeof(*l->v));
		}
		if (!l->v)
			abort();
		l->v[l->n++] = (struct entry){ strdup(d->d_name), d->d_ino, d->d_off, d->d_type };
	}
	return n > 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static void listing_sort(struct listing *l)
{
	if (l->n)
		qsort(l->v, l->n, sizeof(*l->v), by_name);
}

static void emit_listing(struct worker *w, int fd)
{
	struct listing l = { 0 };
	struct stat st;

	while (listing_read(&l, fd, sizeof(struct dirent64) * 16))
		;
	listing_sort(&l);
	if (l.err)
		emit(w, "getdents", "%s", err_name(l.err));
	for (size_t i = 0; i < l.n; i++) {
		const char *name = l.v[i].name;

		emit(w, "entry", "%s type %u", name, l.v[i].type);
		/* ".." of the root of this run lies outside of what may be compared. */
		if (strcmp(name, "..") && !fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) &&
		    (st.st_ino != l.v[i].ino || (l.v[i].type && IFTODT(st.st_mode) != l.v[i].type)))
			emit(w, "entry", "%s: inode number or type is not that of stat", name);
	}
	listing_free(&l);
}

void do_list(struct worker *w, const struct step *s)
{
	int fd = openat(at_fd(w, s->at), w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	finish(w, fd < 0 ? -1 : 0);
	if (fd < 0)
		return;
	emit_listing(w, fd);
	close(fd);
}

void do_fdlist(struct worker *w, const struct step *s)
{
	int fd = slot_fd(w, s->fd);

	finish(w, lseek(fd, 0, SEEK_SET));
	if (w->res->ret == 0)
		emit_listing(w, fd);
}

static bool listing_has(const struct listing *l, size_t from, const char *name)
{
	for (size_t i = from; i < l->n; i++)
		if (!strcmp(l->v[i].name, name))
			return true;
	return false;
}

/* Read all, seek back to the place after entry number "at", and the same rest must come again. */
void do_seekdir(struct worker *w, const struct step *s)
{
	struct listing all = { 0 }, rest = { 0 };
	int fd = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool same = true;
	size_t k;

	finish(w, fd < 0 ? -1 : 0);
	if (fd < 0)
		return;
	while (listing_read(&all, fd, 512))
		;
	emit(w, "entries", "%zu", all.n);
	if (all.n) {
		k = (size_t)s->num[0] % all.n;
		if (lseek(fd, all.v[k].off, SEEK_SET) < 0)
			emit(w, "seek", "%s", err_name(errno));
		while (listing_read(&rest, fd, 512))
			;
		for (size_t i = 0; i < rest.n; i++)
			same &= listing_has(&all, k + 1, rest.v[i].name);
		emit(w, "rest", "%s", same && rest.n == all.n - k - 1 ? "the same" : "another");
	}
	listing_free(&all);
	listing_free(&rest);
	close(fd);
}

/* Names made and removed while a directory is read must not hide or repeat those that stay. */
void do_dirchange(struct worker *w, const struct step *s)
{
	struct listing before = { 0 }, during = { 0 };
	int fd = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), made = 0, file;
	size_t missing = 0, twice = 0;
	char name[16];

	finish(w, fd < 0 ? -1 : 0);
	if (fd < 0)
		return;
	while (listing_read(&before, fd, 512))
		;
	if (lseek(fd, 0, SEEK_SET))
		emit(w, "rewind", "%s", err_name(errno));
	for (int64_t i = 0; i < s->num[0] % 3 && listing_read(&during, fd, 96); i++)
		;
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "tmp%d", i);
		file = openat(fd, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
		made += file >= 0;
		if (file >= 0)
			close(file);
		if (i % 2)
			unlinkat(fd, name, 0);
	}
	while (listing_read(&during, fd, 128))
		;
	for (int i = 0; i < 8; i += 2) {
		snprintf(name, sizeof(name), "tmp%d", i);
		unlinkat(fd, name, 0);
	}
	for (size_t i = 0; i < before.n; i++)
		missing += !listing_has(&during, 0, before.v[i].name);
	for (size_t i = 0; i < during.n; i++)
		twice += listing_has(&during, i + 1, during.v[i].name);
	emit(w, "made", "%d", made);
	emit(w, "missing", "%zu", missing);
	emit(w, "twice", "%zu", twice);
	listing_free(&before);
	listing_free(&during);
	close(fd);
}

/* Zero blocks count as holes, so that only what a reader sees decides. */
static uint64_t hash_range(struct worker *w, int fd, off_t pos, off_t to, uint64_t h)
{
	static const char zero[4096];
	off_t end;
	ssize_t n;

	while (pos < to) {
		end = lseek(fd, pos, SEEK_DATA);
		if (end < 0)
			break;
		pos = end & ~(off_t)4095;
		end = lseek(fd, end, SEEK_HOLE);
		if (end < 0 || end > to)
			end = to;
		while (pos < end) {
			n = pread(fd, w->data, (size_t)(to - pos < 4096 ? to - pos : 4096), pos);
			if (n <= 0)
				return n ? (uint64_t)errno : h;
			if (memcmp(w->data, zero, (size_t)n))
				h = hash_bytes(h ^ (uint64_t)pos, w->data, (size_t)n);
			pos += n;
		}
	}
	return h;
}

/* One of the two may tell no holes: only where steps write, and at the end. */
static uint64_t hash_file(struct worker *w, int fd, off_t size)
{
	static const off_t written[] = { 0, INT64_C(1) << 32, INT64_C(5) << 32, INT64_C(1) << 40 };
	const off_t before = 64 << 10, after = 4 << 20;
	off_t pos = 0;
	uint64_t h = 1;

	for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++) {
		off_t to = written[i] + after < size ? written[i] + after : size;

		if (pos < written[i] - before)
			pos = written[i] - before;
		h = hash_range(w, fd, pos, to, h);
		pos = to;
	}
	if (pos < ((size - before) & ~(off_t)4095))
		pos = (size - before) & ~(off_t)4095;
	return hash_range(w, fd, pos, size, h);
}

struct audit {
	struct worker *w;
	ino_t seen[4096];
	size_t n_seen;
	char path[EXPANDED];
};

/* Numbered in the order of the walk, inode numbers show which names are links to one file. */
static size_t ino_rank(struct audit *a, ino_t ino)
{
	for (size_t i = 0; i < a->n_seen; i++)
		if (a->seen[i] == ino)
			return i;
	if (a->n_seen < 4096)
		a->seen[a->n_seen++] = ino;
	return a->n_seen - 1;
}

static void audit_dir(struct audit *a, int fd, size_t len, int depth);

static void audit_entry(struct audit *a, int dir, const char *name, size_t len, int depth)
{
	struct worker *w = a->w;
	struct stat st;
	ssize_t n;
	int fd;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW)) {
		emit(w, a->path, "%s", err_name(errno));
		return;
	}
	emit_stat(w, a->path, &st);
	emit(w, a->path, "inode #%zu", ino_rank(a, st.st_ino));
	if (S_ISLNK(st.st_mode)) {
		n = readlinkat(dir, name, w->data, DATA_MAX);
		emit(w, a->path, "link of %zd bytes %016llx", n,
		     (unsigned long long)hash_bytes(1, w->data, n > 0 ? (size_t)n : 0));
		return;
	}
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return;
	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		emit(w, a->path, "open: %s", err_name(errno));
		return;
	}
	list_xattrs(w, a->path, fd, NULL, true);
	if (S_ISREG(st.st_mode))
		emit(w, a->path, "content %016llx",
		     (unsigned long long)hash_file(w, fd, st.st_size));
	else if (depth < MAX_DEPTH)
		audit_dir(a, fd, len, depth + 1);
	close(fd);
}

static void audit_dir(struct audit *a, int fd, size_t len, int depth)
{
	struct listing l = { 0 };

	while (listing_read(&l, fd, 8192))
		;
	listing_sort(&l);
	for (size_t i = 0; i < l.n; i++) {
		size_t add = strlen(l.v[i].name);

		if (!strcmp(l.v[i].name, ".") || !strcmp(l.v[i].name, "..") ||
		    len + add + 2 > EXPANDED)
			continue;
		a->path[len] = '/';
		memcpy(a->path + len + 1, l.v[i].name, add + 1);
		audit_entry(a, fd, l.v[i].name, len + add + 1, depth);
		a->path[len] = 0;
	}
	listing_free(&l);
}

void do_audit(struct worker *w, const struct step *s)
{
	static struct audit a;
	int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)s;
	finish(w, fd < 0 ? -1 : 0);
	if (fd < 0)
		return;
	a.w = w;
	a.n_seen = 0;
	a.path[0] = 0;
	audit_dir(&a, fd, 0, 0);
	close(fd);
}
