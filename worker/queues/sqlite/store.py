"""The embedded queue's transactions: one method, one transaction; synchronous, for one thread."""

import secrets
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from worker.queues.contract import JobIdentity, JobMismatchError
from worker.queues.sqlite import adoption, cut_names, deliveries, dismissal, reading
from worker.queues.sqlite.file import QueueFile
from worker.queues.sqlite.put import Putting, can_be_queued
from worker.queues.sqlite.reading import ResultKind
from worker.queues.sqlite.schema import keep_number, kept_number
from worker.queues.sqlite.surroundings import surroundings
from worker.queues.sqlite.topic_index import TopicIndex
from worker.rules.counts import CommunityLetters, Counts
from worker.rules.outcome import Delivery, Outcome
from worker.rules.record import Record, content_hash
from worker.rules.result_lines import ImportedLine
from worker.rules.surroundings import Surroundings
from worker.rules.topic.oddities import EqualNames

_HAS_IDENTIFIED_TOPICS = "SELECT 1 FROM records WHERE content IS NOT NULL LIMIT 1"
_IDENTITY_NAMES = {
    "app": "app.sdk_app_id",
    "key_field": "records.key_field",
    "topic_ids": "records.topic_ids",
}
_JOB_ID = "id"
_MAPPING = "mapping"
"""The name of the job's ID in the table of its identity, of which it is no part."""
JOB_ID_BYTES = 16
_REPLACED = "replaced"
"""Counts the dead letters that were replaced since their file was last written anew."""


class SqliteStore:
    """The queue in one file. Every method raises QueueError for all that the disk may do.

    `read_only`: reads beside a taker and changes nothing. `synchronous`: SQLite's pragma; only
    tests and benchmarks set another one than FULL.
    """

    def __init__(self, path: Path, *, read_only: bool = False, synchronous: str = "FULL") -> None:
        self._path = path
        self._file = QueueFile(path, read_only=read_only, synchronous=synchronous)
        self._in_hand: deliveries.InHand = {}
        self._index = TopicIndex()
        self._settled_last: list[tuple[int, bytes]] = []
        """The lines of the imported records that were settled last, for the file that follows."""

    def close(self) -> None:
        self._file.close()

    # ---- the job

    def identify(self, identity: JobIdentity, *, job_id: str | None = None) -> bool:
        """Remember whose queue this is. Returns whether it was used before.

        `job_id`: the ID for a queue that has none yet; without it such a queue gets a random one.
        Raises JobMismatchError if the queue belongs to another job.
        """
        given = {item.name: getattr(identity, item.name) for item in fields(identity)}
        with self._file.transaction() as db:
            known = _identity(db)
            if db.execute(_HAS_IDENTIFIED_TOPICS).fetchone() is None:
                # No topic was ever identified by the old settings, so they may change.
                known = {}
                db.execute("DELETE FROM job WHERE name <> ?", (_JOB_ID,))
            for name, value in given.items():
                if name in known and known[name] != value:
                    raise JobMismatchError(
                        f"{self._path} belongs to a job with {_IDENTITY_NAMES[name]} "
                        f"{known[name] or 'unset'}, this run has {value or 'unset'}: "
                        "give it the same, or another --out"
                    )
            given[_JOB_ID] = job_id or secrets.token_hex(JOB_ID_BYTES)
            db.executemany("INSERT OR IGNORE INTO job VALUES (?, ?)", list(given.items()))
        return bool(known)

    def identity(self) -> dict[str, str]:
        """Return the identity that was remembered, by field of JobIdentity; empty if none was."""
        with self._file.reading() as db:
            return _identity(db)

    def job_id(self) -> str | None:
        """Return the ID that the queue and its files have, None for a queue never used."""
        with self._file.reading() as db:
            row = db.execute("SELECT value FROM job WHERE name = ?", (_JOB_ID,)).fetchone()
            return row and str(row[0])

    def exchange_mapping(self, mapping: str) -> str | None:
        """Remember how records are mapped from now on; return how they were, None if never."""
        with self._file.transaction() as db:
            row = db.execute("SELECT value FROM job WHERE name = ?", (_MAPPING,)).fetchone()
            db.execute("INSERT OR REPLACE INTO job VALUES (?, ?)", (_MAPPING, mapping))
        return row and str(row[0])

    # ---- putting

    def mark_input(self, path: str, *, unfinished: bool) -> None:
        """Remember that an input is being read, or was read to its end."""
        with self._file.transaction() as db:
            db.execute(
                "INSERT INTO inputs (path, unfinished) VALUES (?, ?) "
                "ON CONFLICT (path) DO UPDATE SET unfinished = excluded.unfinished",
                (path, unfinished),
            )

    def unfinished_inputs(self) -> list[str]:
        """Return the paths of the inputs that were never read to their end."""
        with self._file.reading() as db:
            rows = db.execute("SELECT path FROM inputs WHERE unfinished ORDER BY id")
            return [path for (path,) in rows]

    def put(self, records: list[Record]) -> int:
        """Store a batch in one transaction. Returns how many of its records were new."""
        return self._put(records)[0]

    def surroundings(self, records: list[Record]) -> list[Surroundings]:
        """Return what is known around changed lines with dead letters, see the contract."""
        with self._file.snapshot() as db:
            return surroundings(db, records)

    def requeue(self, letters: list[Record]) -> int:
        """Put dead letters back in one transaction. Returns how many are queued again.

        `letters`: the records in them, as the intake reads a dead letter (`asked_again`). One that
        is still invalid, or in conflict, is not counted.
        """
        return self._put(letters)[1]

    def would_requeue(self, letters: list[Record]) -> int:
        """Return how many `requeue` would queue again, from a store that is only read."""
        with self._file.snapshot() as db:
            self._index.refresh(db)
            return sum(can_be_queued(db, self._index, record) for record in letters)

    def _put(self, records: list[Record]) -> tuple[int, int]:
        with self._indexing() as db:
            return Putting(db, _input_ids(db, records), self._index).put(records)

    @contextmanager
    def _indexing(self) -> Iterator[sqlite3.Connection]:
        """Begin a transaction that may change the index by TopicId, which is fresh in it."""
        try:
            with self._file.transaction() as db:
                self._index.refresh(db)
                yield db
        except BaseException:
            self._index = TopicIndex()
            raise

    # ---- taking and settling

    def recover(self) -> int:
        """Make ready what a dead taker held, in doubt, and let all communities go.

        Returns how many records were made ready.
        """
        with self._file.transaction() as db:
            return deliveries.recover(db)

    def take(
        self,
        count: int,
        *,
        untried_first: bool = False,
        without: frozenset[str] = frozenset(),
    ) -> list[Delivery]:
        """Take the first `count` ready records; `untried_first`: those with attempts come last.

        `without`: the communities that are held now; their records stay ready.
        """
        with self._file.transaction() as db:
            return deliveries.take(
                db, self._in_hand, count, untried_first=untried_first, without=without
            )

    def take_of(self, group_id: str, count: int) -> list[Delivery]:
        """Take up to `count` ready records of one community, the fewest attempts first."""
        with self._file.transaction() as db:
            return deliveries.take_of(db, self._in_hand, group_id, count)

    def settle(self, outcomes: Collection[Outcome]) -> None:
        """Settle and release a batch in one transaction."""
        with self._file.transaction() as db:
            lines = deliveries.settle(db, self._in_hand, outcomes)
        self._settled_last = lines
        for outcome in outcomes:
            self._in_hand.pop(outcome.id, None)

    # ---- reading

    def counts(self) -> Counts:
        """Return how many records are in which state, as every change kept count of it."""
        with self._file.reading() as db:
            return reading.kept_counts(db)

    def counts_by_counting(self) -> Counts:
        """Count the rows themselves, to compare them with the kept counts."""
        with self._file.snapshot() as db:
            return reading.counted_rows(db)

    def crowded_communities(self, topics_max: int) -> list[tuple[str, int]]:
        """Return the communities with more than `topics_max` topics, the largest first."""
        with self._indexing() as db:
            self._index.write_all(db)
            return reading.crowded_communities(db, topics_max)

    def worst_communities(self, count: int) -> list[CommunityLetters]:
        """Return the communities with the most dead letters of one reason and code, worst first."""
        with self._file.reading() as db:
            return reading.worst_communities(db, count)

    def held_communities(self) -> list[str]:
        """Return the communities whose records wait; as long as a taker runs."""
        with self._file.reading() as db:
            return reading.held_communities(db)

    def equal_names(self) -> EqualNames:
        """Return the TopicNames that became equal within a community by cutting."""
        with self._file.reading() as db:
            return cut_names.equal_names(db)

    def oldest_queued(self) -> int | None:
        """Return the ID of the record that has been queued longest, None if none is."""
        with self._file.reading() as db:
            return reading.oldest_queued(db)

    # ---- the result files that follow the queue

    def unknown(self, lines: list[ImportedLine]) -> list[ImportedLine]:
        """Return the lines whose topic the queue does not hold as imported."""
        with self._file.snapshot() as db:
            self._index.refresh(db)
            return adoption.unknown(db, self._index, lines)

    def adopt(self, lines: list[ImportedLine]) -> int:
        """Take over the topics of these lines in one transaction. Returns how many were new."""
        with self._indexing() as db:
            return adoption.adopt(db, self._index, lines)

    def last_seq(self, kind: ResultKind) -> int:
        """Return the sequence number of the last outcome of a kind, 0 if there is none."""
        with self._file.reading() as db:
            return reading.last_seq(db, kind)

    def lines(self, kind: ResultKind, after_seq: int, count: int) -> list[tuple[int, bytes]]:
        """Return result lines in the order of their outcomes: (seq, line), seq above `after_seq`.

        At most `count`, and fewer if they are long.
        """
        if kind == "imported" and self._settled_last and self._settled_last[0][0] == after_seq + 1:
            return self._settled_last[:count]
        with self._file.reading() as db:
            return reading.lines(db, kind, after_seq, count)

    def rotated(self, kind: str) -> int:
        """Return the seq of the last outcome whose line is in a file that was rotated away."""
        with self._file.reading() as db:
            return kept_number(db, f"rotated:{kind}")

    def set_rotated(self, kind: str, seq: int) -> None:
        """Remember the last outcome of a file that is being rotated away."""
        with self._file.transaction() as db:
            keep_number(db, f"rotated:{kind}", seq)

    def dead_file_is_stale(self) -> bool:
        """Return whether dead letters were replaced since their file was last written anew."""
        with self._file.reading() as db:
            return kept_number(db, _REPLACED) != 0

    def was_removed(self, line: bytes) -> bool:
        """Return whether this dead letter was removed since their file was last written anew."""
        with self._file.reading() as db:
            query = "SELECT 1 FROM removed WHERE hash = ?"
            return db.execute(query, (content_hash(line),)).fetchone() is not None

    def dead_file_was_rewritten(self) -> None:
        """Remember that the file of dead letters holds those of now."""
        with self._file.transaction() as db:
            db.execute("UPDATE counts SET n = 0 WHERE name = ?", (_REPLACED,))
            db.execute("DELETE FROM removed")

    # ---- dismissing

    def dismiss(self, letters: list[tuple[int, bytes]], at_s: float) -> int:
        """Dismiss dead letters in one transaction (R27); return how many were dismissed.

        `letters`: as `lines` returns them. `at_s`: the time of now, in Unix seconds.
        """
        with self._file.transaction() as db:
            return dismissal.dismiss(db, letters, at_s)

    def dismiss_queued(self, group_id: str, source: str | None, count: int, at_s: float) -> int:
        """Dismiss up to `count` ready records of a community; return how many were dismissed.

        `source`: only those read from there, a path or `path:line`.
        """
        with self._file.transaction() as db:
            return dismissal.dismiss_queued(db, group_id, source, count, at_s)

    def queued_of(self, group_id: str, source: str | None) -> int:
        """Return how many records `dismiss_queued` would dismiss, all in all."""
        with self._file.reading() as db:
            return dismissal.queued_of(db, group_id, source)


def _identity(db: sqlite3.Connection) -> dict[str, str]:
    others = (_JOB_ID, _MAPPING)
    return dict(db.execute("SELECT name, value FROM job WHERE name NOT IN (?, ?)", others))


def _input_ids(db: sqlite3.Connection, records: list[Record]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for path in {record.path for record in records}:
        db.execute("INSERT OR IGNORE INTO inputs (path) VALUES (?)", (path,))
        row = db.execute("SELECT id FROM inputs WHERE path = ?", (path,)).fetchone()
        ids[path] = row[0]
    return ids
