"""The embedded queue's tables and transactions; synchronous, for one thread."""

import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import orjson

from worker.queues.contract import JobIdentity, JobMismatchError, QueueError
from worker.queues.sqlite.put import Putting
from worker.queues.sqlite.schema import SCHEMA, SCHEMA_VERSION, State, add_to_counts, bury
from worker.rules.counts import Counts, imported_counts
from worker.rules.outcome import DeadLetter, Delivery, History, Imported, Outcome, Released
from worker.rules.record import Record
from worker.rules.result_lines import Subject, imported_line
from worker.rules.topic.identity import Origin
from worker.rules.topic.topic import Topic

BUSY_TIMEOUT_S = 30.0
CACHE_KIB = 65_536
PAGE_BYTES = 4 << 20
FIRST_PAGE_BYTES = 4096

ResultKind = Literal["imported", "dead"]


class SqliteStore:
    """One connection to the queue's file. Raises QueueError for all that the disk may do."""

    def __init__(self, path: Path, *, read_only: bool = False, synchronous: str = "FULL") -> None:
        self._path = path
        with self._errors():
            if not read_only:
                path.touch(mode=0o600)
            self._db = _connect(f"{path.absolute().as_uri()}?{_mode(path, read_only=read_only)}")
            if read_only and _is_unbegun(path, self._db):
                self._db.close()
                self._db = _connect("file::memory:")
            if not read_only:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute(f"PRAGMA synchronous = {synchronous}")
            self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._prepare()

    def close(self) -> None:
        try:
            self._db.close()
        except sqlite3.Error as error:
            raise self._translated(error) from None

    # ---- the job

    def identify(self, identity: JobIdentity) -> bool:
        """Remember whose queue this is, or refuse another job; True where it was used before."""
        ours = {item.name: getattr(identity, item.name) for item in fields(identity)}
        with self._transaction():
            known = dict(self._db.execute("SELECT name, value FROM job"))
            if self._db.execute(_HAS_IDENTIFIED_TOPICS).fetchone() is None:
                # Nothing was ever identified by the old settings.
                known = {}
                self._db.execute("DELETE FROM job")
            for name, value in ours.items():
                if name in known and known[name] != value:
                    raise JobMismatchError(
                        f"{self._path} belongs to a job with {_IDENTITY_NAMES[name]} "
                        f"{known[name] or 'unset'}, this run has {value or 'unset'}: "
                        "give it the same, or another --out"
                    )
            self._db.executemany("INSERT OR IGNORE INTO job VALUES (?, ?)", list(ours.items()))
        return bool(known)

    def mark_input(self, path: str, *, unfinished: bool) -> None:
        """Note that an input is being read, or was read to its end."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO inputs (path, unfinished) VALUES (?, ?) "
                "ON CONFLICT (path) DO UPDATE SET unfinished = excluded.unfinished",
                (path, unfinished),
            )

    def unfinished_inputs(self) -> list[str]:
        """Name the inputs that were never read to their end."""
        with self._errors():
            rows = self._db.execute("SELECT path FROM inputs WHERE unfinished ORDER BY id")
            return [path for (path,) in rows]

    def identity(self) -> dict[str, str]:
        with self._errors():
            return dict(self._db.execute("SELECT name, value FROM job"))

    # ---- putting

    def put(self, records: list[Record]) -> int:
        """Put a batch in one transaction; how many were not read before."""
        with self._transaction():
            return Putting(self._db, self._input_ids(records)).put(records)

    # ---- taking

    def recover(self) -> int:
        """Take back what a dead taker held: each may have been called. Returns how many."""
        with self._transaction():
            return self._db.execute(
                "UPDATE queued SET taken = 0, may_exist = 1 WHERE taken = 1"
            ).rowcount

    def take(self, count: int, *, untried_first: bool = False) -> list[Delivery]:
        """Take the first ones. `untried_first`: those that were called before come last."""
        with self._transaction():
            rows = self._db.execute(
                _WAITING_UNTRIED_FIRST if untried_first else _WAITING, (count,)
            ).fetchall()
            self._db.executemany(
                "UPDATE queued SET taken = 1 WHERE id = ?", [(row[0],) for row in rows]
            )
        return [_taken(*row) for row in rows]

    # ---- settling

    def settle(self, outcomes: Iterable[Outcome]) -> None:
        """Settle and release a batch in one transaction."""
        with self._transaction():
            counting: Counter[str] = Counter()
            for outcome in outcomes:
                if isinstance(outcome, Released):
                    self._release(outcome)
                else:
                    self._settle(outcome, counting)
            add_to_counts(self._db, counting)

    def _release(self, released: Released) -> None:
        history = released.history
        self._db.execute(
            "UPDATE queued SET taken = 0, attempts = ?, may_exist = may_exist OR ?, "
            "first_attempt = ?, last_attempt = ? WHERE id = ?",
            (
                history.attempts,
                history.may_exist,
                history.first_attempt,
                history.last_attempt,
                released.id,
            ),
        )

    def _settle(self, outcome: Imported | DeadLetter, counting: Counter[str]) -> None:
        row = self._db.execute(
            "SELECT path, line, key, origin, body, truncated, raw, queued.may_exist FROM queued "
            "JOIN records USING (id) JOIN inputs ON inputs.id = input WHERE queued.id = ?",
            (outcome.id,),
        ).fetchone()
        if row is None:
            raise QueueError(
                f"record {outcome.id} was settled before: a defect, nothing was written"
            )
        path, line, key, origin, body, truncated, raw, in_doubt = row
        named = orjson.loads(body)
        subject = Subject(
            source=f"{path}:{line}",
            key=key,
            group_id=named["GroupId"],
            topic_id=named.get("TopicId"),
            topic_name=named["TopicName"],
            truncated=tuple(orjson.loads(truncated)),
            raw=raw,
        )
        self._db.execute("DELETE FROM queued WHERE id = ?", (outcome.id,))
        counting["queued"] -= 1
        if isinstance(outcome, DeadLetter):
            if in_doubt:
                # Perhaps only since it was taken: a letter of another job was put meanwhile.
                outcome = replace(outcome, history=outcome.history.cut_off())
            bury(self._db, subject, outcome, counting)
            return
        self._db.execute("UPDATE records SET state = ? WHERE id = ?", (State.IMPORTED, outcome.id))
        self._db.execute(
            "INSERT INTO imported (id, line) VALUES (?, ?)",
            (outcome.id, imported_line(subject, outcome)),
        )
        counting.update(imported_counts(outcome, Origin(origin)))

    # ---- reading

    def counts(self) -> Counts:
        with self._errors():
            return Counts.from_kept(dict(self._db.execute("SELECT name, n FROM counts")))

    def counts_by_counting(self) -> Counts:
        """Count the rows themselves, to hold the kept counts against."""
        with self._snapshot():
            kept = self.counts()
            states = dict(self._db.execute("SELECT state, count(*) FROM records GROUP BY state"))
            waiting = self._db.execute("SELECT count(*) FROM queued").fetchone()[0]
            reasons = dict(self._db.execute("SELECT reason, count(*) FROM dead GROUP BY reason"))
            codes = self._db.execute(
                "SELECT code, count(*) FROM dead WHERE code IS NOT NULL GROUP BY code"
            ).fetchall()
        return replace(
            kept,
            read=sum(states.values()),
            queued=waiting,
            imported=states.get(State.IMPORTED, 0),
            dead=states.get(State.DEAD, 0),
            duplicate=states.get(State.DUPLICATE, 0),
            by_reason=reasons,
            by_code={str(code): n for code, n in codes},
        )

    def last_seq(self, kind: ResultKind) -> int:
        """Tell the number of the last outcome; 0: there is none."""
        with self._errors():
            row = self._db.execute(f"SELECT coalesce(max(seq), 0) FROM {kind}").fetchone()  # noqa: S608
        return int(row[0])

    def lines(self, kind: ResultKind, after_seq: int, count: int) -> list[tuple[int, bytes]]:
        """Read result lines in the order of their outcomes: (seq, line), seq above `after_seq`.

        At most `count`, and fewer where they are long: a page is a few MiB.
        """
        page: list[tuple[int, bytes]] = []
        page_bytes = 0
        with self._errors():
            rows = self._db.execute(
                f"SELECT seq, line FROM {kind} WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608
                (after_seq, count),
            )
            for row in rows:
                page.append(row)
                page_bytes += len(row[1])
                if page_bytes >= PAGE_BYTES:
                    rows.close()
                    break
        return page

    def crowded_communities(self, topics_max: int) -> list[tuple[str, int]]:
        """Name the communities of which more topics were read, the largest first, with how many.

        Topics without an ID of ours cannot be counted here.
        """
        with self._errors():
            return self._db.execute(_CROWDED, (topics_max,)).fetchall()

    def rotated(self, kind: str) -> int:
        """Tell the last outcome whose line went into a file that was rotated away."""
        with self._errors():
            row = self._db.execute(
                "SELECT n FROM counts WHERE name = ?", (f"rotated:{kind}",)
            ).fetchone()
        return int(row[0]) if row else 0

    def set_rotated(self, kind: str, seq: int) -> None:
        with self._transaction():
            self._db.execute(
                "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET n = excluded.n",
                (f"rotated:{kind}", seq),
            )

    def oldest_queued(self) -> int | None:
        """Tell the record that has been in the queue for longest."""
        with self._errors():
            oldest: tuple[int | None] = self._db.execute("SELECT min(id) FROM queued").fetchone()
        return oldest[0]

    def dead_file_is_stale(self) -> bool:
        """Whether dead letters were replaced since their file was last written anew."""
        with self._errors():
            row = self._db.execute("SELECT n FROM counts WHERE name = 'replaced'").fetchone()
        return bool(row and row[0])

    def dead_file_was_rewritten(self) -> None:
        with self._transaction():
            self._db.execute("UPDATE counts SET n = 0 WHERE name = 'replaced'")

    # ---- plumbing

    def _prepare(self) -> None:
        if _is_empty(self._db):
            with self._transaction():
                # Looked at again: another process may have made the tables meanwhile.
                if _is_empty(self._db):
                    self._make_tables()
        version = _version(self._db)
        if version != SCHEMA_VERSION:
            raise QueueError(
                f"{self._path} is no queue of this version of topic-import (its version is "
                f"{version}): use the version that made it, or another --out"
            )

    def _make_tables(self) -> None:
        for statement in SCHEMA.split(";"):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _input_ids(self, records: list[Record]) -> dict[str, int]:
        ids: dict[str, int] = {}
        for path in {record.path for record in records}:
            self._db.execute("INSERT OR IGNORE INTO inputs (path) VALUES (?)", (path,))
            row = self._db.execute("SELECT id FROM inputs WHERE path = ?", (path,)).fetchone()
            ids[path] = row[0]
        return ids

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._translated(error) from None

    def _translated(self, error: Exception) -> QueueError:
        said = f"the queue {self._path} cannot be used: {error}. "
        if isinstance(error, sqlite3.DatabaseError) and _is_damaged(error):
            return QueueError(
                f"{said}It is damaged, or no queue at all: restore it from a copy, or give another "
                "--out"
            )
        if any(mark in str(error) for mark in _FORBIDDEN):
            return QueueError(f"{said}Give this user the right to write to it and to its directory")
        return QueueError(
            f"{said}Nothing is lost; make room or mend what it names, then run the same command "
            "again"
        )


_WAITING = (
    "SELECT id, origin, key, body, attempts, may_exist, first_attempt, last_attempt "
    "FROM queued WHERE taken = 0 ORDER BY id LIMIT ?"
)
_WAITING_UNTRIED_FIRST = _WAITING.replace("ORDER BY id", "ORDER BY attempts > 0, id")


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(
        uri,
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _is_unbegun(path: Path, db: sqlite3.Connection) -> bool:
    """Tell a queue whose first run was killed before it had made its tables: an empty one."""
    if path.with_name(f"{path.name}-journal").exists() and path.stat().st_size <= FIRST_PAGE_BYTES:
        # Its first page was being written: who may not write cannot take that back, nor read it.
        return True
    return _is_empty(db)


def _is_empty(db: sqlite3.Connection) -> bool:
    return not (_version(db) or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _mode(path: Path, *, read_only: bool) -> str:
    if not read_only:
        return "mode=rw"
    has_log = path.with_name(f"{path.name}-wal").exists()
    # Beside a queue at rest, where nothing can be written, SQLite would miss its own files.
    at_rest = not has_log and not os.access(path.parent, os.W_OK)
    return "mode=ro&immutable=1" if at_rest else "mode=ro"


_FORBIDDEN = ("readonly database", "unable to open database file", "Permission denied")


def _is_damaged(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}


_CROWDED = """
SELECT substr(topic_id, 1, instr(topic_id, '@TOPIC#_') - 1) AS community, count(*) AS topics
FROM records WHERE topic_id IS NOT NULL
GROUP BY community HAVING topics > ? ORDER BY topics DESC, community
"""
_HAS_IDENTIFIED_TOPICS = "SELECT 1 FROM records WHERE content IS NOT NULL LIMIT 1"
_IDENTITY_NAMES = {
    "app": "app.sdk_app_id",
    "key_field": "records.key_field",
    "topic_ids": "records.topic_ids",
}


def _taken(  # noqa: PLR0917
    record_id: int,
    origin: int,
    key: bytes | None,
    body: bytes,
    attempts: int,
    may_exist: int,
    first_attempt: float | None,
    last_attempt: float | None,
) -> Delivery:
    named = orjson.loads(body)
    topic = Topic(
        topic_id=named.get("TopicId"),
        origin=Origin(origin),
        group_id=named["GroupId"],
        name=named["TopicName"],
        key=None if key is None else orjson.loads(key),
        has_account="From_Account" in named,
        body=body,
    )
    history = History(
        attempts=attempts,
        may_exist=bool(may_exist),
        first_attempt=first_attempt,
        last_attempt=last_attempt,
    )
    return Delivery(record_id, topic, history)
