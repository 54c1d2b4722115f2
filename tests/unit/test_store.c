/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What libfuserecover tells a service manager's store, and what it takes back: names, and messages. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/recover.h"

static struct fr *fr;
static struct fr_slot *slot;
static int manager;
static char name[64];

static void listen_as_manager(void)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t n = strlen(name);
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);

	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	memcpy(to.sun_path + 1, name + 1, n - 1);
	ck_assert_int_eq(bind(manager, (struct sockaddr *)&to, len), 0);
	setenv("NOTIFY_SOCKET", name, 1);
}

static void setup(void)
{
	struct fr_options o = { .struct_size = sizeof(o), .slots = 2, .worker = no_worker, .log = quiet };

	snprintf(name, sizeof(name), "@fuse-extent-test-%d", getpid());
	listen_as_manager();
	ck_assert_int_eq(fr_new(&o, &fr), 0);
	ck_assert_int_eq(fr_slot_take(fr, 0, &slot), 0);
}

static void teardown(void)
{
	fr_slot_leave(slot);
	fr_free(fr);
	close(manager);
}

/* The next message, "" where there is none; 'fd ' before one that brings a descriptor. */
static const char *heard(void)
{
	static char text[256];
	char data[200] = "";
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { data, sizeof(data) - 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
			      .msg_controllen = sizeof(control.space) };
	ssize_t n = recvmsg(manager, &msg, 0);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	int fd;

	if (c) {
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
		close(fd);
	}
	snprintf(text, sizeof(text), "%s%s", c ? "fd " : "", n > 0 ? data : "");
	return text;
}

static const char *named(const char *what, int fd)
{
	static char text[128];

	snprintf(text, sizeof(text), "%s\nFDNAME=fuserecover-%d", what, fd);
	return text;
}

#define ADDED	"fd FDSTORE=1\nFDPOLL=0"
#define REMOVED	"FDSTOREREMOVE=1"

static void begin_to_store(void)
{
	ck_assert_int_eq(fr_store(fr), 0);
	ck_assert_str_eq(heard(), "fd FDSTORE=1\nFDPOLL=0\nFDNAME=fuserecover");
}

START_TEST(kept_before)
{
	int fd = open("/", O_PATH);

	ck_assert_int_eq(fr_fd_keep(fr, NULL, fd), 0);
	ck_assert_str_eq(heard(), "");
	begin_to_store();
	ck_assert_str_eq(heard(), named(ADDED, fd));
	ck_assert_str_eq(heard(), "");
	ck_assert_int_eq(fr_store(fr), -EBUSY);
	fr_store_empty(fr);
	ck_assert_str_eq(heard(), named(REMOVED, fd));
	ck_assert_str_eq(heard(), "FDSTOREREMOVE=1\nFDNAME=fuserecover");
	close(fd);
}
END_TEST

START_TEST(steps)
{
	int fd = open("/", O_PATH);

	begin_to_store();
	fr_begin(slot);
	fr_fd_keep(fr, slot, fd);
	ck_assert_str_eq(heard(), named(ADDED, fd));
	fr_commit(slot);
	ck_assert_str_eq(heard(), "");
	fr_begin(slot);
	fr_fd_drop(fr, slot, fd);
	/* it may be taken back */
	ck_assert_str_eq(heard(), "");
	fr_commit(slot);
	ck_assert_str_eq(heard(), named(REMOVED, fd));
	ck_assert_int_eq(fr->fd_map[fd], FD_NONE);
	/* without a step */
	fr_fd_keep(fr, NULL, fd);
	ck_assert_str_eq(heard(), named(ADDED, fd));
	fr_fd_keep(fr, NULL, fd);
	ck_assert_str_eq(heard(), "");
	fr_fd_drop(fr, NULL, fd);
	ck_assert_str_eq(heard(), named(REMOVED, fd));
	close(fd);
}
END_TEST

/* Dead in a step: what it kept is removed by the successor, what it dropped stays. */
START_TEST(taken_back)
{
	int kept = open("/", O_PATH), dropped = open("/", O_PATH);

	begin_to_store();
	fr_fd_keep(fr, NULL, dropped);
	ck_assert_str_eq(heard(), named(ADDED, dropped));
	fr_begin(slot);
	fr_fd_keep(fr, slot, kept);
	ck_assert_str_eq(heard(), named(ADDED, kept));
	fr_fd_drop(fr, slot, dropped);
	ck_assert_int_eq(fr_takeover(fr), 0);
	ck_assert_str_eq(heard(), named(REMOVED, kept));
	ck_assert_str_eq(heard(), "");
	ck_assert_int_eq(fr->fd_map[kept], FD_NONE);
	ck_assert_int_eq(fr->fd_map[dropped], FD_CALLERS | FD_STORED);
	fr_reset_locks(fr);
	slot->taken = true;
	close(kept);
	close(dropped);
}
END_TEST

/* What could not be removed is not taken for what has its number later. */
START_TEST(nobody_listens)
{
	int fd = open("/", O_PATH);

	begin_to_store();
	fr_fd_keep(fr, NULL, fd);
	ck_assert_str_eq(heard(), named(ADDED, fd));
	close(manager);
	fr_fd_drop(fr, NULL, fd);
	ck_assert_int_eq(fr->fd_map[fd], FD_STORED);
	fr_fd_keep(fr, NULL, fd);
	ck_assert_int_eq(fr->fd_map[fd], FD_CALLERS | FD_STALE);
	/* the manager comes back */
	listen_as_manager();
	fr_fd_drop(fr, NULL, fd);
	ck_assert_str_eq(heard(), named(REMOVED, fd));
	ck_assert_int_eq(fr->fd_map[fd], FD_NONE);
	fr_fd_keep(fr, NULL, fd);
	ck_assert_str_eq(heard(), named(ADDED, fd));
	close(fd);
}
END_TEST

START_TEST(no_manager)
{
	unsetenv("NOTIFY_SOCKET");
	ck_assert_int_eq(fr_store(fr), -ENOTSUP);
	ck_assert_int_eq(fr_notify("READY=1"), -ENOTSUP);
	setenv("NOTIFY_SOCKET", "relative", 1);
	ck_assert_int_eq(fr_store(fr), -EAFNOSUPPORT);
	setenv("NOTIFY_SOCKET", "@", 1);
	ck_assert_int_eq(fr_store(fr), -EAFNOSUPPORT);
	setenv("NOTIFY_SOCKET", "/", 1);
	ck_assert_int_eq(fr_store(fr), -EAFNOSUPPORT);
	setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1);
	ck_assert_int_eq(fr_store(fr), -ENOENT);
	ck_assert_int_eq(fr_fd_keep(fr, NULL, 0), 0);
	ck_assert_int_eq(fr->fd_map[0], FD_CALLERS);
}
END_TEST

/* ---- names ---- */

static int names(const char *text, unsigned count, int *numbers)
{
	const char *why = NULL;
	int err = fr_store_names(text, count, numbers, &why);

	ck_assert_msg(err != -EBADMSG || why, "no reason for %s", text);
	return err;
}

START_TEST(good_names)
{
	int n[4];

	ck_assert_int_eq(names("fuserecover-7:fuserecover:fuserecover-4000", 3, n), 0);
	ck_assert_int_eq(n[0], 7);
	ck_assert_int_eq(n[1], STORE_MEMORY);
	ck_assert_int_eq(n[2], 4000);
	ck_assert_int_eq(names("fuserecover", 1, n), 0);
	/* a socket unit's, and nothing of ours */
	ck_assert_int_eq(names("web.socket:stored", 2, n), -ENOENT);
	ck_assert_int_eq(names("fuserecovered", 1, n), -ENOENT);
	ck_assert_int_eq(names("", 1, n), -ENOENT);
}
END_TEST

START_TEST(bad_names)
{
	static const struct {
		const char *text;
		unsigned count;
	} bad[] = {
		{ "fuserecover-7", 1 }, { "fuserecover:fuserecover", 2 },
		{ "fuserecover:fuserecover-", 2 }, { "fuserecover:fuserecover-07", 2 },
		{ "fuserecover:fuserecover-2", 2 }, { "fuserecover:fuserecover--7", 2 },
		{ "fuserecover:fuserecover-7x", 2 }, { "fuserecover:fuserecover- 7", 2 },
		{ "fuserecover:fuserecover-4194304", 2 }, { "fuserecover:fuserecover-99999999999999999999", 2 },
		{ "fuserecover:fuserecover-18446744073709551623", 2 },
		{ "fuserecover:stored", 2 }, { "fuserecover", 2 },
		{ "fuserecover:fuserecover-7", 1 }, { "fuserecover:", 2 }, { ":fuserecover", 2 },
	};
	int n[8];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(names(bad[i].text, bad[i].count, n) == -EBADMSG, "%s was taken", bad[i].text);
}
END_TEST

/* Pieces of names in any order: never more numbers than there are descriptors. */
START_TEST(any_names)
{
	static const char *const pieces[] = {
		"fuserecover", "-", ":", "7", "0", "12345678", "x", "", "fuserecover-9", ":fuserecover-",
	};
	uint64_t seed = unit_seed();
	unsigned good = 0;

	for (int i = 0; i < 200000; i++) {
		char text[256] = "";
		int n[6] = { 0, 0, 0, 0, 0, 4711 };
		unsigned count = 1 + (unsigned)(unit_random(&seed) % 5), memory = 0;

		for (int k = (int)(unit_random(&seed) % 9); k > 0; k--)
			strcat(text, pieces[unit_random(&seed) % (sizeof(pieces) / sizeof(pieces[0]))]);
		n[count] = 4711;
		if (names(text, count, n)) {
			ck_assert_int_eq(n[count], 4711);
			continue;
		}
		good++;
		for (unsigned a = 0; a < count; a++) {
			memory += n[a] == STORE_MEMORY;
			ck_assert_msg(n[a] == STORE_MEMORY || (n[a] > 2 && n[a] < (int)FDS_MOST),
				      "%d in %s", n[a], text);
		}
		ck_assert_uint_eq(memory, 1);
		ck_assert_int_eq(n[count], 4711);
	}
	ck_assert_uint_gt(good, 100);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		kept_before, steps, taken_back, nobody_listens, no_manager, good_names, bad_names, any_names, NULL,
	};

	return unit_run("store", tests, setup, teardown);
}
