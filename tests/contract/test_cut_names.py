"""The embedded queue finds names that became equal by cutting, queued or imported."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from worker.queues.sqlite.store import SqliteStore
from worker.rules.outcome import Already, History, Imported
from worker.rules.record import Record, content_hash
from worker.rules.topic.oddities import NO_EQUAL_NAMES, EqualName
from worker.rules.topic.topic import RecordRules, to_topic

RULES = RecordRules(truncate=True)
LONG = "engineering-backend-services-eu-"
CUT = LONG[:30]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "queue.sqlite3", synchronous="OFF")
    yield opened
    opened.close()


def put(store: SqliteStore, *named: tuple[str, str]) -> None:
    """Put a record for each pair of community and name; its line is its place in the list."""
    records = []
    for line, (community, name) in enumerate(named, 1):
        parsed: dict[str, Any] = {"GroupId": f"@TGS#_{community}", "TopicName": name}
        raw = orjson.dumps(parsed)
        records.append(Record("a.jsonl", line, content_hash(raw), raw, to_topic(parsed, RULES)))
    store.put(records)


def queued_cut(directory: Path) -> int:
    """Return how many queued records have a value that was cut."""
    with closing(sqlite3.connect(directory / "queue.sqlite3")) as db:
        query = "SELECT count(*) FROM payloads WHERE truncated <> '[]'"
        return int(db.execute(query).fetchone()[0])


def import_next(store: SqliteStore, count: int) -> None:
    deliveries = store.take(count)
    store.settle([Imported(d.id, Already.NO, History(1), at=1.0) for d in deliveries])


def test_names_that_became_equal_are_found_in_any_state(store: SqliteStore, tmp_path: Path) -> None:
    put(store, ("a", f"{LONG}west"), ("a", f"{LONG}east"), ("b", f"{LONG}west"), ("a", CUT))
    expected = EqualName("@TGS#_a", CUT, 3, ("a.jsonl:1", "a.jsonl:4"))
    for _ in range(5):
        found = store.equal_names()
        assert (found.names, found.topics, found.examples) == (1, 3, (expected,))
        import_next(store, 1)
    assert queued_cut(tmp_path) == 0


def test_names_that_are_equal_without_cutting_are_not_named(
    store: SqliteStore, tmp_path: Path
) -> None:
    put(store, ("a", CUT), ("a", "general"), ("b", f"{LONG}west"))
    cut_text = '"truncated":["TopicName"'
    put(store, ("a", cut_text), ("a", cut_text))
    assert queued_cut(tmp_path) == 1
    import_next(store, 9)
    assert store.equal_names() == NO_EQUAL_NAMES


def test_all_equal_names_are_counted_the_largest_first(store: SqliteStore) -> None:
    put(store, *[(group, f"{LONG}{n}") for group in "abc" for n in range(3)], ("c", CUT))
    found = store.equal_names()
    assert (found.names, found.topics) == (3, 10)
    assert [name.group_id for name in found.examples] == ["@TGS#_c", "@TGS#_a", "@TGS#_b"]
