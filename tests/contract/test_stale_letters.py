"""A file of dead letters that a killed command left: replaced letters in it are no edit."""

from pathlib import Path

import pytest

from tests.support.queues import read_record
from worker.outputs.result_files import ResultFiles
from worker.outputs.stale_lines import is_only_stale
from worker.queues.sqlite.store import SqliteStore

QUEUE = [(2, b"two\n"), (4, b"four\n"), (5, b"five\n")]
REMOVED = {b"one\n", b"three\n"}


def is_stale(path: Path, begin_seq: int = 0) -> bool:
    def read_lines(seq: int, count: int) -> list[tuple[int, bytes]]:
        return [row for row in QUEUE if row[0] > seq][:count]

    return is_only_stale(path, read_lines, begin_seq, REMOVED.__contains__)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"one\ntwo\nthree\nfour\nfive\n", True),
        (b"one\ntwo\nthree\nfour\n", True),
        (b"one\ntwo\nthree\nfo", True),
        (b"", True),
        (b"one\ntwo\nTHREE\nfour\nfive\n", False),
        (b"one\nthree\nfive\n", True),
        (b"two\nfour\nfive\nsix\n", False),
        (b"four\ntwo\n", False),
    ],
)
def test_only_lines_that_were_removed_may_stand_between(
    tmp_path: Path, content: bytes, *, expected: bool
) -> None:
    path = tmp_path / "dead-letter.jsonl"
    path.write_bytes(content)
    assert is_stale(path) is expected


def test_a_missing_file_holds_nothing_stale(tmp_path: Path) -> None:
    assert not is_stale(tmp_path / "none")


def test_letters_that_were_rotated_away_are_not_expected(tmp_path: Path) -> None:
    path = tmp_path / "dead-letter.jsonl"
    path.write_bytes(b"four\n")
    assert is_stale(path, begin_seq=2)


@pytest.mark.parametrize("is_edited", [False, True])
def test_a_command_that_was_killed_leaves_no_edited_file(
    tmp_path: Path, *, is_edited: bool
) -> None:
    store = SqliteStore(tmp_path / "queue.sqlite3", synchronous="OFF")
    store.put([read_record(n, raw=b"{%d" % n) for n in range(1, 6)])
    files = ResultFiles(tmp_path, store)
    files.reconcile()
    files.close()
    # The kill comes between the change of the queue and that of the file.
    store.dismiss(store.lines("dead", 0, 2), 1.0)
    path = tmp_path / "dead-letter.jsonl"
    if is_edited:
        path.write_bytes(path.read_bytes().replace(b"{4", b"{}"))
    files = ResultFiles(tmp_path, store)
    files.reconcile()
    files.close()
    assert path.read_bytes() == b"".join(line for _, line in store.lines("dead", 0, 9))
    assert len(list(tmp_path.glob("*.edited-*"))) == is_edited
    assert len((tmp_path / "dismissed.jsonl").read_bytes().splitlines()) == 2
    store.close()
