"""An accuracy comparison from its options to its verdicts: seeds until every verdict has fallen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from bench import machine
from bench.accuracy import (
    LOOKS,
    AccuracyDecision,
    Trained,
    decide_accuracy,
    margin_points,
    pairs_seeds,
)
from bench.comparison import interpreter_of, named_sides
from bench.environments import Built, EnvironmentProblem
from bench.process import private_folder
from bench.request import Request, parse_request
from bench.results import Side
from bench.seeds import Job, prepare_training_folder, train_seeds
from bench.statistics import Verdict
from bench.trainings import Comparison, Trainings, differs, identity, read_reference
from lenet5.data import Dataset, sha256_of
from lenet5.errors import InputError
from lenet5.recipe import Recipe
from lenet5.recipes import find_recipe

OnSeed = Callable[[Sequence[Trainings]], None]


@dataclass(frozen=True)
class AccuracyTerms:
    """What is asked for.

    Attributes:
        baseline: the environment that others are held against; None: the stored reference.
        candidates: the others.
        recipe: what is trained.
        engine: that trains it.
        seeds: most seeds of each side: 0, 1, 2 and so on; of a comparison, those of a look.
        margin_points: percentage points of accuracy that may be lost.
        processes: trainings at a time.
    """

    baseline: Request | None
    candidates: tuple[Request, ...]
    recipe: Recipe
    engine: str
    seeds: int
    margin_points: float
    processes: int = 1

    @property
    def comparison(self) -> Comparison:
        """What verdicts are made by."""
        beside = self.baseline is not None
        return Comparison(self.margin_points, beside and pairs_seeds(self.engine), beside)


def read_accuracy_terms(
    baseline: str | None,
    candidates: Sequence[str],
    *,
    recipe: str,
    engine: str,
    seeds: int,
    asked_margin: float | None = None,
) -> AccuracyTerms:
    """Checks the options, without starting anything.

    Args:
        baseline: as `--baseline` has it.
        candidates: as `--candidate` has them.
        recipe: its name.
        engine: its name.
        seeds: most of each side.
        asked_margin: in percentage points; None: `default_margin`.

    Raises:
        InputError: one of them makes no sense.
    """
    looks = [look.blocks for look in LOOKS]
    if seeds not in looks:
        among = f"{', '.join(map(str, looks[:-1]))} or {looks[-1]}"
        raise InputError(f"--seeds is {seeds}, expected {among}: verdicts fall there alone")
    if asked_margin is not None:
        check_margin(asked_margin)
    return AccuracyTerms(
        baseline=None if baseline is None else parse_request(baseline),
        candidates=tuple(parse_request(text) for text in candidates or ["."]),
        recipe=find_recipe(recipe),
        engine=engine,
        seeds=seeds,
        margin_points=default_margin(recipe, engine) if asked_margin is None else asked_margin,
        processes=max(len(machine.cores()), 1),
    )


def check_margin(points: float) -> None:
    """Raises InputError unless the margin is 0.01 to 100 percentage points."""
    if not 0.01 <= points <= 100:  # catches NaN too
        raise InputError(f"--accuracy-margin is {points}, expected 0.01 to 100 percentage points")


def default_margin(recipe: str, engine: str) -> float:
    """`bench.accuracy.margin_points` of the reference of a recipe and an engine.

    Raises:
        InputError: there is none, or it is damaged, not whole, or of another recipe.
    """
    reference = read_reference(recipe, engine)
    if identity(reference.recipe) != identity(find_recipe(recipe)):
        raise InputError(
            f"the reference of recipe {recipe} is of an earlier one: python -m bench reference "
            f"--recipe {recipe} --engine {engine} once it is removed, or give --accuracy-margin"
        )
    return margin_points(reference.seeds)


def compare_accuracy(
    terms: AccuracyTerms,
    built: Sequence[Built | EnvironmentProblem],
    reference: Trainings | None,
    dataset: Dataset,
    on_seed: OnSeed,
) -> list[Trainings]:
    """Trains seeds up to each look, of those that are not decided yet.

    Args:
        terms: what is asked for.
        built: the environments: the baseline's, unless there is a reference, and the candidates'.
        reference: to hold candidates against instead of a baseline.
        dataset: MNIST.
        on_seed: is told of all trainings after each seed.

    Returns:
        The trainings of baseline or reference, then of every candidate.

    Raises:
        KeyboardInterrupt: after `on_seed` was told of what there is.
    """
    with private_folder() as folder:
        code = prepare_training_folder(folder, dataset)
        sets = _nothing_trained(terms, built, reference, sha256_of(dataset), code)
        sides = {
            str(place): interpreter_of(side)
            for place, side in enumerate(built, start=0 if reference is None else 1)
            if isinstance(side, Built)
        }

        def on_trained(job: Job, trained: Trained, said: Mapping[str, Any]) -> None:
            place = int(job.side)
            if not (trained.started or sets[place].seeds):
                problem = f"its worker cannot start: {trained.problem}"
                sets[place] = replace(sets[place], problem=problem)
                return
            versions = {**sets[place].side.versions, **said}
            sets[place] = replace(
                sets[place].with_seed(trained), side=replace(sets[place].side, versions=versions)
            )
            on_seed(sets)

        for first, last in _stages(terms.seeds):
            places = _undecided(sets, terms)
            if reference is None and places:
                places = [0, *places]
            jobs = [
                Job(str(place), seed, terms.recipe, terms.engine)
                for seed in range(first, last)
                for place in places
            ]
            train_seeds(jobs, sides, folder, processes=terms.processes, on_trained=on_trained)
    return sets


def decide_all(sets: Sequence[Trainings], terms: Comparison) -> list[AccuracyDecision]:
    """The verdict on every candidate; against a reference of something else INCONCLUSIVE."""
    baseline, *candidates = sets
    decisions = []
    for candidate in candidates:
        decision = decide_accuracy(
            candidate.seeds,
            baseline.seeds,
            candidate.recipe,
            terms.margin_points,
            paired=terms.paired,
            beside=terms.beside,
        )
        reason = baseline.problem or candidate.problem or differs(baseline, candidate)
        if reason:
            decision = replace(decision, verdict=Verdict.INCONCLUSIVE, reason=reason)
        decisions.append(decision)
    return decisions


def finding(
    decision: AccuracyDecision, candidate: Trainings, baseline: Trainings, *, paired: bool
) -> str:
    """The sentence of a decision: `accuracy[fast]: 2.21.0 loses 0.02 points against …`."""
    d = decision
    text = f"accuracy[{candidate.recipe.name}]: {candidate.side.label}"
    others = baseline.side.label
    if not d.seeds:
        return f"{text} against {others}: {d.reason or 'nothing was trained'}"
    change = "loses" if d.difference >= 0 else "gains"
    text = f"{text} {change} {abs(d.difference):.3f} points against {others}"
    seeds = f"{d.seeds} seeds, {'paired' if paired else 'unpaired'}, engine {candidate.engine}"
    if d.reason:
        return f"{text} ({seeds}): {d.reason}"
    basis = (
        f"{100 * d.confidence:.4g} % interval of the loss {d.low:+.3f} to {d.high:+.3f}, {seeds}"
    )
    return f"{text} ({basis}), margin {d.margin:g}, detects {d.detectable:.3f}"


def _nothing_trained(
    terms: AccuracyTerms,
    built: Sequence[Built | EnvironmentProblem],
    reference: Trainings | None,
    split: str,
    code: str,
) -> list[Trainings]:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")

    def of(side: Side) -> Trainings:
        return Trainings(
            *(terms.recipe, terms.engine, split, code, side, machine.describe(), started),
            problem=side.problem,
        )

    requests = [*filter(None, [terms.baseline]), *terms.candidates]
    sets = [of(side) for side in named_sides(requests, built)]
    if reference is not None:
        label = f"the reference ({reference.side.label})"
        sets.insert(0, replace(reference, side=replace(reference.side, label=label)))
    return sets


def _stages(seeds: int) -> Iterator[tuple[int, int]]:
    """Seeds from and to of what is trained before each look."""
    first = 0
    for last in (look.blocks for look in LOOKS if look.blocks <= seeds):
        yield first, last
        first = last


def _undecided(sets: Sequence[Trainings], terms: AccuracyTerms) -> list[int]:
    if sets[0].problem or any(trained.wrong is None for trained in sets[0].seeds):
        return []  # more seeds tell nothing where the baseline itself fails
    decisions = decide_all(sets, terms.comparison)
    return [
        place
        for place, decision in enumerate(decisions, start=1)
        if decision.verdict is Verdict.INCONCLUSIVE
        and not (sets[place].problem or differs(sets[0], sets[place]))
    ]
