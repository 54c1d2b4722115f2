/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What processes share: locks, mappings, and what one does while the other looks. */
#include "posix.h"

static const struct range {
	long start, length;	/* length 0: to the end */
} ranges[] = { { 0, 10 }, { 5, 10 }, { 10, 10 }, { 2, 3 }, { 0, 0 }, { 50, 0 } };

enum { RANGES = 6 };

static bool overlap(const struct range *a, const struct range *b)
{
	return (!a->length || b->start < a->start + a->length) &&
	       (!b->length || a->start < b->start + b->length);
}

static const char *const kinds[] = { "F_RDLCK", "F_WRLCK" };

static void pair(const char *lock, const char *get, int h, int c, const struct range *a,
		 const struct range *b)
{
	bool clash = overlap(a, b) && (h || c);

	check("%s-%s-%ld+%ld-%s-%ld+%ld", lock, kinds[h], a->start, a->length, kinds[c], b->start,
	      b->length);
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; @own %s 0 %s %ld %ld = 0", lock,
	    kinds[h], a->start, a->length);
	if (clash)
		act("@oth %s 0 %s %ld %ld = %s,%ld,%ld,%s", get, kinds[c], b->start, b->length,
		    h ? "write" : "read", a->start, a->length, *get == 'g' ? "pid" : "-1");
	else
		act("@oth %s 0 %s %ld %ld = free", get, kinds[c], b->start, b->length);
	act("@oth %s 0 %s %ld %ld = %s", lock, kinds[c], b->start, b->length,
	    clash ? "EAGAIN" : "0");
	act("@own %s 0 F_UNLCK 0 0 = 0; @oth %s 0 %s %ld %ld = 0", lock, lock, kinds[c], b->start,
	    b->length);
	post("f chg=-");
}

static void split_and_merge(void)
{
	check("unlock-in-the-middle");
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; @own setlk 0 F_WRLCK 0 30 = 0");
	act("@own setlk 0 F_UNLCK 10 10 = 0; @oth setlk 0 F_WRLCK 10 10 = 0; "
	    "@oth getlk 0 F_WRLCK 0 5 = write,0,10,pid; "
	    "@oth getlk 0 F_WRLCK 20 5 = write,20,10,pid");
	act("@own getlk 0 F_RDLCK 0 100 = write,10,10,pid");
	check("downgrade");
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; @own setlk 0 F_WRLCK 0 30 = 0");
	act("@own setlk 0 F_RDLCK 0 30 = 0; @oth setlk 0 F_RDLCK 5 5 = 0; "
	    "@own setlk 0 F_WRLCK 0 30 = EAGAIN");
	check("merge");
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; @own setlk 0 F_WRLCK 0 10 = 0");
	act("@own setlk 0 F_WRLCK 10 10 = 0; @oth getlk 0 F_RDLCK 15 1 = write,0,20,pid");
	check("from-the-end");
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; "
	    "@own setlk 0 F_WRLCK -10 5 SEEK_END = 0");
	act("@oth getlk 0 F_RDLCK 0 0 = write,90,5,pid");
	check("negative-length");
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; @own setlk 0 F_WRLCK 20 -5 = 0");
	act("@oth getlk 0 F_RDLCK 0 0 = write,15,5,pid; @own setlk 0 F_WRLCK 3 -5 = EINVAL");
	check("read-lock-needs-reading");
	setup("mk data f 0666");
	act("@own open 0 f O_WRONLY = 0; @own setlk 0 F_RDLCK 0 1 = EBADF; "
	    "@own setlk 0 F_WRLCK 0 1 = 0");
	check("write-lock-needs-writing");
	setup("mk data f 0666");
	act("@own open 0 f O_RDONLY = 0; @own setlk 0 F_WRLCK 0 1 = EBADF; "
	    "@own setlk 0 F_RDLCK 0 1 = 0");
}

static void release(const char *how, const char *step)
{
	check("released-by-%s", how);
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @own open 1 f O_RDWR = 0; @oth open 0 f O_RDWR = 0");
	act("@own setlk 0 F_WRLCK 0 10 = 0; @oth setlk 0 F_WRLCK 0 10 = EAGAIN; %s", step);
	act("@oth setlk 0 F_WRLCK 0 10 = 0");
	check("waiter-woken-by-%s", how);
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @own open 1 f O_RDWR = 0; @oth open 0 f O_RDWR = 0");
	act("@own setlk 0 F_WRLCK 0 10 = 0; @oth& setlkw 0 F_WRLCK 0 10; "
	    "@own pwrite 0 DONE 0 = 4; %s; @oth wait = 0; @oth pread 0 4 0 = 4:DONE",
	    step);
}

static void waiting(void)
{
	static const char *const types[] = { "setlkw", "ofd_setlkw" };

	for (int t = 0; t < 2; t++) {
		for (int h = 0; h < 2; h++) {
			check("%s-waits-%s", types[t], kinds[h]);
			setup("mk data f 0666");
			act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; "
			    "@oth2 open 0 f O_RDWR = 0");
			act("@own %s 0 %s 0 10 = 0; @oth& %s 0 F_WRLCK 5 10; @own2 stat f s = 100",
			    types[t], kinds[h], types[t]);
			act("@own pwrite 0 MARK 0 = 4; @own %s 0 F_UNLCK 0 0 = 0; @oth wait = 0; "
			    "@oth pread 0 4 0 = 4:MARK", types[t]);
			act("@oth2 %.*s 0 F_WRLCK 12 1 = EAGAIN", t ? 9 : 5, types[t]);
		}
	}
	check("two-waiters");
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; @oth2 open 0 f O_RDWR = 0");
	act("@own setlk 0 F_WRLCK 0 10 = 0; @oth& setlkw 0 F_RDLCK 0 5; "
	    "@oth2& setlkw 0 F_RDLCK 2 5");
	act("@own setlk 0 F_UNLCK 0 0 = 0; @oth wait = 0; @oth2 wait = 0");
	check("deadlock-seen");
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; @own setlk 0 F_WRLCK 0 1 = 0");
	act("@oth setlk 0 F_WRLCK 1 1 = 0; @own& setlkw 0 F_WRLCK 1 1; "
	    "@oth setlkw 0 F_WRLCK 0 1 = EDEADLK");
	act("@oth setlk 0 F_UNLCK 0 0 = 0; @own wait = 0");
	check("killed-waiter-leaves-nothing");
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; @own setlk 0 F_WRLCK 0 10 = 0");
	act("@own exit; @oth setlk 0 F_WRLCK 0 10 = 0");
}

static void flocks(void)
{
	static const char *const locks[] = { "LOCK_SH", "LOCK_EX" };

	for (int h = 0; h < 2; h++) {
		for (int c = 0; c < 2; c++) {
			for (int m = 0; m < 3; m++) {
				static const char *const modes[] = { "O_RDONLY", "O_WRONLY",
								     "O_RDWR" };
				const char *result = h || c ? "EAGAIN" : "0";

				check("flock-%s-%s-%s", locks[h], locks[c], modes[m]);
				setup("mk data f 0666");
				act("@own open 0 f %s = 0; @oth open 0 f %s = 0; "
				    "@own flock 0 %s|LOCK_NB = 0",
				    modes[m], modes[m], locks[h]);
				act("@oth flock 0 %s|LOCK_NB = %s; @own flock 0 LOCK_UN = 0",
				    locks[c], result);
				act("@oth flock 0 %s|LOCK_NB = 0", locks[c]);
				check("flock-own-%s-%s-%s", locks[h], locks[c], modes[m]);
				setup("mk data f 0666");
				act("@own open 0 f %s = 0; @own open 1 f %s = 0; "
				    "@own flock 0 %s|LOCK_NB = 0",
				    modes[m], modes[m], locks[h]);
				act("@own flock 1 %s|LOCK_NB = %s; @own close 0 = 0", locks[c],
				    result);
				act("@own flock 1 %s|LOCK_NB = 0", locks[c]);
			}
			check("flock-waits-%s-%s", locks[h], locks[c]);
			setup("mk data f 0666");
			act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; "
			    "@own flock 0 %s = 0",
			    locks[h]);
			act("@oth& flock 0 %s; @own pwrite 0 MARK 0 = 4; @own close 0 = 0; "
			    "@oth wait = 0; @oth pread 0 4 0 = 4:MARK",
			    locks[c]);
			check("flock-dup-%s-%s", locks[h], locks[c]);
			setup("mk data f 0666");
			act("@own open 0 f O_RDWR = 0; @own dup 1 0 = 0; @own flock 0 %s = 0; "
			    "@own close 0 = 0",
			    locks[h]);
			act("@oth open 0 f O_RDWR = 0; @oth flock 0 %s|LOCK_NB = %s; "
			    "@own close 1 = 0; @oth flock 0 %s|LOCK_NB = 0",
			    locks[c], h || c ? "EAGAIN" : "0", locks[c]);
			check("flock-beside-fcntl-%s-%s", locks[h], kinds[c]);
			setup("mk data f 0666");
			act("@own open 0 f O_RDWR = 0; @oth open 0 f O_RDWR = 0; "
			    "@own flock 0 %s = 0; @oth setlk 0 %s 0 0 = 0",
			    locks[h], kinds[c]);
			check("flock-dir-%s-%s", locks[h], locks[c]);
			setup("mk dir d 0755");
			act("@own open 0 d O_RDONLY = 0; @oth open 0 d O_RDONLY = 0; "
			    "@own flock 0 %s = 0; @oth flock 0 %s|LOCK_NB = %s",
			    locks[h], locks[c], h || c ? "EAGAIN" : "0");
		}
	}
}

static void mappings(void)
{
	const char *rw = "PROT_READ|PROT_WRITE MAP_SHARED";

	for (int at = 0; at < 4; at++) {
		int offset = at * 4096 + at;

		check("mapped-seen-by-read-%d", at);
		setup("mk data f 0666; truncate f 20000");
		act("@own open 0 f O_RDWR = 0; @own mmap 0 0 20000 %s = 0; "
		    "@own poke 0 %d HELLO = 0",
		    rw, offset);
		act("@oth open 0 f O_RDONLY = 0; @oth pread 0 5 %d = 5:HELLO", offset);
		check("write-seen-by-mapping-%d", at);
		setup("mk data f 0666; truncate f 20000");
		act("@own open 0 f O_RDWR = 0; @own mmap 0 0 20000 %s = 0; @own peek 0 %d 5", rw,
		    offset);
		act("@oth open 0 f O_WRONLY = 0; @oth pwrite 0 HELLO %d = 5; "
		    "@own peek 0 %d 5 = HELLO",
		    offset, offset);
		check("two-mappings-%d", at);
		setup("mk data f 0666; truncate f 20000");
		act("@own open 0 f O_RDWR = 0; @own mmap 0 0 20000 %s = 0; "
		    "@oth open 0 f O_RDWR = 0",
		    rw);
		act("@oth mmap 0 0 20000 %s = 0; @own poke 0 %d ABC = 0; @oth peek 0 %d 3 = ABC; "
		    "@oth poke 0 %d XYZ = 0; @own peek 0 %d 3 = XYZ",
		    rw, offset, offset, offset, offset);
		check("sigbus-beyond-eof-%d", at);
		setup("mk data f 0666; truncate f %d", at * 4096 + 1);
		act("@own open 0 f O_RDWR = 0; @own mmap 0 0 40960 %s = 0; @own peek 0 %d 1 = _; "
		    "@own peek 0 %d 1 = SIGBUS; @own poke 0 %d x = SIGBUS", rw, at * 4096 + 100,
		    (at + 1) * 4096, (at + 2) * 4096);
		check("sigbus-after-truncate-%d", at);
		setup("mk data f 0666; truncate f 40000");
		act("@own open 0 f O_RDWR = 0; @own mmap 0 0 40000 %s = 0; "
		    "@own peek 0 30000 1 = _; @oth truncate f %d = 0; "
		    "@own peek 0 30000 1 = SIGBUS; @oth truncate f 40000 = 0; "
		    "@own peek 0 30000 1 = _",
		    rw, at * 4096);
		check("private-stays-private-%d", at);
		setup("mk data f 0666; truncate f 20000");
		act("@own open 0 f O_RDONLY = 0; "
		    "@own mmap 0 0 20000 PROT_READ|PROT_WRITE MAP_PRIVATE = 0; "
		    "@own poke 0 %d XYZ = 0; @oth open 0 f O_RDONLY = 0; @oth pread 0 3 %d",
		    offset, offset);
		post("f chg=a");
		check("kept-after-close-%d", at);
		setup("mk data f 0666; truncate f 20000");
		act("@own open 0 f O_RDWR = 0; @own mmap 0 0 20000 %s = 0; @own close 0 = 0; "
		    "@own poke 0 %d LATE = 0; @own munmap 0 = 0; @oth open 0 f O_RDONLY = 0; "
		    "@oth pread 0 4 %d = 4:LATE", rw, offset, offset);
		check("mapped-unlinked-%d", at);
		setup("mk data f 0666; truncate f 20000");
		act("@own open 0 f O_RDWR = 0; @own mmap 0 0 20000 %s = 0; @own2 unlink f = 0; "
		    "@own poke 0 %d LATE = 0; @own pread 0 4 %d = 4:LATE", rw, offset, offset);
	}
	check("msync-moves-mtime");
	setup("mk data f 0666");
	act("@own open 0 f O_RDWR = 0; @own mmap 0 0 100 %s = 0; @own poke 0 0 Z = 0; "
	    "@own msync 0 MS_SYNC = 0; @own fmoved 0", rw);
	post("f size=100");
	check("mmap-without-right-to-write");
	setup("mk data f 0666");
	act("@own open 0 f O_RDONLY = 0; @own mmap 0 0 100 %s = EACCES; "
	    "@own mmap 0 0 100 PROT_READ MAP_SHARED = 0; @own poke 0 0 x = SIGSEGV", rw);
	check("mmap-write-only");
	setup("mk data f 0666");
	act("@own open 0 f O_WRONLY = 0; @own mmap 0 0 100 PROT_READ MAP_SHARED = EACCES");
	check("mmap-directory");
	setup("mk dir f 0777");
	act("@own open 0 f O_RDONLY = 0; @own mmap 0 0 100 PROT_READ MAP_SHARED = ENODEV");
	check("mmap-no-length");
	setup("mk data f 0666");
	act("@own open 0 f O_RDONLY = 0; @own mmap 0 0 0 PROT_READ MAP_SHARED = EINVAL");
}

void gen_share(void)
{
	group("lock", 0);
	for (int kind = 0; kind < 2; kind++)
		for (int h = 0; h < 2; h++)
			for (int c = 0; c < 2; c++)
				for (int a = 0; a < RANGES; a++)
					for (int b = 0; b < RANGES; b++)
						pair(kind ? "ofd_setlk" : "setlk",
						     kind ? "ofd_getlk" : "getlk", h, c, &ranges[a],
						     &ranges[b]);
	split_and_merge();
	release("unlock", "@own setlk 0 F_UNLCK 0 0 = 0");
	release("close", "@own close 0 = 0");
	/* POSIX: closing any descriptor of the file lets go of the locks of the process. */
	release("close-of-another", "@own close 1 = 0");
	release("exit", "@own exit");
	waiting();
	flocks();
	group("mmap", 0);
	mappings();
}
