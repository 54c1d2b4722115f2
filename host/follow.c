/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A worker that follows its client to the core on which that runs.
 *
 * Client and worker take turns: while one runs, the other waits. On one core a turn is a switch of
 * tasks; on two each turn wakes an idle core, which costs several times more. Two things are needed.
 * The worker is bound to the client's core, which is looked up in /proc now and then. And it runs as
 * SCHED_IDLE: the reply wakes the client while the worker still runs, and the scheduler takes a core
 * with nothing but SCHED_IDLE on it for idle (kernel/sched/fair.c, select_idle_sibling), so the client
 * stays instead of being sent to another core.
 *
 * A task that is SCHED_IDLE starves where others want its core. The monitor looks every few
 * milliseconds: who made no progress though there is work gets its own policy back, and follows nobody
 * for a while, longer each time, unless following had paid for that. Nobody follows where several workers are needed, where requests are
 * slow, or where the client is found on another core each time.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "host/internal.h"

#define SAMPLE_EVERY	32u		/* requests between two looks where the client runs */
#define SHORT_NS	30000u		/* what takes longer is better done beside the client */
#define STARVED_NS	3000000u
#define PAYS		500u		/* requests: 10 us saved on each against being starved once */
#define PAUSE_MIN_NS	100000000u
#define PAUSE_MAX_NS	10000000000u

/* Back from SCHED_IDLE: sched_setscheduler(2) wants a RLIMIT_NICE that allows nice 0. */
static bool may_come_back(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2] = { { 0 } };
	struct rlimit nice;

	if (!syscall(SYS_capget, &head, caps) && caps[0].effective & 1u << CAP_SYS_NICE)
		return true;
	return !getrlimit(RLIMIT_NICE, &nice) && nice.rlim_cur >= 20;
}

/* The workers, which are started here: a successor is real-time itself for its first moments. */
static bool start_ordinary(void)
{
	int policy = sched_getscheduler(0);

	return policy == SCHED_OTHER || (policy > 0 && policy & SCHED_RESET_ON_FORK);
}

void follow_init(struct fe_host *h)
{
	struct pool *p = &h->pool;

	p->monitor = (pid_t)syscall(SYS_gettid);
	p->follow = p->cpus > 1 && start_ordinary() && may_come_back() &&
		    !sched_getaffinity(0, sizeof(p->allowed), &p->allowed) && CPU_COUNT(&p->allowed) > 1;
}

/* The core on which a thread runs or ran last, -1 where that can not be told. */
static int cpu_of_thread(uint32_t tid)
{
	char text[1024], path[32], *at;
	_cleanup_close_ int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%u/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -1;
	text[n] = 0;
	/* The second field, in parentheses, may hold anything; the core is the 39th. */
	at = strrchr(text, ')');
	for (int field = 2; at && field < 39; field++)
		at = strchr(at + 1, ' ');
	return at ? atoi(at) : -1;
}

static void set_policy(struct worker *w, int policy, const cpu_set_t *cpus)
{
	const struct sched_param none = { 0 };

	sched_setaffinity(w->tid, sizeof(*cpus), cpus);
	sched_setscheduler(w->tid, policy, &none);
}

static void pause_following(struct worker *w)
{
	uint64_t now = now_ns(), pause = atomic_load(&w->follow_pause) * 2;

	/* What starves may be a RELEASE or a FORGET, for which nobody waits. */
	if (atomic_load(&w->done) - atomic_load(&w->follow_from) >= PAYS)
		pause = 0;
	else if (pause < PAUSE_MIN_NS)
		pause = PAUSE_MIN_NS;
	else if (pause > PAUSE_MAX_NS)
		pause = PAUSE_MAX_NS;
	atomic_store(&w->follow_pause, pause);
	atomic_store(&w->follow_after, now + pause);
}

void follow_end(struct worker *w)
{
	if (atomic_exchange(&w->cpu, -1) >= 0)
		set_policy(w, SCHED_OTHER, &w->host->pool.allowed);
}

static void follow_to(struct worker *w, int cpu)
{
	cpu_set_t one, others;

	if (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &w->host->pool.allowed)) {
		follow_end(w);
		return;
	}
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	CPU_XOR(&others, &w->host->pool.allowed, &one);
	if (atomic_load(&w->cpu) < 0)
		atomic_store(&w->follow_from, atomic_load(&w->done));
	/* Each time the monitor ran on this core, the client would be sent to another one. */
	sched_setaffinity(w->host->pool.monitor, sizeof(others), &others);
	atomic_store(&w->cpu, cpu);
	set_policy(w, SCHED_IDLE, &one);
	/* The monitor ended it meanwhile. */
	if (atomic_load(&w->cpu) != cpu)
		set_policy(w, SCHED_OTHER, &w->host->pool.allowed);
}

void follow(struct worker *w, uint32_t tid)
{
	struct pool *p = &w->host->pool;
	int at = atomic_load(&w->cpu), cpu;
	bool parted = at >= 0 && !w->saturated;

	if (!p->follow || !tid || ++w->unlooked < (parted ? w->look_again : SAMPLE_EVERY))
		return;
	w->unlooked = 0;
	if (atomic_load(&p->active) > 1 || atomic_load(&p->op_ns) > SHORT_NS) {
		follow_end(w);
		return;
	}
	if (at < 0 && now_ns() < atomic_load(&w->follow_after))
		return;
	cpu = cpu_of_thread(tid);
	w->strayed = (uint8_t)(w->strayed << 1 | (at >= 0 && cpu != at));
	w->look_again = cpu != at ? 1 : w->look_again < SAMPLE_EVERY ? w->look_again * 2 : SAMPLE_EVERY;
	if (__builtin_popcount(w->strayed) > 3) {
		w->strayed = 0;
		pause_following(w);
		follow_end(w);
	} else if (cpu != at) {
		follow_to(w, cpu);
	}
}

bool follow_watch(struct worker *w, bool pending)
{
	uint32_t done = atomic_load(&w->done);
	uint64_t now = now_ns();

	if (done != w->done_seen || !(pending || atomic_load(&w->busy_since))) {
		w->done_seen = done;
		w->done_at = now;
	}
	if (atomic_load(&w->cpu) < 0)
		return false;
	if (now - w->done_at < STARVED_NS)
		return true;
	pause_following(w);
	atomic_store(&w->cpu, -1);
	set_policy(w, SCHED_OTHER, &w->host->pool.allowed);
	return true;
}
