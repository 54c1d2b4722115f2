# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: the server is killed again and again under load, and replaced, on kernels that answer recovery in another way than
# the newest do (6.1 has no FUSE_NOTIFY_RESEND and no FUSE_PASSTHROUGH).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
kills=${VM_KILLS:-100}
killer=$FE_BUILD/tests/crash/killer
clients=$FE_BUILD/tests/crash/clients
seed=$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')

# storm NAME OPTIONS WHO LOAD...: rounds of the load until so many kills are done.
storm() {
	local name=$1 options=$2 who=$3 rc=0 pid out=$scratch/killer.out
	shift 3
	mkdir -p "$scratch/disk/plain" "$scratch/disk/src"
	mount_fe "$scratch/disk/src" "$scratch/mnt" "suid,dev,recover_limit=1000${options:+,$options}"
	"$killer" --kills "$kills" --seed "$seed" --who "$who" --min 20000 --max 100000 "$scratch/mnt" >"$out" 2>&1 &
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
	umount_served "$scratch/mnt"
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

# The program takes over from itself, while it serves.
upgrades() {
	local i rc=0 pid
	mkdir "$scratch/disk/src"
	mount_fe "$scratch/disk/src" "$scratch/mnt" recover_limit=1000
	(until [ -e "$scratch/enough" ]; do hammer || exit 1; done) >"$scratch/load.out" 2>&1 &
	pid=$!
	helper "$pid"
	for i in 1 2 3 4 5; do
		check "upgrade-$i" "$FECTL" upgrade "$scratch/mnt"
	done
	touch "$scratch/enough"
	wait "$pid" || rc=$?
	[ $rc = 0 ] || cat "$scratch/load.out"
	same upgrades-load 0 "$rc"
	check upgrades-nothing-left nothing_left "$scratch/mnt" 60
	umount_fe "$scratch/mnt"
	rm -r "$scratch/disk/src"
}

truncate -s 400M "$scratch/image"
mkfs.ext4 -q "$scratch/image"
mkdir "$scratch/disk"
mount -o loop "$scratch/image" "$scratch/disk"
storm hammer '' worker hammer
storm hammer-nopassthrough nopassthrough worker hammer
storm clients '' worker all_clients
kills=$((kills * 2 / 5)) storm keeper '' worker,keeper all_clients
upgrades
finish
