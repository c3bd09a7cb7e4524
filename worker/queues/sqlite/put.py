"""Putting records into the embedded queue: the rules R2 to R6, R12 and R13 in SQL.

Most batches are of records that nobody read before, each with a TopicId of its own. These are
stored as a set; the rules are followed record by record only for the others.
"""

import sqlite3
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import orjson

from worker.queues.letters import (
    NOT_CUT,
    conflict_letter,
    content_of,
    how_to_mend,
    invalid_letter,
    json_key,
    subject_of_invalid,
    subject_of_topic,
)
from worker.queues.sqlite.adoption import Adopted
from worker.queues.sqlite.communities import Communities
from worker.queues.sqlite.positions import Known, Positions, ReadBefore, pass_doubt_on
from worker.queues.sqlite.schema import (
    LAST_ID,
    State,
    add_dead_letter,
    add_to_counts,
    insert_rows,
    keep_number,
    kept_number,
    note_removed,
    remove_dead_letter,
)
from worker.queues.sqlite.topic_index import TopicIndex, index_at_once
from worker.rules.outcome import DeadLetter, History
from worker.rules.record import Record
from worker.rules.result_lines import Subject
from worker.rules.topic.identity import Origin
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import Topic


@dataclass(frozen=True, slots=True)
class _Holder:
    """The row that holds a TopicId (R2)."""

    id: int
    state: int
    may_exist: bool
    content: bytes | None
    changed: bool
    source: str


class Putting:
    """One batch being put, inside the caller's transaction.

    `inputs`: the row IDs of the inputs, by path. `index`: fresh.
    """

    def __init__(self, db: sqlite3.Connection, inputs: dict[str, int], index: TopicIndex) -> None:
        self._db = db
        self._inputs = inputs
        self._index = index
        self._positions = Positions(db, inputs)
        self._communities = Communities(db)
        self._adopted = Adopted(db, self._communities, index)
        self._claimed: set[int] = set()
        self._counting: Counter[str] = Counter()
        self._next_id = 0

    def put(self, records: list[Record]) -> tuple[int, int]:
        """Put the records that are new (R1); return how many were, and how many are queued now."""
        before = self._positions.read_before(records)
        plain = self._plain(records, before)
        last_id = max(kept_number(self._db, LAST_ID), *self._db.execute(_HIGHEST_ID).fetchone())
        self._put_plain(records, plain, last_id)
        new = len(plain)
        for place in _to_judge(records, plain, before):
            record, self._next_id = records[place], last_id + 1 + place
            replaced = self._positions.replaced_by(record)
            if replaced is None:
                continue
            if self._put_in_place_of(replaced, record) not in self._claimed:
                new += 1
        if new:
            last_id += len(records)
            keep_number(self._db, LAST_ID, last_id)
        self._index.write_slice(self._db, last_id)
        add_to_counts(self._db, self._counting)
        return new, self._counting["queued"]

    def _plain(self, records: list[Record], before: ReadBefore) -> list[int]:
        """Return the places of the records that no other one, read before or beside, concerns."""
        if self._adopted.casts_doubt:
            return []
        topic_ids = Counter(record.topic.topic_id for record in records)
        lines = Counter((record.path, record.line) for record in records)
        candidates = [
            place
            for place, record in enumerate(records)
            if isinstance(record.topic, Topic)
            and not (record.asked_again or record.may_exist)
            and (record.topic.topic_id is None or topic_ids[record.topic.topic_id] == 1)
            and lines[record.path, record.line] == 1
            and not before.has_line(record)
        ]
        given = [records[place].topic.topic_id for place in candidates]
        held = self._index.holders(self._db, self._communities, [id_ for id_ in given if id_])
        return [place for place in candidates if records[place].topic.topic_id not in held]

    def _put_plain(self, records: list[Record], places: list[int], last_id: int) -> None:
        valid = {
            place: topic for place in places if isinstance(topic := records[place].topic, Topic)
        }
        self._communities.make({topic.group_id for topic in valid.values()})
        rows: list[tuple[Any, ...]] = []
        queued: list[tuple[Any, ...]] = []
        payloads: list[tuple[Any, ...]] = []
        for place, topic in valid.items():
            record, record_id = records[place], last_id + 1 + place
            rows.append(self._record_row(record_id, record, topic.topic_id, content_of(topic)))
            queued.append((record_id, self._communities.of(topic.group_id)))
            payloads.append(_payload_row(record_id, record, topic, topic.origin))
            if topic.topic_id:
                self._index.add(self._communities, topic.topic_id, record_id)
        insert_rows(self._db, _RECORDS, rows)
        insert_rows(self._db, "queued (id, community)", queued)
        insert_rows(self._db, "payloads", payloads)
        if places:
            self._counting.update(read=len(places), queued=len(places))

    def _record_row(
        self, record_id: int, record: Record, topic_id: str | None, content: bytes
    ) -> tuple[Any, ...]:
        return (
            record_id,
            self._inputs[record.path],
            record.line,
            record.content_hash,
            State.QUEUED.value,
            topic_id,
            content,
            record.may_exist,
        )

    def _put_in_place_of(self, replaced: list[Known], record: Record) -> int:
        """Put a record, with the doubt of those that it replaces (R13); return its row."""
        if any(old.may_exist for old in replaced):
            record = replace(record, may_exist=True)
        changed = any(old.changed or self._differs(record, old) for old in replaced)
        for old in replaced:
            self._remove_record(old, leaves_duplicates=record.asked_again)
        record_id = self._put(record, changed=changed)
        for old in replaced:
            self._db.execute("UPDATE records SET holder = ? WHERE holder = ?", (record_id, old.id))
        return record_id

    @staticmethod
    def _differs(record: Record, old: Known) -> bool:
        """Return whether a record has other content than a call that may have taken effect."""
        if not old.may_exist:
            return False
        return isinstance(record.topic, InvalidRecordError) or content_of(record.topic) != (
            old.content
        )

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
            remove_dead_letter(self._db, old.id, self._counting)
        self._db.execute("DELETE FROM records WHERE id = ?", (old.id,))
        self._counting["read"] -= 1

    def _promote_duplicate(self, old: int, successor: int, *, source: str) -> None:
        """Make a duplicate the dead letter that another row was, and holder of its TopicId."""
        (line,) = self._db.execute("SELECT line FROM dead WHERE id = ?", (old,)).fetchone()
        note_removed(self._db, line)
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
        if topic_id:
            index_at_once(self._db, self._communities, topic_id, successor)
        self._db.execute("UPDATE records SET holder = ? WHERE holder = ?", (successor, old))
        self._db.execute("UPDATE dead SET id = ?, line = ? WHERE id = ?", (successor, letter, old))
        self._counting.subtract(["duplicate"])
        self._counting["replaced"] += 1

    def _put(self, record: Record, *, changed: bool) -> int:
        adopted = self._claim_adopted(record)
        if adopted is not None:
            return adopted
        self._counting["read"] += 1
        if isinstance(record.topic, InvalidRecordError):
            return self._put_invalid(record, record.topic, changed=changed)
        topic = record.topic
        content = content_of(topic)
        holder = self._holder(topic.topic_id)
        if holder is None:  # R2
            return self._put_queued(record, topic, content, changed=changed)
        if holder.state == State.DISMISSED:  # R27
            return self._inherit(holder, record, topic, content)
        if holder.state == State.DEAD and not holder.may_exist:  # R5
            return self._take_over(holder, record, topic, content)
        if holder.content == content:  # R3
            pass_doubt_on(self._db, record, holder.id, holder.state)
            self._counting["duplicate"] += 1
            return self._insert(record, State.DUPLICATE, holder=holder.id)
        return self._put_conflict(record, topic, holder.source, changed=changed)  # R4

    def _claim_adopted(self, record: Record) -> int | None:
        """Return the row of the adopted topic that a record is (R26): it is imported already."""
        if not self._adopted.casts_doubt:
            return None
        topic = record.topic
        content = None if isinstance(topic, InvalidRecordError) else content_of(topic)
        if content is None and topic.topic_id is None:
            return None
        adopted = self._adopted.claim(record, self._inputs[record.path], topic.topic_id, content)
        if adopted is not None:
            self._claimed.add(adopted)
        return adopted

    def _holder(self, topic_id: str | None) -> _Holder | None:
        return _holder(self._db, self._communities, self._index, topic_id)

    def _inherit(self, old: _Holder, record: Record, topic: Topic, content: bytes) -> int:
        """Take a TopicId over from a dismissed record, with its doubt (R27)."""
        self._db.execute("UPDATE records SET topic_id = NULL WHERE id = ?", (old.id,))
        changed = old.may_exist and (old.changed or old.content != content)
        record = replace(record, may_exist=record.may_exist or old.may_exist)
        return self._put_queued(record, topic, content, changed=changed)

    def _take_over(self, old: _Holder, record: Record, topic: Topic, content: bytes) -> int:
        """Take a TopicId over from a dead letter that cannot exist (R5).

        If the content is the same, the dead letter becomes a duplicate of this record.
        """
        self._db.execute("UPDATE records SET topic_id = NULL WHERE id = ?", (old.id,))
        record_id = self._put_queued(record, topic, content, changed=False)
        if old.content != content:
            return record_id
        remove_dead_letter(self._db, old.id, self._counting)
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
        *,
        changed: bool = False,
    ) -> int:
        record_id = self._next_id
        self._db.execute(
            "INSERT INTO records "
            "(id, input, line, hash, state, topic_id, content, may_exist, holder, changed) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record_id,
                self._inputs[record.path],
                record.line,
                record.content_hash,
                state,
                topic_id,
                content,
                record.may_exist,
                holder,
                changed,
            ),
        )
        if topic_id:
            self._index.add(self._communities, topic_id, record_id)
        return record_id

    def _put_queued(self, record: Record, topic: Topic, content: bytes, *, changed: bool) -> int:
        record_id = self._insert(record, State.QUEUED, topic.topic_id, content, changed=changed)
        # R26: a derived TopicId proves nothing any more, so the topic is compared.
        is_compared = changed and topic.origin is Origin.DERIVED
        community = self._communities.of(topic.group_id)
        may_exist = record.may_exist or self._adopted.casts_doubt
        queued = (record_id, community, may_exist)
        insert_rows(self._db, "queued (id, community, may_exist)", [queued])
        origin = Origin.GIVEN if is_compared else topic.origin
        insert_rows(self._db, "payloads", [_payload_row(record_id, record, topic, origin)])
        self._counting["queued"] += 1
        return record_id

    def _put_invalid(self, record: Record, problem: InvalidRecordError, *, changed: bool) -> int:
        subject = subject_of_invalid(record.source, record.raw, problem)
        letter = invalid_letter(0, problem, _history(record), hint=how_to_mend(record.path))
        return self._put_dead(record, subject, letter, changed=changed)

    def _put_conflict(
        self, record: Record, topic: Topic, holder_source: str, *, changed: bool
    ) -> int:
        subject = subject_of_topic(record.source, record.raw, topic)
        letter = conflict_letter(0, holder_source, _history(record))
        return self._put_dead(record, subject, letter, changed=changed)

    def _put_dead(
        self, record: Record, subject: Subject, letter: DeadLetter, *, changed: bool
    ) -> int:
        # R6: a topic that may exist keeps its TopicId, even if its record is invalid now.
        holds_id = record.may_exist and self._holder(subject.topic_id) is None
        topic_id = subject.topic_id if holds_id else None
        record_id = self._insert(record, State.DEAD, topic_id, changed=changed)
        add_dead_letter(self._db, subject, replace(letter, id=record_id), self._counting)
        return record_id


def _to_judge(records: list[Record], plain: list[int], before: ReadBefore) -> list[int]:
    """Return the places of the records that are to be judged one by one."""
    stored = set(plain)
    return [
        place
        for place, record in enumerate(records)
        if place not in stored and (record.may_exist or not before.is_settled(record))
    ]


_RECORDS = "records (id, input, line, hash, state, topic_id, content, may_exist)"
_HIGHEST_ID = "SELECT coalesce(max(id), 0) FROM records"


def _payload_row(record_id: int, record: Record, topic: Topic, origin: Origin) -> tuple[Any, ...]:
    truncated = orjson.dumps(topic.truncated).decode() if topic.truncated else NOT_CUT
    return (record_id, origin.value, json_key(topic.key), topic.body, truncated, record.raw)


def _history(record: Record) -> History:
    return History(may_exist=record.may_exist)


def can_be_queued(db: sqlite3.Connection, index: TopicIndex, letter: Record) -> bool:
    """Return whether a dead letter that is handed in would be queued: valid, and no conflict.

    `letter`: its record as the intake reads it. `index`: fresh.
    """
    if isinstance(letter.topic, InvalidRecordError):
        return False
    holder = _holder(db, Communities(db), index, letter.topic.topic_id)
    return holder is None or holder.state in {State.DEAD, State.DISMISSED}


def _holder(
    db: sqlite3.Connection, communities: Communities, index: TopicIndex, topic_id: str | None
) -> _Holder | None:
    if topic_id is None:
        return None
    record_id = index.holders(db, communities, [topic_id]).get(topic_id)
    if record_id is None:
        return None
    state, may_exist, content, changed, path, line = db.execute(
        "SELECT state, may_exist, content, changed, path, line FROM records "
        "JOIN inputs ON inputs.id = input WHERE records.id = ?",
        (record_id,),
    ).fetchone()
    return _Holder(record_id, state, may_exist, content, changed, source=f"{path}:{line}")
