# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: the server is killed again and again under load, on kernels that answer recovery in another way than
# the newest do (6.1 has no FUSE_NOTIFY_RESEND and no FUSE_PASSTHROUGH).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
kills=${VM_KILLS:-100}
killer=$FE_BUILD/tests/crash/killer
clients=$FE_BUILD/tests/crash/clients
seed=$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')

# storm NAME OPTIONS LOAD...: rounds of the load until so many kills are done.
storm() {
	local name=$1 options=$2 rc=0 pid out=$scratch/killer.out
	shift 2
	mkdir -p "$scratch/disk/plain" "$scratch/disk/src"
	mount_fe "$scratch/disk/src" "$scratch/mnt" "suid,dev,recover_limit=1000${options:+,$options}"
	"$killer" --kills "$kills" --seed "$seed" --min 20000 --max 100000 "$scratch/mnt" >"$out" 2>&1 &
	pid=$!
	helper "$pid"
	while [ $rc = 0 ] && ! gone "$pid"; do
		"$@" >"$scratch/load.out" 2>&1 || rc=$?
	done
	if [ $rc = 0 ]; then
		ok "$name (seed $seed)"
	else
		fail "$name" "seed $seed, status $rc
$(tail -n 30 "$scratch/load.out")
$(tail -n 10 "${server_log[$scratch/mnt]}")"
	fi
	kill "$pid" 2>/dev/null || true
	check "$name-killer" grep "^killer: .* $kills kills$" "$out"
	check "$name-nothing-left" nothing_left "$scratch/mnt" 60
	umount_fe "$scratch/mnt"
	rm -rf "$scratch/disk/plain" "$scratch/disk/src"
}

hammer() {
	mkdir -p "$scratch/mnt/hammer" &&
	"$FE_TOOLS/hammer" --procs 4 --steps 64 "$scratch/mnt/hammer" &&
	rm -rf "$scratch/mnt/hammer"
}

# Locks, mappings, O_DIRECT, and files without names.
all_clients() {
	mkdir -p "$scratch/mnt/clients" &&
	"$clients" --procs 3 --steps 60 all "$scratch/mnt/clients" &&
	rm -rf "$scratch/mnt/clients"
}

truncate -s 400M "$scratch/image"
mkfs.ext4 -q "$scratch/image"
mkdir "$scratch/disk"
mount -o loop "$scratch/image" "$scratch/disk"
storm hammer '' hammer
storm hammer-nopassthrough nopassthrough hammer
storm clients '' all_clients
finish
