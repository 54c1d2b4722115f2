# SPDX-License-Identifier: LGPL-2.1-or-later
"""Servers on loopback, a long line before them, and the file systems that are mounted over it."""
import os
import shlex
import socket
import subprocess
import time

from systems import END_SECONDS, BenchError, System

START_SECONDS = 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _listens(port):
    # Not by a connection: diod 1.0.24 dies of some that are cut off.
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(fields[1].endswith(f":{port:04X}") and fields[3] == "0A"
                   for fields in (line.split() for line in table))


class Server:
    """A process of ours that listens on `port`."""

    def __init__(self, scratch, name, command, port):
        self.port = port
        self.name, self.log = name, os.path.join(scratch, name + ".log")
        # SIGPIPE stays ignored, as service managers have it: diod 1.0.24 dies of it where a client
        # unmounts.
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True, restore_signals=False)
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BenchError(f"`{shlex.join(command)}` does not serve: {self.said()}")
            time.sleep(0.05)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            text = " | ".join(log.read().splitlines()[-4:])
        ended = self.process.poll()
        return f"{self.name}{'' if ended is None else f' ended with status {ended}'} said: {text}"

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_diod(scratch, export):
    port = free_port()
    return Server(scratch, "diod", ["diod", "-f", "-n", "-N", "-l", f"127.0.0.1:{port}",
                                    "-e", export, "-L", "stderr", "-c", "/dev/null"], port)


def start_ganesha(scratch, export):
    port, conf = free_port(), os.path.join(scratch, "ganesha.conf")
    with open(conf, "w", encoding="ascii") as out:
        out.write("NFS_CORE_PARAM { Protocols = 9P; }\n"
                  f"_9P {{ _9P_TCP_Port = {port}; }}\n"
                  f"EXPORT {{ Export_Id = 1; Path = {export}; Pseudo = {export}; Protocols = 9P;\n"
                  "  Access_Type = RW; Squash = No_Root_Squash; FSAL { Name = VFS; } }\n"
                  "LOG { Default_Log_Level = WARN; }\n")
    return Server(scratch, "ganesha", ["ganesha.nfsd", "-F", "-f", conf,
                                       "-L", os.path.join(scratch, "ganesha.said"),
                                       "-p", os.path.join(scratch, "ganesha.pid")], port)


SERVERS = {"diod": start_diod, "ganesha": start_ganesha}


def _key(scratch, name):
    path = os.path.join(scratch, name)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def start_sshd(scratch):
    """Takes one key, which is made here."""
    port, conf = free_port(), os.path.join(scratch, "sshd.conf")
    host = _key(scratch, "host_key")
    _key(scratch, "user_key")
    os.makedirs("/run/sshd", exist_ok=True)
    with open(conf, "w", encoding="ascii") as out:
        out.write(f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nPidFile none\nUsePAM no\n"
                  f"AuthorizedKeysFile {scratch}/user_key.pub\nStrictModes no\n"
                  "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
                  "Subsystem sftp internal-sftp\n")
    return Server(scratch, "sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", conf], port)


class Line:
    """The same port, farther away; as it is where there is no delay."""

    def __init__(self, program, port, milliseconds):
        self.port, self.process = port, None
        if not milliseconds:
            return
        self.process = subprocess.Popen([program, str(port), str(int(milliseconds * 500))],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def stop(self):
        if not self.process:
            return
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Remote(System):
    """Is mounted more than once: what the kernel or the server of the mount knew is gone then."""

    def __init__(self, name, backing, scratch, command):
        super().__init__(name, command)
        self.backing = backing
        self.mountpoint = os.path.join(scratch, "mnt-" + name) if command else backing
        self.log = os.path.join(scratch, name + ".log")

    def mount(self):
        if not self.command:
            return
        os.makedirs(self.mountpoint, exist_ok=True)
        command = [part.format(mnt=self.mountpoint) for part in self.command]
        with open(self.log, "ab") as log:
            self.server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                           start_new_session=True)
        self._await_mount(shlex.join(command))

    def remount(self):
        self.stop()
        self.mount()


def mounts(program, export, scratch, spill_dir, line_9p, line_ssh, life):
    """Each keeps names and attributes for as long as sshfs does by itself."""
    options = f"allow_other,entry_timeout={life},attr_timeout={life},negative_timeout={life}"
    source = f"remote:9p://127.0.0.1:{line_9p.port}{export}"
    ssh = (f"allow_other,port={line_ssh.port},IdentityFile={scratch}/user_key,BatchMode=yes,"
           "UserKnownHostsFile=/dev/null,StrictHostKeyChecking=no,ssh_command=ssh -F /dev/null")
    return [Remote("sshfs", export, scratch,
                   ["sshfs", "-f", "-o", ssh, f"root@127.0.0.1:{export}", "{mnt}"]),
            Remote("remote", export, scratch, [program, source, "{mnt}", "-f", "-o", options]),
            Remote("spill", export, scratch,
                   [program, "spill:" + source, "{mnt}", "-f", "-o", f"{options},spill_dir={spill_dir}"])]
