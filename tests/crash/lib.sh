# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What the scripts of crash recovery share. FE_BUILD: build directory, with kill points where a test
# needs them (default: build/crash of this tree).

set -eu
export LC_ALL=C

crash_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
FE_BUILD=$(cd "${FE_BUILD:-$crash_dir/../../build/crash}" && pwd)

# What a worker dies of is what is tested; and what ends by _exit(2) leaks nothing.
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:handle_segv=0:handle_sigbus=0:handle_abort=0:detect_leaks=0"

# program NAME ARGUMENT...: one of tests/crash, which says itself what passed.
program() {
	local name=$1 rc=0
	shift
	if [ ! -x "$FE_BUILD/tests/crash/$name" ]; then
		printf 'FAIL %s: not built: make tests\n' "$name"
		exit 1
	fi
	"$FE_BUILD/tests/crash/$name" "$@" 2>&1 || rc=$?
	case $rc in
	0 | 77) ;;
	1) ;;
	*) printf 'FAIL %s: ended with status %s\n' "$name" "$rc" ;;
	esac
	exit $rc
}
