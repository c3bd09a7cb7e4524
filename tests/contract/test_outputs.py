"""Result files agree with the queue again, whatever happened to them in between."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.outputs.copied_file import CopiedFile
from worker.outputs.result_file import Agreement, ReadLines, ResultFile, compare


class Outcomes:
    """The outcomes in a queue, from which a result file is written."""

    def __init__(self, count: int = 0) -> None:
        self.rows = [(seq, b"line %d\n" % seq) for seq in range(1, count + 1)]

    def read(self, after_seq: int, count: int) -> list[tuple[int, bytes]]:
        return [row for row in self.rows if row[0] > after_seq][:count]

    @property
    def content(self) -> bytes:
        return b"".join(line for _, line in self.rows)


def reconcile(path: Path, outcomes: Outcomes, *, rewrite: bool = False) -> None:
    file = ResultFile(path, outcomes.read)
    file.reconcile(rewrite=rewrite)
    file.close()


@given(before=st.integers(0, 50), after=st.integers(0, 50), cut=st.integers(0, 600))
def test_a_file_cut_anywhere_is_completed(
    tmp_path_factory: pytest.TempPathFactory, before: int, after: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("out") / "imported.jsonl"
    path.write_bytes(Outcomes(before).content[:cut])
    outcomes = Outcomes(before + after)
    reconcile(path, outcomes)
    assert path.read_bytes() == outcomes.content
    assert list(path.parent.iterdir()) == [path]


def test_a_longer_file_is_set_aside_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "imported.jsonl"
    path.write_bytes(Outcomes(9).content)
    outcomes = Outcomes(5)
    assert compare(path, outcomes.read)[0] is Agreement.LONGER
    file = ResultFile(path, outcomes.read)
    file.reconcile()
    outcomes.rows.append((6, b"other\n"))
    file.follow()
    file.close()
    assert path.read_bytes() == outcomes.content
    (aside,) = (p for p in tmp_path.iterdir() if ".longer-" in p.name)
    assert aside.read_bytes() == Outcomes(9).content


def test_an_edited_file_is_set_aside_and_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "imported.jsonl"
    outcomes = Outcomes(5000)
    edited = outcomes.content.replace(b"line 2500\n", b"LINE 2500\n")
    for _ in range(2):
        path.write_bytes(edited)
        assert compare(path, outcomes.read)[0] is Agreement.OTHER
        reconcile(path, outcomes)
        assert path.read_bytes() == outcomes.content
    aside = [p for p in tmp_path.iterdir() if ".edited-" in p.name]
    assert [p.read_bytes() for p in aside] == [edited] * 2


def test_a_file_with_lines_the_queue_took_back_is_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "dead-letter.jsonl"
    path.write_bytes(Outcomes(5).content)
    outcomes = Outcomes(5)
    del outcomes.rows[2]
    reconcile(path, outcomes, rewrite=True)
    assert path.read_bytes() == outcomes.content
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_agrees_only_with_an_empty_queue(tmp_path: Path) -> None:
    path = tmp_path / "imported.jsonl"
    assert compare(path, Outcomes(0).read)[0] is Agreement.AGREES
    assert compare(path, Outcomes(1).read)[0] is Agreement.SHORTER


def test_a_full_disk_is_an_error_and_replaces_no_file(tmp_path: Path) -> None:
    path = tmp_path / "imported.jsonl"
    path.touch()
    before = path.stat()
    file = ResultFile(path, Outcomes(1).read)
    with files_of_at_most(3), pytest.raises(OSError, match="File too large"):
        file.reconcile()
    file.close()
    assert os.path.samestat(path.stat(), before), "it is neither set aside nor replaced"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "directory", "device"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    path, elsewhere = tmp_path / "imported.jsonl", tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious\n")
    match kind:
        case "link":
            path.symlink_to(elsewhere)
        case "dangling link":
            path.symlink_to(tmp_path / "nothing")
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case _:
            path.symlink_to("/dev/null")
    file = ResultFile(path, Outcomes(1).read)
    with pytest.raises(OSError, match="must be a regular file of this job"):
        file.reconcile()
    file.close()
    assert elsewhere.read_bytes() == b"precious\n"
    assert not (tmp_path / "nothing").exists()


def test_a_disk_that_fills_up_leaves_no_torn_line(tmp_path: Path) -> None:
    path, outcomes = tmp_path / "imported.jsonl", Outcomes(1)
    file = ResultFile(path, outcomes.read)
    file.reconcile()
    outcomes.rows += Outcomes(3).rows[1:]
    with files_of_at_most(10), pytest.raises(OSError, match="File too large"):
        file.follow()
    assert path.read_bytes() == b"line 1\n"
    file.follow()
    file.close()
    assert path.read_bytes() == outcomes.content


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let a write fail that would make a file longer than `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def all_lines(directory: Path) -> list[bytes]:
    """Return the lines of the rotated files and of the current one, oldest first."""
    files = sorted(directory.glob("imported.0*.jsonl"))
    return [
        line
        for file in [*files, directory / "imported.jsonl"]
        for line in file.read_bytes().splitlines(keepends=True)
    ]


def rows(count: int) -> list[tuple[int, bytes]]:
    return [(seq, f"line {seq}\n".encode()) for seq in range(1, count + 1)]


def reading(known: list[tuple[int, bytes]]) -> ReadLines:
    return lambda after, count: [row for row in known if row[0] > after][:count]


def test_rotated_files_together_hold_each_line_once(tmp_path: Path) -> None:
    known = rows(3)
    file = ResultFile(tmp_path / "imported.jsonl", reading(known))
    file.reconcile()
    rotated = file.rotate()
    known += rows(5)[3:]
    file.follow()
    file.close()
    assert rotated == 3
    assert all_lines(tmp_path) == [line for _, line in rows(5)]
    again = ResultFile(tmp_path / "imported.jsonl", reading(known), rotated)
    assert again.reconcile() is None, "nothing was edited"
    again.close()
    assert all_lines(tmp_path) == [line for _, line in rows(5)]


def test_a_crash_during_a_rotation_doubles_no_line(tmp_path: Path) -> None:
    known = rows(3)
    file = ResultFile(tmp_path / "imported.jsonl", reading(known))
    file.reconcile()
    file.rotate()
    file.close()
    (tmp_path / "imported.jsonl").unlink(missing_ok=True)
    after_crash = ResultFile(tmp_path / "imported.jsonl", reading(rows(4)), rotated_seq=0)
    after_crash.reconcile()
    after_crash.close()
    assert all_lines(tmp_path) == [line for _, line in rows(4)]


def test_a_rotated_file_that_was_moved_is_not_rewritten(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "imported.jsonl", reading(rows(3)))
    file.reconcile()
    rotated = file.rotate()
    file.close()
    next(tmp_path.glob("imported.0*.jsonl")).unlink()
    later = ResultFile(tmp_path / "imported.jsonl", reading(rows(4)), rotated)
    later.reconcile()
    later.close()
    assert all_lines(tmp_path) == [b"line 4\n"]


def test_a_copy_cuts_off_a_torn_line_and_continues(tmp_path: Path) -> None:
    path = tmp_path / "imported.jsonl"
    path.write_bytes(b"line 1\nli")
    copy = CopiedFile(path, rotate_at_bytes=1000)
    copy.append([b"line 2\n"])
    copy.close()
    assert path.read_bytes() == b"line 1\nline 2\n"


def test_a_copy_on_a_full_disk_holds_no_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "imported.jsonl"
    copy = CopiedFile(path, rotate_at_bytes=1000)
    with files_of_at_most(10):
        copy.append([b"line 1\n"])
        with pytest.raises(OSError, match="File too large"):
            copy.append([b"line 2\n"])
    assert path.read_bytes() == b"line 1\n"
    copy.append([b"line 2\n"])
    copy.close()
    assert path.read_bytes() == b"line 1\nline 2\n"


def test_a_copy_that_was_removed_continues_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "out" / "imported.jsonl"
    path.parent.mkdir()
    copy = CopiedFile(path, rotate_at_bytes=1000)
    copy.append([b"line 1\n"])
    path.unlink()
    copy.append([b"line 2\n"])
    assert path.read_bytes() == b"line 2\n"
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(FileNotFoundError):
        copy.append([b"line 3\n"])
    path.parent.mkdir()
    copy.append([b"line 3\n"])
    copy.close()
    assert path.read_bytes() == b"line 3\n"


def test_a_copy_that_cannot_rotate_continues_when_it_can(tmp_path: Path) -> None:
    in_the_way = tmp_path / "imported.jsonl.new"
    copy = CopiedFile(tmp_path / "imported.jsonl", rotate_at_bytes=10)
    copy.append([b"line 1\n", b"line 2\n"])
    in_the_way.mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        copy.append([b"line 3\n"])
    in_the_way.rmdir()
    copy.append([b"line 3\n"])
    copy.close()
    assert all_lines(tmp_path) == [f"line {n}\n".encode() for n in range(1, 4)]


def test_a_copy_rotates_by_size_and_is_private(tmp_path: Path) -> None:
    copy = CopiedFile(tmp_path / "imported.jsonl", rotate_at_bytes=20)
    for n in range(1, 8):
        copy.append([f"line {n}\n".encode()])
    copy.close()
    assert all_lines(tmp_path) == [f"line {n}\n".encode() for n in range(1, 8)]
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
