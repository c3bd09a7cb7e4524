"""The embedded queue (`queue.sqlite3`): one thread, group commit, one taker at a time."""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from worker.delivery import Delivery
from worker.outcome import Counts, Outcome
from worker.queues import JobIdentity, QueueError, QueueTakenError
from worker.queues.sqlite_store import SqliteStore
from worker.record import Record

FILE_NAME = "queue.sqlite3"
LOCK_NAME = "queue.lock"
LOCK_ATTEMPTS = 5
LOCK_PAUSE_S = 0.05

Result = TypeVar("Result")


class SqliteQueue:
    """The queue of one job on one machine.

    All SQL runs in one thread of its own. Commits are durable against power loss
    (`synchronous = FULL`): a taker must never forget that it may have called.
    """

    def __init__(self, directory: Path) -> None:
        self._store = SqliteStore(directory / FILE_NAME)
        self._directory = directory
        self._lock_file: int | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="queue")

    def __repr__(self) -> str:
        return f"<SqliteQueue {self._directory / FILE_NAME}>"

    @property
    def store(self) -> SqliteStore:
        """The store itself, for what runs inside `run`."""
        return self._store

    async def run(self, job: Callable[[], Result]) -> Result:
        """Run a job in the queue's thread, after all that was asked for before it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def become_taker(self, identity: JobIdentity) -> tuple[bool, int]:
        """Become the one taker of this job, and take back what a dead one held.

        Whether the queue was used before, and how many were taken back. Raises QueueTakenError
        while another process is the taker, JobMismatchError where the queue is another job's.
        """
        self._lock_file = _lock(self._directory / LOCK_NAME)
        was_used = await self.run(lambda: self._store.identify(identity))
        return was_used, await self.run(self._store.recover)

    async def mark_input(self, path: str, *, unfinished: bool) -> None:
        """Note that an input is being read, or was read to its end."""
        await self.run(lambda: self._store.mark_input(path, unfinished=unfinished))

    async def put(self, records: list[Record]) -> int:
        """Put a batch with its positions; how many records were not read before."""
        return await self.run(lambda: self._store.put(records))

    async def take(self, count: int) -> list[Delivery]:
        """Take up to `count` topics in the order in which they were put."""
        taken = await self.run(lambda: self._store.take(count))
        return [Delivery(row.id, row.topic, row.history) for row in taken]

    async def settle(self, outcomes: list[Outcome]) -> None:
        """Settle or release a batch, atomic with the counts."""
        await self.run(lambda: self._store.settle(outcomes))

    async def counts(self) -> Counts:
        return await self.run(self._store.counts)

    def close(self) -> None:
        """Finish what was asked for, close the file, stop being the taker."""
        self._thread.shutdown(wait=True)
        try:
            self._store.close()
        finally:
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None


def taker_of(directory: Path) -> str | None:
    """Tell who takes from a job's queue now; None where nobody does."""
    try:
        lock_file = os.open(directory / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.read(lock_file, 100).decode(errors="replace").strip() or "unknown process"
    finally:
        os.close(lock_file)
    return None


def _lock(path: Path) -> int:
    try:
        lock_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise QueueError(f"{path}: {error.strerror}") from None
    if not _locked(lock_file):
        holder = os.read(lock_file, 100).decode(errors="replace").strip()
        os.close(lock_file)
        raise QueueTakenError(
            f"another topic-import ({holder or 'unknown process'}) takes from the queue in "
            f"{path.parent}: wait until it ends or stop it, or give another --out"
        )
    try:
        os.ftruncate(lock_file, 0)
        os.write(lock_file, f"process {os.getpid()}\n".encode())
    except OSError:
        # A full disk: the name in the message is all that is lost.
        pass
    return lock_file


def _locked(lock_file: int) -> bool:
    """Try for a moment: `status` holds the lock for the time of a look."""
    for attempt in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(LOCK_PAUSE_S if attempt + 1 < LOCK_ATTEMPTS else 0)
        else:
            return True
    return False
