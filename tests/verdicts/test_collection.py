"""Merging requires equal conditions of measurement; condensing keeps every verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.records import results
from bench.records.blocks import Results
from bench.records.sides import Side
from bench.records.together import together
from bench.verdicts.collection import condensed
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import decide
from lenet5.errors import InputError
from tests.synthetic import LOOP, simulated


def part(
    version: str,
    ratio: float,
    keras: str = "3.15.1",
    workloads: Sequence[str] = (LOOP,),
    minute: int = 0,
) -> Results:
    """Returns results of one candidate, with all blocks at a minute."""
    found = simulated(ratio=ratio, pairs=12, workloads=workloads)
    started = f"2026-11-22T12:{minute:02}:00+00:00"
    blocks = tuple(replace(block, started=started) for block in found.blocks)
    found = replace(found, started=started, blocks=blocks)
    lock = (f"keras=={keras}", f"tensorflow-cpu=={version}")
    base = Side("base", "2.21.0", lock=("keras==3.15.1", "tensorflow-cpu==2.21.0"))
    side = Side(version, version, {"tensorflow": version, "keras": keras}, lock)
    return replace(found, baseline=base, candidates=(side,))


def test_merged_candidates_keep_their_verdicts_under_new_labels() -> None:
    parts = [
        part("2.20.0", 1.0),
        part("2.16.2", 1.1, minute=1),
        part("2.16.2", 1.2, keras="3.4.1", minute=2),
    ]
    whole = together(parts)
    assert [side.label for side in whole.candidates] == [
        "2.20.0",
        "2.16.2 + Keras 3.15.1",
        "2.16.2 + Keras 3.4.1",
    ]
    alone = [decision for item in parts for decision in decide(item)]
    for one, other in zip(alone, decide(whole), strict=True):
        assert (one.verdict, one.ratio, one.high) == (other.verdict, other.ratio, other.high)
        assert other.low <= one.low  # FAIL is corrected over more workloads


def test_a_candidates_workloads_may_come_from_different_files() -> None:
    """The code may differ, since no workload was measured by both versions."""
    parts = [
        part("2.20.0", 0.98),
        part("2.20.0", 1.2, workloads=["import"], minute=1),
        part("2.19.1", 0.98, workloads=["import"], minute=2),
    ]
    parts[1:] = [replace(found, code="later") for found in parts[1:]]
    whole = together(parts)
    assert whole.code == f"{parts[0].code}, later"
    assert [(d.candidate, d.workload, d.verdict) for d in decide(whole)] == [
        (0, LOOP, Verdict.PASS),
        (0, "import", Verdict.FAIL),
        (1, "import", Verdict.PASS),
    ]
    assert [b.number for b in whole.blocks] == [*range(12), *range(6)]  # no number repeats


def test_a_candidate_measured_twice_has_the_blocks_of_both() -> None:
    whole = together([part("2.20.0", 0.98), part("2.20.0", 0.981, minute=1)])
    assert [side.label for side in whole.candidates] == ["2.20.0"]
    assert [(d.verdict, len(whole.blocks)) for d in decide(whole)] == [(Verdict.PASS, 12)]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda found: replace(found, machine={"cpu": "another"}), "machines"),
        (lambda found: replace(found, code="another"), "code"),
        (lambda found: replace(found, baseline=Side("x", "x", lock=("a==1",))), "baselines"),
        (lambda found: replace(found, options={"threads": 7}), "threads"),
        (
            lambda found: replace(
                found, workloads={LOOP: replace(found.workloads[LOOP], version=9)}
            ),
            "versions of",
        ),
        (
            lambda found: replace(
                found, workloads={LOOP: replace(found.workloads[LOOP], margin=1.5)}
            ),
            "margins of",
        ),
    ],
)
def test_results_of_different_conditions_cannot_be_merged(
    change: Callable[[Results], Results], what: str
) -> None:
    with pytest.raises(InputError, match=f"results of different {what}.* cannot be combined"):
        together([part("2.20.0", 1.0), change(part("2.19.1", 1.0))])


def test_condensed_results_have_one_pair_per_block_and_equal_verdicts(tmp_path: Path) -> None:
    found = together([part("2.20.0", 1.01), part("2.19.1", 1.1, minute=1)])
    path = tmp_path / "small.jsonl"
    results.write(path, condensed(found))
    small = results.read(path)
    for one, other in zip(decide(found), decide(small), strict=True):
        assert other.verdict is one.verdict
        assert (other.ratio, other.low, other.high) == pytest.approx((one.ratio, one.low, one.high))
        assert other.pairs == other.blocks


def test_report_writes_pages_pictures_and_condensed_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, version in zip(files, ("2.20.0", "2.19.1"), strict=True):
        results.write(path, part(version, 1.0))
    out = tmp_path / "out"
    assert command.main(["report", *map(str, files), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert sorted(path.name for path in out.iterdir()) == [
        "report-plain",
        "report.html",
        "results.jsonl",
        "summary.md",
        "train_step-loop-b128.png",
    ]
    assert "2.19.1" in (out / "report.html").read_text()


def test_an_unwritable_report_folder_is_status_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    results.write(tmp_path / "a.jsonl", part("2.20.0", 1.0))
    out = tmp_path / "file" / "out"
    assert command.main(["report", str(tmp_path / "a.jsonl"), "--out", str(out)]) == 4
    assert capsys.readouterr().err == f"bench: error: {out}: cannot be written: Not a directory\n"
