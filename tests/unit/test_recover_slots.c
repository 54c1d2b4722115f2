/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Slots of libfuserecover: what a successor finds in them, over a socket in place of /dev/fuse. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/fuse.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/recover.h"

static struct fr *fr;
static struct fr_slot *slot;
static uint64_t *area;
static int kernel, dev;

struct reply {
	struct fuse_out_header out;
	uint64_t data;
};

static void setup(void)
{
	struct fr_options o = {
		.struct_size = sizeof(o),
		.slots = 3,
		.tries = 2,
		.worker = no_worker,
		.log = quiet,
	};
	void *p = NULL;
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	kernel = pair[0];
	dev = pair[1];
	ck_assert_int_eq(fr_new(&o, &fr), 0);
	ck_assert_int_eq(fr_area_new(fr, "area", 8, &p), 0);
	area = p;
	ck_assert_int_eq(fr_slot_take(fr, 1, &slot), 0);
}

static void teardown(void)
{
	fr_slot_leave(slot);
	fr_free(fr);
	close(kernel);
	close(dev);
}

static void request(uint32_t opcode, uint64_t unique)
{
	struct fuse_in_header in = { .len = sizeof(in), .opcode = opcode, .unique = unique, .nodeid = 1 };

	ck_assert_int_eq(send(kernel, &in, sizeof(in), 0), sizeof(in));
	ck_assert_int_eq(fr_slot_read(slot, dev), sizeof(in));
}

/* What has been written to the kernel; 0 where nothing was. */
static ssize_t written(struct reply *r)
{
	ssize_t n = recv(kernel, r, sizeof(*r), MSG_DONTWAIT);

	return n < 0 ? 0 : n;
}

/* As if the thread had died here, and a successor had come. */
static void die(void)
{
	pthread_mutex_unlock(&slot->cp->alive);
	ck_assert_int_eq(fr_takeover(fr), 0);
	fr_reset_locks(fr);
	fr_mutex_robust(&slot->cp->alive);
	ck_assert_int_eq(fr_slot_take(fr, 1, &slot), 0);
}

static void expect_probe(uint64_t unique)
{
	struct reply r;

	ck_assert_int_eq(written(&r), sizeof(r.out));
	ck_assert_uint_eq(r.out.unique, unique | 1);
	ck_assert_uint_eq(r.out.len, sizeof(r.out));
	ck_assert_int_eq(r.out.error, 0);
}

START_TEST(geometry)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	ck_assert_uint_eq(((uintptr_t)fr_slot_request(slot) + 80) % page, 0);
	ck_assert_uint_eq(((uintptr_t)fr_slot_reply_buffer(slot) + 16) % page, 0);
	ck_assert_uint_eq((uintptr_t)fr_slot_intent(slot) % 16, 0);
	ck_assert_uint_eq((uintptr_t)fr_slot_note(slot) % 16, 0);
}
END_TEST

START_TEST(nothing_read)
{
	struct reply r;

	ck_assert_int_eq(fr_slot_read(slot, dev), -EAGAIN);
	die();
	ck_assert_uint_eq(fr_slot_unfinished(slot), 0);
	/* and after one that was answered, whose bytes still lie there */
	request(FUSE_GETATTR, 4);
	ck_assert_int_eq(fr_slot_reply(slot, sizeof(r.out)), 0);
	ck_assert_int_eq(written(&r), sizeof(r.out));
	ck_assert_int_eq(fr_slot_read(slot, dev), -EAGAIN);
	die();
	ck_assert_uint_eq(fr_slot_unfinished(slot), 0);
	ck_assert_int_eq(written(&r), 0);
	ck_assert_uint_eq(fr_unfinished(fr, 0), FR_NO_SLOT);
}
END_TEST

START_TEST(unfinished)
{
	struct reply r;

	request(FUSE_GETATTR, 6);
	memset(fr_slot_note(slot), 7, 8);
	memcpy(fr_slot_intent(slot), "plan", 5);
	fr_slot_intent_set(slot, 5);
	fr_begin(slot);
	fr_set(slot, *area, 5);
	for (int i = 0; i < 2; i++) {
		die();
		ck_assert_uint_eq(*area, 0);
		ck_assert_uint_eq(fr_unfinished(fr, 0), 1);
		ck_assert_uint_eq(fr_unfinished(fr, 2), FR_NO_SLOT);
		ck_assert_uint_eq(fr_slot_unfinished(slot), sizeof(struct fuse_in_header));
		ck_assert_uint_eq(fr_slot_intent_size(slot), 5);
		ck_assert_str_eq(fr_slot_intent(slot), "plan");
		ck_assert_int_eq(*(char *)fr_slot_note(slot), 7);
		ck_assert_int_eq(fr_slot_fd(slot), dev);
		expect_probe(6);
	}
	ck_assert_int_eq(fr_slot_reply(slot, sizeof(r.out)), 0);
	ck_assert_int_eq(written(&r), sizeof(r.out));
	ck_assert_uint_eq(r.out.unique, 6);
	ck_assert_uint_eq(fr_slot_unfinished(slot), 0);
	request(FUSE_GETATTR, 8);
	ck_assert_uint_eq(fr_slot_intent_size(slot), 0);
	ck_assert_int_eq(*(char *)fr_slot_note(slot), 0);
}
END_TEST

/* The reply was stored, and the change with it, and not sent. */
START_TEST(stored)
{
	struct reply *out = fr_slot_reply_buffer(slot), r;
	struct fr_stats stats = { .struct_size = sizeof(stats) };

	request(FUSE_GETATTR, 10);
	fr_begin(slot);
	fr_set(slot, *area, 5);
	memset(out, 0, sizeof(*out));
	out->data = 99;
	slot->cp->fd = open("/dev/null", O_RDONLY); /* writing to it fails */
	ck_assert_int_eq(fr_slot_reply(slot, sizeof(*out)), -EBADF);
	close(slot->cp->fd);
	slot->cp->fd = dev;
	slot->cp->state = SLOT_READ;
	die();
	ck_assert_uint_eq(*area, 5);
	expect_probe(10);
	ck_assert_int_eq(written(&r), sizeof(r));
	ck_assert_uint_eq(r.out.unique, 10);
	ck_assert_uint_eq(r.data, 99);
	ck_assert_uint_eq(fr_slot_unfinished(slot), 0);
	fr_stats(fr, &stats);
	ck_assert_uint_eq(stats.resent, 1);
	die();
	ck_assert_int_eq(written(&r), 0);
}
END_TEST

/* What is stored can not be a reply: who waits is told so. */
START_TEST(stored_refused)
{
	const int small = 4096;
	struct reply r;

	request(FUSE_GETATTR, 6);
	ck_assert_int_eq(setsockopt(dev, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	slot->cp->result = fr->layout.reply_size;
	die();
	expect_probe(6);
	ck_assert_int_eq(written(&r), sizeof(r.out));
	ck_assert_uint_eq(r.out.unique, 6);
	ck_assert_int_eq(r.out.error, -EIO);
	ck_assert_uint_eq(fr_slot_unfinished(slot), 0);
}
END_TEST

START_TEST(not_outstanding)
{
	struct reply r;

	request(FUSE_GETATTR, 12);
	slot->cp->fd = open("/dev/null", O_RDONLY);
	die();
	ck_assert_uint_eq(fr_slot_unfinished(slot), 0);
	ck_assert_int_eq(written(&r), 0);
	close(slot->cp->fd);
}
END_TEST

START_TEST(without_reply)
{
	static const uint32_t opcodes[] = { FUSE_FORGET, FUSE_BATCH_FORGET, FUSE_INTERRUPT };
	struct reply r;

	for (int i = 0; i < 3; i++) {
		request(opcodes[i], 14);
		die();
		ck_assert_uint_eq(fr_slot_unfinished(slot), sizeof(struct fuse_in_header));
		/* not whole: then it is not done either */
		fr_begin(slot);
		fr_set(slot, *area, 6);
		fr_save(slot, &slot->cp->state, 4);
		slot->cp->state = SLOT_DONE;
		die();
		ck_assert_uint_eq(fr_slot_unfinished(slot), sizeof(struct fuse_in_header));
		ck_assert_int_eq(fr_slot_reply(slot, 0), 0);
		die();
		ck_assert_uint_eq(fr_slot_unfinished(slot), 0);
		/* it can not be asked for, and nothing may be written for it */
		ck_assert_int_eq(written(&r), 0);
	}
}
END_TEST

START_TEST(parked)
{
	struct reply r;

	request(FUSE_SETLKW, 16);
	fr_begin(slot);
	fr_set(slot, *area, 7);
	fr_slot_park(slot);
	die();
	ck_assert_uint_eq(*area, 7);
	ck_assert_uint_eq(fr_slot_unfinished(slot), 0);
	ck_assert_int_eq(written(&r), 0);
	ck_assert_int_eq(fr_reply_later(dev, 16, -EINTR, "ignored", 7), 0);
	ck_assert_int_eq(written(&r), sizeof(r.out));
	ck_assert_int_eq(r.out.error, -EINTR);
	ck_assert_int_eq(fr_reply_later(dev, 18, 0, area, 8), 0);
	ck_assert_int_eq(written(&r), sizeof(r));
	ck_assert_uint_eq(r.out.len, sizeof(r));
	ck_assert_uint_eq(r.data, 7);
}
END_TEST

START_TEST(set_aside)
{
	struct reply r;

	request(FUSE_GETATTR, 20);
	slot->cp->fault = 11;
	die();
	ck_assert_uint_gt(fr_slot_unfinished(slot), 0);
	expect_probe(20);
	die(); /* of something else */
	ck_assert_uint_gt(fr_slot_unfinished(slot), 0);
	expect_probe(20);
	slot->cp->fault = 11;
	die();
	ck_assert_uint_eq(fr_slot_unfinished(slot), 0);
	expect_probe(20);
	ck_assert_int_eq(written(&r), sizeof(r.out));
	ck_assert_int_eq(r.out.error, -EIO);
	ck_assert_uint_eq(r.out.unique, 20);
}
END_TEST

/* Lengths, states and sizes that nobody has written on purpose. */
START_TEST(scribbled)
{
	uint64_t seed = unit_seed();
	struct reply r;

	for (int round = 0; round < 2000; round++) {
		uint32_t junk = unit_random(&seed) % 2 ? (uint32_t)unit_random(&seed) : (uint32_t)(unit_random(&seed) % 5);
		struct cp_slot *cp = slot->cp;
		uint32_t *where[] = {
			&cp->has_memory, &cp->state, (uint32_t *)&cp->fd, &cp->result, &cp->intent, &cp->tries, &cp->undo_used,
			(uint32_t *)fr_slot_request(slot), (uint32_t *)(slot->undo + unit_random(&seed) % 64 / 4 * 4),
		};
		unsigned which = (unsigned)(unit_random(&seed) % 9);

		if (round % 8 == 0)
			request(FUSE_GETATTR, 22);
		*where[which] = which == 2 ? 1000000000 : junk;
		die();
		while (written(&r))
			;
		ck_assert_uint_le(fr_slot_unfinished(slot), fr->layout.request_size);
		ck_assert_uint_le(fr_slot_intent_size(slot), fr->layout.intent_size);
	}
}
END_TEST

/* A worker gone mad has written another number: not a byte gets into that file. */
START_TEST(scribbled_fd)
{
	struct stat st;
	struct reply r;
	FILE *file = tmpfile();

	ck_assert_ptr_nonnull(file);
	request(FUSE_GETATTR, 10);
	slot->cp->fd = fileno(file);
	die();
	ck_assert_uint_eq(fr_slot_unfinished(slot), 0);
	/* also where the reply is there already */
	request(FUSE_GETATTR, 12);
	slot->cp->fd = fileno(file);
	slot->cp->result = sizeof(r.out);
	die();
	ck_assert_int_eq(fstat(fileno(file), &st), 0);
	ck_assert_int_eq(st.st_size, 0);
	ck_assert_int_eq(written(&r), 0);
	fclose(file);
}
END_TEST

static void *take_it(void *arg)
{
	struct fr_slot *mine;

	*(int *)arg = fr_slot_take(fr, 1, &mine);
	return NULL;
}

static void *keep_it(void *arg)
{
	struct fr_slot *mine;

	*(int *)arg = fr_slot_take(fr, 2, &mine);
	return NULL;
}

START_TEST(holders)
{
	struct fr_slot *mine;
	pthread_t t;
	int err;

	ck_assert_int_eq(fr_slot_take(fr, 3, &mine), -EINVAL);
	ck_assert_int_eq(pthread_create(&t, NULL, take_it, &err), 0);
	pthread_join(t, NULL);
	ck_assert_int_eq(err, -EBUSY);
	/* a thread that ends with its slot */
	ck_assert_int_eq(pthread_create(&t, NULL, keep_it, &err), 0);
	pthread_join(t, NULL);
	ck_assert_int_eq(err, 0);
	ck_assert_int_eq(fr_slot_take(fr, 2, &mine), 0);
	fr_slot_leave(mine);
}
END_TEST

START_TEST(descriptors)
{
	ck_assert_int_eq(fr_fd_keep(fr, NULL, -1), -EBADF);
	ck_assert_int_eq(fr_fd_keep(fr, NULL, 1 << 30), -EBADF);
	ck_assert_int_eq(fr_fd_keep(fr, NULL, 100), 0);
	ck_assert_int_eq(fr->fd_map[100], FD_CALLERS);
	fr_begin(slot);
	ck_assert_int_eq(fr_fd_keep(fr, slot, 101), 0);
	ck_assert_int_eq(fr_fd_drop(fr, slot, 100), 0);
	die();
	ck_assert_int_eq(fr->fd_map[100], FD_CALLERS);
	ck_assert_int_eq(fr->fd_map[101], FD_NONE);
	/* where the map has no memory yet */
	ck_assert_int_eq(fr_fd_keep(fr, NULL, (int)fr->layout.fds - 1), 0);
	ck_assert_int_eq(fr->fd_map[fr->layout.fds - 1], FD_CALLERS);
}
END_TEST

/* What a helper has opened is not taken for what a dead predecessor has left. */
START_TEST(garbage)
{
	int fd;

	ck_assert_int_eq(fr_fds_keep_open(fr), 0);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	fr_helper_enter(fr);
	ck_assert(!fr_collect(fr));
	ck_assert_int_ge(fcntl(fd, F_GETFD), 0);
	fr_helper_leave(fr);
	ck_assert(fr_collect(fr));
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
	ck_assert_int_ge(fcntl(dev, F_GETFD), 0);
	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	ck_assert(fr_collect(fr));
	ck_assert(fd < 0 || !close(fd));
}
END_TEST

/* As on a kernel without CONFIG_CHECKPOINT_RESTORE: there would never be a worker. */
static void forbid_tid_address(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_GET_TID_ADDRESS, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { .len = sizeof(filter) / sizeof(*filter), .filter = filter };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

START_TEST(no_worker_possible)
{
	pid_t child = fork();
	int status;

	if (!child) {
		forbid_tid_address();
		_exit(fr_run(fr) == -ENOSYS ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		geometry, nothing_read, unfinished, stored, stored_refused, not_outstanding, without_reply, parked, set_aside, scribbled,
		scribbled_fd, holders, descriptors, garbage, no_worker_possible, NULL,
	};

	return unit_run("recover_slots", tests, setup, teardown);
}
