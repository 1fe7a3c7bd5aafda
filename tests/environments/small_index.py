"""A package index on this machine that serves the wheels of a folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from packaging.utils import canonicalize_name

_JSON = "application/vnd.pypi.simple.v1+json"


class Server(ThreadingHTTPServer):
    """An index; `has_sizes` says whether it tells them."""

    folder: Path
    has_sizes = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        kind, _, name = self.path.strip("/").partition("/")
        path = self.server.folder / name
        if kind == "files" and path.is_file():
            self._answer(path.read_bytes(), "application/zip")
        elif kind == "simple" and (files := [f for of, f in _files(self.server) if of == name]):
            meta = {"api-version": "1.1" if self.server.has_sizes else "1.0"}
            content = {"meta": meta, "name": name, "files": files}
            self._answer(json.dumps(content).encode(), _JSON)
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.send_error(405)  # uv then reads a whole wheel for its metadata

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _files(server: Server) -> Iterator[tuple[str, dict[str, object]]]:
    for path in sorted(server.folder.glob("*.whl")):
        content = path.read_bytes()
        about: dict[str, object] = {
            "filename": path.name,
            "url": f"http://127.0.0.1:{server.server_port}/files/{path.name}",
            "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
        }
        if server.has_sizes:
            about["size"] = len(content)
        yield canonicalize_name(path.name.partition("-")[0]), about


@contextmanager
def serving(folder: Path, *, has_sizes: bool = True) -> Iterator[str]:
    """Serves the wheels of a folder; yields the address of the index."""
    with Server(("127.0.0.1", 0), Handler) as server:
        server.folder, server.has_sizes = folder, has_sizes
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
