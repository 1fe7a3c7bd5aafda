"""Requested text files: written as a whole, through links and pipes without replacing these."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from lenet5.errors import InputError
from lenet5.run_directory import writing, written_whole


@dataclass(frozen=True)
class Output:
    """Destination of a text.

    Attributes:
        path: the requested path.
        is_stream: whether the path is a pipe or a device, which receives only the final text.
    """

    path: Path
    is_stream: bool

    @classmethod
    def checked(cls, path: Path) -> Output:
        """Checks before any measurement that the path is writable.

        Raises:
            InputError: The path is a folder, or its folder cannot be created or written.
        """
        with writing(path):
            if path.is_dir():
                raise InputError(f"{path}: is a folder, name a file")
            if path.exists() and not path.is_file():
                return cls(path, is_stream=True)
            folder = path.resolve().parent
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        return cls(path, is_stream=False)

    def write(self, text: str, *, is_last: bool = True) -> None:
        """Writes a text over an earlier one; a stream receives only the last.

        Raises:
            InputError: The path cannot be written.
        """
        if self.is_stream:
            if is_last:
                with writing(self.path):
                    self.path.write_text(text, encoding="utf-8")
            return
        with written_whole(self.path.resolve()) as partial:  # a link stays a link
            partial.write_text(text, encoding="utf-8")
