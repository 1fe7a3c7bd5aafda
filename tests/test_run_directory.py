"""Run directories: atomic files; older runs and a user's own files are unharmed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lenet5 import run_directory
from lenet5.errors import InputError
from lenet5.evaluation import Evaluation
from lenet5.history import Epoch, History
from lenet5.recipe import ENGINES
from lenet5.recipes import RECIPES
from lenet5.run_directory import Run

RUN = Run(RECIPES["fast"].with_overrides({"epochs": 2}), {"epochs": 2}, seed=7, dataset="digits")
FILES = (
    *("recipe.json", "environment.json", "history.json", "model.keras"),
    *("plots/curves.png", "plots/confusion_matrix.png", "plots/roc.png", "plots/errors.png"),
    "metrics.json",
)


def write_run(place: Path, content: str) -> None:
    """Writes every file of a run with the same content."""
    for name in FILES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content)


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }


def write_recipe(directory: Path, content: object) -> None:
    (directory / "recipe.json").write_text(json.dumps(content))


# ---- create


def test_a_folder_with_only_the_file_of_a_killed_write_is_empty(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.17.partial.npz").write_bytes(b"half")
    run_directory.create(tmp_path, force=False)
    run_directory.remove_partial_files(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_create_makes_an_empty_directory_with_its_parents(tmp_path: Path) -> None:
    run_directory.create(tmp_path / "runs" / "first", force=False)
    assert list((tmp_path / "runs" / "first").iterdir()) == []


def test_create_may_be_repeated_until_something_is_written(tmp_path: Path) -> None:
    """A run without data leaves a directory that the next run may use."""
    run_directory.create(tmp_path / "run", force=False)
    run_directory.create(tmp_path / "run", force=False)


def test_create_refuses_an_existing_run_unless_forced(tmp_path: Path) -> None:
    write_run(tmp_path, "old")
    with pytest.raises(InputError) as caught:
        run_directory.create(tmp_path, force=False)
    assert str(caught.value) == f"{tmp_path}: it contains a run already; --force overwrites it"
    run_directory.create(tmp_path, force=True)
    assert contents(tmp_path) == dict.fromkeys(FILES, "old")


@pytest.mark.parametrize("force", [False, True])
def test_create_refuses_a_folder_that_is_not_a_run(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError) as caught:
        run_directory.create(tmp_path, force=force)
    assert str(caught.value) == f"{tmp_path}: exists and is not a run, choose another --out"
    assert contents(tmp_path) == {"thesis.tex": "mine"}


@pytest.mark.parametrize("name", ["file", "file/below/it"])
def test_create_refuses_a_path_through_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError) as caught:
        run_directory.create(tmp_path / name, force=True)
    assert str(caught.value) == f"{tmp_path / name}: cannot be written: Not a directory"
    assert contents(tmp_path) == {"file": "mine"}


def test_create_detects_an_unwritable_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check writes a file: a disk may be read-only despite the permissions."""

    def refuse(dir: Path) -> None:  # noqa: A002 - tempfile's name for it
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError) as caught:
        run_directory.create(tmp_path / "run", force=False)
    assert str(caught.value) == f"{tmp_path / 'run'}: cannot be written: Permission denied"


# ---- an older run


def test_a_first_run_is_written_into_its_directory(tmp_path: Path) -> None:
    assert run_directory.place_to_write(tmp_path) == tmp_path


def test_a_newer_run_is_written_separately_until_it_is_complete(tmp_path: Path) -> None:
    write_run(tmp_path, "old")
    place = run_directory.place_to_write(tmp_path)
    run_directory.clear(place)
    write_run(place, "new")
    assert place == tmp_path / "unfinished"
    assert {name: contents(tmp_path)[name] for name in FILES} == dict.fromkeys(FILES, "old")

    run_directory.publish(place, tmp_path)
    assert contents(tmp_path) == dict.fromkeys(FILES, "new")
    assert not place.exists()


def test_publishing_a_first_run_changes_nothing(tmp_path: Path) -> None:
    write_run(tmp_path, "new")
    run_directory.publish(tmp_path, tmp_path)
    assert contents(tmp_path) == dict.fromkeys(FILES, "new")


def test_clear_removes_an_unfinished_run(tmp_path: Path) -> None:
    write_run(tmp_path, "left")
    run_directory.clear(tmp_path)
    assert contents(tmp_path) == {}


def test_foreign_files_survive_clearing_and_publishing(tmp_path: Path) -> None:
    foreign = ("notes.txt", "plots/mine.png", "unfinished/notes.txt", "unfinished/plots/mine.png")
    write_run(tmp_path, "old")
    write_run(tmp_path / "unfinished", "left")
    for name in foreign:
        (tmp_path / name).write_text("mine")
    run_directory.clear(tmp_path / "unfinished")
    write_run(tmp_path / "unfinished", "new")
    run_directory.publish(tmp_path / "unfinished", tmp_path)
    expected = dict.fromkeys(FILES, "new") | dict.fromkeys(foreign, "mine")
    assert contents(tmp_path) == expected


def test_an_interrupted_replacement_looks_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, "old")
    write_run(tmp_path / "unfinished", "new")
    replace = os.replace

    def fail_at_the_model(source: Path, target: Path) -> None:
        if target.name == "model.keras":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr("os.replace", fail_at_the_model)
    with pytest.raises(InputError, match="cannot be written: Input/output error"):
        run_directory.publish(tmp_path / "unfinished", tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    assert (tmp_path / "unfinished" / "metrics.json").exists()


# ---- files


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    with run_directory.written_whole(tmp_path / "model.keras") as partial:
        partial.write_text("half")
        assert partial.suffix == ".keras"  # Keras chooses the format by the suffix
        assert not (tmp_path / "model.keras").exists()
        partial.write_text("whole")
    assert contents(tmp_path) == {"model.keras": "whole"}


def fail_half_way(path: Path, error: BaseException) -> None:
    with run_directory.written_whole(path) as partial:
        partial.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_no_partial_one(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "history.json"
    path.write_text("old")
    with pytest.raises(type(error)):
        fail_half_way(path, error)
    assert contents(tmp_path) == {"history.json": "old"}


def test_a_full_disk_is_reported_with_the_path_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    with pytest.raises(InputError) as caught:
        fail_half_way(path, OSError(28, "No space left on device"))
    assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert contents(tmp_path) == {}


def test_json_survives_writing_and_reading(tmp_path: Path) -> None:
    content = {"name": "ä", "accuracy": 0.1 + 0.2, "epochs": [1, None, True]}
    run_directory.write_json(tmp_path / "a.json", content)
    assert run_directory.read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file or directory"),
        (b"", "damaged, not JSON"),
        (b'{"recipe": ', "damaged, not JSON"),
        (b"\xff\xfe", "damaged, not JSON"),
        (b"[" * 100_000, "damaged, not JSON"),
        (b"[]", "damaged, not a JSON object"),
    ],
)
def test_unreadable_json_gives_a_one_line_error(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        run_directory.read_json(path)
    assert str(caught.value) == f"{path}: {complaint}"


# ---- recipe.json and metrics.json


@pytest.mark.parametrize("engine", [*ENGINES, "products"])
def test_a_run_survives_writing_and_reading(tmp_path: Path, engine: str) -> None:
    """This includes a run older than the engines that is written again."""
    run = replace(RUN, engine=engine)
    write_recipe(tmp_path, run_directory.run_content(run))
    assert run_directory.read_json(tmp_path / "recipe.json")["engine"] == engine
    assert run_directory.read_run(tmp_path) == run


def test_the_default_engine_of_a_run_is_keras() -> None:
    assert RUN.engine == "keras"


def test_a_run_without_an_engine_entry_has_the_earlier_engine(tmp_path: Path) -> None:
    content = run_directory.run_content(RUN)
    del content["engine"]
    write_recipe(tmp_path, content)
    assert run_directory.read_run(tmp_path) == replace(RUN, engine="products")


def test_a_folder_without_a_recipe_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run_directory.read_run(tmp_path)
    assert str(caught.value) == f"{tmp_path}: not a run directory, it has no recipe.json"


RECIPE = asdict(RUN.recipe)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ({"dataset": "cifar"}, "damaged: unknown dataset 'cifar'"),
        ({"dataset": ["mnist"]}, "damaged: unknown dataset ['mnist']"),
        ({"engine": "torch"}, "damaged: unknown engine 'torch': choose keras or graph"),
        ({"engine": None}, "damaged: unknown engine None: choose keras or graph"),
        ({"engine": ["keras"]}, "damaged: unknown engine ['keras']: choose keras or graph"),
        ({"seed": "7"}, "damaged: seed is '7', expected a whole number from 0 to 536870911"),
        ({"seed": -1}, "damaged: seed is -1, expected a whole number from 0 to 536870911"),
        (
            {"recipe": {**RECIPE, "dropout": 1}},
            "damaged: recipe: dropout is 1, expected at least 0 and below 1",
        ),
        (
            {"recipe": {**RECIPE, "momentum": 0.9}},
            "damaged: missing or unknown recipe field(s): momentum",
        ),
    ],
)
def test_invalid_values_in_a_recipe_file_give_a_one_line_error(
    tmp_path: Path, damage: dict[str, Any], complaint: str
) -> None:
    write_recipe(tmp_path, run_directory.run_content(RUN) | damage)
    with pytest.raises(InputError) as caught:
        run_directory.read_run(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'recipe.json'}: {complaint}"


@pytest.mark.parametrize("damage", [{"overrides": 5}, {"recipe": None}, {"recipe": [1, "a"]}])
def test_wrong_types_in_a_recipe_file_are_reported_as_damage(
    tmp_path: Path, damage: dict[str, Any]
) -> None:
    write_recipe(tmp_path, run_directory.run_content(RUN) | damage)
    with pytest.raises(InputError, match=r"recipe\.json: damaged: "):
        run_directory.read_run(tmp_path)


@pytest.mark.parametrize("missing", ["dataset", "seed", "overrides", "recipe"])
def test_a_missing_entry_in_a_recipe_file_gives_a_one_line_error(
    tmp_path: Path, missing: str
) -> None:
    content = run_directory.run_content(RUN)
    del content[missing]
    write_recipe(tmp_path, content)
    with pytest.raises(InputError) as caught:
        run_directory.read_run(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'recipe.json'}: damaged, it lacks '{missing}'"


def test_a_run_without_a_model_gives_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run_directory.model_file(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: has no model.keras; the run ended before it was written"
    )


def test_metrics_count_every_class() -> None:
    """Five images: two zeros, one of them predicted as a 3, and three ones."""
    probabilities = np.full((5, 10), 0.02, np.float32)
    probabilities[np.arange(5), [0, 3, 1, 1, 1]] = 0.82
    evaluation = Evaluation(np.array([0, 0, 1, 1, 1], np.uint8), probabilities, penalty=0.25)
    metrics = run_directory.metrics_content(evaluation, HISTORY, "graph")

    assert metrics["test_images"] == 5
    assert metrics["test_errors"] == 1
    assert metrics["test_accuracy"] == 0.8
    assert metrics["test_accuracy_interval"] == list(evaluation.interval)
    assert metrics["test_loss"] == pytest.approx(
        -(4 * np.log(0.82) + np.log(0.02)) / 5 + 0.25, rel=1e-6
    )
    # The zero predicted as a 3 ties with the three ones: (1 + 1/2) / 2.
    assert metrics["per_class"][0] == {"digit": 0, "images": 2, "errors": 1, "auc": 0.75}
    assert metrics["per_class"][1] == {"digit": 1, "images": 3, "errors": 0, "auc": 1.0}
    assert metrics["per_class"][2] == {"digit": 2, "images": 0, "errors": 0, "auc": None}
    assert metrics["confusion"][0] == [1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert metrics["engine"] == "graph"
    assert metrics["epochs_run"] == 2
    assert metrics["best_epoch"] == 2
    assert metrics["train_seconds"] == 4.5
    assert json.loads(json.dumps(metrics)) == metrics  # plain numbers, not NumPy's


# ---- history.json


EPOCHS = tuple(Epoch(n, 1.0, 0.5, 1.0 / n, 0.5, 1e-3, 2.0) for n in (1, 2))
HISTORY = History(EPOCHS, best_epoch=2, train_seconds=4.5, stopped_early=True)


def test_a_history_survives_writing_and_reading(tmp_path: Path) -> None:
    run_directory.write_json(tmp_path / "history.json", asdict(HISTORY))
    assert run_directory.read_history(tmp_path) == HISTORY


@pytest.mark.parametrize(
    "damage",
    [
        {"best_epoch": 0},
        {"best_epoch": 3},
        {"epochs": []},
        {"epochs": None},
        {"epochs": [asdict(EPOCHS[0]), {"epoch": 2}]},
        {"epochs": [asdict(EPOCHS[0]), {**asdict(EPOCHS[1]), "training_loss": None}]},
        {"unheard_of": 1},
    ],
)
def test_a_damaged_history_gives_a_one_line_error(tmp_path: Path, damage: dict[str, Any]) -> None:
    """This includes a run without a finished epoch."""
    path = tmp_path / "history.json"
    run_directory.write_json(path, asdict(HISTORY) | damage)
    with pytest.raises(InputError) as caught:
        run_directory.read_history(tmp_path)
    assert str(caught.value).startswith(f"{path}: damaged: ")
    assert "\n" not in str(caught.value)


def test_a_missing_history_gives_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run_directory.read_history(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'history.json'}: No such file or directory"
