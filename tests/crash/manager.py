#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small service manager: what systemd does for a unit with a file descriptor store.

manager.py [--max N] [--exit main|cgroup] [--log FILE] SOCKET COMMAND...
    starts the command with NOTIFY_SOCKET=SOCKET, takes its messages as sd_notify(3) tells them, and starts
    it again with what it stored (LISTEN_FDS) when it was killed or failed. It goes on until the command ends
    with status 0.
manager.py --ask SOCKET state|kill|main|stop|pause|resume|forget NAME|double NAME
    state prints JSON; kill ends all processes of the service at once, main its main process; stop sends
    SIGTERM to that one and starts nothing again; pause lets messages lie; forget loses what has this name;
    double adds something else under it.

As with systemd: what is stored already, by whatever name, is not stored again (kcmp(2)); a message whose
sender can not be found any more is dropped; messages are read before the dead are reaped; what is left of a
service is killed before it is started again.
"""
import argparse
import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import time

FIRST = 3
PR_SET_CHILD_SUBREAPER = 36
SYS_KCMP = {"x86_64": 312, "aarch64": 272}[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)


def same_file(a, b):
    pid = os.getpid()
    return libc.syscall(SYS_KCMP, pid, pid, 0, ctypes.c_ulong(a), ctypes.c_ulong(b)) == 0


def session_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None, None
    return int(fields[3]), fields[0]


class Manager:
    def __init__(self, arguments):
        self.arguments = arguments
        self.store = []             # (name, descriptor), in the order in which they came
        self.main = self.session = None
        self.starts = self.messages = self.dropped = self.refused = 0
        self.ready = self.stopping = self.stop = self.paused = False
        self.main_status = 0
        self.status = ""
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        name = arguments.socket
        self.socket.bind("\0" + name[1:] if name[0] == "@" else name)
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control.bind(control_name(name))
        self.control.listen(8)

    def log(self, text):
        with open(self.arguments.log, "a", encoding="utf-8") as f:
            f.write(f"manager: {text}\n")

    def start(self):
        self.starts += 1
        self.ready = self.stopping = False
        self.main = os.fork()
        self.session = self.main
        if self.main:
            return
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        environment = dict(os.environ, NOTIFY_SOCKET=self.arguments.socket)
        environment.pop("LISTEN_PID", None)
        log = os.open(self.arguments.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for fd in (1, 2):
            os.dup2(log, fd)
        if self.store:
            environment.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(self.store)),
                               LISTEN_FDNAMES=":".join(name for name, _ in self.store))
            import fcntl
            above = FIRST + len(self.store)
            copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for _, fd in self.store]
            for i, fd in enumerate(copies):
                os.dup2(fd, FIRST + i, inheritable=True)
        os.execvpe(self.arguments.command[0], self.arguments.command, environment)

    def processes(self):
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                session, state = session_of(int(entry))
                if session == self.session and state != "Z":
                    found.append(int(entry))
        return found

    # ---- messages ----

    def receive(self):
        """One message, if there is any."""
        try:
            data, control, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4 * 253),
                                                      socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        fds, pid = [], 0
        for level, kind, value in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = list(struct.unpack(f"{len(value) // 4}i", value))
            elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                pid = struct.unpack("iII", value)[0]
        self.messages += 1
        if session_of(pid)[0] != self.session:
            self.dropped += 1
            self.log(f"a message of {pid}, which is none of the service's, is dropped: {data!r}")
        else:
            self.take(data.decode(), fds)
        for fd in fds:
            os.close(fd)
        return True

    def take(self, text, fds):
        fields = dict(line.split("=", 1) for line in text.split("\n") if line)
        name = fields.get("FDNAME", "stored")
        if fields.get("FDSTORE") == "1":
            for fd in fds:
                self.add(name, fd)
        if fields.get("FDSTOREREMOVE") == "1":
            for entry in [e for e in self.store if e[0] == name]:
                self.store.remove(entry)
                os.close(entry[1])
        self.ready |= fields.get("READY") == "1"
        self.stopping |= fields.get("STOPPING") == "1"
        self.status = fields.get("STATUS", self.status)
        if "MAINPID" in fields:
            self.main = int(fields["MAINPID"])

    def add(self, name, fd):
        if len(self.store) >= self.arguments.max:
            self.refused += 1
        elif not any(same_file(fd, other) for _, other in self.store):
            self.store.append((name, os.dup(fd)))

    # ---- deaths ----

    def reap(self):
        """One by one, and what each has said last before that, while it can be told who it is."""
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if not dead:
                return
            while self.receive():
                pass
            pid, status = os.waitpid(dead.si_pid, 0)
            if pid == self.main:
                self.main_status = status
                self.main = 0

    def over(self):
        """Whether the service has ended; its last processes are gone then."""
        if self.main and self.arguments.exit == "main":
            return False
        left = self.processes()
        if left and self.arguments.exit == "cgroup":
            return False
        while left and not self.main:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.002)
            self.reap()
            left = self.processes()
        return not self.main

    def answer(self):
        client, _ = self.control.accept()
        with client:
            word, _, name = client.recv(64).decode().partition(" ")
            if word == "kill":
                os.killpg(self.session, signal.SIGKILL)
            elif word == "main":
                os.kill(self.main, signal.SIGKILL)
            elif word == "stop":
                self.stop = True
                os.kill(self.main, signal.SIGTERM)
            elif word in ("pause", "resume"):
                self.paused = word == "pause"
            elif word == "double":
                self.add(name, os.open("/dev/null", os.O_RDONLY))
            elif word == "forget":
                self.take(f"FDSTOREREMOVE=1\nFDNAME={name}", [])
            state = {key: getattr(self, key) for key in ("main", "starts", "messages", "dropped", "refused", "ready",
                                                         "stopping", "status")}
            state["store"] = [name for name, _ in self.store]
            client.sendall(json.dumps(state).encode())

    def give_up(self, *_):
        if self.session:
            os.killpg(self.session, signal.SIGKILL)
        os._exit(1)

    def run(self):
        self.start()
        signal.signal(signal.SIGTERM, self.give_up)
        while True:
            readers = [self.control] if self.paused else [self.control, self.socket]
            ready = select.select(readers, [], [], 0.01)[0]
            while not self.paused and self.receive():
                pass
            if self.control in ready:
                self.answer()
            elif not self.paused:
                self.reap()
            if self.main or not self.over():
                continue
            self.log(f"the service ended with status {self.main_status}, {len(self.store)} stored")
            if not self.main_status or self.stop:
                break
            self.start()
        print(json.dumps({"status": self.main_status, "store": [name for name, _ in self.store],
                          "starts": self.starts, "messages": self.messages, "dropped": self.dropped}))
        return 0 if self.main_status == 0 else 1


def control_name(name):
    return "\0" + name.lstrip("@") + ".control"


def ask(name, word):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.connect(control_name(name))
        s.sendall(word.encode())
        return b"".join(iter(lambda: s.recv(65536), b"")).decode()


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "--ask":
        print(ask(sys.argv[2], sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser()
    parser.add_argument("--max", type=int, default=100000)
    parser.add_argument("--exit", choices=("main", "cgroup"), default="cgroup")
    parser.add_argument("--log", default="/dev/stderr")
    parser.add_argument("socket")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return Manager(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
