/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* chown: who may give what to whom, and what becomes of the set-id bits. */
#include "posix.h"

static const struct target {
	const char *uid, *gid;
} targets[] = {
	{ "own", "-1" }, { "-1", "GA" }, { "-1", "GS" }, { "-1", "GD" }, { "-1", "GC" },
	{ "oth", "-1" }, { "own", "GS" }, { "oth", "GD" }, { "own", "GD" }, { "root", "root" },
	{ "oth", "GA" }, { "-1", "-1" },
};

static const mode_t modes[] = { 0644, 0755, 02755, 02745, 04755, 04644, 06755, 06777 };

static bool may_chown(const struct actor *actor, const struct target *target)
{
	if (!actor->uid)
		return true;
	if (actor->uid != UID_OWN)
		return false;
	if (*target->uid != '-' && arg_num(target->uid) != UID_OWN)
		return false;
	return *target->gid == '-' || actor_in_group(actor, arg_num(target->gid));
}

/* What is left of the mode: the rule of Linux for files; directories keep all. */
static mode_t left(const char *type, mode_t mode)
{
	if (!strcmp(type, "dir"))
		return mode;
	return mode & ~(04000 | (mode & 010 ? 02000 : 0));
}

static void chown_check(const char *type, const struct actor *actor, const struct target *target,
			mode_t mode, const char *call)
{
	bool nothing = !strcmp(target->uid, "-1") && !strcmp(target->gid, "-1");
	bool may = may_chown(actor, target);

	check("%s-%s-%s-%04o-to-%s-%s", call, type, actor->name, mode, target->uid, target->gid);
	setup("mk %s f %04o own GA; symlink f l", type, mode);
	if (!strcmp(call, "fchown"))
		act("@%s open 0 f O_RDONLY|O_NONBLOCK", actor->name);
	if (nothing)	/* allowed to all on Linux: only compared */
		act("@%s %s %s -1 -1", actor->name, call, *call == 'f' ? "0" : "f");
	else
		act("@%s %s %s %s %s = %s", actor->name, call, *call == 'f' ? "0" :
		    *call == 'l' || mode & 1 ? "f" : "l", target->uid, target->gid,
		    may ? "0" : "EPERM");
	if (!strcmp(call, "fchown"))
		act("@%s fstat 0 mug", actor->name);
	if (nothing)
		return;
	post("f uid=%s gid=%s chg=%s; . chg=-", may && *target->uid != '-' ? target->uid : "own",
	     may && *target->gid != '-' ? target->gid : "GA", may ? "c" : "-");
	if (!may)
		post("f mode=%04o", mode);
	else if (!(mode & 02000) ||
		 mode & 010) /* without x for the group it depends on the caller */
		post("f mode=%04o", left(type, mode));
}

static void on_symlinks(const struct actor *actor, const struct target *target)
{
	bool may = may_chown(actor, target);

	if (!strcmp(target->uid, "-1") && !strcmp(target->gid, "-1"))
		return;
	check("lchown-lnk-%s-to-%s-%s", actor->name, target->uid, target->gid);
	setup("mk lnk f 0777 own GA");
	act("@%s lchown f %s %s = %s", actor->name, target->uid, target->gid, may ? "0" : "EPERM");
	post("f type=lnk chg=%s target=nowhere", may ? "c" : "-");
	/* Through the link only the file changes. */
	check("chown-through-lnk-%s-to-%s-%s", actor->name, target->uid, target->gid);
	setup("mk file f 0644; mk dir d 0755; symlink ../f d/l");
	act("@%s chown d/l %s %s = %s", actor->name, target->uid, target->gid, may ? "0" : "EPERM");
	post("d/l uid=root gid=root; f chg=%s", may ? "c" : "-");
}

/* A member of a group of the file who does not own it may do nothing with it. */
static void not_the_owner(void)
{
	static const char *const owners[] = { "root", "grp", "oth" };

	for (int o = 0; o < 3; o++) {
		for (int a = 1; a < CLASSES; a++) {
			for (int digit = 0; digit < 2; digit++) {
				bool may = !strcmp(owners[o], actors[a].name);
				gid_t to = digit ? actors[a].gid : GID_S;
				bool in = actor_in_group(&actors[a], to);

				check("owner-%s-by-%s-to-%u", owners[o], actors[a].name, to);
				setup("mk file f 0666 %s GA", owners[o]);
				act("@%s chown f -1 %u = %s", actors[a].name, to,
				    may && in ? "0" : "EPERM");
			}
		}
	}
}

void gen_chown(void)
{
	static const char *const types[] = { "data", "dir", "fifo" };

	group("chown", 0);
	for (int a = 0; a < CLASSES; a++) {
		for (size_t i = 0; i < sizeof(targets) / sizeof(*targets); i++) {
			for (size_t m = 0; m < sizeof(modes) / sizeof(*modes); m++) {
				for (int t = 0; t < 3; t++)
					chown_check(types[t], &actors[a], &targets[i], modes[m],
						    "chown");
				if (modes[m] & 04)
					chown_check("data", &actors[a], &targets[i], modes[m],
						    "fchown");
			}
			on_symlinks(&actors[a], &targets[i]);
		}
	}
	not_the_owner();
}
