# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: libextfuse with the module.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
check load insmod "$FE_BUILD/extfuse.ko"
mkdir "$scratch/mnt"
for program in hook hook_values; do
	rc=0
	"$FE_BUILD/tests/vm/$program" "$scratch" "$FE_BUILD/examples/extfuse" || rc=$?
	same "$program" 0 "$rc"
done
drop_mounts "$scratch"
check unload wait_until 10 rmmod extfuse
finish
