"""Which record holds a TopicId: an index of few bytes a record that is written in slices.

An index that SQLite keeps by itself changes one page of 4 KiB for nearly each record of an input
that is not sorted by community, and every commit writes whole pages: at 400,000 records a put took
three times as long as at the beginning. So new entries wait in memory, and each put writes one
slice of them, in the order of the index. Nothing is lost with the memory: the entries of all
records above the number INDEXED are read from the records again.

An entry may be stale. It names a record, whose row says whether it holds the TopicId.
"""

import sqlite3
from collections.abc import Collection
from zlib import crc32

import orjson

from worker.queues.sqlite.communities import Communities
from worker.queues.sqlite.schema import (
    IDS,
    ids_json,
    insert_rows,
    json_value,
    keep_number,
    kept_number,
)
from worker.rules.topic.identity import TOPIC_ID_INFIX

INDEXED = "indexed"
"""The name in `counts` of the highest ID up to which all records are in the table `topics`."""
SLICES = 64
WAITING_MAX = 50_000
"""More than ever waits in one process that puts batches of 500. It is reached by many processes
that put little each: they begin with what the others left, and never come to the later slices."""
COMMUNITY_SHIFT = 32
_PAGE = 10_000
_NEW = (
    "SELECT json_group_array(json_array(id, topic_id)) FROM ("
    "SELECT id, topic_id FROM records WHERE id > ? ORDER BY id LIMIT ?)"
)
_FOUND = f"SELECT json_group_array(id) FROM topics WHERE topic IN {IDS}"  # noqa: S608
_HOLDING = f"SELECT json_group_array(json_array(topic_id, id)) FROM records WHERE id IN {IDS}"  # noqa: S608
_HOLDING_BY_TEXT = (
    f"SELECT json_group_array(json_array(topic_id, id)) FROM records WHERE topic_id IN {IDS}"  # noqa: S608
)


def group_of_topic_id(topic_id: str) -> str:
    """Return the GroupId in a TopicId."""
    return topic_id.partition(TOPIC_ID_INFIX)[0]


def topic_key(community: int, topic_id: str) -> int:
    """Return the number under which a TopicId is indexed: its community, and a hash of it."""
    return community << COMMUNITY_SHIFT | crc32(topic_id.encode())


class TopicIndex:
    """The index of one connection. All methods run inside a transaction of the caller.

    After a transaction that failed it is to be thrown away: it may know what was never stored.
    """

    def __init__(self) -> None:
        self._slices: list[dict[int, int]] = [{} for _ in range(SLICES)]
        self._twins: dict[int, list[int]] = {}
        """The IDs of further records that wait under a key which is in a slice already."""
        self._lowest: list[int] = [0] * SLICES
        """The lowest ID in each slice that is not empty."""
        self._next_slice = 0
        self._seen: int | None = None
        self._is_of_older_version = False

    def refresh(self, db: sqlite3.Connection) -> None:
        """Learn what other processes, or an earlier one, put since the last call."""
        if self._seen is None:
            # Queues of older versions, which are only read, have an index by the whole TopicId.
            query = "SELECT 1 FROM sqlite_master WHERE name = 'records_by_topic'"
            self._is_of_older_version = db.execute(query).fetchone() is not None
            self._seen = kept_number(db, INDEXED)
        if self._is_of_older_version:
            return
        communities = Communities(db)
        while rows := json_value(db, _NEW, (self._seen, _PAGE)):
            communities.load({group_of_topic_id(topic_id) for _, topic_id in rows if topic_id})
            for record_id, topic_id in rows:
                if topic_id:
                    self._add(_key(communities, topic_id), record_id)
            self._seen = rows[-1][0]

    def holders(
        self, db: sqlite3.Connection, communities: Communities, topic_ids: Collection[str]
    ) -> dict[str, int]:
        """Return the IDs of the records that hold these TopicIds, by TopicId."""
        if self._is_of_older_version:
            return dict(json_value(db, _HOLDING_BY_TEXT, (orjson.dumps([*topic_ids]).decode(),)))
        communities.load({group_of_topic_id(topic_id) for topic_id in topic_ids})
        keys = [key for topic_id in topic_ids if (key := _key(communities, topic_id)) >= 0]
        found: list[int] = json_value(db, _FOUND, (ids_json(keys),))
        for key in keys:
            waiting = self._slices[(key >> COMMUNITY_SHIFT) % SLICES].get(key)
            if waiting is not None:
                found += [waiting, *self._twins.get(key, ())]
        if not found:
            return {}
        holding = dict(json_value(db, _HOLDING, (ids_json(found),)))
        return {topic_id: holding[topic_id] for topic_id in topic_ids if topic_id in holding}

    def add(self, communities: Communities, topic_id: str, record_id: int) -> None:
        """Add the TopicId of a record that is put in this transaction."""
        communities.of(group_of_topic_id(topic_id))
        self._add(_key(communities, topic_id), record_id)

    def write_slice(self, db: sqlite3.Connection, last_id: int) -> None:
        """Write the next slice of what waits in memory; `last_id`: of the records put so far."""
        self._seen = last_id
        if sum(map(len, self._slices)) > WAITING_MAX:
            self.write_all(db)
            return
        self._write(db, self._next_slice)
        self._next_slice = (self._next_slice + 1) % SLICES
        self._keep_indexed(db)

    def write_all(self, db: sqlite3.Connection) -> None:
        """Write everything that waits in memory."""
        for number in range(SLICES):
            self._write(db, number)
        self._keep_indexed(db)

    def _add(self, key: int, record_id: int) -> None:
        number = (key >> COMMUNITY_SHIFT) % SLICES
        waiting = self._slices[number]
        if not waiting or record_id < self._lowest[number]:
            self._lowest[number] = record_id
        if waiting.setdefault(key, record_id) != record_id:
            self._twins.setdefault(key, []).append(record_id)

    def _write(self, db: sqlite3.Connection, number: int) -> None:
        waiting, self._slices[number] = self._slices[number], {}
        twins = [
            (key, twin) for key in self._twins.keys() & waiting for twin in self._twins.pop(key)
        ]
        _write_entries(db, sorted([*waiting.items(), *twins]))

    def _keep_indexed(self, db: sqlite3.Connection) -> None:
        lowest = [low for waiting, low in zip(self._slices, self._lowest, strict=True) if waiting]
        indexed = min(lowest) - 1 if lowest else self._seen
        if indexed is not None and indexed > kept_number(db, INDEXED):
            keep_number(db, INDEXED, indexed)


def _key(communities: Communities, topic_id: str) -> int:
    """Return the number under which a TopicId is indexed, -1 for one of an unknown community."""
    community = communities.known(group_of_topic_id(topic_id))
    return -1 if community is None else topic_key(community, topic_id)


def _write_entries(db: sqlite3.Connection, entries: list[tuple[int, int]]) -> None:
    insert_rows(db, "topics", entries, "ON CONFLICT DO NOTHING")


def index_at_once(
    db: sqlite3.Connection, communities: Communities, topic_id: str, record_id: int
) -> None:
    """Index the TopicId that a record gets which is there already."""
    key = topic_key(communities.of(group_of_topic_id(topic_id)), topic_id)
    _write_entries(db, [(key, record_id)])


def index_all(db: sqlite3.Connection) -> None:
    """Index all records of a queue that has no index yet."""
    db.create_function("topic_key", 2, topic_key, deterministic=True)
    db.create_function("group_of_topic_id", 1, group_of_topic_id, deterministic=True)
    for statement in _INDEX_ALL:
        db.execute(statement)
    keep_number(db, INDEXED, db.execute("SELECT coalesce(max(id), 0) FROM records").fetchone()[0])


_INDEX_ALL = (
    "INSERT OR IGNORE INTO communities (group_id) SELECT DISTINCT group_of_topic_id(topic_id) "
    "FROM records WHERE topic_id IS NOT NULL",
    "INSERT INTO topics SELECT topic_key(communities.id, topic_id), records.id FROM records "
    "JOIN communities ON group_id = group_of_topic_id(topic_id) WHERE topic_id IS NOT NULL "
    "ORDER BY 1, 2",
)
