# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: the example of libextfuse with libfuse, with the hook.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
mirror=$FE_BUILD/examples/extfuse/mirror
[ -x "$mirror" ] || skip_all "needs libfuse (scripts/install-deps installs it)"
src=$scratch/src
mnt=$scratch/mnt

is_mounted() {
	awk -v m="$mnt" '$5 == m { found = 1 } END { exit !found }' /proc/self/mountinfo
}

# upcalls_of WHAT
upcalls_of() {
	getfattr --only-values --absolute-names -n user.upcalls "$mnt" 2>/dev/null | grep -oE "\<$1=[0-9]+" | cut -d= -f2
}

stats() {
	stat -c '%n %s %a' "$mnt/dir/file" "$mnt/link" "$mnt/dir/absent" 2>/dev/null || true
}

settled() {
	local before
	stats >"$scratch/out"
	before=$(upcalls_of lookup)
	stats >"$scratch/out"
	[ "$before" = "$(upcalls_of lookup)" ]
}

# The kernel may keep nothing of itself: what nobody is asked the hook has answered.
answered() {
	local before
	check settled wait_until 30 settled
	before=$(upcalls_of lookup)
	for _ in 1 2 3 4 5; do
		stats >"$scratch/seen"
	done
	same no-lookup "$before" "$(upcalls_of lookup)"
	same seen "$mnt/dir/file 5 644,$mnt/link 8 777" "$(paste -sd , "$scratch/seen")"
	before=$(upcalls_of getattr)
	stats >"$scratch/seen"
	same no-getattr "$before" "$(upcalls_of getattr)"
	# A server that answers nothing.
	kill -STOP "${helper_pids[-1]}"
	check server-stopped timeout 20 stat -c %s "$mnt/dir/file"
	kill -CONT "${helper_pids[-1]}"
	echo changed >"$src/dir/file"
	check changed wait_until 30 sees_change
}

sees_change() {
	[ "$(stat -c %s "$mnt/dir/file")" = 8 ]
}

insmod "$FE_BUILD/extfuse.ko"
mkdir -p "$src/dir" "$mnt"
echo text >"$src/dir/file"
ln -s dir/file "$src/link"
"$mirror" "$src" "$mnt" -f -o allow_other,default_permissions 2>"$scratch/log" &
helper $!
wait_until 30 is_mounted || { fail mount "$(cat "$scratch/log")"; finish; }
like engine 'engine hook: module' "$(stat "$mnt" >/dev/null; cat "$scratch/log")"
answered
umount "$mnt"
check end wait_until 20 gone "${helper_pids[-1]}"
# And all that it is tested for without.
once_more "$tests_dir/mirror.test"
check unload wait_until 20 rmmod extfuse
finish
