/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/vm/rig.h"

#include <stdarg.h>
#include <sys/mman.h>
#include <time.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

int failures;

void result(bool good, const char *name, const char *format, ...)
{
	va_list list;

	if (good) {
		printf("ok module/%s\n", name);
	} else {
		failures++;
		printf("FAIL module/%s: ", name);
		va_start(list, format);
		vprintf(format, list);
		va_end(list);
		printf("\n");
	}
	fflush(stdout);
}

void fatal(const char *format, ...)
{
	va_list list;

	printf("FAIL module/stopped: ");
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	printf(": %s\n", strerror(errno));
	exit(1);
}

/* ---- set up ---- */

static int quiet(enum libbpf_print_level level, const char *format, va_list list)
{
	if (level == LIBBPF_WARN)
		vfprintf(stderr, format, list);
	return 0;
}

static void load(struct rig *r)
{
	char path[512];

	libbpf_set_print(quiet);
	snprintf(path, sizeof(path), "%s/handlers.bpf.o", getenv("VM_PROGRAMS") ?: ".");
	r->object = bpf_object__open_file(path, NULL);
	if (!r->object || bpf_object__load(r->object))
		fatal("%s can not be loaded", path);
	r->names = bpf_object__find_map_fd_by_name(r->object, "names");
	r->attrs = bpf_object__find_map_fd_by_name(r->object, "attrs");
	r->xattrs = bpf_object__find_map_fd_by_name(r->object, "xattrs");
	r->script = bpf_object__find_map_fd_by_name(r->object, "script");
}

int rig_attach(struct rig *r, uint32_t word_bits, uint32_t nodes)
{
	struct extfuse_attach arg = { .fuse_fd = r->m->fuse_fd, .word_bits = word_bits, .nodes = nodes };

	return ioctl(r->dev, EXTFUSE_IOC_ATTACH, &arg) ? errno : 0;
}

int rig_program(struct rig *r, uint32_t opcode, const char *program, uint32_t flags)
{
	struct extfuse_program arg = { .opcode = opcode, .prog_fd = -1, .flags = flags };

	if (program) {
		struct bpf_program *p = bpf_object__find_program_by_name(r->object, program);

		if (!p)
			fatal("no program %s", program);
		arg.prog_fd = bpf_program__fd(p);
	}
	return ioctl(r->dev, EXTFUSE_IOC_PROGRAM, &arg) ? errno : 0;
}

int rig_backing(struct rig *r, uint64_t nodeid, int fd)
{
	struct extfuse_backing arg = { .nodeid = nodeid, .fd = fd };

	return ioctl(r->dev, EXTFUSE_IOC_BACKING, &arg) ? errno : 0;
}

static void map_area(struct rig *r)
{
	struct extfuse_area *first = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, r->dev, 0);
	size_t size;

	if (first == MAP_FAILED)
		fatal("mmap of the area");
	size = first->size;
	munmap(first, 4096);
	r->area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, r->dev, 0);
	if (r->area == MAP_FAILED)
		fatal("mmap of %zu bytes", size);
	r->words = (void *)((char *)r->area + r->area->words_offset);
	r->nodes = (void *)((char *)r->area + r->area->nodes_offset);
}

void rig_settle(struct rig *r)
{
	for (int i = 0; i < 1000; i++) {
		if (!(rig_all(r) & EXTFUSE_WORD_BUSY))
			return;
		usleep(10000);
	}
	fatal("the connection does not settle");
}

struct rig *rig_open(const char *name)
{
	struct rig *r = calloc(1, sizeof(*r));
	char path[128];

	snprintf(path, sizeof(path), "/tmp/%s", name);
	r->m = fs_mount(path);
	r->fs = r->m->fs;
	r->dev = open(EXTFUSE_DEVICE, O_RDWR | O_CLOEXEC);
	if (r->dev < 0)
		fatal(EXTFUSE_DEVICE);
	load(r);
	return r;
}

void rig_start(struct rig *r)
{
	errno = rig_attach(r, 20, NODES);
	if (errno)
		fatal("attach");
	map_area(r);
	if (rig_program(r, FUSE_LOOKUP, "lookup", EXTFUSE_PROGRAM_MARKED) ||
	    rig_program(r, FUSE_GETATTR, "getattr", EXTFUSE_PROGRAM_MARKED) ||
	    rig_program(r, FUSE_GETXATTR, "getxattr", EXTFUSE_PROGRAM_MARKED))
		fatal("programs");
	rig_settle(r);
}

void rig_early(struct rig *r)
{
	if (rig_program(r, FUSE_LOOKUP, "lookup", EXTFUSE_PROGRAM_MARKED | EXTFUSE_PROGRAM_EARLY) ||
	    rig_program(r, FUSE_GETATTR, "getattr", EXTFUSE_PROGRAM_MARKED | EXTFUSE_PROGRAM_EARLY))
		fatal("programs");
}

struct rig *rig_new(const char *name)
{
	struct rig *r = rig_open(name);

	rig_start(r);
	return r;
}

void rig_free(struct rig *r)
{
	fs_umount(r->m);
	munmap(r->area, r->area->size);
	close(r->dev);
	bpf_object__close(r->object);
	free(r);
}

struct extfuse_opcode_stats rig_stats(struct rig *r, uint32_t opcode)
{
	static struct extfuse_stats stats;

	if (ioctl(r->dev, EXTFUSE_IOC_STATS, &stats))
		fatal("stats");
	return stats.opcode[opcode];
}

/* ---- words ---- */

static uint64_t state(struct rig *r, uint32_t index)
{
	return __atomic_load_n(&r->words[index].state, __ATOMIC_SEQ_CST);
}

uint64_t rig_all(struct rig *r)
{
	return state(r, 0);
}

struct extfuse_word *rig_node_word(struct rig *r, uint64_t nodeid)
{
	return &r->words[extfuse_word_node(r->area->seed, r->area->word_bits, nodeid)];
}

uint64_t rig_stamp(struct rig *r)
{
	return __atomic_load_n(&r->area->clock, __ATOMIC_SEQ_CST);
}

void rig_bump(struct rig *r, struct extfuse_word *word)
{
	uint64_t now = __atomic_add_fetch(&r->area->clock, 1, __ATOMIC_SEQ_CST);

	word->prev = word->state >> EXTFUSE_WORD_TIME;
	word->state = now << EXTFUSE_WORD_TIME | (word->state & EXTFUSE_WORD_BUSY);
}

uint64_t rig_node_state(struct rig *r, uint64_t nodeid)
{
	return __atomic_load_n(&rig_node_word(r, nodeid)->state, __ATOMIC_SEQ_CST);
}

struct extfuse_word *rig_name_word(struct rig *r, uint64_t parent, const char *name)
{
	__u64 steps[NAME_KEY / 8] = { 0 };

	memcpy(steps, name, strlen(name));
	return &r->words[extfuse_word_name(r->area->seed, r->area->word_bits, parent, steps,
		(strlen(name) + 7) / 8)];
}

static void fill_key(struct name_key *key, uint64_t parent, const char *name)
{
	memset(key, 0, sizeof(*key));
	key->parent = parent;
	memcpy(key->name, name, strlen(name));
}

/* ---- values ---- */

struct attr_value rig_attr_value(struct rig *r, uint64_t nodeid)
{
	struct attr_value value = { .stamp = rig_stamp(r) };
	struct fuse_attr_out out = { 0 };

	fs_attr(fs_node(r->fs, nodeid), &out.attr);
	memcpy(value.attr, &out, sizeof(out));
	return value;
}

void rig_put_attr_value(struct rig *r, uint64_t nodeid, const struct attr_value *value)
{
	if (bpf_map_update_elem(r->attrs, &nodeid, value, BPF_ANY))
		fatal("put attributes");
	rig_node_word(r, nodeid)->marked++;
}

void rig_put_attr(struct rig *r, uint64_t nodeid)
{
	struct attr_value value = rig_attr_value(r, nodeid);

	rig_put_attr_value(r, nodeid, &value);
}

void rig_put_name(struct rig *r, uint64_t parent, const char *name)
{
	struct name_value value = { .stamp = rig_stamp(r) };
	struct name_key key;
	uint64_t child = fs_child(r->fs, parent, name);
	struct fuse_entry_out entry = { 0 };

	fill_key(&key, parent, name);
	if (child) {
		struct node *n = fs_node(r->fs, child);

		value.node_stamp = rig_stamp(r);
		value.node_index = n - r->fs->nodes;
		r->nodes[value.node_index].nodeid = child;
		fs_entry(n, &entry);
	}
	memcpy(value.entry, &entry, sizeof(entry));
	if (bpf_map_update_elem(r->names, &key, &value, BPF_ANY))
		fatal("put name");
	rig_name_word(r, parent, name)->marked++;
	r->words[extfuse_word_dir(r->area->seed, r->area->word_bits, parent)].named = 1;
}

void rig_put_xattr(struct rig *r, uint64_t nodeid, const char *name, const char *data, uint32_t size)
{
	struct xattr_value value = { .stamp = rig_stamp(r), .size = size };
	struct name_key key;

	fill_key(&key, nodeid, name);
	if (data)
		memcpy(value.data, data, size);
	if (bpf_map_update_elem(r->xattrs, &key, &value, BPF_ANY))
		fatal("put xattr");
	rig_node_word(r, nodeid)->marked++;
}

/* ---- the tree ---- */

unsigned long rig_asked(struct rig *r, uint32_t opcode)
{
	return atomic_load(&r->fs->asked[opcode]);
}

const char *rig_path(struct rig *r, const char *below)
{
	static char paths[4][512];
	static int turn;
	char *path = paths[turn++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", r->m->path, below);
	return path;
}

int rig_handle(struct rig *r, const char *below)
{
	int fd = open(rig_path(r, below), O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		fatal("open %s", below);
	return fd;
}

uint64_t rig_id(struct rig *r, const char *below)
{
	struct stat st;

	if (lstat(rig_path(r, below), &st))
		fatal("stat %s", below);
	return st.st_ino;
}

void rig_file(struct rig *r, const char *below)
{
	if (mknod(rig_path(r, below), S_IFREG | 0644, 0))
		fatal("mknod %s", below);
}

void rig_dir(struct rig *r, const char *below)
{
	if (mkdir(rig_path(r, below), 0755))
		fatal("mkdir %s", below);
}
