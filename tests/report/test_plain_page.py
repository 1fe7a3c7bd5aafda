"""The plain page has the whole report without script, and no file leaves its folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.records import results as stored
from bench.report import charts
from bench.report.pages import Picture, clear_plain, page_html, plain_note, render, write_plain
from bench.report.session import PLOTS
from bench.report.tables import Table
from tests import synthetic
from tests.report.test_hostile_names import HOSTILE, check_harmless, check_visible
from tests.report.test_session import Run, plots, run, run_directory  # noqa: F401 - fixtures
from tests.synthetic import LOOP

FAILING = """
    import sys
    def test_fails():
        print("said <b> before")
        assert 1 == 2, "unequal <i>"
    def test_passes(): pass
    """
OUTSIDE = ("../../outside", "/outside", "..", ".", "", "a/../../outside", "x" * 300, "\0", "ü")


def plain_of(pytester: pytest.Pytester) -> Path:
    return pytester.path / "new" / "folder" / "report-plain"


def test_a_session_has_a_plain_page_with_its_pictures_and_tests(
    run: Run,  # noqa: F811
    run_directory: Path,  # noqa: F811
    pytester: pytest.Pytester,
) -> None:
    result, page = run(FAILING, run_directory=run_directory)
    assert result.ret == 1
    folder = plain_of(pytester)
    text = (folder / "index.html").read_text(encoding="utf-8")
    check_harmless(text.replace('<link rel="stylesheet" href="report.css">', ""))
    assert "data:" not in text
    assert "<style" not in text
    pictures = re.findall(r'src="(picture-\d+\.png)"', text)
    for name, file in zip(PLOTS, pictures, strict=True):
        assert (folder / file).read_bytes() == (run_directory / "plots" / name).read_bytes()
    assert ".report figure" in (folder / "report.css").read_text(encoding="utf-8")
    for words in ("1 failed", "::test_fails</th>", "unequal &lt;i&gt;", "said &lt;b&gt; before"):
        assert words in text
    assert text.index("1 failed</summary>") < text.index("1 passed</summary>")
    assert '<a href="report-plain/index.html">' in page.text


def test_only_a_blocked_script_or_style_shows_the_note(run: Run) -> None:  # noqa: F811
    """pytest-html's script adds a body to the table, and the report's style hides the note then."""
    _, page = run(FAILING)
    rule = "body:has(#results-table > tbody) .blocked { display: none; }"
    assert rule in page.styles
    visible = re.sub(r"<template.*?</template>", "", page.text, flags=re.DOTALL)
    assert "<tbody" not in visible.partition("<script>")[0]
    note = page_html("title", "", plain_note(Path("a b#.html")))
    assert '<body class="static">' in note
    assert 'href="a%20b%23-plain/index.html"' in note


def head_with(count: int) -> str:
    """A head with pictures."""
    pictures = [Picture(bytes([number]), HOSTILE) for number in range(count)]
    return render(
        "accuracy.html",
        **dict.fromkeys(("title", "findings", "candidates", "facts"), ""),
        overview=Table((HOSTILE,), [[HOSTILE]]),
        pictures=pictures,
    )


def test_names_of_files_come_from_no_result(tmp_path: Path) -> None:
    write_plain(tmp_path / "r.html", HOSTILE, head_with(3))
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    names = ("index.html", "report.css", "picture-1.png", "picture-2.png", "picture-3.png")
    assert files == {f"r-plain/{name}" for name in names}
    assert (tmp_path / "r-plain" / "picture-2.png").read_bytes() == b"\1"
    check_visible((tmp_path / "r-plain" / "index.html").read_text(encoding="utf-8"))


def test_a_planted_link_is_replaced_and_its_target_is_kept(tmp_path: Path) -> None:
    report, outside = tmp_path / "reports" / "r.html", tmp_path / "outside"
    folder = tmp_path / "reports" / "r-plain"
    folder.mkdir(parents=True)
    outside.write_text("mine")
    for name in ("index.html", "report.css", "picture-1.png"):
        (folder / name).symlink_to(outside)
    write_plain(report, "title", head_with(1))
    assert outside.read_text() == "mine"
    assert not any(path.is_symlink() for path in folder.iterdir())


def test_a_planted_folder_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "index.html").write_text("mine")
    (tmp_path / "r-plain").symlink_to(outside)
    write_plain(tmp_path / "r.html", "title", head_with(1))
    assert [path.name for path in outside.iterdir()] == ["index.html"]
    assert (outside / "index.html").read_text() == "mine"
    assert (tmp_path / "r-plain" / "index.html").is_file()


def test_an_earlier_page_is_removed_and_other_files_are_kept(tmp_path: Path) -> None:
    write_plain(tmp_path / "r.html", "title", head_with(5))
    (tmp_path / "r-plain" / "mine.txt").touch()
    clear_plain(tmp_path / "r.html")
    assert [path.name for path in (tmp_path / "r-plain").iterdir()] == ["mine.txt"]


def test_a_plain_page_that_cannot_be_written_is_reported(
    run: Run,  # noqa: F811
    pytester: pytest.Pytester,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The report and the exit status stay as they are."""
    plain_of(pytester).parent.mkdir(parents=True)
    plain_of(pytester).touch()
    result, page = run(FAILING)
    assert result.ret == 1
    assert page.cells
    said = capfd.readouterr().err + result.stderr.str()
    assert "ERROR: new/folder/report-plain: cannot be written" in said


# `python -m bench report`


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Writes the report of results with hostile names of workloads; returns its folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    workloads = {name: synthetic.terms() for name in (LOOP, *OUTSIDE)}
    values = dict.fromkeys(workloads, synthetic.exactly(0.0, 0.002, 4))
    found = synthetic.results(values, workloads)
    found = replace(found, candidates=(found.candidates[0],) * 2)
    stored.write(tmp_path / "results.jsonl", found)
    out = tmp_path / "some" / "folder"

    def write() -> Path:
        assert main(["report", str(tmp_path / "results.jsonl"), "--out", str(out)]) == 0
        return out

    return write


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the drawing of charts."""
    monkeypatch.setattr(charts, "png_of", lambda *_, **__: b"png")


@pytest.mark.usefixtures("quick")
def test_a_workloads_name_stays_in_the_folder(report: Callable[[], Path], tmp_path: Path) -> None:
    out = report()
    written = {path for path in tmp_path.rglob("*.png") if out not in path.parents}
    assert not written
    pictures = [path.name for path in out.glob("*.png")]
    assert len(pictures) == len(OUTSIDE) + 1
    assert "train_step-loop-b128.png" in pictures
    assert all(re.fullmatch(r"[\w-]{1,100}\.png", name) for name in pictures)


@pytest.mark.usefixtures("quick")
def test_a_planted_link_in_the_reports_folder_is_replaced(
    report: Callable[[], Path], tmp_path: Path
) -> None:
    outside, out = tmp_path / "outside", tmp_path / "some" / "folder"
    outside.write_text("mine")
    out.mkdir(parents=True)
    names = ("report.html", "summary.md", "results.jsonl", "train_step-loop-b128.png")
    for name in names:
        (out / name).symlink_to(outside)
    report()
    assert outside.read_text() == "mine"
    assert not any((out / name).is_symlink() for name in names)
