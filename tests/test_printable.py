"""Text of others neither moves a terminal's cursor nor shows a password."""

from __future__ import annotations

import pytest

from lenet5.printable import all_printable, printable, without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2.21.0 + Keras 3.15.1", "2.21.0 + Keras 3.15.1"),
        ("größer, 日本 ↓", "größer, 日本 ↓"),
        ("one\n\ttwo", "one\n\ttwo"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\rb\x08\x7f\x9b", r"a\rb\x08\x7f\x9b"),
        ("a\u202eb\u200bc\u2028", r"a\u202eb\u200bc\u2028"),
        ("\ud800", r"\ud800"),
        ("\0", r"\x00"),
        ("one\n  ::set-output name=a::b", "one\n  \\x3a:set-output name=a::b"),
        ("::error::x", r"\x3a:error::x"),
        (
            "a ##[group]b ##vso[task]c ##teamcity[x]",
            r"a \x23#[group]b \x23#vso[task]c \x23#teamcity[x]",
        ),
        ("## heading, tests/a.py::test_b", "## heading, tests/a.py::test_b"),
    ],
)
def test_an_invisible_character_becomes_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    shown.encode("utf-8")


def test_every_text_of_parsed_json_becomes_printable() -> None:
    value = {"\x1b": ["\x07", 1, None, {"a": "\x00"}]}
    assert all_printable(value) == {r"\x1b": [r"\x07", 1, None, {"a": r"\x00"}]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@host/x", "https://****@host/x"),
        ("a git+https://token@host b ssh://u:p@w@h", "a git+https://****@host b ssh://****@h"),
        ("https://host/@scope/name?a=b@c", "https://host/@scope/name?a=b@c"),
        ("keras==3.15.1", "keras==3.15.1"),
    ],
)
def test_a_url_loses_its_user_and_password(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
