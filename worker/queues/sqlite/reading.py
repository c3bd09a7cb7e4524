"""Reading the tables of the embedded queue, without changing anything."""

import sqlite3
from dataclasses import replace
from typing import Literal

from worker.queues.sqlite.schema import State, json_value
from worker.queues.sqlite.topic_index import COMMUNITY_SHIFT
from worker.rules.counts import CommunityLetters, Counts

PAGE_BYTES = 4 << 20

ResultKind = Literal["imported", "dead", "dismissed"]

_OF_COMMUNITY = f"""topic >= communities.id << {COMMUNITY_SHIFT}
      AND topic < (communities.id + 1) << {COMMUNITY_SHIFT}"""
_CROWDED = f"""
SELECT group_id, topics FROM (
  SELECT group_id, (
    SELECT count(*) FROM topics JOIN records USING (id)
    WHERE {_OF_COMMUNITY} AND topic_id IS NOT NULL
  ) AS topics
  FROM communities WHERE (SELECT count(*) FROM topics WHERE {_OF_COMMUNITY}) > :topics_max
) WHERE topics > :topics_max ORDER BY topics DESC, group_id
"""  # noqa: S608
_PAGE = """
SELECT json_group_array(json_array(seq, CAST(line AS TEXT))) FROM (
  SELECT seq, line, sum(length(line)) OVER (ORDER BY seq) - length(line) AS bytes_before
  FROM (SELECT seq, line FROM {kind} WHERE seq > ? ORDER BY seq LIMIT ?)
) WHERE bytes_before < ?
"""
WORST = """
SELECT group_id, reason, code, letters, letters = of_all FROM (
  SELECT {group_id} AS group_id, reason, code, count(*) AS letters,
    sum(count(*)) OVER (PARTITION BY reason, code) AS of_all
  FROM dead GROUP BY 1, reason, code
) WHERE group_id IS NOT NULL ORDER BY letters DESC, group_id, reason, code LIMIT ?
"""


def kept_counts(db: sqlite3.Connection) -> Counts:
    """Return the counts that every change keeps up to date (R19)."""
    return Counts.from_kept(dict(db.execute("SELECT name, n FROM counts")))


def counted_rows(db: sqlite3.Connection) -> Counts:
    """Count the rows themselves, to compare them with the kept counts.

    What no row holds is copied from the kept counts: kinds of `already`, what was cut, warnings.
    """
    kept = kept_counts(db)
    states = dict(db.execute("SELECT state, count(*) FROM records GROUP BY state"))
    queued = db.execute("SELECT count(*) FROM queued").fetchone()[0]
    reasons = dict(db.execute("SELECT reason, count(*) FROM dead GROUP BY reason"))
    codes = db.execute(
        "SELECT code, count(*) FROM dead WHERE code IS NOT NULL GROUP BY code"
    ).fetchall()
    return replace(
        kept,
        read=sum(states.values()),
        queued=queued,
        imported=states.get(State.IMPORTED, 0),
        dead=states.get(State.DEAD, 0),
        duplicate=states.get(State.DUPLICATE, 0),
        dismissed=states.get(State.DISMISSED, 0),
        by_reason=reasons,
        by_code={str(code): n for code, n in codes},
    )


def last_seq(db: sqlite3.Connection, kind: ResultKind) -> int:
    """Return the sequence number of the last outcome of a kind, 0 if there is none."""
    row = db.execute(f"SELECT coalesce(max(seq), 0) FROM {kind}").fetchone()  # noqa: S608
    return int(row[0])


def lines(
    db: sqlite3.Connection, kind: ResultKind, after_seq: int, count: int
) -> list[tuple[int, bytes]]:
    """Return result lines in the order of their outcomes: (seq, line), seq above `after_seq`.

    At most `count`, and fewer if they are long: a page ends at PAGE_BYTES. A queue of the last
    version, which is only read, has no dismissed records.
    """
    if kind == "dismissed" and not _has_table(db, kind):
        return []
    query = _PAGE.format(kind=kind)
    page = json_value(db, query, (after_seq, count, PAGE_BYTES))
    return [(seq, line.encode()) for seq, line in page]


def crowded_communities(db: sqlite3.Connection, topics_max: int) -> list[tuple[str, int]]:
    """Return the communities with more than `topics_max` topics, the largest first, with counts.

    Topics whose TopicId the service makes are not counted. The index must be complete.
    """
    return db.execute(_CROWDED, {"topics_max": topics_max}).fetchall()


def held_communities(db: sqlite3.Connection) -> list[str]:
    """Return the communities whose records are passed over; none of the last version's queue."""
    if not _has_table(db, "communities"):
        return []
    rows = db.execute("SELECT group_id FROM communities WHERE held = 1 ORDER BY group_id")
    return [group_id for (group_id,) in rows]


def worst_communities(db: sqlite3.Connection, count: int) -> list[CommunityLetters]:
    """Return the communities with the most dead letters of one reason and code, the worst first.

    Letters whose GroupId could not be read count as those of another community. A queue of the last
    version, which is only read, has the GroupId in the letters alone.
    """
    columns = {name for (name,) in db.execute("SELECT name FROM pragma_table_info('dead')")}
    group_id = "group_id" if "group_id" in columns else "group_of(line, 'group_id')"
    rows = db.execute(WORST.format(group_id=group_id), (count,))
    return [
        CommunityLetters(group_id, reason, code, letters, is_all=bool(is_all))
        for group_id, reason, code, letters, is_all in rows
    ]


def oldest_queued(db: sqlite3.Connection) -> int | None:
    """Return the ID of the record that has been queued longest, None if none is."""
    oldest: tuple[int | None] = db.execute("SELECT min(id) FROM queued").fetchone()
    return oldest[0]


def _has_table(db: sqlite3.Connection, name: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return db.execute(query, (name,)).fetchone() is not None
