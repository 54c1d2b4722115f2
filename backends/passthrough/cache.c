/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* O_PATH descriptors of files used lately: opening a file handle anew costs about a microsecond. */
#include <string.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"
#include "base/cleanup.h"

static unsigned set_of(const struct pt_key *key)
{
	uint64_t x = 0xcbf29ce484222325u;
	const unsigned char *p = (const void *)key;

	for (size_t i = 0; i < sizeof(*key) && i < 24u; i++)
		x = (x ^ p[i]) * 0x100000001b3u;
	return (unsigned)(x >> 32) % CACHE_SETS;
}

void cache_init(struct passthrough *pt)
{
	struct fd_cache *c = &pt->cache;

	c->pt = pt;
	c->entries = pt->shared->cached;
	for (int i = 0; i < CACHE_SETS; i++)
		pthread_mutex_init(&c->locks[i], NULL);
	c->ways = CACHE_WAYS;
}

void cache_clear(struct pt_shared *shared)
{
	for (int i = 0; i < CACHE_SETS; i++)
		for (int w = 0; w < CACHE_WAYS; w++)
			shared->cached[i][w].fd = -1;
}

void cache_resume(struct fd_cache *c)
{
	for (int i = 0; i < CACHE_SETS; i++) {
		pthread_mutex_init(&c->locks[i], NULL);
		for (int w = 0; w < CACHE_WAYS; w++) {
			struct cached_fd *e = &c->entries[i][w];

			e->refs = 0;
			if (e->dead)
				close_fd(c->pt, &e->fd);
			e->dead = false;
		}
	}
}

void cache_fini(struct fd_cache *c)
{
	for (int i = 0; c->entries && i < CACHE_SETS; i++)
		for (int w = 0; w < CACHE_WAYS; w++)
			close_fd(c->pt, &c->entries[i][w].fd);
}

static struct cached_fd *find(struct fd_cache *c, unsigned set, const struct pt_key *key)
{
	for (unsigned w = 0; w < c->ways; w++) {
		struct cached_fd *e = &c->entries[set][w];

		if (e->fd >= 0 && !e->dead && !memcmp(&e->key, key, sizeof(*key)))
			return e;
	}
	return NULL;
}

struct cached_fd *cache_get(struct fd_cache *c, const struct pt_key *key)
{
	unsigned set = set_of(key);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c->locks[set]);
	struct cached_fd *e = find(c, set, key);

	if (e) {
		e->refs++;
		e->stamp = atomic_fetch_add_explicit(&c->clock, 1, memory_order_relaxed);
	}
	return e;
}

static struct cached_fd *victim(struct fd_cache *c, unsigned set)
{
	struct cached_fd *oldest = NULL;

	for (unsigned w = 0; w < c->ways; w++) {
		struct cached_fd *e = &c->entries[set][w];

		if (e->fd < 0)
			return e;
		if (!e->refs && (!oldest || (int32_t)(e->stamp - oldest->stamp) < 0))
			oldest = e;
	}
	return oldest;
}

struct cached_fd *cache_add(struct fd_cache *c, const struct pt_key *key, int fd)
{
	unsigned set = set_of(key);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c->locks[set]);
	struct cached_fd *e = find(c, set, key);

	if (e) { /* another thread was faster */
		e->refs++;
		close(fd);
		return e;
	}
	e = victim(c, set);
	if (!e)
		return NULL;
	close_fd(c->pt, &e->fd);
	e->key = *key;
	e->refs = 1;
	e->stamp = atomic_fetch_add_explicit(&c->clock, 1, memory_order_relaxed);
	e->dead = false;
	put_fd(c->pt, &e->fd, fd);
	return e;
}

void cache_put(struct fd_cache *c, struct cached_fd *e)
{
	unsigned set = (unsigned)(e - &c->entries[0][0]) / CACHE_WAYS;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c->locks[set]);

	if (!--e->refs && e->dead) {
		close_fd(c->pt, &e->fd);
		e->dead = false;
	}
}

void cache_drop(struct fd_cache *c, const struct pt_key *key)
{
	unsigned set = set_of(key);
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&c->locks[set]);
	struct cached_fd *e = find(c, set, key);

	if (!e)
		return;
	if (e->refs) {
		e->dead = true;
		return;
	}
	close_fd(c->pt, &e->fd);
}
