# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What must outlive the death of all processes of a service that serves $src on $mnt: a file without a name, and a lock.

# shellcheck disable=SC2154 # mnt, src: of who sources this
open_files() {
	echo precious >"$mnt/unlinked"
	exec 7<>"$mnt/unlinked"
	rm "$mnt/unlinked"
	echo locked >"$mnt/locked"
	exec 8<>"$mnt/locked"
	flock -n 8
}

still_good() {
	[ "$(cat /proc/self/fd/7)" = precious ] && ! flock -n "$mnt/locked" true && [ "$(cat "$mnt/locked")" = locked ] &&
		echo x >"$mnt/x" && [ "$(cat "$src/x")" = x ] && rm "$mnt/x"
}
