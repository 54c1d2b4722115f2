# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Servers for the tests of the backend remote, on loopback, and what stands between; sourced behind lib.sh.

# What 9P2000.L can not do (fsdiff --list has the reasons).
protocol=tmpfile,rename-flags,no-fallocate,no-holes,btime,hidden,empty-xattr,chown-nothing

served_by=()

# Behind the mounts: without its server an unmount would wait.
at_exit_extra() {
	local pid
	for pid in ${served_by[@]+"${served_by[@]}"}; do
		end_process "$pid"
	done
}

free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

listens() {
	ss -Hltn "sport = :$1" | grep -q .
}

# It is started again when it dies: diod 1.0.24 does so at times when a connection is cut off.
diod_again_and_again() {
	local status child=
	trap - ERR EXIT
	cd "$scratch" || exit
	trap 'kill "$child"; kill -CONT "$child"; exit 0' TERM
	set +e
	while :; do
		diod -f -n -N -l "127.0.0.1:$1" -e "$2" -L stderr -c /dev/null &
		child=$!
		echo "$child" >"$scratch/diod.pid.new"
		mv "$scratch/diod.pid.new" "$scratch/diod.pid"
		wait "$child"
		status=$?
		rm "$scratch/diod.pid"
		echo "diod ended with status $status"
		sleep 0.1
	done
}

# start_diod PORT EXPORT: sets $server.
start_diod() {
	diod_again_and_again "$1" "$2" >>"$scratch/diod.log" 2>&1 &
	server=$!
	served_by+=("$server")
	wait_until 20 listens "$1" || { cat "$scratch/diod.log"; return 1; }
}

try_kill_diod() {
	kill -9 "$(cat "$scratch/diod.pid" 2>/dev/null)" 2>/dev/null
}

# Between one that died and the next one there is none.
kill_diod() {
	wait_until 20 try_kill_diod
}

# start_ganesha PORT EXPORT: sets $server.
start_ganesha() {
	cat >"$scratch/ganesha.conf" <<-CONF
		NFS_CORE_PARAM { Protocols = 9P; }
		_9P { _9P_TCP_Port = $1; }
		NFSv4 { Graceless = true; }
		EXPORT { Export_Id = 1; Path = $2; Pseudo = $2; Protocols = 9P; Access_Type = RW;
			Squash = No_Root_Squash; FSAL { Name = VFS; } }
		LOG { Default_Log_Level = WARN; }
	CONF
	(cd "$scratch" && exec ganesha.nfsd -F -f "$scratch/ganesha.conf" -L "$scratch/ganesha.log" -p "$scratch/ganesha.pid") \
		>"$scratch/ganesha.out" 2>&1 &
	server=$!
	served_by+=("$server")
	wait_until 60 listens "$1" || { tail "$scratch/ganesha.log"; return 1; }
}

# start_proxy PORT SERVER-PORT: what it does is in $scratch/proxy.mode.
start_proxy() {
	echo pass >"$scratch/proxy.mode"
	[ -p "$scratch/proxy.in" ] || mkfifo "$scratch/proxy.in"
	python3 "$tests_dir/p9proxy.py" "$1" "$2" "$scratch/proxy.mode" <>"$scratch/proxy.in" \
		>"$scratch/proxy.log" 2>&1 &
	proxy=$!
	served_by+=("$proxy")
	wait_until 20 listens "$1"
}

proxy_does() {
	echo "$*" >"$scratch/proxy.mode.new"
	mv "$scratch/proxy.mode.new" "$scratch/proxy.mode"
}

# mount_remote PORT EXPORT MOUNTPOINT [OPTIONS]
# REMOTE_BELOW   what stacks on it, with its colon
mount_remote() {
	start_fe "$3" "${REMOTE_BELOW:-}remote:9p://127.0.0.1:$1$2" "$3" -o "allow_other${4:+,$4}"
}

# counter NAME [MOUNTPOINT]: of its status.
counter() {
	json_of "${2:-$scratch/mnt}" "s['backend_status'].get('inner', {}).get('state', s['backend_status'])['$1']"
}

# ... from a server that may just be starting again.
mount_patiently() {
	wait_until 30 mount_remote "$@"
}
