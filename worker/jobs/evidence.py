"""Whether the queue and the files beside it belong together, at the start of a run (R26)."""

from pathlib import Path

from worker.job_directory import IMPORTED_NAME, JOB_ID_NAME, QUEUE_NAME
from worker.logs import logger
from worker.outputs.evidence import Finding, KnowsNothing
from worker.outputs.job_mark import read_job_mark, write_job_mark
from worker.outputs.result_file import ResultFile
from worker.outputs.result_files import ResultFiles
from worker.queues.contract import EvidenceError
from worker.queues.sqlite.store import SqliteStore

log = logger()

WAY_ON = (
    "bring its own queue back, or run `topic-import backfill --adopt` with the same inputs and "
    "--out, which takes these topics over; or give a fresh --out"
)


def find_without_queue(out: Path) -> Finding | None:
    """Return what the files know of a queue that is not there; None for nothing."""
    return ResultFile(out / IMPORTED_NAME, lambda *_: [], 0, KnowsNothing()).find_unknown()


def refuse_without_queue(out: Path) -> None:
    """Raise EvidenceError if there is no queue, but files that know topics. Makes nothing."""
    if (out / QUEUE_NAME).exists():
        return
    if finding := find_without_queue(out):
        raise EvidenceError(f"{out / QUEUE_NAME} is not there, and {finding}: {WAY_ON}")


def strangeness(out: Path, store: SqliteStore) -> str | None:
    """Return why the files are not those of the queue's job, None if they are."""
    mark, job_id = read_job_mark(out), store.job_id()
    if None in {mark, job_id} or mark == job_id:
        return None
    return (
        f"the result files in {out} belong to another job than {out / QUEUE_NAME} "
        f"({JOB_ID_NAME} holds {mark}, the queue has {job_id})"
    )


def reconcile_evidence(out: Path, store: SqliteStore, files: ResultFiles, *, adopt: bool) -> None:
    """Take over what only the files know if `adopt` is set, and mark them as the queue's.

    Without `adopt`, raises EvidenceError for files of another job, or with topics that the queue
    does not know; nothing was changed then.
    """
    if adopt:
        adopted = files.adopt()
        log.info("took over topics that only the result files knew", topics=adopted)
    elif reason := strangeness(out, store) or files.find_unknown():
        raise EvidenceError(f"{reason}: {WAY_ON}")
    if job_id := store.job_id():
        write_job_mark(out, job_id)
