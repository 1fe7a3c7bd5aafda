"""Reports with hostile names in a real browser: nothing runs, nothing is fetched, all is shown."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.records import results as stored
from bench.report.comparison import comparison_html
from bench.report.pages import page_html, plain_note, write_plain
from bench.verdicts.speed import decide
from tests.report.test_hostile_names import hostile
from tests.report.test_session import report_hooks

pytestmark = pytest.mark.faults

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
JENKINS = "sandbox allow-same-origin; default-src 'none'; img-src 'self'; style-src 'self';"
POLICIES = {"none": "", "jenkins": JENKINS, "no script": "script-src 'none'"}
NOTE = "This server or browser blocks"


@dataclass
class Server:
    """A local server of a folder, which notes every request.

    Attributes:
        address: its address, without a path.
        policy: value of `Content-Security-Policy`; empty: none.
        asked: paths of the requests.
    """

    folder: Path
    policy: str = ""
    asked: list[str] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            if server.policy:
                self.send_header("Content-Security-Policy", server.policy)
            super().end_headers()

        def log_request(self, *_: object) -> None:
            server.asked.append(self.path)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as listener:
        server.address = f"http://127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        yield server
        listener.shutdown()
        thread.join()


@pytest.fixture
def visit(server: Server, tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """Opens a page; returns its final HTML and the browser's complaints."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.fail(f"this trial needs a browser: {', '.join(BROWSERS)}", pytrace=False)

    def visit(path: str) -> tuple[str, str]:
        server.asked.clear()
        command = [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"),
            *("--enable-logging=stderr", f"--user-data-dir={tmp_path}/profile", "--dump-dom"),
            f"{server.address}/{path}",
        ]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=180, check=True
        )
        return done.stdout, "\n".join(re.findall(r"CONSOLE.*", done.stderr))

    return visit


def attack(address: str) -> str:
    """A name that would ask the server for `/fetched` and `/ran` if it were markup."""
    return (
        f"</pre></style></title></script><img src='{address}/fetched'>"
        f"<script>fetch('{address}/ran')</script>\"'><svg onload=fetch('{address}/ran')>"
        f"<iframe src='{address}/fetched'></iframe><link rel=stylesheet href={address}/fetched>"
    )


def test_the_browser_would_run_and_fetch(
    server: Server, visit: Callable[[str], tuple[str, str]], tmp_path: Path
) -> None:
    """The same names as markup: otherwise the trials below would show nothing."""
    (tmp_path / "page.html").write_text(f"<pre>{attack(server.address)}", encoding="utf-8")
    visit("page.html")
    assert {"/ran", "/fetched"} <= set(server.asked)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_comparison_with_hostile_names_runs_and_fetches_nothing(
    policy: str, server: Server, visit: Callable[[str], tuple[str, str]], tmp_path: Path
) -> None:
    """Under Jenkins's policy the plain page shows its style and all of its pictures."""
    server.policy = POLICIES[policy]
    text = attack(server.address)
    found = hostile(text)
    stored.write(tmp_path / "results.jsonl", found)
    found = stored.read(tmp_path / "results.jsonl")
    head = comparison_html(found, decide(found), false_alarms=text)
    report = tmp_path / "report.html"
    report.write_text(page_html(text, head, plain_note(report)), encoding="utf-8")
    write_plain(report, text, head)
    visit("report.html")
    assert set(server.asked) <= {"/report.html", "/favicon.ico"}
    _, complaints = visit("report-plain/index.html")
    pictures = {f"/report-plain/{p.name}" for p in (tmp_path / "report-plain").glob("*.png")}
    assert len(pictures) == 2
    expected = {"/report-plain/index.html", "/report-plain/report.css", *pictures}
    assert set(server.asked) - {"/favicon.ico"} == expected
    assert "Content Security Policy" not in complaints.replace("favicon", "")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_session_with_hostile_tests_runs_and_fetches_nothing(
    policy: str,
    server: Server,
    visit: Callable[[str], tuple[str, str]],
    pytester: pytest.Pytester,
    pytestconfig: pytest.Config,
    tmp_path: Path,
) -> None:
    """Names, output, logs, errors, skips and warnings; pytest-html shows them by its script."""
    server.policy = POLICIES[policy]
    pytester.makeini("[pytest]\naddopts =")
    pytester.makepyfile(
        f"""
        import logging, sys, warnings
        import pytest
        TEXT = {attack(server.address)!r}
        @pytest.mark.parametrize("x", [1], ids=[TEXT])
        def test_named(x): pass
        def test_failing(record_property):
            record_property(TEXT, TEXT)
            print(TEXT); print(TEXT, file=sys.stderr); logging.error(TEXT); warnings.warn(TEXT)
            pytest.fail(TEXT)
        def test_raising(): raise type(TEXT, (Exception,), {{}})(TEXT)
        def test_skipped(): pytest.skip(TEXT)
        @pytest.mark.xfail(reason=TEXT)
        def test_expected(): assert False, TEXT
        @pytest.fixture
        def broken(): raise OSError(TEXT)
        def test_broken(broken): pass
        """
    )
    report = tmp_path / "report.html"
    result = pytester.runpytest_inprocess(
        *(f"--html={report}", "--self-contained-html", "-p", "no:benchmark"),
        *("--metadata", "branch", attack(server.address)),
        plugins=[report_hooks(pytestconfig)],
    )
    result.assert_outcomes(passed=1, failed=2, skipped=1, xfailed=1, errors=1)
    page, _ = visit("report.html")
    assert set(server.asked) <= {"/report.html", "/favicon.ico"}
    assert page.count("test_failing") >= (2 if policy == "none" else 1)
    assert NOTE in page
    plain, complaints = visit("report-plain/index.html")
    assert set(server.asked) <= {
        *("/report-plain/index.html", "/report-plain/report.css", "/favicon.ico"),
    }
    assert "Content Security Policy" not in complaints.replace("favicon", "")
    for name in ("named", "failing", "raising", "skipped", "expected", "broken"):
        assert f"test_{name}" in plain
