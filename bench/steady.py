# SPDX-License-Identifier: LGPL-2.1-or-later
"""What it costs to be ready for a death, while nobody dies: against the same server without recovery."""
import os
import statistics

import measure
import report
import rows
import systems

TARGETS = {"data": 0.97, "metadata": 0.95}
BASES = {"recovery": "norecover", "recovery-nopassthrough": "norecover-nopassthrough"}
GROUPS = tuple(TARGETS)
CPU_LEAST_NS = 1000


def systems_of(scratch, program):
    found = [systems.served(program, name, options, groups) for name, options, groups in (
        ("recovery", "", None), ("norecover", ",norecover", None),
        ("recovery-nopassthrough", ",nopassthrough", {"data"}),
        ("norecover-nopassthrough", ",nopassthrough,norecover", {"data"}))]
    peer, reason = systems.build_passthrough_ll(scratch)
    if peer:
        found.append(systems.served_by_libfuse(peer, "passthrough_ll"))
    return found, reason


def jobs():
    return [job for job in rows.JOBS if job.group in GROUPS and job.kind == "workload"]


def _processes_of(session):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(pid)) == session:
                yield pid
        except ProcessLookupError:
            continue


def cpu_ns(session):
    """What all threads of all processes of a session have run so far: keeper and standby count."""
    total = 0
    for pid in _processes_of(session):
        folder = f"/proc/{pid}/task"
        try:
            for tid in os.listdir(folder):
                with open(f"{folder}/{tid}/schedstat", encoding="ascii") as stat:
                    total += int(stat.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


class CpuCounter:
    most = None

    def __init__(self, system):
        self.session = system.server.pid
        self.spent = 0

    def begin(self):
        self.spent -= cpu_ns(self.session)

    def end(self):
        self.spent += cpu_ns(self.session)


class Runner(measure.Runner):
    """Also takes the time that the server runs, of the timed operations only."""

    def run(self, job, system, counter=None):
        counter = CpuCounter(system)
        sample = super().run(job, system, counter)
        sample["cpu_ns_per_op"] = counter.spent / sample["count"]
        return sample


def _median(samples, job, system, metric):
    values = [s[metric] for s in samples[job].get(system, []) if s]
    return statistics.median(values) if values else None


def _best(samples, job, system, base):
    """Of the fastest rounds: what others do to the machine only ever makes one slower."""
    fastest = [min((s["ns_per_op"] for s in samples[job].get(name, []) if s), default=None)
               for name in (base, system)]
    return fastest[0] / fastest[1] if all(fastest) else None


def summarise(samples):
    """One entry for each row and way of passing through that there is."""
    summary = []
    for row in (row for row in rows.ROWS if row.job in samples):
        cpu = rows.Row(row.name, row.group, row.label, row.job, "cpu_ns_per_op")
        for name, base in BASES.items():
            if name not in samples[row.job]:
                continue
            entry = {"name": row.name, "group": row.group, "system": name,
                     "label": row.label + name.removeprefix("recovery").replace("-", ", "),
                     "base_ns": _median(samples, row.job, base, "ns_per_op"),
                     "base_cpu_ns": _median(samples, row.job, base, "cpu_ns_per_op"),
                     "cpu_ns": _median(samples, row.job, name, "cpu_ns_per_op"),
                     "recovery": report.compare(row, samples, name, base),
                     "best": _best(samples, row.job, name, base),
                     "passthrough_ll": report.compare(row, samples, "passthrough_ll", base),
                     "cpu": report.compare(cpu, samples, base, name)}
            summary.append(entry)
    return summary


def _microseconds(ns):
    return f"{ns / 1e3:.2f}" if ns is not None else "-"


def table(summary):
    lines = [["", "norecover us", "best", "recovery", "passthrough_ll", "CPU us", "CPU us", "CPU"],
             ["", "per operation", "rounds", "", "", "norecover", "recovery", "recovery / norecover"]]
    for group in GROUPS:
        members = [entry for entry in summary if entry["group"] == group]
        if members:
            lines += [[], [group.upper()]]
        for entry in members:
            best = f"{entry['best']:.2f}" if entry["best"] else "-"
            lines.append([entry["label"], _microseconds(entry["base_ns"]), best,
                          report.cell(entry["recovery"]), report.cell(entry["passthrough_ll"]),
                          _microseconds(entry["base_cpu_ns"]), _microseconds(entry["cpu_ns"]),
                          report.cell(entry["cpu"])])
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(lines[0]))]
    text = ["  ".join(c.ljust(w) if i in (0, 3, 4, 7) else c.rjust(w)
                      for i, (c, w) in enumerate(zip(line, widths))).rstrip() for line in lines]
    return "\n".join(text + [""] + verdicts(summary))


def verdicts(summary):
    lines = []
    for group, target in TARGETS.items():
        found = [e for e in summary if e["group"] == group and e["recovery"] and e["best"]]
        if not found:
            continue
        mean = statistics.geometric_mean(e["recovery"]["median"] for e in found)
        best = statistics.geometric_mean(e["best"] for e in found)
        lowest = min(found, key=lambda e: e["best"])
        # What the kernel passes through costs the server nothing, and that twice is no ratio.
        cpu = [e["cpu"]["median"] for e in found if e["cpu"] and e["base_cpu_ns"] > CPU_LEAST_NS]
        more = f", CPU {statistics.geometric_mean(cpu):.3f} times ({len(cpu)} rows)" if cpu else ""
        lines.append(f"{group}: {mean:.3f} of the speed of norecover, by the best rounds {best:.3f} "
                     f"(geometric means of {len(found)} rows){more}; by the best rounds "
                     f"{sum(e['best'] < target for e in found)} rows are below {target}, the lowest "
                     f"{lowest['best']:.3f} ({lowest['label']})")
    return lines
