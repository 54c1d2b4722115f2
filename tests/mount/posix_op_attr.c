/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Steps on attributes: modes, owners, times, extended attributes, access lists. */
#include <endian.h>
#include <fcntl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/xattr.h>

#include "posix.h"

#define OP(name) static void do_##name(struct ctx *ctx, char **a, char *out)
#define UNUSED ((void)ctx, (void)a)

OP(chmod) { UNUSED; put_result(out, chmod(arg_path(a[0]), arg_mode(a[1]))); }
OP(fchmod) { put_result(out, fchmod(*arg_fd(ctx, a[0]), arg_mode(a[1]))); }
OP(chown) { UNUSED; put_result(out, chown(arg_path(a[0]), arg_num(a[1]), arg_num(a[2]))); }
OP(lchown) { UNUSED; put_result(out, lchown(arg_path(a[0]), arg_num(a[1]), arg_num(a[2]))); }
OP(fchown) { put_result(out, fchown(*arg_fd(ctx, a[0]), arg_num(a[1]), arg_num(a[2]))); }
OP(access) { UNUSED; put_result(out, access(arg_path(a[0]), arg_num(a[1]))); }

OP(faccessat)
{
	UNUSED;
	put_result(out, faccessat(AT_FDCWD, arg_path(a[0]), arg_num(a[1]), arg_num(a[2])));
}

/* The wanted fields in the order asked: t(ype) m(ode) u(id) g(id) n(link) s(ize) */
static void put_stat(char *out, int rc, const struct stat *st, const char *fields)
{
	char buf[32];

	put_result(out, rc);
	if (rc || !fields)
		return;
	for (char *to = out; *fields; fields++) {
		if (to != out)
			*to++ = ',';
		switch (*fields) {
		case 't': to += sprintf(to, "%s", type_name(st->st_mode)); break;
		case 'm': to += sprintf(to, "%04o", st->st_mode & 07777); break;
		case 'u': to += sprintf(to, "%s", id_name(st->st_uid, buf)); break;
		case 'g': to += sprintf(to, "%s", id_name(st->st_gid, buf)); break;
		case 'n': to += sprintf(to, "%lu", (unsigned long)st->st_nlink); break;
		case 's': to += sprintf(to, "%ld", (long)st->st_size); break;
		}
	}
}

OP(stat)
{
	struct stat st;

	UNUSED;
	put_stat(out, stat(arg_path(a[0]), &st), &st, a[1]);
}

OP(lstat)
{
	struct stat st;

	UNUSED;
	put_stat(out, lstat(arg_path(a[0]), &st), &st, a[1]);
}

OP(fstat)
{
	struct stat st;

	put_stat(out, fstat(*arg_fd(ctx, a[0]), &st), &st, a[1]);
}

static void put_moved(char *out, int rc, const struct stat *st)
{
	put_result(out, rc);
	if (!rc)
		snprintf(out, RESULT_MAX, "%s%s", st->st_atim.tv_sec != PAST_SEC ? "a" : "-",
			 st->st_mtim.tv_sec != PAST_SEC ? "m" : "-");
}

/* moved PATH, fmoved SLOT: which of atime and mtime left the past */
OP(moved)
{
	struct stat st;

	UNUSED;
	put_moved(out, lstat(arg_path(a[0]), &st), &st);
}

OP(fmoved)
{
	struct stat st;

	put_moved(out, fstat(*arg_fd(ctx, a[0]), &st), &st);
}

/* times PATH: atime,mtime, to the nanosecond */
OP(times)
{
	struct stat st;
	int rc = lstat(arg_path(a[0]), &st);

	UNUSED;
	put_result(out, rc);
	if (!rc)
		snprintf(out, RESULT_MAX, "%ld.%09ld,%ld.%09ld", (long)st.st_atim.tv_sec,
			 st.st_atim.tv_nsec, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static struct timespec time_arg(const char *arg)
{
	struct timespec t = { 0 };
	char *end;

	if (!strcmp(arg, "NOW") || !strcmp(arg, "OMIT")) {
		t.tv_nsec = *arg == 'N' ? UTIME_NOW : UTIME_OMIT;
		return t;
	}
	t.tv_sec = strtoll(arg, &end, 10);
	if (*end == '.')
		t.tv_nsec = strtol(end + 1, NULL, 10);
	return t;
}

/* utimens PATH ATIME MTIME [FLAGS]: NOW, OMIT, or seconds.nanoseconds (as a count) */
OP(utimens)
{
	const struct timespec t[2] = { time_arg(a[1]), time_arg(a[2]) };

	UNUSED;
	put_result(out, utimensat(AT_FDCWD, arg_path(a[0]), t, a[3] ? arg_num(a[3]) : 0));
}

OP(utimenow)
{
	UNUSED;
	put_result(out, utimensat(AT_FDCWD, arg_path(a[0]), NULL, 0));
}

OP(futimens)
{
	const struct timespec t[2] = { time_arg(a[1]), time_arg(a[2]) };

	put_result(out, futimens(*arg_fd(ctx, a[0]), t));
}

/* setxattr PATH NAME VALUE [FLAGS] */
OP(setxattr)
{
	const char *value = arg_path(a[2]);

	UNUSED;
	put_result(out, lsetxattr(arg_path(a[0]), a[1], value, strlen(value),
				  a[3] ? arg_num(a[3]) : 0));
}

OP(getxattr)
{
	char value[256];
	ssize_t n = lgetxattr(arg_path(a[0]), a[1], value, sizeof(value));

	UNUSED;
	put_result(out, n);
	if (n >= 0)
		snprintf(out, RESULT_MAX, "%zd:%.*s", n, n > 40 ? 40 : (int)n, value);
}

/* hasxattr PATH NAME: its size, or the errno */
OP(hasxattr)
{
	ssize_t n = lgetxattr(arg_path(a[0]), a[1], NULL, 0);

	UNUSED;
	put_result(out, n);
	if (n >= 0)
		snprintf(out, RESULT_MAX, "%zd", n);
}

OP(removexattr) { UNUSED; put_result(out, lremovexattr(arg_path(a[0]), a[1])); }

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

OP(listxattr)
{
	char list[4096], *names[64], *to = out;
	ssize_t n = llistxattr(arg_path(a[0]), list, sizeof(list));
	int count = 0;

	UNUSED;
	put_result(out, n);
	for (char *at = list; n > 0 && at < list + n && count < 64; at += strlen(at) + 1)
		names[count++] = at;
	qsort(names, count, sizeof(*names), by_text);
	for (int i = 0; i < count && to - out < RESULT_MAX - 300; i++)
		to += sprintf(to, "%s%s", i ? "," : "", names[i]);
}

/* A revision 2 capability set: cap_net_raw permitted, effective */
OP(setcap)
{
	const uint32_t caps[5] = { htole32(0x02000001), htole32(1U << 13), 0, 0, 0 };

	UNUSED;
	put_result(out, lsetxattr(arg_path(a[0]), "security.capability", caps, sizeof(caps), 0));
}

OP(hascap)
{
	UNUSED;
	put_result(out, lgetxattr(arg_path(a[0]), "security.capability", NULL, 0));
}

/* The tags of the stored form; only libacl's header names them, and with other types. */
enum {
	ACL_USER_OBJ = 0x01,
	ACL_USER = 0x02,
	ACL_GROUP_OBJ = 0x04,
	ACL_GROUP = 0x08,
	ACL_MASK = 0x10,
	ACL_OTHER = 0x20,
};

struct acl {
	struct posix_acl_xattr_header head;
	struct posix_acl_xattr_entry entry[16];
};

static const char *acl_name(const char *which)
{
	return *which == 'd' ? "system.posix_acl_default" : "system.posix_acl_access";
}

static int bits(const char *rwx)
{
	return (strchr(rwx, 'r') ? 4 : 0) | (strchr(rwx, 'w') ? 2 : 0) | (strchr(rwx, 'x') ? 1 : 0);
}

static int acl_tag(char kind, bool named)
{
	switch (kind) {
	case 'u': return named ? ACL_USER : ACL_USER_OBJ;
	case 'g': return named ? ACL_GROUP : ACL_GROUP_OBJ;
	case 'm': return ACL_MASK;
	default: return ACL_OTHER;
	}
}

/* setacl PATH access|default u:rw,u:own:rx,g:r,g:GA:w,m:rwx,o:- (in this order) */
OP(setacl)
{
	struct acl acl = { .head.a_version = htole32(POSIX_ACL_XATTR_VERSION) };
	char *rest = a[2], *word;
	int n = 0;

	UNUSED;
	while ((word = strsep(&rest, ",")) && n < 16) {
		char *colon = strchr(word, ':'), *last = strrchr(word, ':');

		*last = 0;
		acl.entry[n].e_tag = htole16(acl_tag(*word, last != colon));
		acl.entry[n].e_id = htole32(last != colon ? arg_num(colon + 1) : ACL_UNDEFINED_ID);
		acl.entry[n++].e_perm = htole16(bits(last + 1));
	}
	put_result(out, setxattr(arg_path(a[0]), acl_name(a[1]), &acl,
				 sizeof(acl.head) + n * sizeof(*acl.entry), 0));
}

OP(getacl)
{
	struct acl acl;
	ssize_t n = getxattr(arg_path(a[0]), acl_name(a[1]), &acl, sizeof(acl));
	char *to = out, buf[32];

	UNUSED;
	put_result(out, n);
	for (int i = 0; n > 0 && i < (int)((n - sizeof(acl.head)) / sizeof(*acl.entry)); i++) {
		int tag = le16toh(acl.entry[i].e_tag), perm = le16toh(acl.entry[i].e_perm);
		bool user = tag == ACL_USER || tag == ACL_USER_OBJ;

		to += sprintf(to, "%s%c:", i ? "," : "", user ? 'u' : tag == ACL_MASK ? 'm' :
			      tag == ACL_OTHER ? 'o' : 'g');
		if (tag == ACL_USER || tag == ACL_GROUP)
			to += sprintf(to, "%s:", id_name(le32toh(acl.entry[i].e_id), buf));
		to += sprintf(to, "%s%s%s%s", perm & 4 ? "r" : "", perm & 2 ? "w" : "",
			      perm & 1 ? "x" : "", perm ? "" : "-");
	}
}

OP(delacl) { UNUSED; put_result(out, removexattr(arg_path(a[0]), acl_name(a[1]))); }

const struct op attr_ops[] = {
#define N(name, args) { #name, args, do_##name }
	N(chmod, 2),	 N(fchmod, 2),	    N(chown, 3),    N(lchown, 3),   N(fchown, 3),
	N(access, 2),	 N(faccessat, 3),   N(stat, 1),	    N(lstat, 1),    N(fstat, 1),
	N(moved, 1),	 N(fmoved, 1),	    N(times, 1),    N(utimens, 3),  N(utimenow, 1),
	N(futimens, 3),	 N(setxattr, 3),    N(getxattr, 2), N(hasxattr, 2), N(removexattr, 2),
	N(listxattr, 1), N(setcap, 1),	    N(hascap, 1),   N(setacl, 3),   N(getacl, 2),
	N(delacl, 2),	 { NULL, 0, NULL },
};
