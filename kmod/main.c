// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>

#include "kmod.h"
#include "version.h"

static int __init extfuse_init(void)
{
	int err = extfuse_answers_init();

	if (err)
		return err;
	err = extfuse_remember_init();
	if (err)
		goto answers;
	err = extfuse_hook();
	if (err)
		goto remember;
	err = extfuse_device_init();
	if (!err)
		return 0;
	extfuse_unhook();
remember:
	extfuse_remember_exit();
answers:
	extfuse_answers_exit();
	return err;
}

static void __exit extfuse_exit(void)
{
	extfuse_device_exit();
	extfuse_unhook();
	extfuse_remember_exit();
	extfuse_answers_exit();
}

module_init(extfuse_init);
module_exit(extfuse_exit);
MODULE_DESCRIPTION("Answers requests of FUSE mounts from BPF programs of their servers");
MODULE_LICENSE("GPL");
MODULE_VERSION(EXTFUSE_MODULE_VERSION);
