"""The distributed queue (Redis) as the jobs use it."""

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from worker.intake.formats.json_lines import Line
from worker.intake.reader import read
from worker.jobs import UsageError
from worker.jobs.communities_reached import communities_reached
from worker.jobs.engine import (
    Choice,
    Dismissed,
    GiveUp,
    OpenFeed,
    OpenTaker,
    Replayed,
    Show,
    Standing,
    unfinished_lines,
)
from worker.jobs.from_settings import NO_REDIS, job_identity, record_rules
from worker.outputs.copies import Copies
from worker.outputs.report import WORST_LISTED, community_lines, letters_dict, sums
from worker.queues.directory_lock import DirectoryLock
from worker.queues.letters import content_of
from worker.rules.counts import Counts
from worker.rules.record import Record, content_hash, on_one_line
from worker.rules.result_lines import matches_source
from worker.rules.topic.topic import RecordRules, Topic
from worker.settings.model import Settings

if TYPE_CHECKING:
    from worker.queues.redis.feed import RedisFeed
    from worker.queues.redis.queue import RedisQueue

AHEAD_MAX = 500
RedisLetter = tuple[bytes, bytes]
"""The ID of a dead letter's entry, and its line."""


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

    importing_command = "serve"

    async def replay(self, choice: Choice, *, dry_run: bool, show: Show) -> Replayed:
        """Put the chosen dead letters back; raises QueueError while Redis is away."""
        matched = replayed = refused = 0
        async with self._impatient_feed() as queue:
            async for page in _chosen(queue, choice, show):
                fit = await self._fit(queue, page)
                matched += len(page)
                refused += len(page) - len(fit)
                replayed += len(fit) if dry_run else await queue.requeue(fit)
            return Replayed(matched, replayed, refused, await queue.counts())

    async def _fit(self, queue: "RedisFeed", page: list[RedisLetter]) -> list[RedisLetter]:
        """Return the dead letters whose records are valid now, and in no conflict."""
        bytes_max = self._settings.records.max_line_bytes
        whole = await queue.whole_records([entry_id for entry_id, _ in page], bytes_max)
        rules = record_rules(self._settings)
        judged = [
            (letter, record.source, record.topic)
            for letter, beside in zip(page, whole, strict=True)
            for record in [_read(letter[1], beside, rules)]
            if isinstance(record.topic, Topic)
        ]
        holders = await queue.holders([topic.topic_id or "" for _, _, topic in judged])
        return [
            letter
            for (letter, source, topic), holder in zip(judged, holders, strict=True)
            if holder is None
            or holder.makes_way
            or source == holder.source
            or holder.content == content_of(topic).hex()
        ]

    async def dismiss(self, choice: Choice, *, dry_run: bool, show: Show) -> Dismissed:
        """Dismiss what is chosen; raises QueueError while Redis is away."""
        letters = queued = taken = 0
        async with self._impatient_feed() as queue:
            async for page in _chosen(queue, choice, show):
                letters += len(page) if dry_run else await queue.dismiss(page, time.time())
            rules, bytes_max = self._record_rules_and_bytes_max()
            for group_id in communities_reached(choice, self._out):
                async for found in queue.queued_of(group_id, rules, bytes_max):
                    chosen = [
                        one
                        for one in found
                        if choice.source is None or matches_source(one.entry.source, choice.source)
                    ]
                    free = [one for one in chosen if not one.is_taken]
                    done = len(free) if dry_run else await queue.dismiss_queued(free, time.time())
                    queued += done
                    taken += len(chosen) - done
            return Dismissed(letters, queued, taken, await queue.counts())

    def _record_rules_and_bytes_max(self) -> tuple[RecordRules, int]:
        return record_rules(self._settings), self._settings.records.max_line_bytes

    @asynccontextmanager
    async def _impatient_feed(self) -> AsyncIterator["RedisFeed"]:
        """Open the queue for a command that does not wait for a Redis that is away."""
        queue = self._feed(is_patient=False)
        try:
            await queue.open(job_identity(self._settings))
            yield queue
        finally:
            await queue.close()

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
            return RedisQueue(
                StreamUrl.parse(self._url), taking, copy=copies, ahead_max=self._ahead_max()
            )

    def _ahead_max(self) -> int:
        """Return how many deliveries may be taken in advance: a second of quota at most."""
        quota_per_s = self._settings.rate.calls_per_second
        return min(AHEAD_MAX, max(1, int(quota_per_s))) if quota_per_s else AHEAD_MAX


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


async def _chosen(
    queue: "RedisFeed", choice: Choice, show: Show
) -> AsyncIterator[list[RedisLetter]]:
    """Yield the chosen dead letters of now in pages, and show each."""
    async for page in queue.letters():
        chosen = [letter for letter in page if choice.matches(letter[1])]
        for _, line in chosen:
            show(line)
        if chosen:
            yield chosen


def _read(line: bytes, beside: bytes | int, rules: RecordRules) -> Record:
    """Read a dead letter as the intake would, with the whole record that is kept beside its line.

    `beside`: this record; a number without one, or if it is too long.
    """
    if isinstance(beside, int):
        return read("dead", Line(1, line, content_hash(line)), rules)
    letter = {name: value for name, value in orjson.loads(line).items() if name != "raw"}
    whole = orjson.dumps(letter).removesuffix(b"}") + b',"record":' + on_one_line(beside) + b"}"
    return read("dead", Line(1, whole, content_hash(whole)), rules)
