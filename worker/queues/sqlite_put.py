"""Putting records into the embedded queue: what was read before, whose TopicId is whose."""

import sqlite3
from collections import Counter
from dataclasses import dataclass

import orjson

from worker.outcome import DeadLetter, Subject
from worker.queues.sqlite_schema import State, add_to_counts, bury, dead_letter_counts
from worker.record import Record, content_hash
from worker.topic import InvalidRecordError, Topic
from worker.verdict import History, Reason

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class _Known:
    """A row that was read from the same position before."""

    id: int
    line: int
    hash: bytes
    state: int
    may_exist: bool


class Putting:
    """One batch being put: what was read before, whose TopicId is whose."""

    def __init__(self, db: sqlite3.Connection, inputs: dict[str, int]) -> None:
        self._db = db
        self._inputs = inputs
        self._counting: Counter[str] = Counter()

    def put(self, records: list[Record]) -> int:
        known = self._known_at(records)
        new = 0
        for record in records:
            here = known.setdefault((record.path, record.line), [])
            if not self._is_new(record, here):
                continue
            state, record_id = self._put(record)
            new += 1
            here.append(
                _Known(record_id, record.line, record.content_hash, state, record.may_exist)
            )
        add_to_counts(self._db, self._counting)
        return new

    def _known_at(self, records: list[Record]) -> dict[tuple[str, int], list[_Known]]:
        known: dict[tuple[str, int], list[_Known]] = {}
        for path in {record.path for record in records}:
            lines = [record.line for record in records if record.path == path]
            rows = self._db.execute(
                "SELECT id, line, hash, state, may_exist FROM records "
                "WHERE input = ? AND line BETWEEN ? AND ?",
                (self._inputs[path], min(lines), max(lines)),
            )
            for row in rows:
                known.setdefault((path, row[1]), []).append(_Known(*row))
        return known

    def _is_new(self, record: Record, here: list[_Known]) -> bool:
        """Tell whether the line must be put; a dead letter that it replaces makes way."""
        same = [k for k in here if k.hash == record.content_hash]
        if same:
            if not record.asked_again or same[0].state != State.DEAD:
                return False
            self._replace(same[0], here)
            return True
        if record.path == STANDARD_INPUT and not record.asked_again:
            # Line 3 of standard input is another line 3 each time.
            return True
        mended = [
            k for k in here if k.state == State.DEAD and (not k.may_exist or record.asked_again)
        ]
        # A dead letter names its line, and so perhaps more than one record that stood there.
        if len(mended) == 1 or not record.asked_again:
            for old in mended:
                self._replace(old, here)
        return True

    def _replace(self, old: _Known, here: list[_Known]) -> None:
        reason, code = self._db.execute(
            "SELECT reason, code FROM dead WHERE id = ?", (old.id,)
        ).fetchone()
        self._db.execute("DELETE FROM dead WHERE id = ?", (old.id,))
        self._db.execute("DELETE FROM records WHERE id = ?", (old.id,))
        self._counting.subtract([*dead_letter_counts(reason, code), "read"])
        self._counting["replaced"] += 1
        here.remove(old)

    def _put(self, record: Record) -> tuple[State, int]:
        self._counting["read"] += 1
        if isinstance(record.topic, InvalidRecordError):
            return State.DEAD, self._put_invalid(record, record.topic)
        topic = record.topic
        content = content_hash(topic.body)
        holder = (
            topic.topic_id
            and self._db.execute(
                "SELECT content, path, line FROM records JOIN inputs ON inputs.id = input "
                "WHERE topic_id = ?",
                (topic.topic_id,),
            ).fetchone()
        )
        if not holder:
            return State.QUEUED, self._put_queued(record, topic, content)
        if holder[0] == content:
            self._counting["duplicate"] += 1
            return State.DUPLICATE, self._insert(record, State.DUPLICATE)
        return State.DEAD, self._put_conflict(record, topic, f"{holder[1]}:{holder[2]}")

    def _insert(
        self,
        record: Record,
        state: State,
        topic_id: str | None = None,
        content: bytes | None = None,
    ) -> int:
        cursor = self._db.execute(
            "INSERT INTO records (input, line, hash, state, topic_id, content, may_exist) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                self._inputs[record.path],
                record.line,
                record.content_hash,
                state,
                topic_id,
                content,
                record.may_exist,
            ),
        )
        record_id = cursor.lastrowid
        assert record_id is not None  # noqa: S101 - an INSERT has one
        return record_id

    def _put_queued(self, record: Record, topic: Topic, content: bytes) -> int:
        record_id = self._insert(record, State.QUEUED, topic.topic_id, content)
        self._db.execute(
            "INSERT INTO queued (id, origin, key, body, truncated, raw, may_exist) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                record_id,
                topic.origin,
                _json_key(topic.key),
                topic.body,
                orjson.dumps(topic.truncated).decode(),
                record.raw,
                record.may_exist,
            ),
        )
        self._counting["queued"] += 1
        return record_id

    def _put_invalid(self, record: Record, problem: InvalidRecordError) -> int:
        subject = Subject(
            source=record.source,
            key=_json_key(problem.key),
            group_id=problem.group_id,
            topic_id=problem.topic_id,
            raw=record.raw,
            is_object=problem.is_object,
        )
        return self._put_dead(
            record, subject, Reason.INVALID, str(problem), "mend this line and run again"
        )

    def _put_conflict(self, record: Record, topic: Topic, holder: str) -> int:
        subject = Subject(
            source=record.source,
            key=_json_key(topic.key),
            group_id=topic.group_id,
            topic_id=topic.topic_id,
            raw=record.raw,
        )
        message = f"{holder} has the same TopicId with other content"
        hint = "give one of them another TopicId (or key) and run again"
        return self._put_dead(record, subject, Reason.CONFLICT, message, hint)

    def _put_dead(
        self, record: Record, subject: Subject, reason: Reason, message: str, hint: str
    ) -> int:
        record_id = self._insert(record, State.DEAD)
        letter = DeadLetter(
            record_id, reason, None, message, hint, History(may_exist=record.may_exist)
        )
        bury(self._db, subject, letter, self._counting)
        return record_id


def _json_key(key: str | int | None) -> bytes | None:
    return None if key is None else orjson.dumps(key)
