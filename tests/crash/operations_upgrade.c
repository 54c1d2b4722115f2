/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An upgrade, also where the old program's standby is late to notice it. */
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/host.h"
#include "programs/control.h"
#include "tests/crash/operations.h"

#define LATE_US	40000

/* The number behind a key of the status, 0 where there is none. */
static pid_t number(const char *status, const char *key)
{
	const char *at = strstr(status, key);

	return at ? (pid_t)atol(at + strlen(key)) : 0;
}

/* The child of the keeper that is not the worker. */
static pid_t standby(void)
{
	char status[16384] = "", path[64], children[256] = "", *at = children, *end;
	pid_t keeper, worker, pid;
	FILE *f;

	if (control_ask(&mounted, FE_CONTROL_STATUS, status, sizeof(status)))
		return 0;
	keeper = number(status, "\"keeper_pid\":");
	worker = number(status, "\"worker_pid\":");
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)keeper, (int)keeper);
	f = fopen(path, "re");
	if (f && !fgets(children, sizeof(children), f))
		*children = 0;
	if (f)
		fclose(f);
	while ((pid = (pid_t)strtol(at, &end, 10)) && end != at) {
		if (pid != worker)
			return pid;
		at = end;
	}
	return 0;
}

static void ask(char *answer, size_t size)
{
	for (int tries = 0; tries < 100 && !*answer; tries++)
		if (control_ask(&mounted, FE_CONTROL_UPGRADE "\n", answer, size))
			usleep(5000);
}

/* Where a process dies that has a part in it, the old program may go on. */
static bool see_result(void)
{
	static const char key[] = "\"upgrade\":{\"state\":\"", going[] = "under way";
	const char *state = going;
	char answer[16384];

	for (int tries = 0; tries < 4000 && state && !strncmp(state, going, strlen(going)); tries++) {
		usleep(2000);
		if (control_ask(&mounted, FE_CONTROL_STATUS, answer, sizeof(answer)) || !*answer)
			continue;
		state = strstr(answer, key);
		state = state ? state + strlen(key) : NULL;
	}
	MUST(state && (!strncmp(state, "done", 4) || !strncmp(state, "failed", 6)));
	return true;
}

bool do_upgrade(void)
{
	char answer[16384] = "";

	ask(answer, sizeof(answer));
	return see_result();
}

/* By a process of its own: where the worker dies, nobody answers before the standby goes on. */
static pid_t continue_later(int pidfd)
{
	pid_t pid = fork();

	if (pid > 0)
		return pid;
	usleep(LATE_US);
	syscall(SYS_pidfd_send_signal, pidfd, SIGCONT, NULL, 0);
	if (!pid)
		_exit(0);
	return pid;
}

bool do_upgrade_late(void)
{
	int pidfd = -1;
	char answer[16384] = "";
	pid_t later;

	for (int tries = 0; tries < 1000 && pidfd < 0; tries++) {
		pid_t pid = standby();

		pidfd = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
		if (pidfd < 0)
			usleep(2000);
	}
	MUST(pidfd >= 0);
	syscall(SYS_pidfd_send_signal, pidfd, SIGSTOP, NULL, 0);
	later = continue_later(pidfd);
	ask(answer, sizeof(answer));
	waitpid(later, NULL, 0);
	close(pidfd);
	return see_result();
}
