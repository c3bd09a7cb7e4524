"""Topics that a result file knows and the queue does not, inside the caller's transaction (R26).

The queue was lost or restored from a copy, and the files beside it hold the outcomes of topics that
exist. An adopted record is imported; until it is read again, its content is unknown.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from worker.queues.sqlite.communities import Communities, remember_imports
from worker.queues.sqlite.schema import State, add_to_counts, remove_queued
from worker.queues.sqlite.topic_index import TopicIndex, index_at_once
from worker.rules.counts import ALREADY_COUNTS, dead_letter_counts
from worker.rules.outcome import Reason
from worker.rules.record import Record
from worker.rules.result_lines import ImportedLine

NEVER_READ = b""
"""The hash and the content of a record that was adopted and not read again yet."""

# Made where it is needed: most queues never adopt anything. Its existence is the memory that this
# queue was behind its files once.
_TABLE = "CREATE TABLE adopted (id INTEGER PRIMARY KEY)"
_HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE name = 'adopted'"
_HAS_TOPICS_WITHOUT_ID = "SELECT 1 FROM records WHERE topic_id IS NULL AND state = ? LIMIT 1"
_MADE_IDS = "CREATE TEMP TABLE IF NOT EXISTS made (topic_id TEXT PRIMARY KEY) WITHOUT ROWID"
_FILL_MADE_IDS = (
    "INSERT OR IGNORE INTO made SELECT group_of(line, 'topic_id') FROM imported "
    "JOIN records USING (id) WHERE topic_id IS NULL AND group_of(line, 'topic_id') IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    state: int


def unknown(
    db: sqlite3.Connection, index: TopicIndex, lines: Iterable[ImportedLine]
) -> list[ImportedLine]:
    """Return the lines whose topic the queue does not hold as imported; `index`: fresh."""
    given = list(lines)
    holders = index.holders(db, Communities(db), {line.topic_id for line in given})
    found = [line for line in given if not _is_imported(db, holders.get(line.topic_id))]
    if not found or db.execute(_HAS_TOPICS_WITHOUT_ID, (State.IMPORTED,)).fetchone() is None:
        return found
    # The service made these IDs (`as-given`); they stand in the result lines alone.
    db.execute(_MADE_IDS)
    if db.execute("SELECT 1 FROM made LIMIT 1").fetchone() is None:
        db.execute(_FILL_MADE_IDS)
    query = "SELECT 1 FROM made WHERE topic_id = ?"
    return [line for line in found if db.execute(query, (line.topic_id,)).fetchone() is None]


def _is_imported(db: sqlite3.Connection, record_id: int | None) -> bool:
    query = "SELECT 1 FROM records WHERE id = ? AND state = ?"
    return db.execute(query, (record_id, State.IMPORTED)).fetchone() is not None


def adopt(db: sqlite3.Connection, index: TopicIndex, lines: Iterable[ImportedLine]) -> int:
    """Make each topic that is not imported an imported one with exactly its line; count them.

    All queued records are in doubt afterwards: the outcomes that the queue missed may be more than
    those in the file, and the calls that were open then are known to nobody.
    """
    if not _has_table(db):
        db.execute(_TABLE)
        # Once the table is there, every record is put in doubt.
        db.execute("UPDATE queued SET may_exist = 1")
    adoption = _Adoption(db, index)
    return sum(adoption.adopt(line) for line in lines)


def _has_table(db: sqlite3.Connection) -> bool:
    return db.execute(_HAS_TABLE).fetchone() is not None


class _Adoption:
    def __init__(self, db: sqlite3.Connection, index: TopicIndex) -> None:
        self._db = db
        self._index = index
        self._communities = Communities(db)

    def adopt(self, line: ImportedLine) -> bool:
        if not unknown(self._db, self._index, [line]):
            return False
        counting = Counter(["imported", *ALREADY_COUNTS[line.already]])
        counting["cut"] += line.is_cut
        row = self._holder(line) or self._at_its_place(line)
        if row is None:
            counting["read"] += 1
            record_id = self._insert(line)
        else:
            record_id = row.id
            self._leave(row, counting)
            self._db.execute(
                "UPDATE records SET state = ?, topic_id = ? WHERE id = ?",
                (State.IMPORTED, line.topic_id, record_id),
            )
        index_at_once(self._db, self._communities, line.topic_id, record_id)
        self._db.execute("INSERT INTO imported (id, line) VALUES (?, ?)", (record_id, line.content))
        self._db.execute("INSERT OR IGNORE INTO adopted VALUES (?)", (record_id,))
        if line.group_id:
            remember_imports(self._db, [self._communities.of(line.group_id)])
        add_to_counts(self._db, counting)
        return True

    def _holder(self, line: ImportedLine) -> _Row | None:
        holders = self._index.holders(self._db, self._communities, [line.topic_id])
        query = "SELECT id, state FROM records WHERE id = ?"
        row = self._db.execute(query, (holders.get(line.topic_id),)).fetchone()
        return row and _Row(*row)

    def _at_its_place(self, line: ImportedLine) -> _Row | None:
        """Return the row that holds no TopicId, but is the record of this line by its place."""
        rows = self._db.execute(
            "SELECT records.id, state, dead.line, reason FROM records "
            "JOIN inputs ON inputs.id = input LEFT JOIN dead ON dead.id = records.id "
            "WHERE path = ? AND records.line = ? AND topic_id IS NULL AND state IN (?, ?)",
            (line.path, line.number, State.QUEUED, State.DEAD),
        )
        for record_id, state, letter, reason in rows:
            if state == State.QUEUED or _is_letter_of(letter, reason, line):
                return _Row(record_id, state)
        return None

    def _leave(self, row: _Row, counting: Counter[str]) -> None:
        """Take a record out of the place where it is."""
        if row.state != State.DEAD:
            remove_queued(self._db, [row.id])
            counting[State(row.state).name.lower()] -= 1
            return
        query = "SELECT reason, code FROM dead WHERE id = ?"
        counting.subtract(dead_letter_counts(*self._db.execute(query, (row.id,)).fetchone()))
        counting["replaced"] += 1
        self._db.execute("DELETE FROM dead WHERE id = ?", (row.id,))

    def _insert(self, line: ImportedLine) -> int:
        self._db.execute("INSERT OR IGNORE INTO inputs (path) VALUES (?)", (line.path,))
        cursor = self._db.execute(
            "INSERT INTO records (input, line, hash, state, topic_id, content) "
            "SELECT id, ?, ?, ?, ?, ? FROM inputs WHERE path = ?",
            (line.number, NEVER_READ, State.IMPORTED, line.topic_id, NEVER_READ, line.path),
        )
        assert cursor.lastrowid is not None  # noqa: S101 - an INSERT has one
        return cursor.lastrowid


def _is_letter_of(letter: bytes, reason: str, line: ImportedLine) -> bool:
    topic_id = orjson.loads(letter)["topic_id"]
    # Without a TopicId, a record that was sent got one from the service (`as-given`).
    was_sent = topic_id is None and reason != Reason.INVALID.value
    return topic_id == line.topic_id or was_sent


class Adopted:
    """The adopted records, of which each is claimed by the record that is read again.

    `casts_doubt`: whether the queue ever adopted something, so that a call for any record that is
    put may have taken effect before.
    """

    def __init__(self, db: sqlite3.Connection, communities: Communities, index: TopicIndex) -> None:
        self._db = db
        self._communities = communities
        self._index = index
        self.casts_doubt = _has_table(db)

    def claim(
        self, record: Record, input_id: int, topic_id: str | None, content: bytes | None
    ) -> int | None:
        """Return the row of the adopted record that this record is, None if it is none.

        The row has the position and the content of the record then, so that it is known when it is
        read once more. A row that was read before it was adopted is claimed from its place only.
        """
        for row_id, place, row_hash in self._candidates(record, input_id, topic_id):
            if row_hash == NEVER_READ or place == (input_id, record.line):
                self._db.execute(
                    "UPDATE records SET input = ?, line = ?, hash = ?, content = ? WHERE id = ?",
                    (input_id, record.line, record.content_hash, content or NEVER_READ, row_id),
                )
                self._db.execute("DELETE FROM adopted WHERE id = ?", (row_id,))
                return row_id
        return None

    def _candidates(
        self, record: Record, input_id: int, topic_id: str | None
    ) -> list[tuple[int, tuple[int, int], bytes]]:
        columns = "SELECT records.id, input, line, hash FROM records JOIN adopted USING (id) WHERE"
        if topic_id is None:
            place = (input_id, record.line)
            rows = self._db.execute(f"{columns} input = ? AND line = ?", place).fetchall()
        else:
            holders = self._index.holders(self._db, self._communities, [topic_id])
            holder = (holders.get(topic_id),)
            rows = self._db.execute(f"{columns} records.id = ?", holder).fetchall()
        return [(row_id, (at_input, line), row_hash) for row_id, at_input, line, row_hash in rows]
