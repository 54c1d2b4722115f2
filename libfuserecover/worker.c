/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The worker: takes over what its predecessor left, and runs the caller's function. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

/* The owners are dead, and the kernel is done with their locks. */
static void show_life(struct fr *fr, uint64_t claim)
{
	for (uint32_t i = 0; i < fr->layout.slots; i++)
		fr_mutex_robust(&fr->cp_slots[i].alive);
	fr_mutex_robust(&fr->cp->alive);
	pthread_mutex_lock(&fr->cp->alive);
	FR_STEP();
	atomic_store(&fr->cp->helpers, 0);
	atomic_store(&fr->cp->alive_claim, claim);
	FR_STEP();
}

static void give_up(struct fr *fr, int err)
{
	atomic_store(&fr->cp->given_up, (uint32_t)-err);
	fr_log(fr, LOG_CRIT, "the checkpoint can not be taken over: %s", strerror(-err));
	_exit(1);
}

static void take_over(struct fr *fr)
{
	int err;

	if (!fr_upgrade_starts(fr) && !fr->after_upgrade)
		atomic_fetch_add(&fr->cp->recoveries, 1);
	err = fr_takeover(fr);
	if (err)
		give_up(fr, err);
	atomic_store(&fr->cp->last_pause, fr->died_at ? fr_now_ns() - fr->died_at : 0);
	fr_upgrade_done(fr);
	if (atomic_load(&fr->cp->stopping))
		fr_stop(fr); /* the predecessor may have read it */
}

void fr_worker_ready(struct fr *fr)
{
	fr_be_usual(fr);
	FR_STEP();
	atomic_store(&fr->cp->ready, fr->generation);
	FR_STEP();
	fr_wake_keeper(fr);
}

void fr_worker(struct fr *fr, uint64_t claim)
{
	int result;

	fr->role = WORKER;
	fr_no_standby(fr, getpid());
	fr->generation = CLAIM_NUMBER(claim);
	show_life(fr, claim);
	fr_blame_install();
	if (fr->generation > 1)
		take_over(fr);
	result = fr_watcher_start(fr);
	if (result) {
		fr_log(fr, LOG_WARNING, "no thread to look after the keeper: %s", strerror(-result));
		fr_worker_ready(fr);
	}
	result = fr->options.worker(fr, fr->options.arg);
	FR_STEP();
	if (result && atomic_load(&fr->cp->stopping))
		atomic_store(&fr->cp->given_up, EIO);
	if (!result || atomic_load(&fr->cp->stopping))
		atomic_store(&fr->cp->ended, 1);
	FR_STEP();
	_exit(result ? 1 : 0);
}

PUBLIC void fr_helper_enter(struct fr *fr)
{
	atomic_fetch_add(&fr->cp->helpers, 1);
	while (unlikely(atomic_load(&fr->stopped))) {
		atomic_fetch_sub(&fr->cp->helpers, 1);
		fr_collect_wait(fr);
		atomic_fetch_add(&fr->cp->helpers, 1);
	}
}

PUBLIC void fr_helper_leave(struct fr *fr)
{
	atomic_fetch_sub(&fr->cp->helpers, 1);
}

PUBLIC int fr_run_alone(struct fr *fr)
{
	int result;

	if (fr->role != ROLES)
		return -EBUSY;
	/* Steps keep no log here, of which removals could be taken. */
	if (fr->store_fd >= 0)
		return -EINVAL;
	result = fr_take_possession(fr);
	if (result)
		return result;
	fr->role = ALONE;
	fr->alone = true;
	fr_signals_catch(fr);
	result = fr->options.worker(fr, fr->options.arg);
	fr_signals_restore();
	fr->alone = false;
	fr->role = ROLES;
	return result;
}
