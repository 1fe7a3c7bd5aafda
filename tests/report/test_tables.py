"""All text tables have one writer: aligned columns, one line per row."""

from __future__ import annotations

from dataclasses import replace

from bench.records.numerics import QUANTITIES, Mode, Quantities
from bench.records.sides import Side
from bench.records.trainings import Trained, Trainings
from bench.report.tables import (
    Table,
    error_rates_table,
    numerics_table,
    reference_table,
    self_check_table,
)
from bench.verdicts.accuracy_error_rates import Replays
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed_error_rates import EQUAL, Row
from lenet5.recipes import find_recipe

COUNTS = {Verdict.PASS: 985, Verdict.FAIL: 5, Verdict.INCONCLUSIVE: 10}


def test_columns_are_aligned_and_numbers_are_unchanged() -> None:
    table = Table(("workload", "verdict", "margin"), [("a", "PASS", "1.10"), ("bc", "-", "1")], 2)
    assert str(table) == (
        "workload  verdict  margin\n"
        "a         PASS       1.10\n"
        "bc        -             1"
    )  # fmt: skip


def test_a_short_row_is_a_heading_and_lines_have_no_trailing_blanks() -> None:
    table = Table(("name", "text"), [("rest:",), ("a", ""), ("b", "long")], left=None)
    assert str(table).splitlines() == ["name   text", "rest:", "a", "b      long"]


def test_a_line_break_in_a_cell_starts_no_row() -> None:
    assert str(Table((), [("a\n\n# b", "1"), ("c", "2")])).splitlines() == ["a # b  1", "c      2"]


def test_the_self_check_counts_each_verdict() -> None:
    runs = {Verdict.PASS: 20, Verdict.FAIL: 0, Verdict.INCONCLUSIVE: 0}
    rows = [Row(EQUAL, "runs", 80, runs), Row(EQUAL, "draws", 80, COUNTS)]
    assert str(self_check_table(rows)) == (
        "bank   manner      blocks           PASS        FAIL  INCONCLUSIVE\n"
        "equal  20 runs         80  20 (83-100 %)  0 (0-17 %)    0 (0-17 %)\n"
        "equal  1000 draws      80         98.5 %       0.5 %         1.0 %"
    )


def test_error_rates_are_shares_of_runs() -> None:
    found = Replays(60, True, True, 0.01, 0.08, COUNTS, 10.25)
    other = replace(found, beside=False, paired=False)
    table = error_rates_table({"equal": found, "other": other})
    (first, second) = table.rows
    assert first == (
        *("equal", "same", "paired", "60", "0.010", "0.080", "1000"),
        *("98.5 %", "0.5 %", "1.0 %", "10.2"),
    )
    assert second[:3] == ("other", "different", "unpaired")
    assert len(table.header) == len(first)


def test_numerics_show_changes_between_versions() -> None:
    truth = {quantity: [1.0, 2.0] for quantity in QUANTITIES}
    changed = {**truth, "loss": [1.0, 2.0 * (1 + 1e-9)]}
    wrong = {**truth, "loss": [1.0, 4.0]}
    found: list[Quantities | str] = [truth, truth, changed, wrong, "killed by SIGSEGV"]
    table = numerics_table(list("abcde"), found, truth)
    ends = [row[-1] for row in table.rows]
    assert ends == ["", "the same", "changed", "beyond the tolerance", "killed by SIGSEGV"]
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert table.rows[3][1 + QUANTITIES.index("loss")] == "1.0e+00"


def test_numerics_on_a_gpu_have_modes_and_tolerances_of_these() -> None:
    """Bits are compared only with a row of the same mode whose operations are deterministic."""
    truth = {quantity: [1.0, 2.0] for quantity in QUANTITIES}
    off = {**truth, "logits": [1.0, 2.0 * (1 + 9e-4)]}
    found: list[Quantities | str] = [off, truth, truth, truth, "no"]
    on, without = Mode("gpu:0", tf32=True), Mode("gpu:0")
    same = Mode("gpu:0", deterministic_ops=True)
    modes = [(on, on), (without, on), (without, without), (same, same), (same, same)]
    table = numerics_table(["a"] * 5, found, truth, modes)
    assert table.header[:2] == ["environment", "mode"]
    assert table.left == 2
    assert [row[1] for row in table.rows] == [
        *("gpu:0, TF32 on", "gpu:0, TF32 on (asked for: TF32 off)", "gpu:0, TF32 off"),
        *["gpu:0, TF32 off, deterministic"] * 2,
    ]
    assert [row[-1] for row in table.rows] == ["", "not the mode asked for", "", "", "no"]
    assert {len(row) for row in table.rows} == {len(table.header)}
    (row,) = numerics_table("a", found[:1], truth, [(on, without)]).rows
    assert row[-1] == "beyond the tolerance"
    again = numerics_table("ab", [truth, truth], truth, [(same, same)] * 2)
    assert again.rows[1][-1] == "the same"


def test_a_reference_has_spread_and_lowest_accuracy() -> None:
    seeds = tuple(
        Trained(seed, wrong, 10_000, train_seconds=20.0, epochs=6)
        for seed, wrong in enumerate([150, 160, 140, None])
    )
    found = Trainings(find_recipe("fast"), "keras", "", "", Side("", ""), {}, "", seeds)
    assert dict(
        zip(reference_table(found).header, reference_table(found).rows[0], strict=True)
    ) == {
        "recipe": "fast",
        "engine": "keras",
        "seeds": "3",
        "diverged": "1",
        "accuracy (%)": "98.500",
        "deviation": "0.100",
        "lowest (%)": "98.40",
        "wrong images": "150.0",
        "fewest": "140",
        "most": "160",
        "epochs": "6",
        "s/seed": "20.0",
    }
    (row,) = reference_table(replace(found, seeds=seeds[3:])).rows
    assert row == ("fast", "keras", "0", "1", *["-"] * 8)
