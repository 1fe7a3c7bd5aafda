"""Commands `pytest bench --baseline …` and `python -m bench`, with stub workers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.records import blocks, results
from tests import synthetic
from tests.commands import of_checkout

LOOP = "train_step[loop,b128]"

Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.usefixtures("black_images", "short_blocks")


def read_only(pytester: pytest.Pytester) -> blocks.Results:
    (path,) = (pytester.path / "reports").glob("comparison-*.jsonl")
    return results.read(path)


def test_without_a_baseline_the_comparison_is_not_collected(run: Run) -> None:
    done = run()
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["comparison: none (--baseline *"])


def test_an_equal_candidate_passes_and_no_other_test_runs(
    run: Run, stub: str, pytester: pytest.Pytester
) -> None:
    done = run("--baseline", stub, "--candidate", stub, "--workloads", LOOP)
    assert done.ret == 0
    done.assert_outcomes(passed=1)
    assert read_only(pytester).complete
    assert re.search(rf"{re.escape(LOOP)} +PASS +1\.000 ", done.stdout.str())
    done.stdout.fnmatch_lines(["records: *reports/comparison-*.jsonl"])


def test_a_slower_candidate_fails_with_a_finding(run: Run, stub: str) -> None:
    slow = f"{stub} TF_STUB_RATIO=1.092"
    done = run("--baseline", stub, "--candidate", slow, "--workloads", LOOP)
    assert done.ret == 1
    done.assert_outcomes(failed=1)
    (finding,) = {line for line in done.outlines if line.startswith(f"{LOOP}: ")}
    assert re.fullmatch(
        r"9\.9\.0 TF_STUB_RATIO=1\.092 takes 1\.092x the time of 9\.9\.0 "
        r"\(98\.4 % interval 1\.09\d+-1\.09\d+, 4 blocks\), margin 1\.03",
        finding.removeprefix(f"{LOOP}: "),
    ), finding
    done.stdout.no_fnmatch_line("*Traceback*")


def test_a_slower_candidate_within_a_wider_margin_passes(run: Run, stub: str) -> None:
    slow = f"{stub} TF_STUB_RATIO=1.092"
    terms = ("--baseline", stub, "--candidate", slow, "--workloads", LOOP)
    assert run(*terms, "--margin", "1.2").ret == 0


def test_an_interrupted_comparison_resumes(run: Run, stub: str, pytester: pytest.Pytester) -> None:
    """File and terms stay the same; the budget is the total."""
    terms = ("--baseline", stub, "--candidate", stub, "--workloads", LOOP, "--margin", "1.04")
    assert run(*terms, "--results", "r.jsonl").ret == 0
    path = pytester.path / "r.jsonl"
    whole = results.read(path)
    results.write(path, replace(whole, blocks=whole.blocks[:2], complete=False))
    assert run("--resume", "r.jsonl", "--budget", "500").ret == 0
    after = results.read(path)
    assert after.blocks[:2] == whole.blocks[:2]
    assert [block.number for block in after.blocks] == [0, 1, 2, 3]
    assert (after.complete, after.workloads[LOOP].margin) == (True, 1.04)
    assert after.options["budget_seconds"] == 500
    assert run("--resume", "r.jsonl").ret == 0  # all is decided: no more blocks
    assert len(results.read(path).blocks) == 4


def test_resume_requires_the_same_environments(
    run: Run, stub: str, pytester: pytest.Pytester
) -> None:
    terms = ("--baseline", stub, "--candidate", stub, "--workloads", LOOP)
    assert run(*terms, "--results", "r.jsonl").ret == 0
    path = pytester.path / "r.jsonl"
    measured = results.read(path)
    results.write(path, replace(measured, code="0" * 64))
    done = run("--resume", "r.jsonl")
    assert done.ret == 4
    assert "results of different code" in done.stdout.str() + done.stderr.str()
    for side in ("baseline", "candidate"):  # a new Python is detected before a worker runs
        other = replace(measured.baseline, versions={"python": "3.1"})
        change = {"baseline": other} if side == "baseline" else {"candidates": (other,)}
        results.write(path, replace(measured, **change))
        done = run("--resume", "r.jsonl")
        assert done.ret == 4
        assert ": Python 3.1 and 3." in done.stdout.str() + done.stderr.str()
    other = replace(measured.baseline, versions={"scheduling": "round robin"})
    unfinished = replace(measured, baseline=other, blocks=measured.blocks[:2], complete=False)
    results.write(path, unfinished)
    done = run("--resume", "r.jsonl")
    assert done.ret == 4
    assert "scheduling round robin and default" in done.stdout.str() + done.stderr.str()
    assert len(results.read(path).blocks) == 2
    for more in (("--baseline", stub), ("--results", "other.jsonl")):
        assert run("--resume", "r.jsonl", *more).ret == 4
    assert run("--resume", "nowhere.jsonl").ret == 4


@pytest.mark.parametrize("option", [("--margin", "1.1"), ("--workloads", "import")])
def test_resume_cannot_change_the_terms_of_the_file(
    run: Run, stub: str, option: tuple[str, str]
) -> None:
    terms = ("--baseline", stub, "--candidate", stub, "--workloads", LOOP)
    assert run(*terms, "--results", "r.jsonl").ret == 0
    done = run("--resume", "r.jsonl", *option)
    assert done.ret == 4
    assert f"--resume takes {option[0]} from its file" in done.stderr.str()


def test_resume_measures_a_previously_missing_candidate(
    run: Run, stub: str, pytester: pytest.Pytester
) -> None:
    terms = ("--baseline", stub, "--candidate", stub, "--candidate", "python:/no/such/python")
    assert run(*terms, "--workloads", LOOP, "--results", "r.jsonl").ret == 7
    path = pytester.path / "r.jsonl"
    found = results.read(path)
    there, missing = found.candidates
    results.write(
        path, replace(found, candidates=(there, replace(missing, request=f"{stub} TF_X=1")))
    )
    assert run("--resume", "r.jsonl").ret == 0
    assert [block.candidate for block in results.read(path).blocks] == [0] * 4 + [1] * 4


def test_the_results_file_has_verdicts_of_selected_tests_only(
    run: Run, stub: str, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    terms = ("--baseline", stub, "--candidate", stub, "--candidate", "python:/no/such/python")
    selected = ("--workloads", f"{LOOP} fit_call", "-k", "loop and stub")
    assert run(*terms, *selected, "--results", "r.jsonl", "--summary", "s.md").ret == 0
    capsys.readouterr()
    assert command.main(["verdict", str(pytester.path / "r.jsonl")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_report_never_overwrites_its_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.jsonl"
    results.write(path, synthetic.results({LOOP: synthetic.exactly(0.0, 0.002, 4)}))
    before = path.read_bytes()
    assert command.main(["report", str(path), "--out", str(tmp_path)]) == 4
    assert "choose another --out" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_an_informational_failure_is_reported_and_passes(run: Run, stub: str) -> None:
    slow = f"{stub} TF_STUB_RATIO=1.5"
    done = run("--baseline", stub, "--candidate", slow, "--workloads", "fit[b128]")
    assert done.ret == 0
    assert re.search(r"fit\[b128\].* FAIL ", done.stdout.str())


def test_inconclusive_is_a_separate_failed_outcome_with_status_6(
    run: Run, stub: str, pytester: pytest.Pytester
) -> None:
    done = run(
        *("--baseline", stub, "--candidate", f"{stub} TF_STUB_RATIO=1.03"),
        *("--workloads", LOOP, "--budget", "10", "--junitxml=junit.xml"),
    )
    assert done.ret == 6
    done.stdout.fnmatch_lines(["*1 inconclusive*"])
    assert "<failure" in (pytester.path / "junit.xml").read_text()


def test_a_missing_candidate_gives_status_7_and_does_not_stop_others(run: Run, stub: str) -> None:
    done = run(
        *("--baseline", stub, "--candidate", "python:/no/such/python", "--candidate", stub),
        *("--workloads", LOOP),
    )
    assert done.ret == 7
    done.stdout.fnmatch_lines(["*1 passed, 1 not there*"])


def test_a_failure_outweighs_a_missing_candidate(run: Run, stub: str) -> None:
    done = run(
        *("--baseline", stub, "--candidate", "python:/no/such/python"),
        *("--candidate", f"{stub} TF_STUB_RATIO=2", "--workloads", LOOP),
    )
    assert done.ret == 1


def test_a_missing_baseline_gives_status_7_in_one_line(run: Run, stub: str) -> None:
    done = run("--baseline", "python:/no/such/python", "--candidate", stub, "--workloads", LOOP)
    assert done.ret == 7
    done.stdout.fnmatch_lines(["*The baseline python:/no/such/python is not there:*"])
    done.stdout.no_fnmatch_line("*Traceback*")


def test_only_selected_workloads_are_measured(
    run: Run, stub: str, pytester: pytest.Pytester
) -> None:
    done = run("--baseline", stub, "--candidate", stub, "-k", "loop and b128")
    done.assert_outcomes(passed=1, deselected=7)
    assert set(read_only(pytester).blocks[0].samples) == {LOOP}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baseline", "--index-url=x"], "*--index-url*"),
        (["--baseline", "https://x/y.whl"], "*https://x/y.whl*"),
        (["--baseline", ".", "--workloads", "fast"], "*unknown workload fast, choose from*"),
        (["--baseline", ".", "--workloads", " "], "*--workloads is empty*"),
        (["--baseline", ".", "--margin", "0.9"], "*--margin is 0.9, expected a ratio*"),
        (["--baseline", ".", "--margin", "nan"], "*--margin is nan, expected a ratio*"),
        (["--baseline", ".", "--budget", "1"], "*--budget is 1, expected 10 to 86400*"),
        (["--baseline", ".", "--results", "there.jsonl"], "*there.jsonl: exists*"),
        (["--candidate", "."], "*--candidate needs --baseline*"),
        (["--results", "x.jsonl"], "*--results needs --baseline*"),
    ],
)
def test_an_invalid_option_is_rejected_in_one_line(
    run: Run, pytester: pytest.Pytester, arguments: list[str], message: str
) -> None:
    (pytester.path / "there.jsonl").write_text("mine")
    arguments = [f"{arguments[0]}={arguments[1]}", *arguments[2:]]
    done = run(*arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert (pytester.path / "there.jsonl").read_text() == "mine"


def test_project_margins_and_gates_apply(run: Run, stub: str, pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(
        '[tool.lenet5-bench.workloads]\n"train_step[loop,b128]" = {margin = 1.2}\n'
        '"train_step[loop,b32]" = {gated = false}\n'
    )
    slow = f"{stub} TF_STUB_RATIO=1.1"
    names = f"{LOOP} train_step[loop,b32]"
    assert run("--baseline", stub, "--candidate", slow, "--workloads", names).ret == 0


def test_ctrl_c_keeps_finished_measurements(
    run: Run, stub: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.measure.blocks.time_import", interrupt)
    done = run(
        *("--baseline", stub, "--candidate", stub, "--workloads", f"{LOOP} import"),
        *("--summary", "summary.md"),
    )
    assert done.ret == pytest.ExitCode.INTERRUPTED
    found = read_only(pytester)
    assert (set(found.blocks[0].samples), found.complete) == ({LOOP}, False)
    assert "incomplete" in (pytester.path / "summary.md").read_text().lower()


def test_the_summary_is_written(run: Run, stub: str, pytester: pytest.Pytester) -> None:
    summary = pytester.path / "folder" / "summary.md"
    terms = ("--baseline", stub, "--candidate", stub, "--workloads", LOOP)
    assert run(*terms, "--summary", str(summary)).ret == 0
    assert "PASS" in summary.read_text()


# ---- python -m bench


def test_verdict_and_show_repeat_the_finding_of_pytest(
    run: Run, stub: str, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = f"{stub} TF_STUB_RATIO=1.5"
    done = run("--baseline", stub, "--candidate", slow, "--workloads", LOOP)
    finding = next(line for line in done.outlines if line.startswith(LOOP))
    (path,) = (pytester.path / "reports").glob("comparison-*.jsonl")
    capsys.readouterr()
    assert command.main(["verdict", str(path)]) == done.ret == 1
    assert capsys.readouterr().out == f"FAIL: {finding}\n"
    assert command.main(["show", str(path)]) == 0
    assert LOOP in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "is damaged or not a ledger"),
        ('{"ledger": {"kind": "speed", "schema": 4}}', "has schema 4, this version reads 3"),
    ],
)
def test_an_invalid_results_file_gives_status_4(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.jsonl"
    if content is not None:
        path.write_text(content)
    assert command.main(["verdict", str(path)]) == 4
    assert capsys.readouterr().err == f"bench: error: {path}: {message}\n"


def test_a_closed_output_pipe_is_not_an_error(tmp_path: Path) -> None:
    """Example: `python -m bench show FILE | head -1`."""
    path = tmp_path / "results.jsonl"
    results.write(path, synthetic.simulated())
    shown = subprocess.Popen(
        [sys.executable, "-m", "bench", "show", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=of_checkout(),
    )
    assert shown.stdout is not None
    shown.stdout.close()
    _, said = shown.communicate(timeout=120)
    assert (shown.returncode, said) == (0, b"")


@pytest.mark.parametrize("argv", [[], ["dance"], ["verdict"], ["calibrate", "--runs", "0"]])
def test_invalid_arguments_give_status_4(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(argv) == 4
    assert "Traceback" not in capsys.readouterr().err


def test_a_missing_environment_gives_status_7(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["calibrate", "--environment", "python:/no/such"]) == 7
    assert "/no/such" in capsys.readouterr().err


def test_calibration_adds_runs_to_both_banks(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert command.main(["calibrate", "--environment", stub, "--runs", "1"]) == 0
    banks = sorted((tmp_path / "cache" / "lenet5-bench" / "banks").iterdir())
    runs = [[results.read(path) for path in sorted(bank.iterdir())] for bank in banks]
    assert [len(bank) for bank in runs] == [2, 2]
    ratios = [
        bank[0].blocks[0].samples[LOOP].candidate.values[0]
        / bank[0].blocks[0].samples[LOOP].baseline.values[0]
        for bank in runs
    ]
    assert ratios == pytest.approx([1.0, 53 / 50])
    said = capsys.readouterr().out
    assert f"equal 1 of 1: PASS: {LOOP}" in said
    assert f"slowed 1 of 1: FAIL: {LOOP}" in said
