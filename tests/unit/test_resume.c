/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests that waited for their answer when their process died. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/unit/rig.h"

static uint64_t file, fh, unique;

/* A lock that waits. */
static void setup(void)
{
	rig_setup();
	rig.host->shared->clones[0] = rig.dev;
	file = rig_lookup(ROOT_ID, "f");
	fh = rig_open(file, false);
	rec.pending = 1;
	rig_begin(FUSE_SETLKW, file);
	rig_put(&(struct fuse_lk_in){ .fh = fh, .lk.type = F_WRLCK }, sizeof(struct fuse_lk_in));
	rig_send();
	expect_no_reply();
	unique = rig.head.unique;
	recorder_clear();
}

static struct parked *waiting(void)
{
	return fr_record(rig.host->parked, rec.token);
}

/* What requests held in the process that died counts no more. */
static void die(void)
{
	((struct node *)fr_record(rig.host->nodes, file))->generation++;
}

static void interrupt(void)
{
	rig_begin(FUSE_INTERRUPT, 0);
	rig.head.unique = unique | 1;
	rig_put(&(struct fuse_interrupt_in){ .unique = unique }, sizeof(struct fuse_interrupt_in));
	rig_send();
	recorder_clear();
}

/* Nothing waits, and the node goes with its handle and its name. */
static void teardown(void)
{
	ck_assert_uint_eq(fr_table_used(rig.host->parked), 0);
	rec.err = 0;
	rig_release(file, fh, false);
	rig_forget(file, 1);
	ck_assert_uint_eq(fr_table_used(rig.host->nodes), 1);
	rig_teardown();
}

static void expect_late(int error)
{
	rig_collect();
	ck_assert_uint_eq(rig.reply_size, sizeof(struct fuse_out_header));
	ck_assert_uint_eq(rig.reply.unique, unique);
	ck_assert_int_eq(rig.reply.error, error);
}

/* The kernel is asked whether it still waits; a file says to everything that it does. */
static void resume(void)
{
	struct fuse_out_header asked;

	parked_resume(rig.host);
	ck_assert_int_eq(pread(rig.dev, &asked, sizeof(asked), 0), sizeof(asked));
	ck_assert_uint_eq(asked.unique, unique | 1);
	ck_assert_int_eq(lseek(rig.dev, 0, SEEK_CUR) % (off_t)sizeof(asked), 0);
}

static void drop_question(void)
{
	struct fuse_out_header last;
	off_t end = lseek(rig.dev, 0, SEEK_END);

	/* The reply behind it moves to the front. */
	ck_assert_int_ge(end, sizeof(last));
	if (end > (off_t)sizeof(last)) {
		ck_assert_int_eq(pread(rig.dev, &last, sizeof(last), sizeof(last)), sizeof(last));
		ck_assert_int_eq(pwrite(rig.dev, &last, sizeof(last), 0), sizeof(last));
	}
	ck_assert_int_eq(ftruncate(rig.dev, end - (off_t)sizeof(last)), 0);
	lseek(rig.dev, 0, SEEK_END);
}

START_TEST(waits_again)
{
	die();
	resume();
	drop_question();
	ck_assert_uint_eq(rec.req.again, 1);
	expect_calls("setlk 2:f h-f 0-0 owner=0 type=1 pid=0 flock=0 wait=1\n");
	rec.services->complete(rec.host, rec.token, 0);
	expect_late(0);
}
END_TEST

START_TEST(granted_now)
{
	die();
	rec.pending = 0;
	resume();
	drop_question();
	expect_late(0);
}
END_TEST

START_TEST(was_interrupted)
{
	interrupt();
	die();
	rec.err = -EAGAIN;
	resume();
	drop_question();
	expect_calls("setlk 2:f h-f 0-0 owner=0 type=1 pid=0 flock=0 wait=0\n");
	expect_late(-EINTR);
}
END_TEST

/* The lock was there first. */
START_TEST(was_granted_and_interrupted)
{
	interrupt();
	die();
	resume();
	drop_question();
	expect_late(0);
}
END_TEST

/* The answer was noted, and its process died before or after it was sent. */
START_TEST(was_answered)
{
	waiting()->error = -EINTR;
	waiting()->answered = 1;
	die();
	parked_resume(rig.host);
	expect_calls("");
	expect_late(-EINTR);
}
END_TEST

/* Its own request is unfinished, and is done again from the start: it will be parked anew. */
START_TEST(begins_anew)
{
	die();
	unpark_of_dead(rig.host, rec.token, 0);
	parked_resume(rig.host);
	expect_calls("");
	rig_collect();
	expect_no_reply();
	ck_assert_uint_eq(atomic_load(&rig.host->shared->interrupted[0]), 0);
}
END_TEST

START_TEST(begins_anew_interrupted)
{
	interrupt();
	die();
	unpark_of_dead(rig.host, rec.token, 0);
	ck_assert_uint_eq(atomic_load(&rig.host->shared->interrupted[0]), unique);
}
END_TEST

/* A worker gone mad has written another number: not a byte gets into that file. */
static void scribble(bool answered)
{
	FILE *other = tmpfile();
	struct stat st;

	ck_assert_ptr_nonnull(other);
	waiting()->fd = fileno(other);
	waiting()->answered = answered;
	waiting()->error = answered ? -EINTR : 0;
	die();
	parked_resume(rig.host);
	ck_assert_int_eq(fstat(fileno(other), &st), 0);
	ck_assert_int_eq(st.st_size, 0);
	expect_calls("");
	expect_late(answered ? -EINTR : -EIO);
	fclose(other);
}

START_TEST(scribbled_fd)
{
	scribble(false);
}
END_TEST

START_TEST(was_answered_scribbled_fd)
{
	scribble(true);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		waits_again, granted_now, was_interrupted, was_granted_and_interrupted, was_answered, begins_anew,
		begins_anew_interrupted, scribbled_fd, was_answered_scribbled_fd, NULL,
	};

	return unit_run("resume", tests, setup, teardown);
}
