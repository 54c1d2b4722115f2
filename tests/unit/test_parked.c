/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests that are answered later, their interruption, and replies that the kernel does not take. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>

#include "tests/unit/rig.h"

static uint64_t file, fh;

static void setup(void)
{
	rig_setup();
	file = rig_lookup(ROOT_ID, "f");
	fh = rig_open(file, false);
}

static void teardown(void)
{
	rec.err = 0;
	rig_release(file, fh, false);
	rig_teardown();
}

/* Returns the unique of the request. */
static uint64_t send_lock(void)
{
	rig_begin(FUSE_SETLKW, file);
	rig_put(&(struct fuse_lk_in){ .fh = fh, .lk.type = F_WRLCK }, sizeof(struct fuse_lk_in));
	rig_send();
	return rig.head.unique;
}

static void send_interrupt(uint64_t unique)
{
	rig_begin(FUSE_INTERRUPT, 0);
	rig.head.unique = unique | 1;
	rig_put(&(struct fuse_interrupt_in){ .unique = unique }, sizeof(struct fuse_interrupt_in));
	rig_send();
	expect_no_reply();
}

static void expect_late(uint64_t unique, int error)
{
	rig_collect();
	ck_assert_msg(rig.reply_size == sizeof(struct fuse_out_header), "%zu bytes of reply", rig.reply_size);
	ck_assert_uint_eq(rig.reply.unique, unique);
	ck_assert_int_eq(rig.reply.error, error);
}

#define ONE_LOCK "setlk 2:f h-f 0-0 owner=0 type=1 pid=0 flock=0 wait=1\n"

START_TEST(granted_at_once)
{
	send_lock();
	expect_error(0);
	expect_calls(ONE_LOCK);
	ck_assert_uint_eq(fr_table_used(rig.host->parked), 0);
	rec.err = -EDEADLK;
	send_lock();
	expect_error(-EDEADLK);
	ck_assert_uint_eq(fr_table_used(rig.host->parked), 0);
}
END_TEST

START_TEST(completed_later)
{
	static const int errors[][2] = { { 0, 0 }, { -EINTR, -EINTR }, { 5, -EIO } };

	rec.pending = 1;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		uint64_t unique = send_lock(), token = rec.token;

		expect_no_reply();
		expect_calls(ONE_LOCK);
		ck_assert_uint_eq(fr_table_used(rig.host->parked), 1);
		rec.services->complete(rec.host, token, errors[i][0]);
		expect_late(unique, errors[i][1]);
		ck_assert_uint_eq(fr_table_used(rig.host->parked), 0);
		/* once is enough; a token is never used again */
		rec.services->complete(rec.host, token, 0);
		rig_collect();
		expect_no_reply();
	}
	rec.services->complete(rec.host, 0, 0);
	rec.services->complete(rec.host, 12345, 0);
	rec.services->complete(rec.host, UINT64_MAX, 0);
	rig_collect();
	expect_no_reply();
}
END_TEST

START_TEST(many)
{
	enum { N = 300 };
	uint64_t unique[N], token[N];

	rec.pending = 1;
	for (int i = 0; i < N; i++) {
		unique[i] = send_lock();
		token[i] = rec.token;
	}
	ck_assert_uint_eq(fr_table_used(rig.host->parked), N);
	for (int i = 0; i < N; i++) {
		int at = i * 7 % N;

		rec.services->complete(rec.host, token[at], -at);
		expect_late(unique[at], -at);
	}
	ck_assert_uint_eq(fr_table_used(rig.host->parked), 0);
}
END_TEST

/* A waiting request keeps its node; its handle may be gone. */
START_TEST(holds_its_node)
{
	uint64_t unique, token;

	rec.pending = 1;
	unique = send_lock();
	token = rec.token;
	rig_release(file, fh, false);
	rig_forget(file, 1);
	ck_assert_uint_eq(fr_table_used(rig.host->nodes), 2);
	rec.services->complete(rec.host, token, 0);
	expect_late(unique, 0);
	ck_assert_uint_eq(fr_table_used(rig.host->nodes), 1);
}
END_TEST

START_TEST(interrupted)
{
	uint64_t first, second;

	rec.pending = 1;
	first = send_lock();
	second = send_lock();
	recorder_clear();
	send_interrupt(first);
	expect_calls("interrupt of another\n");
	send_interrupt(second);
	expect_calls("interrupt of the last\n");
	/* it is still the backend that ends it */
	ck_assert_uint_eq(fr_table_used(rig.host->parked), 2);
	rec.services->complete(rec.host, rec.token, -EINTR);
	expect_late(second, -EINTR);
	send_interrupt(second);
	send_interrupt(99999);
	expect_calls("");
	rec.services->complete(rec.host, ((uint64_t)0 << 32) | 1, -EINTR);
	expect_late(first, -EINTR);
}
END_TEST

static void *interrupt_main(void *arg)
{
	static struct worker other;

	other = (struct worker){ .host = rig.host, .fd = rig.dev, .index = 1 };
	ck_assert_int_eq(worker_take_slot(&other), 0);
	*(struct fuse_in_header *)(unsigned char *)other.in = (struct fuse_in_header){
		.len = sizeof(struct fuse_in_header) + 8, .opcode = FUSE_INTERRUPT, .unique = *(uint64_t *)arg | 1,
	};
	memcpy((unsigned char *)other.in + sizeof(struct fuse_in_header), arg, 8);
	fr_slot_filled(other.slot, other.fd, sizeof(struct fuse_in_header) + 8);
	dispatch(&other, sizeof(struct fuse_in_header) + 8, false);
	fr_slot_leave(other.slot);
	return NULL;
}

static int interrupt_in_setlk(uint64_t token)
{
	uint64_t unique = rig.head.unique;
	pthread_t t;

	(void)token;
	ck_assert_int_eq(pthread_create(&t, NULL, interrupt_main, &unique), 0);
	pthread_join(t, NULL);
	return FE_PENDING;
}

/* The interrupt comes while the backend still thinks about the request: it is told of it twice. */
START_TEST(interrupted_early)
{
	uint64_t unique;

	rec.during_setlk = interrupt_in_setlk;
	unique = send_lock();
	expect_no_reply();
	expect_calls(ONE_LOCK "interrupt of the last\ninterrupt of the last\n");
	rec.services->complete(rec.host, rec.token, -EINTR);
	expect_late(unique, -EINTR);
}
END_TEST

static int complete_in_setlk(uint64_t token)
{
	rec.services->complete(rec.host, token, 0);
	return FE_PENDING;
}

/* The answer may be faster than the return of the function. */
START_TEST(completed_early)
{
	rec.during_setlk = complete_in_setlk;
	send_lock();
	expect_error(0);
	expect_calls(ONE_LOCK);
	ck_assert_uint_eq(fr_table_used(rig.host->parked), 0);
}
END_TEST

/* As read(2) does it; the number of a request that is being served may be looked at by others. */
static size_t fill_slot(struct worker *w, uint32_t opcode, uint64_t unique, const void *arg, size_t size)
{
	struct fuse_in_header *in = (void *)(unsigned char *)w->in;

	in->len = (uint32_t)(sizeof(*in) + size);
	in->opcode = opcode;
	in->nodeid = file;
	__atomic_store_n(&in->unique, unique, __ATOMIC_RELEASE);
	memcpy(in + 1, arg, size);
	fr_slot_filled(w->slot, w->fd, in->len);
	return in->len;
}

static void dispatch_raw(struct worker *w, uint32_t opcode, uint64_t unique, const void *arg, size_t size)
{
	dispatch(w, fill_slot(w, opcode, unique, arg, size), false);
}

/*
 * An interrupt comes when its request was read already, and while it is served: whichever way round
 * that goes, the backend hears of it. The two begin at shifting distances, so that each is first in part
 * of the rounds.
 */
#define RACES 30000

static _Atomic unsigned race_round, race_end;

/* Where both have one processor, the other one does not come to it while this one looks. */
static void reaches(_Atomic unsigned *what, unsigned value)
{
	for (unsigned n = 1; atomic_load(what) != value; n++)
		if (!(n % 4096))
			sched_yield();
}

static void *race_interrupts(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 1; i <= RACES; i++) {
		uint64_t unique = 4 * (uint64_t)i;

		reaches(&race_round, i);
		for (volatile unsigned n = 0; n < i % 256; n++)
			;
		dispatch_raw(w, FUSE_INTERRUPT, unique | 1, &unique, sizeof(unique));
		atomic_store(&race_end, i);
	}
	return NULL;
}

START_TEST(interrupt_races)
{
	struct fuse_lk_in lk = { .fh = fh, .lk.type = F_WRLCK };
	static struct worker other;
	pthread_t t;

	other = (struct worker){ .host = rig.host, .fd = rig.dev, .index = 1 };
	ck_assert_int_eq(worker_take_slot(&other), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, race_interrupts, &other), 0);
	rec.pending = 1;
	for (unsigned i = 1; i <= RACES; i++) {
		size_t size = fill_slot(&rig.worker, FUSE_SETLKW, 4 * (uint64_t)i, &lk, sizeof(lk));

		recorder_clear();
		atomic_store(&race_round, i);
		dispatch(&rig.worker, size, false);
		reaches(&race_end, i);
		ck_assert_msg(strstr(rec.log, "interrupt of the last"), "round %u: an interrupt was lost; calls: %s", i,
			      rec.log);
		rec.services->complete(rec.host, rec.token, -EINTR);
	}
	pthread_join(t, NULL);
	fr_slot_leave(other.slot);
	ck_assert_int_eq(ftruncate(rig.dev, 0), 0);
	lseek(rig.dev, 0, SEEK_SET);
}
END_TEST

/* A backend ends what waits when it is closed: everything that this needs is still there. */
START_TEST(completed_in_close)
{
	rec.pending = 1;
	send_lock();
	rec.complete_in_close = 1;
}
END_TEST

#define ROUNDS 3000

static _Atomic uint64_t posted, current;
static _Atomic bool done;

static void *completer(void *arg)
{
	(void)arg;
	while (!atomic_load(&done)) {
		uint64_t token = atomic_exchange(&posted, 0);

		if (token)
			rec.services->complete(rec.host, token, 0);
		else
			sched_yield();
	}
	return NULL;
}

static int post(uint64_t token)
{
	atomic_store(&posted, token);
	return FE_PENDING;
}

static void *interrupter(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&done)) {
		uint64_t unique = atomic_load(&current);

		dispatch_raw(w, FUSE_INTERRUPT, unique | 1, &unique, sizeof(unique));
		sched_yield();
	}
	return NULL;
}

/* Answers, interrupts and new requests from three threads: each request is answered once. */
START_TEST(threads)
{
	static struct worker other;
	struct fuse_out_header *all = calloc(ROUNDS, sizeof(*all));
	pthread_t t[2];
	off_t end;

	other = (struct worker){ .host = rig.host, .fd = rig.dev, .index = 1 };
	ck_assert_int_eq(worker_take_slot(&other), 0);
	rec.during_setlk = post;
	ck_assert_int_eq(pthread_create(&t[0], NULL, completer, NULL), 0);
	ck_assert_int_eq(pthread_create(&t[1], NULL, interrupter, &other), 0);
	for (uint64_t i = 0; i < ROUNDS; i++) {
		struct fuse_lk_in lk = { .fh = fh, .lk.type = F_WRLCK };

		atomic_store(&current, 1000 + 2 * i);
		dispatch_raw(&rig.worker, FUSE_SETLKW, 1000 + 2 * i, &lk, sizeof(lk));
		while (atomic_load(&posted))
			sched_yield();
		if (i % 64 == 0)
			recorder_clear();
	}
	while (fr_table_used(rig.host->parked))
		sched_yield();
	atomic_store(&done, true);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	fr_slot_leave(other.slot);
	/* the replies are written one after the other: a request begins when the last is being answered */
	end = lseek(rig.dev, 0, SEEK_END);
	ck_assert_int_eq(end, ROUNDS * sizeof(*all));
	ck_assert_int_eq(pread(rig.dev, all, (size_t)end, 0), end);
	for (uint64_t i = 0; i < ROUNDS; i++)
		ck_assert_uint_eq(all[i].unique, 1000 + 2 * i);
	ck_assert_int_eq(ftruncate(rig.dev, 0), 0);
	lseek(rig.dev, 0, SEEK_SET);
	free(all);
}
END_TEST

/* Requests that grant something, and how the backend learns that the kernel did not take it. */
static const struct {
	uint32_t opcode;
	size_t head;
	const char *names;	/* all of them, each with its end */
	size_t names_size;
	const char *calls;
} grants[] = {
	{ FUSE_LOOKUP, 0, "new", 4, "lookup 1:/ \"new\"\nforget 3:new\n" },
	{ FUSE_MKNOD, sizeof(struct fuse_mknod_in), "new", 4, "mknod 1:/ \"new\" mode=0 rdev=0\nforget 3:new\n" },
	{ FUSE_MKDIR, sizeof(struct fuse_mkdir_in), "new", 4, "mkdir 1:/ \"new\" mode=0\nforget 3:new\n" },
	{ FUSE_SYMLINK, 0, "new\0to", 7, "symlink 1:/ \"new\" -> \"to\"\nforget 3:new\n" },
	{ FUSE_LINK, 0, "\2\0\0\0\0\0\0\0new", 12, "link 2:f to 1:/ \"new\"\nforget 0:f\n" },
	{ FUSE_OPEN, sizeof(struct fuse_open_in), NULL, 0, "open 1:/ flags=0 io=0\nrelease 1:/ h-/ flags=0 owner=0 "
	  "flock=0\n" },
	{ FUSE_OPENDIR, sizeof(struct fuse_open_in), NULL, 0, "opendir 1:/ flags=0\nreleasedir 1:/ h-/\n" },
	{ FUSE_CREATE, sizeof(struct fuse_create_in), "new", 4, "create 1:/ \"new\" flags=0 mode=0 io=0\n"
	  "release 3:new h-new flags=0 owner=0 flock=0\nforget 3:new\n" },
	{ FUSE_TMPFILE, sizeof(struct fuse_create_in), NULL, 0, "tmpfile 1:/ flags=0 mode=0\n"
	  "release 3:#tmp h-#tmp flags=0 owner=0 flock=0\nforget 3:#tmp\n" },
};

/* Each new node takes the index of the last one, with the next generation: only the index is compared. */
static void check_calls(const char *want)
{
	char got[sizeof(rec.log)];
	size_t n = 0;

	for (const char *p = rec.log; *p; p++) {
		unsigned long long id;
		int used = 0;

		if ((p == rec.log || p[-1] == ' ') && sscanf(p, "%llx%n", &id, &used) == 1 && p[used] == ':') {
			n += (size_t)snprintf(got + n, sizeof(got) - n, "%llx", id & UINT32_MAX);
			p += used;
		}
		got[n++] = *p;
	}
	got[n] = 0;
	ck_assert_str_eq(got, want);
}

static void refused(int dev)
{
	const unsigned char zeroes[64] = { 0 };
	uint32_t handles = fr_table_used(rig.host->handles);

	rig.worker.fd = dev;
	for (size_t i = 0; i < sizeof(grants) / sizeof(grants[0]); i++) {
		rig_begin(grants[i].opcode, ROOT_ID);
		rig_put(zeroes, grants[i].head);
		rig_put(grants[i].names ? grants[i].names : "", grants[i].names_size);
		rig_send();
		check_calls(grants[i].calls);
		ck_assert_uint_eq(fr_table_used(rig.host->nodes), 2);
		ck_assert_uint_eq(fr_table_used(rig.host->handles), handles);
		ck_assert_uint_eq(((struct node *)fr_record(rig.host->nodes, file))->nlookup, 1);
		recorder_clear();
	}
	rig.worker.fd = rig.dev;
}

static void refused_listing(int dev)
{
	uint64_t dirh = rig_open(ROOT_ID, true);
	struct fuse_read_in in = { .fh = dirh, .size = 4096 };

	rig.worker.fd = dev;
	rig_begin(FUSE_READDIRPLUS, ROOT_ID);
	rig_put(&in, sizeof(in));
	rig_send();
	rig.worker.fd = rig.dev;
	ck_assert_ptr_nonnull(strstr(rec.log, "lookup 1:/ \"abcd\"\n"));
	ck_assert_uint_eq(fr_table_used(rig.host->nodes), 2);
	rig_release(ROOT_ID, dirh, true);
}

/* Nothing was granted by the failed reply: counts and handles are as before. */
START_TEST(refused_by_pipe)
{
	int p[2];

	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(pipe(p), 0);
	close(p[0]);
	refused(p[1]);
	refused_listing(p[1]);
	/* what grants nothing needs no undoing */
	rig.worker.fd = p[1];
	rig_begin(FUSE_STATFS, ROOT_ID);
	rig_send();
	expect_no_reply();
	rig.worker.fd = rig.dev;
	close(p[1]);
}
END_TEST

/* A real connection answers a reply that nobody waits for with ENOENT. */
START_TEST(refused_by_kernel)
{
	struct fuse_out_header probe = { .len = sizeof(probe), .unique = 0x7777 };
	char options[64], where[] = "/tmp";
	int dev = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", dev);
	if (dev < 0 || unshare(CLONE_NEWNS) || mount("", "/", "", MS_REC | MS_PRIVATE, NULL) ||
	    mount("unit", where, "fuse.unit", MS_NOSUID | MS_NODEV, options)) {
		printf("refused_by_kernel: left out, no FUSE mount can be made here (%s)\n", strerror(errno));
		if (dev >= 0)
			close(dev);
		return;
	}
	ck_assert_int_eq(write(dev, &probe, sizeof(probe)), -1);
	ck_assert_int_eq(errno, ENOENT);
	refused(dev);
	refused_listing(dev);
	umount2(where, MNT_DETACH);
	close(dev);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		granted_at_once, completed_later, many, holds_its_node, interrupted, interrupted_early,
		completed_early, interrupt_races, completed_in_close, threads, refused_by_pipe,
		refused_by_kernel, NULL,
	};

	return unit_run("parked", tests, setup, teardown);
}
