#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# base/fuse_abi.h adds to <linux/fuse.h> what newer kernels have. This compares it with the header of
# Linux 6.12: one small program prints every constant, size and offset, built once with ours and once
# with the newer header alone. Exit status 77: that header is not here.
set -eu

srcdir=${srcdir:-.}
here=$(cd "$srcdir" && pwd)
[[ -e $here/base/fuse_abi.h ]] || here=$(cd "$(dirname "$0")/../.." && pwd)
cc=${CC:-cc}
ours=$here/base/fuse_abi.h
newer=$(printf '%s\n' /usr/src/linux-headers-6.*-common/include/uapi/linux/fuse.h | sort -V | tail -n 1)

if [[ ! -e $newer ]]; then
	echo "skipped: no /usr/src/linux-headers-6.*-common; install the package linux-headers-6.12.*-common"
	exit 77
fi
minor=$(awk '$2 == "FUSE_KERNEL_MINOR_VERSION" { print $3 }' "$newer")
if ((minor < 41)); then
	echo "skipped: $newer has FUSE 7.$minor, and 7.41 (Linux 6.12) is compared with"
	exit 77
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/fe-abi.XXXXXX")
trap 'rm -rf "$dir"' EXIT

constants() {
	awk '$1 == "#define" && $2 ~ /^F[A-Z]*_[A-Z_0-9]+$/ && $2 !~ /^FE_/ && NF > 2 { print $2 }' "$1"
}

# "STRUCT MEMBER flexible|fixed" for each member of each structure
members() {
	awk '$1 == "struct" && $3 == "{" { in_struct = $2; next }
	     $1 ~ /^}/ { in_struct = "" }
	     in_struct && match($0, /[a-zA-Z_0-9]+(\[[^]]*\])?;/) {
		member = substr($0, RSTART, RLENGTH - 1)
		kind = member ~ /\[\]/ ? "flexible" : "fixed"
		sub(/\[.*/, "", member)
		print in_struct, member, kind
	     }' "$1"
}

structures() {
	sed -n 's/^struct \([a-z_0-9]*\) {.*/\1/p' "$1"
}

# Where a newer header names what older ones call padding, and ours knows by its place.
places() {
	cat <<'END'
	show("place of backing_id", PLACE_OPEN);
	show("place of max_stack_depth", PLACE_INIT);
END
}

program() {
	echo '#include <stddef.h>'
	echo '#include <stdio.h>'
	echo '#include <sys/ioctl.h>'
	echo 'static void show(const char *name, unsigned long long value)'
	echo '{ fputs(name, stdout); printf(" %llu", value); putchar(10); }'
	echo 'int main(void) {'
	constants "$ours" | while read -r name; do
		echo "	show(\"$name\", (unsigned long long)($name));"
	done
	members "$ours" | while read -r type member kind; do
		echo "	show(\"offset $type.$member\", offsetof(struct $type, $member));"
		[[ $kind == flexible ]] ||
			echo "	show(\"size $type.$member\", sizeof(((struct $type *)0)->$member));"
	done
	# what both headers have must not have changed its size either
	{ structures "$ours"; structures /usr/include/linux/fuse.h; } | sort -u | while read -r type; do
		echo "	show(\"size $type\", sizeof(struct $type));"
	done
	places
	echo '	return 0;'
	echo '}'
}

build() { # NAME HEADER FLAGS...
	local name=$1 header=$2
	shift 2
	"$cc" -std=gnu11 -Wall -Wextra -Werror -include "$header" "$@" "$dir/abi.c" -o "$dir/$name"
	"$dir/$name" >"$dir/$name.out"
}

program >"$dir/abi.c"
mkdir -p "$dir/include/linux"
cp "$newer" "$dir/include/linux/fuse.h"
by_number=(-DPLACE_OPEN=FE_OPEN_OUT_BACKING_ID -DPLACE_INIT=FE_INIT_OUT_MAX_STACK_DEPTH)
by_name=('-DPLACE_OPEN=offsetof(struct fuse_open_out, backing_id)'
	'-DPLACE_INIT=offsetof(struct fuse_init_out, max_stack_depth)')

build ours base/fuse_abi.h -I"$here" "${by_number[@]}"
build newer linux/fuse.h -I"$dir/include" "${by_name[@]}"
# where the newer header is installed, ours steps back
build both base/fuse_abi.h -I"$dir/include" -I"$here" "${by_number[@]}"

count=$(wc -l <"$dir/newer.out")
if ((count < 100)); then
	echo "only $count values were compared: the headers are no longer understood"
	exit 1
fi
status=0
for name in ours both; do
	if ! diff -U0 --label "base/fuse_abi.h ($name)" --label "$newer" "$dir/$name.out" "$dir/newer.out"; then
		status=1
	fi
done
[[ $status != 0 ]] || echo "$count values agree with FUSE 7.$minor"
exit "$status"
