/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Answers that the kernel gives without asking (libextfuse). Only where the hook runs is anything put
 * there: with the engine native, timeouts in replies and notifications are all there is to it, and these
 * the host sets without the library.
 *
 * The workers have the context from the keeper, which they were forked from; the memory that it shares
 * with the module is the same in all of them. Another program gets it by its descriptors.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "host/answers.h"

#define NS_PER_MS 1000000u

static void answers_log(void *arg, int level, const char *line)
{
	struct fe_host *h = arg;

	snprintf(h->shared->cache_line, sizeof(h->shared->cache_line), "%s", line);
	fe_log(level, "%s", line);
}

/* What is kept for less than a millisecond is not kept. */
static uint32_t ttl_ms(uint64_t ns)
{
	uint64_t ms = ns / NS_PER_MS;

	return !ms ? EXTFUSE_TTL_NONE : ms < EXTFUSE_TTL_NONE ? (uint32_t)ms : EXTFUSE_TTL_NONE - 1;
}

static struct extfuse_options options_of(struct fe_host *h)
{
	return (struct extfuse_options){
		.struct_size = sizeof(struct extfuse_options),
		.engine = h->opt.cache == FE_CACHE_NATIVE ? EXTFUSE_ENGINE_NATIVE :
			  h->opt.cache == FE_CACHE_AUTO ? EXTFUSE_ENGINE_AUTO : EXTFUSE_ENGINE_HOOK,
		.memory = h->opt.cache_size,
		.entry_ms = ttl_ms(h->opt.entry_valid),
		.attr_ms = ttl_ms(h->opt.attr_valid),
		.negative_ms = ttl_ms(h->opt.negative_valid),
		.flags = h->opt.cache == FE_CACHE_EXACT ? 0 : EXTFUSE_KERNEL_TTL,
		.log = answers_log,
		.arg = h,
	};
}

int answers_open(struct fe_host *h)
{
	struct extfuse_options o = options_of(h);
	int err = h->opt.cache == FE_CACHE_OFF ? 0 : extfuse_open(&o, &h->cache);

	if (err == -EINVAL)
		fe_log(LOG_ERR, "cache_size=%u: the least is 1M", h->opt.cache_size);
	else if (err)
		fe_log(LOG_ERR, "cache=%s needs root and the kernel module extfuse (modprobe extfuse); "
		       "cache=auto goes without it", h->opt.cache == FE_CACHE_EXACT ? "exact" : "hook");
	return err;
}

static struct extfuse_protocol protocol_of(const struct fe_host *h)
{
	return (struct extfuse_protocol){
		.struct_size = sizeof(struct extfuse_protocol),
		.minor = h->shared->proto_minor,
		.flags = h->shared->flags,
	};
}

/*
 * Nothing is put for these, so they need not be looked for. An OPEN that a handler answers can not be told from
 * none: a handle of most backends is a descriptor, which somebody has to close. What the module counts by itself
 * (standing.c) needs no handler.
 */
static void leave_out(struct fe_host *h)
{
	static const uint32_t none[] = { FUSE_OPEN, FUSE_READ, FUSE_WRITE, FUSE_FLUSH, FUSE_RELEASE };

	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		extfuse_handler(h->hook, none[i], EXTFUSE_HANDLER_NONE, 0);
	if (!(h->root.features & FE_FEAT_ACCESS_BY_IDS))
		extfuse_handler(h->hook, FUSE_ACCESS, EXTFUSE_HANDLER_NONE, 0);
}

/* Where the driver can not, and the backend bears that some of it comes to the server nevertheless. */
static void pass_data(struct fe_host *h)
{
	int err;

	if (!h->driver_lacks || !(h->root.features & FE_FEAT_PASSTHROUGH_MIXED))
		return;
	err = extfuse_handler(h->hook, FUSE_READ, EXTFUSE_HANDLER_BACKING, 0);
	if (!err)
		err = extfuse_handler(h->hook, FUSE_WRITE, EXTFUSE_HANDLER_BACKING, 0);
	if (err)
		fe_log(LOG_WARNING, "the module extfuse does not pass data through: %s", strerror(-err));
	else
		passthrough_set(h, PASSES_MODULE, "the module extfuse reads and writes the backing files");
}

static int keep_hook(struct fe_host *h)
{
	int *fds = h->shared->cache_fds, n = extfuse_fds(h->cache, fds, EXTFUSE_FDS_MAX), err = 0;

	for (int i = 0; i < n && !err; i++)
		err = fr_fd_keep(h->fr, NULL, fds[i]);
	h->shared->cache_count = (uint32_t)n;
	h->hook = h->cache;
	leave_out(h);
	pass_data(h);
	return err;
}

int answers_attach(struct fe_host *h)
{
	struct extfuse_protocol p = protocol_of(h);
	int err = h->cache ? extfuse_attach(h->cache, h->shared->fd, &p) : 0;

	if (err)
		return err;
	if (h->cache && extfuse_engine(h->cache) == EXTFUSE_ENGINE_HOOK)
		return keep_hook(h);
	answers_close(h);
	return 0;
}

int answers_adopt(struct fe_host *h)
{
	struct extfuse_protocol p = protocol_of(h);
	struct extfuse_options o = options_of(h);
	int err;

	if (!h->shared->cache_count)
		return 0;
	err = extfuse_reopen(&o, h->shared->fd, &p, h->shared->cache_fds, h->shared->cache_count,
			     &h->cache);
	if (err)
		fe_log(LOG_ERR, "what the kernel was granted by the hook is lost: it can not be taken over");
	h->hook = h->cache;
	return err;
}

void answers_close(struct fe_host *h)
{
	extfuse_close(h->cache);
	h->cache = h->hook = NULL;
}

static int hold_one(void *arg, uint64_t id, void *record)
{
	const struct handle *hd = record;

	(void)id;
	if (hd->nodeid && hd->held)
		extfuse_hold(arg, hd->nodeid);
	return 0;
}

void answers_resume(struct fe_host *h)
{
	if (!h->hook)
		return;
	extfuse_hold_reset(h->hook);
	fr_table_each(h->handles, hold_one, h->hook);
}

/* ---- what may be kept ---- */

static void note_lifetime(struct fe_host *h, const struct fe_node *node, uint64_t attr_valid)
{
	uint32_t transient = !answers_keep(attr_valid, h->opt.attr_valid);

	__atomic_store_n(&node_of(node)->transient, transient, __ATOMIC_RELAXED);
}

static bool keeps_attr(const struct call *c)
{
	uint64_t valid = c->host->opt.attr_valid;

	return answers_keep(valid, valid) && !__atomic_load_n(&node_of(&c->node)->transient, __ATOMIC_RELAXED);
}

/*
 * Of attributes that the driver itself never keeps: who may see them has to be up to the kernel alone, and
 * they live no longer than the others.
 */
static bool keeps_values(const struct call *c)
{
	return c->host->hook && c->host->opt.default_permissions && keeps_attr(c);
}

/* ---- puts: none of them can fail in a way that matters, and replies are not theirs ---- */

void answers_entry(struct call *c, const struct fe_node *node, const char *name, uint32_t own,
		 const struct fe_entry *e, const struct fuse_entry_out *out)
{
	struct fe_host *h = c->host;
	struct fuse_entry_out copy;

	if (!h->hook)
		return;
	note_lifetime(h, node, e->attr_valid);
	if (own & EXTFUSE_OWN_NAME && name)
		answers_name(c, c->node.nodeid, name);
	/* A name without attributes is no answer. */
	if (!name || !answers_keep(e->attr_valid, h->opt.attr_valid) ||
	    !answers_keep(e->entry_valid, h->opt.entry_valid))
		return;
	copy = *out;
	extfuse_put_entry(h->hook, c->stamp, c->node.nodeid, name, (uint32_t)out->nodeid, &copy, own);
}

/* Where the directory was known as a whole it remains so. */
void answers_name(struct call *c, uint64_t nodeid, const char *name)
{
	struct fe_host *h = c->host;

	if (h->hook && answers_keep(h->opt.negative_valid, h->opt.negative_valid))
		extfuse_put_dir_name(h->hook, c->stamp, nodeid, name);
}

void answers_negative(struct call *c, const char *name, uint32_t own)
{
	struct fe_host *h = c->host;

	if (h->hook && answers_keep(h->opt.negative_valid, h->opt.negative_valid))
		extfuse_put_negative(h->hook, c->stamp, c->node.nodeid, name, NULL, own);
}

void answers_attr(struct call *c, const struct fuse_attr_out *out, uint64_t valid, uint32_t own)
{
	struct fe_host *h = c->host;
	struct fuse_attr_out copy;

	if (!h->hook)
		return;
	note_lifetime(h, &c->node, valid);
	if (!answers_keep(valid, h->opt.attr_valid))
		return;
	copy = *out;
	extfuse_put_attr(h->hook, c->stamp, c->node.nodeid, &copy, own);
}

static bool is_absence(ssize_t n)
{
	return n == -ENODATA || n == -EOPNOTSUPP;
}

/* asked: the room that there was. With none only the length is known. */
void answers_xattr(struct call *c, const char *name, const void *value, ssize_t n, size_t asked)
{
	if (keeps_values(c) && (is_absence(n) || !n || (n > 0 && (size_t)n <= asked)))
		extfuse_put_xattr(c->host->hook, c->stamp, c->node.nodeid, name, value, n, 0);
}

static bool has_trusted(const char *list, size_t size)
{
	for (size_t at = 0; at < size; at += strnlen(list + at, size - at) + 1)
		if (!strncmp(list + at, "trusted.", 8))
			return true;
	return false;
}

/* Backends show names that begin with "trusted." to the privileged only: a list that has none, as root
 * is told it, is everybody's. */
void answers_xattr_list(struct call *c, const char *list, ssize_t n, size_t asked)
{
	if (!keeps_values(c) || c->req.uid || n < 0 || (size_t)n > asked || has_trusted(list, (size_t)n))
		return;
	extfuse_put_xattr_list(c->host->hook, c->stamp, c->node.nodeid, list, n, 0);
}

/* Its target never changes, but being read moves its time of access. */
void answers_link(struct call *c, const char *target, ssize_t n)
{
	struct fe_host *h = c->host;

	answers_accessed(c);
	if (n > 0 && keeps_values(c))
		extfuse_put_link(h->hook, extfuse_stamp(h->hook), c->node.nodeid, target, (size_t)n, 0);
}

/* Whether a write takes set-id bits away depends on who writes: the module knows less of that than the backend. */
void answers_mode(struct call *c, uint32_t mode)
{
	if (!(mode & (S_ISUID | S_ISGID)) || !S_ISREG(mode))
		return;
	standing_end(c->host, &c->req, c->node.nodeid);
	if (c->host->shared->passthrough == PASSES_MODULE)
		extfuse_backing(c->host->hook, c->node.nodeid, -1);
}

/* The hook keeps what all bits of the mask say. */
void answers_access(struct call *c)
{
	static const uint32_t bits[] = { R_OK, W_OK, X_OK };
	struct fe_host *h = c->host;
	uint32_t allowed = 0;

	if (!h->hook || !(h->root.features & FE_FEAT_ACCESS_BY_IDS) || !keeps_attr(c))
		return;
	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		int err = h->be->access(h->priv, &c->req, &c->node, bits[i]);

		if (err && err != -EACCES)
			return;
		allowed |= err ? 0 : bits[i];
	}
	extfuse_put_access(h->hook, c->stamp, c->node.nodeid, c->req.uid, c->req.gid, allowed);
}

void answers_statfs(struct call *c, const struct fuse_statfs_out *out, uint64_t valid)
{
	if (c->host->hook && valid >= NS_PER_MS)
		extfuse_put_statfs(c->host->hook, c->stamp, c->node.nodeid, out, ttl_ms(valid));
}

/* ---- figures ---- */

int answers_figures(struct fe_host *h, struct extfuse_figures *f)
{
	memset(f, 0, sizeof(*f));
	f->struct_size = sizeof(*f);
	return h->hook ? extfuse_figures(h->hook, f) : -ENOTCONN;
}

const char *answers_engine(const struct fe_host *h)
{
	return h->opt.cache == FE_CACHE_OFF ? "off" : !h->hook ? "native" :
	       h->opt.cache == FE_CACHE_EXACT ? "hook, exact" : "hook";
}
