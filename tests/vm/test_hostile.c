/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Handlers that answer what the driver must not be given: the server is asked instead. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sched.h>
#include <sys/xattr.h>

#include "tests/vm/rig.h"

static struct rig *r;
static struct node *file;
static int handle;

static struct script good_attr(void)
{
	struct script s = { .out_size = sizeof(struct fuse_attr_out) };
	struct fuse_attr_out out = { 0 };

	fs_attr(file, &out.attr);
	out.attr.nlink = 88;
	memcpy(s.out, &out, sizeof(out));
	return s;
}

static struct script good_entry(void)
{
	struct script s = { .out_size = sizeof(struct fuse_entry_out), .node_index = file - r->fs->nodes };
	struct fuse_entry_out entry;

	fs_entry(file, &entry);
	memcpy(s.out, &entry, sizeof(entry));
	r->nodes[s.node_index].nodeid = file->id;
	return s;
}

/* What the driver would make of it is 0 and the server's attributes. */
static void attr_refused(const char *name, const struct script *s, bool refused)
{
	unsigned long before = rig_asked(r, FUSE_GETATTR);
	unsigned long long counted = rig_stats(r, FUSE_GETATTR).refused;
	struct stat st;
	__u32 zero = 0;
	char label[96];
	int rc;

	bpf_map_update_elem(r->script, &zero, s, BPF_ANY);
	rc = fstat(handle, &st);
	snprintf(label, sizeof(label), "hostile-%s", name);
	result(rc == 0 && st.st_nlink == 1 && rig_asked(r, FUSE_GETATTR) == before + 1 &&
		(rig_stats(r, FUSE_GETATTR).refused == counted + 1) == refused, label,
		"%d, errno %d, nlink %lu, asked %lu, refused %llu", rc, errno, (unsigned long)st.st_nlink,
		rig_asked(r, FUSE_GETATTR) - before, rig_stats(r, FUSE_GETATTR).refused - counted);
}

static void entry_refused(const char *name, const struct script *s)
{
	unsigned long before = rig_asked(r, FUSE_LOOKUP);
	uint64_t grants = r->nodes[file - r->fs->nodes].grants;
	struct stat st;
	__u32 zero = 0;
	char label[96];
	int rc;

	bpf_map_update_elem(r->script, &zero, s, BPF_ANY);
	rc = stat(rig_path(r, "f"), &st);
	snprintf(label, sizeof(label), "hostile-%s", name);
	result(rc == 0 && st.st_ino == file->id && rig_asked(r, FUSE_LOOKUP) == before + 1 &&
		r->nodes[file - r->fs->nodes].grants == grants, label, "%d, errno %d, asked %lu, granted %llu",
			rc, errno,
		rig_asked(r, FUSE_LOOKUP) - before,
			(unsigned long long)(r->nodes[file - r->fs->nodes].grants - grants));
}

#define ATTR(s) (&((struct fuse_attr_out *)(s).out)->attr)
#define ENTRY(s) ((struct fuse_entry_out *)(s).out)

static void test_attrs(void)
{
	static const int errors[] = { -512, -38, -4, 5, -100000, -513 };
	struct script s = good_attr();
	struct stat st;
	__u32 zero = 0;
	char label[32];

	rig_program(r, FUSE_GETATTR, "scripted", 0);
	bpf_map_update_elem(r->script, &zero, &s, BPF_ANY);
	fstat(handle, &st);
	result(st.st_nlink == 88, "hostile-none", "an honest answer is not taken");
	s.error = -EACCES;
	bpf_map_update_elem(r->script, &zero, &s, BPF_ANY);
	result(fstat(handle, &st) && errno == EACCES, "hostile-error", "errno %d", errno);
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		s.error = errors[i];
		snprintf(label, sizeof(label), "error%d", errors[i]);
		attr_refused(label, &s, true);
	}
	s = good_attr();
	s.out_size--;
	attr_refused("short", &s, true);
	s.out_size += 2;
	attr_refused("over-long", &s, true);
	s.out_size = 0xffffffff;
	attr_refused("huge", &s, true);
	s = good_attr();
	ATTR(s)->mode &= 07777;
	attr_refused("no-type", &s, true);
	s = good_attr();
	ATTR(s)->size = ~0ULL;
	attr_refused("negative-size", &s, true);
	s = good_attr();
	s.result = EXTFUSE_PASSTHRU;
	attr_refused("passthru", &s, true);
	s.result = 12345;
	attr_refused("other-result", &s, false);
	s = good_attr();
	s.ndeps = 0xffffffff;
	attr_refused("many-deps", &s, false);
	s.ndeps = 1;
	attr_refused("no-dep", &s, false);
	s.kind = EXTFUSE_DEP_NAME;
	attr_refused("dep-of-no-name", &s, false);
	s.kind = EXTFUSE_DEP_NODE;
	s.nodeid = ~0ULL;
	s.stamp = 0;
	rig_bump(r, rig_node_word(r, ~0ULL));
	attr_refused("old-stamp", &s, false);
	s = good_attr();
	s.name_len = 0xffffffff;
	bpf_map_update_elem(r->script, &zero, &s, BPF_ANY);
	result(!fstat(handle, &st), "hostile-name-length", "errno %d", errno);
	rig_program(r, FUSE_GETATTR, "getattr", 0);
}

static void test_entries(void)
{
	struct script s = good_entry();
	struct extfuse_node *node = &r->nodes[s.node_index];
	struct stat st;
	__u32 zero = 0;
	uint64_t grants = node->grants;

	rig_program(r, FUSE_LOOKUP, "scripted", 0);
	bpf_map_update_elem(r->script, &zero, &s, BPF_ANY);
	stat(rig_path(r, "f"), &st);
	result(node->grants == grants + 1, "granted", "%llu times",
		(unsigned long long)(node->grants - grants));
	s.name_len = 0xffffff00;
	bpf_map_update_elem(r->script, &zero, &s, BPF_ANY);
	stat(rig_path(r, "f"), &st);
	result(node->grants == grants + 2, "hostile-entry-name-length", "%llu times",
		(unsigned long long)(node->grants - grants));
	s = good_entry();
	ENTRY(s)->nodeid = FUSE_ROOT_ID;
	entry_refused("root", &s);
	s = good_entry();
	ENTRY(s)->nodeid = 99999;
	entry_refused("unknown-node", &s);
	s = good_entry();
	ENTRY(s)->attr.mode = 0;
	entry_refused("entry-no-type", &s);
	s = good_entry();
	s.node_index = 0xffffffff;
	entry_refused("index-beyond", &s);
	s.node_index = 5000;
	entry_refused("index-of-none", &s);
	s = good_entry();
	s.out_size = 4;
	entry_refused("entry-short", &s);
	s = good_entry();
	node->grants |= EXTFUSE_NODE_DEAD;
	entry_refused("dead", &s);
	node->grants = extfuse_node_reborn(node->grants) | EXTFUSE_NODE_COUNT;
	entry_refused("worn-out", &s);
	node->grants = extfuse_node_reborn(node->grants);
	result(node->grants == 2 * EXTFUSE_NODE_LIFE, "reborn", "%llx", (unsigned long long)node->grants);
	rig_program(r, FUSE_LOOKUP, "lookup", 0);
}

static void test_programs(void)
{
	static const struct { const char *program; uint32_t opcode, flags; int error; } tries[] = {
		{ "reaches_beyond", FUSE_GETATTR, 0, EINVAL },
		{ "jumps_away", FUSE_GETATTR, 0, EINVAL },
		{ "not_writable", FUSE_GETATTR, 0, EINVAL },
		{ "getattr", FUSE_GETATTR, 16, EINVAL },
		{ "getattr", FUSE_GETATTR, EXTFUSE_PROGRAM_EARLY | EXTFUSE_PROGRAM_IDS, EINVAL },
		{ "getattr", FUSE_GETXATTR, EXTFUSE_PROGRAM_EARLY, EINVAL },
		{ "getattr", FUSE_SETATTR, 0, EOPNOTSUPP },
		{ "getattr", FUSE_UNLINK, 0, EOPNOTSUPP },
		{ "getattr", 0, 0, EOPNOTSUPP },
		{ "getattr", 0xffffffff, 0, EOPNOTSUPP },
		{ "getattr", FUSE_GETATTR, 0, 0 },
	};
	char label[96];

	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		int error = rig_program(r, tries[i].opcode, tries[i].program, tries[i].flags);

		snprintf(label, sizeof(label), "program-%s-%u", tries[i].program, tries[i].opcode);
		result(error == tries[i].error, label, "errno %d", error);
	}
}

/* 0, or a negative errno: by a program of type EXT, which lives until the object is closed. */
static int replace_getattr(struct bpf_object **object)
{
	struct bpf_program *target = bpf_object__find_program_by_name(r->object, "getattr"), *program;
	struct bpf_link *link;
	char path[512];

	snprintf(path, sizeof(path), "%s/extension.bpf.o", getenv("VM_PROGRAMS") ?: ".");
	*object = bpf_object__open_file(path, NULL);
	program = bpf_object__find_program_by_name(*object, "extension");
	if (bpf_program__set_attach_target(program, bpf_program__fd(target), "getattr") ||
	    bpf_object__load(*object))
		return -ENOEXEC;
	link = bpf_program__attach(program);
	return link ? 0 : -errno;
}

static void test_replaced(void)
{
	struct bpf_object *object;
	int error = replace_getattr(&object);

	result(error == -EBUSY, "replace-in-use", "errno %d", -error);
	bpf_object__close(object);
	rig_program(r, FUSE_GETATTR, NULL, 0);
	error = replace_getattr(&object);
	result(!error, "replace-not-in-use", "errno %d", -error);
	error = rig_program(r, FUSE_GETATTR, "getattr", 0);
	result(error == EINVAL, "program-replaced", "errno %d", error);
	bpf_object__close(object);
}

/* What one handler has left, another one does not show: `flags` of that one. */
static bool shows_remains(uint32_t flags)
{
	static const char secret[16] = "secret, 15 long";
	char value[16] = "";

	rig_put_xattr(r, file->id, "user.secret", secret, sizeof(secret));
	rig_program(r, FUSE_GETXATTR, "getxattr", EXTFUSE_PROGRAM_MARKED);
	if (getxattr(rig_path(r, "f"), "user.secret", value, sizeof(value)) != sizeof(secret))
		fatal("secret");
	rig_program(r, FUSE_GETXATTR, "careless", flags);
	memset(value, 0, sizeof(value));
	if (getxattr(rig_path(r, "f"), "user.x", value, sizeof(value)) != sizeof(value))
		fatal("careless");
	rig_program(r, FUSE_GETXATTR, "getxattr", EXTFUSE_PROGRAM_MARKED);
	return !memcmp(value, secret, sizeof(value));
}

static void test_remains(void)
{
	cpu_set_t all, one;

	/* Each processor has a request of its own. */
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_getaffinity(0, sizeof(all), &all);
	sched_setaffinity(0, sizeof(one), &one);
	result(shows_remains(0), "remains-seen", "there are none");
	result(!shows_remains(EXTFUSE_PROGRAM_CLEARED), "remains-cleared", "they are shown");
	sched_setaffinity(0, sizeof(all), &all);
}

void test_hostile(void)
{
	r = rig_new("hostile");
	rig_file(r, "f");
	file = fs_node(r->fs, rig_id(r, "f"));
	handle = rig_handle(r, "f");
	test_programs();
	test_attrs();
	test_entries();
	test_remains();
	test_replaced();
	close(handle);
	rig_free(r);
}
