/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/mount/cachefs.h"

#include <stdarg.h>
#include <sys/mount.h>

#define NAMES 64

struct extfuse *x;
int fuse_fd = -1;
uint64_t init_flags;
char log_text[512];
int failed;
const char *prefix = "native";
const char *mount_options = "allow_other,default_permissions";
bool (*serve_first)(const struct fuse_in_header *head, const char *rest);
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct file files[NAMES];
static unsigned asked[OPS];
static uint64_t next_nodeid = 2;

/* ---- the files ---- */

struct file *by_name(const char *name)
{
	for (int i = 0; i < NAMES; i++)
		if (files[i].name[0] && !strcmp(files[i].name, name))
			return &files[i];
	return NULL;
}

struct file *by_nodeid(uint64_t nodeid)
{
	for (int i = 0; i < NAMES; i++)
		if (files[i].nodeid == nodeid)
			return &files[i];
	return NULL;
}

struct file *add(const char *name, uint64_t size, char letter)
{
	for (int i = 0; i < NAMES; i++) {
		/* one that the kernel may still know is not used again */
		if (files[i].nodeid)
			continue;
		files[i] = (struct file){
			.nodeid = next_nodeid++, .size = size, .letter = letter, .mode = S_IFREG | 0666
		};
		snprintf(files[i].name, sizeof(files[i].name), "%s", name);
		return &files[i];
	}
	abort();
}

static struct fuse_attr attr_of(const struct file *f)
{
	return (struct fuse_attr){ .ino = f ? f->nodeid : 1,
				   .size = f ? f->size : 0,
				   .blksize = 4096,
				   .nlink = 1,
				   .mode = f ? f->mode : S_IFDIR | 0777 };
}

/* ---- the server ---- */

struct request {
	struct fuse_in_header head;
	char rest[FUSE_MIN_READ_BUFFER + 65536];
};

int reply(uint64_t unique, int error, const void *data, size_t size)
{
	static struct {
		struct fuse_out_header head;
		char data[65536];
	} out;

	out.head = (struct fuse_out_header){ .unique = unique,
					     .error = error,
					     .len = (uint32_t)(sizeof(out.head) + size) };
	if (size)
		memcpy(out.data, data, size);
	if (write(fuse_fd, &out, out.head.len) >= 0)
		return 0;
	if (errno != ENOENT)
		perror("reply");
	return -errno;
}

static void do_init(const struct request *r)
{
	const struct fuse_init_in *in = (const struct fuse_init_in *)r->rest;
	struct extfuse_protocol protocol = { .struct_size = sizeof(protocol), .minor = in->minor };
	struct fuse_init_out out = { .major = 7, .minor = 38, .max_readahead = 65536, .max_write = 65536,
				     .max_background = 16, .congestion_threshold = 12, .time_gran = 1 };
	uint32_t depth = 1;
	int err;

	init_flags = in->flags | (in->flags & FUSE_INIT_EXT ? (uint64_t)in->flags2 << 32 : 0);
	protocol.flags = init_flags;
	err = extfuse_attach(x, fuse_fd, &protocol);
	if (err) {
		printf("FAIL %s/attach: %s\n", prefix, strerror(-err));
		exit(1);
	}
	out.flags = in->flags & FUSE_INIT_EXT;
	if (init_flags & FUSE_PASSTHROUGH) {
		out.flags2 = (uint32_t)(FUSE_PASSTHROUGH >> 32);
		memcpy((char *)&out + FE_INIT_OUT_MAX_STACK_DEPTH, &depth, sizeof(depth));
	}
	reply(r->head.unique, 0, &out, sizeof(out));
}

static void grant(const struct request *r, struct file *f, const char *name, uint64_t stamp,
		  uint32_t flags, const struct fuse_open_out *open)
{
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = { .entry = { .nodeid = f->nodeid, .attr = attr_of(f) } };

	extfuse_node_new(x, (uint32_t)f->nodeid, f->nodeid);
	if (f->late)
		extfuse_invalidate_node(x, f->nodeid, 0);
	extfuse_put_entry(x, stamp, r->head.nodeid, name, (uint32_t)f->nodeid, &out.entry,
			  flags | f->flags);
	if (open)
		out.open = *open;
	f->nlookup++;
	if (reply(r->head.unique, 0, &out, sizeof(out.entry) + (open ? sizeof(*open) : 0)) == -ENOENT)
		f->nlookup--;
}

static void do_lookup(const struct request *r)
{
	uint64_t stamp = extfuse_stamp(x);
	struct fuse_entry_out out;
	struct file *f = by_name(r->rest);

	if (f) {
		grant(r, f, r->rest, stamp, 0, NULL);
		return;
	}
	extfuse_put_negative(x, stamp, r->head.nodeid, r->rest, &out, 0);
	reply(r->head.unique, out.entry_valid ? 0 : -ENOENT, &out, out.entry_valid ? sizeof(out) : 0);
}

static void do_create(const struct request *r)
{
	const char *name = r->rest + sizeof(struct fuse_create_in);
	uint64_t stamp = extfuse_stamp(x);

	extfuse_put_dir_name(x, stamp, r->head.nodeid, name);
	grant(r, add(name, 0, '0'), name, stamp, EXTFUSE_OWN_NAME, &(struct fuse_open_out){ .fh = 0 });
}

static void do_unlink(const struct request *r)
{
	struct file *f = by_name(r->rest);

	if (f)
		f->name[0] = 0;
	extfuse_put_negative(x, extfuse_stamp(x), r->head.nodeid, r->rest, NULL, EXTFUSE_OWN_NAME);
	reply(r->head.unique, f ? 0 : -ENOENT, NULL, 0);
}

static void do_getattr(const struct request *r)
{
	uint64_t stamp = extfuse_stamp(x);
	struct file *f = by_nodeid(r->head.nodeid);
	struct fuse_attr_out out = { .attr = attr_of(f) };

	extfuse_put_attr(x, stamp, r->head.nodeid, &out, f ? f->flags : 0);
	reply(r->head.unique, 0, &out, sizeof(out));
}

static void do_setattr(const struct request *r)
{
	const struct fuse_setattr_in *in = (const struct fuse_setattr_in *)r->rest;
	uint64_t stamp = extfuse_stamp(x);
	struct file *f = by_nodeid(r->head.nodeid);
	struct fuse_attr_out out;

	if (f && in->valid & FATTR_SIZE)
		f->size = in->size;
	if (f && in->valid & FATTR_MODE)
		f->mode = (f->mode & S_IFMT) | (in->mode & 07777);
	out = (struct fuse_attr_out){ .attr = attr_of(f) };
	extfuse_put_attr(x, stamp, r->head.nodeid, &out, EXTFUSE_OWN_NODE | (f ? f->flags : 0));
	reply(r->head.unique, 0, &out, sizeof(out));
}

static void do_open(const struct request *r)
{
	struct file *f = by_nodeid(r->head.nodeid);
	struct fuse_open_out out = { .open_flags = FOPEN_KEEP_CACHE };
	int32_t id = f ? f->backing_id : 0;

	if (id) {
		out.open_flags = FOPEN_PASSTHROUGH;
		memcpy((char *)&out + FE_OPEN_OUT_BACKING_ID, &id, sizeof(id));
	}
	reply(r->head.unique, 0, &out, sizeof(out));
}

static void do_read(const struct request *r)
{
	const struct fuse_read_in *in = (const struct fuse_read_in *)r->rest;
	struct file *f = by_nodeid(r->head.nodeid);
	static char data[65536];
	size_t size = 0;

	if (f && in->offset < f->size)
		size = f->size - in->offset < in->size ? f->size - in->offset : in->size;
	memset(data, f ? f->letter : 0, size);
	reply(r->head.unique, 0, data, size);
}

static void do_getxattr(const struct request *r)
{
	const struct fuse_getxattr_in *in = (const struct fuse_getxattr_in *)r->rest;
	const char *name = r->rest + sizeof(*in);
	struct file *f = by_nodeid(r->head.nodeid);
	ssize_t size = f && !strcmp(name, "user.note") ? (ssize_t)strlen(f->note) : -ENODATA;
	struct fuse_getxattr_out out = { .size = (uint32_t)size };

	extfuse_put_xattr(x, extfuse_stamp(x), r->head.nodeid, name, f ? f->note : NULL, size, 0);
	if (size < 0)
		reply(r->head.unique, (int)size, NULL, 0);
	else if (!in->size)
		reply(r->head.unique, 0, &out, sizeof(out));
	else
		reply(r->head.unique, 0, f->note, (size_t)size);
}

static void do_forget(uint64_t nodeid, uint64_t count)
{
	struct file *f = by_nodeid(nodeid);

	if (!f)
		return;
	f->nlookup -= (int64_t)count;
	if (extfuse_forget(x, (uint32_t)nodeid, nodeid, f->nlookup) == 1 && !f->name[0])
		f->nodeid = 0;
}

static void do_forgets(const struct request *r)
{
	const struct fuse_batch_forget_in *in = (const struct fuse_batch_forget_in *)r->rest;
	const struct fuse_forget_one *one = (const struct fuse_forget_one *)(in + 1);

	if (r->head.opcode == FUSE_FORGET)
		do_forget(r->head.nodeid, ((const struct fuse_forget_in *)r->rest)->nlookup);
	else
		for (uint32_t i = 0; i < in->count; i++)
			do_forget(one[i].nodeid, one[i].nlookup);
}

static void serve(const struct request *r)
{
	asked[r->head.opcode % OPS]++;
	if (serve_first && serve_first(&r->head, r->rest))
		return;
	switch (r->head.opcode) {
	case FUSE_INIT:
		do_init(r);
		break;
	case FUSE_LOOKUP:
		do_lookup(r);
		break;
	case FUSE_CREATE:
		do_create(r);
		break;
	case FUSE_UNLINK:
		do_unlink(r);
		break;
	case FUSE_GETATTR:
		do_getattr(r);
		break;
	case FUSE_SETATTR:
		do_setattr(r);
		break;
	case FUSE_OPEN:
		do_open(r);
		break;
	case FUSE_READ:
		do_read(r);
		break;
	case FUSE_GETXATTR:
		do_getxattr(r);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		do_forgets(r);
		break;
	case FUSE_RELEASE:
		reply(r->head.unique, 0, NULL, 0);
		break;
	default:
		reply(r->head.unique, -ENOSYS, NULL, 0);
	}
}

static void *server(void *arg)
{
	static struct request r;

	for (;;) {
		ssize_t n = read(fuse_fd, &r, sizeof(r));

		if (n < 0 && errno == ENODEV)
			return arg;
		if (n < (ssize_t)sizeof(r.head))
			continue;
		pthread_mutex_lock(&lock);
		serve(&r);
		pthread_mutex_unlock(&lock);
	}
}

static void keep_log(void *arg, int level, const char *line)
{
	(void)level;
	snprintf(arg, sizeof(log_text), "%s", line);
}

int start(const char *directory, enum extfuse_engine engine)
{
	struct extfuse_options o = { .struct_size = sizeof(o),
				     .engine = engine,
				     .entry_ms = HOUR,
				     .attr_ms = HOUR,
				     .negative_ms = HOUR,
				     .memory = 4 << 20,
				     .log = keep_log,
				     .arg = log_text };
	char text[160], mnt[512];
	pthread_t thread;
	int err = extfuse_open(&o, &x);

	setvbuf(stdout, NULL, _IOLBF, 0);
	fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(mnt, sizeof(mnt), "%s/mnt", directory);
	snprintf(text, sizeof(text),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0,%s", fuse_fd, mount_options);
	if (err || mount("cachefs", mnt, "fuse.cachefs", MS_NOSUID | MS_NODEV, text)) {
		printf("FAIL %s/mount: %s %s\n", prefix, strerror(err ? -err : errno), log_text);
		return 1;
	}
	pthread_create(&thread, NULL, server, NULL);
	pthread_detach(thread);
	err = chdir(mnt);
	/* What the server has set meanwhile is seen from here on. */
	pthread_mutex_lock(&lock);
	pthread_mutex_unlock(&lock);
	return err;
}

void stop(const char *directory)
{
	char mnt[512];

	snprintf(mnt, sizeof(mnt), "%s/mnt", directory);
	if (chdir("/") || umount2(mnt, MNT_DETACH))
		perror(mnt);
}

/* ---- what is asserted ---- */

void expect(int good, const char *name, const char *fmt, ...)
{
	va_list ap;

	if (good) {
		printf("ok %s/%s\n", prefix, name);
		return;
	}
	failed = 1;
	printf("FAIL %s/%s: ", prefix, name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

unsigned so_far(int opcode)
{
	unsigned n;

	pthread_mutex_lock(&lock);
	n = asked[opcode];
	pthread_mutex_unlock(&lock);
	return n;
}

unsigned upcalls(void)
{
	return so_far(FUSE_LOOKUP) + so_far(FUSE_GETATTR);
}

long long size_of(const char *name)
{
	struct stat st;

	return stat(name, &st) ? -errno : (long long)st.st_size;
}

void sees(const char *name, const char *file, long long size, unsigned calls)
{
	unsigned before = upcalls();
	long long got = size_of(file);
	unsigned took = upcalls() - before;

	expect(got == size && took == calls, name, "expected %lld after %u upcalls, got %lld after %u",
	       size, calls, got, took);
}

char first_of(int fd)
{
	char c = 0;

	return pread(fd, &c, 1, 0) == 1 ? c : '-';
}

void change(struct file *f, uint64_t size, char letter)
{
	pthread_mutex_lock(&lock);
	f->size = size;
	f->letter = letter;
	pthread_mutex_unlock(&lock);
}

void settle(const char *name)
{
	for (int i = 0; i < 1000; i++) {
		unsigned before = upcalls();

		size_of(name);
		size_of(name);
		if (upcalls() == before)
			return;
		usleep(10000);
	}
	expect(0, "settle", "it asks always");
}

void none_refused(void)
{
	static struct extfuse_figures f = { .struct_size = sizeof(f) };

	extfuse_figures(x, &f);
	for (int i = 0; i < EXTFUSE_OPCODES; i++)
		if (f.opcode[i].refused)
			expect(0, "none-refused", "%llu answers of opcode %d", (unsigned long long)f.opcode[i].refused, i);
}
