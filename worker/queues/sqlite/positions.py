"""What was read before from a position of an input: the rules R1 and R7 to R11 in SQL."""

import sqlite3
from dataclasses import dataclass
from typing import Any

import orjson

from worker.queues.letters import is_same_record
from worker.queues.sqlite.schema import IDS, State, ids_json, json_value
from worker.rules.outcome import Reason
from worker.rules.record import Record
from worker.rules.surroundings import can_be_mended_in_place
from worker.rules.topic.problems import InvalidRecordError


@dataclass(frozen=True, slots=True)
class Known:
    """A row that was read from the same position before."""

    id: int
    hash: bytes
    state: int
    may_exist: bool
    changed: bool
    content: bytes | None


_ROWS_OF_LINES = (
    "SELECT json_group_array(json_array(line, state, hex(hash))) FROM records "  # noqa: S608
    f"WHERE input = ? AND line IN {IDS}"
)


class ReadBefore:
    """Which lines of a batch were read before."""

    def __init__(self) -> None:
        self._lines: set[tuple[str, int]] = set()
        self._dead: set[tuple[str, int]] = set()
        self._contents: set[tuple[str, int, str]] = set()

    def add(self, path: str, line: int, content_hash: str, *, is_dead: bool) -> None:
        """Add one reading of a line; `content_hash` as SQLite's `hex` writes it."""
        self._lines.add((path, line))
        self._contents.add((path, line, content_hash))
        if is_dead:
            self._dead.add((path, line))

    def has_line(self, record: Record) -> bool:
        """Return whether the line of a record was read before, with any content."""
        return (record.path, record.line) in self._lines

    def is_settled(self, record: Record) -> bool:
        """Return whether exactly this was read, and no dead letter of the line asks for more."""
        if (record.path, record.line) in self._dead:
            return False
        return (record.path, record.line, record.content_hash.hex().upper()) in self._contents


class Positions:
    """The rows of the lines read before, inside the caller's transaction.

    `inputs`: the row IDs of the inputs, by path.
    """

    def __init__(self, db: sqlite3.Connection, inputs: dict[str, int]) -> None:
        self._db = db
        self._inputs = inputs

    def read_before(self, records: list[Record]) -> "ReadBefore":
        """Return what the queue holds of the lines of a batch."""
        before = ReadBefore()
        for path, input_id in self._inputs.items():
            lines = {record.line for record in records if record.path == path}
            rows = json_value(self._db, _ROWS_OF_LINES, (input_id, ids_json(lines)))
            for line, state, content_hash in rows:
                before.add(path, line, content_hash, is_dead=state == State.DEAD)
        return before

    def replaced_by(self, record: Record) -> list[Known] | None:
        """Return the dead letters that a record replaces, or None if it was read before (R1)."""
        rows = self._db.execute(
            "SELECT id, hash, state, may_exist, changed, content FROM records "
            "WHERE input = ? AND line = ? ORDER BY id",
            (self._inputs[record.path], record.line),
        )
        here = [Known(*row) for row in rows]
        same = next((k for k in here if self._is_same(record, k)), None)
        if same and not self._is_worth_another_try(record, same):
            pass_doubt_on(self._db, record, same.id, same.state)
            return None
        if same:
            return [same]
        # A mended line has a row at its position. Without one, as in every first reading, the
        # query can be saved.
        if here and self._was_mended(record):
            return None
        if record.asked_again:
            return self._replaced_by_dead_letter(record, here)
        if not can_be_mended_in_place(record):
            return []
        return [k for k in here if self._is_mended_by(record, k, newest=here[-1])]

    def _is_mended_by(self, record: Record, known: Known, *, newest: Known) -> bool:
        """Return whether a changed line is the same record as a dead letter of its position (R28).

        The lines around prove it only for what was read from the line last.
        """
        if known.state != State.DEAD or known.may_exist:
            return False
        if record.is_in_place and known is newest:
            return True
        return is_same_record(record, self._letter(known))

    def _is_same(self, record: Record, known: Known) -> bool:
        if known.hash != record.content_hash:
            return False
        # R9: two dead letters of one line may have been corrected to the same text, but are two
        # topics.
        is_letter = record.asked_again and known.state == State.DEAD
        return not is_letter or self._letter(known)["topic_id"] == record.dead_letter_topic_id

    def _replaced_by_dead_letter(self, record: Record, here: list[Known]) -> list[Known] | None:
        """Return the dead letter that was edited (R9), found by its line and its TopicId."""
        dead = [k for k in here if k.state == State.DEAD]
        if dead and isinstance(record.topic, InvalidRecordError) and not record.topic.is_object:
            # R11: not mended, and perhaps only the beginning of a line that was too long.
            return None
        own = [k for k in dead if self._letter(k)["topic_id"] == record.dead_letter_topic_id]
        if len(own) == 1:
            self._remember_as_mended(record, own[0])
        return own if len(own) == 1 else []

    def _letter(self, dead: Known) -> dict[str, Any]:
        (line,) = self._db.execute("SELECT line FROM dead WHERE id = ?", (dead.id,)).fetchone()
        letter: dict[str, Any] = orjson.loads(line)
        return letter

    def _is_worth_another_try(self, record: Record, same: Known) -> bool:
        """Return whether an unchanged record is tried again: handed in (R9), or valid now (R8)."""
        if same.state != State.DEAD:
            return False
        if record.asked_again:
            return True
        if isinstance(record.topic, InvalidRecordError):
            return False
        return bool(self._letter(same)["reason"] == Reason.INVALID.value)

    def _remember_as_mended(self, record: Record, old: Known) -> None:
        """Remember the hash of the line, which its corrected record does not have (R10)."""
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


def pass_doubt_on(db: sqlite3.Connection, record: Record, row_id: int, state: int) -> None:
    """Put the queued row that stands for a record in doubt if the record is (R13).

    This happens if a dead letter of another job is handed in beside the records of its inputs.
    """
    if record.may_exist and state == State.QUEUED:
        db.execute("UPDATE queued SET may_exist = 1 WHERE id = ?", (row_id,))
