# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest: what listings make known, and what the mount program tells of all that it is asked and is not: exactly so
# often.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
src=$scratch/src
mnt=$scratch/mnt
long=entry_timeout=3600,attr_timeout=3600,negative_timeout=3600

# Word 0 is busy until what came before the hook is over.
settled() {
	local before
	stat -c %s "$mnt/file" >"$scratch/out"
	before=$(upcalls "$mnt" LOOKUP)
	stat -c %s "$mnt/file" >"$scratch/out"
	[ "$before" = "$(upcalls "$mnt" LOOKUP)" ]
}

fresh() {
	rm -rf "$src"
	mkdir -p "$src"
	echo text >"$src/file"
	mount_fe "$src" "$mnt" "cache=exact,$long"
	check "$1-settled" wait_until 30 settled
}

# count_of KEY OPCODE: of `requests`, `cache_hits` or `cache_misses`.
count_of() {
	local counts=
	[[ $(status_json "$mnt") =~ \"$1\":\{([^}]*)\} ]] && counts=${BASH_REMATCH[1]}
	[[ $counts =~ \"$2\":([0-9]+) ]] || { echo 0; return; }
	echo "${BASH_REMATCH[1]}"
}

# counts NAME OPCODE HITS MISSES COMMAND...: so many of each, and the server is asked for what is missed.
counts() {
	local hits misses asked
	hits=$(count_of cache_hits "$2")
	misses=$(count_of cache_misses "$2")
	asked=$(count_of requests "$2")
	"${@:5}" >"$scratch/out" 2>&1 || true
	same "$1" "$3 hits, $4 misses, $4 asked" \
		"$(($(count_of cache_hits "$2") - hits)) hits, $(($(count_of cache_misses "$2") - misses)) misses, $(($(
			count_of requests "$2") - asked)) asked"
}

# ---- directories ----

# Each name has its attributes with it: the server is not asked for one of them afterwards.
listed() {
	local d i before
	for d in listed other; do
		mkdir -p "$src/$d"
		for i in {1..9}; do
			echo "$i" >"$src/$d/name$i"
		done
	done
	stat -c %s "$mnt/listed" "$mnt/other" >"$scratch/out"
	before=$(upcalls "$mnt" LOOKUP)
	find "$mnt/listed" -mindepth 1 >"$scratch/out"
	same listing "$before" "$(upcalls "$mnt" LOOKUP)"
	same listed-all 9 "$(wc -l <"$scratch/out")"
	check listed-with-attributes test "$(count_of requests READDIRPLUS)" -gt 0
	# Its own time of access has moved.
	stat -c %s "$mnt/listed" >"$scratch/out"
	# The directory's own name is looked up each time, too.
	counts listed LOOKUP 18 0 stat -c %s "$mnt"/listed/name{1..9}
	same listed-right "$(stat -c %s "$src"/listed/name{1..9})" "$(cat "$scratch/out")"
	counts not-listed LOOKUP 9 9 stat -c %s "$mnt"/other/name{1..9}
}

# ---- what is told ----

# sum KEY
sum() {
	local counts='' n total=0
	[[ $(status_json "$mnt") =~ \"$1\":\{([^}]*)\} ]] && counts=${BASH_REMATCH[1]}
	while read -r n; do
		total=$((total + n))
	done <<<"$(tr , '\n' <<<"$counts" | cut -d: -f2)"
	echo "$total"
}

told() {
	local puts late hits misses percent
	fresh figures
	echo text | tee "$src"/present{1..4} >"$scratch/out"
	puts=$(status_of "$mnt" puts)
	late=$(status_of "$mnt" late_puts)
	counts figures-absent LOOKUP 0 5 stat "$mnt"/absent{1..5}
	same figures-puts 5 $(($(status_of "$mnt" puts) - puts))
	counts figures-absent-known LOOKUP 10 0 stat "$mnt"/absent{1..5} "$mnt"/absent{1..5}
	counts figures-present LOOKUP 0 4 stat -c %s "$mnt"/present{1..4}
	counts figures-present-known LOOKUP 4 0 stat -c %s "$mnt"/present{1..4}
	same figures-late "$late" "$(status_of "$mnt" late_puts)"
	check figures-memory test "$(status_of "$mnt" memory)" -ge 1048576
	hits=$(status_of "$mnt" hits)
	misses=$(status_of "$mnt" misses)
	[[ $(status_json "$mnt") =~ \"hit_percent\":([0-9.]+) ]]
	percent=${BASH_REMATCH[1]}
	same figures-hits "$(sum cache_hits)" "$hits"
	same figures-misses "$(sum cache_misses)" "$misses"
	same figures-hit-percent "$(awk -v h="$hits" -v m="$misses" 'BEGIN { printf "%.1f", 100 * h / (h + m) }')" "$percent"
	like figures-as-text "hit percent +${percent/./\\.}" "$("$FECTL" status "$mnt")"
	umount_fe "$mnt"
}

# ---- at work ----

asked='^SETATTR +[1-9][0-9]*\.[0-9] +0\.0'
answered='^GETATTR +0\.0 +[1-9][0-9]*\.[0-9]'
columns='^operation +upcalls/s +hits/s'
# Before Linux 6.12 there is nothing that tells. What nobody is asked takes no time that there are figures of.
if [[ $(uname -r) != 6.1.* ]]; then
	columns+=' +median us +p99 us'
	asked+=' +[1-9][0-9]*\.[0-9] +[1-9][0-9]*\.[0-9]'
	answered+=' +- +-'
fi

# One second may be too short for any.
seen_at_work() {
	"$FECTL" top "$mnt" --interval 1 --count 1 >"$scratch/top" 2>"$scratch/complaints"
	grep -qE "$asked\$" "$scratch/top" && grep -qE "$answered\$" "$scratch/top"
}

watched() {
	fresh top
	echo text >"$src/changed"
	while [ ! -e "$scratch/stop" ]; do
		chmod 600 "$mnt/changed"
		stat -c %s "$mnt/file"
	done >"$scratch/seen" &
	helper $!
	wait_until 60 seen_at_work || true
	touch "$scratch/stop"
	wait_until 20 gone "${helper_pids[-1]}"
	like top-columns "$columns\$" "$(cat "$scratch/top")"
	like top-asked "$asked\$" "$(cat "$scratch/top")"
	like top-answered "$answered\$" "$(cat "$scratch/top")"
	if [[ $(uname -r) == 6.1.* ]]; then
		like top-no-latencies 'no latencies: .*does not trace requests of FUSE' "$(cat "$scratch/complaints")"
	else
		same top-no-complaints '' "$(cat "$scratch/complaints")"
	fi
	umount_fe "$mnt"
}

insmod "$FE_BUILD/extfuse.ko"
mkdir "$mnt"
fresh listed
listed
umount_fe "$mnt"
told
watched
check unload wait_until 20 rmmod extfuse
finish
