/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Set-id bits and file capabilities: what a change by somebody else must take away. */
#include "posix.h"

enum { KILLS = 1, KEEPS = 2, ALSO_ROOT = 4 };

static const struct change {
	const char *name, *open, *step;	/* the file is f, its descriptor 0; another one, g, is 1 */
	int flags;			/* KILLS, KEEPS; neither: only compared */
} changes[] = {
	{ "write", "O_WRONLY", "write 0 x = 1", KILLS },
	{ "write-rdwr", "O_RDWR", "write 0 xyz = 3", KILLS },
	{ "pwrite", "O_WRONLY", "pwrite 0 x 50 = 1", KILLS },
	{ "append", "O_WRONLY|O_APPEND", "write 0 x = 1", KILLS },
	{ "beyond-eof", "O_WRONLY", "pwrite 0 x 5000 = 1", KILLS },
	{ "big", "O_WRONLY", "write 0 <9000> = 9000", KILLS },
	{ "writev", "O_WRONLY", "writev 0 abc def = 6", KILLS },
	{ "sync", "O_WRONLY|O_SYNC", "write 0 x = 1", KILLS },
	{ "nothing", "O_WRONLY", "write 0 \"\" = 0", KEEPS },
	{ "bad-address", "O_WRONLY", "write 0 BAD = EFAULT", 0 },
	{ "read", "O_RDWR", "read 0 10", KEEPS },
	{ "truncate", NULL, "truncate f 10 = 0", KILLS },
	{ "truncate-same", NULL, "truncate f 100 = 0", KILLS },
	{ "truncate-up", NULL, "truncate f 300 = 0", KILLS },
	{ "ftruncate", "O_WRONLY", "ftruncate 0 10 = 0", KILLS },
	{ "ftruncate-up", "O_RDWR", "ftruncate 0 400 = 0", KILLS },
	{ "o-trunc", NULL, "open 0 f O_WRONLY|O_TRUNC = 0", KILLS },
	{ "creat", NULL, "open 0 f O_RDWR|O_CREAT|O_TRUNC 0644 = 0", KILLS },
	{ "open", NULL, "open 0 f O_RDWR = 0", KEEPS },
	{ "fallocate", "O_WRONLY", "fallocate 0 0 0 1000 = 0", KILLS },
	{ "fallocate-keep-size", "O_WRONLY", "fallocate 0 FALLOC_FL_KEEP_SIZE 0 5000 = 0", KILLS },
	{ "punch", "O_WRONLY", "fallocate 0 FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE 0 50 = 0",
	  KILLS },
	{ "zero-range", "O_WRONLY", "fallocate 0 FALLOC_FL_ZERO_RANGE 0 50", 0 },
	{ "posix-fallocate", "O_RDWR", "posix_fallocate 0 0 200 = 0", KILLS },
	{ "copy-range", "O_RDWR", "copy 1 0 50 = 50", KILLS },
	{ "sendfile", "O_WRONLY", "sendfile 1 0 50 = 50", KILLS },
	{ "over-limit", "O_WRONLY", "pwrite 0 <200> 0", 0 },
	{ "utimens-now", NULL, "utimens f NOW NOW = 0", KEEPS },
	{ "fsync", "O_WRONLY", "fsync 0 = 0", KEEPS },
	{ "access", NULL, "access f W_OK = 0", KEEPS },
};

static const mode_t modes[] = { 04777, 02777, 06777, 02767, 04666, 06666, 00777 };

static mode_t after_change(const struct change *change, const struct actor *actor, mode_t mode)
{
	if (change->flags & KEEPS || !actor->uid)
		return mode;
	return mode & ~(04000 | (mode & 010 ? 02000 : 0));
}

static void begin(const struct change *change, const struct actor *actor)
{
	setup("mk data g 0666");
	if (!strcmp(change->name, "over-limit"))
		act("@%s fsize 150 = 0", actor->name);
	if (change->open)
		act("@%s open 0 f %s = 0; @%s open 1 g O_RDONLY = 0", actor->name, change->open,
		    actor->name);
}

static void setid(const struct change *change, const struct actor *actor, mode_t mode)
{
	bool unclear = !change->flags || (change->flags & KILLS && (mode & 02010) == 02000);
	char expected[32] = "";

	if (!unclear)
		snprintf(expected, sizeof(expected), " = %04o", after_change(change, actor, mode));
	check("%s-%s-%04o", change->name, actor->name, mode);
	setup("mk data f %04o", mode);
	begin(change, actor);
	/* The other process has the old mode at hand. */
	act("@oth2 stat f m = %04o; @%s %s", mode, actor->name, change->step);
	if (change->open)
		act("@%s fstat 0 m%s", actor->name, expected);
	act("@%s stat f m%s; @oth2 stat f m%s; @root stat f m%s", actor->name, expected, expected,
	    expected);
}

static void capability(const struct change *change, const struct actor *actor)
{
	check("capability-%s-%s", change->name, actor->name);
	checks.at[checks.count - 1].needs = NEED_CAPS;
	setup("mk data f 0777; setcap f");
	begin(change, actor);
	act("@oth2 hascap f = 0; @%s %s", actor->name, change->step);
	act("@%s hascap f%s; @oth2 hascap f", actor->name,
	    change->flags & KILLS ? " = ENODATA" : change->flags & KEEPS ? " = 0" : "");
}

static void mapped(const struct actor *actor, mode_t mode)
{
	check("mapped-%s-%04o", actor->name, mode);
	setup("mk data f %04o", mode);
	act("@%s open 0 f O_RDWR = 0; @%s mmap 0 0 100 PROT_READ|PROT_WRITE MAP_SHARED = 0",
	    actor->name, actor->name);
	act("@%s poke 0 0 XY = 0; @%s msync 0 MS_SYNC = 0; @%s fstat 0 m; @oth2 stat f m",
	    actor->name, actor->name, actor->name);
}

static void owners(const struct actor *actor, mode_t mode)
{
	check("chmod-then-write-%s-%04o", actor->name, mode);
	setup("mk data f 0777");
	act("@%s open 0 f O_WRONLY = 0; @%s write 0 a = 1; @root chmod f %04o = 0; "
	    "@%s write 0 b = 1",
	    actor->name, actor->name, mode, actor->name);
	act("@%s fstat 0 m%s%04o; @oth2 stat f m", actor->name, mode & 010 || !(mode & 02000) ?
	    " = " : " ", after_change(&changes[0], actor, mode));
	check("each-time-anew-%s-%04o", actor->name, mode);
	setup("mk data f %04o", mode);
	act("@%s open 0 f O_WRONLY = 0; @%s write 0 a = 1; @own2 stat f m; @root chmod f %04o = 0",
	    actor->name, actor->name, mode);
	act("@own2 stat f m = %04o; @%s pwrite 0 b 7 = 1; @own2 stat f m; @%s fstat 0 m", mode,
	    actor->name, actor->name);
}

/* A program somebody else could write to must not run with the ids of its owner. */
static void programs(const struct actor *actor)
{
	check("exec-gains-%s", actor->name);
	setup("mk prog f 06777 oth GD");
	act("@%s exec f = %u,%u", actor->name, UID_OTH, GID_D);
	check("exec-after-write-%s", actor->name);
	setup("mk prog f 06777 root GC");
	act("@own2 exec f = 0,%u; @%s rewrite f = 0; @own2 exec f = %u,%u", GID_C, actor->name,
	    actor->uid ? UID_OWN : 0, actor->uid ? GID_A : GID_C);
	check("exec-after-truncate-%s", actor->name);
	setup("mk prog f 06777 root GC");
	act("@%s truncate f 10M = 0; @own2 exec f = %u,%u", actor->name, actor->uid ? UID_OWN : 0,
	    actor->uid ? GID_A : GID_C);
	check("exec-after-chown-%s", actor->name);
	setup("mk prog f 06755 own GA");
	act("@own2 chown f own GS = 0; @%s exec f = %u,%u", actor->name, actor->uid, actor->gid);
}

void gen_setid(void)
{
	for (int a = 0; a < CLASSES; a++) {
		group("setid", 0);
		for (size_t m = 0; m < sizeof(modes) / sizeof(*modes); m++) {
			for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++)
				setid(&changes[i], &actors[a], modes[m]);
			mapped(&actors[a], modes[m]);
			owners(&actors[a], modes[m]);
		}
		for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++)
			capability(&changes[i], &actors[a]);
		group("setid", NEED_SUID | NEED_EXEC);
		programs(&actors[a]);
	}
}
