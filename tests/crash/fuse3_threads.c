/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * examples/recoverable/memory with other threads than fuse_session_loop_mt()'s. FUSE3_THREADS=loop: those of
 * fr_fuse3_loop(); =own: threads that call fuse_session_receive_buf() themselves; =mt: those after all.
 * FUSE3_ALONE: without a keeper, which ThreadSanitizer does not allow. SIGUSR2 to the worker: an upgrade.
 */
#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <fuserecover-fuse3.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "examples/recoverable/handlers.h"

#define THREADS	4

static int serve_by_threads(struct fuse_session *se, struct fuse_loop_config *with);
static int prepare(struct fr *of, struct fuse_session *se);
static int run(struct fr *of);
static int begin(const struct fr_options *o, struct fr **of);
static int mount_once(struct fuse_session *se, const char *mountpoint);
static void init_once(void);
int memory(int argc, char **argv);

#define fuse_session_loop_mt(se, config)	serve_by_threads(se, config)
#define fr_run(fr)				run(fr)
#define fr_fuse3_prepare(fr, se, clones)	prepare(fr, se)
#define fr_new(o, fr)				begin(o, fr)
#define fuse_session_mount(se, mountpoint)	mount_once(se, mountpoint)
#define store_init()				init_once()
#define main(argc, argv)			memory(argc, argv)
#include "examples/recoverable/memory.c"
#undef main
#undef store_init
#undef fuse_session_mount
#undef fr_new
#undef fr_fuse3_prepare
#undef fr_run
#undef fuse_session_loop_mt

/* ---- another program takes over ---- */

static int inherited;
static char **arguments;

static int become(void *arg, const char *program)
{
	(void)arg;
	execv(program ? program : "/proc/self/exe", arguments);
	return -errno;
}

static int begin(const struct fr_options *o, struct fr **of)
{
	struct fr_options mine = *o;

	mine.exec = become;
	return inherited >= 0 ? fr_adopt(&mine, inherited, of) : fr_new(&mine, of);
}

static void init_once(void)
{
	if (inherited < 0)
		store_init();
}

static int mount_once(struct fuse_session *se, const char *mountpoint)
{
	char name[32];
	void *area = NULL;
	int err = fr_area_new(fr, "the session's descriptor", sizeof(int), &area), *fd = area;

	if (err)
		return err;
	if (inherited >= 0) {
		snprintf(name, sizeof(name), "/dev/fd/%d", *fd);
		return fuse_session_mount(se, name);
	}
	err = fuse_session_mount(se, mountpoint);
	*fd = fuse_session_fd(se);
	return err;
}

static void *ask_for_upgrades(void *arg)
{
	const sigset_t *wanted = arg;
	int sig, err;

	for (;;) {
		sigwait(wanted, &sig);
		err = fr_upgrade(fr, NULL);
		if (err)
			fprintf(stderr, "fr_upgrade: %s\n", strerror(-err));
	}
	return NULL;
}

static int listen_for_upgrades(void)
{
	static sigset_t wanted;
	pthread_t thread;
	int err;

	sigemptyset(&wanted);
	sigaddset(&wanted, SIGUSR2);
	err = pthread_create(&thread, NULL, ask_for_upgrades, &wanted);
	if (!err)
		pthread_detach(thread);
	return -err;
}

/* ---- threads ---- */

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

static int serve_by(struct fuse_session *se, struct fuse_loop_config *with)
{
	const char *which = getenv("FUSE3_THREADS");
	pthread_t threads[THREADS];

	if (opts.max_idle_threads != UINT_MAX)
		fuse_loop_cfg_set_idle_threads(with, opts.max_idle_threads);
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

static int serve_by_threads(struct fuse_session *se, struct fuse_loop_config *with)
{
	int err = listen_for_upgrades();

	err = err ? err : serve_by(se, with);
	/* A session that was handed over does not know where it is mounted. */
	if (inherited >= 0)
		umount2(opts.mountpoint, MNT_DETACH);
	return err;
}

int main(int argc, char **argv)
{
	sigset_t blocked;
	int trial;

	arguments = argv;
	inherited = fr_inherited(&trial);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &blocked, NULL);
	return memory(argc, argv);
}
