/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The caller classes: one process each, which runs the steps it is sent. */
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "posix.h"

const struct actor actors[] = {
	{ "root", 0, 0, 0 },
	{ "own", UID_OWN, GID_A, GID_S },
	{ "grp", UID_GRP, GID_A, 0 },
	{ "sup", UID_SUP, GID_C, GID_A },
	{ "oth", UID_OTH, GID_D, 0 },
	{ "root2", 0, 0, 0 },
	{ "own2", UID_OWN, GID_A, GID_S },
	{ "own3", UID_OWN, GID_A, GID_S },
	{ "oth2", UID_OTH, GID_D, 0 },
};

enum { ACTORS = sizeof(actors) / sizeof(*actors), PATIENCE_MS = 60000 };

struct message {
	char dir[PATH_MAX];
	char step[STEP_MAX];
};

static struct process {
	pid_t pid;
	int sock;
	bool dirty;
} processes[ACTORS];

static int hung;

const struct actor *actor_named(const char *name)
{
	for (int i = 0; i < ACTORS; i++)
		if (!strcmp(actors[i].name, name))
			return &actors[i];
	fprintf(stderr, "posix_matrix: no actor %s\n", name);
	exit(1);
}

bool actor_in_group(const struct actor *actor, gid_t gid)
{
	return actor->gid == gid || (actor->extra && actor->extra == gid);
}

bool actor_may(const struct actor *actor, uid_t uid, gid_t gid, mode_t mode, int want)
{
	if (actor->uid == 0)
		return !(want & 1) || S_ISDIR(mode) || (mode & 0111);
	if (actor->uid == uid)
		mode >>= 6;
	else if (actor_in_group(actor, gid))
		mode >>= 3;
	return (mode & want) == (mode_t)want;
}

mode_t class_mode(const struct actor *actor, int digit)
{
	int shift = actor->uid == UID_OWN ? 6 : actor_in_group(actor, GID_A) ? 3 : 0;

	return (((7 - digit) * 0111) & ~(7 << shift)) | digit << shift;
}

static void become(const struct actor *actor)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!actor->uid)
		return;
	if (setgroups(actor->extra ? 1 : 0, &actor->extra) ||
	    setresgid(actor->gid, actor->gid, actor->gid) ||
	    setresuid(actor->uid, actor->uid, actor->uid)) {
		perror("posix_matrix: taking on the ids of a caller");
		_exit(1);
	}
	/* A change of ids clears both: the death signal, and the right to be looked at in /proc. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_DUMPABLE, 1);
}

static void serve(int sock)
{
	static struct message msg;
	static char inside[PATH_MAX];
	struct ctx ctx;
	char result[RESULT_MAX];

	ctx_init(&ctx);
	while (recv(sock, &msg, sizeof(msg), 0) > 0) {
		bool moves = strcmp(inside, msg.dir);	/* else a chdir of a step stays */

		if (!*msg.step)
			ctx_reset(&ctx);
		strcpy(inside, msg.dir);
		if (moves && chdir(msg.dir)) {
			snprintf(result, sizeof(result), "can not enter %.1000s: %s", msg.dir,
				 strerrorname_np(errno));
			*inside = 0;
		} else if (*msg.step)
			step_run(&ctx, msg.step, result);
		else
			strcpy(result, "0");
		if (send(sock, result, strlen(result) + 1, MSG_NOSIGNAL) < 0)
			break;
	}
	_exit(0);
}

static struct process *process_of(const char *name)
{
	const struct actor *actor = actor_named(name);
	struct process *process = &processes[actor - actors];
	int pair[2];

	if (process->pid)
		return process;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		perror("posix_matrix: socketpair");
		exit(1);
	}
	fflush(NULL);
	process->pid = fork();
	if (process->pid == 0) {
		for (int i = 0; i < ACTORS; i++)
			if (processes[i].pid && &processes[i] != process)
				close(processes[i].sock);
		close(pair[0]);
		signal(SIGINT, SIG_IGN);
		signal(SIGTERM, SIG_DFL);
		signal(SIGHUP, SIG_DFL);
		become(actor);
		serve(pair[1]);
	}
	close(pair[1]);
	process->sock = pair[0];
	if (process->pid < 0) {
		perror("posix_matrix: fork");
		exit(1);
	}
	return process;
}

static int reap(struct process *process)
{
	const struct timespec tick = { .tv_nsec = 10000000 };
	int status = 0;

	close(process->sock);
	kill(process->pid, SIGKILL);
	/* A call that can not be killed must not take the whole run with it. */
	for (int i = 0; i < 500 && waitpid(process->pid, &status, WNOHANG) == 0; i++)
		nanosleep(&tick, NULL);
	process->pid = 0;
	process->dirty = false;
	return status;
}

static void request(struct process *process, const char *dir, const char *step)
{
	static struct message msg;

	snprintf(msg.dir, sizeof(msg.dir), "%s", dir);
	snprintf(msg.step, sizeof(msg.step), "%s", step);
	process->dirty = true;
	send(process->sock, &msg, sizeof(msg), MSG_NOSIGNAL);
}

static void answer(struct process *process, char *result)
{
	struct pollfd in = { .fd = process->sock, .events = POLLIN };
	int ready;

	do
		ready = poll(&in, 1, PATIENCE_MS);
	while (ready < 0 && errno == EINTR);
	if (ready == 0) {
		hung++;
		reap(process);
		strcpy(result, "never returned");
	} else if (recv(process->sock, result, RESULT_MAX, 0) <= 0) {
		snprintf(result, RESULT_MAX, "died (wait status 0x%x)", reap(process));
	}
}

void actors_step(const char *actor, const char *dir, const char *step, char *result)
{
	struct process *process = process_of(actor);

	request(process, dir, step);
	answer(process, result);
}

/* True once the process waits inside a system call other than the recv() of its next step. */
static bool inside_call(struct process *process)
{
	char path[64];
	long nr = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)process->pid);
	file = fopen(path, "re");
	if (!file)
		return true;
	if (fscanf(file, "%ld", &nr) != 1)
		nr = -1;
	fclose(file);
	return nr >= 0 && nr != SYS_recvfrom;
}

/* Comes back when the step has ended or waits in the kernel, so that the next step meets it there.
 */
void actors_start(const char *actor, const char *dir, const char *step, char *result)
{
	struct process *process = process_of(actor);
	struct pollfd in = { .fd = process->sock, .events = POLLIN };

	request(process, dir, step);
	for (int i = 0, seen = 0; i < 1000 && seen < 5; i++) {
		if (poll(&in, 1, 1) > 0)
			break;
		seen = inside_call(process) ? seen + 1 : 0;
	}
	strcpy(result, "0");
}

void actors_collect(const char *actor, char *result)
{
	answer(process_of(actor), result);
}

void actors_reset(void)
{
	char result[RESULT_MAX];

	for (int i = 0; i < ACTORS; i++) {
		if (!processes[i].pid || !processes[i].dirty)
			continue;
		request(&processes[i], "/", "");
		answer(&processes[i], result);
		processes[i].dirty = false;
	}
}

void actors_end(void)
{
	for (int i = 0; i < ACTORS; i++)
		if (processes[i].pid)
			reap(&processes[i]);
}

int actors_hung(void)
{
	return hung;
}
