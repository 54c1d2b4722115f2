/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Listings: 1 and 2 are the places of "." and "..", the names' come behind. */
#include "handlers.h"

struct listing {
	fuse_req_t req;
	bool plus;
	size_t used, size;
	char data[LISTING];
};

static bool list(struct listing *l, const char *text, struct node *n, uint64_t place,
		 bool looked_up)
{
	struct fuse_entry_param e = { .ino = looked_up ? ino_of(n) : 0, .attr = attr_of(n) };
	char *to = l->data + l->used;
	size_t room = l->size - l->used, len;

	if (l->plus)
		len = fuse_add_direntry_plus(l->req, to, room, text, &e, (off_t)place);
	else
		len = fuse_add_direntry(l->req, to, room, text, &e.attr, (off_t)place);
	if (len > room)
		return false;
	l->used += len;
	if (l->plus && looked_up)
		set(n->nlookup, n->nlookup + 1);
	return true;
}

static void list_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	static struct listing l;	/* under the lock */
	struct node *dir = begin_with(req, ino);
	uint64_t place = (uint64_t)off;
	struct name *name;
	bool more = true;

	if (!dir)
		return;
	l.req = req;
	l.plus = plus;
	l.used = 0;
	l.size = size < LISTING ? size : LISTING;
	if (place < 1)
		more = list(&l, ".", dir, 1, false);
	if (place < 2 && more)
		more = list(&l, "..", &store->node[dir->parent], 2, false);
	name = name_behind(dir, place > 2 ? place - 2 : 0);
	while (name && more) {
		more = list(&l, name->text, &store->node[name->node], name->place + 2, true);
		name = name->after ? &store->name[name->after] : NULL;
	}
	fuse_reply_buf(req, l.data, l.used);
	end();
}

void mem_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		 struct fuse_file_info *fi)
{
	(void)fi;
	list_dir(req, ino, size, off, false);
}

void mem_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	(void)fi;
	list_dir(req, ino, size, off, true);
}
