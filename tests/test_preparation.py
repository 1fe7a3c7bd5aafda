"""MNIST is prepared once and atomically; failures give a one-line error."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from lenet5 import data
from lenet5.data import Dataset, Subset
from lenet5.errors import InputError
from tests.commands import largest_file, of_checkout
from tests.preparing import (
    CACHE,
    LOCK,
    Small,
    fork,
    kill_at,
    load,
    names,
    refusal,
    start,
    status_of,
    wait_for,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Small:
    """Replaces MNIST in `load_dataset` by the small set, which counts its preparations."""
    stand_in = Small()
    stand_in.install(monkeypatch)
    return stand_in


def parts(dataset: Dataset) -> tuple[Subset, Subset, Subset]:
    return dataset.training, dataset.validation, dataset.test


def test_prepared_data_are_mapped_from_the_cache(tmp_path: Path, small: Small) -> None:
    for dataset in (load(tmp_path), load(tmp_path)):
        assert data.sha256_of(dataset) == small.sha256
        assert isinstance(dataset.training.images, np.memmap)
        assert [len(part.labels) for part in parts(dataset)] == [100, 5000, 20]
    assert small.calls == 1
    assert names(tmp_path / "lenet5") == [CACHE, LOCK]


def test_a_wait_for_another_process_is_told(tmp_path: Path, small: Small) -> None:
    (tmp_path / "lenet5").mkdir()
    other = FileLock(tmp_path / "lenet5" / LOCK)
    other.acquire()
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        other.release()

    assert data.sha256_of(load(tmp_path, report=report)) == small.sha256
    assert lines == [f"{data.mnist_cache(tmp_path)}: another process prepares it, waiting"]


def flip_last_byte(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def leave_dangling_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def save_other_type(file: Path) -> None:
    np.save(file, np.load(file).view(np.int8))


def save_other_shape(file: Path) -> None:
    np.save(file, np.load(file)[..., np.newaxis])


def save_other_order(file: Path) -> None:
    np.save(file, np.asfortranarray(np.load(file)))


def save_objects(file: Path) -> None:
    np.save(file, np.array([{}], object))


@pytest.mark.parametrize(
    "damage",
    [
        *(flip_last_byte, halve, empty, make_folder, make_pipe, leave_dangling_link, Path.unlink),
        *(save_other_type, save_other_shape, save_other_order, save_objects),
    ],
)
def test_a_damaged_cache_is_prepared_again(
    tmp_path: Path, small: Small, damage: Callable[[Path], None]
) -> None:
    load(tmp_path)
    damage(data.mnist_cache(tmp_path) / "validation_images.npy")
    lines: list[str] = []
    assert data.sha256_of(load(tmp_path, report=lines.append)) == small.sha256
    assert lines == [f"{data.mnist_cache(tmp_path)}: damaged, prepared again"]
    load(tmp_path)
    assert small.calls == 2
    assert names(tmp_path / "lenet5") == [CACHE, LOCK]


def test_damage_of_any_header_byte_is_detected(tmp_path: Path, small: Small) -> None:
    load(tmp_path)
    cache = data.mnist_cache(tmp_path)
    file = cache / "test_labels.npy"
    whole = file.read_bytes()
    for index in range(128):
        file.write_bytes(whole[:index] + bytes([whole[index] ^ 4]) + whole[index + 1 :])
        dataset = data._read_cache(cache)
        assert dataset is None or data.sha256_of(dataset) == small.sha256  # some bytes are padding


@pytest.mark.parametrize("place", ["file", "link", "pipe"])
def test_anything_in_the_place_of_the_cache_is_replaced(
    tmp_path: Path, small: Small, place: str
) -> None:
    cache = data.mnist_cache(tmp_path)
    cache.parent.mkdir()
    if place == "file":
        cache.write_text("")
    elif place == "link":
        cache.symlink_to("nowhere")
    else:
        os.mkfifo(cache)
    load(tmp_path)
    assert cache.is_dir()
    assert not cache.is_symlink()
    assert small.calls == 1


@pytest.mark.parametrize("place", ["lenet5", f"lenet5/{LOCK}"])
def test_a_dangling_link_on_the_way_to_the_cache_is_refused(
    tmp_path: Path, small: Small, place: str
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).symlink_to("nowhere")
    assert str(tmp_path / place) in refusal(tmp_path)
    assert small.calls == 0


def test_no_process_sees_a_partial_cache(
    tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, seen = np.save, []

    def watched_save(file: Path, array: np.ndarray, **more: Any) -> None:
        save(file, array, **more)
        seen.append(data.mnist_cache(tmp_path).exists())

    monkeypatch.setattr(np, "save", watched_save)
    load(tmp_path)
    assert seen == [False] * 6
    assert small.calls == 1


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, small: Small) -> None:
    with largest_file(10_000):
        message = refusal(tmp_path)
    told = "MNIST cannot be prepared there: is the disk full?"
    assert message.startswith(f"{data.mnist_cache(tmp_path)}: {told}")
    assert names(tmp_path / "lenet5") == [LOCK]
    load(tmp_path)
    assert small.calls == 2


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, small: Small) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    small.fail = interrupt
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path)
    assert names(tmp_path / "lenet5") == [LOCK]


@pytest.mark.parametrize("left", ["folder", "file", "link"])
def test_files_of_a_killed_process_are_removed(tmp_path: Path, small: Small, left: str) -> None:
    rest = tmp_path / "lenet5" / f"{CACHE}.partial"
    rest.parent.mkdir()
    if left == "folder":
        (rest / "work").mkdir(parents=True)
        (rest / "training_images.npy").write_bytes(b"half of it")
    elif left == "file":
        rest.write_bytes(b"")
    else:
        rest.symlink_to("nowhere")
    load(tmp_path)
    assert names(tmp_path / "lenet5") == [CACHE, LOCK]
    assert small.calls == 1


@pytest.mark.parametrize("damaged", [False, True])
def test_a_kill_at_any_step_leaves_nothing_to_the_next_process(
    tmp_path: Path, small: Small, damaged: bool
) -> None:
    moments = [("original", 1), ("save", 1), ("save", 6), ("rmtree", 1), ("rename", 1)]
    moments += [("renamed", 1)]
    if damaged:
        moments += [("rmtree", 2), ("rename", 2), ("renamed", 2)]
    for moment, count in moments:
        folder = tmp_path / f"{moment}{count}"
        if damaged:
            load(folder)
            halve(data.mnist_cache(folder) / "test_images.npy")
        killed = fork(partial(kill_at, moment, count, partial(load, folder)))
        assert status_of(killed) == -signal.SIGKILL
        assert data.sha256_of(load(folder)) == small.sha256
        assert names(folder / "lenet5") == [CACHE, LOCK]


def test_eight_processes_prepare_once(tmp_path: Path, small: Small) -> None:
    def called() -> None:
        time.sleep(0.2)
        with (tmp_path / "calls").open("a") as calls:
            calls.write("called\n")

    def check() -> None:
        assert data.sha256_of(load(tmp_path)) == small.sha256

    small.fail = called
    assert [status_of(process) for process in [fork(check) for _ in range(8)]] == [0] * 8
    assert (tmp_path / "calls").read_text() == "called\n"
    assert names(tmp_path / "lenet5") == [CACHE, LOCK]


def test_a_waiting_process_goes_on_after_a_kill(tmp_path: Path) -> None:
    killed = start(tmp_path, seconds=60)
    wait_for(tmp_path / "calls")
    waiting = start(tmp_path)
    assert waiting.stderr is not None
    line = f"lenet5: {data.mnist_cache(tmp_path)}: another process prepares it, waiting\n"
    assert waiting.stderr.readline() == line
    killed.kill()
    killed.communicate(timeout=60)
    assert waiting.communicate(timeout=60)[1] == ""
    assert waiting.returncode == 0
    assert names(tmp_path / "lenet5") == [CACHE, LOCK]


@pytest.mark.parametrize(("number", "waits"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_an_interrupted_preparation_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, waits: bool
) -> None:
    """A second process that waits for the first one can be interrupted as well."""
    with preserved_interrupts():
        process = first = start(tmp_path, seconds=60)
        wait_for(tmp_path / "calls")
        if waits:
            process = start(tmp_path)
            assert process.stderr is not None
            process.stderr.readline()
    process.send_signal(number)
    assert process.communicate(timeout=60) == ("", "lenet5: interrupted\n")
    assert process.returncode == 130
    if waits:
        first.terminate()
        first.communicate(timeout=60)
    assert names(tmp_path / "lenet5") == [LOCK]


@contextlib.contextmanager
def preserved_interrupts() -> Iterator[None]:
    """Lets new processes react to Ctrl-C, also where a shell runs this session in background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_concurrent_loads_prepare_once(
    tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, everybody, looked, found = data._read_cache, threading.Barrier(3), set(), []

    def read_cache(cache: Path) -> Dataset | None:
        dataset = read(cache)
        if threading.get_ident() not in looked:
            looked.add(threading.get_ident())
            everybody.wait(timeout=60)  # until all have found no cache
        return dataset

    def run() -> None:
        found.append(data.sha256_of(load(tmp_path)))

    monkeypatch.setattr(data, "_read_cache", read_cache)
    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert small.calls == 1
    assert found == [small.sha256] * 3


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_cache_that_cannot_be_written_names_the_variable(
    tmp_path: Path, small: Small, place: str
) -> None:
    """The named variable is the remedy: with it, the same command succeeds."""
    (tmp_path / "file").write_text("")
    cache = data.mnist_cache(tmp_path / place)
    message = refusal(tmp_path / place)
    assert message.startswith(f"{cache}: MNIST cannot be prepared there: [Errno ")
    assert message.endswith("; LENET5_CACHE_DIR may name another folder")
    assert small.calls == 0
    dataset = load(tmp_path / place, cache_dir=tmp_path / "new" / "cache")
    assert data.sha256_of(dataset) == small.sha256
    assert names(tmp_path / "new" / "cache") == [CACHE, LOCK]


def test_a_prepared_dataset_loads_without_tensorflow(tmp_path: Path, small: Small) -> None:
    load(tmp_path)
    code = (
        "import sys; from pathlib import Path; from lenet5 import data; "
        f"data._MNIST_SHA256 = {small.sha256!r}; "
        f"data.load_dataset('mnist', data_dir=Path({str(tmp_path)!r})); "
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'filelock') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=of_checkout(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_mnist_never_falls_back_to_other_images(tmp_path: Path, small: Small) -> None:
    def fail() -> None:
        raise InputError("no network")

    small.fail = fail
    assert refusal(tmp_path) == "no network"
