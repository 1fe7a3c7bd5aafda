"""Fixtures that keep environment tests off the package index and the user's uv cache."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, uv_cache: Path) -> None:
    """Disables the package index and replaces the user's uv cache."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(uv_cache))
