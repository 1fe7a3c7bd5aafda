"""Limits of the JSON that is read, and text of such files in messages."""

from __future__ import annotations

from lenet5.printable import printable

MOST_JSON_BYTES = 2**24  # a history of 50,000 epochs
DEEPEST_JSON = 30


def is_deeper(content: object, most: int) -> bool:
    """Returns whether parsed JSON has more than `most` levels of lists and objects."""
    here = [content]
    for _ in range(most):
        here = [
            item
            for one in here
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, dict | list)
        ]
        if not here:
            return False
    return True


def in_one_line(text: object, most: int = 500) -> str:
    """Returns a printable text without line breaks, of at most `most` characters.

    Text of a damaged file or of another process may have both.
    """
    shown = printable(" ".join(str(text).split()))
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
