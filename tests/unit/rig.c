/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/rig.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(p, n) ((void)(p), (void)(n))
#define __asan_unpoison_memory_region(p, n) ((void)(p), (void)(n))
#endif

struct rig rig;

void rig_start(const struct fe_backend *be, const struct fe_host_options *change)
{
	struct fe_host_options opt = {
		.struct_size = sizeof(opt),
		.source = "recorder:unit",
		.mountpoint = "/",
		.backend = be,
		.argument = "unit",
		.entry_valid = 1500000002,
		.attr_valid = 2000000007,
	};
	unsigned unfinished;

	if (change)
		opt = *change;
	opt.backend = be;
	ck_assert_int_eq(fe_host_new(&opt, &rig.host), 0);
	rig.dev = memfd_create("replies", MFD_CLOEXEC);
	ck_assert_int_ge(rig.dev, 0);
	rig.worker.host = rig.host;
	rig.worker.fd = rig.dev;
	ck_assert_int_eq(serve_begin(rig.host, &unfinished), 0);
	ck_assert_int_eq(worker_take_slot(&rig.worker), 0);
	rig.workers[0] = &rig.worker;
	rig.host->pool.workers = rig.workers;
	rig.host->pool.count = 1;
	passthrough_set(rig.host, false, "unit");
	recorder_clear();
}

void rig_stop(void)
{
	rig.host->pool.workers = NULL;
	rig.host->pool.count = 0;
	__asan_unpoison_memory_region((unsigned char *)rig.worker.in, rig.worker.in_size);
	fr_slot_leave(rig.worker.slot);
	serve_end(rig.host);
	fe_host_free(rig.host);
	close(rig.dev);
	free(rig.body);
	rig = (struct rig){ 0 };
}

void rig_setup(void)
{
	memset(&rec, 0, sizeof(rec));
	rig_start(&recorder_backend, NULL);
}

void rig_teardown(void)
{
	rig_stop();
	for (uint32_t i = 0; i < rec.tokens; i++)
		ck_assert_msg(rec.returned[i] == 1, "record %u of %u was given back %u times; last calls:\n%s", i,
			      rec.tokens, rec.returned[i], rec.log);
}

void rig_begin(uint32_t opcode, uint64_t nodeid)
{
	rig.unique += 2;
	rig.head = (struct fuse_in_header){
		.opcode = opcode, .unique = rig.unique, .nodeid = nodeid, .uid = RIG_UID, .gid = RIG_GID,
		.pid = RIG_PID,
	};
	rig.size = sizeof(rig.head);
	__asan_unpoison_memory_region((unsigned char *)rig.worker.in, rig.worker.in_size);
	memset((unsigned char *)rig.worker.in, 0xee, 4096);
}

void *rig_put(const void *data, size_t size)
{
	unsigned char *at = (unsigned char *)rig.worker.in + rig.size;

	ck_assert_uint_le(rig.size + size, rig.worker.in_size);
	if (size)
		memcpy(at, data, size);
	rig.size += size;
	return at;
}

void rig_str(const char *s)
{
	rig_put(s, strlen(s) + 1);
}

void rig_collect(void)
{
	off_t size = lseek(rig.dev, 0, SEEK_END);

	free(rig.body);
	rig.body = NULL;
	rig.body_size = 0;
	rig.reply_size = (size_t)size;
	memset(&rig.reply, 0, sizeof(rig.reply));
	if (size) {
		ck_assert_int_ge(size, sizeof(rig.reply));
		ck_assert_int_eq(pread(rig.dev, &rig.reply, sizeof(rig.reply), 0), sizeof(rig.reply));
		rig.body_size = (size_t)size - sizeof(rig.reply);
		rig.body = malloc(rig.body_size + 1);
		ck_assert_int_eq(pread(rig.dev, rig.body, rig.body_size, sizeof(rig.reply)), rig.body_size);
		/* one reply, of the length that it says */
		ck_assert_uint_eq(rig.reply.len, rig.reply_size);
	}
	ck_assert_int_eq(ftruncate(rig.dev, 0), 0);
	lseek(rig.dev, 0, SEEK_SET);
}

/* `size` bytes came from the kernel; what lies behind them is out of bounds. */
void rig_dispatch(size_t size)
{
	struct worker *w = &rig.worker;

	fr_slot_filled(w->slot, w->fd, size);
	memset(w->out, 0xdd, 4096);
	__asan_poison_memory_region(w->in + size, w->in_size - size);
	dispatch(w, size, false);
	__asan_unpoison_memory_region(w->in, w->in_size);
	rig_collect();
	if (rig.reply_size)
		ck_assert_uint_eq(rig.reply.unique, rig.head.unique);
}

void rig_send_cut(size_t size)
{
	rig.head.len = (uint32_t)size;
	memcpy((unsigned char *)rig.worker.in, &rig.head, sizeof(rig.head));
	rig_dispatch(size);
}

void rig_send(void)
{
	rig_send_cut(rig.size);
}

static void print_bytes(char *to, size_t room, const unsigned char *p, size_t size)
{
	size_t used = 0;

	to[0] = 0;
	for (size_t i = 0; i < size && used + 4 < room; i++)
		used += (size_t)snprintf(to + used, room - used, "%02x%s", p[i], i % 8 == 7 ? " " : "");
}

void expect_error(int error)
{
	ck_assert_msg(rig.reply_size, "opcode %u: expected error %d, came no reply; calls: %s", rig.head.opcode, error,
		      rec.log);
	ck_assert_msg(rig.reply.error == error, "opcode %u: expected error %d, came %d with %zu bytes; calls: %s",
		      rig.head.opcode, error, rig.reply.error, rig.body_size, rec.log);
	ck_assert_uint_eq(rig.body_size, 0);
}

void expect_body(const void *body, size_t size)
{
	char want[1024], got[1024];

	ck_assert_msg(rig.reply_size && !rig.reply.error, "opcode %u: expected a reply of %zu bytes, came %s %d",
		      rig.head.opcode, size, rig.reply_size ? "error" : "nothing", rig.reply.error);
	print_bytes(want, sizeof(want), body, size);
	print_bytes(got, sizeof(got), rig.body, rig.body_size);
	ck_assert_msg(rig.body_size == size && !memcmp(rig.body, body, size),
		      "opcode %u: expected %zu bytes\n%s\ncame %zu bytes\n%s", rig.head.opcode, size, want,
		      rig.body_size, got);
}

void expect_no_reply(void)
{
	ck_assert_msg(!rig.reply_size, "opcode %u: expected no reply, came error %d and %zu bytes", rig.head.opcode,
		      rig.reply.error, rig.body_size);
}

void expect_calls(const char *log)
{
	ck_assert_msg(!strcmp(rec.log, log), "opcode %u: expected the calls\n%sbut there were\n%s", rig.head.opcode,
		      log, rec.log);
	recorder_clear();
}

void expect_request(uint32_t umask, uint32_t supp_group)
{
	ck_assert_uint_eq(rec.req.unique, rig.head.unique);
	ck_assert_uint_eq(rec.req.opcode, rig.head.opcode);
	ck_assert_uint_eq(rec.req.uid, RIG_UID);
	ck_assert_uint_eq(rec.req.gid, RIG_GID);
	ck_assert_uint_eq(rec.req.pid, RIG_PID);
	ck_assert_uint_eq(rec.req.umask, umask);
	ck_assert_uint_eq(rec.req.supp_group, supp_group);
}

uint64_t rig_lookup(uint64_t parent, const char *name)
{
	rig_begin(FUSE_LOOKUP, parent);
	rig_str(name);
	rig_send();
	ck_assert_msg(!rig.reply.error && rig.body_size == sizeof(struct fuse_entry_out),
		      "lookup of %s: error %d, %zu bytes", name, rig.reply.error, rig.body_size);
	recorder_clear();
	return ((struct fuse_entry_out *)rig.body)->nodeid;
}

uint64_t rig_open(uint64_t nodeid, bool dir)
{
	struct fuse_open_in in = { 0 };

	rig_begin(dir ? FUSE_OPENDIR : FUSE_OPEN, nodeid);
	rig_put(&in, sizeof(in));
	rig_send();
	ck_assert_int_eq(rig.reply.error, 0);
	ck_assert_uint_eq(rig.body_size, sizeof(struct fuse_open_out));
	recorder_clear();
	return ((struct fuse_open_out *)rig.body)->fh;
}

void rig_forget(uint64_t nodeid, uint64_t n)
{
	struct fuse_forget_in in = { .nlookup = n };

	rig_begin(FUSE_FORGET, nodeid);
	rig_put(&in, sizeof(in));
	rig_send();
	expect_no_reply();
}

void rig_release(uint64_t nodeid, uint64_t fh, bool dir)
{
	struct fuse_release_in in = { .fh = fh };

	rig_begin(dir ? FUSE_RELEASEDIR : FUSE_RELEASE, nodeid);
	rig_put(&in, sizeof(in));
	rig_send();
	expect_error(0);
}
