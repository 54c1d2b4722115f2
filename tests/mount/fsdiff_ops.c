/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of calls: what arguments each one takes and how often it is drawn. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fsdiff.h"

#define S(x, w) { #x, x, w }
#define END { NULL, 0, 0 }
#define BASE(...) ((const struct sym[]){ __VA_ARGS__, END })
#define TAB(var, ...) static const struct symtab var = { __VA_ARGS__ }

static const struct sym none[] = { { "0", 0, 1 }, END };
static const struct sym empty[] = { END };

/* Combined values stand before those they contain, so that printing finds them first. */
TAB(open_flags, .base = BASE(S(O_RDONLY, 4), S(O_WRONLY, 2), S(O_RDWR, 6)),
    .bits = BASE(S(O_TMPFILE, 3), S(O_SYNC, 1), S(O_DSYNC, 1), S(O_CREAT, 40), S(O_EXCL, 10),
		 S(O_TRUNC, 10), S(O_APPEND, 10), S(O_DIRECTORY, 4), S(O_NOFOLLOW, 8), S(O_PATH, 5),
		 S(O_DIRECT, 4), S(O_NOATIME, 3), S(O_NONBLOCK, 3)));
TAB(setfl_flags, .base = none,
    .bits = BASE(S(O_APPEND, 30), S(O_NONBLOCK, 20), S(O_DIRECT, 10), S(O_NOATIME, 20)));
TAB(unlink_flags, .base = none, .bits = BASE(S(AT_REMOVEDIR, 5)));
TAB(link_flags, .base = none, .bits = BASE(S(AT_SYMLINK_FOLLOW, 30), S(AT_EMPTY_PATH, 5)));
TAB(rename_flags,
    .base = BASE({ "0", 0, 12 }, S(RENAME_NOREPLACE, 3), S(RENAME_EXCHANGE, 5),
		 S(RENAME_WHITEOUT, 1)),
    .bits = empty);
TAB(node_types, .base = BASE(S(S_IFREG, 4), S(S_IFIFO, 4), S(S_IFSOCK, 2), S(S_IFCHR, 2),
			     S(S_IFBLK, 2), S(S_IFDIR, 1), { "0", 0, 1 }),
    .bits = empty);
TAB(follow_flags, .base = none, .bits = BASE(S(AT_SYMLINK_NOFOLLOW, 35)));
TAB(stat_flags, .base = none,
    .bits = BASE(S(AT_SYMLINK_NOFOLLOW, 50), S(AT_EMPTY_PATH, 5), S(AT_NO_AUTOMOUNT, 3)));
TAB(statx_flags, .base = BASE({ "0", 0, 4 }, S(AT_STATX_FORCE_SYNC, 1), S(AT_STATX_DONT_SYNC, 1)),
    .bits = BASE(S(AT_SYMLINK_NOFOLLOW, 50), S(AT_EMPTY_PATH, 5)));
TAB(access_flags, .base = none, .bits = BASE(S(AT_EACCESS, 30), S(AT_SYMLINK_NOFOLLOW, 20)));
TAB(access_modes, .base = none, .bits = BASE(S(R_OK, 50), S(W_OK, 50), S(X_OK, 40)));
TAB(whences, .base = BASE(S(SEEK_SET, 5), S(SEEK_CUR, 2), S(SEEK_END, 2), S(SEEK_DATA, 4),
			  S(SEEK_HOLE, 4), { "SEEK_BAD", 9, 1 }),
    .bits = empty);
TAB(falloc_modes,
    .base = BASE({ "0", 0, 6 }, S(FALLOC_FL_PUNCH_HOLE, 1), S(FALLOC_FL_ZERO_RANGE, 4)), /* the other two are not in FUSE */
    .bits = BASE(S(FALLOC_FL_KEEP_SIZE, 35)));
TAB(punch_modes, .base = BASE({ "PUNCH_KEEP", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 }),
    .bits = empty);
TAB(rwf_flags, .base = none, .bits = BASE(S(RWF_DSYNC, 2), S(RWF_SYNC, 1), S(RWF_APPEND, 30)));
TAB(rwf_read, .base = none, .bits = BASE(S(RWF_HIPRI, 10), S(RWF_APPEND, 2)));
TAB(sync_flags, .base = none,
    .bits = BASE(S(SYNC_FILE_RANGE_WAIT_BEFORE, 40), S(SYNC_FILE_RANGE_WRITE, 60),
		 S(SYNC_FILE_RANGE_WAIT_AFTER, 40), { "SYNC_BAD", 64, 3 }));
TAB(prots,
    .base = BASE(S(PROT_READ, 3), S(PROT_WRITE, 1), { "PROT_RW", PROT_READ | PROT_WRITE, 6 }),
    .bits = empty);
TAB(map_flags, .base = BASE(S(MAP_SHARED, 4), S(MAP_PRIVATE, 2)), .bits = empty);
TAB(msync_flags, .base = BASE(S(MS_SYNC, 3), S(MS_ASYNC, 1)), .bits = BASE(S(MS_INVALIDATE, 10)));
TAB(lock_types, .base = BASE(S(F_RDLCK, 4), S(F_WRLCK, 4), S(F_UNLCK, 3)), .bits = empty);
TAB(lock_owner, .base = BASE({ "POSIX", 0, 1 }, { "OFD", 1, 1 }), .bits = empty);
TAB(lock_whence, .base = BASE(S(SEEK_SET, 8), S(SEEK_CUR, 1), S(SEEK_END, 1)), .bits = empty);
TAB(flock_types, .base = BASE(S(LOCK_SH, 3), S(LOCK_EX, 3), S(LOCK_UN, 2)), .bits = empty);
TAB(fork_acts,
    .base = BASE({ "write", 0, 2 }, { "lseek", 1, 1 }, { "close", 2, 2 }, { "getlk", 3, 2 },
		 { "unflock", 4, 1 }, { "setlk", 5, 2 }),
    .bits = empty);
TAB(xattr_flags, .base = BASE({ "0", 0, 8 }, S(XATTR_CREATE, 2), S(XATTR_REPLACE, 2)),
    .bits = empty);
TAB(acl_types, .base = BASE({ "access", 0, 2 }, { "default", 1, 2 }), .bits = empty);
TAB(acl_shapes,
    .base = BASE({ "minimal", 0, 2 }, { "user", 1, 3 }, { "group", 2, 3 }, { "both", 3, 3 },
		 { "no_mask", 4, 1 }, { "bad_tag", 5, 1 }, { "empty", 6, 1 }, { "short", 7, 1 },
		 { "bad_version", 8, 1 }, { "remove", 9, 2 }),
    .bits = empty);

#define AT { "at", K_AT, 0, NULL }
#define AT2 { "at2", K_AT2, 0, NULL }
#define FD { "fd", K_FD, 0, NULL }
#define FD2 { "fd2", K_FD2, 0, NULL }
#define INTO { "into", K_INTO, 0, NULL }
#define P(kind) { "path", kind, 0, NULL }
#define P2(kind) { "path2", kind, 0, NULL }
#define N(name, kind, idx) { name, kind, idx, NULL }
#define F(name, idx, tab) { name, K_SYM, idx, &(tab) }
#define XNAME { "name", K_XNAME, 0, NULL }
#define OP(name, weight, ...) { #name, weight, do_##name, false, { __VA_ARGS__ } }
#define OP_AS(name, weight, call, ...) { #name, weight, do_##call, false, { __VA_ARGS__ } }
#define OP_UNTIMED(name, weight, ...) { #name, weight, do_##name, true, { __VA_ARGS__ } }

const struct op ops[] = {
	OP(open, 90, AT, P(K_FILE), F("flags", 0, open_flags), N("mode", K_MODE, 1), INTO),
	OP_AS(openany, 15, open, AT, P(K_ANY), F("flags", 0, open_flags), N("mode", K_MODE, 1),
	      INTO),
	OP(creat, 10, P(K_FILE), N("mode", K_MODE, 1), INTO),
	OP(close, 14, FD),
	OP(dup, 6, FD, INTO),
	OP(dup2, 3, FD, FD2),
	OP(mkdir, 22, AT, P(K_DIR), N("mode", K_DIR_MODE, 0)),
	OP(rmdir, 14, P(K_DIR)),
	OP(unlink, 22, AT, P(K_ANY), F("flags", 0, unlink_flags)),
	OP(link, 18, AT, P(K_FILE), AT2, P2(K_FILE2), F("flags", 0, link_flags)),
	OP(linkfd, 5, FD, AT2, P2(K_FILE2)),
	OP(symlink, 10, P2(K_TARGET), AT, P(K_LINK)),
	OP(readlink, 8, AT, P(K_LINK), N("size", K_ROOM, 0)),
	OP(rename, 24, AT, P(K_ANY), AT2, P2(K_ANY2), F("flags", 0, rename_flags)),
	OP(mknod, 9, AT, P(K_SPECIAL), F("type", 0, node_types), N("mode", K_MODE, 1),
	   N("dev", K_SMALL, 2)),
	OP(chdir, 6, P(K_CHDIR)),
	OP(fchdir, 2, FD),
	OP(getcwd, 4),
	OP(umask, 4, N("mask", K_PERM, 0)),
	OP(getfl, 4, FD),
	OP(setfl, 4, FD, F("flags", 0, setfl_flags)),
	OP(getflags, 2, FD),
	OP(chmod, 20, AT, P(K_ANY), N("mode", K_MODE, 0)),
	OP(fchmod, 5, FD, N("mode", K_MODE, 0)),
	OP(chown, 16, AT, P(K_ANY), N("uid", K_UID, 0), N("gid", K_GID, 1),
	   F("flags", 2, follow_flags)),
	OP(fchown, 5, FD, N("uid", K_UID, 0), N("gid", K_GID, 1)),
	OP(utimens, 12, AT, P(K_ANY), N("atime", K_TIME, 0), N("mtime", K_TIME, 1),
	   F("flags", 2, follow_flags)),
	OP(futimens, 6, FD, N("atime", K_TIME, 0), N("mtime", K_TIME, 1)),
	OP(access, 14, AT, P(K_ANY), F("mode", 0, access_modes), F("flags", 1, access_flags)),
	OP(stat, 24, AT, P(K_ANY), F("flags", 0, stat_flags)),
	OP(fstat, 14, FD),
	OP(statx, 8, AT, P(K_ANY), F("flags", 0, statx_flags)),
	OP(statfs, 2, P(K_ANY)),
	OP(fstatfs, 1, FD),
	OP(setxattr, 18, P(K_ANY), XNAME, N("size", K_XSIZE, 0), N("tag", K_TAG, 1),
	   F("flags", 2, xattr_flags), F("how", 3, follow_flags)),
	OP(fsetxattr, 5, FD, XNAME, N("size", K_XSIZE, 0), N("tag", K_TAG, 1),
	   F("flags", 2, xattr_flags)),
	OP(getxattr, 12, P(K_ANY), XNAME, N("size", K_ROOM, 0), F("how", 3, follow_flags)),
	OP(fgetxattr, 5, FD, XNAME, N("size", K_ROOM, 0)),
	OP(listxattr, 8, P(K_ANY), N("size", K_ROOM, 0), F("how", 3, follow_flags)),
	OP(flistxattr, 3, FD, N("size", K_ROOM, 0)),
	OP(removexattr, 6, P(K_ANY), XNAME, F("how", 3, follow_flags)),
	OP(fremovexattr, 2, FD, XNAME),
	OP(setacl, 12, P(K_ANY), F("type", 0, acl_types), F("shape", 1, acl_shapes),
	   N("perm", K_PERM, 2)),
	OP(getacl, 8, P(K_ANY), F("type", 0, acl_types)),
	OP(read, 22, FD, N("len", K_LEN, 0)),
	OP(pread, 26, FD, N("off", K_OFF, 0), N("len", K_LEN, 1)),
	OP(readv, 6, FD, N("len", K_LEN, 0)),
	OP(preadv2, 6, FD, N("off", K_OFF, 0), N("len", K_LEN, 1), F("flags", 2, rwf_read)),
	OP(write, 26, FD, N("len", K_LEN, 0), N("tag", K_TAG, 1)),
	OP(pwrite, 30, FD, N("off", K_OFF, 0), N("len", K_LEN, 1), N("tag", K_TAG, 2)),
	OP(writev, 6, FD, N("len", K_LEN, 0), N("tag", K_TAG, 1)),
	OP(pwritev2, 8, FD, N("off", K_OFF, 0), N("len", K_LEN, 1), N("tag", K_TAG, 2),
	   F("flags", 3, rwf_flags)),
	OP(lseek, 24, FD, N("off", K_OFF, 0), F("whence", 1, whences)),
	OP(truncate, 10, P(K_FILE), N("size", K_SIZE, 0)),
	OP(ftruncate, 12, FD, N("size", K_SIZE, 0)),
	OP(fallocate, 12, FD, F("mode", 0, falloc_modes), N("off", K_OFF, 1), N("len", K_LEN, 2)),
	OP_AS(punch, 6, fallocate, FD, F("mode", 0, punch_modes), N("off", K_OFF, 1),
	      N("len", K_LEN, 2)),
	OP(copy_range, 12, FD, N("off", K_OFF, 0), FD2, N("off2", K_OFF, 1), N("len", K_LEN, 2)),
	OP(sendfile, 6, FD, N("off", K_OFF, 0), FD2, N("len", K_LEN, 1)),
	OP(splice, 6, FD, N("off", K_OFF, 0), FD2, N("off2", K_OFF, 1), N("len", K_LEN, 2)),
	OP(fsync, 2, FD),
	OP(fdatasync, 2, FD),
	OP(sync_range, 2, FD, N("off", K_OFF, 0), N("len", K_LEN, 1), F("flags", 2, sync_flags)),
	OP(syncfs, 1, FD),
	OP_UNTIMED(mmap, 12, N("map", K_MAP, 0), FD, N("off", K_PAGE_OFF, 1), N("len", K_LEN, 2),
		   F("prot", 3, prots), F("flags", 4, map_flags)),
	OP_UNTIMED(munmap, 3, N("map", K_MAP, 0)),
	OP_UNTIMED(mread, 18, N("map", K_MAP, 0), N("off", K_OFF, 1), N("len", K_LEN, 2)),
	OP_UNTIMED(mwrite, 16, N("map", K_MAP, 0), N("off", K_OFF, 1), N("len", K_LEN, 2),
		   N("tag", K_TAG, 3)),
	OP_UNTIMED(msync, 3, N("map", K_MAP, 0), F("flags", 1, msync_flags)),
	OP(setlk, 20, FD, F("owner", 0, lock_owner), F("type", 1, lock_types),
	   F("whence", 2, lock_whence), N("start", K_LOCK_OFF, 3), N("len", K_LOCK_LEN, 4)),
	OP(getlk, 14, FD, F("owner", 0, lock_owner), F("type", 1, lock_types),
	   F("whence", 2, lock_whence), N("start", K_LOCK_OFF, 3), N("len", K_LOCK_LEN, 4)),
	OP(flock, 14, FD, F("type", 0, flock_types)),
	OP(fork, 6, FD, F("act", 0, fork_acts)),
	OP(list, 10, AT, P(K_CHDIR)),
	OP(fdlist, 5, FD),
	OP(seekdir, 5, P(K_CHDIR), N("at", K_SMALL, 0)),
	OP(dirchange, 3, P(K_CHDIR), N("after", K_SMALL, 0)),
	OP_UNTIMED(audit, 0),
};
const size_t n_ops = sizeof(ops) / sizeof(ops[0]);

int op_find(const char *name)
{
	for (size_t i = 0; i < n_ops; i++)
		if (!strcmp(ops[i].name, name))
			return (int)i;
	return -1;
}
