"""The command `lenet5`; checks every argument before it imports TensorFlow.

Exit status: 0 success, 1 training diverged, 2 invalid input or full disk, 130 interrupted by
Ctrl-C or SIGTERM, 141 broken pipe (`| head`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from tqdm import tqdm

from lenet5 import __version__, checkpoint, data, run_directory, runtime
from lenet5.checkpoint import Interrupted
from lenet5.distributions import check_distributions
from lenet5.errors import InputError
from lenet5.history import TrainingInterrupted
from lenet5.images import read_image
from lenet5.printable import in_one_line
from lenet5.recipe import DEFAULT_ENGINE, ENGINES, MAX_SEED, Recipe
from lenet5.recipes import RECIPES, find_recipe
from lenet5.run_directory import Run, SavedModel

_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # gs://, s3://, file:/

if TYPE_CHECKING:
    from lenet5.evaluation import Evaluation
    from lenet5.history import Epoch, Progress


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Runs one command.

    Args:
        argv: arguments without the program's name; None: the arguments of the process.
        environment: environment variables; reads `LENET5_MNIST_DIR`, `LENET5_CACHE_DIR` and
            `TFDS_DATA_DIR`.

    Returns:
        Exit status.
    """
    _prepare_streams()
    try:
        return _run(argv, environment)
    except InputError as error:
        _tell(f"error: {error}")
        return 2
    except KeyboardInterrupt as interruption:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # after the terminal's ^C
        kept = getattr(interruption, "directory", None)
        saved = isinstance(interruption, TrainingInterrupted) and interruption.history.epochs
        where = f"; finished epochs are in {kept}" if saved else ""
        how = f"; {run_directory.how_to_resume(kept)} continues" if kept else ""
        _tell(f"interrupted{where}{how}")
        return 130
    except OSError as error:  # standard output: full disk or broken pipe
        with contextlib.suppress(OSError):  # prevents a second error at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        _tell(f"error: {error}")
        return 2


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """Returns TFDS's data folder: `TFDS_DATA_DIR`, or `tensorflow_datasets` in the home folder.

    Raises:
        InputError: the variable names a bucket or another address instead of a folder.
    """
    variable = "TFDS_DATA_DIR"
    return _folder(variable, environment.get(variable) or "~/tensorflow_datasets")


def default_mnist_dir(environment: Mapping[str, str]) -> Path | None:
    """Returns the folder in `LENET5_MNIST_DIR`; None if the variable is empty or unset.

    Raises:
        InputError: the variable names an address instead of a folder.
    """
    named = environment.get("LENET5_MNIST_DIR")
    return _folder("LENET5_MNIST_DIR", named) if named else None


def default_cache_dir(environment: Mapping[str, str]) -> Path | None:
    """Returns the folder in `LENET5_CACHE_DIR`; None if the variable is empty or unset.

    Raises:
        InputError: the variable names an address instead of a folder.
    """
    named = environment.get("LENET5_CACHE_DIR")
    return _folder("LENET5_CACHE_DIR", named) if named else None


def _folder(variable: str, named: str) -> Path:
    if _ADDRESS.match(named):
        raise InputError(f"{variable} is {named}: name a local folder")
    try:
        return Path(named).expanduser()
    except RuntimeError as error:  # unknown user, or a user without a home folder
        raise InputError(f"{named}: {error}") from None


def _run(argv: Sequence[str] | None, environment: Mapping[str, str]) -> int:
    try:
        options = _parser(environment).parse_args(argv)
        status: int = options.run(options)
        return status
    finally:
        sys.stdout.flush()  # a write error appears here instead of at exit


def _prepare_streams() -> None:
    """Opens missing standard streams, and makes every file name printable."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed: the next opened file would take its number
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _tell(line: str) -> None:
    print(f"lenet5: {in_one_line(line)}", file=sys.stderr, flush=True)


def _train(options: argparse.Namespace) -> int:
    if options.resume is not None:
        return _resume(options)
    overrides = {} if options.epochs is None else {"epochs": options.epochs}
    run = Run(
        find_recipe(options.recipe or "fast").with_overrides(overrides),
        overrides,
        options.seed or 0,
        options.dataset or "mnist",
        options.engine or DEFAULT_ENGINE,
    )
    engine = "" if run.engine == DEFAULT_ENGINE else f"-{run.engine}"
    name = f"{run.dataset}-{run.recipe.name}{engine}-seed{run.seed}"
    directory = options.out or Path("runs") / name
    runtime.check_settings()
    check_distributions()
    _check_mnist_dir(run.dataset, options)
    with run_directory.reserved(directory, force=options.force):
        place = run_directory.place_to_write(directory)
        interrupted = Interrupted(run, {"threads": options.threads or 1})
        if place != directory:
            run_directory.clear(place)
        with _resumable(place / run_directory.CHECKPOINT, interrupted):
            return _train_into(directory, place, interrupted, options)


def _resume(options: argparse.Namespace) -> int:
    """Continues an interrupted run; its checkpoint stays until the run is complete."""
    fixed = ("recipe", "seed", "engine", "epochs", "dataset", "out", "force")
    for name in fixed:
        if getattr(options, name) is not (False if name == "force" else None):
            raise InputError(f"--resume continues the run as it was begun: leave out --{name}")
    directory = checkpoint.run_directory_of(options.resume)
    if not directory.is_dir():
        raise InputError(f"{directory}: no such run directory")
    if checkpoint.find(directory) is None:
        complete = (directory / run_directory.METRICS).is_file()
        state = "the run is complete" if complete else "contains no interrupted run"
        raise InputError(f"{directory}: {state}, there is nothing to resume")
    runtime.check_settings()
    check_distributions()
    with run_directory.reserved(directory, force=True):
        path = checkpoint.find(directory)
        if path is None:
            raise InputError(f"{directory}: another process has completed the run")
        interrupted = checkpoint.read(path)
        threads = options.threads or interrupted.threads
        checkpoint.check_environment(interrupted, {"threads": threads})
        _check_mnist_dir(interrupted.run.dataset, options)
        run_directory.remove_partial_files(path.parent)
        try:
            return _train_into(directory, path.parent, interrupted, options)
        except TrainingInterrupted:
            raise
        except KeyboardInterrupt as interruption:  # before the first new epoch
            raise _Interrupted(directory) from interruption


@contextlib.contextmanager
def _resumable(path: Path, interrupted: Interrupted) -> Iterator[None]:
    """Writes a new run's first checkpoint; removes it if the run ends without a result."""
    checkpoint.write(path, interrupted)
    try:
        yield
    except TrainingInterrupted:
        raise
    except BaseException:
        checkpoint.discard(path, unless_epochs=True)
        raise


def _train_into(
    directory: Path, place: Path, interrupted: Interrupted, options: argparse.Namespace
) -> int:
    run, threads = interrupted.run, options.threads or interrupted.threads
    runtime.start_tensorflow(threads)
    from lenet5.history import DivergenceError
    from lenet5.run import train_run

    dataset = _load(run.dataset, options)
    done = 0 if interrupted.checkpoint is None else len(interrupted.checkpoint.epochs)
    print(
        f"recipe {run.recipe.name}, engine {run.engine}, seed {run.seed}, "
        f"{len(dataset.training.labels):,} training images of {run.dataset}, "
        f"threads {threads}, CPU only" + (f"; continues after epoch {done}" if done else ""),
        flush=True,
    )
    bar = _ProgressBar(run.recipe.epochs)
    try:
        _, history = train_run(
            run,
            dataset,
            directory,
            on_progress=bar.update,
            on_epoch=bar.write_epoch,
            on_evaluation=lambda evaluation: _print_accuracy(evaluation, bar),
            on_problem=lambda line: _tell(f"note: {line}"),
            place=place,
            resume=interrupted,
        )
    except DivergenceError as error:
        checkpoint.discard(place / run_directory.CHECKPOINT, unless_epochs=False)
        _tell(f"training diverged: {error}")
        return 1
    finally:
        bar.close()
    early = ", stopped early" if history.stopped_early else ""
    print(
        f"best epoch {history.best_epoch} of {len(history.epochs)}{early}, "
        f"{history.train_seconds:.1f} s; run directory {directory}"
    )
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    saved = run_directory.find_model(options.path)
    dataset = _dataset_of(saved, options)
    runtime.check_settings()
    check_distributions()
    _check_mnist_dir(dataset, options)
    runtime.start_tensorflow(options.threads)
    from lenet5.evaluation import evaluate
    from lenet5.loading import load_model

    model = load_model(saved.path, saved.run.recipe if saved.run else None)
    evaluation = evaluate(model, _load(dataset, options).test)
    _print_accuracy(evaluation)
    if saved.directory is not None:
        _compare_with_stored(saved.directory, evaluation)
    elif options.dataset is None:
        _tell_unknown(saved, f"scored on {dataset}; --dataset chooses another")
    else:
        _tell_unknown(saved, f"it was scored on {dataset}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    saved = run_directory.find_model(options.path)
    runtime.check_settings()
    check_distributions()
    read: dict[int, np.ndarray] = {}
    # scikit-learn's digits fill their 28x28 pixels, and a model that learnt them expects it.
    convert = saved.run is None or saved.run.dataset == "mnist"
    for number, path in enumerate(options.images):
        try:
            read[number] = read_image(path, convert_28x28=convert)
        except InputError as error:
            _tell(f"error: {error}")
    status = 0 if len(read) == len(options.images) else 2
    if not read:
        return status
    runtime.start_tensorflow(options.threads)
    from lenet5.loading import load_model

    model = load_model(saved.path, saved.run.recipe if saved.run else None)
    images = data.normalise(np.stack(list(read.values())))
    answers = np.asarray(model.predict(images, verbose=0), dtype=np.float32)
    for number, probabilities in zip(read, answers, strict=True):
        listed = " ".join(f"{digit}:{p:.3f}" for digit, p in enumerate(probabilities))
        said = f"{probabilities.argmax()} ({100 * probabilities.max():.1f} %)  {listed}"
        print(f"{in_one_line(str(options.images[number]))}: {said}")
    if saved.run is None:
        _tell_unknown(saved, "its pixels were scaled to [0, 1]")
    return status


def _dataset_of(saved: SavedModel, options: argparse.Namespace) -> str:
    """Returns the dataset to score on: the run's, the requested one, or MNIST."""
    if saved.run is None:
        return options.dataset or "mnist"
    if options.dataset not in (None, saved.run.dataset):
        raise InputError(
            f"{saved.directory}: a run on {saved.run.dataset}, not on {options.dataset}"
        )
    return saved.run.dataset


def _compare_with_stored(directory: Path, evaluation: Evaluation) -> None:
    stored = directory / run_directory.METRICS
    if not stored.is_file():
        how = f"; {run_directory.how_to_resume(directory)} continues it"
        resumable = (directory / run_directory.CHECKPOINT).is_file()
        _tell(
            f"note: {directory} was interrupted and has no stored test score"
            + (how if resumable else "")
        )
    elif run_directory.read_json(stored).get("test_errors") != evaluation.errors:
        _tell(
            f"note: {stored} has another count of wrong images: TensorFlow or the machine differs"
        )


def _tell_unknown(saved: SavedModel, how: str) -> None:
    _tell(f"note: {saved.path}: recipe, seed, engine and training data are unknown; {how}")


def _data(options: argparse.Namespace) -> int:
    dataset = _load(options.dataset, options)
    sizes = ", ".join(
        f"{len(subset.labels):,} {part}"
        for part, subset in (
            ("training", dataset.training),
            ("validation", dataset.validation),
            ("test", dataset.test),
        )
    )
    cache = data.mnist_cache(options.data_dir, options.cache_dir)
    where = f"verified, in {cache}" if options.dataset == "mnist" else "built into scikit-learn"
    print(f"{dataset.name}: {sizes} images; {where}")
    return 0


def _recipes(_: argparse.Namespace) -> int:
    for field in fields(Recipe):
        values = [str(getattr(recipe, field.name)) for recipe in RECIPES.values()]
        print(f"{field.name:16}  {'  '.join(f'{value:>8}' for value in values)}")
    return 0


def _load(name: str, options: argparse.Namespace) -> data.Dataset:
    return data.load_dataset(
        name,
        data_dir=options.data_dir,
        mnist_dir=options.mnist_dir,
        cache_dir=options.cache_dir,
        report=_tell,
    )


def _check_mnist_dir(dataset: str, options: argparse.Namespace) -> None:
    if dataset == "mnist" and options.mnist_dir is not None:
        data.check_mnist_dir(options.mnist_dir)


def _print_accuracy(evaluation: Evaluation, bar: _ProgressBar | None = None) -> None:
    if bar is not None:
        bar.close()
    print(f"test accuracy {evaluation}", flush=True)


class _ProgressBar:
    """Progress bar over the whole run on a terminal; one line per epoch everywhere."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar: tqdm[NoReturn] | None = None

    def update(self, progress: Progress) -> None:
        if self._bar is None:
            total = progress.images_in_epoch * progress.epochs
            self._bar = tqdm(
                total=total,
                unit=" images",
                unit_scale=True,
                disable=None,  # off if standard error is not a terminal
                leave=False,
                dynamic_ncols=True,
            )
        self._bar.set_description(f"epoch {progress.epoch}/{progress.epochs}", refresh=False)
        self._bar.set_postfix_str(
            f"loss {progress.loss:.4f}, accuracy {100 * progress.accuracy:.2f} %", refresh=False
        )
        done = (progress.epoch - 1) * progress.images_in_epoch + progress.images
        self._bar.update(done - self._bar.n)
        self._images_in_epoch = progress.images_in_epoch

    def write_epoch(self, epoch: Epoch) -> None:
        speed = self._images_in_epoch / epoch.train_seconds
        tqdm.write(
            f"epoch {epoch.epoch:2}/{self._epochs}  loss {epoch.training_loss:.4f}  "
            f"accuracy {100 * epoch.training_accuracy:.2f} %  "
            f"validation loss {epoch.validation_loss:.4f}  "
            f"accuracy {100 * epoch.validation_accuracy:.2f} %  {speed:,.0f} images/s"
        )
        sys.stdout.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C in a resumed run without new results.

    Attributes:
        directory: run directory.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory


class _Parser(argparse.ArgumentParser):
    """Argument parser that reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="lenet5", description="LeNet-5 on MNIST: train, evaluate, predict.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> _Parser:
        added: _Parser = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    model = "run directory, folder with one .keras file, or .keras file"
    train = command("train", _train, "train a recipe, score the test images, write a run directory")
    train.add_argument("--recipe", metavar="NAME", help="default: fast")
    train.add_argument("--seed", type=_whole(0, MAX_SEED), help=f"0 to {MAX_SEED}, default: 0")
    train.add_argument(
        "--engine",
        choices=ENGINES,
        help=f"keras: compile and fit; graph: a loop inside the graph; default: {DEFAULT_ENGINE}",
    )
    train.add_argument("--epochs", type=_whole(1, 1000), help="instead of the recipe's")
    train.add_argument("--out", type=_path, metavar="DIR", help="run directory to write")
    train.add_argument("--force", action="store_true", help="overwrite an existing run")
    train.add_argument(
        "--resume",
        type=_path,
        metavar="DIR",
        help="continue the interrupted run of a run directory",
    )
    evaluate = command("evaluate", _evaluate, "score a saved model on the test images")
    evaluate.add_argument("path", type=_path, metavar="PATH", help=model)
    evaluate.add_argument(
        "--dataset", choices=data.DATASETS, help="default: the run's, or mnist without a run"
    )
    predict = command("predict", _predict, "read digits from image files")
    predict.add_argument("path", type=_path, metavar="PATH", help=model)
    predict.add_argument("images", type=_path, metavar="IMAGE", nargs="+", help="image file")
    prepare = command("data", _data, "prepare and verify the data, print their location")
    command("recipes", _recipes, "print the recipes as a table")

    train.add_argument("--dataset", choices=data.DATASETS, help="default: mnist")
    prepare.add_argument("--dataset", default="mnist", choices=data.DATASETS, help="default: mnist")
    train.add_argument("--threads", type=_whole(1, 256), help="default: 1")
    for added in (evaluate, predict):
        added.add_argument("--threads", default=1, type=_whole(1, 256), help="default: 1")
    for added in (train, evaluate, prepare):
        added.add_argument(
            "--mnist-dir",
            type=_local_folder,
            metavar="DIR",
            default=default_mnist_dir(environment),
            help="folder with MNIST's four original files (default: LENET5_MNIST_DIR)",
        )
        added.set_defaults(
            data_dir=default_data_dir(environment), cache_dir=default_cache_dir(environment)
        )
    return parser


def _path(text: str) -> Path:
    if not text:  # Path("") would be the current folder
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


def _local_folder(text: str) -> Path:
    if _ADDRESS.match(text):
        raise argparse.ArgumentTypeError(f"{text} is an address: name a local folder")
    return _path(text)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse
