/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The directory of a check before and after: what is there, and which times moved. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>

#include "posix.h"

const char *const fact_names[FACTS] = {
	"type", "mode", "uid", "gid", "nlink", "size", "chg", "same", "target", "dtype",
};

struct object *tree_find(const struct tree *tree, const char *path)
{
	for (size_t i = 0; i < tree->count; i++)
		if (!strcmp(tree->at[i].path, path))
			return &tree->at[i];
	return NULL;
}

static const struct object *find_inode(const struct tree *tree, ino_t ino)
{
	for (size_t i = 0; i < tree->count; i++)
		if (tree->at[i].st.st_ino == ino)
			return &tree->at[i];
	return NULL;
}

static int add_object(struct tree *tree, int dirfd, const char *path, unsigned char d_type)
{
	struct object object = { .d_type = d_type };
	char target[PATH_MAX];
	ssize_t len;

	if (fstatat(dirfd, path, &object.st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (S_ISLNK(object.st.st_mode)) {
		len = readlinkat(dirfd, path, target, sizeof(target));
		object.target = strndup(target, len < 0 ? 0 : (size_t)len);
	}
	object.path = strdup(path);
	tree->at = realloc(tree->at, (tree->count + 1) * sizeof(*tree->at));
	tree->at[tree->count++] = object;
	return 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int walk(struct tree *tree, int dirfd, const char *path)
{
	struct dirent **names;
	int n = scandirat(dirfd, path, &names, NULL, by_name), err = 0;

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		char sub[PATH_MAX];
		const char *name = names[i]->d_name;
		struct object *object;

		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		snprintf(sub, sizeof(sub), "%s%s%s", strcmp(path, ".") ? path : "",
			 strcmp(path, ".") ? "/" : "", name);
		object = tree_find(tree, sub);
		if (object)
			object->d_type = names[i]->d_type;
		else
			err = add_object(tree, dirfd, sub, names[i]->d_type) ?: err;
		object = tree_find(tree, sub);
		if (object && S_ISDIR(object->st.st_mode))
			err = walk(tree, dirfd, sub) ?: err;
	}
	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);
	return err;
}

int tree_baseline(struct tree *tree, const char *dir)
{
	const struct timespec past[2] = { { .tv_sec = PAST_SEC }, { .tv_sec = PAST_SEC } };
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	if (dirfd < 0)
		return -errno;
	err = add_object(tree, dirfd, ".", DT_DIR) ?: walk(tree, dirfd, ".");
	for (size_t i = 0; i < tree->count && !err; i++)
		if (utimensat(dirfd, tree->at[i].path, past, AT_SYMLINK_NOFOLLOW))
			err = -errno;
	for (size_t i = 0; i < tree->count && !err; i++)
		if (fstatat(dirfd, tree->at[i].path, &tree->at[i].st, AT_SYMLINK_NOFOLLOW))
			err = -errno;
	close(dirfd);
	return err;
}

/* The known paths are looked at before any directory is read: reading moves its atime. */
int tree_after(struct tree *after, const struct tree *before, const char *dir)
{
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	if (dirfd < 0)
		return -errno;
	for (size_t i = 0; i < before->count; i++)
		add_object(after, dirfd, before->at[i].path, i ? DT_UNKNOWN : DT_DIR);
	err = walk(after, dirfd, ".");
	close(dirfd);
	return err;
}

void tree_free(struct tree *tree)
{
	for (size_t i = 0; i < tree->count; i++) {
		free(tree->at[i].path);
		free(tree->at[i].target);
	}
	free(tree->at);
	*tree = (struct tree){ 0 };
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

int tree_remove(const char *dir)
{
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) ? -errno : 0;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static const char *changes(const struct object *now, const struct object *was, char *buf)
{
	char *at = buf;

	/* New, or an inode number used again: file systems differ in when they do that. */
	if (!was)
		return "amc";
	if (!same_time(&now->st.st_atim, &was->st.st_atim))
		*at++ = 'a';
	if (!same_time(&now->st.st_mtim, &was->st.st_mtim))
		*at++ = 'm';
	if (!same_time(&now->st.st_ctim, &was->st.st_ctim))
		*at++ = 'c';
	*at = 0;
	return at == buf ? "-" : buf;
}

static const char *number(const char *fmt, unsigned long value, char *buf)
{
	snprintf(buf, PATH_MAX, fmt, value);
	return buf;
}

const char *tree_fact(const struct tree *after, const struct tree *before, const char *path,
		      int fact, char *buf)
{
	const struct object *object = tree_find(after, path), *first;

	if (!object)
		return "gone";
	first = find_inode(after, object->st.st_ino);
	switch (fact) {
	case 0: return type_name(object->st.st_mode);
	case 1: return number("%04lo", object->st.st_mode & 07777, buf);
	case 2: return id_name(object->st.st_uid, buf);
	case 3: return id_name(object->st.st_gid, buf);
	case 4: return number("%lu", object->st.st_nlink, buf);
	/* The size of a directory is the file system's own affair. */
	case 5: return S_ISDIR(object->st.st_mode) ? "-" :
		number("%lu", object->st.st_size, buf);
	case 6: return changes(object, find_inode(before, object->st.st_ino), buf);
	case 7: return first == object ? "-" : first->path;
	case 8: return object->target ?: "-";
	default: return object->d_type == IFTODT(object->st.st_mode) ? "right" :
		number("%lu", object->d_type, buf);
	}
}
