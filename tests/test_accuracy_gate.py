"""The accuracy gate: models from this session, or an existing model, are accurate enough.

Both engines train, unless `--engine` names one. `--run-dir` gates an existing run and `--model` a
model file; `--recipe`, `--seed`, `--dataset` and `--min-accuracy` set the terms. Without data, the
gate fails and is never skipped. For a model trained elsewhere, tests that need unknown facts report
them in one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from bench.records.trainings import Trained, Trainings, identity, read_reference
from bench.report.session import DEVICE, FINDINGS, GATED, Gated
from bench.report.versions import DEVICE_FACTS
from bench.verdicts.reference import hold_against
from bench.worker.training import curves_of
from lenet5 import run_directory
from lenet5.data import Dataset
from lenet5.devices import CPU, Device
from lenet5.environment import describe_environment
from lenet5.errors import InputError
from lenet5.evaluation import Evaluation, evaluate
from lenet5.history import DivergenceError, History
from lenet5.loading import load_model
from lenet5.recipe import ENGINES
from lenet5.recipes import RECIPES, find_recipe
from lenet5.run import train_run
from lenet5.run_directory import Run, SavedModel

GIVEN = "given"  # replaces the engine: a model from --run-dir or --model


@dataclass(frozen=True)
class GatedModel:
    """A model scored on the test images in this session, with the bounds of its accuracy."""

    saved: SavedModel
    dataset: Dataset
    evaluation: Evaluation
    validation: Evaluation
    weight_norms: tuple[float, ...]
    min_accuracy: float
    max_accuracy: float

    def run(self) -> Run:
        """Returns the model's run; skips the test with one line if it is unknown."""
        if self.saved.run is None:
            pytest.skip(f"{self.saved.path}: trained elsewhere, its recipe and curves are unknown")
        return self.saved.run

    def history(self) -> History:
        """Returns the run's epochs."""
        self.run()
        assert self.saved.directory is not None
        try:
            return run_directory.read_history(self.saved.directory)
        except InputError as error:
            pytest.fail(f"the run is not whole: {error}", pytrace=False)


Gate = Callable[[], GatedModel]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrises each gate test by engine, or once for a given model."""
    if "gated" in metafunc.fixturenames:
        option = metafunc.config.option
        given = option.run_dir or option.model
        engines = [GIVEN] if given else [option.engine] if option.engine else ENGINES
        metafunc.parametrize("gated", engines, indirect=True, scope="session")


@pytest.fixture(scope="session")
def gated(
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
    load_dataset: Callable[[str], Dataset],
) -> Gate:
    """Returns the model by a function, so that bad input is a failed test, not a fixture error."""
    option = pytestconfig.option
    try:
        dataset = load_dataset(option.dataset)
        if request.param == GIVEN:
            saved = run_directory.find_model(option.run_dir or option.model)
        else:
            directory = tmp_path_factory.mktemp("gate") / f"run-{request.param}"
            recipe = find_recipe(option.recipe or "fast")
            run = Run(recipe, {}, option.seed or 0, option.dataset, request.param)
            run_directory.create(directory, force=False)
            train_run(run, dataset, directory, device=pytestconfig.stash[DEVICE])
            saved = run_directory.find_model(directory)
        # Loads the saved file, so that the gate covers saving.
        model = load_model(saved.path, None if saved.run is None else saved.run.recipe)
    except (InputError, DivergenceError) as error:
        return lambda reason=str(error): pytest.fail(reason, pytrace=False)  # type: ignore[misc]
    recipe = RECIPES["fast"] if saved.run is None else saved.run.recipe
    low = recipe.min_accuracy if option.min_accuracy is None else option.min_accuracy
    high = recipe.max_accuracy if option.dataset == "mnist" else 1.0  # its bounds are for MNIST
    if saved.run is None:  # trained elsewhere: may exceed every recipe
        high = 1.0
    found = GatedModel(
        saved,
        dataset,
        evaluate(model, dataset.test),
        evaluate(model, dataset.validation),
        tuple(float(np.linalg.norm(weight)) for weight in model.get_weights()),
        low,
        high,
    )
    pytestconfig.stash.setdefault(GATED, []).append(
        Gated(
            "" if saved.run is None else saved.run.engine,
            saved.directory,
            saved.path,
            (low, high),
            found.evaluation.accuracy,
            str(found.evaluation),
            found.weight_norms,
        )
    )
    return lambda: found


def test_accuracy_is_at_least_the_lower_bound(
    gated: Gate, pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    model = gated()
    evaluation = model.evaluation
    record_property("test_errors", evaluation.errors)
    record_property("test_images", evaluation.images)
    record_property("test_accuracy", evaluation.accuracy)
    run = model.saved.run
    what = (
        f"{model.saved.path}, {model.dataset.name}"
        if run is None
        else f"Recipe {run.recipe.name}, engine {run.engine}, seed {run.seed}, {run.dataset}"
    )
    pytestconfig.stash.setdefault(FINDINGS, []).append(f"{what}: test accuracy {evaluation}.")
    assert evaluation.images == len(model.dataset.test.labels)
    if evaluation.accuracy < model.min_accuracy:
        pytest.fail(
            f"test accuracy {evaluation} is below {100 * model.min_accuracy:g} %", pytrace=False
        )


def test_accuracy_is_at_most_the_upper_bound(gated: Gate) -> None:
    """An accuracy above the upper bound means a broken evaluation or training on test images."""
    model = gated()
    if model.evaluation.accuracy > model.max_accuracy:
        pytest.fail(
            f"test accuracy {model.evaluation} is above {100 * model.max_accuracy:g} %: "
            "too good to be true",
            pytrace=False,
        )


def test_training_went_as_in_the_reference(
    gated: Gate, pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    """Test errors, curves of all epochs and weight norms agree with the reference's seeds."""
    model = gated()
    run = model.run()
    named = RECIPES.get(run.recipe.name)
    if run.dataset != "mnist" or run.engine not in ENGINES or named is None:
        pytest.skip(f"no reference of {run.recipe.name}, engine {run.engine}, {run.dataset}")
    if identity(run.recipe) != identity(named):
        pytest.skip(f"no reference of recipe {run.recipe.name} with {dict(run.overrides)}")
    reference = _reference(run)
    if identity(reference.recipe) != identity(run.recipe):
        command = f"python -m bench reference --recipe {run.recipe.name} --engine {run.engine}"
        pytest.fail(f"the reference is of an earlier recipe: remove it, {command}", pytrace=False)
    trained = Trained(
        run.seed,
        model.evaluation.errors,
        model.evaluation.images,
        curves=tuple(map(tuple, curves_of(model.history()))),
        weight_norms=model.weight_norms,
    )
    quantities = hold_against(trained, reference.seeds)
    largest = max(quantities, key=lambda quantity: abs(quantity.score))
    record_property("quantities", len(quantities))
    record_property("largest_score", largest.score)
    beyond = [quantity for quantity in quantities if quantity.beyond]
    pytestconfig.stash.setdefault(FINDINGS, []).append(
        f"Engine {run.engine} against its reference of {len(reference.seeds)} seeds: "
        f"{len(beyond)} of {len(quantities)} quantities are beyond it; farthest: {largest}."
    )
    if beyond:
        shown = "\n".join(str(quantity) for quantity in beyond[:8])
        pytest.fail(
            f"{len(beyond)} of {len(quantities)} quantities are not as in the reference of "
            f"recipe {run.recipe.name}, engine {run.engine}:\n{shown}",
            pytrace=False,
        )


def _reference(run: Run) -> Trainings:
    try:
        return read_reference(run.recipe.name, run.engine, else_give="--dataset")
    except InputError as error:
        reason = str(error)
    pytest.fail(reason, pytrace=False)  # outside `except`, which would show both errors


def test_stored_metrics_match_the_saved_model(gated: Gate, device: Device) -> None:
    """The match is exact for a run of this session; another machine's rounding may change a few.

    So may a GPU's, which differs from one prediction to the next unless operations are
    deterministic.
    """
    model = gated()
    model.run()
    directory = model.saved.directory
    assert directory is not None
    try:
        metrics = run_directory.read_json(directory / run_directory.METRICS)
        environment = run_directory.read_json(directory / run_directory.ENVIRONMENT)
    except InputError as error:
        pytest.fail(f"the run was not finished: {error}", pytrace=False)
    own = metrics["test_errors"], metrics["test_images"]
    assert own[1] == model.evaluation.images
    here = describe_environment(environment["threads"], environment["keras"], device)
    there = {"device": CPU.name, **environment}
    is_alike = all(here.get(name) == there.get(name) for name in ("cpu", *DEVICE_FACTS))
    few = 0 if is_alike and here.get("deterministic_ops", True) else 5
    assert abs(own[0] - model.evaluation.errors) <= few


def test_the_best_epoch_has_the_lowest_validation_loss(gated: Gate) -> None:
    """The saved model has the validation scores of the best epoch in the history."""
    model = gated()
    recipe = model.run().recipe
    history = model.history()
    best = history.epochs[history.best_epoch - 1]
    assert best.validation_loss == min(epoch.validation_loss for epoch in history.epochs)
    loss = _smoothed_loss(model.validation, recipe.label_smoothing)
    assert loss == pytest.approx(best.validation_loss, rel=1e-3)
    assert model.validation.accuracy == pytest.approx(best.validation_accuracy, abs=1e-3)


def _smoothed_loss(evaluation: Evaluation, label_smoothing: float) -> float:
    """Returns Keras's loss of a recipe in NumPy: cross-entropy with smoothed labels, plus L2."""
    of_all = -np.log(np.clip(evaluation.probabilities.astype(np.float64), 1e-7, 1)).mean()
    own = evaluation.loss - evaluation.penalty
    return (1 - label_smoothing) * own + label_smoothing * float(of_all) + evaluation.penalty
