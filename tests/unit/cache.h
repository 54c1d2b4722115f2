/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A context as the hook has it, but for the module: real maps, filled by the library, and the handlers'
 * source built as programs that can be run here. What the module does with words and records is done by
 * the test.
 */
#ifndef FE_TESTS_CACHE_H
#define FE_TESTS_CACHE_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "libextfuse/internal.h"
#include "tests/unit/unit.h"

#define NODES 4096
#define ROOT 1u

static struct extfuse *x;
static struct bpf_object *runnable;
static struct extfuse_node records[NODES];

static inline void quiet(void *arg, int level, const char *line)
{
	if (getenv("FE_UNIT_LOG"))
		fprintf(stderr, "%p %d %s\n", arg, level, line);
}

static inline int silent(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, fmt, ap) : 0;
}

static inline struct extfuse_options options(uint32_t flags)
{
	return (struct extfuse_options){ .struct_size = sizeof(struct extfuse_options),
					 .engine = EXTFUSE_ENGINE_NATIVE,
					 .memory = 2 << 20,
					 .flags = flags,
					 .log = quiet,
					 .entry_ms = 5000,
					 .attr_ms = 7000,
					 .negative_ms = 3000 };
}

static inline void open_context(uint32_t flags)
{
	const struct extfuse_protocol protocol = { .struct_size = sizeof(protocol), .minor = 45 };
	const struct extfuse_options o = options(flags);

	ck_assert_int_eq(extfuse_open(&o, &x), 0);
	ck_assert_int_eq(extfuse_attach(x, open("/dev/null", O_RDWR | O_CLOEXEC), &protocol), 0);
	memset(records, 0, sizeof(records));
	x->nodes = records;
	x->nodes_count = NODES;
}

/* From native to hook. */
static inline void load_maps(void)
{
	ck_assert_msg(!maps_load(x), "%s", x->reason);
	x->engine = EXTFUSE_ENGINE_HOOK;
	libbpf_set_print(silent);
	runnable = bpf_object__open_file("bpf/handlers_run.bpf.o", NULL);
	ck_assert_msg(runnable, "bpf/handlers_run.bpf.o can not be read");
	for (int i = 0; i < MAPS; i++)
		ck_assert_int_eq(
			bpf_map__reuse_fd(bpf_object__find_map_by_name(runnable, map_kinds[i].name),
					  x->maps[i]),
			0);
	ck_assert_int_eq(bpf_object__load(runnable), 0);
}

static inline void close_context(void)
{
	bpf_object__close(runnable);
	runnable = NULL;
	close(x->fuse_fd);
	extfuse_close(x);
}

/* Exit status 77 where BPF can not be used by this user. */
static inline void need_bpf(void)
{
	int fd = bpf_map_create(BPF_MAP_TYPE_LRU_HASH, "try", 8, 8, 64, NULL);

	if (fd >= 0) {
		close(fd);
		return;
	}
	printf("skipped: BPF maps can not be made here: %s\n", strerror(-fd));
	exit(77);
}

/* ---- requests ---- */

static inline struct extfuse_request request(uint32_t opcode, uint64_t nodeid, const char *name)
{
	struct extfuse_request r;

	/* what a request does not set is what the one before has left */
	memset(&r, 0x5a, sizeof(r));
	r.opcode = opcode;
	r.flags = EXTFUSE_REQ_ARGVAR | EXTFUSE_REQ_IDS;
	r.nodeid = nodeid;
	r.now = expiry(0);
	r.uid = 1000;
	r.gid = 100;
	r.in_size = 0;
	r.out_max = sizeof(r.out);
	r.name_len = name ? (uint32_t)strlen(name) : 0;
	if (name) {
		memset(r.name, 0, (r.name_len + 8) / 8 * 8);
		memcpy(r.name, name, r.name_len);
	}
	r.error = 0;
	r.out_size = r.node_index = r.ndeps = 0;
	r.expires = 0;
	return r;
}

static inline int run(const char *program, struct extfuse_request *r)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = r, .ctx_size_in = sizeof(*r));
	const struct bpf_program *p = bpf_object__find_program_by_name(runnable, program);

	ck_assert_msg(p, "no program %s", program);
	ck_assert_int_eq(bpf_prog_test_run_opts(bpf_program__fd(p), &opts), 0);
	return (int)opts.retval;
}

/* ---- what the module does ---- */

static inline struct extfuse_word *word(enum about about, uint64_t nodeid, const char *text)
{
	struct name name = { 0 };

	if (text)
		ck_assert_int_eq(name_set(&name, text), 0);
	return word_of(x, about, nodeid, &name);
}

static inline void begin(struct extfuse_word *w)
{
	w->state += EXTFUSE_WORD_BEGIN;
	w->marked = 0;
}

static inline void end(struct extfuse_word *w)
{
	uint64_t now = ++x->area->clock;
	uint64_t time = w->state >> EXTFUSE_WORD_TIME;

	if (w->prev < time)
		w->prev = time;
	w->state = now << EXTFUSE_WORD_TIME | ((w->state & EXTFUSE_WORD_BUSY) - 1);
}

/* Whether the module would let this answer pass. */
static inline bool holds(const struct extfuse_request *r)
{
	uint64_t least = UINT64_MAX;

	for (uint32_t i = 0; i < r->ndeps; i++) {
		const struct extfuse_dep *d = &r->deps[i];
		struct name name = { .len = r->name_len };
		enum about about = d->kind == EXTFUSE_DEP_NODE	 ? ABOUT_NODE
				   : d->kind == EXTFUSE_DEP_NAME ? ABOUT_NAME
								 : ABOUT_DIR;

		memcpy(name.words, r->name, sizeof(name.words));
		if (!word_holds(word_of(x, about, about == ABOUT_NODE ? d->nodeid : r->nodeid, &name),
				d->stamp, d->own))
			return false;
		least = d->stamp < least ? d->stamp : least;
	}
	return word_holds(word_all(x), least, 0) && (!r->expires || r->now < r->expires);
}

/* Whether the module would run it at all. */
static inline bool marked(const char *program, const struct extfuse_request *r)
{
	struct name name = { .len = r->name_len };
	const struct extfuse_word *dir;

	for (int i = 0; i < PROGRAMS; i++)
		if (!strcmp(program_kinds[i].name, program) &&
		    !(program_kinds[i].flags & EXTFUSE_PROGRAM_MARKED))
			return true;
	memcpy(name.words, r->name, sizeof(name.words));
	if (r->opcode != FUSE_LOOKUP)
		return word_of(x, ABOUT_NODE, r->nodeid, NULL)->marked;
	dir = word_of(x, ABOUT_DIR, r->nodeid, NULL);
	return dir->marked || (dir->named && word_of(x, ABOUT_NAME, r->nodeid, &name)->marked);
}

/* Runs it, and judges as the module does: EXTFUSE_UPCALL where the answer does not hold. */
static inline int ask(const char *program, struct extfuse_request *r)
{
	int result =
		strncmp(program, "extfuse_", 8) || marked(program, r) ? run(program, r) : EXTFUSE_UPCALL;

	return result == EXTFUSE_RETURN && !holds(r) ? EXTFUSE_UPCALL : result;
}

static inline int lookup(uint64_t parent, const char *name, struct extfuse_request *r)
{
	*r = request(FUSE_LOOKUP, parent, name);
	r->out_max = sizeof(struct fuse_entry_out);
	return ask("extfuse_lookup", r);
}

static inline int getattr(uint64_t nodeid, struct extfuse_request *r)
{
	*r = request(FUSE_GETATTR, nodeid, NULL);
	r->out_max = sizeof(struct fuse_attr_out);
	return ask("extfuse_getattr", r);
}

/* ---- values ---- */

static inline struct fuse_attr attr(uint64_t nodeid)
{
	return (struct fuse_attr){ .ino = nodeid,
				   .size = nodeid * 3,
				   .blocks = 8,
				   .mtime = nodeid + 5,
				   .mtimensec = 7,
				   .mode = S_IFREG | 0644,
				   .nlink = 1,
				   .uid = 11,
				   .gid = 12,
				   .blksize = 4096 };
}

static inline int put_entry(uint64_t stamp, uint64_t parent, const char *name, uint64_t nodeid,
			    uint32_t flags)
{
	struct fuse_entry_out out = { .nodeid = nodeid,
				      .generation = nodeid ^ 99,
				      .attr = attr(nodeid) };

	return extfuse_put_entry(x, stamp, parent, name, (uint32_t)nodeid % NODES, &out, flags);
}

static inline int put_attr(uint64_t stamp, uint64_t nodeid, uint32_t flags)
{
	struct fuse_attr_out out = { .attr = attr(nodeid) };

	return extfuse_put_attr(x, stamp, nodeid, &out, flags);
}

#endif
