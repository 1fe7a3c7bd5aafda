"""A comparison as unescaped text and figures, shared by terminal and reports."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from bench.records.blocks import BASELINE, Block, Results
from bench.records.numerics import Mode
from bench.report.versions import CPUS_ONLY, age_note, facts, moment, version_order
from bench.verdicts.faults import missing
from bench.verdicts.outcomes import NOT_THERE
from bench.verdicts.sequential import Change, Verdict
from bench.verdicts.speed import Decision, interval

# Share of the other side's time above which a side's CPU use no longer counts as idle.
MOST_IDLE_SHARE = 0.05
# TensorFlow 2.12 and 2.21 differ by 25 packages, environments with other uses by more.
_MANY_PACKAGES = 40

SEVEREST_FIRST = ("FAIL", NOT_THERE, "INCONCLUSIVE", "PASS")
HEADER = (
    *("workload", "verdict", "ratio", "interval", "margin"),
    *("blocks", "pairs", "totals", "detects"),
)
EXPLANATION = (
    ("ratio", "Candidate over baseline; above 1 is slower or bigger. In MiB: their difference."),
    ("interval", "At the confidence of the look that decided, or of the last one."),
    ("totals", "Ratio of the sums of all samples; shows stalls."),
    (
        "detects",
        "Slowdown that this comparison, with its looks and correction, calls FAIL with 80 % power.",
    ),
    ("informational", "The verdict does not count for the exit code."),
)


class FailureGroup(NamedTuple):
    """A failure in one or more blocks as text, and the last lines of the worker's output."""

    words: str
    output: str


def progress_line(found: Results, block: Block, decisions: Sequence[Decision]) -> str:
    """Returns a block's result in one line: `2.20.0, block 4, 19 s: 3 of 8 decided, 1 FAIL`."""
    label = found.candidates[block.candidate].label
    own = [d for d in decisions if d.candidate == block.candidate]
    decided = [d for d in own if d.settled]
    failed = sum(d.verdict.value == "FAIL" for d in decided)
    notes = [f"{len(decided)} of {len(own)} decided"]
    notes += [f"{failed} FAIL"] if failed else []
    notes += [f"{f.side} {f.reason}" for f in block.failures]
    notes += [f"disturbed: {reason}" for reason in block.disturbed]
    return f"{label}, block {block.number + 1}, {block.seconds:.0f} s: {', '.join(notes)}"


def of_candidate(decisions: Sequence[Decision], candidate: int) -> list[Decision]:
    """Returns a candidate's decisions, gated ones first."""
    found = [d for d in decisions if d.candidate == candidate]
    return sorted(found, key=lambda d: not d.terms.gated)


def overall(results: Results, decisions: Sequence[Decision], candidate: int) -> str | None:
    """Returns the severest verdict on a candidate's gated workloads; None without any."""
    words = _gated_words(results, of_candidate(decisions, candidate))
    return next((word for word in SEVEREST_FIRST if word in words), None)


def _gated_words(results: Results, decisions: Sequence[Decision]) -> list[str]:
    return [
        NOT_THERE if missing(results, d.candidate) else d.verdict.value
        for d in decisions
        if d.terms.gated
    ]


def headline(results: Results, decisions: Sequence[Decision]) -> str:
    """Returns `FAIL: 2.21.0 against 2.20.0: 1 FAIL, 7 PASS of 8 gated workloads`.

    For several candidates it counts candidates by verdict.
    """
    each = [overall(results, decisions, c) for c in range(len(results.candidates))]
    if len(each) > 1:
        who, counted, unit = f"{len(each)} candidates", each, "candidates"
    else:
        who, unit = results.candidates[0].label, "gated workloads"
        counted = [*_gated_words(results, decisions)]
    worst = next((word for word in SEVEREST_FIRST if word in each), None)
    if None in each and worst == "PASS":
        worst = None
    unfinished = "" if results.complete else "INCOMPLETE, "
    sides = f"{who} against {results.baseline.label}"
    return f"{unfinished}{worst or 'NO VERDICT'}: {sides}: {tally(counted, unit)}"


def candidate_line(results: Results, decisions: Sequence[Decision], candidate: int) -> str:
    """Returns `2.21.0 against 2.20.0: 1 FAIL, 7 PASS of 8 gated workloads`."""
    gated = _gated_words(results, of_candidate(decisions, candidate))
    sides = f"{results.candidates[candidate].label} against {results.baseline.label}"
    return f"{sides}: {tally(gated, 'gated workloads')}"


OVERVIEW_LEGEND = (
    "Ratios of candidate and baseline, and with a sign differences in MiB. ↓ Proven faster or "
    "smaller. ↑ Proven slower or bigger, even if within the margin. ? INCONCLUSIVE. Arrows are "
    "corrected over the whole table; an interval may exclude 1 without one."
)


def overview(results: Results, decisions: Sequence[Decision]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of a table with candidates as rows and workloads as columns."""
    by_place = {(d.candidate, d.workload): d for d in decisions}
    header = ["", *results.workloads]
    rows = [
        [
            results.candidates[place].label,
            *(_mark(by_place.get((place, name))) for name in results.workloads),
        ]
        for place in version_order(results)
    ]
    return header, rows


def _mark(d: Decision | None) -> str:
    if d is None or math.isnan(d.ratio):
        return d.verdict.value if d is not None and d.verdict is Verdict.FAIL else "-"
    text = _figure(d.ratio, "+.3f" if d.terms.is_difference else ".3f")
    arrow = {Change.WORSE: " ↑", Change.BETTER: " ↓", Change.NONE: ""}[d.change]
    mark = {Verdict.FAIL: " FAIL", Verdict.INCONCLUSIVE: " ?", Verdict.PASS: ""}[d.verdict]
    return text + arrow + mark


def figures(d: Decision) -> list[str]:
    """Returns the cells of a decision's row under `HEADER`, except the name."""
    unit = f" {d.terms.unit}" if d.terms.is_difference else ""
    bounds = "-" if math.isnan(d.low) else f"{interval(d)} ({100 * d.confidence:.1f} %)"
    if d.terms.is_difference:
        detectable = _figure(d.detectable, ".3f")
    else:
        detectable = _figure(100 * d.detectable, ".1f", " %")
    return [
        verdict_words(d),
        _figure(d.ratio, "+.3f" if unit else ".3f"),
        bounds,
        f"{d.terms.margin:g}",
        f"{d.blocks:,}",
        f"{d.pairs:,}",
        _figure(d.total_ratio, ".3f"),
        detectable,
    ]


def row_name(d: Decision) -> str:
    """Returns the workload's name, with the unit for differences."""
    return f"{d.workload} ({d.terms.unit})" if d.terms.is_difference else d.workload


def verdict_words(d: Decision) -> str:
    """Returns `PASS`, or `PASS, slower` for a proven change within the margin."""
    if d.verdict is not Verdict.PASS or is_plain(d):
        return d.verdict.value
    worse, better = ("slower", "faster") if d.terms.unit == "s" else ("bigger", "smaller")
    return f"{d.verdict.value}, {worse if d.change is Change.WORSE else better}"


def is_plain(d: Decision) -> bool:
    """Returns whether a decision is a PASS without a proven change."""
    return d.verdict is Verdict.PASS and d.change is Change.NONE


def deserves_words(d: Decision) -> bool:
    """Returns whether the finding adds to the row: no PASS, or a PASS with a proven loss."""
    return d.verdict is not Verdict.PASS or d.change is Change.WORSE


def false_alarm_sentence(false_alarms: str) -> str:
    """Returns the sentence on this machine's false alarms, without a repeated prefix."""
    rate = re.sub(r"^false alarms[^:]*: ", "", false_alarms)
    return f"False alarms of this machine: {rate}."


def baseline_amount(results: Results, d: Decision) -> str:
    """Returns the baseline's median sample, per step for slices with steps."""
    values = [
        value
        for block in results.blocks
        if block.candidate == d.candidate and d.workload in block.samples
        for value in block.samples[d.workload].baseline.values
    ]
    if not values:
        return "-"
    middle = median(values)
    if d.terms.unit != "s":
        return f"{middle:.3f} MiB" if d.terms.is_difference else f"{middle:,.0f} MiB"
    middle, each = middle / (d.terms.steps or 1), "/step" if d.terms.steps else ""
    return f"{middle:.2f} s{each}" if middle >= 1 else f"{1000 * middle:.3g} ms{each}"


def notes(results: Results) -> list[str]:
    """Returns the most important notes: incomplete, not built, not idle, unlike in other ways."""
    found = []
    if not results.complete:
        count = len(results.blocks)
        found.append(
            f"INCOMPLETE: the comparison was interrupted after {count} "
            f"block{'' if count == 1 else 's'}; everything below is based on these."
        )
    found += ["The last record of the file was cut off and is left out."] * results.torn
    found += [f"Measured on {_device(results)}."] * (results.device != "cpu")
    sides = [(f"The baseline {results.baseline.label}", results.baseline)]
    sides += [(side.label, side) for side in results.candidates]
    found += [f"{who} is not there: {side.problem}" for who, side in sides if side.problem]
    found += [f"{who}: {side.note}." for who, side in sides if side.note]
    found += filter(None, (age_note(side, results.started) for _, side in sides))
    return found + _idle_notes(results) + _unlike_notes(results)


def disturbed_blocks(results: Results) -> list[str]:
    """Returns the numbers of disturbed and repeated blocks, then each block's reason."""
    blocks = results.blocks
    disturbed = [(place, block) for place, block in enumerate(blocks) if block.disturbed]
    lines = []
    for place, block in disturbed:
        repeated = _is_repeated(block, blocks[place + 1 :])
        reasons = "; ".join(block.disturbed)
        lines.append(f"{_block_name(results, block)}{', repeated' * repeated}: {reasons}")
    repeats = sum(_is_repeated(block, blocks[place + 1 :]) for place, block in disturbed)
    return [f"{len(disturbed)} of {len(blocks)}, {repeats} of them repeated", *lines]


def failures(results: Results) -> list[FailureGroup]:
    """Returns every distinct failure with its blocks."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for block in results.blocks:
        for failure in block.failures:
            side = results.candidates[block.candidate].label
            if failure.side == BASELINE:
                side = f"the baseline {results.baseline.label} (in blocks with {side})"
            what = f"{failure.workload}: " if failure.workload else "did not start: "
            key = (f"{side}, {what}{failure.reason}", failure.output)
            found.setdefault(key, {})[str(block.number + 1)] = None  # a repeated block once
    return [
        FailureGroup(f"{words} (block{'s' * (len(blocks) > 1)} {', '.join(blocks)})", output)
        for (words, output), blocks in found.items()
    ]


def how_measured(results: Results) -> list[tuple[str, str]]:
    """Returns date, duration and terms of the comparison."""
    options = dict(results.options)
    seconds = sum(block.seconds for block in results.blocks)
    spent = f"{len(results.blocks)} blocks in {seconds / 60:,.1f} min"
    apart = sum(sum(block.own_seconds.values()) for block in results.blocks)
    spent += f" and {apart / 60:,.1f} min beside the budget" if apart else ""
    budget, threads = options.pop("budget_seconds", None), options.pop("threads", None)
    pinned = options.pop("pinned", None)
    options.pop("device", None)
    where = {True: "pinned to one core", False: "not pinned to a core"}.get(pinned, "")
    named = "not known" if threads is None else "one" if threads == 1 else str(threads)
    state = "complete" if results.complete else "INCOMPLETE, interrupted"
    rows = [
        ("Measured", f"{moment(results.started)}: {spent}, {state}"),
        ("Budget", "not known" if budget is None else f"{budget:g} s a candidate"),
        ("TensorFlow's threads", ", ".join(filter(None, (named, where)))),
        CPUS_ONLY if results.device == "cpu" else (CPUS_ONLY[0], _device(results)),
    ]
    return [
        *rows,
        *facts(options),
        *_thread_rows(results),
        ("Disturbed blocks", disturbed_blocks(results)[0]),
        ("SHA-256 of the measuring code", results.code),
    ]


def _device(results: Results) -> str:
    """Returns `gpu:0 (NVIDIA H200), TF32 on`; sides in several modes have one each."""
    gpu = results.machine.get("gpu")
    model = gpu.get("model", "") if isinstance(gpu, Mapping) else ""
    sides = (results.baseline, *results.candidates)
    modes = [text for side in sides if (text := _modes(side.versions))]
    name = f"{results.device} ({model})" if model else results.device
    if len(set(modes)) > 1:
        labels = zip((side.label for side in sides if _modes(side.versions)), modes, strict=True)
        return f"{name}; {'; '.join(f'{label}: {mode}' for label, mode in labels)}"
    return ", ".join([name, *modes[:1]])


def _modes(versions: Mapping[str, object]) -> str:
    """Returns a worker's modes on a GPU; empty if they are not known."""
    if "tf32" not in versions:
        return ""
    is_deterministic = bool(versions.get("deterministic_ops"))
    return Mode(tf32=bool(versions["tf32"]), deterministic_ops=is_deterministic).arithmetic


def tally(verdicts: Sequence[str | None], unit: str) -> str:
    """Returns `1 FAIL, 7 PASS of 8 gated workloads`, with the given unit."""
    counts = [f"{verdicts.count(word)} {word}" for word in SEVEREST_FIRST if word in verdicts]
    return f"{', '.join(counts)} of {len(verdicts)} {unit}" if counts else f"no {unit}"


def _figure(number: float, form: str, unit: str = "") -> str:
    return "-" if math.isnan(number) else f"{number:{form}}{unit}"


def _is_repeated(block: Block, later: Sequence[Block]) -> bool:
    return any((b.candidate, b.number) == (block.candidate, block.number) for b in later)


def _block_name(results: Results, block: Block) -> str:
    return f"{results.candidates[block.candidate].label}, block {block.number + 1}"


def _thread_rows(results: Results) -> list[tuple[str, str]]:
    """Final number of threads of each side's process, if counted."""
    most: dict[tuple[str, str], int] = {}
    for block in results.blocks:
        labels = results.baseline.label, results.candidates[block.candidate].label
        for name, samples in block.samples.items():
            for who, side in zip(labels, (samples.baseline, samples.candidate), strict=True):
                if side.threads:
                    most[name, who] = max(most.get((name, who), 0), *side.threads)
    found: dict[str, list[str]] = {}
    for (name, who), threads in most.items():
        found.setdefault(f"Threads after {name}", []).append(f"{who}: {threads}")
    return [(name, ", ".join(each)) for name, each in found.items()]


def _idle_notes(results: Results) -> list[str]:
    """Sides that computed while the other was timed: spinning threads slow the other side."""
    sums: dict[tuple[str, str], dict[str, list[float]]] = {}
    for block in results.blocks:
        labels = results.baseline.label, results.candidates[block.candidate].label
        for name, samples in block.samples.items():
            sides = samples.baseline, samples.candidate
            for own, other in ((0, 1), (1, 0)):
                idle, busy = sides[own].idle_cpu_seconds, sides[other].values
                if idle and results.workloads[name].unit == "s":
                    by_name = sums.setdefault((labels[own], labels[other]), {})
                    total = by_name.setdefault(name, [0.0, 0.0])
                    total[0] += sum(idle)
                    total[1] += sum(busy)
    found = []
    for (own_label, other_label), by_name in sums.items():
        shares = {name: idle / busy for name, (idle, busy) in by_name.items()}
        much = [f"{name} {100 * x:.0f} %" for name, x in shares.items() if x > MOST_IDLE_SHARE]
        beside = f" beside {other_label}" if own_label == results.baseline.label else ""
        found += [f"{own_label}{beside} ({', '.join(much)})"] if much else []
    if not found:
        return []
    return [f"CPU used while the other side was timed, as a share of its time: {'; '.join(found)}."]


def _unlike_notes(results: Results) -> list[str]:
    """Notes on differences in import and memory unrelated to TensorFlow's version."""
    found = []
    there = results.baseline.packages
    for side in results.candidates:
        here = side.packages
        if not there or not here:
            continue
        if results.baseline.is_for_cpus_only != side.is_for_cpus_only:
            found.append(
                f"{side.label}: one side has TensorFlow for CPUs only, the other the larger one "
                "for GPUs too, which takes more memory."
            )
        if (more := len(there.keys() ^ here.keys())) > _MANY_PACKAGES:
            found.append(
                f"{side.label}: {more} packages are on one side only, and TensorFlow and Keras "
                "import some of them if present, which affects import time and memory."
            )
    return found
