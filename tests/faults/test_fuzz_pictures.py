"""Damaged pictures: refused in one line, or read; a crash or a hang of a library is a failure."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lenet5.errors import InputError
from tests.faults.fuzz import LONG, SHORT, damaged, fuzz, share
from tests.faults.guarded import Reader

FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "BMP")
_SECONDS = 20.0


def picture(kind: str, side: int) -> bytes:
    """Returns a picture of a 7 of uneven darkness on light paper."""
    image = np.full((side, side), 230, np.uint8)
    top, left, right = side // 5, side // 4, 3 * side // 4
    image[top : top + side // 10, left:right] = np.linspace(20, 90, right - left)
    for row in range(top, 4 * side // 5):
        middle = right - (row - top) // 2
        image[row, middle - side // 10 : middle] = 40
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(SHORT // len(FORMATS), id="short"),
        pytest.param(LONG // len(FORMATS), id="long", marks=pytest.mark.faults),
    ],
)
@pytest.mark.parametrize("kind", FORMATS)
def test_pictures(
    kind: str, count: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    valid = [picture(kind, 28), picture(kind, 40)]
    with Reader(tmp_path, _SECONDS) as reader:
        for content in valid:
            reader.read(content)
        inputs = damaged(valid)
        counts = fuzz(inputs, reader.read, InputError, count, tmp_path, may_write=["picture"])
    for name in ("accepted", "refused"):
        record_property(name, counts[name])
    print(f"{kind}: {counts['accepted']} accepted, {counts['refused']} refused")
    assert share(counts) < 1
