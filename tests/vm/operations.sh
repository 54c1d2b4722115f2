# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: each operation with the hook on, with deaths of the server at some of its numbered steps
# (tests/crash/operations.c), which a build with kill points has. VM_DEATHS: how many for each operation; 0 for one
# at each step, which takes very long (-t of boot, VM_SCRIPT_LIMIT).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
seed=$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')
deaths=${VM_DEATHS:-1}
tool=$FE_BUILD/crash/tests/crash/operations
FE=$FE_BUILD/crash/programs/fuse-extent
[ -x "$tool" ] || skip_all "there is no build with kill points in crash/ of the build directory"

# Two at a time: the hook alone, and besides the driver's own caches, without its passing data through.
begin() { # NAME OPTIONS
	mkdir -p "$scratch/disk/$1"
	mount_fe "$scratch/disk/$1" "$scratch/$1" "recover_limit=1000,attr_timeout=3600,negative_timeout=3600,$2"
	"$tool" --sample "$deaths" --seed "$seed" ${VM_ONLY:+--only "$VM_ONLY"} "$scratch/$1" >"$scratch/$1.out" 2>&1 &
	pid[$1]=$!
	helper $!
}

end() { # NAME
	local rc=0
	wait "${pid[$1]}" || rc=$?
	told "$scratch/$1.out" "$1/"
	same "$1-all (seed $seed)" 0 "$rc"
	like "$1-hook" '"engine":"hook.*"hits":[1-9]' "$(status_json "$scratch/$1")"
	check "$1-nothing-left" nothing_left "$scratch/$1" 60
	umount_fe "$scratch/$1"
}

declare -A pid
truncate -s 400M "$scratch/image"
mkfs.ext4 -q "$scratch/image"
mkdir -p "$scratch/disk"
mount -o loop "$scratch/image" "$scratch/disk"
check load insmod "$FE_BUILD/extfuse.ko"
begin exact cache=exact,entry_timeout=3600
begin hook cache=hook,entry_timeout=0,nopassthrough
end exact
end hook
# Whole seconds are all that some file systems keep: what was made before a death is known all the same.
coarse() {
	local name rc
	mkfs.ext4 -q -I 128 "$scratch/image" 2>"$scratch/out"
	mount -o loop "$scratch/image" "$scratch/disk"
	mkdir "$scratch/disk/coarse"
	mount_fe "$scratch/disk/coarse" "$scratch/coarse" recover_limit=1000,cache=native,entry_timeout=0
	for name in mkdir create mknod symlink; do
		rc=0
		"$tool" --sample 6 --seed "$seed" --only "$name" "$scratch/coarse" >"$scratch/out" 2>&1 || rc=$?
		same "coarse-$name (seed $seed)" "0 " "$rc $(grep ^FAIL "$scratch/out")"
	done
	umount_fe "$scratch/coarse"
}

check unload wait_until 20 rmmod extfuse
umount "$scratch/disk"
coarse
finish
