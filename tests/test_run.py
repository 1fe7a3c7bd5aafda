"""A complete run: use of each subset, and content of the run directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lenet5 import run_directory
from lenet5.data import Dataset, Subset
from lenet5.evaluation import evaluate
from lenet5.loading import load_model
from lenet5.recipe import ENGINES
from lenet5.recipes import RECIPES
from lenet5.run import train_run
from lenet5.run_directory import Run


@pytest.fixture(scope="module", params=ENGINES)
def run(request: pytest.FixtureRequest) -> Run:
    overrides = {"epochs": 3}
    recipe = RECIPES["fast"].with_overrides(overrides)
    return Run(recipe, overrides, seed=2, dataset="digits", engine=request.param)


@pytest.fixture(scope="module")
def finished(run: Run, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "digits"
    run_directory.create(directory, force=False)
    train_run(run, digits, directory)
    return directory


def test_early_stopping_sees_the_validation_images_and_the_score_is_of_the_test_images(
    finished: Path, run: Run, digits: Dataset
) -> None:
    """The saved model reproduces both scores, and neither subset can replace the other."""
    model = load_model(finished / "model.keras", run.recipe)
    history = json.loads((finished / "history.json").read_text())
    best = history["epochs"][history["best_epoch"] - 1]
    validation, test = (evaluate(model, subset) for subset in (digits.validation, digits.test))
    assert best["validation_loss"] == pytest.approx(validation.loss, rel=1e-5)
    assert best["validation_loss"] != pytest.approx(test.loss, rel=1e-3)
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["test_errors"] == test.errors
    assert metrics["test_images"] == 300
    assert metrics["test_loss"] == pytest.approx(test.loss, rel=1e-6)


def test_training_gets_training_and_validation_images_and_the_runs_engine(
    run: Run, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[Subset] = []
    engines: list[str] = []

    def spy(
        _recipe: object, training: Subset, validation: Subset, _: int, *, engine: str, **__: object
    ) -> None:
        handed.extend([training, validation])
        engines.append(engine)
        raise InterruptedError

    monkeypatch.setattr("lenet5.run.train", spy)
    with pytest.raises(InterruptedError):
        train_run(run, digits, tmp_path)
    assert handed[0] is digits.training
    assert handed[1] is digits.validation
    assert engines == [run.engine]


def test_metrics_are_complete_and_consistent(finished: Path, run: Run) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["test_accuracy"] == (300 - metrics["test_errors"]) / 300
    low, high = metrics["test_accuracy_interval"]
    assert 0 < low < metrics["test_accuracy"] < high <= 1
    assert sum(row["errors"] for row in metrics["per_class"]) == metrics["test_errors"]
    assert [row["digit"] for row in metrics["per_class"]] == list(range(10))
    assert {row["images"] for row in metrics["per_class"]} == {30}
    assert metrics["engine"] == run.engine
    assert metrics["epochs_run"] == 3
    assert 1 <= metrics["best_epoch"] <= 3
    assert metrics["train_seconds"] > 0


def test_the_run_directory_has_exactly_these_files(finished: Path) -> None:
    files = sorted(str(path.relative_to(finished)) for path in finished.rglob("*"))
    assert files == [
        "environment.json",
        "history.json",
        "metrics.json",
        "model.keras",
        "plots",
        "plots/confusion_matrix.png",
        "plots/curves.png",
        "plots/errors.png",
        "plots/roc.png",
        "recipe.json",
    ]


def test_recipe_json_restores_the_run_with_its_overrides(finished: Path, run: Run) -> None:
    assert run_directory.read_run(finished) == run
