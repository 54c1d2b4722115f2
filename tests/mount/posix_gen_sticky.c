/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sticky directories: only the owner of the name, of the directory, or root may take a name away.
 */
#include "posix.h"

static const char *const owners[] = { "root", "own", "oth", "grp" };

enum { OWNERS = 4 };

static bool may_take(const struct actor *actor, mode_t dir_mode, const char *dir, const char *file)
{
	return !actor->uid || !(dir_mode & 01000) || actor->uid == arg_num(dir) ||
	       actor->uid == arg_num(file);
}

static void removing(const char *type, const struct actor *actor, mode_t mode, const char *dir,
		     const char *file)
{
	bool may = may_take(actor, mode, dir, file);

	check("remove-%s-%s-from-%04o-%s-%s", type, actor->name, mode, dir, file);
	setup("mk dir d %04o %s GC; mk %s d/f 0666 %s GC", mode, dir, type, file);
	act("@%s %s d/f = %s", actor->name, strcmp(type, "dir") ? "unlink" : "rmdir",
	    may ? "0" : "EPERM|EACCES");
	if (may)
		post("d/f gone; d chg=mc");
}

static void moving_out(const char *type, const struct actor *actor, mode_t mode, const char *dir,
		       const char *file)
{
	/* A directory also needs its own write bit to change its parent: give it to all. */
	bool may = may_take(actor, mode, dir, file);

	check("move-out-%s-%s-%04o-%s-%s", type, actor->name, mode, dir, file);
	setup("mk dir d %04o %s GC; mk dir e 0777; mk %s d/f 0777 %s GC", mode, dir, type, file);
	act("@%s rename d/f e/f = %s", actor->name, may ? "0" : "EPERM|EACCES");
	check("move-within-%s-%s-%04o-%s-%s", type, actor->name, mode, dir, file);
	setup("mk dir d %04o %s GC; mk %s d/f 0777 %s GC", mode, dir, type, file);
	act("@%s rename d/f d/g = %s", actor->name, may ? "0" : "EPERM|EACCES");
	check("exchange-%s-%s-%04o-%s-%s", type, actor->name, mode, dir, file);
	setup("mk dir d %04o %s GC; mk dir e 0777; mk %s d/f 0777 %s GC; mk data e/f 0666", mode,
	      dir, type, file);
	act("@%s rename2 e/f d/f RENAME_EXCHANGE = %s", actor->name, may ? "0" : "EPERM|EACCES");
}

static void moving_onto(const char *type, const struct actor *actor, mode_t mode, const char *dir,
			const char *file)
{
	bool may = may_take(actor, mode, dir, file);

	check("move-onto-%s-%s-%04o-%s-%s", type, actor->name, mode, dir, file);
	setup("mk dir d %04o %s GC; mk dir e 0777; mk %s d/f 0777 %s GC; mk %s e/f 0777 %s GC",
	      mode, dir, type, file, type, actor->name);
	act("@%s rename e/f d/f = %s", actor->name, may ? "0" : "EPERM|EACCES");
	check("link-into-%s-%s-%04o-%s-%s", type, actor->name, mode, dir, file);
	setup("mk dir d %04o %s GC; mk dir e 0777; mk %s e/f 0777 %s GC", mode, dir, type, file);
	act("@%s link e/f d/f", actor->name);
	/* fs.protected_regular and fs.protected_fifos may refuse: compared only. */
	check("creat-existing-%s-%s-%04o-%s-%s", type, actor->name, mode, dir, file);
	setup("mk dir d %04o %s GC; mk %s d/f 0777 %s GC", mode, dir, type, file);
	act("@%s open 0 d/f O_RDWR|O_CREAT 0644", actor->name);
}

void gen_sticky(void)
{
	static const mode_t modes[] = { 0777, 01777, 01770 };

	group("sticky", 0);
	for (int a = 0; a < CLASSES; a++) {
		for (int d = 0; d < OWNERS; d++) {
			for (int f = 0; f < OWNERS; f++) {
				removing("data", &actors[a], 0777, owners[d], owners[f]);
				removing("dir", &actors[a], 0777, owners[d], owners[f]);
				for (int t = 0; t < 4; t++) {
					static const char *const types[] = { "data", "dir", "fifo",
									     "lnk" };

					removing(types[t], &actors[a], modes[1], owners[d],
						 owners[f]);
					if (t < 2) {
						moving_out(types[t], &actors[a], modes[1],
							   owners[d], owners[f]);
						moving_onto(types[t], &actors[a], modes[1],
							    owners[d], owners[f]);
					}
				}
			}
		}
	}
}
