"""Command `python -m bench bisect`, with stub workers of known times."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.records import results

LOOP = "train_step[loop,b128]"

pytestmark = pytest.mark.usefixtures("black_images", "short_blocks")


def levels(stub: str, *ratios: float) -> list[str]:
    """Returns options for environments with these times: good first, bad last."""
    texts = [f"{stub} TF_STUB_RATIO={ratio} TF_LEVEL={n}" for n, ratio in enumerate(ratios)]
    between = [word for text in texts[1:-1] for word in ("--level", text)]
    return ["--good", texts[0], "--bad", texts[-1], *between]


def bisect(out: Path, *arguments: str) -> int:
    return command.main(["bisect", "--workload", LOOP, "--out", str(out), *arguments])


def test_a_step_between_given_levels_is_found(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = bisect(tmp_path / "walk", *levels(stub, 1, 1, 1, 1.1, 1.1))
    said = capsys.readouterr().out
    assert status == 0
    assert "Found: " in said
    assert "1.100 (1.100-1.100), slower; 4 fresh blocks agree" in said
    page = (tmp_path / "walk" / "report.html").read_text()
    assert "fresh blocks agree" in page
    assert (tmp_path / "walk" / "summary.md").exists()
    assert (tmp_path / "walk" / "report-plain" / "index.html").exists()


def test_two_steps_are_found(stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bisect(tmp_path / "walk", *levels(stub, 1, 1.06, 1.06, 1.0, 1.1)) == 0
    (finding,) = {line for line in capsys.readouterr().out.splitlines() if "Found: " in line}
    assert finding.count("slower") == 2
    assert finding.count("faster") == 1
    assert finding.endswith("fresh blocks show the 2 largest")


def test_equal_ends_are_an_answer(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect(tmp_path / "walk", *levels(stub, 1, 1.0005, 1.001)) == 0
    assert "no step of 1.010 or more" in capsys.readouterr().out


def test_a_level_that_crashes_widens_the_answer(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two blocks show the crash; the step then lies across the missing level."""
    options = levels(stub, 1, 1, 1.1, 1.1)
    crashing = f"{options[5]} TF_STUB_FAULT=start_-_crash"
    assert bisect(tmp_path / "walk", *options[:5], crashing, *options[6:]) == 0
    said = capsys.readouterr().out
    assert "4 fresh blocks agree" in said
    assert "killed by SIGSEGV" in said


def test_a_bad_end_that_crashes_is_not_there(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--good", stub, "--bad", f"{stub} TF_STUB_FAULT=start_-_crash"]
    assert bisect(tmp_path / "walk", *options) == 7
    assert capsys.readouterr().err.startswith("bench: error: bad, ")


def test_the_same_command_continues_a_walk(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = levels(stub, 1, 1, 1.1, 1.1)
    assert bisect(tmp_path / "walk", *options) == 0
    path = tmp_path / "walk" / "stage-1.jsonl"
    whole = results.read(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-6]) + lines[-6][:40])  # killed within a record
    capsys.readouterr()
    assert bisect(tmp_path / "walk", *options) == 0
    after = results.read(path)
    assert after.complete
    assert after.blocks[: len(lines) // 2] == whole.blocks[: len(lines) // 2]
    assert "4 fresh blocks agree" in capsys.readouterr().out


def test_a_folder_of_another_walk_is_refused(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect(tmp_path / "walk", *levels(stub, 1, 1.1)) == 0
    assert bisect(tmp_path / "walk", *levels(stub, 1, 1.2)) == 4
    assert "holds a walk between other environments" in capsys.readouterr().err


def test_show_report_and_verdict_read_a_walk(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect(tmp_path / "walk", *levels(stub, 1, 1, 1.1, 1.1)) == 0
    path = tmp_path / "walk" / "stage-1.jsonl"
    said = capsys.readouterr().out
    assert command.main(["show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert shown.strip() in said
    assert command.main(["report", str(path), "--out", str(tmp_path / "page")]) == 0
    assert "fresh blocks agree" in (tmp_path / "page" / "report.html").read_text()
    capsys.readouterr()
    assert command.main(["verdict", str(path)]) == 0
    assert "fresh blocks agree" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workload", "nothing"], "--workload is nothing, choose from"),
        (["--budget", "1"], "--budget is 1, expected 10 to 86400 seconds"),
        (["--threads", "0"], "--threads is 0, expected 1 to 256"),
        (["--margin", "0.9"], "--margin is 0.9, expected a ratio"),
        (["--bad", "{stub}"], "--good and --bad are the same request"),
        (["--level", "tensorflow=="], "is not a requirement"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    options: list[str],
    told: str,
    stub: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [word.format(stub=stub) for word in options]
    assert bisect(tmp_path / "walk", "--good", stub, "--bad", f"{stub} TF_A=1", *given) == 4
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "walk").exists()


def test_a_loss_of_accuracy_is_found_over_common_seeds(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"{stub} TF_STUB_LOSS={loss} TF_LEVEL={n}" for n, loss in enumerate((0, 0, 40, 40))]
    between = [word for text in texts[1:-1] for word in ("--level", text)]
    ends = ["--good", texts[0], "--bad", texts[-1]]
    out = str(tmp_path / "walk")
    terms = ["--accuracy", "--accuracy-margin", "0.2", "--out", out]
    assert command.main(["bisect", *terms, *ends, *between]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\+40\.00 images \(\+39\.\d+ images to \+40\.\d+ images\), worse", said)
    assert "4 fresh blocks agree" in said
    assert command.main(["bisect", *terms, *ends, *between]) == 0  # complete: read again
    assert "4 fresh blocks agree" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "give one of --workload, --accuracy and --numerics"),
        (["--workload", LOOP, "--numerics"], "give one of --workload, --accuracy and --numerics"),
        (["--numerics", "--budget", "20"], "--budget needs --workload"),
        (["--accuracy", "--margin", "1.1"], "--margin needs --workload"),
        (["--workload", LOOP, "--seeds", "10"], "--seeds needs --accuracy"),
        (["--accuracy", "--seeds", "3"], "--seeds is 3, expected 4 to 1000"),
        (["--accuracy", "--recipe", "none"], "none"),
    ],
)
def test_options_of_another_kind_are_refused(
    options: list[str], told: str, stub: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["bisect", "--good", stub, "--bad", f"{stub} TF_A=1", *options]) == 4
    assert told in capsys.readouterr().err


def test_error_rates_of_walks_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["bisect-error-rates", "--walks", "2", "--levels", "6"]) == 0
    said = capsys.readouterr().out
    assert "24 blocks of 6 sides" in said
    assert re.search(r"one step of 6 % +2 of 2 +2 +2 ", said)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--levels", "2"], "--levels is 2, expected 6 to 1000"),
        (["--walks", "0"], "--walks is 0"),
        (["--workload", "import"], "has no import"),
        (["nothing.jsonl"], "nothing.jsonl: cannot be read"),
    ],
)
def test_wrong_options_of_error_rates_are_refused(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["bisect-error-rates", *options]) == 4
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("change", ["margin", "levels"])
def test_another_margin_or_other_levels_need_another_folder(
    change: str, stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A walk must not go on under terms that its first blocks did not have."""
    options = levels(stub, 1, 1, 1.1)
    assert bisect(tmp_path / "walk", *options) == 0
    more = ["--margin", "1.2"] if change == "margin" else ["--level", f"{stub} TF_LEVEL=9"]
    assert bisect(tmp_path / "walk", *options, *more) == 4
    assert "choose another" in capsys.readouterr().err
