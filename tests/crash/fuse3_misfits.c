/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse3_misfits MOUNTPOINT: file systems of libfuse that have to be treated specially: those that give the
 * kernel addresses, one that answers by another thread, one that changes its mind in init(), one that wants to
 * splice; each with fr_fuse3_loop() and with fuse_session_loop(). And one with a transport of its own.
 */
#define FUSE_USE_VERSION 314

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <fuserecover-fuse3.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/tsan.h"

#define LATE_US	50000
#define HANGS_S	20
#define MANY	1500	/* more than are looked at */

enum misfit {
	NODEID, LISTED, MADE, CREATED, CREATED_HANDLE, HANDLE, DIR_HANDLE,	/* have an address */
	HANDLE_AFTER_MANY,	/* nodeids, which are none */
	NONE, OTHER_THREAD, INIT, SPLICE,
	TRANSPORT,
	ENDED_THREAD	/* another one answers when libfuse has ended the request's, an idle one to it */
};
enum where { HEAP, STACK, MAPPED, STATIC, PLACES };

static const char *const misfits[] = {
	"lookup", "readdirplus", "mkdir", "create", "create-handle", "open-handle", "opendir-handle",
	"open-handle-after-many", "none", "answer-by-other-thread", "other-init", "splice", "transport",
};
static const char *const places[] = { "heap", "stack", "mmap", "static" };


struct shared {
	_Atomic uint32_t mounted, asked, answered, inits, destroyed, said, loop;
	_Atomic int32_t worker;
};

static enum misfit misfit;
static enum where where;
static bool libfuse_loop;
static struct shared *shared;
static struct fuse_session *session;
static void *on_heap, *mapped;
static uint64_t in_data[8];

static void note(enum fuse_log_level level, const char *fmt, va_list ap)
{
	(void)level;
	(void)ap;
	if (strstr(fmt, misfit == INIT ? "init() asks" : misfit == SPLICE ? "requested capabilities" :
		   "can not be recovered") || strstr(fmt, "can be recovered"))
		shared->said++;
}

static uint64_t value(enum misfit of, uint64_t id)
{
	uint64_t on_stack = 0;
	const void *address[] = { on_heap, &on_stack, mapped, in_data };

	return misfit == of ? (uintptr_t)address[where] : id;
}

static struct fuse_entry_param entry(enum misfit of, mode_t mode)
{
	return (struct fuse_entry_param){
		.ino = value(of, 2), .attr = { .st_ino = 2, .st_nlink = 1, .st_mode = mode },
	};
}

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	shared->worker = getpid();
	if (misfit == SPLICE)
		conn->want |= FUSE_CAP_SPLICE_READ;
	conn->max_write = shared->inits++ && misfit == INIT ? 32768 : 65536;
}

static void on_destroy(void *userdata)
{
	(void)userdata;
	shared->destroyed++;
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = { .st_ino = ino, .st_nlink = 1, .st_mode = ino == 1 ? S_IFDIR | 0755 : S_IFREG | 0644 };

	(void)fi;
	fuse_reply_attr(req, &st, 0);
}

static void *answer_late(void *arg)
{
	struct fuse_entry_param e = entry(NODEID, S_IFREG | 0644);

	/* The first one never comes: its worker is killed meanwhile. */
	while (misfit == OTHER_THREAD && shared->asked == 1)
		usleep(1000);
	if (misfit == ENDED_THREAD)
		usleep(LATE_US);
	fuse_reply_entry(arg, &e);
	return NULL;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = entry(NODEID, S_IFREG | 0644);
	pthread_t t;

	(void)parent;
	if (!strncmp(name, "new", 3)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	shared->asked++;
	if ((misfit == OTHER_THREAD || misfit == ENDED_THREAD) && !pthread_create(&t, NULL, answer_late, req))
		pthread_detach(t);
	else
		fuse_reply_entry(req, &e);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct fuse_entry_param e = entry(MADE, S_IFDIR | mode);

	(void)parent;
	(void)name;
	if (misfit != MADE)
		e.ino = 3;
	fuse_reply_entry(req, &e);
}

static void on_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct fuse_entry_param e = entry(CREATED, S_IFREG | mode);

	(void)parent;
	(void)name;
	if (misfit != CREATED)
		e.ino = 4;
	fi->fh = value(CREATED_HANDLE, 7);
	fuse_reply_create(req, &e, fi);
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->fh = value(ino == 1 ? DIR_HANDLE : misfit == HANDLE_AFTER_MANY ? HANDLE_AFTER_MANY : HANDLE, 7);
	fuse_reply_open(req, fi);
}

static void on_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fuse_entry_param e = entry(LISTED, S_IFREG | 0644), none = { .attr = { .st_mode = S_IFDIR } };
	char data[512];
	size_t n = 0;

	(void)ino;
	(void)fi;
	/* Not the first one. */
	if (!off && size >= sizeof(data)) {
		n = fuse_add_direntry_plus(req, data, sizeof(data), ".", &none, 1);
		n += fuse_add_direntry_plus(req, data + n, sizeof(data) - n, "x", &e, 2);
	}
	fuse_reply_buf(req, data, n);
}

static const struct fuse_lowlevel_ops ops = {
	.init = on_init,
	.destroy = on_destroy,
	.getattr = on_getattr,
	.lookup = on_lookup,
	.mkdir = on_mkdir,
	.create = on_create,
	.open = on_open,
	.opendir = on_open,
	.readdirplus = on_readdirplus,
};

static int end_threads_at_once(void)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int err;

	fuse_loop_cfg_set_idle_threads(config, 0);
	err = fuse_session_loop_mt(session, config);
	fuse_loop_cfg_destroy(config);
	return err;
}

static ssize_t other_read(int fd, void *buf, size_t size, void *userdata)
{
	(void)userdata;
	return read(fd, buf, size);
}

static ssize_t other_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	(void)userdata;
	return writev(fd, iov, count);
}

static const struct fuse_custom_io other_io = { .read = other_read, .writev = other_writev };

static int worker(struct fr *fr, void *arg)
{
	int err;

	(void)arg;
	if (misfit == TRANSPORT)
		fuse_session_custom_io(session, &other_io, fuse_session_fd(session));
	err = misfit == ENDED_THREAD ? end_threads_at_once() : libfuse_loop ? fuse_session_loop(session) :
	      fr_fuse3_loop(fr, session, 2);
	shared->loop = (uint32_t)-err;
	return err;
}

static void quiet(void *arg, int level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

static int serve(const char *mountpoint)
{
	char *argv[] = { (char *)"misfit", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fr_options o = {
		.struct_size = sizeof(o),
		.name = "misfit",
		.slots = 2,
		.request_size = 131072,
		.reply_size = 131072,
		.worker = worker,
		.log = quiet,
	};
	struct fr *fr;
	int err;

	fuse_set_log_func(note);
	on_heap = malloc(256);
	mapped = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!session || fr_new(&o, &fr) || fuse_session_mount(session, mountpoint))
		return 1;
	err = fr_fuse3_prepare(fr, session, 0);
	shared->mounted = 1;
	if (!err)
		err = fr_run(fr);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	fr_free(fr);
	free(on_heap);
	return err ? 1 : 0;
}

static int failures;

static void check(const char *name, const char *what, long got, long want)
{
	if (got == want)
		return;
	printf("FAIL fuse3/%s: %s is %ld, expected %ld\n", name, what, got, want);
	failures++;
}

static long try_open(const char *path, int flags)
{
	int fd = open(path, flags, 0644);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static long try_list(const char *path)
{
	DIR *dir = opendir(path);
	long err = errno;

	if (!dir)
		return err;
	errno = 0;
	while (readdir(dir))
		;
	err = errno;
	closedir(dir);
	return err;
}

/* What the kernel asks for. The first error. */
static long try(enum misfit which, const char *mountpoint)
{
	char path[512], made[512], created[512];
	struct stat st;
	long err = 0;

	snprintf(path, sizeof(path), "%s/x", mountpoint);
	snprintf(made, sizeof(made), "%s/new", mountpoint);
	snprintf(created, sizeof(created), "%s/new-file", mountpoint);
	if (which == NODEID || which == OTHER_THREAD || which == ENDED_THREAD || which == NONE)
		err = stat(path, &st) ? errno : 0;
	if (!err && (which == LISTED || which == DIR_HANDLE || which == NONE))
		err = try_list(mountpoint);
	if (!err && (which == MADE || which == NONE))
		err = mkdir(made, 0755) ? errno : 0;
	if (!err && (which == CREATED || which == CREATED_HANDLE || which == NONE))
		err = try_open(created, O_CREAT | O_RDWR);
	for (int i = 0; !err && which == HANDLE_AFTER_MANY && i < MANY; i++)
		err = stat(path, &st) ? errno : 0;
	if (!err && (which == HANDLE || which == HANDLE_AFTER_MANY || which == INIT || which == NONE))
		err = try_open(path, O_RDONLY);
	return err;
}

static void *kill_first(void *arg)
{
	(void)arg;
	while (!shared->asked)
		usleep(1000);
	kill(shared->worker, SIGKILL);
	return NULL;
}

/* Who waits for an answer that never comes gets an error then. */
static void *end_by_force(void *mountpoint)
{
	for (int i = 0; i < HANGS_S * 100 && !shared->answered; i++)
		usleep(10000);
	if (!shared->answered)
		umount2(mountpoint, MNT_FORCE);
	return NULL;
}

/* One that should have ended by itself is ended. */
static int wait_for(pid_t pid)
{
	int status = -1;

	for (int i = 0; i < HANGS_S * 100; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
		usleep(10000);
	}
	kill(pid, SIGTERM);
	waitpid(pid, &status, 0);
	return -1;
}

static void run(enum misfit which, const char *name, const char *mountpoint)
{
	bool serves = which == NONE || which == OTHER_THREAD || which == ENDED_THREAD;
	bool refused_at_once = which == SPLICE || which == TRANSPORT;
	int before = failures;
	pthread_t t;
	pid_t pid;
	long err;

	memset(shared, 0, sizeof(*shared));
	misfit = which;
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(serve(mountpoint));
	while (!shared->mounted && !waitpid(pid, NULL, WNOHANG))
		usleep(1000);
	if (which == OTHER_THREAD && pthread_create(&t, NULL, kill_first, NULL))
		abort();
	if (which == ENDED_THREAD && pthread_create(&t, NULL, end_by_force, (void *)(uintptr_t)mountpoint))
		abort();
	err = try(which, mountpoint);
	/* Or what is below the mount is seen already. */
	if (!refused_at_once)
		check(name, "the error", err, serves || which == INIT ? 0 : EIO);
	shared->answered = 1;
	if (which == ENDED_THREAD)
		pthread_join(t, NULL);
	if (which == OTHER_THREAD) {
		pthread_join(t, NULL);
		check(name, "the number of tries", shared->asked, 2);
	}
	if (which == INIT)
		kill(shared->worker, SIGKILL);
	else if (!err && !refused_at_once)
		kill(pid, SIGTERM);
	check(name, "the exit status", wait_for(pid), !serves);
	check(name, "what the loop returned", (long)shared->loop,
	      serves ? 0 : which == INIT || which == SPLICE ? EPROTO : ENOTSUP);
	check(name, "a log line said why", shared->said != 0, !serves);
	check(name, "destroy() was called", shared->destroyed, serves && !libfuse_loop);
	if (failures == before)
		printf("ok fuse3/%s\n", name);
	umount2(mountpoint, MNT_DETACH);
}

/* CUSE, or a transport of its own */
static void other_device(void)
{
	const struct fr_options o = { .struct_size = sizeof(o), .name = "misfit", .worker = worker, .log = quiet };
	char *argv[] = { (char *)"misfit", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	int before = failures, fds[2];
	struct fr *fr;

	shared->said = 0;
	fuse_set_log_func(note);
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!session || fr_new(&o, &fr) || pipe(fds) || fuse_session_custom_io(session, &other_io, fds[0]))
		abort();
	check("other-device", "fr_fuse3_prepare()", fr_fuse3_prepare(fr, session, 0), -ENOTSUP);
	check("other-device", "a log line said why", shared->said, 1);
	if (failures == before)
		printf("ok fuse3/other-device\n");
	fuse_session_destroy(session);
	close(fds[1]);
	fr_free(fr);
}

int main(int argc, char **argv)
{
	char name[64];

	if (argc != 2)
		return 2;
	if (left_out_by_tsan("fuse3/misfits"))
		return 77;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	for (enum misfit i = NODEID; i <= SPLICE; i++) {
		for (where = HEAP; where < (i < NONE ? PLACES : STACK); where++) {
			libfuse_loop = (i + where) % 2;
			snprintf(name, sizeof(name), "%s-%s", misfits[i], i < NONE ? places[where] : "loop");
			run(i, name, argv[1]);
		}
	}
	for (enum misfit i = NONE; i <= SPLICE; i++) {
		libfuse_loop = !((i + HEAP) % 2);
		snprintf(name, sizeof(name), "%s-other-loop", misfits[i]);
		run(i, name, argv[1]);
	}
	libfuse_loop = false;
	run(TRANSPORT, misfits[TRANSPORT], argv[1]);
	libfuse_loop = true;
	run(ENDED_THREAD, "answer-after-thread-ended", argv[1]);
	other_device();
	return failures != 0;
}
