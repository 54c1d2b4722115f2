/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The backend of a mount with the one that it stacks upon: opened, given its services, closed. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "host/internal.h"

static void service_log(void *host, int level, const char *fmt, ...)
{
	va_list ap;

	(void)host;
	va_start(ap, fmt);
	fe_vlog(level, fmt, ap);
	va_end(ap);
}

static int open_one(struct fe_host *h, const struct fe_backend **be, const char *argument,
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
		.adopted = h->opt.checkpoint > 0,
		.stored = h->opt.fdstore,
		.negative_valid = h->opt.negative_valid,
	};
	int err;

	memset(root, 0, sizeof(*root));
	root->root.record = calloc(1, RECORD_MAX);
	if (!root->root.record)
		return -ENOMEM;
	err = (*be)->open(&args, root, priv);
	if (err || !root->table)
		return err;
	*be = root->table;
	return backend_check((*be)->name, *be);
}

/* Where all workers wait for the backend, nobody reads that it has ended. */
static int service_ended(void *host)
{
	struct fe_host *h = host;
	struct pollfd p = { .fd = h->shared->fd };

	return atomic_load(&h->ended) || (poll(&p, 1, 0) == 1 && p.revents & (POLLERR | POLLNVAL));
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
		err = open_one(h, &inner->backend, colon + 1, options, &inner->root, &inner->priv);
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
		.shared = keep_shared,
		.fd_put = fd_put,
		.fd_take = fd_take,
		.table = keep_table,
		.record_new = keep_record,
		.record_free = keep_no_record,
		.record_each = keep_each,
		.ended = service_ended,
		.helper_enter = helper_enter,
		.helper_leave = helper_leave,
	};
}

int backend_open(struct fe_host *h)
{
	const char *options = h->opt.backend_options;
	int err;

	if (options && *options && !h->be->options_help) {
		fe_log(LOG_ERR, "unknown option \"%s\"; the backend %s takes none", options, h->be->name);
		return -EINVAL;
	}
	services_init(h);
	err = open_one(h, &h->be, h->opt.argument ? h->opt.argument : "", options, &h->root, &h->priv);
	if (err)
		fe_log(LOG_ERR, "%s could not be opened: %s", h->opt.source, strerror(-err));
	return err;
}

void backend_close(struct fe_host *h)
{
	if (h->priv)
		h->be->close(h->priv);
	h->priv = NULL;
	if (h->inner) {
		h->inner->backend->close(h->inner->priv);
		free(h->inner->root.root.record);
		free(h->inner);
	}
	h->inner = NULL;
}
