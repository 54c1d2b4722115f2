/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory file: header | heads of the slots | map of descriptors | memory of the slots | parts.
 *
 * It is as long as all of it can get, and sparse. Memory comes by fallocate(2), so that a lack of it is
 * an error and no SIGBUS. It is mapped once, with room behind its end for the parts that follow.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#define SPAN_MOST	((size_t)1 << 40)
#define SPAN_LEAST	((size_t)1 << 28)
#define FDS_FIRST	(64u << 10)

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

uint64_t fr_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int fr_give_memory(struct fr *fr, uint64_t offset, uint64_t size)
{
	while (fallocate(fr->fd, 0, (off_t)offset, (off_t)size))
		if (errno != EINTR)
			return -errno;
	return 0;
}

uint64_t fr_now_ms(void)
{
	return fr_now_ns() / 1000000;
}

/* ---- options ---- */

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
	return value ? value : otherwise;
}

static int take_options(struct fr *fr, const struct fr_options *given)
{
	struct fr_options *o = &fr->options;
	uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);

	if (given->struct_size < offsetof(struct fr_options, reserved) || given->struct_size > sizeof(*o))
		return -EINVAL;
	memcpy(o, given, given->struct_size);
	o->struct_size = sizeof(*o);
	strncpy(fr->name, o->name ? o->name : "fuserecover", NAME_SIZE - 1);
	o->name = fr->name;
	o->slots = or_default(o->slots, 16);
	o->request_size = or_default(o->request_size, (1u << 20) + page);
	o->reply_size = or_default(o->reply_size, (1u << 20) + page);
	o->intent_size = or_default(o->intent_size, 512);
	o->note_size = or_default(o->note_size, 512);
	o->tries = or_default(o->tries, 3);
	o->deaths = or_default(o->deaths, 30);
	o->death_window = or_default(o->death_window, 10);
	if (o->slots > FR_SLOTS_MAX || o->request_size > 1u << 30 || o->reply_size > 1u << 30 ||
	    o->request_size < page || o->reply_size < page || o->intent_size > 1u << 20 ||
	    o->note_size > UNDO_SIZE / 4 || (o->deaths > DEATHS_MOST && o->deaths != FR_NEVER) || !o->worker)
		return -EINVAL;
	return 0;
}

static void expect_layout(const struct fr_options *o, struct cp_layout *l)
{
	struct rlimit limit;

	memset(l, 0, sizeof(*l));
	l->magic = CP_MAGIC;
	l->abi = CP_ABI;
	l->layout = o->layout;
	l->page = (uint32_t)sysconf(_SC_PAGESIZE);
	l->slots = o->slots;
	l->request_size = o->request_size;
	l->reply_size = o->reply_size;
	l->intent_size = o->intent_size;
	l->note_size = o->note_size;
	l->fds = FDS_MOST;
	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_max < FDS_MOST)
		l->fds = (uint32_t)round_up(limit.rlim_max + 1, l->page);
}

/* ---- where things lie ---- */

static uint64_t slots_offset(const struct cp_layout *l)
{
	return round_up(sizeof(struct cp_header), l->page);
}

uint64_t fr_map_offset(const struct cp_layout *l)
{
	return round_up(slots_offset(l) + (uint64_t)l->slots * sizeof(struct cp_slot), l->page);
}

static uint64_t bodies_offset(const struct cp_layout *l)
{
	return fr_map_offset(l) + round_up(l->fds, l->page);
}

static uint64_t parts_offset(const struct cp_layout *l)
{
	return bodies_offset(l) + (uint64_t)l->slots * fr_slot_shape(l).size;
}

int fr_mutex_robust(pthread_mutex_t *m)
{
	pthread_mutexattr_t attr;
	int err;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	memset(m, 0, sizeof(*m));
	err = pthread_mutex_init(m, &attr);
	pthread_mutexattr_destroy(&attr);
	return -err;
}

void fr_reset_locks(struct fr *fr)
{
	pthread_mutex_init(&fr->tables_lock, NULL);
	for (uint32_t i = 0; i < fr->layout.parts; i++) {
		if (!fr->tables[i])
			continue;
		for (uint32_t n = 0; n < STRIPES; n++)
			pthread_mutex_init(&fr->tables[i]->locks[n], NULL);
		fr->tables[i]->freed = NIL;
	}
	for (uint32_t i = 0; i < fr->layout.slots; i++) {
		struct fr_slot *s = &fr->slots[i];

		s->taken = s->open = s->holds_tables = s->clean = false;
		s->populated = s->resident = 0;
		s->drops = false;
		s->held = 0;
		s->signal_stack = NULL;
		atomic_store(&s->busy, 0);
	}
	atomic_store(&fr->stopped, 0);
}

void fr_restore_layout(struct fr *fr)
{
	memcpy(&fr->cp->layout, &fr->layout, sizeof(fr->layout));
}

/* ---- making and taking over ---- */

static int map_file(struct fr *fr)
{
	uint64_t least = parts_offset(&fr->layout);
	int sharing = fr->trial ? MAP_PRIVATE : MAP_SHARED;

	if (fr->adopted)
		least = fr->layout.size;
	for (fr->span = SPAN_MOST; fr->span >= SPAN_LEAST && fr->span >= least; fr->span /= 2) {
		fr->base = mmap(NULL, fr->span, PROT_READ | PROT_WRITE, sharing | MAP_NORESERVE, fr->fd, 0);
		if (fr->base != MAP_FAILED)
			break;
		fr->base = NULL;
	}
	if (!fr->base)
		return -ENOMEM;
	/* A core dump would take long, and a worker is dead only after it. */
	madvise(fr->base, fr->span, MADV_DONTDUMP);
	return 0;
}

static int settle(struct fr *fr)
{
	int err = map_file(fr);

	if (err)
		return err;
	fr->cp = (struct cp_header *)(void *)fr->base;
	fr->cp_slots = (struct cp_slot *)(void *)(fr->base + slots_offset(&fr->layout));
	fr->fd_map = (_Atomic uint8_t *)(fr->base + fr_map_offset(&fr->layout));
	fr->bodies = bodies_offset(&fr->layout);
	fr->shape = fr_slot_shape(&fr->layout);
	fr->slots = calloc(fr->layout.slots, sizeof(*fr->slots));
	fr->probe = malloc(PROBE_SIZE);
	fr->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fr->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!fr->slots || !fr->probe)
		return -ENOMEM;
	if (fr->stop_fd < 0 || fr->wake_fd < 0)
		return -errno;
	fr_slots_init(fr);
	return 0;
}

static struct fr *blank(void)
{
	struct fr *fr = calloc(1, sizeof(*fr));

	if (!fr)
		return NULL;
	fr->fd = fr->stop_fd = fr->wake_fd = fr->store_fd = -1;
	fr->keeper_pidfd = fr->worker_pidfd = fr->standby_pidfd = -1;
	fr->trial_pidfd = fr->trial_out = -1;
	fr->role = ROLES;
	fr->generation = 1;
	return fr;
}

static int make_file(struct fr *fr)
{
	struct cp_layout *l = &fr->layout;

	expect_layout(&fr->options, l);
	l->size = parts_offset(l);
	if (getrandom(&l->seed, sizeof(l->seed), 0) != sizeof(l->seed))
		return -EIO;
	fr->fd = memfd_create(fr->name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fr->fd < 0)
		return -errno;
	if (ftruncate(fr->fd, (off_t)l->size) || fcntl(fr->fd, F_ADD_SEALS, F_SEAL_SHRINK))
		return -errno;
	return 0;
}

static int fill_header(struct fr *fr)
{
	int err = fr_give_memory(fr, 0, fr_map_offset(&fr->layout));

	err = err ? err : fr_give_memory(fr, fr_map_offset(&fr->layout),
					 fr->layout.fds < FDS_FIRST ? fr->layout.fds : FDS_FIRST);
	if (err)
		return err;
	fr_restore_layout(fr);
	fr->cp->fds_grown = fr->layout.fds < FDS_FIRST ? fr->layout.fds : FDS_FIRST;
	return fr_fds_own(fr);
}

/* The last part of making and of adopting one: what belongs to this process. */
static void get_ready(struct fr *fr, struct fr **out)
{
	fr_reset_locks(fr);
	for (uint32_t i = 0; i < fr->layout.slots; i++)
		fr_mutex_robust(&fr->cp_slots[i].alive);
#ifdef FR_KILL_POINTS
	fr_kill_points(fr->cp->steps);
#endif
	*out = fr;
}

PUBLIC int fr_new(const struct fr_options *options, struct fr **out)
{
	struct fr *fr = blank();
	int err;

	*out = NULL;
	if (!fr)
		return -ENOMEM;
	err = take_options(fr, options);
	err = err ? err : make_file(fr);
	err = err ? err : settle(fr);
	err = err ? err : fill_header(fr);
	if (err) {
		fr_free(fr);
		return err;
	}
	get_ready(fr, out);
	return 0;
}

PUBLIC void fr_free(struct fr *fr)
{
	if (!fr)
		return;
#ifdef FR_KILL_POINTS
	fr_kill_points(NULL);
#endif
	for (uint32_t i = 0; i < PARTS_MAX; i++)
		free(fr->tables[i]);
	for (uint32_t i = 0; fr->slots && i < fr->layout.slots; i++)
		fr_blame_leave(&fr->slots[i]);
	free(fr->slots);
	free(fr->probe);
	free(fr->programs);
	if (fr->base)
		munmap(fr->base, fr->span);
	for (int *fd = (int[]){ fr->fd, fr->stop_fd, fr->wake_fd, fr->store_fd, -2 }; *fd != -2; fd++)
		if (*fd >= 0)
			close(*fd);
	free(fr);
}

/* Reads, since nothing may be mapped before it is known to be as long as it says. */
static int read_layout(struct fr *fr)
{
	struct cp_layout expected, *l = &fr->layout;
	int seals = fcntl(fr->fd, F_GET_SEALS);
	uint64_t end;
	struct stat st;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fr->fd, &st))
		return -EINVAL;
	if (pread(fr->fd, l, sizeof(*l), offsetof(struct cp_header, layout)) != sizeof(*l))
		return -EBADMSG;
	expect_layout(&fr->options, &expected);
	if (l->fds < expected.page || l->fds > FDS_MOST || l->parts > PARTS_MAX)
		return -EBADMSG;
	expected.fds = l->fds;
	if (memcmp(l, &expected, offsetof(struct cp_layout, fds)))
		return -EINVAL;
	end = parts_offset(l);
	for (uint32_t i = 0; i < l->parts; i++) {
		const struct cp_part *p = &l->part[i];

		if (p->offset != end || !p->size || p->size > SPAN_MOST || p->size % l->page ||
		    (p->kind != PART_AREA && p->kind != PART_TABLE) || !memchr(p->name, 0, NAME_SIZE))
			return -EBADMSG;
		end += p->size;
	}
	return end == l->size && end == (uint64_t)st.st_size ? 0 : -EBADMSG;
}

/* Memory that a scribbled hole lacks would be a SIGBUS. */
static int check_header(struct fr *fr)
{
	uint32_t grown = atomic_load(&fr->cp->fds_grown);
	int err;

	if (grown < fr->layout.page || grown > fr->layout.fds || grown % fr->layout.page)
		return -EBADMSG;
	err = fr_give_memory(fr, 0, fr_map_offset(&fr->layout) + grown);
	for (uint32_t i = 0; !err && i < fr->layout.slots; i++) {
		const struct cp_slot *s = &fr->cp_slots[i];

		if (s->has_memory > 1 || s->state > SLOT_PARKED || s->undo_used > UNDO_SIZE ||
		    s->result > fr->layout.reply_size || s->intent > fr->layout.intent_size)
			return -EBADMSG;
		if (s->has_memory)
			err = fr_give_memory(fr, fr->bodies + (uint64_t)i * fr->shape.size, fr->shape.size);
	}
	return err;
}

static void forget_roles(struct fr *fr)
{
	struct cp_header *h = fr->cp;

	/* The numbers stay, so that the next worker knows that there has been one. */
	atomic_store(&h->keeper, CLAIM(CLAIM_NUMBER(h->keeper), 0));
	atomic_store(&h->worker, CLAIM(CLAIM_NUMBER(h->worker), 0));
	atomic_store(&h->standby, 0);
	atomic_store(&h->ended, 0);
	atomic_store(&h->given_up, 0);
	atomic_store(&h->damaged, 0);
	atomic_store(&h->helpers, 0);
	for (int i = 0; i <= ROLES; i++)
		atomic_store(&h->opening[i], 0);
	fr_fds_forget(fr);
}

int fr_take_possession(struct fr *fr)
{
	struct cp_header *h = fr->cp;

	if (fr->trial)
		_exit(0);
	if (!fr->adopted)
		return 0;
	/* The predecessor was this process; what asked it to stop is to be heard here. */
	if (!fr->from_store && fr_is_upgrade(fr)) {
		fr->old_standby = (pid_t)atomic_load(&h->standby);
		fr->program = atomic_load(&h->program) + 1;
		fr_signals_catch(fr);
		fr_signals_mask(SIG_UNBLOCK, NULL);
	} else {
		atomic_store(&h->upgrade, UPGRADE_NONE);
		atomic_store(&h->stopping, 0);
		fr->program = atomic_load(&h->program);
	}
	forget_roles(fr);
	return fr_fds_own(fr);
}

int fr_rollback_all(struct fr *fr)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < fr->layout.slots; i++)
		err = fr_rollback(fr, i);
	return err;
}

PUBLIC int fr_adopt(const struct fr_options *options, int fd, struct fr **out)
{
	struct fr *fr = blank();
	int err;

	*out = NULL;
	if (!fr)
		return -ENOMEM;
	fr->adopted = true;
	fr->trial = fr_inherited_for_trial(fd);
	fr->from_store = fr_handed()->count && fr_handed()->fd == fd;
	fr->fd = fd;
	err = take_options(fr, options);
	err = err ? err : read_layout(fr);
	err = err ? err : settle(fr);
	/* While another process changes it, there is no telling more. */
	if (!err && !fr->trial) {
		if (fr->from_store || !fr_is_upgrade(fr))
			fr_wait_for_predecessors(fr);
		err = check_header(fr);
		err = err ? err : fr_rollback_all(fr);
		err = err ? err : check_header(fr); /* the logs may have said anything */
	}
	if (err) {
		fr->fd = -1;	/* still the caller's */
		fr_free(fr);
		return err;
	}
	get_ready(fr, out);
	return 0;
}

PUBLIC int fr_checkpoint_fd(const struct fr *fr)
{
	return fr->fd;
}

/* ---- parts ---- */

static const struct cp_part *adopted_part(struct fr *fr, const struct cp_part *want, int *err)
{
	const struct cp_part *p = &fr->layout.part[fr->parts_asked];

	if (fr->parts_asked == fr->layout.parts || strcmp(p->name, want->name) || p->kind != want->kind ||
	    p->record_size != want->record_size || p->key_offset != want->key_offset || p->key_size != want->key_size) {
		*err = -EINVAL;
		return NULL;
	}
	fr->parts_asked++;
	return p;
}

const struct cp_part *fr_part(struct fr *fr, struct cp_part *want, int *err)
{
	struct cp_layout *l = &fr->layout;

	if (fr->adopted)
		return adopted_part(fr, want, err);
	want->offset = l->size;
	want->size = round_up(want->size, l->page);
	*err = fr->role != ROLES ? -EBUSY : l->parts == PARTS_MAX ? -ENOSPC :
	       want->size > fr->span - l->size ? -ENOMEM : 0;
	if (!*err && ftruncate(fr->fd, (off_t)(l->size + want->size)))
		*err = -errno;
	if (*err)
		return NULL;
	l->part[l->parts] = *want;
	l->size += want->size;
	l->parts++;
	fr_restore_layout(fr);
	return &l->part[l->parts - 1];
}

PUBLIC int fr_area_new(struct fr *fr, const char *name, size_t size, void **out)
{
	struct cp_part want = { .kind = PART_AREA };
	const struct cp_part *p;
	int err;

	if (!size || size > SPAN_MOST || strlen(name) >= NAME_SIZE)
		return -EINVAL;
	strncpy(want.name, name, NAME_SIZE - 1);
	want.size = round_up(size, fr->layout.page);
	p = fr_part(fr, &want, &err);
	if (!p)
		return err;
	if (p->size != want.size)
		return -EINVAL;
	err = fr_give_memory(fr, p->offset, p->size);
	if (!err)
		*out = fr->base + p->offset;
	return err;
}
