"""The distributed queue (Redis) as the jobs use it."""

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from worker.jobs import UsageError
from worker.jobs.engine import (
    Choice,
    GiveUp,
    OpenFeed,
    OpenTaker,
    Replayed,
    Standing,
    unfinished_lines,
)
from worker.jobs.from_settings import NO_REDIS, job_identity, record_rules
from worker.outputs.copies import Copies
from worker.outputs.report import WORST_LISTED, community_lines, letters_dict, sums
from worker.queues.directory_lock import DirectoryLock
from worker.rules.counts import Counts
from worker.settings.model import Settings

if TYPE_CHECKING:
    from worker.queues.redis.feed import RedisFeed
    from worker.queues.redis.queue import RedisQueue


class DistributedEngine:
    """The queue in Redis at `url`; `out` holds this replica's copy of the results."""

    def __init__(self, settings: Settings, out: Path, url: str) -> None:
        self._settings = settings
        self._out = out
        self._url = url

    @asynccontextmanager
    async def open_taker(self, on_opening: Callable[[GiveUp], None]) -> AsyncIterator[OpenTaker]:
        """Open the queue to take from; see `Engine.open_taker`."""
        lock = DirectoryLock(self._out)
        try:
            with closing(Copies(self._out, self._settings.outputs.max_bytes)) as copies:
                queue = self._taker(copies)
                on_opening(queue.give_up)
                try:
                    await queue.open(job_identity(self._settings))
                    yield OpenTaker(queue)
                finally:
                    queue.give_up()
                    await queue.close()
        finally:
            lock.release()

    @asynccontextmanager
    async def open_feed(self) -> AsyncIterator[OpenFeed]:
        """Open the queue to put into it; putting waits for a Redis that is away."""
        queue = self._feed()
        try:
            await queue.open(job_identity(self._settings))
            yield OpenFeed(queue, queue.give_up)
        finally:
            queue.give_up()
            await queue.close()

    async def standing(self) -> Standing:
        """Return what the streams hold, and what each consumer has in hand."""
        queue = self._feed()
        try:
            counts, lengths = await queue.counts_and_lengths()
            consumers, unfinished = await queue.consumers(), await queue.unfinished_inputs()
            oldest_s = await queue.oldest_age_s()
            worst = await queue.worst_communities(WORST_LISTED)
        finally:
            await queue.close()
        agrees = lengths["dead"] == counts.dead and not counts.lost
        facts = counts.as_dict() | {
            "by_community": [letters_dict(letters) for letters in worst],
            "pending": consumers,
            "streams": lengths,
            "oldest_s": round(oldest_s, 1),
            "unfinished_inputs": unfinished,
            "agree": agrees,
        }
        lines = [queue.name, *_lines(counts, lengths, consumers, oldest_s)]
        lines += community_lines(worst, {})
        return Standing(facts, [*lines, *unfinished_lines(unfinished)], agrees)

    async def replay(self, choice: Choice) -> Replayed:
        """Put the chosen dead letters back; raises QueueError while Redis is away."""
        queue = self._feed(is_patient=False)
        try:
            await queue.open(job_identity(self._settings))
            matched = replayed = 0
            async for page in queue.letters():
                chosen = [letter for letter in page if choice.matches(letter[1])]
                matched += len(chosen)
                replayed += await queue.requeue(chosen) if chosen else 0
            counts = await queue.counts()
        finally:
            await queue.close()
        return Replayed(matched, replayed, "were put back by somebody else", counts)

    def _feed(self, *, is_patient: bool = True) -> "RedisFeed":
        with _usage_errors():
            from worker.queues.redis.feed import RedisFeed  # noqa: PLC0415 - an extra
            from worker.queues.redis.streams import StreamUrl  # noqa: PLC0415

            return RedisFeed(StreamUrl.parse(self._url), is_patient=is_patient)

    def _taker(self, copies: Copies) -> "RedisQueue":
        with _usage_errors():
            from worker.queues.redis.queue import RedisQueue, Taking  # noqa: PLC0415 - an extra
            from worker.queues.redis.streams import StreamUrl  # noqa: PLC0415

            taking = Taking(
                consumer=_consumer_name(self._out),
                lease_s=self._settings.queue.lease,
                keep_results=self._settings.queue.keep_results,
                rules=record_rules(self._settings),
                line_bytes_max=self._settings.records.max_line_bytes,
            )
            return RedisQueue(StreamUrl.parse(self._url), taking, copy=copies)


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Raise UsageError for a missing extra, or for a URL that redis-py refuses."""
    try:
        yield
    except ImportError:
        raise UsageError(f"queue.url: {NO_REDIS}") from None
    except ValueError as error:
        raise UsageError(f"queue.url: {error}") from None


def _consumer_name(out: Path) -> str:
    """Return the name of this replica; a restart in the same place has the same name."""
    return f"{socket.gethostname()}:{os.path.abspath(out)}"  # noqa: PTH100 - no links resolved


def _lines(
    counts: Counts, lengths: dict[str, int], consumers: dict[str, int], oldest_s: float
) -> list[str]:
    lines = sums(counts)
    if counts.queued:
        lines.append(f"the oldest has been in the queue for {oldest_s:.0f} s")
    lines += [f"{consumer} holds {pending:,}" for consumer, pending in consumers.items()]
    if counts.lost:
        lines.append(
            "LOST: records that were taken, and that Redis no longer held when they were due"
        )
    if lengths["dead"] != counts.dead:
        lines.append(f"the stream of dead letters holds {lengths['dead']:,}, not {counts.dead:,}")
    return lines
