"""Kills of sessions at random moments, and the count of what is lost.

python -m tests.faults.kills KIND TRIALS [--real]

`--real` trains and times in this Python's TensorFlow instead of scripted workers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.faults.session import ROOT
from tests.measure.stub_worker import stub_python

KINDS = ("speed", "accuracy", "reference")
_MARK = "TF_FAULTS_RUN"
_ORPHAN_SECONDS = 5.0  # an orphan that still ends by itself is none
_LIMIT_SECONDS = 1200.0


@dataclass(frozen=True)
class Trial:
    """A kill of a session, and the same command again until its end.

    Attributes:
        kind: one of `KINDS`.
        after_seconds: moment of the kill.
        finished: finished records at the kill.
        lost: those that are missing at the end.
        missing: records of an unkilled session that are missing at the end; 0 for real workers,
            whose blocks are not known beforehand.
        twice: records that are in the ledger more than once at the end.
        orphans: processes of the session that still live after the kill.
        folders: temporary folders left at the end.
        status: exit status of the last session.
    """

    kind: str
    after_seconds: float
    finished: int
    lost: int
    missing: int
    twice: int
    orphans: int
    folders: int
    status: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost or left, and the last session finished the work."""
        bad = self.lost or self.missing or self.twice or self.orphans or self.folders
        return not bad and self.status >= 0


@dataclass(frozen=True)
class Place:
    """Folders and requests of the sessions of one kind."""

    kind: str
    folder: Path
    baseline: str
    candidate: str
    dataset: str

    def command(self, ledger: Path) -> list[str]:
        """Returns the command of a session; it is the same after a kill."""
        module = [sys.executable, "-m", "tests.faults.session"]
        places = [str(self.folder / "project"), str(ledger)]
        return [*module, self.kind, *places, self.baseline, self.candidate, self.dataset]


def place_of(kind: str, folder: Path, *, real: bool = False) -> Place:
    """Prepares the folders of sessions.

    Args:
        kind: one of `KINDS`.
        folder: an empty folder.
        real: whether the workers run TensorFlow; otherwise they are scripted.
    """
    for name in ("temporary", "cache", "project"):
        (folder / name).mkdir()
    mark = f"{_MARK}={uuid.uuid4().hex}"
    # Memory too small for a decision makes a session of all blocks.
    pause = "TF_STUB_PAUSE=0.01 TF_STUB_MIB=0.01" if kind == "speed" else "TF_STUB_PAUSE=0.1"
    base = f". {mark}" if real else f"python:{stub_python(folder)} {mark} {pause}"
    other = f"{base} TF_FAULTS_SIDE=candidate" if real else f"{base} TF_STUB_LOSS=1"
    return Place(kind, folder, base, other, "digits" if real else "black")


def expected_records(place: Place) -> tuple[set[str], float]:
    """Runs a session without a kill; returns its records, and its seconds."""
    start = time.monotonic()
    ledger = place.folder / "whole.jsonl"
    with _session(place, ledger) as process:
        process.wait(timeout=_LIMIT_SECONDS)
    return set(records(ledger)), time.monotonic() - start


def kill_once(
    place: Place,
    wanted: Collection[str],
    after_seconds: float,
    number: int,
    after_records: int = 10**9,
) -> Trial:
    """Kills a session with SIGKILL, and runs its command again.

    Args:
        place: folders and requests.
        wanted: records of an unkilled session; empty if they are not known.
        after_seconds: moment of the kill.
        number: number of the trial, for the ledger's name.
        after_records: number of finished records that brings the kill forward.
    """
    ledger = place.folder / f"{place.kind}-{number}.jsonl"
    with _session(place, ledger) as process:
        _wait(process, after_seconds, lambda: len(records(ledger)) >= after_records)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = records(ledger)
    orphans = _orphans(place)
    with _session(place, ledger) as process:
        status = process.wait(timeout=_LIMIT_SECONDS)
    at_end = records(ledger)
    return Trial(
        kind=place.kind,
        after_seconds=after_seconds,
        finished=len(finished),
        lost=sum(1 for name in finished if name not in at_end),
        missing=sum(1 for name in wanted if name not in at_end),
        twice=sum(count > 1 for count in at_end.values()),
        orphans=orphans,
        folders=len([*(place.folder / "temporary").glob("lenet5*")]),
        status=status,
    )


def _wait(process: subprocess.Popen[bytes], seconds: float, is_enough: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline and not is_enough():
        time.sleep(0.01)


def records(ledger: Path) -> Counter[str]:
    """Counts each finished record of a ledger: a whole line of a block or a seed."""
    found: Counter[str] = Counter()
    if ledger.exists():
        for line in ledger.read_bytes().split(b"\n")[:-1]:
            ((name, content),) = json.loads(line).items()
            if name == "block":
                key = f"block {content['candidate']} {content['number']} {content['disturbed']}"
                found[key] += 1
            if name == "seed":
                found[f"seed {content.get('set')} {content['seed']}"] += 1
    return found


def environment(place: Place) -> dict[str, str]:
    """Returns the variables of a session, with temporary and cache folders of its own."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(place.folder / "temporary"),
        "XDG_CACHE_HOME": str(place.folder / "cache"),
    }


@contextmanager
def _session(place: Place, ledger: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (place.folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            place.command(ledger), cwd=ROOT, env=environment(place), stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _orphans(place: Place) -> int:
    """Counts the processes with the mark of this place, once they had time to end."""
    mark = place.baseline.split(_MARK)[1].split()[0].removeprefix("=")
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while living := [*_marked(mark)]:
        if time.monotonic() > deadline:
            for process in living:
                process.kill()
            return len(living)
        time.sleep(0.1)
    return 0


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            is_ours = process.environ().get(_MARK) == mark
            if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


def trials(place: Place, count: int, seed: int = 0) -> Iterator[Trial]:
    """Kills sessions at random moments within the time of a whole one."""
    wanted, seconds = expected_records(place)
    if not wanted:
        raise RuntimeError((place.folder / "output.txt").read_text()[-2000:])
    moments = random.Random(seed)  # noqa: S311 - not a secret
    known = () if place.dataset == "digits" and place.kind == "speed" else wanted
    for number in range(count):
        yield kill_once(place, known, moments.uniform(0.0, seconds), number)


def main() -> int:
    """Prints a line for each trial; the exit status is 1 if anything was lost or left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("trials", type=int)
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for trial in trials(
            place_of(options.kind, Path(folder), real=options.real), options.trials
        ):
            found.append(trial)
            print(trial, flush=True)
    whole = sum(trial.is_whole for trial in found)
    print(
        f"{options.kind}: {len(found)} kills, {sum(t.finished for t in found)} finished records, "
        f"{sum(t.lost for t in found)} lost, {sum(t.missing for t in found)} never measured, "
        f"{sum(t.twice for t in found)} twice, "
        f"{sum(t.orphans for t in found)} orphans, {max(t.folders for t in found)} folders left"
    )
    return 0 if whole == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
