/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is kept is also held by the service manager (systemd's file descriptor store), for the case that
 * keeper, standby and worker die together. The protocol is that of sd_notify(3): a datagram of
 * assignments to $NOTIFY_SOCKET, here one for each descriptor that comes or goes. It is promised to stay
 * as it is, and small: so it is spoken here, without a library.
 *
 * FD_STORED in the map says that the manager may hold the descriptor. It is written before that is sent and
 * cleared after its removal is, both outside of the step: so a successor knows what is to be removed, and
 * the number is not used again before that. FD_STALE: it was used again, since the manager did not listen;
 * what it has under this number is another one.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#define VARIABLE	"NOTIFY_SOCKET"
#define WAIT_S		5
#define TEXT_SIZE	96

/* ---- one message ---- */

static int connect_to_manager(int sock)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	const char *name = getenv(VARIABLE);
	size_t n = name ? strlen(name) : 0;

	if (!n)
		return -ENOTSUP;
	if ((*name != '/' && *name != '@') || n < 2 || n >= sizeof(to.sun_path))
		return -EAFNOSUPPORT;
	memcpy(to.sun_path, name, n);
	if (*name == '@')
		to.sun_path[0] = 0;
	n += offsetof(struct sockaddr_un, sun_path);
	return connect(sock, (struct sockaddr *)&to, (socklen_t)n) ? -errno : 0;
}

static int open_socket(void)
{
	struct timeval limit = { .tv_sec = WAIT_S };
	int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), err;

	if (sock < 0)
		return -errno;
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	err = connect_to_manager(sock);
	if (err)
		close(sock);
	return err ? err : sock;
}

static void attach(struct msghdr *msg, int type, const void *data, size_t size)
{
	struct cmsghdr *c = (struct cmsghdr *)(void *)((char *)msg->msg_control + msg->msg_controllen);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(c), data, size);
	msg->msg_controllen += CMSG_SPACE(size);
}

/* pid: in whose name, 0: in the caller's own. fd: -1 for none. */
static int send_message(int sock, const char *text, pid_t pid, int fd, int flags)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct ucred who = { .pid = pid, .uid = getuid(), .gid = getgid() };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space };
	ssize_t n;

	if (pid)
		attach(&msg, SCM_CREDENTIALS, &who, sizeof(who));
	if (fd >= 0)
		attach(&msg, SCM_RIGHTS, &fd, sizeof(fd));
	if (!msg.msg_controllen)
		msg.msg_control = NULL;
	do
		n = sendmsg(sock, &msg, flags | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static int notify(const char *text, int flags)
{
	int sock = open_socket(), err;

	if (sock < 0)
		return sock;
	err = send_message(sock, text, 0, -1, flags);
	close(sock);
	return err;
}

PUBLIC int fr_notify(const char *text)
{
	return notify(text, 0);
}

int fr_notify_now(const char *text)
{
	return notify(text, MSG_DONTWAIT);
}

/* ---- messages about descriptors ---- */

static bool reaped(pid_t pid)
{
	return kill(pid, 0) && errno == ESRCH;
}

/*
 * In the name of the keeper: whose message is still unread when the sender is dead and reaped is nobody's
 * to the manager, and dropped. The keeper is its own child, which it reaps after it has read. But before
 * anybody has the role, and after the keeper's death, it is the caller's: a message twice does no harm.
 */
static int try_once(struct fr *fr, const char *text, int fd)
{
	int flags = atomic_load(&fr->store_failed) ? MSG_DONTWAIT : 0, err = -ESRCH;
	pid_t keeper = fr->role == ROLES ? 0 : CLAIM_PID(atomic_load(&fr->cp->keeper));

	/* The kernel takes a pid that is only the name of a process group, too. */
	if (keeper && !reaped(keeper))
		err = send_message(fr->store_fd, text, keeper, fd, flags);
	if (err == -EPERM || err == -ESRCH || (!err && reaped(keeper)))
		err = send_message(fr->store_fd, text, 0, fd, flags);
	return err;
}

static int tell(struct fr *fr, const char *text, int fd)
{
	int err = try_once(fr, text, fd);

	/* Another manager, or the same one anew */
	if ((err == -ECONNREFUSED || err == -ENOTCONN || err == -ECONNRESET) && !connect_to_manager(fr->store_fd))
		err = try_once(fr, text, fd);
	if (err == -EBADF && fd >= 0)
		return err;	/* it was closed: nothing is lost */
	if (err && !atomic_exchange(&fr->store_failed, 1))
		fr_log(fr, LOG_CRIT, "the service manager takes no descriptors: %s; files that are opened from now on "
		       "are lost where all processes die at once", strerror(err == -EAGAIN ? ETIMEDOUT : -err));
	else if (!err && atomic_load(&fr->store_failed) && atomic_exchange(&fr->store_failed, 0))
		fr_log(fr, LOG_WARNING, "the service manager takes descriptors again");
	return err;
}

static int add(struct fr *fr, int fd)
{
	char text[TEXT_SIZE];

	snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=" STORE_NAME "-%d", fd);
	return tell(fr, text, fd);
}

static int take_away(struct fr *fr, int fd)
{
	char text[TEXT_SIZE];

	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=" STORE_NAME "-%d", fd);
	return tell(fr, text, -1);
}

uint8_t fr_store_keep(struct fr *fr, int fd)
{
	uint8_t byte = atomic_load(&fr->fd_map[fd]);

	if (fr->store_fd < 0 || (FD_OWNER(byte) == FD_CALLERS && byte & FD_STORED))
		return byte & FD_HELD;
	/* Of one that had this number before, when the manager did not listen. */
	if (byte & FD_HELD && take_away(fr, fd))
		return FD_STALE;
	atomic_store(&fr->fd_map[fd], FD_OWNER(byte) | FD_STORED);
	FR_STEP();
	if (!add(fr, fd))
		return FD_STORED;
	atomic_store(&fr->fd_map[fd], FD_OWNER(byte));
	return 0;
}

/* What is noted as stored, and not kept any more. */
static void remove_dropped(struct fr *fr, int fd)
{
	uint8_t byte = atomic_load(&fr->fd_map[fd]);

	if (FD_OWNER(byte) != FD_NONE || !(byte & FD_HELD))
		return;
	FR_STEP();
	if (take_away(fr, fd))
		return;
	FR_STEP();
	atomic_store(&fr->fd_map[fd], FD_NONE);
}

void fr_store_drop(struct fr *fr, int fd)
{
	if (fr->store_fd >= 0)
		remove_dropped(fr, fd);
}

void fr_store_committed(struct fr_slot *slot, uint32_t used)
{
	struct fr *fr = slot->fr;
	uint64_t first = (uint64_t)((unsigned char *)fr->fd_map - fr->base);
	struct undo end;

	slot->drops = false;
	while (used >= sizeof(end)) {
		memcpy(&end, slot->undo + used - sizeof(end), sizeof(end));
		if (end.size > UNDO_SIZE || fr_undo_rounded(end.size) > used - sizeof(end))
			return;
		used -= fr_undo_rounded(end.size) + (uint32_t)sizeof(end);
		if (end.size == 1 && end.offset >= first && end.offset - first < fr->layout.fds)
			fr_store_drop(fr, (int)(end.offset - first));
	}
}

void fr_store_settle(struct fr *fr)
{
	if (fr->store_fd < 0)
		return;
	for (uint32_t fd = 0; fd < fr_fds_end(fr); fd++)
		remove_dropped(fr, (int)fd);
}

void fr_store_empty(struct fr *fr)
{
	if (fr->store_fd < 0)
		return;
	for (uint32_t fd = 0; fd < fr_fds_end(fr); fd++) {
		uint8_t byte = atomic_load(&fr->fd_map[fd]);

		if (byte & FD_HELD && !take_away(fr, (int)fd))
			atomic_store(&fr->fd_map[fd], FD_OWNER(byte));
	}
	/* Last: with it, what is left is known to be left. */
	if (atomic_exchange(&fr->cp->stored, 0))
		tell(fr, "FDSTOREREMOVE=1\nFDNAME=" STORE_NAME, -1);
}

/* ---- to begin with ---- */

/* What is open under a number is nobody's, or of another time. */
static void replace_handed(struct fr *fr, int fd, uint8_t byte)
{
	int root = -1;

	if (FD_OWNER(byte) == FD_CALLERS)
		root = open("/", O_PATH | O_CLOEXEC);
	if (root < 0)
		close(fd);
	else if (dup3(root, fd, O_CLOEXEC) == fd)
		close(root);
	take_away(fr, fd);
}

/* Returns whether what was kept is lost. */
static bool settle_one(struct fr *fr, const struct handed_fd *item)
{
	int fd = item->number;
	bool in_map = (uint32_t)fd < fr_fds_end(fr);
	uint8_t byte = in_map ? atomic_load(&fr->fd_map[fd]) : FD_NONE;
	bool kept = FD_OWNER(byte) == FD_CALLERS, good = item->came && !item->doubtful && kept && !(byte & FD_STALE);

	if (item->came && !good)
		replace_handed(fr, fd, byte);
	else if (!item->came && !kept)
		close(fd);
	if (in_map)
		atomic_store(&fr->fd_map[fd], FD_OWNER(byte) | (good ? FD_STORED : 0));
	return kept && !good;
}

/* What a restarted service was handed, against the map of what was kept. */
static void settle_handed(struct fr *fr)
{
	const struct handed *h = fr_handed();
	unsigned lost = 0;

	for (unsigned i = 0; i < h->count; i++)
		if (h->item[i].number >= 0)
			lost += settle_one(fr, &h->item[i]);
	atomic_store(&fr->cp->stored, 1);
	if (lost)
		fr_log(fr, LOG_CRIT, "%u of the files that were open did not come back from the service manager: it "
		       "takes too few (FileDescriptorStoreMax=); they give errors until they are closed", lost);
}

static bool is_lost(const struct fr *fr, int fd)
{
	const struct handed *h = fr_handed();

	for (unsigned i = 0; fr->from_store && i < h->count; i++)
		if (h->item[i].number == fd)
			return !h->item[i].came;
	return false;
}

PUBLIC int fr_store(struct fr *fr)
{
	int err = 0;

	if (fr->role != ROLES || fr->store_fd >= 0)
		return -EBUSY;
	if (fr->trial)
		return 0;
	fr->store_fd = open_socket();
	if (fr->store_fd < 0) {
		err = fr->store_fd;
		fr->store_fd = -1;
		return err;
	}
	err = fr_fd_own(fr, fr->store_fd, FD_LIBRARYS);
	if (!err && fr->from_store)
		settle_handed(fr);
	if (!err && !atomic_load(&fr->cp->stored)) {
		FR_STEP();
		err = tell(fr, "FDSTORE=1\nFDPOLL=0\nFDNAME=" STORE_NAME, fr->fd);
		if (!err)
			atomic_store(&fr->cp->stored, 1);
	}
	for (uint32_t fd = 0; !err && fd < fr_fds_end(fr); fd++)
		if (atomic_load(&fr->fd_map[fd]) == FD_CALLERS && !is_lost(fr, (int)fd))
			atomic_store(&fr->fd_map[fd], FD_CALLERS | fr_store_keep(fr, (int)fd));
	fr_store_settle(fr);
	return err ? err : atomic_load(&fr->store_failed) ? -ETIMEDOUT : 0;
}
