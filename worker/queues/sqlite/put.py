"""Putting records into the embedded queue: what was read before, whose TopicId is whose."""

import sqlite3
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import orjson

from worker.queues.sqlite.schema import State, add_to_counts, bury
from worker.rules.counts import dead_letter_counts
from worker.rules.outcome import DeadLetter, History, Reason
from worker.rules.record import Record, content_hash
from worker.rules.result_lines import Subject
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import Topic

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
    content: bytes | None
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
            replaced = self._replaced_by(record)
            if replaced is not None:
                self._put_in_place_of(replaced, record)
                new += 1
        add_to_counts(self._db, self._counting)
        return new

    def _replaced_by(self, record: Record) -> list[_Known] | None:
        """Tell which dead letters make way for what was read; None: it was read before."""
        rows = self._db.execute(
            "SELECT id, hash, state, may_exist FROM records WHERE input = ? AND line = ?",
            (self._inputs[record.path], record.line),
        )
        here = [_Known(*row) for row in rows]
        same = next((k for k in here if self._is_same(record, k)), None)
        if same and not self._is_worth_another_try(record, same):
            self._pass_doubt_on(record, same)
            return None
        if same:
            return [same]
        # What took the place of a mended line stands at its position: where nothing was read
        # from, as in every first reading, there is nothing to look up.
        if here and self._was_mended(record):
            return None
        if record.asked_again:
            return self._replaced_by_dead_letter(record, here)
        if record.path == STANDARD_INPUT:
            # Line 3 of standard input is another line 3 each time.
            return []
        return [k for k in here if k.state == State.DEAD and not k.may_exist]

    def _is_same(self, record: Record, known: _Known) -> bool:
        if known.hash != record.content_hash:
            return False
        # Two letters of one line may have been edited to the same text, and are two topics.
        is_letter = record.asked_again and known.state == State.DEAD
        return not is_letter or self._letter(known)["topic_id"] == record.dead_letter_topic_id

    def _replaced_by_dead_letter(self, record: Record, here: list[_Known]) -> list[_Known] | None:
        """Find the row of a dead letter that was edited: it names its line and its TopicId."""
        dead = [k for k in here if k.state == State.DEAD]
        if dead and isinstance(record.topic, InvalidRecordError) and not record.topic.is_object:
            # Not mended, and perhaps only the beginning of a line that was too long.
            return None
        own = [k for k in dead if self._letter(k)["topic_id"] == record.dead_letter_topic_id]
        if len(own) == 1:
            self._remember_as_mended(record, own[0])
        return own if len(own) == 1 else []

    def _letter(self, dead: _Known) -> dict[str, Any]:
        (line,) = self._db.execute("SELECT line FROM dead WHERE id = ?", (dead.id,)).fetchone()
        letter: dict[str, Any] = orjson.loads(line)
        return letter

    def _is_worth_another_try(self, record: Record, same: _Known) -> bool:
        """Tell whether a record read again unchanged is tried again.

        A dead letter that is handed in as one is; and a line that was invalid and, with other
        settings, is valid now.
        """
        if same.state != State.DEAD:
            return False
        if record.asked_again:
            return True
        if isinstance(record.topic, InvalidRecordError):
            return False
        return bool(self._letter(same)["reason"] == Reason.INVALID.value)

    def _pass_doubt_on(self, record: Record, row: "_Known | _Holder") -> None:
        """Put the row that stands for a record in doubt, where the record is and the row is queued.

        A dead letter of another job may be handed in beside the records that it came from.
        """
        if record.may_exist and row.state == State.QUEUED:
            self._db.execute("UPDATE queued SET may_exist = 1 WHERE id = ?", (row.id,))

    def _remember_as_mended(self, record: Record, old: _Known) -> None:
        """Remember the line as read, although its record is now what was mended of it."""
        self._db.execute(
            "INSERT OR IGNORE INTO mended VALUES (?, ?, ?)",
            (self._inputs[record.path], record.line, old.hash),
        )

    def _was_mended(self, record: Record) -> bool:
        row = self._db.execute(
            "SELECT 1 FROM mended WHERE input = ? AND line = ? AND hash = ?",
            (self._inputs[record.path], record.line, record.content_hash),
        ).fetchone()
        return row is not None

    def _put_in_place_of(self, replaced: list[_Known], record: Record) -> None:
        """Put a record; what was in doubt of those that it replaces is in doubt of it."""
        if any(old.may_exist for old in replaced):
            record = replace(record, may_exist=True)
        for old in replaced:
            self._take_away(old, leaves_duplicates=record.asked_again)
        record_id = self._put(record)
        for old in replaced:
            self._db.execute("UPDATE records SET holder = ? WHERE holder = ?", (record_id, old.id))

    def _take_away(self, old: _Known, *, leaves_duplicates: bool) -> None:
        """Take a dead letter away; one of its duplicates takes its place, if they are not left."""
        heir = self._db.execute(
            "SELECT records.id, path, line FROM records JOIN inputs ON inputs.id = input "
            "WHERE holder = ? ORDER BY records.id LIMIT 1",
            (old.id,),
        ).fetchone()
        if heir and not leaves_duplicates:
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

    def _put(self, record: Record) -> int:
        self._counting["read"] += 1
        if isinstance(record.topic, InvalidRecordError):
            return self._put_invalid(record, record.topic)
        topic = record.topic
        content = content_hash(topic.body)
        holder = self._holder(topic.topic_id)
        if holder is None:
            return self._put_queued(record, topic, content)
        if holder.state == State.DEAD and not holder.may_exist:
            return self._take_over(holder, record, topic, content)
        if holder.content == content:
            self._pass_doubt_on(record, holder)
            self._counting["duplicate"] += 1
            return self._insert(record, State.DUPLICATE, holder=holder.id)
        return self._put_conflict(record, topic, holder.source)

    def _holder(self, topic_id: str | None) -> _Holder | None:
        if topic_id is None:
            return None
        row = self._db.execute(
            "SELECT records.id, state, may_exist, content, path, line FROM records "
            "JOIN inputs ON inputs.id = input WHERE topic_id = ?",
            (topic_id,),
        ).fetchone()
        return row and _Holder(row[0], row[1], row[2], row[3], f"{row[4]}:{row[5]}")

    def _take_over(self, old: _Holder, record: Record, topic: Topic, content: bytes) -> int:
        """Take a TopicId over from a dead letter that cannot exist, and so holds it no longer.

        One with the same content is tried again as this record, of which it is a duplicate now.
        """
        self._db.execute("UPDATE records SET topic_id = NULL WHERE id = ?", (old.id,))
        record_id = self._put_queued(record, topic, content)
        if old.content != content:
            return record_id
        self._exhume(old.id)
        self._counting["duplicate"] += 1
        self._db.execute(
            "UPDATE records SET state = ?, holder = ? WHERE id = ?",
            (State.DUPLICATE, record_id, old.id),
        )
        self._db.execute("UPDATE records SET holder = ? WHERE holder = ?", (record_id, old.id))
        return record_id

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
            record,
            subject,
            Reason.INVALID,
            str(problem),
            "mend this line, or the settings, and run the same command again",
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
        # A topic that may exist keeps its ID from all others, though its record is broken now.
        holds_id = record.may_exist and self._holder(subject.topic_id) is None
        record_id = self._insert(record, State.DEAD, subject.topic_id if holds_id else None)
        letter = DeadLetter(
            record_id, reason, None, message, hint, History(may_exist=record.may_exist)
        )
        bury(self._db, subject, letter, self._counting)
        return record_id


def _json_key(key: str | int | None) -> bytes | None:
    return None if key is None else orjson.dumps(key)
