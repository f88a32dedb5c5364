#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Turn the samples of cma_gup_bench into results, tables and data for plots.

usage: bench/analyse.py [--loads FILE] OUTDIR SAMPLES...

Each SAMPLES file is one run, with rows kernel,load,metric,value,count. What is
known of the loads comes from bench/loads. Written to OUTDIR: results.csv,
tables.txt, and for plots.gp alloc-cdf.dat, io-cdf.dat and cost-load.dat.
"""

import argparse
import os
import statistics
import sys
import textwrap
from collections import namedtuple
from pathlib import Path

HEADER = "kernel,load,metric,value,count"
KERNELS = ("unpatched", "retry", "longterm", "patched")
GUESTS = ("count", "64m", "256m", "2g")
MAIN_LOAD = "hot-2x32"
LINE = 72

# What each distribution of times, in us, is told by: per mille.
QUANTILES = {
    "alloc_us": {"alloc_p50_ms": 500, "alloc_p99_ms": 990, "alloc_max_ms": 1000},
    "fail_us": {"fail_p50_ms": 500},
    "io_us": {"io_p50_ms": 500, "io_p99_ms": 990, "io_p999_ms": 999, "io_max_ms": 1000},
    "wait_us": {"wait_p50_ms": 500, "wait_p99_ms": 990, "wait_max_ms": 1000},
}
# One figure per run
FIGURES = ("iops", "resident_percent", "insns")
CULPRITS = {
    "fail_pin": "a buffer of the I/O",
    "fail_writeback": "under writeback",
    "fail_buffer_heads": "has buffer heads",
    "fail_off_lru": "off the LRU lists",
    "fail_other": "another page",
    "fail_unknown": "not known",
}
METRICS = (*QUANTILES, *FIGURES, "io_errors", *CULPRITS)

Load = namedtuple("Load", "guest options completion_ms watch churn idle outside attribute")
Row = namedtuple("Row", "median low high runs")


class BenchError(Exception):
    """Something that the person at the keyboard can put right."""


# --- Reading

def is_count(text):
    return text.isascii() and text.isdigit()


def parse_load(where, words):
    """A line of bench/loads: its name, and what it says."""
    if len(words) < 5:
        raise BenchError(f"{where}: a load is NAME FULL QUICK KERNELS GUEST OPTIONS...")
    name, full, quick, kernels, guest, *options = words
    if not is_count(full) or not is_count(quick):
        raise BenchError(f"{where}: FULL and QUICK are numbers of tries, not {full} and {quick}")
    for kernel in kernels.split(","):
        if kernel not in (*KERNELS, "all"):
            raise BenchError(f"{where}: no kernel {kernel}; there are {', '.join(KERNELS)}, or all")
    if guest not in GUESTS:
        raise BenchError(f"{where}: no guest {guest}; there are {' '.join(GUESTS)}")
    completion = "2000"     # what cma_gup_bench takes
    if "--completion-us" in options:
        completion = (options + [""])[options.index("--completion-us") + 1]
    if not is_count(completion):
        raise BenchError(f"{where}: --completion-us needs a number")
    return name, Load(guest, options, int(completion) / 1000, "--watch-ms" in options, "--churn" in options,
                      "--idle" in options, "--outside" in options, "--attribute" in options)


def read_lines(path):
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise BenchError(f"cannot read {path}: {err}") from err


def read_loads(path):
    """The list of loads, in its order."""
    loads = {}
    for number, line in enumerate(read_lines(path), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        name, load = parse_load(f"{path}, line {number}", words)
        if loads.setdefault(name, load) != load:
            raise BenchError(f"{path}, line {number}: {name} is there already, with other options")
    return loads


def parse_sample(where, line, loads):
    fields = line.split(",")
    if len(fields) != 5:
        raise BenchError(f"{where}: {len(fields)} columns instead of 5; is the file cut off?")
    kernel, load, metric, value, count = fields
    if kernel not in KERNELS:
        raise BenchError(f"{where}: no kernel {kernel}; there are {', '.join(KERNELS)}")
    if metric not in METRICS:
        raise BenchError(f"{where}: no metric {metric}; there are {', '.join(METRICS)}")
    # Instructions are counted by another program, which has loads of its own.
    if load not in loads and metric != "insns":
        raise BenchError(f"{where}: the list of loads does not have {load}")
    try:
        number = float(value)
    except ValueError:
        number = -1
    if not 0 <= number < float("inf") or not is_count(count) or int(count) == 0:
        raise BenchError(f"{where}: value {value}, count {count}: not a number and how often it was seen")
    return kernel, load, metric, number, int(count)


def read_samples(paths, loads):
    """samples[kernel, load] = [{metric: [(value, count)]}], one per run, in the files' order"""
    samples = {}
    for path in paths:
        lines = read_lines(path)
        if not lines or lines[0] != HEADER:
            raise BenchError(f"{path}: the first line has to be {HEADER}")
        if len(lines) == 1:
            raise BenchError(f"{path}: no samples, only the header")
        runs = {}
        for number, line in enumerate(lines[1:], 2):
            kernel, load, metric, value, count = parse_sample(f"{path}, line {number}", line, loads)
            runs.setdefault((kernel, load), {}).setdefault(metric, []).append((value, count))
        for key, run in runs.items():
            samples.setdefault(key, []).append(run)
    return samples


# --- Statistics

def total(pairs):
    return sum(count for _, count in pairs)


def quantile(pairs, permille):
    """By nearest rank: the smallest value that so many of the samples do not exceed."""
    rank = -(-total(pairs) * permille // 1000)
    for value, count in sorted(pairs):
        rank -= count
        if rank <= 0:
            return value
    raise ValueError("no samples")


def wilson(hits, tries):
    """The 95 % score interval of a share, in percent"""
    z = statistics.NormalDist().inv_cdf(0.975)
    share = hits / tries
    middle = share + z * z / (2 * tries)
    reach = z * (share * (1 - share) / tries + z * z / (4 * tries * tries)) ** 0.5
    scale = 100 / (1 + z * z / tries)
    return max(0, (middle - reach) * scale), min(100, (middle + reach) * scale)


def over_runs(values):
    return Row(statistics.median(values), min(values), max(values), len(values))


def share_row(hits, tries, runs):
    return Row(100 * hits / tries, *wilson(hits, tries), runs)


def run_figures(run):
    """What one run comes to: {metric: value}"""
    figures = {}
    for metric, names in QUANTILES.items():
        for name, permille in names.items():
            if metric in run:
                figures[name] = quantile(run[metric], permille) / 1000
    for metric in FIGURES:
        if metric in run:
            figures[metric] = statistics.median(value for value, _ in run[metric])
    if "io_errors" in run:
        figures["io_errors"] = sum(value for value, _ in run["io_errors"])
    return figures


def pooled(runs, metric):
    return [pair for run in runs for pair in run.get(metric, [])]


def pooled_rows(runs):
    """The shares: all tries of all runs in one pot"""
    good, bad = (total(pooled(runs, metric)) for metric in ("alloc_us", "fail_us"))
    tries = good + bad
    if tries:
        per_run = [(total(pooled([run], "alloc_us")), total(pooled([run], "fail_us"))) for run in runs]
        yield "success_percent", share_row(good, tries, len(runs))
        yield "tries", over_runs([a + b for a, b in per_run])._replace(median=tries)
        yield "succeeded", over_runs([a for a, _ in per_run])._replace(median=good)
    blame = {culprit: sum(value for value, _ in pooled(runs, culprit)) for culprit in CULPRITS}
    failures = sum(blame.values())
    for culprit, hits in blame.items():
        if failures:
            yield f"{culprit}_percent", share_row(hits, failures, len(runs))


def without_calls(run):
    """With --watch-ms there is no allocation; its samples are the time watched."""
    return {metric: pairs for metric, pairs in run.items() if metric not in ("alloc_us", "fail_us")}


def iops_ratios(figures, kernel, load):
    """IOPS in relation to the unpatched kernel: each run to the one next to it in time"""
    pairs = zip(figures.get((kernel, load), []), figures.get(("unpatched", load), []))
    return [a["iops"] / b["iops"] for a, b in pairs if "iops" in a and b.get("iops")]


def evaluate(samples):
    """results[kernel, load] = {metric: Row}"""
    results = {}
    figures = {key: [run_figures(run) for run in runs] for key, runs in samples.items()}
    for key, runs in samples.items():
        rows = dict(pooled_rows(runs))
        for metric in sorted({metric for run in figures[key] for metric in run}):
            rows[metric] = over_runs([run[metric] for run in figures[key] if metric in run])
        ratios = iops_ratios(figures, *key)
        if ratios:
            rows["iops_ratio"] = over_runs(ratios)
        results[key] = rows
    return results


# --- Text

def number(value):
    return f"{value:.4f}".rstrip("0").rstrip(".")


def results_csv(results):
    lines = ["kernel,load,metric,median,low,high,runs"]
    for (kernel, load), rows in results.items():
        lines += [",".join((kernel, load, metric, *map(number, row[:3]), str(row.runs)))
                  for metric, row in rows.items()]
    return "\n".join(lines) + "\n"


def cell(rows, metric, form, field="median"):
    return form.format(getattr(rows[metric], field)) if metric in rows else "-"


def span(row, form):
    return f"{form}-{form}".format(row.low, row.high)


def table(title, head, body, left):
    """Columns as wide as need be, the first ones left-aligned; nothing if there is no body."""
    if not body:
        return ""
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    lines = textwrap.wrap(title, LINE)
    for line in (head, *body):
        cells = [f"{text:<{width}}" if i < left else f"{text:>{width}}"
                 for i, (text, width) in enumerate(zip(line, widths))]
        lines.append("  ".join(cells).rstrip())
    for line in lines:
        if len(line) > LINE:
            raise BenchError(f"a line of the tables is longer than {LINE}; give the load "
                             f"a shorter name: {line}")
    return "\n".join(lines) + "\n"


def success_table(results, loads):
    body = []
    for load in dict.fromkeys(load for _, load in results):
        per_kernel = [results.get((kernel, load), {}) for kernel in KERNELS]
        if not is_main(loads, load) or not any("tries" in rows for rows in per_kernel):
            continue
        body.append([load] + [f"{rows['succeeded'].median:.0f}/{rows['tries'].median:.0f}"
                              if "tries" in rows else "-" for rows in per_kernel])
        body.append([""] + [f"({span(rows['success_percent'], '{:.1f}')})"
                            if "tries" in rows else "" for rows in per_kernel])
    return table("Allocations: succeeded/tried, of all runs (below: 95 % Wilson interval of the share in %)",
                 ["load", *KERNELS], body, 1)


def is_main(loads, load):
    """A load with allocations and I/O in the area that is not traced"""
    known = loads.get(load)
    return bool(known) and not (known.idle or known.outside or known.attribute or is_quiet(loads, load))


def is_quiet(loads, load):
    """A load without allocations"""
    return load in loads and loads[load].watch and not loads[load].churn


def by_load(results, wanted):
    """(load, kernel, rows): all kernels of a load, then the next load"""
    for load in dict.fromkeys(load for _, load in results):
        for kernel in KERNELS:
            if (kernel, load) in results and wanted(load):
                yield load, kernel, results[kernel, load]


def alloc_table(results, loads):
    body = [[load, kernel, cell(rows, "alloc_p50_ms", "{:.1f}"), cell(rows, "alloc_p99_ms", "{:.1f}"),
             cell(rows, "alloc_max_ms", "{:.1f}", "high"), cell(rows, "fail_p50_ms", "{:.1f}")]
            for load, kernel, rows in by_load(results, lambda load: load in loads and
                                              not loads[load].attribute)
            if "alloc_p50_ms" in rows or "fail_p50_ms" in rows]
    return table("Time of an allocation in ms: of those that succeeded p50 and p99 (median of the "
                 "runs) and max (of all runs), and of those that failed p50",
                 ["load", "kernel", "p50", "p99", "max", "failed p50"], body, 2)


def io_table(results, loads):
    body = [[load, kernel, cell(rows, "iops", "{:.0f}"), cell(rows, "iops_ratio", "{:.2f}"),
             cell(rows, "io_p999_ms", "{:.2f}"), cell(rows, "io_max_ms", "{:.2f}", "high")]
            for load, kernel, rows in by_load(results, lambda load: is_main(loads, load))
            if "iops" in rows]
    return table("Direct I/O during the allocations: IOPS, their ratio to unpatched, latency in ms "
                 "p99.9 (medians of the runs) and max (of all runs)",
                 ["load", "kernel", "IOPS", "ratio", "p99.9", "max"], body, 2)


def fresh_table(results, loads):
    body = [[load, kernel, cell(rows, "iops", "{:.0f}"), cell(rows, "iops_ratio", "{:.3f}"),
             span(rows["iops_ratio"], "{:.3f}") if "iops_ratio" in rows else "-",
             cell(rows, "io_errors", "{:.0f}", "high")]
            for load, kernel, rows in by_load(results, lambda load: is_quiet(loads, load))
            if "iops" in rows]
    return table("Direct I/O without any allocation: IOPS, their ratio to unpatched (median and "
                 "range of the runs), errors (of the worst run)",
                 ["load", "kernel", "IOPS", "ratio", "range", "errors"], body, 2)


def insns_pairs(results):
    """(what, unpatched, patched): instructions"""
    for (kernel, what), rows in results.items():
        base = results.get(("unpatched", what), {})
        if kernel == "patched" and "insns" in rows and "insns" in base:
            yield what, base["insns"].median, rows["insns"].median


def more_percent(base, new):
    return 100 * (new - base) / base if base else 0 if new == base else float("inf")


def insns_table(results):
    body = [[what, f"{base:.1f}", f"{new:.1f}", f"{new - base:+.1f}", f"{more_percent(base, new):+.3f}"]
            for what, base, new in insns_pairs(results)]
    return table("Instructions per page or call (medians of the runs)",
                 ["what", "unpatched", "patched", "difference", "%"], body, 1)


def blame_table(results):
    body = [[load, kernel, text, f"{rows[f'{culprit}_percent'].median:.1f}",
             span(rows[f"{culprit}_percent"], "{:.1f}")]
            for load, kernel, rows in by_load(results, lambda load: True)
            for culprit, text in CULPRITS.items() if f"{culprit}_percent" in rows]
    return table("Failed allocations by the page that was in the way (share in %, 95 % interval)",
                 ["load", "kernel", "page", "share", "interval"], body, 3)


# --- Goals: each is a list of (what, figure, met or not)

LONGTERM_METRICS = {
    "alloc_p50_ms": "p50",
    "alloc_p99_ms": "p99",
    "alloc_max_ms": "max",
    "iops": "IOPS",
    "io_p999_ms": "I/O p99.9",
    "io_max_ms": "I/O max",
}


def verdict(met):
    return "met" if met else "missed"


def patched_loads(results, loads, prefix, metric, twin="idle"):
    """(load, rows, rows of that twin) of the patched kernel"""
    for load in loads:
        rows = results.get(("patched", load), {})
        if load.startswith(prefix) and is_main(loads, load) and metric in rows:
            yield load, rows, results.get(("patched", f"{load}-{twin}"), {})


def goal_success(results, loads):
    for load, rows, _ in patched_loads(results, loads, "hot-", "tries"):
        good, tries = rows["succeeded"].median, rows["tries"].median
        few = ", too few tries" if tries < 1000 else ""
        yield load, f"{good:.0f} of {tries:.0f}{few}", verdict(good == tries >= 1000)


def goal_longterm(results, _):
    for load in ("hot-2x32", "hot-4x64", "hot-256m"):
        ours, theirs = (results.get((kernel, load), {}) for kernel in ("patched", "longterm"))
        for metric, what in LONGTERM_METRICS.items():
            if metric in ours and metric in theirs:
                a, b = ours[metric].median, theirs[metric].median
                more = metric == "iops"
                yield (f"{load} {what}", f"{a:.1f} {'>=' if more else '<='} {b:.1f}",
                       verdict(a >= b if more else a <= b))


def goal_outside(results, loads):
    for load, rows, outside in patched_loads(results, loads, "hot-", "alloc_p99_ms", "outside"):
        for metric, what in (("alloc_p50_ms", "p50"), ("alloc_p99_ms", "p99")):
            if metric in outside:
                ours, base, io = rows[metric].median, outside[metric].median, loads[load].completion_ms
                limit = 1.1 * (base + io)
                yield (f"{load} {what}", f"{ours:.1f} <= 1.1 x ({base:.1f} + {io:.1f}) = {limit:.1f}",
                       verdict(ours <= limit))


def goal_large(results, _):
    ratio = results.get(("patched", "hot-1x8-1m"), {}).get("iops_ratio")
    if ratio:
        yield "hot-1x8-1m", f"{ratio.median:.3f} ({span(ratio, '{:.3f}')})", verdict(ratio.median >= 0.9)


def goal_insns(results, _):
    for what, base, new in insns_pairs(results):
        words = set(what.split("-"))
        # For 512 pages in one call the check is shared by all of them.
        limit = 0.1 if "512" in words and not words & {"thp", "unpin", "slow"} else 0.5
        more = more_percent(base, new)
        yield what, f"{more:+.3f} % <= {limit} %", verdict(more <= limit)


def goal_churn(results, loads):
    for load, rows, _ in patched_loads(results, loads, "churn-", "iops_ratio"):
        ratio = rows["iops_ratio"]
        yield load, f"{ratio.median:.3f} ({span(ratio, '{:.3f}')})", verdict(ratio.median >= 0.95)


def goal_longest(results, loads):
    for load, rows, idle in patched_loads(results, loads, "churn-", "io_max_ms"):
        if "alloc_p50_ms" in idle:
            # The longest there was: a median would hide it.
            longest, once = rows["io_max_ms"].high, idle["alloc_p50_ms"].median
            limit = 2 * (loads[load].completion_ms + once)
            yield (load, f"{longest:.1f} <= 2 x ({loads[load].completion_ms:.1f} + {once:.1f}) = {limit:.1f}",
                   verdict(longest <= limit))


def goal_wait(results, _):
    small, big = (results.get(("patched", load), {}).get("wait_p99_ms")
                  for load in ("wait-64m", "wait-2048m"))
    if small and big:
        limit = 1.2 * small.median
        yield ("wait-2048m", f"{big.median:.2f} <= 1.2 x {small.median:.2f} = {limit:.2f}",
               verdict(big.median <= limit))


def goal_fresh(results, loads):
    for load, known in loads.items():
        for kernel in ("patched", "longterm"):
            ratio = results.get((kernel, load), {}).get("iops_ratio")
            if load.startswith("fresh-") and known.guest == "count" and ratio:
                yield (f"{load} {kernel}", f"{ratio.median:.3f} ({span(ratio, '{:.3f}')})",
                       verdict(ratio.median >= 1) if kernel == "patched" else "-")


# By the numbers of issue 21; "-" are those from before that are to stay as they are.
GOALS = {
    "1  Patched, hot loads: 100 % success in at least 1000 tries": goal_success,
    "2  Hot loads, patched at least as good as longterm (ms, IOPS)": goal_longterm,
    "2  Fresh buffers, by instructions: IOPS patched / unpatched >= 1": goal_fresh,
    "3  Patched, p50 and p99 of allocations in ms <= 1.1 x (those of L-outside + completion)": goal_outside,
    "3  Reads of 1 MiB: IOPS patched / unpatched >= 0.9": goal_large,
    "4  Instructions per page or call, patched more than unpatched": goal_insns,
    "-  Allocations meanwhile: IOPS patched / unpatched >= 0.95": goal_churn,
    "-  Patched, longest I/O in ms <= 2 x (completion + p50 of L-idle)": goal_longest,
    "-  Patched, p99 of waits in ms, 2048 MB <= 1.2 x 64 MB": goal_wait,
}


def goals_table(results, loads):
    outcomes = {title: list(goal(results, loads)) for title, goal in GOALS.items()}
    if not any(outcomes.values()):
        return ""
    lines = ["Goals (medians of the runs; in brackets the range of the runs)"]
    for title, outcome in outcomes.items():
        lines += textwrap.wrap(title, LINE, subsequent_indent="   ")
        for what, figure, met in outcome or [("", "not measured", "")]:
            text = f"   {what:<20} {figure} "
            lines.append(text + met.rjust(LINE - len(text)))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def tables_txt(results, loads):
    parts = [success_table(results, loads), alloc_table(results, loads), io_table(results, loads),
             fresh_table(results, loads), insns_table(results), blame_table(results),
             goals_table(results, loads)]
    return "\n".join(part for part in parts if part)


# --- Data for plots.gp

def cdf_points(pairs, tries, end):
    """(ms, share of the tries); level from the last sample to the end of the plot"""
    seen = 0
    points = []
    for value, count in sorted(pairs):
        seen += count
        points.append((value / 1000, seen / tries))
    return points + [(end, seen / tries)]


def cdf_dat(curves):
    """A block per kernel: its name for the colour, its title, its points"""
    begin = min((pairs[0][0] for _, _, pairs, _ in curves if pairs), default=0) / 1000 or 1e-3
    # Somewhat longer than the longest, so that each curve shows the level it ends at
    end = 1.2 * max((pairs[-1][0] for _, _, pairs, _ in curves if pairs), default=1000) / 1000
    blocks = []
    for kernel, title, pairs, tries in curves:
        points = [(begin, 0), *cdf_points(pairs, tries, end)]
        blocks.append("\n".join([f"# kernel {kernel}", f'"{title}"'] +
                                [f"{number(ms)} {share:.6f}" for ms, share in points]))
    return "\n\n\n".join(blocks) + "\n"


def alloc_cdf_dat(samples):
    curves = []
    for kernel in KERNELS:
        runs = samples.get((kernel, MAIN_LOAD), [])
        good, bad = pooled(runs, "alloc_us"), pooled(runs, "fail_us")
        tries = total(good) + total(bad)
        if tries:
            curves.append((kernel, f"{kernel}: {total(good)} of {tries}", sorted(good), tries))
    return cdf_dat(curves)


def io_cdf_dat(samples):
    curves = []
    for kernel in KERNELS:
        pairs = sorted(pooled(samples.get((kernel, MAIN_LOAD), []), "io_us"))
        if pairs:
            curves.append((kernel, kernel, pairs, total(pairs)))
    return cdf_dat(curves)


def cost_load_dat(results, loads):
    lines = ["# load, patched: p50 ms, p99 ms; unpatched: success %, low, high"]
    for load in loads:
        patched = results.get(("patched", load), {})
        share = results.get(("unpatched", load), {}).get("success_percent", Row(*["NaN"] * 4))
        if load.startswith("hot-") and is_main(loads, load) and "alloc_p50_ms" in patched:
            lines.append(f'"{load.removeprefix("hot-")}" {patched["alloc_p50_ms"].median} '
                         f'{patched["alloc_p99_ms"].median} {share.median} {share.low} {share.high}')
    return "\n".join(lines) + "\n"


# --- Writing

def in_order(samples, loads):
    """By the list of loads, what it does not have at the end; then by kernel"""
    place = {load: i for i, load in enumerate(loads)}
    return dict(sorted(samples.items(), key=lambda item: (place.get(item[0][1], len(place)),
                                                          KERNELS.index(item[0][0]))))


def write_all(outdir, files):
    """All under temporary names first, so that no file is ever half-written"""
    outdir.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (outdir / f"{name}.tmp").write_text(text, encoding="ascii")
    for name in files:
        os.replace(outdir / f"{name}.tmp", outdir / name)


def main():
    parser = argparse.ArgumentParser(description="Results, tables and data for plots from samples.")
    parser.add_argument("--loads", default=Path(__file__).with_name("loads"), help="the list of loads")
    parser.add_argument("outdir", type=Path, help="where to write")
    parser.add_argument("samples", nargs="+", help="samples of cma_gup_bench, a file per run")
    args = parser.parse_args()
    loads = read_loads(args.loads)
    samples = in_order(read_samples(args.samples, loads), loads)
    for (_, load), runs in samples.items():
        if load in loads and loads[load].watch:
            runs[:] = map(without_calls, runs)
    results = evaluate(samples)
    write_all(args.outdir, {
        "results.csv": results_csv(results),
        "tables.txt": tables_txt(results, loads),
        "alloc-cdf.dat": alloc_cdf_dat(samples),
        "io-cdf.dat": io_cdf_dat(samples),
        "cost-load.dat": cost_load_dat(results, loads),
    })


if __name__ == "__main__":
    try:
        main()
    except (BenchError, OSError) as err:
        sys.exit(f"error: {err}")
