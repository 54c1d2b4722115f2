/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/echo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEMORY		(64u << 10)
#define HANGS_MS	60000	/* for what would never end */

static struct echo *current;

static bool of_the_service(struct echo *e, pid_t pid);

static void end_all(void)
{
	DIR *proc = current && current->serving ? opendir("/proc") : NULL;
	struct dirent *entry;

	while (proc && (entry = readdir(proc)))
		if (of_the_service(current, atoi(entry->d_name)))
			kill(atoi(entry->d_name), SIGKILL);
	if (proc)
		closedir(proc);
}

void must(bool holds, const char *fmt, ...)
{
	va_list ap;

	if (holds)
		return;
	va_start(ap, fmt);
	printf("FAIL roles: ");
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	fflush(stdout);
	for (int i = 0; i < 3; i++)
		end_all();
	_exit(1);
}

void ok(const char *name)
{
	printf("ok roles/%s\n", name);
	fflush(stdout);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void pause_ms(long ms)
{
	const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

/* ---- the service ---- */

static void open_files(struct echo *e, struct fr_slot *slot, bool keep)
{
	for (int i = 0; i < 8; i++) {
		int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

		if (keep) {
			fr_fd_keep(e->fr, slot, fd);
			e->state->kept[e->state->n_kept++ % 64] = fd;
		} else {
			e->state->leaked[e->state->n_leaked++ % 64] = fd;
		}
	}
}

/* As if a thread without a slot did; in a process that takes its time to go. */
static void help(struct echo *e)
{
	const size_t size = 64u << 20;

	fr_helper_enter(e->fr);
	mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	e->state->helped = getpid();
}

/* All threads of it. */
static bool gone(pid_t pid)
{
	struct pollfd p = { .fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };
	bool ended = p.fd < 0 || poll(&p, 1, 0) == 1;

	if (p.fd >= 0)
		close(p.fd);
	return ended;
}

static void answer(struct echo *e, struct fr_slot *slot)
{
	const struct fuse_in_header *in = fr_slot_request(slot);
	struct fuse_out_header *out = fr_slot_reply_buffer(slot);
	struct echo_state *s = e->state;

	if (getpid() != fr_worker_pid(e->fr))
		s->wrong++;
	memset(out, 0, sizeof(*out) + 8);
	if (in->opcode == ECHO_CRASH)
		*(volatile int *)mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) = 1;
	while (in->opcode == ECHO_HANG)
		pause_ms(1000);
	if (in->opcode == ECHO_EXIT)
		_exit(3);
	if (in->opcode == ECHO_HELP)
		help(e);
	pthread_mutex_lock(&s->lock);
	fr_begin(slot);
	if (in->opcode == ECHO_LEAK || in->opcode == ECHO_KEEP)
		open_files(e, slot, in->opcode == ECHO_KEEP);
	fr_set(slot, s->count, s->count + 1);
	memcpy(out + 1, &s->count, 8);
	/* The reply ends the step; the lock must be held that long. */
	fr_slot_reply(slot, sizeof(*out) + 8);
	pthread_mutex_unlock(&s->lock);
}

struct server {
	struct echo *e;
	uint32_t index;
	pthread_t thread;
};

static _Atomic int leave;

static void *serve(void *arg)
{
	struct server *me = arg;
	struct echo *e = me->e;
	struct pollfd p[] = { { .fd = e->server, .events = POLLIN }, { .fd = fr_stop_fd(e->fr), .events = POLLIN } };
	struct fr_slot *slot;
	ssize_t n;
	int err = fr_slot_take(e->fr, me->index, &slot);

	if (err) {
		fprintf(stderr, "slot %u: %s\n", me->index, strerror(-err));
		_exit(1);
	}
	if (fr_slot_unfinished(slot))
		answer(e, slot);
	while (!leave) {
		n = fr_slot_read(slot, e->server);
		if (n > 0) {
			if (((struct fuse_in_header *)fr_slot_request(slot))->opcode == ECHO_RETURN) {
				fr_slot_reply(slot, 0);
				leave = (int)((struct fuse_in_header *)fr_slot_request(slot))->nodeid;
				break;
			}
			answer(e, slot);
			continue;
		}
		poll(p, 2, leave ? 0 : 20);
		if (p[1].revents)
			leave = 1;
	}
	fr_slot_leave(slot);
	return NULL;
}

/* By the lock of the arena that all began with. */
static void use_memory(struct echo *e)
{
	e->memory = realloc(e->memory, MEMORY / 2);
	e->memory = realloc(e->memory, MEMORY);
}

static void *allocate(void *arg)
{
	while (!leave)
		use_memory(arg);
	return NULL;
}

static int worker(struct fr *fr, void *arg)
{
	struct echo *e = arg;
	struct server servers[ECHO_THREADS];
	pthread_t allocator;

	e->fr = fr;
	leave = 0;
	use_memory(e);
	if (e->state->allocating && pthread_create(&allocator, NULL, allocate, e))
		return 1;
	if (e->state->helped && !gone(e->state->helped))
		e->state->lingered++;
	e->state->helped = 0;
	pthread_mutex_init(&e->state->lock, NULL);
	for (uint32_t i = 0; i < ECHO_THREADS; i++) {
		servers[i] = (struct server){ .e = e, .index = i };
		if (pthread_create(&servers[i].thread, NULL, serve, &servers[i]))
			return 1;
	}
	for (uint32_t i = 0; i < ECHO_THREADS; i++)
		pthread_join(servers[i].thread, NULL);
	return leave == 1 ? 0 : leave;
}

static void reset(void *arg)
{
	__atomic_add_fetch(&((struct echo *)arg)->state->resets, 1, __ATOMIC_SEQ_CST);
}

static void to_stderr(void *arg, int level, const char *line)
{
	char text[600];
	int n = snprintf(text, sizeof(text), "# %s\n", line);
	ssize_t w;

	(void)arg;
	if (level > LOG_DEBUG)
		return;
	w = write(2, text, (size_t)n);
	(void)w;
}

void echo_start(struct echo *e, const struct fr_options *options)
{
	static char name[NAME_SIZE];
	struct fr_options o = { 0 };
	void *area;
	int pair[2];

	if (options)
		o = *options;
	snprintf(name, sizeof(name), "roles-%d", getpid());
	o.struct_size = sizeof(o);
	o.name = name;
	o.slots = ECHO_THREADS + 1;
	o.worker = worker;
	o.reset = reset;
	o.arg = e;
	o.log = to_stderr;
	o.deaths = o.deaths ? o.deaths : 256;
	o.death_window = o.death_window ? o.death_window : 1;
	memset(e, 0, sizeof(*e));
	e->options = o;
	current = e;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), "socketpair: %s", strerror(errno));
	e->client = pair[0];
	e->server = pair[1];
	must(!fr_new(&e->options, &e->fr), "fr_new failed");
	must(!fr_area_new(e->fr, "state", sizeof(*e->state), &area), "fr_area_new failed");
	e->state = area;
	e->memory = malloc(MEMORY);
	e->serving = true;
	e->first = fork();
	must(e->first >= 0, "fork: %s", strerror(errno));
	if (!e->first) {
		close(e->client);
		e->state->result = fr_run(e->fr);
		e->state->returned = 1;
		_exit(0);
	}
	close(e->server);
	echo_settled(e);
}

/* ---- the client ---- */

static void send_request(struct echo *e, uint32_t opcode, uint64_t unique, uint64_t nodeid)
{
	struct fuse_in_header in = {
		.len = sizeof(in),
		.opcode = opcode,
		.unique = unique,
		.nodeid = nodeid,
		.pid = (uint32_t)getpid(),
	};
	struct pollfd p = { .fd = e->client, .events = POLLOUT };

	while (send(e->client, &in, sizeof(in), MSG_NOSIGNAL) < 0) {
		must(errno == EAGAIN || errno == ENOBUFS, "send: %s", strerror(errno));
		poll(&p, 1, 1000);
	}
}

/* The next reply, without the probes of successors; its unique. */
static uint64_t next_reply(struct echo *e, int *error, uint64_t *count)
{
	struct pollfd p = { .fd = e->client, .events = POLLIN };
	struct {
		struct fuse_out_header out;
		uint64_t count;
	} r;
	uint64_t start = now_ms();

	for (;;) {
		ssize_t n = recv(e->client, &r, sizeof(r), 0);

		if (n >= (ssize_t)sizeof(r.out) && !(r.out.unique & 1))
			break;
		if (n > 0)
			continue;
		must(n < 0 && errno == EAGAIN, "recv: %zd, %s", n, strerror(errno));
		must(now_ms() - start < HANGS_MS, "no reply within a minute");
		poll(&p, 1, 1000);
	}
	*error = r.out.error;
	*count = r.out.error ? 0 : r.count;
	return r.out.unique;
}

int echo_call(struct echo *e, uint32_t opcode, uint64_t *count)
{
	uint64_t unique = e->unique += 2, ignored;
	int error;

	send_request(e, opcode, unique, 0);
	/* A reply that was sent twice is of an earlier request. */
	while (next_reply(e, &error, count ? count : &ignored) != unique)
		;
	if (!error)
		e->expected++;
	return error;
}

#define WINDOW 8

void echo_load(struct echo *e, unsigned n)
{
	uint64_t first = e->expected, got[WINDOW] = { 0 }, uniques[WINDOW] = { 0 };
	unsigned char *seen = calloc(n + 1, 1);
	unsigned sent = 0, done = 0;

	must(seen != NULL, "no memory");
	while (done < n) {
		uint64_t unique, count;
		int error;

		for (unsigned i = 0; i < WINDOW && sent < n; i++) {
			if (uniques[i])
				continue;
			uniques[i] = e->unique += 2;
			send_request(e, ECHO_COUNT, uniques[i], 0);
			sent++;
		}
		unique = next_reply(e, &error, &count);
		for (unsigned i = 0; i < WINDOW; i++) {
			if (uniques[i] != unique)
				continue;
			must(!error, "a request got error %d", error);
			must(count > first && count <= first + n && !seen[count - first],
			     "request %u was answered with count %llu: it was done twice, or another one was lost",
			     done, (unsigned long long)count);
			seen[count - first] = 1;
			uniques[i] = 0;
			done++;
			break;
		}
	}
	(void)got;
	free(seen);
	e->expected += n;
	must(e->state->count == e->expected, "%llu requests were counted, %llu were sent",
	     (unsigned long long)e->state->count, (unsigned long long)e->expected);
	must(!e->state->wrong, "%llu requests were served by who was not the worker",
	     (unsigned long long)e->state->wrong);
}

/* ---- processes ---- */

pid_t echo_keeper(const struct echo *e)
{
	return fr_keeper_pid(e->fr);
}

pid_t echo_worker(const struct echo *e)
{
	return fr_worker_pid(e->fr);
}

pid_t echo_standby(const struct echo *e)
{
	return (pid_t)atomic_load(&e->fr->cp->standby);
}

static bool alive(pid_t pid)
{
	char path[64], stat[512], *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, stat, sizeof(stat) - 1);
	if (fd >= 0)
		close(fd);
	if (pid <= 0 || n <= 0)
		return false;
	stat[n] = 0;
	at = strrchr(stat, ')');
	return at && at[2] != 'Z' && at[2] != 'X';
}

static bool of_the_service(struct echo *e, pid_t pid)
{
	char path[64], target[64], want[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fr_checkpoint_fd(e->fr));
	n = readlink(path, target, sizeof(target) - 1);
	if (pid <= 0 || pid == getpid() || n <= 0 || !alive(pid))
		return false;
	target[n] = 0;
	snprintf(want, sizeof(want), "/memfd:%s (deleted)", e->options.name);
	return !strcmp(target, want);
}

unsigned echo_census(struct echo *e)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	unsigned n = 0;

	while (proc && (entry = readdir(proc)))
		n += of_the_service(e, atoi(entry->d_name));
	if (proc)
		closedir(proc);
	return n;
}

static void reap(void)
{
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

void echo_kill(struct echo *e, pid_t pid, int sig)
{
	if (pid <= 0)
		return;
	e->killed[e->n_killed++ % 8] = pid;
	kill(pid, sig);
}

static bool dying(const struct echo *e)
{
	for (unsigned i = 0; i < e->n_killed && i < 8; i++)
		if (alive(e->killed[i]))
			return true;
	return false;
}

void echo_settled(struct echo *e)
{
	uint64_t start = now_ms();

	for (;;) {
		pid_t k = echo_keeper(e), w = echo_worker(e), s = echo_standby(e);

		reap();
		if (!dying(e) && alive(k) && alive(w) && alive(s) && k != w && w != s && s != k &&
		    atomic_load(&e->fr->cp->ready) == CLAIM_NUMBER(e->fr->cp->worker) && echo_census(e) == 3) {
			e->n_killed = 0;
			return;
		}
		must(now_ms() - start < HANGS_MS / 2,
		     "keeper %d (%d), worker %d (%d), standby %d (%d), processes: %u; ended %u, given up %u", k, alive(k), w,
		     alive(w), s, alive(s), echo_census(e), e->fr->cp->ended, e->fr->cp->given_up);
		pause_ms(2);
	}
}

void echo_end(struct echo *e, int result)
{
	uint64_t start = now_ms();

	while (echo_census(e)) {
		reap();
		must(now_ms() - start < HANGS_MS / 2,
		     "the service does not end: keeper %d, worker %d, standby %d; stopping %u, ended %u, returned %u",
		     echo_keeper(e), echo_worker(e), echo_standby(e), e->fr->cp->stopping, e->fr->cp->ended,
		     e->state->returned);
		pause_ms(5);
	}
	reap();
	e->serving = false;
	if (result != INT32_MAX) {
		must(e->state->returned, "fr_run() did not return");
		must(e->state->result == result, "fr_run() returned %d, not %d", e->state->result, result);
	}
	close(e->client);
	fr_free(e->fr);
}

void echo_stop(struct echo *e)
{
	pid_t pid = echo_keeper(e);

	must(pid > 0, "there is no keeper to be stopped");
	kill(pid, SIGTERM);
}
