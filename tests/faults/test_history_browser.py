"""The page of a history in a real browser: by mouse, by keys, by address, and without script."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from bench.report.history.page import history_html
from bench.verdicts.history.news import news_of
from bench.verdicts.history.series import History
from tests import histories
from tests.faults.test_browser import BROWSERS
from tests.histories import BASELINE, nightlies, noise, run
from tests.synthetic import LOOP

pytestmark = pytest.mark.faults

NAME = f"{LOOP} of tf-nightly on a processor, 2 cores"
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')

# Runs in the page after its own script; `found` is read by the test.
DRIVER = """<script>
const wait = () => new Promise(resolve => setTimeout(resolve, 50));
const view = document.getElementById("trend");
const press = (key, more) => view.querySelector(".plot").dispatchEvent(
  new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true, ...more}));
const button = text => [...view.querySelectorAll("button")].find(each => each.textContent === text);
const facts = () => Object.fromEntries([...view.querySelectorAll(".side tr")].map(
  row => [row.children[0].textContent, row.children[1].textContent]));
addEventListener("load", async () => {
  await wait();
  const found = {};
  found.sparks = document.querySelectorAll(".spark svg").length;
  document.querySelector(".matrix a.cell").click();
  await wait();
  found.hash = location.hash;
  found.title = document.title;
  found.landing = document.getElementById("landing").hidden;
  found.circles = view.querySelectorAll(".plot circle").length;
  found.strips = [...view.querySelectorAll(".plot text")].map(each => each.textContent)
    .filter(text => ["TensorFlow", "Keras", "CPU", "method", "baseline"].includes(text));
  press("Home"); press("ArrowRight");
  found.second = facts();
  found.focus = document.activeElement.getAttribute("class");
  button("compare from here").click();
  press("End");
  found.compared = facts();
  found.address = location.hash;
  button("time on this machine").click();
  found.amount = location.hash.includes("show=amount");
  const table = [...view.querySelectorAll("details")].at(-1);
  table.open = true;
  await wait();
  found.rows = table.querySelectorAll("tbody tr").length;
  const csv = await fetch(view.querySelector("a[download]").href);
  found.csv = (await csv.text()).split("\\n").slice(0, 2);
  button("by version").click();
  await wait();
  found.versions = document.title;
  document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
  await wait();
  found.back = !document.getElementById("landing").hidden;
  const result = document.createElement("pre");
  result.id = "found";
  result.textContent = JSON.stringify(found);
  document.body.append(result);
});
</script>"""


@pytest.fixture
def visit(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Opens a page; returns its final HTML and the browser's complaints."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.fail(f"this trial needs a browser: {', '.join(BROWSERS)}", pytrace=False)

    def visit(page: str, *more: str, address: str = "") -> tuple[str, str]:
        path = tmp_path / "history.html"
        path.write_text(page, encoding="utf-8")
        command = [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"),
            *("--enable-logging=stderr", f"--user-data-dir={tmp_path}/profile", "--dump-dom"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", *more, f"{path.as_uri()}{address}"),
        ]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=180, check=True
        )
        return done.stdout, "\n".join(re.findall(r"CONSOLE.*", done.stderr))

    return visit


def archive() -> History:
    values = [value + 0.05 * (place >= 20) for place, value in enumerate(noise(30))]
    equal = [
        run(day, {LOOP: value}, candidate=BASELINE) for day, value in enumerate(noise(5, seed=1))
    ]
    return histories.history([*equal, *nightlies(values)])


def page_of(history: History) -> str:
    return history_html(history, news_of(history, [], ""), accepted="bench-accepted.toml")


def driven(page: str, visit: Callable[..., tuple[str, str]]) -> Any:
    with_driver = POLICY.sub("", page).replace("</body>", f"{DRIVER}</body>")
    shown, complaints = visit(with_driver)
    result = re.search(r'<pre id="found">(.*?)</pre>', shown, re.DOTALL)
    assert result is not None, complaints
    return json.loads(html.unescape(result[1]))


def test_a_series_is_read_by_clicks_and_keys(visit: Callable[..., tuple[str, str]]) -> None:
    history = archive()
    found = driven(page_of(history), visit)
    (series,) = (each for each in history.series if each.track == "tf-nightly")
    assert found["sparks"] == 3
    assert found["title"] == NAME
    assert found["landing"]
    assert found["circles"] == 30
    assert found["strips"] == ["TensorFlow"]
    second = found["second"]
    first, other, last = (series.points[place] for place in (0, 1, 29))
    half = stats.t.ppf(0.975, 3) * other.point.error
    ends = [f"{math.exp(other.value + side * half):.3f}" for side in (-1, 1)]
    assert second["value"] == (
        f"{math.exp(other.value):.3f} (95 % interval {ends[0]} to {ends[1]}), 4 blocks"
    )
    assert second["verdict of the run"] == "PASS"
    assert second["packages since then"] == (
        "tf-nightly 2.22.0.dev20260101 \u2192 2.22.0.dev20260102"
    )
    assert second["repeat"] == (
        "python -m pytest bench --baseline 'tensorflow==2.20.0 keras==3.9.0 numpy==2.1.0' "
        "--candidate 'tf-nightly==2.22.0.dev20260102 keras==3.9.0 numpy==2.1.0' "
        f"--workloads '{LOOP}'"
    )
    assert found["focus"] == "plot"
    half = stats.t.ppf(0.975, 6) * math.hypot(other.point.error, last.point.error)
    change = last.value - other.value
    low, high = (math.exp(change + side * half) for side in (-1, 1))
    told = re.findall(r"[\d.]+", found["compared"]["ratio"].replace("95 %", ""))
    assert [float(each) for each in told] == pytest.approx([math.exp(change), low, high], abs=2e-4)
    assert "point=29" in found["address"]
    assert "with=1" in found["address"]
    assert found["amount"]
    assert found["rows"] == 30
    assert found["csv"][0].startswith("date,environment,ratio,low,high,blocks,verdict,level")
    assert float(found["csv"][1].split(",")[2]) == pytest.approx(math.exp(first.value), abs=2e-5)
    assert found["versions"] == f"{LOOP} by version on a processor, 2 cores"
    assert found["back"]


def test_the_policy_of_the_page_allows_its_script_only(
    visit: Callable[..., tuple[str, str]],
) -> None:
    page = page_of(archive())
    shown, complaints = visit(page, address=f"#series={NAME.replace(' ', '%20')}&point=3")
    assert "<circle" in shown
    assert "Content Security Policy" not in complaints
    attacked, complaints = visit(page.replace("<main", "<script>document.title='x'</script><main"))
    assert "<title>x" not in attacked
    assert "Content Security Policy" in complaints
    assert "<svg" in attacked


def test_without_script_the_tables_and_the_note_are_there(
    visit: Callable[..., tuple[str, str]],
) -> None:
    blocked = POLICY.sub(
        '<meta http-equiv="Content-Security-Policy" content="script-src \'none\'">',
        page_of(archive()),
    )
    shown, _ = visit(blocked)
    assert "Charts need a script" in shown
    assert "<svg" not in shown
    assert "2026-01-20 to 2026-01-21" in shown
