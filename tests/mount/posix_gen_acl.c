/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Access lists: who is granted what, the mask and the mode, inheritance. */
#include "posix.h"

static const char *rwx(int bits, char *buf)
{
	snprintf(buf, 4, "%s%s%s", bits & 4 ? "r" : "", bits & 2 ? "w" : "", bits & 1 ? "x" : "");
	return bits ? buf : "-";
}

/* Entries that do not concern the caller grant the opposite. */
static void granted(const char *kind, const char *who, const char *entry, int perm, int mask)
{
	char p[4], m[4], not[4], list[128];
	int may = perm & mask;

	/* Linux does not look at the list when the mask is empty: others' bits are what is left. */
	if (!mask && strcmp(who, "grp") && strcmp(who, "sup"))
		may = 7 - perm;
	rwx(7 - perm, not);
	snprintf(list, sizeof(list), entry, rwx(perm, p), rwx(7 - perm, not), rwx(mask, m));
	check("%s-%o-mask-%o", kind, perm, mask);
	setup("mk prog f 0700; mk dir d 0700; mk file d/x 0666; setacl f access %s; "
	      "setacl d access %s",
	      list, list);
	act("@root stat f m = 07%o%o", mask, 7 - perm);
	for (int want = 4; want; want >>= 1)
		act("@%s access f %d = %s", who, want, may & want ? "0" : "EACCES");
	act("@%s open 0 f O_RDONLY = %s; @%s open 1 f O_WRONLY = %s; @%s open 2 f O_RDWR = %s", who,
	    may & 4 ? "0" : "EACCES", who, may & 2 ? "0" : "EACCES", who,
	    (may & 6) == 6 ? "0" : "EACCES");
	act("@%s ls d = %s; @%s stat d/x m = %s; @%s unlink d/x = %s", who, may & 4 ? "x:file" :
	    "EACCES", who, may & 1 ? "0666" : "EACCES", who, (may & 3) == 3 ? "0" : "EACCES");
}

/* The owner is not masked, and others are not either. */
static void unmasked(int perm, int mask)
{
	char p[4], m[4], list[128];

	snprintf(list, sizeof(list), "u:%s,u:grp:rwx,g:rwx,m:%s,o:%s", rwx(perm, p), rwx(mask, m),
		 p);
	for (int who = 0; who < 2; who++) {
		const char *name = who ? "oth" : "own";

		check("unmasked-%s-%o-mask-%o", name, perm, mask);
		setup("mk file f 0600; setacl f access %s",
		      perm ? list : "u:-,u:grp:rwx,g:rwx,m:r,o:-");
		for (int want = 4; want > 1; want >>= 1)
			act("@%s access f %d = %s; @%s open 0 f %s = %s", name, want,
			    perm & want ? "0" : "EACCES", name, want == 4 ? "O_RDONLY" : "O_WRONLY",
			    perm & want ? "0" : "EACCES");
	}
}

static void mode_and_mask(mode_t mode)
{
	check("chmod-moves-mask-%04o", mode);
	setup("mk file f 0600; setacl f access u:rw,u:oth:rwx,g:r,m:rwx,o:-");
	act("@own chmod f %04o = 0; @own stat f m = %04o; @own getacl f access", mode, mode);
	act("@oth access f R_OK = %s; @oth access f W_OK = %s", mode & 040 ? "0" : "EACCES",
	    mode & 020 ? "0" : "EACCES");
	post("f mode=%04o chg=c", mode);
	check("acl-sets-mode-%04o", mode);
	{
		char u[4], g[4], o[4];

		setup("mk file f 0777");
		act("@own setacl f access u:%s,g:%s,o:%s = 0", rwx(mode >> 6 & 7, u),
		    rwx(mode >> 3 & 7, g), rwx(mode & 7, o));
		act("@oth stat f m = %04o; @own listxattr f", mode & 0777);
		post("f mode=%04o chg=c", mode & 0777);
	}
}

static void inherited(const char *maker, const char *who, const char *list, mode_t minimal,
		      mode_t mask, mode_t mode)
{
	static int number;
	const char *kind = strtok(strdupa(maker), " ");

	check("inherit-%s-%s-%04o-umask-%04o-%04o-%d", kind, who, minimal, mask, mode, number++);
	setup("mk dir d 0777; setacl d default %s", list);
	act("@%s umask %04o; @%s %s%04o = 0; @%s lstat d/n mug", who, mask, who, maker, mode, who);
	act("@root getacl d/n access; @root getacl d/n default; @own stat d/n m");
	/* The list takes the place of the umask. */
	if (minimal)
		post("d/n mode=%04o uid=%s", mode & (minimal | 07000) &
		     (strcmp(kind, "mkdir") ? 07777 : 01777), who);
	post("d chg=mc");
}

static void inheritance(void)
{
	static const char *const makers[] = {
		"open 0 d/n O_RDWR|O_CREAT ", "mkdir d/n ", "mkfifo d/n ", "mknod d/n S_IFREG|",
	};
	static const struct { const char *list; mode_t minimal;
	} lists[] = {
		{ "u:rwx,g:rwx,o:rwx", 0777 },
		{ "u:rwx,g:rx,o:-", 0750 },
		{ "u:rwx,u:oth:rwx,g:-,m:rwx,o:-", 0 },
		{ "u:rw,u:grp:rx,g:rx,g:GC:rw,m:rx,o:x", 0 },
	};
	static const mode_t masks[] = { 0, 027, 0777 }, modes[] = { 0666, 0777, 0600, 0 };
	static const char *const who[] = { "own", "oth", "root" };

	for (size_t k = 0; k < 4; k++)
		for (int l = 0; l < 4; l++)
			for (int u = 0; u < 3; u++)
				for (int m = 0; m < 4; m++)
					for (int w = 0; w < 3; w++)
						inherited(makers[k], who[w], lists[l].list,
							  lists[l].minimal, masks[u], modes[m]);
}

static void rules(const struct actor *actor)
{
	const char *who = actor->name;
	bool may = !actor->uid || actor->uid == UID_OWN;

	check("set-by-%s", who);
	setup("mk file f 0666");
	act("@%s setacl f access u:rw,u:grp:r,g:r,m:r,o:r = %s", who, may ? "0" : "EPERM");
	check("set-default-by-%s", who);
	setup("mk dir f 0777");
	act("@%s setacl f default u:rw,u:grp:r,g:r,m:r,o:r = %s", who, may ? "0" : "EPERM");
	check("remove-by-%s", who);
	setup("mk file f 0666; setacl f access u:rw,u:grp:r,g:r,m:r,o:r");
	act("@%s delacl f access = %s", who, may ? "0" : "EPERM");
	check("remove-default-by-%s", who);
	setup("mk dir f 0777; setacl f default u:rw,u:grp:r,g:r,m:r,o:r");
	act("@%s delacl f default = %s; @root getacl f default = %s", who, may ? "0" : "EPERM",
	    may ? "ENODATA" : "u:rw,u:grp:r,g:r,m:r,o:r");
	check("default-on-file-by-%s", who);
	setup("mk file f 0777");
	act("@%s setacl f default u:rw,g:r,o:r = EACCES|EPERM", who);
	check("no-mask-by-%s", who);
	setup("mk file f 0777");
	act("@%s setacl f access u:rw,u:grp:r,g:r,o:r = %s", who, may ? "EINVAL" : "EINVAL|EPERM");
	check("read-by-%s", who);
	setup("mk file f 0600; setacl f access u:rw,u:grp:r,g:r,m:r,o:-");
	act("@%s getacl f access = u:rw,u:grp:r,g:r,m:r,o:-; @%s getacl f default", who, who);
	check("setgid-by-%s", who);
	setup("mk file f 02755 own GD");
	act("@%s setacl f access u:rwx,u:grp:r,g:rx,m:rx,o:rx; @root stat f m", who);
	check("none-on-fresh-%s", who);
	setup("mk file f 0644; mk dir d 0755");
	act("@%s getacl f access = ENODATA; @%s getacl d default = ENODATA; @%s listxattr f", who,
	    who, who);
	check("seen-at-once-%s", who);
	setup("mk file f 0600 grp GC");
	act("@%s access f R_OK; @root setacl f access u:rw,u:%s:r,g:-,m:r,o:- = 0; "
	    "@%s access f R_OK = 0",
	    who, who, who);
	act("@root delacl f access = 0; @%s access f R_OK; @%s open 0 f O_RDONLY", who, who);
}

void gen_acl(void)
{
	group("acl", NEED_ACL);
	for (int perm = 0; perm < 8; perm++) {
		for (int mask = 0; mask < 8; mask++) {
			granted("user", "oth", "u:rwx,u:oth:%1$s,g:%2$s,m:%3$s,o:%2$s", perm, mask);
			granted("named-group", "oth", "u:rwx,g:-,g:GD:%1$s,m:%3$s,o:%2$s", perm,
				mask);
			granted("group", "grp", "u:rwx,u:oth:%2$s,g:%1$s,m:%3$s,o:%2$s", perm,
				mask);
			granted("extra-group", "sup", "u:rwx,u:oth:%2$s,g:%1$s,m:%3$s,o:%2$s", perm,
				mask);
			unmasked(perm, mask);
		}
	}
	for (mode_t mode = 0; mode < 0777; mode += 037)
		mode_and_mask(mode);
	inheritance();
	for (int a = 0; a < CLASSES; a++)
		rules(&actors[a]);
}
