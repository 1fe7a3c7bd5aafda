"""Locks and versions in results of others are shown or refused, and never end a command."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.records import results as stored
from bench.records.sides import Side
from bench.report.comparison import table_text
from bench.verdicts.speed import decide
from lenet5.errors import InputError
from tests import synthetic
from tests.synthetic import LOOP

PARTS = (
    *("tensorflow", "keras", "tf-keras", "keras-nightly", "x-tensorflow-cpu", "==", "==1", "@"),
    *(" @ sha256:", "", " ", "\n", "2.21.0", ";", "\x1b[2J", "é", "[", "!", "+", "0" * 50),
)
VALUES: tuple[Any, ...] = (
    *(None, "", "2.21.0", 3, True, [1], {"a": 1}, "\0", "1!2.0+é", "tf_keras", "9" * 5_000),
)
NAMES = ("tensorflow", "keras", "keras_package", "python", "numpy", "build", "onednn", "scheduling")


def drawn_side(draw: random.Random) -> Side:
    def text(most: int) -> str:
        return "".join(draw.choice(PARTS) for _ in range(draw.randint(0, most)))

    versions = {name: draw.choice(VALUES) for name in draw.sample(NAMES, draw.randint(0, 6))}
    lock = tuple(f"{text(4)}=={text(4)}" for _ in range(draw.randint(0, 4)))
    settings = {draw.choice(("TF_USE_LEGACY_KERAS", "TF_X")): draw.choice(("1", "", "x"))}
    return Side(text(4), text(4), versions, lock, settings, note=text(2))


@pytest.mark.parametrize("seed", range(8))
def test_any_lock_and_versions_are_shown_or_refused(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)  # noqa: S311 - no secret
    path = tmp_path / "results.jsonl"
    found = synthetic.results({LOOP: synthetic.exactly(0.0, 0.002, 4)})
    shown = 0
    for _ in range(25):
        sides = drawn_side(draw), drawn_side(draw)
        stored.write(path, replace(found, baseline=sides[0], candidates=sides[1:]))
        try:
            results = stored.read(path)
        except InputError:  # a number with thousands of digits
            continue
        text = table_text(results, decide(results))
        assert all(sign.isprintable() or sign in "\n\t" for sign in text)
        shown += 1
    assert shown > 10
