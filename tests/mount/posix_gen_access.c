/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* access(), and running programs, by mode and class. */
#include "posix.h"

static void access_check(const char *type, const struct actor *actor, int digit, int want)
{
	/* root is granted by what anybody may, so its bits must be the same for all. */
	mode_t mode = actor->uid ? class_mode(actor, digit) : (mode_t)(digit * 0111);
	bool may =
		actor_may(actor, UID_OWN, GID_A, mode | (*type == 'd' ? S_IFDIR : S_IFREG), want);

	check("%s-%s-%04o-%d", type, actor->name, mode, want);
	setup("mk %s f %04o", type, mode);
	act("@%s access f %d = %s", actor->name, want, may ? "0" : "EACCES");
	if (want) {
		check("eaccess-%s-%s-%04o-%d", type, actor->name, mode, want);
		setup("mk %s f %04o", type, mode);
		act("@%s faccessat f %d AT_EACCESS = %s", actor->name, want, may ? "0" : "EACCES");
	}
}

static void exec_checks(void)
{
	for (int a = 0; a < CLASSES; a++) {
		for (int digit = 0; digit < 8; digit++) {
			const struct actor *actor = &actors[a];
			mode_t mode = actor->uid ? class_mode(actor, digit) :
				(mode_t)(digit * 0111);
			bool may = actor_may(actor, UID_OWN, GID_A, mode, 1);

			check("exec-%s-%04o", actor->name, mode);
			setup("mk prog f %04o", mode);
			if (may)
				act("@%s exec f = %u,%u", actor->name, actor->uid, actor->gid);
			else
				act("@%s exec f = EACCES", actor->name);
		}
	}
	check("exec-dir");
	setup("mk dir f 0755");
	act("@own exec f = EACCES");
	check("exec-while-written");
	setup("mk prog f 0755");
	act("@own open 0 f O_WRONLY = 0; @own2 exec f = ETXTBSY; @own close 0 = 0");
	act("@own2 exec f = %u,%u", UID_OWN, GID_A);
	check("exec-not-a-program");
	setup("mk data f 0755");
	act("@own exec f = ENOEXEC");
}

static void special_access(void)
{
	static const char *const types[] = { "fifo", "sock", "chr", "lnk" };

	for (size_t t = 0; t < sizeof(types) / sizeof(*types); t++) {
		for (int a = 0; a < CLASSES; a++) {
			for (int want = 0; want < 8; want++) {
				check("%s-%s-%d", types[t], actors[a].name, want);
				setup("mk %s f 0640", types[t]);
				act("@%s access f %d", actors[a].name, want);
			}
		}
	}
	check("bad-mode");
	setup("mk file f 0644");
	act("@own access f 8 = EINVAL");
}

void gen_access(void)
{
	group("access", 0);
	for (int type = 0; type < 2; type++)
		for (int a = 0; a < CLASSES; a++)
			for (int digit = 0; digit < 8; digit++)
				for (int want = 0; want < 8; want++)
					access_check(type ? "dir" : "file", &actors[a], digit,
						     want);
	special_access();
	group("exec", NEED_EXEC);
	exec_checks();
}
