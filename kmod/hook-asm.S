/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What ftrace calls in place of the first instruction of the driver's functions. On the stack are then
 * the address behind that instruction, and the address to which the function will return.
 */
#include <linux/linkage.h>
#include <asm/frame.h>
#include <asm/nospec-branch.h>
#include "hook.h"
#include "layout.h"

	.text

/* With a verdict in eax and r11: goes on with the function, or returns r11 to its caller. */
.macro VERDICT
	testl	%eax, %eax
	jnz	1f
	RET
1:	movq	%r11, %rax
	leaq	extfuse_leave(%rip), %rcx
	movq	%rcx, (%rsp)
	RET
.endm

/*
 * With fm in the register given: where no connection of this kind (by its address) has a context, the
 * request passes at once.
 *
 * struct extfuse_verdict NAME_enter(a, b, c, site) in rax and rdx: 0 goes on with the function, else its
 * caller gets the result.
 */
.macro HOOK name fm
SYM_FUNC_START(extfuse_\name)
	movq	(\fm), %rax
	shrq	$EXTFUSE_KIND_SHIFT, %rax
	movq	extfuse_kinds(%rip), %r11
	btq	%rax, %r11
	jc	2f
	RET
2:	pushq	%rbp
	movq	%rsp, %rbp
	pushq	%rdi
	pushq	%rsi
	pushq	%rdx
	movq	8(%rbp), %rcx
	call	extfuse_\name\()_enter
	movq	%rdx, %r11
	popq	%rdx
	popq	%rsi
	popq	%rdi
	popq	%rbp
	VERDICT
SYM_FUNC_END(extfuse_\name)
.endm

#if EXTFUSE_SYNC_IDMAP
HOOK sync %rsi
#else
HOOK sync %rdi
#endif
HOOK background %rdi

/*
 * A function of the driver that makes no request yet; struct extfuse_verdict NAME_enter(its N arguments). Nothing
 * is done while `where` is 0.
 */
.macro WALK name n where=extfuse_kinds
SYM_FUNC_START(extfuse_\name)
	cmpq	$0, \where(%rip)
	jne	2f
1:	RET
2:
.ifc \name,revalidate
	testl	$EXTFUSE_LOOKUP_RCU, %esi
	jz	1b
.endif
	pushq	%rdi
	pushq	%rsi
.if \n > 2
	pushq	%rdx
.endif
.if \n > 3
	pushq	%rcx
	pushq	%r8
.endif
	call	extfuse_\name\()_enter
	movq	%rdx, %r11
.if \n > 3
	popq	%r8
	popq	%rcx
.endif
.if \n > 2
	popq	%rdx
.endif
	popq	%rsi
	popq	%rdi
	VERDICT
SYM_FUNC_END(extfuse_\name)
.endm

#ifdef EXTFUSE_HAS_WALK
WALK revalidate 2
WALK getattr 5
WALK permission 3 extfuse_permission_kinds
#ifdef EXTFUSE_WRITEPAGES_AT
WALK read 2 extfuse_backings
#endif
#endif

/* Returns in the function's place. */
SYM_FUNC_START(extfuse_leave)
	RET
SYM_FUNC_END(extfuse_leave)

/*
 * long extfuse_original(a, b, c, site): the function behind its first instruction, where it is not
 * hooked. By a return, as there is no landing pad for an indirect jump.
 */
SYM_FUNC_START(extfuse_original)
	FRAME_BEGIN
	call	extfuse_enter_original
	FRAME_END
	RET
SYM_FUNC_END(extfuse_original)

SYM_FUNC_START_LOCAL(extfuse_enter_original)
	call	extfuse_to_site
	RET
SYM_FUNC_END(extfuse_enter_original)

SYM_FUNC_START_LOCAL(extfuse_to_site)
	movq	%rcx, (%rsp)
	RET
SYM_FUNC_END(extfuse_to_site)
