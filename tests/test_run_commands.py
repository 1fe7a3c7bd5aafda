"""The commands `lenet5 evaluate`, `predict` and `data`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lenet5.data import Dataset, normalise
from lenet5.errors import InputError
from lenet5.loading import load_model
from lenet5.recipes import RECIPES
from lenet5.runtime import threads_in_use
from tests.commands import (
    Answer,
)


def test_evaluate_notes_a_score_that_differs_from_the_stored_one(
    trained_copy: Path, lenet5: Callable[..., Answer]
) -> None:
    metrics = json.loads((trained_copy / "metrics.json").read_text())
    metrics["test_errors"] += 1
    (trained_copy / "metrics.json").write_text(json.dumps(metrics))
    answer = lenet5("evaluate", trained_copy, "--threads", threads_in_use())
    assert answer.status == 0
    assert answer.err == (
        f"lenet5: note: {trained_copy / 'metrics.json'} has another count of wrong images: "
        "TensorFlow or the machine differs\n"
    )


def damage_recipe(run: Path) -> None:
    (run / "recipe.json").write_text('{"recipe": ')


def damage_model(run: Path) -> None:
    content = (run / "model.keras").read_bytes()
    (run / "model.keras").write_bytes(content[: len(content) // 2])


def remove_model(run: Path) -> None:
    (run / "model.keras").unlink()


def change_recipe(run: Path) -> None:
    content = json.loads((run / "recipe.json").read_text())
    content["recipe"]["l2"] = 5e-4
    (run / "recipe.json").write_text(json.dumps(content))


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (damage_recipe, "/recipe.json: damaged, not JSON"),
        (damage_model, "/model.keras: not a whole Keras model file"),
        (remove_model, ": has no model.keras; the run ended before it was written"),
        (change_recipe, "/model.keras: not the model that its recipe 'fast' describes"),
    ],
)
def test_a_damaged_run_gives_a_one_line_error(
    command: str,
    damage: Callable[[Path], None],
    complaint: str,
    trained_copy: Path,
    lenet5: Callable[..., Answer],
    digit: Path,
) -> None:
    damage(trained_copy)
    images = [digit] if command == "predict" else []
    answer = lenet5(command, trained_copy, *images, "--threads", threads_in_use())
    assert answer == Answer(2, "", f"lenet5: error: {trained_copy}{complaint}\n")


@pytest.fixture
def digit(digits: Dataset, tmp_path: Path) -> Path:
    """The first test image as a PNG file."""
    Image.fromarray(digits.test.images[0, :, :, 0]).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_predict_prints_digit_and_probabilities(
    trained: tuple[Path, str], digits: Dataset, lenet5: Callable[..., Answer], digit: Path
) -> None:
    """A dark digit on a light background gives the same output."""
    dark = digit.with_name("dark.png")
    Image.fromarray(255 - digits.test.images[0, :, :, 0]).save(dark)
    model = load_model(trained[0] / "model.keras", RECIPES["fast"])
    (answers,) = model.predict(normalise(digits.test.images[:1]), verbose=0)
    listed = " ".join(f"{number}:{share:.3f}" for number, share in enumerate(answers))
    expected = f"{answers.argmax()} ({100 * answers.max():.1f} %)  {listed}\n"
    answer = lenet5("predict", trained[0], digit, dark, "--threads", threads_in_use())
    assert answer == Answer(0, f"{digit}: {expected}{dark}: {expected}", "")


def test_a_bad_file_does_not_cost_the_answers_to_the_others(
    trained: tuple[Path, str], lenet5: Callable[..., Answer], digit: Path
) -> None:
    text = digit.with_name("text.png")
    text.write_text("no image")
    threads = ("--threads", threads_in_use())
    alone = lenet5("predict", trained[0], digit, *threads)
    assert alone.status == 0
    assert lenet5("predict", trained[0], digit, text, digit, *threads) == Answer(
        2, alone.out * 2, f"lenet5: error: {text}: not an image that Pillow can read\n"
    )


def test_without_a_good_file_predict_loads_no_model(
    trained_copy: Path, lenet5: Callable[..., Answer], digit: Path
) -> None:
    damage_model(trained_copy)
    answer = lenet5("predict", trained_copy, digit.with_name("a.png"), digit.with_name("b.png"))
    missing = "cannot be read as an image: No such file or directory"
    assert answer.status == 2
    assert answer.err.splitlines() == [
        f"lenet5: error: {digit.with_name(name)}: {missing}" for name in ("a.png", "b.png")
    ]


def test_an_undecodable_file_name_is_printed_escaped(
    trained: tuple[Path, str], lenet5: Callable[..., Answer], digit: Path
) -> None:
    strange = digit.rename(digit.with_name(os.fsdecode(b"\xff.png")))
    answer = lenet5("predict", trained[0], strange, "--threads", threads_in_use())
    assert answer.status == 0
    assert answer.out.startswith(f"{digit.parent}/\\udcff.png: ")


# ---- a model file without a run


UNKNOWN = "recipe, seed, engine and training data are unknown"


@pytest.fixture
def alone(trained: tuple[Path, str], tmp_path: Path) -> Path:
    """A trained model under another name, in a folder with only notes."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "notes.txt").write_text("trained by hand")
    (folder / ".mine.1.partial.keras").write_text("being written")
    return Path(shutil.copy(trained[0] / "model.keras", folder / "mine.keras"))


@pytest.mark.parametrize("by_folder", [False, True])
def test_evaluate_scores_a_model_file_and_names_unknown_facts(
    by_folder: bool, alone: Path, trained: tuple[Path, str], lenet5: Callable[..., Answer]
) -> None:
    path = alone.parent if by_folder else alone
    answer = lenet5("evaluate", path, "--dataset", "digits", "--threads", threads_in_use())
    score = next(line for line in trained[1].splitlines() if line.startswith("test accuracy "))
    note = f"lenet5: note: {alone}: {UNKNOWN}; it was scored on digits\n"
    assert answer == Answer(0, f"{score}\n", note)


def test_a_model_file_is_scored_on_mnist_by_default(
    alone: Path, digits: Dataset, lenet5: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(name: str, **_: object) -> Dataset:
        asked.append(name)
        return digits

    monkeypatch.setattr("lenet5.data.load_dataset", load)
    answer = lenet5("evaluate", alone, "--threads", threads_in_use())
    assert (answer.status, asked) == (0, ["mnist"])
    assert answer.err == (
        f"lenet5: note: {alone}: {UNKNOWN}; scored on mnist; --dataset chooses another\n"
    )


def test_the_model_file_of_a_run_gives_the_same_score_as_the_run(
    trained: tuple[Path, str], lenet5: Callable[..., Answer]
) -> None:
    directory = trained[0]
    answers = [
        lenet5("evaluate", path, "--threads", threads_in_use())
        for path in (directory, directory / "model.keras")
    ]
    assert answers[0].status == 0
    assert answers[0] == answers[1]


def test_a_run_is_not_scored_on_another_dataset(
    trained: tuple[Path, str], lenet5: Callable[..., Answer]
) -> None:
    assert lenet5("evaluate", trained[0], "--dataset", "mnist") == Answer(
        2, "", f"lenet5: error: {trained[0]}: a run on digits, not on mnist\n"
    )


def test_predict_accepts_a_model_file(
    alone: Path, trained: tuple[Path, str], lenet5: Callable[..., Answer], digit: Path
) -> None:
    threads = ("--threads", threads_in_use())
    Image.open(digit).resize((84, 84)).save(digit)  # 28x28 would tell a run on the digits apart
    expected = lenet5("predict", trained[0], digit, *threads)
    note = f"lenet5: note: {alone}: {UNKNOWN}; its pixels were scaled to [0, 1]\n"
    for path in (alone, alone.parent):
        assert lenet5("predict", path, digit, *threads) == Answer(0, expected.out, note)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_several_model_files_give_a_one_line_error(
    command: str, alone: Path, lenet5: Callable[..., Answer], digit: Path
) -> None:
    shutil.copy(alone, alone.with_name("other.keras"))
    images = [digit] if command == "predict" else []
    assert lenet5(command, alone.parent, *images) == Answer(
        2,
        "",
        f"lenet5: error: {alone.parent}: has 2 .keras files, name one of them: "
        "mine.keras, other.keras\n",
    )


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_damaged_model_file_gives_a_one_line_error(
    command: str, alone: Path, lenet5: Callable[..., Answer], digit: Path
) -> None:
    alone.write_bytes(alone.read_bytes()[:1000])
    images = [digit] if command == "predict" else []
    answer = lenet5(command, alone, *images, "--threads", threads_in_use())
    assert answer == Answer(2, "", f"lenet5: error: {alone}: not a whole Keras model file\n")


def test_data_prints_sizes_and_location(lenet5: Callable[..., Answer]) -> None:
    assert lenet5("data", "--dataset", "digits") == Answer(
        0, "digits: 1,297 training, 200 validation, 300 test images; built into scikit-learn\n", ""
    )


def test_unavailable_data_give_an_error(
    lenet5: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, report: Callable[[str], None], **__: object) -> None:
        report("somewhere: damaged, prepared again")
        raise InputError("MNIST cannot be had")

    monkeypatch.setattr("lenet5.data.load_dataset", fail)
    assert lenet5("data") == Answer(
        2, "", "lenet5: somewhere: damaged, prepared again\nlenet5: error: MNIST cannot be had\n"
    )
