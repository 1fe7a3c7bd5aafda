"""From raw samples to verdicts: what each workload of each candidate came to, in words too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.records.blocks import (
    BASELINE,
    CANDIDATE,
    NOT_MEASURED,
    Block,
    Results,
    Samples,
    WorkloadTerms,
)
from bench.records.sides import in_one_line
from bench.verdicts.sequential import (
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
# Fifty times the largest deviation between TensorFlow 2.12 to 2.21 (bench/RESULTS.md).
CHECK_TOLERANCE = 1e-5
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
        faults: blocks in which a side failed, or computed wrongly.
        hopeless: whether more blocks would not help, since the baseline itself fails.
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

    @property
    def settled(self) -> bool:
        """Whether measuring on is of no use."""
        return self.verdict is not Verdict.INCONCLUSIVE or self.hopeless


def decide(results: Results, candidate: int) -> dict[str, Decision]:
    """Verdicts on a candidate, by workload; what could not be measured is never PASS.

    With disturbed blocks left out (those that were repeated) and counted in, the verdict must be
    the same, or it is INCONCLUSIVE.
    """
    blocks = [block for block in results.blocks if block.candidate == candidate]
    unwanted = results.candidates[candidate].unwanted
    terms = {name: item for name, item in results.workloads.items() if name not in unwanted}
    quiet = {name: _measured(blocks, name, replaced=False) for name in terms}
    every = {name: _measured(blocks, name, replaced=True) for name in terms}
    outcomes = assess({name: _series(results, name, quiet[name]) for name in terms})
    counted_in = assess({name: _series(results, name, every[name]) for name in terms})
    affordable = _affordable_blocks(results, blocks)
    decisions = {}
    for name in terms:
        without, with_them = outcomes[name].verdict, counted_in[name].verdict
        decided = without is with_them is not Verdict.INCONCLUSIVE
        faults = _faults(_tried(blocks, name) if decided else blocks, name)
        reason = _broken(results, candidate, faults)
        if reason is None and not quiet[name]:
            reason = Verdict.INCONCLUSIVE, _why_unmeasured(results, candidate, faults)
        if reason is None and without is not with_them:
            reason = (
                Verdict.INCONCLUSIVE,
                f"{without.value} without the disturbed blocks, {with_them.value} with them",
            )
        decision = _decision(
            results, candidate, name, quiet[name], outcomes[name], reason, affordable
        )
        hopeless = len(faults.baseline) >= FAILURES_THAT_DECIDE
        count = len(faults.baseline) + len(faults.candidate)
        decisions[name] = replace(decision, faults=count, hopeless=hopeless)
    return decisions


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


def value(samples: Samples, terms: WorkloadTerms) -> float:
    """A block's value: log-ratio, or difference, of candidate and baseline."""
    baseline, candidate = samples.baseline.values, samples.candidate.values
    if terms.is_difference:
        return sum(candidate) / len(candidate) - sum(baseline) / len(baseline)
    pairs = zip(baseline, candidate, strict=True)
    return block_value([math.log(other) - math.log(base) for base, other in pairs])


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
    """Blocks that the budget allows, by those measured; as many as the last look has at most."""
    budget = results.options.get("budget_seconds")
    seconds = sum(block.seconds for block in blocks)
    if not budget or not seconds:
        return len({block.number for block in blocks})
    return min(LOOKS[-1].blocks, max(len(blocks), int(budget * len(blocks) / seconds)))


@dataclass(frozen=True)
class _Faults:
    """What went wrong with a workload, one reason a block.

    Attributes:
        baseline: of the baseline.
        candidate: of the candidate, in blocks in which the baseline did not fail.
        wrong: those of the candidate's that it computed wrongly.
    """

    baseline: Sequence[str]
    candidate: Sequence[str]
    wrong: Sequence[str]


def _broken(results: Results, candidate: int, faults: _Faults) -> tuple[Verdict, str] | None:
    """The verdict on a workload that crashed, hung or computed wrongly, with its reason."""
    side = results.candidates[candidate]
    reason = ""
    if results.baseline.problem:
        reason = f"the baseline is not there: {in_one_line(results.baseline.problem)}"
    elif side.problem:
        reason = f"{side.label} is not there: {in_one_line(side.problem)}"
    elif faults.baseline and faults.baseline[-1].startswith(NOT_MEASURED):
        reason = faults.baseline[-1]  # the system's fault, not the baseline's
    elif len(faults.baseline) >= FAILURES_THAT_DECIDE:
        reason = f"the baseline fails: {faults.baseline[-1]}"
    elif len(faults.candidate) >= FAILURES_THAT_DECIDE:
        return Verdict.FAIL, f"{faults.candidate[-1]} ({len(faults.candidate)} blocks)"
    elif faults.wrong:
        reason = f"{side.label} {faults.wrong[0]}, in one block"
    return (Verdict.INCONCLUSIVE, reason) if reason else None


def _why_unmeasured(results: Results, candidate: int, faults: _Faults) -> str:
    if faults.baseline:
        return f"the baseline fails: {faults.baseline[-1]}"
    if faults.candidate:
        return f"{results.candidates[candidate].label} fails: {faults.candidate[-1]}"
    return "it was not measured"


def _tried(blocks: Sequence[Block], name: str) -> Sequence[Block]:
    """Blocks up to the last that measured a workload: once decided it is left out of the others.

    A worker that does not start for those is nothing against this one.
    """
    tried = [
        name in block.samples or any(failure.workload == name for failure in block.failures)
        for block in blocks
    ]
    return blocks[: len(tried) - tried[::-1].index(True)]


def _faults(blocks: Sequence[Block], name: str) -> _Faults:
    baseline, candidate, wrong = [], [], []
    for block in blocks:
        samples = block.samples.get(name)
        of_baseline = _failure_of(block, name, BASELINE) or _useless_check(samples)
        of_candidate = _failure_of(block, name, CANDIDATE)
        computed = is_wrong(samples) if samples else None
        if of_baseline:
            baseline.append(of_baseline)
        elif of_candidate or computed:
            candidate.append(of_candidate or computed or "")
            wrong += [computed] if computed else []
    return _Faults(baseline, candidate, wrong)


def _failure_of(block: Block, name: str, side: str) -> str | None:
    """Why a side has no samples; that a worker did not start counts where nothing else is told."""
    if name in block.samples:
        return None
    own = [failure for failure in block.failures if failure.workload == name]
    told = own or [failure for failure in block.failures if not failure.workload]
    return next((failure.reason for failure in told if failure.side == side), None)


def _useless_check(samples: Samples | None) -> str | None:
    """Why nothing can be held against the baseline's check figures."""
    for number, figure in enumerate(samples.baseline_check if samples else (), start=1):
        if not math.isfinite(figure):
            return f"computes {figure:.6g} (check figure {number})"
    return None


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
        more_blocks=_more_blocks(outcome, margin, len(measured)) if undecided else None,
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
    if d.more_blocks is not None:
        more = f"a verdict would probably take {_blocks(d.more_blocks, 'more ')}"
    elif d.blocks < 2:
        more = f"a verdict takes {_blocks(LOOKS[0].blocks)} at least"
    else:
        more = "what is left to know takes too many blocks"
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
    """Both ends, with three decimals or as many as it takes to say what the verdict says.

    Rounding must move no end onto the margin, "equal" or the other end, nor across it.
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
    if d.low > _equal(d):
        return f"{worse}, but within the margin {d.terms.margin:g}"
    if d.high < _equal(d):
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


def verdicts_of_all(results: Results) -> list[Decision]:
    """Every decision, candidate by candidate."""
    return [
        decision
        for candidate in range(len(results.candidates))
        for decision in decide(results, candidate).values()
    ]
