/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From the bytes of a request to the operation that answers it, and its reply. */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "host/internal.h"
#include "libfuserecover/killpoint.h"

/* FUSE_SETXATTR_EXT is not in every kernel: its two words are optional. */
#define SETXATTR_SHORT	8

const struct operation operations[OPCODES] = {
	[FUSE_LOOKUP]		= { "LOOKUP", op_lookup, undo_entry, 2, true },
	[FUSE_FORGET]		= { "FORGET", op_forget, NULL, sizeof(struct fuse_forget_in), false },
	[FUSE_GETATTR]		= { "GETATTR", op_getattr, NULL, sizeof(struct fuse_getattr_in), true },
	[FUSE_SETATTR]		= { "SETATTR", op_setattr, NULL, sizeof(struct fuse_setattr_in), true },
	[FUSE_READLINK]		= { "READLINK", op_readlink, NULL, 0, true },
	[FUSE_SYMLINK]		= { "SYMLINK", op_symlink, undo_entry, 4, true },
	[FUSE_MKNOD]		= { "MKNOD", op_mknod, undo_entry, sizeof(struct fuse_mknod_in) + 2, true },
	[FUSE_MKDIR]		= { "MKDIR", op_mkdir, undo_entry, sizeof(struct fuse_mkdir_in) + 2, true },
	[FUSE_UNLINK]		= { "UNLINK", op_unlink, NULL, 2, true },
	[FUSE_RMDIR]		= { "RMDIR", op_rmdir, NULL, 2, true },
	[FUSE_RENAME]		= { "RENAME", op_rename, NULL, sizeof(struct fuse_rename_in) + 4, true },
	[FUSE_LINK]		= { "LINK", op_link, undo_entry, sizeof(struct fuse_link_in) + 2, true },
	[FUSE_OPEN]		= { "OPEN", op_open, undo_open, sizeof(struct fuse_open_in), true },
	[FUSE_READ]		= { "READ", op_read, NULL, sizeof(struct fuse_read_in), true },
	[FUSE_WRITE]		= { "WRITE", op_write, NULL, sizeof(struct fuse_write_in), true },
	[FUSE_STATFS]		= { "STATFS", op_statfs, NULL, 0, true },
	[FUSE_RELEASE]		= { "RELEASE", op_release, NULL, sizeof(struct fuse_release_in), false },
	[FUSE_FSYNC]		= { "FSYNC", op_fsync, NULL, sizeof(struct fuse_fsync_in), true },
	[FUSE_SETXATTR]		= { "SETXATTR", op_setxattr, NULL, SETXATTR_SHORT + 2, true },
	[FUSE_GETXATTR]		= { "GETXATTR", op_getxattr, NULL, sizeof(struct fuse_getxattr_in) + 2, true },
	[FUSE_LISTXATTR]	= { "LISTXATTR", op_listxattr, NULL, sizeof(struct fuse_getxattr_in), true },
	[FUSE_REMOVEXATTR]	= { "REMOVEXATTR", op_removexattr, NULL, 2, true },
	[FUSE_FLUSH]		= { "FLUSH", op_flush, NULL, sizeof(struct fuse_flush_in), true },
	[FUSE_INIT]		= { "INIT", op_init, NULL, 16, false },
	[FUSE_OPENDIR]		= { "OPENDIR", op_opendir, undo_open, sizeof(struct fuse_open_in), true },
	[FUSE_READDIR]		= { "READDIR", op_readdir, NULL, sizeof(struct fuse_read_in), true },
	[FUSE_RELEASEDIR]	= { "RELEASEDIR", op_releasedir, NULL, sizeof(struct fuse_release_in), false },
	[FUSE_FSYNCDIR]		= { "FSYNCDIR", op_fsyncdir, NULL, sizeof(struct fuse_fsync_in), true },
	[FUSE_GETLK]		= { "GETLK", op_getlk, NULL, sizeof(struct fuse_lk_in), true },
	[FUSE_SETLK]		= { "SETLK", op_setlk, NULL, sizeof(struct fuse_lk_in), true },
	[FUSE_SETLKW]		= { "SETLKW", op_setlkw, NULL, sizeof(struct fuse_lk_in), true },
	[FUSE_ACCESS]		= { "ACCESS", op_access, NULL, sizeof(struct fuse_access_in), true },
	[FUSE_CREATE]		= { "CREATE", op_create, undo_create, sizeof(struct fuse_create_in) + 2, true },
	[FUSE_INTERRUPT]	= { "INTERRUPT", op_interrupt, NULL, sizeof(struct fuse_interrupt_in), false },
	[FUSE_BMAP]		= { "BMAP", NULL, NULL, 0, false },
	[FUSE_DESTROY]		= { "DESTROY", op_destroy, NULL, 0, false },
	[FUSE_IOCTL]		= { "IOCTL", op_ioctl, NULL, sizeof(struct fuse_ioctl_in), true },
	[FUSE_POLL]		= { "POLL", op_poll, NULL, sizeof(struct fuse_poll_in), true },
	[FUSE_NOTIFY_REPLY]	= { "NOTIFY_REPLY", NULL, NULL, 0, false },
	[FUSE_BATCH_FORGET]	= { "BATCH_FORGET", op_batch_forget, NULL, sizeof(struct fuse_batch_forget_in), false },
	[FUSE_FALLOCATE]	= { "FALLOCATE", op_fallocate, NULL, sizeof(struct fuse_fallocate_in), true },
	[FUSE_READDIRPLUS]	= { "READDIRPLUS", op_readdirplus, undo_readdirplus, sizeof(struct fuse_read_in), true },
	[FUSE_RENAME2]		= { "RENAME2", op_rename2, NULL, sizeof(struct fuse_rename2_in) + 4, true },
	[FUSE_LSEEK]		= { "LSEEK", op_lseek, NULL, sizeof(struct fuse_lseek_in), true },
	[FUSE_COPY_FILE_RANGE]	= { "COPY_FILE_RANGE", op_copy_file_range, NULL,
				    sizeof(struct fuse_copy_file_range_in), true },
	[FUSE_SETUPMAPPING]	= { "SETUPMAPPING", NULL, NULL, 0, false },
	[FUSE_REMOVEMAPPING]	= { "REMOVEMAPPING", NULL, NULL, 0, false },
	[FUSE_SYNCFS]		= { "SYNCFS", op_syncfs, NULL, 0, true },
	[FUSE_TMPFILE]		= { "TMPFILE", op_tmpfile, undo_create, sizeof(struct fuse_create_in), true },
	[FUSE_STATX]		= { "STATX", op_statx, NULL, sizeof(struct fuse_statx_in), true },
};

/*
 * A request that the kernel sends because of a reply comes after all that was done for the reply: the
 * way through the kernel orders the two. ThreadSanitizer does not see that way, so it is told.
 */
#if TSAN
static _Atomic unsigned kernel_order;
#define BEFORE_REPLY()	atomic_fetch_add(&kernel_order, 1)
#define AFTER_REQUEST()	atomic_fetch_add(&kernel_order, 1)
#else
#define BEFORE_REPLY()	((void)0)
#define AFTER_REQUEST()	((void)0)
#endif

/* As time stamps of files are taken. */
static uint64_t coarse_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static bool wants_reply(uint32_t opcode)
{
	return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT &&
	       opcode != FUSE_NOTIFY_REPLY;
}

void reply_error(int fd, uint64_t unique, int error)
{
	struct fuse_out_header out = { .len = sizeof(out), .error = error, .unique = unique };
	ssize_t n;

	BEFORE_REPLY();
	n = write(fd, &out, sizeof(out));
	(void)n; /* ENOENT: the kernel waits for it no longer */
}

const char *take_string(struct call *c)
{
	const char *s = (const char *)c->arg;
	const char *end = memchr(s, 0, c->arg_size);

	if (!end)
		return NULL;
	c->arg_size -= (size_t)(end - s) + 1;
	c->arg += end - s + 1;
	return s;
}

const char *take_name(struct call *c, int *err)
{
	const char *name = take_string(c);

	*err = 0;
	if (!name || !*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		*err = -EINVAL;
	return name;
}

/* Finds the caller's group among the extensions at the end of a request (FUSE_CREATE_SUPP_GROUP). */
static int take_extensions(struct call *c)
{
	size_t size = (size_t)c->in->total_extlen * 8;
	const unsigned char *ext;

	if (size > c->arg_size)
		return -EINVAL;
	c->arg_size -= size;
	ext = c->arg + c->arg_size;
	while (size) {
		struct fuse_ext_header head;
		struct fuse_supp_groups groups;

		if (size < sizeof(head))
			return -EINVAL;
		memcpy(&head, ext, sizeof(head));
		if (head.size < sizeof(head) || head.size > size)
			return -EINVAL;
		if (head.type == FUSE_EXT_GROUPS && head.size >= sizeof(head) + sizeof(groups) + sizeof(uint32_t)) {
			memcpy(&groups, ext + sizeof(head), sizeof(groups));
			if (groups.nr_groups)
				memcpy(&c->req.supp_group, ext + sizeof(head) + sizeof(groups), sizeof(uint32_t));
		}
		ext += head.size;
		size -= head.size;
	}
	return 0;
}

static int64_t run(struct call *c, const struct operation *op)
{
	struct fe_host *h = c->host;
	int64_t result;
	int err;

	if (!op || !op->run)
		return -ENOSYS;
	if (c->in->total_extlen) {
		err = take_extensions(c);
		if (err)
			return err;
	}
	if (c->arg_size < op->arg_size)
		return -EINVAL;
	if (!op->on_node)
		return op->run(c);
	err = node_get(h, c->in->nodeid, &c->node);
	if (err)
		return err;
	result = op->run(c);
	/* Not again: a name may have been made. The next one finds room. */
	standing_make_room(c, (int)result);
	node_put(h, &c->node);
	return result;
}

static void trace(const struct call *c, const struct operation *op, int64_t result)
{
	const char *name = op && op->name ? op->name : "?";

	if (result == NO_REPLY || result == PARKED)
		fe_log(LOG_DEBUG, "%llu %s nodeid %llx pid %u: no reply now", (unsigned long long)c->in->unique,
		       name, (unsigned long long)c->in->nodeid, c->in->pid);
	else
		fe_log(LOG_DEBUG, "%llu %s nodeid %llx pid %u: %lld%s%s", (unsigned long long)c->in->unique, name,
		       (unsigned long long)c->in->nodeid, c->in->pid, (long long)result, result < 0 ? " " : "",
		       result < 0 ? strerror((int)-result) : "");
}

static void send_reply(struct call *c, const struct operation *op, int64_t result)
{
	struct fuse_out_header *out = fr_slot_reply_buffer(c->worker->slot);
	int err;

	out->error = result < 0 ? (int32_t)result : 0;
	BEFORE_REPLY();
	err = fr_slot_reply(c->worker->slot, sizeof(*out) + (result > 0 ? (size_t)result : 0));
	if (!err || !op)
		return;
	/* ENOENT: the kernel waits no more. Anything else means that the reply was malformed. */
	if (err != -ENOENT && err != -ENODEV && err != -ECONNABORTED) {
		fe_log(LOG_ERR, "the kernel refused the reply to %s: %s", op->name, strerror(-err));
		reply_error(c->worker->fd, c->in->unique, -EIO);
	}
	if (result >= 0 && op->undo)
		op->undo(c, (size_t)result);
}

static bool well_formed(struct worker *w, size_t size)
{
	const struct fuse_in_header *in = (const void *)w->in;

	if (size < sizeof(*in) || in->len != size) {
		fe_log(LOG_ERR, "a request of %zu bytes that says it has %u was dropped", size,
		       size < sizeof(*in) ? 0 : in->len);
		return false;
	}
	return true;
}

static void fill_request(struct call *c)
{
	c->req = (struct fe_request){
		.unique = c->in->unique,
		.opcode = c->in->opcode,
		.uid = c->in->uid,
		.gid = c->in->gid,
		.pid = c->in->pid,
		.supp_group = FE_NO_GROUP,
	};
}

/* Its size tells that it was made empty for this request; what it holds is up to the backend. */
static struct fe_intent *intent_of(struct fr_slot *s)
{
	struct fe_intent *intent = fr_slot_intent(s);

	if (!fr_slot_intent_size(s)) {
		intent->state = 0;
		fr_slot_intent_set(s, sizeof(*intent));
	}
	return intent;
}

void call_init(struct call *c, struct worker *w, size_t size)
{
	c->host = w->host;
	c->worker = w;
	c->note = fr_slot_note(w->slot);
	c->in = (const void *)w->in;
	c->arg = w->in + sizeof(*c->in);
	c->arg_size = size - sizeof(*c->in);
	c->out = w->out + sizeof(struct fuse_out_header);
	c->out_size = w->out_size - sizeof(struct fuse_out_header);
	c->stamp = 0;
	fill_request(c);
}

void dispatch(struct worker *w, size_t size, bool again)
{
	const struct fuse_in_header *in = (const void *)w->in;
	const struct operation *op;
	struct writing writing;
	struct call c;
	int64_t result;
	bool ordered;

	AFTER_REQUEST();
	if (!well_formed(w, size)) {
		fr_slot_reply(w->slot, 0);
		return;
	}
	/* Before anything that may take its time. */
	ordered = order_begin(w, &writing);
	op = in->opcode < OPCODES ? &operations[in->opcode] : NULL;
	atomic_fetch_add_explicit(&w->host->shared->counts[w->index][op ? in->opcode : OPCODES - 1], 1,
				  memory_order_relaxed);
	call_init(&c, w, size);
	if (w->host->hook)
		c.stamp = extfuse_stamp(w->host->hook);
	if (!again)
		c.note->since = coarse_ns();
	c.req.again = again;
	c.req.since = c.note->since;
	c.req.intent = w->host->recovers ? intent_of(w->slot) : NULL;
	FR_STEP();
	result = run(&c, op);
	if (ordered)
		order_end(w->host, &writing);
	FR_STEP();
	w->answered = now_ns();
	if (w->host->opt.debug)
		trace(&c, op, result);
	if (result == PARKED)
		fr_slot_park(w->slot);
	else if (result != NO_REPLY && wants_reply(in->opcode))
		send_reply(&c, op, result);
	else
		fr_slot_reply(w->slot, 0);
}
