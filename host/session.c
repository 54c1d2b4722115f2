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
#include "host/answers.h"

#define MAX_HANDLES	(1u << 24)
#define MAX_PARKED	(1u << 16)
#define WORKERS		16	/* at most, unless asked */
#define CHECKPOINT_LAYOUT 9	/* raise it with each change of a record or of struct shared */
#define CLOSE_TRIES	3	/* servers that die of the end, until there is none */
#define WATCH_MS	2	/* how often the monitor looks while requests run */
#define WATCH_IDLE	100	/* so many looks without a request: it sleeps until the next one */
#define SWEEP_AFTER_NS	1000000000u	/* one death may follow another, and waits for a helper that is at work */

static bool may_recover(const struct fe_host *h)
{
	return !h->opt.norecover && h->root.features & FE_FEAT_RECOVER && !TSAN;
}

/* Whether the mount is already served, by another program. */
static bool adopted(const struct fe_host *h)
{
	return h->opt.checkpoint > 0;
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
	h->opt.mountpoint = NULL;
	if (h->opt.cache == FE_CACHE_OFF)
		h->opt.entry_valid = h->opt.attr_valid = h->opt.negative_valid = 0;
	return h->opt.source && h->opt.backend && o->mountpoint ? 0 : -EINVAL;
}

/* The server may leave its directory: keep where the mount is from the root on. */
static int find_mountpoint(struct fe_host *h, const char *given)
{
	if (realpath(given, h->shared->mountpoint))
		return 0;
	fe_log(LOG_ERR, "%s: %s; the mountpoint must be a directory that exists", given, strerror(errno));
	return -errno;
}

static void settle_options(struct fe_host *h)
{
	uint32_t features = h->root.features;

	if (features & FE_FEAT_KERNEL_PERMS)
		h->opt.default_permissions = 1;
	/* It is agreed with the kernel. */
	if (adopted(h))
		return;
	if (!(features & FE_FEAT_PASSTHROUGH) || !h->be->backing_fd)
		passthrough_set(h, PASSES_NOTHING, "the backend has no files that the kernel could use");
	else if (h->opt.writeback)
		passthrough_set(h, PASSES_NOTHING, "the writeback option excludes it");
	else if (h->opt.nopassthrough)
		passthrough_set(h, PASSES_NOTHING, "switched off by the nopassthrough option");
	else if (geteuid())
		passthrough_set(h, PASSES_NOTHING, "registering a backing file needs root");
	else
		passthrough_set(h, PASSES_DRIVER, "");
	h->shared->max_write = h->opt.max_write && h->opt.max_write < MAX_WRITE ? h->opt.max_write : MAX_WRITE;
	if (h->shared->max_write < h->page)
		h->shared->max_write = (uint32_t)h->page;
}

static void recover_log(void *arg, int level, const char *line)
{
	(void)arg;
	fe_log(level, "%s", line);
}

/* As before any worker ran: at the start, and in a keeper that was forked from a worker with threads. */
static void process_reset(void *arg)
{
	struct fe_host *h = arg;
	pthread_mutexattr_t recursive;

	h->pool = (struct pool){ .max = h->pool.max };
	h->service_slot = NULL;
	atomic_store(&h->ended, false);
	pthread_mutex_init(&h->pool.lock, NULL);
	pthread_mutex_init(&h->parked_lock, NULL);
	/* A node that ends within one step gives back what it owns in the next. */
	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&h->service_lock, &recursive);
	pthread_mutexattr_destroy(&recursive);
	for (int i = 0; i < STRIPES; i++)
		pthread_mutex_init(&h->open_locks[i], NULL);
	standing_init(h);
	pthread_mutex_init(&h->readings_lock, NULL);
	for (int i = 0; i < READINGS; i++)
		h->readings[i].fh = h->readings[i].busy = 0;
	orders_init(h);
}

static int exec_program(void *arg, const char *program)
{
	struct fe_host *h = arg;

	return h->opt.exec(program);
}

static int serve(struct fr *fr, void *arg);

static uint32_t hang_ms(uint64_t ns)
{
	uint64_t ms = (ns + 999999) / 1000000;

	return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

static int checkpoint_told(const struct fe_host *h, int err)
{
	if (err == -EINVAL && adopted(h))
		fe_log(LOG_ERR, "the state of the mount is that of another version or of other options");
	else if (err)
		fe_log(LOG_ERR, "memory for the state of the mount: %s", strerror(-err));
	return err;
}

static int checkpoint_new(struct fe_host *h)
{
	struct fr_options o = {
		.struct_size = sizeof(o),
		.layout = CHECKPOINT_LAYOUT,
		.name = "fuse-extent",
		.request_size = REQUEST_SIZE,
		.reply_size = REPLY_SIZE,
		.intent_size = FE_INTENT_SIZE,
		.note_size = sizeof(struct note),
		.worker = serve,
		.reset = process_reset,
		.arg = h,
		.log = recover_log,
		.deaths = h->opt.recover_limit > 256 ? FR_NEVER : h->opt.recover_limit,
		.exec = h->opt.exec ? exec_program : NULL,
		.hang_ms = hang_ms(h->opt.hang_limit),
		.notify = (uint32_t)h->opt.notify,
	};
	int err;

	h->pool.max = h->opt.max_threads ? h->opt.max_threads : WORKERS;
	if (h->pool.max > FR_SLOTS_MAX - 1)
		h->pool.max = FR_SLOTS_MAX - 1;
	o.slots = h->slots = h->pool.max + 1;
	err = adopted(h) ? fr_adopt(&o, h->opt.checkpoint, &h->fr) : fr_new(&o, &h->fr);
	if (!err)
		err = fr_area_new(h->fr, "host", sizeof(*h->shared), (void **)&h->shared);
	if (!err)
		err = fr_table_new(h->fr, "parked", sizeof(struct parked), 0, 0, MAX_PARKED, &h->parked);
	if (!err && !adopted(h))
		h->shared->fd = h->shared->control_fd = -1;
	return checkpoint_told(h, err);
}

/* What a record holds is known when the backend is open. */
static int tables_new(struct fe_host *h)
{
	int err = nodes_init(h);

	if (!err)
		err = fr_table_new(h->fr, "handles", (uint32_t)sizeof(struct handle) + h->be->handle_size, 0, 0,
				   MAX_HANDLES, &h->handles);
	return checkpoint_told(h, err);
}

int fe_host_new(const struct fe_host_options *options, struct fe_host **out)
{
	struct fe_host *h = calloc(1, sizeof(*h));
	int err;

	if (!h)
		return -ENOMEM;
	h->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	h->page = (size_t)sysconf(_SC_PAGESIZE);
	process_reset(h);
	err = h->quit_fd < 0 || h->wake_fd < 0 ? -EMFILE : copy_options(h, options);
	if (err)
		goto fail;
	h->be = h->opt.backend;
	err = checkpoint_new(h);
	if (!err && !adopted(h))
		err = find_mountpoint(h, options->mountpoint);
	if (!err)
		err = backend_open(h);
	if (!err)
		err = tables_new(h);
	if (err)
		goto fail;
	if (adopted(h))
		err = adopt_check(h, options);
	else
		adopt_note(h, options);
	if (!err && h->opt.fdstore && !(may_recover(h) && h->root.features & FE_FEAT_ADOPT)) {
		fe_log(LOG_ERR, "the option fdstore needs a keeper, and a backend that another program can take over");
		err = -ENOTSUP;
	}
	if (err)
		goto fail;
	settle_options(h);
	err = adopted(h) ? answers_adopt(h) : answers_open(h);
	if (err)
		goto fail;
	*out = h;
	return 0;
fail:
	fe_host_free(h);
	return err;
}

/* INIT can make it less only; what the kernel does by itself hides no network. */
static void read_ahead(const struct fe_host *h)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", h->shared->dev_major, h->shared->dev_minor);
	f = h->root.read_ahead ? fopen(path, "we") : NULL;
	if (!f)
		return;
	fprintf(f, "%llu", (unsigned long long)(h->root.read_ahead / 1024));
	if (fclose(f))
		fe_log(LOG_INFO, "%s: %s; the kernel reads ahead as it does by itself", path, strerror(errno));
}

static int mount_new(struct fe_host *h)
{
	int err = mount_fuse(h, h->root.root.attr.stx_mode);

	if (!err)
		err = handshake(h);
	if (!err)
		err = control_open(h);
	if (!err)
		read_ahead(h);
	return err;
}

int fe_host_mount(struct fe_host *h)
{
	int err = adopted(h) ? adopt_mount(h) : mount_new(h);

	if (!err)
		err = adopt_store(h);
	if (err && h->mounted) {
		unmount_fuse(h, true);
		h->mounted = false;
	}
	return err;
}

static uint64_t drain(int fd)
{
	uint64_t count = 0;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void unmount_asked(struct fe_host *h)
{
	int err;

	if (h->opt.notify)
		fr_notify("STOPPING=1");
	if (atomic_load(&h->shared->stops) > 1) {
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
		       "signal ends it at once", h->shared->mountpoint);
		err = unmount_fuse(h, true);
	}
	if (err)
		fe_log(LOG_ERR, "unmounting %s: %s", h->shared->mountpoint, strerror(-err));
}

/* In ms for poll(2). */
static int until_sweep(const struct fe_host *h)
{
	uint64_t now = now_ns();

	return !h->sweep_due ? -1 : h->sweep_due > now ? (int)((h->sweep_due - now) / 1000000 + 1) : 0;
}

/* Answers requests until the connection ends: the main thread of the worker, which is the monitor. */
static int monitor(struct fe_host *h, unsigned unfinished)
{
	struct pollfd fds[] = {
		{ .fd = h->quit_fd, .events = POLLIN },
		{ .fd = fr_stop_fd(h->fr), .events = POLLIN },
		{ .fd = h->wake_fd, .events = POLLIN },
		{ .fd = h->shared->control_fd, .events = POLLIN },
	};
	unsigned quiet = 0;
	bool sweeping;
	int err;

	fr_helper_enter(h->fr);
	err = pool_start(h, unfinished);
	if (err) {
		fe_log(LOG_ERR, "starting a worker: %s", strerror(-err));
		return err;
	}
	for (;;) {
		bool sleep = quiet >= WATCH_IDLE;

		if (sleep) {
			atomic_store(&h->pool.monitor_asleep, true);
			sleep = !pool_watch(h); /* a request that came just before saw it awake */
		}
		fr_helper_leave(h->fr);
		poll(fds, 4, sleep ? until_sweep(h) : WATCH_MS);
		fr_helper_enter(h->fr);
		if (fds[0].revents)
			break;
		if (fds[1].revents) {
			atomic_fetch_add(&h->shared->stops, (uint32_t)drain(fds[1].fd));
			unmount_asked(h);
		}
		if (fds[2].revents)
			drain(h->wake_fd);
		if (fds[3].revents)
			control_serve(h);
		sweeping = !until_sweep(h);
		if (sweeping)
			nodes_sweep(h);
		quiet = pool_watch(h) || fds[2].revents || sweeping ? 0 : quiet + 1;
	}
	/* In all processes at once: the next mount may get the same number. */
	fe_close(h->shared->control_fd);
	h->shared->control_fd = -1;
	pool_join(h);
	return 0;
}

int serve_begin(struct fe_host *h, unsigned *unfinished)
{
	int err = fr_slot_take(h->fr, h->slots - 1, &h->service_slot);

	*unfinished = 0;
	if (!err && fr_generation(h->fr) > 1) {
		answers_resume(h);
		*unfinished = recover(h);
		h->sweep_due = now_ns() + SWEEP_AFTER_NS;
	}
	/* The first one may have died before it came to this. */
	if (!err && !fr_table_used(h->nodes))
		err = node_add_root(h, h->root.root.record);
	h->rooted = !err;
	return err;
}

void serve_end(struct fe_host *h)
{
	handles_fini(h);
	nodes_forget(h);
	/* It may complete what still waits: needs the tables. */
	backend_close(h);
	fr_slot_leave(h->service_slot);
	h->service_slot = NULL;
}

/* A worker process, from its first request or from where its predecessor died to the unmount. */
static int serve(struct fr *fr, void *arg)
{
	struct fe_host *h = arg;
	unsigned unfinished;
	int err = serve_begin(h, &unfinished);

	(void)fr;
	if (!err)
		err = monitor(h, unfinished);
	if (err)
		return err;
	/* Nothing but ENOTCONN would ever come from it. */
	if (atomic_load(&h->shared->aborted) && lies_on_top(h))
		unmount_fuse(h, true);
	/* Nobody waits for anything any more: a backend that dies of it must not do so for ever. */
	if (atomic_fetch_add(&h->shared->closings, 1) >= CLOSE_TRIES) {
		fe_log(LOG_ERR, "%d servers died of closing the backend %s: it stays as it is", CLOSE_TRIES, h->be->name);
		return 0;
	}
	serve_end(h);
	pool_free(h);
	return 0;
}

int fe_host_serve(struct fe_host *h)
{
	int err;

	h->served = true;
	h->recovers = may_recover(h);
	if (h->opt.notify)
		fr_notify("READY=1\nSTATUS=serving");
	if (TSAN)
		fe_log(LOG_INFO, "ThreadSanitizer adds a thread to each process: served without a keeper");
	else if (!h->opt.norecover && !h->recovers)
		fe_log(LOG_INFO, "the death of this server will end the mount: the backend %s can not be taken over",
		       h->be->name);
	err = h->recovers ? fr_run(h->fr) : fr_run_alone(h->fr);
	if (err == -ENOSYS)
		fe_log(LOG_ERR, "not served: mount with -o norecover, and do without a successor");
	/* Where this program could not even begin to take over, the mount is still served by another. */
	if (err && !(adopted(h) && fr_keeper_pid(h->fr)))
		unmount_fuse(h, true);
	h->mounted = false;
	if (h->opt.notify)
		fr_notify("STOPPING=1");
	return err;
}

void fe_host_stop(struct fe_host *h)
{
	int saved = errno;

	fr_stop(h->fr);
	errno = saved;
}

void fe_host_free(struct fe_host *h)
{
	if (!h)
		return;
	/* A worker closed the backend. Its memory in this process, as open() left it, goes with the process. */
	if (h->served && h->recovers)
		return;
	if (!h->served) {
		if (h->priv && h->be->forget && !h->rooted)
			h->be->forget(h->priv, &(struct fe_node){ .record = h->root.root.record });
		backend_close(h);
	}
	free(h->root.root.record);
	answers_close(h);
	if (h->shared) {
		fe_close(h->shared->fd);
		fe_close(h->shared->control_fd);
	}
	fe_close(h->quit_fd);
	fe_close(h->wake_fd);
	if (h->fr)
		fr_free(h->fr);
	free((char *)h->opt.source);
	free((char *)h->opt.argument);
	free((char *)h->opt.backend_options);
	free((char *)h->opt.kernel_options);
	free(h);
}
