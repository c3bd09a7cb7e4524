"""A file to which lines are only appended: the copy of what a stream holds."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from worker.outputs.files import PAGE_BYTES, append_whole, open_private, rotated_path, rotated_seqs


class CopiedFile:
    """A file of lines that is only appended to, and rotates by size. Raises OSError.

    Opening it cuts off an incomplete last line, which a crash left.
    """

    def __init__(self, path: Path, *, rotate_at_bytes: int) -> None:
        self.path = path
        self._rotate_at_bytes = rotate_at_bytes
        self._file = open_private(path)
        if path.is_file():  # not a device
            self._file.truncate(_end_of_last_line(self._file))
            self._file.seek(0, os.SEEK_END)

    def append(self, lines: list[bytes]) -> None:
        """Append all lines, or none if the disk refuses; to a new file if the old was removed."""
        if not self._is_in_place():
            fresh = open_private(self.path)
            self._file.close()
            self._file = fresh
            self._file.seek(0, os.SEEK_END)
        if self._file.tell() >= self._rotate_at_bytes:
            self._rotate()
        append_whole(self._file, b"".join(lines))

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        """Begin a new file, opened before the old one is renamed: a full disk changes nothing."""
        fresh_path = self.path.with_name(f"{self.path.name}.new")
        fresh = open_private(fresh_path, os.O_TRUNC)
        try:
            number = max(rotated_seqs(self.path), default=0) + 1
            with suppress(FileNotFoundError):  # somebody removed it
                self.path.rename(rotated_path(self.path, number))
            fresh_path.rename(self.path)
        except OSError:
            fresh.close()
            raise
        self._file.close()
        self._file = fresh

    def close(self) -> None:
        self._file.close()


def _end_of_last_line(file: BinaryIO) -> int:
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - PAGE_BYTES)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
