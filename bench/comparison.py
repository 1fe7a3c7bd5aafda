"""A comparison from its options to its verdicts: what pytest and `python -m bench` both do."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from bench import environments, experiment, machine, results
from bench.block import PAIR_SECONDS, Bench
from bench.catalogue import WORKLOADS, Spec, check_margin, select
from bench.environments import Built, EnvironmentProblem
from bench.labels import labels
from bench.process import Interpreter, prepare_folder, private_folder, running_on
from bench.request import Request, parse_request
from bench.results import Block, Results, Side, WorkloadTerms
from bench.verdicts import Decision
from lenet5.data import Subset
from lenet5.errors import InputError
from lenet5.run_directory import writing

DEFAULT_MARGIN = 1.03
Say = Callable[[str], None]


@dataclass(frozen=True)
class Terms:
    """What is asked for.

    Attributes:
        baseline: the environment that others are held against.
        candidates: the others.
        workloads: to measure, by name.
        margin: of the workloads that have none of their own.
        budget_seconds: of measuring, per candidate.
        threads: TensorFlow's; more than one are not pinned to a core.
        seed: of the workloads' order.
        pair_seconds: how long a workload's pairs go on in a block.
        call_steps: how slices are made up, if not as usual.
    """

    baseline: Request
    candidates: tuple[Request, ...]
    workloads: Mapping[str, Spec]
    margin: float = DEFAULT_MARGIN
    budget_seconds: float = experiment.DEFAULT_BUDGET_SECONDS
    threads: int = 1
    seed: int = 0
    pair_seconds: float = PAIR_SECONDS
    call_steps: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)


def read_terms(
    baseline: str,
    candidates: Sequence[str],
    *,
    workloads: str,
    margin: float,
    budget_seconds: float,
    threads: int,
    project: Path,
) -> Terms:
    """Checks the options of a comparison, without network and without starting anything.

    Args:
        baseline: requirements and settings.
        candidates: the same of each; none: the current environment.
        workloads: `gated`, `all` or names.
        margin: default one.
        budget_seconds: per candidate.
        threads: TensorFlow's.
        project: folder of the `pyproject.toml` with `[tool.lenet5-bench.workloads]`.

    Raises:
        InputError: one of them makes no sense.
    """
    check_margin(margin)
    _check_budget(budget_seconds)
    return Terms(
        baseline=parse_request(baseline),
        candidates=tuple(parse_request(text) for text in candidates or ["."]),
        workloads=select(workloads, _project_options(project)),
        margin=margin,
        budget_seconds=budget_seconds,
        threads=threads,
    )


def terms_to_resume(found: Results, budget_seconds: float) -> Terms:
    """The terms of results that are to be gone on with, with another budget.

    Raises:
        InputError: the budget, or one of their workloads is not what it was.
    """
    _check_budget(budget_seconds)
    workloads = {}
    for name, terms in found.workloads.items():
        spec = WORKLOADS.get(name)
        if spec is None or spec.version != terms.version:
            raise InputError(f"{name} is not what was measured: results cannot be gone on with")
        workloads[name] = replace(spec, margin=terms.margin, gated=terms.gated)
    return Terms(
        baseline=parse_request(found.baseline.request),
        candidates=tuple(parse_request(side.request) for side in found.candidates),
        workloads=workloads,
        budget_seconds=budget_seconds,
        **_kept_options(found),
    )


def _kept_options(found: Results) -> dict[str, Any]:
    kinds = {"threads": int, "seed": int, "pair_seconds": float}
    try:
        return {name: kind(found.options[name]) for name, kind in kinds.items()}
    except (KeyError, TypeError, ValueError):
        raise InputError("the results lack options: they cannot be gone on with") from None


def _check_budget(budget_seconds: float) -> None:
    if not 10 <= budget_seconds <= 86_400:
        raise InputError(f"--budget is {budget_seconds:g}, expected 10 to 86400 seconds")


@dataclass(frozen=True)
class Environments:
    """What the environments came to: built, or the problem that each has."""

    baseline: Built
    candidates: tuple[Built | EnvironmentProblem, ...]


def build_environments(
    baseline: Request, candidates: Sequence[Request], cache: Path, say: Say
) -> Environments:
    """Builds every environment; a candidate that cannot be built does not stop the others.

    Raises:
        EnvironmentProblem: the baseline's.
    """
    held_against = environments.build(baseline, cache, say=say)
    return Environments(held_against, build_candidates(candidates, cache, say))


def build_candidates(
    candidates: Sequence[Request], cache: Path, say: Say
) -> tuple[Built | EnvironmentProblem, ...]:
    """Builds every environment; what cannot be built has its problem in its place."""
    built: list[Built | EnvironmentProblem] = []
    for request in candidates:
        try:
            built.append(environments.build(request, cache, say=say))
        except EnvironmentProblem as problem:
            say(str(problem))
            built.append(problem)
    return tuple(built)


def measure(
    terms: Terms,
    built: Environments,
    wanted: Sequence[Sequence[str]],
    images: Subset,
    on_block: experiment.OnBlock,
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
        plan = experiment.Plan(
            baseline=interpreter_of(built.baseline),
            candidates=tuple(
                interpreter_of(side) if isinstance(side, Built) else None
                for side in built.candidates
            ),
            specs=tuple({name: terms.workloads[name] for name in names} for names in wanted),
            budget_seconds=terms.budget_seconds,
            seed=terms.seed,
        )
        bench = _bench(terms, folder)
        # This process stays off the core that both sides share.
        with running_on(bench.start_cores[1]):
            return experiment.run(plan, bench, begun, on_block)


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
        if was_there and (one.lock, one.settings) != (other.lock, other.settings):
            raise InputError(f"{one.label} is not what was measured: {other.request} has changed")
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


def named_sides(
    requests: Sequence[Request], built: Sequence[Built | EnvironmentProblem]
) -> list[Side]:
    """Environments as results hold them, with labels that tell them apart."""
    both = list(zip(requests, built, strict=True))
    there = [side for _, side in both if isinstance(side, Built)]
    names = iter(
        labels(
            [side.lock for side in there],
            [side.request.settings for side in there],
            [side.python_version for side in there],
            [side.versions for side in there],
        )
    )
    return [_side(side, request, names) for request, side in both]


def interpreter_of(built: Built) -> Interpreter:
    """What an environment's workers run with."""
    return Interpreter(built.python, built.request.settings)


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


def _side(built: Built | EnvironmentProblem, request: Request, names: Iterator[str]) -> Side:
    if isinstance(built, Built):
        versions = {"python": built.python_version, **built.versions}
        return Side(request.text, next(names), versions, built.lock, dict(request.settings))
    return Side(request.text, request.text, settings=dict(request.settings), problem=str(built))


def _project_options(project: Path) -> Mapping[str, Mapping[str, Any]]:
    """`[tool.lenet5-bench.workloads]` of a `pyproject.toml`."""
    path = project / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    options = content.get("tool", {}).get("lenet5-bench", {}).get("workloads", {})
    if not all(isinstance(changes, dict) for changes in options.values()):
        raise InputError(f"{path}: tool.lenet5-bench.workloads must hold a table per workload")
    return dict(options)


def default_results(folder: Path) -> Path:
    """A name for a results file that is not there yet."""
    moment = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    return folder / f"comparison-{moment}-{os.getpid()}.json"
