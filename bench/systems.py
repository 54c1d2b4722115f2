# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file systems that are compared: each a mount on its own directory of the same source."""
import gzip
import os
import shlex
import shutil
import signal
import subprocess
import time

MOUNT_SECONDS = 10
END_SECONDS = 5


class BenchError(Exception):
    """A run that gave no number; the text says why."""


def is_mounted(directory):
    # Not stat(): that would ask a server that may hang.
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
        return any(line.split()[4] == directory for line in table)


def pin_to_one_cpu():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


class System:
    """Without a command this is the source file system itself."""

    def __init__(self, name, command=None, groups=None):
        self.name = name
        self.command = command
        self.groups = groups
        self.server = None
        self.backing = self.mountpoint = self.log = None

    def takes(self, group):
        return self.groups is None or group in self.groups

    def start(self, source, scratch, pin):
        self.backing = os.path.join(source, self.name)
        self.mountpoint = self.backing
        os.mkdir(self.backing)
        if not self.command:
            return
        self.mountpoint = os.path.join(scratch, "mnt-" + self.name)
        os.mkdir(self.mountpoint)
        self.log = os.path.join(scratch, self.name + ".log")
        command = [part.format(src=self.backing, mnt=self.mountpoint) for part in self.command]
        with open(self.log, "wb") as log:
            self.server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=pin_to_one_cpu if pin else None)
        self._await_mount(shlex.join(command))

    def _await_mount(self, command):
        deadline = time.monotonic() + MOUNT_SECONDS
        while not is_mounted(self.mountpoint):
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"no mount by `{command}`: {self.log_tail()}")
            time.sleep(0.01)

    def log_tail(self):
        if not self.log or not os.path.exists(self.log):
            return ""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return " | ".join(log.read().splitlines()[-4:])

    def kill(self):
        """Ends the server at once: what waits for its answers gets an error."""
        if self.server and self.server.poll() is None:
            self._signal(signal.SIGKILL)

    def _signal(self, number):
        # The session is the server's own, so this reaches all its processes and nobody else's.
        try:
            os.killpg(self.server.pid, number)
        except ProcessLookupError:
            pass

    def stop(self):
        if self.mountpoint and self.mountpoint != self.backing:
            self._unmount()
        if not self.server:
            return
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number:
                self._signal(number)
            try:
                self.server.wait(END_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self._signal(signal.SIGKILL)
        self.server = None

    def _unmount(self):
        for options in ([], [], ["-l"]):
            if not is_mounted(self.mountpoint):
                return
            if self._umount(options):
                time.sleep(0.3)

    def _umount(self, options):
        with subprocess.Popen(["umount", *options, self.mountpoint], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:
            try:
                return process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                # Even umount may wait for a server that does not answer.
                self.kill()
                return process.wait()


def find_program(given, top):
    """The fuse-extent to measure: what the user names, else the one of the build tree."""
    if given:
        if not os.access(given, os.X_OK):
            raise BenchError(f"{given} is not a program")
        return os.path.abspath(given)
    for folder in (".", "build", top, os.path.join(top, "build")):
        candidate = os.path.join(folder, "programs", "fuse-extent")
        if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return os.path.abspath(candidate)
    return None


EXAMPLES = "share/doc/libfuse3-dev/examples"


def build_passthrough_ll(scratch):
    """Compiles libfuse's own example; returns the program, or the reason why there is none."""
    probe = subprocess.run(["pkg-config", "--variable=prefix", "fuse3"], check=False,
                           capture_output=True, text=True)
    if probe.returncode:
        return None, "pkg-config knows no fuse3"
    folder = os.path.join(probe.stdout.strip(), EXAMPLES)
    for name in ("passthrough_ll.c", "passthrough_helpers.h"):
        target = os.path.join(scratch, name)
        if os.path.exists(os.path.join(folder, name)):
            shutil.copy(os.path.join(folder, name), target)
        elif os.path.exists(os.path.join(folder, name + ".gz")):
            with gzip.open(os.path.join(folder, name + ".gz")) as packed, open(target, "wb") as out:
                shutil.copyfileobj(packed, out)
        else:
            return None, f"no {name} in {folder}"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], check=True,
                           capture_output=True, text=True).stdout.split()
    program = os.path.join(scratch, "passthrough_ll")
    built = subprocess.run([os.environ.get("CC", "cc"), "-O2", "-w", "-D_GNU_SOURCE", "-o", program,
                            os.path.join(scratch, "passthrough_ll.c"), *flags],
                           check=False, capture_output=True, text=True)
    return (program, None) if not built.returncode else (None, built.stderr.splitlines()[0])


def served(program, name, options="", groups=None, backend="passthrough"):
    return System(name, [program, backend + ":{src}", "{mnt}", "-f", "-o", "allow_other" + options],
                  groups)


def served_by_libfuse(program, name, options="", groups=None):
    options = "source={src},allow_other,default_permissions,clone_fd" + options
    return System(name, [program, "-f", "-o", options, "{mnt}"], groups)


def all_systems(scratch, program):
    """The systems that this machine has, and a line for each that it lacks."""
    systems, missing = [System("native")], []
    if program:
        systems.append(served(program, "fuse-extent"))
        systems.append(served(program, "nopassthrough", ",nopassthrough", {"data"}))
        # its temporary files have no names
        systems.append(served(program, "spill", ",spill_dir={src}", {"data", "applications"},
                              "spill:passthrough"))
    else:
        missing.append("fuse-extent: no programs/fuse-extent here; name one by --program")
    peer, reason = build_passthrough_ll(scratch)
    if peer:
        systems.append(served_by_libfuse(peer, "passthrough_ll"))
        systems.append(served_by_libfuse(peer, "ll-xattr", ",xattr", {"xattrs"}))
    else:
        missing.append(f"passthrough_ll: {reason}")
    if shutil.which("bindfs"):
        systems.append(System("bindfs", ["bindfs", "-f", "{src}", "{mnt}"]))
    else:
        missing.append("bindfs: not installed")
    return systems, missing
