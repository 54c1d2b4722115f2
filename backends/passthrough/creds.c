/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The credentials of a worker thread.
 *
 * The kernel has checked permissions before a request comes (default_permissions), so most of them
 * run as the server. The caller's ids are taken on where they end up on disk, or where having the
 * server's would give the caller something: the owner of a new file, set-id bits that survive a write,
 * blocks reserved for root. Raw system calls: glibc's wrappers change every thread of the process.
 */
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backends/passthrough/passthrough.h"

#define BIT(cap) (1u << (cap))

/* What the kernel takes from the effective set when fsuid leaves 0, and gives back with it. */
#define FS_CAPS (BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_FOWNER) | \
		 BIT(CAP_FSETID) | BIT(CAP_LINUX_IMMUTABLE) | BIT(CAP_MKNOD))

/* An id that owns nothing and for which no file system reserves blocks. */
#define NOBODY (UINT32_MAX - 1)

static __thread struct {
	bool ready;
	uint32_t fsuid;
	uint32_t fsgid;
	uint32_t group;
	uint32_t permitted;
	uint32_t effective;
} creds;

static int cap_call(long number, uint32_t effective)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { 0 } };

	if (syscall(SYS_capget, &head, data))
		return -errno;
	if (number == SYS_capget) {
		creds.permitted = data[0].permitted;
		creds.effective = data[0].effective;
		return 0;
	}
	data[0].effective = effective;
	return syscall(SYS_capset, &head, data) ? -errno : 0;
}

/* CAP_SYS_RESOURCE opens reserved blocks and quotas: no request runs with it. */
static uint32_t server_caps(void)
{
	return creds.permitted & ~BIT(CAP_SYS_RESOURCE);
}

static void set(uint32_t uid, uint32_t gid, uint32_t group, uint32_t caps)
{
	if (creds.fsgid != gid) {
		syscall(SYS_setfsgid, gid);
		creds.fsgid = gid;
	}
	if (creds.fsuid != uid) {
		syscall(SYS_setfsuid, uid);
		if (!creds.fsuid)
			creds.effective &= ~FS_CAPS;
		else if (!uid)
			creds.effective |= creds.permitted & FS_CAPS;
		creds.fsuid = uid;
	}
	if (creds.effective != caps && !cap_call(SYS_capset, caps))
		creds.effective = caps;
	if (creds.group != group) {
		syscall(SYS_setgroups, group == FE_NO_GROUP ? 0 : 1, &group);
		creds.group = group;
	}
}

void creds_thread_start(void *b)
{
	struct passthrough *pt = b;

	/* An own umask for each thread. */
	unshare(CLONE_FS);
	if (!pt->privileged)
		return;
	/* It was started by a worker, with the ids that the worker had taken on just then. */
	syscall(SYS_setfsuid, 0);
	syscall(SYS_setfsgid, 0);
	syscall(SYS_setgroups, 0, NULL);
	cap_call(SYS_capget, 0);
	creds.group = FE_NO_GROUP;
	creds.ready = true;
	creds_server(pt);
}

void creds_server(struct passthrough *pt)
{
	if (!pt->privileged || (creds.fsuid == 0 && creds.fsgid == 0 && creds.group == FE_NO_GROUP &&
				creds.effective == server_caps()))
		return;
	if (!creds.ready)
		creds_thread_start(pt);
	set(0, 0, FE_NO_GROUP, server_caps());
}

void creds_create(struct passthrough *pt, const struct fe_request *req)
{
	uint32_t caps = server_caps();

	umask(req->umask);
	if (!pt->privileged)
		return;
	if (req->uid)
		caps = (caps & ~FS_CAPS) |
		       (caps & (BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_MKNOD)));
	set(req->uid, req->gid, req->supp_group, caps);
}

bool keeps_sgid(const struct fe_request *req, const struct stat *st)
{
	return !req->uid || (!(st->st_mode & S_IXGRP) &&
			     (st->st_gid == req->gid || caller_in_group(req->pid, st->st_gid)));
}

void creds_io(struct passthrough *pt, const struct fe_request *req, int fd, uint32_t io_flags)
{
	bool by_kernel = io_flags & FE_IO_CACHE;
	uint32_t uid = by_kernel ? NOBODY : req->uid;
	uint32_t group = FE_NO_GROUP, caps = server_caps();
	struct stat st;

	if (!pt->privileged)
		return;
	if (uid)
		caps &= ~FS_CAPS | BIT(CAP_FSETID);
	if (io_flags & FE_IO_KILL_SUIDGID) {
		caps &= ~BIT(CAP_FSETID);
		if (!fstat(fd, &st) && (st.st_mode & (S_ISGID | S_IXGRP)) == S_ISGID && keeps_sgid(req, &st))
			group = st.st_gid;
	}
	set(uid, by_kernel ? NOBODY : req->gid, group, caps);
}

void creds_truncate(struct passthrough *pt, const struct fe_request *req, int fd, uint32_t io_flags)
{
	creds_io(pt, req, fd, io_flags);
	if (pt->privileged)
		set(creds.fsuid, creds.fsgid, creds.group,
		    creds.effective | (server_caps() & (BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH))));
}

void creds_attr(struct passthrough *pt, const struct fe_request *req)
{
	if (pt->privileged)
		set(0, req->gid, FE_NO_GROUP, server_caps() & ~BIT(CAP_FSETID));
}

/*
 * The kernel does all I/O on a passed-through file with the credentials that registered it, whoever
 * the caller is: with CAP_FSETID a file of mode 6777 kept its mode after a write by anybody.
 */
void creds_backing_begin(void *b)
{
	struct passthrough *pt = b;

	if (pt->privileged)
		set(NOBODY, NOBODY, FE_NO_GROUP, server_caps() & ~FS_CAPS);
}

void creds_backing_end(void *b)
{
	creds_server(b);
}
