# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: set-id bits and reserved blocks where the kernel itself writes to the source's files, with the hook: that
# is the driver since Linux 6.9, and the module before.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
src=$scratch/src
mnt=$scratch/mnt
mkdir "$src" "$mnt"
insmod "$FE_BUILD/extfuse.ko"
mount_fe "$src" "$mnt" cache=exact
like engine '"engine":"hook' "$(status_json "$mnt")"
case $(uname -r) in
6.1.*) like by-the-module 'the module extfuse reads and writes the backing files' "$(status_json "$mnt")" ;;
*) like by-the-driver '"passthrough":[{]"in_use":true,"reason":"the kernel reads and writes' "$(status_json "$mnt")" ;;
esac
umount_fe "$mnt"
FE_OPTIONS=cache=exact once_more "$tests_dir/setid.test"
check unload wait_until 20 rmmod extfuse
finish
