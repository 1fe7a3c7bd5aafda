"""A text file that was asked for: written whole, through links and pipes, never in their place."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from lenet5.errors import InputError
from lenet5.run_directory import writing, written_whole


@dataclass(frozen=True)
class Output:
    """Where a text goes.

    Attributes:
        path: as it was asked for.
        is_stream: whether it is a pipe or a device, which takes one text, at the end.
    """

    path: Path
    is_stream: bool

    @classmethod
    def checked(cls, path: Path) -> Output:
        """Finds out before anything is measured whether a text can be written there.

        Raises:
            InputError: it is a folder, or its folder cannot be made or written.
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
        """Writes a text in place of an earlier one; to a stream only the last.

        Raises:
            InputError: it cannot be written.
        """
        if self.is_stream:
            if is_last:
                with writing(self.path):
                    self.path.write_text(text, encoding="utf-8")
            return
        with written_whole(self.path.resolve()) as partial:  # a link stays a link
            partial.write_text(text, encoding="utf-8")
