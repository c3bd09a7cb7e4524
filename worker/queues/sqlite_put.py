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
    hash: bytes
    state: int
    may_exist: bool


@dataclass(frozen=True, slots=True)
class _Holder:
    """The row to which a TopicId belongs."""

    id: int
    state: int
    may_exist: bool
    content: bytes
    source: str


class Putting:
    """One batch being put: what was read before, whose TopicId is whose."""

    def __init__(self, db: sqlite3.Connection, inputs: dict[str, int]) -> None:
        self._db = db
        self._inputs = inputs
        self._counting: Counter[str] = Counter()

    def put(self, records: list[Record]) -> int:
        new = 0
        for record in records:
            if self._is_new(record, self._read_from_there(record)):
                self._put(record)
                new += 1
        add_to_counts(self._db, self._counting)
        return new

    def _read_from_there(self, record: Record) -> list[_Known]:
        rows = self._db.execute(
            "SELECT id, hash, state, may_exist FROM records WHERE input = ? AND line = ?",
            (self._inputs[record.path], record.line),
        )
        return [_Known(*row) for row in rows]

    def _is_new(self, record: Record, here: list[_Known]) -> bool:
        """Tell whether the line must be put; a dead letter that it replaces makes way."""
        same = [k for k in here if k.hash == record.content_hash]
        if same:
            if same[0].state != State.DEAD or not self._is_worth_another_try(record, same[0]):
                return False
            self._replace(same[0])
            return True
        if not record.asked_again and self._was_mended_elsewhere(record):
            return False
        if record.path == STANDARD_INPUT and not record.asked_again:
            # Line 3 of standard input is another line 3 each time.
            return True
        mended = [
            k for k in here if k.state == State.DEAD and (not k.may_exist or record.asked_again)
        ]
        # A dead letter names its line, and so perhaps more than one record that stood there.
        if len(mended) == 1 or not record.asked_again:
            for old in mended:
                if record.asked_again:
                    self._remember_as_mended(record, old)
                self._replace(old)
        return True

    def _is_worth_another_try(self, record: Record, dead: _Known) -> bool:
        """Tell whether a dead letter read again unchanged is tried again.

        One that is handed in as a dead letter is; else one that was invalid and, with other
        settings, is valid now: nothing was ever sent for it.
        """
        if record.asked_again:
            return True
        if isinstance(record.topic, InvalidRecordError):
            return False
        (reason,) = self._db.execute("SELECT reason FROM dead WHERE id = ?", (dead.id,)).fetchone()
        return bool(reason == Reason.INVALID.value)

    def _remember_as_mended(self, record: Record, old: _Known) -> None:
        """Remember the line as read, although its record is now what was mended of it."""
        self._db.execute(
            "INSERT OR IGNORE INTO mended VALUES (?, ?, ?)",
            (self._inputs[record.path], record.line, old.hash),
        )

    def _was_mended_elsewhere(self, record: Record) -> bool:
        row = self._db.execute(
            "SELECT 1 FROM mended WHERE input = ? AND line = ? AND hash = ?",
            (self._inputs[record.path], record.line, record.content_hash),
        ).fetchone()
        return row is not None

    def _replace(self, old: _Known) -> None:
        """Take a dead letter away; if it has duplicates, one of them takes its place."""
        heir = self._db.execute(
            "SELECT records.id, path, line FROM records JOIN inputs ON inputs.id = input "
            "WHERE holder = ? ORDER BY records.id LIMIT 1",
            (old.id,),
        ).fetchone()
        if heir:
            self._bequeath(old.id, heir[0], source=f"{heir[1]}:{heir[2]}")
        else:
            self._exhume(old.id)
        self._db.execute("DELETE FROM records WHERE id = ?", (old.id,))
        self._counting["read"] -= 1

    def _bequeath(self, old: int, heir: int, *, source: str) -> None:
        (line,) = self._db.execute("SELECT line FROM dead WHERE id = ?", (old,)).fetchone()
        letter = orjson.dumps(
            orjson.loads(line) | {"source": source}, option=orjson.OPT_APPEND_NEWLINE
        )
        topic_id, content, may_exist = self._db.execute(
            "SELECT topic_id, content, may_exist FROM records WHERE id = ?", (old,)
        ).fetchone()
        self._db.execute("UPDATE records SET topic_id = NULL WHERE id = ?", (old,))
        self._db.execute(
            "UPDATE records SET state = ?, topic_id = ?, content = ?, may_exist = ?, "
            "holder = NULL WHERE id = ?",
            (State.DEAD, topic_id, content, may_exist, heir),
        )
        self._db.execute("UPDATE records SET holder = ? WHERE holder = ?", (heir, old))
        self._db.execute("UPDATE dead SET id = ?, line = ? WHERE id = ?", (heir, letter, old))
        self._counting.subtract(["duplicate"])
        self._counting["replaced"] += 1

    def _exhume(self, record_id: int) -> None:
        reason, code = self._db.execute(
            "SELECT reason, code FROM dead WHERE id = ?", (record_id,)
        ).fetchone()
        self._db.execute("DELETE FROM dead WHERE id = ?", (record_id,))
        self._counting.subtract(dead_letter_counts(reason, code))
        self._counting["replaced"] += 1

    def _put(self, record: Record) -> None:
        self._counting["read"] += 1
        if isinstance(record.topic, InvalidRecordError):
            self._put_invalid(record, record.topic)
            return
        topic = record.topic
        content = content_hash(topic.body)
        holder = self._holder(topic.topic_id)
        if holder is None:
            self._put_queued(record, topic, content)
        elif holder.state == State.DEAD and not holder.may_exist:
            self._take_over(holder, record, topic, content)
        elif holder.content == content:
            self._counting["duplicate"] += 1
            self._insert(record, State.DUPLICATE, holder=holder.id)
        else:
            self._put_conflict(record, topic, holder.source)

    def _holder(self, topic_id: str | None) -> _Holder | None:
        if topic_id is None:
            return None
        row = self._db.execute(
            "SELECT records.id, state, may_exist, content, path, line FROM records "
            "JOIN inputs ON inputs.id = input WHERE topic_id = ?",
            (topic_id,),
        ).fetchone()
        return row and _Holder(row[0], row[1], row[2], row[3], f"{row[4]}:{row[5]}")

    def _take_over(self, old: _Holder, record: Record, topic: Topic, content: bytes) -> None:
        """Take a TopicId over from a dead letter that cannot exist, and so holds it no longer.

        One with the same content is tried again as this record, of which it is a duplicate now.
        """
        self._db.execute("UPDATE records SET topic_id = NULL WHERE id = ?", (old.id,))
        record_id = self._put_queued(record, topic, content)
        if old.content != content:
            return
        self._exhume(old.id)
        self._counting["duplicate"] += 1
        self._db.execute(
            "UPDATE records SET state = ?, holder = ? WHERE id = ?",
            (State.DUPLICATE, record_id, old.id),
        )
        self._db.execute("UPDATE records SET holder = ? WHERE holder = ?", (record_id, old.id))

    def _insert(
        self,
        record: Record,
        state: State,
        topic_id: str | None = None,
        content: bytes | None = None,
        holder: int | None = None,
    ) -> int:
        cursor = self._db.execute(
            "INSERT INTO records (input, line, hash, state, topic_id, content, may_exist, holder) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._inputs[record.path],
                record.line,
                record.content_hash,
                state,
                topic_id,
                content,
                record.may_exist,
                holder,
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

    def _put_invalid(self, record: Record, problem: InvalidRecordError) -> None:
        subject = Subject(
            source=record.source,
            key=_json_key(problem.key),
            group_id=problem.group_id,
            topic_id=problem.topic_id,
            raw=record.raw,
            is_object=problem.is_object,
        )
        self._put_dead(
            record,
            subject,
            Reason.INVALID,
            str(problem),
            "mend this line, or the settings, and run the same command again",
        )

    def _put_conflict(self, record: Record, topic: Topic, holder: str) -> None:
        subject = Subject(
            source=record.source,
            key=_json_key(topic.key),
            group_id=topic.group_id,
            topic_id=topic.topic_id,
            raw=record.raw,
        )
        message = f"{holder} has the same TopicId with other content"
        hint = "give one of them another TopicId (or key) and run again"
        self._put_dead(record, subject, Reason.CONFLICT, message, hint)

    def _put_dead(
        self, record: Record, subject: Subject, reason: Reason, message: str, hint: str
    ) -> None:
        record_id = self._insert(record, State.DEAD)
        letter = DeadLetter(
            record_id, reason, None, message, hint, History(may_exist=record.may_exist)
        )
        bury(self._db, subject, letter, self._counting)


def _json_key(key: str | int | None) -> bytes | None:
    return None if key is None else orjson.dumps(key)
