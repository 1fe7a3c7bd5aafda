"""The stages of a walk in turn: releases, nightly builds, packages; and the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.bisection.stages import first_stage, nightly_stage, package_stage
from bench.environments.axes import Level
from bench.environments.builds import build
from bench.environments.request import parse_request
from bench.records.stages import GIVEN, PACKAGES, VERSIONS, Stage
from bench.report.bisection.page import Section, bisection_html, bisection_text, headline
from bench.report.pages import markdown, page_html, plain_note, write_plain
from lenet5.errors import InputError
from lenet5.run_directory import writing, written_whole

_TITLE = "LeNet-5 in TensorFlow: bisection"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ends:
    """Ends of a walk.

    Attributes:
        good: request of the good environment.
        bad: request of the bad environment.
        levels: requests between them, in order; empty: the index tells the releases.
        has_nightlies: whether nightly builds follow the releases.
    """

    good: str
    bad: str
    levels: tuple[str, ...]
    has_nightlies: bool


@dataclass(frozen=True)
class Measured:
    """A measured stage.

    Attributes:
        section: the stage as it is shown.
        step: levels before and after its largest step; None if none is verified.
    """

    section: Section
    step: tuple[Level, Level] | None


class Measuring(Protocol):
    """What is watched: speed, accuracy or numerics."""

    def stored(self, path: Path) -> Stage | None:
        """Returns the stage in a ledger; None without one."""

    def measure(self, stage: Stage, path: Path, show: Callable[[Section, str], None]) -> Measured:
        """Measures a stage to its end, or goes on with its ledger.

        Args:
            stage: environments and changes.
            path: ledger of the stage.
            show: receives the stage so far, and a line of progress.
        """


def follow(ends: Ends, measuring: Measuring, folder: Path, cache: Path, say: Say) -> list[Section]:
    """Measures all stages, and writes the page after every block.

    Returns:
        The stages.

    Raises:
        InputError: the folder holds another walk, or a file cannot be written.
        EnvironmentProblem: good or bad cannot be built or measured, or an index not read.
        KeyboardInterrupt: after the last block was stored.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    done: list[Section] = []
    path = folder / "stage-1.jsonl"
    stage: Stage | None = _first(ends, measuring.stored(path), folder)
    while stage is not None:
        before = tuple(done)

        def show(now: Section, line: str, before: Sequence[Section] = before) -> None:
            say(line)
            write_page(folder, [*before, now])

        say(f"stage {len(done) + 1}: {len(stage.places)} environments, {stage.kind}")
        found = measuring.measure(stage, path, show)
        done.append(found.section)
        say(found.section.finding)
        write_page(folder, done)
        path = folder / f"stage-{len(done) + 1}.jsonl"
        stage = measuring.stored(path) or _following(ends, stage, found, cache, say)
    return done


def _first(ends: Ends, stored: Stage | None, folder: Path) -> Stage:
    """Returns the first stage: that of an earlier session, since an index grows."""
    good, bad = parse_request(ends.good), parse_request(ends.bad)
    if stored is None:
        return first_stage(good, bad, [parse_request(text) for text in ends.levels])
    if [stored.places[place].requests[0] for place in (0, stored.bad)] != [good.text, bad.text]:
        raise InputError(f"{folder}: holds a walk between other environments: choose another --out")
    between = tuple(place.requests[0] for place in stored.places[1:-1])
    if (ends.levels or stored.kind == GIVEN) and between != ends.levels:
        raise InputError(f"{folder}: holds a walk over other levels: choose another --out")
    return stored


def _following(ends: Ends, stage: Stage, found: Measured, cache: Path, say: Say) -> Stage | None:
    """Returns the stage within the largest step; None at the end of the walk."""
    if found.step is None or stage.kind == PACKAGES:
        return None
    before, after = found.step
    wants_nightlies = ends.has_nightlies and stage.kind == VERSIONS
    if wants_nightlies and (nightly := nightly_stage(before, after, stage.package)) is not None:
        return nightly
    good, bad = (build(level.request, cache, say=say) for level in found.step)
    return package_stage(good, bad, (before.name, after.name))


def write_page(folder: Path, sections: Sequence[Section]) -> None:
    """Writes report.html, its plain page and summary.md.

    Raises:
        InputError: a file cannot be written.
    """
    title = headline(sections)
    head = bisection_html(title, sections)
    path = folder / "report.html"
    texts = {
        path.name: page_html(_TITLE, head, plain_note(path)),
        "summary.md": markdown(title, bisection_text(sections)),
    }
    for name, text in texts.items():
        with written_whole(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    write_plain(path, _TITLE, head)
