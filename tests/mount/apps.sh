# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash disable=SC2154
# Work that programs do on a mount, and what must come out. For scripts that have sourced lib.sh, and
# made $scratch/tree for tar; each function takes the directory to work in.

need git tar sqlite3 make cc fio
export HOME=$scratch GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@localhost
export GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@localhost

git_work() {
	local repo=$1/repo
	git init -q "$repo"
	cp -a "$tests_dir"/. "$repo"
	git -C "$repo" add -A
	git -C "$repo" commit -q -m first
	echo more >>"$repo/lib.sh"
	git -C "$repo" commit -q -a -m second
	git -C "$repo" gc -q
	git -C "$repo" fsck --full --strict
	git -C "$repo" status --porcelain >"$scratch/status"
	[ ! -s "$scratch/status" ]
	git clone -q "$repo" "$1/linked"
	git clone -q --no-hardlinks "$repo" "$1/clone"
	git -C "$1/clone" fsck --full --strict
	diff -r --exclude=.git "$repo" "$1/clone"
	git -C "$1/clone" rm -q lib.sh
	git -C "$1/clone" commit -q -m third
	git -C "$1/clone" gc -q
	git -C "$1/clone" checkout -q HEAD~2
	git -C "$1/clone" fsck --full --strict
	diff -r "$tests_dir" "$1/clone" --exclude=.git
	git -C "$1/linked" pull -q "$1/clone" HEAD
	git -C "$1/linked" fsck --full --strict
}

# Two archives of equal trees are equal.
pack() {
	tar -C "$1" --sort=name --format=posix --xattrs \
		--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f -cf "$2" tree
}

tar_work() {
	mkdir "$1/tar"
	pack "$scratch" "$1/tar/all.tar"
	tar -C "$1/tar" --same-owner --xattrs -xpf "$1/tar/all.tar"
	diff -r --no-dereference --exclude=fifo "$scratch/tree" "$1/tar/tree"
	diff <(shape "$scratch/tree") <(shape "$1/tar/tree")
	tar -C "$1/tar" -df "$1/tar/all.tar"
	pack "$1/tar" "$1/tar/again.tar"
	cmp "$1/tar/all.tar" "$1/tar/again.tar"
}

shape() {
	(cd "$1" && find . -printf '%p %y %m %U:%G %n %T@ %l\n' | sort)
}

# repeated DB COUNT TEXT: COUNT times in one process, with & for the number.
repeated() {
	seq 1 "$2" | sed "s/.*/$3/" | sqlite3 -bail -cmd '.timeout 60000' "$1"
}

# Writers who note each commit that they were told of, and a reader who must never see half of one.
sqlite_work() {
	local db=$1/db mode=$2 commits=100 i pids=() step
	[ "$(sqlite3 "$db" "pragma journal_mode=$mode")" = "$mode" ]
	sqlite3 "$db" 'create table t(who, a, b); create table total(n); insert into total values(0)'
	for i in 1 2; do
		step="insert into t values($i, &, hex(randomblob(300))); update total set n = n + 1;"
		repeated "$db" $commits "begin immediate; $step commit; select &;" >"$scratch/told.$i" &
		pids+=($!)
	done
	repeated "$db" 300 'select n, n = (select count(*) from t) from total;' >"$scratch/seen" &
	pids+=($!)
	for i in "${pids[@]}"; do
		wait "$i"
	done
	for i in 1 2; do
		diff <(seq 1 $commits) "$scratch/told.$i"
		diff <(seq 1 $commits) <(sqlite3 "$db" "select a from t where who = $i order by a")
	done
	sort -n -c "$scratch/seen"
	grep -c '|1$' "$scratch/seen" | grep -qx 300
	[ "$(sqlite3 "$db" 'pragma integrity_check')" = ok ]
	[ "$(sqlite3 "$db" 'select n from total')" = $((2 * commits)) ]
	rm -f "$db" "$db"-*
}

make_work() {
	local dir=$1/make i
	mkdir "$dir"
	for i in $(seq 1 20); do
		printf 'int f%d(int x) { return x + %d; }\n' "$i" "$i" >"$dir/f$i.c"
		printf 'int f%d(int x);\n' "$i" >>"$dir/f.h"
	done
	{
		printf '#include <stdio.h>\n#include "f.h"\nint main(void) { int x = 0;\n'
		seq -f 'x = f%g(x);' 1 20
		# shellcheck disable=SC2028
		echo 'printf("%d\n", x); return 0; }'
	} >"$dir/main.c"
	# shellcheck disable=SC2016
	printf 'objects = %s main.o\nprog: $(objects)\n\t$(CC) -o $@ $(objects)\n%%.o: %%.c f.h\n\t$(CC) -c -o $@ $<\n' \
		"$(seq -f 'f%g.o' -s ' ' 1 20)" >"$dir/Makefile"
	make -s -j4 -C "$dir"
	[ "$("$dir/prog")" = 210 ]
	make -C "$dir" | grep -q 'up to date'
	touch "$dir/f.h"
	make -n -C "$dir" | grep -c -- ' -c ' | grep -qx 21
}

fio_work() {
	local dir=$1/fio.$2
	shift 2
	mkdir "$dir"
	fio --directory="$dir" --name=verify --size=12M --numjobs=2 --verify=crc32c --verify_fatal=1 --group_reporting \
		--verify_backlog=64 --verify_state_save=0 --randseed=1 --fallocate=none "$@"
	rm -rf "$dir"
}

# tree DIR: one with what an archive may hold.
tree() {
	mkdir -p "$1/sub/deeper" "$1/empty"
	cp -a "$tests_dir"/*.c "$1/sub"
	ln -s ../sub "$1/sub/link"
	ln "$1/sub/hammer.c" "$1/hard"
	mkfifo "$1/fifo"
	truncate -s 10M "$1/sparse"
	touch -d 1999-12-31T23:59:59.123456789 "$1/old"
	chmod 600 "$1/old"
	chown 60001:60002 "$1/old"
	chmod 2775 "$1/empty"
}
