"""The embedded queue (`queue.sqlite3`): one thread, group commit, one taker at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from worker.job_directory import QUEUE_NAME
from worker.queues.contract import JobIdentity
from worker.queues.directory_lock import DirectoryLock
from worker.queues.sqlite.store import SqliteStore
from worker.rules.counts import Counts
from worker.rules.outcome import Delivery, Outcome
from worker.rules.record import Record

Result = TypeVar("Result")


class SqliteQueue:
    """The queue of one job on one machine.

    All SQL runs in one thread of its own. Commits are durable against power loss
    (`synchronous = FULL`): a taker must never forget that it may have called.
    """

    def __init__(self, directory: Path) -> None:
        self._store = SqliteStore(directory / QUEUE_NAME)
        self._directory = directory
        self._lock: DirectoryLock | None = None
        self.is_drained = False
        """Whether the last take found all that was there."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="queue")

    def __repr__(self) -> str:
        return f"<SqliteQueue {self._directory / QUEUE_NAME}>"

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
        self._lock = DirectoryLock(self._directory)
        was_used = await self.run(lambda: self._store.identify(identity))
        return was_used, await self.run(self._store.recover)

    async def mark_input(self, path: str, *, unfinished: bool) -> None:
        """Note that an input is being read, or was read to its end."""
        await self.run(lambda: self._store.mark_input(path, unfinished=unfinished))

    async def put(self, records: list[Record]) -> int:
        """Put a batch with its positions; how many records were not read before."""
        return await self.run(lambda: self._store.put(records))

    async def take(self, count: int, *, untried_first: bool = False) -> list[Delivery]:
        """Take up to `count` topics in the order in which they were put.

        `untried_first`: those that were called before come last.

        Raises QueueError where the disk refuses, or where somebody removed the directory.
        """
        if self._lock:
            self._lock.check()
        taken = await self.run(lambda: self._store.take(count, untried_first=untried_first))
        self.is_drained = len(taken) < count
        return taken

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Settle or release a batch, atomic with the counts; returns all of it."""
        await self.run(lambda: self._store.settle(outcomes))
        return outcomes

    async def counts(self) -> Counts:
        return await self.run(self._store.counts)

    def close(self) -> None:
        """Finish what was asked for, close the file, stop being the taker."""
        self._thread.shutdown(wait=True)
        try:
            self._store.close()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None
