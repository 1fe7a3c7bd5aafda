"""The digest of code depends on its behaviour only."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.measure.worker_files import code_digest, training_code
from bench.records.trainings import FOLDER, read_trainings

CODE = '''
"""A module."""
LIMIT = 3  # of something

def double(number: int) -> int:
    """Twice as much."""
    if number > LIMIT:
        raise ValueError(f"{number} is too large")
    return 2 * number
'''


def digest(folder: Path, code: str, name: str = "module.py") -> str:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(code)
    return code_digest(folder, [name])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# of something", "# of whatever else"),
        ('"""Twice as much."""', '"""Two times."""'),
        ('    """Twice as much."""\n', ""),
        ("is too large", "is larger than it may be"),
        ("2 * number", "(2 *\n        number)"),
    ],
)
def test_comments_messages_and_layout_do_not_change_the_digest(
    tmp_path: Path, before: str, after: str
) -> None:
    assert before in CODE
    assert digest(tmp_path, CODE.replace(before, after)) == digest(tmp_path, CODE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("2 * number", "number * 2"),
        ("ValueError", "TypeError"),
        ("number > LIMIT", "number >= LIMIT"),
        ("return 2 * number", 'return "2" * number'),
    ],
)
def test_another_behaviour_changes_the_digest(tmp_path: Path, before: str, after: str) -> None:
    assert before in CODE
    assert digest(tmp_path, CODE.replace(before, after)) != digest(tmp_path, CODE)


def test_the_digest_includes_only_data_code_used_by_workers(tmp_path: Path) -> None:
    """Workers receive arrays: the download of MNIST is not part of a training."""
    code = "def normalise(images):\n    return images / 255\n\ndef download():\n    return 1\n"
    of_data = digest(tmp_path, code, "lenet5/data.py")
    assert digest(tmp_path, code.replace("return 1", "return 2"), "lenet5/data.py") == of_data
    assert digest(tmp_path, code.replace("255", "256"), "lenet5/data.py") != of_data


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_stored_reference_matches_the_current_training_code(path: Path) -> None:
    """Remedy for a mismatch: python -m bench reference --recipe NAME --engine NAME."""
    assert [found.code for found in read_trainings(path)] == [training_code()]
