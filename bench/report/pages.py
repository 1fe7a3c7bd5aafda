"""HTML from the templates in this folder, which escape all values."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.verdicts.outcomes import NOT_THERE
from bench.verdicts.sequential import Verdict

LONG = 100  # characters; longer machine properties are folded


class Picture(NamedTuple):
    """A PNG file and its caption."""

    png: bytes
    caption: str


def render(template: str, **values: object) -> str:
    """Renders a head or page from a template, with inline style and no external resources."""
    return _TEMPLATES.get_template(template).render(values)


def page_html(title: str, head: str) -> str:
    """Returns a whole page around a head that `render` already escaped."""
    return render("page.html", title=title, head=head)


def markdown(title: str, text: str) -> str:
    """Returns a page in GitHub's Markdown: a heading, then a text as a terminal shows it."""
    heading = re.sub(r"[\\`*_\[\]<>&~#|!]", r"\\\g<0>", " ".join(title.split()))
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)  # no run of backticks in a label ends the block
    return f"## {heading}\n\n{fence}text\n{text}\n{fence}\n"


def message_html(message: str) -> str:
    """Returns the head of a report with a message only."""
    return render("message.html", message=message)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _verdict_in(cell: str) -> str:
    """CSS class for the verdict at the start or end of a cell; empty without one."""
    words = (*(verdict.value for verdict in Verdict), NOT_THERE)
    named = (word for word in words if cell.startswith(word) or cell.endswith(word))
    return next(named, "").lower().replace(" ", "-")


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(base64=_base64, verdict_in=_verdict_in)
_TEMPLATES.globals["LONG"] = LONG
