"""HTML from the templates in this folder, which escape all values, and Markdown."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.verdicts.outcomes import NOT_THERE
from bench.verdicts.sequential import Verdict
from lenet5.printable import printable

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
    text = printable(text)
    # The last two parts: GitHub makes links of bare addresses too.
    marks = r"[\\`*_\[\]<>&~#|!@$]|:(?=//)|(?<=www)\."
    heading = re.sub(marks, r"\\\g<0>", printable(" ".join(title.split())), flags=re.IGNORECASE)
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


def _shown(value: object) -> object:
    """Makes a value printable before it is escaped; HTML of a macro is so already."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(base64=_base64, verdict_in=_verdict_in, printable=printable)
_TEMPLATES.globals["LONG"] = LONG
