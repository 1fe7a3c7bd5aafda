"""Reads pictures in a process of its own, so that a crash, a hang or a flood of memory is seen.

python -m tests.faults.guarded FILE reads FILE anew for each line on its input.
"""

from __future__ import annotations

import resource
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from lenet5.errors import InputError
from lenet5.images import read_image

ROOT = Path(__file__).parents[2]
_MOST_MEMORY = 3 * 2**30


class Crash(Exception):  # noqa: N818 - a finding about a library
    """The process ended, or did not answer in time."""


class Reader:
    """A process that reads pictures; it is started again after a crash."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._path = folder / "picture"
        self._seconds = seconds
        self._process = self._started()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def read(self, content: bytes) -> None:
        """Reads a picture.

        Raises:
            InputError: the project refused it.
            Crash: the process ended or hung.
        """
        self._path.write_bytes(content)
        channel_in, channel_out = self._process.stdin, self._process.stdout
        assert channel_in is not None
        assert channel_out is not None
        channel_in.write("read\n")
        channel_in.flush()
        if not select.select([channel_out], [], [], self._seconds)[0]:
            self._again()
            raise Crash(f"no answer in {self._seconds:g} s")
        answer = channel_out.readline().rstrip("\n")
        if not answer:
            code = self._process.wait()
            self._again()
            raise Crash(f"the process ended with status {code}")
        if answer != "read":
            raise InputError(answer)

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.guarded", str(self._path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _again(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._process = self._started()


def main(path: Path) -> None:
    """Answers each line with `read`, or with the refusal in one line."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    for _ in sys.stdin:
        try:
            image = read_image(path)
            answer = "read" if image.shape == (28, 28, 1) else f"shape {image.shape}"
        except InputError as error:
            answer = str(error).replace("\n", "\\n")
        print(answer, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
