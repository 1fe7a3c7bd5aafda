"""The directory of a training run; each file is written atomically.

recipe.json       recipe, overrides, seed, dataset, engine
environment.json  versions, processor, threads, git commit
history.json      every epoch's losses and accuracies
model.keras       the model with the weights of its best epoch
plots/            curves.png, confusion_matrix.png, roc.png, errors.png
metrics.json      scores of the test images; written last, missing in an interrupted run
checkpoint.npz    state after the last finished epoch; removed when the run is complete
unfinished/       a newer run in the same form, until it is complete and replaces this one
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet5.data import DATASETS
from lenet5.documents import DEEPEST_JSON, MOST_JSON_BYTES, is_deeper
from lenet5.errors import InputError
from lenet5.history import Epoch, History
from lenet5.printable import short_line
from lenet5.recipe import DEFAULT_ENGINE, Recipe, check_engine, check_seed

if TYPE_CHECKING:
    from lenet5.evaluation import Evaluation

RECIPE = "recipe.json"
ENVIRONMENT = "environment.json"
HISTORY = "history.json"
MODEL = "model.keras"
METRICS = "metrics.json"
PLOTS = "plots"
CHECKPOINT = "checkpoint.npz"
UNFINISHED = "unfinished"
EARLIER_ENGINE = "products"  # older runs without an entry: convolutions as matrix products


@dataclass(frozen=True)
class Run:
    """Content of `recipe.json`, with the overrides applied to the recipe.

    Attributes:
        recipe: trained recipe.
        overrides: fields that differ from the named recipe.
        seed: seed of weights, order and dropout.
        dataset: one of `data.DATASETS`.
        engine: one of `recipe.ENGINES`, or `products` for a run older than these engines.
    """

    recipe: Recipe
    overrides: Mapping[str, Any]
    seed: int
    dataset: str
    engine: str = DEFAULT_ENGINE


@dataclass(frozen=True)
class SavedModel:
    """A model file and its run.

    Attributes:
        path: `.keras` file.
        run: run from the `recipe.json` in the same folder; None: recipe, seed and other facts are
            unknown, for a model trained elsewhere or by other means.
        directory: run directory; None without a run.
    """

    path: Path
    run: Run | None
    directory: Path | None


@contextlib.contextmanager
def reserved(directory: Path, *, force: bool) -> Iterator[None]:
    """Creates a run directory as `create` does, and keeps other trainings out of it.

    The lock is of the folder itself, so that no file is left; it ends with the process. A new
    folder without a result is removed.

    Raises:
        InputError: another process trains into the directory, or as `create`.
    """
    is_new = not directory.exists()
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        folder = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{directory}: another process trains into it") from None
        except OSError:  # some network file systems have no locks
            pass
        create(directory, force=force)
        yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it holds a result
                directory.rmdir()
        os.close(folder)


def create(directory: Path, *, force: bool) -> None:
    """Creates a run directory before training, and checks that it is writable.

    Args:
        directory: created with its parents.
        force: whether an existing run may be overwritten.

    Raises:
        InputError: the directory has content already, or cannot be written.
    """
    with writing(directory):
        if directory.exists() and any(path for path in directory.iterdir() if not _partial(path)):
            checkpoints = (directory / CHECKPOINT, directory / UNFINISHED / CHECKPOINT)
            interrupted = any(path.is_file() for path in checkpoints)
            if not interrupted and not (directory / RECIPE).is_file():
                raise InputError(f"{directory}: exists and is not a run, choose another --out")
            if interrupted and not force:
                raise InputError(
                    f"{directory}: it contains an interrupted run; "
                    f"{how_to_resume(directory)} continues it, --force starts anew"
                )
            if not force:
                raise InputError(f"{directory}: it contains a run already; --force overwrites it")
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass


def how_to_resume(directory: Path) -> str:
    """Returns the command that continues the interrupted run of a directory."""
    return f"lenet5 train --resume {shlex.quote(str(directory))}"


def place_to_write(directory: Path) -> Path:
    """Returns the folder for a new run: `directory`, or a subfolder if it has a run already.

    A subfolder, since a sibling of `directory` may be on another disk or read-only.
    """
    return directory / UNFINISHED if (directory / RECIPE).is_file() else directory


def clear(place: Path) -> None:
    """Creates a folder for writing; removes a run's files from it, and no others.

    A checkpoint stays: it is needed until the new files are complete.
    """
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
        for name in _files():
            (place / name).unlink(missing_ok=True)
        remove_partial_files(place)


def remove_partial_files(place: Path) -> None:
    """Removes the temporary files of a process that was killed while writing a run."""
    for path in (*place.glob(".*"), *(place / PLOTS).glob(".*")):
        if _partial(path):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _partial(path: Path) -> bool:
    """Returns whether a path is a temporary file or folder of `written_whole` or `save_model`."""
    return path.name.startswith(".") and ".partial" in path.name


def publish(place: Path, directory: Path) -> None:
    """Moves a complete run from its place of writing over the older run in its directory.

    The checkpoint goes last: until then, the same run can be completed again.
    """
    if place != directory:
        _move(place, directory)
    for folder in (directory, place):
        with contextlib.suppress(OSError):
            (folder / CHECKPOINT).unlink(missing_ok=True)
    if place != directory:
        with contextlib.suppress(OSError):  # a user's own files are in there
            (place / PLOTS).rmdir()
            place.rmdir()


def _move(place: Path, directory: Path) -> None:
    with writing(directory):
        (directory / METRICS).unlink(missing_ok=True)  # a mixture of two runs must look incomplete
        (directory / PLOTS).mkdir(exist_ok=True)
        for name in _files():
            os.replace(place / name, directory / name)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Converts a write error, for example on a full disk, to InputError with the path."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    number = re.search(r"errno = (\d+)", str(error))  # h5py has it only in its text
    return os.strerror(int(number[1])) if number else error.strerror or str(error)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`, and moves it to `path` if the block succeeds.

    Raises:
        InputError: the file could not be written, for example because the disk is full.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    with writing(path):
        try:
            partial.unlink(missing_ok=True)  # a link of this name would lead elsewhere
            yield partial
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically."""
    with written_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        InputError: the file is missing, unreadable, too large, or not a JSON object.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_JSON_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return read_content(text, path)


def read_content(text: bytes, path: Path) -> dict[str, Any]:
    """Returns the JSON object of a file's content; raises InputError if it is none."""
    if len(text) > MOST_JSON_BYTES:
        raise InputError(f"{path}: damaged, larger than {MOST_JSON_BYTES >> 20} MiB")
    try:
        content = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: damaged, not JSON") from None
    if not isinstance(content, dict) or is_deeper(content, DEEPEST_JSON):
        raise InputError(f"{path}: damaged, not a JSON object")
    return content


def read_history(directory: Path) -> History:
    """Reads the epochs of a run from `history.json`.

    Raises:
        InputError: the file is missing or damaged, or no epoch was finished.
    """
    path = directory / HISTORY
    content = read_json(path)
    try:
        epochs = checked_epochs(content["epochs"])
        history = History(**{**content, "epochs": epochs})
        if not 1 <= history.best_epoch <= len(epochs):
            raise ValueError("no epoch was finished")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged: {short_line(error)}") from None
    return history


def checked_epochs(content: Any) -> tuple[Epoch, ...]:
    """Returns the epochs of a history's JSON content.

    Raises:
        TypeError: the content has another form.
        ValueError: an epoch has no figures.
    """
    epochs = tuple(Epoch(**epoch) for epoch in content)
    if not all(isinstance(v, int | float) for epoch in epochs for v in vars(epoch).values()):
        raise ValueError("an epoch has no figures")
    return epochs


def run_content(run: Run) -> dict[str, Any]:
    """Returns the content of `recipe.json`."""
    return {
        "dataset": run.dataset,
        "seed": run.seed,
        "engine": run.engine,
        "overrides": dict(run.overrides),
        "recipe": asdict(run.recipe),
    }


def read_run(directory: Path) -> Run:
    """Reads the run of a run directory.

    Raises:
        InputError: the folder is not a run directory, or its `recipe.json` is damaged.
    """
    path = directory / RECIPE
    if not path.is_file():
        raise InputError(f"{directory}: not a run directory, it has no {RECIPE}")
    return run_of(read_json(path), path)


def run_of(content: Mapping[str, Any], path: Path) -> Run:
    """Returns the run of `run_content` from a file; raises InputError if it is damaged."""
    try:
        recipe = Recipe.from_dict(content["recipe"])
        engine = content.get("engine", EARLIER_ENGINE)
        run = Run(recipe, dict(content["overrides"]), content["seed"], content["dataset"], engine)
        check_seed(run.seed)
        if engine != EARLIER_ENGINE:
            check_engine(engine)
        if run.dataset not in DATASETS:
            raise InputError(f"unknown dataset {run.dataset!r}")
    except KeyError as error:
        raise InputError(f"{path}: damaged, it lacks {short_line(error)}") from None
    except (TypeError, ValueError, OverflowError, InputError) as error:
        raise InputError(f"{path}: damaged: {short_line(error)}") from None
    return run


def model_file(directory: Path) -> Path:
    """Returns the path of the run's saved model.

    Raises:
        InputError: the run has no model.
    """
    path = directory / MODEL
    if not path.is_file():
        raise InputError(f"{directory}: has no {MODEL}; the run ended before it was written")
    return path


def find_model(path: Path) -> SavedModel:
    """Finds the model of a run directory, of a folder with one model, or of a model file.

    Args:
        path: run directory, folder without `recipe.json` and with one `.keras` file, or `.keras`
            file. The model file of a run directory gives its run.

    Raises:
        InputError: there is no model or more than one, or the run directory is damaged.
    """
    try:
        if (path / CHECKPOINT).is_file() and not (path / MODEL).is_file():
            raise InputError(
                f"{path}: an interrupted run without a model; {how_to_resume(path)} continues it"
            )
        if (path / RECIPE).is_file():
            return _model_of_run(path)
        if path.name == MODEL and (path.parent / RECIPE).is_file():
            return _model_of_run(path.parent)
        if path.is_dir():
            return SavedModel(_only_model(path), run=None, directory=None)
        if path.suffix != Path(MODEL).suffix:
            raise InputError(f"{path}: not a run directory, it has no {RECIPE}")
        if not path.exists():
            raise InputError(f"{path}: no such file")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return SavedModel(path, run=None, directory=None)


def _model_of_run(directory: Path) -> SavedModel:
    return SavedModel(model_file(directory), read_run(directory), directory)


def _only_model(folder: Path) -> Path:
    found = sorted(
        path
        for path in folder.glob(f"*{Path(MODEL).suffix}")
        if path.is_file() and not path.name.startswith(".")  # temporary file of a write
    )
    if not found:
        raise InputError(f"{folder}: not a run directory, it has no {RECIPE}, nor any .keras file")
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:3]) + (", ..." if found[3:] else "")
        raise InputError(f"{folder}: has {len(found)} .keras files, name one of them: {names}")
    return found[0]


def metrics_content(evaluation: Evaluation, history: History, engine: str) -> dict[str, Any]:
    """Returns the content of `metrics.json`; accuracies are shares in [0, 1]."""
    per_class = [
        {
            "digit": digit,
            "images": int(row.sum()),
            "errors": int(row.sum() - row[digit]),
            "auc": None if curve is None else curve.auc,
        }
        for digit, (row, curve) in enumerate(
            zip(evaluation.confusion, evaluation.roc_curves, strict=True)
        )
    ]
    return {
        "test_images": evaluation.images,
        "test_errors": evaluation.errors,
        "test_accuracy": evaluation.accuracy,
        "test_accuracy_interval": list(evaluation.interval),
        "test_loss": evaluation.loss,
        "per_class": per_class,
        "confusion": evaluation.confusion.tolist(),
        "engine": engine,
        "epochs_run": len(history.epochs),
        "best_epoch": history.best_epoch,
        "train_seconds": history.train_seconds,
    }


def _files() -> list[str]:
    """Names of a run's files, in the order of writing."""
    from lenet5.plots import PLOT_FILES  # matplotlib is slow to import

    plots = [f"{PLOTS}/{name}" for name in PLOT_FILES]
    return [RECIPE, ENVIRONMENT, HISTORY, MODEL, *plots, METRICS]
