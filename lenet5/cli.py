"""The command `lenet5`; checks every argument before it imports TensorFlow.

Exit status: 0 success, 1 training diverged, 2 invalid input or full disk, 130 interrupted by
Ctrl-C or SIGTERM, 141 broken pipe (`| head`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from lenet5 import __version__, data, run_directory, runtime, train_command
from lenet5.distributions import check_distributions
from lenet5.errors import InputError
from lenet5.folders import default_cache_dir, default_data_dir, default_mnist_dir, is_address
from lenet5.history import TrainingInterrupted
from lenet5.images import read_image
from lenet5.printable import in_one_line
from lenet5.recipe import DEFAULT_ENGINE, ENGINES, MAX_SEED, Recipe
from lenet5.recipes import RECIPES
from lenet5.run_directory import SavedModel
from lenet5.terminal import prepare_streams, print_accuracy, tell
from lenet5.train_command import check_mnist_dir, load_data

if TYPE_CHECKING:
    from lenet5.evaluation import Evaluation


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Runs one command.

    Args:
        argv: arguments without the program's name; None: the arguments of the process.
        environment: environment variables; reads `LENET5_MNIST_DIR`, `LENET5_CACHE_DIR` and
            `TFDS_DATA_DIR`, and `CUDA_VISIBLE_DEVICES` for `--device`.

    Returns:
        Exit status.
    """
    prepare_streams()
    try:
        return _run(argv, environment)
    except InputError as error:
        tell(f"error: {error}")
        return 2
    except KeyboardInterrupt as interruption:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # after the terminal's ^C
        kept = getattr(interruption, "directory", None)
        saved = isinstance(interruption, TrainingInterrupted) and interruption.history.epochs
        where = f"; finished epochs are in {kept}" if saved else ""
        how = f"; {run_directory.how_to_resume(kept)} continues" if kept else ""
        tell(f"interrupted{where}{how}")
        return 130
    except OSError as error:  # standard output: full disk or broken pipe
        with contextlib.suppress(OSError):  # prevents a second error at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        tell(f"error: {error}")
        return 2


def _run(argv: Sequence[str] | None, environment: Mapping[str, str]) -> int:
    try:
        options = _parser(environment).parse_args(argv)
        status: int = options.run(options)
        return status
    finally:
        sys.stdout.flush()  # a write error appears here instead of at exit


def _evaluate(options: argparse.Namespace) -> int:
    saved = run_directory.find_model(options.path)
    dataset = _dataset_of(saved, options)
    runtime.check_settings()
    check_distributions()
    check_mnist_dir(dataset, options)
    runtime.start_tensorflow(options.threads)
    from lenet5.evaluation import evaluate
    from lenet5.loading import load_model

    model = load_model(saved.path, saved.run.recipe if saved.run else None)
    evaluation = evaluate(model, load_data(dataset, options).test)
    print_accuracy(evaluation)
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
            tell(f"error: {error}")
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
        tell(
            f"note: {directory} was interrupted and has no stored test score"
            + (how if resumable else "")
        )
    elif run_directory.read_json(stored).get("test_errors") != evaluation.errors:
        tell(f"note: {stored} has another count of wrong images: TensorFlow or the machine differs")


def _tell_unknown(saved: SavedModel, how: str) -> None:
    tell(f"note: {saved.path}: recipe, seed, engine and training data are unknown; {how}")


def _data(options: argparse.Namespace) -> int:
    dataset = load_data(options.dataset, options)
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
    train = command(
        "train", train_command.train, "train a recipe, score the test images, write a run directory"
    )
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
    train.add_argument(
        "--device", metavar="DEVICE", help="cpu, gpu or gpu:N, to compute on; default: cpu"
    )
    train.set_defaults(environment=environment)
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
    if is_address(text):
        raise argparse.ArgumentTypeError(f"{text} is an address: name a local folder")
    return _path(text)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse
