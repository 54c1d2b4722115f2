# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs jobs on systems, round by round, and counts upcalls."""
import json
import os
import shutil
import subprocess
import threading
import time

from rows import TREE_COMMANDS, write_c_tree
from systems import BenchError, pin_to_one_cpu

RUN_SECONDS = 180
LS_FILES = 1000
COUNTED_OPERATIONS = 1000
SKIPPED = 77


class Skip(Exception):
    """The file system lacks what the row needs."""


def build(top, scratch, name, sources):
    """Compiles a program out of sources below the folder `top`."""
    program = os.path.join(scratch, name)
    built = subprocess.run([os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-D_GNU_SOURCE", "-I", top,
                            "-o", program, *(os.path.join(top, source) for source in sources)],
                           check=False, capture_output=True, text=True)
    if built.returncode:
        raise BenchError(f"{name} does not compile: {built.stderr}")
    return program


def build_workload(top, scratch):
    return build(top, scratch, "workload", ("bench/workload.c", "bench/workload_metadata.c",
                                            "bench/workload_data.c"))


def ask_status(control, mountpoint):
    out = subprocess.run([control, "status", mountpoint, "--json"], check=True,
                         capture_output=True, text=True, timeout=10).stdout
    return json.loads(out)


def bounded(command, system, seconds, talk=lambda process: None, **how):
    """Runs a command while talk() speaks with it; one that gets no answer ends its server."""
    expired = threading.Event()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, **how) as process:
        def expire():
            # A process that waits for a FUSE answer can not die before its server does.
            expired.set()
            process.kill()
            system.kill()

        timer = threading.Timer(seconds, expire)
        timer.start()
        try:
            talk(process)
            out, err = process.communicate()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
    if expired.is_set():
        raise BenchError(f"no end after {seconds} s: {' '.join(command[:4])}")
    if process.returncode == SKIPPED:
        raise Skip(err.strip())
    if process.returncode:
        raise BenchError(f"exit {process.returncode}: {err.strip()[-300:]}")
    return out


class Runner:
    def __init__(self, workload, scratch, tarball, quick, pin):
        self.workload = workload
        self.tarball = tarball
        self.quick = quick
        self.pin = pin
        self.serial = 0
        self.environment = dict(os.environ, LC_ALL="C", HOME=scratch, GIT_CONFIG_NOSYSTEM="1")

    def run(self, job, system, counter=None):
        """Samples by metric.  A counter, where given, is called before and after the operations."""
        self.serial += 1
        name = f"{job.name}.{self.serial}"
        backing = os.path.join(system.backing, name)
        os.mkdir(backing)
        try:
            run = getattr(self, "_run_" + job.kind)
            return run(job, system, os.path.join(system.mountpoint, name), backing, counter)
        finally:
            self._remove(system, name)

    def _remove(self, system, name):
        # Through the mount, for a server may keep something for every name that it knows.
        for top in (system.mountpoint, system.backing):
            try:
                self._bounded(["rm", "-rf", os.path.join(top, name)], system, lambda process: None)
            except BenchError:
                continue

    def _bounded(self, command, system, talk):
        return bounded(command, system, RUN_SECONDS, talk, env=self.environment,
                       preexec_fn=pin_to_one_cpu if self.pin else None)

    def _workload(self, system, arguments, counter):
        command = [self.workload, arguments[0]]
        if not counter:
            return json.loads(self._bounded(command + arguments[1:], system, lambda process: None))
        lines = []

        def talk(process):
            # An early end leaves these lines empty; the exit status says why.
            if process.stdout.readline():
                counter.begin()
                process.stdin.write("\n")
                process.stdin.flush()
                lines.append(process.stdout.readline())
                counter.end()
                process.stdin.write("\n")
                process.stdin.flush()

        self._bounded(command + ["-g"] + arguments[1:], system, talk)
        return json.loads(lines[0])

    def _run_workload(self, job, system, directory, backing, counter):
        count = job.quick if self.quick else job.count
        if counter and counter.most:
            count = min(count, counter.most)
        arguments = [job.operation, "-d", directory, "-b", backing, "-n", str(count),
                     "-s", str(job.block), "-c", str(job.clients)]
        if job.direct:
            arguments.append("-D")
        return self._workload(system, arguments, counter)

    def _command(self, system, directory, backing, command, count=1, counter=None):
        return self._workload(system, ["command", "-d", directory, "-b", backing, "-n", str(count),
                                       "--", *command], counter)

    def _run_ls(self, job, system, directory, backing, counter):
        os.mkdir(os.path.join(backing, "c0"))
        for i in range(LS_FILES):
            with open(os.path.join(backing, "c0", f"file{i}"), "wb"):
                pass
        count = job.quick if self.quick else job.count
        return self._command(system, directory, backing, ["ls", "-l"], count, counter)

    def _run_tree(self, job, system, directory, backing, counter):
        sample = {}
        for step, command in TREE_COMMANDS:
            command = [part.format(tar=self.tarball) for part in command]
            sample[step] = self._command(system, directory, backing, command, 1,
                                         counter and counter.of(step))["ns_per_op"]
        return sample

    def _run_make(self, job, system, directory, backing, counter):
        write_c_tree(os.path.join(backing, "c0"), job.quick if self.quick else job.count)
        command = ["make", "-s", f"-j{len(os.sched_getaffinity(0))}"]
        return self._command(system, directory, backing, command, 1, counter)

    def _run_fio(self, job, system, directory, backing, counter):
        if not shutil.which("fio"):
            raise Skip("fio is not installed")
        count = job.quick if self.quick else job.count
        with open(os.path.join(backing, "data"), "wb") as data:
            for _ in range(64):
                data.write(bytes(1 << 20))
        out = self._bounded([
            "fio", "--name=deep", f"--filename={directory}/data", "--ioengine=io_uring",
            "--iodepth=32", "--rw=randread", f"--bs={job.block}", "--direct=1", "--size=64m",
            f"--io_size={count * job.block}", "--allow_file_create=0", "--output-format=json"],
            system, lambda process: None)
        read = json.loads(out[out.index("{"):])["jobs"][0]["read"]
        if not read["total_ios"]:
            raise BenchError("fio did no reads")
        return {"ns_per_op": read["runtime"] * 1e6 / read["total_ios"], "count": read["total_ios"],
                "bytes": read["io_bytes"]}


class Samples:
    """samples[job][system] is a list, one entry a round: the sample, or None where it failed."""

    def __init__(self):
        self.samples = {}
        self.notes = []

    def add(self, job, system, sample):
        self.samples.setdefault(job, {}).setdefault(system, []).append(sample)

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)


def measure(runner, jobs, systems, rounds, progress):
    """Every round runs every job on all systems one after the other, starting with another one."""
    result, dead, failed = Samples(), set(), False
    for number in range(rounds):
        for job in jobs:
            takers = [s for s in systems if s.takes(job.group)]
            first = number % len(takers)
            for system in takers[first:] + takers[:first]:
                progress(f"round {number + 1}/{rounds}  {job.name}  {system.name}")
                sample = None
                if (system.name, job.name) not in dead:
                    try:
                        sample = runner.run(job, system)
                    except Skip as reason:
                        dead.add((system.name, job.name))
                        result.note(f"{job.name}: not on {system.name}: {reason}")
                    except BenchError as reason:
                        failed = True
                        dead.add((system.name, job.name))
                        result.note(f"FAILED {job.name} on {system.name}: {reason}")
                result.add(job.name, system.name, sample)
    return result, failed


class UpcallCounter:
    """Requests that the server saw, by `fuse-extentctl status MNT --json`."""

    most = COUNTED_OPERATIONS

    def __init__(self, program, mountpoint):
        self.program = program
        self.mountpoint = mountpoint
        self.before = {}
        self.counted = {}

    def _read(self):
        # FORGET, RELEASE and what a closing file leaves behind come after the answer.
        time.sleep(0.05)
        return dict(ask_status(self.program, self.mountpoint)["requests"])

    def begin(self):
        self.before = self._read()

    def end(self, label=""):
        after = self._read()
        self.counted[label] = {name: n - self.before.get(name, 0) for name, n in after.items()
                               if n != self.before.get(name, 0)}

    def of(self, label):
        outer = self

        class Labelled:
            begin = staticmethod(outer.begin)
            end = staticmethod(lambda: outer.end(label))
        return Labelled


def count_upcalls(runner, jobs, system, program, result, progress):
    """upcalls[job][step] is {"operations": n, "requests": {opcode: n}}; step "" is the job."""
    upcalls = {}
    for job in jobs:
        if job.kind == "fio" or any(s is None for s in result.samples[job.name][system.name]):
            continue
        progress(f"upcalls  {job.name}")
        counter = UpcallCounter(program, system.mountpoint)
        try:
            sample = runner.run(job, system, counter)
        except (BenchError, Skip, OSError, ValueError, KeyError, subprocess.SubprocessError) as why:
            result.note(f"{job.name}: upcalls not counted: {why}")
            continue
        upcalls[job.name] = {step: {"operations": sample.get("count", 1), "requests": requests}
                             for step, requests in counter.counted.items()}
    return upcalls
