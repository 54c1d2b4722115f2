/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which program answers which opcode, and how often it did. */
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "libextfuse/internal.h"

static const struct program_kind *ours(uint32_t opcode)
{
	for (int i = 0; i < PROGRAMS; i++)
		if (program_kinds[i].opcode == opcode)
			return &program_kinds[i];
	return NULL;
}

/* The module looks closer: how far the program reaches, and whether it calls others. */
static int check_program(int fd)
{
	struct bpf_prog_info info = { 0 };
	uint32_t size = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &size))
		return -EINVAL;
	return info.type == BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE ? 0 : -EINVAL;
}

/* "return EXTFUSE_PASSTHRU;": the module asks the daemon where there is no file. */
static int load_backing(void)
{
	const struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = EXTFUSE_PASSTHRU },
		{ .code = BPF_JMP | BPF_EXIT },
	};

	return bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE, "extfuse_backing", "GPL", code,
			     sizeof(code) / sizeof(code[0]), NULL);
}

API int extfuse_handler(struct extfuse *x, uint32_t opcode, int prog_fd, uint32_t flags)
{
	struct extfuse_program p = { .opcode = opcode, .prog_fd = prog_fd };
	const struct program_kind *kind = ours(opcode);
	_cleanup_close_ int own = -1;

	/* While it is being attached, too. */
	if (x->device < 0)
		return x->attached ? -ENOTSUP : -ENOTCONN;
	if (opcode >= EXTFUSE_OPCODES || prog_fd < EXTFUSE_HANDLER_BACKING || flags & ~EXTFUSE_HANDLER_IDS)
		return -EINVAL;
	if (prog_fd == EXTFUSE_HANDLER_OURS) {
		p.prog_fd = kind ? x->programs[kind - program_kinds] : -1;
		p.flags = kind ? kind->flags : 0;
	} else if (prog_fd == EXTFUSE_HANDLER_BACKING) {
		if (opcode != FUSE_READ && opcode != FUSE_WRITE)
			return -EINVAL;
		p.prog_fd = own = load_backing();
		if (own < 0)
			return own;
	} else if (prog_fd >= 0) {
		if (check_program(prog_fd))
			return -EINVAL;
		p.flags = EXTFUSE_PROGRAM_CLEARED | (flags & EXTFUSE_HANDLER_IDS ? EXTFUSE_PROGRAM_IDS : 0);
	}
	return ioctl(x->device, EXTFUSE_IOC_PROGRAM, &p) ? -errno : 0;
}

static int module_figures(const struct extfuse *x, struct extfuse_figures *f)
{
	struct extfuse_stats stats = { 0 };

	if (ioctl(x->device, EXTFUSE_IOC_STATS, &stats))
		return -errno;
	for (int i = 0; i < EXTFUSE_OPCODES && i < EXTFUSE_STATS_OPCODES; i++) {
		const struct extfuse_opcode_stats *from = &stats.opcode[i];

		f->opcode[i] = (struct extfuse_opcode_figures){
			.hits = from->hits,
			.passthru = from->passthru,
			.misses = from->misses,
			.stale = from->stale,
			.refused = from->refused,
			.mutations = from->mutations,
		};
	}
	return 0;
}

API int extfuse_figures(const struct extfuse *x, struct extfuse_figures *out)
{
	struct extfuse_figures f = { .engine = x->engine };
	uint32_t size = out->struct_size;
	int err = 0;

	if (size < offsetof(struct extfuse_figures, opcode) || size > sizeof(f))
		return -EINVAL;
	if (!x->attached)
		return -ENOTCONN;
	f.puts = __atomic_load_n(&x->counters.puts, __ATOMIC_RELAXED);
	f.late = __atomic_load_n(&x->counters.late, __ATOMIC_RELAXED);
	f.invalidations = __atomic_load_n(&x->counters.invalidations, __ATOMIC_RELAXED);
	f.notifications = __atomic_load_n(&x->counters.notifications, __ATOMIC_RELAXED);
	if (!native(x)) {
		f.memory = x->sizes.memory;
		err = module_figures(x, &f);
	}
	f.struct_size = size;
	memcpy(out, &f, size);
	return err;
}
