"""HTML from the templates in this folder, which escape all values, and Markdown.

A report is one file, with its script, style and pictures. Jenkins serves pages in a sandbox that
blocks these: `default-src 'none'; img-src 'self'; style-src 'self'`. Beside the report therefore
stands a plain page without script:

<name>-plain/index.html      head and tests of the report `<name>.html`
<name>-plain/report.css      its style
<name>-plain/picture-1.png   its pictures; no name comes from a result
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.verdicts.outcomes import NOT_THERE
from bench.verdicts.sequential import Verdict
from lenet5.printable import printable
from lenet5.run_directory import writing, written_whole

if TYPE_CHECKING:
    import pytest

LONG = 100  # characters; longer machine properties are folded
UNLISTED = ("", "warnings", "deselected")
"""Categories of pytest's terminal that are no results of tests; "": set-ups and tear-downs."""

_STYLE = re.compile(r"<style>\n(.*?)</style>\n", re.DOTALL)
_PICTURE = re.compile(r'src="data:image/png;base64,([^"]*)"')
_OWN = re.compile(r"index\.html|report\.css|picture-\d+\.png")


class Picture(NamedTuple):
    """A PNG file and its caption."""

    png: bytes
    caption: str


class Ran(NamedTuple):
    """A test's id, duration, and output if it did not pass."""

    name: str
    seconds: float
    text: str


def render(template: str, **values: object) -> str:
    """Renders a head or page from a template, with inline style and no external resources."""
    return _TEMPLATES.get_template(template).render(values)


def page_html(title: str, head: str, note: str = "") -> str:
    """Returns a whole page around a note and a head that `render` already escaped."""
    return render("page.html", title=title, head=head, note=note)


def markdown(title: str, text: str) -> str:
    """Returns a page in GitHub's Markdown: a heading, then a text as a terminal shows it."""
    text = printable(text)
    # The last two parts: GitHub makes links of bare addresses too.
    marks = r"[\\`*_\[\]<>&~#|!@$]|:(?=//)|(?<=www)\."
    heading = re.sub(marks, r"\\\g<0>", printable(" ".join(title.split())), flags=re.IGNORECASE)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)  # no run of backticks in a label ends the block
    return f"## {heading}\n\n{fence}text\n{text}\n{fence}\n"


def plain_page(report: Path) -> Path:
    """Returns the path of a report's plain page."""
    return report.parent / f"{report.stem}-plain" / "index.html"


def plain_note(report: Path) -> str:
    """Returns a note with a link to the plain page; only a blocked script or style shows it."""
    page = plain_page(report)
    return render("blocked.html", link=f"{quote(page.parent.name)}/{page.name}")


def clear_plain(report: Path) -> None:
    """Removes a plain page of an earlier session, and no file of others.

    Raises:
        InputError: a file cannot be removed.
    """
    folder = plain_page(report).parent
    with writing(folder):
        if folder.is_symlink():  # it would lead elsewhere
            folder.unlink()
        for path in folder.iterdir() if folder.is_dir() else ():
            if _OWN.fullmatch(path.name):
                path.unlink()


def write_plain(
    report: Path,
    title: str,
    head: str,
    tests: Sequence[tuple[str, Sequence[Ran]]] = (),
) -> None:
    """Writes the plain page of a report.

    Args:
        report: path of the report.
        title: title of both pages.
        head: head from `bench.report.pages.render`.
        tests: tests by outcome; see `ran_tests`.

    Raises:
        InputError: a file cannot be written.
    """
    clear_plain(report)
    page = plain_page(report)
    with writing(page.parent):
        page.parent.mkdir(parents=True, exist_ok=True)
    (style,) = _STYLE.findall(head)[:1] or [""]
    pictures = _PICTURE.findall(head)
    numbers = iter(range(1, len(pictures) + 1))
    head = _PICTURE.sub(lambda _: f'src="picture-{next(numbers)}.png"', _STYLE.sub("", head))
    html = render("plain.html", title=title, head=head, tests=tests)
    files = {f"picture-{n}.png": base64.b64decode(each) for n, each in enumerate(pictures, 1)}
    for name, content in {**files, "report.css": style.encode(), page.name: html.encode()}.items():
        with written_whole(page.parent / name) as partial:
            partial.write_bytes(content)


def ran_tests(
    stats: Mapping[str, Sequence[pytest.TestReport]],
) -> list[tuple[str, list[Ran]]]:
    """Returns the tests of a session by outcome, passed ones last.

    Args:
        stats: reports of pytest's terminal by outcome.
    """
    listed = [(outcome, reports) for outcome, reports in stats.items() if outcome not in UNLISTED]
    listed.sort(key=lambda item: item[0] == "passed")
    return [(outcome, [_row(report) for report in reports]) for outcome, reports in listed]


def _row(report: pytest.TestReport) -> Ran:
    when = getattr(report, "when", "collect")
    name = report.nodeid if when in ("call", "collect") else f"{report.nodeid}::{when}"
    seconds = getattr(report, "duration", 0.0)
    if report.passed:
        return Ran(name, seconds, "")
    sections = [f"{title}\n{text}" for title, text in report.sections]
    return Ran(name, seconds, "\n\n".join([report.longreprtext, *sections]).strip())


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
