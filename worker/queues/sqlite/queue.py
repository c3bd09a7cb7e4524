"""The embedded queue (`queue.sqlite3`): one thread, group commit, one taker at a time."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from worker.job_directory import QUEUE_NAME
from worker.queues.contract import JobIdentity
from worker.queues.directory_lock import DirectoryLock, WatchedFile
from worker.queues.sqlite.store import SqliteStore
from worker.rules.counts import CommunityLetters, Counts
from worker.rules.outcome import Delivery, Outcome
from worker.rules.record import Record
from worker.rules.surroundings import Surroundings

if TYPE_CHECKING:
    from worker.queues.contract import Feed, Queue

Result = TypeVar("Result")


class SqliteQueue:
    """The queue of one job on one machine: both halves of the contract.

    All SQL runs in one thread of its own. Commits are durable against power loss
    (`synchronous = FULL`): a taker must never forget that it may have called.
    """

    trouble: str | None = None
    """Always None: a disk that refuses raises QueueError at once."""
    found: Mapping[str, int] = MappingProxyType({})
    """Always empty: every record is checked when it is put."""

    def __init__(self, directory: Path) -> None:
        self._store = SqliteStore(directory / QUEUE_NAME)
        self._directory = directory
        self._file = WatchedFile(directory / QUEUE_NAME)
        self._lock: DirectoryLock | None = None
        self._oldest: tuple[int | None, float] = (None, 0.0)
        self.is_drained = False
        """Whether the last `take` returned all that was ready."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="queue")

    def __repr__(self) -> str:
        return f"<SqliteQueue {self._directory / QUEUE_NAME}>"

    @property
    def name(self) -> str:
        """The path of the queue's file."""
        return str(self._directory / QUEUE_NAME)

    @property
    def store(self) -> SqliteStore:
        """The store itself, for jobs that run inside `run`."""
        return self._store

    async def run(self, job: Callable[[], Result]) -> Result:
        """Run a job in the queue's thread, after all jobs that were given before it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def become_taker(
        self, identity: JobIdentity, *, job_id: str | None = None
    ) -> tuple[bool, int]:
        """Become the one taker of this job, and make ready what a dead taker held (R14).

        `job_id`: the ID for a queue that has none yet.
        Returns whether the queue was used before, and how many records were made ready. Raises
        QueueTakenError while another process is the taker, JobMismatchError if the queue belongs
        to another job.
        """
        self._lock = DirectoryLock(self._directory)
        was_used = await self.run(lambda: self._store.identify(identity, job_id=job_id))
        return was_used, await self.run(self._store.recover)

    def check_place(self) -> None:
        """Raise QueueError if the directory or the queue's file was removed or replaced."""
        if self._lock:
            self._lock.check()
            self._file.check()

    # ---- the half that is fed

    async def put(self, records: list[Record]) -> int:
        """Store a batch in one transaction. Returns how many of its records were new."""
        return await self.run(lambda: self._store.put(records))

    async def surroundings(self, records: list[Record]) -> list[Surroundings]:
        """Return what is known around changed lines with dead letters, see the contract."""
        return await self.run(lambda: self._store.surroundings(records))

    async def requeue(self, letters: list[Record]) -> int:
        """Put dead letters back in one transaction. Returns how many were put back.

        `letters`: the records in them, as the intake reads a dead letter (`asked_again`).
        """
        return await self.run(lambda: self._store.requeue(letters))

    async def mark_input(self, path: str, *, unfinished: bool) -> None:
        """Remember that an input is being read, or was read to its end."""
        await self.run(lambda: self._store.mark_input(path, unfinished=unfinished))

    async def unfinished_inputs(self) -> list[str]:
        """Return the paths of the inputs that were never read to their end."""
        return await self.run(self._store.unfinished_inputs)

    # ---- the half that is taken from

    async def take(
        self,
        count: int,
        *,
        untried_first: bool = False,
        without: frozenset[str] = frozenset(),
    ) -> list[Delivery]:
        """Take up to `count` topics in the order in which they were put.

        `untried_first`: records with attempts come last, of all that the queue holds. `without`:
        the communities that are held now; their records are passed over, without a bound.

        Raises QueueError if the disk refuses, or if somebody removed the queue.
        """
        self.check_place()
        taken = await self.run(
            lambda: self._store.take(count, untried_first=untried_first, without=without)
        )
        self.is_drained = len(taken) < count
        return taken

    async def take_of(self, group_id: str, count: int) -> list[Delivery]:
        """Take up to `count` topics of one community, held or not, the fewest attempts first.

        Raises QueueError as `take`.
        """
        self.check_place()
        return await self.run(lambda: self._store.take_of(group_id, count))

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Settle or release a batch in one transaction. Returns all of it.

        Raises QueueError for a record that was settled before: no reply is ever lost here.
        """
        await self.run(lambda: self._store.settle(outcomes))
        return outcomes

    async def counts(self) -> Counts:
        """Return how many records are in which state."""
        return await self.run(self._store.counts)

    async def worst_communities(self, count: int) -> list[CommunityLetters]:
        """Return the communities with the most dead letters of one reason and code, worst first."""
        return await self.run(lambda: self._store.worst_communities(count))

    async def is_empty(self) -> bool:
        """Return whether no record is queued."""
        return (await self.counts()).queued == 0

    async def oldest_age_s(self) -> float:
        """Return for how many seconds this process has seen the same record as the oldest."""
        oldest, now_s = await self.run(self._store.oldest_queued), time.monotonic()
        if oldest != self._oldest[0]:
            self._oldest = (oldest, now_s)
        return 0.0 if oldest is None else now_s - self._oldest[1]

    def close(self) -> None:
        """Finish the jobs that were given, close the file, stop being the taker."""
        self._thread.shutdown(wait=True)
        try:
            self._store.close()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None


if TYPE_CHECKING:
    _FEED: type[Feed[Record]] = SqliteQueue
    _QUEUE: type[Queue] = SqliteQueue
