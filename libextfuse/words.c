/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Words: when what changed last. With the hook, the module counts there, too, at the same time. */
#include <string.h>
#include <time.h>

#include "libextfuse/internal.h"

int name_set(struct name *name, const char *text)
{
	size_t len = strnlen(text, EXTFUSE_NAME_SIZE);

	if (!len)
		return -EINVAL;
	if (len > EXTFUSE_NAME_MAX)
		return -ENAMETOOLONG;
	memset(name->words, 0, sizeof(name->words));
	memcpy(name->words, text, len);
	name->len = (uint32_t)len;
	return 0;
}

struct extfuse_word *word_all(const struct extfuse *x)
{
	return &x->words[0];
}

struct extfuse_word *word_of(const struct extfuse *x, enum about about, uint64_t nodeid,
			     const struct name *name)
{
	uint32_t i;

	if (about == ABOUT_NODE)
		i = extfuse_word_node(x->seed, x->word_bits, nodeid);
	else if (about == ABOUT_DIR)
		i = extfuse_word_dir(x->seed, x->word_bits, nodeid);
	else
		i = extfuse_word_name(x->seed, x->word_bits, nodeid, name->words, (name->len + 7) / 8);
	return &x->words[i & ((1u << x->word_bits) - 1)];
}

API uint64_t extfuse_stamp(const struct extfuse *x)
{
	return __atomic_load_n(&x->area->clock, __ATOMIC_SEQ_CST);
}

/* Never lowered: whoever was late to write an older time would make an old value true again. */
static void raise_prev(struct extfuse_word *w, uint64_t to)
{
	__u64 prev = __atomic_load_n(&w->prev, __ATOMIC_SEQ_CST);

	while (prev < to && !__atomic_compare_exchange_n(&w->prev, &prev, to, false, __ATOMIC_SEQ_CST,
							 __ATOMIC_SEQ_CST))
		;
}

void word_mark(struct extfuse_word *w)
{
	while (!__atomic_add_fetch(&w->marked, 1, __ATOMIC_SEQ_CST))
		;
}

/* A change that is over at once, and may be cut off by a SIGKILL anywhere. */
void word_bump(struct extfuse *x, struct extfuse_word *w)
{
	uint64_t now = __atomic_add_fetch(&x->area->clock, 1, __ATOMIC_SEQ_CST);
	__u64 state = __atomic_load_n(&w->state, __ATOMIC_SEQ_CST);
	uint64_t time;

	do {
		time = state >> EXTFUSE_WORD_TIME;
		raise_prev(w, time);
		if (time < now)
			time = now;
	} while (!__atomic_compare_exchange_n(&w->state, &state,
					      time << EXTFUSE_WORD_TIME | (state & EXTFUSE_WORD_BUSY),
					      false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

/* As the module judges an answer. */
bool word_holds(const struct extfuse_word *w, uint64_t stamp, uint64_t own)
{
	uint64_t state = __atomic_load_n(&w->state, __ATOMIC_SEQ_CST);
	uint64_t prev = __atomic_load_n(&w->prev, __ATOMIC_SEQ_CST);
	uint32_t held = __atomic_load_n(&w->held, __ATOMIC_SEQ_CST);

	if (state & EXTFUSE_WORD_BUSY || held || __atomic_load_n(&w->state, __ATOMIC_SEQ_CST) != state)
		return false;
	return state >> EXTFUSE_WORD_TIME <= stamp || prev < own;
}

int seal(const struct extfuse *x, const struct extfuse_word *w, uint64_t stamp, bool own,
	 struct extfuse_head *head)
{
	uint64_t state = __atomic_load_n(&w->state, __ATOMIC_SEQ_CST);
	uint64_t busy = state & EXTFUSE_WORD_BUSY;
	uint64_t time = state >> EXTFUSE_WORD_TIME;

	if (!word_holds(word_all(x), stamp, 0) || __atomic_load_n(&w->held, __ATOMIC_SEQ_CST) ||
	    time > stamp)
		return -ESTALE;
	/* One is under way: the request that is being answered, which was begun before it was sent. */
	if (busy > own)
		return -ESTALE;
	head->stamp = stamp;
	head->own = busy ? time + 1 : 0;
	return 0;
}

uint64_t expiry(uint32_t ms)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + (uint64_t)ms * NS_PER_MS;
}

/* ---- what the daemon can not see ---- */

API int extfuse_hold(struct extfuse *x, uint64_t nodeid)
{
	if (!x->attached)
		return -ENOTCONN;
	__atomic_fetch_add(&word_of(x, ABOUT_NODE, nodeid, NULL)->held, 1, __ATOMIC_SEQ_CST);
	return 0;
}

/* The bump comes first: a value from before the hold must not come back. */
API int extfuse_unhold(struct extfuse *x, uint64_t nodeid)
{
	struct extfuse_word *w;
	__u32 held;

	if (!x->attached)
		return -ENOTCONN;
	w = word_of(x, ABOUT_NODE, nodeid, NULL);
	word_bump(x, w);
	held = __atomic_load_n(&w->held, __ATOMIC_SEQ_CST);
	do {
		if (!held)
			return -EINVAL;
	} while (!__atomic_compare_exchange_n(&w->held, &held, held - 1, false, __ATOMIC_SEQ_CST,
					      __ATOMIC_SEQ_CST));
	return 0;
}

API int extfuse_hold_reset(struct extfuse *x)
{
	if (!x->attached)
		return -ENOTCONN;
	for (uint32_t i = 0; i < 1u << x->word_bits; i++) {
		if (!__atomic_load_n(&x->words[i].held, __ATOMIC_SEQ_CST))
			continue;
		word_bump(x, &x->words[i]);
		__atomic_store_n(&x->words[i].held, 0, __ATOMIC_SEQ_CST);
	}
	return 0;
}
