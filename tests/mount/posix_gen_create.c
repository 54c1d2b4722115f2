/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whose a new object is, and its mode: umask, set-group-id parents. Names already taken. */
#include "posix.h"

static const struct maker {
	const char *name, *step;	/* %o: the mode */
	mode_t keeps;
} makers[] = {
	{ "open", "open 0 d/n O_RDWR|O_CREAT 0%o", 07777 },
	{ "creat-excl", "open 0 d/n O_WRONLY|O_CREAT|O_EXCL 0%o", 07777 },
	{ "mkdir", "mkdir d/n 0%o", 01777 },
	{ "mkfifo", "mkfifo d/n 0%o", 07777 },
	{ "mknod", "mknod d/n S_IFREG|0%o", 07777 },
	{ "tmpfile", "open 0 d O_TMPFILE|O_RDWR 0%o", 07777 },
};

static void made(const struct maker *maker, const struct actor *actor, mode_t parent, mode_t mask,
		 mode_t mode)
{
	bool dir = !strcmp(maker->name, "mkdir"), tmp = !strcmp(maker->name, "tmpfile");
	mode_t expected = mode & maker->keeps & ~mask;
	gid_t gid = parent & 02000 ? GID_C : actor->gid;
	char buf[32];

	if (parent & 02000 && dir)
		expected |= 02000;
	check("%s-%s-in-%04o-umask-%04o-%04o", maker->name, actor->name, parent, mask, mode);
	if (tmp)
		checks.at[checks.count - 1].needs |= NEED_TMPFILE;
	setup("mk dir d %04o own GC", parent);
	act("@%s umask %04o", actor->name, mask);
	{
		char step[128];

		snprintf(step, sizeof(step), maker->step, mode);
		act("@%s %s = 0", actor->name, step);
	}
	if (tmp)
		act("@%s fstat 0 tn = file,0; @%s linkfd 0 d/n = 0", actor->name, actor->name);
	/* A set-group-id file in a directory of a foreign group: the bit may have to go. */
	if (!(parent & 02000 && mode & 02000 && !dir))
		post("d/n mode=%04o", expected);
	post("d/n uid=%s gid=%s nlink=%d; d chg=mc; . chg=-", actor->name, id_name(gid, buf),
	     dir ? 2 : 1);
}

static void ownership(void)
{
	static const mode_t parents[] = { 0777, 02777, 03775 }, masks[] = { 0, 022, 027, 0777 };
	static const mode_t modes[] = { 0, 0640, 0666, 0777, 01777, 02755, 02745, 06777 };
	static const char *const who[] = { "root", "own", "sup", "oth" };

	for (size_t k = 0; k < sizeof(makers) / sizeof(*makers); k++)
		for (int w = 0; w < 4; w++)
			for (int p = 0; p < 3; p++)
				for (int u = 0; u < 4; u++)
					for (int m = 0; m < 8; m++)
						/* oth may not write in the last one */
						if (p < 2 || w != 3)
							made(&makers[k], actor_named(who[w]),
							     parents[p], masks[u], modes[m]);
}

static void names_taken(void)
{
	static const char *const types[] = {
		"file", "dir", "full", "fifo", "sock", "chr", "blk", "lnk",
	};
	static const char *const steps[] = {
		"open 0 n O_RDWR|O_CREAT|O_EXCL 0644 = EEXIST", "mkdir n 0755 = EEXIST",
		"mkfifo n 0644 = EEXIST", "mknod n S_IFREG|0644 = EEXIST", "symlink to n = EEXIST",
		"link f n = EEXIST", "bind n = EADDRINUSE", "rename2 f n RENAME_NOREPLACE = EEXIST",
	};

	for (int t = 0; t < 8; t++) {
		for (int s = 0; s < 8; s++) {
			for (int a = 0; a < 2; a++) {
				check("taken-%s-%.6s-%d-%s", types[t], steps[s], s, actors[a].name);
				setup("mk file f 0644; mk %s n 0644", types[t]);
				act("@%s %s", actors[a].name, steps[s]);
				post("n chg=-; f chg=-; . chg=-");
			}
		}
	}
}

static void device_nodes(void)
{
	static const struct { const char *type, *rest; bool privileged; } nodes[] = {
		{ "S_IFREG", "", false }, { "S_IFIFO", "", false }, { "S_IFSOCK", "", false },
		{ "S_IFCHR", "1 3", true }, { "S_IFBLK", "7 99", true }, { "0", "", false },
		{ "S_IFCHR", "0 0", false },	/* a whiteout, open to all */
	};

	for (size_t n = 0; n < sizeof(nodes) / sizeof(*nodes); n++) {
		for (int a = 0; a < CLASSES; a++) {
			bool may = !nodes[n].privileged || !actors[a].uid;

			check("mknod-%s-%.1s-%s", nodes[n].type, nodes[n].rest, actors[a].name);
			setup("chmod . 0777");
			act("@%s mknod n %s|0666 %s = %s", actors[a].name, nodes[n].type,
			    nodes[n].rest, may ? "0" : "EPERM");
			if (may)
				post("n uid=%s mode=0644 nlink=1; . chg=mc", actors[a].name);
		}
	}
	for (int a = 0; a < CLASSES; a++) {
		check("mknod-dir-%s", actors[a].name);
		setup("chmod . 0777");
		act("@%s mknod n S_IFDIR|0755 = EPERM", actors[a].name);
		check("mknod-lnk-%s", actors[a].name);
		setup("chmod . 0777");
		act("@%s mknod n S_IFLNK|0755 = EINVAL", actors[a].name);
		check("bind-%s", actors[a].name);
		setup("chmod . 0777");
		act("@%s umask 027; @%s bind n = 0", actors[a].name, actors[a].name);
		post("n type=sock mode=0750 uid=%s; . chg=mc", actors[a].name);
		check("symlink-%s", actors[a].name);
		setup("chmod . 02777");
		act("@%s symlink to/nowhere n = 0", actors[a].name);
		post("n type=lnk mode=0777 uid=%s gid=GA target=to/nowhere size=10; . chg=mc",
		     actors[a].name);
	}
}

void gen_create(void)
{
	group("create", 0);
	ownership();
	names_taken();
	device_nodes();
}
