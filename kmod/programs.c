// SPDX-License-Identifier: GPL-2.0-only
/* The BPF programs of a context: which are fit, and that they stay so. */
#include "kmod.h"

static int has_tail_calls(const struct bpf_prog *prog)
{
	int found = 0;
	u32 i;

	mutex_lock(&prog->aux->used_maps_mutex);
	for (i = 0; i < prog->aux->used_map_cnt; i++)
		found |= prog->aux->used_maps[i]->map_type == BPF_MAP_TYPE_PROG_ARRAY;
	mutex_unlock(&prog->aux->used_maps_mutex);
	return found;
}

/*
 * A program of type EXT that replaces a function of this one could write beyond the request: its reach is not in
 * max_tp_access. What may be the target of a tail call is not replaced, so it is counted as one.
 */
static int pin(struct bpf_prog *prog)
{
	int err = 0;
#ifdef EXTFUSE_CAN_PIN
	mutex_lock(&prog->aux->ext_mutex);
	if (prog->aux->is_extended)
		err = -EINVAL;
	else
		prog->aux->prog_array_member_cnt++;
	mutex_unlock(&prog->aux->ext_mutex);
#endif
	return err;
}

static void put_program(struct bpf_prog *prog)
{
#ifdef EXTFUSE_CAN_PIN
	mutex_lock(&prog->aux->ext_mutex);
	prog->aux->prog_array_member_cnt--;
	mutex_unlock(&prog->aux->ext_mutex);
#endif
	bpf_prog_put(prog);
}

static struct bpf_prog *fit_program(int fd)
{
	struct bpf_prog *prog = bpf_prog_get_type_dev(fd, BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE, false);

	if (IS_ERR(prog))
		return prog;
	if (prog->aux->max_tp_access > sizeof(struct extfuse_request) || has_tail_calls(prog) || pin(prog)) {
		bpf_prog_put(prog);
		return ERR_PTR(-EINVAL);
	}
	return prog;
}

static bool good_flags(u32 op, u32 flags)
{
	if (flags & EXTFUSE_PROGRAM_EARLY)
		return flags == (EXTFUSE_PROGRAM_EARLY | EXTFUSE_PROGRAM_MARKED) &&
			(op == FUSE_LOOKUP || op == FUSE_GETATTR);
	return !(flags & ~(EXTFUSE_PROGRAM_IDS | EXTFUSE_PROGRAM_MARKED | EXTFUSE_PROGRAM_CLEARED));
}

static void replace_program(struct extfuse_context *ctx, u32 op, struct bpf_prog *by, u32 flags)
{
	static DEFINE_MUTEX(one_at_a_time);
	struct bpf_prog *old;

	mutex_lock(&one_at_a_time);
	/* Neither is asked with the flags of the other. */
	WRITE_ONCE(ctx->program_flags[op], 0);
	old = unrcu_pointer(xchg(&ctx->programs[op], RCU_INITIALIZER(NULL)));
	if (old) {
		/* Who runs it has preemption disabled. */
		synchronize_rcu();
		put_program(old);
	}
	rcu_assign_pointer(ctx->programs[op], by);
	/* What the old one said is not said again. */
	smp_store_release(&ctx->programs_set, ctx->programs_set + 1);
	WRITE_ONCE(ctx->program_flags[op], by ? flags | EXTFUSE_PROGRAM_THERE : 0);
	mutex_unlock(&one_at_a_time);
}

int extfuse_set_program(struct extfuse_context *ctx, const struct extfuse_program *arg)
{
	struct bpf_prog *prog = NULL;

	if (arg->pad || arg->prog_fd < -1 || !good_flags(arg->opcode, arg->flags))
		return -EINVAL;
	if (arg->opcode >= EXTFUSE_OPCODES || !(extfuse_answerable() >> arg->opcode & 1))
		return -EOPNOTSUPP;
	if (arg->prog_fd >= 0) {
		prog = fit_program(arg->prog_fd);
		if (IS_ERR(prog))
			return PTR_ERR(prog);
	}
	replace_program(ctx, arg->opcode, prog, arg->flags);
	return 0;
}

/* Nobody runs any by now. */
void extfuse_drop_programs(struct extfuse_context *ctx)
{
	int op;

	for (op = 0; op < EXTFUSE_OPCODES; op++) {
		if (rcu_access_pointer(ctx->programs[op]))
			put_program(rcu_dereference_protected(ctx->programs[op], 1));
	}
}
