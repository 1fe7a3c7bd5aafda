"""Names of files are text in the terminal, and lead to no other file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.__main__ import main as bench
from bench.measure.processes import private_folder
from bench.records.trainings import reference_path
from lenet5.cli import main as lenet5
from lenet5.errors import InputError
from lenet5.run_directory import read_json, write_json
from tests.report.test_hostile_names import check_visible

NAME = "digit\x1b[2J\x07\n::error::x\u202e.png"


def test_an_answer_names_its_image_visibly(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(tmp_path / NAME)
    assert lenet5(["predict", str(trained[0]), str(tmp_path / NAME)]) == 0
    out = capsys.readouterr().out
    check_visible(out)
    assert r"digit\x1b[2J\x07" in out
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [("predict", "{}", "x.png"), ("evaluate", "{}"), ("predict", "x", "{}")]
)
def test_an_error_names_its_file_visibly(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lenet5([word.format(tmp_path / NAME) for word in arguments]) == 2
    err = capsys.readouterr().err
    check_visible(err)
    assert len(err.splitlines()) == 1


def test_an_error_of_bench_names_its_file_visibly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(["verdict", str(tmp_path / NAME)]) == 4
    err = capsys.readouterr().err
    check_visible(err)
    assert "\n::" not in err


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    """Neither at the file's name nor at that of its unfinished copy."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    for name in ("metrics.json", f".metrics.{os.getpid()}.partial.json"):
        (tmp_path / name).symlink_to(outside)
    write_json(tmp_path / "metrics.json", {"a": 1})
    assert outside.read_text() == "mine"
    assert read_json(tmp_path / "metrics.json") == {"a": 1}


def test_folders_of_workers_are_closed_to_others() -> None:
    before = os.umask(0)
    try:
        with private_folder() as one, private_folder() as other:
            assert stat.S_IMODE(one.stat().st_mode) == 0o700
            assert one != other
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", ["../fast", "/fast", "", "a/b", "x" * 300, "a\0"])
def test_a_recipes_name_leads_to_no_other_reference(name: str) -> None:
    with pytest.raises(InputError, match="is not a name of a recipe or an engine"):
        reference_path(name, "keras")
    with pytest.raises(InputError, match="is not a name of a recipe or an engine"):
        reference_path("fast", name)
