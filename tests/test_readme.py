"""What the README tells people to run exists."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest

from bench.__main__ import main as bench_main
from bench.records.catalogue import WORKLOADS
from lenet5.cli import main
from lenet5.data import MNIST_FILES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = [
    line.split("  #")[0].strip()
    for language, block in BLOCKS
    if language in ("sh", "bash")
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]
WORKFLOW_RUNS = [
    line.strip()
    for language, block in BLOCKS
    if language == "yaml"
    for line in re.findall(r"^\s*(?:- )?run: (.*)$", block, re.MULTILINE)
]
COMMANDS = [part.strip() for line in SHELL + WORKFLOW_RUNS for part in line.split("&&")]


def test_there_are_commands_to_check() -> None:
    assert len(WORKFLOW_RUNS) >= 2
    assert len(SHELL) >= 8


def test_quick_start_is_an_install_and_a_test_command() -> None:
    block = README.split("## Quick start", 1)[1].split("```")[1]
    lines = [line for line in block.splitlines()[1:] if line.strip()]
    assert len(lines) == 2
    assert "pip install" in lines[0]
    assert "lenet5 train" in lines[0]
    assert lines[1].endswith("pytest")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists_with_all_its_options(
    command: str, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        word
        for word in shlex.split(command.split(" -- ", maxsplit=1)[0])
        if not re.fullmatch(r"[A-Z0-9_]+=.*", word)
    ]
    if words[:2] == ["python", "-m"]:
        words = words[2:]
    program, arguments = words[0], words[1:]
    options = [word.split("=")[0] for word in arguments if word.startswith("-")]
    if program == "lenet5":
        helped = _help_of(arguments[0], capsys)
        assert all(option in helped for option in options)
    elif program == "pytest":
        known = {name for o in _pytest_options(pytestconfig) for name in o}
        assert set(options) <= known
        for path in (word for word in arguments if word in ("tests", "bench")):
            assert (ROOT / path).is_dir()
    elif program == "bench":
        assert all(option in _bench_help_of(arguments[0], capsys) for option in options)
    elif program == "tox":
        environments = " ".join(_tox_environments())
        for name in (word for word in arguments if not word.startswith("-")):
            assert name.removeprefix("py311-") in environments
    elif program == "pip":
        assert arguments[0] == "install"
    else:
        assert program in ("git", "cd", "open", "cat"), f"nothing checks {program!r}"


def test_every_option_of_every_command_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "evaluate", "predict", "data", "recipes"):
        for option in re.findall(r"--[a-z-]+", _help_of(command, capsys)):
            assert option in README or option == "--help", f"{command} {option}"
    for variable in ("LENET5_MNIST_DIR", "TFDS_DATA_DIR"):
        assert variable in README
    assert all(file in README for file in MNIST_FILES)


def test_every_option_of_the_gate_is_told(pytestconfig: pytest.Config) -> None:
    groups = [
        g for g in pytestconfig._parser._groups if g.name in ("lenet5", "comparison", "accuracy")
    ]
    for option in (option for group in groups for option in group.options):
        assert option.names()[0] in README


def test_every_workload_and_margin_is_told() -> None:
    for name, spec in WORKLOADS.items():
        assert f"`{name}`" in README
        assert spec.margin is None or spec.is_difference or f"{spec.margin:g}" in README


def _help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


def _bench_help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert bench_main([command, "--help"]) == 0
    return capsys.readouterr().out


def _pytest_options(config: pytest.Config) -> list[list[str]]:
    groups = [config._parser._anonymous, *config._parser._groups]
    return [list(option.names()) for group in groups for option in group.options]


def _tox_environments() -> list[str]:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    sections = [name.removeprefix("testenv:") for name in tox.sections()]
    return [*sections, tox["tox"]["env_list"], tox["tox"]["labels"]]
