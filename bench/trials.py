"""Seeds of recipes in one environment: references, and trials that recipes are chosen by.

What is trained already is not trained again, so that a search can be interrupted and gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.accuracy import Trained
from bench.comparison import interpreter_of, named_sides
from bench.environments import Built
from bench.process import private_folder
from bench.seeds import Job, prepare_training_folder, train_seeds
from bench.trainings import Trainings, differs, identity
from lenet5.data import Dataset, Subset, sha256_of
from lenet5.errors import InputError
from lenet5.recipe import Recipe
from lenet5.recipes import find_recipe

PROTOCOLS = ("test", "validation", "original")
_ANEW = "remove it to begin a new one"

OnSets = Callable[[Sequence[Trainings]], None]


def read_trials(path: Path) -> list[Recipe]:
    """Recipes from a JSON list of what they change: `[{"recipe": "fast", "epochs": 4}, ...]`.

    Each is named by its changes, unless it brings a `name`.

    Raises:
        InputError: the file cannot be read, or a recipe makes no sense.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON: {error}") from None
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise InputError(f"{path}: expected a list such as [{{'recipe': 'fast', 'epochs': 4}}]")
    trials = [_trial(dict(item)) for item in content]
    if not trials or len({identity(trial) for trial in trials}) < len(trials):
        raise InputError(f"{path}: holds no recipe, or one twice")
    return trials


def arrange(dataset: Dataset, protocol: str) -> Dataset:
    """The images that a protocol trains on, stops by and scores, in the places of the three parts.

    Args:
        dataset: MNIST as it is split.
        protocol: `test`: as it is; `validation`: the validation images are scored and the test
            images stay unseen; `original`: trained on all 60,000 training images, stopped by the
            test images and scored on them, as the original project did.
    """
    if protocol == "validation":
        return replace(dataset, test=dataset.validation)
    if protocol == "original":
        both = (dataset.training, dataset.validation)
        training = Subset(
            np.concatenate([part.images for part in both]),
            np.concatenate([part.labels for part in both]),
        )
        return replace(dataset, training=training, validation=dataset.test)
    return dataset


def train_recipes(
    recipes: Sequence[Recipe],
    built: Built,
    dataset: Dataset,
    before: Sequence[Trainings],
    on_sets: OnSets,
    *,
    engine: str,
    seeds: Sequence[int],
    processes: int,
) -> tuple[list[Trainings], list[tuple[Recipe, Trained]]]:
    """Trains what is missing of each recipe's seeds.

    Args:
        recipes: what is trained.
        built: the environment that it is trained in.
        dataset: what it is trained on.
        before: what is trained already; that of other recipes is left as it is.
        on_sets: is told of all trainings, at the start and after each seed.
        engine: that trains them.
        seeds: that each recipe is to have.
        processes: trainings at a time.

    Returns:
        A set for each recipe, and those seeds whose process failed: these are not kept, and tried
        anew another time. A seed that diverged is kept.

    Raises:
        InputError: what is trained already is of another environment, split or code.
        KeyboardInterrupt: after `on_sets` was told of what there is.
    """
    with private_folder() as folder:
        code = prepare_training_folder(folder, dataset)
        empty = _nothing_trained(built, engine, sha256_of(dataset), code)
        sets = {identity(item.recipe): _checked(item, empty) for item in before}
        for recipe in recipes:  # whose name or bounds may have changed since
            sets[identity(recipe)] = replace(sets.get(identity(recipe), empty), recipe=recipe)
        on_sets(list(sets.values()))
        failed: list[tuple[Recipe, Trained]] = []

        def on_trained(job: Job, trained: Trained, said: Mapping[str, Any]) -> None:
            if trained.crashed:
                failed.append((job.recipe, trained))
                return
            found = sets[identity(job.recipe)].with_seed(trained)
            versions = {**found.side.versions, **said}
            sets[identity(job.recipe)] = replace(found, side=replace(found.side, versions=versions))
            on_sets(list(sets.values()))

        jobs = [
            Job("", seed, recipe, engine)
            for seed in seeds  # so that a slow hour falls on all recipes
            for recipe in recipes
            if seed not in {trained.seed for trained in sets[identity(recipe)].seeds}
        ]
        sides = {"": interpreter_of(built)}
        train_seeds(jobs, sides, folder, processes=processes, on_trained=on_trained)
    return [sets[identity(recipe)] for recipe in recipes], failed


def without_answers(found: Trainings) -> Trainings:
    """Trainings as they are kept for long: without the answers to every image."""
    return replace(found, seeds=tuple(replace(trained, digits="") for trained in found.seeds))


def table(sets: Sequence[Trainings]) -> str:
    """Markdown: a recipe a row, its accuracy over the seeds and what a training took."""
    lines = [
        "| recipe | seeds | accuracy, % | standard deviation | lowest | mean wrong | epochs "
        "| seconds a seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for item in sets:
        trained = [seed for seed in item.seeds if seed.wrong is not None]
        cells = [item.recipe.name, str(len(item.seeds)), *["-"] * 6]
        if len(trained) < len(item.seeds):
            cells[1] += f", {len(item.seeds) - len(trained)} diverged"
        if trained:
            percent = [100 * seed.accuracy for seed in trained]
            spread = f"{np.std(percent, ddof=1):.3f}" if len(percent) > 1 else "-"
            wrong = np.mean([seed.wrong or 0 for seed in trained])
            epochs = np.mean([seed.epochs for seed in trained])
            seconds = np.mean([seed.train_seconds for seed in trained])
            cells[2:] = [f"{np.mean(percent):.3f}", spread, f"{min(percent):.2f}"]
            cells += [f"{wrong:.1f}", f"{epochs:.3g}", f"{seconds:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def effects_table(sets: Sequence[Trainings]) -> str:
    """Markdown: mean accuracy by value of every field that several recipes share and vary.

    What a field does, as far as the recipes are balanced in the others; its standard error is
    that of the mean over recipes.
    """
    means = {
        item.recipe: float(np.mean([100 * trained.accuracy for trained in item.seeds]))
        for item in sets
        if item.seeds and all(trained.wrong is not None for trained in item.seeds)
    }
    lines = [
        "| field | value | recipes | accuracy, % | standard error |",
        "|---|---|---|---|---|",
    ]
    for name in [field.name for field in fields(Recipe) if field.name != "name"]:
        by_value: dict[Any, list[float]] = {}
        for recipe, mean in means.items():
            by_value.setdefault(getattr(recipe, name), []).append(mean)
        if len(by_value) < 2 or any(len(group) < 2 for group in by_value.values()):
            continue
        for value, group in sorted(by_value.items(), key=lambda item: (item[0] is None, item[0])):
            error = np.std(group, ddof=1) / len(group) ** 0.5
            cells = [name, value, len(group), f"{np.mean(group):.3f}", f"{error:.3f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _trial(changes: dict[str, Any]) -> Recipe:
    base = str(changes.pop("recipe", ""))
    told = ", ".join(f"{name} {value}" for name, value in changes.items())
    named = {"name": f"{base}: {told}" if told else base}
    return find_recipe(base).with_overrides({**named, **changes})


def _nothing_trained(built: Built, engine: str, split: str, code: str) -> Trainings:
    (side,) = named_sides([built.request], [built])
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    recipe = find_recipe("fast")  # stands in for those that take its place
    return Trainings(recipe, engine, split, code, side, machine.describe(), started)


def _checked(before: Trainings, now: Trainings) -> Trainings:
    if (before.side.lock, before.side.settings) != (now.side.lock, now.side.settings):
        raise InputError(f"what is trained already is of another environment: {_ANEW}")
    if before.machine != now.machine:
        raise InputError(f"what is trained already is of another machine: {_ANEW}")
    if reason := differs(before, replace(now, recipe=before.recipe)):
        raise InputError(f"what is trained already is not alike: {reason}: {_ANEW}")
    return before
