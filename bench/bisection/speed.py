"""A stage of speed: builds levels when the plan wants them, measures blocks, stores each."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import speed
from bench.bisection.flow import Measured, Say
from bench.bisection.levels import Joined, Wanted, built_or_problem, join, step_of
from bench.engine import pursue
from bench.environments.builds import Built, build
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import parse_request
from bench.measure.blocks import MeasuredBlock, measure_blocks
from bench.measure.processes import Interpreter, interpreter_of, private_folder, running_on
from bench.measure.worker_files import prepare_folder
from bench.measure.workers import BASE
from bench.plans.bisect import next_environments
from bench.plans.speed import Terms
from bench.records import results
from bench.records.blocks import BlockTask, Results
from bench.records.catalogue import Spec
from bench.records.ledger import plain
from bench.records.stages import OPTION, Stage, stage_of
from bench.report.bisection.page import Quantity, Section, StageView, progress, section_of
from bench.report.versions import facts
from bench.verdicts.bisection.stages import (
    closure,
    good_fails,
    missing_places,
    places_of,
    speed_walk,
    unusable,
)
from bench.verdicts.bisection.walk import Walk, ways
from lenet5.data import Subset
from lenet5.errors import InputError
from lenet5.run_directory import writing

OnBlock = Callable[[Results], None]


@dataclass(frozen=True)
class SpeedTerms:
    """Terms of all stages of a walk.

    Attributes:
        spec: the workload.
        margin: margin of a workload without one of its own.
        budget_seconds: measuring time of each stage.
        threads: number of TensorFlow threads.
        seed: seed of the orders and of the plan's draws.
    """

    spec: Spec
    margin: float
    budget_seconds: float
    threads: int = 1
    seed: int = 0

    def of(self, good: str) -> Terms:
        """Returns the terms of a comparison with this baseline."""
        return Terms(
            baseline=parse_request(good),
            candidates=(),
            workloads={self.spec.name: self.spec},
            margin=self.margin,
            budget_seconds=self.budget_seconds,
            threads=self.threads,
            seed=self.seed,
        )


@dataclass(frozen=True)
class _State:
    """A stage so far.

    Attributes:
        results: its ledger; good is the baseline, other places become candidates when built.
        built: environments of this session, by place.
    """

    results: Results
    built: Mapping[int, Built]

    @property
    def places(self) -> tuple[int, ...]:
        """Place of each candidate."""
        return places_of(self.results)

    def request(self, place: int) -> str:
        """Returns the request in use at a place."""
        at = self.candidate(place)
        return (self.results.baseline if at is None else self.results.candidates[at]).request

    def candidate(self, place: int) -> int | None:
        """Returns the usable candidate of a place; None without one."""
        mine = [at for at, other in enumerate(self.places) if other == place]
        return mine[-1] if mine and not unusable(self.results, mine[-1]) else None


@dataclass(frozen=True)
class _Measuring:
    """A task: a block, with the interpreters of its sides."""

    task: BlockTask
    sides: Mapping[int, Interpreter]


@dataclass(frozen=True)
class SpeedStages:
    """Measures stages of a workload's speed or memory.

    Attributes:
        terms: workload, margin, budget.
        images: MNIST's training images.
        cache: folder of environments and locks.
        say: receives lines on builds.
    """

    terms: SpeedTerms
    images: Subset
    cache: Path
    say: Say

    def stored(self, path: Path) -> Stage | None:
        """Returns the stage in a ledger; None without one."""
        if not (path.exists() and results.is_begun(path)):
            return None
        return stage_of(results.read(path).options)

    def measure(self, stage: Stage, path: Path, show: Callable[[Section, str], None]) -> Measured:
        """Measures a stage to its end, or goes on with its ledger."""

        def on_block(found: Results) -> None:
            view = view_of(found, path.name)
            show(section_of(view), progress(view))

        terms, images, cache = self.terms, self.images, self.cache
        state = measure_stage(stage, terms, path, images, cache, on_block=on_block, say=self.say)
        view = view_of(state.results, path.name)
        places = view.walk.pairs[0] if view.walk.is_verified else ()
        return Measured(section_of(view), step_of(stage, places, state.request))


def measure_stage(
    stage: Stage,
    terms: SpeedTerms,
    path: Path,
    images: Subset,
    cache: Path,
    *,
    on_block: OnBlock,
    say: Say,
) -> _State:
    """Measures a stage to its end, or goes on with its ledger.

    Args:
        stage: environments and changes.
        terms: workload, margin, budget.
        path: ledger of the stage.
        images: MNIST's training images.
        cache: folder of environments and locks.
        on_block: receives the results after every block.
        say: receives lines on builds.

    Raises:
        InputError: the ledger is of another stage, machine or code.
        EnvironmentProblem: good or bad cannot be built or measured.
        KeyboardInterrupt: after the last block was stored.
    """
    before = results.read(path) if path.exists() and results.is_begun(path) else None
    good = build(parse_request(stage.places[0].requests[0]), cache, say=say)
    with private_folder() as folder, results.keeping(path, cache, before) as store:
        with writing(folder):
            code = prepare_folder(folder, images)
        comparison = terms.of(stage.places[0].requests[0])
        begun = speed.empty_results(comparison, [good], code)
        begun = replace(begun, options={**begun.options, OPTION: plain(stage)})
        begun = begun if before is None else _resumed(before, begun)
        store(begun)
        bench = speed.bench_of(comparison, folder)

        def execute(
            tasks: Sequence[Wanted | _Measuring],
        ) -> Generator[Joined | MeasuredBlock, None, None]:
            for task in tasks:
                if isinstance(task, Wanted):
                    yield Joined(task, built_or_problem(task.request, cache, say))
                else:
                    yield from measure_blocks([task.task], bench, task.sides)

        def keep(now: _State, record: Joined | MeasuredBlock) -> _State:
            if isinstance(record, Joined):
                now = _joined(now, record)
            else:
                now = replace(now, results=speed.with_block(now.results, record))
            store(now.results)
            return now

        shown = 0

        def plan(now: _State) -> list[Wanted | _Measuring]:
            nonlocal shown
            walk = speed_walk(now.results)
            if len(walk.blocks) > shown:  # not after each build
                on_block(now.results)
            shown = len(walk.blocks)
            return _next(now, walk, terms)

        with running_on(bench.start_cores[1]):  # off the measuring core
            found = pursue(_State(begun, {0: good}), plan, execute, keep)
        found = replace(found, results=replace(found.results, complete=True))
        store(found.results)
    return found


def _resumed(before: Results, now: Results) -> Results:
    """Returns the earlier results, if they are of the same stage and conditions."""
    if stage_of(before.options) != stage_of(now.options):
        raise InputError("--out holds a walk between other environments: choose another folder")
    margins = [{n: t.margin for n, t in each.workloads.items()} for each in (before, now)]
    if margins[0] != margins[1]:
        raise InputError("--out holds a walk of another workload or margin: choose another folder")
    results.check_alike(before, now)
    return replace(before, complete=False)


def _next(now: _State, walk: Walk, terms: SpeedTerms) -> list[Wanted | _Measuring]:
    """Returns the next place to build, or the next block; nothing at the end."""
    found = now.results
    stage = stage_of(found.options)
    _check_ends(found, stage)
    places = next_environments(
        walk,
        is_in_budget=sum(block.seconds for block in found.blocks) < terms.budget_seconds,
        seed=terms.seed,
    )
    for place in places:
        candidate = now.candidate(place)
        if candidate is None:
            request = stage.places[place].requests[now.places.count(place)]
            return [Wanted(place, request, None)]
        if place not in now.built:
            return [Wanted(place, found.candidates[candidate].request, candidate + 1)]
    if not places:
        return []
    number = 1 + max((block.number for block in found.blocks), default=-1)
    seconds = [w.control_seconds for block in found.blocks for w in block.witnesses]
    sides = {at: now.built[place] for place in places if (at := now.candidate(place)) is not None}
    task = BlockTask(
        {candidate: [terms.spec] for candidate in sides},
        dict.fromkeys(sides, number),
        turn=number,
        seed=terms.seed,
        steps={name: each.steps for name, each in found.workloads.items() if each.steps},
        quickest_control=min(seconds, default=None),
    )
    both = {BASE: now.built[0], **sides}
    return [_Measuring(task, {at: interpreter_of(built) for at, built in both.items()})]


def _check_ends(found: Results, stage: Stage) -> None:
    """Raises EnvironmentProblem if good or bad cannot be measured."""
    if reason := good_fails(found):
        raise EnvironmentProblem(f"good, {stage.places[0].name}: {reason}")
    for missing in missing_places(found):
        if missing.place == stage.bad:
            raise EnvironmentProblem(f"bad, {stage.places[stage.bad].name}: {missing.reason}")


def _joined(now: _State, record: Joined) -> _State:
    """Adds a build to the stage."""
    found = now.results
    sides, built = join([found.baseline, *found.candidates], record, now.built)
    found = replace(found, baseline=sides[0], candidates=tuple(sides[1:]))
    return _State(found, built)


def view_of(found: Results, ledger: str) -> StageView:
    """Returns a stage of speed as it is shown."""
    stage, walk = stage_of(found.options), speed_walk(found)
    ((name, terms),) = found.workloads.items()
    is_time = terms.unit == "s"
    words = ("slower", "faster") if is_time else ("larger", "smaller")
    inner = (
        []
        if walk.fit is None
        else [p for p in walk.fit.measured if p != walk.search.change_sets.bad]
    )
    closures = {place: gap for place in inner if (gap := closure(found, walk, place)) is not None}
    sides = {place: found.candidates[at] for at, place in enumerate(places_of(found))}
    return StageView(
        stage,
        walk,
        Quantity(name, not terms.is_difference, terms.unit, *words),
        missing_places(found),
        {0: found.baseline, **sides},
        closures,
        [
            ("Started", found.started),
            ("Disturbed blocks", _disturbed(found)),
            *facts({k: v for k, v in found.options.items() if k != OPTION}),
            *facts(found.machine),
        ],
        ledger,
        _repeat(stage, walk, name),
    )


def _disturbed(found: Results) -> str:
    """Returns how many blocks the witnesses found disturbed; a walk uses them all."""
    by_number = {block.number: block.disturbed for block in found.blocks}
    return f"{sum(map(bool, by_number.values()))} of {len(by_number)}, all used"


def _repeat(stage: Stage, walk: Walk, workload: str) -> list[tuple[str, str]]:
    """Returns commands that measure the found steps alone."""
    commands = []
    for group in walk.culprits:
        for before, after in ways(walk.search, group):
            ends = [stage.places[place].requests[-1] for place in (before, after)]
            words = [
                *("python", "-m", "pytest", "bench", "--baseline", ends[0]),
                *("--candidate", ends[1], "--workloads", workload),
            ]
            names = [stage.places[place].name for place in (before, after)]
            commands.append((f"{names[0]} to {names[1]}", shlex.join(words)))
    return commands
