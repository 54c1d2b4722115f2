/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * workload OPERATION -d DIR -b BACKING -n COUNT [-s BLOCK] [-c CLIENTS] [-D] [-g] [-- COMMAND ...]
 *
 * Does one operation COUNT times in each of CLIENTS processes and prints a line of JSON.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

#define EXIT_SKIP 77
#define MAX_CLIENTS 64

struct options {
	const struct operation *operation;
	const char *directory;
	const char *backing;
	unsigned long count;
	unsigned long clients;
	size_t block;
	bool direct;
	bool gate;
	char **command;
};

/* Lies in memory shared by all clients; finished[] continues behind it. */
struct client_times {
	uint64_t started;
	uint64_t finished[];
};

struct child {
	pid_t pid;
	int channel;
	struct client_times *times;
};

static void complain(const char *format, va_list arguments, int error)
{
	fputs("workload: ", stderr);
	vfprintf(stderr, format, arguments);
	if (error)
		fprintf(stderr, ": %s", strerror(error));
	fputc('\n', stderr);
}

void die(const char *format, ...)
{
	int error = errno;
	va_list arguments;

	va_start(arguments, format);
	complain(format, arguments, error);
	va_end(arguments);
	exit(EXIT_FAILURE);
}

void skip(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	complain(format, arguments, 0);
	va_end(arguments);
	exit(EXIT_SKIP);
}

void write_zeros(int fd, const char *name, size_t size)
{
	static const char zeros[1 << 16];

	while (size) {
		size_t part = size < sizeof(zeros) ? size : sizeof(zeros);

		if (write(fd, zeros, part) != (ssize_t)part)
			die("write %s", name);
		size -= part;
	}
}

void populate(struct client *c, int directory, unsigned long count, size_t size)
{
	for (unsigned long i = 0; i < count; i++) {
		int fd = openat(directory, c->names[i], O_CREAT | O_EXCL | O_WRONLY, 0644);

		if (fd < 0)
			die("create %s", c->names[i]);
		write_zeros(fd, c->names[i], size);
		close(fd);
	}
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count, size);

	if (!memory)
		die("memory for %zu names", count);
	return memory;
}

/* A fixed permutation: every run of every file system visits the same blocks in the same order. */
static unsigned long *shuffled(unsigned long count)
{
	unsigned long *order = allocate(count, sizeof(*order));
	uint64_t state = 0x9e3779b97f4a7c15u;

	for (unsigned long i = 0; i < count; i++) {
		unsigned long j;

		state = state * 6364136223846793005u + 1442695040888963407u;
		j = (unsigned long)((state >> 33) % (i + 1));
		order[i] = order[j];
		order[j] = i;
	}
	return order;
}

static void name_client(struct client *c, const struct options *o)
{
	/* Some operations want a few files whatever the count is. */
	unsigned long names = o->count + 1024;

	c->names = allocate(names, sizeof(*c->names));
	c->new_names = allocate(names, sizeof(*c->new_names));
	for (unsigned long i = 0; i < names; i++) {
		snprintf(c->names[i], NAME_LENGTH, "f%07lu", i % 10000000);
		snprintf(c->new_names[i], NAME_LENGTH, "n%07lu", i % 10000000);
	}
}

static void enter_directory(struct client *c, const struct options *o, unsigned long number)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/c%lu", o->backing, number);
	if (mkdir(path, 0755) && errno != EEXIST)
		die("mkdir %s", path);
	c->backing = open(path, O_RDONLY | O_DIRECTORY);
	if (c->backing < 0)
		die("open %s", path);
	snprintf(path, sizeof(path), "%s/c%lu", o->directory, number);
	if (chdir(path))
		die("chdir %s", path);
}

static void prepare_client(struct client *c, const struct options *o, unsigned long number)
{
	*c = (struct client){
		.count = o->count, .block = o->block, .direct = o->direct, .command = o->command,
		.fd = -1, .output = -1,
	};
	name_client(c, o);
	c->order = shuffled(o->count);
	c->buffer = aligned_alloc(4096, (o->block + 4095) / 4096 * 4096);
	if (!c->buffer)
		die("buffer");
	memset(c->buffer, 'b', o->block);
	enter_directory(c, o, number);
	if (o->operation->setup)
		o->operation->setup(c);
}

/* Tells the parent that this client got so far, and waits until all may go on. */
static void meet(int channel)
{
	char byte = 'r';

	if (write(channel, &byte, 1) != 1 || read(channel, &byte, 1) != 1)
		exit(EXIT_FAILURE);
}

static void run_client(const struct options *o, const struct child *self, unsigned long number)
{
	struct client c;

	prepare_client(&c, o, number);
	meet(self->channel);
	self->times->started = now();
	for (unsigned long i = 0; i < o->count; i++) {
		o->operation->run(&c, i);
		self->times->finished[i] = now();
	}
	meet(self->channel);
	if (o->operation->teardown)
		o->operation->teardown(&c);
	exit(EXIT_SUCCESS);
}

static struct client_times *shared_times(unsigned long count)
{
	size_t size = sizeof(struct client_times) + count * sizeof(uint64_t);
	/* Populated: a page fault of the clock's own memory would be counted as the operation's. */
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		die("shared memory");
	return memory;
}

static void start_client(const struct options *o, struct child *child, unsigned long number)
{
	int ends[2];

	child->times = shared_times(o->count);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		die("socketpair");
	child->pid = fork();
	if (child->pid < 0)
		die("fork");
	if (!child->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[0]);
		child->channel = ends[1];
		run_client(o, child, number);
	}
	close(ends[1]);
	child->channel = ends[0];
}

static int reap(struct child *child)
{
	int status;

	if (waitpid(child->pid, &status, 0) != child->pid)
		return EXIT_FAILURE;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}

/* One client is gone: end the others, and end with what it said. */
static void give_up(struct child *children, unsigned long count, unsigned long gone)
{
	int status = reap(&children[gone]);

	for (unsigned long i = 0; i < count; i++) {
		if (i == gone)
			continue;
		kill(children[i].pid, SIGKILL);
		reap(&children[i]);
	}
	exit(status ? status : EXIT_FAILURE);
}

static void await_all(struct child *children, unsigned long count)
{
	char byte;

	for (unsigned long i = 0; i < count; i++)
		if (read(children[i].channel, &byte, 1) != 1)
			give_up(children, count, i);
}

static void release_all(struct child *children, unsigned long count)
{
	for (unsigned long i = 0; i < count; i++)
		if (write(children[i].channel, "g", 1) != 1)
			give_up(children, count, i);
}

/* With -g the caller may look at the mount's counters before the first and after the last one. */
static void wait_for_caller(const struct options *o, const char *phase)
{
	if (!o->gate)
		return;
	if (phase)
		puts(phase);
	fflush(stdout);
	if (getchar() == EOF)
		exit(EXIT_FAILURE);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t percentile(const uint64_t *sorted, unsigned long count, unsigned int percent)
{
	return sorted[(count - 1) * percent / 100];
}

static uint64_t *latencies(const struct options *o, const struct child *children)
{
	uint64_t *all = allocate(o->count * o->clients, sizeof(*all)), *next = all;

	for (unsigned long k = 0; k < o->clients; k++) {
		uint64_t before = children[k].times->started;

		for (unsigned long i = 0; i < o->count; i++) {
			*next++ = children[k].times->finished[i] - before;
			before = children[k].times->finished[i];
		}
	}
	qsort(all, o->count * o->clients, sizeof(*all), by_value);
	return all;
}

static uint64_t wall_time(const struct options *o, const struct child *children)
{
	uint64_t first = UINT64_MAX, last = 0;

	for (unsigned long k = 0; k < o->clients; k++) {
		const struct client_times *t = children[k].times;

		first = t->started < first ? t->started : first;
		last = t->finished[o->count - 1] > last ? t->finished[o->count - 1] : last;
	}
	return last - first;
}

static void report(const struct options *o, const struct child *children)
{
	unsigned long total = o->count * o->clients;
	uint64_t wall = wall_time(o, children);
	uint64_t *sorted = latencies(o, children);

	printf("{\"operation\": \"%s\", \"clients\": %lu, \"count\": %lu, \"bytes\": %zu, "
	       "\"wall_ns\": %llu, \"ns_per_op\": %.1f, \"p50_ns\": %llu, \"p90_ns\": %llu, "
	       "\"p99_ns\": %llu, \"max_ns\": %llu}\n",
	       o->operation->name, o->clients, total,
	       o->operation->moves_blocks ? o->block * total : 0, (unsigned long long)wall,
	       (double)wall / (double)total, (unsigned long long)percentile(sorted, total, 50),
	       (unsigned long long)percentile(sorted, total, 90),
	       (unsigned long long)percentile(sorted, total, 99),
	       (unsigned long long)sorted[total - 1]);
	free(sorted);
}

static const struct operation *find_in(const struct operation *list, const char *name)
{
	for (; list->name; list++)
		if (!strcmp(list->name, name))
			return list;
	return NULL;
}

static const struct operation *find_operation(const char *name)
{
	const struct operation *found = find_in(metadata_operations, name);

	return found ? found : find_in(data_operations, name);
}

static void usage(void)
{
	fputs("usage: workload OPERATION -d DIR -b BACKING -n COUNT [-s BLOCK] [-c CLIENTS] [-D]"
	      " [-g] [-- COMMAND ...]\noperations:", stderr);
	for (const struct operation *op = metadata_operations; op->name; op++)
		fprintf(stderr, " %s", op->name);
	for (const struct operation *op = data_operations; op->name; op++)
		fprintf(stderr, " %s", op->name);
	fputc('\n', stderr);
	exit(2);
}

static unsigned long number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*end || !value)
		usage();
	return value;
}

static void parse_option(struct options *o, int option)
{
	switch (option) {
	case 'd':
		o->directory = optarg;
		break;
	case 'b':
		o->backing = optarg;
		break;
	case 'n':
		o->count = number(optarg);
		break;
	case 's':
		o->block = number(optarg);
		break;
	case 'c':
		o->clients = number(optarg);
		break;
	case 'D':
		o->direct = true;
		break;
	case 'g':
		o->gate = true;
		break;
	default:
		usage();
	}
}

static void parse(struct options *o, int argc, char **argv)
{
	int option;

	*o = (struct options){ .clients = 1, .block = 4096 };
	if (argc < 2)
		usage();
	o->operation = find_operation(argv[1]);
	optind = 2;
	while ((option = getopt(argc, argv, "d:b:n:s:c:Dg")) != -1)
		parse_option(o, option);
	o->command = argv + optind;
	if (!o->operation || !o->directory || !o->backing || !o->count || o->clients > MAX_CLIENTS)
		usage();
}

int main(int argc, char **argv)
{
	struct child children[MAX_CLIENTS];
	struct options o;
	int status = 0;

	parse(&o, argc, argv);
	for (unsigned long i = 0; i < o.clients; i++)
		start_client(&o, &children[i], i);
	await_all(children, o.clients);
	wait_for_caller(&o, "ready");
	release_all(children, o.clients);
	await_all(children, o.clients);
	report(&o, children);
	wait_for_caller(&o, NULL);
	release_all(children, o.clients);
	for (unsigned long i = 0; i < o.clients; i++)
		status |= reap(&children[i]);
	return status ? EXIT_FAILURE : EXIT_SUCCESS;
}
