# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: the mount program with the hook. All that a server grants, and its kernel forgets, is
# counted exactly, also where it is killed; the hook goes on while nobody serves; what it answers is what
# the source has.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
seed=${FSDIFF_SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
coherence_seed=${COHERENCE_SEED:-$seed}
coherence_ops=${COHERENCE_OPS:-800}
killer=$FE_BUILD/tests/crash/killer
kills=${VM_KILLS:-10}
src=$scratch/disk/src
mnt=$scratch/mnt
# Nobody else changes the source: so all may be kept.
long=entry_timeout=3600,attr_timeout=3600,negative_timeout=3600
tolerate=chown-nothing
case $(uname -r) in
6.1.*) tolerate+=,btime ;;
*) passed_through=setid,kept-flags ;;
esac

fresh() { # OPTIONS
	rm -rf "$scratch/disk/plain" "$src"
	mkdir -p "$scratch/disk/plain" "$src"
	mount_fe "$src" "$mnt" "suid,dev,$1"
}

# Word 0 is busy until what came before the hook is over.
# settled [OPCODE PATH]: what is asked for by that is answered.
settled() {
	local before path=${2:-$mnt/file}
	stat -c %s "$path" >"$scratch/out"
	before=$(upcalls "$mnt" "${1:-LOOKUP}")
	stat -c %s "$path" >"$scratch/out"
	[ "$before" = "$(upcalls "$mnt" "${1:-LOOKUP}")" ]
}

# ---- what is answered, and what is not ----

engine() {
	refused no-module 'modprobe extfuse' "$FE" "passthrough:$src" "$mnt" -f -o cache=hook
	mount_fe "$src" "$mnt"
	like auto-native '"engine":"native","why":"engine native: /dev/extfuse' "$(status_json "$mnt")"
	umount_fe "$mnt"
	check load insmod "$FE_BUILD/extfuse.ko"
	mount_fe "$src" "$mnt"
	like auto-hook '"engine":"hook","why":"engine hook: module' "$(status_json "$mnt")"
	refused unload-in-use 'in use' rmmod extfuse
	umount_fe "$mnt"
	mount_fe "$src" "$mnt" cache=native
	like asked-native '"engine":"native","why":"engine native: as asked for' "$(status_json "$mnt")"
	umount_fe "$mnt"
	mount_fe "$src" "$mnt" cache=off
	like off '"engine":"off"' "$(status_json "$mnt")"
	echo text >"$src/file"
	stat -c %s "$mnt/file" >"$scratch/out"
	before=$(upcalls "$mnt" LOOKUP)
	stat -c %s "$mnt/file" >"$scratch/out"
	same off-asks $((before + 1)) "$(upcalls "$mnt" LOOKUP)"
	umount_fe "$mnt"
}

# asks NAME OPCODE COUNT COMMAND...: the server is asked so often.
asks() {
	local before
	before=$(upcalls "$mnt" "$2")
	"${@:4}" >"$scratch/out" 2>&1 || true
	same "$1" "$3" $(($(upcalls "$mnt" "$2") - before))
}

answers() {
	local pid
	fresh "cache=exact,$long"
	echo text >"$src/file"
	setfattr -n user.note -v text "$src/file"
	ln -s file "$src/link"
	check settled wait_until 30 settled
	stat -c %s "$mnt/link" "$mnt/absent" >"$scratch/out" 2>&1 || true
	asks name LOOKUP 0 stat -c %s "$mnt/file"
	asks attributes GETATTR 0 stat -c %s "$mnt/file"
	asks absence LOOKUP 0 stat -c %s "$mnt/absent"
	readlink "$mnt/link" >"$scratch/out"
	asks target READLINK 0 readlink "$mnt/link"
	getfattr --only-values -n user.note "$mnt/file" >"$scratch/out"
	asks xattr GETXATTR 0 getfattr --only-values -n user.note "$mnt/file"
	like xattr-value '^text' "$(cat "$scratch/out")"
	asks absent-xattr GETXATTR 1 getfattr -n user.none "$mnt/file"
	asks absent-xattr-known GETXATTR 0 getfattr -n user.none "$mnt/file"

	# Changes through the mount, which the server is told of, are seen at once.
	setfattr -n user.note -v other "$mnt/file"
	same xattr-changed other "$(getfattr --only-values -n user.note "$mnt/file" 2>/dev/null)"
	setfattr -n user.none -v some "$mnt/file"
	same xattr-appears some "$(getfattr --only-values -n user.none "$mnt/file" 2>/dev/null)"
	echo more >>"$mnt/file"
	same written 10 "$(stat -c %s "$mnt/file")"
	chmod 600 "$mnt/file"
	same mode 600 "$(stat -c %a "$mnt/file")"
	ln "$mnt/file" "$mnt/other"
	same links 2 "$(stat -c %h "$mnt/file")"
	rm "$mnt/other"
	same links-less 1 "$(stat -c %h "$mnt/file")"
	: >"$mnt/absent"
	check absent-made test -e "$mnt/absent"
	mv "$mnt/absent" "$mnt/moved"
	check moved test ! -e "$mnt/absent" -a -e "$mnt/moved"
	rm "$mnt/moved"
	asks removed LOOKUP 0 test -e "$mnt/moved"
	# A reader moves the time of access; where the kernel reads by itself, too.
	touch -a -d 2001-02-03 "$mnt/file"
	stat -c %s "$mnt/file" >"$scratch/out"
	cat "$mnt/file" >"$scratch/out"
	same access-time "$(stat -c %x "$src/file")" "$(stat -c %x "$mnt/file")"
	# Kept until it expires: nobody told of this one.
	echo behind >"$src/file"
	same behind 10 "$(stat -c %s "$mnt/file")"
	# While it is open for writes that make no request, its attributes are asked for.
	exec 5>>"$mnt/file"
	echo again >&5
	same open-for-writing "$(stat -c %s "$src/file")" "$(stat -c %s "$mnt/file")"
	echo again >&5
	same open-for-writing-twice "$(stat -c %s "$src/file")" "$(stat -c %s "$mnt/file")"
	exec 5>&-
	same closed "$(stat -c %s "$src/file")" "$(stat -c %s "$mnt/file")"
	# The driver asks for names that are longer than any can be.
	: >"$mnt/$(printf '%0255d' 0)"
	stat -c %s "$mnt/$(printf '%0255d' 0)" "$mnt/$(printf '%0255d' 1)" >"$scratch/out" 2>&1 || true
	refused too-long-there 'File name too long' stat -c %s "$mnt/$(printf '%0255d' 0)0"
	refused too-long-absent 'File name too long' stat -c %s "$mnt/$(printf '%0255d' 1)0"
	# What the kernel has forgotten, the hook still answers: it grants it anew, or the server is asked.
	for _ in 1 2 3 4 5; do
		check found-again read_again
	done
	# A server that answers nothing.
	check settled-again wait_until 30 settled
	pid=$(status_of "$mnt" worker_pid)
	kill -STOP "$pid"
	check server-stopped timeout 20 stat -c %s "$mnt/file"
	kill -CONT "$pid"
	check counts nothing_left "$mnt" 60
	umount_fe "$mnt"
}

# A directory that was listed: what it does not have is not asked for.
whole() {
	local i name
	fresh "cache=exact,$long"
	mkdir "$src/small" "$src/large"
	echo text >"$src/file"
	: >"$src/small/old"
	for i in {1..400}; do
		printf -v name '%032d' "$i"
		: >"$src/large/$name"
	done
	check whole-settled wait_until 30 settled
	stat "$mnt/small" "$mnt/large" >"$scratch/out"
	asks whole-not-listed LOOKUP 1 test -e "$mnt/small/none"
	for i in small large; do
		find "$mnt/$i" -mindepth 1 | wc -l >"$scratch/count"
		# Its time of access has moved.
		stat "$mnt/$i" >"$scratch/out"
		asks "whole-$i" LOOKUP 0 test -e "$mnt/$i/absent"
		asks "whole-$i-long" LOOKUP 0 stat "$mnt/$i/$(printf '%0200d' 0)"
		like "whole-$i-errno" 'No such file' "$(cat "$scratch/out")"
		: >"$mnt/$i/new"
		check "whole-$i-new" test -e "$mnt/$i/new"
		mkdir "$mnt/$i/dir"
		ln -s target "$mnt/$i/link"
		ln "$mnt/file" "$mnt/$i/hard"
		: >"$mnt/moving"
		mv "$mnt/moving" "$mnt/$i/moved"
		mv "$mnt/$i/new" "$mnt/$i/renamed"
		check "whole-$i-made" test -d "$mnt/$i/dir" -a -L "$mnt/$i/link" -a -e "$mnt/$i/hard" -a \
			-e "$mnt/$i/moved" -a -e "$mnt/$i/renamed" -a ! -e "$mnt/$i/new"
		asks "whole-$i-still" LOOKUP 0 test -e "$mnt/$i/other"
		rm "$mnt/$i/hard"
		check "whole-$i-removed" test ! -e "$mnt/$i/hard"
	done
	same whole-count 400 "$(cat "$scratch/count")"
	check whole-all-there all_there
	umount_fe "$mnt"
	# What comes by other ways is seen when absent names are no longer kept.
	mount_fe "$src" "$mnt" cache=exact,entry_timeout=3600,attr_timeout=3600,negative_timeout=1
	ls "$mnt/small" >"$scratch/out"
	: >"$src/small/behind"
	check whole-expires wait_until 30 test -e "$mnt/small/behind"
	umount_fe "$mnt"
	# Without regard to case there are more names than are listed.
	mkdir "$scratch/folded"
	mount -o loop "$scratch/casefold" "$scratch/folded"
	mkdir "$scratch/folded/dir"
	chattr +F "$scratch/folded/dir"
	: >"$scratch/folded/dir/Name"
	mount_fe "$scratch/folded" "$mnt" "cache=exact,$long"
	ls "$mnt/dir" >"$scratch/out"
	check whole-without-case test -e "$mnt/dir/NAME"
	umount_fe "$mnt"
	umount "$scratch/folded"
}

all_there() {
	local i name
	for i in {1..400}; do
		printf -v name '%032d' "$i"
		[ -e "$mnt/large/$name" ] || { echo "$i"; return 1; }
	done
}

read_again() {
	echo 2 >/proc/sys/vm/drop_caches
	cat "$mnt/file" "$mnt/link"
}

# One second may be too short for any.
at_work='^GETATTR +0\.0 +[1-9][0-9]*\.[0-9]'
seen_at_work() {
	"$FECTL" top "$mnt" --interval 1 --count 1 >"$scratch/top" 2>&1
	grep -qE "$at_work" "$scratch/top"
}

# What it does, as it does it.
watched() {
	fresh "cache=exact,$long"
	echo text >"$src/file"
	check watched-settled wait_until 30 settled
	while [ ! -e "$scratch/stop" ]; do
		stat -c %s "$mnt/file" >"$scratch/seen"
	done &
	helper $!
	wait_until 60 seen_at_work || true
	touch "$scratch/stop"
	wait_until 20 gone "${helper_pids[-1]}"
	like watched "$at_work" "$(cat "$scratch/top")"
	umount_fe "$mnt"
}

seen_at() {
	(cd "$1" && find . -printf '%P %s %m %n %T@ %C@\n' | sort)
}

# Far more than there is memory for: the same answers, and every grant is counted.
full() {
	local d round
	fresh "cache=exact,cache_size=1M,$long"
	for d in short long other; do
		mkdir "$src/$d"
	done
	(cd "$src/short" && seq 1500 | xargs touch)
	(cd "$src/long" && seq -f '%0120g' 1500 | xargs touch)
	(cd "$src/other" && seq -f 'name-%g' 1500 | xargs touch)
	echo text >"$src/file"
	check full-settled wait_until 30 settled
	for round in filled again moved removed; do
		case $round in
		moved)
			mv "$mnt/short" "$mnt/other/inner"
			mv "$mnt/long" "$mnt/short"
			;;
		removed) find "$mnt/other" -name '*[13579]' -type f -delete ;;
		esac
		seen_at "$src" >"$scratch/there"
		seen_at "$mnt" >"$scratch/here"
		check "full-$round" cmp "$scratch/there" "$scratch/here"
	done
	stat -c %s "$mnt/file" >"$scratch/out"
	asks full-latest LOOKUP 0 stat -c %s "$mnt/file"
	like full-hits '"hits":[1-9]' "$(status_json "$mnt")"
	check full-counts nothing_left "$mnt" 60
	umount_fe "$mnt"
}

# What a backend lets be kept of what the file system and access(2) say.
kept() {
	mkdir -p "$src"
	echo text >"$src/file"
	chmod 640 "$src/file"
	start_fe "$mnt" "$FE_BUILD/tests/vm/.libs/keeps.so:$src" "$mnt" -o "allow_other,cache=exact,$long"
	check kept-settled wait_until 30 settled
	stat -f "$mnt" >"$scratch/before"
	asks statfs STATFS 0 stat -f "$mnt"
	same statfs-value "$(cat "$scratch/before")" "$(cat "$scratch/out")"
	# The second time each: what is allowed is told by one answer.
	for who in 0 1000; do
		asks "access-$who" ACCESS 1 run_as "$who" 0 test -r "$mnt/file"
		asks "access-$who-read" ACCESS 0 run_as "$who" 0 test -r "$mnt/file"
		asks "access-$who-write" ACCESS 0 run_as "$who" 0 test -w "$mnt/file"
		asks "access-$who-execute" ACCESS 0 run_as "$who" 0 test -x "$mnt/file"
	done
	check access-owner run_as 0 0 test -r "$mnt/file" -a -w "$mnt/file" -a ! -x "$mnt/file"
	check access-other run_as 1000 0 test ! -r "$mnt/file" -a ! -w "$mnt/file" -a ! -x "$mnt/file"
	chmod 644 "$mnt/file"
	check access-changed run_as 1000 0 test -r "$mnt/file" -a ! -w "$mnt/file"
	umount_fe "$mnt"
}

# Before Linux 6.9 the module reads and writes: as the callers may, and where the server is asked, as it does.
data() {
	local pid
	fresh "cache=exact,$long"
	like data-by "the (module extfuse|kernel) reads and writes the backing files" "$(status_json "$mnt")"
	[[ $(uname -r) == 6.1.* ]] || { umount_fe "$mnt"; return 0; }
	seq 100000 >"$src/file"
	asks data-read READ 0 cmp "$src/file" "$mnt/file"
	check data-read-bytes cmp "$src/file" "$mnt/file"
	# Without the kernel's cache; what opened the file first is used.
	exec 5<"$mnt/file"
	asks data-read-direct READ 0 dd if="$mnt/file" iflag=direct of="$scratch/copy" bs=64k
	exec 5>&-
	check data-read-direct-bytes cmp "$src/file" "$scratch/copy"
	asks data-write WRITE 0 cp "$scratch/copy" "$mnt/new"
	check data-written cmp "$scratch/copy" "$src/new"
	like data-counted '"cache_hits":[{][^}]*"READ":[1-9][^}]*"WRITE":[1-9]' "$(status_json "$mnt")"
	# Others write to the end, too.
	exec 5>>"$mnt/new"
	echo by others >>"$src/new"
	asks data-append WRITE 0 append_line
	same data-append-both "by others by us" "$(tail -n 2 "$src/new" | paste -sd " ")"
	# With set-id bits it depends on who writes.
	chmod 6777 "$mnt/new"
	echo root >&5
	same data-setid-root 6777 "$(stat -c %a "$src/new")"
	run_as 1000 1000 bash -c "echo other >>'$mnt/new'"
	same data-setid-other 777 "$(stat -c %a "$mnt/new")"
	exec 5>&-
	# The time of access, which the hook knew.
	touch -a -d 2001-02-03 "$mnt/file"
	stat "$mnt/file" >"$scratch/out"
	asks data-accessed READ 0 cat "$mnt/file"
	same data-access-time "$(stat -c %x "$src/file")" "$(stat -c %x "$mnt/file")"
	# While nobody serves.
	exec 5<>"$mnt/file"
	stat "$mnt/file" >"$scratch/out"
	pid=$(status_of "$mnt" worker_pid)
	kill -STOP "$pid"
	same data-server-stopped 1 "$(timeout 20 head -n 1 <&5)"
	kill -CONT "$pid"
	kill -9 "$pid"
	check data-server-killed bash -c 'echo killed >&5'
	# What was given is given back by a successor: the space of a file that is gone is free.
	dd if=/dev/zero bs=1M count=20 >&5 2>"$scratch/out"
	rm "$mnt/file"
	pid=$(disk_free)
	exec 5>&-
	check data-given-back wait_until 30 freed $((pid + 15 * 1024))
	# Reserved blocks are for nobody here.
	umount_fe "$mnt"
	mkdir "$scratch/reserved"
	truncate -s 8M "$scratch/small"
	mkfs.ext4 -q -m 40 "$scratch/small"
	mount -o loop "$scratch/small" "$scratch/reserved"
	chmod 777 "$scratch/reserved"
	mount_fe "$scratch/reserved" "$mnt" "cache=exact,$long"
	run_as 1000 1000 dd if=/dev/zero of="$mnt/big" bs=64k 2>"$scratch/out" || true
	like data-full 'No space left' "$(cat "$scratch/out")"
	same data-reserved-left 1 "$(($(stat -f -c '%f * 100 / %b' "$scratch/reserved") > 20))"
	same data-reserved-asked 0 "$(upcalls "$mnt" WRITE)"
	umount_fe "$mnt"
	umount "$scratch/reserved"
}

append_line() {
	echo by us >&5
}

disk_free() {
	sync
	df --output=avail -k "$scratch/disk" | tail -n 1
}

freed() {
	[ "$(disk_free)" -ge "$1" ]
}

# What the backend lets nobody keep is not kept: attributes of set-id files.
transient() {
	fresh "cache=exact,$long"
	echo text >"$src/file"
	chmod 4755 "$src/file"
	check transient-settled wait_until 30 settled GETATTR "$mnt"
	stat -c %s "$mnt/file" >"$scratch/out"
	asks set-id LOOKUP 1 stat -c %s "$mnt/file"
	umount_fe "$mnt"
}

# Another program takes the hook over with all that it knows.
upgraded() {
	fresh "cache=exact,$long"
	echo text >"$src/file"
	check upgrade-settled wait_until 30 settled
	check upgrade "$FECTL" upgrade "$mnt"
	asks upgraded-knows LOOKUP 0 stat -c %s "$mnt/file"
	chmod 640 "$mnt/file"
	same upgraded-changes 640 "$(stat -c %a "$mnt/file")"
	asks upgraded-puts LOOKUP 0 stat -c %s "$mnt/file"
	check upgraded-counts nothing_left "$mnt" 60
	umount_fe "$mnt"
}

# ---- at random ----

difference() { # NAME OPTIONS [TOLERATED]
	fresh "$2"
	alike "fsdiff-$1" "$seed" --steps "${FSDIFF_STEPS:-400}" --concurrent-steps 150 --tolerate "$tolerate,${3:-}" \
		"$scratch/disk/plain" "$mnt"
	like "fsdiff-$1-hits" '"hits":[1-9]' "$(status_json "$mnt")"
	umount_fe "$mnt"
}

coherence() { # NAME OPTIONS ARGUMENT...
	fresh "$2"
	coherent "coherence-$1" "$coherence_seed" --ops "$coherence_ops" "${@:3}" "$mnt"
	like "coherence-$1-hits" '"hits":[1-9]' "$(status_json "$mnt")"
	check "coherence-$1-counts" nothing_left "$mnt" 60
	umount_fe "$mnt"
}

# What others change is seen when it expires, and so is found.
coherence_behind() {
	fresh "cache=exact,$long"
	incoherent coherence-behind-found "$coherence_seed" --ops "$coherence_ops" --tolerate link --behind "$src" "$mnt"
	umount_fe "$mnt"
}

# ---- killed under load ----

hammer() {
	"$FE_TOOLS/hammer" --procs 4 --steps 64 "$mnt/load"
}

# Locks, mappings, O_DIRECT, and files without names.
clients() {
	"$FE_BUILD/tests/crash/clients" --procs 3 --steps 60 all "$mnt/load"
}

storm() { # NAME OPTIONS WHO LOAD
	local rc=0 pid out=$scratch/killer.out
	fresh "recover_limit=1000,$2"
	"$killer" --kills "$kills" --seed "$seed" --min 20000 --max 100000 --who "$3" "$mnt" >"$out" 2>&1 &
	pid=$!
	helper "$pid"
	while [ $rc = 0 ] && ! gone "$pid"; do
		mkdir -p "$mnt/load"
		"$4" >"$scratch/load.out" 2>&1 || rc=$?
		rm -rf "$mnt/load" || rc=$?
	done
	same "storm-$1 (seed $seed)" 0 "$rc"
	[ $rc = 0 ] || tail -n 20 "$scratch/load.out" "${server_log[$mnt]}" | sed 's/^/    /'
	kill "$pid" 2>/dev/null || true
	check "storm-$1-killer" grep "^killer: .* $kills kills$" "$out"
	like "storm-$1-hits" '"hits":[1-9]' "$(status_json "$mnt")"
	check "storm-$1-counts" nothing_left "$mnt" 60
	pid=$(status_of "$mnt" keeper_pid)
	if [ "$pid" = "${server_pid[$mnt]}" ]; then
		umount_fe "$mnt"
		return
	fi
	# Another one took the first keeper's place.
	umount "$mnt"
	check "storm-$1-end" wait_until 60 gone "$pid"
	wait "${server_pid[$mnt]}" || true
	unset "server_pid[$mnt]"
}

truncate -s 400M "$scratch/image"
truncate -s 8M "$scratch/casefold"
mkfs.ext4 -q -O casefold "$scratch/casefold"
mkfs.ext4 -q "$scratch/image"
mkdir -p "$scratch/disk" "$mnt"
mount -o loop "$scratch/image" "$scratch/disk"
mkdir "$src"
engine
answers
whole
full
kept
data
watched
transient
upgraded
difference exact "cache=exact,$long" "${passed_through:-}"
difference hook-nopassthrough "cache=hook,nopassthrough,$long"
# What the driver makes of its own copies (coherence.h).
coherence exact "cache=exact,$long" --tolerate link
coherence exact-nopassthrough "cache=exact,nopassthrough,$long" --tolerate link
coherence hook "cache=hook,$long" --tolerate link,count,backwards,open-truncate
coherence_behind
storm worker "cache=exact,$long" worker hammer
storm keeper "cache=exact,$long" worker,keeper clients
check unload wait_until 20 rmmod extfuse
finish
