"""Tables as data, and their only text writer; HTML pages show the same data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from bench.records.numerics import QUANTITIES, Mode, Quantities
from bench.records.trainings import Trainings
from bench.verdicts.accuracy_error_rates import Replays
from bench.verdicts.numerics import beyond, deviations, hold_mode, tolerances
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed_error_rates import Row, clopper_pearson
from lenet5.printable import printable

_VERDICTS = tuple(verdict.value for verdict in Verdict)


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the text has aligned columns.

    Attributes:
        header: names of the columns; may be empty.
        rows: cells by row; a short row is a heading for the rows below it.
        left: number of leading left-aligned columns, the others being right-aligned; None: all.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int | None = 1

    def __str__(self) -> str:
        lines = [self.header, *self.rows] if self.header else [*self.rows]
        # A line break within a cell would start another row.
        cells = [[printable(" ".join(cell.split())) for cell in line] for line in lines]
        columns = max(map(len, cells), default=0)
        left = columns if self.left is None else self.left
        sides = ["left" if column < left else "right" for column in range(columns)]
        text = tabulate(cells, tablefmt="plain", colalign=sides, disable_numparse=True)
        return "\n".join(line.rstrip() for line in text.splitlines())


def numerics_table(
    names: Sequence[str],
    found: Sequence[Quantities | str],
    truth: Quantities,
    modes: Sequence[tuple[Mode, Mode]] | None = None,
) -> Table:
    """Returns a table of each quantity's largest relative deviation.

    The quantities are logits, loss, each layer's gradients of kernel and bias, and the losses of
    50 steps. The last column compares a row with the last one above in the same mode, bit by bit;
    on a GPU only where operations are deterministic.

    Args:
        names: environment of each row.
        found: quantities of each row, or a reason without any.
        truth: true values.
        modes: mode of each row that was asked for, and the one in force; None: on the CPU, and
            without a column for it.
    """
    shown = [name.removeprefix("gradient ") for name in QUANTITIES]
    header = ["environment", *["mode"] * (modes is not None), *shown, "numerics"]
    rows = []
    before: dict[Mode, Quantities] = {}
    both = [(Mode(), Mode())] * len(names) if modes is None else modes
    for name, quantities, (asked, mode) in zip(names, found, both, strict=True):
        start = [name, *([] if modes is None else [mode.shown(asked)])]
        if isinstance(quantities, str):
            rows.append([*start, *[""] * len(QUANTITIES), quantities])
            continue
        off = deviations(quantities, truth)
        word = ""
        if mode in before and (mode.device == "cpu" or mode.deterministic_ops):
            word = "the same" if quantities == before[mode] else "changed"
        if hold_mode(asked, mode).wrong:
            word = "not the mode asked for"
        if beyond(off, tolerances(mode)):
            word = "beyond the tolerance"
        rows.append([*start, *(f"{off[quantity]:.1e}" for quantity in QUANTITIES), word])
        before[mode] = quantities
    return Table(header, rows, left=1 if modes is None else 2)


def self_check_table(rows: Sequence[Row]) -> Table:
    """Returns the share of each verdict by bank and manner; for runs with a 95 % interval."""

    def share(row: Row, verdict: Verdict) -> str:
        if row.manner != "runs":
            return f"{100 * row.share(verdict):.1f} %"
        low, high = clopper_pearson(row.counts[verdict], row.total)
        return f"{row.counts[verdict]} ({100 * low:.0f}-{100 * high:.0f} %)"

    cells = [
        [row.bank, f"{row.total} {row.manner}", str(row.blocks), *(share(row, v) for v in Verdict)]
        for row in rows
    ]
    return Table(("bank", "manner", "blocks", *_VERDICTS), cells, left=2)


def error_rates_table(replays: Mapping[str, Replays]) -> Table:
    """Returns the share of each accuracy verdict, one row per pair of files."""
    header = (
        *("candidate", "seeds of the baseline", "test", "seeds", "loses (points)", "deviation"),
        *("runs", *_VERDICTS, "seeds a run"),
    )
    rows = []
    for name, found in replays.items():
        total = sum(found.counts.values())
        rows.append(
            (
                *(name, "same" if found.beside else "different"),
                *("paired" if found.paired else "unpaired", str(found.pool)),
                *(f"{found.loss_points:.3f}", f"{found.deviation_points:.3f}", str(total)),
                *(f"{100 * found.counts[verdict] / total:.1f} %" for verdict in Verdict),
                f"{found.mean_seeds:.1f}",
            )
        )
    return Table(header, rows, left=3)


def reference_table(reference: Trainings) -> Table:
    """Returns a reference in one row: mean and spread of its seeds, epochs and time."""
    header = (
        *("recipe", "engine", "seeds", "diverged", "accuracy (%)", "deviation", "lowest (%)"),
        *("wrong images", "fewest", "most", "epochs", "s/seed"),
    )
    trained = [seed for seed in reference.seeds if seed.wrong is not None]
    name = (reference.recipe.name, reference.engine, str(len(trained)))
    diverged = str(len(reference.seeds) - len(trained))
    if not trained:
        return Table(header, [(*name, diverged, *["-"] * 8)], left=2)
    percent = [100 * seed.accuracy for seed in trained]
    wrong = [seed.wrong or 0 for seed in trained]
    row = (
        *(*name, diverged, f"{np.mean(percent):.3f}"),
        f"{np.std(percent, ddof=1):.3f}" if len(percent) > 1 else "-",
        *(f"{min(percent):.2f}", f"{np.mean(wrong):.1f}", str(min(wrong)), str(max(wrong))),
        f"{np.mean([seed.epochs for seed in trained]):.3g}",
        f"{np.mean([seed.train_seconds for seed in trained]):.1f}",
    )
    return Table(header, [row], left=2)
