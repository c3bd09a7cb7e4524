"""Telling a file of dead letters that was edited from one that holds replaced letters still."""

from collections.abc import Callable, Iterator
from pathlib import Path

from worker.outputs.result_file import PAGE_LINES, ReadLines


def is_only_stale(
    path: Path, read_lines: ReadLines, begin_seq: int, was_removed: Callable[[bytes], bool]
) -> bool:
    """Return whether each line of a file is in the queue, in this order, or was removed from it.

    A last line that is torn and lines that the file lacks do not matter: the queue has them.
    `begin_seq`: the last outcome that was rotated away.
    """
    if not path.is_file():
        return False
    known = _lines(read_lines, begin_seq)
    with path.open("rb") as file:
        return all(
            was_removed(line) or line in known  # `in` goes on from the line that was found last
            for line in file
            if line.endswith(b"\n")
        )


def _lines(read_lines: ReadLines, after_seq: int) -> Iterator[bytes]:
    while rows := read_lines(after_seq, PAGE_LINES):
        after_seq = rows[-1][0]
        yield from (line for _, line in rows)
