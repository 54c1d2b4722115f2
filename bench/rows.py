# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured: jobs are run, rows are numbers taken out of their samples."""
import os
from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Job:
    """One program run per system and round.  count and quick are operations per client."""
    name: str
    group: str
    operation: str
    count: int
    quick: int
    block: int = 4 * KIB
    clients: int = 1
    direct: bool = False
    kind: str = "workload"


@dataclass(frozen=True)
class Row:
    name: str
    group: str
    label: str
    job: str
    metric: str = "ns_per_op"
    unit: str = "us"


JOBS, ROWS = [], []


def _job(name, group, operation, count, quick, **more):
    JOBS.append(Job(name, group, operation, count, quick, **more))


def _row(name, group, label, **more):
    ROWS.append(Row(name, group, label, more.pop("job", name), **more))


def _metadata():
    for name, label, count, quick in (
            ("create", "create + close", 5000, 800),
            ("stat-hot", "stat, one file", 100000, 10000),
            ("stat-cold", "stat, never seen files", 8000, 1500),
            ("absent-new", "stat, new absent names", 8000, 1500),
            ("absent-same", "stat, one absent name", 50000, 5000),
            ("open-close", "open + close", 8000, 1500),
            ("open-read-close", "open + read 4k + close", 6000, 1000),
            ("readdir-stat", "readdir + stat of each", 10000, 3000),
            ("append", "append 100 bytes", 10000, 1500),
            ("rename", "rename", 5000, 800),
            ("unlink", "unlink", 5000, 800),
            ("mkdir", "mkdir", 5000, 800),
            ("rmdir", "rmdir", 5000, 800),
            ("symlink-readlink", "symlink + readlink", 4000, 600),
            ("chmod", "chmod", 8000, 1500)):
        _job(name, "metadata", name, count, quick)
        _row(name, "metadata", label)


def _xattrs():
    """What asks for extended attributes: ls -l looks for an ACL and a security label on each file."""
    _job("ls-l", "xattrs", "ls-l", 20, 4, kind="ls")
    _row("ls-l", "xattrs", "ls -l of 1k files")
    _job("getxattr", "xattrs", "getxattr", 10000, 1500)
    _row("getxattr", "xattrs", "getxattr")


def _data():
    for name, label, operation, block, size, quick, more in (
            ("seq-read-128k", "read 128k", "read", 128 * KIB, 256, 64, {}),
            ("seq-read-1m", "read 1M", "read", MIB, 256, 64, {}),
            ("known-read-128k", "read 128k, read before", "read-known", 128 * KIB, 256, 64, {}),
            ("known-read-1m", "read 1M, read before", "read-known", MIB, 256, 64, {}),
            ("seq-write-128k", "write 128k", "write", 128 * KIB, 256, 64, {}),
            ("seq-write-1m", "write 1M", "write", MIB, 256, 64, {}),
            ("rand-read-4k", "random read 4k", "read-random", 4 * KIB, 40, 10, {}),
            ("rand-read-4k-warm", "random read 4k, warm", "read-warm", 4 * KIB, 64, 16, {}),
            ("rand-write-4k", "random write 4k", "write-random", 4 * KIB, 40, 10, {}),
            ("direct-read-4k", "O_DIRECT read 4k", "read-random", 4 * KIB, 40, 10,
             {"direct": True}),
            ("direct-read-128k", "O_DIRECT read 128k", "read", 128 * KIB, 256, 64,
             {"direct": True}),
            ("direct-write-4k", "O_DIRECT write 4k", "write-random", 4 * KIB, 40, 10,
             {"direct": True}),
            ("direct-write-128k", "O_DIRECT write 128k", "write", 128 * KIB, 256, 64,
             {"direct": True}),
            ("deep-read-4k", "O_DIRECT read 4k, 4 clients", "read-random", 4 * KIB, 16, 5,
             {"direct": True, "clients": 4}),
            ("mmap-read", "mmap read", "mmap-read", 128 * KIB, 256, 64, {})):
        _job(name, "data", operation, size * MIB // block, quick * MIB // block, block=block,
             **more)
        _row(name, "data", label, unit="us" if block == 4 * KIB else "MB/s")
    _job("uring-read-4k", "data", "fio", 65536, 32768, kind="fio", direct=True)
    _row("uring-read-4k", "data", "O_DIRECT read 4k, io_uring 32 deep")


def _applications():
    _job("tree", "applications", "tree", 1, 1, kind="tree")
    for name, label in (("untar", "untar the tree"), ("du", "du -s"), ("grep", "grep -r"),
                        ("git", "git init, add, status"), ("rm", "rm -r")):
        _row(name, "applications", label, job="tree", metric=name, unit="s")
    _job("make", "applications", "make", 60, 12, kind="make")
    _row("make", "applications", "make", unit="s")


def _latency():
    for job, label in (("stat-cold", "stat, never seen"), ("create", "create + close"),
                       ("rand-read-4k", "random read 4k")):
        for metric in ("p50", "p99"):
            _row(f"{job}-{metric}", "latency", f"{label}: {metric}", job=job, metric=metric + "_ns")
    for job, label, operation, count, quick in (
            ("stat-cold-4", "stat, never seen: 4 clients", "stat-cold", 4000, 600),
            ("create-4", "create + close: 4 clients", "create", 2000, 300),
            ("rand-read-4k-4", "random read 4k: 4 clients", "read-random", 4096, 1200)):
        _job(job, "latency", operation, count, quick, clients=4)
        _row(job, "latency", label)


_metadata()
_xattrs()
_data()
_applications()
_latency()
GROUPS = ("metadata", "xattrs", "data", "applications", "latency")


def select(only):
    """The rows that a comma list of row and group names asks for, with the jobs they need."""
    wanted = [word for word in only.split(",") if word] if only else list(GROUPS)
    known = {row.name for row in ROWS} | set(GROUPS)
    unknown = [word for word in wanted if word not in known]
    if unknown:
        raise ValueError(f"no row or group {', '.join(unknown)}; --list shows them")
    rows = [row for row in ROWS if row.name in wanted or row.group in wanted]
    jobs = [job for job in JOBS if any(row.job == job.name for row in rows)]
    return rows, jobs


TREE_COMMANDS = (
    ("untar", ["tar", "-xf", "{tar}"]),
    ("du", ["du", "-s", "."]),
    # -c, so that it reads every byte and ends with success.
    ("grep", ["grep", "-rFc", "define", "."]),
    ("git", ["sh", "-c", "git init -q . && git -c core.compression=0 add -A . && git status -s"]),
    ("rm", ["rm", "-r", "tree"]),
)


def write_c_tree(directory, count):
    """A small C program of count files with headers of its own, and a Makefile."""
    os.makedirs(os.path.join(directory, "include"))

    def put(name, text):
        with open(os.path.join(directory, name), "w", encoding="ascii") as out:
            out.write(text)

    for i in range(count):
        put(f"include/unit{i}.h",
            f"#ifndef UNIT{i}_H\n#define UNIT{i}_H\nint unit{i}(int x);\n#endif\n")
        uses = [(i * 7 + k) % count for k in range(8)]
        includes = "".join(f'#include "unit{u}.h"\n' for u in sorted({i, *uses}))
        steps = "".join(f"\tx = x * {k + 3} + table[x & 15];\n" for k in range(40))
        put(f"unit{i}.c", f"{includes}static const int table[16] = {{ {i}, 2, 3 }};\n"
                          f"int unit{i}(int x)\n{{\n{steps}\treturn x;\n}}\n")
    includes = "".join(f'#include "unit{i}.h"\n' for i in range(count))
    calls = "".join(f"\tx = unit{i}(x);\n" for i in range(count))
    put("main.c", f"{includes}int main(void)\n{{\n\tint x = 1;\n\n{calls}\treturn x == 0;\n}}\n")
    put("Makefile", "OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))\n"
                    "CFLAGS = -O1 -Iinclude -MMD\n"
                    "program: $(OBJECTS)\n\t$(CC) -o $@ $(OBJECTS)\n")
