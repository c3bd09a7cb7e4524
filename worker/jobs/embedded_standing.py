"""What the directory of a job holds, and whether its queue and its result files agree."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.job_directory import DEAD_LETTER_NAME, IMPORTED_NAME, QUEUE_NAME
from worker.jobs.engine import Standing, unfinished_lines
from worker.jobs.evidence import WAY_ON, find_without_queue, strangeness
from worker.outputs.report import WORST_LISTED, community_lines, letters_dict, sums
from worker.outputs.result_file import Agreement
from worker.outputs.result_files import ResultFiles
from worker.queues.directory_lock import taker_of
from worker.queues.sqlite.store import SqliteStore
from worker.rules.counts import CommunityLetters, Counts

AGREEMENTS = {
    Agreement.AGREES: "agrees with the queue",
    Agreement.SHORTER: "is behind the queue; the next run completes it",
    Agreement.LONGER: "holds more than the queue; the next run sets it aside and writes it anew",
    Agreement.OTHER: "was edited; the next run sets it aside and writes it anew",
    Agreement.KNOWS_MORE: "knows topics that the queue does not know; the next run stops",
}


def read_standing(out: Path) -> Standing:
    """Return what the queue in `out` holds, counted anew. Raises QueueError if it cannot be."""
    job = _read(out)
    return Standing(job.facts(), job.lines(), job.agrees)


def read_lost_standing(out: Path) -> Standing | None:
    """Return what the files in `out` know without their queue; None if they know nothing."""
    finding = find_without_queue(out)
    if finding is None:
        return None
    job = _Job(
        app=None,
        taker=None,
        counts=Counts(),
        counts_agree=True,
        files={IMPORTED_NAME: Agreement.KNOWS_MORE},
        unfinished=[],
        evidence=[f"{out / QUEUE_NAME} is not there, and {finding}"],
    )
    return Standing(job.facts(), job.lines(), job.agrees)


@dataclass(frozen=True, slots=True)
class _Job:
    """What a job's directory holds.

    `taker`: the process that takes from the queue, if any. `worst`: the communities with the most
    dead letters. `held`: those whose records wait while the taker runs. `evidence`: why the next
    run would stop,
    as the files know more than the queue or belong to another one.
    """

    app: str | None
    taker: str | None
    counts: Counts
    counts_agree: bool
    files: dict[str, Agreement]
    unfinished: list[str]
    evidence: list[str] = field(default_factory=list)
    worst: list[CommunityLetters] = field(default_factory=list)
    held: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        are_fine = all(map(self._is_fine, self.files.values()))
        return self.counts_agree and are_fine and not self.evidence

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
            "by_community": [letters_dict(letters) for letters in self.worst],
            "held": self.held,
            "files": {name: agreement.value for name, agreement in self.files.items()},
            "unfinished_inputs": self.unfinished,
            "evidence": self.evidence,
            "agree": self.agrees,
        }

    def lines(self) -> list[str]:
        """Return the same for people."""
        running = f"running: {self.taker}" if self.taker else "not running"
        lines = [f"job of app {self.app or '?'}, {running}", *sums(self.counts)]
        lines += community_lines(self.worst, dict.fromkeys(self.held, "its records wait"))
        lines += [f"{name} {AGREEMENTS[agreement]}" for name, agreement in self.files.items()]
        if not self.counts_agree:
            lines.append("the kept counts are not those of the rows: a defect, please report it")
        lines += [f"{sentence}: {WAY_ON}" for sentence in self.evidence]
        return lines + unfinished_lines(self.unfinished)


def _read(out: Path) -> _Job:
    taker = taker_of(out)
    store = SqliteStore(out / QUEUE_NAME, read_only=True)
    try:
        kept, counted = store.counts(), store.counts_by_counting()
        results = ResultFiles(out, store)
        # In this order: what compared a large file once serves both.
        finding, files = results.find_unknown(), results.agreements()
        if finding:
            files[IMPORTED_NAME] = Agreement.KNOWS_MORE
        if store.dead_file_is_stale() and files[DEAD_LETTER_NAME] is Agreement.OTHER:
            # Dead letters were replaced since it was written; nobody edited it.
            files[DEAD_LETTER_NAME] = Agreement.SHORTER
        return _Job(
            app=store.identity().get("app"),
            taker=taker,
            counts=counted,
            worst=store.worst_communities(WORST_LISTED),
            held=store.held_communities() if taker else [],
            # Beside a taker the counts may change between the two queries.
            counts_agree=counted.is_balanced and (taker is not None or kept == counted),
            files=files,
            unfinished=store.unfinished_inputs(),
            evidence=[str(reason) for reason in (strangeness(out, store), finding) if reason],
        )
    finally:
        store.close()
