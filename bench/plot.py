# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ratios as horizontal bars, drawn by gnuplot as SVG and PNG."""
import math
import re
import shutil
import subprocess

WIDTH = 1200
BAR = 10
ROW_GAP = 8
GROUP_HEADING = 40
TOP, BOTTOM = 96, 44
COLUMNS = (("metadata", "xattrs", "latency"), ("data", "applications"))
COLOURS = {"fuse-extent": "#0060ad", "nopassthrough": "#7db8e8", "passthrough_ll": "#e08214",
           "ll-xattr": "#f2bc80", "bindfs": "#8c8c8c", "remote": "#0060ad", "spill": "#3a9a3a"}


def _plain(text):
    """Without the meaning that gnuplot gives to some characters in a text."""
    return re.sub(r"([\\_^@&~{}])", r"\\\1", text)


def _quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Column:
    """Bars, row labels and group headings of one column, y growing downwards in pixels."""

    def __init__(self, summary, groups, names):
        self.labels, self.headings, self.lines = [], [], []
        self.bars = {name: [] for name in names}
        y = 0
        for group in groups:
            rows = [row for row in summary if row["group"] == group]
            if not rows:
                continue
            self.headings.append((y + GROUP_HEADING - 14, group))
            y += GROUP_HEADING
            for row in rows:
                y = self._add(row, [n for n in names if n in row["systems"]], y)
        self.height = y

    def _add(self, row, names, y):
        height = BAR * len(names)
        self.labels.append((y + height / 2, row["label"]))
        for name in names:
            if row["systems"][name]:
                self.bars[name].append((y + BAR / 2, row["systems"][name]))
            y += BAR
        self.lines.append(y + ROW_GAP / 2)
        return y + ROW_GAP


def _range(summary):
    found = [c for row in summary for c in row["systems"].values() if c]
    low = min([0.5, *(c["min"] for c in found)])
    high = max([1.5, *(c["max"] for c in found)])
    return low / 1.25, high * 1.3


def _panel(column, index, count, names, low, high, height, base):
    share = 1 / count
    left, right = index * share + 250 / WIDTH, (index + 1) * share - 24 / WIDTH
    script = [
        f"set lmargin at screen {left:.4f}; set rmargin at screen {right:.4f}",
        f"set tmargin at screen {1 - TOP / height:.4f}",
        f"set bmargin at screen {BOTTOM / height:.4f}",
        f"set xrange [{low:.4g}:{high:.4g}]; set yrange [{height - TOP - BOTTOM}:0]",
        "unset label; unset arrow",
        "set arrow from 1, graph 0 to 1, graph 1 nohead lw 1.5 lc rgb '#202020' front",
        f"set label '{base}' at 1, graph 1 center offset 0,0.6 font ',9'"]
    for y, text in column.labels:
        script.append(f"set label {_quoted(_plain(text))} at graph 0, first {y} right "
                      "offset -0.7,0")
    for y, text in column.headings:
        script.append(f"set label {_quoted('{/:Bold ' + text + '}')} at graph 0, first {y} right "
                      "offset -0.7,0")
    for y in column.lines:
        script.append(f"set arrow from graph 0, first {y} to graph 1, first {y} nohead lw 0.5 "
                      "lc rgb '#e4e4e4' back")
    plots = []
    for name in names:
        for y, c in column.bars[name]:
            value = f"{c['median']:.2f}" if c["median"] >= 0.0995 else f"{c['median']:.3f}"
            script.append(f"set label '{value}' at {c['max']:.5g}, {y} left offset 0.6,0 "
                          "font ',8' front tc rgb '#404040'")
        if column.bars[name]:
            plots += [f"$bars{index}{names.index(name)} using 2:1:({low:.4g}):2:($1-{BAR * .45}):"
                      f"($1+{BAR * .45}) with boxxyerror lc rgb '{COLOURS[name]}' notitle",
                      f"$bars{index}{names.index(name)} using 2:1:3:4 with xerrorbars pt 0 lw 1 "
                      "lc rgb '#303030' notitle"]
    script.append("plot " + ", \\\n  ".join(plots or ["NaN notitle"]))
    return script


def _legend(names, height):
    script, x = [], 40 / WIDTH
    for number, name in enumerate(names):
        script += [f"set object {number + 1} rectangle "
                   f"from screen {x:.4f}, screen {1 - 74 / height:.4f} "
                   f"to screen {x + 18 / WIDTH:.4f}, screen {1 - 62 / height:.4f} "
                   f"fc rgb '{COLOURS[name]}' fs solid noborder",
                   f"set label {number + 1} {_quoted(_plain(name))} "
                   f"at screen {x + 26 / WIDTH:.4f}, screen {1 - 68 / height:.4f} left"]
        x += (60 + 8 * len(name)) / WIDTH
    return script


TICS = (.01, .02, .05, .1, .2, .5, 1, 2, 5, 10)
FAR_TICS = (.001, .01, .1, 1, 10, 100, 1000)


def _script(summary, names, title, base, heading, groups_of_columns):
    columns = [Column(summary, groups, names) for groups in groups_of_columns]
    columns = [column for column in columns if column.labels]
    height = int(max(column.height for column in columns)) + TOP + BOTTOM
    low, high = _range(summary)
    tics = FAR_TICS if high > 30 else TICS
    script = [
        "set encoding utf8; set logscale x; set style fill solid noborder; unset key; unset ytics",
        "set border 1 lc rgb '#808080'; set bars 0.5; set xtics nomirror",
        "set grid xtics lt 1 lc rgb '#c8c8c8' lw 0.6"]
    for index, column in enumerate(columns):
        for number, name in enumerate(names):
            script.append(f"$bars{index}{number} << END")
            script += [f"{y} {c['median']:.5g} {c['min']:.5g} {c['max']:.5g}"
                       for y, c in column.bars[name]]
            script.append("END")
    script.append("set multiplot")
    script += ["set label 90 " + _quoted("{/:Bold=15 " + heading + "}") +
               f" at screen {40 / WIDTH:.4f}, screen {1 - 22 / height:.4f} left",
               "set label 91 " + _quoted(f"1 = {base}, longer is faster; median of the rounds, "
                                         "whiskers: lowest and highest round. " + _plain(title)) +
               f" at screen {40 / WIDTH:.4f}, screen {1 - 46 / height:.4f} left font ',9'"]
    script += _legend(names, height)
    script += ["unset border; unset xtics; unset grid", "set xrange [1:2]; set yrange [0:1]",
               "plot NaN notitle", "unset label; unset object", "set border 1; set grid xtics",
               "set xtics nomirror (" + ", ".join(f"'{f'{at:g}'.removeprefix('0')}' {at}" for at in tics) + ")"]
    for index, column in enumerate(columns):
        script += _panel(column, index, len(columns), names, low, high, height, base)
    script.append("unset multiplot")
    return script, height


def draw(summary, systems, title, stem):
    """Writes stem.svg and stem.png; returns them, or nothing where gnuplot is missing."""
    names = [s.name for s in systems if s.name in COLOURS]
    anything = any(c for row in summary for c in row["systems"].values())
    if not shutil.which("gnuplot") or not anything:
        return []
    return _draw(summary, names, title, stem, "native", "Speed as a ratio to the plain directory", COLUMNS)


def draw_far(summary, names, title, stem):
    """The same as ratios to sshfs, a column for each delay."""
    if not shutil.which("gnuplot"):
        return []
    delays = dict.fromkeys(row["group"] for row in summary)
    return _draw(summary, names, title, stem, "sshfs", "Speed as a ratio to sshfs", [(delay,) for delay in delays])


def _draw(summary, names, title, stem, base, heading, columns):
    script, height = _script(summary, names, title, base, heading, columns)
    return _run(script, WIDTH, height, stem)


def _run(script, width, height, stem):
    written = []
    for terminal, suffix in (("svg", "svg"), ("pngcairo", "png")):
        target = f"{stem}.{suffix}"
        head = [f"set terminal {terminal} size {width},{height} font 'DejaVu Sans,10' "
                "background rgb 'white'", f"set output '{target}'"]
        subprocess.run(["gnuplot"], input="\n".join(head + script) + "\n", text=True, check=True)
        written.append(target)
    return written


# ---- pauses ----

PER_DECADE = 20
SIZE_COLOURS = ("#0060ad", "#e08214", "#3a9a3a", "#8c8c8c")


def _histogram(milliseconds):
    """Lines of `where share` for gnuplot's steps, from an empty bin to an empty bin."""
    bins = {}
    for value in milliseconds:
        at = math.floor(math.log10(value) * PER_DECADE)
        bins[at] = bins.get(at, 0) + 100 / len(milliseconds)
    return [f"{10 ** (at / PER_DECADE):.5g} {bins.get(at, 0):.4g}"
            for at in range(min(bins) - 1, max(bins) + 2)]


def draw_pauses(sizes, title, stem):
    """A histogram for each number of inodes: writes stem.svg and stem.png, if there is gnuplot."""
    if not shutil.which("gnuplot"):
        return []
    script = [f"set title {_quoted('from SIGKILL of the server to the first answer: ' + title)} noenhanced",
              "set logscale x; set xlabel 'ms'; set ylabel '% of the kills'; set grid",
              "set xtics ('.1' .1, '.2' .2, '.5' .5, '1' 1, '2' 2, '5' 5, '10' 10, '20' 20, "
              "'50' 50, '100' 100)",
              "set yrange [0:*]; set key top right"]
    plots = []
    for number, (sample, colour) in enumerate(zip(sizes, SIZE_COLOURS)):
        fork = sample["fork_same_size_ns"] / 1e6
        script += [f"$size{number} << EOD",
                   *_histogram([kill["pause_ns"] / 1e6 for kill in sample["kills"]]), "EOD",
                   f"set arrow from {fork:.4g}, graph 0 rto 0, graph 1 nohead dt 2 lc rgb '{colour}'"]
        plots += [f"$size{number} using 1:2 with fillsteps fs transparent solid 0.15 "
                  f"lc rgb '{colour}' notitle",
                  f"$size{number} using 1:2 with steps lw 2 lc rgb '{colour}' title "
                  f"'{sample['inodes']} inodes (dashed: fork and exit of that size)'"]
    script.append("plot " + ", ".join(plots))
    return _run(script, 1000, 560, stem)


# ---- instructions ----

COST_COLOURS = ("#b0b0b0", "#e08214", "#3a9a3a", "#0060ad", "#7db8e8")


def draw_costs(costs, kinds, title, stem):
    """Instructions of each call as a share of those without a cache: writes stem.svg and stem.png."""
    rows = [(call, cost) for call, cost in costs.items() if cost.get("off")]
    if not shutil.which("gnuplot") or not rows:
        return []
    script = [f"set title {_quoted('instructions, where those without a cache are 1: ' + title)} noenhanced",
              "set style data histogram; set style histogram clustered gap 2",
              "set style fill solid noborder; set grid ytics; set key top right horizontal",
              "set logscale y 10; set yrange [0.01:2]",
              "set ytics ('.01' .01, '.02' .02, '.05' .05, '.1' .1, '.2' .2, '.5' .5, '1' 1)",
              "$costs << EOD"]
    for call, cost in rows:
        shares = (f"{cost[kind] / cost['off']:.4g}" if kind in cost else "NaN" for kind in kinds)
        script.append(f"{call} " + " ".join(shares))
    script.append("EOD")
    plots = [f"$costs using {number + 2}:xtic(1) lc rgb '{colour}' title '{kind}'"
             for number, (kind, colour) in enumerate(zip(kinds, COST_COLOURS))]
    script.append("plot " + ", ".join(plots))
    return _run(script, 1000, 560, stem)
