"""Trained seeds of a recipe in an environment, for references and accuracy results.

`bench/references/<recipe>-<engine>.jsonl` has one such set. The results of an accuracy comparison
have one set of the baseline or reference, and one of each candidate.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from bench.records import ledger
from bench.records.sides import Side
from lenet5.errors import InputError
from lenet5.printable import short_line
from lenet5.recipe import Recipe, check_engine

KIND = "trainings"
_SEED = "seed"
_MOST_IMAGES = 10**6
FOLDER = Path(__file__).parents[1] / "references"


@dataclass(frozen=True)
class SeedTask:
    """A task: one seed of a recipe, trained by an engine in the environment at a place."""

    place: int
    seed: int
    recipe: Recipe
    engine: str


@dataclass(frozen=True)
class Trained:
    """Result of training one seed.

    Attributes:
        seed: seed of weights, order and dropout.
        wrong: number of misclassified test images; None: there is no model, for the reason in
            `problem`.
        images: number of test images.
        digits: predictions for all test images, one digit each; empty if not stored.
        train_seconds: wall time of training with validation, without tracing; 0: unknown.
        best_epoch: epoch of the tested weights.
        epochs: number of trained epochs.
        curves: one row per epoch: loss and accuracy (0 to 1) on the training images with dropout,
            then on the validation images; empty if not stored.
        weight_norms: root of the sum of squares of each weight array, in Keras's order.
        problem: reason for a missing number of wrong images; otherwise empty.
        crashed: whether the process crashed, hung or raised an error; False if the loss became NaN
            or infinite.
        started: whether the process imported TensorFlow.
        retried: reason for the first process's failure if a second process was started; otherwise
            empty. Older files lack this field.
    """

    seed: int
    wrong: int | None
    images: int
    digits: str = ""
    train_seconds: float = 0.0
    best_epoch: int = 0
    epochs: int = 0
    curves: tuple[tuple[float, ...], ...] = ()
    weight_norms: tuple[float, ...] = ()
    problem: str = ""
    crashed: bool = False
    started: bool = True
    retried: str = ""

    @property
    def accuracy(self) -> float:
        """Share of correctly classified test images, in [0, 1]; 0 without a model."""
        return 0.0 if self.wrong is None else (self.images - self.wrong) / self.images


@dataclass(frozen=True)
class Trainings:
    """A set of trained seeds of a recipe in an environment.

    Attributes:
        recipe: all fields of the recipe, with the bounds of its gate.
        engine: engine of the trainings.
        split: SHA-256 of MNIST's split arrays.
        code: SHA-256 of the training code.
        side: the environment.
        machine: machine of the trainings.
        started: start, ISO 8601, UTC.
        seeds: results in the order of the list of seeds.
        problem: reason for the lack of seeds; empty if the environment can train.
    """

    recipe: Recipe
    engine: str
    split: str
    code: str
    side: Side
    machine: Mapping[str, Any]
    started: str
    seeds: tuple[Trained, ...] = ()
    problem: str = ""

    def with_seed(self, trained: Trained) -> Trainings:
        """Returns the set with one more seed, in the order of seeds."""
        return replace(self, seeds=tuple(sorted((*self.seeds, trained), key=lambda t: t.seed)))


class Keep(Protocol):
    """Appends what is new in growing sets, and at the end a mark that they are complete."""

    def __call__(self, sets: Sequence[Trainings], *, complete: bool = False) -> None:
        """Appends to the ledger.

        Raises:
            InputError: the file cannot be written.
        """


@dataclass(frozen=True)
class Comparison:
    """Terms of verdicts on sets of trainings: the first set against each of the others.

    Attributes:
        margin_points: acceptable loss of accuracy in percentage points.
        paired: whether seeds are compared one by one.
        beside: True: the first set is a baseline, trained together with the others. False: it is a
            reference.
        seeds: maximum number of seeds of each candidate; the default, for results without this
            field, is the number at the last look.
        stage: stage of a bisection, as JSON; None for other comparisons.
    """

    margin_points: float
    paired: bool
    beside: bool
    seeds: int = 20
    stage: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, int):
            raise ValueError(f"the number of seeds is {self.seeds!r}")
        if not (isinstance(self.margin_points, float | int) and self.margin_points > 0):
            raise ValueError(f"the margin is {self.margin_points!r}")


def reference_seeds(recipe: str) -> int:
    """Returns the number of seeds of a recipe's reference."""
    return 20 if recipe == "fast" else 10


def read_reference(recipe: str, engine: str, *, else_give: str = "--accuracy-margin") -> Trainings:
    """The stored reference of a recipe and an engine.

    Args:
        recipe: name of the recipe.
        engine: name of the engine.
        else_give: option in place of a reference, for the error message.

    Raises:
        InputError: the reference is missing or damaged, lacks seeds, or has a diverged seed.
    """
    path = reference_path(recipe, engine)
    command = f"python -m bench reference --recipe {recipe} --engine {engine}"
    if not path.exists():
        what = f"recipe {recipe} and engine {engine}"
        raise InputError(f"no reference of {what}: {command}, or give {else_give}")
    reference = read_trainings(path)[0]
    if len(reference.seeds) < reference_seeds(recipe):
        counts = f"{len(reference.seeds)} of {reference_seeds(recipe)}"
        raise InputError(f"{path} has {counts} seeds: resume with {command}")
    for trained in reference.seeds:
        if trained.wrong is None:
            raise InputError(
                f"{path}: seed {trained.seed} {trained.problem}: not valid as a reference"
            )
    return reference


def reference_path(recipe: str, engine: str, folder: Path = FOLDER) -> Path:
    """Returns the path of the reference of a recipe and an engine.

    Raises:
        InputError: a name, read from a run's file, would lead out of the folder.
    """
    for name in (recipe, engine):
        if not re.fullmatch(r"[\w.+-]{1,60}", name):
            raise InputError(f"{name[:80]!r} is not a name of a recipe or an engine")
    return folder / f"{recipe}-{engine}.jsonl"


def write_trainings(
    path: Path, sets: Sequence[Trainings], comparison: Comparison | None = None
) -> None:
    """Writes sets of trainings atomically, in place of an earlier file.

    Raises:
        InputError: the file cannot be written.
    """
    seeds = [_seed(place, trained) for place, item in enumerate(sets) for trained in item.seeds]
    ledger.write(path, KIND, [(ledger.HEADER, _header(sets, comparison)), *seeds])


@contextmanager
def keeping(
    path: Path,
    cache: Path,
    comparison: Comparison | None = None,
    before: Sequence[Trainings] | None = None,
) -> Iterator[Keep]:
    """Opens a ledger; the yielded function appends the new part of growing sets.

    Args:
        path: path of the ledger.
        cache: folder of locks.
        comparison: terms of the verdicts; None for a reference.
        before: sets already in the file of a comparison; a reference reads its own.

    Raises:
        InputError: another process appends to the file, it has changed, or it cannot be written.
    """
    with ledger.appending(path, KIND, cache) as file:
        there = read_trainings(path) if ledger.is_begun(path, KIND) else []
        if comparison is not None and there != [*(before or ())]:
            raise InputError(f"{path}: has changed since it was read")
        header = _header(there, comparison) if there else None
        kept = {(place, t.seed) for place, item in enumerate(there) for t in item.seeds}

        def keep(sets: Sequence[Trainings], *, complete: bool = False) -> None:
            nonlocal header
            if (now := _header(sets, comparison)) != header:
                file.append(ledger.HEADER, now)
                header = now
            for place, item in enumerate(sets):
                for trained in item.seeds:
                    if (place, trained.seed) not in kept:
                        file.append(*_seed(place, trained))
                        kept.add((place, trained.seed))
            if complete:
                file.append(ledger.END, {})

        yield keep


def unfinished(path: Path) -> tuple[list[Trainings], Comparison] | None:
    """Returns the sets and the terms of an interrupted comparison; None for any other file."""
    with suppress(InputError):
        sets, comparison, is_complete = _read(path)
        if comparison is not None and not is_complete:
            return sets, comparison
    return None


def is_begun(path: Path) -> bool:
    """Returns whether a reference has more than the torn beginning of a killed process."""
    return path.exists() and ledger.is_begun(path, KIND)


def read_trainings(path: Path) -> list[Trainings]:
    """Reads sets of trainings.

    Raises:
        InputError: the ledger is missing or damaged, or has another kind or schema.
    """
    return _read(path)[0]


def read_comparison(path: Path) -> tuple[list[Trainings], Comparison]:
    """Reads the sets of trainings and the terms of a comparison.

    Raises:
        InputError: as in `read_trainings`, or the ledger is not of a comparison.
    """
    sets, comparison = read_terms(path)
    if len(sets) < 2:
        raise InputError(f"{path}: holds seeds without a comparison")
    return sets, comparison


def read_stage(path: Path) -> Comparison | None:
    """Reads the terms of a stage of a bisection; None for other seeds.

    Raises:
        InputError: as in `read_trainings`.
    """
    comparison = _read(path)[1]
    return None if comparison is None or comparison.stage is None else comparison


def read_terms(path: Path) -> tuple[list[Trainings], Comparison]:
    """Reads sets of any number, and the terms of their comparison.

    Raises:
        InputError: as in `read_trainings`, or the ledger is not of a comparison.
    """
    sets, comparison, _ = _read(path)
    if comparison is None:
        raise InputError(f"{path}: holds seeds without a comparison")
    return sets, comparison


def holds_trainings(path: Path) -> bool:
    """Returns whether a file is a ledger of trainings."""
    return ledger.kind_of(path) == KIND


def _header(sets: Sequence[Trainings], comparison: Comparison | None) -> dict[str, Any]:
    header = [asdict(replace(item, seeds=())) for item in sets]
    return {"sets": header, "comparison": None if comparison is None else asdict(comparison)}


def _seed(place: int, trained: Trained) -> ledger.Record:
    return _SEED, {"set": place, **asdict(trained)}


def _read(path: Path) -> tuple[list[Trainings], Comparison | None, bool]:
    content = ledger.read(path, KIND)
    try:
        sets = [_trainings(item) for item in content.header["sets"]]
        for name, record in content.records:
            if name == _SEED:
                place = record.pop("set")
                sets[place] = sets[place].with_seed(ledger.made(Trained, record))
        if not sets:
            raise ValueError("it has no trainings")
        for item in sets:
            _check(item)
        terms = content.header.get("comparison")
        comparison = None if terms is None else ledger.made(Comparison, terms)
        return sets, comparison, content.is_complete
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        told = short_line(f"{type(error).__name__} {error}")
        raise InputError(f"{path}: is damaged: {told}") from None
    except (ValueError, OverflowError, InputError) as error:
        raise InputError(f"{path}: is damaged: {short_line(error)}") from None


def differs(reference: Trainings, other: Trainings) -> str:
    """Returns the differences that prevent a comparison with a reference; empty without any."""
    names = [
        name
        for name, a, b in (
            ("recipe", identity(reference.recipe), identity(other.recipe)),
            ("engine", reference.engine, other.engine),
            ("split", reference.split, other.split),
            ("code", reference.code, other.code),
        )
        if a != b
    ]
    return f"the reference is of another {' and '.join(names)}" if names else ""


def identity(recipe: Recipe) -> str:
    """Returns a recipe's training settings as JSON, without name and bounds of the gate."""
    passive = ("name", "min_accuracy", "max_accuracy")
    fields_of_it = {
        name: float(value) if isinstance(value, int | float) else value  # 0 equals 0.0
        for name, value in asdict(recipe).items()
        if name not in passive
    }
    return json.dumps(fields_of_it, sort_keys=True)


def _trainings(content: dict[str, Any]) -> Trainings:
    recipe = Recipe.from_dict(content["recipe"])
    check_engine(content["engine"])
    return replace(ledger.made(Trainings, {**content, "recipe": asdict(recipe)}), recipe=recipe)


def _check(item: Trainings) -> None:
    """Rejects impossible values, and a seed that would count twice."""
    seeds = [trained.seed for trained in item.seeds]
    if len(set(seeds)) < len(seeds):
        raise ValueError("it has a seed twice")
    for trained in item.seeds:
        check_trained(trained)


def check_trained(trained: Trained) -> None:
    """Rejects impossible values.

    Raises:
        ValueError: a number is out of range, or a predicted digit is none.
    """
    if not 1 <= trained.images <= _MOST_IMAGES:
        raise ValueError(f"seed {trained.seed} has {trained.images} images")
    if trained.wrong is not None and not 0 <= trained.wrong <= trained.images:
        raise ValueError(f"seed {trained.seed} has {trained.wrong} wrong images")
    if not math.isfinite(trained.train_seconds):
        raise ValueError(f"seed {trained.seed} took {trained.train_seconds} s")
    if not re.fullmatch("[0-9]*", trained.digits):
        raise ValueError(f"seed {trained.seed} has digits that are none")
