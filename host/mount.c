/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mounting: by mount(2) as root, else by fusermount3, which hands over the descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/mountinfo.h"
#include "host/internal.h"

#define FUSERMOUNT	"fusermount3"

extern char **environ;

/* The options that mount(2) and fusermount3 take alike. */
static int common_options(const struct fe_host_options *o, char *out, size_t size)
{
	char max_read[32] = "";
	int n;

	if (o->max_read)
		snprintf(max_read, sizeof(max_read), ",max_read=%u", o->max_read);
	n = snprintf(out, size, "%s%s%s%s%s", o->allow_other ? ",allow_other" : "",
		     o->default_permissions ? ",default_permissions" : "", max_read,
		     o->kernel_options && *o->kernel_options ? "," : "",
		     o->kernel_options ? o->kernel_options : "");
	if (n >= 0 && (size_t)n < size)
		return 0;
	fe_log(LOG_ERR, "the mount options are too long; leave some out");
	return -E2BIG;
}

static int mount_privileged(struct fe_host *h, uint32_t root_mode)
{
	const struct fe_host_options *o = &h->opt;
	char options[512], data[640];
	int err = common_options(o, options, sizeof(options));

	if (err)
		return err;
	h->shared->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (h->shared->fd < 0) {
		err = -errno;
		fe_log(LOG_ERR, "/dev/fuse: %s; is the fuse module loaded (modprobe fuse)?", strerror(-err));
		return err;
	}
	snprintf(data, sizeof(data), "fd=%d,rootmode=%o,user_id=%u,group_id=%u%s", h->shared->fd, root_mode & S_IFMT,
		 getuid(), getgid(), options);
	if (mount(o->source, h->shared->mountpoint, FE_FSTYPE, o->mount_flags, data)) {
		err = -errno;
		fe_log(LOG_ERR, "mounting on %s: %s", h->shared->mountpoint, strerror(-err));
	}
	return err;
}

static int receive_fd(int sock)
{
	char byte;
	struct iovec iov = { &byte, 1 };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space),
	};
	struct cmsghdr *c;
	ssize_t n;
	int fd;

	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(sizeof(int)))
		return -EPERM;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* A comma and a backslash in an option's value are escaped for fusermount3. */
static char *escape(const char *in)
{
	char *out = malloc(2 * strlen(in) + 1);
	size_t n = 0;

	for (; out && *in; in++) {
		if (*in == ',' || *in == '\\')
			out[n++] = '\\';
		out[n++] = *in;
	}
	if (out)
		out[n] = 0;
	return out;
}

static int run_fusermount(char *const argv[], int sock)
{
	posix_spawn_file_actions_t actions;
	char number[16], *env[64];
	size_t n = 0;
	pid_t pid;
	int status, err;
	char var[32];

	snprintf(number, sizeof(number), "%d", sock);
	snprintf(var, sizeof(var), "_FUSE_COMMFD=%s", number);
	for (char **e = environ; *e && n < 62; e++)
		if (strncmp(*e, "_FUSE_COMMFD=", 13))
			env[n++] = *e;
	env[n++] = var;
	env[n] = NULL;
	posix_spawn_file_actions_init(&actions);
	if (sock >= 0) /* the same number without close-on-exec */
		posix_spawn_file_actions_adddup2(&actions, sock, sock);
	err = -posix_spawnp(&pid, FUSERMOUNT, &actions, NULL, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	if (err)
		return err;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EPERM;
}

/* The whole line behind -o for fusermount3; NULL without memory. */
static char *helper_options(const struct fe_host_options *o, const char *common)
{
	static const struct {
		unsigned long flag;
		const char *name;
	} names[] = {
		{ MS_RDONLY, "ro" }, { MS_NOEXEC, "noexec" }, { MS_NOATIME, "noatime" },
		{ MS_SYNCHRONOUS, "sync" }, { MS_DIRSYNC, "dirsync" },
	};
	_cleanup_free_ char *source = escape(o->source);
	char *options = NULL;
	size_t size;
	FILE *f = source ? open_memstream(&options, &size) : NULL;

	if (!f)
		return NULL;
	fprintf(f, "nosuid,nodev,subtype=fuse-extent,fsname=%s%s", source, common);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (o->mount_flags & names[i].flag)
			fprintf(f, ",%s", names[i].name);
	if (!fclose(f))
		return options;
	free(options);
	return NULL;
}

static int mount_by_helper(struct fe_host *h)
{
	const struct fe_host_options *o = &h->opt;
	_cleanup_free_ char *options = NULL;
	char common[512];
	int socks[2], err;

	err = common_options(o, common, sizeof(common));
	if (err)
		return err;
	options = helper_options(o, common);
	if (!options)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks))
		return -errno;
	err = run_fusermount((char *[]){ FUSERMOUNT, "-o", options, "--", h->shared->mountpoint, NULL }, socks[0]);
	if (err == -ENOENT)
		fe_log(LOG_ERR, FUSERMOUNT " is not installed; install the package fuse3, or mount as root");
	else if (err)
		fe_log(LOG_ERR, FUSERMOUNT " could not mount on %s%s", h->shared->mountpoint,
		       o->allow_other ? "; allow_other needs user_allow_other in /etc/fuse.conf" : "");
	close(socks[0]);
	if (!err) {
		h->shared->fd = receive_fd(socks[1]);
		err = h->shared->fd < 0 ? h->shared->fd : 0;
	}
	close(socks[1]);
	if (!err && fcntl(h->shared->fd, F_SETFL, O_RDWR | O_NONBLOCK))
		err = -errno;
	return err;
}

int mount_fuse(struct fe_host *h, uint32_t root_mode)
{
	int err = geteuid() ? mount_by_helper(h) : mount_privileged(h, root_mode);

	h->mounted = !err;
	if (!err)
		fr_fd_keep(h->fr, NULL, h->shared->fd);
	return err;
}

void fe_host_detach(const char *mountpoint, int dead)
{
	_cleanup_free_ char *path = realpath(mountpoint, NULL);
	const char *at = path ? path : mountpoint;
	struct mount_entry top;
	struct stat st;

	while (!mountinfo_lookup(at, &top) && !strcmp(top.fstype, FE_FSTYPE) && !(dead && (!stat(at, &st) || errno != ENOTCONN)) &&
	       !umount2(at, UMOUNT_NOFOLLOW | MNT_DETACH))
		fe_log(LOG_WARNING, "%s: what was mounted there before is detached", at);
}

int unmount_fuse(struct fe_host *h, bool lazy)
{
	const char *at = h->shared->mountpoint;

	if (!geteuid())
		return umount2(at, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) ? -errno : 0;
	return run_fusermount((char *[]){ FUSERMOUNT, "-u", "-q", lazy ? "-z" : "--", (char *)at, NULL }, -1) ? -EBUSY
													     : 0;
}
