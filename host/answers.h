/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What operations tell the kernel beyond their replies, where the hook runs (h->hook is set). */
#ifndef FE_HOST_ANSWERS_H
#define FE_HOST_ANSWERS_H

#include "host/internal.h"

/* Before the mount; between INIT and its reply; in another program that takes the mount over. */
int answers_open(struct fe_host *h);
int answers_attach(struct fe_host *h);
int answers_adopt(struct fe_host *h);
void answers_close(struct fe_host *h);
/* In a successor, before anything else: what is open for FUSE_PASSTHROUGH is held. */
void answers_resume(struct fe_host *h);

/*
 * The results of operations, before their replies. own: EXTFUSE_OWN_*, what the request itself has changed.
 * Names are in c->node; what is said of a node without one is of c->node, too.
 */
void answers_entry(struct call *c, const struct fe_node *node, const char *name, uint32_t own,
		 const struct fe_entry *e, const struct fuse_entry_out *out);
void answers_negative(struct call *c, const char *name, uint32_t own);
void answers_attr(struct call *c, const struct fuse_attr_out *out, uint64_t valid, uint32_t own);
/* n: as the backend returned it. */
void answers_xattr(struct call *c, const char *name, const void *value, ssize_t n, size_t asked);
void answers_xattr_list(struct call *c, const char *list, ssize_t n, size_t asked);
void answers_link(struct call *c, const char *target, ssize_t n);

/* Of the node by SETATTR. */
void answers_mode(struct call *c, uint32_t mode);
void answers_access(struct call *c);
void answers_statfs(struct call *c, const struct fuse_statfs_out *out, uint64_t valid);

/* The request has put this name into the directory. */
void answers_name(struct call *c, uint64_t nodeid, const char *name);

/*
 * Directories that are read as a whole (listing.c): before the backend is asked for names from `off` on, for
 * each name, and after that; `end`: there are no more. NULL: nobody keeps them.
 */
struct reading *reading_begin(struct call *c, const struct handle *hd, uint64_t fh, uint64_t off);
void reading_add(struct reading *r, const char *name, size_t len, uint64_t next);
void reading_end(struct call *c, struct reading *r, int err, bool end);

/* c->node was read: its time of access may have moved. The driver knows. */
static inline void answers_accessed(const struct call *c)
{
	if (c->host->hook)
		extfuse_outdated_node(c->host->hook, c->node.nodeid);
}

/* Values live as long as the mount's options say: what the backend lets be kept for less is not kept. */
static inline bool answers_keep(uint64_t lifetime, uint64_t option)
{
	return option >= 1000000 && lifetime >= option;
}

/* How long the driver may keep in its own caches what the backend lets be kept for so long. */
static inline uint64_t driver_valid(const struct fe_host *h, uint64_t ns)
{
	return h->opt.cache == FE_CACHE_OFF || h->opt.cache == FE_CACHE_EXACT ? 0 : ns;
}

int answers_figures(struct fe_host *h, struct extfuse_figures *f);
const char *answers_engine(const struct fe_host *h);

#endif
