/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libfuserecover-fuse3: a low-level file system of libfuse (3.14 or newer) that may die.
 *
 *	fr_new(&options, &fr);			// options.worker calls fuse_session_loop_mt()
 *	fr_table_new(fr, ...);			// what the file system knows
 *	se = fuse_session_new(...);
 *	fuse_session_mount(se, mountpoint);
 *	fr_fuse3_prepare(fr, se, 0);
 *	fr_run(fr);				// instead of fuse_session_loop_mt()
 *	fuse_session_unmount(se);
 *
 * The handlers stay as they are. A request that was not answered when the worker died is given to its
 * handler once more, by the successor, with the same bytes. So the file system's part is:
 *
 * - What it must not lose lies in tables and areas, and changes within fr_begin(fr_fuse3_slot()) and the
 *   reply: fuse_reply_*() ends the step, and stores the reply with it. A lock that guards the change is
 *   taken before fr_begin() and held until the reply is made. A FORGET has no reply: end its step with
 *   fr_slot_reply(slot, 0), before the lock is given back, then call fuse_reply_none(). Have
 *   forget_multi(), too: otherwise a batch is done in parts, and the rest of one that was interrupted is
 *   not done.
 * - What a handler changes elsewhere may have been done already: see fr_slot_intent().
 * - init() runs in each worker, with what the kernel said to the first, and must answer the same;
 *   else the service ends.
 *
 * What can not be recovered: a file system whose nodeids or file handles (fuse_entry_param.ino,
 * fuse_file_info.fh) are addresses, which mean nothing in another process. The first thousand of each kind
 * are looked at, and where one is an address, the service ends with a line that says so. Give ids
 * of records (fr_record_id()). A descriptor's number as file handle is not refused, but is wrong as
 * well: a RELEASE that is done again closes what got the number since. Equally lost with their
 * process are poll handles and what fuse_lowlevel_notify_retrieve() waits for. CUSE, a transport by
 * fuse_session_custom_io() that is not /dev/fuse, and requests by io_uring are refused; an init() that wants
 * FUSE_CAP_SPLICE_READ, which is not offered, ends the service.
 *
 * On /dev/fuse, fr_fuse3_prepare() replaces without a word what fuse_session_custom_io() was given before.
 * Called after it, that takes requests and replies past the slots: fr_fuse3_loop() refuses to serve then, the
 * other loops can not tell, and nothing is recovered.
 *
 * Where the caller of a request got a signal, the handler that runs again is told again
 * (fuse_req_interrupted(), fuse_req_interrupt_func(), which may be called twice).
 *
 * A handler may leave its request to another thread, which answers it by fuse_reply_*(): its slot
 * then waits, and reads nothing else. Have more threads than requests of that kind (blocking locks).
 * These other threads must not change tables, and are not told by fuse_reply_*() that nobody waits.
 *
 * fuse_session_loop_mt() and threads of one's own do not go together in one worker. A descriptor of another
 * mount's /dev/fuse that is opened in options.worker has to be kept (fr_fd_keep()), or a successor closes it.
 *
 * There is one session in a process. Errors are negative errno values, and what is wrong goes to
 * fuse_log().
 */
#ifndef FUSERECOVER_FUSE3_H
#define FUSERECOVER_FUSE3_H

#include <fuserecover.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fuse_session;

/*
 * After fuse_session_mount(), before fr_run(): puts the session's requests and replies through slots.
 * options.worker then serves by fuse_session_loop(), fuse_session_loop_mt(), by threads that call
 * fuse_session_receive_buf() and fuse_session_process_buf(), or by fr_fuse3_loop(). For the last one
 * it opens `clones` more descriptors of the connection, as libfuse's clone_fd does; else 0. These and the
 * session's are kept (fr_fd_keep()), for a program that takes over. It makes an area, so it is called in
 * one order with fr_table_new(). -EINVAL: not mounted, or another number of clones than the predecessor's.
 * -EBADF: one of those was not handed over. -ENOTSUP: not /dev/fuse. The loops end by SIGURG, which nothing
 * else may need. Since 0.2.
 */
int fr_fuse3_prepare(struct fr *fr, struct fuse_session *se, unsigned clones);

/*
 * In options.worker: as fuse_session_loop_mt(), by so many threads, each with a slot. Requests are not
 * copied on their way, and destroy() is called at the end. Serves until the service shall end, the file
 * system is unmounted, or fuse_session_exit() was called; then returns 0, which ends the service.
 * -EINVAL: another session than was prepared, or more threads than slots. -ENOTSUP: it can not be
 * recovered. -EPROTO: init() failed, or asked for something else than in the first worker. Since 0.2.
 */
int fr_fuse3_loop(struct fr *fr, struct fuse_session *se, unsigned threads);

/*
 * To be called by options.reset, or to be it where the file system has no locks of its own: the
 * calling process was forked from a worker with threads, to become the keeper. Since 0.2.
 */
void fr_fuse3_reset(void *arg);

/* In a handler: the slot that its request lies in. NULL in init() and destroy(), and in threads that
 * have not read a request. Since 0.2. */
struct fr_slot *fr_fuse3_slot(void);

#ifdef __cplusplus
}
#endif

#endif
