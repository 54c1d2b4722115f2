/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A backend upon passthrough in which files named OPERATION.ACTION[.ANYTHING] are traps: the operation
 * acts before it does its work. "trap.so:DIRECTORY". Actions:
 *   segv, bus, abrt, stack, exit    the worker dies
 *   loop, lock, sleep               it hangs
 *   wait                            until there is a file DIRECTORY/.go; leaves a file .here
 *   park                            nothing. A SETLKW that was trapped is ended by an interrupt only
 * With a number behind (segv2) it acts so many times only. CREATED acts after the creation.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"

#define AT	128	/* of a node's record: what kind of trap it is */

_Static_assert(sizeof(struct pt_node) <= AT && sizeof(struct pt_file) <= AT, "records");

struct spring {
	char operation[16];
	char action[16];
};

/* How often the last trap that counts has acted. */
struct shared {
	struct spring last;
	_Atomic uint32_t acted;
};

struct trap {
	const struct fe_backend *be;	/* the inner one */
	void *priv;
	const struct fe_services *services;
	void *host;
	char *directory;
	struct shared *shared;
	_Atomic unsigned in_setlk;
};

/* ---- actions ---- */

static int deep(volatile char *above)
{
	volatile char here[4096];

	here[0] = *above;
	return here[0] ? 0 : deep(here) + here[0];
}

/* Of an empty file, or of nothing: SIGBUS or SIGSEGV. */
static void read_from(int protection, int fd)
{
	volatile char *p = mmap(NULL, 4096, protection, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	(void)p[0];
}

static void stay(const char *how)
{
	static pthread_mutex_t twice = PTHREAD_MUTEX_INITIALIZER;
	static volatile unsigned spins;

	if (!strcmp(how, "lock")) {
		pthread_mutex_lock(&twice);
		pthread_mutex_lock(&twice);
	}
	while (!strcmp(how, "loop"))
		spins++;
	for (;;)
		pause();
}

static void wait_for_go(const struct trap *t)
{
	char path[512];
	FILE *here;

	snprintf(path, sizeof(path), "%s/.here", t->directory);
	here = fopen(path, "we");
	if (here)
		fclose(here);
	snprintf(path, sizeof(path), "%s/.go", t->directory);
	while (access(path, F_OK))
		usleep(5000);
}

static void act(struct trap *t, const char *how)
{
	volatile char first = 0;

	if (!strcmp(how, "segv"))
		read_from(PROT_NONE, -1);
	else if (!strcmp(how, "bus"))
		read_from(PROT_READ, memfd_create("trap", MFD_CLOEXEC));
	else if (!strcmp(how, "abrt"))
		abort();
	else if (!strcmp(how, "stack"))
		deep(&first);
	else if (!strcmp(how, "exit"))
		_exit(7);
	else if (!strcmp(how, "wait"))
		wait_for_go(t);
	else if (strcmp(how, "park"))
		stay(how);
}

static void sprung(struct trap *t, const struct spring *s, const char *operation)
{
	char how[sizeof(s->action)];
	char *number;
	unsigned long most;

	if (strcmp(s->operation, operation))
		return;
	memcpy(how, s->action, sizeof(how));
	number = how + strcspn(how, "0123456789");
	most = strtoul(number, NULL, 10);
	*number = 0;
	if (most && memcmp(&t->shared->last, s, sizeof(*s))) {
		t->shared->last = *s;
		atomic_store(&t->shared->acted, 0);
	}
	if (!most || atomic_fetch_add(&t->shared->acted, 1) < most)
		act(t, how);
}

static struct spring spring_of_name(const char *name)
{
	struct spring s = { 0 };

	if (sscanf(name, "%15[A-Z].%15[a-z0-9]", s.operation, s.action) != 2)
		s = (struct spring){ 0 };
	return s;
}

static void on_name(struct trap *t, const char *name, const char *operation)
{
	struct spring s = spring_of_name(name);

	sprung(t, &s, operation);
}

static void on_node(struct trap *t, const struct fe_node *node, const char *operation)
{
	struct spring s;

	memcpy(&s, node->record + AT, sizeof(s));
	sprung(t, &s, operation);
}

/* ---- what traps ---- */

static int name_of(struct fe_entry *e, const char *name, int result)
{
	struct spring s = spring_of_name(name);

	if (!result)
		memcpy(e->record + AT, &s, sizeof(s));
	return result;
}

static int trap_lookup(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		       struct fe_entry *out)
{
	struct trap *t = b;

	on_name(t, name, "LOOKUP");
	return name_of(out, name, t->be->lookup(t->priv, req, parent, name, out));
}

static int trap_create(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		       uint32_t flags, uint32_t mode, uint32_t io_flags, struct fe_entry *entry, struct fe_open *out)
{
	struct trap *t = b;
	int err;

	on_name(t, name, "CREATE");
	err = t->be->create(t->priv, req, parent, name, flags, mode, io_flags, entry, out);
	if (!err)
		on_name(t, name, "CREATED");
	return name_of(entry, name, err);
}

static void trap_forget(void *b, struct fe_node *node)
{
	struct trap *t = b;

	on_node(t, node, "FORGET");
	if (t->be->forget)
		t->be->forget(t->priv, node);
}

#define TRAP(type, name, operation, params, ...) \
	static type trap_##name params \
	{ \
		struct trap *t = b; \
		on_node(t, node, operation); \
		return t->be->name(t->priv, __VA_ARGS__); \
	}

TRAP(int, getattr, "GETATTR", (void *b, const struct fe_request *req, struct fe_node *node,
			       struct fe_handle *handle, struct statx *out, uint64_t *valid),
     req, node, handle, out, valid)
TRAP(int, setattr, "SETATTR", (void *b, const struct fe_request *req, struct fe_node *node,
			       struct fe_handle *handle, const struct fe_setattr *set, struct statx *out,
			       uint64_t *valid),
     req, node, handle, set, out, valid)
TRAP(int, open_file, "OPEN", (void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags,
			      uint32_t io_flags, struct fe_open *out),
     req, node, flags, io_flags, out)
TRAP(ssize_t, read, "READ", (void *b, const struct fe_request *req, struct fe_node *node,
			     struct fe_handle *handle, void *buf, size_t size, uint64_t off),
     req, node, handle, buf, size, off)
TRAP(ssize_t, write, "WRITE", (void *b, const struct fe_request *req, struct fe_node *node,
			       struct fe_handle *handle, const void *buf, size_t size, uint64_t off,
			       uint32_t io_flags),
     req, node, handle, buf, size, off, io_flags)
TRAP(int, fsync, "FSYNC", (void *b, const struct fe_request *req, struct fe_node *node,
			   struct fe_handle *handle, int datasync),
     req, node, handle, datasync)
TRAP(int, opendir, "OPENDIR", (void *b, const struct fe_request *req, struct fe_node *node, uint32_t flags,
			       struct fe_open *out),
     req, node, flags, out)
TRAP(int, statfs, "STATFS", (void *b, const struct fe_request *req, struct fe_node *node,
			     struct fe_statfs *out),
     req, node, out)

static void trap_release(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			 const struct fe_release *how)
{
	struct trap *t = b;

	on_node(t, node, "RELEASE");
	t->be->release(t->priv, req, node, handle, how);
}

static void trap_releasedir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle)
{
	struct trap *t = b;

	t->be->releasedir(t->priv, req, node, handle);
}

/* What it passes would be a record of the inner one's size: the host is to look each name up. */
static int trap_readdir(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			uint64_t off, struct fe_dirfill *fill)
{
	struct trap *t = b;

	fill->want_entry = 0;
	return t->be->readdir(t->priv, req, node, handle, off, fill);
}

static int trap_mkdir(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
		      uint32_t mode, struct fe_entry *out)
{
	struct trap *t = b;

	on_name(t, name, "MKDIR");
	return name_of(out, name, t->be->mkdir(t->priv, req, parent, name, mode, out));
}

static int trap_unlink(void *b, const struct fe_request *req, struct fe_node *parent, const char *name)
{
	struct trap *t = b;

	on_name(t, name, "UNLINK");
	return t->be->unlink(t->priv, req, parent, name);
}

/* Locks are given at once, or never. */
static int trap_getlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		      struct fe_lock *lock)
{
	(void)b, (void)req, (void)node, (void)handle;
	lock->type = F_UNLCK;
	return 0;
}

static int trap_setlk(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
		      const struct fe_lock *lock)
{
	struct trap *t = b;
	struct spring s;

	(void)req, (void)handle;
	memcpy(&s, node->record + AT, sizeof(s));
	if (!lock->wait)
		return 0;
	atomic_fetch_add(&t->in_setlk, 1);
	on_node(b, node, "SETLKW");
	atomic_fetch_sub(&t->in_setlk, 1);
	return strcmp(s.operation, "SETLKW") ? 0 : FE_PENDING;
}

/* One that comes before setlk() has returned is for the host to repeat. */
static void trap_interrupt(void *b, uint64_t token)
{
	struct trap *t = b;

	if (!atomic_load(&t->in_setlk))
		t->services->complete(t->host, token, -EINTR);
}

/* ---- life ---- */

static void trap_thread_start(void *b)
{
	struct trap *t = b;

	t->be->thread_start(t->priv);
}

static void trap_resume(void *b)
{
	struct trap *t = b;

	t->be->resume(t->priv);
}

/* The host closes the inner one. */
static void trap_close(void *b)
{
	struct trap *t = b;

	free(t->directory);
	free(t);
}

static int trap_open(const struct fe_open_args *args, struct fe_root *root, void **priv)
{
	struct trap *t = calloc(1, sizeof(*t));
	struct fe_inner *inner;
	char source[512];
	int err;

	if (!t)
		return -ENOMEM;
	*priv = t;
	t->services = args->services;
	t->host = args->host;
	t->directory = strdup(args->argument);
	snprintf(source, sizeof(source), "passthrough:%s", args->argument);
	err = args->services->shared(args->host, "trap", sizeof(*t->shared), (void **)&t->shared);
	err = err ? err : args->services->open_inner(args->host, source, args->options, &inner);
	if (err)
		return err;
	t->be = inner->backend;
	t->priv = inner->priv;
	memcpy(root->root.record, inner->root.root.record, AT);
	root->root.attr = inner->root.root.attr;
	root->features = (inner->root.features & ~(uint32_t)FE_FEAT_PASSTHROUGH) | FE_FEAT_LOCKS;
	root->time_gran = inner->root.time_gran;
	return 0;
}

const struct fe_backend fe_backend = {
	.abi = FE_BACKEND_ABI,
	.struct_size = sizeof(struct fe_backend),
	.name = "trap",
	.options_help = "",
	.node_size = AT + sizeof(struct spring),
	.key_size = sizeof(struct pt_key),
	.handle_size = AT,
	.open = trap_open,
	.close = trap_close,
	.thread_start = trap_thread_start,
	.resume = trap_resume,
	.lookup = trap_lookup,
	.forget = trap_forget,
	.getattr = trap_getattr,
	.setattr = trap_setattr,
	.mkdir = trap_mkdir,
	.unlink = trap_unlink,
	.open_file = trap_open_file,
	.create = trap_create,
	.read = trap_read,
	.write = trap_write,
	.fsync = trap_fsync,
	.release = trap_release,
	.opendir = trap_opendir,
	.readdir = trap_readdir,
	.releasedir = trap_releasedir,
	.statfs = trap_statfs,
	.getlk = trap_getlk,
	.setlk = trap_setlk,
	.interrupt = trap_interrupt,
};
