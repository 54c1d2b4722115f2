/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A mount that goes on in another program, or in this one after the death of all its processes. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "host/internal.h"

static uint64_t hash_text(uint64_t hash, const char *text)
{
	do
		hash = (hash ^ (unsigned char)(text ? *text : 0)) * 0x100000001b3u;
	while (text && *text++);
	return hash;
}

/* Records of one layout may still mean something else. */
static uint64_t asked(const struct fe_host_options *o)
{
	uint64_t hash = hash_text(0xcbf29ce484222325u, o->source);

	hash = hash_text(hash_text(hash_text(hash, o->mountpoint), o->backend_options), o->kernel_options);
	return (hash * 2 + !!o->writeback) * 8 + o->cache;
}

void adopt_note(struct fe_host *h, const struct fe_host_options *o)
{
	h->shared->asked = asked(o);
}

/* A placeholder is in its place: it did not fit into the service manager's store. */
static bool fd_lost(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || flags & O_PATH;
}

/* A clone that is lost took its requests with it: another one takes its place. */
int adopt_check(struct fe_host *h, const struct fe_host_options *options)
{
	const char *why = !(h->root.features & FE_FEAT_ADOPT) ? "the backend can not be taken over by another program" :
			  h->shared->asked != asked(options) ? "the state of the mount is that of other options" :
			  fd_lost(h->shared->fd) ? "its connection to the kernel is lost" :
			  !fr_table_used(h->nodes) ? "its service had not begun" : NULL;

	if (!why) {
		for (unsigned i = 0; i < FR_SLOTS_MAX; i++)
			if (h->shared->clones[i] > 0 && fd_lost(h->shared->clones[i]))
				fe_close(fd_take(h, &h->shared->clones[i]));
		return 0;
	}
	fe_log(LOG_ERR, "%s can not be taken over: %s", options->mountpoint, why);
	return h->root.features & FE_FEAT_ADOPT ? -ESTALE : -ENOTSUP;
}

int adopt_mount(struct fe_host *h)
{
	h->mounted = true;
	if (h->shared->control_fd < 0 || !fd_lost(h->shared->control_fd))
		return 0;
	fe_close(fd_take(h, &h->shared->control_fd));
	return control_open(h);
}

int adopt_store(struct fe_host *h)
{
	int err = h->opt.fdstore ? fr_store(h->fr) : 0;

	if (err)
		fe_log(LOG_ERR, "storing descriptors in the service manager: %s", strerror(-err));
	return err;
}
