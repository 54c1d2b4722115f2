# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What scripts/* share. `top` is the root of the tree.

set -eu
export LC_ALL=C
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
logs=$top/build/logs

die() {
	printf '%s: %s\n' "$(basename "$0")" "$1" >&2
	exit "${2:-1}"
}

# say TEXT: where the script is; replaced by the next one on a terminal.
say() {
	if [ -t 1 ]; then
		printf '\r\033[K%s' "$1"
	else
		printf '%s\n' "$1"
	fi
}

# line TEXT: stays.
line() {
	if [ -t 1 ]; then
		printf '\r\033[K%s\n' "$1"
	else
		printf '%s\n' "$1"
	fi
}

# logged NAME COMMAND...: output to a log, its tail is shown where the command fails.
logged() {
	local name=$1 log="$logs/$1.log" rc=0
	shift
	mkdir -p "$logs"
	say "$name ..."
	"$@" >"$log" 2>&1 </dev/null || rc=$?
	[ $rc = 0 ] && return 0
	line "$name failed with status $rc, the end of $log:"
	tail -n 40 "$log" | sed 's/^/    /'
	return $rc
}

# install_deps: by the script of that name where it can be done, else the build says what is missing.
install_deps() {
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		"$top/scripts/install-deps"
	else
		line "not root, or no apt-get: nothing is installed (scripts/install-deps)"
	fi
}
