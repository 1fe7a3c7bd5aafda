"""From raw samples to verdicts: what each workload of each candidate came to, in words too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.results import BASELINE, CANDIDATE, Block, Failure, Results, Samples, WorkloadTerms
from bench.statistics import (
    LOOKS,
    Outcome,
    Series,
    Verdict,
    assess,
    block_value,
    blocks_to_decide,
    minimum_detectable,
)

# Largest relative deviation of the first steps' losses between two right environments.
CHECK_TOLERANCE = 1e-3
FAILURES_THAT_DECIDE = 2


@dataclass(frozen=True)
class Decision:
    """The verdict on one workload of one candidate, and what stands beside it.

    Attributes:
        candidate: its place among the candidates.
        workload: its name.
        terms: what it was measured on.
        verdict: PASS, FAIL or INCONCLUSIVE.
        finding: one sentence that says it all.
        ratio: candidate over baseline, or their difference; NaN where nothing was measured.
        low: lower end of the interval; NaN before the first look.
        high: upper end.
        confidence: of the interval, 0 to 1.
        blocks: that the verdict rests on.
        pairs: of slices in those blocks.
        total_ratio: of the sums of all samples, so that stalls show; NaN for differences.
        detectable: smallest slowdown (as a share, or a difference) against an equal candidate
            that is found with 80 % power when the budget is used up; NaN where unknown.
        more_blocks: that an INCONCLUSIVE one would probably take; `None` if unknown or too many.
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


def decide(results: Results, candidate: int) -> dict[str, Decision]:
    """Verdicts on a candidate, by workload; what could not be measured is never PASS.

    With disturbed blocks left out (those that were repeated) and counted in, the verdict must be
    the same, or it is INCONCLUSIVE.
    """
    blocks = [block for block in results.blocks if block.candidate == candidate]
    terms = results.workloads
    quiet = {name: _measured(blocks, name, replaced=False) for name in terms}
    every = {name: _measured(blocks, name, replaced=True) for name in terms}
    outcomes = assess({name: _series(results, name, quiet[name]) for name in terms})
    counted_in = assess({name: _series(results, name, every[name]) for name in terms})
    affordable = _affordable_blocks(results, blocks)
    decisions = {}
    for name in terms:
        reason = _broken(results, candidate, blocks, name)
        if reason is None and outcomes[name].verdict is not counted_in[name].verdict:
            reason = (
                Verdict.INCONCLUSIVE,
                f"{outcomes[name].verdict.value} without the disturbed blocks, "
                f"{counted_in[name].verdict.value} with them",
            )
        decisions[name] = _decision(
            results, candidate, name, quiet[name], outcomes[name], reason, affordable
        )
    return decisions


def exit_code(decisions: Iterable[Decision], problems: int = 0) -> int:
    """The suite's: 1 for a gated FAIL, else 7 for a side that was not there, else 6, else 0."""
    gated = {decision.verdict for decision in decisions if decision.terms.gated}
    if Verdict.FAIL in gated:
        return 1
    if problems:
        return 7
    return 6 if Verdict.INCONCLUSIVE in gated else 0


def is_wrong(samples: Samples) -> str | None:
    """What the candidate computed otherwise than the baseline, or None."""
    if len(samples.baseline_check) != len(samples.candidate_check):
        counts = len(samples.candidate_check), len(samples.baseline_check)
        return f"gives {counts[0]} check figures instead of {counts[1]}"
    both = zip(samples.baseline_check, samples.candidate_check, strict=True)
    for number, (right, other) in enumerate(both, start=1):
        if not abs(other - right) <= CHECK_TOLERANCE * abs(right):  # catches NaN too
            return f"computes {other:.6g} instead of {right:.6g} (check figure {number})"
    return None


def disturbed_values(results: Results, candidate: int, name: str) -> list[float]:
    """One value a block, quiet or not, of a workload: what a plot over time shows."""
    blocks = [block for block in results.blocks if block.candidate == candidate]
    terms = results.workloads[name]
    return [value(item, terms) for item in _measured(blocks, name, replaced=True)]


def value(samples: Samples, terms: WorkloadTerms) -> float:
    """A block's value: log-ratio, or difference, of candidate and baseline."""
    baseline, candidate = samples.baseline.values, samples.candidate.values
    if terms.is_difference:
        return sum(candidate) / len(candidate) - sum(baseline) / len(baseline)
    return block_value([math.log(c / b) for b, c in zip(baseline, candidate, strict=True)])


def _measured(blocks: Sequence[Block], name: str, *, replaced: bool) -> list[Samples]:
    """A workload's samples, a block each; of blocks with one number the last, or all of them."""
    if replaced:
        return [block.samples[name] for block in blocks if name in block.samples]
    latest = {block.number: block.samples[name] for block in blocks if name in block.samples}
    return [latest[number] for number in sorted(latest)]


def _series(results: Results, name: str, measured: Sequence[Samples]) -> Series:
    terms = results.workloads[name]
    values = [value(samples, terms) for samples in measured]
    if terms.is_difference:
        return Series(values, terms.margin, floor=1e-3, gated=terms.gated)
    # Times are known to the clock's tick, memory to a page.
    tick = results.clock_seconds if terms.unit == "s" else 4096 / 2**20
    least = min((min(samples.baseline.values) for samples in measured), default=math.inf)
    floor = max(tick / least, 1e-9)
    return Series(values, math.log(terms.margin), floor, gated=terms.gated)


def _affordable_blocks(results: Results, blocks: Sequence[Block]) -> int:
    """Blocks that the budget allows, by the mean length of those measured; the last look's at most."""
    budget = results.options.get("budget_seconds")
    if not blocks or not budget:
        return len({block.number for block in blocks})
    mean_seconds = sum(block.seconds for block in blocks) / len(blocks)
    return min(LOOKS[-1].blocks, max(len(blocks), int(budget / mean_seconds)))


def _broken(
    results: Results, candidate: int, blocks: Sequence[Block], name: str
) -> tuple[Verdict, str] | None:
    """The verdict on a workload that crashed, hung or computed wrongly, with its reason."""
    side = results.candidates[candidate]
    if results.baseline.problem:
        return Verdict.INCONCLUSIVE, f"the baseline is not there: {results.baseline.problem}"
    if side.problem:
        return Verdict.INCONCLUSIVE, side.problem
    faults: dict[str, list[str]] = {BASELINE: [], CANDIDATE: []}
    for block in blocks:
        for failure in _failures_of(block, name):
            faults[failure.side].append(failure.reason)
        wrong = is_wrong(block.samples[name]) if name in block.samples else None
        if wrong:
            faults[CANDIDATE].append(wrong)
    if len(faults[BASELINE]) >= FAILURES_THAT_DECIDE:
        return Verdict.INCONCLUSIVE, f"the baseline fails: {faults[BASELINE][-1]}"
    if len(faults[CANDIDATE]) >= FAILURES_THAT_DECIDE:
        return Verdict.FAIL, f"{faults[CANDIDATE][-1]} ({len(faults[CANDIDATE])} blocks)"
    wrong_once = [reason for reason in faults[CANDIDATE] if reason.startswith("computes")]
    if wrong_once:
        return Verdict.INCONCLUSIVE, f"{wrong_once[0]} once"
    if not any(name in block.samples for block in blocks):
        reasons = faults[CANDIDATE] or faults[BASELINE] or ["it was not measured"]
        return Verdict.INCONCLUSIVE, reasons[-1]
    return None


def _failures_of(block: Block, name: str) -> list[Failure]:
    if name in block.samples:
        return []
    return [failure for failure in block.failures if failure.workload in ("", name)]


def _decision(
    results: Results,
    candidate: int,
    name: str,
    measured: Sequence[Samples],
    outcome: Outcome,
    broken: tuple[Verdict, str] | None,
    affordable: int,
) -> Decision:
    terms = results.workloads[name]
    other, base = results.candidates[candidate].label, results.baseline.label
    if broken and broken[0] is Verdict.FAIL:
        return Decision(candidate, name, terms, Verdict.FAIL, f"{name}: {other} {broken[1]}")
    used = measured[: outcome.blocks]
    if not used:
        text = f"{name}: {broken[1] if broken else 'nothing was measured'}"
        return Decision(candidate, name, terms, Verdict.INCONCLUSIVE, text)
    back = (lambda x: x) if terms.is_difference else math.exp
    detectable = minimum_detectable(outcome.deviation, affordable)
    looked = math.isfinite(outcome.low)
    margin = terms.margin if terms.is_difference else math.log(terms.margin)
    verdict = broken[0] if broken else outcome.verdict
    undecided = verdict is Verdict.INCONCLUSIVE and not broken
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
        detectable=detectable if terms.is_difference else math.expm1(detectable),
        more_blocks=_more_blocks(outcome, margin) if undecided else None,
    )
    sentence = describe(decision, other, base, reason=broken[1] if broken else "")
    return Decision(**{**vars(decision), "finding": sentence})


def describe(decision: Decision, candidate: str, baseline: str, reason: str = "") -> str:
    """The sentence of a decision, such as `… takes 1.092x the time of … (99 % interval …)`."""
    d = decision
    text = f"{d.workload}: {candidate} {_comparison(d)} {baseline} ({_basis(d)})"
    if d.verdict is Verdict.FAIL:
        return f"{text}, margin {d.terms.margin:g}"
    if d.verdict is Verdict.PASS:
        return f"{text}, {_within(d)}"
    if reason:
        return f"{text}: {reason}"
    if d.more_blocks is None:
        more = "what is left to know takes too many blocks"
    else:
        more = f"a verdict would probably take {d.more_blocks} more blocks"
    return f"{text}, margin {d.terms.margin:g}: {more}"


def _comparison(d: Decision) -> str:
    if d.terms.is_difference:
        return f"takes {d.ratio:+.3f} {d.terms.unit} a call against"
    return f"takes {d.ratio:.3f}x the {'time' if d.terms.unit == 's' else 'memory'} of"


def _basis(d: Decision) -> str:
    blocks = f"{d.blocks} block{'s' if d.blocks != 1 else ''}"
    if math.isnan(d.low):
        return blocks
    return f"{100 * d.confidence:.4g} % interval {d.low:.3f}-{d.high:.3f}, {blocks}"


def _within(d: Decision) -> str:
    equal = 0.0 if d.terms.is_difference else 1.0
    worse, better = ("slower", "faster") if d.terms.unit == "s" else ("bigger", "smaller")
    if d.low > equal:
        return f"{worse}, but within the margin {d.terms.margin:g}"
    if d.high < equal:
        return better
    return f"within the margin {d.terms.margin:g}"


def _total_ratio(measured: Sequence[Samples], terms: WorkloadTerms) -> float:
    if terms.is_difference:
        return math.nan
    candidate = sum(sum(samples.candidate.values) for samples in measured)
    return candidate / sum(sum(samples.baseline.values) for samples in measured)


def _more_blocks(outcome: Outcome, margin: float) -> int | None:
    wanted = blocks_to_decide(outcome, margin)
    return None if wanted is None else wanted - outcome.blocks


def verdicts_of_all(results: Results) -> list[Decision]:
    """Every decision, candidate by candidate."""
    return [
        decision
        for candidate in range(len(results.candidates))
        for decision in decide(results, candidate).values()
    ]


def counts(decisions: Iterable[Decision]) -> Mapping[Verdict, int]:
    """How often each verdict came out."""
    found = [decision.verdict for decision in decisions]
    return {verdict: found.count(verdict) for verdict in Verdict}
