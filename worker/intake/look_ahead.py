"""Reading an input a second time, ahead of the first: the hashes of lines that come later."""

from collections.abc import Iterator
from pathlib import Path

from worker.intake.formats.json_lines import Line
from worker.intake.opening import lines_of
from worker.intake.sources import InputError, Source

KEPT_ANSWERS = 4


class LookAhead:
    """The hashes of the lines of an input as it is now; nothing is read before the first question.

    One line is in memory at a time. Questions in the order of the lines read the input once; after
    a question for an earlier line it is read from the beginning.
    """

    def __init__(self, source: Source, line_bytes_max: int) -> None:
        self._source = source
        self._line_bytes_max = line_bytes_max
        self._lines: Iterator[Line] | None = None
        self._line: Line | None = None
        self._asked = 0
        self._answers: dict[int, bytes | None] = {}

    def hash_of(self, number: int) -> bytes | None:
        """Return the hash of a line, None if it is blank or missing.

        Of a pipe, which cannot be read twice, every line is missing.
        """
        if number not in self._answers:
            if len(self._answers) == KEPT_ANSWERS:
                del self._answers[min(self._answers)]
            self._answers[number] = self._find(number)
        return self._answers[number]

    def _find(self, number: int) -> bytes | None:
        if self._lines is None or number < self._asked:
            self._lines = self._read()
            self._line = next(self._lines, None)
        self._asked = number
        while self._line and self._line.number < number:
            self._line = next(self._lines, None)
        found = self._line
        return found.content_hash if found and found.number == number else None

    def _read(self) -> Iterator[Line]:
        if not Path(self._source.path).is_file():
            return
        try:
            yield from lines_of(self._source, self._line_bytes_max)
        except InputError:
            return  # the first reading meets the same, and reports it
