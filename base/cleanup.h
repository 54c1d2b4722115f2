/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Scope-bound resources: `_cleanup_close_ int fd = -1;` closes itself on every way out. */
#ifndef FE_BASE_CLEANUP_H
#define FE_BASE_CLEANUP_H

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static inline void fe_close(int fd)
{
	int saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
}

static inline void fe_closep(int *fd)
{
	fe_close(*fd);
}

static inline void fe_freep(void *p)
{
	free(*(void **)p);
}

static inline void fe_unlockp(pthread_mutex_t **lock)
{
	if (*lock)
		pthread_mutex_unlock(*lock);
}

static inline pthread_mutex_t *fe_lock(pthread_mutex_t *lock)
{
	pthread_mutex_lock(lock);
	return lock;
}

/* Gives the descriptor away: the variable no longer closes it. */
static inline int fe_steal_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define _cleanup_close_ __attribute__((cleanup(fe_closep)))
#define _cleanup_free_ __attribute__((cleanup(fe_freep)))
#define _cleanup_unlock_ __attribute__((cleanup(fe_unlockp), unused))

#endif
