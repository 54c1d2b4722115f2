/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Records of nodeids: what the hook granted without the daemon. */
#include "libextfuse/internal.h"

static __u64 grants_of(const struct extfuse_node *n)
{
	return __atomic_load_n(&n->grants, __ATOMIC_SEQ_CST);
}

static bool is_for(const struct extfuse_node *n, uint64_t nodeid)
{
	return __atomic_load_n(&n->nodeid, __ATOMIC_SEQ_CST) == nodeid;
}

API uint32_t extfuse_nodes(const struct extfuse *x)
{
	return x->nodes_count;
}

API int extfuse_node_new(struct extfuse *x, uint32_t index, uint64_t nodeid)
{
	struct extfuse_node *n;
	__u64 grants;

	if (!x->attached)
		return -ENOTCONN;
	if (!nodeid)
		return -EINVAL;
	if (index >= x->nodes_count)
		return -ERANGE;
	n = &x->nodes[index];
	grants = grants_of(n);
	if (!(grants & EXTFUSE_NODE_DEAD)) {
		if (!is_for(n, 0))
			return is_for(n, nodeid) ? 0 : -EBUSY;
	} else if (is_for(n, nodeid)) {
		/* A predecessor got as far as that. */
		__atomic_store_n(&n->grants, grants & ~EXTFUSE_NODE_DEAD, __ATOMIC_SEQ_CST);
		return 0;
	}
	grants = extfuse_node_reborn(grants);
	__atomic_store_n(&n->grants, grants | EXTFUSE_NODE_DEAD, __ATOMIC_SEQ_CST);
	__atomic_store_n(&n->nodeid, nodeid, __ATOMIC_SEQ_CST);
	__atomic_store_n(&n->grants, grants, __ATOMIC_SEQ_CST);
	return 0;
}

API uint64_t extfuse_granted(const struct extfuse *x, uint32_t index, uint64_t nodeid)
{
	if (!x->attached || index >= x->nodes_count || !is_for(&x->nodes[index], nodeid))
		return 0;
	return grants_of(&x->nodes[index]) & EXTFUSE_NODE_COUNT;
}

static void forget_values(const struct extfuse *x, uint64_t nodeid)
{
	map_drop(x, MAP_ATTR, &nodeid);
	map_drop(x, MAP_OPEN, &nodeid);
	map_drop(x, MAP_DIR, &nodeid);
	map_drop(x, MAP_DIR_LARGE, &nodeid);
}

API int extfuse_forget(struct extfuse *x, uint32_t index, uint64_t nodeid, int64_t count)
{
	struct extfuse_node *n;
	__u64 grants;

	if (!x->attached)
		return -ENOTCONN;
	if (index >= x->nodes_count || !is_for(&x->nodes[index], nodeid))
		return count < 0 ? -EINVAL : count == 0;
	n = &x->nodes[index];
	grants = grants_of(n);
	do {
		int64_t sum = count + (int64_t)(grants & EXTFUSE_NODE_COUNT);

		if (sum)
			return sum < 0 ? -EINVAL : 0;
		if (grants & EXTFUSE_NODE_DEAD)
			return 1;
	} while (!__atomic_compare_exchange_n(&n->grants, &grants, grants | EXTFUSE_NODE_DEAD, false,
					      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
	forget_values(x, nodeid);
	return 1;
}
