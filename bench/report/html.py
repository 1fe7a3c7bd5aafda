"""Pieces of HTML pages, escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape


def table_html(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False
) -> str:
    """A table whose first column holds row headings; cells are escaped here."""
    lines = [f'<table class="{"numbers" if numbers else "facts"}">']
    if header:
        lines.append("<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in header) + "</tr>")
    for heading, *cells in rows:
        texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr><th>{escape(heading)}</th>{texts}</tr>")
    return "\n".join([*lines, "</table>"])


def figure_html(png: bytes, caption: str) -> str:
    """A picture that is part of the page, at natural size; the caption is escaped here."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    words = escape(caption)
    return f'<figure><figcaption>{words}</figcaption><img alt="{words}" src="{source}"></figure>'


def message_html(message: str) -> str:
    """The head of a page that has nothing else to show."""
    return f'<style>{CSS}</style><p class="headline">{escape(message)}</p>'


def text_of(value: object) -> str:
    """A value in words; what is missing is said to be not known."""
    if value is None:
        return "not known"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return str(value)


# pytest-html's own rules are for 12 px grey text; its table of test tools moves to the end.
CSS = """
body { display: flex; flex-direction: column; max-width: 1080px; min-width: 0;
  margin: 2rem auto 4rem; padding: 0 1.5rem; color: #24292f; background: #fff;
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 26px; margin: 0; color: #24292f; }
h1 + p { margin: 0 0 1rem; color: #57606a; }
h2 { font-size: 18px; margin: 2rem 0 .6rem; color: #24292f; }
p, a { color: inherit; }
.summary__data > h2 { display: none; }
.headline { font-size: 20px; font-weight: 600; margin: .5rem 0; }
.headline::first-letter { text-transform: uppercase; }
h3 { font-size: 16px; margin: 1.6rem 0 .6rem; color: #24292f; }
.note { padding: .4rem .8rem; border-left: 4px solid #d55e00; background: #fff4ec; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr));
  gap: 0 3rem; }
#lenet5-report table { border-top: 1px solid #d0d7de; }
#lenet5-report th, #lenet5-report td { padding: .25rem 1.5rem .25rem 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid #d0d7de; font-variant-numeric: tabular-nums; }
#lenet5-report th { font-weight: 400; color: #57606a; white-space: nowrap; }
#lenet5-report .numbers th + th, #lenet5-report .numbers td { text-align: right;
  padding: .25rem 0 .25rem 2rem; }
#lenet5-report td { overflow-wrap: anywhere; }
#lenet5-report .failed, #lenet5-report .error { color: #b30000; font-weight: 600; }
figure { margin: 1rem 0 1.5rem; }
figcaption { color: #57606a; }
figure img { display: block; max-width: 100%; height: auto; }
.controls { margin-bottom: .6rem; }
.logwrapper, .logwrapper .logexpander { background: #f6f8fa; }
.logwrapper .logexpander { margin-left: calc(100% - 100px); }
#results-table { font-size: 13px; color: #24292f; }
#results-table td { overflow-wrap: anywhere; }
#environment-header, #environment { order: 1; align-self: flex-start; }
#environment-header h2 { font-size: 0; }
#environment-header h2::before { content: "Test tools"; font-size: 18px; }
"""
