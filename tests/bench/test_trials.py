"""Recipes are tried side by side, and what is trained already is not trained again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bench.__main__ as command
from bench import trials
from bench.accuracy import Trained
from bench.accuracy_plots import trials_figure
from bench.environments import default_cache
from bench.results import Side
from bench.seeds import Job
from bench.trainings import Trainings, only_writer, read_trainings
from lenet5.data import Dataset, Subset
from lenet5.errors import InputError
from lenet5.recipe import ENGINES
from lenet5.recipes import find_recipe

pytestmark = pytest.mark.usefixtures("black_images")

Write = Callable[[object], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of trials."""

    def to_file(content: object) -> Path:
        path = tmp_path / "recipes.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return to_file


def part(value: int, count: int) -> Subset:
    return Subset(np.full((count, 28, 28, 1), value, np.uint8), np.full(count, value, np.uint8))


def trained(seconds: float, *wrong: int, name: str = "fast") -> Trainings:
    recipe = find_recipe("fast").with_overrides({"name": name})
    seeds = tuple(
        Trained(seed, count, 10_000, train_seconds=seconds, epochs=6)
        for seed, count in enumerate(wrong)
    )
    return Trainings(recipe, "keras", "", "", Side("", ""), {}, "", seeds)


def changed(item: Trainings, **changes: object) -> Trainings:
    return replace(item, recipe=item.recipe.with_overrides(changes))


def test_a_trial_is_a_recipe_with_changes_and_is_named_by_them(write: Write) -> None:
    path = write([{"recipe": "fast"}, {"recipe": "original", "l2": 0.0, "dropout": 0.1}])
    plain, changed = trials.read_trials(path)
    assert plain == find_recipe("fast")
    assert (changed.l2, changed.dropout, changed.batch_size) == (0.0, 0.1, 32)
    assert changed.name == "original: l2 0.0, dropout 0.1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is no JSON"),
        ({"recipe": "fast"}, "expected a list"),
        (["fast"], "expected a list"),
        ([], "holds no recipe, or one twice"),
        ([{"recipe": "fast"}, {"recipe": "fast", "name": "again"}], "or one twice"),
        ([{"recipe": "fast", "l2": 0}, {"recipe": "fast", "l2": 0.0}], "or one twice"),
        ([{"recipe": "slow"}], "unknown recipe 'slow'"),
        ([{"recipe": ["fast"]}], "unknown recipe"),
        ([{"recipe": "fast", "epoch": 3}], "no field 'epoch'"),
        ([{"recipe": "fast", "dropout": 1}], "dropout is 1"),
    ],
)
def test_trials_that_make_no_sense_are_refused(write: Write, content: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        trials.read_trials(write(content))
    assert "\n" not in str(caught.value)


def test_protocols_put_the_scored_images_in_the_place_of_the_test_images() -> None:
    mnist = Dataset("mnist", part(1, 5), part(2, 3), part(3, 2))
    assert trials.arrange(mnist, "test") is mnist
    unseen = trials.arrange(mnist, "validation")
    assert unseen.training is mnist.training
    assert unseen.test is unseen.validation is mnist.validation
    original = trials.arrange(mnist, "original")
    assert original.training.labels.tolist() == [1] * 5 + [2] * 3
    assert original.training.images.shape == (8, 28, 28, 1)
    assert original.validation is original.test is mnist.test


def test_trials_are_gone_on_with(
    write: Write, stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found" / "trials.json"
    arguments = ["--out", str(out), "--environment", stub]
    path = str(write([{"recipe": "fast", "epochs": 2}]))
    assert command.main(["trials", path, *arguments]) == 0
    assert "1 of 1 seeds" in capsys.readouterr().out
    path = str(write([{"recipe": "fast", "epochs": 3}, {"recipe": "fast", "epochs": 2}]))
    assert command.main(["trials", path, *arguments, "--seeds", "2"]) == 0
    said = capsys.readouterr().out
    assert "1 of 4 seeds" in said
    assert "4 of 4 seeds" in said
    assert "| fast: epochs 3 | 2 | 98." in said
    assert {item.recipe.epochs: len(item.seeds) for item in read_trainings(out)} == {2: 2, 3: 2}
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("engine", ENGINES)
def test_trials_are_gone_on_with_by_the_same_engine_only(
    write: Write, stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    """Keras unless another is asked for."""
    path, out = str(write([{"recipe": "fast"}])), tmp_path / "trials.json"
    arguments = ["trials", path, "--out", str(out), "--environment", stub]
    asked = [] if engine == "keras" else ["--engine", engine]
    assert command.main([*arguments, *asked]) == 0
    assert [item.engine for item in read_trainings(out)] == [engine]
    (other,) = set(ENGINES) - {engine}
    assert command.main([*arguments, "--engine", other, "--seeds", "2"]) == 4
    assert "of another engine: remove it" in capsys.readouterr().err
    assert command.main([*arguments, "--engine", engine, "--seeds", "2"]) == 0
    assert [(item.engine, len(item.seeds)) for item in read_trainings(out)] == [(engine, 2)]


def test_a_seed_of_every_recipe_is_trained_before_the_next_seed(
    write: Write, stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an hour in which the machine is slow falls on all."""
    begun: list[tuple[int, int]] = []
    engines: set[str] = set()

    def note(jobs: Sequence[Job], *_: object, **__: object) -> None:
        begun.extend((job.seed, job.recipe.epochs) for job in jobs)
        engines.update(job.engine for job in jobs)

    monkeypatch.setattr(trials, "train_seeds", note)
    path = str(write([{"recipe": "fast", "epochs": epochs} for epochs in (3, 2)]))
    arguments = ["trials", path, "--out", str(tmp_path / "trials.json"), "--seeds", "2"]
    arguments += ["--engine", "graph", "--environment", stub]
    assert command.main(arguments) == 1  # none of them was trained
    assert begun == [(0, 3), (0, 2), (1, 3), (1, 2)]
    assert engines == {"graph"}


def test_a_file_is_added_to_by_one_process_at_a_time(
    write: Write, stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = str(write([{"recipe": "fast"}])), tmp_path / "trials.json"
    arguments = ["trials", path, "--out", str(out), "--environment", stub]
    with only_writer(out, default_cache(os.environ)):
        assert command.main(arguments) == 4
    assert f"{out}: another process adds to it" in capsys.readouterr().err
    assert not out.exists()
    assert command.main(arguments) == 0


def test_seeds_may_begin_elsewhere(write: Write, stub: str, tmp_path: Path) -> None:
    path, out = str(write([{"recipe": "fast"}])), tmp_path / "trials.json"
    arguments = ["trials", path, "--out", str(out), "--environment", stub, "--seeds", "2"]
    assert command.main(arguments) == 0
    assert command.main([*arguments, "--first-seed", "40"]) == 0
    (found,) = read_trainings(out)
    assert [trained.seed for trained in found.seeds] == [0, 1, 40, 41]


def test_a_first_seed_out_of_range_is_refused(
    write: Write, stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = str(write([{"recipe": "fast"}])), str(tmp_path / "trials.json")
    arguments = ["trials", path, "--out", out, "--environment", stub, "--first-seed", "-1"]
    assert command.main(arguments) == 4
    assert "seed is -1" in capsys.readouterr().err


def test_a_recipe_that_fails_leaves_the_others_alone(
    write: Write, stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write([{"recipe": "fast", "epochs": epochs} for epochs in (2, 66, 3)]))
    out = tmp_path / "trials.json"
    environment = f"{stub} TF_STUB_FAULT=train_-_raise TF_STUB_EPOCHS=66"
    assert command.main(["trials", path, "--out", str(out), "--environment", environment]) == 1
    assert "fast: epochs 66: seed 0 is missing: ValueError: no such op" in capsys.readouterr().out
    assert [len(item.seeds) for item in read_trainings(out)] == [1, 0, 1]


def test_results_where_the_chart_would_be_are_refused(
    write: Write, stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write([{"recipe": "fast"}]))
    for out in (str(tmp_path / "trials.png"), "."):
        assert command.main(["trials", path, "--out", out, "--environment", stub]) == 4
        assert "expected a name that ends in .json" in capsys.readouterr().err


def test_images_of_another_protocol_are_not_put_together(
    write: Write, stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = str(write([{"recipe": "fast"}])), str(tmp_path / "trials.json")
    assert command.main(["trials", path, "--out", out, "--environment", stub]) == 0
    again = ["trials", path, "--out", out, "--environment", stub, "--protocol", "original"]
    assert command.main(again) == 4
    assert "another split: remove it" in capsys.readouterr().err


def test_the_table_has_spread_and_lowest() -> None:
    row = trials.table([trained(20.0, 150, 160, 140)]).splitlines()[-1]
    assert row == "| fast | 3 | 98.500 | 0.100 | 98.40 | 150.0 | 6 | 20.0 |"


def test_the_front_is_of_recipes_that_no_quicker_one_equals() -> None:
    sets = [
        trained(10.0, 200, name="quick"),
        trained(20.0, 150, name="good"),
        trained(30.0, 150, name="slow"),
        trained(40.0, 100, 110, name="best"),
    ]
    (axes,) = trials_figure(sets, "validation").axes
    front = axes.lines[-1]  # drawn after the points
    np.testing.assert_array_equal(front.get_xdata(), [10, 20, 40])


def test_names_in_the_chart_do_not_lie_on_one_another() -> None:
    sets = [
        trained(50, 100, name="alone"),
        trained(10, 150, name="first"),
        trained(10.1, 149, name="close to the first"),
        trained(90, 149, name="slower and worse"),
    ]
    (axes,) = trials_figure(sets, "validation").axes
    assert [text.get_text() for text in axes.texts] == ["alone", "first", "slower and worse"]


def test_effects_are_means_by_value_over_recipes() -> None:
    sets = [
        changed(trained(20.0, wrong), l2=l2, dropout=dropout, epochs=epochs)
        for wrong, l2, dropout, epochs in (
            (100, 0.0, 0.1, 3),
            (140, 0.0, 0.2, 4),
            (110, 1e-4, 0.1, 5),
            (130, 1e-4, 0.2, 5),
        )
    ]
    assert trials.effects_table(sets).splitlines()[2:] == [
        "| l2 | 0.0 | 2 | 98.800 | 0.200 |",
        "| l2 | 0.0001 | 2 | 98.800 | 0.100 |",
        "| dropout | 0.1 | 2 | 98.950 | 0.050 |",
        "| dropout | 0.2 | 2 | 98.650 | 0.050 |",
    ]


def test_a_recipe_that_diverged_has_no_effect() -> None:
    sets = [
        changed(trained(20.0, wrong), l2=l2, epochs=epochs)
        for epochs, (wrong, l2) in enumerate([(100, 0.0), (140, 0.0), (110, 1e-4), (130, 1e-4)], 1)
    ]
    diverged = replace(sets[0].seeds[0], wrong=None)
    sets.append(changed(replace(sets[0], seeds=(diverged,)), epochs=9))
    assert "| l2 | 0.0 | 2 | 98.800 | 0.200 |" in trials.effects_table(sets)


def test_without_values_in_common_there_are_no_effects() -> None:
    assert trials.effects_table([trained(20.0, 100), trained(20.0, 100, name="other")]) == ""
