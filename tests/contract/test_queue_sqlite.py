"""What only the embedded queue promises: one taker, a lock, heirs of dead letters."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from tests.support.queues import DEAD, read_record, run
from worker.queues.contract import JobIdentity, JobMismatchError, QueueError, QueueTakenError
from worker.queues.directory_lock import taker_of
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


def test_a_taker_that_died_may_have_called(directory: Path) -> None:
    async def take_and_die() -> None:
        queue = SqliteQueue(directory)
        await queue.become_taker(OURS)
        await queue.put([read_record(1), read_record(2)])
        await queue.take(1)
        queue.close()

    async def the_next_taker() -> list[bool]:
        queue = SqliteQueue(directory)
        assert await queue.become_taker(OURS) == (True, 1)
        taken = await queue.take(5)
        queue.close()
        return [delivery.history.may_exist for delivery in taken]

    run(take_and_die())
    assert run(the_next_taker()) == [True, False]


def test_a_second_taker_is_refused_while_putting_and_reading_work(
    queue: SqliteQueue, directory: Path
) -> None:
    async def story() -> None:
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

    run(story())
    queue.close()
    assert taker_of(directory) is None


def test_a_queue_remembers_whose_job_it_is(queue: SqliteQueue) -> None:
    async def story() -> None:
        ours = JobIdentity("1400000000", "id", "derive")
        identify = queue.store.identify
        assert not identify(JobIdentity("1", "none", "derive"))
        await queue.put([read_record(1, raw=b"{")])
        assert not identify(ours), "nothing was identified by the old settings"
        await queue.put([read_record(1)])
        assert identify(ours)
        for other in (
            JobIdentity("1400000001", "id", "derive"),
            JobIdentity("1400000000", "", "derive"),
            JobIdentity("1400000000", "id", "as-given"),
        ):
            with pytest.raises(JobMismatchError):
                identify(other)

    run(story())


def test_a_duplicate_takes_the_place_of_its_dead_letter_when_that_is_mended(
    queue: SqliteQueue,
) -> None:
    async def story() -> None:
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

    run(story())


def test_a_letter_put_while_its_record_is_in_hand_leaves_its_doubt(queue: SqliteQueue) -> None:
    record = read_record(1, own_id="x")
    letter = replace(record, path="b.jsonl", may_exist=True, asked_again=True)

    async def story() -> None:
        await queue.put([record])
        (taken,) = await queue.take(1)
        await queue.put([letter])
        await queue.settle([DEAD(taken.id, History(attempts=1))])

    run(story())
    ((_, line),) = queue.store.lines("dead", 0, 9)
    assert orjson.loads(line)["may_exist"]


def test_records_that_were_called_come_last_where_that_is_asked_for(queue: SqliteQueue) -> None:
    async def story() -> None:
        await queue.put([read_record(n) for n in range(1, 5)])
        first, second = await queue.take(2)
        history = History(attempts=1)
        await queue.settle([Released(first.id, history), Released(second.id, history)])
        names = [d.topic.name for d in await queue.take(3, untried_first=True)]
        assert names == ["topic 3", "topic 4", "topic 1"]

    run(story())


def test_tables_that_could_not_all_be_made_are_none(
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


def test_a_journal_beside_a_queue_hides_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite3"
    store = SqliteStore(path)
    store.put([read_record(1)])
    store.close()
    path.with_name("queue.sqlite3-journal").touch()
    looking = SqliteStore(path, read_only=True)
    assert looking.counts().read == 1
    looking.close()
