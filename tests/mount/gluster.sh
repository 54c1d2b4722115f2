#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A cluster behind the backend remote, on this machine: nfs-ganesha serves a Gluster volume of three replicas; a
# brick is killed under load, comes back, and has all in the end. Not one of the checks: it needs the packages
# glusterfs-server and nfs-ganesha-gluster, and the directories where Gluster keeps its state.
#   GLUSTER_DIR   where the bricks are (default: /dev/shm); it has to keep trusted extended attributes
if [ -z "${GLUSTER_NET:-}" ]; then
	# Gluster takes no loopback address for a brick: a network of our own, that ends with us.
	exec unshare --net env GLUSTER_NET=10.98.76.54 "$0" "$@"
fi
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/mount/remote.sh
. "$(dirname "$0")/remote.sh"

need_root
need glusterd gluster glusterfsd ganesha.nfsd ss ip
tool hammer
hammer=$tool
[ ! -S /run/glusterd.socket ] || ! gluster volume list >/dev/null 2>&1 || skip_all "a glusterd runs here already"
host=$GLUSTER_NET
ip link set lo up
ip addr add "$host/32" dev lo
volume=fe$$
mnt=$scratch/mnt
glusterd=
bricks=$(mktemp -d "${GLUSTER_DIR:-/dev/shm}/fuse-extent-gluster.XXXXXX")

ask() {
	gluster --mode=script "$@"
}

brick_pid() {
	ask volume status "$volume" --xml | tr -d '\n' | sed 's/<node>/\n/g' | grep -F "<path>$bricks/$1</path>" |
		sed 's/.*<pid>\([0-9-]*\)<.*/\1/'
}

# In the order in which one rests on the other, behind the mount.
at_exit_extra() {
	local pid
	for pid in ${served_by[@]+"${served_by[@]}"}; do
		end_process "$pid"
	done
	ask volume stop "$volume" force >/dev/null 2>&1
	ask volume delete "$volume" >/dev/null 2>&1
	[ -z "$glusterd" ] || end_process "$glusterd"
	rm -rf "$bricks"
}

start_glusterd() {
	cat >"$scratch/glusterd.vol" <<-CONF
		volume management
		    type mgmt/glusterd
		    option working-directory $scratch/glusterd
		    option transport-type socket
		    option transport.socket.bind-address $host
		    option transport.socket.listen-port 24007
		    option max-port 60999
		end-volume
	CONF
	mkdir "$scratch/glusterd"
	glusterd -N -f "$scratch/glusterd.vol" -p "$scratch/glusterd.pid" -l "$scratch/glusterd.log" \
		>"$scratch/glusterd.out" 2>&1 &
	glusterd=$!
	wait_until 60 ask volume list >/dev/null 2>&1
}

make_volume() {
	ask volume create "$volume" replica 3 "$host:$bricks/1" "$host:$bricks/2" "$host:$bricks/3" force
	ask volume set "$volume" transport.address-family inet
	ask volume start "$volume"
}

start_gateway() {
	cat >"$scratch/ganesha.conf" <<-CONF
		NFS_CORE_PARAM { Protocols = 9P; }
		_9P { _9P_TCP_Port = $1; }
		EXPORT { Export_Id = 1; Path = /$volume; Pseudo = /$volume; Protocols = 9P; Access_Type = RW;
			Squash = No_Root_Squash; FSAL { Name = GLUSTER; Hostname = $host; Volume = $volume; } }
		LOG { Default_Log_Level = WARN; }
	CONF
	ganesha.nfsd -F -f "$scratch/ganesha.conf" -L "$scratch/ganesha.log" -p "$scratch/ganesha.pid" \
		>"$scratch/ganesha.out" 2>&1 &
	served_by+=($!)
	wait_until 60 listens "$1" || { tail "$scratch/ganesha.log"; return 1; }
}

start_glusterd
check volume make_volume
port=$(free_port)
start_gateway "$port"
mount_remote "$port" "/$volume" "$mnt"

# ---- a brick dies under load ----

has_files() {
	[ "$(find "$1" -type f 2>/dev/null | wc -l)" -gt 20 ]
}

kill_brick() {
	kill -0 "$load" && kill -9 "$victim"
}

victim=$(brick_pid 2)
mkdir "$mnt/hammer"
"$hammer" --no-exchange --no-shared-pages --procs 8 --steps "${STEPS:-1000}" "$mnt/hammer" >"$scratch/hammer.out" 2>&1 &
load=$!
helper "$load"
wait_until 60 has_files "$bricks/2/hammer"
check brick-killed-under-load kill_brick
rc=0
wait "$load" || rc=$?
same load-unharmed 0 "$rc"
[ "$rc" = 0 ] || tail -n 5 "$scratch/hammer.out"
same brick-is-gone -1 "$(brick_pid 2)"
(cd "$mnt" && find hammer -type f -exec sha256sum {} + | sort -k 2) >"$scratch/seen"
check something-to-compare test -s "$scratch/seen"

# ---- it comes back ----

brick_runs() {
	[ "$(brick_pid 2)" -gt 0 ]
}

healed() {
	ask volume heal "$volume" info | awk '/^Number of entries:/ { if ($4 != 0) bad = 1; n++ } END { exit bad || n != 3 }'
}

check brick-again ask volume start "$volume" force
wait_until 60 brick_runs
check heal-asked-for wait_until 60 ask volume heal "$volume" full
check healed wait_until 300 healed
for brick in 1 2 3; do
	(cd "$bricks/$brick" && find hammer -type f -exec sha256sum {} + | sort -k 2) >"$scratch/brick.$brick"
	check "brick-$brick-has-all" diff "$scratch/seen" "$scratch/brick.$brick"
done
(cd "$mnt" && find hammer -type f -exec sha256sum {} + | sort -k 2) >"$scratch/seen.again"
check mount-still-good diff "$scratch/seen" "$scratch/seen.again"
rm -rf "$mnt/hammer"
umount_fe "$mnt"
finish
