"""Dismissing records of the embedded queue (R27), inside the caller's transaction."""

import sqlite3
from collections import Counter
from typing import Any

import orjson

from worker.queues.letters import subject_of_body
from worker.queues.sqlite import communities
from worker.queues.sqlite.schema import (
    CAN_BE_TAKEN,
    State,
    add_to_counts,
    remove_dead_letter,
    remove_queued,
    watermark,
)
from worker.rules.outcome import History
from worker.rules.result_lines import dismissed_line, matches_source, queued_line

_QUEUED = (
    "SELECT queued.id, path, records.line, key, body, truncated, raw, attempts, queued.may_exist, "  # noqa: S608
    "first_attempt, last_attempt FROM queued JOIN payloads USING (id) JOIN records USING (id) "
    "JOIN inputs ON inputs.id = input "
    f"WHERE community = ? AND {CAN_BE_TAKEN} ORDER BY queued.id"
)
_BY_LINE = "SELECT id FROM dead WHERE seq = ? AND line = ?"


def dismiss(db: sqlite3.Connection, letters: list[tuple[int, bytes]], at_s: float) -> int:
    """Dismiss dead letters, each given as (seq, line); return how many were there."""
    counting: Counter[str] = Counter()
    n = 0
    for letter in letters:
        row = db.execute(_BY_LINE, letter).fetchone()
        if row:
            line = remove_dead_letter(db, row[0], counting)
            _dismiss(db, row[0], dismissed_line(line, at_s), counting)
            n += 1
    add_to_counts(db, counting)
    return n


def dismiss_queued(
    db: sqlite3.Connection, group_id: str, source: str | None, count: int, at_s: float
) -> int:
    """Dismiss up to `count` ready records of a community, read from `source`."""
    counting: Counter[str] = Counter()
    rows = _chosen(db, group_id, source, count)
    for record_id, path, line, *stored in rows:
        letter = dismissed_line(_line(f"{path}:{line}", *stored), at_s)
        db.execute(
            "UPDATE records SET may_exist = may_exist OR (SELECT may_exist FROM queued "
            "WHERE queued.id = records.id) WHERE id = ?",
            (record_id,),
        )
        remove_queued(db, [record_id])
        counting["queued"] -= 1
        _dismiss(db, record_id, letter, counting)
    add_to_counts(db, counting)
    return len(rows)


def queued_of(db: sqlite3.Connection, group_id: str, source: str | None) -> int:
    """Return how many ready records of a community were read from `source`."""
    return len(_chosen(db, group_id, source, None))


def _chosen(
    db: sqlite3.Connection, group_id: str, source: str | None, count: int | None
) -> list[Any]:
    rows = db.execute(_QUEUED, (communities.row_of(db, group_id), watermark(db)))
    found: list[Any] = []
    for row in rows:
        if source is None or matches_source(f"{row[1]}:{row[2]}", source):
            found.append(row if count is not None else row[0])
        if count is not None and len(found) == count:
            break
    rows.close()
    return found


def _dismiss(db: sqlite3.Connection, record_id: int, line: bytes, counting: Counter[str]) -> None:
    """Make a stored record a dismissed one. Only one that may exist keeps its TopicId."""
    db.execute(
        "UPDATE records SET state = ?, topic_id = iif(may_exist, topic_id, NULL) WHERE id = ?",
        (State.DISMISSED, record_id),
    )
    db.execute("INSERT INTO dismissed (id, line) VALUES (?, ?)", (record_id, line))
    counting["dismissed"] += 1


def _line(  # noqa: PLR0917 - the columns
    source: str,
    key: bytes | None,
    body: bytes,
    truncated: str,
    raw: bytes,
    attempts: int,
    may_exist: int,
    first_attempt: float | None,
    last_attempt: float | None,
) -> bytes:
    subject = subject_of_body(source, key, orjson.loads(body), truncated, raw)
    return queued_line(subject, History(attempts, bool(may_exist), first_attempt, last_attempt))
