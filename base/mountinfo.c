/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/mountinfo.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { FIELD_DEVICE = 2, FIELD_MOUNTPOINT = 4, FIELD_OPTIONAL = 6 };

static bool is_octal(const char *s)
{
	return s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' && s[2] >= '0' && s[2] <= '7';
}

/* The kernel writes space, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
	char *out = s;

	while (*s) {
		if (*s == '\\' && is_octal(s + 1)) {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = 0;
}

static uid_t find_owner(char *super_options)
{
	char *rest = super_options;
	char *option;

	while ((option = strsep(&rest, ",")) != NULL)
		if (!strncmp(option, "user_id=", 8))
			return (uid_t)strtoul(option + 8, NULL, 10);
	return (uid_t)-1;
}

/* ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [OPTIONAL...] - FSTYPE SOURCE SUPER_OPTIONS */
static bool parse_line(char *line, const char *path, struct mount_entry *out)
{
	char *rest = line;
	char *field, *device = NULL;
	int i = 0;

	line[strcspn(line, "\n")] = 0;
	while ((field = strsep(&rest, " ")) != NULL) {
		if (i == FIELD_DEVICE)
			device = field;
		if (i == FIELD_MOUNTPOINT) {
			unescape(field);
			if (strcmp(field, path))
				return false;
		}
		if (i >= FIELD_OPTIONAL && !strcmp(field, "-"))
			break;
		i++;
	}
	field = strsep(&rest, " ");
	if (!field || !rest || sscanf(device, "%u:%u", &out->major, &out->minor) != 2)
		return false;
	snprintf(out->fstype, sizeof(out->fstype), "%s", field);
	strsep(&rest, " ");
	out->owner = rest ? find_owner(rest) : (uid_t)-1;
	return true;
}

int mountinfo_find(FILE *mountinfo, const char *path, struct mount_entry *out)
{
	_cleanup_free_ char *line = NULL;
	struct mount_entry entry;
	size_t size = 0;
	int err = -ENOENT;

	while (getline(&line, &size, mountinfo) > 0) {
		if (!parse_line(line, path, &entry))
			continue;
		*out = entry; /* mounts come in the order they were made: the last one lies on top */
		err = 0;
	}
	return err;
}

int mountinfo_lookup(const char *path, struct mount_entry *out)
{
	FILE *table = fopen("/proc/self/mountinfo", "re");
	int err;

	if (!table)
		return -errno;
	err = mountinfo_find(table, path, out);
	fclose(table);
	return err;
}

char *mountpoint_path(const char *given)
{
	_cleanup_free_ char *copy = strdup(given);
	_cleanup_free_ char *parent = NULL;
	const char *name;
	char *joined, *slash;
	size_t len;

	if (!copy)
		return NULL;
	len = strlen(copy);
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = 0;
	/* the kernel knows the working directory's path by heart */
	if (!strcmp(copy, "."))
		return getcwd(NULL, 0);
	slash = strrchr(copy, '/');
	name = slash ? slash + 1 : copy;
	if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return realpath(copy, NULL);
	if (slash)
		*slash = 0;
	parent = realpath(!slash ? "." : *copy ? copy : "/", NULL);
	if (!parent)
		return NULL;
	if (asprintf(&joined, "%s/%s", parent[1] ? parent : "", name) < 0)
		return NULL;
	return joined;
}
