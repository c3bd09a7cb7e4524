"""Taking from the embedded queue and settling, inside the caller's transaction."""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from operator import itemgetter
from typing import Any

import orjson

from worker.queues.contract import QueueError
from worker.queues.letters import subject_of_body
from worker.queues.sqlite import communities
from worker.queues.sqlite.schema import State, add_dead_letter, add_to_counts
from worker.rules.counts import imported_counts
from worker.rules.outcome import DeadLetter, Delivery, History, Imported, Outcome, Released
from worker.rules.result_lines import imported_line
from worker.rules.topic.identity import Origin
from worker.rules.topic.topic import Topic

_COLUMNS = (
    "SELECT id, origin, key, body, attempts, may_exist, first_attempt, last_attempt, "
    "(SELECT imported FROM communities WHERE communities.id = community) FROM queued "
)
READY = (
    f"{_COLUMNS} WHERE taken = 0 AND aside = 0 AND (attempts > 0) = ? "
    f"AND community NOT IN ({communities.HELD}) ORDER BY id LIMIT ?"
)
READY_OF = (
    f"{_COLUMNS} WHERE taken = 0 AND community = ? AND aside = ? ORDER BY attempts, id LIMIT ?"
)
_ID, _ATTEMPTS = 0, 4


def recover(db: sqlite3.Connection) -> int:
    """Make ready what a dead taker held, in doubt (R14). Returns how many records that were."""
    communities.let_all_go(db)
    return db.execute("UPDATE queued SET taken = 0, may_exist = 1 WHERE taken = 1").rowcount


def take(
    db: sqlite3.Connection, count: int, *, untried_first: bool, without: frozenset[str]
) -> list[Delivery]:
    """Take the first `count` ready records of communities that are not in `without` (R21)."""
    communities.hold(db, without, count=count)
    rows = db.execute(READY, (False, count)).fetchall()
    if untried_first:
        rows += db.execute(READY, (True, count - len(rows))).fetchall()
    else:
        rows += db.execute(READY, (True, count)).fetchall()
        rows.sort(key=itemgetter(_ID))
    return _taken(db, rows[:count])


def take_of(db: sqlite3.Connection, group_id: str, count: int) -> list[Delivery]:
    """Take up to `count` ready records of one community, those with the fewest attempts first."""
    community = communities.row_of(db, group_id)
    rows = [
        row
        for aside in (0, 1)
        for row in db.execute(READY_OF, (community, aside, count)).fetchall()
    ]
    rows.sort(key=itemgetter(_ATTEMPTS, _ID))
    return _taken(db, rows[:count])


def _taken(db: sqlite3.Connection, rows: list[Any]) -> list[Delivery]:
    taken = [(row[_ID],) for row in rows]
    db.executemany("UPDATE queued SET taken = 1, aside = 0 WHERE id = ?", taken)
    return [_delivery(*row) for row in rows]


def settle(db: sqlite3.Connection, outcomes: Iterable[Outcome]) -> None:
    """Settle and release a batch. Raises QueueError for a record that is not queued."""
    counting: Counter[str] = Counter()
    imported_into: set[int] = set()
    for outcome in outcomes:
        if isinstance(outcome, Released):
            _release(db, outcome)
        else:
            _settle(db, outcome, counting, imported_into)
    communities.remember_imports(db, imported_into)
    add_to_counts(db, counting)


def _delivery(  # noqa: PLR0917
    record_id: int,
    origin: int,
    key: bytes | None,
    body: bytes,
    attempts: int,
    may_exist: int,
    first_attempt: float | None,
    last_attempt: float | None,
    imported: int | None,
) -> Delivery:
    named = orjson.loads(body)
    topic = Topic(
        topic_id=named.get("TopicId"),
        origin=Origin(origin),
        group_id=named["GroupId"],
        name=named["TopicName"],
        key=None if key is None else orjson.loads(key),
        has_account="From_Account" in named,
        body=body,
    )
    history = History(
        attempts=attempts,
        may_exist=bool(may_exist),
        first_attempt=first_attempt,
        last_attempt=last_attempt,
    )
    return Delivery(record_id, topic, history, was_imported_into=bool(imported))


def _release(db: sqlite3.Connection, released: Released) -> None:
    history = released.history
    db.execute(
        "UPDATE queued SET taken = 0, attempts = ?, may_exist = may_exist OR ?, "
        "first_attempt = ?, last_attempt = ?, "
        "aside = (SELECT held FROM communities WHERE communities.id = community) WHERE id = ?",
        (
            history.attempts,
            history.may_exist,
            history.first_attempt,
            history.last_attempt,
            released.id,
        ),
    )


def _settle(
    db: sqlite3.Connection,
    outcome: Imported | DeadLetter,
    counting: Counter[str],
    imported_into: set[int],
) -> None:
    row = db.execute(
        "SELECT path, line, key, origin, body, truncated, raw, queued.may_exist, community "
        "FROM queued "
        "JOIN records USING (id) JOIN inputs ON inputs.id = input WHERE queued.id = ?",
        (outcome.id,),
    ).fetchone()
    if row is None:
        raise QueueError(f"record {outcome.id} was settled before: a defect, nothing was written")
    path, line, key, origin, body, truncated, raw, in_doubt, community = row
    named = orjson.loads(body)
    subject = subject_of_body(f"{path}:{line}", key, named, truncated, raw)
    db.execute("DELETE FROM queued WHERE id = ?", (outcome.id,))
    counting["queued"] -= 1
    if isinstance(outcome, DeadLetter):
        if in_doubt:
            # The doubt may have come while the record was taken, which its taker cannot know: R13.
            outcome = replace(outcome, history=outcome.history.cut_off())
        add_dead_letter(db, subject, outcome, counting)
        return
    db.execute("UPDATE records SET state = ? WHERE id = ?", (State.IMPORTED, outcome.id))
    db.execute(
        "INSERT INTO imported (id, line) VALUES (?, ?)",
        (outcome.id, imported_line(subject, outcome)),
    )
    imported_into.add(community)
    create_time = named.get("CreateTime")
    counting.update(
        imported_counts(
            outcome, Origin(origin), truncated=subject.truncated, create_time=create_time
        )
    )
