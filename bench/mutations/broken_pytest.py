"""pytest on a broken Keras: `python -m bench.mutations.broken_pytest "NAME" PYTEST-ARGUMENTS...`.

TensorFlow is imported and broken before pytest imports the first test. Installed files stay
unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from bench.mutations.framework import find_breakage
from lenet5.runtime import start_tensorflow


def main(argv: Sequence[str]) -> int:
    """Runs the tests under the breakage named first and returns pytest's status."""
    breakage = find_breakage(argv[0])
    start_tensorflow(threads=1)
    breakage.install(pytest.MonkeyPatch())
    return int(pytest.main(list(argv[1:])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
