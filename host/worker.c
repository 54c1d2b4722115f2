/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The worker pool.
 *
 * What a request costs is decided by who is woken for it: an idle core takes tens of microseconds to
 * wake, a reader that is still looking takes none, and one on the client's own core (follow.c) hardly
 * any. So as few workers as possible read /dev/fuse, one where requests are short, and where it follows
 * no client it looks again for a moment before it sleeps. The others are parked. One more is activated
 * where requests turn out to be slow, where the one reader never runs dry on a machine with cores to
 * spare, or where the monitor finds all readers stuck.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "host/internal.h"

#define SPIN_NS		25000u		/* longer than a client needs for its next request */
#define SLOW_NS		50000u		/* requests that take this long on average are served in parallel */
#define STUCK_NS	2000000u	/* a reader that is in one request for so long is stuck */
#define SATURATED	256u		/* requests in a row without a wait */

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void event_signal(int fd)
{
	uint64_t one = 1;
	ssize_t n = write(fd, &one, sizeof(one));

	(void)n; /* the counter is full: it is signalled already */
}

static void *worker_main(void *arg);

/* The kernel gives each clone a queue of its own for what it read; all take from one input. */
static int dev_clone(struct fe_host *h)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	uint32_t main_fd = (uint32_t)h->shared->fd;

	if (fd >= 0 && !ioctl(fd, FUSE_DEV_IOC_CLONE, &main_fd))
		return fe_steal_fd(&fd);
	/* /dev/fuse may be closed to this user; the descriptor that fusermount3 opened serves all. */
	return fcntl(h->shared->fd, F_DUPFD_CLOEXEC, 3);
}

static __thread struct worker *self;

struct fr_slot *step_slot(struct fe_host *h)
{
	if (self)
		return self->slot;
	fr_helper_enter(h->fr);
	pthread_mutex_lock(&h->service_lock);
	return h->service_slot;
}

void step_slot_done(struct fe_host *h)
{
	if (self)
		return;
	pthread_mutex_unlock(&h->service_lock);
	fr_helper_leave(h->fr);
}

/* The thread that serves from a slot is the one that takes it. */
int worker_take_slot(struct worker *w)
{
	int err = fr_slot_take(w->host->fr, w->index, &w->slot);

	if (err)
		return err;
	w->in = fr_slot_request(w->slot);
	w->in_size = REQUEST_SIZE;
	w->out = fr_slot_reply_buffer(w->slot);
	w->out_size = REPLY_SIZE;
	return 0;
}

/* The clone that a slot reads; one that a predecessor opened has what it read. */
static int clone_of(struct fe_host *h, unsigned index, int *fd)
{
	int *kept = &h->shared->clones[index];

	if (*kept <= 0) {
		*fd = dev_clone(h);
		if (*fd < 0)
			return -errno;
		fd_put(h, kept, *fd);
	}
	*fd = *kept;
	return 0;
}

/*
 * While the predecessor's memory is taken down, for some ms, a usual thread may wait for that core before it starts. A
 * successor is real-time itself in its first moments (sched_getscheduler(2) tells with which flag), and so are its
 * first threads until they have started: nothing that they call or start is.
 */
static int start_thread(struct worker *w)
{
	const struct sched_param lowest = { .sched_priority = sched_get_priority_min(SCHED_FIFO) };
	pthread_attr_t prompt;
	int err = EPERM;

	pthread_attr_init(&prompt);
	pthread_attr_setinheritsched(&prompt, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(&prompt, SCHED_FIFO);
	pthread_attr_setschedparam(&prompt, &lowest);
	w->prompt = sched_getscheduler(0) == (SCHED_FIFO | SCHED_RESET_ON_FORK);
	if (w->prompt)
		err = pthread_create(&w->thread, &prompt, worker_main, w);
	pthread_attr_destroy(&prompt);
	if (err != EPERM)
		return -err;
	w->prompt = false;
	return -pthread_create(&w->thread, NULL, worker_main, w);
}

static void be_usual(struct worker *w)
{
	const struct sched_param none = { 0 };

	if (w->prompt)
		sched_setscheduler(0, SCHED_OTHER, &none);
	w->prompt = false;
}

/* With the pool locked. */
static int worker_add(struct fe_host *h)
{
	struct pool *p = &h->pool;
	struct worker *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err;

	if (w == MAP_FAILED)
		return -errno;
	w->host = h;
	w->spin_hits = UINT32_MAX;
	w->wake = 1;
	w->cpu = -1;
	w->index = p->count;
	err = clone_of(h, w->index, &w->fd);
	if (!err) {
		sem_init(&w->started, 0, 0);
		atomic_fetch_add(&p->active, 1);
		err = start_thread(w);
		if (!err) {
			while (sem_wait(&w->started) && errno == EINTR)
				;
			err = w->start_error;
			if (err)
				pthread_join(w->thread, NULL);
		}
		if (err)
			atomic_fetch_sub(&p->active, 1);
	}
	if (err) {
		munmap(w, sizeof(*w));
		return err;
	}
	p->workers[p->count++] = w;
	return 0;
}

static void activate_one(struct fe_host *h)
{
	struct pool *p = &h->pool;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&p->lock);
	struct worker *w = p->parked;

	if (atomic_load(&h->ended))
		return;
	if (!w) {
		if (p->count < p->max)
			worker_add(h); /* short of memory or descriptors, the others do */
		return;
	}
	p->parked = w->next_parked;
	atomic_fetch_add(&p->active, 1);
	atomic_fetch_add(&p->idle, 1); /* it counts from now on, or each request until it runs wakes one more */
	atomic_store(&w->wake, 1);
	futex_wake(&w->wake);
}

/* Parks the caller unless it is the last that waits for requests. */
static bool park_self(struct worker *w)
{
	struct pool *p = &w->host->pool;

	if (atomic_load(&p->idle) < 2)
		return false;
	follow_end(w);
	pthread_mutex_lock(&p->lock);
	if (atomic_load(&p->idle) < 2 || atomic_load(&w->host->ended)) {
		pthread_mutex_unlock(&p->lock);
		return false;
	}
	atomic_fetch_sub(&p->idle, 1);
	atomic_fetch_sub(&p->active, 1);
	atomic_store(&w->wake, 0);
	w->next_parked = p->parked;
	p->parked = w;
	pthread_mutex_unlock(&p->lock);
	while (!atomic_load(&w->wake))
		futex_wait(&w->wake, 0);
	return true;
}

static void connection_ended(struct fe_host *h)
{
	struct pool *p = &h->pool;
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&p->lock);

	atomic_store(&h->ended, true);
	for (struct worker *w = p->parked; w; w = w->next_parked) {
		atomic_fetch_add(&p->active, 1);
		atomic_fetch_add(&p->idle, 1);
		atomic_store(&w->wake, 1);
		futex_wake(&w->wake);
	}
	p->parked = NULL;
	event_signal(h->quit_fd);
}

/* Bytes read, 0 where there is none now, -1 where there will be none any more. */
static ssize_t try_read(struct worker *w)
{
	while (!atomic_load(&w->host->ended)) {
		ssize_t n = fr_slot_read(w->slot, w->fd);

		if (n > 0)
			return n;
		if (n == -EAGAIN)
			return 0;
		/* ENOENT: the request was interrupted before it was read */
		if (n == -EINTR || n == -ENOENT)
			continue;
		/* ENODEV: unmounted; ECONNABORTED: aborted by fusectl */
		if (n == -ECONNABORTED)
			atomic_store(&w->host->shared->aborted, 1);
		else if (n < 0 && n != -ENODEV)
			fe_log(LOG_ERR, "reading /dev/fuse: %s; the mount ends", strerror((int)-n));
		break;
	}
	return -1;
}

static void wait_readable(struct worker *w)
{
	struct pollfd fds[] = {
		{ .fd = w->fd, .events = POLLIN },
		{ .fd = w->host->quit_fd, .events = POLLIN },
	};

	poll(fds, 2, -1);
}

static ssize_t spin_read(struct worker *w)
{
	/* Two of the last 32 spins paid; else one in 16 tries whether they do again. */
	bool worth = __builtin_popcount(w->spin_hits) >= 2 || !(w->spin_skips++ % 16);
	uint64_t until;
	ssize_t n = 0;

	if (!worth || atomic_load(&w->cpu) >= 0 || w->host->pool.cpus < 2)
		return 0;
	until = now_ns() + SPIN_NS;
	do {
		for (int i = 0; !n && i < 4; i++)
			n = try_read(w);
	} while (!n && now_ns() < until);
	w->spin_hits = w->spin_hits << 1 | (n > 0);
	return n;
}

/* The next request's size, or -1 at the end of the connection. */
static ssize_t next_request(struct worker *w)
{
	struct pool *p = &w->host->pool;
	ssize_t n;

	atomic_store(&w->busy_since, 0);
	atomic_fetch_add(&p->idle, 1);
	n = try_read(w);
	w->saturated = n > 0 ? w->saturated + 1 : 0;
	while (!n) {
		n = spin_read(w);
		if (n || (park_self(w) && (n = try_read(w))))
			break;
		wait_readable(w);
		n = try_read(w);
	}
	atomic_fetch_sub(&p->idle, 1);
	return n;
}

static void account(struct worker *w, uint64_t ns)
{
	struct pool *p = &w->host->pool;
	unsigned mean = atomic_load(&p->op_ns);

	ns = ns < 64 * SLOW_NS ? ns : 64 * SLOW_NS;
	mean += (unsigned)(ns / 16) - mean / 16;
	atomic_store(&p->op_ns, mean);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct fe_host *h = w->host;
	struct pool *p = &h->pool;
	ssize_t n;

	w->start_error = worker_take_slot(w);
	sem_post(&w->started);
	if (w->start_error)
		return NULL;
	be_usual(w);
	self = w;
	w->tid = (pid_t)syscall(SYS_gettid);
	if (h->be->thread_start)
		h->be->thread_start(h->priv);
	n = (ssize_t)fr_slot_unfinished(w->slot);
	if (n > 0) {
		atomic_store(&w->busy_since, now_ns());
		dispatch(w, (size_t)n, true);
	}
	while ((n = next_request(w)) > 0) {
		uint64_t start = now_ns();
		bool crowd = w->saturated > SATURATED && atomic_load(&p->active) < p->cpus / 2;

		atomic_store(&w->busy_since, start);
		if (!atomic_load(&p->idle) && (crowd || atomic_load(&p->op_ns) > SLOW_NS)) {
			follow_end(w); /* the other one inherits its policy, and the monitor waits for the lock */
			activate_one(h);
		}
		if (atomic_load(&p->monitor_asleep) && atomic_exchange(&p->monitor_asleep, false))
			event_signal(h->wake_fd);
		w->answered = start;
		follow(w, ((const struct fuse_in_header *)(const void *)w->in)->pid);
		dispatch(w, (size_t)n, false);
		account(w, w->answered - start);
		atomic_fetch_add(&w->done, 1);
	}
	connection_ended(h);
	self = NULL;
	fr_slot_leave(w->slot);
	return NULL;
}

bool pool_watch(struct fe_host *h)
{
	struct pool *p = &h->pool;
	uint64_t now = now_ns(), youngest = UINT64_MAX;
	bool any = false, pending;
	struct pollfd input = { .fd = h->shared->fd, .events = POLLIN };

	pending = p->follow && poll(&input, 1, 0) > 0;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->count; i++) {
		uint64_t since = atomic_load(&p->workers[i]->busy_since);
		uint64_t age = since && since < now ? now - since : 0;

		any |= since != 0;
		any |= follow_watch(p->workers[i], pending);
		if (since && age < youngest)
			youngest = age;
	}
	pthread_mutex_unlock(&p->lock);
	if (any && !atomic_load(&p->idle) && youngest > STUCK_NS)
		activate_one(h);
	return any;
}

int pool_start(struct fe_host *h, unsigned unfinished)
{
	struct pool *p = &h->pool;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int err;

	p->cpus = cpus > 0 ? (unsigned)cpus : 1;
	follow_init(h);
	p->workers = calloc(p->max, sizeof(struct worker *));
	if (!p->workers)
		return -ENOMEM;
	pthread_mutex_lock(&p->lock);
	/* A request that a predecessor left is done by the thread of its slot. */
	do
		err = worker_add(h);
	while (!err && p->count < unfinished);
	pthread_mutex_unlock(&p->lock);
	return err;
}

/* One that has not ended may be adding another one. */
static struct worker *worker_at(struct pool *p, unsigned index)
{
	_cleanup_unlock_ pthread_mutex_t *held = fe_lock(&p->lock);

	return index < p->count ? p->workers[index] : NULL;
}

void pool_join(struct fe_host *h)
{
	struct worker *w;

	for (unsigned i = 0; (w = worker_at(&h->pool, i)); i++)
		pthread_join(w->thread, NULL);
}

void pool_free(struct fe_host *h)
{
	struct pool *p = &h->pool;

	for (unsigned i = 0; i < p->count; i++)
		munmap(p->workers[i], sizeof(struct worker));
	free(p->workers);
	p->workers = NULL;
	p->count = 0;
}
