"""A speed comparison: environments, blocks in turns, results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from bench.environments.builds import Built, Environments
from bench.measure import machine
from bench.measure.blocks import Bench, BlockRecorder
from bench.measure.processes import Interpreter, interpreter_of, private_folder, running_on
from bench.measure.worker_files import prepare_folder
from bench.plans.speed import Plan, Terms, next_number, todo
from bench.records import results
from bench.records.blocks import BASELINE, CANDIDATE, Block, Results, WorkloadTerms
from bench.records.sides import difference, named_sides, with_told
from bench.verdicts.speed import Decision, decide
from lenet5.data import Subset
from lenet5.errors import InputError
from lenet5.run_directory import writing

OnBlock = Callable[[Results, Block, Mapping[str, Decision]], None]


def run(
    plan: Plan,
    baseline: Interpreter,
    candidates: Sequence[Interpreter | None],
    bench: Bench,
    results: Results,
    on_block: OnBlock,
) -> Results:
    """Measures until nothing is left to decide.

    Args:
        plan: what is to be decided.
        baseline: what the baseline's workers run with.
        candidates: theirs; None for one that could not be built.
        bench: where and how.
        results: without blocks; or with blocks, to go on from.
        on_block: called after each block with all results up to it, to be kept; also with what
            there is of a block when Ctrl-C ends it.

    Returns:
        The results, marked complete.

    Raises:
        InputError: a worker says otherwise of its environment than one before it.
        KeyboardInterrupt: after what was measured has been handed to `on_block`.
    """
    steps = {name: terms.steps for name, terms in results.workloads.items() if terms.steps}
    going = {index: side for index, side in enumerate(candidates) if side is not None}
    while going:
        for index, candidate in list(going.items()):
            specs = todo(plan, results, index)
            if not specs:
                del going[index]
                continue
            recorder = BlockRecorder(
                bench,
                {BASELINE: baseline, CANDIDATE: candidate},
                list(specs.values()),
                steps,
                candidate=index,
                number=next_number(plan, results, index),
                seed=plan.seed,
            )
            try:
                recorder.measure()
            finally:
                block = recorder.block(_quickest_control(results))
                if block.samples or block.failures:
                    results = _with_block(results, block, recorder, steps)
                    on_block(results, block, decide(results, index))
    return replace(results, complete=True)


def _with_block(
    results: Results, block: Block, recorder: BlockRecorder, steps: Mapping[str, int]
) -> Results:
    workloads = {
        name: replace(terms, steps=steps.get(name, 0)) for name, terms in results.workloads.items()
    }
    said = recorder.versions
    candidates = list(results.candidates)
    if CANDIDATE in said:
        told = with_told(candidates[block.candidate], said[CANDIDATE])
        candidates[block.candidate] = told
    baseline = results.baseline
    if BASELINE in said:
        baseline = with_told(baseline, said[BASELINE])
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


def measure(
    terms: Terms,
    built: Environments,
    wanted: Sequence[Sequence[str]],
    images: Subset,
    on_block: OnBlock,
    before: Results | None = None,
) -> Results:
    """Runs the experiment in a private folder that is removed afterwards.

    Args:
        terms: what is asked for.
        built: the environments.
        wanted: by candidate, the names of the workloads to measure.
        images: MNIST's training images.
        on_block: is told of every block.
        before: results to go on from.

    Raises:
        InputError: those are of another machine, code or environment; or the disk is full.
        KeyboardInterrupt: after `on_block` was told of what there is.
    """
    with private_folder() as folder:
        with writing(folder):
            code = prepare_folder(folder, images)
        begun = _asked(empty_results(terms, built, code), wanted)
        if before is not None:
            begun = _gone_on_with(before, begun)
        plan = Plan(
            specs=tuple({name: terms.workloads[name] for name in names} for names in wanted),
            budget_seconds=terms.budget_seconds,
            seed=terms.seed,
        )
        bench = _bench(terms, folder)
        # This process stays off the core that both sides share.
        with running_on(bench.start_cores[1]):
            return run(
                plan,
                interpreter_of(built.baseline),
                [
                    interpreter_of(side) if isinstance(side, Built) else None
                    for side in built.candidates
                ],
                bench,
                begun,
                on_block,
            )


def _asked(empty: Results, wanted: Sequence[Sequence[str]]) -> Results:
    """Notes what was not asked of each candidate: there is no verdict on that."""
    candidates = [
        replace(side, unwanted=tuple(name for name in empty.workloads if name not in names))
        for side, names in zip(empty.candidates, wanted, strict=True)
    ]
    return replace(empty, candidates=tuple(candidates))


def _gone_on_with(before: Results, now: Results) -> Results:
    """What was measured already, on the terms of now."""
    results.check_alike(before, now)
    for one, other in zip(before.candidates, now.candidates, strict=True):
        was_there = not (one.problem or other.problem)
        if was_there and (unlike := difference(one, other)):
            raise InputError(
                f"{one.label} is not what was measured: {other.request} has changed: {unlike}"
            )
    candidates = [
        other if one.problem or other.problem else replace(one, unwanted=other.unwanted)
        for one, other in zip(before.candidates, now.candidates, strict=True)
    ]
    return replace(before, options=now.options, candidates=tuple(candidates), complete=False)


def empty_results(terms: Terms, built: Environments, code: str) -> Results:
    """Results without blocks: environments, machine, options and the terms of each workload."""
    baseline, *candidates = named_sides(
        (terms.baseline, *terms.candidates), (built.baseline, *built.candidates)
    )
    return Results(
        machine=machine.describe(),
        code=code,
        options={
            "budget_seconds": terms.budget_seconds,
            "threads": terms.threads,
            "pinned": terms.threads == 1,
            "pair_seconds": terms.pair_seconds,
            "seed": terms.seed,
        },
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        baseline=baseline,
        candidates=tuple(candidates),
        workloads={
            name: WorkloadTerms(
                version=spec.version,
                unit=spec.unit,
                margin=spec.margin or terms.margin,
                gated=spec.gated,
                is_difference=spec.is_difference,
                threads=spec.threads or terms.threads,
            )
            for name, spec in terms.workloads.items()
        },
        clock_seconds=time.get_clock_info("perf_counter").resolution,
    )


def progress_line(found: Results, block: Block, decisions: Mapping[str, Decision]) -> str:
    """What a block came to, in one line: `2.20.0, block 4, 19 s: 3 of 8 decided, 1 FAIL`."""
    label = found.candidates[block.candidate].label
    decided = [d for d in decisions.values() if d.settled]
    failed = sum(d.verdict.value == "FAIL" for d in decided)
    notes = [f"{len(decided)} of {len(decisions)} decided"]
    notes += [f"{failed} FAIL"] if failed else []
    notes += [f"{f.side} {f.reason}" for f in block.failures]
    notes += [f"disturbed: {reason}" for reason in block.disturbed]
    return f"{label}, block {block.number + 1}, {block.seconds:.0f} s: {', '.join(notes)}"


def _bench(terms: Terms, folder: Path) -> Bench:
    cores = machine.cores()
    pinned = terms.threads == 1
    return Bench(
        folder=folder,
        cores=cores[-1:] if pinned else cores,
        start_cores=(cores[-1:], cores[:1]) if pinned else (cores, cores),
        all_cores=cores,
        threads=terms.threads,
        pair_seconds=terms.pair_seconds,
        call_steps=terms.call_steps,
    )
