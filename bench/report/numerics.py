"""Deviations of TensorFlow's arithmetic as a table."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.numerics import QUANTITIES, Quantities
from bench.verdicts.numerics import TOLERANCES, beyond, deviations


def table(names: Sequence[str], found: Sequence[Quantities | str], truth: Quantities) -> str:
    """Markdown: an environment a row, the largest relative deviation of each quantity a column.

    Columns are logits, loss, the gradient of each layer's kernel and bias, and 50 steps' losses.
    The last column says whether an environment's figures are those of the row above, to the bit.
    """
    columns = [name.removeprefix("gradient ") for name in QUANTITIES]
    lines = [
        f"| environment | {' | '.join(columns)} | numerics |",
        f"|---|{'---|' * len(columns)}---|",
    ]
    before: Quantities | None = None
    for name, quantities in zip(names, found, strict=True):
        if isinstance(quantities, str):
            lines.append(f"| {name} | {quantities} |{' |' * len(columns)}")
            continue
        off = deviations(quantities, truth)
        cells = [off[quantity] for quantity in QUANTITIES]
        wrong = beyond(off, TOLERANCES)
        changed = "" if before is None else "the same" if quantities == before else "changed"
        text = "**beyond the tolerance**" if wrong else changed
        lines.append(f"| {name} | {' | '.join(f'{cell:.1e}' for cell in cells)} | {text} |")
        before = quantities
    return "\n".join(lines)
