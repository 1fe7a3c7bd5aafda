"""A stage of accuracy: a block is a seed, trained in good, bad and levels between them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import seeds
from bench.bisection.flow import Measured, Say
from bench.bisection.levels import Joined, Wanted, built_or_problem, join, step_of
from bench.engine import pursue
from bench.environments.builds import Built, build
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import parse_request
from bench.measure.processes import interpreter_of, private_folder
from bench.measure.seeds import TrainedSeed, train_seeds
from bench.measure.worker_files import prepare_training_folder
from bench.plans.bisect import next_environments
from bench.records import trainings
from bench.records.ledger import plain
from bench.records.stages import OPTION, Stage, stage_of
from bench.records.trainings import Comparison, SeedTask, Trainings
from bench.report.bisection.page import Quantity, Section, StageView, progress, section_of
from bench.report.versions import facts
from bench.verdicts.bisection.accuracy import accuracy_walk, missing_levels, problem_of
from bench.verdicts.bisection.walk import Walk, ways
from lenet5.data import Dataset
from lenet5.errors import InputError
from lenet5.recipe import Recipe


@dataclass(frozen=True)
class AccuracyStages:
    """Measures stages of a recipe's accuracy.

    Attributes:
        recipe: recipe of the trainings.
        engine: engine of the trainings.
        margin_points: acceptable loss in percentage points; a third of it counts as a step.
        seeds: maximum number of seeds.
        processes: trainings at a time.
        dataset: MNIST.
        cache: folder of environments and locks.
        say: receives lines on builds.
    """

    recipe: Recipe
    engine: str
    margin_points: float
    seeds: int
    processes: int
    dataset: Dataset
    cache: Path
    say: Say

    def stored(self, path: Path) -> Stage | None:
        """Returns the stage in a ledger; None without one."""
        if not trainings.is_begun(path):
            return None
        _, comparison = trainings.read_terms(path)
        return stage_of({OPTION: comparison.stage})

    def measure(self, stage: Stage, path: Path, show: Callable[[Section, str], None]) -> Measured:
        """Measures a stage to its end, or goes on with its ledger.

        Raises:
            InputError: the ledger has another stage, recipe, machine or code.
            EnvironmentProblem: good or bad cannot be built or trained.
            KeyboardInterrupt: after the last seed was stored.
        """
        before = trainings.read_terms(path) if trainings.is_begun(path) else None
        comparison = Comparison(
            self.margin_points, paired=True, beside=True, seeds=self.seeds, stage=plain(stage)
        )
        if before is not None and before[1].stage != comparison.stage:
            raise InputError("--out holds a walk between other environments: choose another folder")
        if before is not None and before[1].margin_points != comparison.margin_points:
            raise InputError("--out holds a walk with another margin: choose another folder")
        good = build(parse_request(stage.places[0].requests[0]), self.cache, say=self.say)
        shown = 0
        with private_folder() as folder:
            code = prepare_training_folder(folder, self.dataset)
            terms = self.recipe, self.engine
            (first,) = seeds.begun(*terms, [good.request], [good], self.dataset, code)
            sets = [first]
            if before is not None:
                comparison = before[1]
                sets = _resumed(before[0], first)
            with trainings.keeping(
                path, self.cache, comparison, None if before is None else before[0]
            ) as store:
                store(sets)

                def plan(now: _State) -> list[Wanted | _Training]:
                    nonlocal shown
                    walk = accuracy_walk(stage, now.sets, comparison)
                    if len(walk.blocks) > shown:
                        view = view_of(stage, now.sets, comparison, path.name)
                        show(section_of(view), progress(view))
                    shown = len(walk.blocks)
                    return _next(now, stage, walk, self)

                def execute(
                    tasks: Sequence[Wanted | _Training],
                ) -> Generator[Joined | TrainedSeed, None, None]:
                    for task in tasks:
                        if isinstance(task, Wanted):
                            found = built_or_problem(task.request, self.cache, self.say)
                            yield Joined(task, found)
                        else:
                            sides = {at: interpreter_of(b) for at, b in task.built.items()}
                            jobs = [SeedTask(at, task.seed, *terms) for at in sides]
                            yield from train_seeds(jobs, sides, folder, processes=self.processes)

                def keep(now: _State, record: Joined | TrainedSeed) -> _State:
                    if isinstance(record, Joined):
                        requests = [parse_request(record.wanted.request)]
                        (new,) = seeds.begun(*terms, requests, [record.built], self.dataset, code)
                        now = _joined(now, record, new)
                    else:
                        now = _with_seed(now, record)
                    store(now.sets)
                    return now

                state = pursue(_State(tuple(sets), {0: good}), plan, execute, keep)
                store(state.sets, complete=True)
        view = view_of(stage, state.sets, comparison, path.name)
        requests = {stage.place_of(item.side.request): item.side.request for item in state.sets}
        places = view.walk.pairs[0] if view.walk.is_verified else ()
        return Measured(section_of(view), step_of(stage, places, requests.__getitem__))


def view_of(
    stage: Stage, sets: Sequence[Trainings], comparison: Comparison, ledger: str
) -> StageView:
    """Returns a stage of accuracy as it is shown."""
    walk = accuracy_walk(stage, sets, comparison)
    recipe, engine = sets[0].recipe.name, sets[0].engine
    return StageView(
        stage,
        walk,
        Quantity(f"wrong test images, {recipe}", False, "images", "worse", "better"),
        missing_levels(stage, sets),
        {stage.place_of(item.side.request): item.side for item in sets},
        {},
        [
            ("Recipe", recipe),
            ("Engine", engine),
            ("Started", sets[0].started),
            *facts(sets[0].machine),
        ],
        ledger,
        _repeat(stage, walk, recipe, engine),
    )


def _repeat(stage: Stage, walk: Walk, recipe: str, engine: str) -> list[tuple[str, str]]:
    """Returns commands that compare the accuracy of the found steps alone."""
    commands = []
    for group in walk.culprits:
        for before, after in ways(walk.search, group):
            one, other = (stage.places[place] for place in (before, after))
            words = [
                *("python", "-m", "pytest", "bench", "--seeds", "20"),
                *("--recipe", recipe, "--engine", engine),
                *("--baseline", one.requests[-1], "--candidate", other.requests[-1]),
            ]
            commands.append((f"{one.name} to {other.name}", shlex.join(words)))
    return commands


@dataclass(frozen=True)
class _State:
    """Sets of seeds, good first, and environments of this session by place."""

    sets: tuple[Trainings, ...]
    built: Mapping[int, Built]


@dataclass(frozen=True)
class _Training:
    """A task: a seed, with the environments of the sets that lack it."""

    seed: int
    built: Mapping[int, Built]


def _resumed(before: Sequence[Trainings], good: Trainings) -> list[Trainings]:
    if unlike := seeds.unlike(before[0], good):
        raise InputError(f"--out holds a walk whose good end {unlike}: choose another folder")
    return [*before]


def _next(now: _State, stage: Stage, walk: Walk, terms: AccuracyStages) -> list[Wanted | _Training]:
    """Returns the next place to build, or the next seed; nothing at the end."""
    _check_ends(now, stage)
    seed = next(n for n in range(len(now.sets[0].seeds) + 1) if not _has(now.sets[0], n))
    places = next_environments(walk, is_in_budget=seed < terms.seeds, seed=0)
    wanted = {0: now.built[0]}
    for place in places:
        mine = [at for at, item in enumerate(now.sets) if _is_at(stage, item, place)]
        if not mine or problem_of(now.sets[mine[-1]]):
            return [Wanted(place, stage.places[place].requests[len(mine)], None)]
        if place not in now.built:
            return [Wanted(place, now.sets[mine[-1]].side.request, mine[-1])]
        wanted[mine[-1]] = now.built[place]
    if not places:
        return []
    return [_Training(seed, {at: b for at, b in wanted.items() if not _has(now.sets[at], seed)})]


def _has(item: Trainings, seed: int) -> bool:
    return any(trained.seed == seed for trained in item.seeds)


def _is_at(stage: Stage, item: Trainings, place: int) -> bool:
    return stage.place_of(item.side.request) == place


def _check_ends(now: _State, stage: Stage) -> None:
    """Raises EnvironmentProblem if good or bad cannot be trained."""
    if problem := problem_of(now.sets[0]):
        raise EnvironmentProblem(f"good, {stage.places[0].name}: {problem}")
    for missing in missing_levels(stage, now.sets):
        if missing.place == stage.bad:
            raise EnvironmentProblem(f"bad, {stage.places[stage.bad].name}: {missing.reason}")


def _joined(now: _State, record: Joined, new: Trainings) -> _State:
    """Adds a build: a new set, or the environment of an earlier one."""
    sides, built = join([item.side for item in now.sets], record, now.built)
    sets = [*now.sets, new][: len(sides)]
    labelled = [replace(item, side=side) for item, side in zip(sets, sides, strict=True)]
    return _State(tuple(labelled), built)


def _with_seed(now: _State, done: TrainedSeed) -> _State:
    sets = list(now.sets)
    item = sets[done.task.place]
    versions = {**item.side.versions, **done.said}
    side = replace(item.side, versions=versions)
    sets[done.task.place] = replace(item.with_seed(done.trained), side=side)
    return _State(tuple(sets), now.built)
