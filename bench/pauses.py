# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long clients wait for a killed server's successor, by how many files the server knows."""
import json
import os
import shutil

import measure
import systems

DIRECTORY_FILES = 1000
CLIENTS = 4
CLIENT_FILES = 64
LOOK_SECONDS = 300
KILL_SECONDS = 2
BYTES_PER_FILE = 6 << 10    # inodes and names of source and mount, and what the server knows


def build(top, scratch):
    return measure.build(top, scratch, "pause", ("bench/pause.c", "programs/control.c",
                                                 "base/mountinfo.c"))


def make_files(top, count):
    """Names relative to `top` of some of them, from everywhere in the tree."""
    chosen, every = [], max(count // CLIENT_FILES, 1)
    for i in range(count):
        folder = f"d{i // DIRECTORY_FILES}"
        if not i % DIRECTORY_FILES:
            os.mkdir(os.path.join(top, folder))
        name = f"{folder}/f{i}"
        os.close(os.open(os.path.join(top, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        if not i % every:
            chosen.append(name)
    return chosen


def resident_kib(pid):
    """Of a process' own memory, and of memory that it shares."""
    own = shared = 0
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("RssAnon:"):
                own = int(line.split()[1])
            elif line.startswith(("RssFile:", "RssShmem:")):
                shared += int(line.split()[1])
    return own, shared


def checkpoint_bytes(pid):
    """Of the memory file: what is allocated, not how long it is."""
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        try:
            if os.readlink(os.path.join(folder, fd)).startswith("/memfd:fuse-extent"):
                return os.stat(os.path.join(folder, fd)).st_blocks * 512
        except FileNotFoundError:
            continue
    raise systems.BenchError("the server has no checkpoint")


def _look_up(server, control, folders):
    """Nodes that the server knows then, its checkpoint's size, and its worker's pid."""
    # du asks for the attributes of each file, so the server hears of all.
    for i in range(0, len(folders), 1000):
        measure.bounded(["du", "-s", *(os.path.join(server.mountpoint, name)
                                       for name in folders[i:i + 1000])], server, LOOK_SECONDS)
    status = measure.ask_status(control, server.mountpoint)
    return status["nodes"], checkpoint_bytes(status["worker_pid"]), status["worker_pid"]


def _measure(server, control, program, count, kills):
    names = make_files(server.backing, count)
    folders = sorted(os.listdir(server.backing))
    # In two parts: what the server's threads need comes with the first.
    half, half_size, _ = _look_up(server, control, folders[:len(folders) // 2])
    nodes, size, pid = _look_up(server, control, folders)
    if nodes < count:
        raise systems.BenchError(f"the server knows {nodes} of {count} files only")
    own, shared = resident_kib(pid)
    out = measure.bounded([program, "--kills", str(kills), "--clients", str(CLIENTS),
                           "--private", str(own), "--shared", str(shared), server.mountpoint,
                           *(os.path.join(server.mountpoint, name) for name in names)],
                          server, LOOK_SECONDS + KILL_SECONDS * kills)
    lines = [json.loads(line) for line in out.splitlines()]
    return {"inodes": count, "nodes": nodes, "kills": lines[1:], **lines[0],
            "nodes_after": measure.ask_status(control, server.mountpoint)["nodes"],
            "resident_kib": {"own": own, "shared": shared},
            "checkpoint_bytes": size,
            # Memory comes in pieces: of few inodes it says nothing.
            "checkpoint_bytes_per_inode": (size - half_size) / (nodes - half) if count > 50000 else None}


def measure_size(program, control, pause, source, scratch, count, kills):
    """One size, on a mount of its own."""
    with open("/proc/meminfo", encoding="ascii") as info:
        free = next(int(line.split()[1]) << 10 for line in info if line.startswith("MemAvailable"))
    if free < count * BYTES_PER_FILE:
        raise measure.Skip(f"{count} inodes: {free >> 20} MiB of free memory are not enough")
    server = systems.served(program, f"recovery-{count}", ",recover_limit=1000")
    try:
        server.start(source, scratch, False)
        return _measure(server, control, pause, count, kills)
    except systems.BenchError as error:
        raise systems.BenchError(f"{error}; the server said: {server.log_tail()}") from error
    finally:
        server.stop()
        shutil.rmtree(os.path.join(source, server.name), ignore_errors=True)


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def milliseconds(sample, metric):
    return [kill[metric] / 1e6 for kill in sample["kills"]]


def _or_dash(number):
    return "-" if number is None else f"{number:.0f}"


def table(samples):
    head = ["inodes", "kills", "median", "p90", "p99", "max", "longest wait p99", "server median",
            "fork+exit", "of that size", "bytes/inode"]
    lines = [head]
    for sample in samples:
        pauses = milliseconds(sample, "pause_ns")
        lines.append([str(sample["inodes"]), str(len(pauses)),
                      *(f"{percentile(pauses, p):.2f}" for p in (50, 90, 99, 100)),
                      f"{percentile(milliseconds(sample, 'longest_ns'), 99):.2f}",
                      f"{percentile(milliseconds(sample, 'server_ns'), 50):.2f}",
                      f"{sample['fork_ns'] / 1e6:.2f}", f"{sample['fork_same_size_ns'] / 1e6:.2f}",
                      _or_dash(sample["checkpoint_bytes_per_inode"])])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths)) for line in lines)
