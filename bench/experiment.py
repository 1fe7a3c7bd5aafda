"""The experiment: blocks of several candidates in turns, until every verdict has fallen.

Blocks alternate between the sides that start them, candidates come round-robin so that the
machine's drift does not line up with version, and a candidate's blocks end when its workloads are
decided, when its budget is used up, or when no further look can be reached within it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.block import Bench, BlockRecorder
from bench.catalogue import Spec
from bench.process import Interpreter
from bench.results import BASELINE, CANDIDATE, Block, Results
from bench.statistics import LOOKS
from bench.verdicts import Decision, decide

DEFAULT_BUDGET_SECONDS = 900.0
_REPEATED_SHARE = 3  # at most one block in three may be repeated
_LATER_SHARE = 0.75  # of the first block, which also fixes steps and finds cold caches: 0.65 seen


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        baseline: what the baseline's workers run with.
        candidates: theirs; `None` for one that could not be built.
        specs: by candidate, the workloads to measure.
        budget_seconds: of measuring, per candidate.
        seed: of the workloads' order.
    """

    baseline: Interpreter
    candidates: tuple[Interpreter | None, ...]
    specs: tuple[Mapping[str, Spec], ...]
    budget_seconds: float = DEFAULT_BUDGET_SECONDS
    seed: int = 0


OnBlock = Callable[[Results, Block, Mapping[str, Decision]], None]


def run(plan: Plan, bench: Bench, results: Results, on_block: OnBlock) -> Results:
    """Measures until nothing is left to decide.

    Args:
        plan: what is compared.
        bench: where and how.
        results: without blocks; or with blocks, to go on from.
        on_block: called after each block with all results up to it, to be kept; also with what
            there is of a block when Ctrl-C ends it.

    Returns:
        The results, marked complete.

    Raises:
        KeyboardInterrupt: after what was measured has been handed to `on_block`.
    """
    steps = {name: terms.steps for name, terms in results.workloads.items() if terms.steps}
    going = [index for index, side in enumerate(plan.candidates) if side is not None]
    while going:
        for index in list(going):
            todo = _todo(plan, results, index)
            if not todo:
                going.remove(index)
                continue
            recorder = _recorder(plan, bench, results, index, todo, steps)
            try:
                recorder.measure()
            finally:
                block = recorder.block(_quickest_control(results))
                if block.samples or block.failures:
                    results = _with_block(results, block, recorder, steps)
                    on_block(results, block, decide(results, index))
    return replace(results, complete=True)


def _recorder(
    plan: Plan,
    bench: Bench,
    results: Results,
    index: int,
    todo: Mapping[str, Spec],
    steps: dict[str, int],
) -> BlockRecorder:
    candidate = plan.candidates[index]
    if candidate is None:
        raise ValueError("a candidate that could not be built has no blocks")
    return BlockRecorder(
        bench,
        {BASELINE: plan.baseline, CANDIDATE: candidate},
        list(todo.values()),
        steps,
        candidate=index,
        number=_next_number(plan, results, index),
        seed=plan.seed,
    )


def _todo(plan: Plan, results: Results, index: int) -> dict[str, Spec]:
    """The workloads that are still to be decided, if the budget reaches another look."""
    blocks = [block for block in results.blocks if block.candidate == index]
    if not blocks:
        return dict(plan.specs[index])
    decisions = decide(results, index)
    left = {n: spec for n, spec in plan.specs[index].items() if not decisions[n].settled}
    if not left:
        return {}
    if any(decisions[name].faults == 1 for name in left):
        before = decide(replace(results, blocks=_without_last(results, index)), index)
        if any(decisions[name].faults == 1 and not before[name].faults for name in left):
            return left  # a fresh block tells a fault from an accident, whatever the budget
    number = _next_number(plan, results, index)
    numbers = {name: {b.number for b in blocks if name in b.samples} for name in left}
    values = min(len(found - {number}) for found in numbers.values())
    share = _LATER_SHARE if len(blocks) == 1 else 1.0
    return left if _reaches_a_look(plan, blocks, values, share) else {}


def _without_last(results: Results, index: int) -> tuple[Block, ...]:
    places = [place for place, b in enumerate(results.blocks) if b.candidate == index]
    return (*results.blocks[: places[-1]], *results.blocks[places[-1] + 1 :])


def _reaches_a_look(
    plan: Plan, blocks: Sequence[Block], values: int, later_share: float = 1.0
) -> bool:
    """Whether the budget lasts to the next look of a workload that has so many values.

    If every block takes `later_share` of the last one.
    """
    look = next((look.blocks for look in LOOKS if look.blocks > values), None)
    spent = sum(block.seconds for block in blocks)
    # What is decided drops out, so the last block tells more than the ones before it.
    expected_seconds = later_share * blocks[-1].seconds
    return look is not None and spent + (look - values) * expected_seconds <= plan.budget_seconds


def _next_number(plan: Plan, results: Results, index: int) -> int:
    """The number of a candidate's next block: that of the last one if it is to be repeated.

    A disturbed block is better than no verdict: it is not repeated where that would cost the look.
    """
    blocks = [block for block in results.blocks if block.candidate == index]
    if not blocks:
        return 0
    number = blocks[-1].number
    repeats = len(blocks) - len({block.number for block in blocks})
    look = next((look.blocks for look in LOOKS if look.blocks > number), number + 1)
    may_repeat = blocks[-1].disturbed and repeats < look // _REPEATED_SHARE
    if may_repeat and _reaches_a_look(plan, blocks, number):
        return number
    return number + 1


def _with_block(
    results: Results, block: Block, recorder: BlockRecorder, steps: Mapping[str, int]
) -> Results:
    workloads = {
        name: replace(terms, steps=steps.get(name, 0)) for name, terms in results.workloads.items()
    }
    said = recorder.versions
    candidates = list(results.candidates)
    if CANDIDATE in said:
        versions = {**candidates[block.candidate].versions, **said[CANDIDATE]}
        candidates[block.candidate] = replace(candidates[block.candidate], versions=versions)
    baseline = results.baseline
    if BASELINE in said:
        baseline = replace(baseline, versions={**baseline.versions, **said[BASELINE]})
    return replace(
        results,
        workloads=workloads,
        baseline=baseline,
        candidates=tuple(candidates),
        blocks=(*results.blocks, block),
    )


def _quickest_control(results: Results) -> float | None:
    seconds = [w.control_seconds for block in results.blocks for w in block.witnesses]
    return min(seconds, default=None)
