/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse3 NAME KILLS MOUNTPOINT PROGRAM [OPTION...]: starts PROGRAM -f MOUNTPOINT OPTION..., a file system in
 * memory that is written with libfuse, and kills its processes so often, under clients that check
 * everything (memfs_load.c). No client may see an error, or other bytes than its own; no reference may be left.
 *   FUSE3_UPGRADES   the program asks for an upgrade on SIGUSR2, which comes as often as a death
 *   FUSE3_LOAD   a command, for a client more: run again and again in a directory that is empty
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/crash/memfs.h"
#include "tests/crash/tsan.h"
#include "tests/crash/victim.h"

#define CLIENTS	4		/* the last one runs FUSE3_LOAD, where there is one */
#define HANGS_S	60
#define COLLECTED_US	500000

static struct memfs fs;
static struct cp_header *cp;	/* of the server */
static int checkpoint;
static const char *name;
static uint64_t seed;
static pid_t server;

static void pause_us(long us)
{
	const struct timespec t = { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 };

	nanosleep(&t, NULL);
}

static pid_t keeper(void)
{
	return CLAIM_PID(atomic_load(&cp->keeper));
}

static pid_t worker(void)
{
	return CLAIM_PID(atomic_load(&cp->worker));
}

static pid_t standby(void)
{
	return (pid_t)atomic_load(&cp->standby);
}

static void clean_up(void)
{
	fs.state->leave = 1;
	if (cp)
		atomic_store(&cp->given_up, EIO);
	for (int i = 0; i < 5; i++) {
		pid_t all[] = { cp ? keeper() : server, cp ? worker() : 0, cp ? standby() : 0 };

		for (int j = 0; j < 3; j++)
			kill_one(all[j]);
		pause_us(20000);
	}
	umount2(fs.mountpoint, MNT_DETACH);
}

static void __attribute__((noreturn, format(printf, 1, 2))) failed(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("FAIL fuse3/%s: FE_SEED=%llu: ", name, (unsigned long long)seed);
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	if (cp)
		printf("# keeper %d, worker %d, standby %d; ended %u, given up %u, stopping %u, last status %x\n",
		       (int)keeper(), (int)worker(), (int)standby(), cp->ended, cp->given_up, cp->stopping,
		       (unsigned)cp->last_status);
	clean_up();
	exit(1);
}

/* ---- the server ---- */

/* The checkpoint tells who is who, and where the next death shall be. */
static bool map_checkpoint(void)
{
	char path[64], link[64];
	ssize_t n;
	int fd;

	for (int i = 3; i < 64; i++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)server, i);
		n = readlink(path, link, sizeof(link) - 1);
		if (n < 0)
			continue;
		link[n] = 0;
		if (strncmp(link, "/memfd:", 7))
			continue;
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		cp = mmap(NULL, sizeof(*cp), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		checkpoint = fd;
		if (cp != MAP_FAILED && cp->layout.magic == CP_MAGIC && cp->layout.abi == CP_ABI)
			return true;
		cp = NULL;
		close(fd);
	}
	return false;
}

static void start(char **program)
{
	struct stat before, now;
	int status;

	if (stat(fs.mountpoint, &before))
		failed("%s: %s", fs.mountpoint, strerror(errno));
	server = fork();
	if (!server) {
		execv(program[0], program);
		perror(program[0]);
		_exit(127);
	}
	for (int i = 0; i < HANGS_S * 100; i++) {
		if (waitpid(server, &status, WNOHANG) == server)
			failed("the server ended with status %x", status);
		if (!stat(fs.mountpoint, &now) && now.st_dev != before.st_dev && map_checkpoint())
			return;
		pause_us(10000);
	}
	failed("not mounted after a minute");
}

static pid_t killed[2];

/* A number of what the kernel tells of a process; `otherwise` where it tells none: a dying one has no memory. */
static unsigned long long told_of(pid_t pid, const char *what, unsigned long long otherwise)
{
	const size_t len = strlen(what);
	char line[128];
	FILE *f;

	snprintf(line, sizeof(line), "/proc/%d/status", (int)pid);
	f = fopen(line, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, what, len) && sscanf(line + len, ": %llu", &otherwise) == 1)
			break;
	if (f)
		fclose(f);
	return otherwise;
}

/* Pages of a slot that are missing when a worker dies cost a request. As root, all are locked, soon. */
static void check_locked(void)
{
	const char *threads = getenv("FUSE3_SLOTS");	/* in use from the start */
	uint64_t want = threads ? strtoull(threads, NULL, 0) : 1;
	unsigned long long locked = 0;

	if (CLAIM_NUMBER(atomic_load(&cp->worker)) < 2)
		return;
	want *= (cp->layout.request_size + cp->layout.reply_size) / 1024;
	/* Its last thread may not have come so far. */
	for (int i = 0; i < 100; i++) {
		locked = told_of(worker(), "VmLck", ULLONG_MAX);
		if (locked >= want)
			return;
		pause_us(10000);
	}
	failed("worker %d has locked %llu KiB, its slots have %llu", (int)worker(), locked, (unsigned long long)want);
}

/* One of the three has to live, so the next one dies when all are there again. */
static void settled(void)
{
	for (int i = 0; i < HANGS_S * 1000; i++) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (fs.state->failed)
			failed("%u clients failed", fs.state->failed);
		if (all_three_live(cp, killed)) {
			killed[0] = killed[1] = 0;
			check_locked();
			return;
		}
		pause_us(1000);
	}
	failed("keeper %d, worker %d, standby %d after a minute", (int)keeper(), (int)worker(), (int)standby());
}

/* Nobody dies meanwhile: it comes about. */
static void upgrade(void)
{
	atomic_store(&cp->upgrade, UPGRADE_NONE);
	kill(worker(), SIGUSR2);
	for (int i = 0; i < HANGS_S * 1000; i++) {
		if (atomic_load(&cp->upgrade) == UPGRADE_FAILED)
			failed("no upgrade: %s", cp->upgrade_text);
		if (atomic_load(&cp->upgrade) == UPGRADE_DONE)
			return;
		pause_us(1000);
	}
	failed("no upgrade after a minute");
}

static void kill_all_the_time(unsigned kills)
{
	bool upgrades = getenv("FUSE3_UPGRADES");
	uint64_t r = seed;
	struct stat st;

	for (unsigned i = 0; i < kills; i++) {
		/* Who is forked from the first worker has a session that has seen INIT itself. */
		char role = i ? "WWWWKKSB"[memfs_random(&r) % 8] : 'B';

		if (upgrades && i % 2) {
			upgrade();
			settled();
			continue;
		}
		if (i && memfs_random(&r) % 2 && (killed[0] = kill_at_point(cp, memfs_random(&r) % 3000)) >= 0) {
			settled();
			continue;
		}
		killed[0] = role == 'W' ? worker() : role == 'S' ? standby() : keeper();
		/* Both at once: the next keeper is forked from the worker, with its threads. */
		killed[1] = role == 'B' ? standby() : 0;
		kill_one(killed[0]);
		kill_one(killed[1]);
		if (stat(fs.mountpoint, &st))
			failed("stat of the root: %s", strerror(errno));
		if (role != 'B' && memfs_random(&r) % 8 == 0) {
			pause_us((long)(memfs_random(&r) % 2000));
			killed[1] = worker();
			kill_one(killed[1]);
		}
		settled();
		pause_us((long)(memfs_random(&r) % 10000));
	}
}

static void __attribute__((noreturn)) run_load(const char *command)
{
	char line[2048];
	int status = 0;

	snprintf(line, sizeof(line), "mkdir %s/load && cd %s/load && { %s; } >&2 && cd / && rm -r %s/load",
		 fs.mountpoint, fs.mountpoint, command, fs.mountpoint);
	while (!status && !fs.state->leave)
		status = system(line);
	if (status)
		__atomic_add_fetch(&fs.state->failed, 1, __ATOMIC_SEQ_CST);
	_exit(0);
}

static void start_clients(pid_t *clients)
{
	const char *load = getenv("FUSE3_LOAD");

	for (unsigned client = 0; client < CLIENTS; client++) {
		clients[client] = fork();
		if (clients[client])
			continue;
		if (client < CLIENTS - 1)
			memfs_load(&fs, client, seed);
		if (load)
			run_load(load);
		_exit(0);
	}
}

/* What the predecessors left open has been closed by then, and nothing that is in use. */
static void nobody_dies_alone(void)
{
	uint64_t before = cp->recoveries;

	pause_us(COLLECTED_US);
	if (cp->recoveries != before)
		failed("%llu workers died that nobody had killed", (unsigned long long)(cp->recoveries - before));
}

/* ---- the end ---- */

static void end_clients(const pid_t *clients)
{
	for (int i = 0; i < HANGS_S * 100; i++) {
		unsigned left = 0;

		fs.state->leave = 1;
		for (unsigned j = 0; j < CLIENTS; j++)
			left += !kill(clients[j], 0);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (!left)
			break;
		pause_us(10000);
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		if (!kill(clients[i], 0))
			failed("client %u hangs", i);
	if (fs.state->failed)
		failed("%u clients failed", fs.state->failed);
}

/* Each lookup was counted once, and each forget. */
static void nothing_left(void)
{
	FILE *f = fopen("/proc/sys/vm/drop_caches", "w");
	struct statvfs st = { 0 };
	bool clean = false;

	for (int i = 0; i < 6000 && !clean; i++) {
		if (f && i % 100 == 0) {
			fprintf(f, "2\n");
			fflush(f);
		}
		pause_us(10000);
		if (statvfs(fs.mountpoint, &st))
			failed("statvfs: %s", strerror(errno));
		clean = st.f_files - st.f_ffree == 1 && st.f_bfree == st.f_blocks;
	}
	if (f)
		fclose(f);
	if (!clean)
		failed("%llu nodes and %llu blocks are left", (unsigned long long)(st.f_files - st.f_ffree),
		       (unsigned long long)(st.f_blocks - st.f_bfree));
}

static bool is_connection(uint32_t fd)
{
	char path[64], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%u", (int)keeper(), fd);
	n = readlink(path, link, sizeof(link) - 1);
	link[n < 0 ? 0 : n] = 0;
	return !strcmp(link, "/dev/fuse");
}

struct open_fds {
	uint32_t not_open;	/* the number of one that is kept and not a connection, 0: there is none */
	uint32_t not_kept;	/* so many connections are */
};

static struct open_fds look_at_fds(void)
{
	uint32_t end = atomic_load(&cp->fds_grown);
	struct open_fds found = { 0 };
	uint8_t *map = calloc(end, 1);

	if (!map || pread(checkpoint, map, end, (off_t)fr_map_offset(&cp->layout)) != (ssize_t)end)
		failed("the map of descriptors can not be read");
	for (uint32_t fd = 0; fd < end; fd++) {
		bool kept = FD_OWNER(map[fd]) != FD_NONE;

		if (FD_OWNER(map[fd]) == FD_CALLERS && !is_connection(fd))
			found.not_open = fd;
		found.not_kept += !kept && is_connection(fd);
	}
	free(map);
	return found;
}

/*
 * The server keeps its connections, and nothing that libfuse has closed since. What libfuse itself has open is
 * no more than a clone for each thread: nothing is left of the dead.
 */
static void open_is_needed(void)
{
	struct open_fds found;
	unsigned threads;

	/* A thread may be about to end. */
	for (int i = 0; i < 100; i++) {
		threads = (unsigned)told_of(worker(), "Threads", 0);
		found = look_at_fds();
		if (!found.not_open && found.not_kept <= threads)
			return;
		pause_us(10000);
	}
	if (found.not_open)
		failed("descriptor %u is kept, and is no connection", found.not_open);
	failed("%u connections are open that nobody keeps, for %u threads", found.not_kept, threads);
}

static void end_server(void)
{
	kill(keeper(), SIGTERM);
	for (int i = 0; i < HANGS_S * 100 && waitpid(-1, NULL, WNOHANG) >= 0; i++)
		pause_us(10000);
	if (umount2(fs.mountpoint, MNT_DETACH) != -1 || errno != EINVAL)
		failed("the mount was still there at the end");
}

int main(int argc, char **argv)
{
	const char *given = getenv("FE_SEED");
	char *program[16] = { NULL };
	pid_t clients[CLIENTS];

	if (argc < 5 || argc > 16)
		return 2;
	name = argv[1];
	if (left_out_by_tsan("fuse3"))
		return 77;
	fs.mountpoint = argv[3];
	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("# FE_SEED=%llu\n", (unsigned long long)seed);
	fs.state = mmap(NULL, sizeof(*fs.state), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (fs.state == MAP_FAILED)
		return 1;
	program[0] = argv[4];
	program[1] = (char *)"-f";
	program[2] = argv[3];
	memcpy(program + 3, argv + 5, (size_t)(argc - 5) * sizeof(*argv));
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	start(program);
	settled();
	start_clients(clients);
	kill_all_the_time((unsigned)atoi(argv[2]));
	nobody_dies_alone();
	end_clients(clients);
	nothing_left();
	settled();
	open_is_needed();
	printf("# %llu recoveries, replies sent again %llu, requests done again %llu\n",
	       (unsigned long long)cp->recoveries, (unsigned long long)cp->resent, (unsigned long long)cp->redone);
	if (!cp->recoveries || !(cp->resent + cp->redone))
		failed("nobody died in a request");
	end_server();
	printf("ok fuse3/%s\n", name);
	return 0;
}
