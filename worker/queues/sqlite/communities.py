"""The communities of the queued records: which are held, and whether this job imported into them.

While a community is held, its ready records are set aside, so passing them over costs nothing
however many they are. Setting aside takes time for each record. It is therefore done in pages, one
at each take; the query leaves out what is not set aside yet. Bringing back is done in pages, too,
those first that are to be taken first.
"""

import sqlite3
from collections.abc import Collection, Iterable

import orjson

from worker.queues.sqlite.schema import IDS, Lane, insert_rows, json_value

MOVED_PER_TAKE = 5_000
"""About how many records are set aside or brought back at one take, of all communities."""

HELD = "SELECT id FROM communities WHERE held = 1"
MOVING = "SELECT id, held FROM communities WHERE moving = 1"
SET_ASIDE = (
    f"UPDATE queued SET lane = {Lane.ASIDE} WHERE id IN ("  # noqa: S608
    f"SELECT id FROM queued WHERE community = ? AND lane = {Lane.READY} LIMIT ?)"
)
BRING_BACK_UNTRIED = (
    f"UPDATE queued SET lane = {Lane.READY} WHERE id IN ("  # noqa: S608
    f"SELECT id FROM queued WHERE community = ? AND lane = {Lane.ASIDE} AND attempts = 0 "
    "ORDER BY id LIMIT ?)"
)
BRING_BACK_TRIED = (
    f"UPDATE queued SET lane = {Lane.READY} "  # noqa: S608
    f"WHERE community = ? AND lane = {Lane.ASIDE} AND attempts > 0"
)
BRING_ALL_BACK = f"UPDATE queued SET lane = {Lane.READY} WHERE lane = {Lane.ASIDE}"  # noqa: S608


class Communities:
    """The row IDs of communities, for one batch inside the caller's transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._known: dict[str, int] = {}
        self._absent: set[str] = set()

    def of(self, group_id: str) -> int:
        """Return the row ID of a community; make its row if need be."""
        known = self.known(group_id)
        if known is None:
            known = self._known[group_id] = self._insert(group_id)
        return known

    def known(self, group_id: str) -> int | None:
        """Return the row ID of a community, None if it has none yet."""
        known = self._known.get(group_id)
        if known is None and group_id not in self._absent:
            known = row_of(self._db, group_id)
            if known is not None:
                self._known[group_id] = known
        return known

    def load(self, group_ids: Collection[str]) -> None:
        """Learn the rows of many communities at once; `known` and `of` are quick for them then."""
        wanted = [group_id for group_id in group_ids if group_id not in self._known]
        if not wanted:
            return
        listed = orjson.dumps(wanted).decode()
        self._known.update(json_value(self._db, _ROWS_OF, (listed,)))
        self._absent.update(group_id for group_id in wanted if group_id not in self._known)

    def make(self, group_ids: Collection[str]) -> None:
        """Make the rows of those communities that have none yet."""
        self.load(group_ids)
        new = [(group_id,) for group_id in group_ids if group_id not in self._known]
        if new:
            insert_rows(self._db, "communities (group_id)", new)
            self.load(group_ids)

    def _insert(self, group_id: str) -> int:
        cursor = self._db.execute("INSERT INTO communities (group_id) VALUES (?)", (group_id,))
        assert cursor.lastrowid is not None  # noqa: S101 - an INSERT has one
        return cursor.lastrowid


_ROWS_OF = (
    "SELECT json_group_array(json_array(group_id, id)) FROM communities "  # noqa: S608
    f"WHERE group_id IN {IDS}"
)


def row_of(db: sqlite3.Connection, group_id: str) -> int | None:
    """Return the row ID of a community, None if no record of it was ever queued."""
    row = db.execute("SELECT id FROM communities WHERE group_id = ?", (group_id,)).fetchone()
    return None if row is None else row[0]


def hold(db: sqlite3.Connection, without: frozenset[str], *, count: int) -> None:
    """Hold exactly these communities, before up to `count` records are taken."""
    held = {group_id for (group_id,) in db.execute(_HELD)}
    db.executemany(_HOLD, [(group_id,) for group_id in without - held])
    db.executemany(_LET_GO, [(group_id,) for group_id in held - without])
    left = MOVED_PER_TAKE
    for community, is_held in db.execute(MOVING).fetchall():
        # What is brought back must hold all that this take may return of the community. What is
        # not set aside yet is left out by the query.
        page = left if is_held else max(left, count)
        left = max(0, left - _move(db, community, page, is_held=bool(is_held)))


def any_held(db: sqlite3.Connection) -> bool:
    """Return whether a community is held."""
    return db.execute(f"{HELD} LIMIT 1").fetchone() is not None


def let_all_go(db: sqlite3.Connection) -> None:
    """Hold no community any more, and bring all records back at once."""
    db.execute(BRING_ALL_BACK)
    db.execute("UPDATE communities SET held = 0 WHERE held = 1")
    db.execute("UPDATE communities SET moving = 0 WHERE moving = 1")


def remember_imports(db: sqlite3.Connection, communities: Iterable[int]) -> None:
    """Remember that this job imported into communities, given by their row IDs."""
    db.executemany(
        "UPDATE communities SET imported = 1 WHERE id = ? AND imported = 0",
        [(community,) for community in communities],
    )


_HELD = "SELECT group_id FROM communities WHERE held = 1"
_HOLD = (
    "INSERT INTO communities (group_id, held, moving) VALUES (?, 1, 1) "
    "ON CONFLICT (group_id) DO UPDATE SET held = 1, moving = 1"
)
_LET_GO = "UPDATE communities SET held = 0, moving = 1 WHERE group_id = ?"


def _move(db: sqlite3.Connection, community: int, page: int, *, is_held: bool) -> int:
    """Set a page of a community's records aside, or bring one back; return how many were moved.

    After a page is brought back, its records stand in the order before each that is still aside, so
    a take of no more than a page misses none. Those with attempts come back at once: their place in
    the order depends on how it is asked for.
    """
    if not is_held:
        db.execute(BRING_BACK_TRIED, (community,))
    moved = db.execute(SET_ASIDE if is_held else BRING_BACK_UNTRIED, (community, page)).rowcount
    if moved < page:
        db.execute("UPDATE communities SET moving = 0 WHERE id = ?", (community,))
    return moved
