"""The two engines of the queue as a long-lived service works with them."""

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from worker.job_directory import DEAD_LETTER_NAME, IMPORTED_NAME, QUEUE_NAME
from worker.jobs import UsageError, parts
from worker.logs import logger
from worker.outputs.copied_file import CopiedFile
from worker.queues.contract import Queue
from worker.queues.directory_lock import DirectoryLock
from worker.queues.sqlite.queue import SqliteQueue
from worker.rules.counts import Counts
from worker.rules.outcome import Delivery, Outcome
from worker.settings.model import Settings

if TYPE_CHECKING:
    from worker.queues.redis.feed import RedisFeed
    from worker.queues.redis.queue import RedisQueue

log = logger()

GiveUp = Callable[[], None]
"""Ends all waiting for a queue's server."""


Engine = Queue
"""What a service needs of a queue: the half of the contract that is taken from."""


class EmbeddedEngine:
    """The embedded queue and the files that follow it."""

    trouble: str | None = None
    found: Mapping[str, int] = MappingProxyType({})

    def __init__(self, name: str, queue: SqliteQueue, files: parts.ResultFiles) -> None:
        self.name = name
        self._queue = queue
        self._files = files

    @property
    def is_drained(self) -> bool:
        return self._queue.is_drained

    async def take(self, count: int, *, untried_first: bool = False) -> list[Delivery]:
        return await self._queue.take(count, untried_first=untried_first)

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        await self._queue.settle(outcomes)
        await self._queue.run(self._files.follow)
        return outcomes

    async def counts(self) -> Counts:
        # Letters that somebody replays leave their file at the next look.
        await self._queue.run(self._files.finish)
        return await self._queue.counts()

    async def is_empty(self) -> bool:
        return (await self.counts()).queued == 0

    async def oldest_age_s(self) -> float:
        return await self._queue.oldest_age_s()


class Copies:
    """A replica's copy of the results in Redis, as files.

    Lines that the disk refuses wait in memory; `trouble` says so. Raises OSError at its making.
    """

    def __init__(self, out: Path, rotate_at_bytes: int) -> None:
        self.trouble: str | None = None
        self._waiting: dict[str, list[bytes]] = {"imported": [], "dead": []}
        with ExitStack() as opened:
            names = {"imported": IMPORTED_NAME, "dead": DEAD_LETTER_NAME}
            self._files = {
                kind: opened.enter_context(
                    closing(CopiedFile(out / name, rotate_at_bytes=rotate_at_bytes))
                )
                for kind, name in names.items()
            }
            self._opened = opened.pop_all()

    def append(self, lines: Mapping[str, list[bytes]]) -> None:
        """Add lines by kind, now or when there is room again."""
        for kind, of_kind in lines.items():
            self._waiting[kind] += of_kind
        self.flush()

    def flush(self) -> None:
        """Try to write what waits."""
        trouble = None
        for kind, lines in self._waiting.items():
            try:
                self._files[kind].append(lines)
            except OSError as error:
                advice = "; make room" if error.errno in parts.OUT_OF_ROOM else ""
                trouble = f"{self._files[kind].path}: {error.strerror}{advice}"
            else:
                lines.clear()
        if trouble and not self.trouble:
            log.error("the copy of the results cannot be written; waiting for it", reason=trouble)
        self.trouble = trouble

    def close(self) -> None:
        """Close the files; what they lack is in the streams."""
        self.flush()
        lacking = sum(map(len, self._waiting.values()))
        if lacking:
            log.error("the copy of the results lacks what the streams hold", lines=lacking)
        self._opened.close()


@asynccontextmanager
async def open_engine(
    settings: Settings, out: Path, on_opening: Callable[[GiveUp], None]
) -> AsyncIterator[Engine]:
    """Open the queue that the settings name, as its taker. Raises QueueError, OSError.

    `on_opening` is handed what gives up a server: opening may wait for one, too.
    """
    url = parts.redis_url(settings, out)
    opened = _distributed(settings, out, url, on_opening) if url else _embedded(settings, out)
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
            yield EmbeddedEngine(str(out / QUEUE_NAME), queue, files)
            await queue.run(files.finish)
        finally:
            files.close()
    finally:
        queue.close()


@asynccontextmanager
async def _distributed(
    settings: Settings, out: Path, url: str, on_opening: Callable[[GiveUp], None]
) -> AsyncIterator[Engine]:
    lock = DirectoryLock(out)
    try:
        with closing(Copies(out, settings.outputs.max_bytes)) as copies:
            queue = _redis_queue(settings, url, out, copies)
            on_opening(queue.give_up)
            try:
                await queue.open(parts.job_identity(settings))
                yield queue
            finally:
                queue.give_up()
                await queue.close()
    finally:
        lock.release()


def redis_feed(url: str, *, is_patient: bool = True) -> "RedisFeed":
    """Make a view of the queue in Redis to put into it. Raises UsageError for a wrong URL."""
    with _usage_errors():
        from worker.queues.redis.feed import RedisFeed  # noqa: PLC0415 - an extra
        from worker.queues.redis.streams import StreamUrl  # noqa: PLC0415

        return RedisFeed(StreamUrl.parse(url), is_patient=is_patient)


def _redis_queue(settings: Settings, url: str, out: Path, copies: Copies) -> "RedisQueue":
    with _usage_errors():
        from worker.queues.redis.queue import RedisQueue, Taking  # noqa: PLC0415 - an extra
        from worker.queues.redis.streams import StreamUrl  # noqa: PLC0415

        taking = Taking(
            consumer=_consumer_name(out),
            lease_s=settings.queue.lease,
            keep_results=settings.queue.keep_results,
            rules=parts.record_rules(settings),
            line_bytes_max=settings.records.max_line_bytes,
        )
        return RedisQueue(StreamUrl.parse(url), taking, copy=copies)


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Say what a user can do about a missing extra, or a URL that redis-py does not take."""
    try:
        yield
    except ImportError:
        raise UsageError(f"queue.url: {parts.NO_REDIS}") from None
    except ValueError as error:
        raise UsageError(f"queue.url: {error}") from None


def _consumer_name(out: Path) -> str:
    """Name this replica so that a restart in the same place finds what it held."""
    return f"{socket.gethostname()}:{os.path.abspath(out)}"  # noqa: PTH100 - no links resolved
