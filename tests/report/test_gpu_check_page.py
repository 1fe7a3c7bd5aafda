"""The page and JSON of a GPU's check: every line, untrusted text, numbers that are not finite."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from bench.records.numerics import QUANTITIES
from bench.report.gpu_check.page import (
    FAIL,
    NOT_RUN,
    PASS,
    GpuCheck,
    Line,
    check_html,
    check_json,
)

LINES = (
    Line("device", PASS, "a GPU", {"gpu": "stand-in", "tensorflow": "2.21.0"}, 12.4),
    Line("images per second", PASS, "12", {"batch_size": 32, "images_per_second": 12_278.4}, 3),
    Line("accuracy", FAIL, "97 %", {"wrong": 300}, 20),
    Line("fit", NOT_RUN, "the limit of 300 s is reached"),
)
CHECK = GpuCheck(
    request=".",
    device="gpu:0",
    started="2026-11-28T02:00:00+00:00",
    commit="abc",
    limit_seconds=300,
    lines=LINES,
    seconds=35.4,
    machine={"cpu": "a processor", "gpu": {"model": "A GPU", "driver": "550", "power_limit_w": 7}},
    lock=("tensorflow==2.21.0",),
    is_complete=True,
)


def test_an_informational_line_fails_the_check_only_by_failing() -> None:
    late = replace(LINES[3], is_informational=True)
    wrong = replace(LINES[2], is_informational=True)
    assert (
        replace(CHECK, lines=(LINES[0], late)).headline == "PASS: 1 of 2 lines pass, 1 has not run"
    )
    assert replace(CHECK, lines=(LINES[0], wrong)).verdict == FAIL
    assert replace(CHECK, lines=(late,)).verdict == FAIL


def test_the_verdict_needs_every_line() -> None:
    """A line that has not run counts as a FAIL."""
    assert CHECK.headline == "FAIL: 2 of 4 lines pass, 1 fails, 1 has not run"
    assert replace(CHECK, lines=LINES[:2]).headline == "PASS: 2 of 2 lines pass"
    assert replace(CHECK, lines=(LINES[0], LINES[3])).verdict == FAIL
    assert replace(CHECK, lines=(LINES[2],) * 2).headline == "FAIL: 0 of 2 lines pass, 2 fail"
    assert replace(CHECK, lines=()).verdict == FAIL


def test_a_line_of_the_terminal_has_verdict_and_seconds() -> None:
    assert str(LINES[0]) == "PASS      12 s  device: a GPU"
    assert str(LINES[3]) == "NOT RUN    0 s  fit: the limit of 300 s is reached"


def test_the_page_has_every_line_and_the_machine() -> None:
    page = check_html(CHECK, "check.json")
    for text in (
        *(
            "GPU check: stand-in",
            CHECK.headline,
            "97 %",
            "12,278",
            "<th>NVIDIA driver</th><td>550</td>",
            "check.json",
        ),
        *("35 s of at most 300 s", "tensorflow==2.21.0", "a processor"),
    ):
        assert text in page
    assert page.count('<li class="pass">') == 2
    assert page.count('<li class="fail">') == page.count('<li class="not-run">') == 1
    assert "has not ended" not in page
    assert "has not ended" in check_html(replace(CHECK, is_complete=False))


def test_deviations_stand_beside_their_tolerances() -> None:
    off = {**dict.fromkeys(QUANTITIES, 2e-7), "loss": 0.5}
    held = {"mode": "TF32 off", "deviations": off, "tolerances": dict.fromkeys(QUANTITIES, 2e-6)}
    page = check_html(replace(CHECK, lines=(*LINES, Line("numerics", FAIL, "loss", held))))
    assert "<th>TF32 off</th>" in page
    assert page.count("2.0e-07 of 2e-06<") == len(QUANTITIES) - 1
    assert '<td class="fail">5.0e-01 of 2e-06 FAIL</td>' in page


def test_text_of_a_worker_is_escaped() -> None:
    bad = "<img src=x onerror=alert(1)>\x1b[31m"
    lines = (Line(bad, FAIL, bad, {"gpu": bad, "tensorflow": bad}),)
    page = check_html(replace(CHECK, lines=lines, request=bad, lock=(bad,)), bad)
    assert "<img" not in page
    assert "\x1b" not in page


def test_the_json_is_sorted_and_has_no_infinity() -> None:
    off = Line("numerics", FAIL, "", {"deviations": {"loss": math.inf}, "ratio": math.nan})
    text = check_json(replace(CHECK, lines=(off,)))
    found = json.loads(text)
    assert list(found) == sorted(found)
    assert (found["kind"], found["format"], found["verdict"]) == ("gpu-check", 1, "FAIL")
    assert found["lines"][0]["figures"] == {"deviations": {"loss": "Infinity"}, "ratio": "NaN"}
    assert found["machine"]["gpu"]["driver"] == "550"
