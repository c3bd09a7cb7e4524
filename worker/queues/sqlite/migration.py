"""A queue of the last version becomes one of this version, in place and in one transaction."""

import sqlite3

import orjson

OLDER_VERSION = 1
"""The version of the queues that `upgrade` takes."""

UPGRADE = """
CREATE TABLE communities (
  id INTEGER PRIMARY KEY,
  group_id TEXT NOT NULL UNIQUE,
  imported INTEGER NOT NULL DEFAULT 0,
  held INTEGER NOT NULL DEFAULT 0,
  moving INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX communities_held ON communities (id) WHERE held = 1;
CREATE INDEX communities_moving ON communities (id, held) WHERE moving = 1;
INSERT OR IGNORE INTO communities (group_id, imported)
  SELECT group_of(line, 'group_id'), 1 FROM imported;
INSERT OR IGNORE INTO communities (group_id) SELECT group_of(body, 'GroupId') FROM queued;
ALTER TABLE queued ADD COLUMN community INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queued ADD COLUMN aside INTEGER NOT NULL DEFAULT 0;
DROP INDEX queued_ready;
UPDATE queued SET community =
  (SELECT id FROM communities WHERE group_id = group_of(queued.body, 'GroupId'));
CREATE INDEX queued_ready ON queued (attempts > 0, id, community) WHERE taken = 0 AND aside = 0;
CREATE INDEX queued_by_community ON queued (community, aside, attempts, id) WHERE taken = 0;
ALTER TABLE dead ADD COLUMN group_id TEXT;
UPDATE dead SET group_id = group_of(line, 'group_id');
CREATE INDEX dead_by_community ON dead (group_id, reason, code);
ALTER TABLE records ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
CREATE TABLE dismissed (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, line BLOB NOT NULL);
CREATE TABLE removed (hash BLOB PRIMARY KEY) WITHOUT ROWID;
PRAGMA user_version = 2
"""


def upgrade(db: sqlite3.Connection) -> None:
    """Make a queue of OLDER_VERSION one of the next version, inside the caller's transaction."""
    for statement in UPGRADE.split(";"):
        db.execute(statement)


def add_group_of(db: sqlite3.Connection) -> None:
    """Add the function `group_of(json, name)` to a connection: the GroupId in a stored line."""
    db.create_function("group_of", 2, _group_of, deterministic=True)


def _group_of(stored: bytes, name: str) -> str | None:
    try:
        group_id = orjson.loads(stored)[name]
    except orjson.JSONDecodeError:
        return None  # a dead letter whose record is nested too deeply
    return group_id if isinstance(group_id, str) else None
