/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checkpoints of any kind, as a hot upgrade or a supervisor's store may hand them over. An input is a list
 * of changes to a good one: 2 bytes of what and 4 of where, then up to 8 bytes to write there.
 *
 * What must hold: fr_adopt() and what follows neither crash nor hang; what was refused leaks nothing; what
 * was accepted can be used, and all tables are whole then.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

struct item {
	uint64_t key;
	uint64_t value[3];
};

static struct fr_options options;
static unsigned char *good;		/* the first bytes of a good checkpoint, which are all that matter */
static size_t good_size, file_size;
static uint64_t table_at;

static void check(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_checkpoint: %s\n", what);
	abort();
}

static int no_worker(struct fr *fr, void *arg)
{
	(void)fr;
	(void)arg;
	return 0;
}

static void silent(void *arg, int level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

static int parts(struct fr *fr, struct fr_table **items, struct fr_table **plain, void **area)
{
	int err = fr_table_new(fr, "items", sizeof(struct item), 0, 8, 2000, items);

	err = err ? err : fr_table_new(fr, "plain", 32, 0, 0, 100, plain);
	return err ? err : fr_area_new(fr, "area", 64, area);
}

/* Takes and gives records, in an order that the input does not know. */
static void use(struct fr *fr, struct fr_table *items, struct fr_table *plain, uint32_t index)
{
	struct fr_slot *slot;
	char why[128];

	if (fr_slot_take(fr, index, &slot))
		return;
	for (uint64_t i = 0; i < 40; i++) {
		uint64_t key = 500 + i * 3 % 40;
		uint32_t hash = fr_key_hash(items, &key);
		struct item *item;

		fr_key_lock(items, hash);
		fr_begin(slot);
		item = fr_index_find(items, hash, &key);
		if (item) {
			fr_index_remove(slot, items, hash, item);
			fr_free_record(slot, items, item);
		} else if ((item = fr_alloc_record(slot, items))) {
			item->key = key;
			fr_index_add(slot, items, hash, item);
		}
		fr_alloc_record(slot, plain);
		fr_commit(slot);
		fr_key_unlock(items, hash);
	}
	check(fr_table_whole(items, why, sizeof(why)) && fr_table_whole(plain, why, sizeof(why)), why);
	fr_slot_leave(slot);
}

static void make_good(void)
{
	struct fr_table *items, *plain;
	struct fr_slot *slot;
	struct fr *fr;
	void *area;

	options = (struct fr_options){
		.struct_size = sizeof(options),
		.name = "fuzz",
		.slots = 2,
		.request_size = 4096,
		.reply_size = 4096,
		.worker = no_worker,
		.log = silent,
	};
	check(!fr_new(&options, &fr) && !parts(fr, &items, &plain, &area), "no checkpoint");
	use(fr, items, plain, 0);
	/* and a step that is not finished */
	check(!fr_slot_take(fr, 0, &slot), "no slot");
	fr_begin(slot);
	fr_alloc_record(slot, items);
	file_size = good_size = fr->layout.size;
	table_at = fr->layout.part[0].offset;
	good = malloc(good_size);
	memcpy(good, fr->base, good_size);
	fr_commit(slot);
	fr_slot_leave(slot);
	fr_free(fr);
}

/* Where changes can matter most: header, heads of the slots, log, tables. */
static uint64_t place(unsigned what, uint32_t at)
{
	switch (what % 5) {
	case 0: return at % sizeof(struct cp_header);
	case 1: return sizeof(struct cp_header) / 4096 * 4096 + at % 8192;
	case 2: return table_at + at % sizeof(struct cp_table);
	case 3: return table_at + at % (32u << 10);
	default: return at % good_size;
	}
}

static unsigned open_descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	struct fr_table *items, *plain;
	unsigned before;
	unsigned char *p;
	struct fr *fr;
	void *area;
	int fd, err;

	if (!good)
		make_good();
	before = open_descriptors();
	fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	check(fd >= 0 && !ftruncate(fd, (off_t)file_size), "no file");
	p = mmap(NULL, file_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(p != MAP_FAILED, "no mapping");
	memcpy(p, good, good_size);
	for (size_t i = 0; i + 6 <= size; i += 6 + data[i + 1] % 9u) {
		uint32_t at;
		size_t n = data[i + 1] % 9u;
		uint64_t where;

		memcpy(&at, data + i + 2, sizeof(at));
		where = place(data[i], at);
		n = n < size - i - 6 ? n : size - i - 6;
		if (where + n <= good_size)
			memcpy(p + where, data + i + 6, n);
	}
	munmap(p, file_size);
	fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
	err = fr_adopt(&options, fd, &fr);
	check(err == 0 || err == -EINVAL || err == -EBADMSG, "an unknown error code");
	if (err) {
		check(!fr && fcntl(fd, F_GETFD) >= 0, "a refused descriptor was closed");
		close(fd);
	} else {
		err = parts(fr, &items, &plain, &area);
		check(err == 0 || err == -EINVAL || err == -EBADMSG || err == -ENOMEM, "an unknown error code");
		if (!err && !fr_takeover(fr))
			use(fr, items, plain, 1);
		fr_free(fr);
	}
	check(open_descriptors() == before, "descriptors leak");
	return 0;
}
