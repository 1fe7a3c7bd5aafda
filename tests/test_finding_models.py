"""The model and the run of a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from lenet5 import run_directory
from lenet5.errors import InputError
from lenet5.recipes import RECIPES
from lenet5.run_directory import Run, SavedModel, find_model

RUN = Run(RECIPES["fast"], {}, 3, "digits")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory without scores."""
    directory = tmp_path / "run"
    directory.mkdir()
    run_directory.write_json(directory / "recipe.json", run_directory.run_content(RUN))
    run_directory.write_json(directory / "history.json", {})
    (directory / "model.keras").touch()
    return directory


def complaint(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        find_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_a_run_directory_gives_its_model(run: Path) -> None:
    assert find_model(run) == SavedModel(run / "model.keras", RUN, run)


def test_the_model_of_a_run_directory_gives_the_run(run: Path) -> None:
    assert find_model(run / "model.keras") == find_model(run)


def test_the_model_of_a_run_in_the_current_folder_gives_the_run(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    assert find_model(Path("model.keras")).run == RUN
    assert find_model(Path()).path == Path("model.keras")


def test_other_models_in_a_run_directory_have_no_run(run: Path) -> None:
    (run / "other.keras").touch()
    assert find_model(run).path == run / "model.keras"
    assert find_model(run / "other.keras") == SavedModel(run / "other.keras", None, None)


@pytest.mark.parametrize("name", ["model.keras", "mine.keras"])
def test_a_folder_with_one_model_gives_this_model(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    (tmp_path / "metrics.json").touch()  # any content: without a recipe it is no run
    (tmp_path / ".x.1.partial.keras").touch()
    (tmp_path / "folder.keras").mkdir()
    expected = SavedModel(path, None, None)
    assert find_model(tmp_path) == expected
    assert find_model(path) == expected


def test_a_damaged_run_is_not_loaded_as_a_model_without_a_run(run: Path) -> None:
    (run / "recipe.json").write_text("{")
    for path in (run, run / "model.keras"):
        with pytest.raises(InputError) as caught:
            find_model(path)
        assert str(caught.value) == f"{run}/recipe.json: damaged, not JSON"


def test_a_run_without_a_model_gives_an_error(run: Path) -> None:
    (run / "model.keras").rename(run / "other.keras")
    assert complaint(run) == "has no model.keras; the run ended before it was written"


def test_a_folder_without_a_model_gives_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.h5").touch()
    assert complaint(tmp_path) == (
        "not a run directory, it has no recipe.json, nor any .keras file"
    )


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("ba", "has 2 .keras files, name one of them: a.keras, b.keras"),
        ("abcd", "has 4 .keras files, name one of them: a.keras, b.keras, c.keras, ..."),
    ],
)
def test_several_models_give_an_error(tmp_path: Path, names: str, told: str) -> None:
    for name in names:
        (tmp_path / f"{name}.keras").touch()
    assert complaint(tmp_path) == told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere", "not a run directory, it has no recipe.json"),
        ("nowhere.keras", "no such file"),
        ("model.h5", "not a run directory, it has no recipe.json"),
    ],
)
def test_a_path_without_run_or_model_gives_an_error(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "model.h5").touch()
    assert complaint(tmp_path / name) == told


def test_an_impossible_path_gives_an_error(tmp_path: Path) -> None:
    assert complaint(tmp_path / ("x" * 300 + ".keras")) == "File name too long"
