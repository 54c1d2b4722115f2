/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finds a mount in /proc/self/mountinfo, without a system call on the mount: its server may hang. */
#ifndef FE_BASE_MOUNTINFO_H
#define FE_BASE_MOUNTINFO_H

#include <stdio.h>
#include <sys/types.h>

#define FE_FSTYPE	"fuse.fuse-extent"

struct mount_entry {
	unsigned major, minor;	/* st_dev of the file system */
	char fstype[64];
	uid_t owner;		/* the option user_id=, (uid_t)-1 where there is none */
};

/* The topmost mount on `path`, an absolute path as the kernel writes it. -ENOENT where there is none. */
int mountinfo_find(FILE *mountinfo, const char *path, struct mount_entry *out);

/* The same in the table of this process. */
int mountinfo_lookup(const char *path, struct mount_entry *out);

/*
 * The absolute path of a mountpoint, for free(): symlinks are followed in its parent directory only.
 * NULL with errno.
 */
char *mountpoint_path(const char *given);

#endif
