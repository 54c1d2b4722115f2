/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The state of a served mount as one line of JSON. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/answers.h"

struct text {
	char *buf;
	size_t size;
	size_t used;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->used < t->size ? t->buf + t->used : NULL, t->used < t->size ? t->size - t->used : 0, fmt, ap);
	va_end(ap);
	t->used += n > 0 ? (size_t)n : 0;
}

static void put_string(struct text *t, const char *s)
{
	put(t, "\"");
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			put(t, "\\%c", c);
		else if (c < 0x20)
			put(t, "\\u%04x", c);
		else
			put(t, "%c", c);
	}
	put(t, "\"");
}

static void put_flags(struct text *t, uint64_t flags)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} names[] = {
#define FLAG(f) { FUSE_##f, #f }
		FLAG(ASYNC_READ), FLAG(POSIX_LOCKS), FLAG(ATOMIC_O_TRUNC), FLAG(BIG_WRITES), FLAG(DONT_MASK),
		FLAG(FLOCK_LOCKS), FLAG(HAS_IOCTL_DIR), FLAG(AUTO_INVAL_DATA), FLAG(DO_READDIRPLUS),
		FLAG(READDIRPLUS_AUTO), FLAG(ASYNC_DIO), FLAG(WRITEBACK_CACHE), FLAG(NO_OPEN_SUPPORT),
		FLAG(PARALLEL_DIROPS), FLAG(POSIX_ACL), FLAG(ABORT_ERROR), FLAG(MAX_PAGES),
		FLAG(NO_OPENDIR_SUPPORT), FLAG(HANDLE_KILLPRIV_V2), FLAG(SETXATTR_EXT), FLAG(INIT_EXT),
		FLAG(CREATE_SUPP_GROUP), FLAG(HAS_EXPIRE_ONLY), FLAG(DIRECT_IO_ALLOW_MMAP), FLAG(PASSTHROUGH),
#undef FLAG
	};
	const char *comma = "";

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!(flags & names[i].bit))
			continue;
		put(t, "%s\"%s\"", comma, names[i].name);
		comma = ",";
	}
}

static unsigned put_requests(struct text *t, struct fe_host *h)
{
	const char *comma = "";
	unsigned in_flight = 0;

	pthread_mutex_lock(&h->pool.lock);
	for (unsigned i = 0; i < h->pool.count; i++)
		in_flight += atomic_load(&h->pool.workers[i]->busy_since) != 0;
	for (unsigned op = 0; op < OPCODES; op++) {
		uint64_t sum = 0;

		for (unsigned i = 0; i < FR_SLOTS_MAX; i++)
			sum += atomic_load_explicit(&h->shared->counts[i][op], memory_order_relaxed);
		if (!sum)
			continue;
		put(t, "%s\"%s\":%llu", comma, operations[op].name ? operations[op].name : "OTHER",
		    (unsigned long long)sum);
		comma = ",";
	}
	pthread_mutex_unlock(&h->pool.lock);
	return in_flight + fr_table_used(h->parked);
}

static void put_upgrade(struct text *t, struct fe_host *h)
{
	char why[256];
	int result = fr_upgrade_result(h->fr, why, sizeof(why));

	if (result == -ENOENT)
		return;
	put(t, ",\"upgrade\":{\"state\":\"%s\",\"why\":", !result ? "done" : result == -EINPROGRESS ? "under way" :
	    "failed");
	put_string(t, why);
	put(t, "}");
}

static uint64_t asked(const struct extfuse_opcode_figures *f)
{
	return f->misses + f->stale + f->refused;
}

static uint64_t answered(const struct extfuse_opcode_figures *f)
{
	return f->hits + f->passthru;
}

/* "what":{"LOOKUP":5,...} */
static void put_opcodes(struct text *t, const char *what, const struct extfuse_figures *f,
			uint64_t (*count)(const struct extfuse_opcode_figures *f))
{
	const char *comma = "";

	put(t, ",\"%s\":{", what);
	for (unsigned op = 0; op < OPCODES; op++) {
		if (!operations[op].name || !count(&f->opcode[op]))
			continue;
		put(t, "%s\"%s\":%llu", comma, operations[op].name,
		    (unsigned long long)count(&f->opcode[op]));
		comma = ",";
	}
	put(t, "}");
}

static void put_cache(struct text *t, struct fe_host *h)
{
	struct extfuse_figures f;
	uint64_t hits = 0, all = 0;
	int err = answers_figures(h, &f);

	put(t, ",\"cache\":{\"engine\":\"%s\",\"why\":", answers_engine(h));
	put_string(t, h->shared->cache_line);
	if (err) {
		put(t, "}");
		return;
	}
	for (unsigned op = 0; op < OPCODES; op++) {
		hits += answered(&f.opcode[op]);
		all += answered(&f.opcode[op]) + asked(&f.opcode[op]);
	}
	put(t, ",\"hits\":%llu,\"misses\":%llu,\"hit_percent\":%.1f", (unsigned long long)hits,
	    (unsigned long long)(all - hits), all ? 100.0 * (double)hits / (double)all : 0.0);
	put(t, ",\"puts\":%llu,\"late_puts\":%llu,\"memory\":%llu}", (unsigned long long)f.puts,
	    (unsigned long long)f.late, (unsigned long long)f.memory);
	put_opcodes(t, "cache_hits", &f, answered);
	put_opcodes(t, "cache_misses", &f, asked);
}

/* What the last worker that died died of. */
static void put_death(struct text *t, const struct fr_stats *s)
{
	if (!s->recoveries)
		return;
	put(t, ",\"last_death\":\"");
	if (WIFSIGNALED(s->last_status))
		put(t, "signal %d (%s)", WTERMSIG(s->last_status), strsignal(WTERMSIG(s->last_status)));
	else if (s->last_status)
		put(t, "exit status %d", WEXITSTATUS(s->last_status));
	else
		put(t, "not known"); /* not a child of this keeper */
	put(t, "\"");
}

static void put_recovery(struct text *t, struct fe_host *h)
{
	struct fr_stats s = { .struct_size = sizeof(s) };

	if (!h->recovers) {
		put(t, ",\"keeper_pid\":null,\"recoveries\":null");
		return;
	}
	fr_stats(h->fr, &s);
	put(t, ",\"keeper_pid\":%d,\"generation\":%u,\"recoveries\":%llu,\"last_pause_ms\":%.3f",
	    (int)fr_keeper_pid(h->fr), s.generation, (unsigned long long)s.recoveries, (double)s.last_pause / 1e6);
	put(t, ",\"replies_sent_again\":%llu,\"requests_done_again\":%llu,\"requests_set_aside\":%llu",
	    (unsigned long long)s.resent, (unsigned long long)s.redone, (unsigned long long)s.set_aside);
	put_death(t, &s);
	put_upgrade(t, h);
}

ssize_t fe_host_status(struct fe_host *h, char *buf, size_t size)
{
	struct text t = { buf, size, 0 };
	char backend[2048];
	unsigned in_flight;

	put(&t, "{\"source\":");
	put_string(&t, h->opt.source);
	put(&t, ",\"backend\":");
	put_string(&t, h->be->name);
	put(&t, ",\"mountpoint\":");
	put_string(&t, h->shared->mountpoint);
	put(&t, ",\"worker_pid\":%d", (int)getpid());
	put_recovery(&t, h);
	put(&t, ",\"protocol\":\"7.%u\",\"flags\":[", h->shared->proto_minor);
	put_flags(&t, h->shared->flags);
	put(&t, "],\"requests\":{");
	in_flight = put_requests(&t, h);
	put(&t, "},\"in_flight\":%u,\"threads\":%u,\"nodes\":%u,\"handles\":%u", in_flight, h->pool.count,
	    fr_table_used(h->nodes), fr_table_used(h->handles));
	put(&t, ",\"passthrough\":{\"in_use\":%s,\"reason\":", h->shared->passthrough ? "true" : "false");
	put_string(&t, h->shared->passthrough_reason);
	put(&t, "}");
	put_cache(&t, h);
	if (h->be->status && h->be->status(h->priv, backend, sizeof(backend)) > 0)
		put(&t, ",\"backend_status\":%s", backend);
	put(&t, "}\n");
	return t.used < size ? (ssize_t)t.used : -ERANGE;
}
