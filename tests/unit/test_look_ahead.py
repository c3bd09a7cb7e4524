"""Reading ahead in an input."""

import gzip
import os
from pathlib import Path

import pytest

from worker.intake.look_ahead import LookAhead
from worker.intake.sources import resolve
from worker.rules.record import content_hash


def ahead(path: Path) -> LookAhead:
    return LookAhead(resolve(str(path)), 1000)


def test_lines_are_found_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(b"%d\n" % n for n in range(1, 1000)))
    lines = ahead(path)
    for number in (3, 7, 3, 900, 901, 902, 903, 904, 5, 5, 999):
        assert lines.hash_of(number) == content_hash(b"%d" % number)
    assert lines.hash_of(1000) is None
    assert lines.hash_of(1) == content_hash(b"1")


def test_a_blank_line_and_a_missing_one_have_no_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"one\n\n\nfour\n"))
    lines = ahead(path)
    assert [lines.hash_of(n) for n in (2, 5, 6)] == [None, None, None]
    assert lines.hash_of(4) == content_hash(b"four")


@pytest.mark.parametrize("is_torn", [False, True])
def test_an_input_that_is_gone_or_torn_has_only_what_can_be_read(
    tmp_path: Path, *, is_torn: bool
) -> None:
    path = tmp_path / "a.jsonl.gz"
    content = gzip.compress(os.urandom(100_000).hex().encode())
    path.write_bytes(content)
    lines = ahead(path)
    if is_torn:
        path.write_bytes(content[:-50_000])
    else:
        path.unlink()
    assert lines.hash_of(1_000_000) is None


def test_a_pipe_is_not_read_a_second_time(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert LookAhead(resolve(str(path)), 1000).hash_of(1) is None
