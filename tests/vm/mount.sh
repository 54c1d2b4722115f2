# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: the mount program as it is, on a kernel that the machine under it does not have.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
seed=${FSDIFF_SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
tolerate=chown-nothing
# Since Linux 6.6 the kernel asks for birth times, since 6.9 it passes data through.
case $(uname -r) in
6.1.*) tolerate+=,btime ;;
*) passed_through=setid,kept-flags ;;
esac

# difference NAME OPTIONS [TOLERATED]
difference() {
	local base=$scratch/disk
	mkdir -p "$base/plain" "$base/src"
	mount_fe "$base/src" "$scratch/mnt" "suid,dev${2:+,$2}"
	alike "fsdiff-$1" "$seed" --steps "${FSDIFF_STEPS:-600}" --concurrent-steps 200 --tolerate "$tolerate,${3:-}" \
		"$base/plain" "$scratch/mnt"
	umount_fe "$scratch/mnt"
	rm -rf "$base/plain" "$base/src"
}

hammer() {
	mkdir "$scratch/disk/$1"
	mount_fe "$scratch/disk/$1" "$scratch/mnt" "$2"
	check "hammer-$1" "$FE_TOOLS/hammer" --seed "$seed" --procs 8 --steps "${HAMMER_STEPS:-100}" "$scratch/mnt"
	umount_fe "$scratch/mnt"
}

# The tmpfs of Linux 6.1 counts names to tell where a reader of a directory is: one that changes shows some twice.
truncate -s 400M "$scratch/image"
mkfs.ext4 -q "$scratch/image"
mkdir "$scratch/disk"
mount -o loop "$scratch/image" "$scratch/disk"
difference default '' "${passed_through:-}"
difference nopassthrough nopassthrough
hammer default ''
hammer writeback writeback
finish
