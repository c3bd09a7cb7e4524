"""The result files of a job, which follow its queue."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from worker.job_directory import DEAD_LETTER_NAME, DISMISSED_NAME, IMPORTED_NAME
from worker.outputs.evidence import Adopter, Finding
from worker.outputs.result_file import Agreement, ResultFile
from worker.outputs.stale_lines import is_only_stale

Kind = Literal["imported", "dead", "dismissed"]


class Results(Adopter, Protocol):
    """What the files need of the queue that they follow; `seq` numbers its outcomes by kind."""

    def lines(self, kind: Kind, after_seq: int, count: int) -> list[tuple[int, bytes]]:
        """Return up to `count` result lines with a seq above `after_seq`, in order."""
        ...

    def rotated(self, kind: str) -> int:
        """Return the seq of the last line in a file that was rotated away; 0 if there is none."""
        ...

    def set_rotated(self, kind: str, seq: int) -> None:
        """Remember the seq of the last line in the file that was rotated away now."""
        ...

    def dead_file_is_stale(self) -> bool:
        """Return whether dead letters were replaced since their file was written."""
        ...

    def was_removed(self, line: bytes) -> bool:
        """Return whether this dead letter was replaced since their file was written."""
        ...

    def dead_file_was_rewritten(self) -> None:
        """Remember that the file of the dead letters holds what the queue holds."""
        ...


class ResultFiles:
    """`imported.jsonl`, `dead-letter.jsonl` and `dismissed.jsonl` of a job.

    The last one is there only if a record was dismissed; it grows only in `reconcile`.

    All methods read the queue, so they run where the queue may be read (in its thread). They raise
    OSError for what the disk refuses, and what the queue raises.

    `rotate_at_bytes`: a file that has grown beyond is renamed after the last outcome in it, and a
    new file is begun; 0 keeps one file.
    """

    def __init__(self, out: Path, results: Results, *, rotate_at_bytes: int = 0) -> None:
        self._results = results
        self._rotate_at_bytes = rotate_at_bytes
        self._dead_path = out / DEAD_LETTER_NAME
        self._imported = ResultFile(
            out / IMPORTED_NAME,
            lambda seq, count: results.lines("imported", seq, count),
            results.rotated("imported"),
            results,
        )
        self._dead = ResultFile(
            self._dead_path,
            lambda seq, count: results.lines("dead", seq, count),
            results.rotated("dead"),
        )
        self._dismissed_path = out / DISMISSED_NAME
        self._dismissed = ResultFile(
            self._dismissed_path,
            lambda seq, count: results.lines("dismissed", seq, count),
        )

    def agreements(self) -> dict[str, Agreement]:
        """Return how each file compares with the queue, by its name."""
        agreements = {
            IMPORTED_NAME: self._imported.agreement(),
            DEAD_LETTER_NAME: self._dead.agreement(),
        }
        if self._has_dismissed():
            agreements[DISMISSED_NAME] = self._dismissed.agreement()
        return agreements

    def find_unknown(self) -> Finding | None:
        """Return what the files know of topics that the queue does not know; None for nothing."""
        return self._imported.find_unknown()

    def adopt(self) -> int:
        """Take over the topics that only the files know; return how many."""
        return self._imported.adopt(self._results)

    def reconcile(self, inputs: Sequence[str] = ()) -> list[str]:
        """Make all files hold what the queue holds; return the paths to read `inputs` from.

        An input that is the dead-letter file itself, and that was edited, is set aside: its path is
        replaced by the new one.
        """
        self._imported.reconcile()
        is_dead_file = [self._is_dead_letter_file(path) for path in inputs]
        aside = self._dead.reconcile(
            is_input=any(is_dead_file), rewrite=self._is_dead_file_only_stale()
        )
        self.reconcile_dismissed()
        if self._results.dead_file_is_stale():
            self._results.dead_file_was_rewritten()
        return [
            str(aside) if aside and was_moved else path
            for path, was_moved in zip(inputs, is_dead_file, strict=True)
        ]

    def _is_dead_file_only_stale(self) -> bool:
        """Return whether nobody edited a file that a killed command left with replaced letters."""
        return self._results.dead_file_is_stale() and is_only_stale(
            self._dead_path,
            lambda seq, count: self._results.lines("dead", seq, count),
            self._results.rotated("dead"),
            self._results.was_removed,
        )

    def reconcile_dismissed(self) -> None:
        """Make `dismissed.jsonl` hold what was dismissed."""
        if self._has_dismissed():
            self._dismissed.reconcile()

    def _has_dismissed(self) -> bool:
        return self._dismissed_path.exists() or bool(self._results.lines("dismissed", 0, 1))

    def _is_dead_letter_file(self, path: str) -> bool:
        try:
            return self._dead_path.samefile(path)
        except OSError:
            return False

    def follow(self) -> None:
        """Append the next page of each kind; rotate what has grown too long.

        Called after each batch of outcomes, which is shorter than a page.
        """
        self._imported.append_page()
        self._dead.append_page()
        self._rotate()

    def _rotate(self) -> None:
        if self._rotate_at_bytes:
            for kind, file in (("imported", self._imported), ("dead", self._dead)):
                if file.size_bytes >= self._rotate_at_bytes:
                    self._results.set_rotated(kind, file.rotate())

    def finish(self) -> None:
        """Append what is missing, and write the dead letters anew if some were replaced."""
        self._imported.follow()
        self._dead.follow()
        self._rotate()
        if self._results.dead_file_is_stale():
            self._dead.reconcile(rewrite=True)
            self._results.dead_file_was_rewritten()

    def close(self) -> None:
        """Close all files."""
        self._imported.close()
        self._dismissed.close()
        self._dead.close()
