"""The file of the embedded queue: opening it, its transactions, and its errors as sentences."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.queues.contract import QueueError
from worker.queues.directory_lock import require_locks, taker_of
from worker.queues.sqlite.migration import UPGRADES, add_group_of, show_as_current, upgrade
from worker.queues.sqlite.schema import SCHEMA, SCHEMA_VERSION

BUSY_TIMEOUT_S = 30.0
CACHE_KIB = 8_192
FIRST_PAGE_BYTES = 4096
_FORBIDDEN = ("readonly database", "unable to open database file", "Permission denied")


class QueueFile:
    """One connection to the queue's file, for one thread.

    `read_only`: creates and changes nothing; a file without tables reads as an empty queue, and a
    queue of the last version is read as it is. Otherwise such a queue becomes one of this version.
    `synchronous`: SQLite's pragma; `FULL` makes commits durable against power loss.

    Every use of the connection stands in one of the three contexts, which raise QueueError for all
    errors of SQLite and of the disk.
    """

    def __init__(self, path: Path, *, read_only: bool, synchronous: str) -> None:
        self.path = path
        with self._errors():
            require_locks(path.parent, read_only=read_only)
            if not read_only:
                path.touch(mode=0o600)
            self._db = _connect(f"{path.absolute().as_uri()}?{_mode(path, read_only=read_only)}")
            if read_only and _has_no_tables_yet(path, self._db):
                self._db.close()
                self._db = _connect("file::memory:")
            if not read_only:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute(f"PRAGMA synchronous = {synchronous}")
            self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            add_group_of(self._db)
            self._prepare(read_only=read_only)

    def close(self) -> None:
        with self._errors():
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit all changes at the end of the block, or none if it raises."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Read everything in the block as it is at one moment."""
        with self._errors():
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                self._db.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read with single statements."""
        with self._errors():
            yield self._db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._translated(error) from None

    def _prepare(self, *, read_only: bool) -> None:
        if _is_empty(self._db):
            with self.transaction():
                # Asked again inside the transaction: another process may have made them meanwhile.
                if _is_empty(self._db):
                    self._make_tables()
        version = _version(self._db)
        if version in UPGRADES:
            if read_only:
                show_as_current(self._db, version)
                return
            self._upgrade()
            version = _version(self._db)
        if version != SCHEMA_VERSION:
            raise QueueError(
                f"{self.path} is no queue of this version of topic-import (its version is "
                f"{version}): use the version that made it, or another --out"
            )

    def _upgrade(self) -> None:
        taker = taker_of(self.path.parent)
        if taker not in {None, f"process {os.getpid()}"}:
            raise QueueError(
                f"{self.path} is in use by an older version of topic-import ({taker}): wait until "
                "it ends, or stop it; this version continues its job"
            )
        with self.transaction():
            # Asked again inside the transaction: another process may have done it meanwhile.
            if (version := _version(self._db)) in UPGRADES:
                upgrade(self._db, version)

    def _make_tables(self) -> None:
        for statement in SCHEMA.split(";"):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _translated(self, error: Exception) -> QueueError:
        what = f"the queue {self.path} cannot be used: {error}. "
        if isinstance(error, sqlite3.DatabaseError) and _is_damaged(error):
            return QueueError(
                f"{what}It is damaged, or no queue at all: restore it from a copy, or give another "
                "--out"
            )
        if _is_locked(error):
            return QueueError(
                f"{what}Another process has kept it locked for {BUSY_TIMEOUT_S:.0f} s: end that "
                "one, then run the same command again. If there is none, files cannot be locked "
                "there: --out must lie on a disk of this machine"
            )
        if any(mark in str(error) for mark in _FORBIDDEN):
            return QueueError(f"{what}Give this user the right to write to it and to its directory")
        return QueueError(
            f"{what}Nothing is lost; make room or mend what it names, then run the same command "
            "again"
        )


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(
        uri,
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _mode(path: Path, *, read_only: bool) -> str:
    if not read_only:
        return "mode=rw"
    has_log = path.with_name(f"{path.name}-wal").exists()
    # If the process may not write to the directory, SQLite cannot make the shared memory that it
    # needs beside the file. Nobody writes to a queue without a log, so it can be read without it.
    at_rest = not has_log and not os.access(path.parent, os.W_OK)
    return "mode=ro&immutable=1" if at_rest else "mode=ro"


def _has_no_tables_yet(path: Path, db: sqlite3.Connection) -> bool:
    """Return whether the first run was killed before it had made its tables."""
    if path.with_name(f"{path.name}-journal").exists() and path.stat().st_size <= FIRST_PAGE_BYTES:
        # The first page was being written. A reader without the right to write can neither roll
        # that back nor read the file.
        return True
    return _is_empty(db)


def _is_empty(db: sqlite3.Connection) -> bool:
    return not (_version(db) or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _is_locked(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _is_damaged(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
