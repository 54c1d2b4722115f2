/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening a server's export, and the table of operations. */
#include "backends/remote/remote.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <syslog.h>
#include <unistd.h>

#include "backends/remote/locks.h"
#include "backends/remote/options.h"

#define MSIZE		P9_MSIZE_MAX
#define TIMEOUT		60000000000u	/* ns */
#define READ_AHEAD	(4u << 20)	/* what is on its way in 40 ms at 100 MB/s */

static void log_line(void *arg, int level, const char *line)
{
	struct remote *r = arg;

	r->services->log(r->host, level, "%s", line);
}

static bool has_ended(void *arg)
{
	struct remote *r = arg;

	return r->services->ended(r->host);
}

/* The connection outlives its process, for a successor to end it in order. */
static void client_busy(void *arg, bool now)
{
	struct remote *r = arg;

	if (now)
		r->services->helper_enter(r->host);
	else
		r->services->helper_leave(r->host);
}

static void connected(void *arg)
{
	lock_kick(arg);
}

static void keep_connection(void *arg, int fd)
{
	struct remote *r = arg;

	if (fd >= 0)
		r->services->fd_put(r->host, &r->shared->client.fd, fd);
	else
		r->services->fd_take(r->host, &r->shared->client.fd);
}

static void mutexes_init(struct remote *r)
{
	pthread_mutex_init(&r->names_lock, NULL);
	pthread_mutex_init(&r->listings_lock, NULL);
	views_init(r);
	for (int i = 0; i < 64; i++)
		pthread_mutex_init(&r->open_locks[i], NULL);
}

static void remote_close(void *b)
{
	struct remote *r = b;

	if (r->locks)
		lock_wait_stop(r->locks);
	if (r->shared)
		client_close(&r->client);
	if (r->locks)
		lock_fini(r);
	views_fini(r);
	fids_fini(&r->fids);
	address_free(&r->client.opt.address);
	free(r);
}

static int settle(struct remote *r, const struct fe_open_args *args, struct client_options *opt)
{
	struct remote_options o = { .msize = MSIZE, .timeout = TIMEOUT, .fids = FIDS_MAX, .uid = geteuid() };
	int err = remote_options_parse(args->options, &o);

	if (err == -EINVAL)
		r->services->log(r->host, LOG_ERR, "unknown or wrong option \"%s\"; --help lists what there is", o.unknown);
	if (!err)
		err = address_parse(args->argument, o.command, &opt->address);
	if (err == -EINVAL && !o.unknown)
		r->services->log(r->host, LOG_ERR, "\"%s\" is no server: 9p://HOST[:PORT]/EXPORT, 9p+unix:PATH:/EXPORT, or "
				 "9p:/EXPORT with -o command=", args->argument);
	opt->address.uname = o.uname;
	o.uname = NULL;
	opt->uid = r->uid = o.uid;
	opt->msize = o.msize;
	opt->soft = o.soft;
	opt->timeout = o.timeout;
	opt->log = log_line;
	opt->ended = has_ended;
	opt->connected = connected;
	opt->arg = r;
	r->per_user = o.per_user;
	r->acl = o.acl;
	r->source_locks = o.source_locks;
	r->max_fids = o.fids;
	remote_options_free(&o);
	return err;
}

static int share(struct remote *r)
{
	int err = r->services->shared(r->host, "remote", sizeof(*r->shared), (void **)&r->shared);

	if (err)
		return err;
	r->shared->client.fd = -1;
	if (getrandom(&r->shared->id, sizeof(r->shared->id), 0) != sizeof(r->shared->id))
		return -errno;
	r->client.shared = &r->shared->client;
	r->client.keep = keep_connection;
	r->client.busy = client_busy;
	err = names_init(r);
	if (!err)
		err = hidden_init(r);
	return err || !r->source_locks ? err : lock_init(r);
}

static int connect_first(struct remote *r)
{
	const struct address *a = &r->client.opt.address;
	int err = client_first(&r->client);

	if (!err)
		return 0;
	r->services->log(r->host, LOG_ERR, "%s %s: %s; a 9P2000.L server must serve it there",
			 a->command ? a->command : a->path ? a->path : a->host, a->aname, strerror(-err));
	return err;
}

static int root_entry(struct remote *r, struct fe_entry *root)
{
	struct r_node *n = (struct r_node *)(void *)root->record;
	int err = p9_fill_statx(&r->client.root, &root->attr);

	n->key = (struct r_key){ .path = r->client.root.qid.path, .type = S_IFDIR >> 12 };
	return err;
}

static int remote_open(const struct fe_open_args *args, struct fe_root *root, void **priv)
{
	struct remote *r = calloc(1, sizeof(*r));
	struct client_options opt = { 0 };
	int err;

	if (!r)
		return -ENOMEM;
	r->services = args->services;
	r->host = args->host;
	r->entry_valid = args->entry_valid;
	r->attr_valid = args->attr_valid;
	r->writeback = args->writeback;
	mutexes_init(r);
	err = settle(r, args, &opt);
	client_init(&r->client, &opt);
	fids_init(&r->fids, r->max_fids);
	if (!err)
		err = share(r);
	if (!err)
		err = connect_first(r);
	if (!err)
		err = root_entry(r, &root->root);
	if (err) {
		remote_close(r);
		return err;
	}
	root->features = FE_FEAT_KILLPRIV | FE_FEAT_ATOMIC_O_TRUNC | FE_FEAT_RECOVER | FE_FEAT_READDIRPLUS |
			 FE_FEAT_KERNEL_PERMS;
	root->read_ahead = READ_AHEAD;
	if (r->acl)
		root->features |= FE_FEAT_POSIX_ACL;
	if (r->locks)
		root->features |= FE_FEAT_LOCKS | FE_FEAT_FLOCK;
	*priv = r;
	return 0;
}

static void remote_resume(void *b)
{
	struct remote *r = b;

	mutexes_init(r);
	r->listings = NULL;
	/* Nodes outlive us: what was noted in one may not look as if it were of our time. */
	atomic_store(&r->dir_changes, clock_ns());
	r->figures_at = 0;
	fids_init(&r->fids, r->max_fids);
	names_resume(r);
	hidden_resume(r);
	lock_resume(r);
	client_resume(&r->client);
}

/* In a successor what was locked is to be locked again, whether or not anybody asks for anything. */
static void remote_thread_start(void *b)
{
	lock_kick(b);
}

static ssize_t remote_status(void *b, char *buf, size_t size)
{
	struct remote *r = b;
	struct client *c = &r->client;
	bool settled = true;
	unsigned waiters = 0;
	uint32_t used, limit;
	int n;

	pthread_mutex_lock(&r->fids.lock);
	used = r->fids.used;
	limit = r->fids.limit;
	pthread_mutex_unlock(&r->fids.lock);
	pthread_mutex_lock(&c->lock);
	if (r->locks)
		waiters = lock_waiters(r->locks, c->epoch, &settled);
	n = snprintf(buf, size,
		     "{\"connected\":%s,\"connections\":%" PRIu64 ",\"msize\":%u,\"access\":\"%s\",\"fids\":%u,\"fid_limit\":%u,"
		     "\"locks\":\"%s\",\"lock_waiters\":%u,\"locks_settled\":%s,\"locks_lost\":%" PRIu64
		     ",\"unexpected_replies\":%" PRIu64 ",\"broken_replies\":%" PRIu64 ",\"bytes_sent\":%" PRIu64
		     ",\"bytes_received\":%" PRIu64 "}",
		     c->up ? "true" : "false", atomic_load(&c->connections), c->msize, r->per_user ? "user" : "client",
		     used, limit, r->locks ? "source" : "local", waiters,
		     settled && c->up ? "true" : "false", r->locks ? atomic_load(&r->locks->lost) : 0,
		     atomic_load(&c->unexpected), atomic_load(&c->broken), atomic_load(&c->sent), atomic_load(&c->received));
	pthread_mutex_unlock(&c->lock);
	return n > 0 && (size_t)n < size ? n : -ERANGE;
}

const struct fe_backend remote_backend = {
	.abi = FE_BACKEND_ABI,
	.struct_size = sizeof(struct fe_backend),
	.name = "remote",
	.description = "remote:9p://HOST[:PORT]/EXPORT  files of a 9P2000.L server",
	.options_help =
		"  -o command=COMMAND   speaks with the server by this command's standard input and output\n"
		"  -o access=client     one user is attached, and the kernel checks permissions (default)\n"
		"  -o access=user       each user is attached, and the server checks, too\n"
		"  -o uid=N             who is attached (the caller)\n"
		"  -o uname=NAME        the name that goes with it (none)\n"
		"  -o locks=local       the kernel keeps the locks of this mount (default)\n"
		"  -o locks=source      other clients see them, as locks of whole files\n"
		"  -o acl               ACLs, of a server that keeps them\n"
		"  -o hard              requests wait for a server that does not answer (default)\n"
		"  -o soft              ... fail after the timeout\n"
		"  -o timeout=SECONDS   of connections, and of soft requests (60)\n"
		"  -o msize=BYTES       the largest message to agree on (1048576)\n"
		"  -o fids=N            files to keep at hand on the server, at most (65536)\n",
	.node_size = sizeof(struct r_node),
	.key_size = sizeof(struct r_key),
	.handle_size = sizeof(struct r_file),
	.open = remote_open,
	.close = remote_close,
	.thread_start = remote_thread_start,
	.lookup = remote_lookup,
	.forget = remote_forget,
	.getattr = remote_getattr,
	.setattr = remote_setattr,
	.readlink = remote_readlink,
	.mknod = remote_mknod,
	.mkdir = remote_mkdir,
	.symlink = remote_symlink,
	.link = remote_link,
	.unlink = remote_unlink,
	.rmdir = remote_rmdir,
	.rename = remote_rename,
	.open_file = remote_open_file,
	.create = remote_create,
	.read = remote_read,
	.write = remote_write,
	.release = remote_release,
	.flush = remote_flush,
	.fsync = remote_fsync,
	.opendir = remote_opendir,
	.readdir = remote_readdir,
	.releasedir = remote_releasedir,
	.fsyncdir = remote_fsyncdir,
	.getxattr = remote_getxattr,
	.listxattr = remote_listxattr,
	.setxattr = remote_setxattr,
	.removexattr = remote_removexattr,
	.getlk = remote_getlk,
	.setlk = remote_setlk,
	.interrupt = remote_interrupt,
	.statfs = remote_statfs,
	.resume = remote_resume,
	.status = remote_status,
};
