/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount MOUNTPOINT [KILLS]: memfs on a real mount, under clients that check everything, while worker,
 * keeper and standby are killed KILLS (300) times. No client may see an error, or other bytes than its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/crash/memfs.h"
#include "tests/crash/tsan.h"
#include "tests/crash/victim.h"

#define CLIENTS	2
#define HANGS_S	60

static struct memfs fs;
static uint64_t seed;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void pause_us(long us)
{
	const struct timespec t = { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 };

	nanosleep(&t, NULL);
}

/* ---- the server ---- */

static void *serve(void *arg)
{
	uint32_t index = (uint32_t)(uintptr_t)arg;
	int fd = fs.state->fds[index];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct fr_slot *slot;
	ssize_t n;
	int err = fr_slot_take(fs.fr, index, &slot);

	if (err) {
		fprintf(stderr, "slot %u: %s\n", index, strerror(-err));
		_exit(1);
	}
	if (fr_slot_unfinished(slot))
		memfs_answer(&fs, slot);
	for (;;) {
		n = fr_slot_read(slot, fd);
		if (n > 0)
			memfs_answer(&fs, slot);
		else if (n == -EAGAIN)
			poll(&p, 1, -1);
		else if (n != -EINTR && n != -ENOENT)
			break;
	}
	fr_slot_leave(slot);
	return NULL;
}

static int worker(struct fr *fr, void *arg)
{
	struct pollfd p = { .fd = fr_stop_fd(fr), .events = POLLIN };
	pthread_t t[MEMFS_THREADS];

	(void)arg;
	pthread_mutex_init(&fs.lock, NULL);
	for (uintptr_t i = 0; i < MEMFS_THREADS; i++)
		if (pthread_create(&t[i], NULL, serve, (void *)i))
			return 1;
	while (poll(&p, 1, -1) <= 0)
		;
	while (umount2(fs.mountpoint, 0) && errno == EBUSY)
		pause_us(10000);
	for (int i = 0; i < MEMFS_THREADS; i++)
		pthread_join(t[i], NULL);
	return 0;
}

static int dev_fuse(int clone_of)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	uint32_t of = (uint32_t)clone_of;

	if (fd >= 0 && clone_of >= 0 && ioctl(fd, FUSE_DEV_IOC_CLONE, &of))
		return -1;
	return fd;
}

static void make_root(void)
{
	struct memfs_node *root;
	struct fr_slot *slot;

	if (fr_slot_take(fs.fr, 0, &slot))
		abort();
	fr_begin(slot);
	root = fr_alloc_record(slot, fs.nodes);
	root->mode = S_IFDIR | 0755;
	root->nlookup = 1;
	fr_commit(slot);
	fr_slot_leave(slot);
}

static int server(void)
{
	char options[128];

	make_root();
	fs.state->fds[0] = dev_fuse(-1);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions",
		 fs.state->fds[0]);
	if (fs.state->fds[0] < 0 || mount("memfs", fs.mountpoint, "fuse.memfs", MS_NOSUID | MS_NODEV, options))
		return -errno;
	for (int i = 1; i < MEMFS_THREADS; i++) {
		fs.state->fds[i] = dev_fuse(fs.state->fds[0]);
		if (fs.state->fds[i] < 0)
			return -errno;
	}
	fs.state->mounted = 1;
	return fr_run(fs.fr);
}

/* ---- the killer ---- */

static void clean_up(void)
{
	fs.state->leave = 1;
	atomic_store(&fs.fr->cp->given_up, EIO);
	for (int i = 0; i < 5; i++) {
		pid_t all[] = { fr_keeper_pid(fs.fr), fr_worker_pid(fs.fr), (pid_t)fs.fr->cp->standby };

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
	printf("FAIL mount: FE_SEED=%llu: ", (unsigned long long)seed);
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	clean_up();
	exit(1);
}

static pid_t killed[2];

static void settled(void)
{
	uint64_t start = now_ns();

	for (;;) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (fs.state->failed)
			failed("%u clients failed", fs.state->failed);
		if (all_three_live(fs.fr->cp, killed))
			break;
		if (now_ns() - start > HANGS_S * 1000000000ull)
			failed("keeper %d, worker %d, standby %u after a minute", fr_keeper_pid(fs.fr), fr_worker_pid(fs.fr),
			       fs.fr->cp->standby);
		pause_us(1000);
	}
	killed[0] = killed[1] = 0;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void kill_all_the_time(unsigned kills)
{
	uint64_t r = seed, *pauses = calloc(kills + 1, sizeof(*pauses)), before = 0;
	unsigned n = 0;
	struct stat st;

	for (unsigned i = 0; i < kills; i++) {
		char role = "WWWWKS"[memfs_random(&r) % 6];
		pid_t pid = role == 'W' ? fr_worker_pid(fs.fr) : role == 'K' ? fr_keeper_pid(fs.fr) :
			    (pid_t)atomic_load(&fs.fr->cp->standby);
		uint64_t t = now_ns();

		if (memfs_random(&r) % 2 &&
		    (killed[0] = kill_at_point(fs.fr->cp, memfs_random(&r) % 3000)) >= 0) {
			settled();
			continue;
		}
		killed[0] = pid;
		kill_one(pid);
		if (role == 'W') {
			if (stat(fs.mountpoint, &st))
				failed("stat of the root: %s", strerror(errno));
			pauses[n++] = now_ns() - t;
		}
		if (memfs_random(&r) % 8 == 0) {
			pause_us((long)(memfs_random(&r) % 2000));
			pid = memfs_random(&r) % 2 ? fr_worker_pid(fs.fr) : fr_keeper_pid(fs.fr);
			killed[1] = pid;
			kill_one(pid);
		}
		settled();
		pause_us((long)(memfs_random(&r) % 20000));
		if (i % 100 == 99) {
			/* Work is done between the deaths, or nothing is tested. */
			if (fs.state->operations < before + 100)
				failed("%llu operations for 100 deaths", (unsigned long long)(fs.state->operations - before));
			before = fs.state->operations;
		}
	}
	qsort(pauses, n, sizeof(*pauses), by_size);
	if (n)
		printf("# %u deaths of the worker: SIGKILL to first answer median %.2f ms, p99 %.2f ms, most %.2f ms\n", n,
		       (double)pauses[n / 2] / 1e6, (double)pauses[n * 99 / 100] / 1e6, (double)pauses[n - 1] / 1e6);
	free(pauses);
}

static void end_clients(const pid_t *clients)
{
	fs.state->leave = 1;
	for (unsigned i = 0; i < CLIENTS; i++) {
		int status = 0;

		if (waitpid(clients[i], &status, 0) == clients[i] && status)
			failed("client %u ended with status %x", i, status);
	}
	if (fs.state->failed)
		failed("%u clients failed", fs.state->failed);
}

/* What nobody uses any more is gone: each lookup was counted once, and each forget. */
static void nothing_left(void)
{
	FILE *f = fopen("/proc/sys/vm/drop_caches", "w");

	for (int i = 0; i < 6000 && (fr_table_used(fs.nodes) != 1 || fr_table_used(fs.blocks)); i++) {
		if (f && i % 100 == 0) {
			fprintf(f, "2\n");
			fflush(f);
		}
		pause_us(10000);
	}
	if (f)
		fclose(f);
	if (fr_table_used(fs.nodes) != 1 || fr_table_used(fs.blocks))
		failed("%u nodes and %u blocks are left", fr_table_used(fs.nodes), fr_table_used(fs.blocks));
}

static void quiet(void *arg, int level, const char *line)
{
	(void)arg;
	if (level <= (getenv("CRASH_LOG") ? LOG_DEBUG : LOG_ERR))
		fprintf(stderr, "# %s\n", line);
}

static void start(void)
{
	struct fr_options o = {
		.struct_size = sizeof(o),
		.name = "memfs",
		.slots = MEMFS_THREADS,
		.request_size = 65536,
		.reply_size = 65536,
		.worker = worker,
		.log = quiet,
		.deaths = 256,
		.death_window = 1,
	};
	void *area = NULL;
	pid_t pid;

	if (fr_new(&o, &fs.fr) || memfs_init(&fs) || fr_area_new(fs.fr, "state", sizeof(*fs.state), &area)) {
		printf("FAIL mount: no checkpoint\n");
		exit(1);
	}
	fs.state = area;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pid = fork();
	if (pid)
		return;
	fs.state->result = server();
	fs.state->returned = 1;
	_exit(0);
}

int main(int argc, char **argv)
{
	unsigned kills = argc > 2 ? (unsigned)atoi(argv[2]) : 300;
	const char *given = getenv("FE_SEED");
	struct fr_stats stats = { .struct_size = sizeof(stats) };
	pid_t clients[CLIENTS];

	if (argc < 2)
		return 2;
	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
	if (left_out_by_tsan("mount"))
		return 77;
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("# FE_SEED=%llu\n", (unsigned long long)seed);
	fs.mountpoint = argv[1];
	start();
	while (!fs.state->mounted && !fs.state->returned)
		pause_us(1000);
	if (fs.state->returned) {
		printf("SKIP mount: not in CI: can not mount: %s\n", strerror(-fs.state->result));
		return 77;
	}
	settled();
	for (unsigned client = 0; client < CLIENTS; client++) {
		clients[client] = fork();
		if (!clients[client])
			memfs_load(&fs, client, seed);
	}
	kill_all_the_time(kills);
	end_clients(clients);
	nothing_left();
	settled();
	fr_stats(fs.fr, &stats);
	printf("# %llu operations, %llu recoveries, replies sent again %llu, requests done again %llu\n",
	       (unsigned long long)fs.state->operations, (unsigned long long)stats.recoveries,
	       (unsigned long long)stats.resent, (unsigned long long)stats.redone);
	kill(fr_keeper_pid(fs.fr), SIGTERM);
	for (int i = 0; i < HANGS_S * 100 && waitpid(-1, NULL, WNOHANG) >= 0; i++)
		pause_us(10000);
	if (umount2(fs.mountpoint, 0) != -1 || errno != EINVAL)
		failed("the mount was still there at the end");
	printf("ok mount/kills\n");
	fr_free(fs.fr);
	return 0;
}
