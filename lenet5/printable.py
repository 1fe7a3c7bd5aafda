"""Text of others, made harmless for terminals and files."""

from __future__ import annotations

import re
from typing import Any

_KEPT = "\n\t"
# Lines of a log that servers obey: GitHub's `::name::`, and `##[name]` or `##vso[...]` of others.
_COMMANDS = re.compile(r"(?m)^(?P<before>[ \t]*):(?=:)|#(?=#(\[|vso\[|teamcity\[))")
_CREDENTIALS = re.compile(r"(?<=://)[^\s/?#'\"]*@")


def printable(text: str) -> str:
    r"""Returns a text with every invisible character but a blank, `\n` and `\t` as an escape.

    Control characters colour, move and rename a terminal; direction marks reorder letters; no file
    in UTF-8 holds half a surrogate pair. `\x1b` then stands for an escape character. The first sign
    of a command to a CI server is escaped too.
    """
    text = _COMMANDS.sub(_escaped, text)
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in _KEPT else sign.encode("unicode_escape").decode()
        for sign in text
    )


def in_one_line(text: str) -> str:
    r"""Returns `printable` text without line breaks: `\n` stands for one."""
    return printable(text.replace("\n", "\\n"))


def short_line(text: object, most: int = 500) -> str:
    """Returns `printable` text with single blanks, of at most `most` characters.

    Text of a damaged file or of another process may be long and have line breaks.
    """
    shown = printable(" ".join(str(text).split()))
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _escaped(command: re.Match[str]) -> str:
    return rf"{command['before']}\x3a" if command["before"] is not None else r"\x23"


def all_printable(value: Any) -> Any:
    """Returns parsed JSON with `printable` applied to every text, keys included."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): all_printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [all_printable(item) for item in value]
    return value


def without_credentials(text: str) -> str:
    """Returns a text with `****@` in place of user and password in its URLs."""
    return _CREDENTIALS.sub("****@", text)
