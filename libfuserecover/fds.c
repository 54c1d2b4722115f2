/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptors outlive a worker, also those that it had just opened and noted nowhere. The map says whose
 * a descriptor is; what it does not know while no request is running is garbage.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#define GROW	(64u << 10)

static int reach(struct fr *fr, int fd)
{
	uint32_t grown = atomic_load(&fr->cp->fds_grown), end = ((uint32_t)fd / GROW + 1) * GROW;
	int err;

	if (fd < 0 || (uint32_t)fd >= fr->layout.fds)
		return -EBADF;
	if (likely((uint32_t)fd < grown))
		return 0;
	end = end < fr->layout.fds ? end : fr->layout.fds;
	err = fr_give_memory(fr, (uint64_t)((unsigned char *)fr->fd_map - fr->base), end);
	FR_STEP();
	/* Another thread may have been faster and gone further. */
	while (!err && grown < end && !atomic_compare_exchange_weak(&fr->cp->fds_grown, &grown, end))
		;
	return err;
}

static void set_in_step(struct fr_slot *slot, struct fr *fr, int fd, uint8_t byte)
{
	if (slot && slot->open)
		fr_save(slot, (void *)&fr->fd_map[fd], 1);
	atomic_store(&fr->fd_map[fd], byte);
	FR_STEP();
}

PUBLIC int fr_fd_keep(struct fr *fr, struct fr_slot *slot, int fd)
{
	int err = reach(fr, fd);

	if (!err)
		set_in_step(slot, fr, fd, FD_CALLERS | fr_store_keep(fr, fd));
	return err;
}

PUBLIC int fr_fd_drop(struct fr *fr, struct fr_slot *slot, int fd)
{
	int err = reach(fr, fd);
	uint8_t held;

	if (err)
		return err;
	held = atomic_load(&fr->fd_map[fd]) & FD_HELD;
	set_in_step(slot, fr, fd, FD_NONE | held);
	/* A step that is taken back must find it. */
	if (held && slot && slot->open)
		slot->drops = true;
	else if (held)
		fr_store_drop(fr, fd);
	return 0;
}

int fr_fd_own(struct fr *fr, int fd, enum fd_owner owner)
{
	int err = reach(fr, fd);

	if (!err)
		atomic_store(&fr->fd_map[fd], (uint8_t)owner | (atomic_load(&fr->fd_map[fd]) & FD_HELD));
	return err;
}

void fr_fd_disown(struct fr *fr, int fd)
{
	if (fd >= 0 && (uint32_t)fd < atomic_load(&fr->cp->fds_grown))
		atomic_fetch_and(&fr->fd_map[fd], FD_HELD);
}

PUBLIC int fr_fd_is_kept(const struct fr *fr, int fd)
{
	return fd >= 0 && (uint32_t)fd < fr_fds_end(fr) && FD_OWNER(atomic_load(&fr->fd_map[fd])) != FD_NONE;
}

bool fr_fd_is_of(const struct fr *fr, int fd, enum fd_owner owner)
{
	return fd >= 0 && (uint32_t)fd < fr_fds_end(fr) && FD_OWNER(atomic_load(&fr->fd_map[fd])) == owner;
}

/* ---- connections ---- */

static bool is_fuse(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(10, 229);
}

bool fr_fd_takes_replies(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode);
}

void fr_fds_refuse(struct fr *fr, uint64_t unique)
{
	uint32_t end = fr_fds_end(fr);

	for (uint32_t fd = 0; fd < end; fd++) {
		enum fd_owner owner = FD_OWNER(atomic_load_explicit(&fr->fd_map[fd], memory_order_relaxed));
		struct stat st;

		if ((owner == FD_CALLERS || owner == FD_PROGRAMS) && !fstat((int)fd, &st) && is_fuse(&st))
			fr_reply_later((int)fd, unique, -EIO, NULL, 0);
	}
}

/* ---- what is open ---- */

static int number_of(const struct dirent *entry)
{
	char *end;
	long n = strtol(entry->d_name, &end, 10);

	return *end || end == entry->d_name || n < 0 || n > INT_MAX ? -1 : (int)n;
}

static int keep_as_programs(struct fr *fr, int fd)
{
	return FD_OWNER(atomic_load(&fr->fd_map[fd])) == FD_NONE ? fr_fd_own(fr, fd, FD_PROGRAMS) : 0;
}

static int note_program(struct fr *fr, int fd)
{
	int *more = reallocarray(fr->programs, fr->nprograms + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	fr->programs = more;
	fr->programs[fr->nprograms++] = fd;
	return keep_as_programs(fr, fd);
}

int fr_fds_keep_open(struct fr *fr)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int err = 0, fd;

	if (!dir)
		return -errno;
	fr->nprograms = 0;
	while (!err && (entry = readdir(dir))) {
		fd = number_of(entry);
		if (fd >= 0 && fd != dirfd(dir) && !reach(fr, fd))
			err = note_program(fr, fd);
	}
	closedir(dir);
	return err;
}

void fr_fds_keep_again(struct fr *fr)
{
	for (uint32_t i = 0; i < fr->nprograms; i++)
		if (!reach(fr, fr->programs[i]) && fcntl(fr->programs[i], F_GETFD) >= 0)
			keep_as_programs(fr, fr->programs[i]);
}

uint32_t fr_fds_end(const struct fr *fr)
{
	uint32_t end = atomic_load(&fr->cp->fds_grown);

	return end < fr->layout.fds ? end : fr->layout.fds;
}

void fr_fds_forget(struct fr *fr)
{
	uint32_t end = fr_fds_end(fr);

	for (uint32_t fd = 0; fd < end; fd++)
		if (FD_OWNER(fr->fd_map[fd]) > FD_CALLERS)
			fr->fd_map[fd] &= FD_HELD;
}

int fr_fds_own(struct fr *fr)
{
	int err = fr_fd_own(fr, fr->fd, FD_LIBRARYS);

	err = err ? err : fr_fd_own(fr, fr->stop_fd, FD_LIBRARYS);
	if (!err && fr->store_fd >= 0)
		err = fr_fd_own(fr, fr->store_fd, FD_LIBRARYS);
	return err ? err : fr_fd_own(fr, fr->wake_fd, FD_LIBRARYS);
}

int fr_fds_hand_down(struct fr *fr)
{
	uint32_t end = fr_fds_end(fr);

	for (uint32_t fd = 0; fd < end; fd++) {
		if (likely(FD_OWNER(atomic_load_explicit(&fr->fd_map[fd], memory_order_relaxed)) != FD_CALLERS))
			continue;
		/* What was closed by the user and not dropped is no reason to refuse. */
		if (fcntl((int)fd, F_SETFD, 0) && errno != EBADF)
			return -errno;
	}
	return fcntl(fr->fd, F_SETFD, 0) ? -errno : 0;
}

void fr_fds_close_of(struct fr *fr, enum fd_owner owner, const int *spare, unsigned spares)
{
	uint32_t end = fr_fds_end(fr);

	for (uint32_t fd = 0; fd < end; fd++) {
		bool spared = false;

		if (likely(FD_OWNER(atomic_load_explicit(&fr->fd_map[fd], memory_order_relaxed)) != owner))
			continue;
		for (unsigned i = 0; i < spares; i++)
			spared |= spare[i] == (int)fd;
		if (spared)
			continue;
		fr_fd_disown(fr, (int)fd);
		close((int)fd);
	}
}

/* ---- the collector ---- */

#define CANDIDATES	256
#define STOP_TRIES	20	/* of 50 us each: so long may a request be held up */

static bool unknown(const struct fr *fr, int fd)
{
	/* Beyond the map nothing can be kept, and nothing is closed. */
	return (uint32_t)fd < fr_fds_end(fr) && atomic_load(&fr->fd_map[fd]) == FD_NONE;
}

/* What is open under a number, which may be given again meanwhile. */
struct candidate {
	int fd;
	dev_t dev;
	ino_t ino;
};

static bool same(const struct candidate *c)
{
	struct stat st;

	return !fstat(c->fd, &st) && st.st_dev == c->dev && st.st_ino == c->ino;
}

static unsigned look(const struct fr *fr, struct candidate *found)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned n = 0;

	while (dir && n < CANDIDATES && (entry = readdir(dir))) {
		int fd = number_of(entry);
		struct stat st;

		/* libfuse's threads open clones before they have a slot. One that was left has no request. */
		if (fd >= 0 && fd != dirfd(dir) && unknown(fr, fd) && !fstat(fd, &st) && !is_fuse(&st))
			found[n++] = (struct candidate){ fd, st.st_dev, st.st_ino };
	}
	if (dir)
		closedir(dir);
	return n;
}

static bool anybody_busy(struct fr *fr)
{
	for (uint32_t i = 0; i < fr->layout.slots; i++)
		if (atomic_load(&fr->slots[i].busy) || fr->slots[i].pending)
			return true;
	return atomic_load(&fr->cp->opening[KEEPER]) || atomic_load(&fr->cp->opening[STANDBY]) ||
	       atomic_load(&fr->cp->helpers);
}

/* No request and no helper runs until go_on(); who begins waits. */
static bool stop(struct fr *fr)
{
	const struct timespec moment = { .tv_nsec = 50000 };

	atomic_store(&fr->stopped, 1);
	for (int i = 0; i < STOP_TRIES; i++) {
		if (!anybody_busy(fr))
			return true;
		nanosleep(&moment, NULL);
	}
	return false;
}

static void go_on(struct fr *fr)
{
	atomic_store(&fr->stopped, 0);
	syscall(SYS_futex, &fr->stopped, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void fr_collect_wait(struct fr *fr)
{
	while (atomic_load(&fr->stopped))
		syscall(SYS_futex, &fr->stopped, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
}

bool fr_collect(struct fr *fr)
{
	struct candidate found[CANDIDATES];
	unsigned n = look(fr, found), garbage = 0;
	bool still;

	if (!n)
		return true;
	still = stop(fr);
	/* Nobody knows these: so nobody will close them, and their numbers stay theirs. */
	for (unsigned i = 0; still && i < n; i++)
		if (unknown(fr, found[i].fd) && same(&found[i]))
			found[garbage++] = found[i];
	go_on(fr);
	for (unsigned i = 0; i < garbage; i++)
		close(found[i].fd);
	if (garbage)
		fr_log(fr, LOG_DEBUG, "closed %u descriptors that the predecessor had left open", garbage);
	return still && n < CANDIDATES;
}
