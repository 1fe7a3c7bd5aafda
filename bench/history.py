"""History: all ledgers of a folder as one page, its gate, and the calibration of change points."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from bench.outputs import Output
from bench.records import accepted, results
from bench.records.archive import read_archive
from bench.report.history.page import history_html, news_text
from bench.report.versions import version_key
from bench.verdicts.history import calibration, penalties
from bench.verdicts.history.news import gate, news_of
from bench.verdicts.history.series import history_of
from bench.verdicts.outcomes import Exit
from lenet5.errors import InputError
from lenet5.printable import printable

DEFAULT_OUT = Path("history.html")
LENGTHS = (8, 10, 12, 16, 20, 30, 45, 60, 90, 120, 180, 240, 480, 960)  # runs of a series
_LONG = 90  # runs; long series take long, so half as many are drawn
_SERIES = 4000  # drawn per bank


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `python -m bench history`."""
    command.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help="archive: ledgers at any depth"
    )
    command.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_OUT,
        metavar="FILE.html",
        help=f"the page; default: {DEFAULT_OUT}",
    )
    command.add_argument(
        "--gate",
        action="store_true",
        help="exit 1 if the newest level of a gated series is new, worse and not accepted",
    )
    command.add_argument(
        "--accepted",
        type=Path,
        metavar="FILE.toml",
        help=f"accepted steps; default: {accepted.DEFAULT}, if it is there",
    )
    command.add_argument(
        "--calibrate",
        type=Path,
        metavar="EQUAL.jsonl",
        help="print penalties of change points for a ledger of equal environments instead",
    )


def run(options: argparse.Namespace) -> int:
    """Writes the page, prints what is new, and returns the exit status of the gate.

    Raises:
        InputError: the folder, the accepted steps or the page cannot be read or written, or the
            library of change points is missing.
    """
    if options.calibrate is not None:
        return _calibrate(options)
    if options.folder is None:
        raise InputError("history: name the folder of the ledgers")
    output = Output.checked(options.out)
    path = options.accepted or Path(accepted.DEFAULT)
    entries = accepted.read_accepted(path) if options.accepted or path.exists() else []
    found = tqdm(read_archive(options.folder), unit="file", disable=None, leave=False)
    history = history_of(found, version_key)
    if not history.runs:
        omitted = history.omitted[0]
        raise InputError(f"{options.folder}: no run can be read; {omitted.path}: {omitted.reason}")
    news = news_of(history, entries, str(path))
    output.write(history_html(history, news, accepted=path.name))
    print(printable(news_text(history, news)))
    for omitted in history.omitted:
        print(printable(f"left out: {omitted.path}: {omitted.reason}"))
    print(printable(str(options.out)))
    if not options.gate:
        return Exit.PASSED
    status, reason = gate(news)
    print(printable(reason))
    return status


def _calibrate(options: argparse.Namespace) -> int:
    """Prints the table of `bench.verdicts.history.penalties`, and hits of planted steps."""
    if options.folder is not None or options.gate:
        raise InputError("--calibrate stands alone")
    banks = calibration.bank_of(results.read(options.calibrate))
    for runs in LENGTHS:
        row = calibration.calibrate(
            banks,
            runs,
            series=_SERIES // 2 if runs >= _LONG else _SERIES,
            rate=penalties.RATE,
            seed=0,
        )
        print(calibration.line(row), flush=True)
    for name, bank in banks.items():
        for runs in (30, 120):
            hits = calibration.planted(bank, runs, 1.03, series=1000, seed=1)
            print(
                f"{name}, {runs} runs, a step of 3 %: found in {hits.found} of {hits.series}, in "
                f"its range {hits.within}, with another step {hits.extra}",
                flush=True,
            )
    return Exit.PASSED
