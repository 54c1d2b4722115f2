/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Maps that others wrote to, and requests that no kernel sends: handlers believe nothing. */
#include "tests/unit/cache.h"

static struct extfuse_request r;
static uint64_t seed;

static void setup(void)
{
	open_context(0);
	load_maps();
}

/* Fills a map's one element, and tells its key. */
struct target {
	enum map map;
	const char *program;
	uint32_t opcode;
	uint64_t nodeid;
	const char *name;
};

static const char long_name[] = "a name of more than forty bytes, which has a map of its own";

static const struct target targets[] = {
	{ MAP_ENTRY, "extfuse_lookup", FUSE_LOOKUP, 10, "short" },
	{ MAP_ENTRY_LONG, "extfuse_lookup", FUSE_LOOKUP, 10, long_name },
	{ MAP_ATTR, "extfuse_getattr", FUSE_GETATTR, 20, NULL },
	{ MAP_ATTR, "extfuse_lookup", FUSE_LOOKUP, 10, "short" },
	{ MAP_ATTR, "extfuse_read", FUSE_READ, 20, NULL },
	{ MAP_ATTR, "extfuse_write", FUSE_WRITE, 20, NULL },
	{ MAP_VALUE, "extfuse_getxattr", FUSE_GETXATTR, 30, "user.small" },
	{ MAP_VALUE_LARGE, "extfuse_getxattr", FUSE_GETXATTR, 30, "user.large" },
	{ MAP_VALUE, "extfuse_readlink", FUSE_READLINK, 30, NULL },
	{ MAP_VALUE, "extfuse_listxattr", FUSE_LISTXATTR, 30, NULL },
	{ MAP_VALUE, "extfuse_statfs", FUSE_STATFS, 30, NULL },
	{ MAP_VALUE, "extfuse_access", FUSE_ACCESS, 30, NULL },
	{ MAP_OPEN, "extfuse_open", FUSE_OPEN, 40, NULL },
	{ MAP_OPEN, "extfuse_release", FUSE_RELEASE, 40, NULL },
	{ MAP_OPEN, "extfuse_flush", FUSE_FLUSH, 40, NULL },
	{ MAP_DIR, "extfuse_lookup", FUSE_LOOKUP, 50, "absent" },
	{ MAP_DIR_LARGE, "extfuse_lookup", FUSE_LOOKUP, 60, "absent" },
};
#define TARGETS (sizeof(targets) / sizeof(*targets))

static void put_all(void)
{
	static struct extfuse_names names;
	const struct fuse_statfs_out statfs = { .st = { .blocks = 5 } };
	const struct fuse_open_out open = { .fh = 0 };
	uint64_t stamp = extfuse_stamp(x);
	char large[1000];
	char name[16];

	memset(large, 'L', sizeof(large));
	ck_assert_int_eq(
		put_entry(stamp, 10, "short", 20, EXTFUSE_PASSTHRU_READ | EXTFUSE_PASSTHRU_WRITE), 0);
	ck_assert_int_eq(
		put_entry(stamp, 10, long_name, 20, EXTFUSE_PASSTHRU_READ | EXTFUSE_PASSTHRU_WRITE), 0);
	ck_assert_int_eq(extfuse_put_xattr(x, stamp, 30, "user.small", "small", 5, 0), 0);
	ck_assert_int_eq(extfuse_put_xattr(x, stamp, 30, "user.large", large, sizeof(large), 0), 0);
	ck_assert_int_eq(extfuse_put_xattr_list(x, stamp, 30, "user.small", 11, 0), 0);
	ck_assert_int_eq(extfuse_put_link(x, stamp, 30, "target", 6, 0), 0);
	ck_assert_int_eq(extfuse_put_statfs(x, stamp, 30, &statfs, 5000), 0);
	ck_assert_int_eq(extfuse_put_access(x, stamp, 30, 1000, 100, 7), 0);
	ck_assert_int_eq(extfuse_put_open(x, stamp, 40, &open, ~(uint32_t)(O_CREAT | O_TRUNC),
					  EXTFUSE_NO_RELEASE | EXTFUSE_NO_FLUSH), 0);
	extfuse_names_clear(&names);
	ck_assert_int_eq(extfuse_put_dir(x, stamp, 50, &names), 0);
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "%d", i);
		extfuse_names_add(&names, name);
	}
	ck_assert_int_eq(extfuse_put_dir(x, stamp, 60, &names), 0);
}

static int ask_target(const struct target *t)
{
	r = request(t->opcode, t->nodeid, t->name);
	memset(r.in, 0, sizeof(r.in));
	if (t->opcode == FUSE_GETXATTR || t->opcode == FUSE_LISTXATTR)
		memcpy(r.in, &(struct fuse_getxattr_in){ .size = 1024 },
		       sizeof(struct fuse_getxattr_in));
	return run(t->program, &r);
}

/* The key with which a handler finds the value of this target. */
static void key_of(const struct target *t, char key[272])
{
	struct extfuse_value_key value = { .nodeid = t->nodeid };

	memset(key, 0, 272);
	memcpy(key, &t->nodeid, sizeof(t->nodeid));
	if (t->map == MAP_ENTRY || t->map == MAP_ENTRY_LONG) {
		memcpy(key + 8, t->name, strlen(t->name));
	} else if (t->map == MAP_ATTR) {
		memcpy(key, &(uint64_t){ 20 }, 8);
	} else if (t->map == MAP_VALUE || t->map == MAP_VALUE_LARGE) {
		value.kind = t->opcode == FUSE_GETXATTR	   ? EXTFUSE_KIND_XATTR
			     : t->opcode == FUSE_READLINK  ? EXTFUSE_KIND_LINK
			     : t->opcode == FUSE_LISTXATTR ? EXTFUSE_KIND_XATTR_LIST
			     : t->opcode == FUSE_STATFS	   ? EXTFUSE_KIND_STATFS
							   : EXTFUSE_KIND_ACCESS;
		if (t->name)
			memcpy(value.name, t->name, strlen(t->name));
		if (t->opcode == FUSE_ACCESS)
			value.name[0] = 1000 | 100ull << 32;
		memcpy(key, &value, sizeof(value));
	}
}

static bool answers(int result)
{
	return result == EXTFUSE_RETURN || result == EXTFUSE_PASSTHRU;
}

/* Where a flipped bit need not be seen: what is behind the data, and what another name's block holds. */
static bool matters(const struct target *t, const char *value, uint32_t byte)
{
	struct extfuse_probes p;
	struct name name;
	uint32_t head = offsetof(struct extfuse_value, data);

	if (t->map == MAP_VALUE || t->map == MAP_VALUE_LARGE)
		return byte < head + (((const struct extfuse_value *)value)->size + 7) / 8 * 8;
	if (t->map != MAP_DIR && t->map != MAP_DIR_LARGE)
		return true;
	name_set(&name, t->name);
	extfuse_probes(&p, extfuse_name_bits(name.words, name.len));
	head = offsetof(struct extfuse_dir, blocks);
	if (byte < head)
		return byte >= 8 && byte < sizeof(struct extfuse_head);
	return (byte - head) / sizeof(struct extfuse_block) ==
	       p.block % (t->map == MAP_DIR ? EXTFUSE_DIR_SMALL_BLOCKS : EXTFUSE_DIR_LARGE_BLOCKS);
}

/* Half old, half new is what a reader may see while an element is used again. */
START_TEST(flipped_bits)
{
	static char value[8192], changed[8192];
	char key[272];

	put_all();
	for (size_t i = 0; i < TARGETS; i++) {
		const struct target *t = &targets[i];
		uint32_t size = map_kinds[t->map].value_size, seen = 0;

		key_of(t, key);
		ck_assert_msg(answers(ask_target(t)), "%s of %s: no answer", t->program,
			      map_kinds[t->map].name);
		ck_assert_int_eq(bpf_map_lookup_elem(x->maps[t->map], key, value), 0);
		for (uint32_t byte = 0; byte < size; byte++) {
			if (!matters(t, value, byte))
				continue;
			memcpy(changed, value, size);
			changed[byte] ^= (char)(1 << unit_random(&seed) % 8);
			ck_assert_int_eq(bpf_map_update_elem(x->maps[t->map], key, changed, BPF_ANY), 0);
			ck_assert_msg(!answers(ask_target(t)), "%s believes %s with byte %u changed",
				      t->program, map_kinds[t->map].name, byte);
			seen++;
		}
		ck_assert_uint_gt(seen, 40);
		ck_assert_int_eq(bpf_map_update_elem(x->maps[t->map], key, value, BPF_ANY), 0);
	}
}
END_TEST

/* Another's whole value, in the place of one's own. */
START_TEST(values_of_others)
{
	struct extfuse_attr value;
	uint64_t from = 20, to = 21;

	put_all();
	ck_assert_int_eq(bpf_map_lookup_elem(x->maps[MAP_ATTR], &from, &value), 0);
	ck_assert_int_eq(bpf_map_update_elem(x->maps[MAP_ATTR], &to, &value, BPF_ANY), 0);
	ck_assert_int_eq(getattr(from, &r), EXTFUSE_RETURN);
	ck_assert_int_eq(getattr(to, &r), EXTFUSE_UPCALL);
}
END_TEST

/* Sizes that are absurd, with a sum that is right for them. */
START_TEST(absurd_sizes)
{
	static const uint32_t sizes[] = { 89,	 96,	     1024,	 1025,	    4096,
					  65536, 0x7fffffff, 0x80000000, 0xffffffff };
	struct extfuse_value_key key = { .nodeid = 30, .kind = EXTFUSE_KIND_LINK };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		for (uint32_t words = 0; words <= EXTFUSE_LARGE_WORDS; words++) {
			struct extfuse_value_large value = { .head.stamp = 5, .size = sizes[i] };
			bool is_small = words <= EXTFUSE_SMALL_WORDS;
			int fd = x->maps[is_small ? MAP_VALUE : MAP_VALUE_LARGE];

			if (sizes[i] == 1024 && words == EXTFUSE_LARGE_WORDS)
				continue;
			if ((sizes[i] + 7) / 8 == words && sizes[i] <= 1024 && !is_small)
				continue;
			value.head.check = extfuse_sum(extfuse_sum(EXTFUSE_SUM_START, &key, sizeof(key)),
						       &value.head.stamp, 32 + words * 8);
			ck_assert_int_eq(bpf_map_update_elem(fd, &key, &value, BPF_ANY), 0);
			r = request(FUSE_READLINK, 30, NULL);
			r.out_max = UINT32_MAX;
			ck_assert_msg(run("extfuse_readlink", &r) == EXTFUSE_UPCALL,
				      "size %u summed up over %u words", sizes[i], words);
			ck_assert_uint_le(r.out_size, sizeof(r.out));
			map_drop(x, is_small ? MAP_VALUE : MAP_VALUE_LARGE, &key);
		}
	}
}
END_TEST

/* All of a request is random, but where it would be a request for nobody. */
START_TEST(random_requests)
{
	put_all();
	for (int i = 0; i < 40000; i++) {
		const struct target *t = &targets[unit_random(&seed) % TARGETS];
		unsigned char *bytes = (unsigned char *)&r;
		int result;

		r = request(t->opcode, t->nodeid, t->name);
		for (uint64_t n = unit_random(&seed) % 8; n; n--)
			bytes[unit_random(&seed) % offsetof(struct extfuse_request, error)] =
				(unsigned char)unit_random(&seed);
		for (uint64_t n = unit_random(&seed) % 100; n; n--)
			r.in[unit_random(&seed) % sizeof(r.in)] = (unsigned char)unit_random(&seed);
		if (unit_random(&seed) % 2)
			r.name_len = (uint32_t)unit_random(&seed) % 400;
		if (unit_random(&seed) % 8 == 0)
			r.name_len = (uint32_t)unit_random(&seed);
		r.out_max = t->map == MAP_VALUE || t->map == MAP_VALUE_LARGE
				    ? (uint32_t)unit_random(&seed) % 2048
				    : (uint32_t)sizeof(r.out);
		result = run(t->program, &r);
		if (result == EXTFUSE_RETURN) {
			ck_assert_uint_le(r.out_size, sizeof(r.out));
			if (r.out_size != sizeof(struct fuse_getxattr_out))
				ck_assert_uint_le(r.out_size, r.out_max);
			ck_assert_int_le(r.error, 0);
			ck_assert_int_gt(r.error, -512);
			ck_assert_uint_le(r.ndeps, EXTFUSE_DEPS);
		} else {
			ck_assert(result == EXTFUSE_UPCALL || result == EXTFUSE_PASSTHRU);
		}
	}
}
END_TEST

/* Maps full of random bytes. */
START_TEST(random_values)
{
	static unsigned char value[8192];
	char key[272];

	for (int round = 0; round < 2000; round++) {
		const struct target *t = &targets[unit_random(&seed) % TARGETS];

		key_of(t, key);
		for (uint32_t i = 0; i < map_kinds[t->map].value_size; i++)
			value[i] = (unsigned char)unit_random(&seed);
		ck_assert_int_eq(bpf_map_update_elem(x->maps[t->map], key, value, BPF_ANY), 0);
		ck_assert_int_eq(ask_target(t), EXTFUSE_UPCALL);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { flipped_bits,	values_of_others, absurd_sizes,
				       random_requests, random_values,	  NULL };

	need_bpf();
	seed = unit_seed();
	return unit_run("hostile", tests, setup, close_context);
}
