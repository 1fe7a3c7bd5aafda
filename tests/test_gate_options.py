"""Invalid options of `pytest` are refused in one line, before any test."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import plugin
from lenet5 import run_directory
from lenet5.recipes import find_recipe

ROOT = Path(__file__).parents[1]
Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(
    pytester: pytest.Pytester, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a passing test with the options of the root conftest."""
    conftest = pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    hooks = types.ModuleType("hooks")
    for name in ("pytest_addoption", "pytest_configure"):
        setattr(hooks, name, getattr(conftest, name))
    monkeypatch.setattr(plugin, "FOLDER", pytester.path / "bench")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # set by TensorFlow's start
    pytester.makeini("[pytest]\naddopts =")  # independent of files above the temporary folder
    pytester.makepyfile("def test_passes(): pass")
    plugins = ("-p", "bench.plugin")

    def go(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*plugins, *arguments, plugins=[hooks])

    return go


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--recipe", "best", "--seed", "7", "--min-accuracy", "0.975"),
        ("--dataset", "digits", "--min-accuracy", "0.9"),
        ("--device", "cpu"),
        ("--device", "gpu:1"),
    ],
)
def test_valid_options_are_accepted(run: Run, arguments: tuple[str, ...]) -> None:
    run(*arguments).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "slow"), "unknown recipe 'slow'"),
        (("--seed", "-1"), "seed is -1"),
        (("--threads", "0"), "--threads is 0, expected 1 to 256"),
        (("--device", "tpu"), "--device is 'tpu', expected cpu, gpu or gpu:N"),
        (("--device", "gpu:x"), "--device is 'gpu:x', expected cpu, gpu or gpu:N"),
        (("--device", "gpu:-1"), "--device is 'gpu:-1', expected cpu, gpu or gpu:N"),
        (("--device=",), "--device is '', expected cpu, gpu or gpu:N"),
        (
            ("--mutations", "--device", "gpu"),
            "--mutations runs the unit tests, which are for CPUs: remove --device gpu",
        ),
        (("--min-accuracy", "nan"), "--min-accuracy is nan, expected a share from 0 to 1"),
        (("--min-accuracy", "98"), "--min-accuracy is 98.0, expected a share from 0 to 1"),
        (("--dataset", "digits"), "--dataset digits has no bound, give --min-accuracy"),
        (("--engine", "torch"), "unknown engine 'torch': choose keras or graph"),
        (("--run-dir", "nothing"), "nothing: not a run directory, it has no recipe.json"),
        (("--model", "nothing.keras"), "nothing.keras: no such file"),
        (("--run-dir", "run", "--seed", "1"), "--run-dir names a trained model"),
        (("--run-dir", "run", "--recipe", "fast"), "--run-dir names a trained model"),
        (("--model", "x.keras", "--engine", "graph"), "--model names a trained model"),
        (("--run-dir", "run", "--seeds", "10"), "--run-dir gates one model, --seeds trains many"),
        (("--model", "x.keras", "--seeds", "10"), "--model gates one model, --seeds trains many"),
        (("--run-dir", "run", "--model", "x.keras"), "give either --run-dir or --model"),
        (("--seeds", "10", "--min-accuracy", "0.9"), "without --dataset and --min-accuracy"),
        (("--mutations", "--run-dir", "run"), "has its own seeds: remove --run-dir"),
        (("--mutations", "--engine", "graph"), "has its own seeds: remove --engine"),
        (("--mutations", "--recipe", "best"), "has its own seeds: remove --recipe"),
        (("--mutations", "--seed", "3"), "has its own seeds: remove --seed"),
        (("--mutations", "--min-accuracy", "0.9"), "has its own seeds: remove --min-accuracy"),
    ],
)
def test_options_that_make_no_sense_are_exit_4(
    run: Run, arguments: tuple[str, ...], message: str
) -> None:
    done = run(*arguments)
    assert done.ret == 4
    (line,) = done.stderr.str().strip().splitlines()
    assert line.startswith("ERROR: ")
    assert message in line


def test_a_hidden_gpu_is_exit_4(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run("--device", "gpu")
    assert done.ret == 4
    assert "--device gpu: CUDA_VISIBLE_DEVICES='' shows 0 GPUs" in done.stderr.str()


def test_a_data_folder_that_is_an_address_is_exit_4(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", "gs://bucket/sets")
    done = run()
    assert done.ret == 4
    assert "TFDS_DATA_DIR is gs://bucket/sets: name a local folder" in done.stderr.str()


@pytest.mark.parametrize("option", ["--benchmark-only", "--setup-only", "--setup-plan"])
def test_options_cannot_skip_the_gate(run: Run, pytester: pytest.Pytester, option: str) -> None:
    """A session without the gate accepts them."""
    assert run(option).ret == 0
    pytester.makepyfile(
        "import pytest\n@pytest.fixture\ndef gated(): pass\ndef test_gate(gated): pass"
    )
    done = run(option)
    assert done.ret == 4
    assert f"{option} would skip, repeat, spread out or time out verdicts" in done.stderr.str()


def test_only_the_unit_tests_may_be_distributed(run: Run, pytester: pytest.Pytester) -> None:
    """Each process would train the gate's models, and disturb the throughput measurement."""
    pytester.makepyfile(
        spreading="""
        def pytest_addoption(parser):
            parser.addoption("--dist", default="no")
        """
    )
    pytester.syspathinsert()
    assert run("-p", "spreading", "--dist", "load").ret == 4
    assert run("-p", "spreading", "--dist", "load", "-m", "not mnist").ret == 0


def test_a_run_is_gated_on_its_own_dataset(run: Run, pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("run")
    trained = run_directory.Run(find_recipe("fast"), {}, 0, "digits", "keras")
    run_directory.write_json(folder / "recipe.json", run_directory.run_content(trained))
    (folder / "model.keras").touch()
    given = ("--run-dir", "run", "--min-accuracy", "0.9")
    assert run(*given).ret == run(*given, "--dataset", "digits").ret == 0
    done = run(*given, "--dataset", "mnist")
    assert done.ret == 4
    assert "--run-dir is a run on digits, not on mnist" in done.stderr.str()
