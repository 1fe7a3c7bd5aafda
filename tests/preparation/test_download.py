"""A download that fails says why, and names the variable that helps."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from urllib3.exceptions import MaxRetryError
from urllib3.exceptions import SSLError as WrappedError

from lenet5.errors import InputError
from lenet5.preparation import download as downloads
from lenet5.preparation.download import download

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class Server(ThreadingHTTPServer):
    """Answers every request with `status` and `content`."""

    status = 200
    content = b"seven"
    length = 5
    asked = 0
    headers: Message | None = None
    """Headers of the last request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        self.server.headers = self.headers
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.length))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on this machine; the user's own proxies are unset."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def refusal(url: str) -> str:
    with pytest.raises(InputError) as info:
        download(url, largest=1000)
    message = str(info.value)
    assert "\n" not in message
    return message


def test_a_file_is_downloaded(server: Server) -> None:
    assert download(server.url, largest=5) == b"seven"


def test_a_larger_file_than_expected_is_refused(server: Server) -> None:
    with pytest.raises(InputError, match="file: larger than 4 bytes"):
        download(server.url, largest=4)


def test_a_slow_download_is_given_up(server: Server) -> None:
    with pytest.raises(InputError, match="file: not complete after 0 s"):
        download(server.url, largest=5, most_seconds=0)


def test_headers_are_sent_and_the_password_of_an_address_is_not_shown(server: Server) -> None:
    url = server.url.replace("127.0.0.1", "user:secret@127.0.0.1")
    assert download(url, largest=5, headers={"Accept": "text/plain"}) == b"seven"
    assert server.headers is not None
    assert server.headers["Accept"] == "text/plain"
    assert server.headers["Authorization"].startswith("Basic ")
    with pytest.raises(InputError, match="larger than 4 bytes") as caught:
        download(url, largest=4)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (503, 4)])
def test_an_error_of_the_server_is_told(
    server: Server, status: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overloaded server is asked again."""
    monkeypatch.setattr(downloads, "_PAUSE_SECONDS", 0)
    server.status = status
    assert f"127.0.0.1: {status} " in refusal(server.url)
    assert server.asked == asked


def test_a_broken_download_is_told(server: Server) -> None:
    server.length = 100
    assert "127.0.0.1: IncompleteRead" in refusal(server.url)


def test_a_server_without_tls_is_told(server: Server) -> None:
    message = refusal(server.url.replace("http", "https"))
    assert message.startswith("127.0.0.1: no secure connection: [SSL")
    assert message.endswith("; HTTPS_PROXY names the proxy, if there is one")


def test_an_unknown_certificate_names_the_variable_that_requests_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error has the classes and the nesting of a proxy that opens TLS connections."""

    def get(*_: object, **__: object) -> None:
        cause = ssl.SSLCertVerificationError(
            1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"
        )
        pool: object = None
        retries = MaxRetryError(pool, "/file", WrappedError(cause))  # type: ignore[arg-type]
        raise requests.exceptions.SSLError(retries)

    monkeypatch.setattr(requests.Session, "get", get)
    assert refusal("https://example.org/file") == (
        "the certificate of example.org is not accepted: [SSL: CERTIFICATE_VERIFY_FAILED] "
        "certificate verify failed: self-signed certificate; behind a company proxy, "
        "REQUESTS_CA_BUNDLE names the file with its certificate"
    )


def test_a_missing_certificate_file_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    assert "/nowhere/ca.pem" in refusal(server.url.replace("http", "https"))


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nowhere.invalid:80"])
def test_a_proxy_that_is_not_there_is_told_without_its_password(
    server: Server, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@{host}")
    message = refusal(server.url.replace("127.0.0.1", "example.invalid"))
    assert message.startswith("the proxy cannot be used: Failed to ")
    assert message.endswith("; HTTPS_PROXY and NO_PROXY control it")
    assert "secret" not in message


def test_a_wrong_proxy_address_is_told_without_its_password(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@:x:y:9")
    assert "secret" not in refusal(server.url.replace("127.0.0.1", "example.invalid"))


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://nowhere.invalid/file", "nowhere.invalid: Failed to resolve 'nowhere.invalid'"),
        ("http://127.0.0.1:1/file", "127.0.0.1: Failed to establish a new connection: [Errno 111]"),
    ],
)
def test_a_missing_server_is_told(url: str, reason: str) -> None:
    assert refusal(url).startswith(reason)


def test_a_silent_server_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_READ_SECONDS", 0.05)
    server.length, server.content = 100, b""
    silent = threading.Event()
    monkeypatch.setattr(Handler, "end_headers", lambda _: silent.wait(60))
    message = refusal(server.url)
    silent.set()
    assert message.startswith("127.0.0.1: Read timed out")
