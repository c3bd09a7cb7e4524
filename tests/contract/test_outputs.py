"""Result files follow the queue, whatever happened to them meanwhile."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.outputs import Agreement, ResultFile, compare


class Outcomes:
    """The queue's side of a result file."""

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


def test_a_longer_file_with_the_right_beginning_is_cut(tmp_path: Path) -> None:
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


def test_an_edited_file_is_set_aside_and_written_anew(tmp_path: Path) -> None:
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


def test_a_file_whose_lines_the_queue_took_back_is_rewritten_without_fuss(tmp_path: Path) -> None:
    path = tmp_path / "dead-letter.jsonl"
    path.write_bytes(Outcomes(5).content)
    outcomes = Outcomes(5)
    del outcomes.rows[2]
    reconcile(path, outcomes, rewrite=True)
    assert path.read_bytes() == outcomes.content
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_agrees_with_an_empty_queue_only(tmp_path: Path) -> None:
    path = tmp_path / "imported.jsonl"
    assert compare(path, Outcomes(0).read)[0] is Agreement.AGREES
    assert compare(path, Outcomes(1).read)[0] is Agreement.SHORTER


def test_a_full_disk_is_an_error_and_never_a_silent_half_line(tmp_path: Path) -> None:
    path = tmp_path / "imported.jsonl"
    path.symlink_to("/dev/full")
    file = ResultFile(path, Outcomes(1).read)
    with pytest.raises(OSError, match="No space left"):
        file.reconcile()
    file.close()
    assert path.is_symlink(), "it is neither set aside nor replaced"
