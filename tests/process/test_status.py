"""What status reports, and the files that a later run repairs."""

import contextlib
import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from tests.support.processes import Job, Simulator, audit, simulator
from tests.support.topics import records
from worker.queues.sqlite.file import FIRST_PAGE_BYTES


def test_status_without_a_job_and_during_a_run(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--latency", "0.3") as service:
        job = Job(tmp_path, service.url)
        assert job.run("status").returncode == 2
        path = job.write(records(300))
        running = job.start(*job.backfill_words(path), HTTP__MAX_IN_FLIGHT="10")
        while not service.ledger()["calls"]:
            time.sleep(0.01)
        status = job.status()
        assert status["taker"].startswith("process ")
        assert status["agree"]
        second = job.backfill(path)
        assert second.returncode == 2
        assert b"another topic-import (process" in second.stderr
        running.kill()
        running.communicate()
        assert job.status()["taker"] is None


@pytest.mark.parametrize("moment", ["the file was made", "its first page was being written"])
def test_status_of_a_job_killed_before_its_queue_had_tables(
    job: Job, service: Simulator, moment: str
) -> None:
    job.out.mkdir()
    queue = job.out / "queue.sqlite3"
    queue.touch()
    if "page" in moment:
        leave_a_hot_journal(job.directory / "other", queue)
    status = job.status()
    assert {status[name] for name in ("read", "queued", "imported", "dead", "duplicate")} == {0}
    assert status["agree"]
    assert job.backfill(job.write(records(10))).returncode == 0
    audit(job, service)


def leave_a_hot_journal(other: Path, queue: Path) -> None:
    """Create the files that SQLite leaves if the first write to an empty file is cut off."""
    with contextlib.closing(sqlite3.connect(other, isolation_level=None)) as db:
        for statement in ("PRAGMA cache_size = 1", "BEGIN", "CREATE TABLE filler (content)"):
            db.execute(statement)
        db.execute("INSERT INTO filler VALUES (zeroblob(1000000))")
        for ending in ("", "-journal"):
            source = other.with_name(other.name + ending)
            shutil.copy(source, queue.with_name(queue.name + ending))
    os.truncate(queue, FIRST_PAGE_BYTES)


def test_edited_or_deleted_result_files_are_rebuilt(job: Job, service: Simulator) -> None:
    path = job.write([*records(20), b"{"])
    job.backfill(path)
    imported = job.out / "imported.jsonl"
    whole = imported.read_bytes()
    imported.write_bytes(whole.replace(b"own-3", b"own-X"))
    (job.out / "dead-letter.jsonl").unlink()
    assert job.run("status").returncode == 1
    assert job.status()["files"] == {"imported.jsonl": "other", "dead-letter.jsonl": "shorter"}
    assert job.backfill().returncode == 1
    assert imported.read_bytes() == whole
    assert len(list(job.out.glob("imported.jsonl.edited-*"))) == 1
    assert job.run("status").returncode == 0
    audit(job, service)


def test_an_input_not_read_to_its_end_is_reported(job: Job, service: Simulator) -> None:
    path = job.write(records(3000))
    done = job.backfill(path, APP__SECRET_KEY="0" * 64)
    assert done.returncode == 3
    if job.report()["read"] < 3000:
        assert b"topics.jsonl was not read to its end" in done.stdout
        assert job.status()["unfinished_inputs"] == [str(path)]
    job.backfill(path, "--limit", "5")
    assert job.backfill(path).returncode == 0
    assert job.status()["unfinished_inputs"] == []
