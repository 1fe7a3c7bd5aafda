"""Damaged inputs: half of them mutations of valid ones, at the level of bytes and of JSON."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

SHORT, LONG = 200, 10_000
LONGEST_REFUSAL = 3_000  # characters
SECONDS = 30  # of one input: far above a second, far below a hang

_SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "NaN",
            "Infinity",
            "-Infinity",
            0,
            -1,
            1e308,
            5e-324,
            10**400,
            "baseline",
            "\x00\ud7ff",
        ]
    ),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
_Path = tuple[str | int, ...]


def _paths(content: Any, here: _Path = ()) -> list[_Path]:
    """Returns the paths to all values within parsed JSON."""
    found = [here]
    if isinstance(content, dict):
        for key, value in content.items():
            found += _paths(value, (*here, key))
    if isinstance(content, list):
        for place, value in enumerate(content[:6]):
            found += _paths(value, (*here, place))
    return found


def _changed(content: Any, path: _Path, value: Any) -> Any:
    """Returns a copy with another value at a path."""
    if not path:
        return value
    first, *others = path
    copy = content.copy()
    copy[first] = _changed(content[first], tuple(others), value)
    return copy


@st.composite
def changed_json(draw: st.DrawFn, content: Any) -> Any:
    """Draws parsed JSON with one to three values replaced, removed or doubled."""
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_paths(content)))
        how = draw(st.sampled_from(["replace", "replace", "remove", "double", "move"]))
        parent: Any = content
        for step in path[:-1]:
            parent = parent[step]
        if how == "replace" or not path:
            content = _changed(content, path, draw(VALUES))
        elif how == "move":
            other: Any = content
            for step in draw(st.sampled_from(_paths(content))):
                other = other[step]
            content = _changed(content, path, other)
        else:
            copy = parent.copy()
            key: Any = path[-1]
            if how == "remove":
                del copy[key]
            elif isinstance(copy, list):
                copy.insert(key, copy[key])
            else:
                copy[draw(st.text(max_size=6))] = copy[key]
            content = _changed(content, path[:-1], copy)
        if not isinstance(content, dict | list):
            break
    return content


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Draws bytes with one to four pieces replaced, removed, doubled, moved or cut off."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([1, 1, 2, 4, 16, 256, len(content)]))
        piece = content[start : start + length]
        how = draw(st.sampled_from(["replace", "insert", "remove", "double", "cut"]))
        new = draw(st.binary(max_size=8)) if how in ("replace", "insert") else b""
        if how == "cut":
            content = content[:start]
        elif how == "insert":
            content = content[:start] + new + content[start:]
        else:
            middle = {"replace": new, "remove": b"", "double": piece * 2}[how]
            content = content[:start] + middle + content[start + length :]
    return content


@st.composite
def _changed_lines(draw: st.DrawFn, content: bytes) -> bytes:
    """Draws JSON lines with a changed line."""
    lines = content.splitlines()
    place = draw(st.integers(0, len(lines) - 1))
    with suppress(ValueError, OverflowError, UnicodeEncodeError):
        lines[place] = json.dumps(draw(changed_json(json.loads(lines[place])))).encode()
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), lines[place])
    return b"\n".join(lines) + b"\n"


def damaged(valid: Sequence[bytes], *, is_json: bool = False) -> st.SearchStrategy[bytes]:
    """Draws inputs: arbitrary bytes for a half, otherwise mutations of valid ones."""
    free = st.one_of(
        st.binary(max_size=400),
        st.text(max_size=400).map(lambda text: text.encode("utf-8", "surrogatepass")),
        VALUES.map(_json_text),
    )
    mutated = [changed_bytes(content) for content in valid]
    if is_json:
        mutated += 2 * [_changed_lines(content) for content in valid]
    # Without `flatmap`, all branches of both would be equally likely.
    return st.booleans().flatmap(lambda is_free: free if is_free else st.one_of(*mutated))


def _json_text(value: Any) -> bytes:
    try:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    except (ValueError, OverflowError):
        return b"{}"


def fuzz(
    inputs: st.SearchStrategy[Any],
    use: Callable[[Any], None],
    refusals: type[Exception] | tuple[type[Exception], ...],
    count: int,
    folder: Path,
    *,
    may_write: Collection[str] = (),
) -> Counter[str]:
    """Uses every input; it is valid, or refused by the project's own error in one line.

    Args:
        inputs: strategy of the inputs.
        use: function that reads an input, and everything that a command does with it then.
        refusals: the project's errors.
        count: number of inputs.
        folder: working directory; it must keep its files.
        may_write: names that `use` itself writes in `folder`.

    Returns:
        The numbers of `accepted` and `refused` inputs.
    """
    counts: Counter[str] = Counter()

    @settings(
        max_examples=count,
        deadline=timedelta(seconds=SECONDS),
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def run(content: Any) -> None:
        told = _refusal(content)
        counts["accepted" if told is None else "refused"] += 1
        if told is not None:
            assert told
            assert len(told) < LONGEST_REFUSAL, told[:300]
            assert "\n" not in told, told

    def _refusal(content: Any) -> str | None:
        try:
            use(content)
        except refusals as error:
            return str(error)
        return None

    before = set(os.listdir(folder)) | set(may_write)
    here = Path.cwd()
    os.chdir(folder)
    try:
        run()
    finally:
        os.chdir(here)
    assert set(os.listdir(folder)) <= before
    return counts


def share(counts: Counter[str]) -> float:
    """Returns the share of accepted inputs, in [0, 1]."""
    total = sum(counts.values())
    return counts["accepted"] / total if total else math.nan
