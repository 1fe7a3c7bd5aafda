"""Environment variables of processes in a measured environment."""

from __future__ import annotations

from pathlib import Path


def clean_variables(home: Path) -> dict[str, str]:
    """Returns all variables for processes in a measured environment; none of ours is inherited."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(home),
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
