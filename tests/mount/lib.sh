# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What the *.test scripts share: a scratch directory, mounts that do not outlive the script, and the
# result lines `ok NAME`, `FAIL NAME: text`, `SKIP NAME: reason` that scripts/check counts.
#
#   FE_BUILD   build directory (default: build/ of this tree)
#   FE_TOOLS   where the C programs of tests/mount are (default: $FE_BUILD/tests/mount)
#   FE_OPTIONS options for all mounts, by commas
#   FE_BACKEND what mount_fe mounts a directory with (default: passthrough; spill:passthrough)
#   TMPDIR     where scratch directories are made

set -euE
export LC_ALL=C
umask 022

tests_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
test_name=$(basename "$0" .test)
FE_BUILD=$(cd "${FE_BUILD:-$tests_dir/../../build}" && pwd)
FE_TOOLS=$(cd "${FE_TOOLS:-$FE_BUILD/tests/mount}" && pwd)
FE=$FE_BUILD/programs/fuse-extent
FECTL=$FE_BUILD/programs/fuse-extentctl
FE_BACKEND=${FE_BACKEND:-passthrough}
declare -A server_pid=() server_log=()
helper_pids=()
passed=0
failed=0
skipped=0
finished=
scratch=

# ---- results ----

ok() {
	passed=$((passed + 1))
	printf 'ok %s/%s\n' "$test_name" "$1"
}

# fail NAME TEXT: the text may have several lines, the first one belongs to the result.
fail() {
	failed=$((failed + 1))
	printf 'FAIL %s/%s: %s\n' "$test_name" "$1" "$2" | sed '2,$s/^/    /'
}

skip() {
	skipped=$((skipped + 1))
	printf 'SKIP %s/%s: %s\n' "$test_name" "$1" "$2"
}

# same NAME EXPECTED GOT
same() {
	if [ "$2" = "$3" ]; then
		ok "$1"
	else
		fail "$1" "expected '$2', got '$3'"
	fi
}

# like NAME REGEX TEXT: extended regular expression on any line of TEXT.
like() {
	if grep -Eq -- "$2" <<<"$3"; then
		ok "$1"
	else
		fail "$1" "expected something like '$2', got '$3'"
	fi
}

# check NAME COMMAND...: the command must succeed.
check() {
	local name=$1 out="$scratch/check.out" rc=0
	shift
	# A function must fail in the usual way: `if` would switch set -e off inside of it.
	set +e
	(set -e; "$@") >"$out" 2>&1
	rc=$?
	set -e
	if [ $rc = 0 ]; then
		ok "$name"
	else
		fail "$name" "$* ended with status $rc
$(tail -n 25 "$out")"
	fi
}

# refused NAME TEXT COMMAND...: the command must fail and say TEXT.
refused() {
	local name=$1 text=$2 out rc=0
	shift 2
	out=$("$@" 2>&1) || rc=$?
	if [ $rc = 0 ]; then
		fail "$name" "$* succeeded, expected: $text"
	elif ! grep -qF -- "$text" <<<"$out"; then
		fail "$name" "$* said '$out', expected: $text"
	else
		ok "$name"
	fi
}

# alike NAME SEED ARGUMENT...: fsdiff finds no difference.
alike() {
	local out=$scratch/fsdiff.out rc=0
	"$FE_TOOLS/fsdiff" --seed "$2" "${@:3}" >"$out" 2>&1 || rc=$?
	case $rc in
	0) ok "$1 (seed $2)" ;;
	77) skip "$1" "$(tail -n 1 "$out")" ;;
	*) fail "$1" "seed $2 (FSDIFF_SEED=$2 runs it again)
$(head -n 60 "$out")" ;;
	esac
}

# coherent NAME SEED ARGUMENT...: some order explains all answers.
coherent() {
	local out=$scratch/coherence.out rc=0
	"$FE_TOOLS/coherence" --seed "$2" "${@:3}" >"$out" 2>&1 || rc=$?
	if [ $rc = 0 ]; then
		ok "$1 (seed $2)"
	else
		fail "$1" "status $rc, seed $2 (COHERENCE_SEED=$2 does the same in another order)
$(head -n 80 "$out")"
	fi
}

# incoherent NAME SEED ARGUMENT...: none does, and that is found.
incoherent() {
	local out=$scratch/coherence.out rc=0
	"$FE_TOOLS/coherence" --seed "$2" "${@:3}" >"$out" 2>&1 || rc=$?
	if [ $rc = 1 ] && grep -q '^not coherent' "$out"; then
		ok "$1"
	else
		fail "$1" "status $rc, seed $2: $(head -n 5 "$out")"
	fi
}

# told FILE [PREFIX]: results that another program wrote there.
told() {
	local text
	while IFS= read -r text; do
		case $text in
		"ok "*) ok "${2:-}${text#ok }" ;;
		"SKIP "*)
			text=${text#SKIP }
			skip "${2:-}${text%%:*}" "${text#*: }"
			;;
		"FAIL "*)
			text=${text#FAIL }
			fail "${2:-}${text%%:*}" "${text#*: }"
			;;
		*) printf '    %s\n' "$text" ;;
		esac
	done <"$1"
}

# once_more SCRIPT [PREFIX]: another script, with what is exported; its results are told as they are.
once_more() {
	local rc=0 out
	out=$scratch/$(basename "$1").out
	"$1" >"$out" 2>&1 &
	helper $!
	wait $! || rc=$?
	told "$out" "${2:-}"
	[ $rc -le 1 ] || [ $rc = 77 ] || fail "$(basename "$1")" "it ended with status $rc"
}

# All of the script can not be done here.
skip_all() {
	skip all "$1"
	finished=1
	exit 77
}

finish() {
	finished=1
	[ "$failed" = 0 ] || exit 1
	[ "$((passed + skipped))" != 0 ] || { fail all "nothing was tested"; exit 1; }
	[ "$passed" != 0 ] || exit 77
	exit 0
}

# ---- scratch and what is left behind ----

mounts_below() { # newest first
	awk -v top="$1" '{ if ($5 == top || index($5, top "/") == 1) print $5 }' /proc/self/mountinfo | tac
}

unescape() {
	printf '%b' "${1//\\0/\\00}"
}

drop_mounts() {
	local m path
	mounts_below "$1" | while read -r m; do
		path=$(unescape "${m//\\/\\0}")
		# The server's server may be gone, and what is dirty wait for it.
		timeout -k 2 20 umount "$path" 2>/dev/null || umount -l "$path" 2>/dev/null || true
	done
}

# Of a process that has ended the number may be a stranger's by now.
is_child() {
	local stat
	{ read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
	[[ ${stat##*) } == ?" $$ "* ]]
}

# end_process PID: a child of this script.
end_process() {
	local pid=$1
	is_child "$pid" || return 0
	kill "$pid" 2>/dev/null || true
	wait_until 10 gone "$pid" || kill -9 "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
}

at_exit() {
	local rc=$? pid
	trap - EXIT
	trap '' INT TERM HUP
	set +e
	cd /
	if [ -z "$finished" ]; then
		fail stopped "the script ended early with status $rc${stopped_at:+ ($stopped_at)}"
		for pid in "${!server_log[@]}"; do
			tail -n 5 "${server_log[$pid]}" | sed "s|^|    server of $pid: |"
		done
		rc=1
	fi
	for pid in ${helper_pids[@]+"${helper_pids[@]}"}; do
		end_process "$pid"
	done
	if [ -n "$scratch" ]; then
		drop_mounts "$scratch"
		for pid in ${server_pid[@]+"${server_pid[@]}"}; do
			end_process "$pid"
		done
		drop_mounts "$scratch"
		if [ "$(type -t at_exit_extra)" = function ]; then
			at_exit_extra
		fi
		if [ -n "$(mounts_below "$scratch")" ]; then
			printf 'left mounted, so %s stays\n' "$scratch" >&2
		else
			rm -rf --one-file-system "$scratch"
		fi
	fi
	exit "$rc"
}

stopped_at=
trap at_exit EXIT
trap 'stopped_at="line $LINENO: $BASH_COMMAND"' ERR
trap 'stopped_at="interrupted"; exit 130' INT TERM HUP

# A directory that everybody may enter.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/fuse-extent-$test_name.XXXXXX")
scratch=$(cd "$scratch" && pwd -P)
chmod 755 "$scratch"

# tmpfs_at DIR [OPTIONS]: a tmpfs of our own.
tmpfs_at() {
	mkdir -p "$1"
	mount -t tmpfs -o "mode=755${2:+,$2}" fuse-extent-test "$1"
}

# helper PID: end this process with the script.
helper() {
	helper_pids+=("$1")
}

# ---- waiting ----

gone() {
	! kill -0 "$1" 2>/dev/null || [ "$(awk '{ print $3 }' "/proc/$1/stat" 2>/dev/null)" = Z ]
}

# wait_until SECONDS COMMAND...: looks until the command succeeds. The limit is for what hangs.
wait_until() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.02
	done
}

# ---- mounts ----

mounted() {
	awk -v m="$1" '$5 == m && $0 ~ / - fuse\.fuse-extent / { found = 1 } END { exit !found }' \
		/proc/self/mountinfo
}

not_mounted() {
	! mounted "$1"
}

mount_or_gone() {
	mounted "$1" || gone "$2"
}

# start_fe MOUNTPOINT ARGUMENT...: a server in the foreground, so that its end can be seen.
start_fe() {
	local mnt=$1 log pid
	shift
	mkdir -p "$mnt"
	log=$scratch/server.$(basename "$mnt").log
	# A shell starts what is in the background with SIGINT ignored, and that is inherited.
	env --default-signal=INT,QUIT "$FE" "$@" ${FE_OPTIONS:+-o "$FE_OPTIONS"} -f >"$log" 2>&1 &
	pid=$!
	server_pid[$mnt]=$pid
	server_log[$mnt]=$log
	if ! wait_until 60 mount_or_gone "$mnt" "$pid" || ! mounted "$mnt"; then
		printf 'mounting %s failed:\n' "$mnt" >&2
		tail -n 20 "$log" >&2
		return 1
	fi
}

# mount_fe SOURCE MOUNTPOINT [OPTIONS]
mount_fe() {
	start_fe "$2" "$FE_BACKEND:$1" "$2" -o "allow_other${3:+,$3}"
}

# Who made a mount namespace meanwhile has a copy of each mount, and the file system goes on.
others_mount() {
	local f
	for f in /proc/[0-9]*/task/[0-9]*/mountinfo; do
		if awk -v m="$1" '$5 == m { found = 1 } END { exit !found }' "$f" 2>/dev/null; then
			printf '; %s shows it mounted in a mount namespace of its own' "$f"
			return
		fi
	done
}

# server_well MOUNTPOINT: the server must end by itself with status 0.
server_well() {
	local mnt=$1 pid=${server_pid[$1]} rc=0
	if ! wait_until 60 gone "$pid"; then
		fail "server of $(basename "$mnt")" "process $pid goes on after the unmount$(others_mount "$mnt")"
		return 0
	fi
	wait "$pid" || rc=$?
	unset "server_pid[$mnt]"
	if [ $rc != 0 ]; then
		fail "server of $(basename "$mnt")" "it ended with status $rc
$(tail -n 20 "${server_log[$mnt]}")"
	fi
}

umount_fe() {
	local mnt=$1
	# Whoever was told of a result may still hold the last file for a moment.
	wait_until 10 umount "$mnt" 2>/dev/null || umount "$mnt"
	server_well "$mnt"
}

# Where keepers may have died, only the first of which is our child.
umount_served() {
	local mnt=$1 keeper
	keeper=$(status_json "$mnt" | grep -o '"keeper_pid":[0-9]*' | cut -d: -f2)
	if [ "$keeper" = "${server_pid[$mnt]}" ]; then
		umount_fe "$mnt"
		return
	fi
	wait_until 10 umount "$mnt" 2>/dev/null || umount "$mnt"
	wait_until 30 gone "$keeper" || fail "server of ${mnt##*/}" "keeper $keeper does not end"
	wait "${server_pid[$mnt]}" || true
	unset "server_pid[$mnt]"
}

# The status as JSON; the socket appears a moment after the mount.
status_json() {
	wait_until 10 "$FECTL" status "$1" --json 2>/dev/null || "$FECTL" status "$1" --json
}

# status_of MOUNTPOINT KEY: a number of the status, read by the shell: where QEMU is the machine, a process costs more.
status_of() {
	[[ $(status_json "$1") =~ \"$2\":([0-9]+) ]]
	printf '%s\n' "${BASH_REMATCH[1]}"
}

# upcalls MOUNTPOINT OPCODE...: how often the server was asked for these.
upcalls() {
	local requests='' op sum=0
	[[ $(status_json "$1") =~ \"requests\":\{([^}]*)\} ]] && requests=${BASH_REMATCH[1]}
	for op in "${@:2}"; do
		[[ $requests =~ \"$op\":([0-9]+) ]] && sum=$((sum + BASH_REMATCH[1]))
	done
	echo "$sum"
}

# json_of MOUNTPOINT EXPRESSION: a Python expression over the status `s`.
json_of() {
	status_json "$1" | python3 -c 'import json, sys; s = json.load(sys.stdin); print(eval(sys.argv[1]))' "$2"
}

# nothing_left MOUNTPOINT [SECONDS]: removes all; then the kernel holds the root only, and so must the server.
nothing_left() {
	find "$1" -mindepth 1 -delete
	wait_until "${2:-20}" root_only "$1" || { status_json "$1"; return 1; }
}

root_only() {
	echo 2 >/proc/sys/vm/drop_caches
	status_json "$1" | grep -q '"nodes":1,"handles":0,'
}

# ---- users ----

# run_as UID GID COMMAND...
run_as() {
	local uid=$1 gid=$2
	shift 2
	setpriv --reuid "$uid" --regid "$gid" --clear-groups -- "$@"
}

# ---- what a script needs ----

need_root() {
	[ "$(id -u)" = 0 ] || skip_all "needs root"
	[ -c /dev/fuse ] || skip_all "needs /dev/fuse"
}

need() {
	local p
	for p in "$@"; do
		command -v "$p" >/dev/null || skip_all "needs $p (scripts/install-deps installs it)"
	done
}

# tool NAME: sets $tool; a program that was not built is an error of the build, not a skip.
tool() {
	tool=$FE_TOOLS/$1
	[ -x "$tool" ] || { fail "$1" "$tool is not there: make tests"; finish; }
}
