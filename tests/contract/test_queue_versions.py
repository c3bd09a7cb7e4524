"""A job that was begun with an older version of the embedded queue goes on with this one."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from tests.support.queues import DEAD, imported, read_record
from worker.jobs.embedded_standing import read_standing
from worker.queues.contract import JobIdentity, QueueError
from worker.queues.directory_lock import DirectoryLock
from worker.queues.sqlite import migration
from worker.queues.sqlite.queue import SqliteQueue
from worker.queues.sqlite.schema import SCHEMA_VERSION
from worker.queues.sqlite.store import SqliteStore
from worker.rules.counts import CommunityLetters
from worker.rules.outcome import DeadLetter, History, Reason, Released
from worker.rules.record import Record

A, B = "@TGS#_a", "@TGS#_b"
OURS = JobIdentity("1400000000", "", "derive")
TRIED = History(attempts=3, may_exist=True, first_attempt=5.0, last_attempt=6.0)
WORST = [
    CommunityLetters(B, "rejected", 10010, 2, is_all=True),
    CommunityLetters(A, "exhausted", 10002, 1, is_all=True),
    CommunityLetters(A, "invalid", None, 1),
]
VERSION_1 = """
CREATE TABLE job (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE inputs (
  id INTEGER PRIMARY KEY,
  path TEXT NOT NULL UNIQUE,
  unfinished INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE records (
  id INTEGER PRIMARY KEY,
  input INTEGER NOT NULL,
  line INTEGER NOT NULL,
  hash BLOB NOT NULL,
  state INTEGER NOT NULL,
  topic_id TEXT,
  content BLOB,
  holder INTEGER,
  may_exist INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX records_by_position ON records (input, line);
CREATE INDEX records_by_holder ON records (holder) WHERE holder IS NOT NULL;
CREATE UNIQUE INDEX records_by_topic ON records (topic_id) WHERE topic_id IS NOT NULL;
CREATE TABLE queued (
  id INTEGER PRIMARY KEY,
  origin INTEGER NOT NULL,
  key BLOB,
  body BLOB NOT NULL,
  truncated TEXT NOT NULL,
  raw BLOB NOT NULL,
  taken INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  may_exist INTEGER NOT NULL DEFAULT 0,
  first_attempt REAL,
  last_attempt REAL
);
CREATE INDEX queued_ready ON queued (id) WHERE taken = 0;
CREATE TABLE mended (
  input INTEGER NOT NULL,
  line INTEGER NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (input, line, hash)
) WITHOUT ROWID;
CREATE TABLE imported (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, line BLOB NOT NULL);
CREATE TABLE dead (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id INTEGER NOT NULL UNIQUE,
  reason TEXT NOT NULL,
  code INTEGER,
  line BLOB NOT NULL
);
PRAGMA user_version = 1;
"""
VERSION_2 = f"""{VERSION_1}
DROP INDEX queued_ready;
ALTER TABLE queued ADD COLUMN community INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queued ADD COLUMN aside INTEGER NOT NULL DEFAULT 0;
CREATE INDEX queued_ready ON queued (attempts > 0, id, community) WHERE taken = 0 AND aside = 0;
CREATE INDEX queued_by_community ON queued (community, aside, attempts, id) WHERE taken = 0;
ALTER TABLE dead ADD COLUMN group_id TEXT;
CREATE INDEX dead_by_community ON dead (group_id, reason, code);
ALTER TABLE records ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
CREATE TABLE dismissed (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, line BLOB NOT NULL);
CREATE TABLE removed (hash BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE communities (
  id INTEGER PRIMARY KEY,
  group_id TEXT NOT NULL UNIQUE,
  imported INTEGER NOT NULL DEFAULT 0,
  held INTEGER NOT NULL DEFAULT 0,
  moving INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX communities_held ON communities (id) WHERE held = 1;
CREATE INDEX communities_moving ON communities (id, held) WHERE moving = 1;
PRAGMA user_version = 2;
"""
VERSIONS = {1: VERSION_1, 2: VERSION_2}
QUEUED_OF_OLD = (
    "SELECT id, origin, key, body, truncated, raw, "
    "lane IS 2 OR (lane IS NULL AND id <= (SELECT n FROM filled.counts WHERE name = 'watermark')) "
    "AS taken, attempts, may_exist, first_attempt, last_attempt, community, 0 AS aside "
    "FROM filled.queued JOIN filled.payloads USING (id)"
)
KEPT_BY_THIS_VERSION = ("watermark", "last_id")


def record_of(group_id: str, line: int, name: str | None = None) -> Record:
    given = {"GroupId": group_id, "TopicName": str(line) if name is None else name}
    return read_record(line, raw=orjson.dumps(given))


def fill(path: Path) -> None:
    """Make a queue of this version with a record in every place; one is still taken."""
    store = SqliteStore(path, synchronous="OFF")
    store.identify(OURS)
    store.put([record_of(A, line) for line in (1, 2, 3)])
    store.put([record_of(B, line) for line in (4, 5, 6, 7)])
    store.put([record_of(A, 8, name=""), read_record(9, raw=b"{"), record_of(A, 10)])
    one, two, three, four, five, _ = store.take(6)
    rejected = [
        DeadLetter(row.id, Reason.REJECTED, 10010, "", "", History()) for row in (four, five)
    ]
    store.settle(
        [imported(one.id), DEAD(two.id, History(attempts=8)), *rejected, Released(three.id, TRIED)]
    )
    store.close()


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    given: int = request.param
    return given


@pytest.fixture
def old(tmp_path: Path, version: int) -> Path:
    """The file of a queue as an older version leaves it when it is killed."""
    source, path = tmp_path / "filled.sqlite3", tmp_path / "queue.sqlite3"
    fill(source)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(VERSIONS[version])
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("ATTACH ? AS filled", (str(source),))
        names = db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in names:
            if table == "sqlite_sequence":
                continue
            columns = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
            rows = f"({QUEUED_OF_OLD})" if table == "queued" else f"filled.{table}"
            db.execute(f"INSERT INTO {table} SELECT {columns} FROM {rows}")  # noqa: S608
        db.executemany("DELETE FROM counts WHERE name = ?", [(n,) for n in KEPT_BY_THIS_VERSION])
    source.unlink()
    return path


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def tables_of(path: Path) -> dict[str, object]:
    """Return the columns of each table and the text of each index."""
    with closing(sqlite3.connect(path)) as db:
        names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        columns = {
            name: sorted(row[1:5] for row in db.execute(f"PRAGMA table_info({name})"))
            for (name,) in names
        }
        indexes = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'")
        return columns | dict(indexes)


def test_an_upgraded_queue_has_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    SqliteStore(old).close()
    SqliteStore(tmp_path / "new.sqlite3").close()
    assert tables_of(old) == tables_of(tmp_path / "new.sqlite3")
    assert version_of(old) == version_of(tmp_path / "new.sqlite3")


async def test_a_job_of_the_last_version_goes_on(old: Path) -> None:
    queue = SqliteQueue(old.parent)
    assert await queue.become_taker(OURS) == (True, 1)
    assert await queue.counts() == queue.store.counts_by_counting()
    assert await queue.worst_communities(5) == WORST
    taken = await queue.take(9, untried_first=True, without=frozenset({B}))
    assert [(d.topic.name, d.was_imported_into) for d in taken] == [("10", True), ("3", True)]
    assert taken[1].history == TRIED
    others = await queue.take_of(B, 9)
    assert [(d.topic.name, d.was_imported_into) for d in others] == [("6", False), ("7", False)]
    await queue.settle([imported(delivery.id) for delivery in taken + others])
    assert await queue.is_empty()
    queue.close()


def test_a_queue_of_the_last_version_is_read_without_a_change(old: Path, version: int) -> None:
    before = old.read_bytes()
    store = SqliteStore(old, read_only=True)
    assert store.worst_communities(5) == WORST
    assert store.counts() == store.counts_by_counting()
    assert (store.queued_of(A, None), store.queued_of("@TGS#_none", None)) == (2, 0)
    assert not store.was_removed(b"a line")
    store.close()
    assert read_standing(old.parent).facts["queued"] == 4
    assert (version_of(old), old.read_bytes()) == (version, before)


def test_an_upgrade_that_fails_leaves_the_last_version(
    old: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tables_of(old)
    with monkeypatch.context() as broken:
        scripts = [*migration.UPGRADES[version], "SELECT fails()"]
        broken.setitem(migration.UPGRADES, version, scripts)
        with pytest.raises(QueueError, match="no such function"):
            SqliteStore(old)
    assert (version_of(old), tables_of(old)) == (version, before)
    store = SqliteStore(old)
    assert store.worst_communities(5) == WORST
    store.close()


def test_no_queue_is_upgraded_under_an_older_program(old: Path, version: int) -> None:
    lock = DirectoryLock(old.parent)
    (old.parent / "queue.lock").write_text("process 1\n")
    with pytest.raises(QueueError, match=r"older version of topic-import \(process 1\): wait"):
        SqliteStore(old)
    assert version_of(old) == version
    lock.release()
    SqliteStore(old).close()
    assert version_of(old) == SCHEMA_VERSION


def test_letters_of_the_last_version_can_be_mended(old: Path) -> None:
    store = SqliteStore(old)
    mended = (replace(record_of(B, 7 + line), line=line, is_in_place=True) for line in (4, 5))
    store.put(list(mended))
    assert store.worst_communities(5) == WORST[1:]
    store.close()


@pytest.mark.parametrize("version", [1])
def test_a_letter_that_cannot_be_parsed_is_kept_without_a_community(old: Path) -> None:
    nested = b'{"group_id":"x","record":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("UPDATE dead SET line = ? WHERE reason = 'exhausted'", (nested,))
    store = SqliteStore(old)
    assert store.worst_communities(5) == [WORST[0], WORST[2]]
    store.close()
