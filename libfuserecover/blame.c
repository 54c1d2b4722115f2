/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whose request it was that a worker died of: a handler notes the signal in the slot of the thread that
 * raised it, and lets it take its course. A signal from outside blames nobody.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#define STACK_SIZE	(64u << 10)

static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP };
#define FAULTS (sizeof(faults) / sizeof(*faults))

static struct sigaction before[FAULTS];

static void on_fault(int sig, siginfo_t *info, void *context)
{
	struct fr_slot *slot = fr_current;
	bool sent = info->si_code <= 0, own = !sent || info->si_pid == getpid();
	int saved = errno;

	(void)context;
	if (slot && own && atomic_load(&slot->busy))
		atomic_store(&slot->cp->fault, (uint32_t)sig);
	/* As it was before, and once more: a fault repeats itself, what was sent is sent again. */
	for (unsigned i = 0; i < FAULTS; i++)
		if (faults[i] == sig)
			sigaction(sig, &before[i], NULL);
	if (sent)
		syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), sig);
	errno = saved;
}

void fr_blame_install(void)
{
	struct sigaction act = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigemptyset(&act.sa_mask);
	for (unsigned i = 0; i < FAULTS; i++) {
		struct sigaction old;

		/* A keeper that was forked from a worker has the worker's handler, and so have its children. */
		if (!sigaction(faults[i], &act, &old) && old.sa_sigaction != on_fault)
			before[i] = old;
	}
}

/* A stack overflow has to be handled on another stack. */
void fr_blame_thread(struct fr_slot *slot)
{
	stack_t stack = { 0 };

	if (slot->signal_stack || slot->fr->role != WORKER || sigaltstack(NULL, &stack) ||
	    !(stack.ss_flags & SS_DISABLE))
		return;
	stack.ss_sp = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack.ss_sp == MAP_FAILED)
		return;
	stack.ss_size = STACK_SIZE;
	stack.ss_flags = 0;
	if (sigaltstack(&stack, NULL))
		munmap(stack.ss_sp, STACK_SIZE);
	else
		slot->signal_stack = stack.ss_sp;
}

void fr_blame_leave(struct fr_slot *slot)
{
	stack_t none = { .ss_flags = SS_DISABLE };

	if (!slot->signal_stack)
		return;
	sigaltstack(&none, NULL);
	munmap(slot->signal_stack, STACK_SIZE);
	slot->signal_stack = NULL;
}
