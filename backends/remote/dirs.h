/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Listings: what was asked of a directory ahead of being asked for. */
#ifndef FE_REMOTE_DIRS_H
#define FE_REMOTE_DIRS_H

#include "backends/remote/remote.h"

#define FETCH		128u		/* names whose attributes are asked for at once */
#define AHEAD_NS	1000000000u	/* for so long they are good */

struct item {
	struct p9_dirent d;
	uint64_t from;		/* the cookie that leads to it */
	uint64_t fetched;	/* when its attributes were asked for, 0: they were not */
	uint64_t changes;
	int error;
	struct p9_attr attr;
};

/* What is known of a directory, from some cookie on. */
struct listing {
	struct listing *next;
	uint64_t fh;
	bool busy;
	uint32_t n;
	struct item *items;
	unsigned char *bytes;
	size_t room;		/* of bytes */
	/* Of one that is whole, from the start to the end, with attributes: */
	bool whole;
	struct r_key dir;
	uint32_t uid;
	uint64_t fetched, changes;
};

/* A walk to a name, and its attributes. */
struct ahead {
	struct item *item;
	struct fid *fid;
	struct rpc *rpc;
};

/* dirs.c */
/* Takes a Rreaddir apart. */
int listing_parse(struct listing *l, size_t size, uint64_t off);
void listing_free(struct listing *l);
bool is_dots(const struct p9_dirent *d);
/* Each is begun, and then all are ended: the walks are under way at once, and then all Tgetattr. */
void names_begin(struct op *op, uint32_t dir, struct item *item, struct ahead *a);
/* LOST, -EINTR or -ETIMEDOUT where nobody is to go on; other errors are the items'. */
int names_end(struct op *op, struct ahead *ahead, unsigned n);

/* views.c */
/* Whether it is whole and still as it was. */
bool view_good(const struct remote *r, const struct listing *l);
/* What is known of a name: 1, -ENOENT, or 0, or an error of what was asked meanwhile. */
int view_lookup(struct op *op, struct fe_node *parent, const char *name, struct p9_attr *out);
/* A whole listing for who begins to read a directory. Returns 0 where there is none to be had. */
int view_take(struct op *op, struct fe_node *dir, struct listing *l);
/* One that nobody reads any more. */
void view_give(struct remote *r, struct listing *l);

#endif
