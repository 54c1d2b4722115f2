/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Serves one backend on one mount: speaks the FUSE protocol on /dev/fuse and calls the backend.
 *
 * In the order of use: fe_backend_load(), fe_host_new(), fe_host_mount(), fe_host_serve() (returns
 * when the file system is no longer mounted), fe_host_free(). fe_host_stop() ends it from a signal
 * handler. All functions return 0 or a negative errno, after a line in the log that says what to do.
 */
#ifndef FUSE_EXTENT_HOST_H
#define FUSE_EXTENT_HOST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "backends/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fe_host;

/* Who answers the kernel's questions besides the server; see extfuse(7). */
enum fe_cache {
	FE_CACHE_AUTO = 0,	/* the hook where it can be had, else native */
	FE_CACHE_HOOK = 1,	/* the hook, and the driver's own caches */
	FE_CACHE_EXACT = 2,	/* the hook alone */
	FE_CACHE_NATIVE = 3,	/* the driver's own caches */
	FE_CACHE_OFF = 4,	/* nobody */
};

struct fe_host_options {
	uint32_t struct_size;		/* sizeof(struct fe_host_options) */
	const char *source;		/* as the mount table shows it: "passthrough:/srv/data" */
	const char *mountpoint;
	const struct fe_backend *backend;
	const char *argument;		/* of the backend, behind "NAME:" */
	const char *backend_options;	/* options for the backend, by commas; NULL for none */
	const char *kernel_options;	/* extra mount options for the kernel, by commas; NULL for none */
	unsigned long mount_flags;	/* MS_RDONLY, MS_NOSUID, ... */
	uint64_t entry_valid;		/* nanoseconds the kernel may keep a name */
	uint64_t attr_valid;		/* ... attributes */
	uint64_t negative_valid;	/* ... the absence of a name */
	unsigned max_threads;		/* 0: choose */
	unsigned max_read;		/* bytes of one READ, 0: as large as the kernel takes */
	unsigned max_write;
	int allow_other;
	int default_permissions;
	int nopassthrough;		/* never hand files to the kernel (FUSE_PASSTHROUGH) */
	int writeback;			/* cache writes in the kernel; excludes passing through */
	int debug;			/* a log line for each request */
	int norecover;			/* the server's death ends the mount */
	unsigned recover_limit;		/* deaths within 10 s until it gives up; 0: 30; above 256: never */
	int checkpoint;			/* to go on with, from fr_inherited(); 0: none */
	int (*exec)(const char *program); /* options.exec of <fuserecover.h>; NULL: no upgrades */
	uint64_t hang_limit;		/* nanoseconds in one request until the server is replaced; 0: no limit */
	int fdstore;			/* the service manager keeps the descriptors, too */
	int notify;			/* ... and is told how the service is */
	unsigned cache;			/* an enum fe_cache */
	unsigned cache_size;		/* bytes that the hook may take, 0: choose */
};

/*
 * Finds a backend: one that is built in by its name, or a shared object by its path (any name with a
 * slash). Returns -ENOENT where there is none, -ENOEXEC for a shared object that is no backend or was
 * built for another ABI. *backend is valid for the life of the process.
 */
int fe_backend_load(const char *name, const struct fe_backend **backend);

/* The built-in backends, ended by NULL. */
extern const struct fe_backend *const fe_builtin_backends[];

/* Opens the backend. `options` is copied, the strings in it too. */
int fe_host_new(const struct fe_host_options *options, struct fe_host **host);

/* Mounts, and agrees with the kernel on the protocol. The mount is usable when this returns 0. */
int fe_host_mount(struct fe_host *host);

/* Answers requests until the file system is unmounted or fe_host_stop() was called. */
int fe_host_serve(struct fe_host *host);

/* Detaches the mounts of fuse-extent that lie on a mountpoint; with `dead` those whose server is gone. */
void fe_host_detach(const char *mountpoint, int dead);

/*
 * Unmounts; where the mount is in use it is detached, and served until its last user is gone. A second
 * call ends service at once. Async-signal-safe.
 */
void fe_host_stop(struct fe_host *host);

/* Closes the backend and frees everything; where a keeper ran, the process is about to end, and does
 * the rest. Not while fe_host_serve() runs. */
void fe_host_free(struct fe_host *host);

/* The state as one line of JSON, as fuse-extentctl shows it. Returns its length, -ERANGE if too long. */
ssize_t fe_host_status(struct fe_host *host, char *buf, size_t size);

/* Where fuse-extentctl asks for the status: an abstract unix socket, named after the mount's st_dev. */
#define FE_CONTROL_NAME "fuse-extent/%u:%u"
#define FE_CONTROL_STATUS "status\n"
/* Alone, or followed by a space and an absolute path; ended by a newline. */
#define FE_CONTROL_UPGRADE "upgrade"

#ifdef __cplusplus
}
#endif

#endif
