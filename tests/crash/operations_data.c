/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Open files: their bytes, their locks, what becomes of them without a name and in an upgrade. */
#define _LARGEFILE64_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/crash/operations.h"

static bool appending_a(void)
{
	MUST(file_a());
	fd = open("a", O_WRONLY | O_APPEND | O_CLOEXEC);
	MUST(fd >= 0);
	return true;
}

static bool do_append(void)
{
	MUST(write(fd, "-more", 5) == 5);
	return true;
}

static bool see_appended(void)
{
	return has("a", "alpha-more");
}

static bool do_write(void)
{
	MUST(pwrite(fd, "ALP", 3, 0) == 3);
	return true;
}

static bool see_written(void)
{
	return has("a", "ALPha");
}

static bool do_read(void)
{
	char got[16] = "";

	MUST(pread(fd, got, sizeof(got), 0) == 5 && !strcmp(got, "alpha"));
	return true;
}

#define AHEAD	(128 << 10)

static bool far(void)
{
	char page[4096];

	MUST(opened_a());
	for (off_t at = 0; at < AHEAD; at += 4096) {
		memset(page, 'A' + (int)(at / 4096), sizeof(page));
		MUST(pwrite(fd, page, sizeof(page), at) == sizeof(page));
	}
	MUST(!fsync(fd) && !posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) && !close(fd));
	fd = -1;
	return true;
}

/* The kernel asks for more than one request at a time. */
static bool do_read_ahead(void)
{
	static char got[AHEAD];

	fd = open("a", O_RDONLY | O_CLOEXEC);
	MUST(fd >= 0);
	MUST(pread(fd, got, AHEAD, 0) == AHEAD);
	for (int at = 0; at < AHEAD; at++)
		MUST(got[at] == 'A' + at / 4096);
	return true;
}

static bool hole_in_a(void)
{
	return opened_a() && !ftruncate(fd, AHEAD) && pwrite(fd, "omega", 5, AHEAD) == 5;
}

/* Behind a hole; where the kernel keeps what is written, it asks nobody and knows no holes. */
static bool do_seek(void)
{
	off_t at = lseek(fd, AHEAD / 2, SEEK_DATA);

	MUST(at == (kept_writes ? AHEAD / 2 : AHEAD));
	return true;
}

static bool do_truncate(void)
{
	MUST(!ftruncate(fd, 2));
	return true;
}

static bool see_truncated(void)
{
	return has("a", "al");
}

static bool do_open_trunc(void)
{
	fd = open("a", O_WRONLY | O_TRUNC | O_CLOEXEC);
	MUST(fd >= 0);
	return true;
}

static bool see_empty(void)
{
	return has("a", "");
}

static bool do_fallocate(void)
{
	struct stat st;

	MUST(!fallocate(fd, 0, 0, 8192) && !fstat(fd, &st) && st.st_size == 8192);
	return true;
}

static bool do_punch(void)
{
	MUST(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1, 2));
	return true;
}

static bool see_punched(void)
{
	char got[5];

	MUST(pread(fd, got, 5, 0) == 5 && !memcmp(got, "a\0\0ha", 5));
	return true;
}

static bool zeroes;

/* Not every source does it: the tmpfs does not. */
static bool do_zero(void)
{
	zeroes = !fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 1, 2);
	MUST(zeroes || errno == EOPNOTSUPP);
	return true;
}

static bool see_zeroed(void)
{
	return zeroes ? see_punched() : see_a();
}

static bool opened_a_b(void)
{
	MUST(opened_a() && put("b", ""));
	fd2 = open("b", O_RDWR | O_CLOEXEC);
	MUST(fd2 >= 0);
	return true;
}

static bool do_copy(void)
{
	off64_t from = 0, to = 0;

	MUST(copy_file_range(fd, &from, fd2, &to, 5, 0) == 5);
	return true;
}

static bool see_copied(void)
{
	return has("b", "alpha");
}

static bool unlinked_a(void)
{
	return opened_a() && do_unlink();
}

static bool do_unlinked(void)
{
	char got[16] = "";

	MUST(pwrite(fd, "OMEGA", 5, 5) == 5 && pread(fd, got, 10, 0) == 10 && !strcmp(got, "alphaOMEGA"));
	return true;
}

static bool upgrade(void)
{
	return do_upgrade() && do_unlinked();
}

static bool upgrade_late(void)
{
	return do_upgrade_late() && do_unlinked();
}

static bool do_close(void)
{
	int f = fd;

	fd = -1;
	MUST(!close(f));
	return true;
}

static bool do_open(void)
{
	fd = open("a", O_RDONLY | O_CLOEXEC);
	MUST(fd >= 0);
	return do_read();
}

static bool do_flock(void)
{
	MUST(!flock(fd, LOCK_EX) && !flock(fd, LOCK_UN));
	return true;
}

static bool do_lock(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_len = 3 };

	MUST(!fcntl(fd, F_SETLK, &l));
	l.l_type = F_UNLCK;
	MUST(!fcntl(fd, F_SETLK, &l));
	l.l_type = F_WRLCK;
	MUST(!fcntl(fd, F_OFD_SETLK, &l));
	return true;
}

static bool do_mmap(void)
{
	char *p = mmap(NULL, 5, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	MUST(p != MAP_FAILED);
	p[0] = 'A';
	MUST(!msync(p, 5, MS_SYNC) && !munmap(p, 5));
	return true;
}

static bool see_mapped(void)
{
	return has("a", "Alpha");
}

static bool do_fsync(void)
{
	MUST(!fsync(fd));
	return true;
}

static bool do_ioctl(void)
{
	int flags;

	MUST(!ioctl(fd, FS_IOC_GETFLAGS, &flags));
	return true;
}

static bool do_set_flags(void)
{
	int flags;

	MUST(!ioctl(fd, FS_IOC_GETFLAGS, &flags));
	flags |= FS_NODUMP_FL;
	MUST(!ioctl(fd, FS_IOC_SETFLAGS, &flags));
	return true;
}

static bool see_flags(void)
{
	int flags;

	MUST(!ioctl(fd, FS_IOC_GETFLAGS, &flags) && flags & FS_NODUMP_FL);
	return true;
}

const struct operation data_operations[] = {
	{ "open", file_a, do_open, see_a },
	{ "open-truncate", file_a, do_open_trunc, see_empty },
	{ "read", opened_a, do_read, see_a },
	{ "read-ahead", far, do_read_ahead, nothing },
	{ "seek", hole_in_a, do_seek, nothing },
	{ "write", opened_a, do_write, see_written },
	{ "append", appending_a, do_append, see_appended },
	{ "mmap", opened_a, do_mmap, see_mapped },
	{ "truncate", opened_a, do_truncate, see_truncated },
	{ "fallocate", opened_a, do_fallocate, nothing },
	{ "punch", opened_a, do_punch, see_punched },
	{ "zero", opened_a, do_zero, see_zeroed },
	{ "copy", opened_a_b, do_copy, see_copied },
	{ "fsync", opened_a, do_fsync, see_a },
	{ "ioctl", opened_a, do_ioctl, see_a },
	{ "set-flags", opened_a, do_set_flags, see_flags },
	{ "flock", opened_a, do_flock, see_a },
	{ "lock", opened_a, do_lock, see_a },
	{ "close", opened_a, do_close, see_a },
	{ "unlinked", unlinked_a, do_unlinked, see_gone },
	{ "upgrade", unlinked_a, upgrade, see_gone },
	{ "upgrade-late", unlinked_a, upgrade_late, see_gone },
	{ .name = NULL },
};
