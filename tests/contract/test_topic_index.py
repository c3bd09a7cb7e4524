"""The index by TopicId: whatever waits in memory, no topic is queued twice."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from tests.support.queues import read_record
from worker.queues.sqlite import put, topic_index
from worker.queues.sqlite.store import SqliteStore
from worker.rules.record import Record


def topic_of(number: int, line: int, name: str = "a name") -> Record:
    """Return the record of a topic, one of 40 communities, as it was read at a line."""
    group_id = f"@TGS#_{number % 40}"
    topic_id = f"{group_id}@TOPIC#_{number}"
    raw = orjson.dumps({"GroupId": group_id, "TopicName": name, "TopicId": topic_id})
    return read_record(line, raw=raw)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path, synchronous="OFF")
    yield opened
    opened.close()


def entries(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM topics").fetchone()[0])


@pytest.fixture(params=["few slices", "many slices", "one hash for all"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices that are written at once or late, and TopicIds that the index cannot tell apart."""
    monkeypatch.setattr(topic_index, "SLICES", 2 if request.param == "few slices" else 128)
    if request.param == "one hash for all":
        monkeypatch.setattr(topic_index, "crc32", lambda _: 7)


@pytest.mark.usefixtures("kind")
def test_two_processes_that_put_in_turns_find_what_the_other_put(
    store: SqliteStore, path: Path
) -> None:
    other = SqliteStore(path, synchronous="OFF")
    for start in range(0, 400, 20):
        numbers = range(start, start + 20)
        store.put([topic_of(number, line=1000 + number) for number in numbers])
        other.put([topic_of(number, line=2000 + number) for number in numbers])
        other.put([topic_of(number + 400, line=3000 + number) for number in numbers])
        store.put([topic_of(number + 400, 4000 + number, name="another") for number in numbers])
    other.close()
    counts = store.counts()
    assert (counts.queued, counts.duplicate, counts.by_reason) == (800, 400, {"conflict": 400})
    assert counts == store.counts_by_counting()


@pytest.mark.usefixtures("kind")
def test_a_process_that_comes_later_finds_all(path: Path) -> None:
    for start in range(0, 300, 30):
        store = SqliteStore(path, synchronous="OFF")
        store.put([topic_of(number, line=1000 + number) for number in range(start, start + 30)])
        store.close()
    store = SqliteStore(path, synchronous="OFF")
    store.put([topic_of(number, line=2000 + number) for number in range(300)])
    assert (store.counts().queued, store.counts().duplicate) == (300, 300)
    store.close()


def test_what_a_failed_put_left_in_memory_is_forgotten(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([topic_of(number, line=number) for number in range(10)])
    with monkeypatch.context() as broken:
        broken.setattr(put, "keep_number", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.put([topic_of(number, line=number) for number in range(10, 20)])
    other = SqliteStore(path, synchronous="OFF")
    other.put([topic_of(number, line=number) for number in range(20, 30)])
    other.close()
    store.put([topic_of(number, line=1000 + number) for number in range(30)])
    counts = store.counts()
    assert (counts.queued, counts.duplicate) == (30, 20)


def test_only_what_is_not_indexed_yet_is_read_again(path: Path) -> None:
    store = SqliteStore(path, synchronous="OFF")
    for start in range(0, 4000, 20):
        store.put([topic_of(number, line=number) for number in range(start, start + 20)])
    store.close()
    with closing(sqlite3.connect(path)) as db:
        query = "SELECT n FROM counts WHERE name = ?"
        (indexed,) = db.execute(query, (topic_index.INDEXED,)).fetchone()
    # A slice waits for as many puts as there are slices.
    assert 4000 - (topic_index.SLICES + 1) * 20 <= indexed < 4000


def test_the_report_counts_what_still_waits_in_memory(store: SqliteStore, path: Path) -> None:
    store.put([topic_of(number * 40, line=number) for number in range(5)])
    assert store.crowded_communities(4) == [("@TGS#_0", 5)]
    assert store.crowded_communities(5) == []
    assert entries(path) == 5


@pytest.mark.usefixtures("kind")
def test_a_queue_that_is_only_read_finds_what_no_process_indexed(path: Path) -> None:
    store = SqliteStore(path, synchronous="OFF")
    store.put([topic_of(number, line=number) for number in range(300)])
    store.close()
    reader = SqliteStore(path, read_only=True)
    again = [topic_of(number, line=1000 + number) for number in range(290, 310)]
    assert reader.would_requeue(again) == 10
    assert reader.unknown([]) == []
    reader.close()


def test_many_processes_that_put_little_leave_no_long_rest(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_index, "WAITING_MAX", 100)
    for start in range(0, 1200, 20):
        store = SqliteStore(path, synchronous="OFF")
        store.put([topic_of(number, line=number) for number in range(start, start + 20)])
        store.close()
    with closing(sqlite3.connect(path)) as db:
        query = "SELECT n FROM counts WHERE name = ?"
        (indexed,) = db.execute(query, (topic_index.INDEXED,)).fetchone()
    assert indexed >= 1200 - 100 - 20
    assert entries(path) >= indexed
