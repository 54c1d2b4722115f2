# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: the kernel module, with servers and handlers of its own (module_test.c).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
module=$FE_BUILD/extfuse.ko
export VM_PROGRAMS=$FE_BUILD/tests/vm VM_MODULE=$module

loaded() {
	[ -d /sys/module/extfuse ] && [ -c /dev/extfuse ]
}

check load insmod "$module"
check device loaded
rc=0
"$VM_PROGRAMS/module_test" || rc=$?
case $rc in
0) ok "all of module_test" ;;
*) fail "all of module_test" "it ended with status $rc" ;;
esac

# The module comes and goes while requests of other mounts pass its hooks, and not while it is in use.
mkdir -p "$scratch/src"
echo text >"$scratch/src/file"
mount_fe "$scratch/src" "$scratch/mnt" cache=native,attr_timeout=0,entry_timeout=0
load() {
	while [ ! -e "$scratch/stop" ]; do
		cat "$scratch/mnt/file" >"$scratch/seen.$1"
		[ "$(cat "$scratch/seen.$1")" = text ] || echo wrong >"$scratch/wrong"
		: >"$scratch/mnt/new.$1"
		rm "$scratch/mnt/new.$1"
	done
}
load 1 &
helper $!
load 2 &
helper $!
cycles=0
for _ in 1 2 3 4 5 6 7 8 9 10; do
	rmmod extfuse && insmod "$module" && cycles=$((cycles + 1))
done
same cycles-under-load 10 "$cycles"
exec 5<>/dev/extfuse
refused unload-in-use 'in use' rmmod extfuse
exec 5>&-
touch "$scratch/stop"
wait_until 20 gone "${helper_pids[0]}" && wait_until 20 gone "${helper_pids[1]}"
same load-undisturbed '' "$(cat "$scratch/wrong" 2>/dev/null || true)"
umount_fe "$scratch/mnt"
check unload rmmod extfuse
finish
