"""Commands, options and links in the READMEs are valid."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.__main__ import main as bench_main
from bench.bending import BENDING
from bench.plans.speed import DEFAULT_MARGIN, GPU_MARGIN
from bench.records.catalogue import workloads_on
from lenet5.cli import main
from lenet5.preparation.mnist_files import MNIST_FILES

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "RESULTS.md"
MANUALS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        *("README.md", "bench/README.md", "lenet5/README.md"),
        *("bench/bisection/README.md", "bench/report/history/README.md", "bench/GPU.md"),
    )
}
PAGES = sorted({*(ROOT / name for name in MANUALS), RESULTS, *(ROOT / "bench").rglob("*.md")})

LENET5_COMMANDS = ("train", "evaluate", "predict", "data", "recipes")
BENCH_COMMANDS = (
    *("verdict", "show", "report", "measure", "calibrate", "reference", "numerics"),
    *("error-rates", "bisect-error-rates", "environments"),
)
OWN_MANUALS = {
    "bisect": "bench/bisection/README.md",
    "history": "bench/report/history/README.md",
    "gpu-check": "bench/GPU.md",
}
"""Commands of `python -m bench` with a page of their own."""
TOX_OPTIONS = ("-e", "-m")
UV_OPTIONS = {"--override"}
DASK_OPTIONS = {"--nthreads", "--port", "--resources"}
REFUSED = {*BENDING.values(), "--dist"}
"""Options of other plugins, which may be missing."""


def _blocks(text: str) -> list[tuple[str, str]]:
    """Returns language and content of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _commands(text: str) -> Iterator[str]:
    """Yields the commands of shell blocks and of workflow steps."""
    for language, block in _blocks(text):
        lines: list[str] = []
        if language in ("sh", "bash"):
            lines = block.replace("\\\n", " ").splitlines()
        elif language == "yaml":
            lines = re.findall(r"^\s*(?:- )?run: (.*)$", block, re.MULTILINE)
        for line in lines:
            command = line.split("  #")[0].strip()
            if command and not command.startswith("#"):
                yield from (part.strip() for part in command.split("&&"))


COMMANDS = [(name, command) for name, text in MANUALS.items() for command in _commands(text)]
LINKS = [
    (page, link)
    for page in PAGES
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    if "://" not in link
]


@pytest.mark.parametrize("name", MANUALS)
def test_every_manual_has_commands(name: str) -> None:
    assert sum(where == name for where, _ in COMMANDS) >= 3


@pytest.mark.parametrize(("path", "most"), [(ROOT / "README.md", 150), (RESULTS, 120)])
def test_the_first_pages_are_short(path: Path, most: int) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= most


def test_quick_start_is_an_install_and_a_test_command() -> None:
    block = MANUALS["README.md"].split("## Quick start", 1)[1].split("```")[1]
    lines = [line for line in block.splitlines()[1:] if line.strip()]
    assert len(lines) == 2
    assert "pip install" in lines[0]
    assert "lenet5 train" in lines[0]
    assert lines[1].endswith("pytest")


@pytest.mark.parametrize("command", [command for _, command in COMMANDS])
def test_a_command_exists_with_all_its_options(
    command: str, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    own, _, for_pytest = command.partition(" -- ")
    words = [word for word in shlex.split(own) if not re.fullmatch(r"[A-Z0-9_]+=.*", word)]
    if words[0].removeprefix(".venv/bin/") == "python":
        words = words[2:]
    program, arguments = words[0], words[1:]
    options = _options_of(arguments)
    if program == "lenet5":
        assert options <= _options_in(_help_of(arguments[0], capsys))
    elif program == "pytest":
        assert options <= _pytest_options(pytestconfig)
        for path in (word for word in arguments if word in ("tests", "bench")):
            assert (ROOT / path).is_dir()
    elif program == "bench":
        assert options <= _options_in(_bench_help_of(arguments[0], capsys))
    elif program == "tox":
        assert options <= set(TOX_OPTIONS)
        environments = " ".join(_tox_environments())
        for name in (word for word in arguments if not word.startswith("-")):
            assert name.removeprefix("py311-") in environments
        assert _options_of(shlex.split(for_pytest)) <= _pytest_options(pytestconfig)
    elif program == "pip":
        assert arguments[0] == "install"
        assert not options
    elif program == "uv":
        assert arguments[:2] == ["pip", "install"]
        assert options <= UV_OPTIONS
    elif program == "dask":
        assert options <= DASK_OPTIONS
    elif program.startswith("tests."):
        assert (ROOT / f"{program.replace('.', '/')}.py").is_file()
    else:
        assert program in ("cat", "echo", "nvidia-smi", "venv"), f"nothing checks {program!r}"


@pytest.mark.parametrize("name", MANUALS)
def test_every_named_option_exists(
    name: str, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """This includes sentences and tables, except for refused options of other plugins."""
    known = _pytest_options(pytestconfig) | REFUSED | UV_OPTIONS | DASK_OPTIONS
    known |= _options_in(_help_of("", capsys))
    for command in LENET5_COMMANDS:
        known |= _options_in(_help_of(command, capsys))
    for command in (*BENCH_COMMANDS, *OWN_MANUALS):
        known |= _options_in(_bench_help_of(command, capsys))
    assert _options_in(MANUALS[name]) <= known


def test_every_option_of_lenet5_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    told = MANUALS["lenet5/README.md"]
    for command in LENET5_COMMANDS:
        assert f"`lenet5 {command}" in told
        assert _options_in(_help_of(command, capsys)) - {"--help"} <= _options_in(told)


@pytest.mark.parametrize("name", ["README.md", "lenet5/README.md"])
def test_data_files_and_their_variables_are_documented(name: str) -> None:
    assert "LENET5_MNIST_DIR" in MANUALS[name]
    assert all(f"`{file.name}.gz`" in MANUALS[name] for file in MNIST_FILES)
    for variable in ("TFDS_DATA_DIR", "LENET5_CACHE_DIR", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY"):
        assert f"`{variable}`" in MANUALS["lenet5/README.md"]


def test_every_option_of_pytest_bench_is_documented(pytestconfig: pytest.Config) -> None:
    groups = [g for g in pytestconfig._parser._groups if g.name in ("lenet5", "comparison")]
    names = {option.names()[0] for group in groups for option in group.options}
    assert "--baseline" in names
    assert "--mnist-dir" in names
    assert names <= _options_in(MANUALS["bench/README.md"])


def test_every_option_of_python_m_bench_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """Each option is in the rows of its own command."""
    told = MANUALS["bench/README.md"].split("## Options of `python -m bench`", 1)[1]
    rows = [line.split("|") for line in told.split("```", 1)[0].splitlines() if "|" in line]
    found: dict[str, set[str]] = {}
    command = ""
    for row in rows[2:]:
        command = row[1].strip().strip("`") or command
        found.setdefault(command, set()).update(_options_in(row[2]))
    for name in BENCH_COMMANDS:
        assert found[name] == _options_in(_bench_help_of(name, capsys)) - {"--help"}


@pytest.mark.parametrize("command", OWN_MANUALS)
def test_every_option_of_a_command_with_its_own_page_is_documented(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = MANUALS[OWN_MANUALS[command]].split("## Options", 1)[1].split("\n## ", 1)[0]
    assert _options_in(_bench_help_of(command, capsys)) - {"--help"} == _options_in(told)
    path = OWN_MANUALS[command].removeprefix("bench/")
    assert f"]({path}" in MANUALS["bench/README.md"]


def test_every_refused_option_is_documented() -> None:
    assert all(f"`{option}`" in MANUALS["bench/README.md"] for option in REFUSED)


@pytest.mark.parametrize(
    ("device", "page", "usual"),
    [("cpu", "bench/README.md", DEFAULT_MARGIN), ("gpu:0", "bench/GPU.md", GPU_MARGIN)],
)
def test_every_workload_is_listed_with_gating_and_margin(
    device: str, page: str, usual: float
) -> None:
    for name, spec in workloads_on(device).items():
        (row,) = re.findall(rf"^\| `{re.escape(name)}` \|.*\|$", MANUALS[page], re.MULTILINE)
        _, _, _, gated, margin, _ = (cell.strip() for cell in row.split("|"))
        assert gated == ("yes" if spec.gated else "no")
        assert margin.split()[0] == f"{spec.margin or usual:g}"


@pytest.mark.parametrize(
    ("page", "link"),
    [pytest.param(p, link, id=f"{p.relative_to(ROOT)}-{link}") for p, link in LINKS],
)
def test_a_link_has_a_target(page: Path, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    assert target.exists()
    if anchor:
        assert anchor in _anchors(target.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_footnote_is_defined_and_used(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    there = re.findall(r"^\[\^(\w+)\]:", text, re.MULTILINE)
    assert len(there) == len(set(there))
    assert set(there) == set(re.findall(r"\[\^(\w+)\](?!:)", text))


def _anchors(text: str) -> list[str]:
    """Returns GitHub's anchors of a page's headings."""
    for _, block in _blocks(text):
        text = text.replace(block, "")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def _options_of(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}


def _options_in(text: str) -> set[str]:
    """Returns the long options in a text."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def _help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main([*filter(None, [command]), "--help"])
    return capsys.readouterr().out


def _bench_help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert bench_main([command, "--help"]) == 0
    return capsys.readouterr().out


def _pytest_options(config: pytest.Config) -> set[str]:
    groups = [config._parser._anonymous, *config._parser._groups]
    return {name for group in groups for option in group.options for name in option.names()}


def _tox_environments() -> list[str]:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    sections = [name.removeprefix("testenv:") for name in tox.sections()]
    return [*sections, tox["tox"]["env_list"], tox["tox"]["labels"]]
