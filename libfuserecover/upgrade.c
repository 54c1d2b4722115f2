/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another program takes over while the service runs. The keeper becomes it, so that the process that a
 * service manager or a shell knows stays the same; the standby stays what it was until the new program's
 * worker has taken over, and goes on where that does not come about.
 *
 * execve(2) gives the new program a table of descriptors of its own, with what the old one's table held at
 * that moment. So nobody may open anything meanwhile: the worker is killed first, and what it had not
 * finished is settled as after any other death.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#define VARIABLE	"FUSERECOVER_CHECKPOINT"	/* FD, or FD:trial */
#define TRIAL_MS	10000
#define SWITCH_MS	10000
#define KILL_MS		5000
#define LOOK_MS		5
#define WORDS_MOST	(256u << 10)	/* of a trial's output, at a time */

static int inherited_fd = -1;
static bool inherited_for_trial;

static const char *program(const struct fr *fr)
{
	fr->cp->upgrade_to[PROGRAM_SIZE - 1] = 0;
	return *fr->cp->upgrade_to ? fr->cp->upgrade_to : NULL;
}

static const char *shown(const struct fr *fr)
{
	return program(fr) ? program(fr) : "the same program";
}

/* ---- in the new program ---- */

PUBLIC int fr_inherited(int *trial)
{
	const char *text = getenv(VARIABLE);
	char *end;
	long fd;

	*trial = 0;
	if (!text)
		return fr_stored();
	fd = strtol(text, &end, 10);
	if (end == text || (*end && strcmp(end, ":trial")) || fd <= STDERR_FILENO || fcntl((int)fd, F_GETFD) < 0)
		return -EBADF;
	inherited_fd = (int)fd;
	*trial = inherited_for_trial = *end;
	unsetenv(VARIABLE);
	if (close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC))
		return -errno;
	return inherited_fd;
}

bool fr_inherited_for_trial(int fd)
{
	return inherited_for_trial && fd == inherited_fd;
}

bool fr_is_upgrade(const struct fr *fr)
{
	return atomic_load(&fr->cp->upgrade) == UPGRADE_SWITCHING && CLAIM_PID(atomic_load(&fr->cp->keeper)) == getpid();
}

bool fr_upgrade_starts(const struct fr *fr)
{
	uint32_t state = atomic_load(&fr->cp->upgrade);

	return (state == UPGRADE_SWITCHING || state == UPGRADE_FAILED) && atomic_load(&fr->cp->program) != fr->program;
}

bool fr_upgrade_lost(const struct fr *fr)
{
	return fr_upgrade_starts(fr) && atomic_load(&fr->cp->upgrade) == UPGRADE_FAILED;
}

void fr_upgrade_done(struct fr *fr)
{
	uint32_t state = UPGRADE_SWITCHING;
	uint64_t pause;

	if (!fr_upgrade_starts(fr))
		return;
	FR_STEP();
	if (!atomic_compare_exchange_strong(&fr->cp->upgrade, &state, UPGRADE_DONE))
		_exit(1);
	pause = fr_now_ns() - atomic_load(&fr->cp->switched_at);
	atomic_store(&fr->cp->last_pause, pause);
	fr_log(fr, LOG_NOTICE, "%s has taken over, after %.2f ms", shown(fr), (double)pause / 1e6);
}

/* ---- what was asked for, and how it went ---- */

PUBLIC int fr_upgrade(struct fr *fr, const char *program)
{
	uint32_t state;

	if (fr->role != WORKER || !fr->options.exec)
		return -ENOTSUP;
	if (program && strlen(program) >= PROGRAM_SIZE)
		return -ENAMETOOLONG;
	pthread_mutex_lock(&fr->tables_lock);
	state = atomic_load(&fr->cp->upgrade);
	if (state != UPGRADE_ASKED && state != UPGRADE_SWITCHING) {
		strcpy(fr->cp->upgrade_to, program ? program : "");
		*fr->cp->upgrade_text = 0;
		atomic_store(&fr->cp->upgrade, UPGRADE_ASKED);
	}
	pthread_mutex_unlock(&fr->tables_lock);
	fr_wake_keeper(fr);
	return state == UPGRADE_ASKED || state == UPGRADE_SWITCHING ? -EBUSY : 0;
}

PUBLIC int fr_upgrade_result(const struct fr *fr, char *text, size_t size)
{
	uint32_t state = atomic_load(&fr->cp->upgrade);

	if (size)
		snprintf(text, size, "%.*s", UPGRADE_TEXT - 1, fr->cp->upgrade_text);
	return state == UPGRADE_NONE ? -ENOENT : state == UPGRADE_DONE ? 0 :
	       state == UPGRADE_FAILED ? -ECANCELED : -EINPROGRESS;
}

static void failed(struct fr *fr, const char *why)
{
	uint32_t state = UPGRADE_ASKED;

	snprintf(fr->cp->upgrade_text, UPGRADE_TEXT, "%s", why);
	atomic_store(&fr->cp->program, fr->program);
	if (!atomic_compare_exchange_strong(&fr->cp->upgrade, &state, UPGRADE_FAILED))
		return;
	fr_log(fr, LOG_ERR, "%s does not take over: %s; the service goes on as before", shown(fr), why);
}

/* ---- starting it ---- */

/* setenv(3) without memory from malloc(3), see fr_fork(). */
static int set_variable(struct fr *fr, bool trial)
{
	static char text[sizeof(VARIABLE) + 24];
	size_t n = 0;
	char **copy;

	while (environ[n])
		n++;
	copy = mmap(NULL, (n + 2) * sizeof(*copy), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (copy == MAP_FAILED)
		return -errno;
	snprintf(text, sizeof(text), VARIABLE "=%d%s", fr->fd, trial ? ":trial" : "");
	copy[0] = text;
	memcpy(copy + 1, environ, n * sizeof(*copy));
	environ = copy;
	return 0;
}

static void __attribute__((noreturn)) become(struct fr *fr, bool trial)
{
	int err = close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC) ? -errno : fr_fds_hand_down(fr);

	err = err ? err : set_variable(fr, trial);
	err = err ? err : fr->options.exec(fr->options.arg, program(fr));
	if (trial)
		dprintf(STDERR_FILENO, "it can not be started: %s\n", strerror(-err));
	else
		fr_log(fr, LOG_CRIT, "%s can not be started: %s", shown(fr), strerror(-err));
	_exit(1);
}

static void end_trial(struct fr *fr)
{
	fr_close_own(fr, &fr->trial_pidfd);
	fr_close_own(fr, &fr->trial_out);
	fr->trial_pid = 0;
}

void fr_upgrade_end_trial(struct fr *fr)
{
	if (!fr->trial_pid)
		return;
	kill(fr->trial_pid, SIGKILL);
	waitpid(fr->trial_pid, NULL, 0);
	end_trial(fr);
}

/* Its descriptors are a copy: what it opens or closes is no concern of ours. */
static int start_trial(struct fr *fr)
{
	int out[2], pidfd = -1, err = 0;
	pid_t pid = -1;

	atomic_store(&fr->cp->opening[KEEPER], 1);
	if (pipe2(out, O_CLOEXEC | O_NONBLOCK))
		err = -errno;
	else
		pid = fr_fork(false, &pidfd);
	if (!pid) {
		/* What it has open would outlive the service. */
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != CLAIM_PID(fr->keeper_claim))
			_exit(1);
		fcntl(out[1], F_SETFL, 0);
		dup2(out[1], STDERR_FILENO);
		become(fr, true);
	}
	if (!err) {
		close(out[1]);
		fr_fd_own(fr, out[0], FD_KEEPERS);
		fr->trial_out = out[0];
	}
	if (pid > 0) {
		fr_fd_own(fr, pidfd, FD_KEEPERS);
		fr->trial_pidfd = pidfd;
		fr->trial_pid = pid;
		fr->trial_since = fr_now_ms();
		fr->trial_said = 0;
	} else if (!err) {
		err = pid;
	}
	atomic_store(&fr->cp->opening[KEEPER], 0);
	if (err)
		end_trial(fr);
	return err;
}

/* A pipe that is full would hold it up. The end of it is kept. One that never ends must not hold up the keeper. */
static void listen_to_trial(struct fr *fr)
{
	const uint32_t room = sizeof(fr->trial_words);
	uint32_t most = WORDS_MOST;
	ssize_t n;

	while (most && (n = read(fr->trial_out, fr->trial_words + fr->trial_said, room - fr->trial_said)) > 0) {
		most -= (uint32_t)n < most ? (uint32_t)n : most;
		fr->trial_said += (uint32_t)n;
		if (fr->trial_said < room)
			continue;
		memmove(fr->trial_words, fr->trial_words + room / 2, room - room / 2);
		fr->trial_said = room - room / 2;
	}
}

/* The last line that it wrote. */
static void last_words(struct fr *fr, char *text, size_t size)
{
	const char *line;
	uint32_t n;

	listen_to_trial(fr);
	n = fr->trial_said;
	while (n && fr->trial_words[n - 1] == '\n')
		n--;
	line = memrchr(fr->trial_words, '\n', n);
	line = line ? line + 1 : fr->trial_words;
	snprintf(text, size, "%.*s", (int)(fr->trial_words + n - line), line);
}

static bool is_late(const struct fr *fr)
{
	return fr_now_ms() - fr->trial_since > TRIAL_MS;
}

/* Its status where it is over, -1 while it runs. */
static int trial_status(struct fr *fr)
{
	int status = -1;

	if (!fr_pidfd_dead(fr->trial_pidfd)) {
		if (!is_late(fr))
			return -1;
		kill(fr->trial_pid, SIGKILL);
		fr_pidfd_wait(fr->trial_pidfd, -1);
	}
	return waitpid(fr->trial_pid, &status, 0) == fr->trial_pid ? status : W_EXITCODE(EXIT_FAILURE, 0);
}

static void judge_trial(struct fr *fr, int status)
{
	char text[UPGRADE_TEXT];

	last_words(fr, text, sizeof(text));
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && is_late(fr))
		snprintf(text, sizeof(text), "it was not ready within %d s", TRIAL_MS / 1000);
	else if (WIFSIGNALED(status))
		snprintf(text, sizeof(text), "it died of signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (!*text)
		snprintf(text, sizeof(text), "it ended with status %d", WEXITSTATUS(status));
	failed(fr, text);
}

/* ---- the switch ---- */

enum end { ENDED, HANGS, SUCCEEDED };

/* Takes the role of the worker away from who has it, for good; but not from the standby, which has it where the
 * worker died just now: then nobody but the keeper would be left. */
static enum end end_worker(struct fr *fr)
{
	for (;;) {
		uint64_t claim = atomic_load(&fr->cp->worker), mine = CLAIM(CLAIM_NUMBER(claim) + 1, getpid());
		int pidfd;
		bool dead;

		if (CLAIM_PID(claim) == fr->standby)
			return SUCCEEDED;
		pidfd = fr_pidfd_of(fr, CLAIM_PID(claim), FD_KEEPERS, KEEPER);
		if (pidfd >= 0)
			kill(CLAIM_PID(claim), SIGKILL);
		dead = fr_pidfd_wait(pidfd, KILL_MS);
		fr_close_own(fr, &pidfd);
		if (!dead)
			return HANGS;
		waitpid(CLAIM_PID(claim), NULL, WNOHANG);
		FR_STEP();
		if (atomic_compare_exchange_strong(&fr->cp->worker, &claim, mine))
			return ENDED;
	}
}

/* There is no worker, and there will be none before the standby sees the role free. */
static void stay(struct fr *fr, const char *why)
{
	atomic_store(&fr->cp->upgrade, UPGRADE_ASKED);
	failed(fr, why);
	atomic_store(&fr->cp->worker, CLAIM(CLAIM_NUMBER(atomic_load(&fr->cp->worker)), 0));
}

/* The standby keeps the table as it is: so what it does not know of is closed here. */
static void leave_table(struct fr *fr)
{
	int err;

	fr_fds_close_of(fr, FD_WORKERS, NULL, 0);
	fr_close_own(fr, &fr->standby_pidfd);
	FR_STEP();
	if (!unshare(CLONE_FILES))
		become(fr, false);
	err = errno;
	fr->standby_pidfd = fr_pidfd_of(fr, fr->standby, FD_KEEPERS, KEEPER);
	stay(fr, strerror(err));
}

static void switch_programs(struct fr *fr)
{
	sigset_t before;
	enum end end;

	/* What comes from here on is for the new program: it is pending over execve(2). */
	fr_signals_mask(SIG_BLOCK, &before);
	atomic_store(&fr->cp->switched_at, fr_now_ns());
	atomic_store(&fr->cp->program, fr->program);
	FR_STEP();
	atomic_store(&fr->cp->upgrade, UPGRADE_SWITCHING);
	FR_STEP();
	end = end_worker(fr);
	if (end == SUCCEEDED) {
		/* From the start. */
		atomic_store(&fr->cp->upgrade, UPGRADE_ASKED);
	} else if (end == HANGS) {
		/* It may still go, and then has a successor. */
		atomic_store(&fr->cp->upgrade, UPGRADE_ASKED);
		failed(fr, "the worker hangs in the kernel and can not be ended");
	} else if (fr_pidfd_dead(fr->standby_pidfd)) {
		stay(fr, "the standby died, so that there would have been no way back");
	} else {
		FR_STEP();
		/* What an open step had dropped is kept still. */
		fr_rollback_all(fr);
		leave_table(fr);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

bool fr_upgrade_step(struct fr *fr)
{
	int status, err;

	/* The other program's standby has nothing to wait for any more. */
	if (fr->old_standby && atomic_load(&fr->cp->upgrade) != UPGRADE_SWITCHING) {
		kill(fr->old_standby, SIGKILL);
		waitpid(fr->old_standby, NULL, 0);
		fr->old_standby = 0;
	}
	if (atomic_load(&fr->cp->upgrade) != UPGRADE_ASKED)
		return fr->old_standby;
	if (!fr->trial_pid) {
		err = start_trial(fr);
		if (err)
			failed(fr, strerror(-err));
		return !err;
	}
	/* Without a standby there would be no way back; and the status can be had once. */
	if (!fr->standby && !is_late(fr))
		return true;
	listen_to_trial(fr);
	status = trial_status(fr);
	if (status < 0)
		return true;
	if (status)
		judge_trial(fr, status);
	else if (!fr->standby)
		failed(fr, "there is no standby, and so no way back");
	end_trial(fr);
	if (!status && fr->standby)
		switch_programs(fr);
	return atomic_load(&fr->cp->upgrade) == UPGRADE_ASKED;
}

/* ---- when it did not work out ---- */

bool fr_upgrade_begun(const struct fr *fr)
{
	return atomic_load(&fr->cp->upgrade) == UPGRADE_SWITCHING && atomic_load(&fr->cp->program) == fr->program;
}

/* False where the new program was faster. */
static bool old_goes_on(struct fr *fr)
{
	uint32_t state = UPGRADE_SWITCHING;

	FR_STEP();
	if (!atomic_compare_exchange_strong(&fr->cp->upgrade, &state, UPGRADE_FAILED))
		return false;
	snprintf(fr->cp->upgrade_text, UPGRADE_TEXT, "it ended, or was not ready within %d s, when it was to take over",
		 SWITCH_MS / 1000);
	fr_log(fr, LOG_ERR, "%s does not take over: %s; the service goes on as before", shown(fr),
	       fr->cp->upgrade_text);
	return true;
}

uint64_t fr_upgrade_failed_since(const struct fr *fr)
{
	return atomic_load(&fr->cp->upgrade) == UPGRADE_FAILED ? atomic_load(&fr->cp->switched_at) : 0;
}

void fr_upgrade_keeper_died(struct fr *fr)
{
	if (fr_upgrade_begun(fr))
		old_goes_on(fr);
}

enum standby fr_upgrade_wait(struct fr *fr)
{
	struct cp_header *h = fr->cp;
	uint64_t worker;
	bool late;

	if (!fr_upgrade_begun(fr))
		return STANDBY_LOOKS;
	late = fr_now_ns() - atomic_load(&h->switched_at) > (uint64_t)SWITCH_MS * 1000000;
	if ((!late && !fr_pidfd_wait(fr->keeper_pidfd, LOOK_MS)) || !old_goes_on(fr))
		return STANDBY_WAITS;
	/* The new program's processes may do nothing any more; they find that out and end. */
	syscall(SYS_pidfd_send_signal, fr->keeper_pidfd, SIGKILL, NULL, 0);
	fr_pidfd_wait(fr->keeper_pidfd, -1);
	/* It had the role of the worker, unless it died before, or a process of the new program took it. */
	worker = atomic_load(&h->worker);
	if (CLAIM_PID(worker) == CLAIM_PID(fr->keeper_claim))
		atomic_compare_exchange_strong(&h->worker, &worker, CLAIM(CLAIM_NUMBER(worker), 0));
	while (!fr_claim_keeper(fr, atomic_load(&h->keeper)))
		;
	/* The map was the new program's. */
	fr_fds_forget(fr);
	fr_fds_own(fr);
	fr_fds_keep_again(fr);
	fr_fd_own(fr, fr->worker_pidfd, FD_KEEPERS);
	fr_fd_own(fr, fr->keeper_pidfd, FD_KEEPERS);
	return STANDBY_KEEPS;
}
