/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Steps on what processes share: locks and mappings. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>

#include "posix.h"

#define OP(name) static void do_##name(struct ctx *ctx, char **a, char *out)

/* Waiting calls carry on after a signal of their own accord or not at all: none is sent here. */
OP(flock) { put_result(out, flock(*arg_fd(ctx, a[0]), arg_num(a[1]))); }

static struct flock lock_arg(char **a)
{
	return (struct flock){
		.l_type = arg_num(a[1]),
		.l_whence = a[4] ? arg_num(a[4]) : SEEK_SET,
		.l_start = arg_num(a[2]),
		.l_len = arg_num(a[3]),
	};
}

static void do_lock(struct ctx *ctx, char **a, char *out, int command)
{
	struct flock lock = lock_arg(a);

	put_result(out, fcntl(*arg_fd(ctx, a[0]), command, &lock));
	/* Both are allowed for a lock held by another process. */
	if (!strcmp(out, "EACCES"))
		strcpy(out, "EAGAIN");
}

/* setlk SLOT TYPE START LENGTH [WHENCE]; w: waits; ofd_: lock of the open file */
OP(setlk) { do_lock(ctx, a, out, F_SETLK); }
OP(setlkw) { do_lock(ctx, a, out, F_SETLKW); }
OP(ofd_setlk) { do_lock(ctx, a, out, F_OFD_SETLK); }
OP(ofd_setlkw) { do_lock(ctx, a, out, F_OFD_SETLKW); }

static void do_get(struct ctx *ctx, char **a, char *out, int command)
{
	static const char *const types[] = { [F_RDLCK] = "read", [F_WRLCK] = "write" };
	struct flock lock = lock_arg(a);
	int rc = fcntl(*arg_fd(ctx, a[0]), command, &lock);

	put_result(out, rc);
	if (rc)
		return;
	if (lock.l_type == F_UNLCK)
		strcpy(out, "free");
	else
		snprintf(out, RESULT_MAX, "%s,%ld,%ld,%s", types[lock.l_type], (long)lock.l_start,
			 (long)lock.l_len, lock.l_pid > 0 && !kill(lock.l_pid, 0) ? "pid" :
			 lock.l_pid == -1 ? "-1" : errno == EPERM ? "pid" : "nobody");
}

/* getlk SLOT TYPE START LENGTH: "free", or the lock in the way */
OP(getlk) { do_get(ctx, a, out, F_GETLK); }
OP(ofd_getlk) { do_get(ctx, a, out, F_OFD_GETLK); }

static struct ctx *slot_map(struct ctx *ctx, const char *arg, int *slot)
{
	*slot = *arg - '0';
	return ctx;
}

/* mmap SLOT FD LENGTH PROT FLAGS [OFFSET] */
OP(mmap)
{
	int slot;
	char *at;

	slot_map(ctx, a[0], &slot);
	at = mmap(NULL, arg_num(a[2]), arg_num(a[3]), arg_num(a[4]), *arg_fd(ctx, a[1]),
		  a[5] ? arg_num(a[5]) : 0);
	put_result(out, at == MAP_FAILED ? -1 : 0);
	if (at == MAP_FAILED)
		return;
	ctx->map[slot] = at;
	ctx->map_len[slot] = arg_num(a[2]);
}

static sigjmp_buf away;

static void leave(int sig)
{
	siglongjmp(away, sig);
}

static void touch(struct ctx *ctx, char **a, char *out, bool store)
{
	const struct sigaction action = { .sa_handler = leave };
	struct sigaction old_bus, old_segv;
	int slot, sig;
	volatile char *at;

	slot_map(ctx, a[0], &slot);
	at = ctx->map[slot] + arg_num(a[1]);
	sigaction(SIGBUS, &action, &old_bus);
	sigaction(SIGSEGV, &action, &old_segv);
	sig = sigsetjmp(away, 1);
	if (sig == 0 && store)
		for (const char *from = a[2]; *from; from++)
			*at++ = *from;
	if (sig == 0 && !store) {
		long n = arg_num(a[2]);

		for (long i = 0; i < n; i++)
			out[i] = at[i] ?: '_';
		out[n] = 0;
	}
	if (sig)
		snprintf(out, RESULT_MAX, "SIG%s", sigabbrev_np(sig));
	else if (store)
		strcpy(out, "0");
	sigaction(SIGBUS, &old_bus, NULL);
	sigaction(SIGSEGV, &old_segv, NULL);
}

OP(peek) { touch(ctx, a, out, false); }	/* peek SLOT OFFSET COUNT */
OP(poke) { touch(ctx, a, out, true); }	/* poke SLOT OFFSET TEXT */

OP(msync)
{
	int slot;

	slot_map(ctx, a[0], &slot);
	put_result(out, msync(ctx->map[slot], ctx->map_len[slot], arg_num(a[1])));
}

OP(munmap)
{
	int slot;

	slot_map(ctx, a[0], &slot);
	put_result(out, munmap(ctx->map[slot], ctx->map_len[slot]));
	ctx->map[slot] = NULL;
}

/* A process that ends here lets go of all it held; the next step of the actor is in a new one. */
OP(exit)
{
	(void)ctx, (void)a, (void)out;
	_exit(0);
}

const struct op share_ops[] = {
#define N(name, args) { #name, args, do_##name }
	N(flock, 2), N(setlk, 4), N(setlkw, 4), N(ofd_setlk, 4), N(ofd_setlkw, 4), N(getlk, 4),
	N(ofd_getlk, 4), N(mmap, 5), N(peek, 3), N(poke, 3), N(msync, 2), N(munmap, 1), N(exit, 0),
	{ NULL, 0, NULL },
};
