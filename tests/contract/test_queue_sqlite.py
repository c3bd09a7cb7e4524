"""What only the embedded queue promises: one process takes, a lock, successors of dead letters."""

import errno
import fcntl
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from tests.support.queues import DEAD, imported, read_record
from worker.job_directory import QUEUE_NAME
from worker.queues.contract import JobIdentity, JobMismatchError, QueueError, QueueTakenError
from worker.queues.directory_lock import LOCK_NAME, DirectoryLock, taker_of
from worker.queues.sqlite import communities, deliveries, reading
from worker.queues.sqlite import file as queue_file
from worker.queues.sqlite.file import QueueFile
from worker.queues.sqlite.queue import SqliteQueue
from worker.queues.sqlite.schema import SCHEMA
from worker.queues.sqlite.store import SqliteStore
from worker.rules.counts import Counts
from worker.rules.outcome import DeadLetter, History, Reason, Released
from worker.rules.record import Record

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
    await queue.put([replace(read_record(1, name="mended"), is_in_place=True)])
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


A, B = "@TGS#_a", "@TGS#_b"
WITHOUT_A = frozenset({A})


def record_of(group_id: str, line: int) -> Record:
    return read_record(line, raw=orjson.dumps({"GroupId": group_id, "TopicName": f"{line}"}))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[QueueFile]:
    file = QueueFile(tmp_path / "queue.sqlite3", read_only=False, synchronous="OFF")
    yield file
    file.close()


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (deliveries.READY, (0, 9), "queued_by_lane (lane=? AND <expr>=?)"),
        (deliveries.OF_COMMUNITY, (1, 0, 9), "queued_by_community (community=? AND lane=?)"),
        (deliveries.FRESH, (1, 9), "INTEGER PRIMARY KEY (rowid>?)"),
        (deliveries.FRESH_NOT_HELD, (1, 9), "INTEGER PRIMARY KEY (rowid>?)"),
        (deliveries.TAKE_BACK_BY_LANE, (), "queued_by_lane (lane=?)"),
        (deliveries.TAKE_BACK_BY_WATERMARK, (1,), "INTEGER PRIMARY KEY (rowid<?)"),
        (communities.SET_ASIDE, (1, 9), "queued_by_community (community=? AND lane=?)"),
        (communities.BRING_BACK_UNTRIED, (1, 9), "queued_by_community (community=? AND lane=? "),
        (communities.BRING_BACK_TRIED, (1,), "queued_by_community (community=? AND lane=?"),
        (communities.BRING_ALL_BACK, (), "queued_by_lane (lane=?"),
        (communities.HELD, (), "communities_held"),
        (communities.MOVING, (), "communities_moving"),
        (reading.WORST.format(group_id="group_id"), (9,), "COVERING INDEX dead_by_community"),
    ],
)
def test_what_runs_often_finds_its_rows_by_an_index(
    file: QueueFile, statement: str, values: tuple[int, ...], index: str
) -> None:
    with file.reading() as db:
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert any(index in step for step in plan), plan
    if "queued" in statement:
        assert not any(step.startswith("SCAN queued") or "ORDER BY" in step for step in plan), plan


@pytest.mark.parametrize("untried_first", [False, True])
def test_passing_over_many_held_records_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, untried_first: bool
) -> None:
    """Counted in steps of SQLite, once the held records are set aside."""
    monkeypatch.setattr(communities, "MOVED_PER_TAKE", 1_000)
    steps = {
        held: steps_of_a_take(tmp_path / f"{held}.sqlite3", held, untried_first=untried_first)
        for held in (5, 3_000)
    }
    few, many = steps.values()
    assert many <= few + 1, steps


def steps_of_a_take(path: Path, held: int, *, untried_first: bool) -> int:
    """Return how many hundreds of steps a take costs beside `held` records that are held."""
    steps: list[int] = []
    store = SqliteStore(path, synchronous="OFF")
    file = QueueFile(path, read_only=False, synchronous="OFF")
    store.put([record_of(A, line) for line in range(held)])
    store.put([record_of(B, held + line) for line in range(20)])
    for _ in range(5):
        store.take(1, without=WITHOUT_A, untried_first=untried_first)
    with file.transaction() as db:
        db.set_progress_handler(lambda: steps.append(100), 100)
        taken = deliveries.take(db, {}, 5, untried_first=untried_first, without=WITHOUT_A)
        db.set_progress_handler(None, 0)
    assert [delivery.topic.group_id for delivery in taken] == [B] * 5
    store.close()
    file.close()
    return len(steps)


async def test_the_order_holds_while_records_are_brought_back(
    queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(communities, "MOVED_PER_TAKE", 10)
    await queue.put([record_of(A if line % 2 else B, line) for line in range(200)])
    early = [d.topic.name for _ in range(15) for d in await queue.take(1, without=WITHOUT_A)]
    late = [d.topic.name for _ in range(20) for d in await queue.take(7)]
    assert early == [str(line) for line in range(0, 30, 2)]
    assert late == [str(line) for line in range(200) if str(line) not in early][:140]


async def test_a_record_that_another_process_puts_is_passed_over(
    queue: SqliteQueue, directory: Path
) -> None:
    await queue.put([record_of(A, 1)])
    await queue.take(1, without=WITHOUT_A)
    second = SqliteQueue(directory)
    await second.put([record_of(A, 2), record_of(B, 3)])
    second.close()
    assert [d.topic.name for d in await queue.take(9, without=WITHOUT_A)] == ["3"]
    assert [d.topic.name for d in await queue.take(9)] == ["1", "2"]


async def test_no_community_is_held_after_a_restart(directory: Path) -> None:
    dead = SqliteQueue(directory)
    await dead.become_taker(OURS)
    await dead.put([record_of(A, 1), record_of(B, 2), record_of(A, 3)])
    assert len(await dead.take(9, without=WITHOUT_A)) == 1
    dead.close()
    queue = SqliteQueue(directory)
    assert await queue.become_taker(OURS) == (True, 1)
    assert [d.topic.name for d in await queue.take_of(A, 1)] == ["1"]
    assert [d.topic.name for d in await queue.take(9)] == ["2", "3"]
    queue.close()


async def test_an_import_into_a_community_is_remembered_by_the_job(directory: Path) -> None:
    first = SqliteQueue(directory)
    await first.put([record_of(A, 1), record_of(A, 2), record_of(B, 3)])
    (taken,) = await first.take(1)
    await first.settle([imported(taken.id)])
    first.close()
    queue = SqliteQueue(directory)
    assert [d.was_imported_into for d in await queue.take(9)] == [True, False]
    queue.close()


def test_a_queue_that_another_process_keeps_locked_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(directory / QUEUE_NAME).close()
    monkeypatch.setattr(queue_file, "BUSY_TIMEOUT_S", 0.01)
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
