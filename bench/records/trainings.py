"""Seeds of a recipe trained in an environment: what references and accuracy results are made of.

`bench/references/<recipe>-<engine>.json` holds one such set; the results of an accuracy comparison
hold one of the baseline or reference, and one of each candidate.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.records.sides import Side
from lenet5.errors import InputError
from lenet5.recipe import Recipe, check_engine
from lenet5.run_directory import writing, written_whole

SCHEMA = 2  # 1 had no engines
KIND = "trainings"
FOLDER = Path(__file__).parents[1] / "references"


@dataclass(frozen=True)
class Trainings:
    """A recipe's seeds in an environment.

    Attributes:
        recipe: all its fields, with the bounds of its gate.
        engine: that trained them.
        split: SHA-256 of MNIST's split arrays.
        code: SHA-256 of the files that trained.
        side: the environment.
        machine: what it was trained on.
        started: ISO 8601, UTC.
        seeds: in the order of the list of seeds.
        problem: why there are none; empty where there could be.
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
        """These with one more, in the order of seeds."""
        return replace(self, seeds=tuple(sorted((*self.seeds, trained), key=lambda t: t.seed)))


@dataclass(frozen=True)
class Comparison:
    """What verdicts on sets of trainings are made by: the first set against each other one.

    Attributes:
        margin_points: percentage points of accuracy that may be lost.
        paired: whether seeds are compared one by one.
        beside: whether the first set is a baseline, trained beside the others, or a reference.
        seeds: most of each candidate; where results do not say, all that there can be.
    """

    margin_points: float
    paired: bool
    beside: bool
    seeds: int = 20

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, int):
            raise ValueError(f"the number of seeds is {self.seeds!r}")
        if not (isinstance(self.margin_points, float | int) and self.margin_points > 0):
            raise ValueError(f"the margin is {self.margin_points!r}")


def reference_seeds(recipe: str) -> int:
    """How many seeds a recipe's reference has."""
    return 20 if recipe == "fast" else 10


def read_reference(recipe: str, engine: str, *, else_give: str = "--accuracy-margin") -> Trainings:
    """The stored reference of a recipe and an engine.

    Args:
        recipe: its name.
        engine: its name.
        else_give: option that makes do without one.

    Raises:
        InputError: it is missing, damaged or not whole: seeds are missing, or one diverged.
    """
    path = reference_path(recipe, engine)
    command = f"python -m bench reference --recipe {recipe} --engine {engine}"
    if not path.exists():
        what = f"recipe {recipe} and engine {engine}"
        raise InputError(f"no reference of {what}: {command}, or give {else_give}")
    reference = read_trainings(path)[0]
    if len(reference.seeds) < reference_seeds(recipe):
        counts = f"{len(reference.seeds)} of {reference_seeds(recipe)}"
        raise InputError(f"{path} has {counts} seeds: go on with {command}")
    for trained in reference.seeds:
        if trained.wrong is None:
            raise InputError(f"{path}: seed {trained.seed} {trained.problem}: no reference")
    return reference


def reference_path(recipe: str, engine: str, folder: Path = FOLDER) -> Path:
    """Where the reference of a recipe and an engine is kept."""
    return folder / f"{recipe}-{engine}.json"


@contextmanager
def only_writer(path: Path, cache: Path) -> Iterator[None]:
    """Keeps a second process from adding to a file of trainings: the later one would replace all.

    Args:
        path: of the file, which need not be there yet.
        cache: folder that locks are kept in, so that none lies beside the file.

    Raises:
        InputError: another process adds to it, or there is no room for a lock.
    """
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:20]
    lock = FileLock(cache / "locks" / f"{name}.lock")
    with writing(cache / "locks"):
        (cache / "locks").mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{path}: another process adds to it, let that end first") from None
    try:
        yield
    finally:
        lock.release()


def write_trainings(
    path: Path, sets: Sequence[Trainings], comparison: Comparison | None = None
) -> None:
    """Writes sets of trainings whole, in place of an earlier state.

    Raises:
        InputError: it cannot be written.
    """
    content: dict[str, Any] = {"schema": SCHEMA, "kind": KIND}
    content["sets"] = [asdict(item) for item in sets]
    if comparison is not None:
        content["comparison"] = asdict(comparison)
    with written_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_trainings(path: Path) -> list[Trainings]:
    """Reads what `write_trainings` wrote.

    Raises:
        InputError: it is missing, damaged, or of another schema.
    """
    return _read(path)[0]


def read_comparison(path: Path) -> tuple[list[Trainings], Comparison]:
    """Reads what `write_trainings` wrote of a comparison.

    Raises:
        InputError: as `read_trainings`, or it is of no comparison.
    """
    sets, comparison = _read(path)
    if comparison is None or len(sets) < 2:
        raise InputError(f"{path}: holds seeds, but of no comparison")
    return sets, comparison


def holds_trainings(path: Path) -> bool:
    """Whether a file is of the kind that `write_trainings` writes."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["kind"] == KIND)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _read(path: Path) -> tuple[list[Trainings], Comparison | None]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind, schema = content["kind"], content["schema"]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: is damaged or holds no trainings") from None
    if (kind, schema) != (KIND, SCHEMA):
        raise InputError(f"{path}: holds {kind!r} of schema {schema!r}, not {KIND!r} of {SCHEMA}")
    try:
        sets = [_trainings(item) for item in content["sets"]]
        if not sets:
            raise ValueError("it holds no trainings")
        terms = content.get("comparison")
        return sets, None if terms is None else Comparison(**terms)
    except (TypeError, ValueError, KeyError, AttributeError, InputError) as error:
        raise InputError(f"{path}: is damaged: {error}") from None


def differs(reference: Trainings, other: Trainings) -> str:
    """What keeps trainings from being held against a reference; empty if nothing does."""
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
    """What a recipe trains by, as JSON: without its name and the bounds of its gate."""
    passive = ("name", "min_accuracy", "max_accuracy")
    fields_of_it = {
        name: float(value) if isinstance(value, int | float) else value  # 0 is as good as 0.0
        for name, value in asdict(recipe).items()
        if name not in passive
    }
    return json.dumps(fields_of_it, sort_keys=True)


def _trainings(content: dict[str, Any]) -> Trainings:
    recipe = Recipe.from_dict(content["recipe"])
    lists = {name: tuple(content["side"].get(name, ())) for name in ("lock", "unwanted")}
    side = Side(**{**content["side"], **lists})
    seeds = tuple(read_trained(item) for item in content["seeds"])
    check_engine(content["engine"])
    known = {field.name for field in fields(Trainings)}
    if unknown := sorted(set(content) - known):
        raise ValueError(f"{unknown[0]!r} is unknown")
    for trained in seeds:
        if trained.images < 1:
            raise ValueError(f"seed {trained.seed} has {trained.images} images")
        if trained.wrong is not None and not 0 <= trained.wrong <= trained.images:
            raise ValueError(f"seed {trained.seed} has {trained.wrong} wrong images")
    return Trainings(**{**content, "recipe": recipe, "side": side, "seeds": seeds})


@dataclass(frozen=True)
class Trained:
    """What became of a seed.

    Attributes:
        seed: of weights, order and dropout.
        wrong: test images classified wrong; None: there is no model, and `problem` says why.
        images: tested.
        digits: the answers to all test images, a digit each; empty where they were not kept.
        train_seconds: wall time of training with validation, without tracing; 0: not known.
        best_epoch: the one whose weights were tested.
        epochs: that were trained.
        curves: an epoch a row: loss and accuracy (0 to 1) on the training images with dropout,
            then on the validation images; empty where they were not kept.
        weight_norms: root of the sum of squares of every weight of the model, in Keras's order.
        problem: why there is no number of wrong images; empty where there is.
        crashed: whether that is since its process died, hung or raised an error, not since the
            loss became NaN or infinite.
        started: whether its process came as far as to import TensorFlow.
        retried: why the first process failed, where a second one was needed; else empty. Files
            from before this was noted lack it.
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
        """Share of test images right, in [0, 1]; 0 where there is no model."""
        return 0.0 if self.wrong is None else (self.images - self.wrong) / self.images


def read_trained(content: Mapping[str, Any]) -> Trained:
    """A seed as JSON has it.

    Raises:
        TypeError, ValueError: a field is unknown, missing, or no row of numbers.
    """
    curves = tuple(tuple(map(float, row)) for row in content.get("curves", ()))
    norms = tuple(map(float, content.get("weight_norms", ())))
    return Trained(**{**content, "curves": curves, "weight_norms": norms})
