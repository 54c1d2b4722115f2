/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse3_interrupts MOUNTPOINT: who waits for a file system of libfuse gets a signal, of which the kernel tells
 * once, and the worker dies before it has answered. The successor's handler has to be told, too.
 */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fuse_lowlevel.h>
#include <fuserecover-fuse3.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/tsan.h"

#define HANGS_S	10
#define SOON_US	20000

enum way { LOOP, LIBFUSE_LOOP, CLONES, OTHER_THREAD, WAYS };
/* When the worker dies: without a signal; as the handler knows; as the INTERRUPT is in work; else so soon. */
enum { NO_SIGNAL = -3, TOLD = -2, IN_WORK = -1 };

static const char *const ways[] = { "loop", "loop-mt", "loop-mt-clone-fd", "other-thread" };
static const int moments[] = { NO_SIGNAL, TOLD, IN_WORK, 0, 50, 100, 200, 400, 800, 1600, TOLD };

struct shared {
	_Atomic uint32_t mounted, asked, told, answered;
	_Atomic int32_t worker, moment;
};

static enum way way;
static struct shared *shared;
static struct fuse_session *session;
static pthread_t caller;

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	(void)conn;
	shared->worker = getpid();
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = { .st_ino = ino, .st_nlink = 2, .st_mode = S_IFDIR | 0755 };

	(void)fi;
	fuse_reply_attr(req, &st, 0);
}

static void on_interrupt(fuse_req_t req, void *data)
{
	(void)req;
	(void)data;
	while (shared->moment == IN_WORK && shared->asked == 1) {
		shared->told = 1;
		usleep(1000);
	}
}

/* The first try is never answered. */
static void *answer(void *arg)
{
	fuse_req_t req = arg;
	bool first = shared->asked == 1;
	int waited = 0;

	fuse_req_interrupt_func(req, on_interrupt, NULL);
	while (!fuse_req_interrupted(req) && !shared->answered && (shared->moment != NO_SIGNAL || waited < SOON_US)) {
		usleep(500);
		waited += 500;
	}
	shared->told = 1;
	while (first && !shared->answered)
		usleep(1000);
	fuse_reply_err(req, fuse_req_interrupted(req) ? EINTR : ENOENT);
	return NULL;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	pthread_t t;

	(void)parent;
	(void)name;
	shared->asked++;
	if (way == OTHER_THREAD && !pthread_create(&t, NULL, answer, req))
		pthread_detach(t);
	else
		answer(req);
}

static const struct fuse_lowlevel_ops ops = { .init = on_init, .getattr = on_getattr, .lookup = on_lookup };

static int worker(struct fr *fr, void *arg)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int err;

	(void)arg;
	fuse_loop_cfg_set_clone_fd(config, way == CLONES);
	err = way == LOOP || way == OTHER_THREAD ? fr_fuse3_loop(fr, session, 3) : fuse_session_loop_mt(session, config);
	fuse_loop_cfg_destroy(config);
	return err;
}

static int serve(const char *mountpoint)
{
	char *argv[] = { (char *)"interrupts", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	const struct fr_options o = {
		.struct_size = sizeof(o),
		.name = "interrupts",
		.slots = 4,
		.request_size = 131072,
		.reply_size = 131072,
		.worker = worker,
		.reset = fr_fuse3_reset,
	};
	struct fr *fr;
	int err;

	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!session || fr_new(&o, &fr) || fuse_session_mount(session, mountpoint))
		return 1;
	err = fr_fuse3_prepare(fr, session, way == LOOP ? 1 : 0);
	shared->mounted = 1;
	if (!err)
		err = fr_run(fr);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	fr_free(fr);
	return err ? 1 : 0;
}

static void nothing(int sig)
{
	(void)sig;
}

static void *signal_and_kill(void *mountpoint)
{
	while (!shared->asked)
		usleep(100);
	if (shared->moment != NO_SIGNAL)
		pthread_kill(caller, SIGUSR1);
	if (shared->moment >= 0)
		usleep((useconds_t)shared->moment);
	while (shared->moment < 0 && !shared->told)
		usleep(100);
	kill(shared->worker, SIGKILL);
	/* Who waits for an answer that never comes gets an error then. */
	for (int i = 0; i < HANGS_S * 100 && !shared->answered; i++)
		usleep(10000);
	if (!shared->answered)
		umount2(mountpoint, MNT_FORCE);
	shared->answered = 1;
	return NULL;
}

static int failures;

static void check(int moment, const char *what, long got, long want)
{
	if (got == want)
		return;
	printf("FAIL fuse3/interrupts-%s: moment %d: %s is %ld, expected %ld\n", ways[way], moment, what, got, want);
	failures++;
}

static void one(int moment, const char *mountpoint)
{
	char path[512];
	struct stat st;
	pthread_t t;
	long err;

	snprintf(path, sizeof(path), "%s/waits", mountpoint);
	shared->asked = shared->told = shared->answered = 0;
	shared->moment = moment;
	if (pthread_create(&t, NULL, signal_and_kill, (void *)(uintptr_t)mountpoint))
		abort();
	err = stat(path, &st) ? errno : 0;
	shared->answered = 1;
	pthread_join(t, NULL);
	check(moment, "the error", err, moment == NO_SIGNAL ? ENOENT : EINTR);
	check(moment, "the number of tries", shared->asked, 2);
}

static void run(const char *mountpoint)
{
	int status = -1, before = failures;
	pid_t pid;

	shared->mounted = 0;
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(serve(mountpoint));
	while (!shared->mounted && !waitpid(pid, &status, WNOHANG))
		usleep(1000);
	for (unsigned i = 0; i < sizeof(moments) / sizeof(*moments) && failures == before; i++)
		one(moments[i], mountpoint);
	kill(pid, SIGTERM);
	waitpid(pid, &status, 0);
	check(0, "the exit status", WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
	if (failures == before)
		printf("ok fuse3/interrupts-%s\n", ways[way]);
	umount2(mountpoint, MNT_DETACH);
}

int main(int argc, char **argv)
{
	const struct sigaction act = { .sa_handler = nothing };

	if (argc != 2)
		return 2;
	if (left_out_by_tsan("fuse3/interrupts"))
		return 77;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || sigaction(SIGUSR1, &act, NULL))
		return 1;
	caller = pthread_self();
	for (way = LOOP; way < WAYS; way++)
		run(argv[1]);
	return failures != 0;
}
