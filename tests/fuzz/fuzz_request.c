/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests of any shape, given to dispatch() with the passthrough backend on a scratch directory.
 *
 * An input is one byte of options (OPT_*) and then requests, each one of
 *	u8 opcode, u8 node, u8 handle, u8 flags (REQ_*), u16 size (little endian), size bytes of payload.
 * The harness writes the header. As no input could guess them, nodeids and handles are indices into
 * what earlier replies returned; they are written into header and payload, unless REQ_RAW is set.
 *
 * After each input the directory next to the source must be as it was, every descriptor that was opened
 * must be closed, and all threads gone. Everything runs on one thread with its own mount namespace, in
 * which all but the scratch file system is read-only. It has no devices: a request to make one and to
 * open it, which no kernel sends, leads nowhere. For the same reason FIFOs are opened with O_NONBLOCK.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <mntent.h>
#include <sanitizer/asan_interface.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"
#include "base/log.h"
#include "host/internal.h"

#define OPT_LOCKS	1u	/* locks=source */
#define OPT_NOHANDLES	2u
#define OPT_WRITEBACK	4u
#define OPT_NEGATIVE	8u	/* absent names are remembered */
#define OPT_SETXATTR	16u	/* FUSE_SETXATTR_EXT was agreed on */
#define OPT_SUBMOUNTS	32u
#define OPT_NO_INIT	64u	/* no INIT was answered yet */

#define REQ_RAW		1u	/* nodeids and handles of the payload stay as they are */
#define REQ_EXT		2u	/* the first byte of the payload is total_extlen */
#define REQ_REFUSED	4u	/* the reply can not be written */
#define REQ_USER	8u	/* from uid 1000, else 0 */
#define REQ_NOBODY	16u	/* from the overflow id */
#define REQ_OTHER	32u	/* another uid yet: -1 */
#define REQ_BAD_NODE	64u	/* the nodeid is made of the node byte itself */
#define REQ_LENGTH	128u	/* a header with a wrong length */

#define MAX_IDS		64
#define MAX_REQUESTS	100

struct ids {
	uint64_t id[MAX_IDS];
	unsigned count;
};

static char scratch[256];
static struct worker worker;
static int replies, broken_pipe;
static struct ids nodes, files, dirs;
static struct statx canary_before, outside_before;

static void die(const char *what)
{
	fprintf(stderr, "fuzz_request: %s: %s\n", what, strerror(errno));
	abort();
}

#define MUST(e) ((e) < 0 ? die(#e) : (void)0)

/* What the fuzzer works on, made anew for each input. */
static void make_tree(void)
{
	char path[300];
	int fd;

	MUST(mount("fuzz", scratch, "tmpfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, "size=16m,nr_inodes=2000,mode=755"));
	MUST(chdir(scratch));
	MUST(mkdir("outside", 0755));
	MUST(fd = open("outside/canary", O_CREAT | O_WRONLY, 0644));
	MUST(write(fd, "untouched", 9));
	close(fd);
	MUST(statx(AT_FDCWD, "outside/canary", 0, STATX_BASIC_STATS, &canary_before));
	MUST(mkdir("source", 0777));
	MUST(mkdir("source/d", 0755));
	MUST(mkdir("source/d/e", 02777));
	MUST(chmod("source/d/e", 02777));
	MUST(fd = open("source/f", O_CREAT | O_WRONLY, 0644));
	MUST(write(fd, "contents of f", 13));
	close(fd);
	MUST(link("source/f", "source/d/hard"));
	MUST(symlink("../outside/canary", "source/l"));
	snprintf(path, sizeof(path), "%s/outside", scratch);
	MUST(symlink(path, "source/d/abs"));
	MUST(mkfifo("source/p", 0666));
	MUST(fd = open("source/d/s", O_CREAT | O_WRONLY, 06755));
	MUST(fchmod(fd, 06755));
	close(fd);
	MUST(statx(AT_FDCWD, "outside", 0, STATX_BASIC_STATS, &outside_before));
}

static void must_be_same(const char *path, const struct statx *before)
{
	struct statx now;

	if (statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &now) || now.stx_ino != before->stx_ino ||
	    now.stx_mode != before->stx_mode || now.stx_size != before->stx_size || now.stx_uid != before->stx_uid ||
	    now.stx_gid != before->stx_gid || now.stx_nlink != before->stx_nlink ||
	    memcmp(&now.stx_mtime, &before->stx_mtime, sizeof(now.stx_mtime)) ||
	    memcmp(&now.stx_ctime, &before->stx_ctime, sizeof(now.stx_ctime))) {
		fprintf(stderr, "fuzz_request: %s, outside of the source, was changed\n", path);
		abort();
	}
}

static void drop_tree(void)
{
	char contents[16] = "";
	int fd;

	must_be_same("outside/canary", &canary_before);
	must_be_same("outside", &outside_before);
	MUST(fd = open("outside/canary", O_RDONLY));
	MUST(read(fd, contents, sizeof(contents) - 1));
	close(fd);
	if (strcmp(contents, "untouched")) {
		fprintf(stderr, "fuzz_request: a file outside of the source was written\n");
		abort();
	}
	MUST(chdir("/"));
	MUST(umount2(scratch, MNT_DETACH));
}

static unsigned count_entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	if (!d)
		die(path);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void remember(struct ids *ids, uint64_t id)
{
	if (id && ids->count < MAX_IDS)
		ids->id[ids->count++] = id;
}

static uint64_t pick(const struct ids *ids, unsigned at)
{
	return ids->count ? ids->id[at % ids->count] : 0;
}

/* Where a payload has the handle of its file, and a second node or handle. */
static void patch_payload(uint32_t opcode, unsigned char *payload, size_t size, unsigned node, unsigned handle)
{
	bool on_dir = opcode == FUSE_READDIR || opcode == FUSE_READDIRPLUS || opcode == FUSE_RELEASEDIR ||
		      opcode == FUSE_FSYNCDIR;
	uint64_t fh = pick(on_dir || handle >= 128 ? &dirs : &files, handle);
	size_t at = SIZE_MAX;

	switch (opcode) {
	case FUSE_GETATTR:
	case FUSE_STATX:
	case FUSE_SETATTR:
		at = 8;
		break;
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_RELEASE:
	case FUSE_FSYNC:
	case FUSE_FLUSH:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
	case FUSE_RELEASEDIR:
	case FUSE_FSYNCDIR:
	case FUSE_GETLK:
	case FUSE_SETLK:
	case FUSE_SETLKW:
	case FUSE_IOCTL:
	case FUSE_POLL:
	case FUSE_FALLOCATE:
	case FUSE_LSEEK:
	case FUSE_COPY_FILE_RANGE:
		at = 0;
		break;
	case FUSE_LINK:
	case FUSE_RENAME:
	case FUSE_RENAME2:
		at = 0;
		fh = pick(&nodes, handle);
		break;
	case FUSE_OPEN:
		if (size >= 4)
			payload[1] |= O_NONBLOCK >> 8;
		break;
	}
	if (at != SIZE_MAX && size >= at + 8)
		memcpy(payload + at, &fh, 8);
	if (opcode == FUSE_COPY_FILE_RANGE && size >= 32) {
		uint64_t out = pick(&nodes, node + payload[16]);

		fh = pick(&files, handle + payload[24]);
		memcpy(payload + 16, &out, 8);
		memcpy(payload + 24, &fh, 8);
	}
}

static void remember_entries(const unsigned char *body, size_t size)
{
	for (size_t at = 0; at + sizeof(struct fuse_direntplus) <= size; ) {
		const struct fuse_direntplus *d = (const void *)(body + at);

		remember(&nodes, d->entry_out.nodeid);
		at += sizeof(d->entry_out) + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + d->dirent.namelen);
	}
}

static void remember_reply(uint32_t opcode, const struct fuse_out_header *head, off_t at)
{
	static unsigned char body[1 << 17];
	size_t size = head->len - sizeof(*head) < sizeof(body) ? head->len - sizeof(*head) : sizeof(body);

	if (head->error || pread(replies, body, size, at + (off_t)sizeof(*head)) != (ssize_t)size)
		return;
	switch (opcode) {
	case FUSE_LOOKUP:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_SYMLINK:
	case FUSE_LINK:
	case FUSE_CREATE:
	case FUSE_TMPFILE:
		if (size >= sizeof(struct fuse_entry_out))
			remember(&nodes, ((struct fuse_entry_out *)body)->nodeid);
		if (size >= sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out))
			remember(&files, ((struct fuse_open_out *)(body + sizeof(struct fuse_entry_out)))->fh);
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		if (size >= sizeof(struct fuse_open_out))
			remember(opcode == FUSE_OPEN ? &files : &dirs, ((struct fuse_open_out *)body)->fh);
		break;
	case FUSE_READDIRPLUS:
		remember_entries(body, size);
		break;
	}
}

/*
 * Each reply is one whole message with the length that it says. Besides the one to this request there
 * may be some to locks that were waited for.
 */
static void look_at_replies(uint32_t opcode, uint64_t unique)
{
	off_t end = lseek(replies, 0, SEEK_END);
	unsigned own = 0;

	for (off_t at = 0; at < end; ) {
		struct fuse_out_header head;

		if (pread(replies, &head, sizeof(head), at) != sizeof(head) || head.len < sizeof(head) ||
		    head.len > end - at || head.error > 0 || head.error < -4095 ||
		    (head.error && head.len != sizeof(head))) {
			fprintf(stderr, "fuzz_request: a malformed reply: %u bytes, error %d\n", head.len, head.error);
			abort();
		}
		if (head.unique == unique && !own++)
			remember_reply(opcode, &head, at);
		at += head.len;
	}
	if (own > 1) {
		fprintf(stderr, "fuzz_request: opcode %u was answered %u times\n", opcode, own);
		abort();
	}
}

/* Returns how many bytes of the input it took, 0 at the end. */
static size_t one_request(const unsigned char *data, size_t left, uint64_t unique)
{
	struct fuse_in_header *in = (void *)(unsigned char *)worker.in;
	unsigned char *payload = (unsigned char *)worker.in + sizeof(*in);
	unsigned flags;
	size_t size, all;

	if (left < 6)
		return 0;
	flags = data[3];
	size = data[4] | (size_t)data[5] << 8;
	if (size > left - 6)
		size = left - 6;
	all = sizeof(*in) + size;
	__asan_unpoison_memory_region((unsigned char *)worker.in, worker.in_size);
	*in = (struct fuse_in_header){
		.len = (uint32_t)all + (flags & REQ_LENGTH ? 8 : 0),
		.opcode = data[0],
		.unique = unique,
		.nodeid = flags & REQ_BAD_NODE ? (uint64_t)data[1] << (data[2] % 64) : pick(&nodes, data[1]),
		.uid = flags & REQ_OTHER ? UINT32_MAX : flags & REQ_NOBODY ? 65534 : flags & REQ_USER ? 1000 : 0,
		.gid = flags & REQ_USER ? 1000 : 0,
		.pid = (uint32_t)getpid(),
		.total_extlen = flags & REQ_EXT && size ? data[6] : 0,
	};
	memcpy(payload, data + 6, size);
	if (!(flags & REQ_RAW) || data[0] == FUSE_OPEN)
		patch_payload(data[0], payload, size, data[1], data[2]);
	if (data[0] == FUSE_INTERRUPT && size >= 8 && !(flags & REQ_RAW))
		memcpy(payload, &(uint64_t){ data[1] * 2 + 2 }, 8);
	__asan_poison_memory_region((unsigned char *)worker.in + all, worker.in_size - all);
	worker.fd = flags & REQ_REFUSED ? broken_pipe : replies;
	MUST(ftruncate(replies, 0));
	fr_slot_filled(worker.slot, worker.fd, all);
	dispatch(&worker, all, false);
	look_at_replies(data[0], unique);
	return 6 + size;
}

static void one_input(const unsigned char *data, size_t size)
{
	unsigned options = size ? data[0] : 0, requests = 0;
	char source[300], backend_options[64];
	struct worker *workers[] = { &worker };
	struct fe_host_options opt = {
		.struct_size = sizeof(opt),
		.source = "passthrough:source",
		.mountpoint = "/",
		.argument = source,
		.backend_options = backend_options,
		.entry_valid = 1000000000,
		.attr_valid = 1000000000,
		.negative_valid = options & OPT_NEGATIVE ? 1000000000 : 0,
		.writeback = !!(options & OPT_WRITEBACK),
	};
	struct fe_host *h = NULL;
	unsigned unfinished;

	snprintf(source, sizeof(source), "%s/source", scratch);
	snprintf(backend_options, sizeof(backend_options), "%s%s%s", options & OPT_LOCKS ? "locks=source," : "",
		 options & OPT_NOHANDLES ? "nohandles," : "", options & OPT_SUBMOUNTS ? "submounts," : "");
	MUST(fe_backend_load("passthrough", &opt.backend));
	MUST(fe_host_new(&opt, &h));
	worker.host = h;
	MUST(serve_begin(h, &unfinished));
	MUST(worker_take_slot(&worker));
	h->pool.workers = workers;
	h->pool.count = 1;
	h->shared->passthrough = false;
	if (!(options & OPT_NO_INIT))
		h->shared->proto_minor = 41;
	h->shared->flags = options & OPT_SETXATTR ? FUSE_SETXATTR_EXT : 0;
	nodes = (struct ids){ .id = { ROOT_ID }, .count = 1 };
	files.count = dirs.count = 0;

	for (size_t at = 1, n; at < size && requests < MAX_REQUESTS; at += n) {
		n = one_request(data + at, size - at, 2 * ++requests);
		if (!n)
			break;
	}
	h->pool.workers = NULL;
	h->pool.count = 0;
	/* the harness needs them for itself */
	creds_server(h->priv);
	umask(0);
	fr_slot_leave(worker.slot);
	serve_end(h);
	fe_host_free(h);
}

static void guarded_input(const unsigned char *data, size_t size)
{
	unsigned fds, tasks, now;

	make_tree();
	fds = count_entries("/proc/self/fd");
	tasks = count_entries("/proc/self/task");
	one_input(data, size);
	now = count_entries("/proc/self/fd");
	if (now != fds) {
		fprintf(stderr, "fuzz_request: %u descriptors were open before, %u after\n", fds, now);
		abort();
	}
	/* a thread that is done may still be on its way out; one that stays is found by -timeout */
	while (count_entries("/proc/self/task") > tasks)
		sched_yield();
	drop_tree();
}

/* The thread that does it: credentials, umask and mounts are its own. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static const unsigned char *input;
static size_t input_size;

/* A server goes on for as long as a copy of its mount does. */
static void leave_others(void)
{
	FILE *mounts = setmntent("/proc/thread-self/mounts", "r");
	struct mntent *m;

	if (!mounts)
		die("/proc/thread-self/mounts");
	while ((m = getmntent(mounts)))
		if (!strncmp(m->mnt_type, "fuse", 4))
			umount2(m->mnt_dir, MNT_DETACH);
	endmntent(mounts);
}

static void own_namespace(void)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY, .propagation = MS_PRIVATE };

	if (unshare(CLONE_FS | CLONE_NEWNS))
		die("a mount namespace of its own (it has to be root)");
	MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	leave_others();
	MUST(syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof(attr)));
}

static void *thread_main(void *arg)
{
	int p[2];

	(void)arg;
	own_namespace();
	umask(0);
	MUST(replies = memfd_create("replies", MFD_CLOEXEC));
	MUST(fcntl(replies, F_SETFL, O_APPEND));
	MUST(pipe2(p, O_CLOEXEC));
	close(p[0]);
	broken_pipe = p[1];
	pthread_mutex_lock(&lock);
	for (;;) {
		while (!input)
			pthread_cond_wait(&changed, &lock);
		guarded_input(input, input_size);
		input = NULL;
		pthread_cond_broadcast(&changed);
	}
	return NULL;
}

static void remove_scratch(void)
{
	rmdir(scratch);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *tmp = getenv("TMPDIR");
	pthread_t t;

	(void)argc;
	(void)argv;
	signal(SIGPIPE, SIG_IGN);
	fe_log_init("fuzz", getenv("FE_FUZZ_LOG") ? LOG_DEBUG : LOG_EMERG - 1);
	snprintf(scratch, sizeof(scratch), "%s/fe-fuzz.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(scratch))
		die(scratch);
	atexit(remove_scratch);
	if (pthread_create(&t, NULL, thread_main, NULL))
		die("a thread");
	return 0;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	pthread_mutex_lock(&lock);
	input = data;
	input_size = size;
	pthread_cond_broadcast(&changed);
	while (input)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return 0;
}
