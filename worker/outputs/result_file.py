"""A result file: a copy of the outcomes in a queue, with each of them exactly once."""

import os
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from worker.logs import logger
from worker.outputs.evidence import Adopter, Finding, Knowledge, unknown_pages
from worker.outputs.files import (
    append_whole,
    naming,
    open_private,
    open_to_read,
    rotated_path,
    rotated_seqs,
    set_aside,
)
from worker.rules.result_lines import ImportedLine

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
    KNOWS_MORE = "knows-more"


Comparison = tuple[Agreement, int, int]
"""How the file compares, how many bytes at its beginning are right, and their last seq."""

SET_ASIDE = {
    "edited": "a result file was edited: set aside and written anew",
    "longer": "a result file held lines that the queue does not know: set aside and written anew",
    "adopted": "the topics of a result file were taken over: set aside and written anew",
    "rotated": "a rotated result file is of a queue that was lost: set aside",
}
"""The names under which files are set aside, and the reasons."""


class ResultFile:
    """One result file that follows the queue. Raises OSError for what the disk refuses.

    `rotated_seq`: the last outcome that was rotated away, as the queue remembers it. After a crash
    the name of a rotated file may hold a higher number, which counts if the queue has that outcome.
    `knowledge`: what the queue knows of imported topics; None for a file of other outcomes.
    """

    def __init__(
        self,
        path: Path,
        read_lines: ReadLines,
        rotated_seq: int = 0,
        knowledge: Knowledge | None = None,
    ) -> None:
        self._path = path
        self._read_lines = read_lines
        self._file: BinaryIO | None = None
        self._knowledge = knowledge
        known, self._strange_seqs = _known_rotations(path, read_lines, rotated_seq)
        self._begin_seq = max([rotated_seq, *known])
        self._written_seq = self._begin_seq
        self._was_adopted = False
        self._compared: Comparison | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the open file; 0 for a closed one."""
        return self._file.tell() if self._file else 0

    def rotate(self) -> int:
        """Rename the file and begin a new one; return the seq of the last line in the old one."""
        self.close()
        self._path.rename(rotated_path(self._path, self._written_seq))
        self._begin_seq = self._written_seq
        self._open()
        return self._begin_seq

    def __repr__(self) -> str:
        return f"<ResultFile {self._path} up to {self._written_seq}>"

    def agreement(self) -> Agreement:
        """Return how the file compares with the queue."""
        return self._comparison()[0]

    def _comparison(self) -> Comparison:
        """Compare the file with the queue, unless `find_unknown` did so a moment ago."""
        return self._compared or compare(self._path, self._read_lines, self._begin_seq)

    def find_unknown(self) -> Finding | None:
        """Return how many topics the file knows and the queue does not; None if there are none.

        Rotated files of a lost queue are searched, too. Changes nothing.
        """
        topics, example = 0, ""
        for page in self._unknown_pages(self._strange_seqs):
            topics += len(page)
            example = example or (page[0].topic_id if page else "")
        return Finding(self._path, topics, example) if topics else None

    def adopt(self, adopter: Adopter) -> int:
        """Take over the topics that only the file knows, or one rotated away; return how many."""
        # All of them: a number says nothing if the queue is that of another job.
        unknown = self._unknown_pages(sorted(rotated_seqs(self._path)))
        adopted = sum(adopter.adopt(page) for page in unknown if page)
        self._was_adopted = adopted > 0
        self._compared = None
        return adopted

    def _unknown_pages(self, rotated: list[int]) -> Iterator[list[ImportedLine]]:
        if self._knowledge is None:
            return
        for seq in rotated:
            yield from unknown_pages(rotated_path(self._path, seq), self._knowledge)
        self._compared = compare(self._path, self._read_lines, self._begin_seq)
        agreement, right_bytes, seq = self._compared
        if agreement in {Agreement.LONGER, Agreement.OTHER}:
            expected = (line for _, line in chain.from_iterable(pages(self._read_lines, seq)))
            yield from unknown_pages(
                self._path, self._knowledge, from_bytes=right_bytes, expected=expected
            )

    def reconcile(self, *, rewrite: bool = False, is_input: bool = False) -> Path | None:
        """Make the file hold what the queue holds; return its new path if it was set aside.

        A shorter file is completed; one that was edited or that is longer is set aside and written
        anew. What only the file knows was adopted before (`find_unknown`, `adopt`).
        `rewrite`: the queue removed lines, so a file that differs is stale and was not edited.
        `is_input`: the file is also an input of this run, so its content must not change.
        """
        self.close()
        for seq in self._strange_seqs:
            self._set_aside(rotated_path(self._path, seq), "rotated")
        self._strange_seqs = []
        agreement, right_bytes, seq = self._comparison()
        self._compared = None
        if is_input and agreement is not Agreement.AGREES:
            agreement, rewrite = Agreement.OTHER, False
        if agreement is Agreement.OTHER or (agreement is Agreement.LONGER and not rewrite):
            aside = None if rewrite else self._set_aside(self._path, self._why(agreement))
            self._write_anew()
            return aside
        self._open()
        assert self._file is not None  # noqa: S101 - just opened
        self._file.truncate(right_bytes)
        self._file.seek(right_bytes)
        self._written_seq = seq
        self.follow()
        return None

    def _why(self, agreement: Agreement) -> str:
        if self._was_adopted:
            return "adopted"
        return "longer" if agreement is Agreement.LONGER else "edited"

    def follow(self) -> None:
        """Append the lines of all outcomes since the last call."""
        while self.append_page():
            pass

    def append_page(self) -> bool:
        """Append the next lines, up to a page of them; return whether there were any."""
        rows = self._read_lines(self._written_seq, PAGE_LINES) if self._file else []
        if not (self._file and rows):
            return False
        with naming(self._path):
            append_whole(self._file, b"".join(line for _, line in rows))
        self._written_seq = rows[-1][0]
        return True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        self._file = open_private(self._path)

    def _set_aside(self, path: Path, why: str) -> Path:
        aside = set_aside(path, why)
        log.warning(SET_ASIDE[why], file=str(aside))
        return aside

    def _write_anew(self) -> None:
        """Write a new file beside the old one, then rename it: a crash leaves one of the two."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        self._file = open_private(fresh, os.O_TRUNC)
        self._written_seq = self._begin_seq
        self.follow()
        fresh.replace(self._path)


def compare(path: Path, read_lines: ReadLines, begin_seq: int = 0) -> Comparison:
    """Compare a file with the queue: (agreement, right bytes at its beginning, their last seq).

    `begin_seq`: the last outcome that was rotated away. Raises OSError, also for a path that is no
    regular file.
    """
    right_bytes = 0
    right_seq = begin_seq
    try:
        opened = open_to_read(path)
    except (FileNotFoundError, NotADirectoryError):
        has_lines = bool(read_lines(begin_seq, 1))
        return (Agreement.SHORTER if has_lines else Agreement.AGREES), 0, begin_seq
    with opened as file:
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


def _known_rotations(
    path: Path, read_lines: ReadLines, rotated_seq: int
) -> tuple[list[int], list[int]]:
    """Return the numbers of the rotated files that the queue wrote, and those of another queue."""
    known: list[int] = []
    strange: list[int] = []
    for seq in sorted(rotated_seqs(path)):
        is_known = seq <= rotated_seq or bool(read_lines(seq - 1, 1))
        (known if is_known else strange).append(seq)
    return known, strange


def pages(read_lines: ReadLines, after_seq: int) -> Iterator[list[tuple[int, bytes]]]:
    """Yield all result lines with a seq above `after_seq` in pages of (seq, line), in order."""
    while rows := read_lines(after_seq, PAGE_LINES):
        after_seq = rows[-1][0]
        yield rows
