"""Seeds of comparisons and references: from built environments to sets of trainings."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from bench.engine import pursue
from bench.environments.builds import Built
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import Request
from bench.measure import machine
from bench.measure.cluster.executor import Cluster
from bench.measure.cluster.roster import CORE
from bench.measure.processes import interpreter_of, private_folder
from bench.measure.seeds import TrainedSeed, train_seeds
from bench.measure.worker_files import prepare_training_folder
from bench.plans.seeds import AccuracyTerms, next_seeds, seeds_without_record
from bench.records.sides import difference, named_sides, unlike_machines, with_told
from bench.records.trainings import SeedTask, Trained, Trainings, differs
from lenet5.data import Dataset, sha256_of
from lenet5.devices import CPU, Device, read_device
from lenet5.errors import InputError
from lenet5.recipe import Recipe

OnSets = Callable[[Sequence[Trainings]], None]
_ANEW = "remove it to start a new one"


def train_comparison(
    terms: AccuracyTerms,
    built: Sequence[Built | EnvironmentProblem],
    reference: Trainings | None,
    dataset: Dataset,
    on_sets: OnSets,
    *,
    processes: int,
    before: Sequence[Trainings] | None = None,
    cluster: Cluster | None = None,
) -> list[Trainings]:
    """Trains seeds up to each look, for candidates without a decision.

    Args:
        terms: terms of the comparison.
        built: baseline, unless there is a reference, and candidates.
        reference: reference in the baseline's place; None with a baseline.
        dataset: MNIST.
        on_sets: receives all sets at the start and after each seed.
        processes: number of parallel trainings.
        before: sets to resume.
        cluster: cluster that trains, as many seeds at once as its workers can; None: this machine.

    Returns:
        The set of the baseline or reference, then one of each candidate.

    Raises:
        InputError: `before` has other environments, or another machine, device, recipe, split or
            code; or there is no such GPU.
        KeyboardInterrupt: after `on_sets` received the last finished seed.
    """
    requests = [*filter(None, [terms.baseline]), *terms.candidates]
    first = 0 if reference is None else 1
    device = CPU if cluster is not None else read_device(terms.device, os.environ)
    with private_folder() as folder:
        code = prepare_training_folder(folder, dataset)
        sets = begun(terms.recipe, terms.engine, requests, built, dataset, code, device)
        if cluster is not None:
            own = next((item.machine for item in (before or ())[first:] if item.seeds), None)
            place = cluster.machine_for(CORE, own)
            sets = [replace(item, machine=place) for item in sets]
        if reference is not None:
            label = f"the reference ({reference.side.label})"
            sets.insert(0, replace(reference, side=replace(reference.side, label=label)))
        if before is not None:
            sets = _resumed(before, sets, has_reference=reference is not None)
        on_sets(sets)
        train = _trainer(
            {p: side for p, side in enumerate(built, start=first) if isinstance(side, Built)},
            *(folder, processes, cluster, device),
        )

        def keep(sets: list[Trainings], done: TrainedSeed) -> list[Trainings]:
            place = done.task.place
            now = [*sets]
            if done.trained.started or sets[place].seeds:
                versions = {**sets[place].side.versions, **done.said}
                side = replace(sets[place].side, versions=versions)
                now[place] = replace(sets[place].with_seed(done.trained), side=side)
            else:
                problem = f"its worker cannot start: {done.trained.problem}"
                now[place] = replace(sets[place], problem=problem)
            on_sets(now)
            return now

        return pursue(
            sets,
            lambda sets: next_seeds(sets, terms),
            train,
            keep,
        )


def train_reference(
    recipe: Recipe,
    built: Built,
    dataset: Dataset,
    before: Trainings | None,
    on_sets: OnSets,
    *,
    engine: str,
    seeds: Sequence[int],
    processes: int,
    cluster: Cluster | None = None,
    device: Device = CPU,
) -> tuple[Trainings, list[Trained]]:
    """Trains the missing seeds of a reference.

    Args:
        recipe: recipe of the reference.
        built: environment of the reference.
        dataset: MNIST.
        before: the reference so far; None: start a new one.
        on_sets: receives the reference at the start and after each seed.
        engine: engine of the reference.
        seeds: seeds of the whole reference.
        processes: number of parallel trainings.
        cluster: as for `train_comparison`.
        device: device of the trainings on this machine.

    Returns:
        The reference, and the seeds with a failed process. The next call trains these again. A
        diverged seed belongs to the reference.

    Raises:
        InputError: `before` has another recipe, engine, environment, machine, device, split or
            code.
        KeyboardInterrupt: after `on_sets` received the last finished seed.
    """
    with private_folder() as folder:
        code = prepare_training_folder(folder, dataset)
        (found,) = begun(recipe, engine, [built.request], [built], dataset, code, device)
        if cluster is not None:
            earlier = None if before is None else before.machine
            found = replace(found, machine=cluster.machine_for(CORE, earlier))
        if before is not None:
            _check_same(before, found)
            found = replace(before, recipe=recipe)  # its name or bounds may have changed
        on_sets([found])
        failed: list[Trained] = []

        def keep(found: Trainings, done: TrainedSeed) -> Trainings:
            if done.trained.crashed:
                failed.append(done.trained)
                return found
            side = with_told(found.side, done.said)
            now = replace(found.with_seed(done.trained), side=side)
            on_sets([now])
            return now

        found = pursue(
            found,
            lambda found: [] if failed else seeds_without_record(found, seeds),
            _trainer({0: built}, folder, processes, cluster, device),
            keep,
        )
    return found, failed


def _trainer(
    built: Mapping[int, Built],
    folder: Path,
    processes: int,
    cluster: Cluster | None,
    device: Device,
) -> Callable[[Sequence[SeedTask]], Generator[TrainedSeed, None, None]]:
    """Returns the executor of seeds: on a device of this machine, or on a cluster."""
    if cluster is not None:
        return lambda tasks: cluster.train_seeds(tasks, built, folder)
    sides = {place: interpreter_of(side, device) for place, side in built.items()}
    return lambda tasks: train_seeds(tasks, sides, folder, processes=processes)


def begun(
    recipe: Recipe,
    engine: str,
    requests: Sequence[Request],
    built: Sequence[Built | EnvironmentProblem],
    dataset: Dataset,
    code: str,
    device: Device = CPU,
) -> list[Trainings]:
    """Returns a set without seeds for each environment.

    Args:
        recipe: recipe of the trainings.
        engine: engine of the trainings.
        requests: requests of the environments.
        built: environments, or the problems of their builds.
        dataset: MNIST.
        code: SHA-256 of the training code.
        device: device of the trainings on this machine.

    Raises:
        InputError: the GPU cannot be described.
    """
    place = machine.describe(device)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    same = recipe, engine, sha256_of(dataset), code
    return [
        Trainings(*same, side, place, started, problem=side.problem)
        for side in named_sides(requests, built)
    ]


def _check_same(before: Trainings, now: Trainings) -> None:
    """Raises InputError unless more seeds may join a reference."""
    if reason := unlike(before, now):
        raise InputError(f"the existing reference {reason}; {_ANEW}")


def unlike(before: Trainings, now: Trainings) -> str:
    """Returns why no more seeds may join a set; empty if they may."""
    if differing := difference(before.side, now.side):
        return f"is of another environment: {differing}"
    if differing := unlike_machines(before.machine, now.machine):
        kind, _, told = differing.partition(": ")
        return f"is of another {kind.removesuffix('s')}{f': {told}' if told else ''}"
    return differs(before, now).removeprefix("the reference ")


def _resumed(
    before: Sequence[Trainings], now: Sequence[Trainings], *, has_reference: bool
) -> list[Trainings]:
    """Returns the earlier sets; an environment without seeds is begun anew."""
    requests = [[item.side.request for item in sets] for sets in (before, now)]
    if requests[0] != requests[1]:
        raise InputError("the existing results are of other environments; choose another --results")
    sets = []
    for place, (one, other) in enumerate(zip(before, now, strict=True)):
        if place == 0 and has_reference:
            if one != other:
                raise InputError("the reference has changed; choose another --results")
        elif one.seeds:
            if reason := unlike(one, other):
                raise InputError(f"{one.side.label} {reason}; choose another --results")
            sets.append(replace(one, problem=other.problem))
            continue
        sets.append(other)
    return sets
