/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a restarted service is handed by its manager: $LISTEN_FDS descriptors from 3 on, whose names are
 * those that store.c gave them. Each goes back to its number. A number that was kept and does not come is
 * taken by a placeholder, so that nothing else gets it, before anybody opens a file.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libfuserecover/internal.h"

#define FIRST	3	/* SD_LISTEN_FDS_START */

static struct handed handed;

const struct handed *fr_handed(void)
{
	return &handed;
}

static void refuse(const char *why)
{
	fprintf(stderr, STORE_NAME ": what the service manager had stored can not be taken over: %s\n", why);
}

/* ---- the names ---- */

static int number_of(const char *text)
{
	long n = 0;

	if (!*text || *text == '0')
		return -EBADMSG;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EBADMSG;
		n = n * 10 + (*text - '0');
		if (n >= FDS_MOST)
			return -EBADMSG;
	}
	return n < FIRST ? -EBADMSG : (int)n;
}

int fr_store_names(const char *names, unsigned count, int *numbers, const char **why)
{
	size_t prefix = strlen(STORE_NAME);
	unsigned n = 0, ours = 0, memory = 0;
	int err = 0;

	for (const char *at = names; at; n++) {
		size_t len = strcspn(at, ":");
		char name[NAME_SIZE];

		if (n == count) {
			*why = "there are more names than descriptors";
			return ours || !strncmp(at, STORE_NAME, prefix) ? -EBADMSG : -ENOENT;
		}
		numbers[n] = STORE_FOREIGN;
		if (!strncmp(at, STORE_NAME, prefix) && (len == prefix || at[prefix] == '-')) {
			snprintf(name, sizeof(name), "%.*s", (int)len, at);
			numbers[n] = len == prefix ? STORE_MEMORY :
				     len >= NAME_SIZE ? -EBADMSG : number_of(name + prefix + 1);
			memory += numbers[n] == STORE_MEMORY;
			ours++;
		}
		if (numbers[n] == -EBADMSG)
			err = -EBADMSG;
		at = at[len] ? at + len + 1 : NULL;
	}
	if (!ours)
		return -ENOENT;
	*why = n != count ? "there are fewer names than descriptors" :
	       ours != n ? "there are others than the service's own" : "a name has no number that can be one";
	if (err || n != count || ours != n)
		return -EBADMSG;
	*why = memory ? "there are two memory files" : "the memory file is missing";
	return memory == 1 ? 0 : -EBADMSG;
}

/* ---- the numbers ---- */

struct mover {
	unsigned size;
	unsigned *at;		/* index + 1 into handed.item of what has this number now */
};

static int note_at(struct mover *m, unsigned item, int fd)
{
	if ((unsigned)fd >= m->size)
		return -EMFILE;
	m->at[fd] = item + 1;
	handed.item[item].at = fd;
	return 0;
}

/* Whoever is on a number that is another one's goes elsewhere, once or several times. */
static int clear_number(struct mover *m, int number)
{
	unsigned item = m->at[number];
	int fd;

	if (!item)
		return fcntl(number, F_GETFD) < 0 ? 0 : -EBADMSG;
	fd = fcntl(number, F_DUPFD_CLOEXEC, FIRST);
	m->at[number] = 0;
	return fd < 0 ? -errno : note_at(m, item - 1, fd);
}

static int move(struct mover *m, unsigned item)
{
	int number = handed.item[item].number, from = handed.item[item].at, err;

	if (number < 0 || number == from)
		return 0;
	if ((unsigned)number >= m->size)
		return -EMFILE;
	err = clear_number(m, number);
	if (err)
		return err;
	if (dup3(from, number, O_CLOEXEC) < 0)
		return -errno;
	close(from);
	m->at[from] = 0;
	return note_at(m, item, number);
}

static int add_item(struct mover *m, int number, int fd, bool came)
{
	struct handed_fd *more = realloc(handed.item, (handed.count + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	handed.item = more;
	more[handed.count] = (struct handed_fd){ .number = number, .at = fd, .came = came };
	return note_at(m, handed.count++, fd);
}

/* ---- what is missing ---- */

/* The map of the checkpoint as it lies there: all that it may name. Its end, or a negative errno. */
static int read_map(int fd, unsigned char **map)
{
	struct cp_layout l;
	uint32_t grown;
	struct stat st;
	uint64_t offset;

	if (fstat(fd, &st) || pread(fd, &l, sizeof(l), offsetof(struct cp_header, layout)) != sizeof(l) ||
	    pread(fd, &grown, sizeof(grown), offsetof(struct cp_header, fds_grown)) != sizeof(grown))
		return -EBADMSG;
	/* fr_adopt() says more about what is no checkpoint of this version. */
	if (l.magic != CP_MAGIC || l.abi != CP_ABI || !l.page || l.slots > FR_SLOTS_MAX || grown > FDS_MOST)
		return 0;
	offset = fr_map_offset(&l);
	if (offset + grown > (uint64_t)st.st_size)
		return 0;
	*map = malloc(grown + 1);
	if (!*map)
		return -ENOMEM;
	return pread(fd, *map, grown, (off_t)offset) == (ssize_t)grown ? (int)grown : -EBADMSG;
}

static int add_placeholders(struct mover *m, int memory)
{
	unsigned char *map = NULL;
	int end = read_map(memory, &map), root, err = end < 0 ? end : 0;

	for (int fd = FIRST; !err && fd < end; fd++) {
		unsigned on = (unsigned)fd < m->size ? m->at[fd] : 0;

		if ((FD_OWNER(map[fd]) != FD_CALLERS && !(map[fd] & FD_STORED)) ||
		    (on && handed.item[on - 1].number == fd))
			continue;
		root = open("/", O_PATH | O_CLOEXEC);
		err = root < 0 ? -errno : add_item(m, fd, root, false);
		err = err ? err : move(m, handed.count - 1);
	}
	free(map);
	return err;
}

static int move_all(void)
{
	struct mover m = { 0 };
	struct rlimit limit;
	unsigned came = handed.count;
	int err = 0;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return -errno;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	m.size = limit.rlim_cur < FDS_MOST ? (unsigned)limit.rlim_cur : FDS_MOST;
	m.at = calloc(m.size, sizeof(*m.at));
	if (!m.at)
		return -ENOMEM;
	for (unsigned i = 0; !err && i < came; i++)
		if (handed.item[i].number != STORE_CLOSED)
			err = note_at(&m, i, handed.item[i].at);
	for (unsigned i = 0; !err && i < came; i++)
		err = move(&m, i);
	for (unsigned i = 0; !err && i < came; i++)
		if (handed.item[i].number == STORE_MEMORY) {
			err = add_placeholders(&m, handed.item[i].at);
			handed.fd = handed.item[i].at;
		}
	free(m.at);
	return err;
}

/* ---- from outside ---- */

/* A removal was lost, and the order in which they came does not say which is the right one. */
static int find_doubles(void)
{
	unsigned *seen = calloc(FDS_MOST, sizeof(*seen));

	if (!seen)
		return -ENOMEM;
	for (unsigned i = 0; i < handed.count; i++) {
		struct handed_fd *item = &handed.item[i];

		if (item->number < 0)
			continue;
		if (seen[item->number]) {
			handed.item[seen[item->number] - 1].doubtful = true;
			close(item->at);
			item->number = STORE_CLOSED;
		} else {
			seen[item->number] = i + 1;
		}
	}
	free(seen);
	return 0;
}

static int take_names(const char *names, unsigned count)
{
	int *numbers = calloc(count, sizeof(*numbers));
	const char *why = "no memory";
	int err = -ENOMEM;

	handed.item = calloc(count, sizeof(*handed.item));
	if (numbers && handed.item)
		err = fr_store_names(names, count, numbers, &why);
	for (int i = 0; err != -ENOENT && handed.item && numbers && i < (int)count; i++)
		handed.item[handed.count++] = (struct handed_fd){ .number = numbers[i], .at = FIRST + i, .came = true };
	if (err && err != -ENOENT)
		refuse(why);
	free(numbers);
	return err;
}

int fr_stored(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
	long count = fds ? strtol(fds, NULL, 10) : 0;
	int err;

	if (!pid || strtol(pid, NULL, 10) != getpid() || !names || count < 1 || count > (long)FDS_MOST)
		return -ENOENT;
	handed.names = strdup(names);
	err = take_names(names, (unsigned)count);
	if (err == -ENOENT)
		return err;
	for (unsigned i = 0; i < (unsigned)count; i++)
		fcntl(FIRST + (int)i, F_SETFD, FD_CLOEXEC);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	unsetenv("LISTEN_PIDFDID");
	if (err)
		return err;
	err = find_doubles();
	err = err ? err : move_all();
	if (err)
		refuse(err == -EMFILE || err == -EBADF || err == -EINVAL ?
		       "the limit of open files is too low (LimitNOFILE=)" : strerror(-err));
	return err ? err : handed.fd;
}

PUBLIC int fr_store_clear(void)
{
	char *names = handed.names, *at, text[NAME_SIZE + 64];
	int err = 0;

	while (names && (at = strsep(&names, ":"))) {
		if (strncmp(at, STORE_NAME, strlen(STORE_NAME)))
			continue;
		snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%.*s", NAME_SIZE, at);
		err = fr_notify(text);
	}
	for (unsigned i = 0; i < handed.count; i++)
		if (handed.item[i].number >= STORE_MEMORY)
			close(handed.item[i].at);
	free(handed.names);
	free(handed.item);
	handed = (struct handed){ .fd = -1 };
	return err;
}
