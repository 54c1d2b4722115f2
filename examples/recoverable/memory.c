/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * memory MOUNTPOINT [options of libfuse]: a file system in memory, written with libfuse's low-level
 * interface. With RECOVERABLE defined it may be killed at any instruction and loses nothing.
 *
 *	cc -o plain *.c $(pkg-config --cflags --libs fuse3)
 *	cc -o memory -DRECOVERABLE *.c $(pkg-config --cflags --libs libfuserecover-fuse3 fuse3)
 *
 * Locks of files, flock(2) too, are the kernel's: it keeps them while the server dies.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers.h"

static struct fuse_session *session;
static struct fuse_loop_config *config;
static struct fuse_cmdline_opts opts;

static int loop(void)
{
	if (opts.singlethread)
		return fuse_session_loop(session);
	return fuse_session_loop_mt(session, config);
}

#ifdef RECOVERABLE
static struct fr *fr;

static int worker(struct fr *self, void *arg)
{
	return self && !arg ? loop() : -EINVAL;
}

static void reset(void *arg)
{
	pthread_mutex_init(&memory_lock, NULL);
	fr_fuse3_reset(arg);
}
#endif

static int memory_for_store(void)
{
#ifdef RECOVERABLE
	const struct fr_options o = { .struct_size = sizeof(o), .name = "memory", .worker = worker,
		.reset = reset, .request_size = 65536, .reply_size = 65536, .deaths = FR_NEVER };
	int err = fr_new(&o, &fr);

	return err ? err : fr_area_new(fr, "store", sizeof(*store), (void **)&store);
#else
	store = calloc(1, sizeof(*store));
	return store ? 0 : -ENOMEM;
#endif
}

static int serve(void)
{
#ifdef RECOVERABLE
	int err = fr_fuse3_prepare(fr, session, 0);

	return err ? err : fr_run(fr);
#else
	return loop();
#endif
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	int err;

	if (fuse_parse_cmdline(&args, &opts) || !opts.mountpoint) {
		fprintf(stderr, "usage: %s MOUNTPOINT [options of libfuse]\n", argv[0]);
		return 2;
	}
	config = fuse_loop_cfg_create();
	fuse_loop_cfg_set_clone_fd(config, (unsigned)opts.clone_fd);
	err = memory_for_store();
	if (!err)
		store_init();
	session = err ? NULL : fuse_session_new(&args, &memory_ops, sizeof(memory_ops), NULL);
	if (!session || fuse_session_mount(session, opts.mountpoint))
		err = err ? err : -EIO;
	else {
		fuse_daemonize(opts.foreground);
		err = serve();
		fuse_session_unmount(session);
	}
	if (session)
		fuse_session_destroy(session);
	if (err)
		fprintf(stderr, "%s: %s\n", argv[0], strerror(-err));
	fuse_loop_cfg_destroy(config);
	free(opts.mountpoint);
	fuse_opt_free_args(&args);
	return err != 0;
}
