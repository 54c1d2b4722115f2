# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the commands of this folder have in common: progress, scratch directories, a clean end."""
import os
import shutil
import signal
import sys
import tempfile
import time

import systems

DEFAULT_SOURCE = "/dev/shm"
QUIET_LOAD = 0.3
QUIET_SECONDS = 5


def add_common_arguments(parser):
    parser.add_argument("--source", metavar="DIR", default=DEFAULT_SOURCE,
                        help=f"file system to serve from, by default {DEFAULT_SOURCE}")
    parser.add_argument("--program", metavar="FILE", default=os.environ.get("FUSE_EXTENT"),
                        help="the fuse-extent to measure; else $FUSE_EXTENT, else the built one")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--out", metavar="DIR", help="write table, JSON, SVG and PNG there")


class Progress:
    """One line on a terminal, nothing elsewhere."""

    def __init__(self, total):
        self.total, self.done, self.started = total, 0, time.monotonic()
        self.shown = sys.stderr.isatty()

    def __call__(self, text):
        if self.shown:
            spent = time.monotonic() - self.started
            left = spent / self.done * (self.total - self.done) if self.done else 0
            line = f"{100 * self.done // self.total:3}%  {text}" + (f"  {left:.0f} s left"
                                                                  if self.done > 20 else "")
            sys.stderr.write(f"\r\033[K{line[:110]}")
            sys.stderr.flush()
        self.done = min(self.done + 1, self.total)

    def end(self):
        if self.shown:
            sys.stderr.write("\r\033[K")


def find_control(program):
    """fuse-extentctl stands beside the program that it asks."""
    path = os.path.join(os.path.dirname(program), "fuse-extentctl") if program else None
    return path if path and os.access(path, os.X_OK) else None


def _busy_seconds():
    with open("/proc/stat", encoding="ascii") as stat:
        fields = [int(field) for field in stat.readline().split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def await_quiet(limit):
    """Waits until the machine has little else to do, or `limit` seconds; how many CPUs were busy."""
    end = time.monotonic() + limit
    while True:
        before, started = _busy_seconds(), time.monotonic()
        time.sleep(QUIET_SECONDS)
        load = (_busy_seconds() - before) / (time.monotonic() - started)
        if load < QUIET_LOAD or time.monotonic() >= end:
            return load


def _interrupt(number, _frame):
    raise KeyboardInterrupt(number)


def shield():
    """From here on cleaning up is all that is left to do, and nothing may cut it short."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def run(name, parent, bench):
    """The exit status of bench(scratch, source), which get a fresh directory each."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    scratch = source = None
    try:
        scratch = tempfile.mkdtemp(prefix="fuse-extent-bench.")
        source = tempfile.mkdtemp(prefix="fuse-extent-bench.", dir=parent)
        return bench(scratch, source)
    except systems.BenchError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        return 130
    finally:
        shield()
        for directory in (source, scratch):
            if directory:
                shutil.rmtree(directory, ignore_errors=True)
