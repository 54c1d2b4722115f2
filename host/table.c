/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/table.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"

#define GROW_BYTES	((size_t)256 << 10)
#define LAST_GEN	UINT32_MAX

int table_init(struct table *t, const char *name, size_t record_size, uint32_t max)
{
	memset(t, 0, sizeof(*t));
	t->record_size = (record_size + 7) & ~(size_t)7;
	t->max = max;
	t->grown = t->fresh = 1;
	t->fd = memfd_create(name, MFD_CLOEXEC);
	if (t->fd < 0)
		return -errno;
	/* Address space only: memory comes with table_grow(), nothing behind it is ever touched. */
	t->base = mmap(NULL, t->record_size * max, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, t->fd, 0);
	if (t->base == MAP_FAILED) {
		int err = -errno;

		close(t->fd);
		t->base = NULL;
		return err;
	}
	madvise(t->base, t->record_size * max, MADV_DONTDUMP);
	pthread_mutex_init(&t->lock, NULL);
	return 0;
}

void table_fini(struct table *t)
{
	munmap(t->base, t->record_size * t->max);
	close(t->fd);
	pthread_mutex_destroy(&t->lock);
}

static int table_grow(struct table *t)
{
	size_t have = (size_t)t->grown * t->record_size;
	size_t add = GROW_BYTES > have / 4 ? GROW_BYTES : have / 4;
	size_t records;

	/* fallocate, so that a lack of memory is an error here and no SIGBUS later */
	if (fallocate(t->fd, 0, 0, (off_t)(have + add)))
		return -errno;
	records = (have + add) / t->record_size;
	__atomic_store_n(&t->grown, records < t->max ? (uint32_t)records : t->max, __ATOMIC_RELEASE);
	return 0;
}

struct table_record *table_alloc(struct table *t)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&t->lock);
	struct table_record *r;
	uint32_t gen;

	if (t->free_head) {
		r = (void *)(t->base + (size_t)t->free_head * t->record_size);
		t->free_head = r->next;
	} else {
		if (t->fresh == t->max)
			return NULL;
		if (t->fresh == t->grown && table_grow(t))
			return NULL;
		r = (void *)(t->base + (size_t)t->fresh++ * t->record_size);
	}
	gen = r->gen;
	memset((unsigned char *)r + sizeof(*r), 0, t->record_size - sizeof(*r));
	r->next = 0;
	__atomic_store_n(&r->gen, gen, __ATOMIC_RELEASE);
	__atomic_add_fetch(&t->used, 1, __ATOMIC_RELAXED);
	return r;
}

void table_free(struct table *t, struct table_record *r)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&t->lock);
	uint32_t gen = r->gen + 1;

	__atomic_sub_fetch(&t->used, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&r->gen, gen, __ATOMIC_RELEASE);
	if (gen == LAST_GEN)
		return; /* out of generations: the index is retired */
	r->next = t->free_head;
	t->free_head = table_index(t, r);
}

struct table_record *table_find(struct table *t, uint64_t id)
{
	uint32_t index = (uint32_t)id;
	struct table_record *r;

	if (!index || index >= __atomic_load_n(&t->grown, __ATOMIC_ACQUIRE))
		return NULL;
	r = (void *)(t->base + (size_t)index * t->record_size);
	return __atomic_load_n(&r->gen, __ATOMIC_ACQUIRE) == id >> 32 ? r : NULL;
}
