"""The embedded queue's tables, and the changes that putting and settling share."""

import sqlite3
from collections import Counter
from enum import IntEnum

from worker.rules.counts import dead_letter_counts
from worker.rules.outcome import DeadLetter
from worker.rules.record import content_hash
from worker.rules.result_lines import Subject, dead_letter_line

SCHEMA_VERSION = 2

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
CREATE UNIQUE INDEX records_by_topic ON records (topic_id) WHERE topic_id IS NOT NULL;
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
  origin INTEGER NOT NULL,
  key BLOB,
  body BLOB NOT NULL,
  truncated TEXT NOT NULL,
  raw BLOB NOT NULL,
  taken INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  may_exist INTEGER NOT NULL DEFAULT 0,
  first_attempt REAL,
  last_attempt REAL,
  community INTEGER NOT NULL DEFAULT 0,
  aside INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX queued_ready ON queued (attempts > 0, id, community) WHERE taken = 0 AND aside = 0;
CREATE INDEX queued_by_community ON queued (community, aside, attempts, id) WHERE taken = 0;
CREATE TABLE mended (
  input INTEGER NOT NULL,
  line INTEGER NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (input, line, hash)
) WITHOUT ROWID;
CREATE TABLE imported (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, line BLOB NOT NULL);
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
`removed`: hashes of the lines of `dead` that were removed since their file was written anew.
`communities`: those of all records that were ever queued. `imported`: 1 once a record of it was.
`held`: 1 while the taker passes it over. `queued.aside` is 1 for its ready records then, which
takes them out of the index of what is taken; while `moving` is 1, this is not done for all yet."""


class State(IntEnum):
    """Where a record is; stored, so the numbers never change."""

    QUEUED = 0
    IMPORTED = 1
    DEAD = 2
    DUPLICATE = 3
    DISMISSED = 4


def add_to_counts(db: sqlite3.Connection, counting: Counter[str]) -> None:
    """Add what changed to the kept counts, in the transaction of the change (R19)."""
    db.executemany(
        "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET n = n + excluded.n",
        [(name, n) for name, n in counting.items() if n],
    )


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
