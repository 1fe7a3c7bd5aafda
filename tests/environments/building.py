"""Helpers of the environment tests: recorded or replaced commands, and shorthands."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.environments import commands
from bench.environments.builds import Built, build
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import parse_request

Completed = subprocess.CompletedProcess[str]


class Recorder:
    """Records commands, and runs them or returns a prepared answer."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        answers: Mapping[str, Completed | Callable[[], Completed]] | None = None,
    ) -> None:
        self.commands: list[list[str]] = []
        self.answers = dict(answers or {})
        self._real = commands.run
        monkeypatch.setattr(commands, "run", self)

    def __call__(self, command: Sequence[str | Path], *arguments: Any, **named: Any) -> Completed:
        words = [str(word) for word in command]
        self.commands.append(words)
        answer = self.answers.get(self.kind(words), None)
        if callable(answer):
            return answer()
        return answer or self._real(command, *arguments, **named)

    @staticmethod
    def kind(command: Sequence[str]) -> str:
        """Returns `compile`, `venv`, `install`, or `python` for a command run in an environment."""
        return next((word for word in ("compile", "venv", "install") if word in command), "python")

    def kinds(self) -> list[str]:
        return [self.kind(command) for command in self.commands]


def failed(stderr: str, status: int = 1) -> Completed:
    return Completed([], status, "", stderr)


def build_here(text: str, tmp_path: Path, say: Callable[[str], None] = lambda _: None) -> Built:
    return build(parse_request(text), tmp_path / "cache", say=say)


def problem(text: str, tmp_path: Path) -> str:
    with pytest.raises(EnvironmentProblem) as caught:
        build_here(text, tmp_path)
    message = str(caught.value)
    first, *others = message.splitlines()
    assert first.startswith(f"{text}: ")
    assert all(line.startswith("  ") or not line for line in others)
    return message.removeprefix(f"{text}: ")


def environments_in(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache" / "environments").iterdir() if path.is_dir()]


def homes_in(tmp_path: Path) -> list[Path]:
    return [path for key in environments_in(tmp_path) for path in key.iterdir() if path.is_dir()]
