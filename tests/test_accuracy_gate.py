"""The accuracy gate: a model trained in this session, or an existing run, is good enough.

`--run-dir` gates an existing run; `--recipe`, `--seed`, `--dataset` and `--min-accuracy` set the
terms. Where the data cannot be had the gate fails: it is never skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.report import FINDINGS, GATE_BOUNDS, RUN_DIRECTORY
from lenet5 import run_directory
from lenet5.data import Dataset
from lenet5.errors import InputError
from lenet5.evaluation import Evaluation, evaluate
from lenet5.loading import load_model
from lenet5.recipes import find_recipe
from lenet5.run import train_run
from lenet5.run_directory import Run
from lenet5.training import DivergenceError


@dataclass(frozen=True)
class GatedRun:
    """A run directory, and its model scored on the test images in this session."""

    directory: Path
    run: Run
    dataset: Dataset
    evaluation: Evaluation
    min_accuracy: float
    max_accuracy: float


@pytest.fixture(scope="session")
def gate(
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
    load_dataset: Callable[[str], Dataset],
) -> GatedRun | str:
    """The run that `--run-dir` names, or one trained now; or in one line why there is none."""
    option = pytestconfig.option
    try:
        dataset = load_dataset(option.dataset)
        if option.run_dir is None:
            directory = tmp_path_factory.mktemp("gate") / "run"
            run = Run(find_recipe(option.recipe or "fast"), {}, option.seed or 0, option.dataset)
            run_directory.create(directory, force=False)
            train_run(run, dataset, directory)
        else:
            directory = option.run_dir
            run = run_directory.read_run(directory)
        pytestconfig.stash[RUN_DIRECTORY] = directory
        # Scored from the file, so that what is gated is what was saved.
        model = load_model(directory / run_directory.MODEL, run.recipe)
    except (InputError, DivergenceError) as error:
        return str(error)
    low = run.recipe.min_accuracy if option.min_accuracy is None else option.min_accuracy
    high = run.recipe.max_accuracy if option.dataset == "mnist" else 1.0  # its bounds are MNIST's
    pytestconfig.stash[GATE_BOUNDS] = (low, high)
    return GatedRun(directory, run, dataset, evaluate(model, dataset.test), low, high)


@pytest.fixture
def gated_run(gate: GatedRun | str) -> Callable[[], GatedRun]:
    """Gives the run, or fails the test that asks for it: an error in a fixture is no failure."""

    def get() -> GatedRun:
        if isinstance(gate, str):
            pytest.fail(gate, pytrace=False)
        return gate

    return get


def test_accuracy_is_at_least_the_lower_bound(
    gated_run: Callable[[], GatedRun],
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    run = gated_run()
    evaluation = run.evaluation
    record_property("test_errors", evaluation.errors)
    record_property("test_images", evaluation.images)
    record_property("test_accuracy", evaluation.accuracy)
    pytestconfig.stash.setdefault(FINDINGS, []).append(
        f"Recipe {run.run.recipe.name}, seed {run.run.seed}, {run.run.dataset}: "
        f"test accuracy {evaluation}."
    )
    assert evaluation.images == len(run.dataset.test.labels)
    if evaluation.accuracy < run.min_accuracy:
        pytest.fail(
            f"test accuracy {evaluation} is below {100 * run.min_accuracy:g} %", pytrace=False
        )


def test_accuracy_is_not_too_good_to_be_true(gated_run: Callable[[], GatedRun]) -> None:
    """Above the upper bound the evaluation is broken, or training has seen the test images."""
    run = gated_run()
    if run.evaluation.accuracy > run.max_accuracy:
        pytest.fail(
            f"test accuracy {run.evaluation} is above {100 * run.max_accuracy:g} %: "
            "too good to be true",
            pytrace=False,
        )


def test_run_directory_tells_what_its_model_scores(gated_run: Callable[[], GatedRun]) -> None:
    """To the image for a run of this session; another machine's rounding may turn a few."""
    run = gated_run()
    try:
        metrics = run_directory.read_json(run.directory / run_directory.METRICS)
    except InputError as error:
        pytest.fail(f"the run was not finished: {error}", pytrace=False)
    own = metrics["test_errors"], metrics["test_images"]
    assert own[1] == run.evaluation.images
    environment = run_directory.read_json(run.directory / run_directory.ENVIRONMENT)
    here = run_directory.describe_environment(environment["threads"], environment["keras"])
    few = 0 if here["cpu"] == environment["cpu"] else 5
    assert abs(own[0] - run.evaluation.errors) <= few


def test_the_best_epoch_was_chosen_by_the_validation_images(
    gated_run: Callable[[], GatedRun],
) -> None:
    """The saved model scores on the validation images what history says of its best epoch."""
    run = gated_run()
    history = json.loads((run.directory / run_directory.HISTORY).read_text())
    best = history["epochs"][history["best_epoch"] - 1]
    assert best["validation_loss"] == min(e["validation_loss"] for e in history["epochs"])
    model = load_model(run.directory / run_directory.MODEL, run.run.recipe)
    validation = evaluate(model, run.dataset.validation)
    assert validation.loss == pytest.approx(best["validation_loss"], rel=1e-3)
    assert validation.accuracy == pytest.approx(best["validation_accuracy"], abs=1e-3)
