# SPDX-License-Identifier: LGPL-2.1-or-later
"""From samples to ratios, and those as a table and as JSON."""
import json
import os
import platform
import shutil
import statistics
import subprocess
import time

from rows import GROUPS, TREE_COMMANDS

# These come when the kernel lets go of something, whenever that is.
UNASKED = ("FORGET", "BATCH_FORGET", "INTERRUPT")
TREE_STEPS = {name for name, _ in TREE_COMMANDS}


def values_of(row, samples, system):
    return [sample and sample[row.metric] for sample in samples[row.job].get(system, [])]


def compare(row, samples, system, base="native"):
    """Ratios within each round: what the machine does over minutes cancels out."""
    pairs = zip(values_of(row, samples, base), values_of(row, samples, system))
    ratios = [to / value for to, value in pairs if to and value]
    if not ratios:
        return None
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios),
            "ratios": ratios}


def upcalls_of(row, upcalls):
    """Requests per operation of the mount; for an application per run."""
    if row.group == "latency" or row.job not in upcalls:
        return None
    step = row.metric if row.metric in TREE_STEPS else ""
    counted = upcalls[row.job].get(step)
    if not counted:
        return None
    per = {name: n / counted["operations"] for name, n in counted["requests"].items()}
    return {"per_operation": sum(n for name, n in per.items() if name not in UNASKED),
            "requests": dict(sorted(per.items(), key=lambda item: -item[1]))}


def summarise(rows, systems, result, upcalls):
    summary = []
    for row in rows:
        native = [v for v in values_of(row, result.samples, "native") if v]
        sample = next((s for s in result.samples[row.job]["native"] if s), {})
        summary.append({
            "name": row.name, "group": row.group, "label": row.label, "unit": row.unit,
            "native_ns": statistics.median(native) if native else None,
            "block": sample.get("bytes", 0) / sample["count"] if sample.get("count") else 0,
            "systems": {s.name: compare(row, result.samples, s.name) for s in systems
                        if s.name != "native" and s.name in result.samples[row.job]},
            "upcalls": upcalls_of(row, upcalls)})
    return summary


def number(value):
    if value >= 99.5:
        return f"{value:.0f}"
    if value >= 9.95:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}"


def absolute(row):
    if not row["native_ns"]:
        return "-"
    if row["unit"] == "s":
        return number(row["native_ns"] / 1e9) + " s"
    if row["unit"] == "MB/s":
        return f"{row['block'] / row['native_ns'] * 1e3:.0f} MB/s"
    return number(row["native_ns"] / 1e3) + " us"


def cell(comparison):
    if not comparison:
        return "-"
    low, high = number(comparison["min"]), number(comparison["max"])
    return f"{number(comparison['median']):>5} [{low}-{high}]"


def table(summary, systems):
    names = [s.name for s in systems if s.name != "native"]
    counted = any(row["upcalls"] for row in summary)
    head = ["", "native", *names] + (["upcalls"] if counted else [])
    lines = []
    for group in GROUPS:
        members = [row for row in summary if row["group"] == group]
        if members:
            lines += [None, [group.upper()]]
        for row in members:
            line = [row["label"], absolute(row), *(cell(row["systems"].get(n)) for n in names)]
            if counted:
                line.append(number(row["upcalls"]["per_operation"]) if row["upcalls"] else "-")
            lines.append(line)
    widths = [max(len(line[i]) for line in [head, *filter(None, lines)] if i < len(line))
              for i in range(len(head))]
    out = []
    for line in [head, *lines]:
        cells = line or []
        text = "  ".join(c.ljust(w) if i != 1 else c.rjust(w)
                         for i, (c, w) in enumerate(zip(cells, widths)))
        out.append(text.rstrip())
    return "\n".join(out)


def upcall_table(summary):
    """Which requests an operation costs, the most frequent first."""
    lines = []
    for row in summary:
        if row["upcalls"] and row["group"] != "applications":
            parts = [f"{name} {number(n)}" for name, n in row["upcalls"]["requests"].items()
                     if n >= 0.01]
            lines.append(f"{row['label']:<42}{'  '.join(parts) or 'none'}")
    return "\n".join(lines)


def _first_line(*command):
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError:
        return None
    return (done.stdout.strip().splitlines() or [None])[0] if not done.returncode else None


def _from_file(path, key):
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    return None


def describe_machine(source, top):
    return {
        "kernel": platform.release(), "architecture": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)), "cpu": _from_file("/proc/cpuinfo", "model name"),
        "memory": _from_file("/proc/meminfo", "MemTotal"),
        "source": _first_line("findmnt", "-n", "-o", "FSTYPE", "-T", source),
        "git": _first_line("git", "-C", top, "describe", "--always", "--dirty", "--tags"),
        "fuse3": _first_line("pkg-config", "--modversion", "fuse3"),
        "bindfs": _first_line("bindfs", "--version") if shutil.which("bindfs") else None,
        "fio": _first_line("fio", "--version") if shutil.which("fio") else None,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def machine_line(machine):
    parts = [f"Linux {machine['kernel']}", f"{machine['cpus']} CPUs", machine["cpu"],
             f"source on {machine['source']}", machine["git"] and f"git {machine['git']}"]
    return ", ".join(part for part in parts if part)


def write_json(path, machine, settings, systems, summary, result, upcalls):
    with open(path, "w", encoding="utf-8") as out:
        json.dump({"machine": machine, "settings": settings,
                   "commands": {s.name: s.command for s in systems}, "notes": result.notes,
                   "rows": summary, "upcalls": upcalls, "samples": result.samples}, out, indent=1)
        out.write("\n")
