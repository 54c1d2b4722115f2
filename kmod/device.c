// SPDX-License-Identifier: GPL-2.0-only
/* /dev/extfuse: one open file of it is one connection's context. */
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "kmod.h"

struct opened {
	struct mutex attaching;
	struct extfuse_context *ctx;	/* set once */
};

static int device_open(struct inode *inode, struct file *file)
{
	struct opened *opened = kzalloc(sizeof(*opened), GFP_KERNEL_ACCOUNT);

	if (!opened)
		return -ENOMEM;
	mutex_init(&opened->attaching);
	file->private_data = opened;
	return nonseekable_open(inode, file);
}

static int device_release(struct inode *inode, struct file *file)
{
	struct opened *opened = file->private_data;

	if (opened->ctx)
		extfuse_detach(opened->ctx);
	kfree(opened);
	return 0;
}

static long version(void __user *to)
{
	struct extfuse_version v = {
		.abi = EXTFUSE_ABI,
		.request_size = sizeof(struct extfuse_request),
		.opcodes = extfuse_answerable(),
	};

	return copy_to_user(to, &v, sizeof(v)) ? -EFAULT : 0;
}

static long attach(struct opened *opened, void __user *from)
{
	struct extfuse_attach arg;
	struct extfuse_context *ctx;
	long err = -EBUSY;

	if (copy_from_user(&arg, from, sizeof(arg)))
		return -EFAULT;
	mutex_lock(&opened->attaching);
	if (!opened->ctx) {
		ctx = extfuse_attach(&arg);
		err = PTR_ERR_OR_ZERO(ctx);
		if (!err)
			smp_store_release(&opened->ctx, ctx);
	}
	mutex_unlock(&opened->attaching);
	return err;
}

static long program(struct extfuse_context *ctx, void __user *from)
{
	struct extfuse_program arg;

	return copy_from_user(&arg, from, sizeof(arg)) ? -EFAULT : extfuse_set_program(ctx, &arg);
}

static long backing(struct extfuse_context *ctx, void __user *from)
{
	struct extfuse_backing arg;

	return copy_from_user(&arg, from, sizeof(arg)) ? -EFAULT : extfuse_set_backing(ctx, &arg);
}

static long standing(struct extfuse_context *ctx, void __user *from)
{
	struct extfuse_standing arg;

	return copy_from_user(&arg, from, sizeof(arg)) ? -EFAULT : extfuse_set_standing(ctx, &arg);
}

static long stats(struct extfuse_context *ctx, void __user *to)
{
	struct extfuse_stats *sum = kmalloc(sizeof(*sum), GFP_KERNEL);
	long err = 0;

	if (!sum)
		return -ENOMEM;
	extfuse_sum_stats(ctx, sum);
	if (copy_to_user(to, sum, sizeof(*sum)))
		err = -EFAULT;
	kfree(sum);
	return err;
}

static long device_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct opened *opened = file->private_data;
	struct extfuse_context *ctx = smp_load_acquire(&opened->ctx);
	void __user *user = (void __user *)arg;

	switch (command) {
	case EXTFUSE_IOC_VERSION:
		return version(user);
	case EXTFUSE_IOC_ATTACH:
		return attach(opened, user);
	case EXTFUSE_IOC_PROGRAM:
		return ctx ? program(ctx, user) : -ENOTCONN;
	case EXTFUSE_IOC_BACKING:
		return ctx ? backing(ctx, user) : -ENOTCONN;
	case EXTFUSE_IOC_STANDING:
		return ctx ? standing(ctx, user) : -ENOTCONN;
	case EXTFUSE_IOC_STATS:
		return ctx ? stats(ctx, user) : -ENOTCONN;
	default:
		return -ENOTTY;
	}
}

static int device_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct opened *opened = file->private_data;
	struct extfuse_context *ctx = smp_load_acquire(&opened->ctx);

	return ctx ? remap_vmalloc_range(vma, ctx->area, vma->vm_pgoff) : -ENOTCONN;
}

static const struct file_operations device_operations = {
	.owner = THIS_MODULE,
	.open = device_open,
	.release = device_release,
	.unlocked_ioctl = device_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = device_mmap,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "extfuse",
	.fops = &device_operations,
	.mode = 0600,
};

int extfuse_device_init(void)
{
	return misc_register(&device);
}

void extfuse_device_exit(void)
{
	misc_deregister(&device);
}
