"""Taking from the embedded queue and settling, inside the caller's transaction.

Most records are taken by a watermark: all below it that have no lane are in the hands of the taker.
It moves before they are called for, so a taker that dies leaves no call unknown.
"""

import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from worker.queues.contract import QueueError
from worker.queues.letters import subject_of_body
from worker.queues.sqlite import communities
from worker.queues.sqlite.schema import (
    IDS,
    WATERMARK,
    Lane,
    State,
    add_dead_letter,
    add_to_counts,
    ids_json,
    insert_rows,
    json_value,
    keep_number,
    remove_queued,
    watermark,
)
from worker.rules.counts import imported_counts
from worker.rules.outcome import DeadLetter, Delivery, History, Imported, Outcome, Released
from worker.rules.result_lines import imported_line
from worker.rules.sent_fields import field_hashes
from worker.rules.topic.identity import Origin
from worker.rules.topic.topic import Topic

AHEAD_PER_RECORD = 50_000
"""How many rows above the watermark are searched for each record of one community."""

READY = (
    f"SELECT id FROM queued WHERE lane = {Lane.READY} AND (attempts > 0) = ? "  # noqa: S608
    f"AND community NOT IN ({communities.HELD}) ORDER BY id LIMIT ?"
)
FRESH = "SELECT id FROM queued WHERE id > ? AND lane IS NULL ORDER BY id LIMIT ?"
FRESH_NOT_HELD = (
    "SELECT id FROM queued WHERE id > ? AND lane IS NULL "  # noqa: S608
    f"AND community NOT IN ({communities.HELD}) ORDER BY id LIMIT ?"
)
OF_COMMUNITY = (
    "SELECT attempts, id FROM queued WHERE community = ? AND lane = ? ORDER BY attempts, id LIMIT ?"
)
FRESH_OF_COMMUNITY = (
    "SELECT id FROM (SELECT id, community FROM queued WHERE id > ? AND lane IS NULL "
    "ORDER BY id LIMIT ?) WHERE community = ? ORDER BY id LIMIT ?"
)
_LAST_OF_PAGE = (
    "SELECT max(id) FROM ("
    "SELECT id FROM queued WHERE id > ? AND id <= ? AND lane IS NULL ORDER BY id LIMIT ?)"
)
_SET_ASIDE = f"UPDATE queued SET lane = {Lane.ASIDE} WHERE id > ? AND id <= ? AND lane IS NULL"  # noqa: S608
_TAKE_BACK = f"UPDATE queued SET lane = {Lane.READY}, may_exist = 1 WHERE"  # noqa: S608
TAKE_BACK_BY_LANE = f"{_TAKE_BACK} lane = {Lane.TAKEN}"
TAKE_BACK_BY_WATERMARK = f"{_TAKE_BACK} id <= ? AND lane IS NULL"
_FACTS = (
    "SELECT json_group_array(json_array(id, path, line, origin, CAST(key AS TEXT), truncated, "  # noqa: S608
    "attempts, may_exist, community, is_imported_into, CAST(body AS TEXT))) FROM ("
    "SELECT queued.id AS id, path, records.line AS line, origin, key, truncated, attempts, "
    "queued.may_exist AS may_exist, community, communities.imported AS is_imported_into, body "
    "FROM queued JOIN payloads USING (id) JOIN records USING (id) "
    "JOIN inputs ON inputs.id = input JOIN communities ON communities.id = community "
    f"WHERE queued.id IN {IDS} ORDER BY queued.id)"
)
_TIMES = (
    f"SELECT id, first_attempt, last_attempt FROM queued WHERE id IN {IDS} "  # noqa: S608
    "AND attempts > 0"
)


@dataclass(slots=True)
class Taken:
    """What it takes to settle a record that this process has in its hands; no `raw`."""

    source: str
    key: bytes | None
    origin: Origin
    truncated: str
    community: int
    is_imported_into: bool
    body: dict[str, Any]


InHand = dict[int, Taken]
"""The records that this process took and has not settled, by their IDs."""


def recover(db: sqlite3.Connection) -> int:
    """Make ready what a dead taker held, in doubt (R14). Returns how many records that were."""
    communities.let_all_go(db)
    by_lane = db.execute(TAKE_BACK_BY_LANE).rowcount
    return by_lane + db.execute(TAKE_BACK_BY_WATERMARK, (watermark(db),)).rowcount


def take(
    db: sqlite3.Connection,
    in_hand: InHand,
    count: int,
    *,
    untried_first: bool,
    without: frozenset[str],
) -> list[Delivery]:
    """Take the first `count` ready records of communities that are not in `without` (R21)."""
    communities.hold(db, without, count=count)
    mark, is_passing_over = watermark(db), communities.any_held(db)
    fresh = _ids(db, FRESH_NOT_HELD if is_passing_over else FRESH, (mark, count))
    ready, tried = (_ids(db, READY, (is_tried, count)) for is_tried in (False, True))
    untried = sorted(ready + fresh)
    chosen = ([*untried, *tried] if untried_first else sorted(untried + tried))[:count]
    kept = set(chosen)
    # The first ones of `fresh`, as both are in the order of the IDs: the watermark depends on it.
    fresh_taken = [record_id for record_id in fresh if record_id in kept]
    if is_passing_over:
        _mark_taken(db, chosen)
        has_seen_all = len(fresh) < count and len(fresh_taken) == len(fresh)
        _pass_over(db, mark, fresh_taken, has_seen_all=has_seen_all)
    else:
        _mark_taken(db, kept.difference(fresh))
        if fresh_taken:
            keep_number(db, WATERMARK, fresh_taken[-1])
    return _deliveries(db, in_hand, chosen)


def _pass_over(db: sqlite3.Connection, mark: int, taken: list[int], *, has_seen_all: bool) -> None:
    """Set aside what lies between the watermark and the last record taken, all of it held.

    `has_seen_all`: no other record is ready, so everything above the watermark is held. A page at
    a time; the watermark moves as far as all records below it have a lane.
    """
    if has_seen_all:
        last = db.execute("SELECT coalesce(max(id), 0) FROM queued").fetchone()[0]
    elif taken:
        last = taken[-1]
    else:
        return
    page = (mark, last, communities.MOVED_PER_TAKE)
    last_of_page = db.execute(_LAST_OF_PAGE, page).fetchone()[0]
    moved = 0
    if last_of_page is not None:
        moved = db.execute(_SET_ASIDE, (mark, last_of_page)).rowcount
    reached = last if moved < communities.MOVED_PER_TAKE else last_of_page
    if reached > mark:
        keep_number(db, WATERMARK, reached)


def take_of(db: sqlite3.Connection, in_hand: InHand, group_id: str, count: int) -> list[Delivery]:
    """Take up to `count` ready records of one community, those with the fewest attempts first."""
    community = communities.row_of(db, group_id)
    found = [
        row
        for lane in (Lane.READY, Lane.ASIDE)
        for row in db.execute(OF_COMMUNITY, (community, lane, count)).fetchall()
    ]
    lacking = count - sum(attempts == 0 for attempts, _ in found)
    if community is not None and lacking > 0:
        ahead = (watermark(db), AHEAD_PER_RECORD * count, community, lacking)
        found += [(0, record_id) for record_id in _ids(db, FRESH_OF_COMMUNITY, ahead)]
    chosen = [record_id for _, record_id in sorted(found)[:count]]
    _mark_taken(db, chosen)
    return _deliveries(db, in_hand, chosen)


def _ids(db: sqlite3.Connection, query: str, values: tuple[Any, ...]) -> list[int]:
    ids: list[int] = json_value(db, f"SELECT json_group_array(id) FROM ({query})", values)  # noqa: S608
    return ids


def _mark_taken(db: sqlite3.Connection, ids: Collection[int]) -> None:
    if ids:
        statement = f"UPDATE queued SET lane = {Lane.TAKEN} WHERE id IN {IDS}"  # noqa: S608
        db.execute(statement, (ids_json(ids),))


def _deliveries(db: sqlite3.Connection, in_hand: InHand, ids: list[int]) -> list[Delivery]:
    """Return deliveries in the order of `ids`, and remember what settling them takes."""
    if not ids:
        return []
    listed = (ids_json(ids),)
    facts = json_value(db, _FACTS, listed)
    times: dict[int, tuple[float, float]] = {}
    if any(attempts for _, _, _, _, _, _, attempts, *_ in facts):
        times = {row_id: (first, last) for row_id, first, last in db.execute(_TIMES, listed)}
    found = {row[0]: _delivery(in_hand, times.get(row[0], _NEVER), *row) for row in facts}
    return [found[record_id] for record_id in ids]


_NEVER = (None, None)


def _delivery(  # noqa: PLR0917 - the columns
    in_hand: InHand,
    times: tuple[float | None, float | None],
    record_id: int,
    path: str,
    line: int,
    origin: int,
    key: str | None,
    truncated: str,
    attempts: int,
    may_exist: int,
    community: int,
    is_imported_into: int,
    body: str,
) -> Delivery:
    named = orjson.loads(body)
    taken = in_hand[record_id] = Taken(
        source=f"{path}:{line}",
        key=None if key is None else key.encode(),
        origin=_ORIGINS[origin],
        truncated=truncated,
        community=community,
        is_imported_into=bool(is_imported_into),
        body=named,
    )
    topic = Topic(
        topic_id=named.get("TopicId"),
        origin=taken.origin,
        group_id=named["GroupId"],
        name=named["TopicName"],
        key=None if key is None else orjson.loads(key),
        has_account="From_Account" in named,
        body=body.encode(),
    )
    history = _UNTRIED
    if attempts or may_exist:
        history = History(attempts, bool(may_exist), *times)
    return Delivery(record_id, topic, history, was_imported_into=taken.is_imported_into)


_ORIGINS = {origin.value: origin for origin in Origin}
_UNTRIED = History()


def settle(
    db: sqlite3.Connection, in_hand: InHand, outcomes: Collection[Outcome]
) -> list[tuple[int, bytes]]:
    """Settle and release a batch; return the lines of the imported ones as (seq, line).

    Raises QueueError for a record that is not queued.
    """
    imported = [outcome for outcome in outcomes if isinstance(outcome, Imported)]
    counting, lines = _settle_imported(db, in_hand, imported)
    for outcome in outcomes:
        if isinstance(outcome, Released):
            _release(db, outcome)
        elif isinstance(outcome, DeadLetter):
            _settle_dead(db, outcome, counting)
    add_to_counts(db, counting)
    return lines


def _settle_imported(
    db: sqlite3.Connection, in_hand: InHand, outcomes: Sequence[Imported]
) -> tuple[Counter[str], list[tuple[int, bytes]]]:
    if not outcomes:
        return Counter(), []
    ids = [outcome.id for outcome in outcomes]
    new_to: set[int] = set()
    names: list[str] = []
    rows: list[tuple[int, bytes, bytes]] = []
    for outcome in outcomes:
        taken = in_hand.get(outcome.id) or _read_taken(db, outcome.id)
        subject = subject_of_body(taken.source, taken.key, taken.body, taken.truncated, b"")
        rows.append((outcome.id, imported_line(subject, outcome), field_hashes(taken.body)))
        names += imported_counts(
            outcome,
            taken.origin,
            truncated=subject.truncated,
            create_time=taken.body.get("CreateTime"),
        )
        if not taken.is_imported_into:
            new_to.add(taken.community)
    removed = remove_queued(db, ids)
    if removed != len(ids):
        raise QueueError(f"{len(ids) - removed} records were settled before: {_DEFECT}")
    db.execute(
        f"UPDATE records SET state = {State.IMPORTED} WHERE id IN {IDS}",  # noqa: S608
        (ids_json(ids),),
    )
    insert_rows(db, "imported (id, line, sent)", rows)
    first_seq = db.execute("SELECT last_insert_rowid()").fetchone()[0] - len(rows) + 1
    communities.remember_imports(db, new_to)
    counting = Counter(names)
    counting["queued"] -= len(ids)
    return counting, [(first_seq + n, line) for n, (_, line, _) in enumerate(rows)]


_DEFECT = "a defect, nothing was written"


def _read_taken(db: sqlite3.Connection, record_id: int) -> Taken:
    """Read what is known of a record that another process took."""
    in_hand: InHand = {}
    if db.execute("SELECT 1 FROM queued WHERE id = ?", (record_id,)).fetchone() is None:
        raise QueueError(f"record {record_id} was settled before: {_DEFECT}")
    _deliveries(db, in_hand, [record_id])
    return in_hand[record_id]


def _settle_dead(db: sqlite3.Connection, letter: DeadLetter, counting: Counter[str]) -> None:
    row = db.execute(_STORED, (letter.id,)).fetchone()
    if row is None:
        raise QueueError(f"record {letter.id} was settled before: {_DEFECT}")
    path, line, key, body, truncated, raw, in_doubt = row
    if in_doubt:
        # The doubt may have come while the record was taken, which its taker cannot know: R13.
        letter = replace(letter, history=letter.history.cut_off())
    subject = subject_of_body(f"{path}:{line}", key, orjson.loads(body), truncated, raw)
    remove_queued(db, [letter.id])
    counting["queued"] -= 1
    add_dead_letter(db, subject, letter, counting)


_STORED = (
    "SELECT path, line, key, body, truncated, raw, queued.may_exist FROM queued "
    "JOIN payloads USING (id) JOIN records USING (id) JOIN inputs ON inputs.id = input "
    "WHERE queued.id = ?"
)
_RELEASE = (
    "UPDATE queued SET attempts = ?, may_exist = may_exist OR ?, first_attempt = ?, "  # noqa: S608
    f"last_attempt = ?, lane = iif(community IN ({communities.HELD}), {Lane.ASIDE}, {Lane.READY}) "
    "WHERE id = ?"
)


def _release(db: sqlite3.Connection, released: Released) -> None:
    history = released.history
    db.execute(
        _RELEASE,
        (
            history.attempts,
            history.may_exist,
            history.first_attempt,
            history.last_attempt,
            released.id,
        ),
    )
