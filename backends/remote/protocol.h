/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * 9P2000.L as it goes over the wire: size[4] type[1] tag[2] and then the fields of the message, little
 * endian, strings with their length in two bytes. What comes from a server is taken apart with a
 * struct p9_in, which never reads beyond the message and remembers that something was missing.
 */
#ifndef FE_REMOTE_PROTOCOL_H
#define FE_REMOTE_PROTOCOL_H

#include <linux/stat.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define P9_VERSION	"9P2000.L"
#define P9_NOTAG	UINT16_MAX
#define P9_NOFID	UINT32_MAX
#define P9_HEADER	7u
#define P9_MAXWELEM	16u		/* names in one Twalk */
#define P9_NAME_MAX	255u
/* The most that stands before the data of a Twrite or Rread; Treaddir counts by it, too. */
#define P9_IOHDRSZ	24u
#define P9_MSIZE_MIN	4096u
#define P9_MSIZE_MAX	(1u << 20)

enum p9_type {
	P9_RLERROR = 7, P9_TSTATFS = 8, P9_TLOPEN = 12, P9_TLCREATE = 14, P9_TSYMLINK = 16, P9_TMKNOD = 18,
	P9_TRENAME = 20, P9_TREADLINK = 22, P9_TGETATTR = 24, P9_TSETATTR = 26, P9_TXATTRWALK = 30,
	P9_TXATTRCREATE = 32, P9_TREADDIR = 40, P9_TFSYNC = 50, P9_TLOCK = 52, P9_TGETLOCK = 54, P9_TLINK = 70,
	P9_TMKDIR = 72, P9_TRENAMEAT = 74, P9_TUNLINKAT = 76, P9_TVERSION = 100, P9_TATTACH = 104,
	P9_RERROR = 107, P9_TFLUSH = 108, P9_TWALK = 110, P9_TREAD = 116, P9_TWRITE = 118, P9_TCLUNK = 120, P9_TREMOVE = 122,
};

enum { P9_QTDIR = 0x80, P9_QTSYMLINK = 0x02 };

/* Bits of Tgetattr and Rgetattr. */
#define P9_GETATTR_BASIC	0x7ffull
#define P9_GETATTR_BTIME	0x800ull
#define P9_GETATTR_GEN		0x1000ull

/* Bits of Tsetattr. */
#define P9_SET_MODE		0x1u
#define P9_SET_UID		0x2u
#define P9_SET_GID		0x4u
#define P9_SET_SIZE		0x8u
#define P9_SET_ATIME		0x10u
#define P9_SET_MTIME		0x20u
#define P9_SET_CTIME		0x40u
#define P9_SET_ATIME_SET	0x80u
#define P9_SET_MTIME_SET	0x100u

/* Bits of Tlopen and Tlcreate that have numbers of their own; the access mode is as in open(2). */
#define P9_O_CREATE		00000100u
#define P9_O_EXCL		00000200u
#define P9_O_TRUNC		00001000u
#define P9_O_NONBLOCK		00004000u
#define P9_O_DSYNC		00010000u
#define P9_O_LARGEFILE		00100000u
#define P9_O_DIRECTORY		00200000u
#define P9_O_NOFOLLOW		00400000u
#define P9_O_SYNC		04000000u

#define P9_UNLINKAT_DIR		0x200u	/* AT_REMOVEDIR */

enum { P9_LOCK_RDLCK, P9_LOCK_WRLCK, P9_LOCK_UNLCK };
enum { P9_LOCK_SUCCESS, P9_LOCK_BLOCKED, P9_LOCK_ERROR, P9_LOCK_GRACE };

/* What names a file on the server. */
struct p9_qid {
	uint8_t type;
	uint32_t version;
	uint64_t path;
};

struct p9_attr {
	uint64_t valid;
	struct p9_qid qid;
	uint32_t mode, uid, gid;
	uint64_t nlink, rdev, size, blksize, blocks;
	uint64_t atime, atime_nsec, mtime, mtime_nsec, ctime, ctime_nsec, btime, btime_nsec;
	uint64_t gen, data_version;
};

struct p9_setattr {
	uint32_t valid, mode, uid, gid;
	uint64_t size, atime, atime_nsec, mtime, mtime_nsec;
};

struct p9_statfs {
	uint32_t type, bsize;
	uint64_t blocks, bfree, bavail, files, ffree, fsid;
	uint32_t namelen;
};

/* An entry of a Rreaddir. `name` lies in the message and is not terminated. */
struct p9_dirent {
	struct p9_qid qid;
	uint64_t offset;
	uint8_t type;
	const char *name;
	uint16_t len;
};

/* A message being written. `over`: it did not fit. */
struct p9_out {
	unsigned char *base, *at, *end;
	bool over;
};

/* A message being read. `bad`: it was shorter than it had to be. */
struct p9_in {
	const unsigned char *at;
	size_t left;
	bool bad;
};

void p9_begin(struct p9_out *o, void *buf, size_t size, uint8_t type);
void p9_put8(struct p9_out *o, uint8_t v);
void p9_put16(struct p9_out *o, uint16_t v);
void p9_put32(struct p9_out *o, uint32_t v);
void p9_put64(struct p9_out *o, uint64_t v);
void p9_putstr(struct p9_out *o, const char *s);
void p9_putsetattr(struct p9_out *o, const struct p9_setattr *a);
/* Writes size and tag; `more` bytes of data follow from elsewhere. Returns its own size, 0: it did not fit. */
size_t p9_end(struct p9_out *o, uint16_t tag, size_t more);

uint8_t p9_get8(struct p9_in *in);
uint16_t p9_get16(struct p9_in *in);
uint32_t p9_get32(struct p9_in *in);
uint64_t p9_get64(struct p9_in *in);
/* A string where it lies; NULL where it is cut short. */
const char *p9_getstr(struct p9_in *in, uint16_t *len);
struct p9_qid p9_getqid(struct p9_in *in);

/* Whole bodies of replies: 0, or -EIO for one that is cut short or can not be true. */
int p9_read_attr(struct p9_in *in, struct p9_attr *out);
int p9_read_statfs(struct p9_in *in, struct p9_statfs *out);
/* nfs-ganesha says so at times, with the body of a Rlerror. */
static inline bool p9_is_error(uint8_t type)
{
	return type == P9_RLERROR || type == P9_RERROR;
}

/* The negative errno of a Rlerror; never one that means something to the kernel of this machine only. */
int p9_read_error(struct p9_in *in);
/* The next entry of a listing: 1, 0 at its end, -EIO for one that no directory can have. */
int p9_read_dirent(struct p9_in *in, struct p9_dirent *out);

/* Whether a server may call a file so: one component, and none that leads elsewhere. */
bool p9_name_valid(const char *name, size_t len);
/* -EIO where qid and mode contradict each other. */
int p9_fill_statx(const struct p9_attr *a, struct statx *out);
uint32_t p9_open_flags(uint32_t flags);

#endif
