/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file only grows, by several calls in turn, while others put what they see of it: whoever asks for
 * its size gets one between what was done before he asked and what was begun before he had the answer,
 * and never less than before.
 */
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/vm/rig.h"

#define READERS 2
#define PUTTERS 2
#define SECONDS 6
#define SECONDS_MOST 60	/* where little comes about */

static struct rig *r;
static uint64_t id;

static struct {
	atomic_long begun, done;
	atomic_int stop, wrong;
	long lo, size, hi;	/* of the first that was wrong */
} *shared;

static void grow(void)
{
	int fd = open(rig_path(r, "grows"), O_RDWR);

	for (long size = 1; !shared->stop; size++) {
		int failed;

		shared->begun = size;
		switch (size % 3) {
		case 0:
			failed = ftruncate(fd, size);
			break;
		case 1:
			failed = fallocate(fd, 0, 0, size);
			break;
		default:
			failed = pwrite(fd, "x", 1, size - 1) != 1;
		}
		if (failed)
			_exit(1);
		shared->done = size;
		usleep(size * 7919 % 3000);
	}
	_exit(0);
}

static void watch(int fd)
{
	long before = 0;
	struct stat st;

	while (!shared->stop) {
		long lo = shared->done, hi;

		if (fstat(fd, &st))
			_exit(1);
		hi = shared->begun;
		if ((st.st_size < lo || st.st_size > hi || st.st_size < before) && !shared->wrong) {
			shared->lo = lo > before ? lo : before;
			shared->size = st.st_size;
			shared->hi = hi;
			shared->wrong = 1;
		}
		before = st.st_size;
	}
	_exit(0);
}

/*
 * As a server does: the stamp first. `careless` takes it after what it stands for, to see that this is
 * found.
 */
static void put(bool careless)
{
	while (!shared->stop) {
		struct attr_value value = rig_attr_value(r, id);

		if (careless) {
			usleep(500);
			value.stamp = rig_stamp(r);
		}
		rig_put_attr_value(r, id, &value);
		usleep(100);
	}
	_exit(0);
}

struct counts {
	unsigned long asked;
	unsigned long long hits;
};

static struct counts counts_now(void)
{
	return (struct counts){ rig_asked(r, FUSE_GETATTR), rig_stats(r, FUSE_GETATTR).hits };
}

/* Enough of both ways, and of changes. */
static bool mixed(const struct counts *before)
{
	struct counts now = counts_now();

	return now.hits - before->hits > 1000 && now.asked - before->asked > 100 && shared->done > 100;
}

static void run(const char *name, bool careless)
{
	pid_t child[READERS + PUTTERS + 1];
	struct counts before = counts_now(), c;
	int n = 0, status, failed = 0;
	char label[64];

	memset(shared, 0, sizeof(*shared));
	rig_file(r, "grows");
	id = rig_id(r, "grows");
	for (int i = 0; i < READERS + PUTTERS + 1; i++) {
		child[n] = fork();
		if (!child[n]) {
			if (i == 0)
				grow();
			if (i <= READERS)
				watch(rig_handle(r, "grows"));
			put(careless);
		}
		n++;
	}
	for (int i = 0; i < SECONDS_MOST * 10 && !shared->wrong; i++) {
		if (i >= SECONDS * 10 && !careless && mixed(&before))
			break;
		usleep(100000);
	}
	shared->stop = 1;
	for (int i = 0; i < n; i++) {
		waitpid(child[i], &status, 0);
		failed |= status;
	}
	snprintf(label, sizeof(label), "coherence-%s", name);
	result(!failed && shared->wrong == careless, label, "size %ld, which should be %ld to %ld",
		shared->size, shared->lo, shared->hi);
	snprintf(label, sizeof(label), "coherence-%s-mixed", name);
	c = counts_now();
	result(careless || mixed(&before), label, "%llu hits, %lu asked, %ld changes", c.hits - before.hits,
	       c.asked - before.asked, shared->done);
	unlink(rig_path(r, "grows"));
}

void test_coherence(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	r = rig_new("coherence");
	run("honest", false);
	rig_early(r);
	run("early", false);
	run("careless-seen", true);
	rig_free(r);
}
