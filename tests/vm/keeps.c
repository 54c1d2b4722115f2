/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A backend that serves a directory as passthrough does, checks access by itself, by owner and others only, and
 * lets what it says of that and of the file system be kept. */
#include <errno.h>
#include <stdint.h>

#include "backends/passthrough/passthrough.h"

#define HOUR 3600000000000u

static struct fe_backend table;

static int keeps_access(void *b, const struct fe_request *req, struct fe_node *node, uint32_t mask)
{
	struct statx st;
	uint64_t valid = 0;
	int err = passthrough_backend.getattr(b, req, node, NULL, &st, &valid);
	uint32_t allowed = err ? 0 : req->uid == st.stx_uid ? st.stx_mode >> 6 & 7u : st.stx_mode & 7u;

	return err ? err : mask & ~allowed ? -EACCES : 0;
}

static int keeps_statfs(void *b, const struct fe_request *req, struct fe_node *node, struct fe_statfs *out)
{
	int err = passthrough_backend.statfs(b, req, node, out);

	out->valid = HOUR;
	return err;
}

static int keeps_open(const struct fe_open_args *args, struct fe_root *root, void **priv)
{
	int err = passthrough_backend.open(args, root, priv);

	if (err)
		return err;
	table = passthrough_backend;
	table.name = "keeps";
	table.access = keeps_access;
	table.statfs = keeps_statfs;
	/* With ACLs the kernel checks, too. */
	root->features &= ~(uint32_t)(FE_FEAT_KERNEL_PERMS | FE_FEAT_POSIX_ACL);
	root->features |= FE_FEAT_ACCESS_BY_IDS;
	root->table = &table;
	return 0;
}

static void keeps_close(void *b)
{
	passthrough_backend.close(b);
}

static int keeps_lookup(void *b, const struct fe_request *req, struct fe_node *parent, const char *name,
			struct fe_entry *out)
{
	return passthrough_backend.lookup(b, req, parent, name, out);
}

static int keeps_getattr(void *b, const struct fe_request *req, struct fe_node *node, struct fe_handle *handle,
			 struct statx *out, uint64_t *valid)
{
	return passthrough_backend.getattr(b, req, node, handle, out, valid);
}

const struct fe_backend fe_backend = {
	.abi = FE_BACKEND_ABI,
	.struct_size = sizeof(struct fe_backend),
	.name = "keeps",
	.options_help = "",
	.node_size = sizeof(struct pt_node),
	.key_size = sizeof(struct pt_key),
	.handle_size = sizeof(struct pt_file),
	.open = keeps_open,
	.close = keeps_close,
	.lookup = keeps_lookup,
	.getattr = keeps_getattr,
};
