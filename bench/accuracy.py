"""An accuracy comparison from its options to its verdicts: seeds until every verdict has fallen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from bench.environments.builds import Built, EnvironmentProblem
from bench.measure import machine
from bench.measure.processes import interpreter_of, private_folder
from bench.measure.seeds import Job, train_seeds
from bench.measure.worker_files import prepare_training_folder
from bench.plans.seeds import AccuracyTerms, stages
from bench.records.sides import Side, named_sides
from bench.records.trainings import Trained, Trainings, differs
from bench.verdicts.accuracy import decide_all
from bench.verdicts.sequential import Verdict
from lenet5.data import Dataset, sha256_of

OnSeed = Callable[[Sequence[Trainings]], None]


def compare_accuracy(
    terms: AccuracyTerms,
    built: Sequence[Built | EnvironmentProblem],
    reference: Trainings | None,
    dataset: Dataset,
    on_seed: OnSeed,
    *,
    processes: int,
) -> list[Trainings]:
    """Trains seeds up to each look, of those that are not decided yet.

    Args:
        terms: what is asked for.
        built: the environments: the baseline's, unless there is a reference, and the candidates'.
        reference: to hold candidates against instead of a baseline.
        dataset: MNIST.
        on_seed: is told of all trainings after each seed.
        processes: trainings at a time.

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

        for first, last in stages(terms.seeds):
            places = _undecided(sets, terms)
            if reference is None and places:
                places = [0, *places]
            jobs = [
                Job(str(place), seed, terms.recipe, terms.engine)
                for seed in range(first, last)
                for place in places
            ]
            train_seeds(jobs, sides, folder, processes=processes, on_trained=on_trained)
    return sets


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
