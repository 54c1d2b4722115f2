/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a served mount: opened, mounted, served, stopped. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "host/internal.h"

#define MAX_HANDLES	(1u << 24)
#define MAX_PARKED	(1u << 16)
#define WATCH_MS	2	/* how often the monitor looks while requests run */
#define WATCH_IDLE	100	/* so many looks without a request: it sleeps until the next one */

static void service_log(void *host, int level, const char *fmt, ...)
{
	va_list ap;

	(void)host;
	va_start(ap, fmt);
	fe_vlog(level, fmt, ap);
	va_end(ap);
}

static int service_open_inner(void *host, const char *source, const char *options, struct fe_inner **out);

static void services_init(struct fe_host *h)
{
	h->services = (struct fe_services){
		.struct_size = sizeof(h->services),
		.complete = parked_complete,
		.inval_inode = notify_inval_inode,
		.inval_entry = notify_inval_entry,
		.notify_delete = notify_delete,
		.store = notify_store,
		.nodeid_of_key = node_of_key,
		.with_node = node_with_key,
		.log = service_log,
		.open_inner = service_open_inner,
	};
}

static int open_backend(struct fe_host *h, const struct fe_backend *be, const char *argument,
			const char *options, struct fe_root *root, void **priv)
{
	struct fe_open_args args = {
		.struct_size = sizeof(args),
		.argument = argument,
		.options = options ? options : "",
		.services = &h->services,
		.host = h,
		.entry_valid = h->opt.entry_valid,
		.attr_valid = h->opt.attr_valid,
		.writeback = h->opt.writeback,
		.read_only = !!(h->opt.mount_flags & 1 /* MS_RDONLY */),
	};

	memset(root, 0, sizeof(*root));
	root->root.record = calloc(1, RECORD_MAX);
	if (!root->root.record)
		return -ENOMEM;
	return be->open(&args, root, priv);
}

static int open_outer(struct fe_host *h)
{
	const char *options = h->opt.backend_options;
	int err;

	if (options && *options && !h->be->options_help) {
		fe_log(LOG_ERR, "unknown option \"%s\"; the backend %s takes none", options, h->be->name);
		return -EINVAL;
	}
	err = open_backend(h, h->be, h->opt.argument ? h->opt.argument : "", options, &h->root, &h->priv);
	if (err)
		fe_log(LOG_ERR, "%s could not be opened: %s", h->opt.source, strerror(-err));
	return err;
}

/* An inner backend is one like any other: its own record sizes are for the outer one to provide. */
static int service_open_inner(void *host, const char *source, const char *options, struct fe_inner **out)
{
	struct fe_host *h = host;
	const char *colon = strchr(source, ':');
	_cleanup_free_ char *name = colon ? strndup(source, (size_t)(colon - source)) : NULL;
	struct fe_inner *inner;
	int err;

	if (!name) {
		fe_log(LOG_ERR, "the inner backend \"%s\" is not of the form NAME:ARGUMENT", source);
		return -EINVAL;
	}
	if (h->inner) {
		fe_log(LOG_ERR, "a backend can stack upon one other only; %s would be the second", source);
		return -EBUSY;
	}
	inner = calloc(1, sizeof(*inner));
	if (!inner)
		return -ENOMEM;
	err = fe_backend_load(name, &inner->backend);
	if (!err)
		err = open_backend(h, inner->backend, colon + 1, options, &inner->root, &inner->priv);
	if (err) {
		if (inner->priv)
			inner->backend->close(inner->priv);
		free(inner->root.root.record);
		free(inner);
		return err;
	}
	h->inner = inner;
	*out = inner;
	return 0;
}

static void copy_string(const char **s)
{
	if (*s)
		*s = strdup(*s);
}

static int copy_options(struct fe_host *h, const struct fe_host_options *o)
{
	memcpy(&h->opt, o, o->struct_size < sizeof(h->opt) ? o->struct_size : sizeof(h->opt));
	copy_string(&h->opt.source);
	copy_string(&h->opt.argument);
	copy_string(&h->opt.backend_options);
	copy_string(&h->opt.kernel_options);
	/* The server may leave its directory: keep where the mount is from the root on. */
	h->opt.mountpoint = o->mountpoint ? realpath(o->mountpoint, NULL) : NULL;
	if (!h->opt.mountpoint) {
		int err = o->mountpoint ? -errno : -EINVAL;

		fe_log(LOG_ERR, "%s: %s; the mountpoint must be a directory that exists",
		       o->mountpoint ? o->mountpoint : "", strerror(-err));
		return err;
	}
	return h->opt.source && h->opt.backend ? 0 : -EINVAL;
}

static void settle_options(struct fe_host *h)
{
	uint32_t features = h->root.features;

	h->passthrough = features & FE_FEAT_PASSTHROUGH && h->be->backing_fd && !h->opt.nopassthrough &&
			 !h->opt.writeback && !geteuid();
	if (!(features & FE_FEAT_PASSTHROUGH) || !h->be->backing_fd)
		h->passthrough_reason = "the backend has no files that the kernel could use";
	else if (h->opt.writeback)
		h->passthrough_reason = "the writeback option excludes it";
	else if (h->opt.nopassthrough)
		h->passthrough_reason = "switched off by the nopassthrough option";
	else
		h->passthrough_reason = "registering a backing file needs root";
	if (features & FE_FEAT_KERNEL_PERMS)
		h->opt.default_permissions = 1;
	h->max_write = h->opt.max_write && h->opt.max_write < MAX_WRITE ? h->opt.max_write : MAX_WRITE;
	if (h->max_write < h->page)
		h->max_write = (uint32_t)h->page;
}

int fe_host_new(const struct fe_host_options *options, struct fe_host **out)
{
	struct fe_host *h = calloc(1, sizeof(*h));
	int err;

	if (!h)
		return -ENOMEM;
	h->fd = h->control_fd = -1;
	h->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	h->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	h->page = (size_t)sysconf(_SC_PAGESIZE);
	pthread_mutex_init(&h->pool.lock, NULL);
	pthread_mutex_init(&h->parked_lock, NULL);
	err = h->stop_fd < 0 || h->quit_fd < 0 || h->wake_fd < 0 ? -EMFILE : copy_options(h, options);
	if (err)
		goto fail;
	services_init(h);
	h->be = h->opt.backend;
	err = nodes_init(h);
	if (err)
		goto fail;
	err = table_init(&h->handles, "fuse-extent-handles", sizeof(struct handle) + h->be->handle_size, MAX_HANDLES);
	if (!err)
		err = table_init(&h->parked, "fuse-extent-parked", sizeof(struct parked), MAX_PARKED);
	if (!err)
		err = open_outer(h);
	if (err)
		goto fail;
	settle_options(h);
	err = node_add_root(h, h->root.root.record);
	if (err)
		goto fail;
	*out = h;
	return 0;
fail:
	fe_host_free(h);
	return err;
}

int fe_host_mount(struct fe_host *h)
{
	int err = mount_fuse(h, h->root.root.attr.stx_mode);

	if (!err)
		err = handshake(h);
	if (!err)
		err = control_open(h);
	if (err && h->mounted) {
		unmount_fuse(h, true);
		h->mounted = false;
	}
	return err;
}

static void drain(int fd)
{
	uint64_t count;
	ssize_t n = read(fd, &count, sizeof(count));

	(void)n;
}

static void unmount_asked(struct fe_host *h)
{
	int err;

	if (atomic_load(&h->stops) > 1) {
		uint64_t one = 1;
		ssize_t n = write(h->quit_fd, &one, sizeof(one));

		(void)n;
		atomic_store(&h->ended, true);
		unmount_fuse(h, true);
		return;
	}
	err = unmount_fuse(h, false);
	if (err == -EBUSY) {
		fe_log(LOG_NOTICE, "%s is in use: detached, and served until its last user is gone; a second "
		       "signal ends it at once", h->opt.mountpoint);
		err = unmount_fuse(h, true);
	}
	if (err)
		fe_log(LOG_ERR, "unmounting %s: %s", h->opt.mountpoint, strerror(-err));
}

int fe_host_serve(struct fe_host *h)
{
	struct pollfd fds[] = {
		{ .fd = h->quit_fd, .events = POLLIN },
		{ .fd = h->stop_fd, .events = POLLIN },
		{ .fd = h->wake_fd, .events = POLLIN },
		{ .fd = h->control_fd, .events = POLLIN },
	};
	unsigned quiet = 0;
	int err = pool_start(h);

	if (err) {
		fe_log(LOG_ERR, "starting a worker: %s", strerror(-err));
		unmount_fuse(h, true);
		return err;
	}
	for (;;) {
		bool sleep = quiet >= WATCH_IDLE;

		if (sleep) {
			atomic_store(&h->pool.monitor_asleep, true);
			sleep = !pool_watch(h); /* a request that came just before saw it awake */
		}
		poll(fds, 4, sleep ? -1 : WATCH_MS);
		if (fds[0].revents)
			break;
		if (fds[1].revents) {
			drain(h->stop_fd);
			unmount_asked(h);
		}
		if (fds[2].revents)
			drain(h->wake_fd);
		if (fds[3].revents)
			control_serve(h);
		quiet = pool_watch(h) || fds[2].revents ? 0 : quiet + 1;
	}
	pool_join(h);
	h->mounted = false;
	return 0;
}

void fe_host_stop(struct fe_host *h)
{
	uint64_t one = 1;
	int saved = errno;
	ssize_t n;

	atomic_fetch_add(&h->stops, 1);
	n = write(h->stop_fd, &one, sizeof(one));
	(void)n;
	errno = saved;
}

void fe_host_free(struct fe_host *h)
{
	if (!h)
		return;
	if (h->priv && h->handles.base)
		handles_fini(h);
	if (h->priv && h->nodes.base)
		nodes_forget(h);
	/* It may complete what still waits: needs the tables. */
	if (h->priv)
		h->be->close(h->priv);
	pool_free(h);
	nodes_fini(h);
	if (h->inner) {
		h->inner->backend->close(h->inner->priv);
		free(h->inner->root.root.record);
		free(h->inner);
	}
	if (h->handles.base)
		table_fini(&h->handles);
	if (h->parked.base)
		table_fini(&h->parked);
	free(h->root.root.record);
	fe_close(h->fd);
	fe_close(h->stop_fd);
	fe_close(h->quit_fd);
	fe_close(h->wake_fd);
	fe_close(h->control_fd);
	free((char *)h->opt.source);
	free((char *)h->opt.mountpoint);
	free((char *)h->opt.argument);
	free((char *)h->opt.backend_options);
	free((char *)h->opt.kernel_options);
	free(h);
}
