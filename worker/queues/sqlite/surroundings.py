"""The lines around dead letters whose lines changed, as they were read before: R28 in SQL.

The rows of one reading have ascending IDs in the order of the lines. So a line above stood there
when a dead letter was read if it has a row with a smaller ID, and the newest of these is what it
was then. A line below was put after the dead letter, unless it was read before and did not change.
"""

import sqlite3

import orjson

from worker.queues.letters import is_same_record
from worker.queues.sqlite.schema import State
from worker.rules.record import Record
from worker.rules.surroundings import (
    RUN_LINES_MAX,
    Neighbour,
    Surroundings,
    can_be_mended_in_place,
)

_ROWS = (
    "SELECT line, id, hash, state, may_exist FROM records "
    "WHERE input = ? AND line BETWEEN ? AND ? ORDER BY id"
)
_ABOVE = (
    "SELECT line, id, state, hash FROM records WHERE input = ? AND line < ? "
    "ORDER BY line DESC, id DESC LIMIT ?"
)
_BELOW = (
    "SELECT line, id, state, hash FROM records WHERE input = ? AND line > ? "
    "ORDER BY line, id LIMIT ?"
)
_Row = tuple[int, bytes, int, bool]
"""id, hash, state, may_exist"""


def surroundings(db: sqlite3.Connection, records: list[Record]) -> list[Surroundings]:
    """Return what is known around the changed lines of one batch, see the contract."""
    lines = [record for record in records if can_be_mended_in_place(record)]
    if not lines or db.execute("SELECT 1 FROM dead LIMIT 1").fetchone() is None:
        return []
    found: list[Surroundings] = []
    for path in dict.fromkeys(record.path for record in lines):
        row = db.execute("SELECT id FROM inputs WHERE path = ?", (path,)).fetchone()
        if row:
            of_path = [record for record in lines if record.path == path]
            found += _OneInput(db, row[0], path).around(of_path)
    return found


class _OneInput:
    """The rows of one input."""

    def __init__(self, db: sqlite3.Connection, input_id: int, path: str) -> None:
        self._db = db
        self._input = input_id
        self._path = path
        self._last: tuple[Surroundings, int] | None = None

    def around(self, records: list[Record]) -> list[Surroundings]:
        numbers = [record.line for record in records]
        rows: dict[int, list[_Row]] = {}
        for line, *row in self._db.execute(_ROWS, (self._input, min(numbers), max(numbers))):
            rows.setdefault(line, []).append((row[0], row[1], row[2], bool(row[3])))
        found = (self._of(record, rows.get(record.line, [])) for record in records)
        return [surroundings for surroundings in found if surroundings]

    def _of(self, record: Record, here: list[_Row]) -> Surroundings | None:
        if any(known_hash == record.content_hash for _, known_hash, _, _ in here):
            return None
        letters = [
            row_id
            for row_id, _, state, may_exist in here
            if state == State.DEAD and not may_exist and not self._is_same(record, row_id)
        ]
        if not letters or self._was_mended(record):
            return None
        newest = here[-1][0]
        if newest not in letters:
            return Surroundings(self._path, record.line, len(letters))
        return self._looked_up(record.line, len(letters), newest)

    def _is_same(self, record: Record, row_id: int) -> bool:
        (line,) = self._db.execute("SELECT line FROM dead WHERE id = ?", (row_id,)).fetchone()
        return is_same_record(record, orjson.loads(line))

    def _was_mended(self, record: Record) -> bool:
        return record.content_hash in self._mended(record.line)

    def _mended(self, line: int) -> tuple[bytes, ...]:
        query = "SELECT hash FROM mended WHERE input = ? AND line = ?"
        return tuple(known for (known,) in self._db.execute(query, (self._input, line)))

    def _looked_up(self, line: int, letters: int, row_id: int) -> Surroundings:
        """Return the surroundings of a dead letter; those of the last one if it is beside it."""
        if self._last and self._last[0].line + 1 == line and self._last[1] < row_id:
            below = self._last[0].below
            if below is None or below.line > line:
                beside = Surroundings(self._path, line, letters, self._last[0].above, below)
                self._last = (beside, row_id)
                return beside
        above, is_above_known = self._above(line, row_id)
        below, is_below_known = self._below(line, row_id)
        found = Surroundings(self._path, line, letters)
        if is_above_known and is_below_known:
            found = Surroundings(self._path, line, letters, above, below)
        self._last = (found, row_id)
        return found

    def _above(self, line: int, row_id: int) -> tuple[Neighbour | None, bool]:
        """Return the nearest line above, and False if it is too far away to be looked for."""
        n = 0
        for number, other, state, known in self._db.execute(
            _ABOVE, (self._input, line, RUN_LINES_MAX)
        ):
            if state != State.DEAD and other < row_id:
                return self._neighbour(number, known), True
            n += 1
        return None, n < RUN_LINES_MAX

    def _below(self, line: int, row_id: int) -> tuple[Neighbour | None, bool]:
        """Return the nearest line below, and False if it is too far away to be looked for."""
        n, number, earlier, later = 0, 0, b"", b""
        for at, other, state, known in self._db.execute(_BELOW, (self._input, line, RUN_LINES_MAX)):
            if at != number and (earlier or later):
                break
            n, number = n + 1, at
            if state != State.DEAD:
                earlier = known if other < row_id else earlier
                later = later or (known if other > row_id else b"")
        if earlier or later:
            return self._neighbour(number, earlier or later), True
        return None, n < RUN_LINES_MAX

    def _neighbour(self, line: int, known: bytes) -> Neighbour:
        # R10: of a line whose dead letter was mended, the file still holds the old one.
        return Neighbour(line, (known, *self._mended(line)))
