"""Writing and reading of results files, with damage reported in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.records import blocks, results
from bench.records.blocks import (
    CANDIDATE,
    Failure,
    GpuWitness,
    Results,
    SideSamples,
    Witness,
)
from bench.records.catalogue import WORKLOADS
from bench.records.sides import Side
from bench.verdicts.speed import decide
from lenet5.errors import InputError
from tests import synthetic
from tests.commands import contents, largest_file
from tests.synthetic import GROWTH, LOOP, PEAK, growth_terms, terms


def comparison() -> Results:
    """Returns results with every element of a results file."""
    on = {LOOP: terms(), PEAK: terms(1.1, unit="MiB"), GROWTH: growth_terms()}
    values: dict[str, list[float | None]] = {
        LOOP: [0.01, 0.02, 0.03, None],
        PEAK: [0.01] * 4,
        GROWTH: [-0.1, 0.0, 0.1, 0.02],
    }
    measured = synthetic.results(values, on, options={"budget_seconds": 900.0, "threads": 1})
    first, *others = measured.blocks
    side = SideSamples((0.03, 0.031), (0.03, 0.03), (0.0, 0.001), (2.3, 2.2))
    first = replace(
        first,
        samples={
            **first.samples,
            LOOP: replace(first.samples[LOOP], baseline=side, candidate=side),
        },
        disturbed=("steal 20 %",),
    )
    others[2] = replace(others[2], failures=(Failure(CANDIDATE, LOOP, "hung", "some\noutput ü"),))
    built = Side(
        "./my.whl TF_ENABLE_ONEDNN_OPTS=0",
        "my",
        {"python": "3.11.7", "flags": ["avx512f"]},
        ("keras==3.15.1", "numpy==2.4.6"),
        {"TF_ENABLE_ONEDNN_OPTS": "0"},
    )
    missing = Side("tensorflow-cpu==9", "9", problem="no such version")
    return replace(measured, candidates=(built, missing), blocks=(first, *others))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Returns the path of a results file of `comparison`."""
    results.write(tmp_path / "results.jsonl", comparison())
    return tmp_path / "results.jsonl"


def test_written_results_are_read_back(path: Path) -> None:
    read = results.read(path)
    assert read == comparison()
    assert repr(decide(read)) == repr(decide(comparison()))  # as text, since NaN != NaN


def test_the_published_results_keep_their_labels() -> None:
    """The recomputed labels equal those in the file and are unique."""
    path = Path(results.__file__).parents[1] / "results" / "results.jsonl"
    header = content_of(path)
    stored = [side["label"] for side in (header["baseline"], *header["candidates"])]
    found = results.read(path)
    assert [side.label for side in (found.baseline, *found.candidates)] == stored
    assert len(set(stored)) == len(stored) > 1


OLD = Side(
    "tensorflow-cpu==2.21.0",
    "2.21.0",
    {"tensorflow": "2.21.0", "keras": "3.15.1", "keras_package": "keras", "python": "3.11.7"},
    ("keras==3.15.1", "tensorflow-cpu==2.21.0"),
)


@pytest.mark.parametrize(
    ("lock", "versions", "settings", "label"),
    [
        (
            ("keras-nightly==3.16.0.dev1", "tensorflow-cpu==2.22.0rc0"),
            {"tensorflow": "2.22.0-rc0", "keras": "3.16.0.dev1"},
            {},
            "2.22.0rc0 + Keras 3.16.0.dev1",
        ),
        (
            ("keras-nightly==3.16.0.dev1", "tf-nightly-cpu==2.23.0.dev20261101"),
            {"tensorflow": "2.23.0-dev20261101", "keras": "3.16.0.dev1"},
            {},
            "2.23.0.dev20261101 + Keras 3.16.0.dev1",
        ),
        (
            ("intel-tensorflow==2.14.0", "keras==2.14.0"),
            {"tensorflow": "2.14.0", "keras": "2.14.0"},
            {},
            "2.14.0",
        ),
        (
            ("keras==3.15.1", "tensorflow-cpu==2.21.0", "tf-keras==2.21.0"),
            {"tensorflow": "2.21.0", "keras": "2.21.0", "keras_package": "tf_keras"},
            {"TF_USE_LEGACY_KERAS": "1"},
            "2.21.0 + tf-keras 2.21.0",
        ),
        (
            ("keras==3.15.1", "our-build==1"),
            {"tensorflow": "2.22.0", "keras": "3.15.1"},
            {},
            "2.22.0",
        ),
        (("intel-tensorflow==2.14.0", "keras==2.14.0"), {}, {}, "2.14.0"),  # no worker has run
    ],
)
def test_older_results_get_labels_of_the_imported_versions(
    tmp_path: Path,
    lock: tuple[str, ...],
    versions: dict[str, str],
    settings: dict[str, str],
    label: str,
) -> None:
    """Old labels may be `unknown TensorFlow`, or omit a candidate's different Keras."""
    told = {"python": "3.11.7", **versions}
    side = Side("asked for", "unknown TensorFlow", told, lock, settings)
    absent = Side("tensorflow-cpu==9", "tensorflow-cpu==9", problem="no such version")
    path = tmp_path / "results.jsonl"
    results.write(path, replace(comparison(), baseline=OLD, candidates=(side, absent)))
    found = results.read(path)
    assert [each.label for each in found.candidates] == [label, "tensorflow-cpu==9"]
    has_other_keras = "Keras" in label or "tf-keras" in label
    expected = "2.21.0 + Keras 3.15.1" if has_other_keras or label == "2.14.0" else "2.21.0"
    assert found.baseline.label == expected


def test_results_without_blocks_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    begun = replace(comparison(), blocks=(), complete=False)
    results.write(path, begun)
    assert results.read(path) == begun


def test_a_non_finite_loss_is_read_back(tmp_path: Path) -> None:
    """Such a loss is the verdict's reason, not damage."""
    path = tmp_path / "results.jsonl"
    measured = comparison()
    block = measured.blocks[0]
    wrong = replace(block.samples[LOOP], candidate_check=(2.3, math.nan, math.inf))
    results.write(path, replace(measured, blocks=(replace(block, samples={LOOP: wrong}),)))
    read = results.read(path).blocks[0].samples[LOOP].candidate_check
    assert read[0] == 2.3
    assert math.isnan(read[1])
    assert read[2] == math.inf


def test_workloads_are_read_in_catalogue_order(tmp_path: Path) -> None:
    """JSON sorts workloads by name; workloads unknown to this version come last."""
    path = tmp_path / "results.jsonl"
    names = [*WORKLOADS, "a new one", "another"]
    results.write(
        path, replace(comparison(), workloads={n: growth_terms() for n in reversed(names)})
    )
    assert list(results.read(path).workloads) == names


def test_every_line_is_standard_json(path: Path) -> None:
    """The header precedes the blocks, one per line; non-finite numbers are strings."""
    measured = comparison()
    wrong = replace(measured.blocks[0].samples[LOOP], candidate_check=(math.nan, -math.inf))
    blocks = (replace(measured.blocks[0], samples={LOOP: wrong}), *measured.blocks[1:])
    results.write(path, replace(measured, blocks=blocks))
    lines = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == ["ledger", "header", *["block"] * 4, "end"]
    assert lines[0] == {"ledger": {"kind": "speed", "schema": 3}}
    assert lines[2]["block"]["samples"][LOOP]["candidate_check"] == ["NaN", "-Infinity"]


def content_of(path: Path) -> Any:
    """Returns header fields, blocks and schema of a ledger."""
    first, header, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    blocks = [line["block"] for line in lines if "block" in line]
    return {**header["header"], "blocks": blocks, "schema": first["ledger"]["schema"]}


def damaged(path: Path, change: Callable[[Any], object]) -> str:
    """Returns the error on reading a modified file, without the path."""
    content = content_of(path)
    change(content)
    opening = {"kind": "speed", "schema": content.pop("schema", None)}
    blocks = [{"block": block} for block in content.pop("blocks")]
    lines = [{"ledger": opening}, {"header": content}, *blocks, {"end": {}}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return answer(path)


def answer(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        results.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def loop(content: Any, block: int = 0) -> Any:
    """Returns the samples of workload `LOOP` in a block."""
    return content["blocks"][block]["samples"][LOOP]


NO_FLOAT = "is damaged: Expected `float`, got `"
NO_NUMBER = "is damaged: a sample that is not finite"
UNLIKE = "is damaged: the two sides have different numbers of samples, or none"
NOT_THERE = "is damaged: a block of an unknown candidate or workload"
NO_MARGIN = "is damaged: a margin that is not finite and above 0"
DAMAGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "a lock entry without a version": (
        lambda c: c["baseline"]["lock"].append("numpy"),
        "is damaged: a lock without versions",
    ),
    "no machine": (
        lambda c: c.pop("machine"),
        "is damaged: Object missing required field `machine`",
    ),
    "no workloads": (
        lambda c: c.pop("workloads"),
        "is damaged: Object missing required field `workloads`",
    ),
    "no label": (
        lambda c: c["candidates"][1].pop("label"),
        "is damaged: Object missing required field `label`",
    ),
    "no margin": (
        lambda c: c["workloads"][LOOP].pop("margin"),
        "is damaged: Object missing required field `margin`",
    ),
    "no samples": (
        lambda c: c["blocks"][3].pop("samples"),
        "is damaged: Object missing required field `samples`",
    ),
    "no seconds": (
        lambda c: c["blocks"][3].pop("seconds"),
        "is damaged: Object missing required field `seconds`",
    ),
    "no side": (
        lambda c: loop(c).pop("candidate"),
        "is damaged: Object missing required field `candidate`",
    ),
    "no values": (
        lambda c: loop(c)["baseline"].pop("values"),
        "is damaged: Object missing required field `values`",
    ),
    "no reason": (
        lambda c: c["blocks"][3]["failures"][0].pop("reason"),
        "is damaged: Object missing required field `reason`",
    ),
    "NaN": (lambda c: loop(c)["candidate"].update(values=[0.03, "NaN"]), NO_NUMBER),
    "NaN that is not JSON": (
        lambda c: loop(c)["candidate"].update(values=[0.03, math.nan]),
        "is damaged: line 3 is not a record",
    ),
    "infinity": (lambda c: loop(c)["baseline"].update(values=[0.03, "Infinity"]), NO_NUMBER),
    "text": (lambda c: loop(c)["baseline"].update(values=["0.03", 0.03]), NO_FLOAT),
    "true": (lambda c: loop(c)["baseline"].update(values=[True, 0.03]), NO_FLOAT),
    "zero": (
        lambda c: loop(c)["baseline"].update(values=[0.03, 0.0]),
        "is damaged: a sample of 0 or less",
    ),
    "a check figure": (
        lambda c: loop(c).update(candidate_check=[2.3, None]),
        "is damaged: Expected `float`, got `null`",
    ),
    "one sample less": (lambda c: loop(c)["candidate"]["values"].pop(), UNLIKE),
    "no sample": (
        lambda c: [loop(c)[side].update(values=[]) for side in blocks.SIDES],
        UNLIKE,
    ),
    "unknown workload": (lambda c: c["blocks"][1]["samples"].update(other=loop(c)), NOT_THERE),
    "unknown candidate": (lambda c: c["blocks"][1].update(candidate=2), NOT_THERE),
    "negative candidate": (lambda c: c["blocks"][1].update(candidate=-1), NOT_THERE),
    "unknown side": (
        lambda c: c["blocks"][3]["failures"][0].update(side="other"),
        "is damaged: an unknown side",
    ),
    "negative margin": (lambda c: c["workloads"][LOOP].update(margin=-1.03), NO_MARGIN),
    "NaN margin": (lambda c: c["workloads"][GROWTH].update(margin="NaN"), NO_FLOAT),
    "text margin": (lambda c: c["workloads"][LOOP].update(margin="1.03"), NO_FLOAT),
    "negative length": (
        lambda c: c["blocks"][0].update(seconds=-1.0),
        "is damaged: a block without a duration",
    ),
    "text budget": (
        lambda c: c["options"].update(budget_seconds="900"),
        "is damaged: a budget that is not finite",
    ),
    "endless clock": (
        lambda c: c.update(clock_seconds=1e300),
        "is damaged: a clock's resolution that is not finite",
    ),
    "newer schema": (lambda c: c.update(schema=4), "has schema 4, this version reads 3"),
    "no schema": (lambda c: c.pop("schema"), "has schema None, this version reads 3"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES)
def test_missing_unknown_and_out_of_range_fields_are_reported(
    path: Path, change: Callable[[Any], object], message: str
) -> None:
    assert damaged(path, change).startswith(message)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(blocks=[1]),
        lambda c: c.update(candidates=[3]),
        lambda c: c.update(workloads=[LOOP]),
        lambda c: c.update(options=[1]),
        lambda c: c["blocks"].append(None),
        lambda c: c["blocks"][0].update(samples=[LOOP]),
        lambda c: loop(c).update(baseline=[0.03]),
        lambda c: loop(c)["baseline"].update(values=0.03),
    ],
    ids=range(8),
)
def test_fields_of_another_type_are_reported(path: Path, change: Callable[[Any], object]) -> None:
    assert damaged(path, change).startswith("is damaged: ")


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "null", '"results"', "{}", "schema: 1", "\0", "[" * 100_000]
)
def test_a_file_other_than_a_ledger_is_reported(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    assert answer(path) == "is damaged or not a ledger"


def test_a_binary_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"\x89PNG\xff\xfe")
    assert answer(path) == "is damaged or not a ledger"


def test_a_file_of_an_earlier_version_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"schema": 1, "blocks": []}')
    assert answer(path) == "is damaged or not a ledger"


def test_a_truncated_last_line_loses_only_its_own_record(path: Path) -> None:
    """At any cut, the other lines are read and the results are marked as torn."""
    whole = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for last in (2, 4, len(ends) - 2):
        for length in range(ends[last] + 1, ends[last + 1] - 1, 97):
            path.write_bytes(whole[:length])
            found = results.read(path)
            assert found.torn
            assert found.blocks == comparison().blocks[: last - 1]
            assert not found.complete


def test_a_truncated_line_within_the_file_is_damage(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:3], lines[3][:40], *lines[4:]]))
    assert answer(path) == "is damaged: line 4 is not a record"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Returns the folder of lock files."""
    return tmp_path / "cache"


def test_blocks_are_written_as_they_arrive(tmp_path: Path, cache: Path) -> None:
    """Each block is written once, and the header again after a change."""
    path, whole = tmp_path / "new" / "results.jsonl", comparison()
    states = [replace(whole, blocks=whole.blocks[:n], complete=False) for n in range(5)]
    states[3:] = [replace(state, options={**whole.options, "pinned": True}) for state in states[3:]]
    with results.keeping(path, cache) as keep:
        for state in states:
            keep(state)
            assert results.read(path) == state
        keep(replace(states[-1], complete=True))
    assert results.read(path) == replace(states[-1], complete=True)
    names = [next(iter(json.loads(line))) for line in path.read_text().splitlines()]
    assert names.count("block") == 4
    assert names.count("header") == 2


def test_a_truncated_line_is_removed_before_appending(path: Path, cache: Path) -> None:
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:4]) + whole[4][:50])
    before = results.read(path)
    with results.keeping(path, cache, before) as keep:
        keep(comparison())
    found = results.read(path)
    assert (found.blocks, found.torn, found.complete) == (comparison().blocks, False, True)


def test_two_processes_cannot_append_to_one_file(path: Path, cache: Path) -> None:
    with (
        results.keeping(path, cache, comparison()),
        pytest.raises(InputError, match="another process appends to it"),
        results.keeping(path, cache, comparison()),
    ):
        pass


def test_a_measuring_error_is_not_reported_as_a_file_error(tmp_path: Path, cache: Path) -> None:
    """No file without records remains."""
    path = tmp_path / "new.jsonl"
    with pytest.raises(OSError, match="no more processes"), results.keeping(path, cache):
        raise OSError("no more processes")
    assert not path.exists()


def test_a_file_changed_since_reading_is_not_modified(path: Path, cache: Path) -> None:
    before = replace(comparison(), blocks=comparison().blocks[:2])
    with (
        pytest.raises(InputError, match="has changed since it was read"),
        results.keeping(path, cache, before),
    ):
        pass
    assert results.read(path) == comparison()


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert answer(tmp_path / "none.jsonl") == "cannot be read: No such file or directory"
    assert answer(tmp_path) == "cannot be read: Is a directory"


def test_a_full_disk_leaves_only_the_earlier_file(path: Path) -> None:
    before = contents(path.parent)
    more = replace(comparison(), blocks=comparison().blocks * 100)
    with largest_file(len(before["results.jsonl"]) + 100), pytest.raises(InputError) as caught:
        results.write(path, more)
    assert str(caught.value) == f"{path}: cannot be written: File too large"
    assert contents(path.parent) == before
    results.write(path, more)
    assert results.read(path) == more
    assert list(contents(path.parent)) == ["results.jsonl"]


def test_a_failed_write_leaves_the_earlier_file(path: Path) -> None:
    before = contents(path.parent)
    with pytest.raises(TypeError):
        results.write(path, replace(comparison(), options={"folder": path}))
    assert contents(path.parent) == before


def test_results_are_never_overwritten(path: Path) -> None:
    before = contents(path.parent)
    for there in (path, path.parent):
        with pytest.raises(InputError) as caught:
            results.check_new(there)
        assert str(caught.value) == (
            f"{there}: exists, results are never overwritten; choose another --results"
        )
    assert contents(path.parent) == before


def test_the_check_of_a_new_file_creates_only_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "results.jsonl"
    results.check_new(path)
    results.check_new(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["results.jsonl/in-a-file.jsonl", f"{'long' * 99}.json", "/proc/results.jsonl"]
)
def test_the_check_of_a_new_file_reports_an_unwritable_path(path: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        results.check_new(path.parent / name)
    assert str(caught.value).startswith(f"{path.parent / name}: cannot be written: ")


UNLIKE_RESULTS: dict[str, dict[str, Any]] = {
    "machines": {"machine": {"cpu": "another", "cores": 2}},
    "code": {"code": "1" * 64},
    "baselines": {"baseline": replace(comparison().baseline, lock=("numpy==1.26.3",))},
    f"versions of {LOOP}": {"workloads": {LOOP: replace(terms(), version=2)}},
    "threads": {"options": {"threads": 2}},
}


@pytest.mark.parametrize(("what", "changes"), UNLIKE_RESULTS.items(), ids=UNLIKE_RESULTS)
def test_different_results_cannot_be_combined(what: str, changes: dict[str, Any]) -> None:
    other = replace(comparison(), **changes)
    with pytest.raises(InputError) as caught:
        results.check_alike(comparison(), other)
    told = str(caught.value)
    assert told.startswith(f"results of different {what} cannot be combined")


def test_results_measured_alike_can_be_combined(path: Path) -> None:
    """Workloads, candidates, start times and labels may differ."""
    other = replace(
        comparison(),
        started="2026-11-23T12:00:00+00:00",
        blocks=(),
        workloads={"fit_call": replace(terms(), version=7)},
        baseline=replace(comparison().baseline, label="old"),
        candidates=(Side("tensorflow-cpu==2.20.0", "2.20.0"),),
    )
    results.check_alike(results.read(path), other)


def test_witnesses_of_a_gpu_are_read_back_and_older_ones_have_none(tmp_path: Path) -> None:
    (first, *_), path = comparison().blocks, tmp_path / "results.jsonl"
    gpu = GpuWitness(("SW power cap",), {"power": (12.5, 0.25)}, 41, 1980, None)
    witness = Witness(1e-4, 0.5, gpu=gpu)
    results.write(path, replace(comparison(), blocks=(replace(first, witnesses=(witness,)),)))
    assert results.read(path).blocks[0].witnesses == (witness,)
    first_line, header, block, *others = path.read_text().splitlines()
    content = json.loads(block)
    del content["block"]["witnesses"][0]["gpu"]
    path.write_text("\n".join([first_line, header, json.dumps(content), *others, ""]))
    assert results.read(path).blocks[0].witnesses[0].gpu is None
