/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * examples/recoverable/memory with other threads than fuse_session_loop_mt()'s. FUSE3_THREADS=loop: those of
 * fr_fuse3_loop(); =own: threads that call fuse_session_receive_buf() themselves; =mt: those after all.
 * FUSE3_ALONE: without a keeper, which ThreadSanitizer does not allow.
 */
#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <fuserecover-fuse3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define THREADS	4

static int serve_by_threads(struct fuse_session *se, struct fuse_loop_config *with);
static int prepare(struct fr *fr, struct fuse_session *se);

static int run(struct fr *fr);

#define fuse_session_loop_mt(se, config)	serve_by_threads(se, config)
#define fr_run(fr)				run(fr)
#define fr_fuse3_prepare(fr, se, clones)	prepare(fr, se)
#include "examples/recoverable/memory.c"
#undef fr_fuse3_prepare
#undef fr_run
#undef fuse_session_loop_mt

static int prepare(struct fr *of, struct fuse_session *se)
{
	return fr_fuse3_prepare(of, se, opts.clone_fd ? THREADS - 1 : 0);
}

static void *serve_some(void *arg)
{
	struct fuse_session *se = arg;
	struct fuse_buf buf = { .mem = NULL };
	int n = 0;

	while (!fuse_session_exited(se) && (n >= 0 || n == -EINTR)) {
		n = fuse_session_receive_buf(se, &buf);
		if (n > 0)
			fuse_session_process_buf(se, &buf);
	}
	free(buf.mem);
	return NULL;
}

static int run(struct fr *of)
{
	return getenv("FUSE3_ALONE") ? fr_run_alone(of) : fr_run(of);
}

static int serve_by_threads(struct fuse_session *se, struct fuse_loop_config *with)
{
	const char *which = getenv("FUSE3_THREADS");
	pthread_t threads[THREADS];

	if (which && !strcmp(which, "mt"))
		return fuse_session_loop_mt(se, with);
	if (!which || strcmp(which, "own"))
		return fr_fuse3_loop(fr, se, THREADS);
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, serve_some, se))
			return -EAGAIN;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
