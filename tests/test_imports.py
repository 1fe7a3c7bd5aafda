"""Import rules: `bench -> lenet5`, left to right within it, one place per heavy library."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from conftest import WITHOUT_TENSORFLOW
from tests.commands import of_checkout

ROOT = Path(__file__).parent.parent

# A module imports only modules to its left; DESIGN's order, extended by helper modules.
ORDER = (
    *("errors", "printable", "documents", "accuracy"),
    *("pictures.masks", "pictures.grounds", "pictures.strokes", "images"),
    *("recipe", "recipes", "devices", "runtime", "distributions", "locks", "control_groups"),
    "environment",
    *("preparation.download", "preparation.mnist_files", "preparation.tfds_mnist", "data"),
    *("augmentation", "history", "model", "steps", "early_stopping"),
    *("graph_engine", "keras_engine", "training"),
    *("saved_model", "loading", "evaluation", "plots", "run_directory", "checkpoint", "run"),
    *("folders", "terminal", "train_command", "cli"),
)
# In `bench`, only worker modules, which run inside a measurement, and the breakages of TensorFlow
# may import it.
BREAKING = ("breakage", "optimisers", "layers", "objectives", "fitting", "callbacks", "saving")
HOMES = {
    ("lenet5", "tensorflow_datasets"): {"preparation.tfds_mnist"},
    ("lenet5", "requests"): {"preparation.download"},
    ("lenet5", "sklearn"): {"evaluation", "data"},  # data: the built-in digits, lazily
    ("lenet5", "matplotlib"): {"plots"},
    ("lenet5", "PIL"): {"images"},
    ("lenet5", "scipy"): {"accuracy", "pictures.masks", "pictures.grounds", "pictures.strokes"},
    ("lenet5", "tqdm"): {"terminal"},
    ("lenet5", "filelock"): {"locks"},
    ("lenet5", "tensorflow"): {
        *("devices", "runtime", "augmentation", "model", "steps", "early_stopping"),
        *("graph_engine", "keras_engine", "training", "loading", "evaluation"),
    },
    ("bench", "matplotlib"): {
        f"report.{name}"
        for name in (
            "charts",
            "comparison_plots",
            "version_plots",
            "accuracy_plots",
            "bisection.plots",
        )
    },
    ("bench", "tensorflow"): {
        *(f"worker.{name}" for name in ("main", "workloads", "numerics")),
        *(f"mutations.framework.{name}" for name in BREAKING),
    },
    ("bench", "distributed"): {"measure.cluster.executor"},
    ("bench", "pynvml"): {"measure.gpus"},
    ("bench", "skchange"): {"verdicts.history.change_points"},
    ("bench", "sklearn"): set(),
    ("bench", "tensorflow_datasets"): set(),
}
# Allowed imports between the folders of `bench`; modules in `bench` itself may import all.
BENCH = {
    "environments": set(),
    "worker": set(),
    "records": {"environments"},
    "verdicts": {"environments", "records"},
    "plans": {"environments", "records", "verdicts"},
    "measure": {"environments", "records"},
    "report": {"records", "verdicts"},
    "bisection": {
        *("environments", "records", "verdicts", "plans", "measure", "report"),
        *("engine", "speed", "seeds"),  # fronts, whose stages it repeats
    },
    "gpu_check": {
        *("environments", "records", "verdicts", "plans", "measure", "report"),
        *("outputs", "speed"),  # fronts
    },
    "mutations": set(),
}
HEAVY = ("tensorflow", "tensorflow_datasets", "sklearn", "matplotlib", "scipy", "keras")


def imports_of(path: Path, *, lazy: bool = True) -> set[str]:
    """Returns the dotted names of a file's imports; `lazy` includes those inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    nodes = list(ast.walk(tree)) if lazy else tree.body
    names: set[str] = set()
    for node in nodes:
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def modules(package: str) -> dict[str, Path]:
    """Returns files by dotted name within the package, including its subpackages."""
    paths = {path.relative_to(ROOT / package): path for path in (ROOT / package).rglob("*.py")}
    return {".".join(name.with_suffix("").parts): path for name, path in sorted(paths.items())}


def test_every_module_is_in_the_order() -> None:
    found = {name for name in modules("lenet5") if not name.endswith("__init__")}
    assert found - {"__main__"} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_modules_to_its_left(module: str) -> None:
    imported = {
        name.split(".")[1]
        for name in imports_of(modules("lenet5")[module])
        if name.startswith("lenet5.") and name.split(".")[1] in ORDER
    }
    right = set(ORDER[ORDER.index(module) :])
    assert not imported & right


@pytest.mark.parametrize("folder", BENCH)
def test_a_folder_of_bench_imports_only_folders_before_it(folder: str) -> None:
    imported = {
        name.split(".")[1]
        for module, path in modules("bench").items()
        if module.startswith(f"{folder}.")
        for name in imports_of(path)
        if name.startswith("bench.")
    }
    assert imported <= {folder, *BENCH[folder]}


@pytest.mark.parametrize("package", ["bench", "lenet5"])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    files = modules(package)
    graph = {
        module: {
            other
            for name in imports_of(path)
            for other in (name.removeprefix(f"{package}."), _parent(name, package))
            if other in files and other != module
        }
        for module, path in files.items()
    }
    TopologicalSorter(graph).prepare()


def _parent(name: str, package: str) -> str:
    """The module of `package.module.function`."""
    return name.removeprefix(f"{package}.").rpartition(".")[0]


def test_every_folder_of_bench_is_listed_and_small() -> None:
    """Each folder has at most a dozen modules, without `__init__`."""
    names = [module.split(".") for module in modules("bench")]
    assert {parts[0] for parts in names if len(parts) > 1} == set(BENCH)
    for folder in BENCH:
        assert sum(parts[0] == folder and len(parts) == 2 for parts in names) - 1 <= 12


def test_the_package_does_not_import_bench_or_tests() -> None:
    for path in modules("lenet5").values():
        assert not {name.split(".")[0] for name in imports_of(path)} & {"bench", "tests"}
    for path in modules("bench").values():
        assert "tests" not in {name.split(".")[0] for name in imports_of(path)}


@pytest.mark.parametrize(("package", "library"), HOMES, ids=lambda name: name)
def test_a_heavy_library_is_imported_only_in_its_place(package: str, library: str) -> None:
    found = {
        name
        for name, path in modules(package).items()
        if library in {imported.split(".")[0] for imported in imports_of(path)}
    }
    assert found == HOMES[package, library]


def test_the_digits_import_scikit_learn_lazily() -> None:
    eager = imports_of(modules("lenet5")["data"], lazy=False)
    assert not {name.split(".")[0] for name in eager} & {"sklearn", "filelock", "PIL"}
    assert "lenet5.images.resize" not in eager


@pytest.mark.parametrize("statement", ["import lenet5", "import lenet5.cli"])
def test_imports_are_cheap(statement: str) -> None:
    """Invalid arguments are therefore reported at once."""
    code = f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=of_checkout(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_worker_needs_only_numpy_and_tensorflow() -> None:
    """The left modules of the package run in environments without other packages."""
    allowed = {"lenet5", "numpy", "tensorflow", *sys.stdlib_module_names}
    left = (
        *("errors", "recipe", "recipes", "data", "runtime", "augmentation", "history", "model"),
        *("steps", "early_stopping", "graph_engine", "keras_engine", "training"),
    )
    for module in left:
        eager = {n.split(".")[0] for n in imports_of(modules("lenet5")[module], lazy=False)}
        assert eager <= allowed


def test_every_import_is_declared() -> None:
    """A missing requirement shows only in a clean installation."""
    text = (ROOT / "pyproject.toml").read_text()
    # h5py is a requirement of every TensorFlow.
    distributions = {"PIL": "pillow", "sklearn": "scikit-learn", "h5py": "tensorflow"}
    for path in modules("lenet5").values():
        for name in imports_of(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "lenet5":
                continue
            assert f'"{distributions.get(top, top).replace("_", "-")}' in text, top
    assert '"importlib_resources"' in text  # etils imports it without declaring it


def test_tests_without_tensorflow_do_not_import_it() -> None:
    names = [
        f"tests.{folder}.{path.stem}"
        for folder in WITHOUT_TENSORFLOW
        for path in sorted((ROOT / "tests" / folder).glob("*.py"))
    ]
    assert len(names) > 30
    code = f"import sys; import {', '.join(names)}; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=of_checkout(), check=True)
