# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: the last descriptors of the device are closed while others use the mount, as the server is killed or
# unmounted; and the module goes, and comes again.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
module=$FE_BUILD/extfuse.ko
src=$scratch/src
mnt=$scratch/mnt
rounds=${VM_ROUNDS:-2}
clients=3

# The folder is there on the mount only. What fails because nobody serves is as it has to be.
use() {
	local i=0 file=$mnt/dir/$1
	trap - ERR
	set +e
	while [ ! -e "$scratch/stop" ]; do
		i=$((i + 1))
		[ -e "$file" ] && [ ! -e "$mnt/dir/absent" ] && echo "$i" >"$file"
		((i % 4)) || chmod 64$((i % 8)) "$file"
		((i % 4)) || mv "$file" "$file.moved"
		((i % 4)) || mv "$file.moved" "$file"
	done >"$scratch/use.$1" 2>&1
}

at_work() {
	local status
	status=$(status_json "$mnt")
	[[ $status =~ \"cache_hits\":\{[^}]*\"LOOKUP\":[1-9][0-9] && $status =~ \"requests\":\{[^}]*\"SETATTR\":[1-9] ]]
}

# The processes of this mount.
servers() {
	local f
	for f in /proc/[0-9]*; do
		if [ "$f/exe" -ef "$FE" ] && grep -qF "$mnt" "$f/cmdline"; then
			echo "${f##*/}"
		fi
	done 2>/dev/null
}

none_serves() {
	local pid
	for pid in $(servers); do
		kill -9 "$pid" 2>/dev/null || true
	done
	[ -z "$(servers)" ]
}

forget_server() {
	wait "${server_pid[$mnt]}" || true
	unset "server_pid[$mnt]"
}

cycle() { # the module goes while others try to use the mount
	wait_until 30 rmmod extfuse && insmod "$module"
}

one_round() { # WAY
	local pid
	case $1 in
	killed)
		check "$1-none-serves" wait_until 20 none_serves
		check "$1-cycle" cycle
		umount -l "$mnt"
		forget_server
		;;
	recovered)
		pid=$(status_of "$mnt" worker_pid)
		kill -9 "$pid"
		check "$1-work" wait_until 30 another_works "$pid"
		umount -l "$mnt"
		server_well "$mnt"
		check "$1-cycle" cycle
		;;
	unmounted)
		umount -l "$mnt"
		server_well "$mnt"
		check "$1-cycle" cycle
		;;
	esac
}

another_works() {
	[ "$(status_of "$mnt" worker_pid)" != "$1" ] && at_work
}

mkdir -p "$src/dir" "$mnt"
insmod "$module"
for ((c = 0; c < clients; c++)); do
	use "$c" &
	helper $!
done
for ((n = 0; n < rounds; n++)); do
	for way in killed unmounted recovered; do
		for ((c = 0; c < clients; c++)); do
			echo text >"$src/dir/$c"
		done
		mount_fe "$src" "$mnt" cache=exact
		check "$way-at-work" wait_until 60 at_work
		one_round "$way"
	done
done
touch "$scratch/stop"
for pid in "${helper_pids[@]}"; do
	check client-ends wait_until 60 gone "$pid"
done
check unload wait_until 20 rmmod extfuse
finish
