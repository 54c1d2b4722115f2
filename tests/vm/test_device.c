/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the device takes, and what it refuses. */
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/vm/rig.h"

static int attach(int dev, int fuse_fd, uint32_t flags, uint32_t bits, uint32_t nodes)
{
	struct extfuse_attach arg = { .fuse_fd = fuse_fd, .flags = flags, .word_bits = bits,
		.nodes = nodes };

	return ioctl(dev, EXTFUSE_IOC_ATTACH, &arg) ? errno : 0;
}

static void refuses(const char *name, int expected, int got)
{
	char label[64];

	snprintf(label, sizeof(label), "device-%s", name);
	result(got == expected, label, "errno %d, expected %d", got, expected);
}

static void test_attaching(int dev, int fuse_fd)
{
	struct extfuse_stats stats;
	int null = open("/dev/null", O_RDWR), unmounted = open("/dev/fuse", O_RDWR);
	int other = open(EXTFUSE_DEVICE, O_RDWR), status;
	pid_t child;

	refuses("not-attached", ENOTCONN, ioctl(dev, EXTFUSE_IOC_STATS, &stats) ? errno : 0);
	refuses("no-area", ENOTCONN, mmap(NULL, 4096, PROT_READ, MAP_SHARED, dev, 0) == MAP_FAILED ?
		errno : 0);
	refuses("null", EBADF, attach(dev, null, 0, 10, 10));
	refuses("closed", EBADF, attach(dev, 9999, 0, 10, 10));
	refuses("not-mounted", EBADF, attach(dev, unmounted, 0, 10, 10));
	refuses("flags", EINVAL, attach(dev, fuse_fd, 1, 10, 10));
	refuses("bits", EINVAL, attach(dev, fuse_fd, 0, 5, 10));
	refuses("more-bits", EINVAL, attach(dev, fuse_fd, 0, 23, 10));
	refuses("nodes", EINVAL, attach(dev, fuse_fd, 0, 10, (1 << 24) + 1));
	child = fork();
	if (!child)
		_exit(unshare(CLONE_NEWUSER) ? 99 : attach(dev, fuse_fd, 0, 10, 10));
	waitpid(child, &status, 0);
	refuses("user-namespace", EPERM, WEXITSTATUS(status));
	refuses("attached", 0, attach(dev, fuse_fd, 0, 10, 0));
	refuses("twice", EBUSY, attach(dev, fuse_fd, 0, 10, 10));
	refuses("second", EBUSY, attach(other, fuse_fd, 0, 10, 10));
	refuses("command", ENOTTY, ioctl(dev, _IO('E', 0x99)) ? errno : 0);
	refuses("address", EFAULT, ioctl(dev, EXTFUSE_IOC_STATS, 8) ? errno : 0);
	refuses("area-size", EINVAL, mmap(NULL, 1 << 24, PROT_READ, MAP_SHARED, dev, 0) == MAP_FAILED ?
		errno : 0);
	close(null);
	close(unmounted);
	close(dev);
	refuses("free-again", 0, attach(other, fuse_fd, 0, 6, 1));
	close(other);
}

void test_device(void)
{
	struct extfuse_version v = { 0 };
	struct mounted *m = fs_mount("/tmp/device");
	int dev = open(EXTFUSE_DEVICE, O_RDWR);
	struct stat st;

	ioctl(dev, EXTFUSE_IOC_VERSION, &v);
	result(v.abi == EXTFUSE_ABI && v.request_size == sizeof(struct extfuse_request) &&
		v.opcodes >> FUSE_LOOKUP & 1 &&
		!(v.opcodes >> FUSE_SETATTR & 1), "device-version", "%u, %u bytes, opcodes %llx", v.abi,
			v.request_size,
		(unsigned long long)v.opcodes);
	stat("/tmp/device", &st);
	stat(EXTFUSE_DEVICE, &st);
	result((st.st_mode & 07777) == 0600, "device-mode", "%o", st.st_mode);
	test_attaching(dev, m->fuse_fd);
	fs_umount(m);
}
