"""A result file: a copy of the outcomes in a queue, with each of them exactly once."""

import os
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from worker.logs import logger
from worker.outputs.files import append_whole, open_private, rotated_path, rotated_seqs

log = logger()


PAGE_LINES = 2000


ReadLines = Callable[[int, int], list[tuple[int, bytes]]]
"""(seq, count) -> up to `count` pairs (seq, line) of the outcomes above `seq`, in order."""


class Agreement(Enum):
    """How a result file compares with the queue."""

    AGREES = "agrees"
    SHORTER = "shorter"
    LONGER = "longer"
    OTHER = "other"


class ResultFile:
    """One result file that follows the queue. Raises OSError for what the disk refuses.

    `rotated_seq`: the last outcome that was rotated away, as the queue remembers it. After a crash
    the name of a rotated file may hold a higher number, which counts.
    """

    def __init__(self, path: Path, read_lines: ReadLines, rotated_seq: int = 0) -> None:
        self._path = path
        self._read_lines = read_lines
        self._file: BinaryIO | None = None
        self._begin_seq = max([rotated_seq, *rotated_seqs(path)])
        self._written_seq = self._begin_seq

    @property
    def size_bytes(self) -> int:
        """Size of the open file; 0 for a device or a closed file."""
        return self._file.tell() if self._file and self._path.is_file() else 0

    def rotate(self) -> int:
        """Rename the file and begin a new one; return the seq of the last line in the old one."""
        self.close()
        self._path.rename(rotated_path(self._path, self._written_seq))
        self._begin_seq = self._written_seq
        self._open()
        return self._begin_seq

    def __repr__(self) -> str:
        return f"<ResultFile {self._path} up to {self._written_seq}>"

    def reconcile(self, *, rewrite: bool = False, is_input: bool = False) -> Path | None:
        """Make the file hold what the queue holds; return its new path if it was set aside.

        A longer file is cut, a shorter one completed, an edited one set aside and written anew.
        `rewrite`: the queue removed lines, so a file that differs is stale and was not edited.
        `is_input`: the file is also an input of this run, so its content must not change.
        """
        self.close()
        agreement, right_bytes, seq = compare(self._path, self._read_lines, self._begin_seq)
        if is_input and agreement is not Agreement.AGREES:
            agreement, rewrite = Agreement.OTHER, False
        if agreement is Agreement.OTHER:
            aside = None if rewrite else self._set_aside()
            self._write_anew()
            return aside
        if agreement is Agreement.LONGER and not rewrite:
            log.warning("lines that the queue does not know are cut off", file=str(self._path))
        self._open()
        assert self._file is not None  # noqa: S101 - just opened
        if self._path.is_file():
            self._file.truncate(right_bytes)
            self._file.seek(right_bytes)
        self._written_seq = seq
        self.follow()
        return None

    def follow(self) -> None:
        """Append the lines of all outcomes since the last call."""
        if self._file is None:
            return
        for page, seq in _pages(self._read_lines, self._written_seq):
            append_whole(self._file, page)
            self._written_seq = seq

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        self._file = open_private(self._path)

    def _set_aside(self) -> Path:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = self._path.with_name(f"{self._path.name}.edited-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{self._path.name}.edited-{stamp}-{number}")
        self._path.rename(aside)
        log.warning("a result file was edited: set aside and written anew", file=str(aside))
        return aside

    def _write_anew(self) -> None:
        """Write a new file beside the old one, then rename it: a crash leaves one of the two."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        self._file = open_private(fresh, os.O_TRUNC)
        self._written_seq = self._begin_seq
        self.follow()
        fresh.replace(self._path)


def compare(path: Path, read_lines: ReadLines, begin_seq: int = 0) -> tuple[Agreement, int, int]:
    """Compare a file with the queue: (agreement, right bytes at its beginning, their last seq).

    `begin_seq`: the last outcome that was rotated away.
    """
    right_bytes = 0
    right_seq = begin_seq
    if not path.is_file():
        # There is none yet, or it is a device, which cannot be read back.
        has_lines = bool(read_lines(begin_seq, 1))
        return (Agreement.SHORTER if has_lines else Agreement.AGREES), 0, begin_seq
    with path.open("rb") as file:
        while rows := read_lines(right_seq, PAGE_LINES):
            page = b"".join(line for _, line in rows)
            found = file.read(len(page))
            if found == page:
                right_bytes += len(page)
                right_seq = rows[-1][0]
                continue
            if not page.startswith(found):
                return Agreement.OTHER, right_bytes, right_seq
            for seq, line in rows:
                if not found.startswith(line):
                    break
                found = found[len(line) :]
                right_bytes, right_seq = right_bytes + len(line), seq
            return Agreement.SHORTER, right_bytes, right_seq
        return (Agreement.LONGER if file.read(1) else Agreement.AGREES), right_bytes, right_seq


def _pages(read_lines: ReadLines, after_seq: int) -> Iterator[tuple[bytes, int]]:
    while rows := read_lines(after_seq, PAGE_LINES):
        after_seq = rows[-1][0]
        yield b"".join(line for _, line in rows), after_seq
