"""Findings, tables and reports of stored results: `python -m bench verdict`, `show`, `report`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import accuracy, speed
from bench.bisection.flow import write_page
from bench.bisection.stored import sections_of
from bench.environments.builds import default_cache
from bench.environments.request import parse_request
from bench.plans.seeds import check_margin, default_margin
from bench.records import results
from bench.records.blocks import Results
from bench.records.sides import device_of
from bench.records.together import together, together_trainings
from bench.records.trainings import (
    Comparison,
    Trainings,
    holds_trainings,
    read_reference,
    read_with_terms,
    write_trainings,
)
from bench.report.accuracy import accuracy_html, accuracy_table, headline
from bench.report.bisection.page import bisection_text
from bench.report.comparison import (
    comparison_html,
    comparison_pictures,
    summary_text,
    table_text,
)
from bench.report.pages import markdown, page_html, plain_note, write_plain
from bench.report.tables import reference_table
from bench.verdicts import speed_error_rates
from bench.verdicts.accuracy import LOOKS, decide_all, pairs_seeds
from bench.verdicts.collection import condensed
from bench.verdicts.outcomes import Exit, exit_code
from bench.verdicts.speed import decide
from lenet5.data import Dataset
from lenet5.errors import InputError
from lenet5.run_directory import writing, written_whole

_SPEED = "LeNet-5 in TensorFlow: training speed"
_ACCURACY = "LeNet-5 in TensorFlow: accuracy over seeds"
REFERENCE = "reference"
"""Value of `--baseline` for the stored reference."""


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> list[argparse.ArgumentParser]:
    """Adds the parsers of `verdict`, `show` and `report`, and returns them."""
    added = []
    for name, told in (
        ("verdict", "findings of results files; their exit status"),
        ("show", "the table of results files"),
        ("report", "writes report.html, report-plain, summary.md, results.jsonl and plots"),
    ):
        command = commands.add_parser(name, help=told)
        command.add_argument("files", type=Path, nargs="+", metavar="FILE.jsonl")
        command.add_argument(
            "--baseline",
            metavar="REQ",
            help=f"of seeds without a comparison: one of their environments, or {REFERENCE}",
        )
        command.add_argument(
            "--accuracy-margin",
            type=float,
            metavar="POINTS",
            help="of seeds without a comparison; default: of the recipe's reference",
        )
        if name == "report":
            command.add_argument("--out", type=Path, required=True, metavar="DIR")
        added.append(command)
    return added


def findings(options: argparse.Namespace) -> tuple[list[str], Exit]:
    """Returns the findings of results files, and their exit status."""
    if stages := sections_of(options.files):
        return [section.finding for section in stages], stages[0].status
    if _is_of_trainings(options):
        outcomes = accuracy.outcomes_of(*_comparison(options))
        notes = []
    else:
        found = _speed(options)
        outcomes = list(speed.outcomes_of(found).values())
        notes = [] if found.complete else ["the experiment is incomplete"]
    lines = [f"{outcome.word}: {outcome.finding}" for outcome in outcomes]
    return [*lines, *notes], exit_code(outcomes)


def table(options: argparse.Namespace) -> str:
    """Returns the table of results files."""
    if stages := sections_of(options.files):
        return str(bisection_text(stages))
    if not _is_of_trainings(options):
        found = _speed(options)
        return table_text(found, decide(found))
    sets, terms = _trainings(options)
    if terms is None and options.baseline is None:
        return "\n\n".join(f"{item.side.label}\n{reference_table(item)}" for item in sets)
    sets, terms = _comparison(options)
    return str(accuracy_table(sets, decide_all(sets, terms)))


def report(options: argparse.Namespace, load: Callable[[], Dataset]) -> None:
    """Writes the report of results files into a folder.

    Args:
        options: `files` and `out`.
        load: returns MNIST, for the pictures of images.

    Raises:
        InputError: a file cannot be read or written, or an input would be replaced.
    """
    if stages := sections_of(options.files):
        with writing(options.out):
            options.out.mkdir(parents=True, exist_ok=True)
        write_page(options.out, stages)
        return
    kept = options.out / "results.jsonl"
    if any(path.resolve() == kept.resolve() for path in options.files):
        raise InputError(f"{kept} is an input and would be replaced: choose another --out")
    if _is_of_trainings(options):
        sets, terms = _comparison(options)
        verdicts = decide_all(sets, terms)
        head = accuracy_html(sets, verdicts, load().test, paired=terms.paired)
        lines, _ = findings(options)
        text = "\n".join([*lines, "", str(accuracy_table(sets, verdicts))])
        _write(options.out, _ACCURACY, head, markdown(headline(sets, verdicts), text), {})
        write_trainings(kept, sets, terms)
        return
    found = _speed(options)
    decisions = decide(found)
    alarms = speed_error_rates.false_alarms(found, default_cache(os.environ))
    head = comparison_html(found, decisions, false_alarms=alarms)
    summary = summary_text(found, decisions, false_alarms=alarms)
    _write(options.out, _SPEED, head, summary, comparison_pictures(found, decisions))
    results.write(kept, condensed(found))


def _write(out: Path, title: str, head: str, summary: str, pictures: dict[str, bytes]) -> None:
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    page = page_html(title, head, plain_note(out / "report.html"))
    texts = {"report.html": page.encode(), "summary.md": summary.encode()}
    for name, content in {**texts, **pictures}.items():
        # As a whole: a link of this name is replaced, its target is not.
        with written_whole(out / name) as partial:
            partial.write_bytes(content)
    write_plain(out / "report.html", title, head)


def _is_of_trainings(options: argparse.Namespace) -> bool:
    """Returns whether the files hold trainings.

    Raises:
        InputError: some do and some do not, or options of trainings are given without any.
    """
    kinds = [holds_trainings(path) for path in options.files]
    if any(kinds) and not all(kinds):
        raise InputError("results of speed and of accuracy cannot be combined")
    if not any(kinds) and (options.baseline, options.accuracy_margin) != (None, None):
        raise InputError("--baseline and --accuracy-margin belong to results of accuracy")
    return all(kinds)


def _speed(options: argparse.Namespace) -> Results:
    return together([results.read(path) for path in options.files])


def _trainings(options: argparse.Namespace) -> tuple[list[Trainings], Comparison | None]:
    return together_trainings([read_with_terms(path) for path in options.files])


def _comparison(options: argparse.Namespace) -> tuple[list[Trainings], Comparison]:
    """Returns the sets of all files with their terms; without such, those of the options.

    Raises:
        InputError: the files cannot be combined, or the options are missing or do not fit.
    """
    sets, terms = _trainings(options)
    if terms is not None:
        if (options.baseline, options.accuracy_margin) != (None, None):
            told = "holds a comparison: remove --baseline and --accuracy-margin"
            raise InputError(f"{options.files[0]}: {told}")
        return sets, terms
    if options.baseline is None:
        told = f"holds seeds without a comparison: add --baseline REQ, or --baseline {REFERENCE}"
        raise InputError(f"{options.files[0]}: {told}")
    recipe, engine = sets[0].recipe, sets[0].engine
    margin = options.accuracy_margin
    if margin is None:
        margin = default_margin(recipe.name, engine)
    check_margin(margin)
    most = LOOKS[-1].blocks
    if options.baseline == REFERENCE:
        found = read_reference(recipe.name, engine, else_give="--baseline")
        side = replace(found.side, label=f"the reference ({found.side.label})")
        alike = device_of(found.machine) == device_of(sets[0].machine)
        paired = alike and pairs_seeds(engine) and len(found.seeds) >= most
        return [replace(found, side=side), *sets], Comparison(margin, paired, False, most)
    text = parse_request(options.baseline).text
    base = [item for item in sets if item.side.request == text]
    others = [item for item in sets if item.side.request != text]
    if len(base) != 1 or not others:
        there = ", ".join(item.side.request for item in sets)
        raise InputError(f"--baseline {text}: the files hold {there}; name one of several")
    return [*base, *others], Comparison(margin, pairs_seeds(engine), True, most)
