"""Speed verdicts from raw samples: a decision and a sentence per candidate and workload."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

from bench.records.blocks import NOT_MEASURED, Block, Results, Samples, WorkloadTerms
from bench.records.sides import in_one_line
from bench.verdicts.faults import Faults, check_tolerance, faults_of, missing, tried
from bench.verdicts.sequential import (
    LOOKS,
    Change,
    Look,
    Outcome,
    Series,
    Verdict,
    assess,
    block_value,
    blocks_to_decide,
    detectable_shift,
    proven_changes,
)

FAILURES_THAT_DECIDE = 2


@dataclass(frozen=True)
class Decision:
    """Verdict on one workload of one candidate, with its figures.

    Attributes:
        candidate: index of the candidate.
        workload: name of the workload.
        terms: version, unit and margin of the workload.
        verdict: PASS, FAIL or INCONCLUSIVE.
        finding: complete result in one sentence.
        ratio: candidate over baseline, or their difference; NaN without measurements.
        low: lower end of the interval; NaN before the first look.
        high: upper end of the interval.
        confidence: confidence of the interval, 0 to 1.
        blocks: number of blocks behind the verdict.
        pairs: number of pairs of slices in those blocks.
        total_ratio: ratio of the sums of all samples, which shows stalls; NaN for differences.
        change: change proven independently of the verdict, corrected over all decisions of the
            comparison (`proven_changes`). Arrows and the words "slower" and "faster" have no
            other source. An interval may exclude "equal" without a change, since its correction
            is weaker.
        detectable: smallest slowdown (a share, or a difference) from an equal candidate that
            this comparison calls FAIL with 80 % power. It assumes the affordable looks, the
            margin, the first step of Holm's procedure and the measured deviation. NaN without an
            affordable look or below two blocks.
        more_blocks: probable number of further blocks for an INCONCLUSIVE workload; `None` if
            unknown or too many.
        faults: number of blocks with a failure or a wrong result of a side.
        hopeless: whether more blocks cannot help, because a side is missing or the baseline
            fails.
    """

    candidate: int
    workload: str
    terms: WorkloadTerms
    verdict: Verdict
    finding: str
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    confidence: float = math.nan
    blocks: int = 0
    pairs: int = 0
    total_ratio: float = math.nan
    detectable: float = math.nan
    more_blocks: int | None = None
    faults: int = 0
    hopeless: bool = False
    change: Change = Change.NONE

    @property
    def settled(self) -> bool:
        """Whether further measurements are useless."""
        return self.verdict is not Verdict.INCONCLUSIVE or self.hopeless


def decide(results: Results) -> list[Decision]:
    """Returns a verdict on every workload of every candidate; never PASS without measurements.

    The correction of FAIL covers the gated workloads of all candidates. Candidates reach a look
    at different times, and each block is judged in order of arrival. A verdict reached during
    the run therefore stays, regardless of later blocks of other candidates.

    This holds for results as measured. Results merged from several runs, or without some
    candidates, are corrected over another number of workloads. After a repeated disturbed block,
    Holm's share may stem from the replaced value.

    A verdict must be the same without and with the disturbed (repeated) blocks; otherwise it is
    INCONCLUSIVE. A change that differs is dropped.

    Returns:
        Decisions by candidate, each in the order of the workloads.
    """
    cells = [
        (candidate, name)
        for candidate, side in enumerate(results.candidates)
        for name in results.workloads
        if name not in side.unwanted
    ]
    every = {cell: _measured(results, *cell) for cell in cells}
    quiet = {cell: _last_of_each_number(found) for cell, found in every.items()}
    without = with_them = _tested(results, quiet)
    if any(len(every[cell]) > len(quiet[cell]) for cell in cells):
        with_them = _tested(results, every)
    hypotheses = sum(results.workloads[name].gated for _, name in cells)
    decisions = []
    for candidate in range(len(results.candidates)):
        blocks = [block for block in results.blocks if block.candidate == candidate]
        shared_looks = _affordable_looks(results, blocks)
        for cell in (cell for cell in cells if cell[0] == candidate):
            own = results.workloads[cell[1]].own_budget_seconds
            looks = _own_looks(own, blocks, cell[1]) if own else shared_looks
            share = 1 / hypotheses if results.workloads[cell[1]].gated else 1.0
            found = _Found(quiet[cell], without[cell], with_them[cell], looks, share)
            decisions.append(_decision(results, blocks, cell, found))
    return decisions


def value(samples: Samples, terms: WorkloadTerms) -> float:
    """Returns a block's value: log-ratio or difference of candidate and baseline."""
    baseline, candidate = samples.baseline.values, samples.candidate.values
    if terms.is_difference:
        return sum(candidate) / len(candidate) - sum(baseline) / len(baseline)
    pairs = zip(baseline, candidate, strict=True)
    return block_value([math.log(other) - math.log(base) for base, other in pairs])


_Cell = tuple[int, str]  # index of a candidate, name of a workload


class _Measured(NamedTuple):
    """A workload in a block: index among all blocks, number of the block, samples and value."""

    place: int
    number: int
    samples: Samples
    value: float


class _Tested(NamedTuple):
    """Test results of a cell."""

    outcome: Outcome
    change: Change


@dataclass(frozen=True)
class _Found:
    """Values of a cell without disturbed blocks, and its tests without and with them."""

    measured: Sequence[_Measured]
    without: _Tested
    with_them: _Tested
    looks: tuple[Look, ...]
    share: float


def _measured(results: Results, candidate: int, name: str) -> list[_Measured]:
    return [
        _Measured(place, block.number, found, value(found, results.workloads[name]))
        for place, block in enumerate(results.blocks)
        if block.candidate == candidate and (found := block.samples.get(name))
    ]


def _last_of_each_number(found: Sequence[_Measured]) -> list[_Measured]:
    """Drops repeated blocks; a disturbed value stays if it is the only one of its number."""
    latest = {measured.number: measured for measured in found}
    return [latest[number] for number in sorted(latest)]


def _tested(results: Results, cells: Mapping[_Cell, Sequence[_Measured]]) -> dict[_Cell, _Tested]:
    outcomes = assess({cell: _series(results, cell[1], found) for cell, found in cells.items()})
    changes = proven_changes(outcomes)
    return {cell: _Tested(outcome, changes[cell]) for cell, outcome in outcomes.items()}


def _series(results: Results, name: str, found: Sequence[_Measured]) -> Series:
    terms = results.workloads[name]
    values = [measured.value for measured in found]
    moments = list(accumulate((measured.place for measured in found), max))
    if terms.is_difference:
        return Series(values, terms.margin, 1e-3, terms.gated, moments)
    # The resolution is the clock's tick for times and a page for memory.
    tick = results.clock_seconds if terms.unit == "s" else 4096 / 2**20
    least = min((min(m.samples.baseline.values) for m in found), default=math.inf)
    floor = max(tick / least, 1e-9)
    return Series(values, math.log(terms.margin), floor, terms.gated, moments)


def _affordable_looks(results: Results, blocks: Sequence[Block]) -> tuple[Look, ...]:
    """Looks within the budget, by the mean time of a block; without a budget, by their number."""
    budget = results.options.get("budget_seconds")
    blocks = [block for block in blocks if not block.is_beside_the_budget]
    seconds = sum(block.seconds for block in blocks)
    affordable = len({block.number for block in blocks})
    if budget and seconds:
        affordable = max(affordable, int(budget * len(blocks) / seconds))
    return tuple(look for look in LOOKS if look.blocks <= affordable)


def _own_looks(budget: float, blocks: Sequence[Block], name: str) -> tuple[Look, ...]:
    """Looks within a workload's own budget, by the mean time that it took."""
    seconds = [block.own_seconds[name] for block in blocks if name in block.own_seconds]
    affordable = len({block.number for block in blocks if name in block.own_seconds})
    if sum(seconds):
        affordable = max(affordable, int(budget * len(seconds) / sum(seconds)))
    return tuple(look for look in LOOKS if look.blocks <= affordable)


def _broken(results: Results, candidate: int, faults: Faults) -> tuple[Verdict, str] | None:
    """Verdict and reason for a workload that crashed, hung or gave a wrong result."""
    side = results.candidates[candidate]
    reason = ""
    if told := missing(results, candidate):
        reason = in_one_line(told)
    elif faults.baseline and faults.baseline[-1].startswith(NOT_MEASURED):
        reason = faults.baseline[-1]  # a fault of the system, not of the baseline
    elif len(faults.baseline) >= FAILURES_THAT_DECIDE:
        reason = f"the baseline fails: {faults.baseline[-1]}"
    elif _is_unmeasurable(faults):
        of_method = [each for each in faults.candidate if each.startswith(NOT_MEASURED)]
        reason = f"{side.label} is {of_method[-1]}"
    elif len(real := _of_candidate(faults)) >= FAILURES_THAT_DECIDE:
        return Verdict.FAIL, f"{real[-1]} ({len(real)} blocks)"
    elif faults.wrong:
        reason = f"{side.label} {faults.wrong[0]}, in one block"
    return (Verdict.INCONCLUSIVE, reason) if reason else None


def _is_unmeasurable(faults: Faults) -> bool:
    """Returns whether the method fails for a candidate: its limits, not the candidate."""
    return len(faults.candidate) >= FAILURES_THAT_DECIDE > len(_of_candidate(faults))


def _of_candidate(faults: Faults) -> list[str]:
    """Returns a candidate's faults without those of the method, which measured nothing."""
    return [each for each in faults.candidate if not each.startswith(NOT_MEASURED)]


def _why_unmeasured(results: Results, candidate: int, faults: Faults) -> str:
    if faults.baseline:
        return f"the baseline fails: {faults.baseline[-1]}"
    if faults.candidate:
        return f"{results.candidates[candidate].label} fails: {faults.candidate[-1]}"
    return "it was not measured"


def _decision(results: Results, blocks: Sequence[Block], cell: _Cell, found: _Found) -> Decision:
    candidate, name = cell
    outcome, other = found.without.outcome, found.with_them.outcome.verdict
    decided = outcome.verdict is other is not Verdict.INCONCLUSIVE
    used = tried(blocks, name) if decided else blocks
    faults = faults_of(used, name, check_tolerance(results.device))
    broken = _broken(results, candidate, faults)
    if broken is None and not found.measured:
        broken = Verdict.INCONCLUSIVE, _why_unmeasured(results, candidate, faults)
    if broken is None and outcome.verdict is not other:
        told = f"{outcome.verdict.value} without the disturbed blocks, {other.value} with them"
        broken = Verdict.INCONCLUSIVE, told
    return replace(
        _described(results, cell, found, broken),
        faults=len(faults.baseline) + len(faults.candidate),
        hopeless=len(faults.baseline) >= FAILURES_THAT_DECIDE
        or _is_unmeasurable(faults)
        or (len(blocks) >= FAILURES_THAT_DECIDE and bool(missing(results, candidate))),
    )


def _described(
    results: Results, cell: _Cell, found: _Found, broken: tuple[Verdict, str] | None
) -> Decision:
    """A decision with its figures and its sentence."""
    candidate, name = cell
    terms, outcome = results.workloads[name], found.without.outcome
    other, base = results.candidates[candidate].label, results.baseline.label
    if broken and broken[0] is Verdict.FAIL:
        return Decision(candidate, name, terms, Verdict.FAIL, f"{name}: {other} {broken[1]}")
    used = [measured.samples for measured in found.measured[: outcome.blocks]]
    if not used:
        text = f"{name}: {broken[1] if broken else 'nothing was measured'}"
        return Decision(candidate, name, terms, Verdict.INCONCLUSIVE, text)
    back = (lambda x: x) if terms.is_difference else math.exp
    looked = math.isfinite(outcome.low)
    margin = terms.margin if terms.is_difference else math.log(terms.margin)
    verdict = broken[0] if broken else outcome.verdict
    undecided = verdict is Verdict.INCONCLUSIVE and not broken
    agreed = not broken and found.without.change is found.with_them.change
    decision = Decision(
        candidate,
        name,
        terms,
        verdict,
        finding="",
        ratio=back(outcome.mean),
        low=back(outcome.low) if looked else math.nan,
        high=back(outcome.high) if looked else math.nan,
        confidence=outcome.confidence if looked else math.nan,
        blocks=len(used),
        pairs=sum(len(samples.baseline.values) for samples in used),
        total_ratio=_total_ratio(used, terms),
        detectable=_detectable(terms, outcome.deviation, found),
        more_blocks=_more_blocks(outcome, margin, len(found.measured)) if undecided else None,
        change=found.without.change if agreed else Change.NONE,
    )
    sentence = describe(decision, other, base, reason=broken[1] if broken else "")
    return replace(decision, finding=sentence)


def _detectable(terms: WorkloadTerms, deviation: float, found: _Found) -> float:
    beyond = detectable_shift(found.looks, found.share) * deviation
    if terms.is_difference:
        return terms.margin + beyond
    return terms.margin * math.exp(min(beyond, 50.0)) - 1  # avoids an overflow with large scatter


def describe(decision: Decision, candidate: str, baseline: str, reason: str = "") -> str:
    """Returns a decision's sentence: `… takes 1.092x the time of … (99 % interval …)`."""
    d = decision
    text = f"{d.workload}: {candidate} {_comparison(d)} {baseline} ({_basis(d)})"
    if d.verdict is Verdict.FAIL:
        return f"{text}, margin {d.terms.margin:g}"
    if d.verdict is Verdict.PASS:
        return f"{text}, {_within(d)}"
    if reason:
        return f"{text}: {reason}"
    if d.more_blocks is not None:
        more = f"a verdict would probably take {_blocks(d.more_blocks, 'more ')}"
    elif d.blocks < 2:
        more = f"a verdict takes {_blocks(LOOKS[0].blocks)} at least"
    else:
        more = "probably no look within 24 blocks would decide"
    return f"{text}, margin {d.terms.margin:g}: {more}"


def _comparison(d: Decision) -> str:
    if d.terms.is_difference:
        return f"takes {d.ratio:+.3f} {d.terms.unit} a call against"
    return f"takes {d.ratio:.3f}x the {'time' if d.terms.unit == 's' else 'memory'} of"


def _basis(d: Decision) -> str:
    if math.isnan(d.low):
        return _blocks(d.blocks)
    return f"{100 * d.confidence:.4g} % interval {interval(d)}, {_blocks(d.blocks)}"


def _blocks(count: int, which: str = "") -> str:
    return f"{count} {which}block{'' if count == 1 else 's'}"


def interval(d: Decision) -> str:
    """Formats both ends with three decimals, or with as many as the verdict requires.

    Rounding moves no end onto or across the margin, "equal" or the other end.
    """
    marks = (d.terms.margin, _equal(d))
    for digits in range(3, 10):
        low, high = round(d.low, digits), round(d.high, digits)
        if low < high and all(
            (low > mark) == (d.low > mark) and (high < mark) == (d.high < mark) for mark in marks
        ):
            break
    if d.terms.is_difference:
        return f"{d.low:+.{digits}f} to {d.high:+.{digits}f}"
    return f"{d.low:.{digits}f}-{d.high:.{digits}f}"


def _equal(d: Decision) -> float:
    return 0.0 if d.terms.is_difference else 1.0


def _within(d: Decision) -> str:
    worse, better = ("slower", "faster") if d.terms.unit == "s" else ("bigger", "smaller")
    if d.change is Change.WORSE:
        return f"{worse}, but within the margin {d.terms.margin:g}"
    if d.change is Change.BETTER:
        return better
    return f"within the margin {d.terms.margin:g}"


def _total_ratio(measured: Sequence[Samples], terms: WorkloadTerms) -> float:
    if terms.is_difference:
        return math.nan
    candidate = sum(sum(samples.candidate.values) for samples in measured)
    return candidate / sum(sum(samples.baseline.values) for samples in measured)


def _more_blocks(outcome: Outcome, margin: float, measured: int) -> int | None:
    wanted = blocks_to_decide(outcome, margin, measured)
    return None if wanted is None else wanted - measured
