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
	WRITE_ONCE(ctx->program_flags[arg->opcode], prog ? arg->flags | EXTFUSE_PROGRAM_THERE : 0);
	prog = unrcu_pointer(xchg(&ctx->programs[arg->opcode], RCU_INITIALIZER(prog)));
	smp_store_release(&ctx->programs_set, ctx->programs_set + 1);
	if (!prog)
		return 0;
	/* Who runs the old one has preemption disabled. */
	synchronize_rcu();
	put_program(prog);
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
