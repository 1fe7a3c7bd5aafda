"""Limits of JSON files, and text of such files in messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lenet5 import run_directory
from lenet5.documents import DEEPEST_JSON, is_deeper
from lenet5.errors import InputError
from lenet5.printable import short_line
from lenet5.recipes import find_recipe


def nested(levels: int) -> Any:
    """Returns lists within lists."""
    content: Any = []
    for _ in range(levels - 1):
        content = [content]
    return content


def test_levels_are_counted() -> None:
    assert not is_deeper(nested(DEEPEST_JSON), DEEPEST_JSON)
    assert is_deeper({"a": nested(DEEPEST_JSON)}, DEEPEST_JSON)
    assert is_deeper(nested(100_000), DEEPEST_JSON)  # without recursion
    assert not is_deeper(7, DEEPEST_JSON)


def test_a_text_becomes_one_short_line() -> None:
    assert short_line("two\r\nlines\x1b[31m \u2028here") == r"two lines\x1b[31m here"
    assert short_line("x" * 1000, 10) == "x" * 9 + "…"


def test_a_large_or_deep_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"a": nested(DEEPEST_JSON)}))
    with pytest.raises(InputError, match="damaged, not a JSON object"):
        run_directory.read_json(path)
    monkeypatch.setattr(run_directory, "MOST_JSON_BYTES", 10)
    path.write_text('{"a": 1234567}')
    with pytest.raises(InputError, match="damaged, larger than"):
        run_directory.read_json(path)


@pytest.mark.parametrize(
    "change",
    [
        {"a\nname": 1},
        {"schedule": "x" * 10_000},
        {"learning_rate": 10**400},  # too large for a float
    ],
)
def test_a_damaged_recipe_gives_one_short_line(tmp_path: Path, change: dict[str, Any]) -> None:
    content = run_directory.run_content(
        run_directory.Run(find_recipe("fast"), {}, 0, "mnist", "keras")
    )
    content["recipe"] |= change
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"recipe\.json: damaged: ") as caught:
        run_directory.read_run(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000
