// SPDX-License-Identifier: GPL-2.0-only
/* What one connection has here: the area that it shares with its daemon, handlers, counters. */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "kmod.h"

struct hlist_head extfuse_by_kind[EXTFUSE_KINDS];
static DEFINE_MUTEX(by_kind_mutex);
unsigned long extfuse_kinds, extfuse_permission_kinds;

static void find_kinds(void)
{
	unsigned long kinds = 0, checked = 0;
	const struct extfuse_context *ctx;
	int i;

	for (i = 0; i < EXTFUSE_KINDS; i++) {
		hlist_for_each_entry(ctx, &extfuse_by_kind[i], by_kind) {
			kinds |= 1UL << i;
			/* INIT may still turn that on. */
			if (EXTFUSE_PERMISSIONS(ctx->fc) || !EXTFUSE_INITIALIZED(ctx->fc))
				checked |= 1UL << i;
		}
	}
	WRITE_ONCE(extfuse_kinds, kinds);
	WRITE_ONCE(extfuse_permission_kinds, checked);
}

/* ---- the word of everything is busy until no mutation from before the attachment is under way ---- */

static bool settled(const struct fuse_conn *fc)
{
	return !EXTFUSE_CONNECTED(fc) || (EXTFUSE_INITIALIZED(fc) && !EXTFUSE_NUM_WAITING(fc));
}

static void settle(struct work_struct *work)
{
	struct extfuse_context *ctx = container_of(work, struct extfuse_context, settle.work);

	/* Until then there may be who had passed the hook and was not counted by the driver yet. */
	if (!ctx->all_counted)
		synchronize_rcu_tasks();
	ctx->all_counted = true;
	if (!settled(ctx->fc) && !hlist_unhashed_lockless(&ctx->by_kind)) {
		queue_delayed_work(system_long_wq, &ctx->settle, 1);
		return;
	}
	extfuse_word_end(ctx, 0);
	extfuse_put(ctx);
}

/* ---- the life of a context ---- */

static void free_context(struct extfuse_context *ctx)
{
	if (ctx->fc)
		fuse_conn_put(ctx->fc);
	vfree(ctx->area);
	free_percpu(ctx->stats);
	kfree(ctx);
}

static void free_by_work(struct work_struct *work)
{
	free_context(container_of(work, struct extfuse_context, settle.work));
	module_put(THIS_MODULE);
}

/* Also with spinlocks held. */
void extfuse_put(struct extfuse_context *ctx)
{
	if (!refcount_dec_and_test(&ctx->refs))
		return;
	INIT_WORK(&ctx->settle.work, free_by_work);
	schedule_work(&ctx->settle.work);
}

static int make_area(struct extfuse_context *ctx, const struct extfuse_attach *arg)
{
	u64 words = ALIGN(sizeof(struct extfuse_area), 64);
	u64 nodes = words + (sizeof(struct extfuse_word) << arg->word_bits);
	u64 size = PAGE_ALIGN(nodes + sizeof(struct extfuse_node) * (u64)arg->nodes);

	ctx->area = vmalloc_user(size);
	if (!ctx->area)
		return -ENOMEM;
	/* Not 0, and another one each time. */
	ctx->seed = get_random_u64() | 1;
	ctx->word_bits = arg->word_bits;
	ctx->nodes_max = arg->nodes;
	ctx->words = (void *)ctx->area + words;
	ctx->nodes = (void *)ctx->area + nodes;
	*ctx->area = (struct extfuse_area) {
		.abi = EXTFUSE_ABI,
		.word_bits = arg->word_bits,
		.nodes = arg->nodes,
		.seed = ctx->seed,
		.words_offset = words,
		.nodes_offset = nodes,
		.size = size,
	};
	return 0;
}

static struct extfuse_context *new_context(const struct extfuse_attach *arg)
{
	struct extfuse_context *ctx = kzalloc(sizeof(*ctx), GFP_KERNEL_ACCOUNT);

	if (!ctx)
		return NULL;
	refcount_set(&ctx->refs, 1);
	spin_lock_init(&ctx->backing_lock);
	hash_init(ctx->backing);
	raw_spin_lock_init(&ctx->standing_lock);
	hash_init(ctx->standing);
	ctx->stats = alloc_percpu(struct extfuse_stats);
	if (!ctx->stats || make_area(ctx, arg)) {
		free_context(ctx);
		return NULL;
	}
	return ctx;
}

/* The connection behind a descriptor of /dev/fuse; the file itself is not kept. */
static struct fuse_conn *connection_of(int fd)
{
	struct fuse_conn *fc = ERR_PTR(-EBADF);
	struct file *file = fget(fd);
	struct fuse_dev *dev;

	if (!file)
		return fc;
	if (file->f_op == &fuse_dev_operations) {
		dev = READ_ONCE(file->private_data);
		if (dev) {
			fc = EXTFUSE_DEV_CONN(dev);
			if (EXTFUSE_USER_NS(fc) == current_user_ns())
				fuse_conn_get(fc);
			else
				fc = ERR_PTR(-EPERM);
		}
	}
	fput(file);
	return fc;
}

static int publish(struct extfuse_context *ctx)
{
	struct extfuse_context *other;

	hlist_for_each_entry(other, &extfuse_by_kind[extfuse_kind(ctx->fc)], by_kind) {
		if (other->fc == ctx->fc)
			return -EBUSY;
	}
	hlist_add_head_rcu(&ctx->by_kind, &extfuse_by_kind[extfuse_kind(ctx->fc)]);
	find_kinds();
	return 0;
}

struct extfuse_context *extfuse_attach(const struct extfuse_attach *arg)
{
	struct extfuse_context *ctx;
	struct fuse_conn *fc;
	int err;

	if (arg->flags || arg->word_bits < 6 || arg->word_bits > 22 || arg->nodes > 1 << 24)
		return ERR_PTR(-EINVAL);
	fc = connection_of(arg->fuse_fd);
	if (IS_ERR(fc))
		return ERR_CAST(fc);
	ctx = new_context(arg);
	if (!ctx) {
		fuse_conn_put(fc);
		return ERR_PTR(-ENOMEM);
	}
	ctx->fc = fc;
	extfuse_word_begin(ctx, 0);
	refcount_inc(&ctx->refs);
	INIT_DELAYED_WORK(&ctx->settle, settle);
	mutex_lock(&by_kind_mutex);
	err = publish(ctx);
	mutex_unlock(&by_kind_mutex);
	if (err) {
		free_context(ctx);
		return ERR_PTR(err);
	}
	__module_get(THIS_MODULE);
	queue_delayed_work(system_long_wq, &ctx->settle, 0);
	return ctx;
}

void extfuse_detach(struct extfuse_context *ctx)
{
	mutex_lock(&by_kind_mutex);
	hlist_del_init_rcu(&ctx->by_kind);
	find_kinds();
	mutex_unlock(&by_kind_mutex);
	synchronize_rcu();
	extfuse_drop_programs(ctx);
	extfuse_drop_backing(ctx);
	extfuse_drop_standing(ctx);
	extfuse_put(ctx);
}

void extfuse_sum_stats(struct extfuse_context *ctx, struct extfuse_stats *sum)
{
	u64 *to = (u64 *)sum;
	int cpu, i;

	memset(sum, 0, sizeof(*sum));
	for_each_possible_cpu(cpu) {
		const u64 *from = (const u64 *)per_cpu_ptr(ctx->stats, cpu);

		for (i = 0; i < sizeof(*sum) / sizeof(u64); i++)
			to[i] += READ_ONCE(from[i]);
	}
}
