/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse-extent BACKEND:ARGUMENT MOUNTPOINT [-o OPTIONS] [-f]: mounts and serves. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "libfuserecover/fuserecover.h"
#include "programs/options.h"

/* As mount(8): who reads its exit status reads this one. */
enum { EXIT_OK = 0, EXIT_USAGE = 1, EXIT_SYSTEM = 2, EXIT_MOUNT = 32 };

static struct fe_host *served;
static bool from_store;		/* the checkpoint is the service manager's */

/* To start this program again, or a newer one in its place. */
static struct {
	char **argv;
	char *program;
	char *directory;
} start;

static void print_help(void)
{
	printf("usage: fuse-extent BACKEND:ARGUMENT MOUNTPOINT [-o OPTIONS] [-f] [-d]\n\n"
	       "Serves a file system on MOUNTPOINT until it is unmounted: umount MOUNTPOINT.\n"
	       "BACKEND is one of those below, or the path of a shared object: ./my-backend.so:ARGUMENT\n\n"
	       "  -o OPTIONS               by commas; what is not listed is for the backend or for mount(8)\n"
	       "  -f                       stay in the foreground, log to stderr\n"
	       "  -d                       -f with a line for each request\n"
	       "  -h, --help               this text\n"
	       "  -V, --version            the version\n\noptions:\n");
	options_print(stdout);
	printf("\nbackends:\n");
	for (const struct fe_backend *const *be = fe_builtin_backends; *be; be++)
		printf("%s\n%s", (*be)->description, (*be)->options_help ? (*be)->options_help : "");
}

/* Before a package is upgraded, after which the link says "(deleted)". */
static void remember_start(char **argv)
{
	start.argv = argv;
	start.program = realpath("/proc/self/exe", NULL);
	start.directory = getcwd(NULL, 0);
}

static int exec_program(const char *program)
{
	program = program ? program : start.program;
	/* Where it is gone, what was named relative to it is not found, and that is said. */
	if (start.directory && chdir(start.directory))
		fe_log(LOG_WARNING, "%s: %s", start.directory, strerror(errno));
	if (program)
		execv(program, start.argv);
	return program ? -errno : -ENOENT;
}

static int exit_status(int err)
{
	switch (err) {
	case 0:
		return EXIT_OK;
	case -ENOMEM:
	case -EMFILE:
	case -ENFILE:
	case -EAGAIN:
		return EXIT_SYSTEM;
	default:
		return EXIT_MOUNT;
	}
}

/* A descriptor of ours below 3 would receive what somebody prints. */
static int fill_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* A server holds a descriptor for each open file of all its users. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void on_signal(int number)
{
	(void)number;
	fe_host_stop(served);
}

static void catch_signals(void)
{
	static const int stopping[] = { SIGTERM, SIGINT, SIGHUP };
	struct sigaction stop = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct sigaction before;

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < sizeof(stopping) / sizeof(stopping[0]); i++) {
		/* nohup and a shell's background jobs have it ignored: so it stays */
		if (!sigaction(stopping[i], NULL, &before) && before.sa_handler == SIG_IGN)
			continue;
		sigaction(stopping[i], &stop, NULL);
	}
}

/* It ends anyway, and there is nobody left to tell. */
static void forget_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
}

/* Lets go of the terminal and of the working directory; from here on the log is syslog. */
static int detach(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || setsid() < 0 || chdir("/")) {
		int err = -errno;

		fe_log(LOG_ERR, "going into the background: %s", strerror(-err));
		fe_close(null);
		return err;
	}
	fe_log_to_syslog();
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	close(null);
	return 0;
}

/* Whoever used the old mount gets errors, and can go on with the new one. */
static void begin_anew(struct fe_host_options *host)
{
	fe_log(LOG_CRIT, "%s: the mount that was served before can not be taken over, and ends; a new one begins",
	       host->mountpoint);
	fr_store_clear();
	fe_host_detach(host->mountpoint, false);
	host->checkpoint = 0;
}

static int new_host(struct fe_host_options *host)
{
	int err;

	if (host->checkpoint <= 0 && host->fdstore)
		fe_host_detach(host->mountpoint, true);
	err = fe_host_new(host, &served);
	/* What may be otherwise the next time is no reason to end it. */
	if (!err || !from_store || exit_status(err) == EXIT_SYSTEM)
		return err;
	begin_anew(host);
	return fe_host_new(host, &served);
}

/* ready: a pipe that hears one byte when the mount is usable; -1: nobody waits. */
static int serve(const struct options *o, const struct fe_backend *backend, int ready)
{
	struct fe_host_options host = o->host;
	int err;

	host.backend = backend;
	err = new_host(&host);
	if (err)
		return exit_status(err);
	catch_signals();
	err = fe_host_mount(served);
	if (!err && ready >= 0) {
		err = detach();
		/* Whoever waited is gone: nobody would know of this mount. */
		if (err || write(ready, "", 1) != 1)
			fe_host_stop(served);
		close(ready);
	}
	if (!err)
		err = fe_host_serve(served) ? -EAGAIN : 0;
	forget_signals();
	fe_host_free(served);
	return exit_status(err);
}

static int wait_for_child(pid_t child, int ready)
{
	char byte;
	ssize_t n;
	int status;

	do
		n = read(ready, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		return EXIT_OK;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return EXIT_SYSTEM;
	if (WIFEXITED(status) && WEXITSTATUS(status))
		return WEXITSTATUS(status);
	if (WIFSIGNALED(status))
		fe_log(LOG_ERR, "the server ended by signal %d before the mount was usable", WTERMSIG(status));
	else
		fe_log(LOG_ERR, "the server ended before the mount was usable");
	return EXIT_MOUNT;
}

static int serve_in_background(const struct options *o, const struct fe_backend *backend)
{
	int pipes[2];
	pid_t child;

	if (pipe2(pipes, O_CLOEXEC)) {
		fe_log(LOG_ERR, "pipe: %s", strerror(errno));
		return EXIT_SYSTEM;
	}
	child = fork();
	if (child < 0) {
		fe_log(LOG_ERR, "fork: %s", strerror(errno));
		return EXIT_SYSTEM;
	}
	if (!child) {
		close(pipes[0]);
		return serve(o, backend, pipes[1]);
	}
	close(pipes[1]);
	return wait_for_child(child, pipes[0]);
}

/* In the place of the program that served before. A trial's log is for that one. */
static int take_over(const struct options *o, const struct fe_backend *backend, int trial)
{
	if (!o->foreground && !trial)
		fe_log_to_syslog();
	if (!o->foreground && chdir("/"))
		return EXIT_SYSTEM;
	return serve(o, backend, -1);
}

static int check_fdstore(const struct options *o)
{
	const char *needs = !o->foreground ? "-f" : o->host.norecover ? "a keeper, which norecover excludes" :
			    !getenv("NOTIFY_SOCKET") ? "a service manager (NOTIFY_SOCKET)" : geteuid() ? "root" : NULL;

	if (!o->host.fdstore || !needs)
		return 0;
	fe_log(LOG_ERR, "the option fdstore needs %s", needs);
	return -EINVAL;
}

static int run(struct options *o, int trial)
{
	const struct fe_backend *backend;

	fe_log_init("fuse-extent", o->host.debug ? LOG_DEBUG : LOG_INFO);
	if (o->host.writeback && !o->host.nopassthrough) {
		fe_log(LOG_INFO, "writeback: the kernel caches writes, so files are not passed through to it");
		o->host.nopassthrough = 1;
	}
	o->host.notify = o->foreground && getenv("NOTIFY_SOCKET");
	if (check_fdstore(o) || fe_backend_load(o->backend, &backend))
		return EXIT_USAGE;
	if (from_store && (o->host.checkpoint <= 0 || !o->host.fdstore))
		begin_anew(&o->host);
	raise_file_limit();
	if (o->host.checkpoint > 0)
		return take_over(o, backend, trial);
	return o->foreground ? serve(o, backend, -1) : serve_in_background(o, backend);
}

int main(int argc, char **argv)
{
	char error[OPTIONS_ERROR_SIZE];
	struct options o = { 0 };
	int checkpoint, trial, status;
	bool by_upgrade;

	by_upgrade = getenv("FUSERECOVER_CHECKPOINT");
	checkpoint = fr_inherited(&trial);
	from_store = checkpoint != -ENOENT && !by_upgrade;
	remember_start(argv);
	if (fill_standard_descriptors())
		return EXIT_SYSTEM;
	if (by_upgrade && checkpoint < 0) {
		fprintf(stderr, "fuse-extent: the checkpoint in the environment (FUSERECOVER_CHECKPOINT): %s\n",
			strerror(-checkpoint));
		return EXIT_SYSTEM;
	}
	if (options_parse(&o, argc, argv, !geteuid(), error)) {
		fprintf(stderr, "fuse-extent: %s\n", error);
		status = EXIT_USAGE;
	} else if (o.help) {
		print_help();
		status = fflush(stdout) ? EXIT_SYSTEM : EXIT_OK;
	} else if (o.version) {
		printf("fuse-extent " PACKAGE_VERSION "\n");
		status = fflush(stdout) ? EXIT_SYSTEM : EXIT_OK;
	} else {
		o.host.checkpoint = checkpoint;
		o.host.exec = exec_program;
		status = run(&o, trial);
	}
	options_free(&o);
	free(start.program);
	free(start.directory);
	return status;
}
