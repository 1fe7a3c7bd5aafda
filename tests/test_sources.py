"""No file of this project starts a shell, runs text as code, or unpickles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("lenet5", "bench", "tests", "findings")
FILES = sorted(
    [ROOT / "conftest.py", *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]
)
IMPORTS = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "yaml", "commands"}
CALLS = {
    *("eval", "exec", "os.system", "os.popen", "pty.spawn", "tempfile.mktemp"),
    *("subprocess.getoutput", "subprocess.getstatusoutput"),
    *("asyncio.create_subprocess_shell", "torch.load", "pickle.load", "pickle.loads"),
    *("np.loads", "np.fromregex", "zipfile.ZipFile.extractall", "tarfile.TarFile.extractall"),
}
STARTS = ("run", "Popen", "call", "check_call", "check_output")
# The models of a test are its own; a test of a refusal shows that the refused code would run.
UNSAFE = {"tests/test_saved_models.py"}


def complaints(source: str) -> list[str]:
    """Returns the calls and imports of a source that start a shell or run data as code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in IMPORTS]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module or ""] if (node.module or "").split(".")[0] in IMPORTS else []
        elif isinstance(node, ast.Call):
            found += _in_call(node)
    return found


def _in_call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    options = {each.arg: each.value for each in node.keywords}
    found = [name] if name in CALLS else []
    found += ["shell=True"] if _is(options.get("shell"), True) else []
    found += ["allow_pickle=True"] if _is(options.get("allow_pickle"), True) else []
    found += ["safe_mode=False"] if _is(options.get("safe_mode"), False) else []
    first = node.args[0] if node.args else options.get("args")
    is_start = name.split(".")[0] == "subprocess" and name.split(".")[-1] in STARTS
    if is_start and isinstance(first, ast.Constant | ast.JoinedStr | ast.BinOp):
        found.append(f"{name} of a text")
    return found


def _is(node: ast.expr | None, value: bool) -> bool:
    """Whether an option may have this value: anything but the other constant may."""
    return node is not None and not (isinstance(node, ast.Constant) and node.value is not value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_starts_a_shell_or_runs_data(path: Path) -> None:
    found = complaints(path.read_text(encoding="utf-8"))
    if path.relative_to(ROOT).as_posix() in UNSAFE:
        found.remove("safe_mode=False")
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "os.system('x')",
        "subprocess.run('x y')",
        "subprocess.Popen(f'x {y}')",
        "subprocess.run(args='x ' + y)",
        "subprocess.run(['x'], shell=True)",
        "subprocess.run(['x'], shell=wanted)",
        "eval(text)",
        "np.load(path, allow_pickle=True)",
        "load_model(path, safe_mode=False)",
        "tempfile.mktemp()",
    ],
)
def test_each_kind_is_noticed(source: str) -> None:
    assert len(complaints(source)) == 1


def test_models_are_loaded_in_safe_mode_at_one_place() -> None:
    """Any other place would skip the check of the file."""
    loads = [
        (path.relative_to(ROOT).as_posix(), node)
        for name in ("lenet5", "bench")
        for path in (ROOT / name).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("models.load_model")
    ]
    ((place, call),) = [each for each in loads if not each[0].startswith("bench/mutations")]
    assert place == "lenet5/loading.py"
    assert "safe_mode=True" in ast.unparse(call)


def test_the_audit_is_strict_and_ignores_nothing() -> None:
    """Without `--strict`, a package that cannot be looked up passes."""
    text = (ROOT / "tox.ini").read_text(encoding="utf-8")
    audit = text.partition("[testenv:audit]")[2].partition("\n[testenv")[0]
    assert "pip-audit --strict " in audit
    commands = [line for line in audit.splitlines() if not line.lstrip().startswith("#")]
    assert not [line for line in commands if "--ignore-vuln" in line]
