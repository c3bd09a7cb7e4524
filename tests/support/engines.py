"""The engines of the queue's contract with one face, for one suite of tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import orjson
import redis

from tests.support.queues import RULES
from tests.support.redis_server import RedisServer
from worker.queues.contract import JobIdentity
from worker.queues.redis.queue import Copy, RedisQueue, Taking
from worker.queues.redis.streams import StreamUrl
from worker.queues.sqlite.queue import SqliteQueue
from worker.rules.counts import Counts
from worker.rules.outcome import Delivery, Outcome
from worker.rules.record import Record
from worker.rules.topic.topic import RecordRules

OURS = JobIdentity("1400000000", "", "derive")
LEASE_S = 60.0
Letters = list[dict[str, Any]]


class Queue(Protocol):
    """The contract, and what a test looks at beside it."""

    async def put(self, records: list[Record]) -> int: ...

    async def take(self, count: int) -> list[Delivery]: ...

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]: ...

    async def counts(self) -> Counts: ...

    async def mark_input(self, path: str, *, unfinished: bool) -> None: ...

    async def unfinished_inputs(self) -> list[str]: ...

    async def dead_letters(self) -> Letters:
        """Read them, and see that the counts are those of what is there."""
        ...

    async def end(self) -> None: ...


class SqliteUnderTest(SqliteQueue):
    """The embedded engine."""

    async def dead_letters(self) -> Letters:
        assert await self.counts() == self.store.counts_by_counting()
        return [orjson.loads(line) for _, line in self.store.lines("dead", 0, 100)]

    async def end(self) -> None:
        self.close()


class RedisUnderTest(RedisQueue):
    """The distributed engine on a real server."""

    async def dead_letters(self) -> Letters:
        found = [orjson.loads(line) async for page in self.letters() for _, line in page]
        counts, lengths = await self.look()
        assert (counts.queued, counts.dead) == (lengths["queued"], lengths["dead"])
        assert sum(counts.by_reason.values()) == counts.dead == len(found)
        return found

    async def fall_silent(self) -> None:
        """Refresh nothing any more, as a process that is stopped, while it holds what it took."""
        self._is_closing = True
        self._hold_now.set()
        assert self._holding is not None
        await self._holding

    async def end(self) -> None:
        await self.close()


def redis_queue(
    server: RedisServer,
    consumer: str = "one",
    *,
    lease_s: float = LEASE_S,
    keep: int = 1_000_000,
    rules: RecordRules = RULES,
    line_bytes_max: int = 1 << 20,
    copy: Copy | None = None,
) -> RedisUnderTest:
    """Make a consumer's view of the queue on a server, for `open`."""
    url = StreamUrl.parse(f"{server.url}?stream=topics&group=importers")
    taking = Taking(consumer, lease_s, keep, rules, line_bytes_max)
    return RedisUnderTest(url, taking, copy=copy)


async def open_redis(server: RedisServer, consumer: str = "one", **options: Any) -> RedisUnderTest:
    """Open the queue on a server as a consumer; options as of `redis_queue`."""
    queue = redis_queue(server, consumer, **options)
    await queue.open(OURS)
    return queue


@contextmanager
def running(binary: Path, directory: Path, *options: str) -> Iterator[RedisServer]:
    """Run a server for as long as it is needed."""
    server = RedisServer(binary, directory, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def flush(server: RedisServer) -> None:
    """Empty a server between two tests."""
    with redis.Redis(port=server.port) as client:
        client.flushall()
