"""Seeds of a recipe in one environment: what accuracy is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

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


def summary(reference: Trainings) -> str:
    """`fast, engine keras: 98.642 % (mean of 20 seeds, standard deviation 0.062, …)`."""
    name = f"{reference.recipe.name}, engine {reference.engine}"
    trained = [seed for seed in reference.seeds if seed.wrong is not None]
    diverged = len(reference.seeds) - len(trained)
    end = f"; {diverged} diverged" if diverged else ""
    if not trained:
        return f"{name}: no seed{end}"
    percent = [100 * seed.accuracy for seed in trained]
    spread = f"{np.std(percent, ddof=1):.3f}" if len(percent) > 1 else "not known"
    wrong = [seed.wrong or 0 for seed in trained]
    return (
        f"{name}: {np.mean(percent):.3f} % (mean of {len(trained)} seeds, standard deviation "
        f"{spread}, lowest {min(percent):.2f} %; {np.mean(wrong):.1f} images wrong, "
        f"{min(wrong)} to {max(wrong)}; {np.mean([seed.epochs for seed in trained]):.3g} epochs, "
        f"{np.mean([seed.train_seconds for seed in trained]):.1f} s a seed){end}"
    )


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
