"""Whether the lines around a dead letter prove that a changed line is the same record."""

from dataclasses import replace

import pytest

from tests.support.queues import read_record
from worker.rules.surroundings import Neighbour, Surroundings, can_be_mended_in_place

ABOVE, BELOW = Neighbour(1, (b"above",)), Neighbour(4, (b"below", b"mended"))
BOTH = Surroundings("a.jsonl", 2, 1, ABOVE, BELOW)


@pytest.mark.parametrize(
    ("known", "now", "expected"),
    [
        (BOTH, {1: b"above", 4: b"below"}, True),
        (BOTH, {1: b"above and more digits", 4: b"mended"}, True),
        (BOTH, {1: b"above", 4: b"other"}, False),
        (BOTH, {1: b"other", 4: b"below"}, False),
        (BOTH, {1: b"above"}, False),
        (replace(BOTH, below=None), {1: b"above"}, True),
        (replace(BOTH, above=None), {4: b"below"}, True),
        (Surroundings("a.jsonl", 2, 1), {1: b"above", 4: b"below"}, False),
    ],
)
def test_each_known_line_around_must_be_unchanged(
    known: Surroundings, now: dict[int, bytes], *, expected: bool
) -> None:
    assert known.are_unchanged(now.get) is expected


def test_only_lines_of_files_can_be_mended_in_place() -> None:
    assert can_be_mended_in_place(read_record(1))
    assert not can_be_mended_in_place(read_record(1, path="-"))
    assert not can_be_mended_in_place(replace(read_record(1), asked_again=True))
