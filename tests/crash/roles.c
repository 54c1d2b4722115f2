/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * roles [KILLS]: keeper, worker and standby die in all orders, and each request is still done once. KILLS
 * (200): as many at random. Prints the seed of these; FE_SEED repeats them.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/crash/echo.h"
#include "tests/crash/tsan.h"

static struct echo e;

static uint64_t random_of(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static void pause_us(long us)
{
	const struct timespec t = { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 };

	nanosleep(&t, NULL);
}

static void kill_role(char role)
{
	echo_kill(&e, role == 'K' ? echo_keeper(&e) : role == 'W' ? echo_worker(&e) : echo_standby(&e), SIGKILL);
}

/* Each order of up to three deaths, close to each other and not. */
static void orders(void)
{
	static const char *const all[] = {
		"W", "K", "S", "WK", "KW", "WS", "SW", "KS", "SK", "KSW", "SKW", "WKS", "WSK", "KWS", "SWK",
	};
	char name[64];

	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
		/* All three at once is the end: nobody is left to take over. */
		for (long gap = all[i][1] && all[i][2] ? 600000 : 0; gap <= 600000; gap = gap ? gap * 25 : 40) {
			for (const char *role = all[i]; *role; role++) {
				kill_role(*role);
				echo_load(&e, 20);
				pause_us(role[1] ? gap : 0);
				if (all[i][1] && all[i][2])
					echo_settled(&e);
			}
			echo_load(&e, 50);
			echo_settled(&e);
		}
		snprintf(name, sizeof(name), "death-%s", all[i]);
		ok(name);
	}
}

static void next_worker(void)
{
	kill_role('W');
	echo_load(&e, 50);
	echo_settled(&e);
}

/*
 * Keeper and standby at the same time, with nothing in between: the worker makes a keeper, and all who come
 * later are copies of that.
 */
static void keepers_by_worker(int n)
{
	for (int i = 0; i < n; i++) {
		pid_t k = echo_keeper(&e), s = echo_standby(&e);

		kill(k, SIGSTOP);
		echo_kill(&e, s, SIGKILL);
		echo_kill(&e, k, SIGKILL);
		while (echo_keeper(&e) == k)
			pause_us(500);
		echo_load(&e, 50);
		echo_settled(&e);
		next_worker();
	}
}

static void keeper_by_worker(void)
{
	uint32_t before = e.state->resets;

	keepers_by_worker(40);
	must(e.state->resets >= before + 40, "options.reset() was called %u times, not 40", e.state->resets - before);
	ok("keeper-by-worker");
}

/* However many there were: none keeps with a lock that is held by a thread that it does not have. */
static void keeper_by_allocating_worker(void)
{
#ifdef __SANITIZE_ADDRESS__
	printf("SKIP roles/keeper-by-allocating-worker: not in CI: AddressSanitizer's realloc(3) moves a block, and a copy "
	       "of the process that is made meanwhile has its old address\n");
#else
	e.state->allocating = true;
	next_worker();
	keepers_by_worker(6);
	e.state->allocating = false;
	next_worker();
	ok("keeper-by-allocating-worker");
#endif
}

/* Threads without a slot, which have no lock that tells of their death. */
static void helpers(void)
{
	for (int i = 0; i < 20; i++) {
		must(!echo_call(&e, ECHO_HELP, NULL), "a request failed");
		kill_role('W');
		echo_load(&e, 50);
		echo_settled(&e);
	}
	must(!e.state->lingered, "%u of 20 successors began while threads of a worker were left", e.state->lingered);
	ok("helpers");
}

static void at_random(unsigned kills)
{
	const char *given = getenv("FE_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();

	printf("# FE_SEED=%llu\n", (unsigned long long)seed);
	for (unsigned i = 0; i < kills; i++) {
		/* One of the three has to live: so at most two before all is well again. */
		kill_role("WWWKS"[random_of(&seed) % 5]);
		if (random_of(&seed) % 3 == 0) {
			pause_us((long)(random_of(&seed) % 3000));
			kill_role("WKS"[random_of(&seed) % 3]);
		}
		echo_load(&e, (unsigned)(random_of(&seed) % 200));
		echo_settled(&e);
	}
	ok("random");
}

static void life(unsigned kills)
{
	struct fr_stats stats = { .struct_size = sizeof(stats) };

	echo_start(&e, NULL);
	echo_load(&e, 2000);
	orders();
	keeper_by_worker();
	keeper_by_allocating_worker();
	helpers();
	at_random(kills);
	fr_stats(e.fr, &stats);
	printf("# recoveries %llu, replies sent again %llu, requests done again %llu, last pause %llu us\n",
	       (unsigned long long)stats.recoveries, (unsigned long long)stats.resent, (unsigned long long)stats.redone,
	       (unsigned long long)stats.last_pause / 1000);
	must(stats.recoveries > 0 && stats.generation > 1, "nothing was recovered");
	echo_stop(&e);
	/* The keeper may be one that was made by a worker, which returns nowhere. */
	echo_end(&e, INT32_MAX);
	ok("stop-after-all");
}

static void ends(void)
{
	echo_start(&e, NULL);
	echo_load(&e, 100);
	echo_stop(&e);
	echo_end(&e, 0);
	ok("stop");

	echo_start(&e, NULL);
	kill_role('K');
	echo_load(&e, 100);
	echo_settled(&e);
	echo_stop(&e);
	echo_end(&e, 0);
	ok("stop-by-second-keeper");

	echo_start(&e, NULL);
	/* The worker dies with the wish in its hands; the successor hears of it. */
	kill(echo_worker(&e), SIGSTOP);
	echo_stop(&e);
	while (!atomic_load(&e.fr->cp->stopping))
		pause_us(1000);
	kill(echo_worker(&e), SIGKILL);
	echo_end(&e, 0);
	ok("stop-and-death");

	echo_start(&e, NULL);
	must(echo_call(&e, ECHO_COUNT, NULL) == 0, "a plain request failed");
	fr_stop(e.fr);
	/* It may have ended by now. */
	echo_kill(&e, echo_worker(&e), SIGTERM);
	echo_end(&e, 0);
	ok("stop-by-call");
}

static void too_many(void)
{
	struct fr_options o = { .deaths = 5, .death_window = 60 };

	echo_start(&e, &o);
	for (int i = 0; i < 5; i++) {
		pid_t worker = echo_worker(&e);

		echo_kill(&e, worker, SIGTERM);
		while (echo_worker(&e) == worker && !atomic_load(&e.fr->cp->given_up))
			pause_us(500);
		if (i < 4) {
			echo_load(&e, 10);
			echo_settled(&e);
		}
	}
	echo_end(&e, -ELOOP);
	ok("too-many-deaths");
}

static void statuses(void)
{
	struct fr_stats stats = { .struct_size = sizeof(stats) };
	static const int signals[] = { SIGTERM, SIGSEGV, SIGABRT, SIGHUP, SIGINT, SIGBUS };

	echo_start(&e, NULL);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		pid_t worker = echo_worker(&e);

		echo_kill(&e, worker, signals[i]);
		while (echo_worker(&e) == worker)
			pause_us(500);
		echo_load(&e, 20);
		echo_settled(&e);
		fr_stats(e.fr, &stats);
		must(WIFSIGNALED(stats.last_status) && WTERMSIG(stats.last_status) == signals[i],
		     "the last status is %x after signal %d", stats.last_status, signals[i]);
	}
	must(!stats.set_aside, "a signal from outside was blamed on a request");
	echo_stop(&e);
	echo_end(&e, 0);
	ok("statuses");
}

static void blame(void)
{
	struct fr_options o = { .tries = 3 };
	struct fr_stats stats = { .struct_size = sizeof(stats) };
	int error;

	echo_start(&e, &o);
	for (uint64_t i = 1; i <= 2; i++) {
		error = echo_call(&e, ECHO_CRASH, NULL);
		must(error == -EIO, "what killed three workers got error %d", error);
		fr_stats(e.fr, &stats);
		must(stats.set_aside == i, "%llu requests were set aside", (unsigned long long)stats.set_aside);
		must(stats.recoveries == 3 * i, "%llu workers died for %llu requests of 3 tries",
		     (unsigned long long)stats.recoveries, (unsigned long long)i);
		echo_load(&e, 50);
		echo_settled(&e);
	}
	must(WTERMSIG(stats.last_status) == SIGSEGV, "the last status is %x", stats.last_status);
	/* An exit is no fault: this one would be tried again and again. */
	echo_stop(&e);
	echo_end(&e, 0);
	ok("set-aside");
}

static void hang(void)
{
	struct fr_options o = { .tries = 2, .hang_ms = 200 };
	struct fr_stats stats = { .struct_size = sizeof(stats) };
	int error;

	echo_start(&e, &o);
	error = echo_call(&e, ECHO_HANG, NULL);
	must(error == -EIO, "a request that hangs got error %d", error);
	fr_stats(e.fr, &stats);
	must(stats.recoveries == 2 && stats.set_aside == 1, "%llu recoveries", (unsigned long long)stats.recoveries);
	echo_load(&e, 50);
	echo_settled(&e);
	echo_stop(&e);
	echo_end(&e, 0);
	ok("hang");
}

static bool is_open(int fd)
{
	char path[64], target[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", echo_worker(&e), fd);
	return readlink(path, target, sizeof(target)) > 0;
}

static unsigned still_open(const int32_t *fds, uint32_t n)
{
	unsigned open = 0;

	for (uint32_t i = 0; i < n; i++)
		open += is_open(fds[i]);
	return open;
}

static void collector(void)
{
	echo_start(&e, NULL);
	must(!echo_call(&e, ECHO_LEAK, NULL) && !echo_call(&e, ECHO_KEEP, NULL) && !echo_call(&e, ECHO_LEAK, NULL), "a request failed");
	must(still_open(e.state->leaked, 16) == 16, "descriptors were closed while their worker lived");
	kill_role('W');
	echo_load(&e, 500);
	for (int i = 0; i < 3000 && still_open(e.state->leaked, 16); i++)
		pause_us(10000);
	must(!still_open(e.state->leaked, 16), "%u of 16 leaked descriptors are still open", still_open(e.state->leaked, 16));
	must(still_open(e.state->kept, 8) == 8, "kept descriptors were closed");
	must(is_open(e.server) && is_open(0) && is_open(1) && is_open(fr_checkpoint_fd(e.fr)),
	     "a descriptor that was open at the start was closed");
	echo_settled(&e);
	/* All roles must still work: they would not if one of their descriptors had been closed. */
	for (const char *role = "KWSWK"; *role; role++) {
		kill_role(*role);
		echo_load(&e, 50);
		echo_settled(&e);
		pause_us(150000);
	}
	must(still_open(e.state->kept, 8) == 8, "kept descriptors were closed");
	echo_stop(&e);
	echo_end(&e, 0);
	ok("collector");
}

int main(int argc, char **argv)
{
	unsigned kills = argc > 1 ? (unsigned)atoi(argv[1]) : 200;

	if (left_out_by_tsan("roles"))
		return 77;
	setvbuf(stdout, NULL, _IOLBF, 0);
	ends();
	statuses();
	too_many();
	blame();
	hang();
	collector();
	life(kills);
	return 0;
}
