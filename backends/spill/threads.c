/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is done without a request: fetching ahead, writing back what is dirty for long. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "backends/spill/spill.h"
#include "base/cleanup.h"

#define QUEUE_MOST	64u

void threads_init(struct spill *sp)
{
	pthread_condattr_t attr;

	sp->jobs = NULL;
	sp->nahead = sp->idle_ahead = 0;
	sp->has_writer = sp->quit = false;
	pthread_mutex_init(&sp->jobs_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&sp->jobs_changed, &attr);
	pthread_cond_init(&sp->writer_due, &attr);
	pthread_condattr_destroy(&attr);
}

/* Signals are for the host's threads. */
static int start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -err;
}

static void begin(struct spill *sp)
{
	if (sp->in->thread_start)
		sp->in->thread_start(sp->ip);
}

static struct job *next_job(struct spill *sp)
{
	struct job *found = NULL;

	for (struct job *j = sp->jobs; j; j = j->next)
		if (!j->running)
			found = j; /* the last one in the list came first */
	return found;
}

static void unlink_job(struct spill *sp, struct job *gone)
{
	struct job **at = &sp->jobs;

	while (*at != gone)
		at = &(*at)->next;
	*at = gone->next;
}

static void run(struct spill *sp, struct job *j)
{
	struct fe_request req;

	pthread_mutex_lock(&j->file->lock);
	req = own_request(j->file);
	fetch_range(sp, j->file, &req, &j->node, &j->handle, j->start, j->end);
	pthread_mutex_unlock(&j->file->lock);
}

static void *ahead_thread(void *arg)
{
	struct spill *sp = arg;

	begin(sp);
	pthread_mutex_lock(&sp->jobs_lock);
	while (!sp->quit) {
		struct job *j = next_job(sp);

		if (!j) {
			sp->idle_ahead++;
			pthread_cond_wait(&sp->jobs_changed, &sp->jobs_lock);
			sp->idle_ahead--;
			continue;
		}
		j->running = true;
		pthread_mutex_unlock(&sp->jobs_lock);
		sp->services->helper_enter(sp->host);
		run(sp, j);
		sp->services->helper_leave(sp->host);
		pthread_mutex_lock(&sp->jobs_lock);
		unlink_job(sp, j);
		pthread_cond_broadcast(&sp->jobs_changed);
		pthread_mutex_unlock(&sp->jobs_lock);
		file_put(sp, j->file);
		free(j);
		pthread_mutex_lock(&sp->jobs_lock);
	}
	pthread_mutex_unlock(&sp->jobs_lock);
	return NULL;
}

/* With file.lock. */
void ahead(struct spill *sp, struct file *f, const struct fe_node *node, const struct fe_handle *handle,
	   uint64_t begin, uint64_t end)
{
	struct job *j = calloc(1, sizeof(*j));
	unsigned queued = 0;

	if (!j)
		return;
	*j = (struct job){ .file = f, .node = *node, .handle = *handle, .start = begin, .end = end };
	pthread_mutex_lock(&sp->lock);
	f->refs++;
	pthread_mutex_unlock(&sp->lock);
	pthread_mutex_lock(&sp->jobs_lock);
	for (struct job *other = sp->jobs; other; other = other->next)
		queued++;
	if (!sp->idle_ahead && sp->nahead < AHEAD_THREADS &&
	    !start(&sp->ahead_threads[sp->nahead], ahead_thread, sp))
		sp->nahead++;
	if (queued < QUEUE_MOST && sp->nahead) {
		j->next = sp->jobs;
		sp->jobs = j;
		j = NULL;
		pthread_cond_broadcast(&sp->jobs_changed);
	}
	pthread_mutex_unlock(&sp->jobs_lock);
	if (j) {
		file_put(sp, f);
		free(j);
	}
}

void ahead_end(struct spill *sp, const struct fe_handle *handle)
{
	struct job *gone = NULL;
	bool running;

	pthread_mutex_lock(&sp->jobs_lock);
	do {
		running = false;
		for (struct job **at = &sp->jobs; *at;) {
			struct job *j = *at;

			if (j->handle.record != handle->record) {
				at = &j->next;
			} else if (j->running) {
				running = true;
				at = &j->next;
			} else {
				*at = j->next;
				j->next = gone;
				gone = j;
			}
		}
		if (running)
			pthread_cond_wait(&sp->jobs_changed, &sp->jobs_lock);
	} while (running);
	pthread_mutex_unlock(&sp->jobs_lock);
	while (gone) {
		struct job *j = gone;

		gone = j->next;
		file_put(sp, j->file);
		free(j);
	}
}

/* The file's dirty data are due. */
static void back_in_time(struct spill *sp, struct file *f)
{
	uint64_t since = __atomic_load_n(&f->rec->dirty_since, __ATOMIC_ACQUIRE);
	struct fe_node node;
	int err;

	if (!since || clock_ns() - since < sp->delay || !f->dirty.count || file_node(sp, f, &node))
		return;
	err = write_back(sp, f, &node, NULL, true);
	/* It stays dirty, and is tried again after as long. */
	if (err) {
		say(sp, LOG_WARNING, "writing back: %s", strerror(-err));
		put_size(&f->rec->dirty_since, clock_ns());
	}
}

static void *writer_thread(void *arg)
{
	struct spill *sp = arg;
	uint64_t pause = sp->delay / 2 < 1000000000u ? sp->delay / 2 : 1000000000u;

	if (pause < 10000000)
		pause = 10000000;
	begin(sp);
	pthread_mutex_lock(&sp->jobs_lock);
	while (!sp->quit) {
		uint64_t until = clock_ns() + pause;
		struct timespec t = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };

		if (atomic_load(&sp->dirty_files))
			pthread_cond_timedwait(&sp->writer_due, &sp->jobs_lock, &t);
		else
			pthread_cond_wait(&sp->writer_due, &sp->jobs_lock);
		pthread_mutex_unlock(&sp->jobs_lock);
		if (atomic_load(&sp->dirty_files)) {
			sp->services->helper_enter(sp->host);
			files_each(sp, back_in_time);
			sp->services->helper_leave(sp->host);
		}
		pthread_mutex_lock(&sp->jobs_lock);
	}
	pthread_mutex_unlock(&sp->jobs_lock);
	return NULL;
}

void writer_start(struct spill *sp)
{
	pthread_mutex_lock(&sp->jobs_lock);
	if (!sp->has_writer && !sp->quit)
		sp->has_writer = !start(&sp->writer, writer_thread, sp);
	else
		pthread_cond_signal(&sp->writer_due);
	pthread_mutex_unlock(&sp->jobs_lock);
}

void threads_fini(struct spill *sp)
{
	pthread_mutex_lock(&sp->jobs_lock);
	sp->quit = true;
	pthread_cond_broadcast(&sp->jobs_changed);
	pthread_cond_broadcast(&sp->writer_due);
	pthread_mutex_unlock(&sp->jobs_lock);
	for (unsigned i = 0; i < sp->nahead; i++)
		pthread_join(sp->ahead_threads[i], NULL);
	if (sp->has_writer)
		pthread_join(sp->writer, NULL);
	sp->nahead = 0;
	sp->has_writer = false;
}
