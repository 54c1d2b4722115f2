/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Extended attributes, file capabilities and access control lists. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/posix_acl_xattr.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fsdiff.h"

#define ACL_USER_OBJ 1
#define ACL_USER 2
#define ACL_GROUP_OBJ 4
#define ACL_GROUP 8
#define ACL_MASK 16
#define ACL_OTHER 32

static void expand_name(const struct step *s, char *out, size_t size)
{
	path_expand(s->name, out, size);
}

static size_t make_value(struct worker *w, const char *name, int64_t size, int64_t tag)
{
	struct vfs_cap_data cap = { .magic_etc =
					    htole32(VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE) };

	fill_pattern(w->data, (size_t)size, tag);
	if (strcmp(name, "security.capability") || tag % 4 == 0)
		return (size_t)size;
	cap.data[0].permitted = htole32((uint32_t)tag);
	memcpy(w->data, &cap, XATTR_CAPS_SZ_2);
	return XATTR_CAPS_SZ_2;
}

/* When a write takes them away again is open: none is set. */
static bool late_caps(struct worker *w, const char *name)
{
	if (strcmp(name, "security.capability") || !tolerated("late-caps"))
		return false;
	leave_out(w, "setting capabilities");
	return true;
}

static void emit_value(struct worker *w, ssize_t n, int64_t size)
{
	finish(w, n);
	if (n > 0 && size)
		emit_data(w, w->data, (size_t)n);
}

/* Mounted without them, ACLs would make all that follows differ. */
static bool without_acls(struct worker *w, const char *name)
{
	if (strncmp(name, "system.posix_acl", 16) || !tolerated("acl-calls"))
		return false;
	leave_out(w, "setting an ACL");
	return true;
}

static bool empty_value(struct worker *w, const struct step *s)
{
	if (s->num[0] || !tolerated("empty-xattr"))
		return false;
	leave_out(w, "an empty attribute");
	return true;
}

void do_setxattr(struct worker *w, const struct step *s)
{
	char name[600];
	size_t n;

	expand_name(s, name, sizeof(name));
	if (late_caps(w, name) || empty_value(w, s) || without_acls(w, name))
		return;
	n = make_value(w, name, s->num[0], s->num[1]);
	finish(w, (s->num[3] ? lsetxattr : setxattr)(w->path, name, w->data, n, (int)s->num[2]));
}

void do_fsetxattr(struct worker *w, const struct step *s)
{
	char name[600];
	size_t n;

	expand_name(s, name, sizeof(name));
	if (late_caps(w, name) || empty_value(w, s) || without_acls(w, name))
		return;
	n = make_value(w, name, s->num[0], s->num[1]);
	finish(w, fsetxattr(slot_fd(w, s->fd), name, w->data, n, (int)s->num[2]));
}

void do_getxattr(struct worker *w, const struct step *s)
{
	size_t size = (size_t)s->num[0];
	char name[600];

	expand_name(s, name, sizeof(name));
	emit_value(w, (s->num[1] ? lgetxattr : getxattr)(w->path, name, w->data, size), s->num[0]);
}

void do_fgetxattr(struct worker *w, const struct step *s)
{
	char name[600];

	expand_name(s, name, sizeof(name));
	emit_value(w, fgetxattr(slot_fd(w, s->fd), name, w->data, (size_t)s->num[0]), s->num[0]);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void emit_names(struct worker *w, ssize_t n, int64_t size)
{
	char *names[512];
	size_t count = 0;

	finish(w, n);
	if (n <= 0 || !size)
		return;
	for (char *p = w->data; p < w->data + n && count < 512; p += strlen(p) + 1)
		names[count++] = p;
	qsort(names, count, sizeof(*names), by_name);
	for (size_t i = 0; i < count; i++)
		emit(w, "name", "%s", names[i]);
}

void do_listxattr(struct worker *w, const struct step *s)
{
	size_t size = (size_t)s->num[0];

	emit_names(w, (s->num[1] ? llistxattr : listxattr)(w->path, w->data, size), s->num[0]);
}

void do_flistxattr(struct worker *w, const struct step *s)
{
	emit_names(w, flistxattr(slot_fd(w, s->fd), w->data, (size_t)s->num[0]), s->num[0]);
}

void do_removexattr(struct worker *w, const struct step *s)
{
	char name[600];

	expand_name(s, name, sizeof(name));
	finish(w, (s->num[0] ? lremovexattr : removexattr)(w->path, name));
}

void do_fremovexattr(struct worker *w, const struct step *s)
{
	char name[600];

	expand_name(s, name, sizeof(name));
	finish(w, fremovexattr(slot_fd(w, s->fd), name));
}

/* For the audit: all names and values of one object, given by descriptor or by path. */
void list_xattrs(struct worker *w, const char *prefix, int fd, const char *path, bool values)
{
	static char list[65536], val[65536];
	char *names[512], key[400];
	ssize_t n =
		fd >= 0 ? flistxattr(fd, list, sizeof(list)) : llistxattr(path, list, sizeof(list));
	size_t count = 0;

	for (char *p = list; n > 0 && p < list + n && count < 512; p += strlen(p) + 1)
		names[count++] = p;
	qsort(names, count, sizeof(*names), by_name);
	for (size_t i = 0; i < count; i++) {
		ssize_t len = fd >= 0 ? fgetxattr(fd, names[i], val, sizeof(val)) :
			lgetxattr(path, names[i], val, sizeof(val));

		snprintf(key, sizeof(key), "%s.xattr", prefix);
		if (len < 0)
			emit(w, key, "%s: %s", names[i], err_name(errno));
		else
			emit(w, key, "%s: %zd bytes, hash %016llx", names[i], len,
			     values ? (unsigned long long)hash_bytes(1, val, (size_t)len) : 0);
	}
}

struct acl {
	struct posix_acl_xattr_header head;
	struct posix_acl_xattr_entry entry[8];
};

static void acl_add(struct acl *acl, size_t *n, int tag, int64_t perm, uint32_t id)
{
	acl->entry[(*n)++] = (struct posix_acl_xattr_entry){
		htole16((uint16_t)tag), htole16((uint16_t)(perm & 7)), htole32(id) };
}

/* The shapes are numbered as in the table of acl shapes. */
static size_t make_acl(struct acl *acl, int64_t shape, int64_t perm)
{
	bool user = shape == 1 || shape == 3, group = shape == 2 || shape == 3 || shape == 4;
	size_t n = 0;

	acl->head.a_version = htole32(shape == 8 ? 7 : POSIX_ACL_XATTR_VERSION);
	acl_add(acl, &n, ACL_USER_OBJ, 7 - perm % 3, ACL_UNDEFINED_ID);
	if (user)
		acl_add(acl, &n, ACL_USER, perm >> 3, 1001);
	if (user && perm & 1)
		acl_add(acl, &n, ACL_USER, perm, 1002);
	acl_add(acl, &n, ACL_GROUP_OBJ, perm >> 3, ACL_UNDEFINED_ID);
	if (group)
		acl_add(acl, &n, ACL_GROUP, 7 - perm % 5, 3000);
	if ((user || group) && shape != 4)
		acl_add(acl, &n, ACL_MASK, 7 - perm % 2, ACL_UNDEFINED_ID);
	acl_add(acl, &n, shape == 5 ? 64 : ACL_OTHER, perm, ACL_UNDEFINED_ID);
	if (shape == 6)
		n = 0;
	return sizeof(acl->head) + n * sizeof(acl->entry[0]) - (shape == 7 ? 3 : 0);
}

static const char *acl_name(int64_t type)
{
	return type ? "system.posix_acl_default" : "system.posix_acl_access";
}

void do_setacl(struct worker *w, const struct step *s)
{
	struct acl acl;
	size_t n = make_acl(&acl, s->num[1], s->num[2]);
	struct stat st;

	if (without_acls(w, "system.posix_acl"))
		return;
	/* tmpfs takes set-group-ID away when others than members take an ACL away, ext4 does not. */
	if ((s->num[1] == 6 || s->num[1] == 9) && geteuid() && !stat(w->path, &st) &&
	    (!S_ISDIR(st.st_mode) || st.st_mode & S_ISGID)) {
		leave_out(w, "taking an ACL away");
		return;
	}
	if (s->num[1] == 9)
		finish(w, removexattr(w->path, acl_name(s->num[0])));
	else
		finish(w, setxattr(w->path, acl_name(s->num[0]), &acl, n, 0));
}

void do_getacl(struct worker *w, const struct step *s)
{
	struct acl acl;
	ssize_t n = getxattr(w->path, acl_name(s->num[0]), &acl, sizeof(acl));

	finish(w, n);
	for (size_t i = 0; n > 0 && i < ((size_t)n - sizeof(acl.head)) / sizeof(acl.entry[0]); i++)
		emit(w, "acl", "tag %u perm %u id %d", le16toh(acl.entry[i].e_tag),
		     le16toh(acl.entry[i].e_perm), (int)le32toh(acl.entry[i].e_id));
}
