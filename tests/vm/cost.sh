# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# In a guest whose clock counts instructions: what a call costs answered by the server, by handlers and by the
# kernel's own caches, as ratios that must hold.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh"

need_root
export VM_PROGRAMS=$FE_BUILD/tests/vm

# of KIND CALL
of() {
	awk -v kind="$1" -v call="$2" '$3 == kind && $4 == call { print $5 }' "$scratch/costs"
}

# at_most NAME THOUSANDTHS KIND CALL OTHER-KIND: KIND costs at most so much of OTHER-KIND.
at_most() {
	local a b
	a=$(of "$3" "$4")
	b=$(of "$5" "$4")
	if [ -z "$a" ] || [ -z "$b" ]; then
		fail "$1" "not measured"
	elif [ $((a * 1000)) -le $((b * $2)) ]; then
		ok "$1: $a is $((a * 1000 / b)) thousandths of $b"
	else
		fail "$1" "$a instructions, $((a * 1000 / b)) thousandths of $b; at most $2"
	fi
}

# The kernel has work of its own for some seconds after it booted; here they take none.
sleep 5
"$VM_PROGRAMS/cost" plain >"$scratch/costs"
insmod "$FE_BUILD/extfuse.ko"
"$VM_PROGRAMS/cost" loaded >>"$scratch/costs"
rmmod extfuse
cat "$scratch/costs"
# What was reached, with some room: more than that was lost again. The server of these tests does next to nothing.
for call in stat negative-stat getxattr; do
	at_most "$call-hit-of-upcall" 215 hit $call upcall
	# The same server, before and after it is attached.
	at_most "$call-miss-of-loaded" 1013 miss $call loaded
done
at_most stat-near-miss-of-loaded 1020 near stat loaded
at_most read-passed-through-of-backing 1100 hit read-128k backing
at_most stat-hit-of-dcache 1250 hit stat dcache
finish
