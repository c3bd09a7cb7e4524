"""What only the embedded queue promises: one process takes, a lock, successors of dead letters."""

import errno
import fcntl
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from tests.support.queues import DEAD, read_record
from worker.job_directory import QUEUE_NAME
from worker.queues.contract import JobIdentity, JobMismatchError, QueueError, QueueTakenError
from worker.queues.directory_lock import LOCK_NAME, DirectoryLock, taker_of
from worker.queues.sqlite import file
from worker.queues.sqlite.queue import SqliteQueue
from worker.queues.sqlite.schema import SCHEMA
from worker.queues.sqlite.store import SqliteStore
from worker.rules.counts import Counts
from worker.rules.outcome import DeadLetter, History, Reason, Released

OURS = JobIdentity("1400000000", "", "derive")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def queue(directory: Path) -> Iterator[SqliteQueue]:
    queue = SqliteQueue(directory)
    yield queue
    queue.close()


async def test_records_held_by_a_dead_process_are_in_doubt(directory: Path) -> None:
    dead = SqliteQueue(directory)
    await dead.become_taker(OURS)
    await dead.put([read_record(1), read_record(2)])
    await dead.take(1)
    dead.close()
    queue = SqliteQueue(directory)
    assert await queue.become_taker(OURS) == (True, 1)
    taken = await queue.take(5)
    queue.close()
    assert [delivery.history.may_exist for delivery in taken] == [True, False]


async def test_a_second_process_may_put_and_read_but_not_take(
    queue: SqliteQueue, directory: Path
) -> None:
    await queue.become_taker(OURS)
    second = SqliteQueue(directory)
    with pytest.raises(QueueTakenError, match=r"another topic-import \(process \d+\)"):
        await second.become_taker(JobIdentity("another", "", "derive"))
    assert await second.put([read_record(1)]) == 1
    assert (await second.counts()).queued == 1
    second.close()
    assert queue.store.identity()["app"] == OURS.app
    assert len(await queue.take(5)) == 1
    assert taker_of(directory)
    queue.close()
    assert taker_of(directory) is None


async def test_a_queue_refuses_the_records_of_another_job(queue: SqliteQueue) -> None:
    ours = JobIdentity("1400000000", "id", "derive")
    identify = queue.store.identify
    assert not identify(JobIdentity("1", "none", "derive"))
    await queue.put([read_record(1, raw=b"{")])
    assert not identify(ours), "no TopicId was derived with the old settings"
    await queue.put([read_record(1)])
    assert identify(ours)
    for other in (
        JobIdentity("1400000001", "id", "derive"),
        JobIdentity("1400000000", "", "derive"),
        JobIdentity("1400000000", "id", "as-given"),
    ):
        with pytest.raises(JobMismatchError):
            identify(other)


async def test_a_duplicate_replaces_its_dead_letter_once_that_is_mended(queue: SqliteQueue) -> None:
    twins = [read_record(1, name="twin"), read_record(2, name="twin")]
    await queue.put(twins)
    (taken,) = await queue.take(10)
    letter = DeadLetter(taken.id, Reason.REJECTED, 10010, "", "", History(attempts=1))
    await queue.settle([letter])
    assert [orjson.loads(line)["source"] for _, line in queue.store.lines("dead", 0, 9)] == [
        "a.jsonl:1"
    ]
    await queue.put([read_record(1, name="mended")])
    assert [orjson.loads(line)["source"] for _, line in queue.store.lines("dead", 0, 9)] == [
        "a.jsonl:2"
    ]
    counts = await queue.counts()
    assert (counts.read, counts.queued, counts.dead, counts.duplicate) == (2, 1, 1, 0)


async def test_a_letter_puts_the_record_that_is_held_in_doubt(queue: SqliteQueue) -> None:
    record = read_record(1, own_id="x")
    letter = replace(record, path="b.jsonl", may_exist=True, asked_again=True)
    await queue.put([record])
    (taken,) = await queue.take(1)
    await queue.put([letter])
    await queue.settle([DEAD(taken.id, History(attempts=1))])
    ((_, line),) = queue.store.lines("dead", 0, 9)
    assert orjson.loads(line)["may_exist"]


async def test_untried_records_come_first_on_request(queue: SqliteQueue) -> None:
    await queue.put([read_record(n) for n in range(1, 5)])
    first, second = await queue.take(2)
    history = History(attempts=1)
    await queue.settle([Released(first.id, history), Released(second.id, history)])
    names = [d.topic.name for d in await queue.take(3, untried_first=True)]
    assert names == ["topic 3", "topic 4", "topic 1"]


def test_a_failed_schema_leaves_no_tables_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "queue.sqlite3"
    with monkeypatch.context() as broken:
        broken.setattr("worker.queues.sqlite.file.SCHEMA", f"{SCHEMA}; SELECT fails()")
        with pytest.raises(QueueError, match="no such function"):
            SqliteStore(path)
    store = SqliteStore(path)
    assert store.counts() == Counts()
    store.close()


def test_a_leftover_journal_hides_no_records(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite3"
    store = SqliteStore(path)
    store.put([read_record(1)])
    store.close()
    path.with_name("queue.sqlite3-journal").touch()
    looking = SqliteStore(path, read_only=True)
    assert looking.counts().read == 1
    looking.close()


def test_a_queue_that_another_process_keeps_locked_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(directory / QUEUE_NAME).close()
    monkeypatch.setattr(file, "BUSY_TIMEOUT_S", 0.01)
    other = sqlite3.connect(directory / QUEUE_NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store = SqliteStore(directory / QUEUE_NAME)
    try:
        with pytest.raises(QueueError, match="locked.*--out must lie on a disk of this machine"):
            store.identify(OURS)
    finally:
        store.close()
        other.close()


def test_a_directory_without_locks_is_refused_at_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(QueueError, match="files cannot be locked there .No locks available."):
        SqliteStore(directory / QUEUE_NAME)
    monkeypatch.undo()
    monkeypatch.setattr(fcntl, "flock", refuse)
    for use in (DirectoryLock, taker_of):
        (directory / LOCK_NAME).touch()
        with pytest.raises(QueueError, match="files cannot be locked there") as caught:
            use(directory)
        assert not isinstance(caught.value, QueueTakenError)
