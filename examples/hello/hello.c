/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A whole backend: a directory with one file, "hello", that can be read and written until umount. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <fuse-extent/backend.h>
#pragma GCC diagnostic ignored "-Wunused-parameter" /* a small backend needs few of them */

/* What the host keeps of a node: plain data, here a number that identifies the file as well. */
struct record { uint64_t file; };
enum { ROOT = 1, HELLO };
#define FILE_OF(node) (((struct record *)(node)->record)->file)

static int hello_getattr(void *b, const struct fe_request *req, struct fe_node *node,
			 struct fe_handle *handle, struct statx *out, uint64_t *valid)
{
	if (statx(fileno(b), "", AT_EMPTY_PATH, STATX_BASIC_STATS, out))
		return -errno;
	out->stx_ino = FILE_OF(node);
	out->stx_mode = FILE_OF(node) == ROOT ? S_IFDIR | 0755 : S_IFREG | 0644;
	out->stx_nlink = 1;
	return 0;
}

static int hello_setattr(void *b, const struct fe_request *req, struct fe_node *node,
			 struct fe_handle *handle, const struct fe_setattr *set,
			 struct statx *out, uint64_t *valid)
{
	if (set->valid & ~FE_SET_SIZE)
		return -EPERM;
	if (set->valid && ftruncate(fileno(b), (off_t)set->size))
		return -errno;
	return hello_getattr(b, req, node, handle, out, valid);
}

static int hello_lookup(void *b, const struct fe_request *req, struct fe_node *parent,
			const char *name, struct fe_entry *out)
{
	struct fe_node node = { .record = out->record };

	FILE_OF(&node) = HELLO;
	return strcmp(name, "hello") ? -ENOENT : hello_getattr(b, req, &node, NULL, &out->attr, NULL);
}

static int hello_readdir(void *b, const struct fe_request *req, struct fe_node *node,
			 struct fe_handle *handle, uint64_t off, struct fe_dirfill *fill)
{
	static const char *const names[] = { ".", "..", "hello" };

	for (; off < 3; off++) /* the cookie of an entry is the index of the next one */
		if (fill->add(fill, names[off], strlen(names[off]), off < 2 ? ROOT : HELLO,
			      off < 2 ? DT_DIR : DT_REG, off + 1, NULL))
			break;
	return 0;
}

static ssize_t hello_read(void *b, const struct fe_request *req, struct fe_node *node,
			  struct fe_handle *handle, void *buf, size_t size, uint64_t off)
{
	ssize_t n = pread(fileno(b), buf, size, (off_t)off);
	return n < 0 ? -errno : n;
}

static ssize_t hello_write(void *b, const struct fe_request *req, struct fe_node *node,
			   struct fe_handle *handle, const void *buf, size_t size, uint64_t off, uint32_t io)
{
	ssize_t n = pwrite(fileno(b), buf, size, (off_t)off);
	return n < 0 ? -errno : n;
}

static void hello_close(void *b)
{
	fclose(b);
}

static int hello_open(const struct fe_open_args *args, struct fe_root *root, void **priv)
{
	struct fe_node node = { .record = root->root.record };
	FILE *data = *priv = tmpfile();

	if (!data || fprintf(data, "Hello, %s!\n", args->argument) < 0 || fflush(data))
		return -errno;
	FILE_OF(&node) = ROOT;
	root->features = FE_FEAT_KERNEL_PERMS | FE_FEAT_RECOVER;
	return hello_getattr(data, NULL, &node, NULL, &root->root.attr, NULL);
}

const struct fe_backend fe_backend = {
	.abi = FE_BACKEND_ABI, .struct_size = sizeof(struct fe_backend), .name = "hello",
	.node_size = sizeof(struct record), .key_size = sizeof(struct record),
	.open = hello_open, .close = hello_close, .lookup = hello_lookup,
	.getattr = hello_getattr, .setattr = hello_setattr, .readdir = hello_readdir,
	.read = hello_read, .write = hello_write,
};
