/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hook DIRECTORY: the engine hook of libextfuse on a real mount, at DIRECTORY/mnt, in a guest with the module. */
#include <sys/xattr.h>

#include "tests/mount/cachefs.h"

static unsigned asked_by(unsigned (*count)(void), void (*what)(void))
{
	unsigned before = count();

	what();
	return count() - before;
}

static void stats(void)
{
	for (int i = 0; i < 100; i++)
		size_of("a");
}

static void absences(void)
{
	for (int i = 0; i < 100; i++)
		size_of("absent");
}

static void attributes(void)
{
	struct file *a = by_name("a");
	unsigned n = asked_by(upcalls, stats);

	expect(!n, "no-upcall", "100 times stat asked %u times", n);
	change(a, 20, 'a');
	sees("cached", "a", 10, 0);
	extfuse_invalidate_node(x, a->nodeid, 0);
	size_of("a");
	sees("changed-at-once", "a", 20, 0);
	size_of("absent");
	n = asked_by(upcalls, absences);
	expect(!n, "absent-no-upcall", "100 times stat asked %u times", n);
	pthread_mutex_lock(&lock);
	add("absent", 9, 'x');
	pthread_mutex_unlock(&lock);
	sees("absent-cached", "absent", -ENOENT, 0);
	extfuse_invalidate_entry(x, 1, "absent");
	expect(size_of("absent") == 9, "appears-at-once", "got %lld", size_of("absent"));
}

/* The result of what was asked is put with the reply. */
static void own_results(void)
{
	struct file *a = by_name("a");
	unsigned before;
	struct stat st;
	int fd;

	size_of("a");
	expect(!chmod("a", 0640), "chmod", "errno %d", errno);
	before = upcalls();
	expect(!stat("a", &st) && (st.st_mode & 07777) == 0640 && upcalls() == before, "chmod-put", "mode %o, asked %u times",
	       st.st_mode, upcalls() - before);
	expect(!truncate("a", 5), "truncate", "errno %d", errno);
	sees("truncate-put", "a", 5, 0);
	expect(a->size == 5, "truncated", "no");
	fd = open("created", O_CREAT | O_EXCL | O_RDWR, 0644);
	expect(fd >= 0, "create", "errno %d", errno);
	size_of("."); /* the directory's own attributes have changed */
	sees("create-put", "created", 0, 0);
	close(fd);
	expect(!unlink("created"), "unlink", "errno %d", errno);
	size_of(".");
	sees("unlink-put", "created", -ENOENT, 0);
}

static void xattrs(void)
{
	struct file *a = by_name("a");
	char value[32];
	unsigned before;
	ssize_t n;

	pthread_mutex_lock(&lock);
	strcpy(a->note, "first");
	pthread_mutex_unlock(&lock);
	n = getxattr("a", "user.note", value, sizeof(value));
	before = so_far(FUSE_GETXATTR);
	for (int i = 0; i < 50; i++)
		n = getxattr("a", "user.note", value, sizeof(value));
	expect(n == 5 && !memcmp(value, "first", 5) && so_far(FUSE_GETXATTR) == before, "xattr", "%zd bytes, asked %u times", n,
	       so_far(FUSE_GETXATTR) - before);
	n = getxattr("a", "user.note", NULL, 0);
	expect(n == 5 && so_far(FUSE_GETXATTR) == before, "xattr-size", "%zd", n);
	n = getxattr("a", "user.note", value, 4);
	expect(n < 0 && errno == ERANGE && so_far(FUSE_GETXATTR) == before, "xattr-range", "%zd, errno %d", n, errno);
	getxattr("a", "user.none", value, sizeof(value));
	before = so_far(FUSE_GETXATTR);
	n = getxattr("a", "user.none", value, sizeof(value));
	expect(n < 0 && errno == ENODATA && so_far(FUSE_GETXATTR) == before, "xattr-absent", "%zd, errno %d", n, errno);
	extfuse_invalidate_node(x, a->nodeid, 0);
	n = getxattr("a", "user.none", value, sizeof(value));
	expect(so_far(FUSE_GETXATTR) == before + 1, "xattr-invalidated", "asked %u times", so_far(FUSE_GETXATTR) - before);
}

/* Names come: how often names that do not were asked for. */
static unsigned names_come(unsigned round)
{
	char name[48];
	unsigned before;
	int fd, bad = 0;

	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "new-%u-%d", round, i);
		fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
		bad += fd < 0;
		close(fd);
	}
	before = so_far(FUSE_LOOKUP);
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "new-%u-%d", round, i);
		bad += size_of(name) != 0;
		snprintf(name, sizeof(name), "never-either-%u-%d", round, i);
		bad += size_of(name) != -ENOENT;
	}
	expect(!bad, "dir-is-right", "%d names are not", bad);
	before = so_far(FUSE_LOOKUP) - before;
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "new-%u-%d", round, i);
		unlink(name);
	}
	return before;
}

/* A directory that is known as a whole, while names come. */
static void directory(void)
{
	static struct extfuse_names names;
	unsigned before, asked = 0;
	uint64_t stamp;
	char name[32];

	/* Now and then one of what changes has the directory's word: other names and nodes have others. */
	for (unsigned round = 0; round < 4; round++) {
		stamp = extfuse_stamp(x);
		extfuse_names_clear(&names);
		for (const char *const *p = (const char *const[]){ "a", "absent", "d", "e", NULL }; *p; p++)
			extfuse_names_add(&names, *p);
		expect(!extfuse_put_dir(x, stamp, 1, &names), "put-dir", "it failed");
		if (!round) {
			size_of(".");
			before = upcalls();
			for (int i = 0; i < 100; i++) {
				snprintf(name, sizeof(name), "never-asked-%d", i);
				if (size_of(name) != -ENOENT)
					expect(0, "dir-complete", "%s is there", name);
			}
			expect(upcalls() - before <= 2, "dir-complete", "asked %u times", upcalls() - before);
		}
		asked = names_come(round);
		if (asked <= 2)
			break;
	}
	expect(asked <= 2, "dir-stays-complete", "asked %u times", asked);
}

/* ---- changes that somebody tells of ---- */

static void appears(const char *name)
{
	pthread_mutex_lock(&lock);
	add(name, 9, 'x');
	pthread_mutex_unlock(&lock);
}

/* Which of them, is not said. */
static void told_all(void)
{
	long long got;

	size_of("a");
	size_of("later");
	change(by_name("a"), 7, 'a');
	appears("later");
	sees("all-still", "a", 5, 0);
	sees("all-absent-still", "later", -ENOENT, 0);
	expect(!extfuse_invalidate_all(x), "invalidate-all", "it failed");
	got = size_of("a");
	expect(got == 7, "all", "got %lld", got);
	got = size_of("later");
	expect(got == 9, "all-absent", "got %lld", got);
	sees("all-known-again", "a", 7, 0);
	change(by_name("a"), 5, 'a');
	extfuse_invalidate_node(x, by_name("a")->nodeid, 0);
}

/* The name goes, and the node has one less. */
static void told_deleted(void)
{
	struct file *g = by_name("later");
	uint64_t nodeid = g->nodeid;
	int fd = open("later", O_PATH);
	unsigned before;
	struct stat st;
	int err;

	fstat(fd, &st);
	pthread_mutex_lock(&lock);
	g->name[0] = 0;
	g->size = 3;
	pthread_mutex_unlock(&lock);
	sees("deleted-still", "later", 9, 0);
	before = so_far(FUSE_GETATTR);
	fstat(fd, &st);
	expect(st.st_size == 9 && so_far(FUSE_GETATTR) == before, "deleted-node-still", "size %ld, asked %u times",
	       (long)st.st_size, so_far(FUSE_GETATTR) - before);
	err = extfuse_invalidate_deleted(x, 1, nodeid, "later");
	expect(!err, "invalidate-deleted", "%d", err);
	before = so_far(FUSE_GETATTR);
	fstat(fd, &st);
	expect(st.st_size == 3 && so_far(FUSE_GETATTR) == before + 1, "deleted-node", "size %ld, asked %u times",
	       (long)st.st_size, so_far(FUSE_GETATTR) - before);
	expect(size_of("later") == -ENOENT, "deleted", "got %lld", size_of("later"));
	close(fd);
}

/* Names came to what was known as a whole. */
static void told_directory(void)
{
	static struct extfuse_names names;
	uint64_t stamp = extfuse_stamp(x);

	extfuse_names_clear(&names);
	for (const char *const *p = (const char *const[]){ "a", "absent", "d", "e", NULL }; *p; p++)
		extfuse_names_add(&names, *p);
	expect(!extfuse_put_dir(x, stamp, 1, &names), "dir-put", "it failed");
	size_of(".");
	sees("dir-absent", "comes-to-a-directory", -ENOENT, 0);
	appears("comes-to-a-directory");
	sees("dir-absent-still", "comes-to-a-directory", -ENOENT, 0);
	expect(!extfuse_invalidate_dir(x, 1), "invalidate-dir", "it failed");
	expect(size_of("comes-to-a-directory") == 9, "dir-told", "got %lld", size_of("comes-to-a-directory"));
	unlink("comes-to-a-directory");
}

/* What the context itself counts: by known numbers of calls. */
static void counted(void)
{
	static struct extfuse_figures was = { .struct_size = sizeof(was) }, is = { .struct_size = sizeof(is) };
	uint64_t stamp = extfuse_stamp(x);
	int bad = extfuse_figures(x, &was);

	for (int i = 0; i < 3; i++)
		bad |= extfuse_put_negative(x, stamp, 1, "counted", NULL, 0);
	for (int i = 0; i < 2; i++)
		bad |= extfuse_invalidate_entry(x, 1, "counted");
	/* Its data is in the driver's cache, and nowhere else. */
	bad |= extfuse_invalidate_node(x, by_name("e")->nodeid, 0);
	for (int i = 0; i < 4; i++)
		bad |= extfuse_put_negative(x, stamp, 1, "counted", NULL, 0) != -ESTALE;
	bad |= extfuse_figures(x, &is);
	expect(!bad && is.puts - was.puts == 3 && is.late - was.late == 4 && is.invalidations - was.invalidations == 3 &&
	       is.notifications - was.notifications == 1 && is.engine == EXTFUSE_ENGINE_HOOK && is.memory >= 1 << 20,
	       "figures-of-the-context", "%llu puts, %llu late, %llu invalidations, %llu notifications, %llu bytes",
	       (unsigned long long)(is.puts - was.puts), (unsigned long long)(is.late - was.late),
	       (unsigned long long)(is.invalidations - was.invalidations),
	       (unsigned long long)(is.notifications - was.notifications), (unsigned long long)is.memory);
}

/* ---- data, and other servers ---- */

/* By the file that the module has. */
static void reads(const char *directory)
{
	struct file *d = by_name("d");
	unsigned before;
	char path[512], text[8] = "";
	int fd, in;

	snprintf(path, sizeof(path), "%s/behind", directory);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || pwrite(fd, "behind", 6, 0) != 6)
		perror(path);
	expect(!extfuse_backing(x, d->nodeid, fd), "backing", "it failed");
	pthread_mutex_lock(&lock);
	d->size = 6;
	d->flags = EXTFUSE_PASSTHRU_READ | EXTFUSE_PASSTHRU_WRITE;
	pthread_mutex_unlock(&lock);
	extfuse_invalidate_node(x, d->nodeid, 0);
	size_of("d");
	before = so_far(FUSE_READ);
	in = open("d", O_RDWR);
	expect(pread(in, text, 7, 0) == 6 && !strcmp(text, "behind") && so_far(FUSE_READ) == before, "passthru-read",
	       "got %s, asked %u times", text, so_far(FUSE_READ) - before);
	size_of("d");
	expect(pwrite(in, "B", 1, 0) == 1 && pread(fd, text, 6, 0) == 6 && !strcmp(text, "Behind") && !so_far(FUSE_WRITE),
	       "passthru-write", "got %s, asked %u times", text, so_far(FUSE_WRITE));
	close(in);
	expect(!extfuse_backing(x, d->nodeid, -1), "backing-none", "it failed");
	close(fd);
}

/* The server answers nothing; hits go on. */
static void silent_server(void)
{
	struct stat st;
	int err = 0;

	size_of("a");
	size_of("absent");
	pthread_mutex_lock(&lock);
	for (int i = 0; i < 20; i++)
		err |= stat("a", &st) || stat("absent", &st);
	pthread_mutex_unlock(&lock);
	expect(!err, "server-silent", "errno %d", errno);
}

static void successor(void)
{
	const struct extfuse_options o = { .struct_size = sizeof(o), .entry_ms = HOUR, .attr_ms = HOUR, .negative_ms = HOUR,
					   .memory = 4 << 20 };
	const struct extfuse_protocol p = { .struct_size = sizeof(p), .minor = 31 };
	struct extfuse_options other = o;
	int fds[EXTFUSE_FDS_MAX], n = extfuse_fds(x, fds, EXTFUSE_FDS_MAX);
	struct extfuse *next, *before;

	expect(n > 1, "descriptors", "%d", n);
	for (int i = 0; i < n; i++)
		fds[i] = dup(fds[i]);
	other.memory = 8 << 20;
	expect(extfuse_reopen(&other, fuse_fd, &p, fds, (unsigned)n, &next) == -EINVAL && !next, "reopen-other", "accepted");
	expect(!extfuse_reopen(&o, fuse_fd, &p, fds, (unsigned)n, &next), "reopen", "it failed");
	size_of("a");
	pthread_mutex_lock(&lock);
	before = x;
	x = next;
	extfuse_close(before);
	pthread_mutex_unlock(&lock);
	sees("reopened", "a", 5, 0);
	change(by_name("a"), 6, 'a');
	extfuse_invalidate_node(x, by_name("a")->nodeid, 0);
	size_of("a");
	sees("reopened-puts", "a", 6, 0);
	/* what was held is to be held again */
	extfuse_hold(x, by_name("a")->nodeid);
	/* LOOKUP, and since its answer's attributes are not kept, GETATTR */
	sees("held", "a", 6, 2);
	extfuse_hold_reset(x);
	size_of("a");
	sees("held-no-more", "a", 6, 0);
}

static unsigned long forgets(void)
{
	return so_far(FUSE_FORGET) + so_far(FUSE_BATCH_FORGET);
}

/* All that the kernel was granted is forgotten in the end, by whomever it was granted. */
static void counts(void)
{
	struct file *a = by_name("a");
	uint64_t granted;
	int64_t sum = 1;
	FILE *f;

	/* Who makes a name is a request each time: else the kernel has it, and needs no grant. */
	size_of("a");
	for (int i = 0; i < 150; i++)
		expect(mkdir("a", 0700) && errno == EEXIST, "there", "errno %d", errno);
	granted = extfuse_granted(x, (uint32_t)a->nodeid, a->nodeid);
	expect(granted > 100, "granted", "%llu times", (unsigned long long)granted);
	for (int i = 0; i < 500 && sum; i++) {
		f = fopen("/proc/sys/vm/drop_caches", "w");
		if (f) {
			fputs("2", f);
			fclose(f);
		}
		usleep(10000);
		pthread_mutex_lock(&lock);
		sum = a->nlookup + (int64_t)extfuse_granted(x, (uint32_t)a->nodeid, a->nodeid);
		pthread_mutex_unlock(&lock);
	}
	expect(!sum && forgets(), "forgotten", "%lld are left", (long long)sum);
	expect(extfuse_forget(x, (uint32_t)a->nodeid, a->nodeid, a->nlookup) == 1, "dead", "it lives");
}

int main(int argc, char **argv)
{
	static struct extfuse_figures f = { .struct_size = sizeof(f) };

	if (argc < 2)
		return 2;
	prefix = "hook";
	add("a", 10, 'a');
	add("d", 4096, 'd');
	add("e", 10, 'e');
	if (start(argv[1], EXTFUSE_ENGINE_HOOK))
		return 1;
	expect(extfuse_engine(x) == EXTFUSE_ENGINE_HOOK && strstr(log_text, "engine hook"), "engine", "log: %s", log_text);
	settle("a");
	attributes();
	own_results();
	xattrs();
	told_all();
	told_deleted();
	told_directory();
	counted();
	directory();
	reads(argv[1]);
	silent_server();
	expect(!extfuse_figures(x, &f) && f.opcode[FUSE_LOOKUP].hits > 200 && f.opcode[FUSE_SETATTR].mutations == 2 &&
	       f.opcode[FUSE_READ].passthru > 0, "figures", "%llu hits, %llu mutations, %llu passed",
	       (unsigned long long)f.opcode[FUSE_LOOKUP].hits, (unsigned long long)f.opcode[FUSE_SETATTR].mutations,
	       (unsigned long long)f.opcode[FUSE_READ].passthru);
	none_refused();
	successor();
	counts();
	stop(argv[1]);
	return failed;
}
