"""Seeds of a recipe in one environment: what accuracy is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from bench.environments.builds import Built
from bench.measure import machine
from bench.measure.processes import interpreter_of, private_folder
from bench.measure.seeds import Job, train_seeds
from bench.measure.worker_files import prepare_training_folder
from bench.records.sides import difference, named_sides, with_told
from bench.records.trainings import Trained, Trainings, differs
from lenet5.data import Dataset, sha256_of
from lenet5.errors import InputError
from lenet5.recipe import Recipe

_ANEW = "remove it to begin a new one"

OnReference = Callable[[Trainings], None]


def train_reference(
    recipe: Recipe,
    built: Built,
    dataset: Dataset,
    before: Trainings | None,
    on_reference: OnReference,
    *,
    engine: str,
    seeds: Sequence[int],
    processes: int,
) -> tuple[Trainings, list[Trained]]:
    """Trains the seeds that a reference lacks.

    Args:
        recipe: what is trained.
        built: the environment that it is trained in.
        dataset: what it is trained on.
        before: the reference so far; None: there is none.
        on_reference: is given the reference at the start and after each seed.
        engine: that trains.
        seeds: that the reference is to have.
        processes: trainings at a time.

    Returns:
        The reference, and those seeds whose process failed: these are not kept, and tried anew
        another time. A seed that diverged is kept.

    Raises:
        InputError: the reference so far is of another recipe, environment, split or code.
        KeyboardInterrupt: after `on_reference` was given what there is.
    """
    with private_folder() as folder:
        code = prepare_training_folder(folder, dataset)
        found = _nothing_trained(recipe, built, engine, sha256_of(dataset), code)
        if before is not None:
            found = replace(_checked(before, found), recipe=recipe)  # its name or bounds may be new
        on_reference(found)
        failed: list[Trained] = []

        def on_trained(_job: Job, trained: Trained, said: Mapping[str, Any]) -> None:
            nonlocal found
            if trained.crashed:
                failed.append(trained)
                return
            found = replace(found.with_seed(trained), side=with_told(found.side, said))
            on_reference(found)

        there = {trained.seed for trained in found.seeds}
        jobs = [Job("", seed, recipe, engine) for seed in seeds if seed not in there]
        sides = {"": interpreter_of(built)}
        train_seeds(jobs, sides, folder, processes=processes, on_trained=on_trained)
    return found, failed


def _nothing_trained(recipe: Recipe, built: Built, engine: str, split: str, code: str) -> Trainings:
    (side,) = named_sides([built.request], [built])
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Trainings(recipe, engine, split, code, side, machine.describe(), started)


def _checked(before: Trainings, now: Trainings) -> Trainings:
    if unlike := difference(before.side, now.side):
        raise InputError(f"what is trained already is of another environment: {unlike}: {_ANEW}")
    if before.machine != now.machine:
        raise InputError(f"what is trained already is of another machine: {_ANEW}")
    if reason := differs(before, now):
        raise InputError(f"what is trained already is not alike: {reason}: {_ANEW}")
    return before
