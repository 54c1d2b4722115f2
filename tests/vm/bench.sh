# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest whose clock counts instructions: what bench/hook measures, on each file system in turn. Needs
# git and tar there (boot -p), and /fe/data/tree.tar (boot -d).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
cost=$FE_BUILD/tests/vm/cost
tarball=/fe/data/tree.tar
mnt=$scratch/mnt
long=entry_timeout=3600,attr_timeout=3600,negative_timeout=3600
export GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@x

in_tree() { # DIRECTORY COMMAND...
	(cd "$1/tree" && "${@:2}")
}

prepare() {
	head -c 4096 /dev/zero >"$1/file"
	setfattr -n trusted.x -v 1 "$1/file" 2>/dev/null || true
	mkdir "$1/tree" "$1/fresh"
	tar -C "$1/tree" -xf "$tarball"
	in_tree "$1" git init -q
	in_tree "$1" git add .
	in_tree "$1" git commit -qm x
	in_tree "$1" git status >/dev/null
}

# all KIND DIRECTORY
all() {
	prepare "$2"
	"$cost" calls "$1" "$2"
	in_tree "$2" "$cost" command "$1" ls-l ls -lR .
	in_tree "$2" "$cost" command "$1" du du -s .
	in_tree "$2" "$cost" command "$1" git-status git status
	(cd "$2/fresh" && "$cost" fresh "$1" untar tar -xf "$tarball")
}

# served KIND OPTIONS
served() {
	local src=$scratch/$1
	mkdir "$src"
	mount_fe "$src" "$mnt" "$2"
	all "$1" "$mnt"
	umount_fe "$mnt"
	rm -rf "$src"
}

# The kernel has work of its own for some seconds after it booted; here they take none.
sleep 5
mkdir "$mnt" "$scratch/tmpfs"
all tmpfs "$scratch/tmpfs"
rm -rf "$scratch/tmpfs"
served off cache=off,entry_timeout=0,attr_timeout=0,negative_timeout=0
served native "cache=native,$long"
insmod "$FE_BUILD/extfuse.ko"
served exact "cache=exact,$long"
served hook "cache=hook,$long"
rmmod extfuse
ok measured
finish
