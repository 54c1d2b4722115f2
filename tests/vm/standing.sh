# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: files that are opened for reading again and again, by a handle of the server that stays. The server
# sees none of it; data, times and permissions are those of the source; and what stays is bounded.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
killer=$FE_BUILD/tests/crash/killer
kills=${VM_KILLS:-10}
src=$scratch/disk/src
mnt=$scratch/mnt
long=entry_timeout=3600,attr_timeout=3600,negative_timeout=3600

# asks NAME COUNT OPCODES COMMAND...: the server is asked so often.
asks() {
	local before ops
	read -ra ops <<<"$3"
	before=$(upcalls "$mnt" "${ops[@]}")
	"${@:4}" >"$scratch/out" 2>&1 || true
	same "$1" "$2" $(($(upcalls "$mnt" "${ops[@]}") - before))
}

less_than() { # NAME LIMIT COUNT
	if [ "$3" -lt "$2" ]; then
		ok "$1 ($3)"
	else
		fail "$1" "$3 times"
	fi
}

# read_file [TIMES [NAME]]: without a process for it, and without an ioctl(2) (read would ask for a terminal).
read_file() {
	local i lines
	for ((i = 0; i < ${1:-1}; i++)); do
		mapfile -t -n 1 lines <"$mnt/${2:-file}" || true
		REPLY=${lines[0]-}
	done
}

stands() { # [NAME [OPCODE]]
	local before
	read_file 3 "${1:-file}"
	before=$(upcalls "$mnt" "${2:-OPEN}")
	read_file 2 "${1:-file}"
	[ "$before" = "$(upcalls "$mnt" "${2:-OPEN}")" ]
}

fresh() { # OPTIONS
	rm -rf "$src"
	mkdir -p "$src"
	echo text >"$src/file"
	mount_fe "$src" "$mnt" "suid,dev,$1"
	check "stands ($1)" wait_until 30 stands
}

shows() { # NAME TEXT
	read_file
	same "$1" "$2" "$REPLY"
}

# ---- what is answered is what is there ----

unasked() {
	local op pid
	fresh "cache=exact,$long"
	# Word 0 of the module is busy until what came before the hook is over: till then names are asked for.
	check settled wait_until 30 stands file LOOKUP
	sleep 1
	for op in LOOKUP OPEN READ FLUSH RELEASE; do
		asks "all-$op" 0 "$op" read_file 50
	done
	shows all-text text
	like all-hits '"cache_hits":[{][^}]*"OPEN":[1-9][^}]*"RELEASE":[1-9]' "$(status_json "$mnt")"
	exec 5<"$mnt/file"
	asks terminal 1 IOCTL test -t 5
	asks terminal-changes-nothing 0 "GETATTR LOOKUP OPEN" read_file
	asks fstat 0 "GETATTR LOOKUP" stat -L -c %s /proc/self/fd/5
	exec 5<&-
	pid=$(status_of "$mnt" worker_pid)
	kill -STOP "$pid"
	same server-stopped text "$(timeout 20 cat "$mnt/file")"
	kill -CONT "$pid"
	cp /usr/bin/busybox "$mnt/program"
	wait_until 30 stands program
	asks executed 0 "OPEN READ RELEASE" "$mnt/program" true
}

changes() {
	check stands wait_until 30 stands
	echo by us >"$mnt/file"
	shows truncated "by us"
	asks append 1 OPEN bash -c "echo more >>'$mnt/file'"
	same appended more "$(tail -n 1 "$mnt/file")"
	echo by others >"$src/file"
	shows behind "by others"
	check stands-again wait_until 30 stands
	echo by others again >"$src/file"
	shows behind-again "by others again"
	exec 5<"$mnt/file"
	exec 6<>"$mnt/file"
	echo by writer >&6
	read -r REPLY <&5
	same both "by writer" "$REPLY"
	exec 5<&- 6<&-
	check closed wait_until 20 few_handles 1
	shows both-closed "by writer"
	# Times of access move when it is read, by whomever.
	check stands-to-be-touched wait_until 30 stands
	touch -a -d 2001-02-03 "$mnt/file"
	stat "$mnt/file" >"$scratch/out"
	read_file
	same access-time "$(stat -c %x "$src/file")" "$(stat -c %x "$mnt/file")"
	touch -a -d 2001-02-03 "$mnt/file"
	stat "$mnt/file" >"$scratch/out"
	exec 5<"$mnt/file"
	read -r REPLY <&5
	same access-time-open "$(stat -c %x "$src/file")" "$(stat -c %x "$mnt/file")"
	exec 5<&-
	touch -a -d 2001-02-03 "$src/file"
	read -r REPLY <"$src/file"
	same access-time-behind "$(stat -c %x "$src/file")" "$(stat -c %x "$mnt/file")"
}

permissions() {
	check stands-for-all wait_until 30 stands
	check allowed run_as 1000 1000 cat "$mnt/file"
	chmod 600 "$mnt/file"
	refused denied 'Permission denied' run_as 1000 1000 cat "$mnt/file"
	chmod 644 "$mnt/file"
	check allowed-again run_as 1000 1000 cat "$mnt/file"
	refused denied-write 'Permission denied' run_as 1000 1000 bash -c "echo >>'$mnt/file'"
	# It is up to who writes whether set-id bits stay: then the kernel does not write by itself.
	check stands-to-be-setid wait_until 30 stands
	chmod 4755 "$mnt/file"
	echo by root >>"$mnt/file"
	same setid-kept 4755 "$(stat -c %a "$src/file")"
	chmod 644 "$mnt/file"
}

few_handles() {
	[ "$(status_of "$mnt" handles)" -le "$1" ]
}

disk_free() {
	sync
	df --output=avail -k "$scratch/disk" | tail -n 1
}

freed() {
	[ "$(disk_free)" -ge "$1" ]
}

# ---- what stays ----

ends() {
	local free handles
	# Nobody's name any more: the server opens it, and only as long as it has to.
	check stands-to-be-removed wait_until 30 stands
	exec 5<"$mnt/file"
	rm "$mnt/file"
	read -r REPLY <&5
	same removed-open "by writer" "$REPLY"
	asks removed 1 OPEN cat /proc/self/fd/5
	exec 5<&-
	head -c 20M /dev/zero >"$mnt/file"
	wait_until 30 stands
	free=$(disk_free)
	rm "$mnt/file"
	check removed-freed wait_until 30 freed $((free + 15 * 1024))
	# Behind our back: only who opens it finds out.
	echo text >"$src/behind"
	read_file 3 behind
	check behind-stands stands behind
	handles=$(status_of "$mnt" handles)
	exec 5<"$mnt/behind"
	rm "$src/behind"
	read_file 1 behind
	exec 5<&-
	check behind-ended wait_until 20 few_handles $((handles - 1))
	check forgotten wait_until 60 root_only "$mnt"
}

bounded() {
	local i pid n
	for i in {1..1500}; do
		echo "$i" >"$src/$i"
	done
	pid=$(status_of "$mnt" worker_pid)
	set -- "/proc/$pid/fd/"*
	n=$#
	for i in {1..1500}; do
		read_file 3 "$i"
		[ "$REPLY" = "$i" ] || fail "bounded-$i" "read: $REPLY"
	done
	sleep 1
	set -- "/proc/$pid/fd/"*
	check "bounded: $(status_of "$mnt" handles) handles" few_handles 512
	# The descriptors of paths are cached, too, and bounded on their own.
	echo "note descriptors: $n before, $# with $(status_of "$mnt" handles) handles"
	# Those that lost their place while they were open.
	exec 5<"$mnt/1500"
	for i in {1..600}; do
		read_file 4 "$i"
	done
	read -r REPLY <&5
	same displaced 1500 "$REPLY"
	exec 5<&-
	check bounded-forgotten wait_until 60 root_only "$mnt"
}

killed() {
	local pid
	echo text >"$mnt/file"
	check stands-to-be-killed wait_until 30 stands
	exec 5<"$mnt/file"
	pid=$(status_of "$mnt" worker_pid)
	kill -9 "$pid"
	read -r REPLY <&5
	same killed-open text "$REPLY"
	read_file 5
	same killed-read text "$REPLY"
	check killed-stands wait_until 30 stands
	exec 5<&-
	check killed-once wait_until 30 few_handles 1
	exec 5<"$mnt/file"
	check upgrade "$FECTL" upgrade "$mnt"
	read -r REPLY <&5
	same upgraded-open text "$REPLY"
	exec 5<&-
	check upgraded-stands wait_until 30 stands
	check killed-forgotten wait_until 60 root_only "$mnt"
	umount_fe "$mnt"
}

# Where it is opened again at once, an OPEN is in the queue when the handle of the one before comes to stand.
hot() {
	local before n pids pid
	fresh "cache=hook,max_threads=1,$long"
	pid=$(status_of "$mnt" worker_pid)
	echo text >"$src/queued"
	read_file 1 queued
	exec 5<"$mnt/queued"
	kill -STOP "$pid"
	# A thread that waits for a request may still take one.
	sleep 1
	exec 5<&-
	read_file 1 queued &
	sleep 1
	kill -CONT "$pid"
	wait $!
	asks queued 0 OPEN read_file 1 queued
	for n in 1 4; do
		echo text >"$src/hot-$n"
		pids=()
		before=$(upcalls "$mnt" OPEN)
		for ((pid = 0; pid < n; pid++)); do
			read_file 500 "hot-$n" &
			pids+=($!)
		done
		wait "${pids[@]}"
		less_than "hot-$n" 10 $(($(upcalls "$mnt" OPEN) - before))
	done
	umount_fe "$mnt"
}

# What nobody has open gives way to what somebody wants to open.
# short OPTIONS
short() {
	local most i fd fds=()
	most=$(ulimit -n)
	ulimit -n 1024
	fresh "cache=hook,$1"
	ulimit -n "$most"
	for i in {1..900}; do
		echo "$i" >"$src/$i"
	done
	for i in {1..900}; do
		read_file 3 "$i"
	done
	check short-bounded wait_until 20 few_handles 128
	for i in {1..900}; do
		{ exec {fd}<"$mnt/$i"; } 2>/dev/null || break
		fds+=("$fd")
	done
	opened=${#fds[@]}
	for fd in "${fds[@]::20}"; do
		exec {fd}<&-
	done
	check "short-made-room: $opened open" wait_until 20 few_handles $((opened - 20))
	for fd in "${fds[@]:20}"; do
		exec {fd}<&-
	done
	check short-forgotten wait_until 60 root_only "$mnt"
	umount_fe "$mnt"
}

# A file system that may be another machine's: close(2) may have something to tell, and others may read.
below() {
	rm -rf "$src"
	mkdir -p "$src/below" "$src/own"
	mount -t sysfs none "$src/below"
	touch "$src/own/file"
	mount_fe "$src" "$mnt" "cache=exact,submounts,nopassthrough,$long"
	read_file 10 own/file
	check below-own wait_until 20 stands own/file
	asks below-other 5 OPEN read_file 5 below/kernel/fscaps
	check below-told test "$(upcalls "$mnt" FLUSH)" -gt 0
	umount_fe "$mnt"
	umount "$src/below"
}

# Each reader has a file open all the time, and others come and go.
readers() {
	local i
	for i in 1 2 3; do
		(
			for ((n = 0; n < 300; n++)); do
				exec 5<"$mnt/$((n % 7))"
				read_file 2 $((n % 11))
				[ "$REPLY" = $((n % 11)) ] || { echo "read $REPLY, not $((n % 11))"; exit 1; }
				read -r REPLY <&5
				[ "$REPLY" = $((n % 7)) ] || { echo "open: read $REPLY, not $((n % 7))"; exit 1; }
				((n % 10)) || echo "$((n % 7))" >>"$mnt/$((n % 7))"
				exec 5<&-
			done
		) || return 1 &
	done
	wait -n && wait -n && wait -n
}

storm() {
	local i rc=0 pid
	fresh "cache=exact,recover_limit=1000,$long"
	for i in {0..10}; do
		echo "$i" >"$src/$i"
	done
	"$killer" --kills "$kills" --min 20000 --max 100000 --who worker "$mnt" >"$scratch/killer.out" 2>&1 &
	pid=$!
	helper "$pid"
	while [ $rc = 0 ] && ! gone "$pid"; do
		(readers) >"$scratch/load.out" 2>&1 || rc=$?
	done
	same storm 0 "$rc"
	[ $rc = 0 ] || tail -n 20 "$scratch/load.out" "${server_log[$mnt]}" | sed 's/^/    /'
	kill "$pid" 2>/dev/null || true
	check storm-killer grep "^killer: .* $kills kills$" "$scratch/killer.out"
	check storm-counts wait_until 60 root_only "$mnt"
	umount_fe "$mnt"
}

# The kernel drops the data at each open, and asks for it, which moves the time of access: so it asks for the name, too.
cached() {
	fresh "cache=exact,nopassthrough,$long"
	sleep 1
	asks cached 0 "OPEN FLUSH RELEASE" read_file
	echo other >"$src/file"
	shows cached-behind other
	echo ours >>"$mnt/file"
	same cached-ours ours "$(tail -n 1 "$mnt/file")"
	check cached-forgotten wait_until 60 root_only "$mnt"
	umount_fe "$mnt"
	# Locks that others see are released with the handle.
	rm -rf "$src"
	mkdir "$src"
	echo text >"$src/file"
	mount_fe "$src" "$mnt" "cache=exact,locks=source,$long"
	read_file 10
	asks locks-of-the-source 1 OPEN read_file
	umount_fe "$mnt"
}

truncate -s 400M "$scratch/image"
mkfs.ext4 -q "$scratch/image"
mkdir -p "$scratch/disk" "$mnt"
mount -o loop "$scratch/image" "$scratch/disk"
insmod "$FE_BUILD/extfuse.ko"
unasked
changes
permissions
ends
bounded
killed
storm
cached
hot
short "$long"
known=$opened
short attr_timeout=3600,entry_timeout=0
check "short-as-many: $opened of $known" [ $((opened + 64)) -ge "$known" ]
below
check unload wait_until 20 rmmod extfuse
finish
