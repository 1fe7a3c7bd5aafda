"""Limits of the JSON that is read."""

from __future__ import annotations

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
