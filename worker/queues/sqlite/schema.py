"""The embedded queue's tables, and the changes that putting and settling share.

How they are laid out, and why, is explained in `docs/architecture.md`.
"""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from itertools import chain
from typing import Any

import orjson

from worker.rules.counts import dead_letter_counts
from worker.rules.outcome import DeadLetter
from worker.rules.record import content_hash
from worker.rules.result_lines import Subject, dead_letter_line

SCHEMA_VERSION = 3

SCHEMA = """
CREATE TABLE job (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE inputs (
  id INTEGER PRIMARY KEY,
  path TEXT NOT NULL UNIQUE,
  unfinished INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE records (
  id INTEGER PRIMARY KEY,
  input INTEGER NOT NULL,
  line INTEGER NOT NULL,
  hash BLOB NOT NULL,
  state INTEGER NOT NULL,
  topic_id TEXT,
  content BLOB,
  holder INTEGER,
  may_exist INTEGER NOT NULL DEFAULT 0,
  changed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX records_by_position ON records (input, line);
CREATE INDEX records_by_holder ON records (holder) WHERE holder IS NOT NULL;
CREATE TABLE topics (
  topic INTEGER NOT NULL,
  id INTEGER NOT NULL,
  PRIMARY KEY (topic, id)
) WITHOUT ROWID;
CREATE TABLE communities (
  id INTEGER PRIMARY KEY,
  group_id TEXT NOT NULL UNIQUE,
  imported INTEGER NOT NULL DEFAULT 0,
  held INTEGER NOT NULL DEFAULT 0,
  moving INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX communities_held ON communities (id) WHERE held = 1;
CREATE INDEX communities_moving ON communities (id, held) WHERE moving = 1;
CREATE TABLE queued (
  id INTEGER PRIMARY KEY,
  community INTEGER NOT NULL,
  lane INTEGER,
  attempts INTEGER NOT NULL DEFAULT 0,
  may_exist INTEGER NOT NULL DEFAULT 0,
  first_attempt REAL,
  last_attempt REAL
);
CREATE INDEX queued_by_lane ON queued (lane, attempts > 0, id, community) WHERE lane IS NOT NULL;
CREATE INDEX queued_by_community ON queued (community, lane, attempts, id) WHERE lane IS NOT NULL;
CREATE TABLE payloads (
  id INTEGER PRIMARY KEY,
  origin INTEGER NOT NULL,
  key BLOB,
  body BLOB NOT NULL,
  truncated TEXT NOT NULL,
  raw BLOB NOT NULL
);
CREATE TABLE mended (
  input INTEGER NOT NULL,
  line INTEGER NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (input, line, hash)
) WITHOUT ROWID;
CREATE TABLE imported (
  seq INTEGER PRIMARY KEY,
  id INTEGER NOT NULL,
  line BLOB NOT NULL,
  sent BLOB
);
CREATE TABLE dead (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id INTEGER NOT NULL UNIQUE,
  reason TEXT NOT NULL,
  code INTEGER,
  line BLOB NOT NULL,
  group_id TEXT
);
CREATE INDEX dead_by_community ON dead (group_id, reason, code);
CREATE TABLE dismissed (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, line BLOB NOT NULL);
CREATE TABLE removed (hash BLOB PRIMARY KEY) WITHOUT ROWID;
"""
"""`records.changed`: 1 if a call may have been made for it with other content than it has now.
`topics`: the index by TopicId (`topic_index`).
`queued.lane`: a `Lane`; NULL in the rows of most records, which are ready above the watermark and
taken below. `payloads`: what is sent and shown of a queued record. `imported.sent`: the hashes of
the fields that were sent (`rules.sent_fields`).
`removed`: hashes of the lines of `dead` that were removed since their file was written anew.
`communities`: those of all records that were ever queued. `imported`: 1 once a record of it was.
`held`: 1 while the taker passes it over; while `moving` is 1, not all of its records that are off
the watermark are in the right lane yet."""

WATERMARK = "watermark"
"""The name in `counts` of the ID up to which the records without a lane are taken."""
LAST_ID = "last_id"
"""The name in `counts` of the highest ID ever given to a record: one that was used again would lie
below the watermark, and its record would never be taken."""


class State(IntEnum):
    """Where a record is; stored, so the numbers never change."""

    QUEUED = 0
    IMPORTED = 1
    DEAD = 2
    DUPLICATE = 3
    DISMISSED = 4


class Lane(IntEnum):
    """Where a queued record is that does not follow the watermark; the numbers never change."""

    READY = 0
    ASIDE = 1
    TAKEN = 2


CAN_BE_TAKEN = f"(lane IN ({Lane.READY}, {Lane.ASIDE}) OR (lane IS NULL AND queued.id > ?))"
"""Whether a row of `queued` may be taken, with the watermark as its parameter."""
IDS = "(SELECT value FROM json_each(?))"
"""The IDs in a JSON array: one statement for any number of rows.

Each step of a statement lets other threads run and waits for them, so rows are changed in sets.
"""
ROWS_AT_ONCE = (256, 64, 16, 4, 1)
"""How many rows one INSERT has: a few fixed numbers, because each one is a prepared statement."""


def json_value(db: sqlite3.Connection, query: str, values: Any = ()) -> Any:
    """Return what a query answers as JSON in its one row: many rows in one step, as with IDS."""
    return orjson.loads(db.execute(query, values).fetchone()[0])


def insert_rows(
    db: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]], then: str = ""
) -> None:
    """Insert rows with few statements. `into`: table and columns. `then`: what follows VALUES."""
    at = 0
    for n in ROWS_AT_ONCE:
        while len(rows) - at >= n:
            marks = f"({', '.join('?' * len(rows[0]))})"
            db.execute(
                f"INSERT INTO {into} VALUES {', '.join([marks] * n)} {then}",  # noqa: S608
                list(chain.from_iterable(rows[at : at + n])),
            )
            at += n


def ids_json(ids: Iterable[int]) -> str:
    """Return IDs as the JSON array that `IDS` reads."""
    return f"[{','.join(map(str, ids))}]"


def remove_queued(db: sqlite3.Connection, ids: Collection[int]) -> int:
    """Remove queued records; return how many there were."""
    listed = ids_json(ids)
    db.execute(f"DELETE FROM payloads WHERE id IN {IDS}", (listed,))  # noqa: S608
    return db.execute(f"DELETE FROM queued WHERE id IN {IDS}", (listed,)).rowcount  # noqa: S608


def watermark(db: sqlite3.Connection) -> int:
    """Return the ID up to which the records without a lane are taken."""
    return kept_number(db, WATERMARK)


def kept_number(db: sqlite3.Connection, name: str) -> int:
    """Return one number of the table of counts, 0 if it was never kept."""
    row = db.execute("SELECT n FROM counts WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def keep_number(db: sqlite3.Connection, name: str, n: int) -> None:
    """Set one number of the table of counts."""
    db.execute(
        "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET n = excluded.n",
        (name, n),
    )


def add_to_counts(db: sqlite3.Connection, counting: Counter[str]) -> None:
    """Add what changed to the kept counts, in the transaction of the change (R19)."""
    rows = [(name, n) for name, n in counting.items() if n]
    insert_rows(db, "counts", rows, "ON CONFLICT (name) DO UPDATE SET n = n + excluded.n")


def remove_dead_letter(db: sqlite3.Connection, record_id: int, counting: Counter[str]) -> bytes:
    """Remove a dead letter from its table and from `counting`; return its line.

    The row of its record stays. Its file must be written anew, and may still hold the line.
    """
    reason, code, line = db.execute(
        "DELETE FROM dead WHERE id = ? RETURNING reason, code, line", (record_id,)
    ).fetchone()
    note_removed(db, line)
    counting.subtract(dead_letter_counts(reason, code))
    counting["replaced"] += 1
    return bytes(line)


def note_removed(db: sqlite3.Connection, line: bytes) -> None:
    """Remember a line that the file of the dead letters holds and the queue does not any more."""
    db.execute("INSERT OR IGNORE INTO removed VALUES (?)", (content_hash(line),))


def add_dead_letter(
    db: sqlite3.Connection, subject: Subject, letter: DeadLetter, counting: Counter[str]
) -> None:
    """Make a stored record a dead letter, with its line, and add it to `counting`."""
    db.execute(
        "UPDATE records SET state = ?, may_exist = ? WHERE id = ?",
        (State.DEAD, letter.history.may_exist, letter.id),
    )
    db.execute(
        "INSERT INTO dead (id, reason, code, line, group_id) VALUES (?, ?, ?, ?, ?)",
        (
            letter.id,
            letter.reason.value,
            letter.code,
            dead_letter_line(subject, letter),
            subject.group_id,
        ),
    )
    counting.update(dead_letter_counts(letter.reason.value, letter.code))
