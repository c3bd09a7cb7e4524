"""The two engines of the queue as a long-lived service works with them."""

import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from worker.delivery import Delivery
from worker.jobs import UsageError, assembly, parts
from worker.outcome import Counts, Outcome
from worker.outputs import CopiedFile
from worker.queues import QueueError
from worker.queues.lock import DirectoryLock
from worker.queues.sqlite import SqliteQueue
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.queues.redis import RedisQueue


class Engine(Protocol):
    """A queue, and what a service tells of it."""

    async def take(self, count: int) -> list[Delivery]: ...

    async def settle(self, outcomes: list[Outcome]) -> None: ...

    async def counts(self) -> Counts: ...

    async def is_empty(self) -> bool:
        """Whether nothing waits and nobody holds anything."""
        ...

    async def oldest_age_s(self) -> float: ...

    def give_up(self) -> None:
        """Wait for the queue's server no longer."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why the queue cannot be used now."""
        ...

    @property
    def lost(self) -> int:
        """Records that were in the queue and are gone, by nobody of ours."""
        ...

    @property
    def duplicates(self) -> int:
        """Records found to be in the queue already, when they were taken."""
        ...


class EmbeddedEngine:
    """The embedded queue and the files that follow it."""

    trouble = None
    lost = 0
    duplicates = 0

    def __init__(self, queue: SqliteQueue, files: parts.ResultFiles) -> None:
        self._queue = queue
        self._files = files
        self._oldest: tuple[int | None, float] = (None, 0.0)

    async def take(self, count: int) -> list[Delivery]:
        return await self._queue.take(count)

    async def settle(self, outcomes: list[Outcome]) -> None:
        await self._queue.settle(outcomes)
        await self._queue.run(self._files.follow)

    async def counts(self) -> Counts:
        return await self._queue.counts()

    async def is_empty(self) -> bool:
        return (await self.counts()).queued == 0

    async def oldest_age_s(self) -> float:
        """Seconds for which this process has seen the same record as the oldest."""
        oldest, now_s = await self._queue.run(self._queue.store.oldest_queued), time.monotonic()
        if oldest != self._oldest[0]:
            self._oldest = (oldest, now_s)
        return 0.0 if oldest is None else now_s - self._oldest[1]

    def give_up(self) -> None:
        """Its server is this process."""


class Copies:
    """A replica's copy of the results in Redis, as files."""

    def __init__(self, out: Path, rotate_at_bytes: int) -> None:
        names = {"imported": parts.IMPORTED_NAME, "dead": parts.DEAD_LETTER_NAME}
        self._files = {
            kind: CopiedFile(out / name, rotate_at_bytes=rotate_at_bytes)
            for kind, name in names.items()
        }

    def append(self, kind: str, lines: list[bytes]) -> None:
        """Add lines. Raises QueueError where the disk refuses: the job waits for room."""
        try:
            self._files[kind].append(lines)
        except OSError as error:
            raise QueueError(f"a result file: {error.strerror}; make room") from None

    def close(self) -> None:
        for file in self._files.values():
            file.close()


@asynccontextmanager
async def open_engine(settings: Settings, out: Path) -> AsyncIterator[Engine]:
    """Open the queue that the settings name, as its taker. Raises QueueError, OSError."""
    url = parts.redis_url(settings, out)
    opened = _distributed(settings, out, url) if url else _embedded(settings, out)
    async with opened as engine:
        yield engine


@asynccontextmanager
async def _embedded(settings: Settings, out: Path) -> AsyncIterator[Engine]:
    queue = SqliteQueue(out)
    try:
        await queue.become_taker(parts.job_identity(settings))
        files = parts.ResultFiles(out, queue.store, rotate_at_bytes=settings.outputs.max_bytes)
        try:
            await queue.run(lambda: files.reconcile([]))
            yield EmbeddedEngine(queue, files)
            await queue.run(files.finish)
        finally:
            files.close()
    finally:
        queue.close()


@asynccontextmanager
async def _distributed(settings: Settings, out: Path, url: str) -> AsyncIterator[Engine]:
    lock = DirectoryLock(out)
    copies = Copies(out, settings.outputs.max_bytes)
    queue = redis_queue(settings, url, consumer=consumer_name(out), copies=copies)
    try:
        await queue.open(parts.job_identity(settings))
        yield queue
    finally:
        await queue.close()
        copies.close()
        lock.release()


def redis_queue(
    settings: Settings, url: str, *, consumer: str = "", copies: Copies | None = None
) -> "RedisQueue":
    """Make a view of the queue in Redis. Raises UsageError for what is wrong with its URL."""
    try:
        from worker.queues.redis import RedisQueue, Taking  # noqa: PLC0415 - an extra
        from worker.queues.redis_streams import StreamUrl  # noqa: PLC0415
    except ImportError:
        raise UsageError(f"queue.url: {assembly.NO_REDIS}") from None
    taking = Taking(
        consumer=consumer,
        lease_s=settings.queue.lease,
        keep_results=settings.queue.keep_results,
        rules=parts.record_rules(settings),
        line_bytes_max=settings.records.max_line_bytes,
    )
    try:
        return RedisQueue(StreamUrl.parse(url), taking, copy=copies)
    except (ValueError, TypeError) as error:
        raise UsageError(f"queue.url: {error}") from None


def consumer_name(out: Path) -> str:
    """Name this replica so that a restart in the same place finds what it held."""
    return f"{socket.gethostname()}:{os.path.abspath(out)}"  # noqa: PTH100 - no links resolved
