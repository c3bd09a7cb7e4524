"""Lines in a result file for topics that the queue does not know: evidence of what exists.

The queue was lost, restored from an older copy or exchanged. Such lines are never overwritten.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from worker.outputs.files import open_to_read
from worker.rules.result_lines import ImportedLine, is_edit_of, read_imported_line

LINE_BYTES_MAX = 1 << 23
"""A longer line is no result line: the longest holds a key, and is far shorter."""
PAGE_LINES = 1000


class Knowledge(Protocol):
    """What is known of imported topics."""

    def unknown(self, lines: list[ImportedLine]) -> list[ImportedLine]:
        """Return the lines whose topic the queue does not hold as imported."""
        ...


class Adopter(Knowledge, Protocol):
    """A queue that can take over topics."""

    def adopt(self, lines: list[ImportedLine]) -> int:
        """Take over the topics of these lines; return how many were new."""
        ...


class KnowsNothing:
    """A queue that is not there."""

    def unknown(self, lines: list[ImportedLine]) -> list[ImportedLine]:
        return lines


@dataclass(frozen=True, slots=True)
class Finding:
    """How many topics of a file the queue does not know, and the TopicId of the first."""

    path: Path
    topics: int
    example: str

    def __str__(self) -> str:
        return (
            f"{self.path} holds {self.topics:,} topics that exist and that the queue does not "
            f"know, for example {self.example}"
        )


def unknown_pages(
    path: Path, knowledge: Knowledge, *, from_bytes: int = 0, expected: Iterable[bytes] = ()
) -> Iterator[list[ImportedLine]]:
    """Yield the lines of a file, behind its first `from_bytes`, that the queue does not know.

    `expected`: the lines that the queue would write there; a line in the place of one of these,
    written at the same time for the same record, was edited and is no evidence.
    """
    page: list[ImportedLine] = []
    rest = iter(expected)
    with open_to_read(path) as file:
        file.seek(from_bytes)
        for content in _lines(file):
            line, ours = read_imported_line(content), next(rest, None)
            if line is None or (ours is not None and is_edit_of(line, ours)):
                continue
            page.append(line)
            if len(page) >= PAGE_LINES:
                yield knowledge.unknown(page)
                page = []
    yield knowledge.unknown(page)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines with their ends; of one that is too long only parts without an end."""
    is_part = False
    while content := file.readline(LINE_BYTES_MAX):
        was_part, is_part = is_part, not content.endswith(b"\n")
        yield content.rstrip(b"\n") if was_part else content
