# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: virtiofs, which has the same driver below it, is as it was while the module answers for another mount.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
shared=$scratch/shared
mkdir "$shared" "$scratch/mnt"
modprobe -q virtio_pci || true
modprobe -q virtiofs || true

# The hook comes, answers, and goes, as often as there is time.
answers() {
	while [ ! -e "$scratch/enough" ]; do
		"$FE_BUILD/tests/vm/hook" "$scratch" >"$scratch/hook.out" 2>&1 || { cat "$scratch/hook.out"; return 1; }
		touch "$scratch/once"
	done
}

sums() {
	(cd "$1" && find tests -type f -exec sha256sum {} + | sort -k 2)
}

same_tree() {
	cp -a /fe/tests "$shared/tests" && [ "$(sums "$shared")" = "$(sums /fe)" ] && rm -r "$shared/tests"
}

check mount mount -t virtiofs shared "$shared" || finish
check load insmod "$FE_BUILD/extfuse.ko"
answers &
pid=$!
helper "$pid"
for round in 1 2 3; do
	check "tree-$round" same_tree
	mkdir "$shared/hammer"
	check "hammer-$round" "$FE_TOOLS/hammer" --procs 4 --steps 64 "$shared/hammer"
	rm -rf "$shared/hammer"
done
wait_until 60 test -e "$scratch/once"
touch "$scratch/enough"
rc=0
wait "$pid" || rc=$?
same answers 0 "$rc"
[ $rc = 0 ] || cat "$scratch/hook.out"
drop_mounts "$scratch"
check unload wait_until 10 rmmod extfuse
finish
