"""Page of a history: complete without script, exact data, nothing loaded, small."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.records.accepted import Accepted
from bench.records.archive import Omitted, Stored
from bench.records.blocks import WorkloadTerms
from bench.report.history.packing import VALUE, packed, unpacked
from bench.report.history.page import headline, history_html, news_text
from bench.verdicts.history.news import news_of
from bench.verdicts.history.penalties import FEWEST
from bench.verdicts.history.points import Point
from bench.verdicts.history.series import Band, History, Placed, Series, _found
from tests import histories, synthetic
from tests.histories import MACHINE, nightlies, noise, run, side
from tests.synthetic import GROWTH, LOOP

STEPPED = [value + 0.05 * (place >= 20) for place, value in enumerate(noise(30))]
NAME = f"{LOOP} of tf-nightly on a processor, 2 cores"


def page_of(
    runs: Sequence[Stored | Omitted], accepted: Sequence[Accepted] = ()
) -> tuple[History, str]:
    history = histories.history(runs)
    return history, history_html(
        history, news_of(history, accepted, "x.toml"), accepted="bench-accepted.toml"
    )


def data_of(page: str) -> Any:
    (text,) = re.findall(r'id="data">([^<]*)<', page)
    return unpacked(text)


def without_script(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_without_script_the_page_names_what_is_new_and_all_levels() -> None:
    _, page = page_of(nightlies(STEPPED))
    shown = without_script(page)
    assert "1 new level for the worse in 1 current series of 30 runs" in shown
    row = re.search(r"<tr><th><a [^>]*>[^<]*</a></th>.*?</tr>", shown, re.DOTALL)
    assert row is not None
    assert re.findall(r">([^<>]+)</td>", row[0]) == [
        "+5.0 %",
        "+4.9 to +5.2 %",
        "2026-01-20 to 2026-01-21",
        "1.052",
        "worse",
    ]
    assert "1.052" in shown


def test_the_data_are_those_of_the_series() -> None:
    history, page = page_of(nightlies(STEPPED))
    data = data_of(page)
    (series,), (own,) = data["series"], history.series
    middle, *offsets = series["values"]
    values = [(middle + offset) / VALUE for offset in offsets]
    assert values == pytest.approx([each.value for each in own.points], abs=1 / VALUE)
    assert series["verdicts"] == "P" * 20 + "F" * 10
    assert [step[:3] for step in series["steps"]] == [[20, 20, 20]]
    assert [level[:2] for level in series["levels"]] == [[0, 19], [20, 29]]
    assert np.cumsum(data["runs"]["seconds"])[-1] == history.runs[-1].moment.timestamp()
    assert data["versions"][0]["points"] == [0] + [1] * 29


def test_locks_are_differences_that_add_up() -> None:
    history, page = page_of(nightlies(STEPPED))
    packages: list[dict[str, str]] = []
    for row in data_of(page)["environments"]:
        held = dict(packages[row["parent"]]) if row["parent"] >= 0 else {}
        held.update(row["changes"])
        packages.append({name: version for name, version in held.items() if version is not None})
    assert packages == [each.packages for each in history.environments.values()]
    assert sum(len(row["changes"]) for row in data_of(page)["environments"][2:]) == 29


def test_missing_values_and_differences_are_kept() -> None:
    terms = {GROWTH: synthetic.growth_terms(), LOOP: synthetic.terms()}
    runs = [
        run(0, {LOOP: None, GROWTH: -0.25}, workloads=terms),
        run(1, {LOOP: 0.01, GROWTH: 0.5}, workloads=terms),
    ]
    _, page = page_of(runs)
    by_name = {each["workload"]: each for each in data_of(page)["series"]}
    assert by_name[LOOP]["values"] == [1000, None, 0]
    assert by_name[GROWTH]["values"] == [50000, -75000, 0]
    assert by_name[GROWTH]["amounts"] == [0, None, None]
    assert "+0.125 MiB" in page


def test_the_page_loads_nothing_and_runs_only_its_own_script() -> None:
    _, page = page_of(nightlies(STEPPED))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert not re.search(r"(src|href)=[\"']?(?!#)[a-z/.]", without_script(page))
    assert "url(" not in page
    for word in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "import("):
        assert word not in script


def test_names_of_results_are_text_only() -> None:
    hostile = "</script><script>alert(1)</script>"
    sides = side(hostile, f"tensorflow=={hostile}")
    omitted = Omitted(f"{hostile}.jsonl", hostile)
    runs = [run(day, {LOOP: 0.0}, candidate=sides) for day in range(3)]
    _, page = page_of([*runs, omitted])
    assert page.count("<script") == 2
    assert "alert(1)</script>" not in page


def test_changes_by_version_name_the_versions() -> None:
    runs = [
        run(
            day,
            {LOOP: value + 0.1 * (version >= 4)},
            candidate=side(f"tf {version}", f"tensorflow==2.{version}.0"),
        )
        for version in range(6)
        for day, value in enumerate(noise(4, seed=version))
    ]
    _, page = page_of(runs)
    shown = without_script(page)
    assert "1 change by version" in shown
    assert re.search(r">\+10\.\d %<.*>2\.3\.0 to 2\.4\.0<", shown)
    assert "6 current series of 24 runs" in shown


def test_series_too_short_to_tell_are_counted() -> None:
    late = [run(day, {LOOP: 0.0}, candidate=side("b", "tensorflow==2.1.0")) for day in range(3)]
    history = histories.history([*nightlies(noise(20)), *late])
    told = headline(history, news_of(history, [], ""))
    assert told == "Nothing new in 2 current series of 23 runs (1 too short to tell)"


def test_accepted_steps_have_their_reason() -> None:
    days = histories.START.date().replace(day=21)
    _, page = page_of(nightlies(STEPPED), [Accepted(NAME, days, "known upstream")])
    assert "accepted: known upstream" in without_script(page)
    assert data_of(page)["series"][0]["steps"][0][7] == "known upstream"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.0] * 3, "Too few runs to look for changes: 1 current series of 3 runs"),
        (noise(20), "Nothing new in 1 current series of 20 runs"),
        ([-value for value in STEPPED], "Nothing is worse, 1 level better, in 1 current series"),
    ],
)
def test_the_headline_is_the_most_important_fact(values: list[float], text: str) -> None:
    history = histories.history(nightlies(values))
    assert headline(history, news_of(history, [], "")).startswith(text)


def test_the_page_prints_its_own_rate_of_false_alarms() -> None:
    history = histories.history(nightlies(STEPPED))
    text = news_text(history, news_of(history, [], ""))
    assert re.search(r"a change was found in \d+ of [\d,]+ with 30 runs \(\d\.\d %\)\.", text)
    assert re.search(r"This page tests 2 series: .*, about 0\.0 of them would show a change", text)
    short = histories.history(nightlies([0.0] * 3))
    assert f"from {FEWEST} runs" in news_text(short, news_of(short, [], ""))


def test_a_page_of_240_series_with_200_runs_is_below_one_megabyte() -> None:
    """30 environments, 8 workloads, 200 runs; every run changes a package of every environment."""
    random = np.random.RandomState(0)
    runs = nightlies([0.0] * 200)
    history = histories.history(runs)
    sides = {
        f"{number}-{day}": side(
            f"request {number}",
            f"tensorflow==2.{number}.0",
            f"urllib3==2.{day}.{number}",
            *(f"package-{each}==1.{each}.0" for each in range(60)),
        )
        for number in range(30)
        for day in range(200)
    }
    terms = WorkloadTerms(1, "s", 1.03, True, steps=4)
    series = []
    for number in range(30):
        for workload in range(8):
            values = 0.1 * random.standard_normal() + 0.004 * random.standard_normal(200)
            errors = np.abs(0.004 * random.standard_normal(200))
            amounts = 0.03 * np.exp(0.05 * random.standard_normal(200))
            points = tuple(
                Placed(
                    Point(
                        day,
                        f"{number}-{day}",
                        float(values[day]),
                        float(errors[day]),
                        random.randint(4, 12),
                        "PASS",
                        float(amounts[day]),
                    ),
                    float(values[day]),
                    0.0,
                )
                for day in range(200)
            )
            series.append(
                Series(
                    name=f"workload {workload} of request {number} on a processor, 2 cores",
                    workload=f"workload {workload}",
                    track=f"request {number}",
                    machine="a processor, 2 cores",
                    terms=terms,
                    asked="",
                    baseline=history.series[0].baseline,
                    anchor="",
                    points=points,
                    found=_found(points[:4], terms),
                    band=Band(math.nan, 0),
                    is_current=True,
                )
            )
    large = replace(
        history,
        series=tuple(series),
        versions=(),
        environments={**history.environments, **sides},
    )
    page = history_html(large, news_of(large, [], ""), accepted="bench-accepted.toml")
    assert len(page.encode()) <= 1_000_000


def test_packed_data_are_read_back() -> None:
    content = {"a": [1, None, -3], "b": "\u2192 </script>"}
    assert unpacked(packed(content)) == content
    assert "<" not in packed(content)


def test_a_changed_driver_of_a_gpu_is_one_changed_fact_of_the_machine() -> None:
    gpu = {"model": "NVIDIA H200", "driver": "550.90.07"}
    machines = [{**MACHINE, "gpu": {**gpu, "driver": d}} for d in ("550.90.07", "560.35.03")]
    runs = [run(day, {LOOP: 0.0}, machine=each) for day, each in enumerate(machines)]
    _, page = page_of(runs)
    before, now = data_of(page)["machines"]
    assert {key for key in now if now[key] != before[key]} == {"GPU driver"}
    assert (before["GPU model"], before["flags"]) == ("NVIDIA H200", "avx2")
    assert "gpu" not in before
