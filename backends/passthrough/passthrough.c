/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening the source directory, and the table of operations. */
#include "backends/passthrough/passthrough.h"

#include <errno.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "base/cleanup.h"

#define log_line(pt, level, ...) (pt)->services->log((pt)->host, level, __VA_ARGS__)

struct options {
	bool submounts;
	bool source_locks;
	bool nohandles;
};

static int parse_options(struct passthrough *pt, const char *text, struct options *o)
{
	static const struct {
		const char *name;
		size_t field;
		bool value;
	} known[] = {
		{ "submounts", offsetof(struct options, submounts), true },
		{ "nosubmounts", offsetof(struct options, submounts), false },
		{ "locks=source", offsetof(struct options, source_locks), true },
		{ "locks=local", offsetof(struct options, source_locks), false },
		{ "nohandles", offsetof(struct options, nohandles), true },
	};
	_cleanup_free_ char *copy = strdup(text);
	char *save = NULL;

	if (!copy)
		return -ENOMEM;
	for (char *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		bool found = false;

		for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
			if (strcmp(word, known[i].name))
				continue;
			*(bool *)((char *)o + known[i].field) = known[i].value;
			found = true;
		}
		if (!found) {
			log_line(pt, LOG_ERR, "unknown option \"%s\"; --help lists what there is", word);
			return -EINVAL;
		}
	}
	return 0;
}

/* What lies mounted below the source, for the operator to know. */
static void tell_submounts(struct passthrough *pt, const char *source, bool crossed)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	char names[512] = "", path[4096];
	size_t size = 0, used = 0, len = strlen(source), more = 0;

	if (len == 1)
		len = 0; /* "/" */
	while (f && getline(&line, &size, f) > 0) {
		int n;

		if (sscanf(line, "%*d %*d %*s %*s %4095s", path) != 1 || strncmp(path, source, len) ||
		    path[len] != '/' || !path[len + 1])
			continue;
		n = used < sizeof(names) ? snprintf(names + used, sizeof(names) - used, " %s", path) : 0;
		if (n <= 0 || used + (size_t)n >= sizeof(names)) {
			names[used] = 0;
			more++;
			continue;
		}
		used += (size_t)n;
	}
	if (f)
		fclose(f);
	if (used && crossed)
		log_line(pt, LOG_INFO, "served with what is mounted below %s:%s%s", source, names, more ? " ..." : "");
	else if (used)
		log_line(pt, LOG_INFO, "not crossed, the directories beneath show instead:%s%s; -o submounts "
			 "serves what is mounted there", names, more ? " ..." : "");
}

/*
 * A private copy of the source's mount: the server's own mount can not appear inside it, so the
 * mountpoint may lie within the source, and nothing that is mounted later changes what is served.
 */
static int clone_source(const char *source, bool submounts)
{
	struct mount_attr attr = { .propagation = MS_PRIVATE };
	unsigned recursive = submounts ? AT_RECURSIVE : 0;
	int fd = (int)syscall(SYS_open_tree, AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive);

	if (fd < 0)
		return -errno;
	syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | recursive, &attr, sizeof(attr));
	return fd;
}

static bool handles_work(int fd)
{
	struct {
		struct file_handle head;
		unsigned char bytes[MAX_HANDLE_SZ];
	} h = { .head = { .handle_bytes = MAX_HANDLE_SZ } };
	int id, again;

	if (name_to_handle_at(fd, "", &h.head, &id, AT_EMPTY_PATH) || h.head.handle_bytes > HANDLE_BYTES)
		return false;
	again = open_by_handle_at(fd, &h.head, O_PATH | O_CLOEXEC);
	if (again < 0)
		return false;
	close(again);
	return true;
}

static int mount_id(int fd)
{
	struct {
		struct file_handle head;
		unsigned char bytes[MAX_HANDLE_SZ];
	} h = { .head = { .handle_bytes = MAX_HANDLE_SZ } };
	int id = -1;

	name_to_handle_at(fd, "", &h.head, &id, AT_EMPTY_PATH);
	return id;
}

static bool is_local(const struct statfs *fs)
{
	static const long local[] = {
		EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC, F2FS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC,
		RAMFS_MAGIC, SQUASHFS_MAGIC, ISOFS_SUPER_MAGIC, EROFS_SUPER_MAGIC_V1,
	};

	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
		if (fs->f_type == local[i])
			return true;
	return false;
}

bool tells_nothing(const struct passthrough *pt, int fd)
{
	struct statfs fs;

	/* What is mounted below may be anything. */
	return pt->noflush && (!pt->cross || (!fstatfs(fd, &fs) && is_local(&fs)));
}

/* Without file handles each known file costs a descriptor. */
static void settle_descriptors(struct passthrough *pt, bool asked)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return;
	while (pt->cache.ways > 1 && CACHE_SETS * pt->cache.ways > lim.rlim_cur / 4)
		pt->cache.ways--;
	if (!pt->handles)
		log_line(pt, LOG_INFO, "each file that the kernel knows keeps a descriptor open (%s); at most %llu "
			 "at a time (ulimit -n)", asked ? "nohandles" : pt->privileged ?
			 "the source has no usable file handles" : "file handles need root",
			 (unsigned long long)lim.rlim_cur);
}

static int open_source(struct passthrough *pt, const char *argument, const struct options *o)
{
	_cleanup_free_ char *source = realpath(argument, NULL);
	_cleanup_close_ int real = -1;
	struct stat st;

	if (!source) {
		int err = -errno;

		log_line(pt, LOG_ERR, "source %s: %s; it must be a directory that exists", argument, strerror(-err));
		return err;
	}
	pt->root_fd = pt->privileged ? clone_source(source, o->submounts) : -EPERM;
	if (pt->root_fd < 0) {
		pt->root_fd = open(source, O_PATH | O_DIRECTORY | O_CLOEXEC);
		pt->confined = !o->submounts;
		if (pt->root_fd >= 0 && pt->privileged)
			log_line(pt, LOG_INFO, "no private copy of the source's mount could be made: mounts below it "
				 "are refused with EXDEV");
	}
	if (pt->root_fd < 0 || fstat(pt->root_fd, &st) || !S_ISDIR(st.st_mode)) {
		int err = pt->root_fd < 0 ? -errno : -ENOTDIR;

		log_line(pt, LOG_ERR, "source %s: %s; it must be a directory", source, strerror(-err));
		return err;
	}
	tell_submounts(pt, source, o->submounts);
	real = openat(pt->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (real < 0) {
		int err = -errno;

		log_line(pt, LOG_ERR, "source %s: %s", source, strerror(-err));
		return err;
	}
	pt->handles = !o->nohandles && handles_work(real);
	pt->cross = o->submounts;
	pt->shared->mounts[0].id = mount_id(real);
	put_fd(pt, &pt->shared->mounts[0].fd, fe_steal_fd(&real));
	atomic_store(&pt->shared->nmounts, 1);
	put_fd(pt, &pt->shared->root_fd, pt->root_fd);
	pt->shared->confined = pt->confined;
	pt->shared->handles = pt->handles;
	return 0;
}

/* Whatever lies at the path now: the directory that is being served. */
static void adopt_source(struct passthrough *pt, const struct options *o)
{
	pt->root_fd = pt->shared->root_fd;
	pt->confined = pt->shared->confined;
	pt->handles = pt->shared->handles;
	pt->cross = o->submounts;
}

static int open_root(struct passthrough *pt, struct fe_entry *root)
{
	int fd = openat(pt->root_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : entry_of_fd(pt, fd, true, root);
}

static void pt_close(void *b)
{
	struct passthrough *pt = b;

	locks_fini(pt);
	cache_fini(&pt->cache);
	for (unsigned i = 0; pt->shared && i < atomic_load(&pt->shared->nmounts); i++)
		fe_close(pt->shared->mounts[i].fd);
	fe_close(pt->root_fd);
	free(pt);
}

static void settle_features(struct passthrough *pt, struct fe_root *root)
{
	struct statfs fs = { 0 };

	fstatfs(pt->shared->mounts[0].fd, &fs);
	root->features = FE_FEAT_KERNEL_PERMS | FE_FEAT_PASSTHROUGH | FE_FEAT_ATOMIC_O_TRUNC | FE_FEAT_RECOVER |
			 FE_FEAT_ADOPT | FE_FEAT_PASSTHROUGH_MIXED;
	if (pt->privileged)
		root->features |= FE_FEAT_KILLPRIV | FE_FEAT_POSIX_ACL;
	if (pt->source_locks)
		root->features |= FE_FEAT_LOCKS | FE_FEAT_FLOCK;
	/* overlayfs takes one level of stacking itself */
	root->max_stack_depth = fs.f_type == OVERLAYFS_SUPER_MAGIC || fs.f_type == 0x65735546 /* FUSE */ ? 2 : 1;
	pt->noflush = is_local(&fs) && !pt->source_locks && !pt->writeback;
	/* What stands has to be fit for a backing file. */
	if (pt->noflush && root->max_stack_depth == 1)
		root->features |= FE_FEAT_STANDING;
}

/* In a successor, too: a process that had threads may have handed them down locked. */
static void mutexes_init(struct passthrough *pt)
{
	pthread_mutex_init(&pt->mounts_lock, NULL);
	for (int i = 0; i < 64; i++)
		pthread_mutex_init(&pt->dir_locks[i], NULL);
}

static void shared_init(struct passthrough *pt)
{
	for (int i = 0; i < MAX_MOUNTS; i++)
		pt->shared->mounts[i].fd = -1;
	cache_clear(pt->shared);
}

static void pt_resume(void *b)
{
	struct passthrough *pt = b;

	mutexes_init(pt);
	cache_resume(&pt->cache);
	locks_resume(pt);
}

static int pt_open(const struct fe_open_args *args, struct fe_root *root, void **priv)
{
	struct passthrough *pt = calloc(1, sizeof(*pt));
	struct options o = { 0 };
	int err;

	if (!pt)
		return -ENOMEM;
	pt->services = args->services;
	pt->host = args->host;
	pt->attr_valid = args->attr_valid;
	pt->writeback = args->writeback;
	pt->absences = args->negative_valid;
	pt->privileged = !geteuid();
	pt->root_fd = -1;
	mutexes_init(pt);
	err = parse_options(pt, args->options, &o);
	pt->source_locks = o.source_locks;
	if (!err)
		err = pt->services->shared(pt->host, "passthrough", sizeof(*pt->shared), (void **)&pt->shared);
	if (!err)
		cache_init(pt);
	/* A file handle is opened faster than a descriptor is stored. */
	if (!err && args->stored)
		pt->cache.ways = 0;
	if (!err && args->adopted)
		adopt_source(pt, &o);
	if (!err && !args->adopted) {
		shared_init(pt);
		err = open_source(pt, args->argument, &o);
	}
	if (!err) {
		settle_descriptors(pt, o.nohandles);
		settle_features(pt, root);
		err = locks_init(pt);
	}
	if (!err && !args->adopted)
		err = open_root(pt, &root->root);
	if (err) {
		pt_close(pt);
		return err;
	}
	*priv = pt;
	return 0;
}

static ssize_t pt_status(void *b, char *buf, size_t size)
{
	struct passthrough *pt = b;
	int n = snprintf(buf, size, "{\"inodes\":\"%s\",\"locks\":\"%s\",\"submounts\":%s,\"as_caller\":%s}",
			 pt->handles ? "handle" : "fd", pt->source_locks ? "source" : "local",
			 pt->cross ? "true" : "false", pt->privileged ? "true" : "false");

	return n > 0 && (size_t)n < size ? n : -ERANGE;
}

const struct fe_backend passthrough_backend = {
	.abi = FE_BACKEND_ABI,
	.struct_size = sizeof(struct fe_backend),
	.name = "passthrough",
	.description = "passthrough:DIRECTORY  serves DIRECTORY as it is",
	.options_help =
		"  -o submounts         serve what is mounted below the source, too\n"
		"  -o locks=local       the kernel keeps the locks of this mount (default)\n"
		"  -o locks=source      locks are shared with users of the source directory\n"
		"  -o nohandles         keep a descriptor for each known file instead of a file handle\n",
	.node_size = sizeof(struct pt_node),
	.key_size = sizeof(struct pt_key),
	.handle_size = sizeof(struct pt_file),
	.open = pt_open,
	.close = pt_close,
	.thread_start = creds_thread_start,
	.lookup = pt_lookup,
	.forget = forget_node,
	.getattr = pt_getattr,
	.setattr = pt_setattr,
	.readlink = pt_readlink,
	.mknod = pt_mknod,
	.mkdir = pt_mkdir,
	.symlink = pt_symlink,
	.link = pt_link,
	.unlink = pt_unlink,
	.rmdir = pt_rmdir,
	.rename = pt_rename,
	.open_file = pt_open_file,
	.create = pt_create,
	.tmpfile = pt_tmpfile,
	.read = pt_read,
	.write = pt_write,
	.flush = pt_flush,
	.release = pt_release,
	.fsync = pt_fsync,
	.fallocate = pt_fallocate,
	.copy_file_range = pt_copy_file_range,
	.lseek = pt_lseek,
	.ioctl = pt_ioctl,
	.backing_fd = pt_backing_fd,
	.backing_begin = creds_backing_begin,
	.backing_end = creds_backing_end,
	.opendir = pt_opendir,
	.readdir = pt_readdir,
	.releasedir = pt_releasedir,
	.fsyncdir = pt_fsync,
	.getxattr = pt_getxattr,
	.listxattr = pt_listxattr,
	.setxattr = pt_setxattr,
	.removexattr = pt_removexattr,
	.getlk = pt_getlk,
	.setlk = pt_setlk,
	.interrupt = pt_interrupt,
	.statfs = pt_statfs,
	.syncfs = pt_syncfs,
	.resume = pt_resume,
	.status = pt_status,
};
