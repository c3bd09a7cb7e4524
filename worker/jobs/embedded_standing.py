"""What the directory of a job holds, and whether its queue and its result files agree."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.job_directory import DEAD_LETTER_NAME, DISMISSED_NAME, IMPORTED_NAME, QUEUE_NAME
from worker.jobs.engine import Standing, unfinished_lines
from worker.outputs.report import sums
from worker.outputs.result_file import Agreement, compare
from worker.queues.directory_lock import taker_of
from worker.queues.sqlite.store import SqliteStore
from worker.rules.counts import Counts

AGREEMENTS = {
    Agreement.AGREES: "agrees with the queue",
    Agreement.SHORTER: "is behind the queue; the next run completes it",
    Agreement.LONGER: "holds more than the queue; the next run cuts it",
    Agreement.OTHER: "was edited; the next run sets it aside and writes it anew",
}


def read_standing(out: Path) -> Standing:
    """Return what the queue in `out` holds, counted anew. Raises QueueError if it cannot be."""
    job = _read(out)
    return Standing(job.facts(), job.lines(), job.agrees)


@dataclass(frozen=True, slots=True)
class _Job:
    """What a job's directory holds. `taker`: the process that takes from the queue, if any."""

    app: str | None
    taker: str | None
    counts: Counts
    counts_agree: bool
    files: dict[str, Agreement]
    unfinished: list[str]

    @property
    def agrees(self) -> bool:
        return self.counts_agree and all(map(self._is_fine, self.files.values()))

    def _is_fine(self, agreement: Agreement) -> bool:
        # The files of a running job follow a moment after its queue.
        return agreement is Agreement.AGREES or (
            self.taker is not None and agreement in {Agreement.SHORTER, Agreement.LONGER}
        )

    def facts(self) -> dict[str, Any]:
        """Return everything for JSON."""
        counts = self.counts.as_dict()
        del counts["lost"]  # the embedded queue loses nothing
        return {
            "app": self.app,
            "taker": self.taker,
            **counts,
            "files": {name: agreement.value for name, agreement in self.files.items()},
            "unfinished_inputs": self.unfinished,
            "agree": self.agrees,
        }

    def lines(self) -> list[str]:
        """Return the same for people."""
        running = f"running: {self.taker}" if self.taker else "not running"
        lines = [f"job of app {self.app or '?'}, {running}", *sums(self.counts)]
        lines += [f"{name} {AGREEMENTS[agreement]}" for name, agreement in self.files.items()]
        if not self.counts_agree:
            lines.append("the kept counts are not those of the rows: a defect, please report it")
        return lines + unfinished_lines(self.unfinished)


def _read(out: Path) -> _Job:
    taker = taker_of(out)
    store = SqliteStore(out / QUEUE_NAME, read_only=True)
    try:
        kept, counted = store.counts(), store.counts_by_counting()
        files = {
            IMPORTED_NAME: _agreement(out / IMPORTED_NAME, store, "imported"),
            DEAD_LETTER_NAME: _agreement(out / DEAD_LETTER_NAME, store, "dead"),
        }
        if kept.dismissed:
            path = out / DISMISSED_NAME
            files[DISMISSED_NAME] = _agreement(path, store, "dismissed")
        if store.dead_file_is_stale() and files[DEAD_LETTER_NAME] is Agreement.OTHER:
            # Dead letters were replaced since it was written; nobody edited it.
            files[DEAD_LETTER_NAME] = Agreement.SHORTER
        return _Job(
            app=store.identity().get("app"),
            taker=taker,
            counts=counted,
            # Beside a taker the counts may change between the two queries.
            counts_agree=counted.is_balanced and (taker is not None or kept == counted),
            files=files,
            unfinished=store.unfinished_inputs(),
        )
    finally:
        store.close()


def _agreement(path: Path, store: SqliteStore, kind: Any) -> Agreement:
    rotated_seq = store.rotated(kind)
    return compare(path, lambda seq, count: store.lines(kind, seq, count), rotated_seq)[0]
