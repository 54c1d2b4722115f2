# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest whose first process is systemd: the unit that is shipped, and the manager's descriptor store.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"
# shellcheck source=tests/mount/service.sh
. "$tests_dir/service.sh"

need_root
kills=${VM_SERVICE_KILLS:-10}
unit=fuse-extent@test
mnt=$scratch/mnt
src=$scratch/src

property() {
	systemctl show -P "$1" "$unit"
}

# What the service says goes to a file: there is no journal here.
drop_in=/run/systemd/system/fuse-extent@.service.d
mkdir -p "$drop_in" "$src" "$mnt"
printf '[Service]\nStandardError=append:%s\n' "$scratch/service.log" >"$drop_in/log.conf"
configure() { # OPTIONS
	printf 'SOURCE=passthrough:%s\nMOUNTPOINT=%s\nOPTIONS=allow_other,recover_limit=1000%s\n' "$src" "$mnt" "$1" \
		>/etc/fuse-extent/test.conf
}

starts() {
	systemctl daemon-reload
	systemctl start "$unit" || { systemctl status "$unit" || true; cat "$scratch/service.log"; return 1; }
	mounted "$mnt" && [ "$(property ActiveState)" = active ]
}

restarted() {
	[ "$(property NRestarts)" -gt "$1" ] && [ "$(property ActiveState)" = active ]
}

all_die() {
	local before
	before=$(property NRestarts)
	systemctl kill -s KILL "$unit"
	wait_until 60 restarted "$before"
}

# Ends when enough is there.
load() {
	while [ ! -e "$scratch/enough" ]; do
		mkdir -p "$mnt/hammer"
		"$FE_TOOLS/hammer" --procs 4 --steps 64 "$mnt/hammer" || return 1
		rm -rf "$mnt/hammer"
	done
}

under_load() {
	local pid count
	load >"$scratch/load.out" 2>&1 &
	pid=$!
	helper "$pid"
	for ((count = 0; count < kills; count++)); do
		all_die || { echo "not started again"; systemctl status "$unit" || true; tail -n 5 "$scratch/service.log"; return 1; }
		still_good || { echo "after $count deaths"; tail -n 5 "$scratch/service.log"; return 1; }
	done
	touch "$scratch/enough"
	wait "$pid" || { cat "$scratch/load.out"; return 1; }
}

# Some of its processes: the service goes on, and systemd knows who the main one is.
some_die() {
	local before main
	before=$(property NRestarts)
	main=$(property MainPID)
	kill -9 "$(json_number worker_pid)"
	wait_until 20 recovered && still_good || return 1
	kill -9 "$main"
	wait_until 20 other_main "$main" && still_good || return 1
	[ "$(property NRestarts)" = "$before" ]
}

json_number() {
	status_json "$mnt" | grep -oE "\"$1\":[0-9]+" | head -n 1 | cut -d: -f2
}

recovered() {
	[[ $(property StatusText) == *recovered* ]]
}

other_main() {
	local main
	main=$(property MainPID)
	[ "$main" != "$1" ] && [ "$main" = "$(json_number keeper_pid)" ]
}

stored() {
	property NFileDescriptorStore
}

# With nothing mounted and nothing stored.
has_ended() {
	[ "$(property ActiveState), $(property Result), $(stored)" = "inactive, success, 0" ] && ! mounted "$mnt"
}

end_well() {
	wait_until 20 has_ended || { systemctl status "$unit" || true; tail -n 5 "$scratch/service.log"; return 1; }
}

stops() {
	systemctl stop "$unit" && end_well
}

# What the module has granted while nobody served, too, is known to who goes on.
hook_goes_on() {
	status_json "$mnt" | grep -q '"engine":"hook, exact"' && [ "$(json_number hits)" -gt 0 ]
}

unmounted() {
	configure ''
	systemctl start "$unit"
	mounted "$mnt"
	umount "$mnt"
	end_well
}

check load insmod "$FE_BUILD/extfuse.ko"
configure ,cache=exact,entry_timeout=3600,attr_timeout=3600,negative_timeout=3600
check starts starts || finish
open_files
check stored test "$(stored)" -ge 3
check all-die all_die && check goes-on still_good
check hook-goes-on hook_goes_on
check under-load under_load
check some-die some_die
check all-die-after-that all_die && check goes-on-after-that still_good
exec 7<&- 8<&-
check hook-goes-on-after-that hook_goes_on
check counts nothing_left "$mnt" 60
check stops stops
check unload wait_until 20 rmmod extfuse
check unmounted unmounted
finish
