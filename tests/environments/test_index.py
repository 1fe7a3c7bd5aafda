"""Releases from a package index: only what can be installed here, and one line about a failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from packaging.tags import Tag, sys_tags
from packaging.version import Version

from bench.environments import index
from bench.environments.commands import EnvironmentProblem
from bench.environments.index import Release, index_of, releases

HERE = str(next(sys_tags()))
JSON = "application/vnd.pypi.simple.v1+json"


class Server(ThreadingHTTPServer):
    """An index with one package, `some-package`."""

    content = b""
    asked: tuple[str, Message] | None = None


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked = self.path, self.headers
        self.send_response(200 if self.path == "/simple/some-package/" else 404)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def answer(*files: dict[str, Any], version: str = "1.1") -> bytes:
    return json.dumps(
        {"meta": {"api-version": version, "_last": 3}, "name": "some-package", "files": files}
    ).encode()


def wheel(version: str, tag: str = "py3-none-any", **more: Any) -> dict[str, Any]:
    filename = f"some_package-{version}-{tag}.whl"
    fields = {name.replace("_", "-"): value for name, value in more.items()}
    return {"filename": filename, "url": "u", "hashes": {}, **fields}


def variables(server: Server, user: str = "") -> dict[str, str]:
    return {"UV_DEFAULT_INDEX": f"http://{user}127.0.0.1:{server.server_port}/simple/"}


def found(server: Server, *files: dict[str, Any], **options: Any) -> tuple[Release, ...]:
    server.content = answer(*files)
    return releases("Some.Package", variables=variables(server), **options)


def problem(variables: dict[str, str], name: str = "some-package") -> str:
    with pytest.raises(EnvironmentProblem) as caught:
        releases(name, variables=variables)
    message = str(caught.value)
    assert message.startswith(f"releases of {name}: ")
    assert message.endswith("; give the levels by hand: --level REQ")
    assert "\n" not in message
    return message


def versions(found: tuple[Release, ...]) -> list[str]:
    return [str(release.version) for release in found]


def test_releases_are_sorted_by_version_with_upload_and_size(server: Server) -> None:
    """The request names the package as an index does, and asks for JSON."""
    assert found(
        server,
        wheel("1.10.0", upload_time="2026-03-01T10:00:00.123456Z", size=7),
        wheel("1.9.0"),
        wheel("1.10.0rc1", upload_time="2026-02-01T10:00:00+02:00"),
    ) == (
        Release(Version("1.9.0"), None, None),
        Release(Version("1.10.0rc1"), datetime(2026, 2, 1, 8, tzinfo=timezone.utc), None),
        Release(Version("1.10.0"), datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=timezone.utc), 7),
    )
    assert server.asked is not None
    assert server.asked[0] == "/simple/some-package/"
    assert server.asked[1]["Accept"] == JSON


def test_only_what_can_be_installed_here_counts(server: Server) -> None:
    files = [
        wheel("1", HERE),
        wheel("2", "cp27-none-any"),
        wheel("3", "cp311-cp311-win_amd64"),
        wheel("4", requires_python=">=4"),
        wheel("5", requires_python=">=3.8", yanked=False),
        wheel("6", yanked=True),
        wheel("7", yanked="wrong numbers"),
        wheel("8", yanked=""),
        wheel("9", requires_python="no specifier"),
        wheel("10", requires_python=None),
        {"filename": "some_package-11.tar.gz", "url": "u", "hashes": {}},
        {"filename": "some_package-12.exe", "url": "u", "hashes": {}},
        wheel("no-version"),
        wheel("9" * 5000),
    ]
    assert versions(found(server, *files)) == ["1", "5", "9", "10"]


def test_python_and_tags_can_be_given(server: Server) -> None:
    files = [
        wheel("1", "cp310-cp310-linux_x86_64", requires_python=">=3.10,<3.11"),
        wheel("2", "cp312-cp312-linux_x86_64", requires_python=">=3.11"),
        wheel("3", "py3-none-any", requires_python=">=3.13.0rc1"),
    ]
    old = [Tag("cp310", "cp310", "linux_x86_64")]
    assert versions(found(server, *files, python="3.10.4", tags=old)) == ["1"]
    new = [Tag("cp312", "cp312", "linux_x86_64"), Tag("py3", "none", "any")]
    assert versions(found(server, *files, python="3.12.0", tags=new)) == ["2"]
    assert versions(found(server, *files, python="3.13.0rc2", tags=new)) == ["2", "3"]


def test_the_first_upload_counts_and_the_size_of_the_best_wheel(server: Server) -> None:
    """A wheel for this very platform is installed before one for all."""
    (release,) = found(
        server,
        wheel("1", size=1, upload_time="2026-01-02T00:00:00Z"),
        wheel("1", HERE, size=2, upload_time="2026-01-03T00:00:00"),  # in UTC, without its Z
        wheel("1", "cp27-none-any", size=3, upload_time="2026-01-01T00:00:00Z"),
    )
    assert release.size_bytes == 2
    assert release.uploaded == datetime(2026, 1, 2, tzinfo=timezone.utc)


def test_an_unknown_package_is_told(server: Server) -> None:
    message = problem(variables(server), "other")
    assert f":{server.server_port}/simple has no such package;" in message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<!DOCTYPE html><html></html>", "does not answer in the JSON of PEP 691"),
        (b"", "does not answer in the JSON of PEP 691"),
        (b"\xff", "does not answer in the JSON of PEP 691"),
        (b"[" * 100_000, "does not answer in the JSON of PEP 691"),
        (b"[]", "does not answer in the JSON of PEP 691"),
        (b'{"files": []}', "does not answer in the JSON of PEP 691"),
        (answer({"filename": 3}), "does not answer in the JSON of PEP 691"),
        (answer(wheel("1", upload_time="lately")), "does not answer in the JSON of PEP 691"),
        (answer(version="2.0"), "answers in version 2.0 of its JSON, not in 1"),
        (answer(version="2\n::error::x"), r"answers in version 2 ::error::x of its JSON"),
    ],
)
def test_an_index_without_the_known_json_is_told(content: bytes, told: str, server: Server) -> None:
    server.content = content
    assert told in problem(variables(server))


def test_a_large_answer_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_LARGEST", 10)
    server.content = answer()
    assert "cannot be asked: http://127.0.0.1" in problem(variables(server))
    assert "larger than 10 bytes" in problem(variables(server))


def test_a_slow_answer_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_MOST_SECONDS", 0)
    server.content = answer()
    assert "not complete after 0 s" in problem(variables(server))


def test_a_missing_index_is_told_without_the_password() -> None:
    message = problem({"UV_INDEX_URL": "http://user:secret@127.0.0.1:1/simple"})
    assert "http://****@127.0.0.1:1/simple cannot be asked: 127.0.0.1: Failed to" in message
    assert "secret" not in message


def test_a_password_is_sent_and_not_shown(server: Server) -> None:
    given = variables(server, user="user:secret@")
    server.content = answer(wheel("1"))
    assert versions(releases("some-package", variables=given)) == ["1"]
    assert server.asked is not None
    assert server.asked[1]["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert "secret" not in problem(given, "other")


@pytest.mark.parametrize("place", ["/opt/simple", "file:///opt/simple", "../simple"])
def test_an_index_in_a_folder_is_told(place: str) -> None:
    assert f"{place} is a folder, and tells no dates" in problem({"UV_DEFAULT_INDEX": place})


@pytest.mark.parametrize("value", ["1", "true"])
def test_offline_no_index_is_asked(value: str) -> None:
    assert "is not asked, since UV_OFFLINE is set" in problem({"UV_OFFLINE": value})


def test_the_tests_ask_no_index() -> None:
    """As their variables forbid it."""
    with pytest.raises(EnvironmentProblem, match="UV_OFFLINE is set"):
        releases("some-package")


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "https://pypi.org/simple"),
        ({"PIP_INDEX_URL": "https://a.invalid/simple/"}, "https://a.invalid/simple"),
        ({"PIP_INDEX_URL": "https://a.invalid", "UV_INDEX_URL": "http://b.invalid"}, None),
        ({"UV_INDEX_URL": "https://a.invalid", "UV_DEFAULT_INDEX": "http://b.invalid"}, None),
        ({"UV_INDEX_URL": "", "PIP_INDEX_URL": "http://b.invalid"}, None),
        ({"UV_DEFAULT_INDEX": "my-own.index=http://b.invalid"}, None),
    ],
)
def test_the_index_is_the_one_of_uv_or_pip(variables: dict[str, str], url: str | None) -> None:
    assert index_of(variables) == (url or "http://b.invalid")
