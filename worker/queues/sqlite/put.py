"""Putting records into the embedded queue: the rules R2 to R6, R12 and R13 in SQL."""

import sqlite3
from collections import Counter
from dataclasses import dataclass, replace

import orjson

from worker.queues.letters import (
    MEND_THE_LINE,
    conflict_letter,
    content_of,
    invalid_letter,
    json_key,
    subject_of_invalid,
    subject_of_topic,
)
from worker.queues.sqlite.adoption import Adopted
from worker.queues.sqlite.communities import Communities
from worker.queues.sqlite.positions import Known, Positions, pass_doubt_on
from worker.queues.sqlite.schema import State, add_dead_letter, add_to_counts
from worker.rules.counts import dead_letter_counts
from worker.rules.outcome import DeadLetter, History
from worker.rules.record import Record
from worker.rules.result_lines import Subject
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import Topic


@dataclass(frozen=True, slots=True)
class _Holder:
    """The row that holds a TopicId (R2)."""

    id: int
    state: int
    may_exist: bool
    content: bytes | None
    source: str


class Putting:
    """One batch being put, inside the caller's transaction.

    `inputs`: the row IDs of the inputs, by path.
    """

    def __init__(self, db: sqlite3.Connection, inputs: dict[str, int]) -> None:
        self._db = db
        self._inputs = inputs
        self._positions = Positions(db, inputs)
        self._communities = Communities(db)
        self._adopted = Adopted(db)
        self._claimed: set[int] = set()
        self._counting: Counter[str] = Counter()

    def put(self, records: list[Record]) -> list[Record]:
        """Put the records that are new (R1), and return them."""
        new: list[Record] = []
        for record in records:
            replaced = self._positions.replaced_by(record)
            if replaced is None:
                continue
            if self._put_in_place_of(replaced, record) not in self._claimed:
                new.append(record)
        add_to_counts(self._db, self._counting)
        return new

    def _put_in_place_of(self, replaced: list[Known], record: Record) -> int:
        """Put a record, with the doubt of those that it replaces (R13); return its row."""
        if any(old.may_exist for old in replaced):
            record = replace(record, may_exist=True)
        for old in replaced:
            self._remove_record(old, leaves_duplicates=record.asked_again)
        record_id = self._put(record)
        for old in replaced:
            self._db.execute("UPDATE records SET holder = ? WHERE holder = ?", (record_id, old.id))
        return record_id

    def _remove_record(self, old: Known, *, leaves_duplicates: bool) -> None:
        """Remove a dead letter with its row.

        Its first duplicate takes its place (R12), unless they are to become duplicates of the
        record that replaces it (`leaves_duplicates`).
        """
        successor = self._db.execute(
            "SELECT records.id, path, line FROM records JOIN inputs ON inputs.id = input "
            "WHERE holder = ? ORDER BY records.id LIMIT 1",
            (old.id,),
        ).fetchone()
        if successor and not leaves_duplicates:
            new_id, path, line = successor
            self._promote_duplicate(old.id, new_id, source=f"{path}:{line}")
        else:
            self._remove_dead_letter(old.id)
        self._db.execute("DELETE FROM records WHERE id = ?", (old.id,))
        self._counting["read"] -= 1

    def _promote_duplicate(self, old: int, successor: int, *, source: str) -> None:
        """Make a duplicate the dead letter that another row was, and holder of its TopicId."""
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
            (State.DEAD, topic_id, content, may_exist, successor),
        )
        self._db.execute("UPDATE records SET holder = ? WHERE holder = ?", (successor, old))
        self._db.execute("UPDATE dead SET id = ?, line = ? WHERE id = ?", (successor, letter, old))
        self._counting.subtract(["duplicate"])
        self._counting["replaced"] += 1

    def _remove_dead_letter(self, record_id: int) -> None:
        """Remove a dead letter from its table and the counts; the row of its record stays."""
        reason, code = self._db.execute(
            "SELECT reason, code FROM dead WHERE id = ?", (record_id,)
        ).fetchone()
        self._db.execute("DELETE FROM dead WHERE id = ?", (record_id,))
        self._counting.subtract(dead_letter_counts(reason, code))
        self._counting["replaced"] += 1

    def _put(self, record: Record) -> int:
        adopted = self._claim_adopted(record)
        if adopted is not None:
            return adopted
        self._counting["read"] += 1
        if isinstance(record.topic, InvalidRecordError):
            return self._put_invalid(record, record.topic)
        topic = record.topic
        content = content_of(topic)
        holder = self._holder(topic.topic_id)
        if holder is None:  # R2
            return self._put_queued(record, topic, content)
        if holder.state == State.DEAD and not holder.may_exist:  # R5
            return self._take_over(holder, record, topic, content)
        if holder.content == content:  # R3
            pass_doubt_on(self._db, record, holder.id, holder.state)
            self._counting["duplicate"] += 1
            return self._insert(record, State.DUPLICATE, holder=holder.id)
        return self._put_conflict(record, topic, holder.source)  # R4

    def _claim_adopted(self, record: Record) -> int | None:
        """Return the row of the adopted topic that a record is (R26): it is imported already."""
        topic = record.topic
        content = None if isinstance(topic, InvalidRecordError) else content_of(topic)
        if content is None and topic.topic_id is None:
            return None
        adopted = self._adopted.claim(record, self._inputs[record.path], topic.topic_id, content)
        if adopted is not None:
            self._claimed.add(adopted)
        return adopted

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
        """Take a TopicId over from a dead letter that cannot exist (R5).

        If the content is the same, the dead letter becomes a duplicate of this record.
        """
        self._db.execute("UPDATE records SET topic_id = NULL WHERE id = ?", (old.id,))
        record_id = self._put_queued(record, topic, content)
        if old.content != content:
            return record_id
        self._remove_dead_letter(old.id)
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
        community, is_held = self._communities.of(topic.group_id)
        self._db.execute(
            "INSERT INTO queued "
            "(id, origin, key, body, truncated, raw, may_exist, community, aside) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record_id,
                topic.origin,
                json_key(topic.key),
                topic.body,
                orjson.dumps(topic.truncated).decode(),
                record.raw,
                record.may_exist or self._adopted.casts_doubt,
                community,
                is_held,
            ),
        )
        self._counting["queued"] += 1
        return record_id

    def _put_invalid(self, record: Record, problem: InvalidRecordError) -> int:
        subject = subject_of_invalid(record.source, record.raw, problem)
        letter = invalid_letter(0, problem, _history(record), hint=MEND_THE_LINE)
        return self._put_dead(record, subject, letter)

    def _put_conflict(self, record: Record, topic: Topic, holder_source: str) -> int:
        subject = subject_of_topic(record.source, record.raw, topic)
        return self._put_dead(record, subject, conflict_letter(0, holder_source, _history(record)))

    def _put_dead(self, record: Record, subject: Subject, letter: DeadLetter) -> int:
        # R6: a topic that may exist keeps its TopicId, even if its record is invalid now.
        holds_id = record.may_exist and self._holder(subject.topic_id) is None
        record_id = self._insert(record, State.DEAD, subject.topic_id if holds_id else None)
        add_dead_letter(self._db, subject, replace(letter, id=record_id), self._counting)
        return record_id


def _history(record: Record) -> History:
    return History(may_exist=record.may_exist)
