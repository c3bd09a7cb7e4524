"""Telling a file of dead letters that was edited from one that holds replaced letters still."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

from worker.outputs.result_file import ReadLines, pages


def is_only_stale(
    path: Path, read_lines: ReadLines, begin_seq: int, was_removed: Callable[[bytes], bool]
) -> bool:
    """Return whether each line of a file is in the queue, in this order, or was removed from it.

    A last line that is torn and lines that the file lacks do not matter: the queue has them.
    `begin_seq`: the last outcome that was rotated away.
    """
    if not path.is_file():
        return False
    known = (line for _, line in chain.from_iterable(pages(read_lines, begin_seq)))
    with path.open("rb") as file:
        return all(
            was_removed(line) or line in known  # `in` goes on from the line that was found last
            for line in file
            if line.endswith(b"\n")
        )
