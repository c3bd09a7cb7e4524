"""A queue of an older version becomes one of this version, in place and in one transaction."""

import sqlite3

import orjson

from worker.queues.sqlite.topic_index import index_all

FROM_1 = """
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
UPDATE queued SET community =
  (SELECT id FROM communities WHERE group_id = group_of(queued.body, 'GroupId'));
ALTER TABLE dead ADD COLUMN group_id TEXT;
UPDATE dead SET group_id = group_of(line, 'group_id');
CREATE INDEX dead_by_community ON dead (group_id, reason, code);
ALTER TABLE records ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
CREATE TABLE dismissed (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, line BLOB NOT NULL);
CREATE TABLE removed (hash BLOB PRIMARY KEY) WITHOUT ROWID
"""
FROM_2 = """
ALTER TABLE queued RENAME TO older;
DROP INDEX queued_ready;
DROP INDEX IF EXISTS queued_by_community;
CREATE TABLE queued (
  id INTEGER PRIMARY KEY,
  community INTEGER NOT NULL,
  lane INTEGER,
  attempts INTEGER NOT NULL DEFAULT 0,
  may_exist INTEGER NOT NULL DEFAULT 0,
  first_attempt REAL,
  last_attempt REAL
);
CREATE TABLE payloads (
  id INTEGER PRIMARY KEY,
  origin INTEGER NOT NULL,
  key BLOB,
  body BLOB NOT NULL,
  truncated TEXT NOT NULL,
  raw BLOB NOT NULL
);
INSERT INTO queued
  SELECT id, community, iif(taken, 2, aside), attempts, may_exist, first_attempt, last_attempt
  FROM older;
INSERT INTO payloads SELECT id, origin, key, body, truncated, raw FROM older;
DROP TABLE older;
CREATE INDEX queued_by_lane ON queued (lane, attempts > 0, id, community) WHERE lane IS NOT NULL;
CREATE INDEX queued_by_community ON queued (community, lane, attempts, id) WHERE lane IS NOT NULL;
ALTER TABLE imported ADD COLUMN sent BLOB;
DROP INDEX records_by_topic;
CREATE TABLE topics (
  topic INTEGER NOT NULL,
  id INTEGER NOT NULL,
  PRIMARY KEY (topic, id)
) WITHOUT ROWID;
PRAGMA user_version = 3
"""
UPGRADES = {1: [FROM_1, FROM_2], 2: [FROM_2]}
"""What to do with a queue of each older version, in this order."""
VIEWS = """
CREATE TEMP VIEW payloads AS SELECT id, origin, key, body, truncated, raw FROM main.queued;
CREATE TEMP VIEW queued AS
  SELECT id, {community} AS community, iif(taken, 2, 0) AS lane, attempts, may_exist,
    first_attempt, last_attempt
  FROM main.queued
"""
TABLES_NOT_IN_1 = """
;CREATE TEMP VIEW communities AS
  SELECT DISTINCT community AS id, community AS group_id, 0 AS imported, 0 AS held, 0 AS moving
  FROM queued;
CREATE TEMP VIEW removed AS SELECT NULL AS hash WHERE 0
"""


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Make a queue of an older version one of this version, inside the caller's transaction."""
    for script in UPGRADES[version]:
        _run(db, script)
    index_all(db)


def show_as_current(db: sqlite3.Connection, version: int) -> None:
    """Let a queue of an older version, which is only read, be asked like one of this version."""
    if version == 1:
        _run(db, VIEWS.format(community="group_of(body, 'GroupId')") + TABLES_NOT_IN_1)
    else:
        _run(db, VIEWS.format(community="community"))


def _run(db: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):
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
