"""The variables that processes of a measured environment see."""

from __future__ import annotations

from pathlib import Path


def clean_variables(home: Path) -> dict[str, str]:
    """All that a measured environment's processes get to see: nothing of ours can reach them."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(home),
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
